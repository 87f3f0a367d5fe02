"""A dataset made small: its items, and what was done to make them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zcat.model.reduction import Reduced


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What ``ds.preview(...)`` gives; NumPy, and what draws arrays, take it as an array.

    Example:
        >>> small = ds.preview(fit=(768, 1024))
        >>> plt.imshow(small, extent=(0, ds.shape[1], ds.shape[0], 0))
        >>> if not small.exact:
        ...     print(f"made of {small.chunks} of {small.chunks_of} chunks")
    """

    values: npt.NDArray[Any]
    """The items."""
    version: str
    """Of the dataset: ``lineage-length``."""
    told: Reduced
    """What was done."""

    @property
    def exact(self) -> bool:
        """All items of the selection went into it, and it is as fine as was asked for."""
        return self.told.exact

    @property
    def factors(self) -> tuple[int, ...]:
        """Items of the selection that became one, along each axis; the last one may be made of fewer."""
        return self.told.factors

    @property
    def chunks(self) -> int:
        """That were read."""
        return self.told.chunks

    @property
    def chunks_of(self) -> int:
        """That hold items of the selection."""
        return self.told.chunks_of

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the items."""
        return self.values.shape

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Of the items."""
        return self.values.dtype

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype, copy=copy)

    def __repr__(self) -> str:
        how = "exact" if self.exact else f"of {self.chunks} of {self.chunks_of} chunks"
        return f"<zcat.Preview {self.shape} {self.dtype} {self.told.reduce} by {self.factors}, {how}>"
