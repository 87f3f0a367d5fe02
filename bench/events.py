"""How fast events travel: through one broker to four subscribers, and to a subscriber two brokers away.

Beside both runs the least that does the same: libzmq's own proxy, and a PUB with a SUB. All ends are
processes of their own, on one machine, over tcp. The sender never has more under way than the queues hold, and
waits for the slowest subscriber, so that nothing is lost and what is counted has arrived everywhere.
"""

import multiprocessing
import statistics
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import zmq

from bench import report
from zcat.config import BrokerConfig
from zcat.limits import GIB
from zcat.services.broker import Broker

SPAWN = multiprocessing.get_context("spawn")
TOPIC = b"root/bench/" + b"0" * 32 + b"/"
MARK = TOPIC + b"mark"
STOP, KNOCK = -1, -2
BODY = bytes(200)
"""About the size of an event of one dataset."""
QUEUED = 16_000
WINDOW = 4000
MARK_EVERY = 500
LOST_S = 20.0
ANY = "tcp://127.0.0.1:0"


def serve_brokers(pipe: Connection, count: int) -> None:
    """Run brokers, each of which knows the one before; tell the first one's ingress and the last one's egress."""
    brokers: list[Broker] = []
    for _ in range(count):
        peers = tuple(broker.endpoints.listen for broker in brokers[-1:])
        # so that queues are as long as those of the bare proxy
        brokers.append(Broker(BrokerConfig(listen=ANY, peers=peers, events_bytes=GIB)))
        brokers[-1].start()
    while any(len(broker.neighbours) < count - 1 for broker in brokers):
        time.sleep(0.01)
    pipe.send((brokers[0].endpoints.ingress, brokers[-1].endpoints.egress))
    pipe.recv()


def serve_proxy(pipe: Connection) -> None:
    """Run a bare proxy."""
    context = zmq.Context()
    ingress, egress = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    endpoints = []
    for socket in (ingress, egress):
        socket.set(zmq.SNDHWM, QUEUED)
        socket.set(zmq.RCVHWM, QUEUED)
        socket.bind("tcp://127.0.0.1:*")
        endpoints.append(socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0"))
    pipe.send(tuple(endpoints))
    zmq.proxy(ingress, egress)


def listen(pipe: Connection, egress: str, counted: Any) -> None:
    """Have all events, of which Python sees the marks only: four loops in Python would be what is measured."""
    context = zmq.Context()
    events, marks, mark = context.socket(zmq.XSUB), context.socket(zmq.XPUB), context.socket(zmq.SUB)
    events.set(zmq.RCVHWM, QUEUED)
    events.connect(egress)
    events.send(b"\x01" + TOPIC)
    marks.bind("inproc://marks")
    mark.connect("inproc://marks")
    mark.subscribe(MARK)
    threading.Thread(target=zmq.proxy, args=(events, marks), daemon=True).start()
    delays_s: list[float] = []
    while True:
        number, sent_s = struct.unpack("<qd", mark.recv_multipart()[1])
        delays_s.append(time.monotonic() - sent_s)
        if number == STOP:
            pipe.send(delays_s)
            delays_s = []
        elif number == KNOCK:
            pipe.send([])
        else:
            counted.value = number


class Way:
    """A publisher of this process, and subscribers behind what is measured."""

    def __init__(self, opened: ExitStack, subscribers: int, serve: Callable[..., None] | None, *args: Any) -> None:
        """Connect all, and wait until events come through."""
        self.pub: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB if serve is None else zmq.PUB)
        self.pub.set(zmq.SNDHWM, QUEUED)
        if serve is None:
            self.pub.bind("tcp://127.0.0.1:*")
            egress: str = self.pub.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
        else:
            self.server = started(opened, serve, *args)  # which ends with our end of its pipe
            self.endpoints = ingress, egress = self.server.recv()
            self.pub.connect(ingress)
        self.counted = [SPAWN.Value("q", 0, lock=False) for _ in range(subscribers)]
        self.pipes = [started(opened, listen, egress, counted) for counted in self.counted]
        waiting = list(self.pipes)
        while waiting:
            self._mark(KNOCK)
            time.sleep(0.02)
            waiting = [pipe for pipe in waiting if not pipe.poll()]
        self.sent = 0
        self.window = WINDOW

    def rate(self, events: int) -> float:
        """Send events as fast as they arrive; give them per second."""
        begun_s = time.perf_counter()
        for _ in range(events // MARK_EVERY):
            for _ in range(MARK_EVERY - 1):
                self.pub.send_multipart([TOPIC, BODY])
            self.sent += MARK_EVERY
            self._mark(self.sent)
            self._wait(self.sent - self.window)
        self._wait(self.sent)
        took_s = time.perf_counter() - begun_s
        return events / took_s

    def latency(self, events: int, rank: float) -> float:
        """Send one event at a time, a few milliseconds apart; give the time that a part of them kept below."""
        self._delays_s()
        for _ in range(events):
            self._mark(0)
            time.sleep(0.003)
        delays_s = sorted(self._delays_s())
        return 1e3 * (statistics.median(delays_s) if rank == 0.5 else delays_s[int(len(delays_s) * rank)])

    def _mark(self, number: int) -> None:
        self.pub.send_multipart([MARK, struct.pack("<qd", number, time.monotonic())])

    def _wait(self, number: int) -> None:
        """Wait until everybody has all up to a number."""
        until_s = time.monotonic() + LOST_S
        while min(int(counted.value) for counted in self.counted) < number:
            assert time.monotonic() < until_s, "an event was lost"
            time.sleep(0)

    def _delays_s(self) -> list[float]:
        """Give how long each mark since the last time was under way."""
        self._mark(STOP)
        delays: list[float] = []
        for pipe in self.pipes:
            while not (told := pipe.recv()):
                pass  # a knock
            delays += told[:-1]
        return delays


def started(opened: ExitStack, function: Callable[..., None], *args: Any) -> Connection:
    """Run a function in a process of its own until ``opened`` closes; give our end of its pipe."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=function, args=(theirs, *args), daemon=True)
    process.start()
    opened.callback(process.join)
    opened.callback(process.kill)
    return ours


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--events", type=int, default=100_000, help="of each round (default: 100000)")
    args = parser.parse_args()
    with ExitStack() as opened:
        ways = {"bare proxy": Way(opened, 4, serve_proxy), "one broker": Way(opened, 4, serve_brokers, 1)}
        cases: dict[str, Callable[[], float]] = {
            name: partial(way.rate, args.events) for name, way in ways.items()
        }
        rates = report.rounds(cases, "events/s", args.rounds)
    with ExitStack() as opened:
        ways = {
            "PUB to SUB": Way(opened, 1, None),
            "one broker": Way(opened, 1, serve_brokers, 1),
            "two brokers away": Way(opened, 1, serve_brokers, 3),
        }
        cases = {
            f"{name}, p{round(rank * 100)}": partial(way.latency, 500, rank)
            for name, way in ways.items()
            for rank in (0.5, 0.99)
        }
        delays = report.rounds(cases, "ms", args.rounds)
    report.show("Events of 200 bytes to four subscribers", rates, {"of the proxy": "bare proxy"}, args.json)
    report.show("How long an event is under way", delays, {}, args.json)


if __name__ == "__main__":
    main()
