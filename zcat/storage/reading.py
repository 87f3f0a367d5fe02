"""From verified chunks to NumPy arrays and bytes.

Two ways to decode. A small part of a chunk is read by Blosc2's own handle on the slotted frame, block by
block. The rest is decompressed chunk by chunk, which lets other threads run meanwhile
(`let_threads_run`, called once by whoever starts a service), and is put in place by NumPy. Blosc2
decodes with one thread here: requests are what runs in parallel.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import blosc2
import numpy as np
import numpy.typing as npt

from zcat.errors import BadContent, BadSelection, Unavailable
from zcat.model.blocks import block_count, block_grid, blocks_of_piece, blocks_of_points, last_item
from zcat.model.dataset import ArrayGeometry, DatasetInfo
from zcat.model.dtypes import parse_dtype
from zcat.model.geometry import BytePiece, byte_pieces, pieces, points_by_chunk, read_piece
from zcat.model.selection import Indices, Points, Selection
from zcat.names import shown
from zcat.storage.block_layout import may_cut
from zcat.storage.block_order import is_block_order
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.decoded_blocks import Corner, KeptBlocks

Buffer: TypeAlias = bytes | bytearray | memoryview
Bytes: TypeAlias = npt.NDArray[np.uint8]
Inside: TypeAlias = tuple[slice | Indices, ...]

# PERF: chunks of 4 MiB float32, zstd-1, 2 cores. Through the handle a part costs 0.1 ms and then as much per byte
# of its blocks as a whole chunk does, but other threads wait for it. Measured per chunk, handle against
# decompressing all: one reader 2.2 to 7.8 ms for a quarter, 7.8 to 9.1 ms for three quarters; two readers 2.3 to
# 4.1 ms and 9.8 to 5.0 ms, even at about a half. With more cores that comes down (not measured), hence a quarter.
PART_SHARE_MAX = 1 / 4

# PERF: chunks of 8 MB float32 in 63 blocks, zstd-1. Blosc2's gather decodes each block that holds a point, once:
# 60 us per block, 2.5 ms for 40 of them; all of the chunk takes 2.4 ms, and lets other threads run. Up to a half,
# then, the gather is the faster one, and beyond it reading all costs at most twice what the gather would.
POINTS_SHARE_MAX = 1 / 2


SCATTERED_MAX = 1 << 16
"""Items of a chunk, named one by one or by large steps, that are gathered; for more of them all is decoded."""


class ChunkAbsent(Unavailable):
    """Chunks that are needed are not there, or no longer; fetch them and read again."""

    def __init__(self, path: str, chunks: tuple[int, ...]) -> None:
        super().__init__(f"{shown(path)}: {len(chunks)} chunks are not cached, the first is {chunks[0]}")
        self.chunks = chunks


class ChunkSource(Protocol):
    """Where chunks are read from; `CachedDataset` (inside of its ``reading``) and `LooseChunks` are."""

    @property
    def info(self) -> DatasetInfo:
        """Of the version that is read."""

    def chunk(self, nchunk: int) -> Buffer | None:
        """Return the bytes of a chunk that has the right digest and passed the gate; None if it is absent."""

    def handle(self, nchunk: int) -> Any | None:
        """Return this thread's Blosc2 handle by which parts of that chunk can be read; None if there is none."""

    def handle_of_blocks(self, nchunk: int, blocks: Indices) -> Any | None:
        """Return the handle to read these blocks of a chunk that `chunk` did not give; None if they are absent."""


class LooseChunks:
    """Chunks that are not on disk, since it is full, beside those that are."""

    def __init__(
        self, info: DatasetInfo, chunks: Mapping[int, Buffer], cached: CachedDataset | None = None
    ) -> None:
        """Take chunks as they are.

        Args:
            info: of the version that is read.
            chunks: by number; digest and gate have been asked.
            cached: has the others, maybe.
        """
        self.info = info
        self._chunks = chunks
        self._cached = cached

    def chunk(self, nchunk: int) -> Buffer | None:
        """Return the bytes of a chunk, None if it is absent."""
        loose = self._chunks.get(nchunk)
        if loose is None and self._cached is not None:
            return self._cached.chunk(nchunk)
        return loose

    def handle(self, nchunk: int) -> Any | None:
        """Return a handle if the chunk is a cached one."""
        if nchunk in self._chunks or self._cached is None:
            return None
        return self._cached.handle(nchunk)

    def handle_of_blocks(self, nchunk: int, blocks: Indices) -> Any | None:
        """Return a handle if the blocks are cached ones."""
        return self._cached.handle_of_blocks(nchunk, blocks) if self._cached is not None else None


