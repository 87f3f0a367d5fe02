"""A publisher's side of its brokers: each lists the root, and each forwards the root's events.

One DEALER to the directory of every broker that is configured or that these tell of, and one PUB, connected to as
few brokers' ingresses as it takes for all of them to have the events (`zcat.protocol.entrances`). Nothing depends
on a broker: one that is away is asked again, ever more slowly, by the `Announcer`.
"""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from zcat.errors import BadName
from zcat.logs import kv
from zcat.model.root import Claim
from zcat.net.loop import Loop, Timer
from zcat.net.sockets import SocketFactory, connect, disconnect
from zcat.net.wire import Parts, Sent, send
from zcat.protocol.announcer import Announcer, AnnouncerTimes, RaiseIncarnation
from zcat.protocol.brokers import SendTo, reached_by
from zcat.protocol.directory import HERE
from zcat.protocol.entrances import Enter, Entrances, Leave
from zcat.protocol.known_brokers import Forgotten, KnownBrokers, Met
from zcat.protocol.messages import (
    Changes,
    Failed,
    Granted,
    ListedClaim,
    Listing,
    Lookup,
    Message,
    Pong,
    decode,
    encode,
)
from zcat.protocol.pages import unpaged
from zcat.protocol.status_messages import LinkState
from zcat.services.broker_sources import BrokerSources
from zcat.services.dealers import Dealers

SILENT_S = 4.0
"""After the start; who mistyped an endpoint should not have to guess."""

log = logging.getLogger(__name__)


