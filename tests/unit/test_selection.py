import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadSelection
from zcat.model.selection import (
    SLICE_TEXT_LENGTH_MAX,
    Points,
    Selection,
    check_points,
    parse_key,
    parse_slice_text,
    selection_text,
    slice_text,
)

QUICK = settings(max_examples=200, deadline=None)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def numbered(shape):
    return np.arange(np.prod(shape, dtype=int)).reshape(shape)


def block_of(data, what):
    """Read what a storage would read."""
    if isinstance(what, Points):
        return data[tuple(what.coordinates.T)] if data.ndim else np.full(what.size, data)
    return data[np.ix_(*what.axes)] if data.ndim else data.copy()


def outcome(make):
    try:
        return make()
    except (IndexError, TypeError, ValueError) as error:
        return error


def agree(data, key):
    """Compare what NumPy makes of a key with what is read and finished here; return the read."""
    wanted = outcome(lambda: data[key])
    read = outcome(lambda: parse_key(key, data.shape))
    if isinstance(wanted, Exception):
        assert isinstance(read, BadSelection), (key, wanted, read)
        return str(wanted), str(read)
    assert not isinstance(read, Exception), (key, read)
    answer = read.finish(block_of(data, read.what))
    assert type(answer) is type(wanted), key
    assert answer.shape == wanted.shape == read.shape, key
    assert answer.dtype == wanted.dtype
    np.testing.assert_array_equal(answer, wanted)
    check_form(read.what, data.shape)
    return None


def check_form(what, shape):
    if isinstance(what, Points):
        assert what.coordinates.dtype == np.int64
        assert what.coordinates.flags.c_contiguous
        assert what.coordinates.shape == (what.size, len(shape))
        assert ((what.coordinates >= 0) & (what.coordinates < np.array(shape, int))).all()
        return
    for axis in what.axes:
        if isinstance(axis, range):
            assert axis.step > 0
        else:
            assert axis.dtype == np.int64
            assert (np.diff(axis) > 0).all()


# -- keys that NumPy draws up the rules for ----------------------------------------------------------


@st.composite
def slices(draw, length):
    bound = st.none() | st.integers(-length - 2, length + 2)
    step = st.none() | st.integers(-4, 4).filter(bool) | st.sampled_from([10**30, -(10**30)])
    return slice(draw(bound), draw(bound), draw(step))


@st.composite
def integers(draw, length):
    index = draw(st.integers(-max(length, 1), max(length, 1) - 1))
    return draw(st.sampled_from([int, np.int64, np.int8, lambda i: np.array(i)]))(index)


@st.composite
def arrays_of_integers(draw, length, shapes):
    shape = draw(shapes)
    size = int(np.prod(shape))
    index = st.integers(-length, length - 1) if length else st.nothing()
    values = draw(st.lists(index, min_size=size, max_size=size)) if length else []
    array = np.array(values[:size] if length or not size else [0] * size, dtype=draw(st.sampled_from("ilb")))
    array = array.reshape(shape)
    return draw(st.sampled_from([array, array.tolist()]))


@st.composite
def keys(draw, shape, only_basic=False):
    """Draw a key that mostly fits: parts for some leading axes, an ellipsis somewhere, new axes in between."""
    parts, axis = [], 0
    last = draw(st.integers(0, len(shape)))
    common = draw(st.sampled_from([(2,), (3,), (1,), (2, 3), (0,)]))
    broadcastable = st.sampled_from([common, common[-1:], (1,), (1, 1)])
    kinds = ["slice", "slice", "integer", "newaxis"]
    if not only_basic:
        kinds += ["array", "array", "mask", "mask 0-d"]
    while axis < last:
        kind = draw(st.sampled_from(kinds))
        if kind == "newaxis":
            parts.append(None)
        elif kind == "mask 0-d":
            parts.append(draw(st.sampled_from([True, False, np.True_, np.array(True), np.array(False)])))
        elif kind == "mask":
            ndim = draw(st.integers(1, last - axis))
            size = int(np.prod(shape[axis : axis + ndim]))
            bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
            mask = np.array(bits, bool).reshape(shape[axis : axis + ndim])
            parts.append(mask if draw(st.booleans()) or not size else mask.tolist())
            axis += ndim
        else:
            make = {"slice": slices, "integer": integers}.get(kind)
            length = shape[axis]
            parts.append(draw(make(length) if make else arrays_of_integers(length, broadcastable)))
            axis += 1
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@st.composite
def cases(draw, only_basic=False):
    shape = draw(SHAPES)
    return shape, draw(keys(shape, only_basic))