def let_threads_run() -> None:
    """Have Blosc2 release the interpreter's lock while it decompresses a chunk; for the whole process.

    Else one read of many chunks stops every other thread, the network's among them.
    """
    blosc2.set_releasegil(True)


def read_selection(
    source: ChunkSource, selection: Selection, field: str | None = None, kept: KeptBlocks | None = None
) -> npt.NDArray[Any]:
    """Read an orthogonal box.

    Args:
        source: has the chunks.
        selection: inside the array.
        field: of a structured type; None for whole items.
        kept: blocks that are decoded already; small parts of chunks are looked for there.

    Returns:
        A new array of ``selection.shape``, in C order, which the caller owns.

    Raises:
        ChunkAbsent: some chunks are not there; it names all of them.
        BadContent: a chunk cannot be decoded, though its origin vouched for it.
        BadSelection: there is no such field.
    """
    decoder = _Decoder(source, kept)
    result = np.empty(selection.shape, decoder.dtype)
    absent: list[int] = []
    for piece in pieces(decoder.array, selection):
        place: tuple[Any, ...] = (*piece.outside, ...)  # with "..." it is a view even of a 0-d array
        if not decoder.read(piece.nchunk, piece.inside, None if absent else result[place]):
            absent.append(piece.nchunk)
    _refuse_absent(source, absent)
    return _field(result, field)


def read_points(source: ChunkSource, points: Points, field: str | None = None) -> npt.NDArray[Any]:
    """Read single items.

    Args:
        source: has the chunks.
        points: inside the array.
        field: of a structured type; None for whole items.

    Returns:
        A new array of shape ``(npoints,)``, in the order of the points.

    Raises:
        ChunkAbsent, BadContent, BadSelection: as for `read_selection`.
    """
    decoder = _Decoder(source)
    result = np.empty(points.size, decoder.dtype)
    absent: list[int] = []
    for nchunk, coordinates, positions in points_by_chunk(decoder.array, points):
        items = decoder.pick(nchunk, coordinates, is_wanted=not absent)
        if items is None:
            absent.append(nchunk)
        elif not absent:
            result[positions] = items
    _refuse_absent(source, absent)
    return _field(result, field)


def read_bytes(source: ChunkSource, start: int, stop: int) -> bytearray:
    """Read bytes ``start`` to ``stop`` of a byte frame; ``0 <= start <= stop <= nbytes``.

    Raises:
        ChunkAbsent, BadContent: as for `read_selection`.
    """
    geometry = source.info.geometry
    result = bytearray(stop - start)
    whole = np.frombuffer(result, np.uint8)
    absent = []
    for piece in byte_pieces(geometry, start, stop):
        chunk = source.chunk(piece.nchunk)
        if chunk is None:
            absent.append(piece.nchunk)
        elif not absent:
            out = whole[piece.offset : piece.offset + piece.stop - piece.start]
            if not may_cut(chunk) or not _read_part_of_frame(source, piece, out):
                _read_whole_of_frame(source, piece, chunk, out)
    _refuse_absent(source, absent)
    return result


