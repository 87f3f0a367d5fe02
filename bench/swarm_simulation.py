"""What does the swarm do with a thousand readers? The machines themselves, in a network that is made up.

Each reader is a ``Transfer`` that copies the same dataset and a ``Serving`` that gives to others what arrived;
the publisher is a ``Tracker`` and a ``Serving``. Links carry so many bytes per second each way, messages take a
moment, some readers die, join late, lie or are slow. What is printed: how many copies of the dataset left the
publisher, and how long readers took, relative to the ideal of one copy over one link. The same seed gives the
same run.
"""

import argparse
import heapq
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import report
from zcat.errors import BadChunk
from zcat.limits import MIB
from zcat.protocol.asking import AskChunks, Resolve, Tell, TransferLimits
from zcat.protocol.messages import ChunkReply, Chunks
from zcat.protocol.serving import Job, Serving, ServingLimits
from zcat.protocol.swarm_messages import Have, HeldChunk, Holders
from zcat.protocol.tracker import Refer, Serve, Tracker
from zcat.protocol.transfer import DatasetKey, Transfer

DATASET = DatasetKey("root", "a" * 32, "cube.b2nd", "1" * 32)
PLACE = DATASET.path, DATASET.lineage
TICK_S = 0.1
PING_S = 2.0


@dataclass(frozen=True)
class World:
    """What is made up."""

    readers: int = 1000
    chunks: int = 256
    chunk_bytes: int = 2 * MIB
    link_bytes_s: float = 125e6
    """Of every link, each way: 1 Gbit/s."""
    origin_links: float = 1.0
    """How many times as much the publisher's link carries."""
    latency_s: float = 0.0005
    window_chunks: int = 64
    """A copy wants two windows at a time, as `OpenDataset.fetch` does."""
    start_s: float = 0.5
    """Readers begin within so long of each other."""
    churn: float = 0.0
    """Share of the readers that die on the way, and of others that come late."""
    liars: float = 0.0
    slow: float = 0.0
    """Share whose link carries a tenth."""
    seed: int = 1

    @property
    def ideal_s(self) -> float:
        """The dataset once over one link."""
        return self.chunks * self.chunk_bytes / self.link_bytes_s


@dataclass
class Outcome:
    """What came of it."""

    copies: float
    took: list[float]
    """Of each reader that should have finished, relative to the ideal, in order."""
    unfinished: int
    wrong: int
    """Chunks that a reader believes in and that are not right."""
    events: int
    counters: dict[str, int] = field(default_factory=dict)


def content(nchunk: int) -> bytes:
    """Give the content of a chunk, which is its own digest."""
    return nchunk.to_bytes(32, "big")


