"""A broker whose subscribers stop reading: its memory, and how long events take to those that do read.

The stalled ones are SUB sockets, in a few processes, that are connected, subscribed to everything, and never
read. The broker is a process of its own with zcat's defaults, over tcp on one machine. While events flow as fast
as four good subscribers take them, its resident memory is looked at all the time. The limits that it is held to:
64 MiB for each subscriber, 256 MiB for all together, and the kernel's buffers, which are no part of the process.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import zmq

from bench import report
from bench.events import ANY, SPAWN, Way, started
from zcat.config import BrokerConfig
from zcat.limits import MIB
from zcat.net.descriptors import SERVICE_FILES, raise_file_limit
from zcat.net.forwarder import EGRESS
from zcat.services.broker import Broker

GOOD = 4
PROCESSES = 4
LOOK_S = 0.02
CONNECT_WAIT_S = 60.0


def serve_broker(pipe: Connection, peak: Any, connected: Any, put_out: Any, is_named: bool = False) -> None:
    """Run a broker; note its largest memory in MiB since ``peak`` was last set to 0, and who is connected."""
    raise_file_limit(SERVICE_FILES)
    broker = Broker(BrokerConfig(listen=ANY))
    broker.start()

    def look() -> None:
        while True:
            with open("/proc/self/statm") as statm:
                pages = int(statm.read().split()[1])
            peak.value = max(peak.value, pages * 4096 / MIB)
            watched = broker._forwarder.watched()[EGRESS]  # type: ignore[union-attr]
            connected.value, put_out.value = watched.connections_count, watched.put_out_count
            time.sleep(LOOK_S)

    threading.Thread(target=look, daemon=True).start()
    endpoints = broker.endpoints
    pipe.send((endpoints.ingress, endpoints.egress, *([endpoints.listen] if is_named else [])))
    pipe.recv()


def stall(pipe: Connection, egress: str, count: int) -> None:
    """Connect sockets that never read."""
    raise_file_limit(SERVICE_FILES)
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 100)
    sockets = []
    for _ in range(count):
        socket = context.socket(zmq.SUB)
        socket.set(zmq.RCVHWM, 16)
        socket.set(
            zmq.RCVBUF, 4096
        )  # so that it is the broker that has to wait, and not the kernel that takes it all
        socket.subscribe(b"")
        socket.connect(egress)
        sockets.append(socket)
    pipe.send(count)
    pipe.recv()


class Measured(Way):
    """A way through a broker of which more is known."""

    def __init__(self, opened: ExitStack) -> None:
        self.peak = SPAWN.Value("d", 0.0, lock=False)
        self.connected = SPAWN.Value("q", 0, lock=False)
        self.put_out = SPAWN.Value("q", 0, lock=False)
        super().__init__(opened, GOOD, serve_broker, self.peak, self.connected, self.put_out)
        self.window = 500  # within the queues that a broker has by default

    def peak_mib(self, events: int) -> float:
        """Send events as fast as the good ones take them; give the broker's largest memory meanwhile."""
        self.peak.value = 0.0
        self.rate(events)
        time.sleep(2 * LOOK_S)
        return float(self.peak.value)


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--stalled", type=int, default=1000, help="subscribers that never read (default: 1000)")
    parser.add_argument("--events", type=int, default=50_000, help="of each round (default: 50000)")
    args = parser.parse_args()
    events = 10_000 if args.quick else args.events
    with ExitStack() as opened:
        before, among = Measured(opened), Measured(opened)
        _, egress = among.endpoints
        waiting = [started(opened, stall, egress, args.stalled // PROCESSES) for _ in range(PROCESSES)]
        for pipe in waiting:
            pipe.recv()
        until_s = time.monotonic() + CONNECT_WAIT_S
        while among.connected.value < args.stalled // PROCESSES * PROCESSES + GOOD and time.monotonic() < until_s:
            among.rate(500)
            time.sleep(0.1)
        report.progress(f"{among.connected.value} are connected")
        ways = {"nobody stalled": before, f"among {args.stalled} stalled": among}
        memory: dict[str, Callable[[], float]] = {
            name: partial(way.peak_mib, events) for name, way in ways.items()
        }
        memories = report.rounds(memory, "MiB", args.rounds)
        rates = report.rounds(
            {name: partial(way.rate, events) for name, way in ways.items()}, "events/s", args.rounds
        )
        delays = {
            rank: report.rounds(
                {name: partial(way.latency, 500, rank) for name, way in ways.items()}, "ms", args.rounds
            )
            for rank in (0.5, 0.99)
        }
        memories[-1].notes["put out"] = among.put_out.value
    report.show("Resident memory of the broker while events flow", memories, {}, args.json)
    report.show(
        f"Events of 200 bytes to {GOOD} good subscribers", rates, {"of before": "nobody stalled"}, args.json
    )
    for rank, rows in delays.items():
        title = f"How long an event is under way to the good ones, p{round(rank * 100)}"
        report.show(title, rows, {"of before": "nobody stalled"}, args.json)


if __name__ == "__main__":
    main()
