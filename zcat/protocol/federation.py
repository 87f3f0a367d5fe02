"""Machine: the other brokers of one broker, and the links by which it has their events.

A broker that knows some others finds all of them: each ping introduces who asks, each pong tells whom the
answering one hears. Who answers is linked, which is to have the events that enter there, and is told of to
everybody who pings this broker; who is silent is neither. So whoever is told "B hears A" may send his events to
A alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zcat.protocol.brokers import Random, SendTo, backoff_s, reached_by
from zcat.protocol.federation_messages import Neighbour
from zcat.protocol.known_brokers import Forgotten, KnownBrokers, Met
from zcat.protocol.messages import Ping, Pong
from zcat.protocol.status_messages import AWAY, HERE, LinkState


@dataclass(frozen=True, slots=True)
class Link:
    """Effect: have the events of the broker whose mesh endpoint this is."""

    mesh: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Effect: take a `Link` back."""

    mesh: str


Effect = SendTo | Met | Forgotten | Link | Unlink


@dataclass(frozen=True, slots=True)
class FederationTimes:
    """The patience of a federation."""

    ping_s: float = 1.0
    silent_s: float = 3.0
    """A neighbour that did not answer a ping for so long is away."""
    retry_first_s: float = 0.5
    """Between the first ping to one that is away and the second; doubled from then on."""
    retry_max_s: float = 5.0


@dataclass(slots=True)
class _Neighbour:
    next_at_s: float
    changed_at_s: float
    """When it came here or went away."""
    says: str | None = None
    """The endpoint by which it introduced itself."""
    pong: Pong | None = None
    """Its last answer; None while it is away."""
    unanswered_since_s: float | None = None
    round_trip_s: float | None = None
    failures: int = 0


class Federation:
    """The other brokers."""

    def __init__(self, own: Neighbour, now_s: float, random: Random, times: FederationTimes | None = None) -> None:
        """Begin alone; `join` names others.

        Args:
            own: how this broker introduces itself.
            now_s: the time.
            random: for the jitter.
            times: the defaults if None.
        """
        self.own = own
        self._random = random
        self._times = times or FederationTimes()
        self._known = KnownBrokers(now_s, own.owner)
        self._neighbours: dict[int, _Neighbour] = {}
        self._links: dict[str, str] = {}  # by owner: mesh endpoints
        self._told: tuple[Neighbour, ...] = ()

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """Those that answer and are linked: what a pong tells of."""
        return self._told

    def is_here(self, broker: int) -> bool:
        """Say whether a neighbour of that number answers."""
        return broker in self._neighbours and self._neighbours[broker].pong is not None

    def join(self, endpoints: tuple[str, ...], now_s: float) -> list[Effect]:
        """Take the brokers of the configuration."""
        return self._meet(self._known.configured(endpoints, now_s), now_s)

    def introduced(self, neighbour: Neighbour, now_s: float) -> list[Effect]:
        """Take the introduction of whoever pinged us. Not believed before it has answered us, too."""
        effects = self._meet(self._known.introduced(neighbour, now_s), now_s)
        for number, held in self._neighbours.items():
            is_it = self._known.owner(number) == neighbour.owner or held.says == neighbour.endpoint
            if not is_it and self._known.endpoint(number) != neighbour.endpoint:
                continue
            held.says = neighbour.endpoint
            if held.failures > 1:  # it is back
                held.failures, held.next_at_s = 0, min(held.next_at_s, now_s)
        return [*effects, *self.tick(now_s)]

    def answered(self, broker: int, pong: Pong, now_s: float) -> list[Effect]:
        """Take a neighbour's answer."""
        held = self._neighbours.get(broker)
        if held is None or pong.service != "broker":
            return []
        if held.pong is None:
            held.changed_at_s = now_s
        if held.unanswered_since_s is not None:
            held.round_trip_s = now_s - held.unanswered_since_s
        held.pong, held.unanswered_since_s, held.failures = pong, None, 0
        held.next_at_s = now_s + self._pause_s()
        effects = self._meet(self._known.heard(broker, pong, now_s), now_s)
        return [*effects, *self._link(), *self.tick(now_s)]

    def tick(self, now_s: float) -> list[Effect]:
        """Ping who is due; part from who is silent."""
        effects: list[Effect] = []
        for number, held in self._neighbours.items():
            late_s = now_s - held.next_at_s
            if late_s < 0:
                continue
            since_s = held.unanswered_since_s
            if (
                since_s is None or late_s > self._times.ping_s
            ):  # asleep ourselves: the answer may be waiting unread
                held.unanswered_since_s = now_s
            elif held.pong is not None and now_s >= since_s + self._times.silent_s:
                held.pong, held.changed_at_s = None, now_s
            held.failures += held.pong is None
            held.next_at_s = now_s + (self._pause_s() if held.pong else self._retry_s(held.failures))
            effects.append(SendTo(number, Ping(self.own)))
        return [*effects, *self._link()]

    def links(self, digest: int, now_s: float) -> list[LinkState]:
        """Tell of all brokers that are known, of those with our ``digest`` that they are in step."""
        return [
            LinkState(
                endpoint=held.says or self._known.endpoint(number),
                state=HERE if held.pong else AWAY,
                since_s=max(0.0, now_s - held.changed_at_s),
                owner=self._known.owner(number),
                round_trip_s=held.round_trip_s,
                notes=("in step",) if held.pong and held.pong.digest == digest else (),
            )
            for number, held in self._neighbours.items()
        ]

    def next_deadline_s(self) -> float | None:
        """When `tick` wants to be called; None while nobody else is known."""
        return min((held.next_at_s for held in self._neighbours.values()), default=None)

    # -- private -------------------------------------------------------------------------------------

    def _meet(self, effects: Sequence[Met | Forgotten], now_s: float) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Met):
                self._neighbours[effect.broker] = _Neighbour(now_s, now_s)
            else:
                gone = self._neighbours.pop(effect.broker)
                for held in self._neighbours.values():
                    if held.pong and gone.pong and held.pong.owner == gone.pong.owner:
                        held.says = held.says or gone.says
        return [*effects, *(self.tick(now_s) if effects else ())]

    def _link(self) -> list[Effect]:
        """Have one link to each broker that answers, under whatever numbers."""
        told: dict[str, Neighbour] = {}
        wanted: dict[str, str] = {}
        for number, held in self._neighbours.items():
            pong = held.pong
            if pong is None or pong.owner in told or pong.mesh is None:
                continue
            endpoint = self._known.endpoint(number)
            told[pong.owner] = Neighbour(held.says or endpoint, pong.owner, pong.incarnation)
            wanted[pong.owner] = reached_by(pong.mesh, endpoint)
        self._told = tuple(told.values())
        former, self._links = self._links, wanted
        gone, new = set(former.values()) - set(wanted.values()), set(wanted.values()) - set(former.values())
        return [*map(Unlink, sorted(gone)), *map(Link, sorted(new))]

    def _pause_s(self) -> float:
        return self._times.ping_s * (1 - self._random() / 4)

    def _retry_s(self, failures: int) -> float:
        return backoff_s(max(1, failures), self._times.retry_first_s, self._times.retry_max_s, self._random)
