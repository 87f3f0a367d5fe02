"""What do random points cost: by local Blosc2, by zcat with everything cached, and with nothing?

One array of one axis, cut as Blosc2 chooses. Local Blosc2 reads ``array[indices]`` of the publisher's file; zcat
reads in the process of its subscriber, as ``zcat.join`` does. All see the same indices in the same round.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import blosc2
import numpy as np

from bench import report
from bench.replicate import serve_zcat, started
from zcat.config import SubscriberConfig
from zcat.model.selection import Points
from zcat.services.subscriber import Subscriber

ITEMS, QUICK_ITEMS = 10**8, 10**7
COUNTS = (100, 1000, 10_000)


def line(folder: Path, items: int) -> Path:
    """Write a random walk of float32, zstd-1; an existing file is kept."""
    path = folder / f"line{items}.b2nd"
    if path.exists():
        return path
    walk = np.cumsum(np.random.default_rng(0).normal(size=items), dtype="f4")
    aside = path.with_suffix(".part")
    made = blosc2.asarray(walk, urlpath=str(aside), mode="w", cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1})
    del made
    aside.rename(path)
    return path


class Points1d:
    """The same points for everybody, others in each round."""

    def __init__(self, brokers: tuple[str, ...], room: Path, path: Path, items: int) -> None:
        self._brokers, self._room, self._path, self._items = brokers, room, path, items
        self._local = blosc2.open(str(path), mode="r", mmap_mode="r")
        self._warm = self._subscriber("warm")
        self._warm.on_version("bench", path.name, lambda dataset: dataset.fetch())
        self._indices: dict[int, np.ndarray] = {}

    def close(self) -> None:
        self._warm.close()

    def local(self, count: int) -> float:
        """Draw points, and read them by Blosc2; give milliseconds."""
        self._indices[count] = np.random.default_rng().integers(0, self._items, count)
        return _timed(lambda: self._local[self._indices[count]])

    def warm(self, count: int) -> float:
        return self._read(self._warm, count)

    def cold(self, count: int) -> float:
        subscriber = self._subscriber("cold")
        try:
            return self._read(subscriber, count)
        finally:
            subscriber.close()
            shutil.rmtree(self._room / "cold")

    def _read(self, subscriber: Subscriber, count: int) -> float:
        points, values = Points(self._indices[count][:, None]), []

        def read() -> None:
            values.append(subscriber.on_version("bench", self._path.name, lambda dataset: dataset.read(points)))

        took_ms = _timed(read)
        assert np.array_equal(values[0], self._local[self._indices[count]])
        return took_ms

    def _subscriber(self, cache: str) -> Subscriber:
        config = SubscriberConfig(brokers=self._brokers, cache=str(self._room / cache), reserve_bytes=0)
        subscriber = Subscriber(config)
        subscriber.start()
        subscriber.follow("bench")
        subscriber.on_version("bench", self._path.name, lambda dataset: dataset.info)
        return subscriber


def _timed(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return (time.perf_counter() - begun_s) * 1e3


def main() -> None:
    """Measure and print."""
    options = report.arguments(__doc__.split("\n")[0]).parse_args()
    items = QUICK_ITEMS if options.quick else ITEMS
    with ExitStack() as opened:
        room = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        folder = Path(options.folder) if options.folder else room / "data"
        folder.mkdir(exist_ok=True)
        path = line(folder, items)
        pipe = started(opened, serve_zcat, str(folder), str(room / "publisher"))
        points = Points1d(pipe.recv(), room, path, items)
        opened.callback(points.close)
        rows = []
        for count in COUNTS:
            cases = {
                f"{count} points, local blosc2": partial(points.local, count),
                f"{count} points, cached": partial(points.warm, count),
                f"{count} points, nothing cached": partial(points.cold, count),
            }
            found = report.rounds(cases, "ms", options.rounds)
            for row in found:
                row.notes = {"of local": row.median / found[0].median}
            rows += found
    report.show(f"Random points of {items} float32", rows, {}, options.json)


if __name__ == "__main__":
    main()
