"""Machine: bring one broker's directory to where those of its neighbours are, by asking for what differs.

Anti-entropy as in Demers et al., "Epidemic Algorithms for Replicated Database Maintenance" (1987). Each
broker only ever pulls: from one neighbour at a time, so that a broker that returns neither floods the others nor
is flooded. Those whose pong came meanwhile have their turn next, or one that always comes late would never be
asked. A pong says the digest of a directory; when it is another than ours, the digests of its buckets say where,
and the records of those are merged. What that does not change is not asked for again soon, unless one of the two
directories changes: a sign of life, which may be what was missing, changes no digest.
"""

from dataclasses import dataclass, replace

from zcat.protocol.brokers import Random, SendTo
from zcat.protocol.directory import Directory
from zcat.protocol.federation_messages import Digest, Digests, Records
from zcat.protocol.messages import DirectoryChanged, ListedClaim, Listing, Pong
from zcat.protocol.pages import unpaged

Effect = SendTo | DirectoryChanged
"""A change is one to be published."""


@dataclass(frozen=True, slots=True)
class ReconcilerLimits:
    """The rhythm of a reconciler."""

    pause_s: float = 1.0
    """Between the end of an exchange with one neighbour and the next with the same, half as much or more."""
    deaf_s: float = 3.0
    """A neighbour that had no sign of life to tell of is not asked for one again for so long, or half of it."""
    fruitless_s: float = 10.0
    """After an exchange that changed nothing none is tried for so long, while both directories stay the same."""
    answer_wait_s: float = 3.0
    """Then an exchange is given up."""
    parts_max: int = 1000
    """Answers of one exchange: what goes on for longer than that never ends."""


@dataclass(slots=True)
class _Exchange:
    """What is asked of one neighbour."""

    broker: int
    owner: str
    digest: int
    asked: Digest | Records
    id: int
    asked_at_s: float
    parts: int = 0
    has_changed: bool = False


class Reconciler:
    """Pulls what others know and this directory does not."""

    def __init__(self, directory: Directory, random: Random, limits: ReconcilerLimits | None = None) -> None:
        """Begin.

        Args:
            directory: of this broker; changed by the answers.
            random: for the jitter.
            limits: the defaults if None.
        """
        self._directory = directory
        self._random = random
        self._limits = limits or ReconcilerLimits()
        self._exchange: _Exchange | None = None
        self._waiting: dict[str, tuple[int, Pong]] = {}  # by owner: who told something during an exchange
        self._next_at_s: dict[str, float] = {}
        self._fruitless: dict[
            str, tuple[int, int, float]
        ] = {}  # by owner: both digests as it ended, and until when
        self._deaf_until_s: dict[str, float] = {}  # by owner: it had no sign of life that we lack
        self._last_id = 0

    def told(self, broker: int, pong: Pong, now_s: float) -> list[Effect]:
        """Take the digest of a neighbour; ask it, if it differs: at once, or after the one that is being asked."""
        held = self._exchange
        if held is not None and now_s < held.asked_at_s + self._limits.answer_wait_s:
            self._waiting[pong.owner] = broker, pong
            return []
        self._waiting.pop(pong.owner, None)
        if pong.digest is None or now_s < self._next_at_s.get(pong.owner, now_s):
            return []
        ours = self._directory.digest
        begun = _Exchange(broker, pong.owner, pong.digest, Digest(), 0, now_s)
        if pong.digest != ours and not self._is_fruitless(pong.owner, pong.digest, now_s):
            return self._ask(begun, Digest(), now_s)
        if now_s < self._deaf_until_s.get(pong.owner, now_s):
            return []
        buckets = self._directory.running_out(now_s)
        return self._ask(begun, Records(buckets, first_hand=True), now_s) if buckets else []

    def digests(self, broker: int, answer: Digests, id: int, now_s: float) -> list[Effect]:
        """Take the digests of a neighbour's buckets."""
        held = self._exchange
        if held is None or (held.broker, held.id) != (broker, id) or not isinstance(held.asked, Digest):
            return []
        pairs = zip(self._directory.digests(), answer.buckets, strict=True)
        differing = tuple(bucket for bucket, (ours, theirs) in enumerate(pairs) if ours != theirs)
        return self._ask(held, Records(differing), now_s) if differing else self._end(held, now_s)

    def records(self, broker: int, answer: Listing, id: int, now_s: float) -> list[Effect]:
        """Take a neighbour's records.

        Raises:
            BadMessage: a page cannot be read.
        """
        held = self._exchange
        if held is None or (held.broker, held.id) != (broker, id) or not isinstance(held.asked, Records):
            return []
        waited_s = now_s - held.asked_at_s  # on its way a sign of life has become older, at most by this
        effects: list[Effect] = []
        for listed in unpaged(ListedClaim, answer.pages):
            effects += self._directory.merge(replace(listed, age_s=listed.age_s + waited_s), now_s)
        held.has_changed |= bool(effects)
        held.parts += 1
        if answer.next is not None and held.parts < self._limits.parts_max:
            return [*effects, *self._ask(held, replace(held.asked, after=answer.next), now_s)]
        return [*effects, *self._end(held, now_s)]

    def forget(self, broker: int) -> None:
        """A neighbour is gone: whatever it was asked, it will not answer, and it is not asked."""
        self._waiting = {owner: told for owner, told in self._waiting.items() if told[0] != broker}
        if self._exchange is not None and self._exchange.broker == broker:
            self._exchange = None

    # -- private -------------------------------------------------------------------------------------

    def _is_fruitless(self, owner: str, digest: int, now_s: float) -> bool:
        theirs, ours, until_s = self._fruitless.get(owner, (0, 0, now_s))
        return now_s < until_s and (theirs, ours) == (digest, self._directory.digest)

    def _ask(self, exchange: _Exchange, message: Digest | Records, now_s: float) -> list[Effect]:
        self._last_id += 1
        exchange.asked, exchange.id, exchange.asked_at_s = message, self._last_id, now_s
        self._exchange = exchange
        return [SendTo(exchange.broker, message, exchange.id)]

    def _end(self, exchange: _Exchange, now_s: float) -> list[Effect]:
        self._exchange = None
        self._next_at_s[exchange.owner] = now_s + self._limits.pause_s * (0.5 + self._random() / 2)
        ours, asked = self._directory.digest, exchange.asked
        if isinstance(asked, Records) and asked.first_hand:
            if self._directory.running_out(now_s) == asked.buckets:  # the others' turn
                self._deaf_until_s[exchange.owner] = now_s + self._limits.deaf_s * (1 - self._random() / 2)
        elif not exchange.has_changed and exchange.digest != ours:
            self._fruitless[exchange.owner] = exchange.digest, ours, now_s + self._limits.fruitless_s
        for owner in [owner for owner, at_s in self._next_at_s.items() if at_s < now_s - 60]:  # long gone
            del self._next_at_s[owner]
            self._fruitless.pop(owner, None)
            self._deaf_until_s.pop(owner, None)
        return self._next_exchange(now_s)

    def _next_exchange(self, now_s: float) -> list[Effect]:
        """Have the turn of whoever waits for the longest time and has something to tell."""
        while self._waiting:
            effects = self.told(*self._waiting.pop(next(iter(self._waiting))), now_s)
            if effects:
                return effects
        return []
