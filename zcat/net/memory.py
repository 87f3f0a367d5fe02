"""Have the C library keep the memory that chunks leave behind, for the next ones."""

import ctypes
import logging

from zcat.limits import MIB

_M_TRIM_THRESHOLD = -1  # <malloc.h> of glibc
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 256 * MIB
_FROM_HEAP_BYTES_MAX = 32 * MIB  # the most that glibc takes; larger blocks come from the kernel each time

log = logging.getLogger(__name__)


def keep_freed_memory() -> None:
    """Tell glibc's malloc, once for the process; elsewhere nothing happens.

    PERF: ZeroMQ receives each chunk into memory from malloc, and by default each block of that size goes back to
    the kernel, to come again as empty pages: for a copy of 480 MB that was 62 000 page faults in a publisher and
    a third of its system time, and 40 000 in a subscriber; with this, a few hundred.
    """
    try:
        libc = ctypes.CDLL(None)
        kept = libc.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES_MAX) and libc.mallopt(
            _M_TRIM_THRESHOLD, _KEPT_BYTES
        )
    except (OSError, AttributeError):  # another C library
        kept = 0
    if not kept:
        log.debug("malloc keeps its own habits")


def return_freed_memory() -> None:
    """Give the kernel what is free, for who has just let go of a lot and may not need it again soon.

    Takes some 75 ms for a few gigabytes, during which other threads may have to wait for memory.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        log.debug("malloc keeps what is free")
