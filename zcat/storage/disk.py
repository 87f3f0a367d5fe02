"""Positional reads and writes of open files that finish what they began, and say in our words why not.

Whoever catches `StorageFailed` from here finds the system's ``errno`` in it: a full disk asks for something
else than a broken one.
"""

import ctypes
import errno
import os

from zcat.errors import BadContent, StorageFailed

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def pread_exactly(fd: int, size: int, at: int) -> bytes:
    """Read ``size`` bytes at ``at``.

    Raises:
        BadContent: the file ends before.
        StorageFailed: the disk refused.
    """
    try:
        data = os.pread(fd, size, at)
        while len(data) < size:
            more = os.pread(fd, size - len(data), at + len(data))
            if not more:
                raise BadContent(f"the file ends at {at + len(data)}, {size} bytes were wanted at {at}")
            data += more
    except OSError as error:
        raise storage_failed(f"reading {size} bytes at {at}", error) from None
    return data


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, at: int) -> None:
    """Write all of ``data`` at ``at``; one system call, unless the system itself cuts it.

    Raises:
        StorageFailed: the disk refused; a part may have been written.
    """
    try:
        written = os.pwrite(fd, data, at)
        while written < len(data):
            written += os.pwrite(fd, memoryview(data)[written:], at + written)
    except OSError as error:
        raise storage_failed(f"writing {len(data)} bytes at {at}", error) from None


def allocate(fd: int, at: int, size: int) -> None:
    """Have the disk set room aside for what is about to be written into a hole; an advice, so it may do nothing.

    PERF: ext4 reserves the room of a plain write block by block: 1.3 GB/s into a hole, 4.5 into room set aside.

    Raises:
        StorageFailed: there is no room, or the disk refused.
    """
    if _LIBC.fallocate(fd, _FALLOC_FL_KEEP_SIZE, at, size):
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR):
            raise storage_failed(f"setting {size} bytes aside at {at}", OSError(number, os.strerror(number)))


def punch_hole(fd: int, at: int, size: int) -> bool:
    """Give a range of a file back to the disk; it reads as zeros then. Linux only.

    Returns:
        False where the file system cannot do that: nothing was changed.

    Raises:
        StorageFailed: the disk refused.
    """
    if _LIBC.fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, at, size) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise storage_failed(f"freeing {size} bytes at {at}", OSError(number, os.strerror(number)))


def storage_failed(what: str, error: OSError) -> StorageFailed:
    """Make the error that says what was tried, and carries the system's ``errno``."""
    failure = StorageFailed(f"{what}: {error.strerror or error}")
    failure.errno = error.errno
    return failure


def is_lack(error: Exception) -> bool:
    """Say whether an error is of what this process has no more of for the moment, and no word about any file."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
