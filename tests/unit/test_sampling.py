"""Which items stand for many: bounds and coverage, whatever the selection."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.reduction import Bins
from zcat.model.sampling import INDICES_MAX, Along, columns, thin, widen


@st.composite
def alongs(draw):
    axis = range(draw(st.integers(0, 50)), draw(st.integers(51, 400)), draw(st.integers(1, 30)))
    bins = Bins(len(axis), 1, draw(st.booleans()))
    is_fitted = draw(st.booleans())
    if is_fitted:
        bins = bins.of_size(draw(st.integers(1, 100)))
    return Along(axis, draw(st.integers(1, 90)), bins, is_fitted)


def brute_columns(axis, unit):
    return len({int(item) // unit for item in axis})


@settings(max_examples=200, deadline=None)
@given(st.lists(alongs(), min_size=1, max_size=3), st.integers(1, 300))
def test_few_units_are_read_and_every_bin_has_some_of_its_items(axes, units_max):
    chosen = thin(axes, units_max)

    if chosen is None:
        assert math.prod(along.columns_min for along in axes) > units_max
        return
    touched = 1
    for along, (bins, positions) in zip(axes, chosen, strict=True):
        items = np.asarray(positions)
        assert (np.diff(items) > 0).all()
        assert items[0] >= 0
        assert items[-1] < len(along.axis)
        assert set(((items + bins.phase) // bins.factor).tolist()) == set(range(bins.length))
        assert bins.length <= along.bins.length
        assert along.is_fitted or bins == along.bins
        touched *= brute_columns(along.axis.start + items * along.axis.step, along.unit)
    assert touched <= units_max


@settings(max_examples=200, deadline=None)
@given(st.lists(alongs(), min_size=1, max_size=3), st.integers(1, 300))
def test_bins_are_widened_until_their_first_items_lie_in_few_units(axes, units_max):
    wide = widen(axes, units_max)

    if wide is None:
        return
    counts = []
    for along, bins in zip(axes, wide, strict=True):
        assert bins.length <= along.bins.length
        assert along.is_fitted or bins == along.bins
        counts.append(brute_columns([along.axis[item] for item in bins.firsts], along.unit))
    assert math.prod(counts) <= units_max


@settings(max_examples=100, deadline=None)
@given(alongs())
def test_columns_are_counted_without_looking_at_each_item(along):
    assert along.columns == brute_columns(along.axis, along.unit)
    assert columns(np.array(along.axis), along.unit) == along.columns


def test_where_all_may_be_read_nothing_is_left_out():
    axes = [Along(range(100), 10, Bins(100).of_size(7), True)]

    assert thin(axes, 10) == [(axes[0].bins, range(100))]
    assert widen(axes, 10) == [axes[0].bins]


def test_bins_of_many_columns_are_sampled_before_others_become_wider():
    rows = Along(range(1000), 10, Bins(1000).of_size(10), True)  # ten columns for each bin
    columns_ = Along(range(100), 10, Bins(100).of_size(100), True)

    (row_bins, some), (column_bins, all_of_them) = thin([rows, columns_], 100)

    assert (row_bins, column_bins) == (rows.bins, columns_.bins)
    assert len(some) == 100
    assert all_of_them == range(100)


def test_axes_without_a_size_are_never_thinned():
    axes = [Along(range(50), 1, Bins(50), False), Along(range(100), 10, Bins(100).of_size(20), True)]

    (planes, _), (rows, items) = thin(axes, 100)
    assert (planes, rows.length, len(items)) == (Bins(50), 2, 20)
    assert thin(axes, 49) is None
    assert widen(axes, 49) is None


def test_an_axis_of_any_length_costs_little_memory():
    axis = range(10**15)
    along = Along(axis, 10**9, Bins(len(axis)).of_size(1000), True)

    ((bins, items),) = thin([along], 5000)

    assert bins.length == 1000
    assert len(items) <= INDICES_MAX


@pytest.mark.parametrize("units_max", [1, 2, 3, 10])
def test_a_single_unit_is_enough_for_some_answer(units_max):
    along = Along(range(7, 1007), 16, Bins(1000).of_size(30), True)

    ((bins, items),) = thin([along], units_max)

    assert bins.length <= units_max
    assert brute_columns(items + 7, 16) <= units_max
