"""What can be read of a dataset in a moment: by the thread that all connections of a server share.

To hand a small read to another thread, and its answer back, takes longer than the read. Whether it is small, and
all here, is known before anything was decoded; where it is not, `NotAtHand` says so, and a thread that may wait
begins anew.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zcat.limits import MIB
from zcat.model.dataset import ArrayGeometry
from zcat.model.selection import Indices, Points, Selection
from zcat.services.dataset import OpenDataset, ReadLimits, SizeSource
from zcat.services.prefetcher import Prefetcher
from zcat.services.window import Supply, What, Window
from zcat.storage.reading import ChunkAbsent, ChunkSource

T = TypeVar("T")

AT_HAND_BYTES = MIB
"""Of the blocks that are decoded for a read: one takes half a millisecond then, and others wait no longer."""


class NotAtHand(Exception):
    """This would take more than a moment."""


class DatasetAtHand(OpenDataset):
    """A dataset of which every method raises `NotAtHand` in place of waiting, or of working long."""

    def __init__(self, supply: Supply, origin: SizeSource, limits: ReadLimits, seen: Prefetcher) -> None:
        """Open.

        Args:
            supply: of chunks; it is never asked for any.
            origin: never asked, either.
            limits: of each read.
            seen: is told of the reads that came to something; the others begin anew.
        """
        super().__init__(supply, origin, limits)
        self._seen = seen

    def read(self, what: Selection | Points) -> npt.NDArray[Any]:
        """Read a small box of an array."""
        array = self.info.geometry.array
        if array is None or isinstance(what, Points) or _decoded_bytes(array, what) > AT_HAND_BYTES:
            raise NotAtHand
        block = super().read(what)
        self._seen.saw(self._supply, what)
        return block

    def read_bytes(self, start: int, stop: int) -> bytearray:
        """Read content of a byte frame or file whose chunks are small."""
        if stop - start + self.info.geometry.chunksize > AT_HAND_BYTES:
            raise NotAtHand
        return super().read_bytes(start, stop)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Never: there may be a million of them."""
        raise NotAtHand

    def _window(self, chunks: Indices, decode: Callable[[ChunkSource], T], _what: What | None = None) -> T:
        cached = self._target.cached
        if cached is None:
            raise NotAtHand
        with self._holding(chunks):
            try:
                return decode(cached)
            except ChunkAbsent:
                raise NotAtHand from None

    def _begin(self, _wanted: Any, _bulk: bool = False) -> Window:
        raise NotAtHand


def _decoded_bytes(array: ArrayGeometry, what: Selection) -> int:
    """Say how many bytes the blocks have that hold a box, if it has no steps over any."""
    nbytes = array.itemsize
    for axis, block in zip(what.axes, array.blocks, strict=True):
        if len(axis):
            nbytes *= (int(axis[-1]) // block - int(axis[0]) // block + 1) * block
    return nbytes