@given(cases(only_basic=True))
@QUICK
def test_integers_and_slices_give_what_numpy_gives(case):
    shape, key = case
    texts = agree(numbered(shape), key)
    assert texts is None or texts[0] == texts[1]


@given(cases())
@settings(QUICK, max_examples=600)
def test_any_key_gives_what_numpy_gives(case):
    shape, key = case
    texts = agree(numbered(shape), key)
    assert texts is None or texts[0] == texts[1]


@given(SHAPES, SHAPES.flatmap(keys))
@QUICK
def test_a_key_for_another_shape_is_refused_as_numpy_refuses_it(shape, key):
    agree(numbered(shape), key)


@given(SHAPES.filter(lambda shape: 0 not in shape and shape), st.data())
@QUICK
def test_arrays_of_any_order_on_every_axis_give_what_numpy_gives(shape, data):
    key = tuple(
        np.array(data.draw(st.lists(st.integers(-n, n - 1), min_size=3, max_size=3))).reshape(
            data.draw(st.sampled_from([(3,), (3, 1), (1, 3)]))
        )
        for n in shape
    )
    assert agree(numbered(shape), key) is None


@pytest.mark.parametrize(
    "key",
    [
        (0, 0, 0, 0),
        4,
        -5,
        (0, 99),
        10**30,
        [10**30],
        "x",
        ("x", 0),
        1.5,
        [0.5],
        np.array([], float),
        object(),
        {1: 2},
        [[1], [2, 3]],
        (..., ...),
        (..., [0], ...),
        slice("a"),
        slice(None, None, 0),
        ([0], slice(None, None, 0)),
        (None,) * 70,
        ([0, 1], [0, 1, 2]),
        ([0, 9],),
        ([0, -9], ...),
        (..., [7]),
        np.ones(3, bool),
        np.ones((4, 5), bool),
        (np.ones((4, 3), bool), 0, 0),
        ([0, 0], 9),
        (9, []),
        ([], [77]),
        [slice(None)],
        ["a", "b"],
    ],
    ids=repr,
)
def test_what_numpy_refuses_is_refused_in_its_words(key):
    texts = agree(numbered((4, 3, 2)), key)
    assert texts is None or texts[0] == texts[1]


@pytest.mark.parametrize(
    "key", [(), ..., None, True, False, (True, ...), ([],), 0, (None, ..., None), np.array(True)]
)
def test_data_without_axes_is_a_scalar_or_an_array_as_in_numpy(key):
    texts = agree(np.array(7), key)
    assert texts is None or texts[0] == texts[1]


def test_a_refusal_is_an_index_error():
    with pytest.raises(IndexError, match="index 4 is out of bounds for axis 0 with size 4"):
        parse_key(4, (4,))


def test_structured_items_are_finished_as_any_other():
    data = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])

    assert agree(data, 1) is None
    assert agree(data, [1, 0]) is None


# -- what is read ------------------------------------------------------------------------------------


def test_indices_on_one_axis_are_read_as_a_box_without_repeats():
    read = parse_key([5, 2, 2, -1], (10, 3))

    assert isinstance(read.what, Selection)
    np.testing.assert_array_equal(read.what.axes[0], [2, 5, 9])
    assert read.what.axes[1] == range(3)
    assert not read.what.is_contiguous


def test_indices_at_equal_distances_are_read_as_a_range():
    assert parse_key([8, 2, 5], (10,)).what.axes == (range(2, 9, 3),)
    assert parse_key(np.arange(3, 9), (10,)).what.is_contiguous


def test_a_diagonal_is_read_as_points():
    read = parse_key((np.arange(100), np.arange(100)), (100, 100))

    assert isinstance(read.what, Points)
    assert read.what.size == 100


