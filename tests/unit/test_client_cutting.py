import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.client.cutting import COORDINATES_MAX, PART_BYTES, cut, cut_points
from zcat.model.selection import Points, Selection


@st.composite
def axes(draw):
    length = draw(st.integers(1, 7))
    if draw(st.booleans()):
        start, step = draw(st.integers(0, 3)), draw(st.integers(1, 3))
        return range(start, start + (length - 1) * step + 1, step)
    return np.array(sorted(draw(st.sets(st.integers(0, 20), min_size=1, max_size=length))), np.int64)


SELECTIONS = st.lists(axes(), max_size=3).map(lambda given: Selection(tuple(given)))


@settings(max_examples=150, deadline=None)
@given(SELECTIONS, st.integers(1, 5), st.integers(1, 400))
def test_parts_cover_a_selection_once_in_order_and_stay_small(selection, chunk, part_bytes):
    data = np.arange(22 ** len(selection.axes)).reshape((22,) * len(selection.axes))
    out = np.full(selection.shape, -1)
    chunks = (chunk,) * len(selection.axes)
    first = -1
    for part, place in cut(selection, 8, chunks, part_bytes):
        target = out[place] if place else out
        assert target.flags.c_contiguous
        assert (target == -1).all()
        assert part.size * 8 <= part_bytes or part.size == 1
        target[...] = data[np.ix_(*part.axes)] if part.axes else data
        assert target.min() > first
        first = target.max()
    np.testing.assert_array_equal(out, data[np.ix_(*selection.axes)] if selection.axes else data)


def test_parts_end_where_chunks_do():
    selection = Selection((range(5, 1000), range(0, 10)))
    parts = list(cut(selection, 1, (32, 10), part_bytes=1000))
    assert [part.selection.axes[0].stop for part in parts[:-1]] == list(range(96, 1000, 96))


def test_a_selection_that_is_small_is_one_part():
    selection = Selection((range(3), range(2, 9, 3)))
    assert [part.selection for part in cut(selection, 8, (1, 1))] == [selection]


def test_long_lists_of_indices_are_cut_too():
    many = np.arange(0, 5 * COORDINATES_MAX, 2)
    selection = Selection((range(2), many))
    out = np.zeros(selection.shape, "i4")
    parts = list(cut(selection, 1, (10, 10)))
    for part, place in parts:
        assert len(part.axes[1]) <= COORDINATES_MAX
        out[place] = part.axes[1]
    np.testing.assert_array_equal(out, np.broadcast_to(many, out.shape))


def test_points_are_cut_by_their_number_and_by_their_bytes():
    points = Points(np.arange(2 * COORDINATES_MAX + 1)[:, None])
    parts = list(cut_points(points, 1))
    assert [len(range(points.size)[place]) for _, (place,) in parts] == [COORDINATES_MAX, COORDINATES_MAX, 1]
    assert (np.concatenate([part.coordinates for part, _ in parts]) == points.coordinates).all()
    wide = [part.size for part, _ in cut_points(Points(np.zeros((5, 1), np.int64)), PART_BYTES // 2)]
    assert wide == [2, 2, 1]
