"""Where the blocks of a compressed chunk are, and parts of chunks that travel or are cached without the rest.

A chunk begins with its *head*: the header, and the offset of each block in int32; chunks that are plain copies do
without offsets. The blocks follow one another, not always in their order, up to the end of the chunk. Each is one
stream, or one for each byte of an item: an int32 with the stream's length and that many bytes. A length of 0 is a
run of zeros, and a negative one a run of one byte value, which one more byte (the token) follows.

C-Blosc2 checks lengths against the end of the chunk, or of the span up to the next block, and a codec's output
against the block size. What passes here is stricter: spans that tile the chunk, no longer than a block can be, and
streams that end where their span does. So what is read of a block never depends on what lies beside it.

Source: c-blosc2 ``README_CHUNK_FORMAT.rst``; ``blosc_d`` (``blosc2.c``) and ``frame_get_lazychunk`` (``frame.c``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import blake3
import numpy as np

from zcat.errors import BadChunk
from zcat.limits import KIB
from zcat.model.dataset import Geometry
from zcat.model.selection import Indices
from zcat.storage.chunk_gate import (
    DELTA,
    HEADER_BYTES,
    MEMCPYED,
    SPECIAL_NONE,
    UNSPLIT,
    Buffer,
    check_header,
    special_kind,
)

CUT_BYTES_MIN = 4 * KIB
"""A part must spare at least so much of its chunk, or the whole is given."""


def may_cut(chunk: Buffer) -> bool:
    """Say whether single blocks of a chunk may be decoded, of which at least the header is there."""
    return DELTA not in bytes(chunk[16:22])


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """Some blocks of a chunk, and what is needed to put them in their places."""

    head: Buffer
    blocks: tuple[int, ...]
    """Their numbers, ascending."""
    data: Buffer
    """The blocks, one after the other in the order of `blocks`."""
    whole_digest: bytes | None = None
    """BLAKE3-256 of the whole chunk, if its origin was asked for it."""

    @property
    def digest(self) -> bytes:
        """BLAKE3-256 of `head` and `data`, as one."""
        return blake3.blake3(self.head).update(self.data).digest()


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Where each block of one chunk begins and ends, in bytes from the begin of the chunk."""

    cbytes: int
    """Length of the chunk."""
    blocksize: int
    """Uncompressed bytes of each block; the last one may be smaller."""
    streams: int
    """Of a whole block; 0 if blocks are plain copies."""
    nbytes: int
    """Uncompressed bytes of the chunk."""
    starts: Indices
    stops: Indices

    @classmethod
    def read(cls, head: Buffer) -> "BlockLayout":
        """Read the head of a chunk.

        Args:
            head: `head_bytes` long, or longer.

        Raises:
            BadChunk: the chunk has no blocks that can be had singly; nobody claims that it is damaged.
        """
        flags, typesize = head[2], head[3]
        nbytes, blocksize, cbytes = (int.from_bytes(head[at : at + 4], "little") for at in (4, 8, 12))
        if special_kind(head) != SPECIAL_NONE or not may_cut(head):
            raise BadChunk("a chunk of one value, or of differences, has no blocks of its own")
        nblocks = -(-nbytes // blocksize)
        if flags & MEMCPYED:
            starts = HEADER_BYTES + np.arange(nblocks, dtype=np.int64) * blocksize
            stops = np.minimum(starts + blocksize, cbytes)
            return cls(cbytes, blocksize, 0, nbytes, starts, stops)
        starts = np.frombuffer(head, "<i4", nblocks, HEADER_BYTES).astype(np.int64)
        order = np.argsort(starts)
        stops = np.empty_like(starts)
        stops[order] = np.append(starts[order[1:]], cbytes)
        layout = cls(cbytes, blocksize, 1 if flags & UNSPLIT else typesize, nbytes, starts, stops)
        layout._check(int(starts[order[0]]))
        return layout

    @property
    def nblocks(self) -> int:
        """Number of blocks."""
        return len(self.starts)

    @property
    def head_bytes(self) -> int:
        """Length of the header and the offsets."""
        return HEADER_BYTES + (4 * self.nblocks if self.streams else 0)

    def count_bytes(self, blocks: Iterable[int]) -> int:
        """Add up the lengths of some blocks."""
        numbers = np.fromiter(blocks, np.int64)
        return int((self.stops[numbers] - self.starts[numbers]).sum())

    def runs(self, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """Give begin and end of some blocks, those that touch one another as one, in the order of the chunk."""
        numbers = np.fromiter(blocks, np.int64)
        numbers = numbers[np.argsort(self.starts[numbers])]
        runs: list[tuple[int, int]] = []
        for start, stop in zip(self.starts[numbers].tolist(), self.stops[numbers].tolist(), strict=True):
            if runs and runs[-1][1] == start:
                runs[-1] = runs[-1][0], stop
            else:
                runs.append((start, stop))
        return runs

    def is_worth_cutting(self, blocks: Iterable[int]) -> bool:
        """Say whether a part with these blocks is so much smaller than the chunk that it pays."""
        return self.head_bytes + self.count_bytes(blocks) <= self.cbytes - CUT_BYTES_MIN

    def check_block(self, nblock: int, data: Buffer) -> None:
        """Walk through the streams of a block, without decoding any.

        Raises:
            BadChunk: they do not end where the block does.
        """
        size = min(self.blocksize, self.nbytes - nblock * self.blocksize)
        wanted = int(self.stops[nblock] - self.starts[nblock])
        if len(data) != wanted:
            raise BadChunk(f"block {nblock}: {len(data)} bytes, wanted {wanted}")
        if not self.streams:
            return
        streams = self.streams if size == self.blocksize else 1
        stream_bytes = size // streams
        at = 0
        for _ in range(streams):
            if at + 4 > wanted:
                raise BadChunk(f"block {nblock}: its streams end behind it")
            length = int.from_bytes(data[at : at + 4], "little", signed=True)
            at += 4
            if length < 0:
                if length < -255 or at >= wanted or not data[at] & 1:
                    raise BadChunk(f"block {nblock}: a run of {length}")
                at += 1
            elif length > stream_bytes:
                raise BadChunk(f"block {nblock}: a stream of {length} bytes for {stream_bytes}")
            else:
                at += length
        if at != wanted:
            raise BadChunk(f"block {nblock}: its streams end at {at}, the block has {wanted} bytes")

    def _check(self, first: int) -> None:
        lengths = self.stops - self.starts
        largest = self.blocksize + 4 * self.streams
        if not self.streams or self.blocksize < self.streams:
            raise BadChunk(f"blocks of {self.blocksize} bytes in {self.streams} streams")
        if first != self.head_bytes or int(lengths.min()) < 4 or int(lengths.max()) > largest:
            raise BadChunk(
                f"blocks from byte {first} on, of {int(lengths.min())} to {int(lengths.max())} bytes: wanted "
                f"{self.head_bytes}, and 4 to {largest}"
            )


def head_bytes(header: Buffer) -> int:
    """Return the length of a chunk's head, given its header, which passed the gate."""
    nbytes, blocksize = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8))
    return HEADER_BYTES if header[2] & MEMCPYED else HEADER_BYTES + 4 * -(-nbytes // blocksize)


def cut(chunk: bytes, blocks: tuple[int, ...]) -> ChunkPart | None:
    """Take a part out of a chunk that passed the gate; None if the whole should be given instead."""
    try:
        layout = BlockLayout.read(chunk)
        if (blocks and blocks[-1] >= layout.nblocks) or not layout.is_worth_cutting(blocks):
            return None
        spans = [memoryview(chunk)[layout.starts[n] : layout.stops[n]] for n in blocks]
        for nblock, span in zip(blocks, spans, strict=True):
            layout.check_block(nblock, span)
    except BadChunk:
        return None
    return ChunkPart(chunk[: layout.head_bytes], blocks, b"".join(spans))


def check_part(part: ChunkPart, geometry: Geometry, nchunk: int) -> BlockLayout:
    """Let a part of a chunk pass only if Blosc2 can decode its blocks without harm.

    Args:
        part: as it came. Its digest is right.
        geometry: of the dataset, checked.
        nchunk: which chunk this is said to be a part of.

    Raises:
        BadChunk: nothing of it was decoded.
    """
    size = int.from_bytes(part.head[12:16], "little")
    check_header(part.head, size, geometry, nchunk)
    if len(part.head) != head_bytes(part.head):
        raise BadChunk(f"chunk {nchunk}: a head of {len(part.head)} bytes, wanted {head_bytes(part.head)}")
    layout = BlockLayout.read(part.head)
    blocks = part.blocks
    if list(blocks) != sorted(set(blocks)) or (blocks and not 0 <= blocks[0] <= blocks[-1] < layout.nblocks):
        raise BadChunk(f"chunk {nchunk}: blocks {blocks[:8]}, it has {layout.nblocks}")
    if layout.count_bytes(blocks) != len(part.data):
        raise BadChunk(f"chunk {nchunk}: {len(part.data)} bytes, its offsets say {layout.count_bytes(blocks)}")
    for nblock, span in spans_of(part, layout):
        layout.check_block(nblock, span)
    return layout


def spans_of(part: ChunkPart, layout: BlockLayout) -> Iterable[tuple[int, memoryview]]:
    """Give the number and the bytes of each block of a part that passed `check_part`."""
    data, at = memoryview(part.data), 0
    for nblock in part.blocks:
        size = int(layout.stops[nblock] - layout.starts[nblock])
        yield nblock, data[at : at + size]
        at += size
