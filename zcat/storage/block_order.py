"""The order of items inside a chunk of an n-d array.

A chunk holds its blocks one after the other, each in C order, and is padded to whole blocks. So one block of a
compressed chunk is a small n-d box of the array, which is why Blosc2 can read boxes without the whole chunk.

Source: c-blosc2 ``b2nd.h`` and ``README_B2ND_METALAYER.rst``.
"""

import numpy as np
from numpy.typing import NDArray

from zcat.model.dataset import ArrayGeometry


def to_block_order(part: np.ndarray, array: ArrayGeometry) -> NDArray[np.uint8]:
    """Return the bytes of a chunk, ready to be compressed, in the order that Blosc2 stores.

    Args:
        part: the items of one chunk; at the edges of the dataset smaller than ``array.chunks``. Not copied
            where its order is already the wanted one.
        array: of the dataset; ``part.dtype`` has its ``itemsize``.
    """
    padded = array.padded_chunk
    if part.shape != padded:
        whole = np.zeros(padded, part.dtype)
        whole[tuple(slice(n) for n in part.shape)] = part
        part = whole
    if not is_block_order(array):
        ndim = part.ndim
        pairs = [n for c, b in zip(padded, array.blocks, strict=True) for n in (c // b, b)]
        part = part.reshape(pairs).transpose(*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2))
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8)


def is_block_order(array: ArrayGeometry) -> bool:
    """Say whether C order of a padded chunk is block order: blocks are slabs of whole trailing axes."""
    padded = array.padded_chunk
    axis = 0
    while axis < len(padded) and array.blocks[axis] == 1:
        axis += 1
    return array.blocks[axis + 1 :] == padded[axis + 1 :]
