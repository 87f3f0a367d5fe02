"""The publishers and peers that a subscriber's fetcher speaks to. On the loop's thread."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from zcat.errors import RootNotFollowed, ZcatError
from zcat.protocol.asking import AskChunks
from zcat.protocol.block_transfer import AskBlocks
from zcat.protocol.compare_messages import Compare
from zcat.protocol.swarm_messages import Have
from zcat.protocol.wanted import Origin
from zcat.services.peers import Peers
from zcat.services.subscription import Subscription


class FollowedOrigins:
    """Those of the followed roots, and the peers that they name."""

    def __init__(self, followed: Callable[[], Mapping[Origin, Subscription]], peers: Peers) -> None:
        """Begin.

        Args:
            followed: gives the subscriptions as they are now.
            peers: links to other subscribers.
        """
        self._followed = followed
        self._peers = peers

    def send(self, ask: AskChunks | AskBlocks) -> bool:
        """Send a request for chunks, or parts of them, to whom it is for; False when it cannot leave now."""
        if isinstance(ask, AskChunks) and ask.peer is not None:
            return self._peers.send(ask)
        subscription = self._followed().get(ask.origin)
        return subscription is not None and subscription.send_chunks(ask.message, ask.request)

    def tell(self, origin: Origin, message: Have) -> None:
        """Send an origin what it does not answer, if it can leave now."""
        subscription = self._followed().get(origin)
        if subscription is not None:
            subscription.send_chunks(message, 0)

    def ask(self, origin: Origin, message: Compare) -> "Future[Any]":
        """Ask an origin; its answer, or why there is none."""
        subscription = self._followed().get(origin)
        if subscription is not None:
            return subscription.ask(message)
        nobody: Future[Any] = Future()
        nobody.set_exception(RootNotFollowed(f"root {origin[0]} is no longer followed"))
        return nobody

    def why_away(self, origin: Origin) -> ZcatError | None:
        """Say why an origin cannot be reached; None if it can."""
        subscription = self._followed().get(origin)
        if subscription is None:
            return RootNotFollowed(f"root {origin[0]} is no longer followed")
        return None if subscription.is_here() else subscription.why_away()
