"""What a subscriber tells of roots: plain values for HTTP, the Python API and the command line."""

from dataclasses import dataclass
from typing import Any

from zcat.protocol.messages import ListedClaim
from zcat.services.subscription import Subscription


@dataclass(frozen=True, slots=True)
class RootView:
    """One root, as this subscriber sees it now."""

    name: str
    owner: str | None
    """Key of its publisher: 32 hexadecimal digits."""
    state: str
    """``live``, ``stale``, ``lapsed`` or ``withdrawn`` as the brokers say; ``cached``: known from a former run."""
    followed: bool
    contested: bool
    """Several publishers claim the name; they differ in ``owner``."""
    datasets: int | None
    """Number of its datasets; None until its catalogue is here."""
    endpoints: tuple[str, ...]
    incarnation: int | None
    seq: int | None
    synced: bool
    """The catalogue here is known to be the publisher's own; else it is the last one that was."""

    def summary(self) -> dict[str, Any]:
        """Give what health tells of it."""
        names = ("name", "owner", "state", "synced", "datasets", "incarnation", "seq")
        return {name: getattr(self, name) for name in names}


def view_of_claim(listed: ListedClaim, contested: bool) -> RootView:
    """Tell of a root that brokers list and nobody here follows."""
    claim = listed.claim
    return RootView(
        name=claim.root,
        owner=claim.owner,
        state=listed.state,
        followed=False,
        contested=contested,
        datasets=None,
        endpoints=claim.endpoints,
        incarnation=claim.incarnation,
        seq=claim.seq,
        synced=False,
    )


def view_of(subscription: Subscription, contested: bool) -> RootView:
    """Tell of a root that is followed. On the loop's thread."""
    listed = subscription.listed
    incarnation, seq = subscription.stamp
    return RootView(
        name=subscription.root,
        owner=subscription.owner,
        state=listed.state if listed else "cached",
        followed=True,
        contested=contested,
        datasets=len(subscription) if subscription.has_catalogue else None,
        endpoints=listed.claim.endpoints if listed else (),
        incarnation=incarnation or None,
        seq=seq if incarnation else None,
        synced=subscription.synced,
    )
