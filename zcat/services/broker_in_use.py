"""A subscriber's conversation with its brokers: the shell of ``protocol.broker_choice`` and ``directory_view``.

The brokers are those of the configuration, and those that these tell of. Lives on the subscriber's loop.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from zcat.errors import BadMessage, ZcatError
from zcat.limits import KIB
from zcat.logs import kv
from zcat.net.loop import Loop
from zcat.net.sockets import CONTROL, Socket, SocketFactory
from zcat.net.wire import Parts
from zcat.protocol import broker_choice, directory_view
from zcat.protocol.broker_choice import BrokerChoice, Lost, Use
from zcat.protocol.brokers import BEAT_TOPIC, DIRECTORY_TOPIC, Random, SendTo, reached_by
from zcat.protocol.directory_view import Ask, ClaimChanged, DirectoryView
from zcat.protocol.known_brokers import Forgotten, KnownBrokers, Met
from zcat.protocol.messages import Changes, DirectoryChanged, Listing, Message, Ping, Pong, decode
from zcat.protocol.status_messages import Presence
from zcat.services.broker_sources import BrokerSources
from zcat.services.dealers import Dealers
from zcat.services.introduction import LEASE_S

SILENT_S = 4.0
"""After the start; who mistyped an endpoint should not have to guess."""

BEATLESS_S = 4.0
"""Without a beat for so long, the way of the events is given up, if the broker is one that sends any."""

EVENTS = replace(CONTROL, typical_bytes=KIB)
"""Most events are about one dataset; bursts of them should fit the queue, since each loss costs a question."""

log = logging.getLogger(__name__)


class BrokerInUse:
    """The broker in use: its directory is kept in view, and its events are handed on."""

    def __init__(
        self, brokers: Sequence[str], loop: Loop, sockets: SocketFactory, view: DirectoryView, random: Random
    ) -> None:
        """Prepare to talk to the first of ``brokers`` that answers.

        Raises:
            BadName: one is neither an endpoint nor a file.
        """
        self.on_claim: Callable[[ClaimChanged], None] = lambda change: None
        self.on_changes: Callable[[Changes], None] = lambda changes: None
        self.presence: Callable[[float], Presence] | None = None
        """Tells the broker in use who we are, until a lease is over."""
        self.in_use: str | None = None
        """Endpoint of the broker that answers; None while none does. Any thread may look."""
        self._sources = BrokerSources(brokers, loop, self._found)
        self.endpoints = self._sources.endpoints
        """Of all brokers that are known. Replaced as a whole, so that any thread may look."""
        self._known = KnownBrokers(loop.now_s())
        self._loop = loop
        self._sockets = sockets
        self._view = view
        self._choice = BrokerChoice(len(self.endpoints), loop.now_s(), random)
        self._dealers = Dealers(loop, sockets, self._answered)
        self._sub: Socket | None = None
        self._egress = ""
        self._beat_at_s = math.inf  # when the last one was heard; after the first
        self._ticked_at_s = loop.now_s()
        self._topics: set[bytes] = {DIRECTORY_TOPIC, BEAT_TOPIC}
        self._warn_at_s = math.inf  # that no broker answered

    def start(self) -> None:
        """Connect to all brokers; `tick` asks them."""
        for met in self._known.configured(self.endpoints, self._loop.now_s()):
            assert isinstance(met, Met)
            self._connect(met)
        if self._sources.entries:
            self._warn_at_s = self._loop.now_s() + SILENT_S

    def subscribe(self, topic: bytes) -> None:
        """Hear events of a topic, from this broker and from those after it."""
        self._topics.add(topic)
        if self._sub is not None:
            self._sub.subscribe(topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Hear them no more."""
        self._topics.discard(topic)
        if self._sub is not None:
            self._sub.unsubscribe(topic)

    def tick(self, now_s: float) -> None:
        """Ping, look again, or move on to another broker."""
        if now_s >= self._warn_at_s:
            self._warn_at_s = math.inf
            log.warning("no broker answers yet %s", kv(brokers=", ".join(self._sources.entries)))
        if self._choice.in_use is None:
            self._sources.look_again()
        self._choose(self._choice.tick(now_s))
        if now_s > self._ticked_at_s + BEATLESS_S / 2:  # asleep ourselves: beats may be waiting unheard
            self._beat_at_s = max(self._beat_at_s, now_s)
        self._ticked_at_s = now_s
        if now_s > self._beat_at_s + BEATLESS_S:
            log.warning("no events come from the broker, connecting anew %s", kv(egress=self._egress))
            self._hear()
        self._look(self._view.tick(now_s))

    def leave(self) -> None:
        """Tell the broker in use that we go."""
        if self.presence is not None and self._choice.in_use is not None:
            self._dealers.send(self._choice.in_use, Ping(presence=self.presence(0.0)), attempts=0)

    def _answered(self, number: int, parts: Parts) -> None:
        message, now_s = decode(parts).message, self._loop.now_s()
        if isinstance(message, Pong):
            if message.service != "broker":
                raise BadMessage(f"{self._known.endpoint(number)} is a {message.service}, wanted a broker")
            self._choose(self._choice.answered(number, message, now_s))
            if number == self._choice.in_use:
                self._look(self._view.pong(message, now_s))
            self._meet(self._known.heard(number, message, now_s))
        elif isinstance(message, Listing) and number == self._choice.in_use:
            self._look(self._view.listing(message, now_s))

    def _found(self, endpoints: Sequence[str]) -> None:
        self._meet(self._known.configured(endpoints, self._loop.now_s()))

    def _connect(self, met: Met) -> None:
        self._dealers.connect(met.broker, met.endpoint)

    def _meet(self, effects: Iterable[Met | Forgotten]) -> None:
        for effect in effects:
            if isinstance(effect, Met):
                log.info("another broker %s", kv(endpoint=effect.endpoint))
                self._connect(effect)
                self._choose(self._choice.add(effect.broker))
            else:
                self._dealers.close(effect.broker)
                self._choose(self._choice.drop(effect.broker, self._loop.now_s()))
        self.endpoints = tuple(self._known.endpoints.values())

    def _heard(self, parts: Parts) -> None:
        message, now_s = decode(parts[1:]).message, self._loop.now_s()
        if isinstance(message, Pong):
            self._beat_at_s = now_s
        elif isinstance(message, DirectoryChanged):
            self._look(self._view.changed(message, now_s))
        elif isinstance(message, Changes):
            self.on_changes(message)

    def _choose(self, effects: Iterable[broker_choice.Effect]) -> None:
        for effect in effects:
            match effect:
                case SendTo():
                    self._dealers.send(effect.broker, self._introduced(effect), effect.id)
                case Use():
                    self._use(effect)
                case Lost():
                    log.warning("broker is lost %s", kv(endpoint=self.in_use))
                    self.in_use = None
                    self._view.lost()

    def _introduced(self, effect: SendTo) -> Message:
        if effect.broker != self._choice.in_use or not isinstance(effect.message, Ping) or self.presence is None:
            return effect.message
        return Ping(presence=self.presence(LEASE_S))

    def _use(self, use: Use) -> None:
        broker = self._known.endpoint(use.broker)
        self._warn_at_s = math.inf
        log.info("broker in use %s", kv(endpoint=broker, version=use.pong.version))
        self._egress = reached_by(use.pong.egress or "", broker)
        self._hear()
        self.in_use = broker
        self._look(self._view.use(self._loop.now_s()))

    def _hear(self) -> None:
        """Have the events of the broker in use, on a new connection."""
        self._unhear()
        if not self._egress:
            return
        try:
            sub = SocketFactory(self._sockets.context, EVENTS).sub(self._egress)
        except ZcatError as error:
            log.warning("cannot hear events %s", kv(egress=self._egress, reason=error))
            return
        for topic in self._topics:
            sub.subscribe(topic)
        self._loop.register(sub, self._heard)
        self._sub = sub

    def _unhear(self) -> None:
        self._beat_at_s = math.inf
        if self._sub is not None:
            self._loop.unregister(self._sub)
            self._sub.close(linger=0)
            self._sub = None

    def _look(self, effects: Iterable[directory_view.Effect]) -> None:
        for effect in effects:
            match effect:
                case Ask(message):
                    number = self._choice.in_use
                    if number is not None:
                        self._dealers.send(number, message)
                case ClaimChanged():
                    self.on_claim(effect)
