"""Arithmetic of chunks: which ones a selection touches, and which of their items go where in the answer.

It never looks at content. Chunks are numbered as in a Blosc2 super-chunk: row-major over the grid
``ceil(shape / chunks)``; inside a chunk, blocks are row-major, and so are the items of a block (c-blosc2,
``README_B2ND_FORMAT.rst``).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.model.dataset import ArrayGeometry, Geometry
from zcat.model.selection import Axis, Indices, Points, Read, Selection

Span: TypeAlias = tuple[int, slice | Indices, slice]
"""What an axis of a selection has in one chunk: its number on that axis, the items there, their place."""

_ALL = slice(None)


class Piece(NamedTuple):  # a tuple, since a frozen dataclass takes three times as long to make
    """The items of one chunk that a selection takes."""

    nchunk: int
    inside: tuple[slice | Indices, ...]
    """Per axis: coordinates of the items in the chunk. They combine orthogonally, as with ``np.ix_``."""
    outside: tuple[slice, ...]
    """Per axis: their place in the block that holds the selection, always without gaps."""


class BytePiece(NamedTuple):
    """The bytes of one chunk of a byte frame that a range takes."""

    nchunk: int
    start: int
    stop: int
    """Inside the chunk: bytes ``start`` to ``stop``."""
    offset: int
    """Their place in the result."""


def chunks_touched(array: ArrayGeometry, selection: Selection) -> Indices:
    """Number the chunks that hold an item of a selection, in ascending order."""
    only = _only_piece(array, selection)
    if only is not None:
        return np.array([only.nchunk], np.int64)
    numbers = np.zeros(1, np.int64)
    for axis, chunk, count in zip(selection.axes, array.chunks, array.grid, strict=True):
        numbers = (numbers[:, None] * count + _axis_chunks(axis, chunk)).ravel()
    return numbers


def pieces(array: ArrayGeometry, selection: Selection) -> Iterator[Piece]:
    """Cut a selection into what each chunk gives, in ascending order of chunks."""
    only = _only_piece(array, selection)
    if only is not None:
        yield only
        return
    rows, *columns = map(_spans, selection.axes, array.chunks, _strides(array.grid))
    others = [list(column) for column in columns]
    # the first axis stays an iterator: it is the one that may have millions of chunks
    for row in rows:
        for spans in itertools.product((row,), *others):
            numbers, inside, outside = zip(*spans, strict=True)
            yield Piece(sum(numbers), inside, outside)


def points_by_chunk(array: ArrayGeometry, points: Points) -> Iterator[tuple[int, Indices, Indices]]:
    """Group points by the chunk that holds them, in ascending order of chunks.

    Yields:
        The chunk's number; the coordinates of its ``k`` points inside it, ``(k, ndim)``; their positions
        among all points, ``(k,)``, ascending.
    """
    if points.is_empty:
        return
    chunks = np.array(array.chunks, np.int64)
    coordinates, inside = np.divmod(points.coordinates, chunks)
    numbers = coordinates @ np.array(_strides(array.grid), np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers, inside = numbers[order], inside[order]
    starts = np.flatnonzero(_is_new(numbers))
    bounds = [*starts.tolist(), len(numbers)]
    for nchunk, (start, stop) in zip(numbers[starts].tolist(), itertools.pairwise(bounds), strict=True):
        yield nchunk, inside[start:stop], order[start:stop]


def byte_pieces(geometry: Geometry, start: int, stop: int) -> Iterator[BytePiece]:
    """Cut bytes ``start`` to ``stop`` of a byte frame into what each chunk gives.

    Args:
        geometry: of the frame.
        start: from 0 to ``stop``.
        stop: up to ``geometry.nbytes``.
    """
    assert 0 <= start <= stop <= geometry.nbytes, f"{start}:{stop} of {geometry.nbytes} bytes"
    at, size = start, geometry.chunksize
    while at < stop:
        nchunk = at // size
        origin = nchunk * size
        end = min(stop, origin + size)
        yield BytePiece(nchunk, at - origin, end - origin, at - start)
        at = end


def unblock(raw: npt.NDArray[Any], array: ArrayGeometry) -> npt.NDArray[Any]:
    """Put the items of a chunk, which come block after block, into the order of the array.

    Args:
        raw: 1-d, the items as the chunk decompresses, padding included.
        array: whose chunk it is.

    Returns:
        An array of shape ``array.padded_chunk``: a view where the blocks lie in that order already.
    """
    return _by_block(raw, array).reshape(array.padded_chunk)


def read_piece(
    raw: npt.NDArray[Any], array: ArrayGeometry, inside: tuple[slice | Indices, ...]
) -> npt.NDArray[Any]:
    """Take some items out of a chunk as it decompresses, reordering only the blocks that hold them.

    Args:
        raw: 1-d, the items as the chunk decompresses, padding included.
        array: whose chunk it is.
        inside: of a `Piece`.

    Returns:
        An array of the shape of the piece; a view where possible.
    """
    blocks: list[slice] = []
    shape: list[int] = []
    within: list[slice | Indices] = []
    for items, block in zip(inside, array.blocks, strict=True):
        first, last = (items.start, items.stop - 1) if isinstance(items, slice) else (items[0], items[-1])
        low, high = int(first) // block, int(last) // block + 1
        origin = low * block
        blocks += slice(low, high), _ALL
        shape.append((high - low) * block)
        if isinstance(items, slice):
            within.append(slice(items.start - origin, items.stop - origin, items.step))
        else:
            within.append(items - origin)
    return _take(_by_block(raw, array)[tuple(blocks)].reshape(shape), within)


def _only_piece(array: ArrayGeometry, selection: Selection) -> Piece | None:
    """Return the piece of a selection of ranges that lies in one chunk, as small reads do; None for others."""
    nchunk = 0
    inside, outside = [], []
    for axis, chunk, length in zip(selection.axes, array.chunks, array.shape, strict=True):
        if not isinstance(axis, range) or not axis:
            return None
        number = axis.start // chunk
        origin = number * chunk
        if axis.stop > origin + chunk:
            return None
        nchunk = nchunk * -(-length // chunk) + number
        inside.append(slice(axis.start - origin, axis.stop - origin, axis.step))
        outside.append(slice(0, len(axis)))
    return Piece(nchunk, tuple(inside), tuple(outside))


def _strides(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return by how much a chunk's number grows along each axis."""
    return tuple([math.prod(grid[axis + 1 :]) for axis in range(len(grid))])


