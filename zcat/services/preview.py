"""A dataset made small: read a few chunks at a time, and no more of them than is worth it.

First it is decided what is read, by what the cache has and what the limits are; then that is read. An answer that
had to leave something out says so.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zcat.errors import BadSelection, NotReadable, TooLarge
from zcat.limits import KIB, MIB
from zcat.model.dataset import ArrayGeometry, DatasetInfo
from zcat.model.dtypes import parse_dtype
from zcat.model.geometry import chunks_touched
from zcat.model.reduction import Bins, Fit, Reduce, Reduced, Reducer, bins_of, factors_of, is_fitted, reduced_dtype
from zcat.model.sampling import Along, columns, thin, widen
from zcat.model.selection import Axis, Indices, Read, Selection
from zcat.names import shown

WINDOW_BYTES = 16 * MIB
"""Of the chunks that are reduced at a time, uncompressed: a few times this is held while it lasts."""

# PERF: a part of a chunk costs about 0.1 ms however small it is, and 128 KiB are decompressed in less
_PIECE_BYTES_MIN = 128 * KIB
_COUNTED_MAX = 1 << 20
_HEAD_BYTES = 32
_ITEM_BYTES = 24
"""Held for each item of an answer: what is summed up, how many there were, and the item."""


class Source(Protocol):
    """What is read; `OpenDataset` is one."""

    @property
    def info(self) -> DatasetInfo:
        """All that is known of this version."""

    @property
    def complete(self) -> bool:
        """All its chunks are in the cache."""

    @property
    def in_blocks(self) -> bool:
        """Chunks that are missing can be fetched in blocks."""

    def missing_count(self, chunks: Indices) -> int:
        """Say how many of these chunks would have to be fetched."""

    def parts(
        self, what: Selection, window_bytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[Any]]]:
        """Read a box part by part: the place of each in a block of its shape, and its items."""


@dataclass(frozen=True, slots=True)
class PreviewLimits:
    """How much is read for one preview, before some has to stand for all."""

    fetch_bytes: int
    """Compressed bytes of chunks that are not in the cache."""
    decode_bytes: int
    """Uncompressed bytes."""


@dataclass(frozen=True, slots=True)
class PreviewAsk:
    """What is wanted of a dataset."""

    read: Read
    """A selection of integers and slices."""
    fit: Fit
    field: str = ""
    """Of a structured dtype; empty for whole items."""
    must_be_exact: bool = False
    """Read whatever it takes."""


@dataclass(frozen=True, slots=True)
class PreviewPlan:
    """What is read for a preview, and what becomes of it."""

    ask: PreviewAsk
    told: Reduced
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    bins: tuple[Bins, ...]
    positions: tuple[range | Indices, ...]
    """Along each axis of the selection, of the items that are read."""
    what: Selection
    """The same, as coordinates in the dataset."""

    @property
    def held_nbytes(self) -> int:
        """What must be in memory for the answer, beside the window."""
        return math.prod(self.shape) * max(_ITEM_BYTES, self.dtype.itemsize)


def plan_preview(source: Source, ask: PreviewAsk, limits: PreviewLimits) -> PreviewPlan:
    """Decide what is read.

    Raises:
        NotReadable: the dataset is no array.
        BadSelection: the selection, the fit, the field and the type of the items do not go together.
        TooLarge: too much would have to be read for the axes that have no size in the fit.
    """
    array = source.info.geometry.array
    if array is None:
        raise NotReadable(f"{shown(source.info.entry.path)} is no array: there are no items to be made fewer")
    own = _own_dtype(array, ask)
    dtype = reduced_dtype(own.base, ask.fit.reduce)
    bins = bins_of(ask.read, ask.fit.sizes)
    positions: list[range | Indices] = _of_bins(bins, ask.fit.reduce)
    what = _coordinates(ask.read, positions)
    share = _share_of(source, array, ask, what, limits)
    if share is not None:
        bins, positions = _fewer(ask, bins, share)
        what = _coordinates(ask.read, positions)
    told = Reduced(
        exact=share is None,
        reduce=ask.fit.reduce.value,
        factors=factors_of(ask.read, bins),
        chunks=_chunks(array, what),
        chunks_of=_chunks(array, _coordinates(ask.read, [range(along.count) for along in bins])),
    )
    dummy = np.broadcast_to(np.False_, [along.length for along in bins])
    shape = (*ask.read.finish(dummy).shape, *own.shape)
    return PreviewPlan(ask, told, shape, dtype, bins, tuple(positions), what)


def read_preview(source: Source, plan: PreviewPlan) -> npt.NDArray[Any]:
    """Read what was planned.

    Returns:
        A new array of the plan's shape and dtype, in C order.

    Raises:
        Unavailable, Timeout, Stale: as for `OpenDataset.read`.
    """
    array, field = source.info.geometry.array, plan.ask.field
    assert array is not None
    own = _own_dtype(array, plan.ask)
    parts = () if plan.what.is_empty else source.parts(plan.what, WINDOW_BYTES)
    if plan.ask.fit.reduce is Reduce.STRIDE:
        block = np.empty((*plan.what.shape, *own.shape), own.base)
        for place, part in parts:
            block[place] = part[field] if field else part
    else:
        reducer = Reducer(plan.bins, plan.positions, own, plan.ask.fit.reduce)
        for place, part in parts:
            reducer.add(place, part[field] if field else part)
        block = reducer.result()
    return np.asarray(plan.ask.read.finish(block), order="C")


def _own_dtype(array: ArrayGeometry, ask: PreviewAsk) -> "np.dtype[Any]":
    dtype = parse_dtype(array.dtype)
    if not ask.field:
        return dtype
    if ask.field not in (dtype.names or ()):
        names = ", ".join(dtype.names or ()) or "none, it is not structured"
        raise BadSelection(f"field {shown(ask.field)}: the dataset has {names}")
    return dtype[ask.field]


def _of_bins(bins: tuple[Bins, ...], reduce: Reduce) -> list[range | Indices]:
    return [along.firsts if reduce is Reduce.STRIDE else range(along.count) for along in bins]


def _coordinates(read: Read, positions: list[range | Indices]) -> Selection:
    assert isinstance(read.what, Selection)
    axes: list[Axis] = []
    for axis, items in zip(read.what.axes, positions, strict=True):
        assert isinstance(axis, range)
        if isinstance(items, range):
            axes.append(axis[items.start : items.stop : items.step])
        else:
            axes.append(axis.start + items * axis.step)
    return Selection(tuple(axes))


def _chunks(array: ArrayGeometry, what: Selection) -> int:
    return math.prod(map(columns, what.axes, array.chunks))


@dataclass(frozen=True, slots=True)
class _Share:
    """What may be read where not all may be."""

    unit: tuple[int, ...]
    """Items per axis of what is read together."""
    units_max: int


def _share_of(
    source: Source, array: ArrayGeometry, ask: PreviewAsk, what: Selection, limits: PreviewLimits
) -> _Share | None:
    """Say how much may be read; None if that is all of it."""
    info, geometry = source.info, source.info.geometry
    count = _chunks(array, what)
    decoded_max = limits.decode_bytes // max(geometry.chunksize, _PIECE_BYTES_MIN) or 1
    fetched_max = limits.fetch_bytes * geometry.nchunks // max(info.entry.cbytes, 1) or 1
    missing = 0
    if not source.complete and count > fetched_max:
        missing = source.missing_count(chunks_touched(array, what)) if count <= _COUNTED_MAX else count
    in_blocks = source.in_blocks and missing > 0
    blocks_max = _blocks_max(info, limits) if in_blocks else 0
    is_cheap = missing <= fetched_max or math.prod(map(columns, what.axes, array.blocks)) <= blocks_max
    if ask.must_be_exact or (count <= decoded_max and is_cheap):
        return None
    if missing and not in_blocks:
        return _Share(array.chunks, min(decoded_max, fetched_max))
    # block by block, so that each of many bins can have a little; but between items with a stride, all is decoded
    if ask.fit.reduce is Reduce.STRIDE:
        return _Share(array.blocks, min(decoded_max, blocks_max)) if missing else _Share(array.chunks, decoded_max)
    pieces_max = limits.decode_bytes // max(geometry.blocksize, _PIECE_BYTES_MIN) or 1
    return _Share(array.blocks, min(pieces_max, blocks_max) if missing else pieces_max)


def _blocks_max(info: DatasetInfo, limits: PreviewLimits) -> int:
    """Say how many blocks may be fetched: each may need the offsets of all blocks of its chunk."""
    count = max(info.geometry.chunksize // max(info.geometry.blocksize, 1), 1)
    chunk_bytes = info.entry.cbytes // max(info.geometry.nchunks, 1)
    return limits.fetch_bytes // (chunk_bytes // count + 4 * count + _HEAD_BYTES) or 1


def _fewer(
    ask: PreviewAsk, bins: tuple[Bins, ...], share: _Share
) -> tuple[tuple[Bins, ...], list[range | Indices]]:
    """Choose what is read where not all can be."""
    assert isinstance(ask.read.what, Selection)
    fitted = is_fitted(ask.read, ask.fit.sizes)
    axes = [
        Along(axis, unit, along, is_free)
        for axis, unit, along, is_free in zip(ask.read.what.axes, share.unit, bins, fitted, strict=True)
        if isinstance(axis, range)
    ]
    if ask.fit.reduce is Reduce.STRIDE:
        wide = widen(axes, share.units_max)
        chosen = None if wide is None else list(zip(wide, _of_bins(tuple(wide), Reduce.STRIDE), strict=True))
    else:
        chosen = thin(axes, share.units_max)
    if chosen is None:
        what = f"more than {share.units_max} parts of {'x'.join(map(str, share.unit))} items"
        raise TooLarge(
            f"fit={ask.fit.text}: whatever is left out, this preview would read {what} (preview_fetch_bytes, "
            "preview_decode_bytes); name an index of the other axes, or give them a size"
        )
    return tuple(along for along, _ in chosen), [items for _, items in chosen]
