"""What readers and a publisher say of who holds what: part of `zcat.protocol.messages`."""

from dataclasses import dataclass
from typing import ClassVar

from zcat.errors import BadMessage
from zcat.limits import CHUNKS_PER_REQUEST_MAX, HELD_CHUNKS_MAX, HOLDERS_MAX
from zcat.names import check_endpoint
from zcat.protocol.codec import DIGEST_BYTES, also_check, check_lineage


@dataclass(frozen=True, slots=True)
class HeldChunk:
    """Where one chunk is to be had."""

    nchunk: int
    digest: bytes | None = None
    """blake3-256 of the compressed bytes, as the origin has them. None: wait, your turn comes."""
    nbytes: int = 0
    """Compressed."""
    peers: tuple[int, ...] = ()
    """Who has it, best first: places in `Holders.endpoints`."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Publisher: ask one of these. An answer to `Chunks` with ``holders``, for some of its chunks."""

    verb: ClassVar[str] = "holders"
    bodies: ClassVar[str | None] = None
    lineage: str
    endpoints: tuple[str, ...]
    """Of peers that answer `Chunks`."""
    chunks: tuple[HeldChunk, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """Reader: I hold these chunks of this lineage now. Not answered."""

    verb: ClassVar[str] = "have"
    bodies: ClassVar[str | None] = None
    root: str
    path: str
    lineage: str
    chunks: tuple[int, ...]
    peer: str | None = None
    """Where I give them to others; None: I give nothing away."""
    failed: tuple[str, ...] = ()
    """Endpoints of peers that did not give what they were said to hold."""


def _check_holders(message: Holders) -> None:
    check_lineage(message.lineage)
    count = len(message.endpoints)
    if count > HOLDERS_MAX or not 1 <= len(message.chunks) <= HELD_CHUNKS_MAX:
        raise BadMessage(
            f"{count} holders of {len(message.chunks)} chunks, the limits are {HOLDERS_MAX} and {HELD_CHUNKS_MAX}"
        )
    for endpoint in message.endpoints:
        check_endpoint(endpoint)
    for chunk in message.chunks:
        if chunk.digest is not None and len(chunk.digest) != DIGEST_BYTES:
            raise BadMessage(f"a digest of {len(chunk.digest)} bytes, wanted {DIGEST_BYTES}")
        if len(chunk.peers) > count or any(place >= count for place in chunk.peers):
            raise BadMessage(f"chunk {chunk.nchunk}: holders {chunk.peers[:8]}, there are {count}")


def _check_have(message: Have) -> None:
    if len(message.chunks) > CHUNKS_PER_REQUEST_MAX or len(message.failed) > HOLDERS_MAX:
        raise BadMessage(
            f"{len(message.chunks)} chunks and {len(message.failed)} failed peers, the limits are "
            f"{CHUNKS_PER_REQUEST_MAX} and {HOLDERS_MAX}"
        )
    for endpoint in (*message.failed, *([message.peer] if message.peer is not None else [])):
        check_endpoint(endpoint)


also_check(Holders, _check_holders)
also_check(Have, _check_have)
