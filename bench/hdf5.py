"""How fast do HDF5 files go through the network, beside h5py on the spot and a ``.b2nd`` file of the same values?

One file each of gzip, of the Blosc2 filter and uncompressed. A publisher that has converted nothing serves all of
them; the first reader of each makes it convert, later ones, and a "cold" read, get what is kept. Publisher and
readers are processes of their own, the files are in the page cache, and rates are of uncompressed bytes. Later
readers take turns with those of the ``.b2nd`` file, so that what else the machine does hits both.

Conversion alone is measured too, without a network: gzip, which the publisher's threads decode, and bitshuffle,
for which worker processes load HDF5; beside as many processes of h5py that read the same file.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import blosc2
import h5py
import hdf5plugin
import numpy as np

import zcat
from bench import datasets, memory, report
from bench.processes import end
from bench.replicate import started, time_fetch
from zcat.config import BrokerConfig, PublisherConfig
from zcat.limits import GIB
from zcat.net.memory import keep_freed_memory
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.directory_root import DirectoryTimes
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.hdf5.hdf5_file import Tools
from zcat.storage.hdf5.hdf5_files import Hdf5Files
from zcat.storage.hdf5.hdf5_root import Hdf5Root
from zcat.storage.hdf5.sandbox import Sandbox

STORED: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "blosc2": dict(hdf5plugin.Blosc2(cname="zstd", clevel=1)),
    "contiguous": {},
}
"""How the values lie in each HDF5 file; all but the last in chunks of 4 MiB, as in the ``.b2nd`` file."""

CONVERTED = {"gzip": STORED["gzip"], "bitshuffle": dict(hdf5plugin.Bitshuffle())}
AT_ONCE = (1, 2)
"""Threads, or worker processes, that convert."""

PLANES_AT_A_TIME = 8
SLICES = 100
LATER_READERS = 3
CATALOGUED, GROUPS = 10_000, 1000

Rows = dict[str, report.Row]


def write_hdf5(folder: Path, native: Path) -> None:
    """Write the values of a ``.b2nd`` file in each of the ways of `STORED`; existing files are kept."""
    values = blosc2.open(str(native), mode="r")
    for name, options in (CONVERTED | STORED).items():
        path = folder / f"{name}.h5"
        if path.exists():
            continue
        chunks = values.chunks if options else None
        with h5py.File(path.with_suffix(".part"), "w") as file:
            made = file.create_dataset("cube", values.shape, values.dtype, chunks=chunks, **options)
            for plane in range(values.shape[0]):
                made[plane] = values[plane]
        path.with_suffix(".part").rename(path)


def write_catalogue(path: Path) -> None:
    """Write a file of many small datasets in many groups; an existing one is kept."""
    if path.exists():
        return
    with h5py.File(path.with_suffix(".part"), "w") as file:
        for number in range(CATALOGUED):
            made = file.create_dataset(f"g{number % GROUPS:03}/d{number:05}", data=np.arange(16.0) + number)
            made.attrs["unit"] = "K"
    path.with_suffix(".part").rename(path)


def serve(pipe: Connection, folder: str, state: str, io_threads: int) -> None:
    """Run a broker and a publisher of ``folder``; send the seconds that the publisher took to start."""
    from zcat.services.broker import Broker
    from zcat.services.publisher import Publisher

    broker = Broker(BrokerConfig(listen="tcp://127.0.0.1:0"))
    broker.start()
    brokers = (broker.endpoints.listen,)
    config = PublisherConfig(root="bench", path=folder, state=state, brokers=brokers, io_threads=io_threads)
    publisher = Publisher(config)
    begun_s = time.perf_counter()
    publisher.start()
    pipe.send((brokers, time.perf_counter() - begun_s))
    pipe.recv()
    publisher.close()
    broker.close()
    pipe.send(None)


def read_zcat(pipe: Connection, brokers: tuple[str, ...], cache: str, path: str) -> None:
    """Read all values with an empty cache, and again; then slices. Send seconds of each."""
    with zcat.join(brokers, cache=cache, follow=["bench"]) as client:
        dataset = client[f"bench/{path}"]
        pipe.send((read_s(dataset), read_s(dataset), slice_s(dataset)))


def read_tree(pipe: Connection, brokers: tuple[str, ...], cache: str, path: str) -> None:
    """Follow a root, draw it as a tree, and list one group. Send seconds of each."""
    begun_s = time.perf_counter()
    with zcat.join(brokers, cache=cache, follow=["bench"]) as client:
        followed_s = time.perf_counter() - begun_s
        root = client.root("bench")
        tree_s = _took_s(root.tree)
        pipe.send((followed_s, tree_s, _took_s(lambda: root.list(path))))


def convert(pipe: Connection, file: str, state: str, count: int) -> None:
    """Convert a dataset by ``count`` threads, or worker processes; send the seconds."""
    keep_freed_memory()  # as a publisher does
    owner = "ab" * 16
    kept = ByteFrames(Path(state, "converted"), DiskLimits(8 * GIB, reserve_bytes=0), "bench", owner)
    files = Hdf5Files(Tools(owner, Sandbox(count), kept, Digests()), Path(state, "hdf5"))
    root = Hdf5Root(Path(file), owner, kept, DirectoryTimes(settle_s=0), files)
    root.look(None, {})
    info = root.info("cube")
    root.chunk("cube", info.entry.lineage, 0)  # workers start
    with ThreadPoolExecutor(count) as threads:
        numbers = range(1, info.geometry.nchunks)
        memory.touch()
        begun_s = time.perf_counter()
        for _ in threads.map(lambda number: root.chunk("cube", info.entry.lineage, number), numbers):
            pass  # nobody keeps them here
        took_s = time.perf_counter() - begun_s
    pipe.send(took_s * info.geometry.nchunks / len(numbers))
    root.close()


def read_part(pipe: Connection, file: str, part: int, count: int) -> None:
    """Read every ``count``-th plane by h5py, once told to; send that it is done."""
    with h5py.File(file) as opened:
        values = opened["cube"]
        values[part]
        pipe.send(None)
        pipe.recv()
        for plane in range(part, values.shape[0], count):
            values[plane]
    pipe.send(None)


def read_s(values: Any) -> float:
    """Give the seconds to read everything, some planes at a time."""
    begun_s = time.perf_counter()
    for plane in range(0, values.shape[0], PLANES_AT_A_TIME):
        values[plane : plane + PLANES_AT_A_TIME]
    return time.perf_counter() - begun_s


def slice_s(values: Any) -> float:
    """Give the median seconds to read a slice of 64 x 64, each of another plane."""
    times = []
    for number in range(SLICES):
        begun_s = time.perf_counter()
        values[number % values.shape[0], 500:564, 300:364]
        times.append(time.perf_counter() - begun_s)
    return statistics.median(times)


class Bench:
    """All measurements, and where their data lies."""

    def __init__(self, folder: Path, room: Path, planes: int) -> None:
        """Write the data."""
        self._files, self._many, self._room = folder / "data", folder / "many", room
        for each in (self._files, self._many):
            each.mkdir(parents=True, exist_ok=True)
        native = datasets.cube(self._files, planes)
        write_hdf5(self._files, native)
        write_catalogue(self._many / "many.h5")
        self.nbytes = planes * datasets.ROWS * datasets.COLUMNS * 4
        self.paths = {"native": native.name, **{name: f"{name}.h5/cube" for name in STORED}}

    def measure(self, rows: Rows) -> None:
        """Add one round to all rows."""
        for name in STORED:
            with h5py.File(self._files / f"{name}.h5") as file:
                self._add_rate(rows, f"read {name}: h5py", read_s(file["cube"]))
                _add(rows, f"slice {name}: h5py", "ms", slice_s(file["cube"]) * 1e3)
        self._served(1, lambda brokers: self._fetch(rows, brokers, "copy gzip: first reader, 1 thread", "gzip"))
        self._served(2, lambda brokers: self._measure_network(rows, brokers))
        self._measure_conversion(rows)
        self._measure_catalogue(rows)

    def _measure_network(self, rows: Rows, brokers: tuple[str, ...]) -> None:
        for name in self.paths:
            self._fetch(rows, brokers, f"copy {name}: first reader", name)
        for _ in range(LATER_READERS):
            for name in self.paths:
                self._fetch(rows, brokers, f"copy {name}: later reader", name)
        for name, path in self.paths.items():
            cold_s, warm_s, one_s = self._in_process(read_zcat, brokers, path)
            self._add_rate(rows, f"read {name}: cold", cold_s)
            self._add_rate(rows, f"read {name}: warm", warm_s)
            _add(rows, f"slice {name}: warm", "ms", one_s * 1e3)

    def _measure_conversion(self, rows: Rows) -> None:
        for name in CONVERTED:
            file = str(self._files / f"{name}.h5")
            for count in AT_ONCE:
                self._add_rate(rows, f"convert {name}: {count} of h5py, reading only", self._h5py_s(file, count))
                state = tempfile.mkdtemp(dir=self._room)
                with ExitStack() as opened:
                    took_s = started(opened, convert, file, state, count).recv()
                shutil.rmtree(state)
                self._add_rate(rows, f"convert {name}: {count} of zcat", took_s)

    def _h5py_s(self, file: str, count: int) -> float:
        with ExitStack() as opened:
            pipes = [started(opened, read_part, file, part, count) for part in range(count)]
            for pipe in pipes:
                pipe.recv()
            begun_s = time.perf_counter()
            for pipe in pipes:
                pipe.send(None)
            for pipe in pipes:
                pipe.recv()
            return time.perf_counter() - begun_s

    def _measure_catalogue(self, rows: Rows) -> None:
        begun_s = time.perf_counter()
        with h5py.File(self._many / "many.h5") as file:
            found: list[tuple[Any, ...]] = []
            file.visititems(lambda name, one: _noted(found, name, one))
        _add(rows, "catalogue: h5py's visititems, shape and dtype", "s", time.perf_counter() - begun_s)
        state = tempfile.mkdtemp(dir=self._room)
        for name in ("a publisher's first start", "its next start"):
            with ExitStack() as opened:
                pipe = started(opened, serve, str(self._many), state, 2)
                _, took_s = pipe.recv()
                pipe.send(None)
                pipe.recv()
            _add(rows, f"catalogue: {name}", "s", took_s)
        with ExitStack() as opened:
            pipe = started(opened, serve, str(self._many), state, 2)
            brokers, _ = pipe.recv()
            command = self._command_s(brokers)
            _add(rows, "catalogue: the command zcat publish, first start, until it is ready", "s", command)
            times = self._in_process(read_tree, brokers, "many.h5/g007")
            for name, took_s in zip(
                ("a subscriber follows", "drawn as a tree", "one group listed"), times, strict=True
            ):
                _add(rows, f"catalogue: {name}", "s", took_s)
        shutil.rmtree(state)

    def _command_s(self, brokers: tuple[str, ...]) -> float:
        """Give the seconds that the command takes until it says that it is ready."""
        state = tempfile.mkdtemp(dir=self._room)
        command = [sys.executable, "-m", "zcat", "--log-level", "error", "publish", "again", str(self._many)]
        command += ["--state", state, *(f"--broker={one}" for one in brokers)]
        begun_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        is_ready = bool(process.stdout.readline())
        took_s = time.perf_counter() - begun_s
        end(process)
        shutil.rmtree(state)
        assert is_ready
        return took_s

    def _served(self, io_threads: int, work: Callable[[tuple[str, ...]], None]) -> None:
        """Do something with a publisher that has converted nothing yet."""
        state = tempfile.mkdtemp(dir=self._room)
        with ExitStack() as opened:
            pipe = started(opened, serve, str(self._files), state, io_threads)
            brokers, _ = pipe.recv()
            work(brokers)
        shutil.rmtree(state)

    def _fetch(self, rows: Rows, brokers: tuple[str, ...], row: str, name: str) -> None:
        cache = tempfile.mkdtemp(dir=self._room)
        with ExitStack() as opened:
            took_s, _ = time_fetch(opened, brokers, cache, self.paths[name])
        shutil.rmtree(cache)
        self._add_rate(rows, row, took_s)

    def _in_process(self, function: Callable[..., None], brokers: tuple[str, ...], path: str) -> Any:
        """Run a reader with an empty cache in a process of its own; give what it sends."""
        cache = tempfile.mkdtemp(dir=self._room)
        with ExitStack() as opened:
            answer = started(opened, function, brokers, cache, path).recv()
        shutil.rmtree(cache)
        return answer

    def _add_rate(self, rows: Rows, name: str, took_s: float) -> None:
        _add(rows, name, "MB/s", self.nbytes / took_s / 1e6)


def _add(rows: Rows, name: str, unit: str, value: float) -> None:
    rows.setdefault(name, report.Row(name, unit)).values.append(value)
    report.progress(f"{name}: {value:.4g} {unit}")


def _took_s(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _noted(found: list[tuple[Any, ...]], name: str, one: Any) -> None:
    if isinstance(one, h5py.Dataset):
        found.append((name, one.shape, one.dtype))


def note_ratios(rows: Rows) -> None:
    """Note with each row of zcat how it is to h5py's of the same file; above 1 it is the better one."""
    for name, row in rows.items():
        if name.startswith("convert") and name.endswith("of zcat"):
            row.notes["of h5py"] = row.median / rows[name.replace("zcat", "h5py, reading only")].median
        what, _, how = name.partition(": ")
        local = rows.get(f"{what}: h5py")
        if local is not None and how != "h5py":
            ratio = row.median / local.median
            row.notes["of h5py"] = ratio if row.unit.endswith("/s") else 1 / ratio


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--size", type=int, default=256, help="MiB of values in each file (default: 256)")
    args = parser.parse_args()
    args.size = min(args.size, 64) if args.quick else args.size
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        room = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        bench = Bench(folder, room, max(1, args.size // 4))
        rows: Rows = {}
        for number in range(args.rounds):
            report.progress(f"round {number + 1}/{args.rounds}")
            bench.measure(rows)
        note_ratios(rows)
        size = f"{bench.nbytes / 1e6:.0f} MB of values in chunks of 4 MiB"
        native, gzip = "copy native: later reader", "read gzip: h5py"
        shown = [row for name, row in rows.items() if name.startswith("copy") or name == gzip]
        report.show(f"Copy of {size}", shown, {"of native": native, "of h5py reading gzip": gzip}, args.json)
        for what, title in {
            "read": f"Read of {size}",
            "slice": "Slice of 64 x 64, cached",
            "convert": f"Conversion of {size}, without a network",
            "catalogue": f"{CATALOGUED} datasets in {GROUPS} groups",
        }.items():
            report.show(title, [row for name, row in rows.items() if name.startswith(what)], {}, args.json)


if __name__ == "__main__":
    main()
