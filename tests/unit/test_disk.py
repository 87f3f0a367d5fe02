import errno
import os

import pytest

from zcat.errors import BadContent, StorageFailed
from zcat.storage.disk import allocate, pread_exactly, punch_hole, pwrite_all


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_what_is_written_is_read(fd):
    pwrite_all(fd, memoryview(b"abcdef"), 10)
    assert pread_exactly(fd, 3, 12) == b"cde"


def test_a_file_that_ends_before_is_bad_content(fd):
    pwrite_all(fd, b"abc", 0)
    with pytest.raises(BadContent, match="ends at 3"):
        pread_exactly(fd, 4, 0)


def test_failures_carry_the_errno_and_a_sentence():
    full = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(StorageFailed, match="writing 3 bytes at 0: No space left") as caught:
        pwrite_all(full, b"abc", 0)
    os.close(full)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.message.startswith("writing")
    with pytest.raises(StorageFailed, match="reading") as caught:
        pread_exactly(-1, 1, 0)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(StorageFailed, match="freeing"):
        punch_hole(-1, 0, 1)
    with pytest.raises(StorageFailed, match="setting 1 bytes aside at 0: Bad file descriptor") as caught:
        allocate(-1, 0, 1)
    assert caught.value.errno == errno.EBADF


def test_room_that_is_set_aside_changes_neither_length_nor_content(fd):
    pwrite_all(fd, b"abc", 100)
    allocate(fd, 0, 8192)
    assert os.fstat(fd).st_size == 103
    pwrite_all(fd, b"d", 5000)
    assert pread_exactly(fd, 5001, 0) == bytes(100) + b"abc" + bytes(4897) + b"d"


def test_a_hole_reads_as_zeros_and_takes_no_disk(fd):
    pwrite_all(fd, b"x" * 65536, 0)
    if not punch_hole(fd, 4096, 32768):
        pytest.skip("this file system has no holes")
    assert pread_exactly(fd, 65536, 0) == b"x" * 4096 + bytes(32768) + b"x" * 28672
    assert os.fstat(fd).st_blocks * 512 <= 32768 + 4096
