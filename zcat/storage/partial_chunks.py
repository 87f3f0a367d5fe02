"""The chunks of a slotted frame that are there in part: their heads, some blocks, and a record of which.

A block lies where it lies in the whole chunk, so Blosc2's handle on the frame reads it there, and the chunk
becomes whole by and by. Which blocks are there stands in a file of bits beside the frame, a record for each chunk.
A bit is set after its block was written, and a record begins anew before its chunk is marked `PARTIAL`, so that
whoever sees that mark, in this process or another, may believe the record.

No digest covers single blocks on disk: they are good for one run only, and a later one makes these chunks absent.
To keep a digest of each block would cost more writes than the blocks, and save what one round trip brings back.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zcat.errors import BadChunk
from zcat.model.blocks import block_count
from zcat.model.dataset import Geometry
from zcat.storage.block_layout import BlockLayout, ChunkPart, spans_of
from zcat.storage.chunk_gate import Buffer
from zcat.storage.disk import pread_exactly, pwrite_all
from zcat.storage.presence import PARTIAL, Presence, open_records
from zcat.storage.slotted_frame import SlottedFrame

BLOCKS = "blocks"
"""Name of the file of bits."""

Bits = npt.NDArray[np.bool_]


def read_record(fd: int, nblocks: int, nchunk: int) -> Bits:
    """Read which blocks of a chunk are there, out of the file of bits; its mark is `PARTIAL`.

    Raises:
        StorageFailed, BadContent: the disk failed, or the file is another one.
    """
    record_bytes = -(-nblocks // 8)
    record = pread_exactly(fd, record_bytes, nchunk * record_bytes)
    return np.unpackbits(np.frombuffer(record, np.uint8), count=nblocks).view(np.bool_)


class PartialChunks:
    """What is there of chunks that are not whole.

    Any thread may ask; what writes is called by whoever holds the dataset's write lock.
    """

    def __init__(self, folder: Path, frame: SlottedFrame, presence: Presence, geometry: Geometry) -> None:
        """Take the dataset's files; that of bits is opened when a first block is stored or looked for."""
        assert geometry.array is not None
        self._path = folder / BLOCKS
        self._frame = frame
        self._presence = presence
        self._nchunks = geometry.nchunks
        self._nblocks = block_count(geometry.array)
        self._record_bytes = -(-self._nblocks // 8)
        self._fd = -1
        self._doubted: set[int] = set()

    def close(self) -> None:
        """Let go of the file. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def there(self, nchunk: int) -> Bits:
        """Say of each block of a chunk whether it is there; of one that is not `PARTIAL`, none."""
        if self._presence[nchunk] != PARTIAL:
            return np.zeros(self._nblocks, np.bool_)
        return read_record(self._opened(), self._nblocks, nchunk)

    def nbytes(self, nchunk: int) -> int:
        """Return about how many bytes are there of a chunk."""
        layout = self._layout(nchunk)
        return layout.head_bytes + layout.count_bytes(np.flatnonzero(self.there(nchunk)))

    def is_doubted(self, nchunk: int) -> bool:
        """Say whether an origin contradicted itself about a chunk: then nothing of it is kept in this run.

        Somebody may still be reading what it said first, so its bytes are not overwritten either.
        """
        return nchunk in self._doubted

    def add(self, nchunk: int, part: ChunkPart, layout: BlockLayout) -> None:
        """Put the blocks of a part that passed the gate into their places, those that are not there.

        Raises:
            BadChunk: it contradicts what is there, which is absent from now on.
            StorageFailed: the disk refused.
        """
        there = self.there(nchunk)
        head = bytes(part.head)
        if there.any() and bytes(self._frame.slot_view(nchunk, 0, len(head))) != head:
            self.doubt(nchunk)
            raise BadChunk(f"chunk {nchunk}: its head is another one than before")
        if not there.any():
            self._write_record(nchunk, there)
            self._frame.write_part(nchunk, 0, head)
        for nblock, span in spans_of(part, layout):
            if not there[nblock]:
                self._frame.write_part(nchunk, int(layout.starts[nblock]), span)
                there[nblock] = True
        self._write_record(nchunk, there)
        self._presence.mark(nchunk, PARTIAL)

    def agrees(self, nchunk: int, chunk: Buffer) -> bool:
        """Say whether what is there of a chunk is the same in the whole of it."""
        view, whole = self._frame.chunk_view(nchunk), memoryview(chunk)
        layout = self._layout(nchunk)
        if len(view) != len(whole) or view[: layout.head_bytes] != whole[: layout.head_bytes]:
            return False
        return all(view[a:b] == whole[a:b] for a, b in layout.runs(np.flatnonzero(self.there(nchunk)).tolist()))

    def doubt(self, nchunk: int) -> None:
        """Take note that an origin contradicted itself about a chunk."""
        self._doubted.add(nchunk)

    def _layout(self, nchunk: int) -> BlockLayout:
        return BlockLayout.read(self._frame.chunk_view(nchunk))

    def _opened(self) -> int:
        if self._fd < 0:
            self._fd = open_records(self._path, self._nchunks * self._record_bytes)
        return self._fd

    def _write_record(self, nchunk: int, there: Bits) -> None:
        pwrite_all(self._opened(), np.packbits(there).tobytes(), nchunk * self._record_bytes)
