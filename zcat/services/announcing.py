"""A publisher's side of its brokers: each lists the root, and each forwards the root's events.

One DEALER to the directory of every broker, and one PUB, connected to the ingress of every broker that
answers. Nothing depends on a broker: one that is away is asked again, ever more slowly, by the `Announcer`.
"""

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

from zcat.errors import BadName
from zcat.logs import kv
from zcat.model.root import Claim
from zcat.net.loop import Loop, Timer
from zcat.net.sockets import SocketFactory, connect, disconnect
from zcat.net.wire import Part, Parts, Sent, send
from zcat.protocol.announcer import Announcer, AnnouncerTimes, RaiseIncarnation
from zcat.protocol.brokers import SendTo, reached_by
from zcat.protocol.messages import Changes, Failed, Granted, Message, Ping, Pong, decode, encode

PING_S = 2.0
"""Between two questions to a broker where its ingress is: it may have come back elsewhere."""

RESEND_S = 0.02
RESENDS_MAX = 40
"""A DEALER that is still connecting takes nothing; the first announcement should not wait for the second."""

log = logging.getLogger(__name__)


class Announcing:
    """Tells all brokers. Lives on the loop's thread, but is made before that is started."""

    def __init__(self, loop: Loop, sockets: SocketFactory, brokers: Sequence[str], outdone: Callable[[int], None]):
        """Connect to the brokers; `begin` announces.

        Args:
            loop: that will own the sockets.
            sockets: for control messages.
            brokers: endpoints of their directories.
            outdone: called when a broker remembers a later life of ours, with its number: go above it, and
                `update` the claim.

        Raises:
            BadName: an endpoint is not one.
        """
        self._loop = loop
        self._brokers = tuple(brokers)
        self._outdone = outdone
        self._announcer: Announcer | None = None
        self._timer: Timer | None = None
        self._ingresses: list[str | None] = [None] * len(brokers)
        self._pub = sockets.pub()
        loop.register(self._pub)
        self._dealers = [sockets.dealer() for _ in brokers]
        for index, dealer in enumerate(self._dealers):
            loop.register(dealer, partial(self._receive, index))
            connect(dealer, brokers[index])

    @property
    def listed_count(self) -> int:
        """Brokers that have confirmed the claim as it is now."""
        return self._announcer.listed_count if self._announcer else 0

    @property
    def is_contested(self) -> bool:
        """A broker said that somebody else claims the root, too."""
        return self._announcer is not None and self._announcer.contested

    def begin(self, claim: Claim, renew_s: float) -> None:
        """Announce, and keep the claim listed from now on."""
        now_s = self._loop.now_s()
        times = AnnouncerTimes(renew_s=renew_s)
        self._announcer = Announcer(claim, len(self._brokers), now_s, random.random, times)
        self._tick()
        self._ping()

    def update(self, claim: Claim) -> None:
        """Announce a later claim instead; without effect before `begin`."""
        if self._announcer is not None and not self._announcer.claim.deleted:
            self._obey(self._announcer.update(claim, self._loop.now_s()))

    def withdraw(self) -> None:
        """Announce that the root is gone."""
        if self._announcer is not None and not self._announcer.claim.deleted:
            self._obey(self._announcer.withdraw(self._loop.now_s()))

    def publish(self, changes: Changes) -> None:
        """Send events to the followers of the root. One that misses them asks for them."""
        topic = f"root/{changes.root}/{changes.owner}/".encode()
        send(self._pub, [topic, *_parts(changes)])

    # -- private -------------------------------------------------------------------------------------

    def _receive(self, broker: int, parts: Parts) -> None:
        received = decode(parts)
        match received.message:
            case Granted() | Failed() as answer:
                if self._announcer is not None:
                    self._obey(self._announcer.answered(broker, answer, received.id, self._loop.now_s()))
            case Pong() as pong:
                self._found_ingress(broker, pong)
                if self._announcer is not None:
                    self._obey(self._announcer.heard(broker, self._loop.now_s()))
            case _:
                log.debug("an answer to nothing %s", kv(verb=received.message.verb, broker=self._brokers[broker]))

    def _found_ingress(self, broker: int, pong: Pong) -> None:
        ingress = reached_by(pong.ingress, self._brokers[broker]) if pong.ingress else None
        former = self._ingresses[broker]
        if ingress == former:
            return
        self._ingresses[broker] = ingress
        if former is not None and former not in self._ingresses:
            disconnect(self._pub, former)
        if ingress is not None and self._ingresses.count(ingress) == 1:
            try:
                connect(self._pub, ingress)
            except BadName as error:
                self._ingresses[broker] = None
                log.warning("a broker's ingress is unusable %s", kv(broker=self._brokers[broker], reason=error))

    def _obey(self, effects: Sequence[SendTo | RaiseIncarnation]) -> None:
        for effect in effects:
            if isinstance(effect, RaiseIncarnation):
                self._outdone(effect.above)
            else:
                self._send(effect.broker, effect.message, effect.id, RESENDS_MAX)
        self._set_timer()

    def _set_timer(self) -> None:
        """Have the announcer called when it wants to be; whatever it was told may have changed that."""
        assert self._announcer is not None
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._announcer.next_deadline_s()
        self._timer = None if deadline_s is None else self._loop.call_at(deadline_s, self._tick)

    def _tick(self) -> None:
        assert self._announcer is not None
        self._obey(self._announcer.tick(self._loop.now_s()))

    def _ping(self) -> None:
        for broker in range(len(self._brokers)):
            self._send(broker, Ping(), 0, RESENDS_MAX)
        self._loop.call_after(PING_S, self._ping)

    def _send(self, broker: int, message: Message, id: int, attempts: int) -> None:
        sent = send(self._dealers[broker], _parts(message, id))
        if sent is Sent.BUSY and attempts:
            self._loop.call_after(RESEND_S, partial(self._send, broker, message, id, attempts - 1))


def _parts(message: Message, id: int = 0) -> list[Part]:
    return encode(message, id)
