"""What brokers say to each other: part of `zcat.protocol.messages`, which encodes and decodes them."""

from dataclasses import dataclass
from typing import ClassVar

from zcat.errors import BadMessage
from zcat.limits import BUCKETS
from zcat.names import check_endpoint, check_owner
from zcat.protocol.codec import also_check


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A broker, as it introduces itself or as another one tells of it."""

    endpoint: str
    """Of its directory, for everybody."""
    owner: str
    """Its key."""
    incarnation: int


@dataclass(frozen=True, slots=True)
class Digest:
    """Broker: in which parts does your directory differ from mine? Answered by `Digests`."""

    verb: ClassVar[str] = "digest"
    bodies: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Digests:
    """Broker: one number for each bucket of the directory; see ``protocol.digests``."""

    verb: ClassVar[str] = "digests"
    bodies: ClassVar[str | None] = None
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """Broker: what have you in these buckets? Answered by ``listing``, in order of bucket, root and owner."""

    verb: ClassVar[str] = "records"
    bodies: ClassVar[str | None] = None
    buckets: tuple[int, ...]
    after: str = ""
    """Begin behind this one: the ``next`` of the part before."""
    first_hand: bool = False
    """Only those whose owners you heard of yourself: I do not, and their leases run out here."""


def _check_neighbour(neighbour: Neighbour) -> None:
    check_endpoint(neighbour.endpoint)
    check_owner(neighbour.owner)


def _check_digests(message: Digests) -> None:
    if len(message.buckets) != BUCKETS:
        raise BadMessage(f"digests of {len(message.buckets)} buckets, wanted {BUCKETS}")


def _check_records(message: Records) -> None:
    if not 1 <= len(message.buckets) <= BUCKETS:
        raise BadMessage(f"records of {len(message.buckets)} buckets, wanted 1 to {BUCKETS}")


also_check(Neighbour, _check_neighbour)
also_check(Digests, _check_digests)
also_check(Records, _check_records)
