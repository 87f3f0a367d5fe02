"""File descriptors: as many as may be had, and a word in the log before there are none left.

A process without any goes on with the connections that it has, and libzmq and waitress take no further ones,
without a word. Whoever wonders why nobody new gets through should find it in the log.
"""

import errno
import logging
import os
import resource
import threading
from collections.abc import Callable
from typing import NoReturn

from zcat.logs import kv

SERVICE_FILES = 65_536
"""What a broker or publisher may open: a connection of each follower, and several of each publisher."""
SHORT = 0.1
"""Of the limit: so few left are a warning; twice as many are enough again."""

LOOK_S = 1.0

log = logging.getLogger(__name__)


def raise_file_limit(wanted: int) -> None:
    """Let this process open ``wanted`` files, or as many as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("few files may be open %s", kv(wanted=wanted, allowed=allowed, ulimit="-n"))


def used_and_limit() -> tuple[int, int]:
    """Count the descriptors that this process has open, and say how many it may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir("/proc/self/fd")) - 1, limit
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return limit, limit  # not even one is left, to count the others with


def watch_descriptors() -> NoReturn:
    """Look for ever, once a second: what a thread does that has nothing else to do."""
    watch, never = DescriptorWatch(), threading.Event()
    while True:
        never.wait(LOOK_S)
        watch.look()


class DescriptorWatch:
    """Warns when few descriptors are left, and says when there are enough again. Look every second or so."""

    def __init__(self, counted: Callable[[], tuple[int, int]] = used_and_limit) -> None:
        self._counted = counted
        self._is_short = False

    def look(self) -> None:
        """Compare with the limit; log only what is new."""
        used, limit = self._counted()
        if limit == resource.RLIM_INFINITY:
            return
        left = limit - used
        if not self._is_short and left <= SHORT * limit:
            self._is_short = True
            log.warning(
                "file descriptors run out, new connections have to wait %s",
                kv(used=used, limit=limit, ulimit="-n"),
            )
        elif self._is_short and left > 2 * SHORT * limit:
            self._is_short = False
            log.info("enough file descriptors again %s", kv(used=used, limit=limit))
