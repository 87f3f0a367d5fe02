"""Machine: the publisher as tracker. It gives a chunk to the first who ask, and sends all others to holders.

Who asks names the endpoint where it gives to others what it holds, and says what it holds as it gets it. So
the publisher knows the holders without any other state in the network. Requests for a chunk that is on its
way to its first holder *wait* here, and are answered as holders come: each new one takes a few of those that
wait, so that holders double and nobody is asked by a hundred at once. How much each holder is counted on at a
time is bounded in bytes; what it was counted on for is over when the asker says that it has the chunk.

Everything here is a hint. A reader whom it leads astray asks again without ``holders``, and gets the chunk.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice

from zcat.protocol.brokers import Random
from zcat.protocol.messages import Chunks
from zcat.protocol.referrals import Average, Referrals
from zcat.protocol.sharers import Sharer, SharerLimits, Sharers
from zcat.protocol.swarm_messages import Have, HeldChunk, Holders
from zcat.protocol.tracked import Content, Naming, Tracked, TrackedContent, Waiting

RELEASED_MAX = 2
"""Of those that wait for a chunk, at the end of each transfer of it: one for the new holder, one for the old."""
SCANNED_MAX = 12
"""Other chunks that are looked at for work for a holder that has room again."""
REVIVED_MAX = 512
"""Chunks that a tick looks at."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Effect: answer these chunks of a request with the chunks themselves."""

    asker: bytes
    request: int
    content: Content
    chunks: tuple[int, ...]
    bulk: bool


@dataclass(frozen=True, slots=True)
class Refer:
    """Effect: send this as an answer to a request."""

    asker: bytes
    request: int
    message: Holders


Effect = Serve | Refer


@dataclass(frozen=True, slots=True)
class TrackerLimits:
    """How often a publisher gives a chunk itself, and what it remembers. Above a limit it serves as if alone."""

    copies: int = 1
    """Of a chunk, given to those who give it to others, before any are sent to holders."""
    copies_few: int = 2
    """The same while no more than ``few`` of them read the dataset: these go without a second question."""
    few: int = 2
    chunks_max: int = 65536
    holders_max: int = 32
    """Of one chunk; a further one takes the place of another."""
    waiting_max: int = 65536
    referrals_max: int = 262_144
    named_max: int = 3
    """Holders that are named for one chunk."""
    reminder_s: float = 2.0
    """So often, those that wait are told that they are not forgotten."""
    lost_after_s: float = 2.0
    """A chunk that was given, and of which its asker says nothing for so long, at least, counts as lost."""
    tick_s: float = 0.1


