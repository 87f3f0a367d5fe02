import pytest
from memory_backend import opened

from zcat.errors import Stale

DATA = bytes(range(250))


@pytest.mark.parametrize(
    "span", [(0, None), (3, 9), (-5, None), (0, -5), (200, 1000), (-1000, 10), (9, 3), (5, 5)]
)
def test_bytes_are_read_with_the_rules_of_slices(span):
    backend, dataset = opened(DATA)
    wanted = DATA[span[0] : span[1]]
    assert dataset.read(*span) == wanted
    assert backend.calls == (["read"] if wanted else [])


def test_a_file_is_bytes_with_a_length():
    _, dataset = opened("größe".encode())
    assert len(dataset) == dataset.nbytes == 7
    assert bytes(dataset) == "größe".encode()
    assert dataset.text() == "größe"
    assert dataset.attrs == {"n": [1]}
    assert repr(dataset) == "<zcat.ByteFrame lab/x 7 bytes>"


def test_an_empty_file_is_true_and_read_without_a_question():
    backend, dataset = opened(b"")
    assert dataset
    assert bytes(dataset) == b""
    assert backend.calls == []


def test_a_file_of_another_length_is_refused_until_refreshed():
    backend, dataset = opened(b"before")
    backend.put("x", b"thereafter")
    with pytest.raises(Stale):
        dataset.read()
    dataset.refresh()
    assert dataset.text() == "thereafter"


def test_a_file_that_is_rewritten_is_read_anew():
    backend, dataset = opened(b"before")
    backend.before_read = [lambda: backend.put("x", b"behind")]
    assert dataset.text() == "behind"