def test_a_dense_mask_is_read_as_a_box():
    mask = np.random.default_rng(0).random((200, 200)) < 0.5

    read = parse_key(mask, (200, 200))

    assert isinstance(read.what, Selection)
    assert read.what.shape == (200, 200)


def test_a_key_that_takes_nothing_reads_nothing():
    for key in (False, [], np.zeros((3, 4), bool), slice(0, 0), ([0], slice(5, 5))):
        assert parse_key(key, (3, 4)).what.is_empty


def test_a_dataset_larger_than_memory_costs_nothing():
    shape = (1 << 25, 1 << 24)

    assert parse_key(..., shape).what.size == 1 << 49
    assert parse_key(([1 << 24, 3], [5, -1]), shape).what.size == 2
    assert parse_key(([1 << 24, 3], slice(None, 10)), shape).what.shape == (2, 10)
    with pytest.raises(BadSelection, match="out of bounds"):
        parse_key((np.arange(1000)[:, None], np.arange(1000) + shape[1]), shape)


def test_points_from_outside_are_checked():
    points = check_points([[0, -1], [2, 3]], (3, 4))

    np.testing.assert_array_equal(points.coordinates, [[0, 3], [2, 3]])
    for wrong in ([[3, 0]], [[0, -5]], [0, 1], [[0]], [[0.0, 1.0]], [["a", "b"]]):
        with pytest.raises(BadSelection, match="point"):
            check_points(wrong, (3, 4))


# -- as text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ()),
        ("  ", ()),
        ("5", (5,)),
        ("-1, 2:8", (-1, slice(2, 8))),
        ("10:20, 0:5, ::2", (slice(10, 20), slice(0, 5), slice(None, None, 2))),
        (" : , ... , 3 : 9 : -1 ", (slice(None), ..., slice(3, 9, -1))),
        ("99999999999999999999:", (slice(99999999999999999999, None),)),
    ],
)
def test_a_slice_text_is_read(text, key):
    assert parse_slice_text(text, (30, 20, 10)) == key


@pytest.mark.parametrize(
    "text",
    ["a", "1,", ",", "1:2:3:4", "1.5", "1_0", "1e3", "--1", "- 1", "0x1", "[1]", "None", "....", ". . .", "²",
     "1\n", "::0", "30", "-31", "0,0,0,0", "...,...", "1;2", "\x00", "0" * (SLICE_TEXT_LENGTH_MAX + 1), "0," * 33],
)  # fmt: skip
def test_a_malformed_slice_text_is_refused(text):
    with pytest.raises(BadSelection):
        parse_slice_text(text, (30, 20, 10))


def test_the_refusal_of_a_text_says_what_is_wanted():
    with pytest.raises(BadSelection, match="'x' is no part of a slice: wanted an integer, start:stop"):
        parse_slice_text("1:2, x", (10, 10))


@given(cases(only_basic=True))
@QUICK
def test_a_key_written_as_text_takes_the_same_items(case):
    shape, key = case
    data = numbered(shape)
    text = slice_text(key)
    wanted = outcome(lambda: data[key])
    if text is not None and not isinstance(wanted, Exception):
        np.testing.assert_array_equal(data[parse_slice_text(text, shape)], wanted)


def test_a_key_that_has_no_text_is_none():
    for key in (
        None,
        [1],
        True,
        slice(True),
        "a",
        1.0,
        (0, None),
        np.arange(3),
        (0,) * 33,
        10**5000,
        slice(0, 1 << 63),
    ):
        assert slice_text(key) is None
    assert slice_text((np.int64(3), slice(None, -1), ..., slice(1, 2, 3))) == "3,:-1,...,1:2:3"


def test_a_selection_is_written_as_text():
    assert selection_text(parse_key((slice(1, 9, 4), 2), (10, 10, 3)).what) == "1:6:4,2:3,0:3"
    assert selection_text(parse_key([0, 1, 5], (10,)).what) is None


@given(st.text("0123456789:-., ", max_size=20))
@QUICK
def test_any_text_is_a_key_or_a_refusal(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        key = outcome(lambda: parse_slice_text(text, (7, 6, 5)))
    if not isinstance(key, Exception):
        numbered((7, 6, 5))[key]
    else:
        assert isinstance(key, BadSelection)
