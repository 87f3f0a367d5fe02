"""What a subscriber and its workers say to one another: never on a network, both are of one version.

The frames are those of ``protocol.messages``. A worker asks, the subscriber answers with the same ``id``, in any
order, or with `Failed`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from zcat.model.dataset import Compression, Entry, Geometry
from zcat.protocol.block_messages import Part
from zcat.protocol.codec import Buffer
from zcat.protocol.messages import Failed, Sizes, SizesReply


@dataclass(frozen=True, slots=True)
class Open:
    """What is a dataset's newest version, and where is it cached? Answered by `Opened`."""

    verb: ClassVar[str] = "open"
    bodies: ClassVar[str | None] = None
    root: str
    """``name`` or ``name@owner``."""
    path: str
    wait_s: float
    fresh: bool = False
    """Ask the origin also if its answer is known."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A version of a dataset."""

    verb: ClassVar[str] = "opened"
    bodies: ClassVar[str | None] = "attributes"
    root: str
    owner: str
    cell: int
    """Of the board: this is so as long as its generation, and that of the roots, stay."""
    lasts: bool
    """False: ask again at the next read, whatever the board says."""
    entry: Entry
    geometry: Geometry
    compression: Compression
    folder: str | None = None
    """Of the cached lineage; none when there is no room for it."""
    attributes: tuple[Buffer, ...] = ()
    """One frame: the attributes as a msgpack map."""


@dataclass(frozen=True, slots=True)
class Bring:
    """Have chunks brought into the cache. Answered by one `Brought` or more, when all are there."""

    verb: ClassVar[str] = "bring"
    bodies: ClassVar[str | None] = "chunks"
    root: str
    owner: str
    path: str
    lineage: str
    number: int
    """Of the frame's file that is open at the worker; 0 if none is."""
    bulk: bool = False
    chunks: tuple[Buffer, ...] = ()
    """One frame: their numbers, int64 of this machine."""


@dataclass(frozen=True, slots=True)
class BringParts:
    """Have parts of chunks brought into the cache. Answered by one `Brought`, or `Failed`."""

    verb: ClassVar[str] = "bring-parts"
    bodies: ClassVar[str | None] = None
    root: str
    owner: str
    path: str
    lineage: str
    number: int
    """As in `Bring`; not 0."""
    parts: tuple[Part, ...]
    """As many as ``blocks`` may have."""
    sizes: tuple[int, ...]
    """A guess of the bytes of each."""
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Brought:
    """Chunks are in the cache; or in here, where there is no room for them or the worker has another file."""

    verb: ClassVar[str] = "brought"
    bodies: ClassVar[str | None] = "data"
    loose: tuple[int, ...] = ()
    """Numbers of those in ``data``."""
    more: bool = False
    """Another message follows with more of them."""
    data: tuple[Buffer, ...] = ()
    """One frame for each of ``loose``."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for the `Bring` or `BringParts` of that ``id`` any more. Not answered."""

    verb: ClassVar[str] = "abandon"
    bodies: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class Used:
    """Chunks were of use since the last time. Not answered."""

    verb: ClassVar[str] = "used"
    bodies: ClassVar[str | None] = "chunks"
    root: str
    owner: str
    path: str
    lineage: str
    number: int
    """As in `Bring`."""
    chunks: tuple[Buffer, ...] = ()
    """One frame: a bit for each chunk, the first in the highest bit of the first byte."""


@dataclass(frozen=True, slots=True)
class Pass:
    """An HTTP request that a worker leaves to the subscriber. Answered by `Passed`."""

    verb: ClassVar[str] = "pass"
    bodies: ClassVar[str | None] = "parts"
    parts: tuple[Buffer, ...] = ()
    """The texts of its WSGI environment, as a msgpack map, and its body."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The answer to pass back."""

    verb: ClassVar[str] = "passed"
    bodies: ClassVar[str | None] = "parts"
    parts: tuple[Buffer, ...] = ()
    """Its status and headers, as a msgpack array, and its body."""


WORKER_MESSAGES: dict[str, type[Any]] = {
    cls.verb: cls
    for cls in (
        Open, Opened, Bring, BringParts, Brought, Abandon, Used, Pass, Passed, Sizes, SizesReply, Failed,
    )
}  # fmt: skip
