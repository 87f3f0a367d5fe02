"""How fast is a cold copy of a dataset from a publisher to a subscriber, beside what the machine can do?

The same bytes in messages of the same sizes go by raw TCP, by bare ROUTER to DEALER, and by zcat: read from the
publisher's file, digested, sent, verified, and written to the subscriber's cache. "The least of a verified copy"
does just that, in a loop of ten lines on either side of a bare ROUTER and DEALER. ``cp`` copies the file.
Publisher and subscriber are processes of their own; the files are in the page cache, and memory is at hand.
"""

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import zmq

from bench import datasets, memory, peers, report
from zcat.config import BrokerConfig, PublisherConfig, SubscriberConfig
from zcat.storage.disk import allocate

CREDIT = 16
"""Chunks that the bare DEALER has asked for and not got: 32 MB, as zcat's credit."""
SPAWN = multiprocessing.get_context("spawn")


def serve_tcp(pipe: Connection, sizes: list[int]) -> None:
    """Send all bodies to each client that connects."""
    body = np.random.default_rng(0).bytes(max(sizes))
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            with client:
                for size in sizes:
                    client.sendall(memoryview(body)[:size])


def time_tcp(port: int, sizes: list[int]) -> float:
    """Receive all bodies; give bytes per second."""
    memory.touch()
    room, total = bytearray(max(sizes)), sum(sizes)
    with socket.create_connection(("127.0.0.1", port)) as client:
        begun_s, left = time.perf_counter(), total
        while left:
            left -= client.recv_into(room, min(left, len(room)))
        return total / (time.perf_counter() - begun_s)


def serve_zmq(pipe: Connection, sizes: list[int], path: Path | None = None) -> None:
    """Answer each number with a body of that size, never copied.

    With a ``path``, it is read from that file, and digested the first time: the least that a publisher does.
    """
    body = np.random.default_rng(0).bytes(max(sizes))
    bodies, places = [body[:size] for size in sizes], list(accumulate(sizes, initial=0))
    digests: dict[int, bytes] = {}
    with ExitStack() as opened:
        context = opened.enter_context(zmq.Context())
        router = opened.enter_context(context.socket(zmq.ROUTER))
        fd = os.open(path, os.O_RDONLY) if path else None
        pipe.send(router.bind_to_random_port("tcp://127.0.0.1"))
        while True:
            peer, request = router.recv_multipart()
            number = int.from_bytes(request, "big")
            body = bodies[number]
            if fd is not None:
                body = os.pread(fd, sizes[number], places[number])
                digests[number] = digests.get(number) or blake3.blake3(body).digest()
            router.send(peer, zmq.SNDMORE)
            router.send(request, zmq.SNDMORE)
            router.send(body, copy=False)


def time_zmq(port: int, sizes: list[int], target: Path | None = None) -> float:
    """Ask for all bodies, `CREDIT` at a time; give bytes per second.

    With a ``target``, each body is digested and written to it: the least that a subscriber does.
    """
    memory.touch()
    with ExitStack() as opened:
        context = opened.enter_context(zmq.Context())
        dealer = opened.enter_context(context.socket(zmq.DEALER))
        file = opened.enter_context(open(target, "wb", buffering=0)) if target else None
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(bytes(8))
        dealer.recv_multipart(copy=False)  # connected
        begun_s, asked, got, written = time.perf_counter(), 0, 0, 0
        while got < len(sizes):
            while asked < len(sizes) and asked - got < CREDIT:
                dealer.send(asked.to_bytes(8, "big"))
                asked += 1
            body = dealer.recv_multipart(copy=False)[1].buffer
            if file is not None:
                blake3.blake3(body).digest()
                allocate(file.fileno(), written, len(body))
                file.write(body)
                written += len(body)
            got += 1
        took_s = time.perf_counter() - begun_s
    if target:
        target.unlink()
    return sum(sizes) / took_s


def serve_zcat(pipe: Connection, folder: str, state: str) -> None:
    """Run a broker and a publisher of ``folder``; say what memory they took when asked."""
    from zcat.services.broker import Broker
    from zcat.services.publisher import Publisher

    broker = Broker(BrokerConfig(listen="tcp://127.0.0.1:0"))
    broker.start()
    brokers = (broker.endpoints.listen,)
    publisher = Publisher(PublisherConfig(root="bench", path=folder, state=state, brokers=brokers))
    publisher.start()
    pipe.send(brokers)
    while pipe.recv() == "memory":
        pipe.send(peak_bytes())
    publisher.close()
    broker.close()


def fetch_zcat(pipe: Connection, brokers: tuple[str, ...], cache: str, path: str) -> None:
    """Bring a dataset into an empty cache, when told to; send the seconds and the memory that it took."""
    from zcat.services.subscriber import Subscriber

    subscriber = Subscriber(SubscriberConfig(brokers=brokers, cache=cache, reserve_bytes=0))
    subscriber.start()
    subscriber.follow("bench")
    subscriber.on_version("bench", path, lambda dataset: dataset.info)
    pipe.send("ready")
    pipe.recv()
    begun_s = time.perf_counter()
    subscriber.on_version("bench", path, lambda dataset: dataset.fetch())
    took_s = time.perf_counter() - begun_s
    assert subscriber.on_version("bench", path, lambda dataset: dataset.complete)
    pipe.send((took_s, peak_bytes()))
    subscriber.close()


