"""How an HDF5 dataset is cut into Blosc2 chunks and blocks. Pure arithmetic.

Every publisher must cut the same dataset in the same way, on whatever machine, since a lineage has one geometry:
so nothing here asks for the sizes of a processor's caches, as ``blosc2.compute_chunks_blocks`` does.

The rule for chunks, by their uncompressed size:

- *Chunks of the Blosc2 filter* stay as they are, with their blocks, whatever their size: they are served
  untouched (``zcat.storage.hdf5.direct``).
- *Chunked, 256 KiB to 16 MiB*: kept. Who wrote the file chose them for how it is read, and each is converted
  from exactly one.
- *Chunked, smaller*: several make one, until it has 1 MiB. Axes are doubled in turn, the last one first:
  neighbours along it lie next to one another in the file, and the box keeps the proportions that the writer
  chose. Each message costs about 0.1 ms whatever it carries, which is as long as 200 KiB take.
- *Chunked, larger*: split into equal parts of at most 4 MiB, along the first axes, so that a part is a slab of the
  HDF5 chunk. All parts are converted at once, since HDF5 has to decode all of it for any of them.
- *Contiguous and compact*: slabs of at most 4 MiB, which are one run of the file each.
- A chunk never reaches beyond the shape, as HDF5's may where an axis can grow. Axes inside of an item are whole.

Blocks have at most 128 KiB: the longest axis is halved until they do. That is what a reader of a few items
decodes, and half of what C-Blosc2 would choose for a chunk of 4 MiB; smaller ones take a fifth longer to convert.
"""

import functools
import itertools
import math
from dataclasses import dataclass

from zcat.limits import CHUNK_BYTES_MAX, KIB, MIB, NCHUNKS_MAX
from zcat.model.dataset import ArrayGeometry, Compression, Geometry, check_geometry
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.storage.hdf5.items import Item

SMALL_BYTES = 256 * KIB
"""HDF5 chunks smaller than this are put together."""

LARGE_BYTES = 16 * MIB
"""HDF5 chunks larger than this are split."""

GROUP_BYTES = MIB
PART_BYTES = 4 * MIB
BLOCK_BYTES = 128 * KIB

UNIT_BYTES_MAX = 256 * MIB
"""The parts of an HDF5 chunk larger than this are converted one by one."""

BLOSC2_FILTER = 32026
"""As registered with the HDF Group: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md"""

_NONE, _SHUFFLE, _BITSHUFFLE = (0,) * 6, (0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 0, 2)
_WIDE = 255  # wider items have typesize 1 in Blosc2

Box = tuple[slice, ...]
"""A part of an array: one slice per axis, with numbers inside of the shape."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a dataset is offered."""

    geometry: Geometry
    compression: Compression
    is_direct: bool = False
    """HDF5's chunks hold Blosc2 chunks of this very geometry."""

    @property
    def array(self) -> ArrayGeometry:
        """The n-d side."""
        assert self.geometry.array is not None
        return self.geometry.array


@dataclass(frozen=True, slots=True)
class Unit:
    """What is converted at once: a box of the dataset, and the chunks that it becomes."""

    box: Box
    numbers: tuple[int, ...]


def cut_of(item: Item) -> Cut:
    """Choose chunks, blocks and compression by the rule.

    Args:
        item: a dataset with a shape and a dtype.

    Raises:
        NotReadable, BadContent: it cannot be offered: items larger than a chunk may be, too many chunks.
    """
    assert item.shape is not None
    assert item.dtype is not None
    return _cut(item.shape, item.dtype, item.layout.chunks if item.layout else None, item.inner_axes)


def geometry_of(array: ArrayGeometry) -> Geometry:
    """Add up the sizes of an array's chunks.

    Raises:
        BadContent: they exceed the limits.
    """
    typesize = array.itemsize if array.itemsize <= _WIDE else 1
    if 0 in array.shape:
        return check_geometry(Geometry(0, 0, 0, typesize, array), CHUNK_BYTES_MAX, NCHUNKS_MAX)
    chunksize = math.prod(array.padded_chunk) * array.itemsize
    blocksize = math.prod(array.blocks) * array.itemsize
    nbytes = math.prod(array.grid) * chunksize
    return check_geometry(Geometry(nbytes, chunksize, blocksize, typesize, array), CHUNK_BYTES_MAX, NCHUNKS_MAX)


def compression_of(kind: str, itemsize: int) -> Compression:
    """Choose how items are compressed: by ZSTD, behind the shuffle that suits them.

    Small integers compress better by bits than by bytes (a third for detector counts of 16 bits).

    Args:
        kind: as ``numpy.dtype.kind``.
        itemsize: in bytes.
    """
    if itemsize > _WIDE:
        return Compression(filters=_NONE)
    return Compression(filters=_BITSHUFFLE if kind in "biu" and itemsize <= 2 else _SHUFFLE)


