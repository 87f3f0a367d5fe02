"""Fewer items from many: what ``fit=1024x768`` and ``reduce=mean`` mean, and how it is computed piece by piece.

The sizes of a fit belong to the last axes of an answer, in their order (rows x columns), and each is the most
items that its axis may have. An axis of ``n`` items is cut, from its first item on, into bins of
``ceil(n / size)`` items, the last one maybe shorter; each bin becomes one item:

- ``mean``: of float32 as float32, of float64 as float64, of complex as they are, of float16, bool and integers of
  at most 16 bits as float32, of wider integers as float64; summed up as float64 in any case.
- ``min``, ``max``: of the type that is there: numbers but complex ones, bool, dates and durations.
- ``stride``: the first item of each bin, of any type.

NaN (and NaT) does not count: a bin has the mean, or the least, of its other items, and is NaN where there is no
other. Infinities count as in NumPy.
"""

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.errors import BadMessage, BadRequest, BadSelection
from zcat.model.dataset import DIMENSIONS_MAX
from zcat.model.selection import Indices, Points, Read, Selection
from zcat.names import shown

Items: TypeAlias = npt.NDArray[Any]

# PERF: bins are folded by adding the first items of all, the second ones, and so on: a MiB of float32 by 2, 4, 10
# along rows and columns takes 1.5 ms; ``ufunc.reduceat`` takes 9 to 27, a sum over reshaped axes 3 to 13.
_FOLD_ONE_BY_ONE_MAX = 64

_ONLY_SLICES = "fit: wanted a selection of integers and slices, without lists, masks and new axes"
_SIZE = re.compile(r"[0-9]{1,18}")
_FLOAT32_FOR = frozenset(["b1", "i1", "u1", "i2", "u2", "f2", "f4"])


class Reduce(enum.Enum):
    """How a bin becomes one item."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    STRIDE = "stride"


@dataclass(frozen=True, slots=True)
class Fit:
    """Into what an answer shall fit, and how."""

    sizes: tuple[int, ...]
    """The most items along each of the last axes of the answer."""
    reduce: Reduce = Reduce.MEAN

    @property
    def text(self) -> str:
        """The sizes, as a URL has them."""
        return "x".join(map(str, self.sizes))


def parse_fit(sizes: Any, reduce: str = "mean") -> Fit:
    """Read a fit that comes from outside.

    Args:
        sizes: ``"1024x768"``, an integer, or a sequence of integers.
        reduce: a name of `Reduce`.

    Raises:
        BadRequest: it is something else.
    """
    parts = re.split(r"\s*x\s*", sizes.strip()) if isinstance(sizes, str) else sizes
    texts = [str(part) for part in (parts if isinstance(parts, Sequence) else [parts])]
    if not 0 < len(texts) <= DIMENSIONS_MAX or not all(_SIZE.fullmatch(text) and int(text) for text in texts):
        wanted = "the most items along each of the last axes, such as 1024x768, or 1000"
        raise BadRequest(f"fit {shown(str(sizes))}: wanted {wanted}")
    if reduce not in {way.value for way in Reduce}:
        raise BadRequest(f"reduce {shown(str(reduce))}: wanted one of {', '.join(way.value for way in Reduce)}")
    return Fit(tuple(map(int, texts)), Reduce(reduce))


def reduced_dtype(dtype: "np.dtype[Any]", reduce: Reduce) -> "np.dtype[Any]":
    """Return the type of the items that bins become.

    Raises:
        BadSelection: items of this type have no mean, or no order.
    """
    if reduce is Reduce.STRIDE:
        return dtype
    if dtype.names:
        names = ", ".join(dtype.names)
        raise BadSelection(f"reduce={reduce.value} of records: name a field ({names}), or wanted reduce=stride")
    allowed = "biufc" if reduce is Reduce.MEAN else "biufmM"
    if dtype.kind not in allowed:
        wanted = "stride" if dtype.kind not in "mM" else "min, max or stride"
        wanted = "mean or stride" if dtype.kind == "c" else wanted
        raise BadSelection(f"reduce={reduce.value} of items of type {dtype}: wanted reduce={wanted}")
    if reduce is not Reduce.MEAN or dtype.kind == "c":
        return dtype
    return np.dtype("<f4" if f"{dtype.kind}{dtype.itemsize}" in _FLOAT32_FOR else "<f8")


@dataclass(frozen=True, slots=True)
class Bins:
    """How the items of one axis, in ascending order, are put together."""

    count: int
    """Of items before."""
    factor: int = 1
    """Items of a bin."""
    is_reversed: bool = False
    """The answer has them in descending order, so that the bin that may be shorter is the first one here."""

    @property
    def length(self) -> int:
        """Of the axis afterwards."""
        return -(-self.count // self.factor)

    @property
    def phase(self) -> int:
        """How far the first item is from the beginning of its bin."""
        return self.length * self.factor - self.count if self.is_reversed else 0

    @property
    def firsts(self) -> range:
        """Positions of the items that stand for their bins, where others do not count."""
        start = (self.count - 1) % self.factor if self.is_reversed and self.count else 0
        return range(start, self.count, self.factor)

    def of_size(self, size: int) -> "Bins":
        """Return bins of the same items that are at most ``size``."""
        return Bins(self.count, max(-(-self.count // size), 1), self.is_reversed)


def bins_of(read: Read, sizes: Sequence[int]) -> tuple[Bins, ...]:
    """Say for each axis of what is read how its items are put together.

    Args:
        read: a selection of integers and slices.
        sizes: of a `Fit`.

    Raises:
        BadSelection: the selection has lists, masks or new axes, or fewer axes than there are sizes.
    """
    what = read.what
    if isinstance(what, Points) or not all(isinstance(axis, range) for axis in what.axes):
        raise BadSelection(_ONLY_SLICES)
    fitted = iter(sizes)
    bins = []
    for axis, direction, is_sized in zip(what.axes, _directions(read), is_fitted(read, sizes), strict=True):
        plain = Bins(len(axis), 1, direction < 0)
        bins.append(plain.of_size(next(fitted)) if is_sized else plain)
    return tuple(bins)


def is_fitted(read: Read, sizes: Sequence[int]) -> list[bool]:
    """Say for each axis of what is read whether one of the sizes is for it.

    Raises:
        BadSelection: there are fewer axes than sizes.
    """
    directions = _directions(read)
    kept = [axis for axis, direction in enumerate(directions) if direction]
    if len(sizes) > len(kept):
        fit = "x".join(map(str, sizes))
        raise BadSelection(f"fit={fit} has {len(sizes)} sizes, but the selection has {len(kept)} axes")
    return [axis in kept[len(kept) - len(sizes) :] for axis in range(len(directions))]


def factors_of(read: Read, bins: Sequence[Bins]) -> tuple[int, ...]:
    """Return how many items became one along each axis of the answer."""
    return tuple([along.factor for along, direction in zip(bins, _directions(read), strict=True) if direction])


@dataclass(frozen=True, slots=True)
class Reduced:
    """What was done to make a preview; goes with it wherever it goes."""

    exact: bool
    """All items that the selection has went into it, and it is as fine as was asked for."""
    reduce: str
    factors: tuple[int, ...]
    """Items of the selection that became one, along each axis of the answer."""
    chunks: int
    """That were read."""
    chunks_of: int
    """That hold items of the selection. Where fewer are read, bins have the items of those."""

    @property
    def text(self) -> str:
        """As a header and the attributes of a frame have it: JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))


