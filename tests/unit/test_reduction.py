"""Fewer items from many, compared with NumPy doing it bin by bin."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadMessage, BadRequest, BadSelection
from zcat.model.reduction import (
    Bins,
    Fit,
    Reduce,
    Reduced,
    Reducer,
    bins_of,
    parse_fit,
    parse_reduced,
    reduced_dtype,
)
from zcat.model.selection import parse_key

NUMBERS = ["?", "i1", "u2", "<i4", ">i4", "u8", "f2", "f4", ">f8", "c8", "c16", "M8[s]", "m8[ms]"]


def naive(answer, sizes, reduce):
    """Reduce NumPy's answer to the key, one bin after the other."""
    sizes = (*answer.shape[: answer.ndim - len(sizes)], *sizes)
    factors = [max(-(-n // size), 1) if size else 1 for n, size in zip(answer.shape, sizes, strict=True)]
    counts = [-(-n // factor) for n, factor in zip(answer.shape, factors, strict=True)]
    result = np.empty(counts, reduced_dtype(answer.dtype, reduce))
    for index in itertools.product(*map(range, counts)):
        box = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))
        result[index] = naive_item(answer[box].ravel(), reduce)
    return result


def naive_item(items, reduce):
    if reduce is Reduce.STRIDE:
        return items[0]
    if items.dtype.kind in "fcmM":
        there = items[~(np.isnat(items) if items.dtype.kind in "mM" else np.isnan(items))]
        if not len(there):
            return items[0] if items.dtype.kind in "mM" else np.nan
        items = there
    if reduce is Reduce.MEAN:
        return items.astype("c16" if items.dtype.kind == "c" else "f8").mean()
    return items.min() if reduce is Reduce.MIN else items.max()


def reduced(array, key, sizes, reduce, cuts):
    """Reduce by parts, cut at some positions of each axis."""
    read = parse_key(key, array.shape)
    bins = bins_of(read, sizes)
    axes = read.what.axes
    reducer = Reducer(bins, [range(len(axis)) for axis in axes], array.dtype, reduce)
    block = array[np.ix_(*map(list, axes))] if axes else array
    for place in places(block.shape, cuts):
        reducer.add(place, block[place])
    return read.finish(reducer.result())


def places(shape, cuts):
    if 0 in shape:
        return []
    borders = [sorted({0, n, *(cut % n for cut in cuts)}) for n in shape]
    spans = [[slice(*pair) for pair in itertools.pairwise(along)] for along in borders]
    return list(itertools.product(*spans))[::-1]


def sample(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    items = rng.integers(-100, 100, shape)
    kind = np.dtype(dtype).kind
    if kind == "u":
        items = abs(items)
    array = (items > 0) if kind == "b" else items.astype(dtype)
    if kind in "fc":
        array[rng.random(shape) < 0.3] = np.nan
    if kind in "mM":
        array[rng.random(shape) < 0.3] = "NaT"
    return array.astype(dtype)


slices = st.builds(slice, *[st.none() | st.integers(-9, 9)] * 2, st.sampled_from([None, 1, 2, -1, -3]))


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    dtype=st.sampled_from(NUMBERS),
    reduce=st.sampled_from([Reduce.MEAN, Reduce.MIN, Reduce.MAX]),
    sizes=st.lists(st.integers(1, 10), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 9), max_size=3),
    data=st.data(),
)
def test_any_selection_in_any_parts_is_what_numpy_makes_of_its_bins(shape, dtype, reduce, sizes, cuts, data):
    array = sample(dtype, shape, seed=sum(shape))
    key = tuple(data.draw(st.lists(slices, max_size=len(shape))))
    answer = array[key]
    sizes = sizes[: answer.ndim]
    try:
        wanted = naive(answer, sizes, reduce)
    except BadSelection:
        with pytest.raises(BadSelection):
            reduced(array, key, sizes, reduce, cuts)
        return

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = reduced(array, key, sizes, reduce, cuts)

    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    if reduce is Reduce.MEAN:
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    else:
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("factor", [2, 3, 63, 64, 65, 100, 999, 5000])
@pytest.mark.parametrize("key", [np.s_[:], np.s_[::-1], np.s_[3:4990:7]])
def test_bins_of_any_width_are_folded_alike(factor, key):
    array = np.arange(5000.0)
    size = -(-len(array[key]) // factor)

    for reduce in (Reduce.MEAN, Reduce.MAX):
        got = reduced(array, key, [size], reduce, cuts=[17, 1000, 1001, 3333])

        np.testing.assert_allclose(got, naive(array[key], [size], reduce), rtol=1e-13)


def test_integers_leave_axes_out_and_sizes_belong_to_the_last_of_the_others():
    array = np.arange(4 * 6 * 8).reshape(4, 6, 8)

    got = reduced(array, np.s_[:, 2, ::-1], (3,), Reduce.MAX, cuts=[3])

    np.testing.assert_array_equal(got, naive(array[:, 2, ::-1], (3,), Reduce.MAX))
    assert got.shape == (4, 3)


def test_some_positions_of_each_bin_give_the_mean_of_those():
    array = np.arange(20.0)
    chosen = np.array([0, 1, 6, 12, 13, 14, 19])
    reducer = Reducer([Bins(20, 5)], [chosen], array.dtype, Reduce.MEAN)

    reducer.add([slice(0, 3)], array[chosen[:3]])
    reducer.add([slice(3, 7)], array[chosen[3:]])

    np.testing.assert_array_equal(reducer.result(), [0.5, 6, 13, 19])


def test_a_field_with_a_shape_is_reduced_item_by_item():
    dtype = np.dtype(("f4", (3,)))
    block = np.arange(24, dtype="f4").reshape(8, 3)
    block[0, 1] = np.nan
    reducer = Reducer([Bins(8, 4)], [range(8)], dtype, Reduce.MEAN)

    reducer.add([slice(0, 8)], block)

    np.testing.assert_array_equal(reducer.result(), [[4.5, 7, 6.5], [16.5, 17.5, 18.5]])


def test_infinities_count_and_bins_without_numbers_are_nan():
    array = np.array([np.inf, 1, np.inf, -np.inf, np.nan, np.nan, -np.inf, np.nan])

    np.testing.assert_array_equal(reduced(array, ..., [4], Reduce.MEAN, []), [np.inf, np.nan, np.nan, -np.inf])
    np.testing.assert_array_equal(reduced(array, ..., [4], Reduce.MIN, []), [1, -np.inf, np.nan, -np.inf])


def test_large_integers_and_large_floats_do_not_wrap_around():
    assert reduced(np.full(9, 2**62), ..., [1], Reduce.MEAN, []).tolist() == [2.0**62]
    assert reduced(np.full(9, 255, "u1"), ..., [1], Reduce.MEAN, []).tolist() == [255]
    assert reduced(np.full(9, 6e4, "f2"), ..., [1], Reduce.MEAN, []).tolist() == [60000]


@pytest.mark.parametrize(
    ("before", "after"),
    [("?", "<f4"), ("i2", "<f4"), ("f2", "<f4"), (">f4", "<f4"), ("u4", "<f8"), ("f8", "<f8"), ("c8", "c8")],
)
def test_means_have_the_type_that_is_written_down(before, after):
    assert reduced_dtype(np.dtype(before), Reduce.MEAN) == np.dtype(after)


@pytest.mark.parametrize(
    ("dtype", "reduce", "says"),
    [
        ("S5", Reduce.MEAN, "wanted reduce=stride"),
        ("U5", Reduce.MAX, "wanted reduce=stride"),
        ("V5", Reduce.MIN, "wanted reduce=stride"),
        ("c8", Reduce.MIN, "wanted reduce=mean or stride"),
        ("M8[s]", Reduce.MEAN, "wanted reduce=min, max or stride"),
        ("i4,f4", Reduce.MEAN, r"name a field \(f0, f1\)"),
    ],
)
def test_what_has_no_mean_or_no_order_is_refused_with_what_there_is(dtype, reduce, says):
    with pytest.raises(BadSelection, match=says):
        reduced_dtype(np.dtype(dtype), reduce)
    assert reduced_dtype(np.dtype(dtype), Reduce.STRIDE) == np.dtype(dtype)


@pytest.mark.parametrize("sizes", ["1024x768", " 1024 x 768", (1024, 768), [np.int64(1024), 768]])
def test_a_fit_may_be_written_in_several_ways(sizes):
    assert parse_fit(sizes, "max") == Fit((1024, 768), Reduce.MAX)
    assert parse_fit(sizes).text == "1024x768"
    assert parse_fit(7) == parse_fit("7")


@pytest.mark.parametrize(
    "sizes", ["", "0", "1x0", "-1", "1x", "x", "1.5", "1,2", "٣", "9" * 19, (), (1.5,), None, True, [1] * 9]
)
def test_what_is_no_fit_is_refused(sizes):
    with pytest.raises(BadRequest, match="such as 1024x768"):
        parse_fit(sizes)


def test_an_unknown_way_to_reduce_is_refused():
    with pytest.raises(BadRequest, match="wanted one of mean, min, max, stride"):
        parse_fit(3, "median")


@pytest.mark.parametrize("key", [np.s_[[1, 2]], np.s_[None], np.s_[:, [0, 2], [1, 3]]])
def test_lists_masks_and_new_axes_have_no_fit(key):
    with pytest.raises(BadSelection, match="integers and slices"):
        bins_of(parse_key(key, (4, 5, 6)), (2,))


def test_more_sizes_than_axes_are_refused():
    with pytest.raises(BadSelection, match="fit=2x2 has 2 sizes, but the selection has 1 axes"):
        bins_of(parse_key(np.s_[1, :, 2], (4, 5, 6)), (2, 2))


def test_bins_are_as_wide_as_the_size_demands_and_no_wider():
    for count, size in itertools.product([0, 1, 2, 9, 10, 11, 10**15], [1, 2, 5, 10, 11, 10**17]):
        bins = Bins(count).of_size(size)
        assert bins.length <= size
        assert bins.factor == 1 or math.ceil(count / (bins.factor - 1)) > size
        assert len(bins.firsts) == bins.length


def test_what_was_done_goes_with_the_preview_as_text():
    told = Reduced(False, "mean", (1, 98), 256, 38000)

    assert parse_reduced(told.text) == told
    for text in ("", "3", "{}", "[" * 10000, '{"exact":1}'):
        with pytest.raises(BadMessage):
            parse_reduced(text)