def time_fetch(opened: ExitStack, brokers: tuple[str, ...], cache: str, path: str) -> tuple[float, int]:
    """Bring a dataset into the empty cache of a subscriber of its own; give the seconds and the memory it took."""
    pipe = started(opened, fetch_zcat, brokers, cache, path)
    assert pipe.recv() == "ready"
    memory.touch()  # here, since it would count as the subscriber's there
    pipe.send("go")
    return pipe.recv()


def peak_bytes() -> int:
    """Give the most memory that this process ever had; a new one's ``ru_maxrss`` begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class Zcat:
    """A publisher's process, and a new subscriber's process for each copy."""

    def __init__(self, opened: ExitStack, path: Path, room: Path, total: int) -> None:
        self._path, self._room, self._total = path, room, total
        self._pipe = started(opened, serve_zcat, str(path.parent), str(room / "publisher"))
        self._brokers = self._pipe.recv()
        self.subscriber_bytes = 0

    def __call__(self) -> float:
        """Copy once; give bytes per second."""
        cache = tempfile.mkdtemp(dir=self._room)
        with ExitStack() as opened:
            took_s, memory_bytes = time_fetch(opened, self._brokers, cache, self._path.name)
        shutil.rmtree(cache)
        self.subscriber_bytes = max(self.subscriber_bytes, memory_bytes)
        return self._total / took_s

    def publisher_bytes(self) -> int:
        """Give the most memory that broker and publisher ever had."""
        self._pipe.send("memory")
        return self._pipe.recv()


def started(opened: ExitStack, function: Callable[..., None], *args: Any) -> Connection:
    """Run a function in a process of its own until ``opened`` closes; give our end of its pipe."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=function, args=(theirs, *args), daemon=True)
    process.start()

    def end() -> None:
        process.join(10 if function is fetch_zcat else 0)
        process.kill()
        process.join()

    opened.callback(end)
    return ours


def time_cp(path: Path, room: Path) -> float:
    """Copy the file; give bytes per second."""
    target = room / "copy"
    memory.touch()
    begun_s = time.perf_counter()
    with open(path, "rb") as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 4 << 20)  # not by reflink or in the kernel alone: those copy nothing
    took_s = time.perf_counter() - begun_s
    target.unlink()
    return path.stat().st_size / took_s


def time_curl(url: str, target: Path) -> float:
    """Have curl write what a server sends into a file; give bytes per second."""
    memory.touch()
    begun_s = time.perf_counter()
    subprocess.run(["curl", "--silent", "--fail", "--output", str(target), url], check=True)
    took_s, size = time.perf_counter() - begun_s, target.stat().st_size
    target.unlink()
    return size / took_s


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--peers", metavar="FOLDER", help="what install_peers.sh has filled (default: peers)")
    parser.add_argument("--planes", type=int, default=256, help="of 4 MiB each (default: 256, a GiB)")
    args = parser.parse_args()
    args.planes = min(args.planes, 64) if args.quick else args.planes
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        data, room = folder / "data", folder / "room"
        for each in (data, room):
            each.mkdir(parents=True, exist_ok=True)
        path = datasets.cube(data, args.planes)
        sizes = datasets.chunk_sizes(path)
        tcp = started(opened, serve_tcp, sizes).recv()
        bare, least = started(opened, serve_zmq, sizes).recv(), started(opened, serve_zmq, sizes, path).recv()
        zcat = Zcat(opened, path, room, sum(sizes))
        cases: dict[str, Callable[[], float]] = {
            "cp": partial(time_cp, path, room),
            "raw TCP": partial(time_tcp, tcp, sizes),
            "bare ROUTER-DEALER": partial(time_zmq, bare, sizes),
            "the least of a verified copy": partial(time_zmq, least, sizes, room / "written"),
            "zcat": zcat,
        }
        program = Path(args.peers or "peers") / "nginx/usr/sbin/nginx"
        if program.exists() and shutil.which("curl"):
            own = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=room)))
            server = peers.nginx(opened, peers.Data(data, path, own), program.absolute())
            cases["nginx and curl"] = partial(time_curl, server.targets["whole"][0].url, room / "copy")
        else:
            report.progress(
                f"nginx is left out: {program} is not there (bench/install_peers.sh, --peers), or no curl"
            )
        rows = report.rounds(cases, "B/s", args.rounds)
        next(row for row in rows if row.name == "zcat").notes = {
            "publisher MB": zcat.publisher_bytes() / 1e6,
            "subscriber MB": zcat.subscriber_bytes / 1e6,
        }
        for row in rows:
            row.values, row.unit = [value / 1e6 for value in row.values], "MB/s"
        title = f"Cold copy of {sum(sizes) / 1e6:.0f} MB (compressed) in {len(sizes)} chunks"
        against = {"of ROUTER-DEALER": "bare ROUTER-DEALER", "of the least": "the least of a verified copy"}
        report.show(title, rows, against, args.json)


if __name__ == "__main__":
    main()
