"""Every message of the protocol: one frozen dataclass each, with what its fields mean.

A message is a ZeroMQ multipart message of ``MAGIC``, a header (a msgpack map: ``verb``, ``id``, and the
fields below) and zero or more body frames, which hold what is large: `bodies` names the field that they
become. `encode` and `decode` are the only doors. PROTOCOL.md has the same in prose, frame by frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from zcat.errors import BadMessage, BadName, VerbUnknown, ZcatError, error_of
from zcat.limits import BROKERS_MAX, CHUNKS_PER_REQUEST_MAX, CONTROL_FRAME_BYTES_MAX, PAGES_PER_MESSAGE_MAX
from zcat.model.dataset import Compression, DatasetInfo, Entry, Geometry
from zcat.model.root import Claim
from zcat.names import check_endpoint, check_path, shown
from zcat.protocol.block_messages import Blocks, BlocksReply
from zcat.protocol.codec import Buffer, also_check, from_plain, pack, plain_fields, unpack, unpack_attributes
from zcat.protocol.compare_messages import Compare, Compared
from zcat.protocol.federation_messages import Digest, Digests, Neighbour, Records
from zcat.protocol.status_messages import Presence, Status, StatusPage
from zcat.protocol.swarm_messages import Have, Holders

MAGIC = b"zcat1"
"""First frame of every message; the digit is the version of the wire."""


class Message(Protocol):
    """What all messages have: a verb, and the name of the field that travels as body frames."""

    verb: ClassVar[str]
    bodies: ClassVar[str | None]


# -- to anybody --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there, and who are you? Answered by the loop that does the work, not by a helper thread."""

    verb: ClassVar[str] = "ping"
    bodies: ClassVar[str | None] = None
    neighbour: Neighbour | None = None
    """Who asks, if it is a broker: it wants to be known."""
    presence: Presence | None = None
    """Who asks, if it is a reader that uses this broker: operators want to know."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to `Ping`."""

    verb: ClassVar[str] = "pong"
    bodies: ClassVar[str | None] = None
    service: str
    """``broker``, ``publisher`` or ``subscriber``."""
    owner: str
    """Key of the answering process: 32 hexadecimal digits."""
    incarnation: int
    seq: int
    """Of its events: of the directory's changes (broker) or the root's (publisher)."""
    version: str
    """Of the program."""
    ingress: str | None = None
    """Broker: where publishers connect a PUB. A host of ``*`` means the one this broker was reached by."""
    egress: str | None = None
    """Broker: where subscribers connect a SUB."""
    mesh: str | None = None
    """Broker: where other brokers have the events that entered here."""
    digest: int | None = None
    """Broker: over what stands or was withdrawn in its directory; see ``protocol.digests``."""
    neighbours: tuple[Neighbour, ...] = ()
    """Broker: the other brokers that answer it and whose events it passes on."""
    tracks: bool = False
    """Publisher: it takes `Have`, and names holders to those who ask for them."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request with this ``id`` failed, or one chunk of it did."""

    verb: ClassVar[str] = "failed"
    bodies: ClassVar[str | None] = None
    code: str
    message: str
    nchunk: int | None = None
    """The chunk that failed; absent when the whole request did."""

    @property
    def error(self) -> ZcatError:
        """The error to raise on this side."""
        return error_of(self.code, self.message)


# -- to a broker's directory -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """Publisher: list my claim (a tombstone if it says ``deleted``). Answered by `Granted`."""

    verb: ClassVar[str] = "announce"
    bodies: ClassVar[str | None] = None
    claim: Claim


@dataclass(frozen=True, slots=True)
class Renew:
    """Publisher: my claim still stands. Answered by `Granted`; if that says unknown, announce again."""

    verb: ClassVar[str] = "renew"
    bodies: ClassVar[str | None] = None
    root: str
    owner: str
    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Granted:
    """Broker: what became of an announcement or a renewal."""

    verb: ClassVar[str] = "granted"
    bodies: ClassVar[str | None] = None
    known: bool
    """False: this broker has no such claim (it restarted, or the lease lapsed)."""
    incarnation: int
    """The highest that this broker remembers for the claim's owner; a publisher that is below goes above."""
    contested: bool = False
    """Another owner claims the same name."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Who serves a root? Answered by `Listing`. The snapshot of the directory is the lookup of everything."""

    verb: ClassVar[str] = "lookup"
    bodies: ClassVar[str | None] = None
    root: str | None = None
    """None: all roots."""
    after: str = ""
    """Begin behind this one: the `Listing.next` of the part before."""


