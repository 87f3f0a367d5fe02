"""Memory that is at hand: on a virtual machine, what the host took back costs more to touch than to copy."""

import mmap

TOUCHED_BYTES = 1 << 29
_STEP_BYTES = 1 << 21


def touch(nbytes: int = TOUCHED_BYTES) -> None:
    """Have as much free memory at hand as a measurement takes, so that it is not the host that is measured.

    Guests tell their hosts which memory is free, and get it again page by page: a file of 480 MB was written at
    0.4 GB/s then, and at 3 GB/s the next time. Machines without a host do not care.
    """
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, nbytes, _STEP_BYTES):
            memory[at : at + _STEP_BYTES] = bytes(_STEP_BYTES)
