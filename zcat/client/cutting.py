"""Cut what is to be read into requests of a bearable size.

The parts come in the order of the result, so that most of them are stretches of it and are decoded in place.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from zcat.limits import MIB
from zcat.model.selection import Points, Selection

PART_BYTES = 64 * MIB
"""Uncompressed bytes of one answer, about."""

COORDINATES_MAX = 100_000
"""Indices along one axis, or points, in one request."""


class Part(NamedTuple):
    """A selection that is one request, and its place in the result."""

    selection: Selection
    place: tuple[slice, ...]


def cut(
    selection: Selection, itemsize: int, chunks: tuple[int, ...], part_bytes: int = PART_BYTES
) -> Iterator[Part]:
    """Cut a selection into parts.

    Args:
        selection: not empty.
        itemsize: in bytes.
        chunks: items per axis of a chunk of the dataset: where possible, parts end where chunks do.
        part_bytes: of a part, uncompressed.
    """
    pending = [Part(selection, tuple([slice(0, len(axis)) for axis in selection.axes]))]
    while pending:
        part = pending.pop()
        axes = part.selection.axes
        long = [axis for axis, items in enumerate(axes) if not isinstance(items, range)]
        number = next((axis for axis in long if len(axes[axis]) > COORDINATES_MAX), None)
        if number is not None:
            pending.extend(_halves(part, number, COORDINATES_MAX))
        elif part.selection.size * itemsize > part_bytes and part.selection.size > 1:
            number = next(axis for axis, items in enumerate(axes) if len(items) > 1)
            row_bytes = math.prod(len(items) for items in axes[number + 1 :]) * itemsize
            rows = _rows(axes[number], chunks[number], max(part_bytes // row_bytes, 1))
            pending.extend(_halves(part, number, rows))
        else:
            yield part


def cut_points(
    points: Points, itemsize: int, part_bytes: int = PART_BYTES
) -> Iterator[tuple[Points, tuple[slice, ...]]]:
    """Cut points into those of one request each, with their place in the result."""
    step = min(max(part_bytes // itemsize, 1), COORDINATES_MAX)
    for start in range(0, points.size, step):
        place = slice(start, min(start + step, points.size))
        yield Points(points.coordinates[place]), (place,)


def _rows(axis: object, chunk: int, rows: int) -> int:
    """Return how many rows the next part takes: up to the last border of chunks that they reach, if they do."""
    if not isinstance(axis, range) or axis.step != 1:
        return rows
    border = (axis.start + rows) // chunk * chunk
    return border - axis.start if border > axis.start else rows


def _halves(part: Part, number: int, rows: int) -> tuple[Part, Part]:
    """Cut off the first rows along an axis. They come last, since `cut` takes from the end."""
    axes, place = part
    items, span = axes.axes[number], place[number]
    middle = span.start + rows

    def with_axis(taken: slice, put: slice) -> Part:
        selected = (*axes.axes[:number], items[taken], *axes.axes[number + 1 :])
        return Part(Selection(selected), (*place[:number], put, *place[number + 1 :]))

    first = with_axis(slice(None, rows), slice(span.start, middle))
    return with_axis(slice(rows, None), slice(middle, span.stop)), first