@dataclass(slots=True)
class TrackerCounters:
    """What became of the chunks that were asked for by those who take `Holders` for an answer."""

    served: int = 0
    referred: int = 0
    waited: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is being decided on."""

    asker: bytes
    request: int
    place: Content
    bulk: bool
    sharer: Sharer | None
    now_s: float


class Tracker:
    """Who holds what of one root. Belongs to one thread."""

    def __init__(
        self, random: Random, limits: TrackerLimits | None = None, sharer_limits: SharerLimits | None = None
    ) -> None:
        self.counters = TrackerCounters()
        self.sharers = Sharers(sharer_limits)
        self._limits = limits or TrackerLimits()
        self._random = random
        self._contents: OrderedDict[Content, TrackedContent] = OrderedDict()
        self._wanted: OrderedDict[tuple[Content, int], None] = OrderedDict()  # chunks for which somebody waits
        self._referrals = Referrals(self._limits.referrals_max, self._limits.lost_after_s)
        self._arrival_s = Average(0.5)
        self.next_tick_s = 0.0
        """When `tick` wants to be called, if the tracker `is_busy`."""
        self.chunks_count = 0
        """Chunks of which something is known."""
        self.waiting_count = 0
        """Chunks of requests that wait for a holder."""

    @property
    def is_busy(self) -> bool:
        """Something may come to an end by itself, which `tick` sees to."""
        return bool(self._wanted or len(self._referrals))

    def asked(self, asker: bytes, request: int, message: Chunks, now_s: float) -> list[Effect]:
        """Take a request; what no effect speaks of waits, and is answered later.

        Args:
            asker: what the ROUTER calls it.
            request: its number.
            message: the request.
            now_s: the time.
        """
        me = self.sharers.met(asker, message.peer, now_s)
        asked = _Asked(asker, request, (message.path, message.lineage), message.bulk, me, now_s)
        content = self._content(asked)
        served: list[int] = []
        naming = Naming()
        for nchunk in dict.fromkeys(message.chunks):
            chunk = self._chunk(content, nchunk)
            if chunk is None:
                served.append(nchunk)
                continue
            chunk.forget(me)
            chunk.forget(self._referrals.drop((asker, asked.place, nchunk)))  # it was sent there in vain
            self._withdraw(asked.place, nchunk, asker)
            if message.holders and self._refer(asked, nchunk, chunk, naming):
                continue
            if message.holders and self._may_wait(content, chunk, now_s):
                self._wait(asked, nchunk, chunk)
                continue
            chunk.give(asker, me)
            served.append(nchunk)
        self.counters.served += len(served) if message.holders else 0
        effects: list[Effect] = [Serve(asker, request, asked.place, tuple(served), asked.bulk)] if served else []
        return effects + _told(asker, request, asked.place, naming)

    def served(self, asker: bytes, place: Content, held: HeldChunk, now_s: float) -> None:
        """A chunk left for an asker: learn its digest and size, which ``held`` has."""
        chunk = self._known(place, held.nchunk)
        if chunk is not None:
            chunk.digest, chunk.nbytes = held.digest, held.nbytes
            if asker in chunk.given:
                chunk.given[asker] = now_s

    def unserved(self, asker: bytes, place: Content, nchunk: int) -> list[Effect]:
        """A chunk that was to be served cannot be: those that wait for it shall hear the reason, too."""
        chunk = self._known(place, nchunk)
        if chunk is None:
            return []
        chunk.lose(asker)
        effects: list[Effect] = []
        while chunk.waiting:
            effects += self._serve_next(place, nchunk, chunk)
        if chunk.digest is None and chunk.is_idle:  # of a lineage that never was, perhaps
            del self._contents[place].chunks[nchunk]
            self.chunks_count -= 1
        return effects

    def have(self, asker: bytes, message: Have, now_s: float) -> list[Effect]:
        """An asker holds chunks: it can be named now, and those can again who gave them to it."""
        if message.peer is None and not message.chunks:
            self.sharers.leave(asker)
        me = self.sharers.met(asker, message.peer, now_s)
        place: Content = message.path, message.lineage
        failed = [self.sharers.strike(endpoint, asker, now_s) for endpoint in message.failed]
        free: dict[Sharer, None] = {}
        effects: list[Effect] = []
        for nchunk in message.chunks:
            chunk = self._known(place, nchunk)
            if chunk is None or chunk.digest is None:
                continue
            left_at_s = chunk.received(asker)
            if left_at_s is not None:
                self._arrival_s.take(now_s - left_at_s)
            for peer in failed:
                chunk.forget(peer)
            source = self._referrals.done((asker, place, nchunk), now_s)
            if source is not None:
                free[source] = None
            if me is not None:
                chunk.hold(me, self._limits.holders_max, self._random)
            effects += self._release(place, nchunk, chunk, RELEASED_MAX, now_s)
        for source in free:
            effects += self._find_work(source, now_s)
        return effects

    def heard(self, asker: bytes, now_s: float) -> None:
        """An asker gave a sign of life."""
        self.sharers.heard(asker, now_s)

    def gone(self, asker: bytes) -> None:
        """An asker is not connected any more: forget what it waits for."""
        self.sharers.gone(asker)
        for place, nchunk in list(self._wanted):
            self._withdraw(place, nchunk, asker)

    def tick(self, now_s: float) -> list[Effect]:
        """See whether what waits can be answered now, and remind those that wait on."""
        if now_s < self.next_tick_s:
            return []
        self.next_tick_s = now_s + self._limits.tick_s
        if self.sharers.tick(now_s):
            for content in self._contents.values():
                content.forget_sharers()
        self._referrals.expire(now_s)
        effects: list[Effect] = []
        for place, nchunk in list(islice(self._wanted, REVIVED_MAX)):
            chunk = self._known(place, nchunk)
            assert chunk is not None
            self._wanted.move_to_end((place, nchunk))
            effects += self._revive(place, nchunk, chunk, now_s)
            effects += self._remind(place, nchunk, chunk, now_s)
        return effects

    # -- one chunk -----------------------------------------------------------------------------------

    def _refer(self, asked: _Asked, nchunk: int, chunk: Tracked, naming: Naming) -> bool:
        """Name holders to an asker; False if none has room, or if it shall get the chunk itself."""
        is_early = asked.sharer is not None and chunk.copies < self._copies(self._contents[asked.place])
        if is_early and not chunk.waiting:
            return False
        peers = self._pick(chunk, asked.sharer, asked.now_s)
        if not peers:
            return False
        self._referrals.begin((asked.asker, asked.place, nchunk), peers[0], chunk.nbytes, asked.now_s)
        self.counters.referred += 1
        naming.add(HeldChunk(nchunk, chunk.digest, chunk.nbytes), peers)
        return True

    def _pick(self, chunk: Tracked, me: Sharer | None, now_s: float) -> list[Sharer]:
        """Choose the least loaded of a few holders, and others to fall back on; none if no one has room."""
        if chunk.digest is None:
            return []
        some = chunk.some_holders(2 * self._limits.named_max, self._random)
        usable = [peer for peer in some if peer is not me and self.sharers.is_usable(peer, now_s)]
        usable.sort(key=lambda peer: peer.load_bytes)
        if not usable or not self.sharers.has_room(usable[0], chunk.nbytes):
            return []
        return usable[: self._limits.named_max]

    def _may_wait(self, content: TrackedContent, chunk: Tracked, now_s: float) -> bool:
        """Say whether an asker shall wait: copies were given, and one has arrived or is on its way."""
        if self.waiting_count >= self._limits.waiting_max:
            return False
        return self._is_alive(chunk, now_s) and (bool(chunk.waiting) or chunk.copies >= self._copies(content))

    def _is_alive(self, chunk: Tracked, now_s: float) -> bool:
        """Say whether somebody holds a chunk, or is about to."""
        patience_s = max(self._limits.lost_after_s, 4 * self._arrival_s.value)
        for asker, left_at_s in list(chunk.given.items()):
            if left_at_s is not None and now_s - left_at_s > patience_s:
                chunk.lose(asker)
        return bool(chunk.given) or any(self.sharers.is_usable(peer, now_s) for peer in chunk.holders)

    def _copies(self, content: TrackedContent) -> int:
        limits = self._limits
        return limits.copies_few if len(content.sharers) <= limits.few else limits.copies

    # -- those that wait -----------------------------------------------------------------------------

    def _wait(self, asked: _Asked, nchunk: int, chunk: Tracked) -> None:
        waiting = Waiting(asked.asker, asked.request, asked.bulk, asked.sharer, asked.now_s)
        if asked.bulk:
            chunk.waiting.append(waiting)
        else:
            chunk.waiting.appendleft(waiting)
        self.waiting_count += 1
        self.counters.waited += 1
        self._wanted[asked.place, nchunk] = None

    def _next_waiting(self, place: Content, nchunk: int, chunk: Tracked) -> Waiting:
        waiting = chunk.waiting.popleft()
        self.waiting_count -= 1
        if not chunk.waiting:
            del self._wanted[place, nchunk]
        return waiting

    def _withdraw(self, place: Content, nchunk: int, asker: bytes) -> None:
        """Forget that an asker waits for a chunk."""
        chunk = self._known(place, nchunk)
        if chunk is None or not chunk.waiting:
            return
        self.waiting_count -= chunk.withdraw(asker)
        if not chunk.waiting:
            del self._wanted[place, nchunk]

    def _release(self, place: Content, nchunk: int, chunk: Tracked, count: int, now_s: float) -> list[Effect]:
        """Send some of those that wait for a chunk to its holders."""
        effects: list[Effect] = []
        while chunk.waiting and count:
            peers = self._pick(chunk, chunk.waiting[0].sharer, now_s)
            if not peers:
                break
            waiting = self._next_waiting(place, nchunk, chunk)
            self._referrals.begin((waiting.asker, place, nchunk), peers[0], chunk.nbytes, now_s)
            self.counters.referred += 1
            naming = Naming()
            naming.add(HeldChunk(nchunk, chunk.digest, chunk.nbytes), peers)
            effects += _told(waiting.asker, waiting.request, place, naming)
            count -= 1
        return effects

    def _serve_next(self, place: Content, nchunk: int, chunk: Tracked) -> list[Effect]:
        waiting = self._next_waiting(place, nchunk, chunk)
        chunk.give(waiting.asker, waiting.sharer)
        self.counters.served += 1
        return [Serve(waiting.asker, waiting.request, place, (nchunk,), waiting.bulk)]

    def _revive(self, place: Content, nchunk: int, chunk: Tracked, now_s: float) -> list[Effect]:
        """Go on with a chunk for which somebody waits, however it came to a halt."""
        effects = self._release(place, nchunk, chunk, RELEASED_MAX, now_s)
        if effects or self._is_alive(chunk, now_s):
            return effects
        return self._serve_next(place, nchunk, chunk)

    def _find_work(self, source: Sharer, now_s: float) -> list[Effect]:
        """Have a holder that has room again asked for something that it holds and others wait for."""
        effects: list[Effect] = []
        for place, nchunk in list(islice(self._wanted, SCANNED_MAX)):
            self._wanted.move_to_end((place, nchunk))
            chunk = self._known(place, nchunk)
            if chunk is not None and source in chunk.holders:
                effects += self._release(place, nchunk, chunk, 1, now_s)
                if not self.sharers.has_room(source, chunk.nbytes):
                    break
        return effects

    def _remind(self, place: Content, nchunk: int, chunk: Tracked, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for waiting in chunk.waiting:
            if now_s - waiting.told_at_s >= self._limits.reminder_s:
                waiting.told_at_s = now_s
                naming = Naming()
                naming.add(HeldChunk(nchunk), [])
                effects += _told(waiting.asker, waiting.request, place, naming)
        return effects

    # -- what is remembered --------------------------------------------------------------------------

    def _content(self, asked: _Asked) -> TrackedContent:
        content = self._contents.setdefault(asked.place, TrackedContent())
        self._contents.move_to_end(asked.place)
        if asked.sharer is not None:
            content.sharers[asked.sharer] = None
        return content

    def _known(self, place: Content, nchunk: int) -> Tracked | None:
        content = self._contents.get(place)
        return content.chunks.get(nchunk) if content is not None else None

    def _chunk(self, content: TrackedContent, nchunk: int) -> Tracked | None:
        """Give what is known of a chunk; None if it is new and nothing else can be forgotten for it."""
        chunk = content.chunks.get(nchunk)
        if chunk is not None:
            return chunk
        while self.chunks_count >= self._limits.chunks_max:
            place, oldest = next(iter(self._contents.items()))
            if oldest.drop_idle():
                self.chunks_count -= 1
            elif oldest.chunks or oldest is content:
                return None
            else:
                del self._contents[place]
        chunk = content.chunks[nchunk] = Tracked()
        self.chunks_count += 1
        return chunk


def _told(asker: bytes, request: int, place: Content, naming: Naming) -> list[Effect]:
    return [Refer(asker, request, message) for message in naming.messages(place[1])]
