"""The bytes of an HDF5 dataset as they lie in its file, read by ``pread``: no HDF5 library, any thread.

Where they lie is what a worker said: `ChunkTable` for chunked datasets, ``Layout.offset`` for contiguous ones. If
that is wrong, reads give other bytes of the same file, or fail; never anything else.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import blake3
import numpy as np
from numpy.typing import NDArray

from zcat.errors import BadContent
from zcat.limits import MIB
from zcat.storage.disk import pread_exactly
from zcat.storage.hdf5.convert import filled, item_type
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.layout import Box
from zcat.storage.hdf5.raw_chunks import Pipeline, decode

_READ_BYTES = 4 * MIB
_STORED_BYTES_MAX = 256 * MIB
"""Of one HDF5 chunk; larger ones are left to HDF5."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkTable:
    """Where the chunks of a dataset lie, in row-major order of its grid; three arrays of one length."""

    offsets: NDArray[np.int64]
    """In the file; -1 where nothing was written."""
    sizes: NDArray[np.int64]
    """As stored."""
    masks: NDArray[np.uint32]
    """Filters that were left out."""


@dataclass(frozen=True, slots=True)
class Part:
    """One HDF5 chunk, or the run of a contiguous dataset that a box is."""

    box: Box
    """In the dataset; a chunk's may reach beyond its shape."""
    filter_mask: int
    raw: bytes | None
    """None: never written, all fill value."""


