"""How much of a disk a cache may take: its quota, and what must stay free for everybody else."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from zcat.errors import StorageFailed
from zcat.limits import GIB, MIB
from zcat.logs import RateLimiter, kv
from zcat.storage.disk import is_lack

LOW_WATER = 0.9
"""Making room goes on down to this share of the quota, so that not every store has to make some."""

FULL_FOR_S = 5.0
"""After the disk refused, nothing is stored for so long."""

_FREE_TRUSTED_BYTES = 64 * MIB
"""Written between two looks at the free space, since ``statvfs`` asks a server on network file systems."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """What an operator decides about a cache's disk."""

    quota_bytes: int
    reserve_share: float = 0.05
    """Of the file system: the cache does not write when less is free."""
    reserve_bytes: int = GIB
    """The same, as a size. The larger of the two counts."""


class DiskBudget:
    """Counts the bytes of a cache and refuses those that are too many, after room was made for them.

    The count is arithmetic, not a look at the disk: a store costs no walk. Any thread may call.
    """

    def __init__(
        self,
        folder: str,
        limits: DiskLimits,
        make_room: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing used.

        Args:
            folder: on the file system in question.
            limits: of this cache.
            make_room: asked to `release` at least so many bytes, or as many as it can. One call at a time.
            clock: monotonic seconds.
        """
        self._folder = folder
        self._limits = limits
        self._make_room = make_room
        self._clock = clock
        self._lock = threading.Lock()  # of the numbers; never held while others are called
        self._room_lock = threading.Lock()  # of making room
        self._used_bytes = 0
        self._trusted_bytes = 0
        self._full_until_s = float("-inf")
        self._warnings = RateLimiter(per_s=1 / 60)

    @property
    def used_bytes(self) -> int:
        """What the cache has on disk, and what was claimed and is being written."""
        return self._used_bytes

    def claim(self, nbytes: int) -> None:
        """Take ``nbytes`` of the budget before writing them; `release` them if that failed.

        Raises:
            StorageFailed: they do not fit beside what readers hold on to, or the disk refused a moment ago.
        """
        if self._clock() < self._full_until_s:
            raise StorageFailed(f"{self._folder}: the disk is full; nothing is cached for some seconds")
        quota = self._limits.quota_bytes
        if nbytes > quota:
            raise StorageFailed(f"{self._folder}: {nbytes} bytes do not fit the cache's quota of {quota}")
        if self._take(nbytes):
            return
        with self._room_lock:
            if self._take(nbytes):
                return
            self._make_room(max(self._used_bytes + nbytes - int(quota * LOW_WATER), self._short_bytes(nbytes)))
            if not self._take(nbytes):
                short_bytes = self._short_bytes(nbytes)
                if short_bytes > 0 and self._warnings.allow("short", self._clock()):
                    log.warning(
                        "the cache's disk is too full, reads go on uncached %s",
                        kv(folder=self._folder, used_bytes=self._used_bytes, short_bytes=short_bytes),
                    )
                raise StorageFailed(f"{self._folder}: no room for {nbytes} bytes in the cache's quota of {quota}")

    def count(self, nbytes: int) -> None:
        """Count ``nbytes`` that are on disk already."""
        with self._lock:
            self._used_bytes += nbytes

    def release(self, nbytes: int) -> None:
        """Give back bytes that are no longer on disk, or were never written."""
        self.count(-nbytes)

    def refused(self, error: OSError) -> StorageFailed:
        """Take note that the disk refused a write: store nothing for a while, and give some room back.

        Where only this process lacks something, such as descriptors, nothing is given back: it has to do without.

        Returns:
            The error to raise.
        """
        failure = StorageFailed(f"{self._folder}: {error.strerror or error}")
        if is_lack(error):
            return failure
        with self._lock:
            self._full_until_s = self._clock() + FULL_FOR_S
            self._trusted_bytes = 0
        if self._warnings.allow("refused", self._clock()):
            log.warning(
                "the cache's disk refused a write, reads go on uncached %s",
                kv(folder=self._folder, error=error.strerror or error, used_bytes=self._used_bytes),
            )
        with self._room_lock:
            self._make_room(int(self._used_bytes * (1 - LOW_WATER)))
        return failure

    def _take(self, nbytes: int) -> bool:
        with self._lock:
            if self._used_bytes + nbytes > self._limits.quota_bytes:
                return False
            if nbytes > self._trusted_bytes:
                spare = -self._short_bytes(0)
                if spare < nbytes:
                    return False
                self._trusted_bytes = max(nbytes, min(spare // 4, _FREE_TRUSTED_BYTES))
            self._trusted_bytes -= nbytes
            self._used_bytes += nbytes
            return True

    def _short_bytes(self, nbytes: int) -> int:
        """Return how many bytes the free space is short of, if ``nbytes`` are written and the reserve kept."""
        disk = os.statvfs(self._folder)
        reserve = max(int(disk.f_blocks * disk.f_frsize * self._limits.reserve_share), self._limits.reserve_bytes)
        return nbytes + reserve - disk.f_bavail * disk.f_frsize