class Clock:
    """Calls things when their time has come."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when_s: float, action: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._queue, (when_s, next(self._numbers), action, args))

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        self.at(self.now_s + delay_s, action, *args)

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        while self._queue and not until() and self.now_s < limit_s:
            self.now_s, _, action, args = heapq.heappop(self._queue)
            self.events += 1
            action(*args)


class Link:
    """One direction of a link: what is sent over it goes one after the other."""

    def __init__(self, bytes_s: float) -> None:
        self.bytes_s = bytes_s
        self.free_at_s = 0.0

    def take(self, nbytes: int, begin_s: float) -> float:
        """Give the time at which the last byte has passed."""
        self.free_at_s = max(begin_s, self.free_at_s) + nbytes / self.bytes_s
        return self.free_at_s


class Server:
    """A ROUTER: jobs of a `Serving`, one after the other over an uplink."""

    def __init__(self, swarm: "Swarm", bytes_s: float) -> None:
        self.swarm = swarm
        self.up = Link(bytes_s)
        self.serving = Serving(ServingLimits(working_max=1))
        self.sent_bytes = 0
        self.is_dead = False
        self._is_sending = False

    def submit(self, asker: "Reader", request: int, chunks: tuple[int, ...], bulk: bool) -> None:
        self.serving.submit([Job(asker.name, request, (asker, nchunk), bulk) for nchunk in chunks])
        self.pump()

    def pump(self) -> None:
        while not self._is_sending and (job := self.serving.next()) is not None:
            asker, nchunk = job.wanted  # type: ignore[misc]
            data = self.data(nchunk)
            world, clock = self.swarm.world, self.swarm.clock
            self.serving.done(job, world.chunk_bytes)
            self.on_send(job, nchunk)
            self._is_sending = True
            self.sent_bytes += world.chunk_bytes
            done_s = self.up.take(world.chunk_bytes, clock.now_s)
            clock.at(done_s, self._sent, job)
            arrived_s = asker.down.take(
                world.chunk_bytes, done_s + world.latency_s - world.chunk_bytes / asker.down.bytes_s
            )
            reply = ChunkReply(DATASET.lineage, nchunk, content(nchunk), (data,))
            clock.at(max(arrived_s, done_s), asker.chunk, self, job.id, reply)

    def on_send(self, job: Job, nchunk: int) -> None:
        """A chunk leaves."""

    def data(self, nchunk: int) -> bytes:
        """Give the bytes of a chunk."""
        return content(nchunk)

    def _sent(self, job: Job) -> None:
        self._is_sending = False
        self.serving.left(job.peer, self.swarm.world.chunk_bytes)
        if not self.is_dead:
            self.pump()


class Origin(Server):
    """The publisher."""

    def __init__(self, swarm: "Swarm") -> None:
        super().__init__(swarm, swarm.world.link_bytes_s * swarm.world.origin_links)
        self.tracker = Tracker(swarm.random.random)
        swarm.clock.after(TICK_S, self.tick)

    def ask(self, asker: "Reader", request: int, message: Chunks) -> None:
        self.carry_out(self.tracker.asked(asker.name, request, message, self.swarm.clock.now_s))

    def tell(self, asker: "Reader", message: Have) -> None:
        self.carry_out(self.tracker.have(asker.name, message, self.swarm.clock.now_s))

    def tick(self) -> None:
        self.carry_out(self.tracker.tick(self.swarm.clock.now_s))
        self.swarm.clock.after(TICK_S, self.tick)

    def carry_out(self, effects: list[Any]) -> None:
        for effect in effects:
            asker = self.swarm.by_name[effect.asker]
            if isinstance(effect, Serve):
                self.submit(asker, effect.request, effect.chunks, effect.bulk)
            else:
                assert isinstance(effect, Refer)
                self.swarm.clock.after(self.swarm.world.latency_s, asker.holders, effect.request, effect.message)

    def on_send(self, job: Job, nchunk: int) -> None:
        held = HeldChunk(nchunk, content(nchunk), self.swarm.world.chunk_bytes)
        self.tracker.served(job.peer, PLACE, held, self.swarm.clock.now_s)


class Reader(Server):
    """A subscriber that copies the dataset and gives to others what it has."""

    def __init__(self, swarm: "Swarm", number: int, is_liar: bool, is_slow: bool) -> None:
        bytes_s = swarm.world.link_bytes_s * (0.1 if is_slow else 1)
        super().__init__(swarm, bytes_s)
        self.name = number.to_bytes(5, "big")
        self.endpoint = f"tcp://10.0.{number >> 8}.{number & 255}:4000"
        self.down = Link(bytes_s)
        self.is_liar, self.is_slow = is_liar, is_slow
        self.cache: dict[int, bytes] = {}
        self.began_s = 0.0
        self.done_s: float | None = None
        self.transfer = Transfer(TransferLimits(), random=random.Random(swarm.world.seed * 99991 + number).random)
        self._windows = list(range(0, swarm.world.chunks, swarm.world.window_chunks))
        self._open = 0

    def begin(self) -> None:
        clock = self.swarm.clock
        self.began_s = clock.now_s
        self.transfer.track(DATASET.origin, True, self.endpoint)
        self.tick()
        self.ping()
        self._want()
        self._want()

    def die(self) -> None:
        self.is_dead = True

    def tick(self) -> None:
        if not self.is_dead:
            self.carry_out(self.transfer.tick(self.swarm.clock.now_s))
            if self.done_s is None:
                self.swarm.clock.after(TICK_S, self.tick)

    def ping(self) -> None:
        if not self.is_dead:
            self.swarm.origin.tracker.heard(self.name, self.swarm.clock.now_s)
            self.swarm.clock.after(PING_S, self.ping)

    def carry_out(self, effects: list[Any]) -> None:
        swarm = self.swarm
        for effect in effects:
            if isinstance(effect, Resolve):
                assert effect.error is None, effect.error
                self._open -= 1
                self._want()
            elif isinstance(effect, Tell):
                swarm.clock.after(swarm.world.latency_s, swarm.origin.tell, self, effect.message)
            else:
                assert isinstance(effect, AskChunks)
                whom = swarm.origin if effect.peer is None else swarm.by_endpoint[effect.peer]
                swarm.clock.after(swarm.world.latency_s, whom.ask, self, effect.request, effect.message)

    def ask(self, asker: "Reader", request: int, message: Chunks) -> None:
        """Answer another reader, if still alive."""
        if self.is_dead:
            return
        held = tuple(nchunk for nchunk in message.chunks if nchunk in self.cache)
        for nchunk in set(message.chunks) - set(held):
            self.swarm.clock.after(self.swarm.world.latency_s, asker.refused, request, nchunk)
        if held:
            self.submit(asker, request, held, message.bulk)

    def data(self, nchunk: int) -> bytes:
        return b"a lie" if self.is_liar else self.cache[nchunk]

    def chunk(self, server: Server, request: int, reply: ChunkReply) -> None:
        """Take a chunk, as the fetcher does."""
        now_s = self.swarm.clock.now_s
        whom = DATASET.origin if isinstance(server, Origin) else server.endpoint  # type: ignore[attr-defined]
        if self.is_dead or server.is_dead or not self.transfer.is_owed(request, whom):
            return
        if self.transfer.arrived(request, reply.nchunk, now_s) is None:
            return
        wanted = self.transfer.digest(DATASET, reply.nchunk) or reply.digest
        if reply.data[0] != wanted:
            self.carry_out(self.transfer.damaged(DATASET, reply.nchunk, BadChunk("digest"), now_s))
            return
        self.cache[reply.nchunk] = bytes(reply.data[0])
        self.carry_out(self.transfer.stored(DATASET, reply.nchunk, now_s, self.swarm.world.chunk_bytes))
        if len(self.cache) == self.swarm.world.chunks:
            self.done_s = now_s
            self.swarm.left -= self in self.swarm.expected

    def holders(self, request: int, message: Holders) -> None:
        if not self.is_dead:
            self.carry_out(self.transfer.referred(request, message, self.swarm.clock.now_s))

    def refused(self, request: int, nchunk: int) -> None:
        if not self.is_dead:
            self.carry_out(self.transfer.peer_failed(request, nchunk, self.swarm.clock.now_s))

    def _want(self) -> None:
        if self._windows:
            low, world = self._windows.pop(0), self.swarm.world
            numbers = range(low, min(low + world.window_chunks, world.chunks))
            self._open += 1
            now_s = self.swarm.clock.now_s
            _, effects = self.transfer.want(DATASET, numbers, world.chunk_bytes, bulk=True, now_s=now_s)
            self.carry_out(effects)


class Swarm:
    """All of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = Clock()
        self.random = random.Random(world.seed)
        self.origin = Origin(self)
        rng, count = self.random, world.readers
        late = int(count * world.churn)
        self.readers = [
            Reader(self, n, n < count * world.liars, count * world.liars <= n < count * (world.liars + world.slow))
            for n in range(count + late)
        ]
        self.by_name = {reader.name: reader for reader in self.readers}
        self.by_endpoint = {reader.endpoint: reader for reader in self.readers}
        dying = rng.sample(self.readers[int(count * (world.liars + world.slow)) : count], late)
        for number, reader in enumerate(self.readers):
            is_late = number >= count
            self.clock.at(rng.random() * (world.ideal_s if is_late else world.start_s), reader.begin)
        for reader in dying:
            self.clock.at(world.start_s + rng.random() * 1.2 * world.ideal_s, reader.die)
        self.expected = set(self.readers) - set(dying) - {reader for reader in self.readers if reader.is_slow}
        self.left = len(self.expected)

    def run(self, limit_ideals: float = 20.0) -> Outcome:
        """Go on until all are done who can be."""
        self.clock.run(lambda: self.left == 0, limit_ideals * self.world.ideal_s)
        world = self.world
        done = [reader for reader in self.expected if reader.done_s is not None]
        return Outcome(
            copies=self.origin.sent_bytes / (world.chunks * world.chunk_bytes),
            took=sorted((reader.done_s - reader.began_s) / world.ideal_s for reader in done if reader.done_s),
            unfinished=self.left,
            wrong=sum(data != content(n) for reader in self.readers for n, data in reader.cache.items()),
            events=self.clock.events,
            counters={
                "lies": sum(reader.transfer.peer_counters.lies for reader in self.readers),
                "second": sum(reader.transfer.peer_counters.seconds for reader in self.readers),
                "failures": sum(reader.transfer.peer_counters.failures for reader in self.readers),
                "served": self.origin.tracker.counters.served,
                "referred": self.origin.tracker.counters.referred,
                "waited": self.origin.tracker.counters.waited,
            },
        )


