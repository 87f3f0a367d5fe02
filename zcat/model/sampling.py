"""Which items stand for many, where reading all of them would cost too much.

Chunks and blocks are read as a whole, so what is left out are columns of them. Each bin keeps some, spread evenly
over it; where there are more bins than columns may be read, bins become wider.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zcat.model.reduction import Bins
from zcat.model.selection import Axis, Indices

INDICES_MAX = 1 << 22
"""Items chosen along one axis; of longer columns, a stretch is taken."""


@dataclass(frozen=True, slots=True)
class Along:
    """One axis of a selection."""

    axis: range
    unit: int
    """Items of the dataset's axis that are read together: those of a chunk, or of a block."""
    bins: Bins
    is_fitted: bool
    """Its bins may become wider."""

    @property
    def columns(self) -> int:
        """Units that have something of the axis."""
        return columns(self.axis, self.unit)

    @property
    def columns_min(self) -> int:
        """The least that may be read."""
        return min(1 if self.is_fitted else self.bins.length, self.columns)


def columns(axis: Axis, unit: int) -> int:
    """Count the units, of so many items each, that have something of an axis."""
    if not isinstance(axis, range):
        return len(np.unique(axis // unit))
    return len(axis) if axis.step > unit else axis[-1] // unit - axis[0] // unit + 1 if axis else 0


def thin(axes: Sequence[Along], units_max: int) -> list[tuple[Bins, range | Indices]] | None:
    """Choose items of each bin, so that few units have to be read.

    Args:
        axes: of a selection that is not empty.
        units_max: the most units that may be read.

    Returns:
        For each axis, its bins, and the positions along it of the items that stand for them, ascending, some of
        each bin. None if that cannot be done.
    """
    wanted = _share(axes, units_max)
    return None if wanted is None else [_chosen(along, count) for along, count in zip(axes, wanted, strict=True)]


def widen(axes: Sequence[Along], units_max: int) -> list[Bins] | None:
    """Widen bins of which only the first items are read, until few units have to be read.

    Args:
        axes: as for `thin`.
        units_max: as for `thin`.

    Returns:
        The bins of each axis; None if that cannot be done.
    """
    bins = [along.bins for along in axes]
    while True:
        counts = [columns(along.axis[b.firsts.start :: b.factor], along.unit) for along, b in _pairs(axes, bins)]
        if math.prod(counts) <= units_max:
            return bins
        at = max(range(len(axes)), key=lambda number: counts[number] * axes[number].is_fitted, default=0)
        if not axes or not axes[at].is_fitted or counts[at] == 1:
            return None
        bins[at] = bins[at].of_size(min(counts[at], bins[at].length - 1) // 2 or 1)


def _pairs(axes: Sequence[Along], bins: Sequence[Bins]) -> list[tuple[Along, Bins]]:
    return list(zip(axes, bins, strict=True))


def _share(axes: Sequence[Along], units_max: int) -> list[int] | None:
    """Say how many columns of each axis are read: fewer where bins have many, then where there are many bins."""
    wanted = [along.columns for along in axes]
    while (units := math.prod(wanted)) > units_max:

        def gain(number: int) -> tuple[float, int]:
            spare = wanted[number] / min(axes[number].bins.length, wanted[number])
            return (spare if spare > 1 else 0, wanted[number] if wanted[number] > axes[number].columns_min else 0)

        at = max(range(len(axes)), key=gain)
        along, count = axes[at], wanted[at]
        if gain(at) == (0, 0):
            return None
        least = along.bins.length if count > along.bins.length else along.columns_min
        wanted[at] = max(-(-count // 2), count * units_max // units, least)
    return wanted


def _chosen(along: Along, wanted: int) -> tuple[Bins, range | Indices]:
    axis, bins = along.axis, along.bins
    if wanted >= along.columns:
        return bins, range(len(axis))
    if wanted < bins.length:
        bins = bins.of_size(wanted)
    probes = _probes(bins, wanted // bins.length)
    column = (axis.start + probes * axis.step) // along.unit * along.unit
    first = np.clip(-((axis.start - column) // axis.step), 0, len(axis))
    end = np.clip(-((axis.start - column - along.unit) // axis.step), 0, len(axis))
    width = max(INDICES_MAX // len(probes), 1)
    first = np.maximum(first, probes - width // 2)
    end = np.minimum(end, first + width)
    first[1:] = np.maximum(first[1:], np.maximum.accumulate(end)[:-1])  # several probes may meet in one column
    lengths = np.maximum(end - first, 0)
    starts = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    return bins, starts + np.arange(len(starts))


def _probes(bins: Bins, count: int) -> Indices:
    """Return positions that are spread evenly over each bin: ``count`` of them, ascending."""
    low = np.arange(bins.length, dtype=np.int64) * bins.factor - bins.phase
    high = np.minimum(low + bins.factor, bins.count)
    low = np.maximum(low, 0)
    parts = 2 * np.arange(count, dtype=np.int64) + 1
    within = low[:, None] + (high - low)[:, None] * parts // (2 * count)
    return np.unique(within)
