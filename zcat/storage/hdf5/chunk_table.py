"""Where all chunks of a dataset lie in the file, as HDF5 knows it. In worker processes only."""

import math

import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from zcat.errors import BadContent, NotReadable
from zcat.limits import NCHUNKS_MAX

Table = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]
"""Offsets in the file (-1 where nothing was written), sizes as stored, masks of the filters that were left out."""


def table_of(dataset: h5d.DatasetID) -> Table:
    """List the chunks of a dataset, in row-major order of its grid.

    Raises:
        NotReadable: it has no chunks, or more than `NCHUNKS_MAX`.
        BadContent: a chunk lies beside the grid.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() != h5d.CHUNKED:
        raise NotReadable("the dataset has no chunks")
    lengths = plist.get_chunk()
    grid = [-(-s // c) for s, c in zip(dataset.shape, lengths, strict=True)]
    count = math.prod(grid)
    if count > NCHUNKS_MAX:
        raise NotReadable(f"{count} HDF5 chunks, the limit is {NCHUNKS_MAX}")
    offsets, sizes, masks = np.full(count, -1, "<i8"), np.zeros(count, "<i8"), np.zeros(count, "<u4")
    strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
    axes = list(zip(lengths, grid, strides, strict=True))

    def take(chunk: h5d.StoreInfo) -> None:
        number = 0
        for at, (length, most, stride) in zip(chunk.chunk_offset, axes, strict=True):
            place, rest = divmod(at, length)
            if rest or place >= most:
                raise BadContent(f"a chunk at {chunk.chunk_offset}, beside the grid of chunks")
            number += place * stride
        offsets[number], sizes[number], masks[number] = chunk.byte_offset, chunk.size, chunk.filter_mask

    if count:
        dataset.chunk_iter(take)
    return offsets, sizes, masks
