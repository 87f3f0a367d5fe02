"""What readers and publishers say of parts of chunks: part of `zcat.protocol.messages`."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

from zcat.errors import BadMessage
from zcat.limits import BLOCKS_PER_REQUEST_MAX, CHUNKS_PER_REQUEST_MAX
from zcat.protocol.codec import DIGEST_BYTES, Buffer, also_check

_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks of one chunk."""

    nchunk: int
    blocks: tuple[int, ...]
    """Their numbers, ascending."""
    vouch: bool = False
    """Say also what digest the whole chunk has. Then there may be no blocks."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Parts of chunks of one lineage. Answered by a `BlocksReply`, ``chunk`` or ``failed`` for each, in any order.

    A plain REQ socket, which can take one answer only, asks for one part at a time.
    """

    verb: ClassVar[str] = "blocks"
    bodies: ClassVar[str | None] = None
    root: str
    path: str
    lineage: str
    parts: tuple[Part, ...]
    """At most one of each chunk."""
    bulk: bool = False
    """A prefetch or a copy, which gives way to what somebody waits for."""


@dataclass(frozen=True, slots=True)
class BlocksReply:
    """Some blocks of one chunk."""

    verb: ClassVar[str] = "blocks-reply"
    bodies: ClassVar[str | None] = "data"
    lineage: str
    nchunk: int
    blocks: tuple[int, ...]
    """Their numbers, as they were asked for."""
    digest: bytes
    """blake3-256 of the body frames, one behind the other."""
    chunk_digest: bytes | None = None
    """The same of the whole chunk, as `ChunkReply.digest` has it; absent unless it was asked for."""
    data: tuple[Buffer, ...] = ()
    """Two frames: the chunk's header and block offsets; the blocks, in the order of `blocks`."""


def _check_part(part: Part) -> None:
    if not all(a < b for a, b in itertools.pairwise(part.blocks)):
        raise BadMessage(f"blocks of chunk {part.nchunk}: wanted in ascending order, each once")
    if not part.blocks and not part.vouch:
        raise BadMessage(f"no blocks of chunk {part.nchunk}")


def _check_blocks(message: Blocks) -> None:
    count = sum(len(part.blocks) for part in message.parts)
    if not 1 <= len(message.parts) <= CHUNKS_PER_REQUEST_MAX or count > BLOCKS_PER_REQUEST_MAX:
        raise BadMessage(
            f"{count} blocks of {len(message.parts)} chunks in one request, the limits are "
            f"{BLOCKS_PER_REQUEST_MAX} and {CHUNKS_PER_REQUEST_MAX}"
        )
    if len({part.nchunk for part in message.parts}) < len(message.parts):
        raise BadMessage("two parts of one chunk in one request")


def _check_reply(message: BlocksReply) -> None:
    for digest in (message.digest, message.chunk_digest):
        if digest is not None and len(digest) != DIGEST_BYTES:
            raise BadMessage(f"a digest of {len(digest)} bytes, wanted {DIGEST_BYTES}")
    if len(message.data) != _FRAMES:
        raise BadMessage(f"a part of a chunk in {len(message.data)} frames, wanted {_FRAMES}")


also_check(Part, _check_part)
also_check(Blocks, _check_blocks)
also_check(BlocksReply, _check_reply)