class _Decoder:
    """Decodes the chunks of one array for one read."""

    def __init__(self, source: ChunkSource, kept: KeptBlocks | None = None) -> None:
        array = source.info.geometry.array
        assert array is not None
        self.array: ArrayGeometry = array
        self.dtype, self._is_in_order, self._nblocks = _plan(array)
        self._source = source
        self._kept = kept
        self._chunksize = source.info.geometry.chunksize
        self._raw: Bytes = np.empty(0, np.uint8)

    def read(self, nchunk: int, inside: Inside, out: npt.NDArray[Any] | None) -> bool:
        """Write what is ``inside`` a chunk to ``out``, if it is not None; False if it is not all there."""
        chunk = self._source.chunk(nchunk)
        if chunk is None:
            handle = self._source.handle_of_blocks(nchunk, blocks_of_piece(self.array, inside))
            if handle is None:
                return False
        if out is None:
            return True
        if not _is_dense(self.array, inside):
            return self._read_scattered(nchunk, chunk, inside, out)
        low, high = _box(inside)
        if chunk is not None:
            handle = self._source.handle(nchunk) if may_cut(chunk) and self._is_part(low, high) else None
            if handle is None:
                self._read_whole(nchunk, chunk, inside, out)
                return True
        if out.flags.c_contiguous and all(isinstance(part, slice) and part.step == 1 for part in inside):
            self._fill_box(handle, nchunk, low, out)
        else:
            box = np.empty([stop - start for start, stop in zip(low, high, strict=True)], self.dtype)
            self._fill_box(handle, nchunk, low, box)
            out[...] = _within(box, inside, low)
        return True

    def _read_scattered(self, nchunk: int, chunk: Buffer | None, inside: Inside, out: npt.NDArray[Any]) -> bool:
        """Read items between which there are blocks that are not wanted, and that may not be there."""
        if chunk is not None and out.size > SCATTERED_MAX:
            self._read_whole(nchunk, chunk, inside, out)
            return True
        sides = [
            np.arange(part.start, part.stop, part.step) if isinstance(part, slice) else part for part in inside
        ]
        coordinates = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(sides))
        items = self.pick(nchunk, coordinates, is_wanted=True)
        if items is not None:
            out[...] = items.reshape(out.shape)
        return items is not None

    def pick(self, nchunk: int, coordinates: Indices, is_wanted: bool) -> npt.NDArray[Any] | None:
        """Return the items at ``(npoints, ndim)`` coordinates inside a chunk; None if not all of them are there.

        Just some array if they are not wanted.
        """
        chunk = self._source.chunk(nchunk)
        touched = blocks_of_points(self.array, coordinates)
        handle = None
        if chunk is None:
            handle = self._source.handle_of_blocks(nchunk, touched)
            if handle is None:
                return None
        if not is_wanted:
            return coordinates
        if chunk is not None and self.array.shape:
            is_part = may_cut(chunk) and len(touched) <= self._nblocks * POINTS_SHARE_MAX
            handle = self._source.handle(nchunk) if is_part else None
        if chunk is None or handle is not None:
            return self._gather(handle, nchunk, coordinates)
        outer, inner = np.divmod(coordinates, np.array(self.array.blocks, np.int64))
        items = self._items(nchunk, chunk).reshape(*block_grid(self.array), *self.array.blocks)
        return np.asarray(items[(*outer.T, *inner.T)])

    def _read_whole(self, nchunk: int, chunk: Buffer, inside: Inside, out: npt.NDArray[Any]) -> None:
        if out.nbytes == self._chunksize and out.flags.c_contiguous and self._is_in_order:
            _decompress(self._source, nchunk, chunk, out.reshape(-1).view(np.uint8))
        else:
            out[...] = read_piece(self._items(nchunk, chunk), self.array, inside)

    def _gather(self, handle: Any, nchunk: int, coordinates: Indices) -> npt.NDArray[Any]:
        """Have Blosc2 decode each block that holds a point, once."""
        flat = np.zeros(len(coordinates), np.int64)
        for axis, (first, length) in enumerate(zip(self._origin(nchunk), self.array.shape, strict=True)):
            flat = flat * length + coordinates[:, axis] + first
        items = np.empty(len(flat), self.dtype)
        with _explained(self._source, nchunk):
            handle.get_sparse_numpy(items, flat)
        return items

    def _is_part(self, low: Corner, high: Corner) -> bool:
        sides = zip(low, high, self.array.blocks, strict=True)
        touched = math.prod(-(-stop // block) - start // block for start, stop, block in sides)
        return touched <= self._nblocks * PART_SHARE_MAX

    def _fill_box(self, handle: Any, nchunk: int, low: Corner, out: npt.NDArray[Any]) -> None:
        """Fill ``out``, in C order, with items of a chunk: from blocks that are kept, or by decoding them."""

        def decode(start: Corner, stop: Corner) -> npt.NDArray[Any]:
            block = np.empty([end - first for first, end in zip(start, stop, strict=True)], self.dtype)
            self._read_box(handle, nchunk, start, block)
            return block

        if self._kept is None or not self._kept.read(nchunk, low, out, decode):
            self._read_box(handle, nchunk, low, out)

    def _read_box(self, handle: Any, nchunk: int, low: Corner, out: npt.NDArray[Any]) -> None:
        """Fill ``out``, in C order, with the items of a chunk from the corner ``low`` on."""
        start = [origin + first for origin, first in zip(self._origin(nchunk), low, strict=True)]
        stop = [first + length for first, length in zip(start, out.shape, strict=True)]
        with _explained(self._source, nchunk):
            handle.get_slice_numpy(out, (start, stop))

    def _origin(self, nchunk: int) -> Corner:
        """Return the coordinates of a chunk's first item."""
        origin, rest = [], nchunk
        for count, chunk in zip(self.array.grid[::-1], self.array.chunks[::-1], strict=True):
            rest, position = divmod(rest, count)
            origin.append(position * chunk)
        return origin[::-1]

    def _items(self, nchunk: int, chunk: Buffer) -> npt.NDArray[Any]:
        if not len(self._raw):
            self._raw = np.empty(self._chunksize, np.uint8)  # PERF: kept, since fresh pages cost 0.2 ms per MiB
        _decompress(self._source, nchunk, chunk, self._raw)
        return self._raw.view(self.dtype)


def _is_dense(array: ArrayGeometry, inside: Inside) -> bool:
    """Say whether the smallest box around a piece touches no other blocks than the piece itself."""
    sides = zip(inside, array.blocks, strict=True)
    return all(isinstance(part, slice) and (part.step or 1) <= block for part, block in sides)


def _box(inside: Inside) -> tuple[Corner, Corner]:
    """Return the corners of what holds a piece: its first items, and those behind its last."""
    low, high = [], []
    for part in inside:
        low.append(int(part.start if isinstance(part, slice) else part[0]))
        high.append(last_item(part) + 1)
    return low, high


def _within(box: npt.NDArray[Any], inside: Inside, low: Corner) -> npt.NDArray[Any]:
    """Take a piece out of the box that holds it."""
    for axis, (part, origin) in enumerate(zip(inside, low, strict=True)):
        if isinstance(part, slice):
            box = box[(*[slice(None)] * axis, slice(None, None, part.step))]
        else:
            box = box.take(part - origin, axis)
    return box


def _read_part_of_frame(source: ChunkSource, piece: BytePiece, out: Bytes) -> bool:
    """Read a small part through the handle; False if it is not small, or there is no handle."""
    geometry = source.info.geometry
    if len(out) > geometry.chunk_nbytes(piece.nchunk) * PART_SHARE_MAX or geometry.chunksize % geometry.typesize:
        return False
    origin = piece.nchunk * geometry.chunksize
    first, end = (origin + piece.start) // geometry.typesize, -(-(origin + piece.stop) // geometry.typesize)
    handle = source.handle(piece.nchunk) if end * geometry.typesize <= geometry.nbytes else None
    if handle is None:
        return False
    items = bytearray((end - first) * geometry.typesize)
    with _explained(source, piece.nchunk):
        handle.get_slice(first, end, items)
    skipped = origin + piece.start - first * geometry.typesize
    out[:] = np.frombuffer(items, np.uint8)[skipped : skipped + len(out)]
    return True


def _read_whole_of_frame(source: ChunkSource, piece: BytePiece, chunk: Buffer, out: Bytes) -> None:
    size = source.info.geometry.chunk_nbytes(piece.nchunk)
    if len(out) == size:
        _decompress(source, piece.nchunk, chunk, out)
    else:
        raw = np.empty(size, np.uint8)
        _decompress(source, piece.nchunk, chunk, raw)
        out[:] = raw[piece.start : piece.stop]


def _decompress(source: ChunkSource, nchunk: int, chunk: Buffer, out: Bytes) -> None:
    with _explained(source, nchunk):
        blosc2.decompress2(chunk, dst=out, nthreads=1)


@contextlib.contextmanager
def _explained(source: ChunkSource, nchunk: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what python-blosc2 makes of C-Blosc2's error codes
        path = shown(source.info.entry.path)
        raise BadContent(f"{path}: chunk {nchunk} cannot be decoded, though it is what was published") from error


def _refuse_absent(source: ChunkSource, absent: list[int]) -> None:
    if absent:
        raise ChunkAbsent(source.info.entry.path, tuple(absent))


@functools.lru_cache(maxsize=256)
def _plan(array: ArrayGeometry) -> tuple[np.dtype[Any], bool, int]:
    """Return the dtype, whether chunks are in C order, and the blocks of a chunk: PERF: 20 us for each read."""
    return parse_dtype(array.dtype), is_block_order(array), block_count(array)


def _field(items: npt.NDArray[Any], field: str | None) -> npt.NDArray[Any]:
    if field is None:
        return items
    if field not in (items.dtype.names or ()):
        raise BadSelection(f"field {shown(field)}: wanted one of {list(items.dtype.names or ())}")
    return items[field].copy()  # not ascontiguousarray, which makes one axis of none