@dataclass(frozen=True, slots=True)
class ListedClaim:
    """A claim as one broker sees it at the moment of answering."""

    claim: Claim
    age_s: float
    """Since the owner itself was last heard of."""
    state: str
    """``live``, ``stale`` (not heard of, kept by self-preservation), ``lapsed`` or ``withdrawn``."""
    hearsay: bool = False
    """Another broker told of that last sign of life; the owner itself said nothing since then."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Broker: the claims asked for, as of a point in its own sequence of changes."""

    verb: ClassVar[str] = "listing"
    bodies: ClassVar[str | None] = "pages"
    broker: str
    incarnation: int
    seq: int
    """Changes up to this one are contained in this part; a later part may contain more."""
    next: str | None = None
    """Ask again with ``after`` this; absent on the last part."""
    pages: tuple[Buffer, ...] = ()
    """Each a msgpack array of `ListedClaim`, in order of root and owner; see ``protocol.pages``."""


# -- to a peer: a publisher, or a subscriber that shares its cache -----------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """The catalogue of a root, from after a path on, in order of path. Answered by `TreePage`."""

    verb: ClassVar[str] = "tree"
    bodies: ClassVar[str | None] = None
    root: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class TreePage:
    """A part of a catalogue. The whole is consistent once all later events have been applied to it."""

    verb: ClassVar[str] = "tree-page"
    bodies: ClassVar[str | None] = "pages"
    root: str
    owner: str
    incarnation: int
    seq: int
    """Events up to this one are contained."""
    next: str | None = None
    """Ask again with ``after`` this; absent on the last part."""
    pages: tuple[Buffer, ...] = ()
    """Each a msgpack array of `Entry`."""


@dataclass(frozen=True, slots=True)
class Events:
    """The events after ``since``, which this side missed. Answered by `Changes`, or `Failed` ``stale``."""

    verb: ClassVar[str] = "events"
    bodies: ClassVar[str | None] = None
    root: str
    incarnation: int
    since: int


@dataclass(frozen=True, slots=True)
class Change:
    """One dataset is new or changed (``entry``), or gone (no entry)."""

    path: str
    entry: Entry | None = None


def _check_change(change: Change) -> None:
    check_path(change.path)
    if change.entry is not None and change.entry.path != change.path:
        raise BadName(f"a change of {shown(change.path)} with the entry of {shown(change.entry.path)}")


def _check_pong(pong: "Pong") -> None:
    if len(pong.neighbours) > BROKERS_MAX:
        raise BadMessage(f"{len(pong.neighbours)} neighbours of one broker, the limit is {BROKERS_MAX}")


also_check(Change, _check_change)
also_check(Pong, _check_pong)


@dataclass(frozen=True, slots=True)
class Changes:
    """Events of a root, in order: number ``first_seq``, ``first_seq + 1``, and so on. Published, or an answer."""

    verb: ClassVar[str] = "changes"
    bodies: ClassVar[str | None] = "pages"
    root: str
    owner: str
    incarnation: int
    first_seq: int
    pages: tuple[Buffer, ...] = ()
    """Each a msgpack array of `Change`."""


@dataclass(frozen=True, slots=True)
class Info:
    """All about one dataset. Answered by `InfoReply`."""

    verb: ClassVar[str] = "info"
    bodies: ClassVar[str | None] = None
    root: str
    path: str


@dataclass(frozen=True, slots=True)
class InfoReply:
    """One version of a dataset, as it is now."""

    verb: ClassVar[str] = "info-reply"
    bodies: ClassVar[str | None] = "attributes"
    entry: Entry
    geometry: Geometry
    compression: Compression
    attributes: tuple[Buffer, ...] = ()
    """One frame: the attributes as a msgpack map."""

    @classmethod
    def of(cls, info: DatasetInfo) -> "InfoReply":
        """Make the reply that describes ``info``."""
        return cls(info.entry, info.geometry, info.compression, (pack(info.attributes),))

    def info(self) -> DatasetInfo:
        """Give what the reply describes.

        Raises:
            BadMessage: the attributes are not a map within the limits.
        """
        attributes = unpack_attributes(self.attributes[0]) if self.attributes else {}
        return DatasetInfo(self.entry, self.geometry, self.compression, attributes)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of one lineage. Answered by one `ChunkReply` or `Failed` for each, in any order; or by `Holders`.

    A plain REQ socket, which can take one answer only, asks for one chunk at a time.
    """

    verb: ClassVar[str] = "chunks"
    bodies: ClassVar[str | None] = None
    root: str
    path: str
    lineage: str
    chunks: tuple[int, ...]
    bulk: bool = False
    """A copy or a prefetch, which gives way to what somebody waits for."""
    holders: bool = False
    """`Holders` will do for an answer, at once or later. Without it, the chunk itself comes."""
    peer: str | None = None
    """Where the asker gives to others what it holds; None: nowhere."""


def _check_chunks(message: Chunks) -> None:
    if message.peer is not None:
        check_endpoint(message.peer)


also_check(Chunks, _check_chunks)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The compressed size of every chunk of one lineage. Answered by `SizesReply`, or `Failed` ``not-readable``.

    Known without reading the chunks for native datasets only; whoever assembles a whole frame can then say
    how long it will be before the first chunk is there.
    """

    verb: ClassVar[str] = "sizes"
    bodies: ClassVar[str | None] = None
    root: str
    path: str
    lineage: str


