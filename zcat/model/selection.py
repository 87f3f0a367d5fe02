"""From a NumPy key to the items that must be read, and from those items to NumPy's answer.

`parse_key` takes any key that an array accepts and says what to read, either an orthogonal box (`Selection`)
or single items (`Points`), and how to finish: the rules for the shape and order of the answer are NumPy's,
because NumPy itself applies them, to the block that was read. Its refusals are NumPy's as well. Nothing
here ever takes memory in the measure of the dataset, unless the key itself does, as a full mask.

The text form of a key is what URLs carry: ``10:74, 5, ..., ::2``.
"""

import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.errors import BadSelection

Indices: TypeAlias = npt.NDArray[np.int64]
Axis: TypeAlias = range | Indices
Key: TypeAlias = tuple[Any, ...]

# A box that wastes more than this is not read: its items are picked one by one.
BOX_WASTE_MAX = 4
# Up to here picking costs next to nothing, while each chunk read in vain costs a trip to another host: the
# box of a diagonal of four items may touch 16 chunks, its points 4.
PICKED_MAX = 4096

SLICE_TEXT_LENGTH_MAX = 1024
SLICE_TEXT_PARTS_MAX = 32

_ALL = slice(None)
_REVERSED = slice(None, None, -1)
_BASIC = frozenset([slice, int, type(None), type(Ellipsis)])
_INDEX_END = 1 << 63
_INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """An orthogonal box: the items whose coordinate on every axis is one of that axis's."""

    axes: tuple[Axis, ...]
    """One per axis of the dataset: a range of positive step, or an ascending int64 array without repeats."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the block that holds the items."""
        return tuple(map(len, self.axes))

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(map(len, self.axes))

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to read."""
        return self.size == 0

    @property
    def is_contiguous(self) -> bool:
        """True if no axis leaves items out between its first and its last."""
        return all(isinstance(axis, range) and axis.step == 1 for axis in self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Single items, in the order of the answer; one may occur more than once."""

    coordinates: Indices
    """``(npoints, ndim)``, C order, non-negative and inside the dataset."""

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.coordinates)

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to read."""
        return not len(self.coordinates)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What to read, and how to make NumPy's answer of it."""

    what: Selection | Points
    key: Key | None
    """Applied to the block of a selection; None where the block is the answer."""
    shape: tuple[int, ...]
    """Of the answer."""

    def finish(self, block: npt.NDArray[Any]) -> Any:
        """Make the answer: an array, or a NumPy scalar where NumPy gives one.

        Args:
            block: the items read: of ``what.shape`` for a selection, ``(npoints,)`` for points. The answer
                may be a view of it.
        """
        if isinstance(self.what, Points):
            return block.reshape(self.shape)
        return block if self.key is None else block[self.key]


def parse_key(key: Any, shape: tuple[int, ...]) -> Read:
    """Say what ``dataset[key]`` needs, and how it is finished.

    Args:
        key: integers, slices, ``...``, ``np.newaxis``, integer arrays or lists, boolean masks, or a tuple
            of those. Names of fields are the caller's business.
        shape: of the dataset.

    Raises:
        BadSelection: with NumPy's own words, whichever error NumPy has for it.
    """
    parts = key if isinstance(key, tuple) else (key,)
    read = _parse_basic(parts, shape)
    if read is None:
        plain = tuple([_plain(part, parts, shape) for part in parts])
        read = _parse_basic(plain, shape) or _parse_advanced(plain, shape)
    return read


def check_points(coordinates: npt.ArrayLike, shape: tuple[int, ...]) -> Points:
    """Make `Points` of coordinates that come from outside; negative ones count from the end.

    Args:
        coordinates: integers of shape ``(npoints, ndim)``.
        shape: of the dataset.

    Raises:
        BadSelection: they are not integers, not one column per axis, or not inside the dataset.
    """
    given = np.asarray(coordinates)
    if given.ndim != 2 or given.shape[1] != len(shape) or given.dtype.kind not in "iu":
        wanted = f"integers of shape (npoints, {len(shape)})"
        raise BadSelection(f"points: wanted {wanted}, got {given.dtype} of shape {given.shape}")
    bounds = np.array(shape, np.int64)
    outside = np.flatnonzero(((given < -bounds) | (given >= bounds)).any(axis=1))
    if len(outside):
        raise BadSelection(f"point {given[outside[0]].tolist()} is outside a dataset of shape {shape}")
    whole = given.astype(np.int64)
    return Points(np.ascontiguousarray(np.where(whole < 0, whole + bounds, whole)))


