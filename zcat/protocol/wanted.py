"""What a reader wants, of whom, and what was asked for: the values that `zcat.protocol.transfer` works on."""

from dataclasses import dataclass, field
from typing import NamedTuple

Origin = tuple[str, str]
"""(root, owner): whom chunks are asked of."""


class DatasetKey(NamedTuple):
    """One lineage of one dataset of one origin.

    PERF: a tuple, since it is a key of most of what is looked up: two dozen times for each chunk.
    """

    root: str
    owner: str
    path: str
    lineage: str

    @property
    def origin(self) -> Origin:
        """Whom to ask."""
        return self.root, self.owner


Wanted = tuple[DatasetKey, int]


@dataclass(slots=True)
class WantedChunk:
    """A chunk that somebody waits for."""

    nbytes: int
    """Guess of its compressed size while it is asked for."""
    tickets: set[int] = field(default_factory=set)
    bulk: bool = True
    is_queued: bool = True
    """It waits to be asked of its origin."""
    requests: set[int] = field(default_factory=set)
    """Those that it is owed on: one, or two when the first is late."""
    attempts: int = 0
    """Tries that failed, of its origin."""
    digest: bytes | None = None
    """What its origin says it has; None before it said."""
    holders: list[str] = field(default_factory=list)
    """Peers that were not asked yet, best first."""
    referrals: int = 0
    """How often its origin named peers."""
    is_direct: bool = False
    """Peers were tried, or took too long: its origin shall send it."""
    is_here: bool = False
    """It came, and is being checked and stored."""
    source: str | None = None
    """Of what is being checked and stored: the peer that sent it, None if its origin did."""


@dataclass(slots=True)
class Request:
    """Chunks that were asked for together."""

    dataset: DatasetKey
    peer: str | None
    """None: they are asked of the origin."""
    missing: set[int]
    asked_at_s: float
    progress_at_s: float
    may_refer: bool = False
    """The origin may name holders instead, also later."""
    bulk: bool = False
    is_late: bool = False
    is_lost: bool = False
    """Others were asked since; if an answer comes all the same, it tells how long this peer takes."""


class Requests:
    """All requests that are under way, by number."""

    def __init__(self) -> None:
        self._open: dict[int, Request] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def begin(self, number: int, request: Request) -> None:
        """Note a request that leaves now."""
        self._open[number] = request

    def get(self, number: int) -> Request | None:
        """Give a request, None if nothing of it is missing any more."""
        return self._open.get(number)

    def all(self) -> list[tuple[int, Request]]:
        """Give all of them, the oldest first."""
        return list(self._open.items())

    def drop(self, number: int) -> Request | None:
        """Expect nothing more of a request."""
        return self._open.pop(number, None)

    def settle(self, number: int, nchunk: int) -> None:
        """Expect one chunk of a request no more."""
        request = self._open.get(number)
        if request is not None:
            request.missing.discard(nchunk)
            if not request.missing:
                del self._open[number]

    def forget(self, origin: Origin) -> None:
        """Drop all that concern an origin."""
        self._open = {id: held for id, held in self._open.items() if held.dataset.origin != origin}
