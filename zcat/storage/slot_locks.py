"""Locks on bytes of a slotted frame, between processes: who reads a slot keeps others from punching it.

They are Linux's open file description locks (fcntl(2)): the kernel lets go of them when their owner dies,
however it dies, so that no reader that was killed keeps anything from being evicted. Each that is held has an
open file of its own, since the locks of one open file merge: what one thread lets go of would be lost to
another.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Iterable

from zcat.storage.disk import storage_failed

SUPPORTED = hasattr(fcntl, "F_OFD_SETLK")
"""False where several processes cannot share a cache."""

_FLOCK = struct.Struct("@hhqqi4x")
_NOT_NOW = (BlockingIOError, PermissionError)  # EAGAIN and EACCES: fcntl(2) allows both


class SlotLocks:
    """Shared locks for the readers of one file. Any thread may call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[int] | None = []

    def hold(self, spans: Iterable[tuple[int, int]]) -> int:
        """Hold on to bytes, waiting for who is punching them just now.

        Args:
            spans: first byte and length of each range.

        Returns:
            What `let_go` wants.

        Raises:
            StorageFailed: no descriptor is left.
        """
        with self._lock:
            fd = self._idle.pop() if self._idle else -1
        if fd < 0:
            fd = self._opened()
        for start, length in spans:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0))
        return fd

    def let_go(self, fd: int) -> None:
        """End what `hold` began; a thread may end what another began."""
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
        with self._lock:
            if self._idle is not None:
                self._idle.append(fd)
                return
        os.close(fd)

    def close(self) -> None:
        """Close what is not held; the rest is closed when it is let go of."""
        with self._lock:
            idle, self._idle = self._idle or [], None
        for fd in idle:
            os.close(fd)

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_failed("opening a cached dataset once more", error) from None


def take(fd: int, start: int, length: int) -> bool:
    """Take bytes for oneself, to punch them; False if a reader of another process holds some of them.

    Args:
        fd: of the file, opened for writing; readers of this very descriptor are not seen.
        start: the first byte.
        length: how many.
    """
    if not SUPPORTED:
        return True
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except _NOT_NOW:
        return False
    return True


def give_back(fd: int) -> None:
    """Let go of all that `take` took."""
    if SUPPORTED:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