# -- as text -----------------------------------------------------------------------------------------


def parse_slice_text(text: str, shape: tuple[int, ...]) -> Key:
    """Read a key from its text form, and check it against a dataset.

    Args:
        text: integers, ``start:stop``, ``start:stop:step`` and ``...``, separated by commas; spaces are
            allowed between them. The empty text is the whole dataset.
        shape: of the dataset.

    Raises:
        BadSelection: the text is malformed or too long, or the key does not fit the dataset.
    """
    key = key_of_text(text)
    _parse_basic(key, shape)
    return key


def key_of_text(text: str) -> Key:
    """Read a key from its text form; whether it fits a dataset, `parse_key` says.

    Raises:
        BadSelection: the text is malformed or too long.
    """
    if len(text) > SLICE_TEXT_LENGTH_MAX:
        raise BadSelection(f"a slice of {len(text)} characters, the limit is {SLICE_TEXT_LENGTH_MAX}")
    if not text.strip(" "):
        return ()
    texts = text.split(",")
    if len(texts) > SLICE_TEXT_PARTS_MAX:
        raise BadSelection(f"a slice of {len(texts)} parts, the limit is {SLICE_TEXT_PARTS_MAX}")
    return tuple([_parse_part(part.strip(" ")) for part in texts])


def slice_text(key: Any) -> str | None:
    """Write a key of integers, slices and ``...`` as text; None if it holds anything else, or is too long."""
    parts = key if isinstance(key, tuple) else (key,)
    texts = [_part_text(part) for part in parts]
    if None in texts or len(texts) > SLICE_TEXT_PARTS_MAX:
        return None
    text = ",".join(map(str, texts))
    return text if len(text) <= SLICE_TEXT_LENGTH_MAX else None


def selection_text(selection: Selection) -> str | None:
    """Write a selection as the text of a key; None if an axis is not a range."""
    axes = [axis for axis in selection.axes if isinstance(axis, range)]
    if len(axes) < len(selection.axes):
        return None
    return slice_text(tuple([slice(a.start, a.stop, a.step if a.step > 1 else None) for a in axes]))


def _parse_part(text: str) -> Any:
    if text == "...":
        return Ellipsis
    numbers = [number.strip(" ") for number in text.split(":")]
    one = len(numbers) == 1
    if len(numbers) > 3 or not all(_INTEGER.fullmatch(number) or not (number or one) for number in numbers):
        wanted = "an integer, start:stop, start:stop:step or ..."
        raise BadSelection(f"{text!r} is no part of a slice: wanted {wanted}, separated by commas")
    if one:
        return int(text)
    return slice(*[int(number) if number else None for number in numbers])


def _part_text(part: Any) -> str | None:
    if part is Ellipsis:
        return "..."
    if not isinstance(part, slice):
        return _integer_text(part)
    numbers = (part.start, part.stop) if part.step is None else (part.start, part.stop, part.step)
    texts = ["" if number is None else _integer_text(number) for number in numbers]
    return None if None in texts else ":".join(map(str, texts))


def _integer_text(number: Any) -> str | None:
    is_integer = isinstance(number, int | np.integer) and not isinstance(number, bool)
    # an integer wider than an index fits no dataset, and Python refuses to write the widest
    return str(int(number)) if is_integer and -_INDEX_END <= number < _INDEX_END else None


# -- integers and slices -----------------------------------------------------------------------------


