"""Send a NumPy array as a Blosc2 frame, fast enough for answers of a few kilobytes.

``blosc2.asarray(x).to_cframe()`` takes most of a millisecond whatever the size, nearly all of it for making
and taking apart a super-chunk. Here a small array costs one ``compress2`` and a few microseconds around it.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import blosc2
import numpy as np

from zcat.errors import TooLarge
from zcat.limits import KIB, MIB
from zcat.model.dataset import ArrayGeometry, Compression, Geometry
from zcat.model.dtypes import check_dtype, dtype_text
from zcat.storage.block_order import is_block_order, to_block_order
from zcat.storage.frame_template import FrameTemplate, assemble_cframe, compress_options, frame_template
from zcat.storage.in_order import in_order

CHUNK_BYTES = 4 * MIB
"""Of an answer's chunks. An answer that is not larger is one chunk."""

BLOCK_BYTES = 128 * KIB
"""Of the blocks in them: what fits a core's cache. An answer that is not larger is one block."""

THREADS = 2
"""That compress the chunks of one answer."""

FAST = Compression(codec=1, clevel=5, splitmode=3)
"""LZ4 with shuffle: a third of zstd's time for an answer that is read once."""


def cframe_of_slice(array: np.ndarray, compression: Compression = FAST, preview: str = "") -> list[bytes]:
    """Return a whole frame in parts, which ``blosc2.ndarray_from_cframe(b"".join(parts))`` reads.

    Args:
        array: of any shape, also ``()`` and empty ones, and any strides.
        compression: of the frame; its codec and filters are on the gate's allow-lists.
        preview: what was done to make the array of a larger one; becomes the attribute of this name.

    Raises:
        NotReadable: arrays of this dtype are not offered.
    """
    plan = _plan(array.shape, array.dtype, compression, preview)
    if plan.single_tail is None:
        chunks = [blosc2.compress2(raw, **plan.options) for raw in _raw_chunks(array, plan.array)]
        header, tail = assemble_cframe(plan.template, [len(chunk) for chunk in chunks])
        return [header, *chunks, tail]
    if plan.is_plain:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    else:
        raw = to_block_order(array, plan.array)
    chunk = blosc2.compress2(raw, **plan.options)
    tail = plan.single_tail
    return [plan.template.header(len(chunk), plan.template.header_len + len(chunk) + len(tail)), chunk, tail]


def cframe_of_pieces(
    shape: tuple[int, ...], pieces: Generator[np.ndarray, None, None], compression: Compression, nbytes_max: int
) -> list[bytes]:
    """Return a whole frame in parts, as `cframe_of_slice` does, of an array that is never in memory as a whole.

    Args:
        shape: of the array, of which there is something.
        pieces: its items in C order, a few at a time, in arrays of any shape. Closed at the end.
        compression: as for `cframe_of_slice`.
        nbytes_max: of the frame.

    Raises:
        TooLarge: it is longer.
    """
    first = next(pieces)
    plan = _plan(shape, first.dtype, compression, "")
    items = _Items(first, pieces)
    works = (partial(_compressed, items.take(box), box, plan) for box in _boxes(plan.array))
    chunks, left = [], nbytes_max
    with contextlib.closing(pieces), contextlib.closing(in_order(works, THREADS, 2 * THREADS)) as made:
        for chunk in made:
            chunks.append(chunk)
            left -= len(chunk)
            if left < 0:
                raise TooLarge(
                    f"the answer as a frame has more than {nbytes_max} bytes, the limit (answer_max_bytes): ask "
                    "for raw, npy or chunks, which are streamed, or for less"
                )
    header, tail = assemble_cframe(plan.template, [len(chunk) for chunk in chunks])
    return [header, *chunks, tail]


