"""How long do small reads take while others read much? One client asks for 100 MB all the time, some for windows.

The clients of the small reads and the one of the large are processes of their own. A bare server, waitress with
one Falcon route, answers beside the same large reads: what it takes is what the machine has left for anybody.
"""

import multiprocessing
import statistics
import sys
import tempfile
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from bench import datasets, peers, report
from bench.hdf5 import write_hdf5
from bench.load import Load, load


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each round (default: 3)")
    parser.add_argument("--clients", type=int, default=4, help="of small reads (default: 4)")
    args = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        files = folder / "beside"
        files.mkdir(parents=True, exist_ok=True)
        room = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        data = peers.Data(files, datasets.cube(files, 64), room)
        write_hdf5(files, data.native)
        urls = {name: targets[0].url for name, targets in peers.zcat(opened, data, []).targets.items()}
        load(urls["whole"], 1, 0)  # all of it is cached from here on
        urls["hello"] = peers.hello(opened, room)[1]
        loads: dict[tuple[str, str], list[Load]] = {}
        for number in range(args.rounds):
            for large in ("nothing", "100 MB"):
                for small in ("64x64", "hello"):
                    report.progress(f"round {number + 1}/{args.rounds} {small} beside {large}")
                    came = beside(urls.get(large), urls[small], args.clients, args.seconds)
                    loads.setdefault((small, large), []).append(came)
        lines = [
            {"small reads": small, "beside": large, **_medians(came)} for (small, large), came in loads.items()
        ]
        report.show_lines(f"Small reads of {args.clients} clients beside a large one", lines, args.json)


def beside(large: str | None, small: str, clients: int, seconds: float) -> Load:
    """Measure small reads while one process asks for something large all the time."""
    stop = multiprocessing.get_context("spawn").Event()
    with ExitStack() as opened:
        if large is not None:
            other = multiprocessing.get_context("spawn").Process(target=ask_until, args=(large, stop))
            other.start()
            opened.callback(other.join)
            opened.callback(stop.set)
            load(small, clients, 1.0)  # until the other one has begun
        return load(small, clients, seconds)


def ask_until(url: str, stop: Event) -> None:
    """Ask for the same again and again."""
    while not stop.is_set():
        load(url, 1, 0.2)


def _medians(loads: list[Load]) -> dict[str, Any]:
    names = ("requests_per_s", "p50_ms", "p99_ms", "client_share")
    return {name: statistics.median(getattr(one, name) for one in loads) for name in names}


if __name__ == "__main__":
    sys.exit(main())