class StoredData:
    """One dataset's bytes in a file."""

    def __init__(self, fd: int, item: Item, itemsize: int, table: ChunkTable | None) -> None:
        """Take what is known.

        Args:
            fd: of the file; it stays the caller's.
            item: the dataset, chunked or contiguous.
            itemsize: in the file, in bytes.
            table: of a chunked dataset, as long as its grid.

        Raises:
            BadContent: the table has another length.
        """
        assert item.layout is not None
        assert item.shape is not None
        self._fd = fd
        self._item = item
        self._shape = item.shape
        self._itemsize = itemsize
        self._chunks = item.layout.chunks
        self._offset = item.layout.offset
        self.table = table
        if self._chunks is not None:
            self._grid = tuple(-(-s // c) for s, c in zip(self._shape, self._chunks, strict=True))
            length = -1 if table is None else len(table.offsets)
            if length != math.prod(self._grid):
                raise BadContent(f"a table of {length} chunks for a grid of {self._grid}")

    def parts(self, box: Box) -> Iterator[Part]:
        """Read what a box consists of.

        Args:
            box: of a contiguous dataset, one run in C order.

        Raises:
            BadContent: the file is shorter than it says, or a stored chunk is impossibly large.
            StorageFailed: the disk failed.
        """
        if self._chunks is None:
            yield Part(box, 0, self._run(box))
            return
        ranges = (range(p.start // c, -(-p.stop // c)) for p, c in zip(box, self._chunks, strict=True))
        for at in itertools.product(*ranges):
            yield self._chunk(at, self._chunks)

    def written(self) -> Sequence[int]:
        """Return the numbers of the chunks that were written, in row-major order of HDF5's grid."""
        assert self.table is not None
        numbers: list[int] = np.flatnonzero(self.table.offsets >= 0).tolist()
        return numbers

    def chunk(self, number: int) -> Part:
        """Read one HDF5 chunk, by its number in row-major order. Raises as `parts` does."""
        assert self._chunks is not None
        at = tuple(int(place) for place in np.unravel_index(number, self._grid)) if self._grid else ()
        return self._chunk(at, self._chunks)

    def is_unwritten(self, box: Box) -> bool:
        """Say whether nothing of a box was ever written."""
        if self._chunks is None:
            return self._offset is None
        assert self.table is not None
        region = tuple(slice(p.start // c, -(-p.stop // c)) for p, c in zip(box, self._chunks, strict=True))
        return bool((self.table.offsets.reshape(self._grid)[region] < 0).all())

    def values(self, box: Box, pipeline: Pipeline | None) -> tuple[np.ndarray, bytes]:
        """Read and decode a box.

        Args:
            box: as for `parts`.
            pipeline: of a chunked dataset.

        Returns:
            An array of the box's shape; its items are opaque, of the right size. And what `witness` gives.

        Raises:
            BadContent: damaged; or as for `parts`.
            StorageFailed: the disk failed.
        """
        shape = tuple(part.stop - part.start for part in box)
        dtype = item_type(self._itemsize)
        values: np.ndarray | None = None
        made = blake3.blake3()
        for part in self.parts(box):
            _add(made, part)
            if part.raw is None:
                piece = None
            elif self._chunks is None:
                return np.frombuffer(part.raw, dtype).reshape(shape), made.digest()
            else:
                assert pipeline is not None
                piece = decode(part.raw, part.filter_mask, pipeline).view(dtype).reshape(self._chunks)
                if part.box == box:
                    return piece, made.digest()
            if values is None:
                values = filled(shape, self._item.fill, self._itemsize)
            if piece is not None:
                _paste(values, box, piece, part.box)
        assert values is not None
        return values, made.digest()

    def witness(self, box: Box) -> bytes:
        """Return a digest of the stored bytes that a box is made of: if they are the same, so are its values."""
        made = blake3.blake3()
        for part in self.parts(box):
            _add(made, part)
        return made.digest()

    def whole_witness(self) -> bytes:
        """Return a digest of all stored bytes."""
        made = blake3.blake3()
        if self.table is not None:
            for number in self.written():
                part = self.chunk(number)
                made.update(repr((number, part.filter_mask, len(part.raw or b""))).encode())
                made.update(part.raw or b"")
        elif self._offset is not None:
            size = math.prod(self._shape) * self._itemsize
            for at in range(0, size, _READ_BYTES):
                made.update(pread_exactly(self._fd, min(_READ_BYTES, size - at), self._offset + at))
        return made.digest()

    def _chunk(self, at: tuple[int, ...], chunks: tuple[int, ...]) -> Part:
        assert self.table is not None
        box = tuple(slice(a * c, a * c + c) for a, c in zip(at, chunks, strict=True))
        number = 0
        for place, count in zip(at, self._grid, strict=True):
            number = number * count + place
        offset, size = int(self.table.offsets[number]), int(self.table.sizes[number])
        if offset < 0:
            return Part(box, 0, None)
        if not 0 <= size <= _STORED_BYTES_MAX:
            raise BadContent(f"an HDF5 chunk of {size} bytes as stored, the limit is {_STORED_BYTES_MAX}")
        return Part(box, int(self.table.masks[number]), pread_exactly(self._fd, size, offset))

    def _run(self, box: Box) -> bytes | None:
        if self._offset is None:
            return None
        first, count = 0, 1
        for part, length in zip(box, self._shape, strict=True):
            first = first * length + part.start
            count *= part.stop - part.start
        return pread_exactly(self._fd, count * self._itemsize, self._offset + first * self._itemsize)


def _add(made: blake3.blake3, part: Part) -> None:
    """Add the stored bytes of a part to a witness."""
    head = (part.filter_mask, -1 if part.raw is None else len(part.raw))
    made.update(repr(head).encode())
    made.update(part.raw or b"")


def _paste(values: np.ndarray, box: Box, piece: np.ndarray, piece_box: Box) -> None:
    """Copy what a chunk has of a box."""
    to: list[slice] = []
    of: list[slice] = []
    for wanted, has in zip(box, piece_box, strict=True):
        start, stop = max(wanted.start, has.start), min(wanted.stop, has.stop)
        to.append(slice(start - wanted.start, stop - wanted.start))
        of.append(slice(start - has.start, stop - has.start))
    values[tuple(to)] = piece[tuple(of)]