def chunk_shape(shape: tuple[int, ...], itemsize: int, stored: tuple[int, ...] | None) -> tuple[int, ...]:
    """Choose the items per axis of a chunk.

    Args:
        shape: of the dataset.
        itemsize: in bytes, as offered.
        stored: HDF5's chunks, None unless the dataset is chunked.
    """
    if 0 in shape:
        return shape
    if stored is None:
        return _slab(shape, itemsize)
    inside = tuple(min(c, s) for c, s in zip(stored, shape, strict=True))
    size = math.prod(inside) * itemsize
    if size < SMALL_BYTES:
        return _grouped(shape, itemsize, stored)
    return _split(inside, itemsize) if size > LARGE_BYTES else inside


def block_shape(chunks: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose the items per axis of a block: halve the longest axis while it has more than `BLOCK_BYTES`."""
    blocks = list(chunks)
    while math.prod(blocks) * itemsize > BLOCK_BYTES and max(blocks) > 1:
        axis = blocks.index(max(blocks))
        blocks[axis] = -(-blocks[axis] // 2)
    return tuple(blocks)


def box_of(array: ArrayGeometry, nchunk: int) -> Box:
    """Return what chunk ``nchunk`` holds of the dataset."""
    box: list[slice] = []
    for length, chunk, count in zip(
        reversed(array.shape), reversed(array.chunks), reversed(array.grid), strict=True
    ):
        nchunk, at = divmod(nchunk, count)
        box.append(slice(at * chunk, min((at + 1) * chunk, length)))
    return tuple(reversed(box))


def unit_of(cut: Cut, stored: tuple[int, ...] | None, nchunk: int) -> Unit:
    """Return what has to be converted for chunk ``nchunk``: alone, or with the other parts of its HDF5 chunk.

    Args:
        cut: of the dataset.
        stored: HDF5's chunks, None unless the dataset is chunked.
        nchunk: ``0 <= nchunk < geometry.nchunks``.
    """
    array = cut.array
    box = box_of(array, nchunk)
    if stored is None or not _divides(array, stored) or math.prod(stored) * array.itemsize > UNIT_BYTES_MAX:
        return Unit(box, (nchunk,))
    whole = tuple(
        slice(part.start // c * c, min(part.start // c * c + c, length))
        for part, c, length in zip(box, stored, array.shape, strict=True)
    )
    parts = (range(w.start // c, -(-w.stop // c)) for w, c in zip(whole, array.chunks, strict=True))
    numbers = (_number(at, array.grid) for at in itertools.product(*parts))
    return Unit(whole, tuple(numbers))


@functools.lru_cache(maxsize=1024)  # a file often has thousands of datasets of one form
def _cut(shape: tuple[int, ...], dtype_name: str, stored: tuple[int, ...] | None, inner_axes: int) -> Cut:
    dtype = parse_dtype(dtype_name)
    outer = len(shape) - inner_axes
    inner = shape[outer:]
    itemsize = dtype.itemsize * math.prod(inner)
    chunks = chunk_shape(shape[:outer], itemsize, None if stored is None else stored[:outer]) + inner
    array = ArrayGeometry(shape, chunks, block_shape(chunks, dtype.itemsize), dtype_text(dtype), dtype.itemsize)
    return Cut(geometry_of(array), compression_of(dtype.kind, dtype.itemsize))


def _slab(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the longest run in C order that is a box: ones, a part of one axis, whole axes."""
    left = max(PART_BYTES // itemsize, 1)
    slab: list[int] = []
    for length in reversed(shape):
        slab.append(min(length, left))
        left = left // length if slab[-1] == length else 1
        left = max(left, 1)
    return tuple(reversed(slab))


def _grouped(shape: tuple[int, ...], itemsize: int, stored: tuple[int, ...]) -> tuple[int, ...]:
    chunks = list(stored)
    waiting = [axis for axis in reversed(range(len(shape))) if stored[axis] < shape[axis]]
    while waiting and _bytes_inside(chunks, shape, itemsize) < GROUP_BYTES:
        axis = waiting.pop(0)
        chunks[axis] *= 2
        if chunks[axis] < shape[axis]:
            waiting.append(axis)
    return tuple(min(c, s) for c, s in zip(chunks, shape, strict=True))


def _bytes_inside(chunks: list[int], shape: tuple[int, ...], itemsize: int) -> int:
    return math.prod(min(c, s) for c, s in zip(chunks, shape, strict=True)) * itemsize


def _split(inside: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    parts = list(inside)
    for axis, length in enumerate(inside):
        rest = math.prod(parts[axis + 1 :]) * itemsize * math.prod(parts[:axis])
        if rest * length <= PART_BYTES:
            break
        wanted = max(PART_BYTES // rest, 1)
        # a divisor, so that no part reaches into the next HDF5 chunk; but not if that makes crumbs of it
        divisor = next(n for n in range(wanted, 0, -1) if length % n == 0)
        parts[axis] = divisor if 2 * divisor >= wanted else wanted
    return tuple(parts)


def _divides(array: ArrayGeometry, stored: tuple[int, ...]) -> bool:
    """Say whether each HDF5 chunk is several whole chunks."""
    inside = tuple(min(c, s) for c, s in zip(stored, array.shape, strict=True))
    return array.chunks != inside and all(i % c == 0 for i, c in zip(inside, array.chunks, strict=True))


def _number(at: tuple[int, ...], grid: tuple[int, ...]) -> int:
    number = 0
    for place, count in zip(at, grid, strict=True):
        number = number * count + place
    return number