def parse_reduced(text: str) -> Reduced:
    """Read what `Reduced.text` wrote.

    Raises:
        BadMessage: it is something else.
    """
    try:
        told = json.loads(text)
        return Reduced(
            bool(told["exact"]),
            str(told["reduce"]),
            tuple(map(int, told["factors"])),
            int(told["chunks"]),
            int(told["chunks_of"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadMessage(f"no description of a preview: {shown(text)}") from None


class Reducer:
    """Takes the items of a selection part by part, in any order, and keeps one of each bin."""

    def __init__(
        self,
        bins: Sequence[Bins],
        positions: Sequence[range | Indices],
        dtype: "np.dtype[Any]",
        reduce: Reduce,
    ) -> None:
        """Begin with nothing.

        Args:
            bins: for each axis of the selection.
            positions: ascending, along each axis, of the items that will be given; all, or some of every bin.
            dtype: of the items; with a shape of its own, as some fields have, each of its items is reduced alone.
            reduce: not ``STRIDE``, which is a selection.

        Raises:
            BadSelection: as for `reduced_dtype`.
        """
        assert reduce is not Reduce.STRIDE
        self._bins = tuple(bins)
        self._positions = tuple(positions)
        self._reduced = reduced_dtype(dtype.base, reduce)
        self._is_mean = reduce is Reduce.MEAN
        self._nans: npt.NDArray[np.int64] | None = None
        shape = (*[axis.length for axis in bins], *dtype.shape)
        if self._is_mean:
            self._ufunc: np.ufunc = np.add
            self._inner = np.dtype("c16" if dtype.base.kind == "c" else "f8")
            self._kept: Items = np.zeros(shape, self._inner)
        else:
            self._ufunc = np.fmin if reduce is Reduce.MIN else np.fmax
            self._inner = dtype.base.newbyteorder("=")
            self._kept = np.full(shape, _neutral(self._inner, reduce), self._inner)

    def add(self, place: Sequence[slice], block: Items) -> None:
        """Take a part.

        Args:
            place: along each axis, which of the positions its items have.
            block: its items.
        """
        positions = [items[along] for items, along in zip(self._positions, place, strict=True)]
        key = tuple(map(_span, self._bins, positions))
        with np.errstate(invalid="ignore", over="ignore"):
            folded = self._folded(block, positions)
            if not self._is_mean:
                self._ufunc(self._kept[key], folded, out=self._kept[key])
                return
            if block.dtype.kind in "fc" and np.isnan(folded).any():
                folded = self._without_nans(block, positions, key)
            self._kept[key] += folded

    def result(self) -> Items:
        """Return what the bins became."""
        if not self._is_mean:
            return self._kept.astype(self._reduced, copy=False)
        counts: Any = np.ones((), np.int64)
        for bins, items in zip(self._bins, self._positions, strict=True):
            along = np.diff(_starts(items, bins), append=len(items)) if len(items) else np.empty(0, np.int64)
            counts = np.multiply.outer(counts, along)
        counts = counts.reshape(counts.shape + (1,) * (self._kept.ndim - counts.ndim))
        if self._nans is not None:
            counts = counts - self._nans
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.asarray(self._kept / counts).astype(self._reduced)

    def _folded(self, block: Items, positions: Sequence[range | Indices]) -> Items:
        """Fold a part along all axes."""
        if not block.dtype.isnative:
            block = block.astype(block.dtype.newbyteorder("="))
        for axis, (bins, items) in enumerate(zip(self._bins, positions, strict=True)):
            starts = _starts(items, bins)
            if len(starts) < len(items):
                block = _fold(self._ufunc, block, axis, starts, self._inner)
        return block

    def _without_nans(self, block: Items, positions: Sequence[range | Indices], key: tuple[slice, ...]) -> Items:
        """Fold a part as if its NaN were zeros, and note how many there were in each bin."""
        is_nan = np.isnan(block)
        if self._nans is None:
            self._nans = np.zeros(self._kept.shape, np.int64)
        self._nans[key] += self._folded(is_nan, positions).real.astype(np.int64)
        return self._folded(np.where(is_nan, block.dtype.type(0), block), positions)


def _neutral(dtype: "np.dtype[Any]", reduce: Reduce) -> Any:
    """Return what changes nothing where the least, or the most, is wanted."""
    if dtype.kind in "fmM":
        return np.array("nan" if dtype.kind == "f" else "NaT", dtype)
    if dtype.kind == "b":
        return reduce is Reduce.MIN
    bounds = np.iinfo(dtype)
    return bounds.max if reduce is Reduce.MIN else bounds.min


def _span(bins: Bins, items: range | Indices) -> slice:
    """Return the bins of some ascending positions; there is none between them that has no item."""
    first, last = (int(item) + bins.phase for item in (items[0], items[-1]))
    return slice(first // bins.factor, last // bins.factor + 1)


def _directions(read: Read) -> list[int]:
    """Return for each axis of what is read 1 or -1, as the answer has it, or 0 where it has it not."""
    assert isinstance(read.what, Selection)
    ndim = len(read.what.axes)
    parts = read.key if read.key is not None else ()
    directions: list[int] = []
    for part in parts:
        if part is Ellipsis:
            directions += [1] * (ndim - len(parts) + 1)
        elif isinstance(part, slice):
            directions.append(-1 if part.step == -1 else 1)
        elif type(part) is int:
            directions.append(0)
        else:
            raise BadSelection(_ONLY_SLICES)
    return directions + [1] * (ndim - len(directions))


def _starts(items: range | Indices, bins: Bins) -> Indices:
    """Return where, among ascending positions, the items of each bin begin."""
    if isinstance(items, range) and items.step == 1:
        first = (items.start + bins.phase) // bins.factor
        end = (items.stop - 1 + bins.phase) // bins.factor + 1
        starts = np.arange(first, end) * bins.factor - (bins.phase + items.start)
        starts[0] = 0
        return starts
    numbers = (np.asarray(items, np.int64) + bins.phase) // bins.factor
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _fold(ufunc: np.ufunc, block: Items, axis: int, starts: Indices, dtype: "np.dtype[Any]") -> Items:
    """Put together the items of each run along an axis, which is the first one while that is done."""
    widths = np.diff(starts)
    summed: Any = dtype if ufunc is np.add else None  # NumPy wants no unit of dates here
    block = block.swapaxes(0, axis)
    if len(widths) > 1 and not (widths[1:] == widths[1]).all():
        return np.asarray(ufunc.reduceat(block, starts, axis=0, dtype=summed)).swapaxes(0, axis)
    # a first run and a last one, either maybe shorter, and even ones between them
    head = int(starts[1]) if len(starts) > 1 else len(block)
    even = max(len(starts) - 2, 0)
    folded = np.empty((len(starts), *block.shape[1:]), dtype)
    folded[0] = ufunc.reduce(block[:head], axis=0, dtype=summed)
    if even:
        factor = int(widths[1])
        _fold_even(ufunc, block[head : head + even * factor], factor, folded[1 : 1 + even])
    if len(starts) > 1:
        folded[-1] = ufunc.reduce(block[int(starts[-1]) :], axis=0, dtype=summed)
    return folded.swapaxes(0, axis)


def _fold_even(ufunc: np.ufunc, block: Items, factor: int, out: Items) -> None:
    if factor > _FOLD_ONE_BY_ONE_MAX:
        summed: Any = out.dtype if ufunc is np.add else None
        out[...] = ufunc.reduce(block.reshape(-1, factor, *block.shape[1:]), axis=1, dtype=summed)
        return
    out[...] = block[::factor]
    for number in range(1, factor):
        ufunc(out, block[number::factor], out=out)
