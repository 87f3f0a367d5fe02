"""A large directory: how soon a new subscriber knows it, and the catalogues that it follows; a broker's memory.

The publishers are light ones, written for this: a few processes in which each root has a ROUTER of its own that
answers `ping` and `tree` with a prepared catalogue, and one DEALER that announces and renews all claims. They
speak the wire and read no files. Broker and subscriber are zcat's own, the broker a process by itself; all over
tcp on one machine.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq

from bench import report
from bench.events import SPAWN, started
from bench.stalled import serve_broker
from zcat.config import SubscriberConfig
from zcat.errors import Timeout
from zcat.model.dataset import Entry, Kind
from zcat.model.root import Claim
from zcat.net.descriptors import SERVICE_FILES, raise_file_limit
from zcat.protocol.envelope import split
from zcat.protocol.messages import Announce, Failed, Ping, Pong, Renew, Tree, TreePage, decode, encode
from zcat.protocol.pages import paged
from zcat.services.subscriber import Subscriber

PROCESSES = 4
RENEW_S = 2.0
LOOK_S = 0.02
LATE_S = 60.0


def publish(pipe: Connection, broker: str, first: int, roots: int, datasets: int) -> None:
    """Run light publishers of so many roots, numbered from ``first``."""
    raise_file_limit(SERVICE_FILES)
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, roots + 100)
    lineage, mtime_ns = "ab" * 16, 1_700_000_000_000_000_000
    pages = tuple(
        paged(
            Entry(f"run{n // 100:03}/frame{n:05}.b2nd", Kind.ARRAY, lineage, 400, 160, mtime_ns, (10, 10), "<f4")
            for n in range(datasets)
        )
    )
    poller, claims, owners = zmq.Poller(), [], {}
    for number in range(first, first + roots):
        router = context.socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        claim = Claim(f"root{number:04}", f"{number:032x}", (f"tcp://127.0.0.1:{port}",), 1, 0, 20.0)
        claims.append(claim)
        owners[router] = claim
        poller.register(router, zmq.POLLIN)
    directory = context.socket(zmq.DEALER)
    directory.connect(broker)
    poller.register(directory, zmq.POLLIN)
    for claim in claims:
        directory.send_multipart(encode(Announce(claim), 1))
    listed, next_s = 0, time.monotonic() + RENEW_S
    while True:
        for socket, _ in poller.poll(max(0.0, next_s - time.monotonic()) * 1000):
            if socket is directory:
                directory.recv_multipart()
                listed += 1
                if listed == roots:
                    pipe.send(roots)
            else:
                _answer(socket, owners[socket], pages)
        if time.monotonic() >= next_s:
            next_s += RENEW_S
            for claim in claims:
                directory.send_multipart(encode(Renew(claim.root, claim.owner, 1, 0), 2))


def _answer(router: Any, claim: Claim, pages: tuple[bytes, ...]) -> None:
    route, frames = split(router.recv_multipart())
    received = decode(frames)
    answer: Any = Failed("verb-unknown", "a light publisher")
    if isinstance(received.message, Ping):
        answer = Pong("publisher", claim.owner, 1, 0, "light")
    elif isinstance(received.message, Tree):
        answer = TreePage(claim.root, claim.owner, 1, 0, None, pages)
    router.send_multipart([*route, *encode(answer, received.id)])


@dataclass
class Case:
    """A subscriber that is new each time, and what it follows."""

    folder: Path
    broker: str
    followed: tuple[str, ...]
    listed: int
    """Roots that there are."""
    datasets: int
    """Of each."""
    cpu_s: list[float] = field(default_factory=list)
    """What it took of a processor, each time."""


def follow(case: Case) -> float:
    """Start a subscriber; give the seconds until it has the directory, and all of the catalogues that it wants."""
    with tempfile.TemporaryDirectory(dir=case.folder) as cache:
        named = {"brokers": (case.broker,), "follow": case.followed}
        subscriber = Subscriber(SubscriberConfig(cache=cache, share=False, reserve_bytes=0, **named))
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        try:
            subscriber.start()
            while True:
                time.sleep(LOOK_S)
                try:
                    roots = subscriber.roots()
                except Timeout:  # it is busy with what it is to do
                    continue
                synced = [root for root in roots if root.synced and root.datasets == case.datasets]
                if len(roots) == case.listed and len(synced) == len(case.followed):
                    case.cpu_s.append(time.process_time() - begun_cpu_s)
                    return time.perf_counter() - begun_s
                assert time.perf_counter() < begun_s + LATE_S, f"{len(roots)} listed, {len(synced)} followed"
        finally:
            subscriber.close()


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--roots", type=int, default=1000, help="publishers (default: 1000)")
    parser.add_argument("--datasets", type=int, default=1000, help="of each (default: 1000)")
    parser.add_argument("--followed", default="0,1,10,100", help="roots that a subscriber follows (0,1,10,100)")
    args = parser.parse_args()
    each = args.roots // PROCESSES
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        peak = SPAWN.Value("d", 0.0, lock=False)
        counts = [SPAWN.Value("q", 0, lock=False) for _ in range(2)]
        server = started(opened, serve_broker, peak, counts[0], counts[1], True)
        _, _, broker = server.recv()
        begun_s = time.perf_counter()
        pipes = [
            started(opened, publish, broker, number * each, each, args.datasets) for number in range(PROCESSES)
        ]
        for pipe in pipes:
            pipe.recv()
        report.progress(f"{each * PROCESSES} roots are listed after {time.perf_counter() - begun_s:.1f} s")
        roots = each * PROCESSES
        cases = {
            f"{count} roots followed" if count else "the directory alone": Case(
                folder, broker, _spread(count, roots), roots, args.datasets
            )
            for count in map(int, args.followed.split(","))
        }
        times = report.rounds({name: partial(follow, case) for name, case in cases.items()}, "s", args.rounds)
        for row in times:
            row.notes["of a processor, s"] = statistics.median(cases[row.name].cpu_s)
        memory = report.Row("broker, resident at most", "MiB", [float(peak.value)])
    title = f"A new subscriber among {roots} roots of {args.datasets} datasets"
    report.show(title, times, {}, args.json)
    report.show("Memory of the broker", [memory], {}, args.json)


def _spread(count: int, roots: int) -> tuple[str, ...]:
    """Name so many roots, of all processes alike."""
    return tuple(f"root{number * roots // count:04}" for number in range(count))


if __name__ == "__main__":
    main()