def _axis_chunks(axis: Axis, chunk: int) -> Indices:
    """Number the chunks along one axis that an axis of a selection touches."""
    if not len(axis):
        return np.empty(0, np.int64)
    if not isinstance(axis, range):
        numbers = axis // chunk
        return numbers[_is_new(numbers)]
    if axis.step <= chunk:  # no chunk is stepped over
        return np.arange(axis[0] // chunk, axis[-1] // chunk + 1)
    return np.arange(axis.start, axis.stop, axis.step) // chunk


def _is_new(numbers: Indices) -> npt.NDArray[np.bool_]:
    """Mark the first of each run of equal numbers."""
    is_new = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=is_new[1:])
    return is_new


def _spans(axis: Axis, chunk: int, stride: int) -> Iterator[Span]:
    return _range_spans(axis, chunk, stride) if isinstance(axis, range) else _index_spans(axis, chunk, stride)


def _range_spans(axis: range, chunk: int, stride: int) -> Iterator[Span]:
    start, stop, step = axis.start, axis.stop, axis.step
    place = 0
    while start < stop:
        number = start // chunk
        origin = number * chunk
        count = -((start - min(stop, origin + chunk)) // step)
        first = start - origin
        yield number * stride, slice(first, first + (count - 1) * step + 1, step), slice(place, place + count)
        start += count * step
        place += count


def _index_spans(axis: Indices, chunk: int, stride: int) -> Iterator[Span]:
    numbers, inside = np.divmod(axis, chunk)
    starts = np.flatnonzero(_is_new(numbers))
    bounds = [*starts.tolist(), len(axis)]
    for number, (start, stop) in zip(numbers[starts].tolist(), itertools.pairwise(bounds), strict=True):
        first, last = int(inside[start]), int(inside[stop - 1])
        has_gaps = last - first >= stop - start
        items = inside[start:stop] if has_gaps else slice(first, last + 1, 1)
        yield number * stride, items, slice(start, stop)


def _by_block(raw: npt.NDArray[Any], array: ArrayGeometry) -> npt.NDArray[Any]:
    """View a chunk with two dimensions per axis: the block on that axis, and the item in the block."""
    ndim = len(array.blocks)
    grid = [padded // block for padded, block in zip(array.padded_chunk, array.blocks, strict=True)]
    order = [dimension for axis in range(ndim) for dimension in (axis, ndim + axis)]
    return raw.reshape((*grid, *array.blocks)).transpose(order)


def _take(items: npt.NDArray[Any], within: list[slice | Indices]) -> npt.NDArray[Any]:
    """Index orthogonally: slices all at once, which costs nothing, then each index array along its axis."""
    slices: list[Any] = [part if isinstance(part, slice) else _ALL for part in within]
    result: npt.NDArray[Any] = items[(*slices, ...)]
    for axis, part in enumerate(within):
        if not isinstance(part, slice):
            result = result.take(part, axis)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class WholeChunks:
    """An answer that is made of whole chunks as they are stored: nothing need be decoded for it."""

    numbers: Indices
    """Of the chunks, in the order of the answer's own."""
    geometry: Geometry
    """Of the answer, as an array of its own."""


def whole_chunks(geometry: Geometry, read: Read) -> WholeChunks | None:
    """Say which chunks an answer is made of, if it is made of whole ones; None if it is not.

    Args:
        geometry: of an array.
        read: of its items: slices without steps, from chunk border to chunk border, and single indices along axes
            whose chunks have one item.
    """
    array, what = geometry.array, read.what
    if array is None or not isinstance(what, Selection) or not what.size >= math.prod(array.chunks) > 0:
        return None
    is_kept = _kept_axes(read, len(array.shape))
    if is_kept is None or not any(is_kept):
        return None
    for axis, length, chunk, kept in zip(what.axes, array.shape, array.chunks, is_kept, strict=True):
        if not isinstance(axis, range) or axis.step != 1 or axis.start % chunk:
            return None
        is_bordered = axis.stop % chunk == 0 or axis.stop == length
        if not is_bordered or len(axis) < chunk or (not kept and chunk != 1):
            return None

    def of_answer(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for size, kept in zip(sizes, is_kept, strict=True) if kept)

    shape, chunks, blocks = of_answer(what.shape), of_answer(array.chunks), of_answer(array.blocks)
    part = replace(array, shape=shape, chunks=chunks, blocks=blocks)
    nbytes = math.prod(part.grid) * geometry.chunksize
    return WholeChunks(chunks_touched(array, what), replace(geometry, nbytes=nbytes, array=part))


def _kept_axes(read: Read, ndim: int) -> list[bool] | None:
    """Say which axes of the dataset the answer has; None if it is not just some of them, in their order."""
    key = read.key if read.key is not None else ()
    parts: list[bool] = []
    for part in key:
        if part is Ellipsis:
            parts += [True] * (ndim - len(key) + 1)
        elif isinstance(part, slice) and part == slice(None):
            parts.append(True)
        elif type(part) is int:
            parts.append(False)
        else:
            return None
    return parts + [True] * (ndim - len(parts))
