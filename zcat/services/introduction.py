"""What a subscriber says of itself to the broker that it uses, so that operators see it."""

import socket
from collections.abc import Callable, Iterable, Iterator

from zcat import __version__
from zcat.protocol.status_messages import Count, Presence
from zcat.services.subscription import Subscription, Surroundings

LEASE_S = 10.0
"""A subscriber pings its broker every second."""
TEXT_LENGTH_MAX = 256

Having = Callable[[], tuple[Surroundings, Iterable[Subscription]]]


class Introduction:
    """Written by whoever starts a subscriber; read by its loop."""

    def __init__(self, owner: str, having: Having) -> None:
        """Begin with what every subscriber has.

        Args:
            owner: its key.
            having: gives what there is to count. Called with each ping, on the loop's thread.
        """
        self.http: str | None = None
        """Where it answers HTTP."""
        self.endpoints: tuple[str, ...] = ()
        """Where it answers peers."""
        self._owner = owner
        self._having = having
        self._host = socket.gethostname()[:TEXT_LENGTH_MAX]

    def presence(self, lease_s: float = LEASE_S) -> Presence:
        """Say who is here; with a lease of 0, that it leaves."""
        return Presence(
            owner=self._owner,
            service="subscriber",
            version=__version__,
            host=self._host,
            lease_s=lease_s,
            http=self.http and self._reachable(self.http)[:TEXT_LENGTH_MAX],
            endpoints=self.endpoints,
            counts=tuple(_counts(*self._having())),
        )

    def _reachable(self, url: str) -> str:
        """Put this host's name in place of "all addresses", which mean another host to whoever reads it."""
        for everywhere in ("//0.0.0.0", "//[::]"):
            url = url.replace(everywhere, f"//{self._host}", 1)
        return url


def _counts(around: Surroundings, subscriptions: Iterable[Subscription]) -> Iterator[Count]:
    """Count what a subscriber has, has fetched and has given to others."""
    current = [subscription.synced for subscription in subscriptions]
    yield Count("roots", len(current))
    yield Count("roots_current", sum(current))
    yield Count("cached_bytes", around.cache.used_bytes)
    shared = around.peers.summary(around.fetcher.whole)
    groups = {"fetched": around.fetcher.counters(), "taken": shared["taken"], "given": shared["given"]}
    for group, numbers in groups.items():
        for name, value in numbers.items():
            yield Count(f"{group}_{'bytes' if name == 'nbytes' else name}", int(value))
