"""Cut a box into pieces that lie one behind the other in it, so that one after the other they are the whole."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zcat.model.selection import Axis, Read, Selection

_ALL = slice(None)


def keeps_order(read: Read) -> bool:
    """Say whether the items of an answer come in the order in which they are read."""
    return isinstance(read.what, Selection) and (read.key is None or all(map(_is_neutral, read.key)))


def slabs(
    selection: Selection, itemsize: int, chunks: tuple[int, ...], nbytes: int, nbytes_max: int
) -> Iterator[Selection]:
    """Cut a selection.

    Args:
        selection: not empty.
        itemsize: in bytes.
        chunks: items per axis of the dataset's chunks: pieces end where chunks do, where that can be.
        nbytes: of a piece, about.
        nbytes_max: of a piece, where a larger one spares that a chunk is decoded twice. Never less than an item.

    Yields:
        In the order of the items.
    """
    number = next((n for n, axis in enumerate(selection.axes) if len(axis) > 1), None)
    if number is None:
        yield selection
        return
    axis = selection.axes[number]
    inner = math.prod(len(each) for each in selection.axes[number + 1 :]) * itemsize
    rows, rows_max = nbytes // inner, nbytes_max // inner
    low = 0
    while low < len(axis):
        high = _end(axis, chunks[number], low, rows, rows_max)
        part = Selection((*selection.axes[:number], axis[low:high], *selection.axes[number + 1 :]))
        if rows_max:
            yield part
        else:
            yield from slabs(part, itemsize, chunks, nbytes, nbytes_max)
        low = high


def _is_neutral(part: Any) -> bool:
    """Say whether a part of a key changes the shape at most."""
    return part is None or part is Ellipsis or (type(part) is int) or (type(part) is slice and part == _ALL)


def _end(axis: Axis, chunk: int, low: int, rows: int, rows_max: int) -> int:
    high = min(low + max(rows, 1), len(axis))
    if high == len(axis):
        return high
    border = int(axis[high]) // chunk * chunk
    before = _position(axis, border)
    if before > low:
        return before
    behind = _position(axis, border + chunk)
    return behind if behind - low <= rows_max else high


def _position(axis: Axis, item: int) -> int:
    """Find the first place along an axis whose item is not below ``item``."""
    if isinstance(axis, range):
        return min(-(-(item - axis.start) // axis.step), len(axis))
    return int(np.searchsorted(axis, item))
