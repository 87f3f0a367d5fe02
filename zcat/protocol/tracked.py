"""What a tracker remembers of datasets and their chunks, and how it words what it tells of them."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from zcat.limits import HELD_CHUNKS_MAX, HOLDERS_MAX
from zcat.protocol.brokers import Random
from zcat.protocol.sharers import Sharer
from zcat.protocol.swarm_messages import HeldChunk, Holders

Content = tuple[str, str]
"""Path and lineage."""


@dataclass(slots=True)
class Waiting:
    """A chunk of a request that is to be answered later."""

    asker: bytes
    request: int
    bulk: bool
    sharer: Sharer | None
    told_at_s: float


@dataclass(slots=True)
class Tracked:
    """One chunk."""

    digest: bytes | None = None
    nbytes: int = 0
    copies: int = 0
    """Given by the origin to those who give it to others, and not lost."""
    given: dict[bytes, float | None] = field(default_factory=dict)
    """Of those, on their way: when each left, None before that."""
    holders: list[Sharer] = field(default_factory=list)
    waiting: deque[Waiting] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        """Nothing is lost but knowledge when it is forgotten."""
        return not self.waiting and not self.given

    def give(self, asker: bytes, sharer: Sharer | None) -> None:
        """Note that the origin gives it to an asker."""
        if sharer is not None and asker not in self.given:
            self.given[asker] = None
            self.copies += 1

    def lose(self, asker: bytes) -> None:
        """Note that what was given to an asker did not arrive, or that nobody knows."""
        if asker in self.given:
            del self.given[asker]
            self.copies -= 1

    def received(self, asker: bytes) -> float | None:
        """Note that it arrived; give when it had left, None if it was not given by the origin."""
        return self.given.pop(asker, None)

    def hold(self, sharer: Sharer, holders_max: int, random: Random) -> None:
        """Remember a holder; if there are many, in place of another one."""
        if sharer in self.holders:
            return
        if len(self.holders) < holders_max:
            self.holders.append(sharer)
        else:
            self.holders[int(random() * holders_max)] = sharer

    def forget(self, sharer: Sharer | None) -> None:
        """Take somebody off the holders."""
        if sharer in self.holders:
            self.holders.remove(sharer)

    def some_holders(self, count: int, random: Random) -> list[Sharer]:
        """Give a few holders, others each time; those that are forgotten for good are dropped on the way."""
        holders, total = self.holders, len(self.holders)
        if total > count:
            start = int(random() * total)
            some = holders[start : start + count]
            some += holders[: count - len(some)]
        else:
            some = list(holders)
        for sharer in some:
            if sharer.is_forgotten:
                holders.remove(sharer)
        return some

    def withdraw(self, asker: bytes) -> int:
        """Forget that an asker waits; give how often it did."""
        before = len(self.waiting)
        if before and any(waiting.asker == asker for waiting in self.waiting):
            self.waiting = deque(waiting for waiting in self.waiting if waiting.asker != asker)
        return before - len(self.waiting)


@dataclass(slots=True)
class TrackedContent:
    """One lineage of one dataset."""

    chunks: OrderedDict[int, Tracked] = field(default_factory=OrderedDict)
    sharers: dict[Sharer, None] = field(default_factory=dict)
    """Those who asked for some of it."""

    def forget_sharers(self) -> None:
        """Drop those that are not there any more."""
        for sharer in [sharer for sharer in self.sharers if sharer.is_forgotten]:
            del self.sharers[sharer]

    def drop_idle(self, looked_at_max: int = 16) -> bool:
        """Forget one of the chunks that are known for longest and are idle; False if there is none."""
        for nchunk, chunk in list(self.chunks.items())[:looked_at_max]:
            if chunk.is_idle:
                del self.chunks[nchunk]
                return True
            self.chunks.move_to_end(nchunk)
        return False


class Naming:
    """Collects where chunks are to be had, and puts it into as few messages as will do."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._held: list[HeldChunk] = []
        self._full: list[tuple[tuple[str, ...], tuple[HeldChunk, ...]]] = []

    def add(self, held: HeldChunk, peers: list[Sharer]) -> None:
        """Tell of one chunk.

        Args:
            held: without ``peers``.
            peers: those who have it.
        """
        new = sum(peer.endpoint not in self._names for peer in peers)
        if len(self._names) + new > HOLDERS_MAX or len(self._held) == HELD_CHUNKS_MAX:
            self._close()
        places = tuple(self._names.setdefault(peer.endpoint, len(self._names)) for peer in peers)
        self._held.append(HeldChunk(held.nchunk, held.digest, held.nbytes, places))

    def messages(self, lineage: str) -> list[Holders]:
        """Give all messages."""
        self._close()
        return [Holders(lineage, endpoints, held) for endpoints, held in self._full]

    def _close(self) -> None:
        if self._held:
            self._full.append((tuple(self._names), tuple(self._held)))
        self._names, self._held = {}, []