def main() -> None:
    """Run the cases and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the cases whose name contains this")
    parser.add_argument("--all", action="store_true", help="two more cases; a minute or two each")
    args = parser.parse_args()
    size = {"readers": args.readers, "chunks": args.chunks, "seed": args.seed}
    cases = {
        "all well": World(**size),
        "5 % churn, 2 % liars, 2 % slow": World(**size, churn=0.05, liars=0.02, slow=0.02),
    }
    if args.all or args.only:
        cases["all well, publisher with 4 links"] = World(**size, origin_links=4)
        cases["5 % churn"] = World(**size, churn=0.05)
    lines = []
    for name, world in cases.items():
        if args.only and args.only not in name:
            continue
        begun_s = time.perf_counter()
        outcome = Swarm(world).run()
        took = outcome.took or [float("nan")]
        lines.append(
            {
                "readers": world.readers,
                "case": name,
                "egress (copies)": outcome.copies,
                "median (of ideal)": statistics.median(took),
                "last (of ideal)": took[-1],
                "unfinished": outcome.unfinished,
                "wrong": outcome.wrong,
                **outcome.counters,
                "ran s": time.perf_counter() - begun_s,
            }
        )
        report.progress(f"{name}: {lines[-1]}")
    report.print_table(lines)


if __name__ == "__main__":
    main()
