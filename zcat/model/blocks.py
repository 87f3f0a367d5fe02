"""Arithmetic of blocks: which blocks of a chunk hold the items that are wanted.

Only arrays have blocks that are known beforehand; the chunks of byte frames choose theirs. The blocks of a chunk
are numbered row-major over the grid ``padded_chunk / blocks`` (c-blosc2, ``README_B2ND_METALAYER.rst``).
"""

import math
from functools import lru_cache

import numpy as np

from zcat.model.dataset import ArrayGeometry
from zcat.model.selection import Indices


@lru_cache(maxsize=256)
def block_grid(array: ArrayGeometry) -> tuple[int, ...]:
    """Return the number of blocks on each axis of a chunk."""
    return tuple(p // b if b else 0 for p, b in zip(array.padded_chunk, array.blocks, strict=True))


def block_count(array: ArrayGeometry) -> int:
    """Return the number of blocks of each chunk."""
    return math.prod(block_grid(array))


def blocks_of_piece(array: ArrayGeometry, inside: tuple[slice | Indices, ...]) -> Indices:
    """Number the blocks that hold what a ``Piece`` takes of its chunk, in ascending order."""
    numbers = np.zeros(1, np.int64)
    for items, block, count in zip(inside, array.blocks, block_grid(array), strict=True):
        numbers = (numbers[:, None] * count + _on_axis(items, block)).ravel()
    return numbers


def blocks_of_points(array: ArrayGeometry, coordinates: Indices) -> Indices:
    """Number the blocks that hold single items, in ascending order.

    Args:
        array: whose chunk it is.
        coordinates: inside the chunk, ``(npoints, ndim)``.
    """
    numbers = np.zeros(len(coordinates), np.int64)
    for axis, (block, count) in enumerate(zip(array.blocks, block_grid(array), strict=True)):
        numbers = numbers * count + coordinates[:, axis] // block
    return np.unique(numbers)


def last_item(items: slice | Indices) -> int:
    """Return the last of the items that a ``Piece`` takes along one axis; a slice may end behind it."""
    if not isinstance(items, slice):
        return int(items[-1])
    step = items.step or 1
    return int(items.start + (items.stop - 1 - items.start) // step * step)


def _on_axis(items: slice | Indices, block: int) -> Indices:
    """Number the blocks along one axis that are touched, in ascending order."""
    if not isinstance(items, slice):
        return np.unique(items // block)
    if items.step is None or items.step <= block:  # none is stepped over
        return np.arange(items.start // block, last_item(items) // block + 1)
    return np.arange(items.start, items.stop, items.step) // block
