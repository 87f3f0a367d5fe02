"""Machine: the brokers that a process knows: those of its configuration, and those that these tell of.

Each has a number, under which the other machines speak of it. A broker tells only of those that answer it, so
that one that is gone is not passed around; one that was learned of is forgotten when nobody tells of it any more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zcat.limits import BROKERS_MAX
from zcat.names import is_local_endpoint
from zcat.protocol.federation_messages import Neighbour
from zcat.protocol.messages import Pong

FORGET_S = 60.0
"""A broker that was learned of, and of which nothing was heard for so long, is forgotten."""


@dataclass(frozen=True, slots=True)
class Met:
    """Effect: there is another broker."""

    broker: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Effect: this one is no more, or is known under another number, or is ourselves."""

    broker: int


Effect = Met | Forgotten


@dataclass(slots=True)
class _Known:
    endpoint: str
    is_configured: bool
    told_at_s: float
    owner: str | None = None
    """Whom it said to be when it last answered."""


class KnownBrokers:
    """Numbers, endpoints and owners."""

    def __init__(self, now_s: float, own: str = "") -> None:
        """Begin with none.

        Args:
            now_s: the time.
            own: key of this process if it is a broker: it is none of the others.
        """
        self._own = own
        self._known: dict[int, _Known] = {}
        self._last = -1
        self._heard_at_s = now_s

    @property
    def endpoints(self) -> dict[int, str]:
        """Where each one's directory is."""
        return {number: known.endpoint for number, known in self._known.items()}

    def endpoint(self, broker: int) -> str:
        """Where its directory is."""
        return self._known[broker].endpoint

    def owner(self, broker: int) -> str | None:
        """Whom it last said to be."""
        return self._known[broker].owner

    def configured(self, endpoints: Iterable[str], now_s: float) -> list[Effect]:
        """Take what the configuration names; further calls only add."""
        return [effect for endpoint in endpoints for effect in self._meet(endpoint, now_s, is_configured=True)]

    def introduced(self, neighbour: Neighbour, now_s: float) -> list[Effect]:
        """Take a broker's own word of where it is."""
        if neighbour.owner == self._own or self._tell(neighbour, now_s):
            return []
        return self._meet(neighbour.endpoint, now_s)

    def heard(self, broker: int, pong: Pong, now_s: float) -> list[Effect]:
        """Take an answer: who this broker is, and whom it tells of."""
        known = self._known[broker]
        known.owner, known.told_at_s = pong.owner, now_s
        if pong.owner == self._own:
            return self._forget(lambda number, _: number == broker)
        if now_s - self._heard_at_s > FORGET_S / 2:  # it was us who heard nobody: that says nothing of the others
            for other in self._known.values():
                other.told_at_s = now_s
        self._heard_at_s = now_s
        effects = self._forget(lambda number, other: self._is_alias(number, other) or self._is_gone(other, now_s))
        for neighbour in pong.neighbours:
            if neighbour.owner == self._own or self._tell(neighbour, now_s):
                continue
            if is_local_endpoint(known.endpoint) or not is_local_endpoint(neighbour.endpoint):
                effects += self._meet(neighbour.endpoint, now_s)
        return effects

    # -- private -------------------------------------------------------------------------------------

    def _tell(self, neighbour: Neighbour, now_s: float) -> bool:
        """Note that somebody tells of a broker; say whether it is known."""
        is_known = False
        for known in self._known.values():
            if known.endpoint == neighbour.endpoint or known.owner == neighbour.owner:
                known.told_at_s, is_known = now_s, True
        return is_known

    def _meet(self, endpoint: str, now_s: float, is_configured: bool = False) -> list[Effect]:
        for known in self._known.values():
            if known.endpoint == endpoint:
                known.is_configured |= is_configured
                return []
        if len(self._known) >= BROKERS_MAX and not is_configured:
            return []
        self._last += 1
        self._known[self._last] = _Known(endpoint, is_configured, now_s)
        return [Met(self._last, endpoint)]

    def _is_alias(self, number: int, known: _Known) -> bool:
        """Say whether a broker that was learned of has a lower number, too."""
        if known.is_configured or known.owner is None:
            return False
        return any(other.owner == known.owner for at, other in self._known.items() if at < number)

    def _is_gone(self, known: _Known, now_s: float) -> bool:
        return not known.is_configured and now_s - known.told_at_s > FORGET_S

    def _forget(self, which: Callable[[int, _Known], bool]) -> list[Effect]:
        gone = [number for number, known in self._known.items() if which(number, known)]
        for number in gone:
            del self._known[number]
        return [Forgotten(number) for number in gone]
