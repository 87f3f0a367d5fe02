"""A broker's talk with the other brokers: the shell of ``protocol.federation`` and ``protocol.reconciler``.

Lives on the broker's loop. One DEALER to the directory of each other broker; their events come by the forwarder.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zcat.errors import ZcatError
from zcat.logs import kv
from zcat.net.forwarder import Forwarder
from zcat.net.loop import Loop, Timer
from zcat.net.sockets import SocketFactory
from zcat.net.wire import Parts
from zcat.protocol.brokers import Random, SendTo
from zcat.protocol.directory import Directory
from zcat.protocol.federation import Effect, Federation, Link, Unlink
from zcat.protocol.federation_messages import Digests, Neighbour
from zcat.protocol.known_brokers import Forgotten, Met
from zcat.protocol.messages import DirectoryChanged, Listing, Pong, decode
from zcat.protocol.reconciler import Reconciler
from zcat.protocol.status_messages import LinkState
from zcat.services.broker_sources import LOOK_EVERY_S, BrokerSources
from zcat.services.dealers import Dealers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Around:
    """What of a broker its neighbours have to do with."""

    loop: Loop
    sockets: SocketFactory
    forwarder: Forwarder
    directory: Directory
    publish: Callable[[Iterable[DirectoryChanged]], None]
    """Called with the changes that others told of."""


class Neighbours:
    """The other brokers, as long as they answer."""

    def __init__(self, own: Neighbour, around: Around, random: Random) -> None:
        """Prepare; `join` begins.

        Args:
            own: how this broker introduces itself.
            around: the broker.
            random: for the jitter.
        """
        self.here: tuple[Neighbour, ...] = ()
        """Those that answer and are linked. Replaced as a whole, so that any thread may look."""
        self._around = around
        self._federation = Federation(own, Loop.now_s(), random)
        self._reconciler = Reconciler(around.directory, random)
        self._dealers = Dealers(around.loop, around.sockets, self._received)
        self._timer: Timer | None = None
        self._sources: BrokerSources | None = None

    def join(self, entries: Sequence[str]) -> None:
        """Look for the brokers of the configuration, and those that they know.

        Raises:
            BadName: one is neither an endpoint nor a file.
        """
        self._sources = BrokerSources(entries, self._around.loop, self._found)
        self._found(self._sources.endpoints)
        self._around.loop.call_after(LOOK_EVERY_S, self._look)

    def introduced(self, neighbour: Neighbour) -> None:
        """Take the introduction of a broker that pinged this one."""
        self._obey(self._federation.introduced(neighbour, Loop.now_s()))

    def links(self) -> list[LinkState]:
        """Tell of all brokers that are known."""
        return self._federation.links(self._around.directory.digest, Loop.now_s())

    # -- private -------------------------------------------------------------------------------------

    def _received(self, broker: int, parts: Parts) -> None:
        received, now_s = decode(parts), Loop.now_s()
        match received.message:
            case Pong() as pong:
                self._obey(self._federation.answered(broker, pong, now_s))
                if self._federation.is_here(broker):
                    self._obey(self._reconciler.told(broker, pong, now_s))
            case Digests() as digests:
                self._obey(self._reconciler.digests(broker, digests, received.id, now_s))
            case Listing() as listing:
                self._obey(self._reconciler.records(broker, listing, received.id, now_s))

    def _found(self, endpoints: Sequence[str]) -> None:
        self._obey(self._federation.join(tuple(endpoints), Loop.now_s()))

    def _look(self) -> None:
        """While no other broker answers, one may have written itself into a file since."""
        if not self.here and self._sources is not None:
            self._sources.look_again()
        self._around.loop.call_after(LOOK_EVERY_S, self._look)

    def _tick(self) -> None:
        self._timer = None
        self._obey(self._federation.tick(Loop.now_s()))

    def _obey(self, effects: Sequence[Effect | DirectoryChanged]) -> None:
        for effect in effects:
            match effect:
                case SendTo():
                    self._dealers.send(effect.broker, effect.message, effect.id)
                case Met():
                    self._dealers.connect(effect.broker, effect.endpoint)
                    log.info("another broker %s", kv(endpoint=effect.endpoint))
                case Forgotten():
                    self._reconciler.forget(effect.broker)
                    self._dealers.close(effect.broker)
                case Link() | Unlink():
                    self._link(effect)
                case DirectoryChanged():
                    self._around.publish([effect])
        self.here = self._federation.neighbours
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._federation.next_deadline_s()
        self._timer = None if deadline_s is None else self._around.loop.call_at(deadline_s, self._tick)

    def _link(self, effect: Link | Unlink) -> None:
        forwarder = self._around.forwarder
        try:
            (forwarder.link if isinstance(effect, Link) else forwarder.unlink)(effect.mesh)
        except ZcatError as error:
            log.warning("a broker's events are not to be had %s", kv(mesh=effect.mesh, reason=error))
        else:
            log.info("%s %s", "linked" if isinstance(effect, Link) else "unlinked", kv(mesh=effect.mesh))
