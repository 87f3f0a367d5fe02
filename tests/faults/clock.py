"""Runs zcat with clocks that jump while it runs: ``python clock.py FILE ARGUMENTS OF ZCAT``.

FILE holds two float64, in seconds: what is added to the monotonic and to the wall clock. The kernel can give a
process another monotonic clock only at its start (time namespaces), and has but one wall clock for the whole
machine, which no test may touch; so jumps are made where this process reads its clocks.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

SIZE = 16


def offsets(path: Path, monotonic_s: float, wall_s: float) -> None:
    """Let the clocks of whoever runs with this file jump."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(struct.pack("=dd", monotonic_s, wall_s))


def _install(path: Path) -> None:
    with path.open("rb") as file:
        told = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)
    monotonic, wall, wall_ns = time.monotonic, time.time, time.time_ns

    def added(number: int) -> float:
        return float(struct.unpack("=dd", told[:SIZE])[number])

    time.monotonic = lambda: monotonic() + added(0)
    time.time = lambda: wall() + added(1)
    time.time_ns = lambda: wall_ns() + int(added(1) * 1e9)


if __name__ == "__main__":
    _install(Path(sys.argv[1]))
    from zcat.cli.main import main

    sys.argv[:2] = ["zcat"]
    sys.exit(main())
