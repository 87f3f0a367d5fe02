"""What a reader asks after a rewrite: which chunks are still what they were. Part of `zcat.protocol.messages`."""

from dataclasses import dataclass
from typing import ClassVar

from zcat.errors import BadMessage
from zcat.limits import CHUNKS_PER_REQUEST_MAX
from zcat.protocol.codec import DIGEST_BYTES, Buffer, also_check


@dataclass(frozen=True, slots=True)
class Compare:
    """Which of these chunks have these digests? I hold such chunks, of another lineage. Answered by `Compared`."""

    verb: ClassVar[str] = "compare"
    bodies: ClassVar[str | None] = "digests"
    root: str
    path: str
    lineage: str
    chunks: tuple[int, ...]
    digests: tuple[Buffer, ...] = ()
    """One frame: 32 bytes for each of ``chunks``, in their order, as `ChunkReply.digest` has them."""

    def digest(self, place: int) -> bytes:
        """Give the digest of the chunk at a place in ``chunks``."""
        return bytes(self.digests[0][place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES])


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a `Compare`. A chunk that is not named has another digest, or was not looked at."""

    verb: ClassVar[str] = "compared"
    bodies: ClassVar[str | None] = None
    lineage: str
    same: tuple[int, ...]
    """Numbers of the chunks that have the digest that was asked about."""


def _check_compare(message: Compare) -> None:
    count = len(message.chunks)
    if not 1 <= count <= CHUNKS_PER_REQUEST_MAX:
        raise BadMessage(f"{count} chunks to compare, wanted 1 to {CHUNKS_PER_REQUEST_MAX}")
    if [len(frame) for frame in message.digests] != [count * DIGEST_BYTES]:
        raise BadMessage(f"digests of {count} chunks: wanted one frame of {count * DIGEST_BYTES} bytes")


also_check(Compare, _check_compare)
