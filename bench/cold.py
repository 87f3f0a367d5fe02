"""What does a slice cost of which nothing is cached: time, bytes and round trips, in blocks and in whole chunks?

Broker and publisher are one process, the subscriber is another, with an empty cache for each row of each round.
What is timed begins when the dataset is known and ends when the values are there. ``--sweep`` reads more and more
of one chunk in blocks and whole: where these cross is the border in ``zcat.protocol.block_plan``.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from bench import datasets, report
from bench.replicate import serve_zcat, started
from zcat.config import SubscriberConfig
from zcat.model.selection import parse_key
from zcat.protocol.block_plan import PlanLimits
from zcat.services.subscriber import Subscriber
from zcat.services.window import Supply
from zcat.storage.reading import let_threads_run

PLANES = 32
SQUARE_BLOCKS = (1, 64, 128)
POINTS = 100


def squares(folder: Path, source: Path) -> Path:
    """Write the cube once more, in blocks that suit small squares."""
    path = folder / "squares.b2nd"
    if not path.exists():
        cube = blosc2.open(str(source), mode="r")
        aside = path.with_suffix(".part")
        made = cube.copy(chunks=cube.chunks, blocks=SQUARE_BLOCKS, urlpath=str(aside), mode="w")
        del made
        aside.rename(path)
    return path


def selections() -> dict[str, tuple[Any, ...]]:
    """Name what is read: of chunks of 4 MiB, one for each plane."""
    points = np.random.default_rng(1).integers(0, (PLANES, 1024, 1024), (POINTS, 3))
    return {
        "64x64": (7, slice(512, 576), slice(300, 364)),
        "row": (7, 512),
        "column": (slice(None), 512, 300),
        f"{POINTS} points": tuple(points.T),
    }


class Cold:
    """Reads with a new subscriber each time."""

    def __init__(self, brokers: tuple[str, ...], room: Path) -> None:
        self._brokers = brokers
        self._room = room

    def read(self, path: str, key: tuple[Any, ...], how: PlanLimits | None) -> tuple[float, int, int]:
        """Give the milliseconds, the bytes and the round trips that a read takes."""
        cache = tempfile.mkdtemp(dir=self._room)
        subscriber = Subscriber(
            SubscriberConfig(brokers=self._brokers, cache=cache, reserve_bytes=0, prefetch_bytes=0)
        )
        trips = _Trips(subscriber)
        subscriber.start()
        try:
            subscriber.follow("bench")
            what = parse_key(
                key, subscriber.on_version("bench", path, lambda it: it.info.geometry.array.shape)
            ).what
            supply = subscriber._supply
            subscriber._supply = lambda target: _limited(supply(target), how)  # type: ignore[method-assign]
            begun_s = time.perf_counter()
            subscriber.on_version("bench", path, lambda dataset: dataset.read(what))
            took_s = time.perf_counter() - begun_s
            return took_s * 1e3, int(subscriber.health()["fetched"]["bytes"]), trips.count
        finally:
            subscriber.close()
            shutil.rmtree(cache)


class _Trips:
    """Counts round trips: requests that leave after an answer has come begin another one."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.count = 0
        self._is_answered = True
        fetching = subscriber.around.fetcher
        origins = fetching.whole._origins
        self._send, self._arrived = origins.send, fetching.arrived
        origins.send = self._sent  # type: ignore[method-assign]
        fetching.arrived = self._came  # type: ignore[method-assign]

    def _sent(self, ask: Any) -> bool:
        self.count += self._is_answered
        self._is_answered = False
        return self._send(ask)

    def _came(self, *answer: Any) -> None:
        self._is_answered = True
        self._arrived(*answer)


def _limited(supply: Supply, how: PlanLimits | None) -> Supply:
    return Supply(supply.target, supply.fetcher, supply.blocks, how)


def measure(cold: Cold, files: list[Path], count: int) -> list[report.Row]:
    """Read each selection of each file in blocks, by the rule, and whole."""
    rows: dict[str, report.Row] = {}
    notes: dict[str, list[tuple[int, int]]] = {}
    cases: dict[str, Callable[[], float]] = {}

    def case(name: str, path: str, key: tuple[Any, ...], how: PlanLimits | None) -> float:
        took_ms, nbytes, trips = cold.read(path, key, how)
        notes.setdefault(name, []).append((nbytes, trips))
        return took_ms

    chunk_bytes = float(np.mean(datasets.chunk_sizes(files[0])))
    for path in files:
        for what, key in selections().items():
            for how, limits in (("blocks", PlanLimits()), ("whole", None)):
                name = f"{path.stem} {what}, {how}"
                cases[name] = partial(case, name, path.name, key, limits)
    for row in report.rounds(cases, "ms", count):
        nbytes, trips = max(notes[row.name])
        row.notes = {"KB": nbytes / 1e3, "% of a chunk": 100 * nbytes / chunk_bytes, "round trips": trips}
        rows[row.name] = row
    return list(rows.values())


def sweep(cold: Cold, path: Path, count: int) -> list[report.Row]:
    """Read more and more rows of one chunk, in blocks whatever the share, and whole."""
    always = PlanLimits(share_max=1.0)
    cases = {
        f"{share:g} % of a chunk, {how}": partial(_took, cold, path.name, round(1024 * share / 100), limits)
        for share in (3.125, 12.5, 25, 37.5, 50, 62.5, 75, 100)
        for how, limits in (("blocks", always), ("whole", None))
    }
    return report.rounds(cases, "ms", count)


def _took(cold: Cold, path: str, height: int, how: PlanLimits | None) -> float:
    return cold.read(path, (7, slice(0, height)), how)[0]


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__.split("\n")[0])
    parser.add_argument(
        "--sweep", action="store_true", help="look for the share of a chunk at which the whole wins"
    )
    options = parser.parse_args()
    let_threads_run()
    with ExitStack() as opened:
        room = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        folder = Path(options.folder) if options.folder else room / "data"
        folder.mkdir(exist_ok=True)
        cube = datasets.cube(folder, PLANES)
        square = squares(folder, cube)
        pipe = started(opened, serve_zcat, str(folder), str(room / "publisher"))
        cold = Cold(pipe.recv(), room)
        if options.sweep:
            rows = sweep(cold, square, options.rounds)
        else:
            rows = measure(cold, [cube, square], options.rounds)
    report.show("A first read, of which nothing is cached", rows, {}, options.json)


if __name__ == "__main__":
    main()