def _parse_basic(parts: Key, shape: tuple[int, ...]) -> Read | None:
    """Parse a key that makes a view in NumPy; None if a part is an array, or still has to be made plain."""
    if not _BASIC.issuperset(map(type, parts)):
        return None
    axes: list[Axis] = []
    last: list[Any] = []
    answer: list[int] = []
    try:
        for position, part in enumerate(parts):
            if type(part) is slice:
                axis, is_reversed = _slice_axis(part, shape[len(axes)])
                axes.append(axis)
                answer.append(len(axis))
                last.append(_REVERSED if is_reversed else _ALL)
            elif part is None:
                answer.append(1)
                last.append(None)
            elif part is Ellipsis:
                covered = shape[len(axes) : len(shape) - sum(map(_ndim, parts[position + 1 :]))]
                axes.extend(map(range, covered))
                answer.extend(covered)
                last.append(Ellipsis)
            else:
                axes.append(_integer_axis(part, shape[len(axes)]))
                last.append(0)
    except (IndexError, TypeError, ValueError):
        _refuse(parts, shape)
    if None in last or last.count(Ellipsis) > 1:  # NumPy limits the axes of an answer, and allows one ellipsis
        _apply(np.broadcast_to(np.False_, shape), parts)
    rest = shape[len(axes) :]
    # 0-d data is no answer yet: NumPy must say whether it is a scalar
    is_answer = bool(shape) and all(part is _ALL or part is Ellipsis for part in last)
    selection = Selection((*axes, *map(range, rest)))
    return Read(selection, None if is_answer else tuple(last), (*answer, *rest))


def _slice_axis(part: slice, length: int) -> tuple[range, bool]:
    """Return the items of a slice in ascending order, and whether the slice has them in descending order."""
    items = range(*part.indices(length))
    if len(items) <= 1:  # no step, which may be astronomic
        return (range(items[0], items[0] + 1) if items else range(0)), False
    if items.step == 1:
        return items, False
    if items.step > 1:
        return range(items[0], items[-1] + 1, items.step), False
    return range(items[-1], items[0] + 1, -items.step), True


def _integer_axis(index: int, length: int) -> range:
    if not -length <= index < length:
        raise IndexError
    index += length if index < 0 else 0
    return range(index, index + 1)


# -- arrays and masks --------------------------------------------------------------------------------


def _plain(part: Any, parts: Key, shape: tuple[int, ...]) -> Any:
    """Return a part as NumPy takes it: a slice, None, ``...``, an int, or an array of int64 or bool."""
    if part is None or part is Ellipsis or type(part) is slice:
        return part
    if not isinstance(part, np.ndarray | bool | np.bool_):
        try:
            return operator.index(part)
        except TypeError:
            pass  # not an integer, so it must be array-like
    try:
        array = np.asarray(part)
    except (TypeError, ValueError):
        _refuse(parts, shape)
    if array.dtype.kind == "b":
        return array
    is_empty_list = array.size == 0 and not isinstance(part, np.ndarray)
    if array.dtype.kind not in "iu" and not is_empty_list:
        _refuse(parts, shape)
    return array.astype(np.int64, copy=False) if array.ndim else int(array)


def _parse_advanced(parts: Key, shape: tuple[int, ...]) -> Read:
    if sum(map(_ndim, parts)) > len(shape) or sum(part is Ellipsis for part in parts) > 1:
        _refuse(parts, shape)
    parts = _without_masks(parts, shape)
    answer = _answer_shape(parts, shape)
    if 0 in answer:
        return Read(Points(np.empty((0, len(shape)), np.int64)), None, answer)
    axes, key = _boxed(parts, shape)
    box = Selection(axes)
    size = math.prod(answer)
    if box.size <= (size if size <= PICKED_MAX else size * BOX_WASTE_MAX):
        return Read(box, key, answer)
    return Read(Points(_coordinates(box, key)), None, answer)


