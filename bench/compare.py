"""How fast is zcat, beside other servers and local files of the same values, in one run?

Every server answers the same questions of the same load generator, in turn, several rounds over; tables have
medians. All that zcat serves is cached before. What is not installed is left out, with a word:
``bench/install_peers.sh FOLDER`` installs the others, ``--peers FOLDER`` names them. First every answer is
decoded once, and compared with the file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import blosc2
import h5py
import numpy as np

from bench import datasets, peers, report
from bench.hdf5 import write_hdf5
from bench.load import Load, load
from bench.peers import SLICES, Data, Server, Target
from bench.processes import answers, cpu_s, memory_mb, started
from zcat.model.selection import key_of_text

OPERATIONS = ("info", "64x64", "64x64 of gzip HDF5", "chunk", "plane", "100 MB", "whole")
MANY = frozenset({"info", "64x64"})
"""Asked by all numbers of clients; the others by no more than `FEW`."""
FEW = 8
REPEATS = {"64x64": 100, "plane": 20, "100 MB": 3}
"""Of local reads in each round."""
_HERE = {"PYTHONPATH": str(Path(__file__).parents[1])}


@dataclass
class Case:
    """One question to one server by so many clients."""

    operation: str
    server: Server
    target: Target
    clients: int
    loads: list[Load] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Of all rounds."""
        return statistics.median(getattr(load, name) for load in self.loads)


def main() -> None:
    """Measure and print."""
    args = _arguments()
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        files = folder / f"compared{args.planes}"
        files.mkdir(parents=True, exist_ok=True)
        room = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        data = Data(files, datasets.cube(files, args.planes), room)
        write_hdf5(files, data.native)
        servers = start(opened, data, args)
        at_rest = {server.name: memory_mb(server.pid) for server in servers}
        for server in servers:
            report.progress(f"checking what {server.name} answers")
            check(server, data.native)
        cases = list_cases(servers, [int(count) for count in args.clients.split(",")])
        local: dict[str, dict[str, list[float]]] = {}
        most: dict[str, float] = {}
        for number in range(args.rounds):
            report.progress(f"round {number + 1}/{args.rounds}")
            for case in cases:
                measure(case, args.seconds)
                own = memory_mb(case.server.pid)["own"]
                most[case.server.name] = max(most.get(case.server.name, 0), own)
            read_locally(local, data, args)
        for operation in OPERATIONS:
            lines = table(operation, [case for case in cases if case.operation == operation], local)
            report.show_lines(f"{operation} of {args.planes} x 1024 x 1024 float32", lines, args.json)
        lines = [
            {
                "server": server.name,
                "at rest, own MB": at_rest[server.name]["own"],
                "resident MB": memory_mb(server.pid)["resident"],
                "most, own MB": most[server.name],
            }
            for server in servers
        ]
        report.show_lines("Memory of the servers", lines, args.json)


def start(opened: ExitStack, data: Data, args: argparse.Namespace) -> list[Server]:
    """Start what is at hand; tell what is not."""
    installed = Path(args.peers or "peers")
    report.progress("starting zcat")
    servers = [peers.zcat(opened, data, args.set or [])]
    servers.append(_bare(opened, data))
    starters: dict[str, tuple[Path, Callable[[ExitStack, Data, Path], Server]]] = {
        "caterva2": (installed / "caterva2/bin/cat2-server", peers.caterva2),
        "h5grove": (installed / "h5grove/bin/uvicorn", peers.h5grove),
        "tiled": (installed / "tiled/bin/tiled", peers.tiled),
        "nginx": (installed / "nginx/usr/sbin/nginx", peers.nginx),
    }
    if args.caterva2:
        starters["caterva2"] = (Path(args.caterva2).absolute().parent / "cat2-server", peers.caterva2)
    for name, (program, starter) in starters.items():
        if not program.exists():
            report.progress(f"{name} is left out: {program} is not there (bench/install_peers.sh, --peers)")
            continue
        report.progress(f"starting {name}")
        servers.append(starter(opened, data, program if name == "nginx" else program.absolute().parent.parent))
    return servers


def check(server: Server, native: Path) -> None:
    """Compare every answer that holds values with the file.

    Raises:
        AssertionError: they differ.
    """
    array = blosc2.open(str(native), mode="r")
    for operation, targets in server.targets.items():
        for target in targets:
            with urlopen(Request(target.url, headers=target.headers), timeout=300) as response:
                assert response.url == target.url, f"{target.url} is at {response.url}"
                if operation == "whole" and target.form != "raw":
                    continue
                body = response.read()
            got = decoded(body, target.form, operation)
            if got is not None:
                wanted = array[:] if operation == "whole" else array[_key(operation)]
                np.testing.assert_array_equal(got.reshape(wanted.shape), wanted, err_msg=str(target))


def decoded(body: bytes, form: str, operation: str) -> Any:
    """Give the values of an answer; None if it has none, or many chunks of them."""
    if form == "raw":
        return np.frombuffer(body, "<f4")
    if form == "cframe":
        return blosc2.ndarray_from_cframe(body)[:]
    if form == "stored" and operation == "chunk":
        # a chunk is a plane, and its items lie block by block
        frame = blosc2.decompress2(body)
        assert len(frame) == 4 * datasets.ROWS * datasets.COLUMNS
    return None


