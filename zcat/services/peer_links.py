"""Connections to other subscribers, made when they are needed. On the loop's thread."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from zcat.errors import ZcatError
from zcat.logs import kv
from zcat.net.loop import Loop
from zcat.net.sockets import Socket, SocketFactory
from zcat.net.wire import Parts, Sent, send
from zcat.protocol.messages import Message, encode

LINKS_MAX = 64
"""Two descriptors each; the one that was of no use for longest goes first."""
IDLE_S = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Link:
    socket: Socket
    used_at_s: float


class PeerLinks:
    """A DEALER for each peer that is asked."""

    def __init__(self, loop: Loop, sockets: SocketFactory, receive: Callable[[str, Parts], None]) -> None:
        """Begin without any.

        Args:
            loop: owns the sockets.
            sockets: makes them.
            receive: is given what comes, with the endpoint that it came from.
        """
        self._loop = loop
        self._sockets = sockets
        self._receive = receive
        self._links: OrderedDict[str, _Link] = OrderedDict()

    def __len__(self) -> int:
        return len(self._links)

    def send(self, endpoint: str, message: Message, id: int) -> bool:
        """Send a request, as soon as there is a connection; False if it cannot be tried."""
        link = self._links.get(endpoint)
        if link is None:
            try:
                link = self._connect(endpoint)
            except ZcatError as error:
                log.warning("cannot connect to a peer %s", kv(endpoint=endpoint, reason=error))
                return False
        link.used_at_s = self._loop.now_s()
        self._links.move_to_end(endpoint)
        return send(link.socket, encode(message, id)) is Sent.OK

    def tick(self, now_s: float) -> None:
        """Close what is of no use any more."""
        for endpoint, link in list(self._links.items()):
            if now_s - link.used_at_s <= IDLE_S:
                return
            self._close(endpoint)

    def _connect(self, endpoint: str) -> _Link:
        while len(self._links) >= LINKS_MAX:
            self._close(next(iter(self._links)))
        link = _Link(self._sockets.link(endpoint), self._loop.now_s())
        self._loop.register(link.socket, partial(self._receive, endpoint))
        self._links[endpoint] = link
        return link

    def _close(self, endpoint: str) -> None:
        link = self._links.pop(endpoint)
        self._loop.unregister(link.socket)
        link.socket.close(linger=0)