def _ndim(part: Any) -> int:
    """Return how many axes of the dataset a part stands for; ``...`` takes what the others leave."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def _walk(parts: Key, ndim: int) -> Iterator[tuple[int, Any]]:
    """Go through the parts, each with the first axis that it stands for."""
    axis, covered = 0, ndim - sum(map(_ndim, parts))
    for part in parts:
        yield axis, part
        axis += covered if part is Ellipsis else _ndim(part)


def _without_masks(parts: Key, shape: tuple[int, ...]) -> Key:
    """Replace each mask by the integer arrays that NumPy makes of it; a 0-d one has none, and stays."""
    result: list[Any] = []
    for axis, part in _walk(parts, len(shape)):
        if isinstance(part, np.ndarray) and part.dtype.kind == "b" and part.ndim:
            lengths = zip(part.shape, shape[axis : axis + part.ndim], strict=True)
            if any(given not in (0, length) for given, length in lengths):  # NumPy lets 0 pass for any length
                _refuse(parts, shape)
            result.extend(part.nonzero())
        else:
            result.append(part)
    return tuple(result)


def _answer_shape(parts: Key, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Let NumPy check the parts and tell the shape of the answer, on a dataset with one more axis, of length 0.

    That axis makes the answer empty, so it takes no memory, whatever its shape.
    """
    dummy = np.broadcast_to(np.empty(0, np.bool_), (*shape, 0))
    has_ellipsis = any(part is Ellipsis for part in parts)
    return _apply(dummy, (*parts, _ALL) if has_ellipsis else parts).shape[:-1]


def _boxed(parts: Key, shape: tuple[int, ...]) -> tuple[tuple[Axis, ...], Key]:
    """Return the smallest box that holds all that is asked for, and the key that takes it from the box."""
    axes: list[Axis] = list(map(range, shape))
    key: list[Any] = []
    for axis, part in _walk(parts, len(shape)):
        if type(part) is slice:
            axes[axis], is_reversed = _slice_axis(part, shape[axis])
            key.append(_REVERSED if is_reversed else _ALL)
        elif type(part) is int:
            axes[axis] = _integer_axis(part, shape[axis])
            key.append(0)
        elif isinstance(part, np.ndarray) and part.dtype.kind != "b":
            axes[axis], positions = _needed(np.where(part < 0, part + shape[axis], part))
            key.append(positions)
        else:
            key.append(part)
    return tuple(axes), tuple(key)


def _needed(indices: Indices) -> tuple[Axis, Indices]:
    """Return the indices in ascending order without repeats, and the position of each given one there."""
    first, width = int(indices.min()), int(indices.max() - indices.min()) + 1
    if width > BOX_WASTE_MAX * indices.size:
        unique, positions = np.unique(indices, return_inverse=True)
        return _as_range(unique), positions.reshape(indices.shape)
    # PERF: a table of what is there: 36 ms for a million indices, 91 ms by np.unique, which sorts
    offsets = indices - first
    is_there = np.zeros(width, np.bool_)
    is_there[offsets] = True
    unique = np.flatnonzero(is_there)
    if len(unique) == width:
        return range(first, first + width), offsets
    return _as_range(unique + first), (np.cumsum(is_there) - 1)[offsets]


def _as_range(unique: Indices) -> Axis:
    """Return a range where the indices are one, since ranges are cut into chunks without looking at each."""
    step = int(unique[1] - unique[0]) if len(unique) > 1 else 1
    if int(unique[-1] - unique[0]) == step * (len(unique) - 1) and bool((np.diff(unique) == step).all()):
        return range(int(unique[0]), int(unique[-1]) + 1, step)
    return unique


def _coordinates(box: Selection, key: Key) -> Indices:
    """Return the coordinates of each item of ``box[key]``, by indexing the coordinates of the box's items."""
    shape = box.shape
    columns = []
    for number, axis in enumerate(box.axes):
        values = np.arange(axis.start, axis.stop, axis.step) if isinstance(axis, range) else axis
        along = values.reshape([-1 if other == number else 1 for other in range(len(shape))])
        columns.append(np.broadcast_to(along, shape)[key].ravel())
    return np.stack(columns, axis=-1)


# -- NumPy's own refusals ----------------------------------------------------------------------------


def _apply(array: npt.NDArray[np.bool_], parts: Key) -> npt.NDArray[np.bool_]:
    try:
        return np.asarray(array[parts])
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        raise BadSelection(str(error)) from None


def _refuse(parts: Key, shape: tuple[int, ...]) -> NoReturn:
    """Raise what NumPy says to a key that it refuses while it looks at the parts, before it makes anything."""
    _apply(np.broadcast_to(np.False_, shape), parts)
    raise AssertionError(f"NumPy accepts the key {parts!r} for the shape {shape}")
