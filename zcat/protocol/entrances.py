"""Machine: through which brokers a publisher's events go.

Each broker of a federation passes on what enters at the others, and tells in its pong whom it is linked to. So one
entrance is enough for all that are linked to it; a broker that is not, because it stands alone or is cut off from
the others, has one of its own. While links come and go an event may take two ways, which its number shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from zcat.protocol.brokers import Random, SendTo
from zcat.protocol.messages import Ping, Pong
from zcat.protocol.status_messages import AWAY, HERE, LinkState


@dataclass(frozen=True, slots=True)
class Enter:
    """Effect: send events to the ingress of that broker, too."""

    broker: int
    ingress: str
    """As the broker announced it."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Effect: take an `Enter` back."""

    broker: int


Effect = SendTo | Enter | Leave


@dataclass(frozen=True, slots=True)
class EntranceTimes:
    """The patience of a publisher with its brokers."""

    ping_s: float = 1.0
    silent_s: float = 3.0
    """A broker that did not answer a ping for so long is away."""


@dataclass(slots=True)
class _Broker:
    changed_at_s: float
    """When it came here or went away."""
    pong: Pong | None = None
    """Its last answer; None while it is away."""
    unanswered_since_s: float | None = None
    round_trip_s: float | None = None


class Entrances:
    """The brokers, and which of them are in use."""

    def __init__(self, now_s: float, random: Random, times: EntranceTimes | None = None) -> None:
        """Begin without brokers.

        Args:
            now_s: the time.
            random: for the jitter.
            times: the defaults if None.
        """
        self._random = random
        self._times = times or EntranceTimes()
        self._brokers: dict[int, _Broker] = {}
        self._used: dict[int, str] = {}  # ingresses
        self._next_at_s = now_s

    @property
    def is_heard(self) -> bool:
        """Some broker answers."""
        return any(held.pong is not None for held in self._brokers.values())

    def is_here(self, broker: int) -> bool:
        """Say whether a broker answers."""
        return broker in self._brokers and self._brokers[broker].pong is not None

    def links(self, endpoints: Mapping[int, str], now_s: float) -> dict[int, LinkState]:
        """Tell of all brokers, whose endpoints these are; of those in use that events go there."""
        return {
            number: LinkState(
                endpoint=endpoints[number],
                state=HERE if held.pong else AWAY,
                since_s=max(0.0, now_s - held.changed_at_s),
                owner=held.pong.owner if held.pong else None,
                round_trip_s=held.round_trip_s,
                notes=("events",) if number in self._used else (),
            )
            for number, held in self._brokers.items()
        }

    def add(self, broker: int, now_s: float) -> list[Effect]:
        """Take another broker, and ask it."""
        self._brokers[broker] = _Broker(now_s)
        return [SendTo(broker, Ping())]

    def drop(self, broker: int) -> list[Effect]:
        """Forget a broker."""
        del self._brokers[broker]
        return self._choose()

    def answered(self, broker: int, pong: Pong, now_s: float) -> list[Effect]:
        """Take a broker's answer."""
        held = self._brokers[broker]
        if held.pong is None:
            held.changed_at_s = now_s
        if held.unanswered_since_s is not None:
            held.round_trip_s = now_s - held.unanswered_since_s
        held.pong, held.unanswered_since_s = pong, None
        return self._choose()

    def tick(self, now_s: float) -> list[Effect]:
        """Ping all; leave who is silent."""
        late_s = now_s - self._next_at_s
        if late_s < 0:
            return []
        self._next_at_s = now_s + self._times.ping_s * (1 - self._random() / 4)
        for held in self._brokers.values():
            since_s = held.unanswered_since_s
            if since_s is None or late_s > self._times.ping_s:  # then we slept, and an answer may wait unread
                held.unanswered_since_s = now_s
            elif held.pong is not None and now_s >= since_s + self._times.silent_s:
                held.pong, held.changed_at_s = None, now_s
        return [*self._choose(), *(SendTo(broker, Ping()) for broker in self._brokers)]

    def next_deadline_s(self) -> float:
        """When `tick` wants to be called."""
        return self._next_at_s

    def _choose(self) -> list[Effect]:
        used = self._used
        here = {number: held.pong for number, held in self._brokers.items() if held.pong and held.pong.ingress}
        entered: dict[int, str] = {}
        owners: set[str] = set()
        for number in sorted(here, key=lambda number: (number not in used, number)):  # who is in use stays so
            pong = here[number]
            if owners.isdisjoint([pong.owner, *(neighbour.owner for neighbour in pong.neighbours)]):
                entered[number] = pong.ingress or ""
                owners.add(pong.owner)
        if not here:  # whoever is in use may come back
            entered = {number: ingress for number, ingress in used.items() if number in self._brokers}
        self._used = entered
        left = [number for number in used if used[number] != entered.get(number)]
        new = [number for number in entered if used.get(number) != entered[number]]
        return [*map(Leave, left), *(Enter(number, entered[number]) for number in new)]