class Announcing:
    """Tells all brokers. Lives on the loop's thread, but is made before that is started."""

    def __init__(self, loop: Loop, sockets: SocketFactory, brokers: Sequence[str], outdone: Callable[[int], None]):
        """Connect to the brokers; `begin` announces.

        Args:
            loop: that will own the sockets.
            sockets: for control messages.
            brokers: endpoints of their directories, or files of such.
            outdone: called when a broker remembers a later life of ours, with its number: go above it, and
                `update` the claim.

        Raises:
            BadName: one of them is neither.
        """
        self._loop = loop
        self._outdone = outdone
        self._announcer: Announcer | None = None
        self._timer: Timer | None = None
        self._pub = sockets.pub()
        loop.register(self._pub)
        self._dealers = Dealers(loop, sockets, self._receive, self._enter_anew)
        self._ingresses: dict[int, str] = {}  # those that events go to
        self._farewells: set[int] = set()  # brokers whose confirmation is worth waiting for
        self._was_contested = False
        now_s = loop.now_s()
        self._known = KnownBrokers(now_s)
        self._entrances = Entrances(now_s, random.random)
        self._sources = BrokerSources(brokers, loop, self._found)
        for met in self._known.configured(self._sources.endpoints, now_s):
            assert isinstance(met, Met)
            self._connect(met)

    @property
    def listed_count(self) -> int:
        """Brokers that have confirmed the claim as it is now."""
        return self._announcer.listed_count if self._announcer else 0

    @property
    def used_count(self) -> int:
        """Brokers that events are sent to: one is enough for all that are linked."""
        return len(self._ingresses)

    @property
    def is_contested(self) -> bool:
        """A broker said that somebody else claims the root, too."""
        return self._announcer is not None and self._announcer.contested

    def begin(self, claim: Claim, renew_s: float) -> None:
        """Announce, and keep the claim listed from now on."""
        now_s = self._loop.now_s()
        times = AnnouncerTimes(renew_s=renew_s)
        self._announcer = Announcer(claim, len(self._dealers), now_s, random.random, times)
        self._tick()
        self._ping()
        self._loop.call_after(SILENT_S, self._warn_if_unlisted)

    def update(self, claim: Claim) -> None:
        """Announce a later claim instead; without effect before `begin`."""
        if self._announcer is not None and not self._announcer.claim.deleted:
            self._obey(self._announcer.update(claim, self._loop.now_s()))

    def withdraw(self) -> None:
        """Announce that the root is gone."""
        if self._announcer is not None and not self._announcer.claim.deleted:
            listing = [broker for broker in self._dealers if self._announcer.lists(broker)]
            self._farewells = {broker for broker in listing if self._entrances.is_here(broker)}
            self._obey(self._announcer.withdraw(self._loop.now_s()))

    @property
    def is_farewell_over(self) -> bool:
        """All brokers that listed the root, and can be reached, have confirmed that it is gone."""
        return self._announcer is None or all(map(self._announcer.lists, self._farewells))

    def publish(self, changes: Changes) -> None:
        """Send events to the followers of the root. One that misses them asks for them."""
        topic = f"root/{changes.root}/{changes.owner}/".encode()
        send(self._pub, [topic, *encode(changes)])

    def links(self) -> list[LinkState]:
        """Tell of all brokers that are known, and of what they confirmed. On the loop's thread."""
        links = self._entrances.links(self._known.endpoints, self._loop.now_s())
        said = self._announcer.notes() if self._announcer else {}
        return [replace(link, notes=(*link.notes, *said.get(number, ()))) for number, link in links.items()]

    # -- private -------------------------------------------------------------------------------------

    def _receive(self, broker: int, parts: Parts) -> None:
        received = decode(parts)
        match received.message:
            case Granted() | Failed() as answer:
                if self._announcer is not None:
                    self._obey(self._announcer.answered(broker, answer, received.id, self._loop.now_s()))
                    self._look_whether_contested(broker)
            case Listing() as listing if self._announcer is not None:
                self._name_rivals(self._announcer.claim, unpaged(ListedClaim, listing.pages))
            case Pong() as pong if self._announcer is not None and broker in self._dealers:
                now_s = self._loop.now_s()
                self._enter(self._entrances.answered(broker, pong, now_s))
                self._meet(self._known.heard(broker, pong, now_s))
                if broker in self._dealers:  # else it is known under another number, too
                    self._obey(self._announcer.heard(broker, now_s))
            case _:
                log.debug("an answer to nothing %s", kv(verb=received.message.verb, broker=broker))

    def _look_whether_contested(self, broker: int) -> None:
        assert self._announcer is not None
        is_contested = self._announcer.contested
        if is_contested and not self._was_contested:  # ask who else it is
            self._send(broker, Lookup(self._announcer.claim.root))
        elif self._was_contested and not is_contested:
            log.info("contested no more %s", kv(root=self._announcer.claim.root))
        self._was_contested = is_contested

    def _name_rivals(self, own: Claim, listed: Sequence[ListedClaim]) -> None:
        for claim in [each.claim for each in listed if each.claim.owner != own.owner and each.state in HERE]:
            log.warning(
                "contested: another publisher claims this root, too, so new readers must write ROOT@OWNER; "
                "stop one of them, or give it another name %s",
                kv(root=own.root, owner=own.owner, other=claim.owner, at=" ".join(claim.endpoints)),
            )

    def _found(self, endpoints: Sequence[str]) -> None:
        self._meet(self._known.configured(endpoints, self._loop.now_s()))

    def _connect(self, met: Met) -> None:
        self._dealers.connect(met.broker, met.endpoint)
        self._enter(self._entrances.add(met.broker, self._loop.now_s()))

    def _meet(self, effects: Sequence[Met | Forgotten]) -> None:
        assert self._announcer is not None
        for effect in effects:
            if isinstance(effect, Met):
                log.info("another broker %s", kv(endpoint=effect.endpoint))
                self._connect(effect)
                self._obey(self._announcer.add(effect.broker, self._loop.now_s()))
            else:
                self._enter(self._entrances.drop(effect.broker))
                self._announcer.drop(effect.broker)
                self._dealers.close(effect.broker)

    def _enter(self, effects: Sequence[SendTo | Enter | Leave]) -> None:
        for effect in effects:
            match effect:
                case SendTo():
                    self._send(effect.broker, effect.message, effect.id)
                case Enter():
                    self._enter_at(effect)
                case Leave():
                    ingress = self._ingresses.pop(effect.broker, None)
                    if ingress is not None and ingress not in self._ingresses.values():
                        disconnect(self._pub, ingress)

    def _enter_at(self, enter: Enter) -> None:
        broker = self._known.endpoint(enter.broker)
        ingress = reached_by(enter.ingress, broker)
        try:
            if ingress not in self._ingresses.values():
                connect(self._pub, ingress)
        except BadName as error:
            log.warning("a broker's ingress is unusable %s", kv(broker=broker, reason=error))
        else:
            self._ingresses[enter.broker] = ingress
            log.info("events go to %s", kv(broker=broker))

    def _enter_anew(self, broker: int) -> None:
        """Connect to its ingress anew: who is silent to questions may have lost the way of the events, too."""
        ingress = self._ingresses.get(broker)
        if ingress is not None:
            disconnect(self._pub, ingress)
            connect(self._pub, ingress)

    def _obey(self, effects: Sequence[SendTo | RaiseIncarnation]) -> None:
        for effect in effects:
            if isinstance(effect, RaiseIncarnation):
                self._outdone(effect.above)
            else:
                self._send(effect.broker, effect.message, effect.id)
        self._set_timer()

    def _set_timer(self) -> None:
        """Have the announcer called when it wants to be; whatever it was told may have changed that."""
        assert self._announcer is not None
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._announcer.next_deadline_s()
        self._timer = None if deadline_s is None else self._loop.call_at(deadline_s, self._tick)

    def _warn_if_unlisted(self) -> None:
        if self._dealers and not self.listed_count:
            brokers = ", ".join(self._known.endpoint(broker) for broker in self._dealers)
            log.warning("no broker lists the root yet, so nobody can find it %s", kv(brokers=brokers))

    def _tick(self) -> None:
        assert self._announcer is not None
        self._obey(self._announcer.tick(self._loop.now_s()))

    def _ping(self) -> None:
        self._enter(self._entrances.tick(self._loop.now_s()))
        if not self._entrances.is_heard:
            self._sources.look_again()
        self._loop.call_at(self._entrances.next_deadline_s(), self._ping)

    def _send(self, broker: int, message: Message, id: int = 0) -> None:
        if self._dealers.send(broker, message, id) is Sent.BUSY:
            self._farewells.discard(broker)  # it is not even connected
