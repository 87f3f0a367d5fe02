"""What this machine can do at best: copying memory, reading cached files, moving bytes by TCP and by pyzmq.

All that zcat does is bounded by these; sizes are those of small parts, and of chunks. Sender and receiver are
processes of their own.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from bench import report
from bench.replicate import serve_tcp, serve_zmq, started, time_tcp, time_zmq

SIZES = {"64 KiB": 1 << 16, "1 MiB": 1 << 20, "4 MiB": 1 << 22}


def time_memcpy(source: np.ndarray, target: np.ndarray) -> float:
    """Copy once; give bytes per second."""
    begun_s = time.perf_counter()
    np.copyto(target, source)
    return source.nbytes / (time.perf_counter() - begun_s)


def time_read(path: Path, size: int) -> float:
    """Read a cached file piece by piece into the same memory; give bytes per second."""
    room = bytearray(size)
    with open(path, "rb", buffering=0) as file:
        begun_s, total = time.perf_counter(), 0
        while count := file.readinto(room):
            total += count
        return total / (time.perf_counter() - begun_s)


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=512, help="MiB to move each time (default: 512)")
    args = parser.parse_args()
    total = (min(args.size, 128) if args.quick else args.size) << 20
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        source = np.frombuffer(os.urandom(1 << 20) * (total >> 20), np.uint8)
        target = np.ones_like(source)
        path = folder / "cached"
        source.tofile(path)
        opened.callback(path.unlink)
        cases: dict[str, Callable[[], float]] = {
            f"memcpy, {total >> 20} MiB": partial(time_memcpy, source, target),
            "page cache, by 4 MiB": partial(time_read, path, 1 << 22),
        }
        for name, size in SIZES.items():
            sizes = [size] * (total // size)
            tcp, router = (started(opened, serve, sizes).recv() for serve in (serve_tcp, serve_zmq))
            cases[f"raw TCP, {name}"] = partial(time_tcp, tcp, sizes)
            cases[f"ROUTER to DEALER, {name}"] = partial(time_zmq, router, sizes)
        rows = report.rounds(cases, "B/s", args.rounds)
        for row in rows:
            row.values, row.unit = [value / 1e6 for value in row.values], "MB/s"
        against = {"of raw TCP by 4 MiB": "raw TCP, 4 MiB"}
        report.show("What this machine can do at best", rows, against, args.json)


if __name__ == "__main__":
    main()
