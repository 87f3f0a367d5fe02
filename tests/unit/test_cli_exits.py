import pytest

from zcat.cli import exits
from zcat.errors import ERROR_OF_CODE, BadSelection, DatasetUnknown, Timeout, ZcatError


def test_every_error_has_an_exit_status_of_its_own_line():
    assert set(exits.STATUS_OF) == set(ERROR_OF_CODE.values())


def test_every_status_has_a_meaning():
    assert set(exits.STATUS_OF.values()) <= set(exits.MEANINGS)


def test_no_failure_looks_like_success():
    assert exits.OK not in exits.STATUS_OF.values()


@pytest.mark.parametrize("code", sorted(ERROR_OF_CODE))
def test_the_table_names_every_code(code):
    words = exits.table().replace(",", " ").split()
    assert code in words


def test_an_heir_of_a_known_class_has_its_status():
    class NewKind(DatasetUnknown):
        """Of a later version."""

    assert exits.status_of(NewKind("x")) == exits.MISSING
    assert exits.status_of(BadSelection("x")) == exits.REFUSED
    assert exits.status_of(Timeout("x")) == exits.UNREACHABLE
    assert exits.status_of(ZcatError("x")) == exits.FAILED