def slice_geometry(shape: tuple[int, ...], dtype: np.dtype) -> Geometry:
    """Choose chunks and blocks for an answer: slabs of whole trailing axes, up to `CHUNK_BYTES`.

    Raises:
        NotReadable: arrays of this dtype are not offered.
    """
    itemsize = check_dtype(dtype).itemsize
    chunks = _slab(shape, max(CHUNK_BYTES // itemsize, 1))
    blocks = _slab(chunks, max(BLOCK_BYTES // itemsize, 1))
    array = ArrayGeometry(shape, chunks, blocks, dtype_text(dtype), itemsize)
    sizes = [itemsize, itemsize]
    for padded, block in zip(array.padded_chunk, blocks, strict=True):
        sizes = [sizes[0] * padded, sizes[1] * block]
    typesize = itemsize if itemsize < 256 else 1
    geometry = Geometry(0, sizes[0], sizes[1], typesize, array)
    return Geometry(geometry.nchunks * sizes[0], sizes[0], sizes[1], typesize, array)


@dataclass(frozen=True, slots=True)
class _Plan:
    array: ArrayGeometry
    template: FrameTemplate
    options: dict[str, object]
    single_tail: bytes | None
    """Index and trailer, where there is exactly one chunk."""
    is_plain: bool
    """The one chunk is the array in C order."""


@functools.lru_cache(maxsize=512)
def _plan(shape: tuple[int, ...], dtype: np.dtype, compression: Compression, preview: str) -> _Plan:
    geometry = slice_geometry(shape, dtype)
    array = geometry.array
    assert array is not None
    template = frame_template(geometry, compression, {"preview": preview} if preview else None)
    single_tail = assemble_cframe(template, [0])[1] if geometry.nchunks == 1 else None
    return _Plan(
        array,
        template,
        compress_options(compression, geometry.typesize, geometry.blocksize),
        single_tail,
        is_plain=array.padded_chunk == shape and is_block_order(array),
    )


def _slab(shape: tuple[int, ...], items_max: int) -> tuple[int, ...]:
    """Cut leading axes until at most ``items_max`` items are left; even cuts, so that little is padded."""
    slab = list(shape)
    items = int(np.prod(shape, dtype=np.int64))
    for axis, length in enumerate(shape):
        if items <= items_max:
            break
        others = items // length
        pieces = -(-length // max(items_max // others, 1))
        slab[axis] = -(-length // pieces)
        items = others * slab[axis]
    return tuple(slab)


def _raw_chunks(array: np.ndarray, geometry: ArrayGeometry) -> Iterator[np.ndarray]:
    for corner in itertools.product(*(range(n) for n in geometry.grid)):
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(corner, geometry.chunks, strict=True))
        yield to_block_order(array[box], geometry)


def _boxes(geometry: ArrayGeometry) -> Iterator[tuple[int, ...]]:
    """Give the shape of each chunk, in their order. `_slab` makes all of them stretches of the array."""
    for corner in itertools.product(*(range(n) for n in geometry.grid)):
        sides = zip(corner, geometry.chunks, geometry.shape, strict=True)
        yield tuple(min(chunk, length - i * chunk) for i, chunk, length in sides)


def _compressed(items: np.ndarray, box: tuple[int, ...], plan: _Plan) -> bytes:
    return bytes(blosc2.compress2(to_block_order(items.reshape(box), plan.array), **plan.options))


class _Items:
    """A row of items that comes in pieces of any length."""

    def __init__(self, first: np.ndarray, others: Iterator[np.ndarray]) -> None:
        self._left = first.reshape(-1)
        self._others = others

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Give the next items, as many as a box of ``shape`` has."""
        count = math.prod(shape)
        if count <= len(self._left):
            taken, self._left = self._left[:count], self._left[count:]
            return taken
        taken, filled = np.empty(count, self._left.dtype), 0
        while filled < count:
            if not len(self._left):
                self._left = next(self._others).reshape(-1)
            part = self._left[: count - filled]
            taken[filled : filled + len(part)] = part
            filled, self._left = filled + len(part), self._left[len(part) :]
        return taken
