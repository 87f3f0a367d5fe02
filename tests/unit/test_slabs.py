import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.selection import Selection, parse_key
from zcat.model.slabs import keeps_order, slabs


@st.composite
def boxes(draw):
    shape, axes = [], []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 12))
        shape.append(length)
        if draw(st.booleans()):
            start = draw(st.integers(0, length - 1))
            axes.append(range(start, draw(st.integers(start + 1, length)), draw(st.integers(1, 4))))
        else:
            axes.append(np.array(sorted(draw(st.lists(st.integers(0, length - 1), min_size=1)))))
    chunks = tuple(draw(st.integers(1, length)) for length in shape)
    return tuple(shape), Selection(tuple(axes)), chunks


def items(content, selection):
    return content[np.ix_(*[np.asarray(axis) for axis in selection.axes])].reshape(-1)


@settings(max_examples=200, deadline=None)
@given(boxes(), st.integers(1, 200), st.integers(0, 400))
def test_pieces_are_the_box_and_no_larger_than_they_may_be(box, nbytes, more):
    shape, selection, chunks = box
    content = np.arange(np.prod(shape)).reshape(shape)
    pieces = list(slabs(selection, 4, chunks, nbytes, nbytes + more))
    np.testing.assert_array_equal(
        np.concatenate([items(content, piece) for piece in pieces]), items(content, selection)
    )
    assert max(piece.size for piece in pieces) * 4 <= max(nbytes + more, 4)


def test_pieces_end_where_chunks_do_if_that_can_be():
    whole = Selection((range(3, 100), range(10)))
    assert [piece.axes[0] for piece in slabs(whole, 1, (16, 10), 400, 400)] == [
        *(range(3, 32), range(32, 64), range(64, 100))
    ]
    assert [piece.axes[0] for piece in slabs(whole, 1, (16, 10), 50, 160)] == [
        *(range(3, 16), range(16, 32), range(32, 48), range(48, 64), range(64, 80), range(80, 96), range(96, 100))
    ]


def test_a_row_that_is_too_large_is_cut_itself():
    whole = Selection((range(2), range(100)))
    assert [piece.axes for piece in slabs(whole, 1, (2, 64), 40, 60)] == [
        *((range(row, row + 1), part) for row in (0, 1) for part in (range(0, 40), range(40, 64), range(64, 100)))
    ]


@pytest.mark.parametrize(
    ("key", "keeps"),
    [
        (np.s_[...], True),
        (np.s_[3, ::2, None], True),
        (np.s_[[1, 2, 3]], False),
        (np.s_[::-1], False),
        (np.s_[1, ::-2], False),
    ],
)
def test_only_what_is_read_in_the_order_of_the_answer_keeps_it(key, keeps):
    shape = (10, 10, 10)
    read = parse_key(key, shape)
    assert keeps_order(read) == keeps or not isinstance(read.what, Selection)
    if keeps_order(read):
        content = np.arange(1000).reshape(shape)
        np.testing.assert_array_equal(content[key].reshape(-1), items(content, read.what))
