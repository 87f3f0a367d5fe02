"""Other subscribers, as one subscriber deals with them: it asks them for chunks, and gives them what it has."""

import dataclasses
import logging
from typing import Any

from zcat.config import SubscriberConfig
from zcat.logs import kv
from zcat.names import is_local_endpoint
from zcat.net.loop import Loop
from zcat.net.sockets import CONTROL, DATA, Context, SocketFactory
from zcat.net.wire import Parts
from zcat.protocol.asking import AskChunks
from zcat.protocol.messages import ChunkReply, Failed, decode
from zcat.services.fetcher import Fetcher
from zcat.services.peer_links import PeerLinks
from zcat.services.sharing import Find, GivenCounters, Sharing

log = logging.getLogger(__name__)


class Peers:
    """Links to others, and what others may ask here. On the loop's thread, but for `summary`."""

    def __init__(self, loop: Loop, context: Context, config: SubscriberConfig, owner: str) -> None:
        """Prepare.

        Args:
            loop: owns all sockets.
            context: makes them.
            config: says whether and how chunks are shared.
            owner: key of this process.
        """
        self._loop, self._context, self._config, self._owner = loop, context, config, owner
        self._links = PeerLinks(loop, SocketFactory(context, DATA), self._receive)
        self._fetcher: Fetcher | None = None
        self._sharing: Sharing | None = None

    def start(self, fetcher: Fetcher, find: Find) -> None:
        """Bind, if chunks are shared; before the loop is started.

        Args:
            fetcher: is given what comes from others.
            find: says what may be given to them.

        Raises:
            AddressInUse, BadName: as for `Sharing`.
        """
        self._fetcher = fetcher
        if self._config.share:
            sockets = SocketFactory(self._context, CONTROL)
            self._sharing = Sharing(self._loop, sockets, self._config, self._owner)
            self._sharing.find = find

    def shared_at(self, origin: str) -> str | None:
        """Say where the publisher at an endpoint may send others; None if it cannot send anybody here."""
        if self._sharing is None:
            return None
        own = self._sharing.endpoint
        if is_local_endpoint(own) and not is_local_endpoint(origin):
            log.info("not shared: %s", kv(own=own, publisher=origin, reason="only this host can reach it"))
            return None
        return own

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others may ask here, whoever can reach it."""
        return (self._sharing.endpoint,) if self._sharing is not None else ()

    def send(self, ask: AskChunks) -> bool:
        """Send a request to a peer; False if it cannot be tried."""
        assert ask.peer is not None
        return self._links.send(ask.peer, ask.message, ask.request)

    def tick(self, now_s: float) -> None:
        """Close links that nobody needs."""
        self._links.tick(now_s)

    def close(self) -> None:
        """End the threads, when the loop has stopped."""
        if self._sharing is not None:
            self._sharing.close()

    def summary(self, fetcher: Fetcher) -> dict[str, Any]:
        """Tell what came from others and what they got, as plain values. Any thread may ask."""
        given = self._sharing.counters if self._sharing is not None else GivenCounters()
        return {
            "shared_at": self._sharing.endpoint if self._sharing is not None else None,
            "links": len(self._links),
            "taken": dataclasses.asdict(fetcher.peer_counters),
            "given": dataclasses.asdict(given),
        }

    def _receive(self, endpoint: str, parts: Parts) -> None:
        assert self._fetcher is not None
        received = decode(parts)
        match received.message:
            case ChunkReply():
                self._fetcher.arrived(endpoint, received.id, received.message)
            case Failed():
                self._fetcher.failed(endpoint, received.id, received.message)
