import logging
import resource

import pytest

from zcat.net import descriptors
from zcat.net.descriptors import DescriptorWatch, raise_file_limit, used_and_limit


def said(caplog):
    return [record.message.partition(" ")[0] for record in caplog.records if record.name == descriptors.log.name]


def test_a_lack_of_descriptors_is_told_once_and_its_end_too(caplog):
    counted = iter([(80, 100), (90, 100), (99, 100), (100, 100), (85, 100), (79, 100), (80, 100), (95, 100)])
    watch = DescriptorWatch(lambda: next(counted))
    with caplog.at_level(logging.INFO, descriptors.log.name):
        for _ in range(8):
            watch.look()
    assert said(caplog) == ["file", "enough", "file"]
    assert "used=90 limit=100" in caplog.text


def test_without_a_limit_there_is_no_lack(caplog):
    DescriptorWatch(lambda: (10**6, resource.RLIM_INFINITY)).look()
    assert not said(caplog)


def test_a_process_that_has_no_descriptor_left_knows_it(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used, limit = used_and_limit()
    assert 0 < used < limit == soft
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.listdir", _without_descriptors)
        assert used_and_limit() == (limit, limit)
    raise_file_limit(soft)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def _without_descriptors(path):
    raise OSError(24, "Too many open files", path)