def list_cases(servers: list[Server], clients: list[int]) -> list[Case]:
    """Give all cases, those of one operation after each other."""
    return [
        Case(operation, server, target, count)
        for operation in OPERATIONS
        for count in clients
        if operation in MANY or count <= FEW
        for server in servers
        for target in server.targets.get(operation, [])
    ]


def measure(case: Case, seconds: float) -> None:
    """Add one round to a case."""
    begun_s = cpu_s(case.server.pid)
    try:
        came = load(case.target.url, case.clients, seconds, case.target.headers)
    except (RuntimeError, OSError) as error:
        report.progress(f"{case.operation}, {case.clients} clients, {case.server.name}: {error}")
        return
    took_s = cpu_s(case.server.pid) - begun_s
    case.loads.append(came)
    case.cpu_ms.append(took_s * 1e3 / came.answers)
    report.progress(
        f"{case.operation}, {case.clients} clients, {case.server.name} {case.target.form}: "
        f"{came.requests_per_s:.4g}/s, p50 {came.p50_ms:.3g} ms"
    )


def read_locally(local: dict[str, dict[str, list[float]]], data: Data, args: argparse.Namespace) -> None:
    """Add one round of reads without any server: milliseconds by operation and library."""
    array = blosc2.open(str(data.native), mode="r", mmap_mode="r")
    with h5py.File(data.folder / "gzip.h5") as gzip, h5py.File(data.folder / "blosc2.h5") as packed:
        sources = {"local blosc2": array, "local h5py, Blosc2": packed["cube"], "local h5py, gzip": gzip["cube"]}
        for name, source in sources.items():
            for operation, repeats in REPEATS.items():
                times = []
                for number in range(repeats):
                    # another plane each time: HDF5 keeps the last chunk, decompressed
                    key = _key(operation, number * 7 % args.planes)
                    begun_s = time.perf_counter()
                    source[key]
                    times.append(time.perf_counter() - begun_s)
                _note(local, operation, name, statistics.median(times) * 1e3)
    python = Path(args.peers or "peers") / "zarr/bin/python"
    if not python.exists():
        report.progress(f"local zarr is left out: {python} is not there")
        return
    script = Path(__file__).with_name("local_zarr.py")
    command = [str(python), str(script), str(data.folder), json.dumps(SLICES), json.dumps(REPEATS)]
    for operation, took_ms in json.loads(subprocess.run(command, check=True, capture_output=True).stdout).items():
        _note(local, operation, "local zarr 3", took_ms)


def table(operation: str, cases: list[Case], local: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Give the lines of one operation: a server each."""
    ours = next((case.median("p50_ms") for case in cases if case.server.name == "zcat" and case.loads), None)
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for case in cases:
        if not case.loads:
            continue
        line = lines.setdefault((case.server.name, case.target.form), {})
        line["server"] = f"{case.server.name}, {case.target.form}"
        if case.clients == 1:
            line["p50 ms"], line["p99 ms"] = case.median("p50_ms"), case.median("p99_ms")
            line["of zcat's"] = line["p50 ms"] / ours if ours else None
            line["MB/s"] = case.median("requests_per_s") * case.median("body_bytes") / 1e6
            line["bytes"] = case.median("body_bytes")
            line["server cpu ms"] = statistics.median(case.cpu_ms)
        line[f"{case.clients} clients, 1/s"] = case.median("requests_per_s")
        if case.clients > 1:
            line[f"p99 ms of {case.clients}"] = case.median("p99_ms")
        line["client cpu"] = max(line.get("client cpu", 0), case.median("client_share"))
    result = list(lines.values())
    for name, times in local.get(operation.removesuffix(" of gzip HDF5"), {}).items():
        if (name == "local h5py, gzip") is operation.endswith("gzip HDF5") or operation in ("plane", "100 MB"):
            took_ms = statistics.median(times)
            result.append({"server": name, "p50 ms": took_ms, "of zcat's": took_ms / ours if ours else None})
    return result


def _bare(opened: ExitStack, data: Data) -> Server:
    bare = started(
        opened, "bare", [sys.executable, "-m", "bench.bare", str(data.native.resolve())], data.room, _HERE
    )
    while not (said := bare.log.read_text()):
        time.sleep(0.05)
    base = f"http://127.0.0.1:{json.loads(said)['port']}"
    answers(bare, f"{base}/0,0,0")
    return Server("bare socket", bare.pid, {n: [Target(f"{base}/{text}", "raw")] for n, text in SLICES.items()})


def _key(operation: str, plane: int = peers.PLANE) -> Any:
    key = key_of_text(SLICES[operation.removesuffix(" of gzip HDF5")])
    return (plane, *key[1:]) if key[0] == peers.PLANE else key


def _note(local: dict[str, dict[str, list[float]]], operation: str, name: str, took_ms: float) -> None:
    local.setdefault(operation, {}).setdefault(name, []).append(took_ms)
    report.progress(f"{operation}, {name}: {took_ms:.3g} ms")


def _arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--peers", metavar="FOLDER", help="what install_peers.sh has filled (default: peers)")
    parser.add_argument("--caterva2", metavar="PYTHON", help="python of another environment with caterva2[server]")
    parser.add_argument("--clients", default="1,8,32,128", help="how many at a time (default: 1,8,32,128)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each round (default: 2)")
    parser.add_argument("--planes", type=int, default=256, help="of 4 MiB each (default: 256, a GiB)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="of the subscriber, as zcat subscribe")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.planes = min(args.seconds, 0.5), min(args.planes, 64)
    return args


if __name__ == "__main__":
    main()
