"""Parts of datasets, as the command line names them: ``root/path[3, :10, ::2]``."""

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zcat.errors import BadRequest

if TYPE_CHECKING:
    import numpy.typing as npt

    from zcat.client.array import Array

PIECE_BYTES = 32 << 20
"""Read at a time, if a chunk is not larger."""

Box = tuple[slice, ...]


class Part:
    """A part of an array, read box by box."""

    def __init__(self, array: "Array", inside: str | None) -> None:
        """Select.

        Args:
            array: the dataset; pinned, if all boxes are to be of one version.
            inside: the slice as text; None for all of it.

        Raises:
            BadSelection: it does not fit.
        """
        self.array = array
        self.is_whole = inside is None
        self.dtype = array.dtype
        self._axes = _axes(key_of(inside, array.shape), array.shape)
        self.shape = tuple(len(axis) for axis in self._axes if isinstance(axis, range))

    def boxes(self, unit: tuple[int, ...] | None = None) -> "Iterator[tuple[Box, npt.NDArray[Any]]]":
        """Give each box of the part, with its items in C order.

        Args:
            unit: see `boxes`; None for boxes that follow each other in C order.
        """
        import numpy as np

        items_max = max(PIECE_BYTES // self.dtype.itemsize, 1)
        for box in boxes(self.shape, unit or (1,) * len(self.shape), items_max):
            taken = iter(box)
            key = tuple(_slice(axis[next(taken)]) if isinstance(axis, range) else axis for axis in self._axes)
            yield box, np.asarray(self.array[key or ...], order="C")


def split_slice(text: str) -> tuple[str, str | None]:
    """Split an address from the slice behind it, if there is one. Names may have brackets, too: ``a[1].b2nd[0]``.

    Raises:
        BadRequest: a bracket is not closed.
    """
    if text.endswith("]") and (at := _opening(text)) >= 0:
        return text[:at], text[at + 1 : -1]
    name = text.rpartition("/")[2]
    if name.count("[") > name.count("]"):
        raise BadRequest(
            f"{text!r}: wanted ADDRESS or ADDRESS[SLICE], in quotes so that the shell leaves it alone"
        )
    return text, None


def key_of(inside: str | None, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the key for a slice; without one, for all of it.

    Raises:
        BadSelection: it is none.
    """
    from zcat.model.selection import parse_slice_text

    return () if inside is None else parse_slice_text(inside, shape)


def bytes_of(inside: str | None, nbytes: int) -> range:
    """Return the bytes that a slice takes of a dataset without axes; without one, all of them.

    Raises:
        BadSelection: it is no slice.
        BadRequest: it is another one than ``START:STOP``.
    """
    key = [part for part in key_of(inside, (nbytes,)) if part is not ...] or [slice(None)]
    if len(key) > 1 or not isinstance(key[0], slice) or key[0].step not in (None, 1):
        raise BadRequest(f"[{inside}]: wanted [START:STOP] in bytes, since there are no axes")
    return range(*key[0].indices(nbytes))


def boxes(shape: tuple[int, ...], unit: tuple[int, ...], items_max: int) -> Iterator[Box]:
    """Cut a shape into boxes, in C order: whole units, as many as fit, along the last axes first.

    Args:
        shape: of the whole.
        unit: items per axis of what is not to be cut; ones give boxes that follow each other in C order.
        items_max: of a box, if a unit is not larger.
    """
    steps = [max(step, 1) for step in unit]
    for axis in reversed(range(len(shape))):
        others = math.prod(steps) // steps[axis]
        units = max(items_max // (others * steps[axis]), 1)
        steps[axis] = min(units * steps[axis], max(shape[axis], 1))
        if steps[axis] < shape[axis]:
            break
    ranges = [range(0, length, step) for length, step in zip(shape, steps, strict=True)]
    for starts in itertools.product(*ranges):
        corners = zip(starts, steps, shape, strict=True)
        yield tuple(slice(start, min(start + step, length)) for start, step, length in corners)


def _opening(text: str) -> int:
    """Return where the bracket is that the last letter closes; -1 if nowhere."""
    depth = 0
    for at in reversed(range(len(text))):
        depth += (text[at] == "]") - (text[at] == "[")
        if not depth:
            return at
    return -1


def _axes(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[range | int]:
    """Return what a key takes of each axis: a range, or the one item that takes the axis away."""
    parts = list(key) if ... in key else [*key, ...]
    at = parts.index(...)
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    return [
        range(*part.indices(length)) if isinstance(part, slice) else part
        for part, length in zip(parts, shape, strict=True)
    ]


def _slice(axis: range) -> slice:
    return slice(axis.start, axis.stop if axis.stop >= 0 else None, axis.step)