@dataclass(frozen=True, slots=True)
class SizesReply:
    """Compressed sizes, in order of chunk number."""

    verb: ClassVar[str] = "sizes-reply"
    bodies: ClassVar[str | None] = "sizes"
    lineage: str
    sizes: tuple[Buffer, ...] = ()
    """One frame: an int32, little-endian, for each chunk."""


@dataclass(frozen=True, slots=True)
class ChunkReply:
    """One compressed chunk."""

    verb: ClassVar[str] = "chunk"
    bodies: ClassVar[str | None] = "data"
    lineage: str
    nchunk: int
    digest: bytes
    """blake3-256 of the compressed bytes, as the origin has them."""
    data: tuple[Buffer, ...] = ()
    """One frame: the chunk as Blosc2 has it."""


# -- published by brokers ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirectoryChanged:
    """Broker: one claim is new, changed, or has another state. On topic ``dir/``."""

    verb: ClassVar[str] = "directory-changed"
    bodies: ClassVar[str | None] = None
    broker: str
    incarnation: int
    seq: int
    listed: ListedClaim


MESSAGES: dict[str, type[Any]] = {
    cls.verb: cls
    for cls in (
        Ping, Pong, Failed, Status, StatusPage, Announce, Renew, Granted, Lookup, Listing, Digest, Digests,
        Records, Tree, TreePage, Events, Changes, Info, InfoReply, Sizes, SizesReply, Chunks, ChunkReply,
        Blocks, BlocksReply, Compare, Compared, Holders, Have, DirectoryChanged,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message with the number that ties an answer to its request."""

    message: Any
    id: int = field(default=0)


def encode(message: Message, id: int = 0) -> list[Buffer]:
    """Give the frames of ``message``. Bodies are passed on, not copied."""
    bodies = getattr(message, message.bodies) if message.bodies else ()
    packed = pack({"verb": message.verb, "id": id, **plain_fields(message, message.bodies)})
    assert len(packed) <= CONTROL_FRAME_BYTES_MAX, f"{message.verb}: a header of {len(packed)} bytes"
    return [MAGIC, packed, *bodies]


def decode(frames: Sequence[Buffer], known: Mapping[str, type[Any]] = MESSAGES) -> Received:
    """Read the frames of one message, without the routing id that a ROUTER puts in front.

    Args:
        frames: as they came.
        known: the messages that are understood here, by verb.

    Raises:
        BadMessage: wrong version, not msgpack, a field missing or of the wrong type, too many frames.
        VerbUnknown: well formed, but a verb that this version does not know.

    The error's ``request`` is the ``id`` of the message, as far as that could be read.
    """
    if not 2 <= len(frames) <= 2 + PAGES_PER_MESSAGE_MAX:
        raise BadMessage(f"a message of {len(frames)} frames, wanted 2 to {2 + PAGES_PER_MESSAGE_MAX}")
    if frames[0] != MAGIC:
        came = shown(bytes(frames[0][:16]).decode("latin-1"))
        raise BadMessage(f"the first frame is {came}, wanted {MAGIC!r}: another program or another version")
    header = unpack(bytes(frames[1]) if isinstance(frames[1], memoryview) else frames[1])
    if type(header) is not dict:
        raise BadMessage(f"header: wanted a map, got {type(header).__name__}")
    verb, id = header.get("verb"), header.get("id", 0)
    if type(verb) is not str or type(id) is not int or not 0 <= id < 1 << 63:
        raise BadMessage("header: wanted a text 'verb' and a number 'id' of at least 0")
    cls = known.get(verb)
    if cls is None:
        raise VerbUnknown(f"verb {shown(verb)} is not known to {MAGIC.decode()}", id)
    given = {cls.bodies: tuple(frames[2:])} if cls.bodies else {}
    try:
        message = from_plain(cls, header, **given)
        _check(message)
    except BadMessage as error:
        error.request = id
        raise
    return Received(message, id)


def _check(message: Any) -> None:
    """Refuse what the types alone let through."""
    if isinstance(message, Chunks) and not 1 <= len(message.chunks) <= CHUNKS_PER_REQUEST_MAX:
        raise BadMessage(f"{len(message.chunks)} chunks in one request, wanted 1 to {CHUNKS_PER_REQUEST_MAX}")
    if isinstance(message, ChunkReply) and len(message.digest) != 32:
        raise BadMessage(f"a digest of {len(message.digest)} bytes, wanted 32")
