"""What processes tell of themselves to whoever looks after them: part of `zcat.protocol.messages`.

Nothing works by these messages. Whoever does not understand them does without.
"""

from dataclasses import dataclass
from typing import ClassVar

from zcat.errors import BadMessage
from zcat.limits import PRESENCE_BYTES_MAX
from zcat.names import check_endpoint, check_owner
from zcat.protocol.codec import Buffer, also_check

LINKS = "links"
SUBSCRIBERS = "subscribers"
QUEUES = "queues"
SECTIONS = ("", LINKS, SUBSCRIBERS, QUEUES)
"""What `Status` may ask for; the empty one is for the counts alone."""


HERE, AWAY = "here", "away"
"""States of a link."""


@dataclass(frozen=True, slots=True)
class Count:
    """One number that a process keeps of itself."""

    name: str
    """In small letters, with its unit last; an unknown name is shown as it is."""
    value: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A process that reads, as it introduces itself to its broker with each ping."""

    owner: str
    """Its key, another one at each start."""
    service: str
    """``subscriber``."""
    version: str
    """Of the program."""
    host: str
    """Name of its host, for people."""
    lease_s: float
    """For how long to list it without a sign of life; 0: it leaves."""
    http: str | None = None
    """Where it answers HTTP."""
    endpoints: tuple[str, ...] = ()
    """Where it answers peers, best first."""
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """Such a process as one broker sees it at the moment of answering."""

    presence: Presence
    age_s: float
    """Since it was last heard of."""
    since_s: float
    """Since it was first heard of here."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """A broker, as a process that talks to it sees it at the moment of answering."""

    endpoint: str
    """Of its directory."""
    state: str
    """``here``, or ``away`` while it does not answer."""
    since_s: float
    """For how long it has been so."""
    owner: str | None = None
    """Its key, when it last answered."""
    round_trip_s: float | None = None
    """Of its last answer."""
    notes: tuple[str, ...] = ()
    """What else there is to say, in words: ``in use``, ``in step``, ``events``, ``listed``, ``contested``."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """Events that wait for somebody who does not keep up."""

    socket: str
    """``egress``: for a subscriber; ``mesh``: for another broker."""
    peer: str
    """Address at the other end of the connection, for people."""
    behind_bytes: int
    """At most so much waits; see `zcat.net.laggards`."""
    behind_s: float
    """For how long something has."""


@dataclass(frozen=True, slots=True)
class Status:
    """How are you? Answered by `StatusPage`."""

    verb: ClassVar[str] = "status"
    bodies: ClassVar[str | None] = None
    section: str = ""
    """One of `SECTIONS`."""
    after: str = ""
    """Begin behind this one: the `StatusPage.next` of the part before."""


@dataclass(frozen=True, slots=True)
class StatusPage:
    """What a process tells of itself; with a section, what is in that."""

    verb: ClassVar[str] = "status-page"
    bodies: ClassVar[str | None] = "pages"
    service: str
    """As in `Pong`."""
    owner: str
    incarnation: int
    version: str
    up_s: float
    """Since its start."""
    section: str = ""
    counts: tuple[Count, ...] = ()
    """Of everything, whatever the section."""
    next: str | None = None
    """Ask again with ``after`` this; absent on the last part."""
    pages: tuple[Buffer, ...] = ()
    """Each a msgpack array: of `LinkState`, `Present` or `QueueState`."""


def counts_of(numbers: dict[str, int]) -> tuple[Count, ...]:
    """Make counts of numbers by their names."""
    return tuple(Count(name, value) for name, value in numbers.items())


def _check_presence(presence: Presence) -> None:
    check_owner(presence.owner)
    for endpoint in presence.endpoints:
        check_endpoint(endpoint)
    texts = [presence.service, presence.version, presence.host, presence.http or "", *presence.endpoints]
    texts += [count.name for count in presence.counts]
    size = sum(len(text.encode()) + 12 for text in texts)
    if size > PRESENCE_BYTES_MAX:
        raise BadMessage(f"a presence of {size} bytes, the limit is {PRESENCE_BYTES_MAX}")


also_check(Presence, _check_presence)
