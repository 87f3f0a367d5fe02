"""Which blocks of a chunk a selection touches."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.blocks import block_count, block_grid, blocks_of_piece, blocks_of_points
from zcat.model.dataset import ArrayGeometry
from zcat.model.geometry import pieces
from zcat.model.selection import Selection


@st.composite
def arrays(draw):
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(1, 14)) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    blocks = tuple(draw(st.integers(1, n)) for n in chunks)
    return ArrayGeometry(shape, chunks, blocks, "|u1", 1)


def block_of_each_item(array):
    """The block number of each item of a chunk, found the slow way."""
    numbers = np.zeros(array.chunks, np.int64)
    grid = block_grid(array)
    for place in np.ndindex(*array.chunks):
        corner = [item // block for item, block in zip(place, array.blocks, strict=True)]
        numbers[place] = int(np.ravel_multi_index(corner, grid)) if grid else 0
    return numbers


@given(arrays(), st.data())
@settings(max_examples=100, deadline=None)
def test_the_blocks_of_a_piece_are_those_of_its_items(array, data):
    axes = tuple(
        data.draw(
            st.one_of(
                st.builds(range, st.integers(0, n - 1), st.just(n), st.integers(1, n)),
                st.lists(st.integers(0, n - 1), min_size=1, unique=True).map(lambda i: np.array(sorted(i))),
            )
        )
        for n in array.shape
    )
    numbers = block_of_each_item(array)
    for piece in pieces(array, Selection(axes)):
        items = [np.arange(*p.indices(1 << 30)) if isinstance(p, slice) else p for p in piece.inside]
        wanted = np.unique(numbers[np.ix_(*items)] if items else numbers)
        assert blocks_of_piece(array, piece.inside).tolist() == wanted.tolist()


@given(arrays(), st.data())
@settings(max_examples=100, deadline=None)
def test_the_blocks_of_points_are_those_of_its_items(array, data):
    count = data.draw(st.integers(1, 20))
    points = np.array(
        [[data.draw(st.integers(0, n - 1)) for n in array.chunks] for _ in range(count)], np.int64
    ).reshape(count, len(array.chunks))
    numbers = block_of_each_item(array)
    assert blocks_of_points(array, points).tolist() == np.unique(numbers[tuple(points.T)]).tolist()
    assert block_count(array) == math.prod(block_grid(array))
