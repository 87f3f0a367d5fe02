"""Blocks that are kept decoded: which, how many, and whether what is read from them is right."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.dataset import ArrayGeometry
from zcat.storage.decoded_blocks import SEEN_ONCE_MAX, DecodedBlocks, KeptBlocks


def block(value: int, items: int = 100) -> np.ndarray:
    return np.full(items, value, np.int64)


def test_a_block_that_is_read_once_is_not_worth_it() -> None:
    kept = DecodedBlocks(10_000)

    assert kept.find([("l1", 2, (3,))], 800) is None
    assert kept.find([("l1", 2, (4,))], 800) is None


def test_a_block_is_kept_when_it_is_read_again() -> None:
    kept = DecodedBlocks(10_000)
    kept.find([("l1", 2, (3,))], 800)

    assert kept.find([("l1", 2, (3,))], 800) == [None]
    kept.put(("l1", 2, (3,)), block(7))
    found = kept.find([("l1", 2, (3,))], 800)

    assert found is not None
    assert found[0] is not None
    assert found[0][0] == 7


def test_the_bytes_are_bounded_and_what_is_used_stays() -> None:
    kept = DecodedBlocks(10 * 800)
    kept.put(("l0", 0, (0,)), block(0))
    for number in range(1, 50):
        kept.find([("l0", 0, (0,))], 800)
        kept.put(("l0", 0, (number,)), block(number))
        assert kept.held_bytes <= 10 * 800

    assert kept.find([("l0", 0, (0,))], 800) is not None
    assert kept.find([("l0", 0, (5,))], 800) is None


def test_putting_a_block_twice_counts_it_once() -> None:
    kept = DecodedBlocks(10_000)
    kept.put(("l0", 0, (0,)), block(1))
    kept.put(("l0", 0, (0,)), block(1))

    assert kept.held_bytes == 800


def test_a_block_larger_than_all_room_is_not_kept() -> None:
    kept = DecodedBlocks(799)
    kept.put(("l0", 0, (0,)), block(1))

    assert kept.held_bytes == 0


def test_a_long_pass_is_forgotten_and_pushes_nothing_out() -> None:
    kept = DecodedBlocks(10_000)
    kept.put(("l0", 0, (0,)), block(1))
    for number in range(13):
        assert kept.find([("l1", 0, (number,))], 800) is None

    assert kept.find([("l1", 0, (0,))], 800) is None
    assert kept.find([("l0", 0, (0,))], 800) is not None


def test_no_more_blocks_are_remembered_than_would_fit() -> None:
    kept = DecodedBlocks(10 * 800)
    for number in range(10):
        kept.find([("l1", 0, (number,))], 800)

    assert kept.find([("l1", 0, (0,))], 800) == [None]
    kept.find([("l1", 0, (10,))], 800)
    assert kept.find([("l1", 0, (0,))], 800) is None


def test_blocks_without_bytes_are_not_remembered_for_ever() -> None:
    kept = DecodedBlocks(10_000)
    for number in range(SEEN_ONCE_MAX + 1):
        kept.find([("l1", 0, (number,))], 0)

    assert kept.find([("l1", 0, (0,))], 0) is None


def test_without_room_nothing_is_done() -> None:
    kept = DecodedBlocks(0)

    assert kept.find([("l0", 0, (0,))], 800) is None
    assert kept.find([("l0", 0, (0,))], 800) is None


@st.composite
def boxes(draw: st.DrawFn) -> tuple[ArrayGeometry, int, list[tuple[list[int], list[int]]]]:
    ndim = draw(st.integers(1, 3))
    shape = [draw(st.integers(1, 20)) for _ in range(ndim)]
    chunks = [draw(st.integers(1, length)) for length in shape]
    blocks = [draw(st.integers(1, length)) for length in chunks]
    array = ArrayGeometry(tuple(shape), tuple(chunks), tuple(blocks), "<i4", 4)
    nchunk = draw(st.integers(0, math.prod(array.grid) - 1))
    within = [min(c, s - o) for c, s, o in zip(chunks, shape, origin(array, nchunk), strict=True)]
    asked = []
    for _ in range(draw(st.integers(2, 8))):
        low = [draw(st.integers(0, length - 1)) for length in within]
        high = [draw(st.integers(first + 1, length)) for first, length in zip(low, within, strict=True)]
        asked.append((low, high))
    return array, nchunk, asked


def origin(array: ArrayGeometry, nchunk: int) -> list[int]:
    return [int(at) * chunk for at, chunk in zip(np.unravel_index(nchunk, array.grid), array.chunks, strict=True)]


@settings(deadline=None, max_examples=200)
@given(boxes(), st.sampled_from([100, 1000, 100_000]))
def test_what_is_read_from_kept_blocks_is_what_decoding_gives(case: tuple, bytes_max: int) -> None:
    array, nchunk, asked = case
    corner = origin(array, nchunk)
    shape = [min(c, s - o) for c, s, o in zip(array.chunks, array.shape, corner, strict=True)]
    items = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    decoded = DecodedBlocks(bytes_max)
    kept = KeptBlocks(decoded, "lineage", array)

    def decode(start, stop):
        assert all(end <= length for end, length in zip(stop, shape, strict=True))
        return items[tuple(map(slice, start, stop))].copy()

    for (low, high), _ in itertools.product(asked, range(3)):
        out = np.empty([stop - start for start, stop in zip(low, high, strict=True)], np.int32)
        if kept.read(nchunk, low, out, decode):
            np.testing.assert_array_equal(out, items[tuple(map(slice, low, high))])
        assert decoded.held_bytes <= bytes_max


def test_a_window_that_is_read_again_and_again_is_decoded_once() -> None:
    array = ArrayGeometry((64, 64), (64, 64), (16, 16), "<i4", 4)
    items = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    kept = KeptBlocks(DecodedBlocks(1 << 20), "lineage", array)
    calls = []

    def decode(start, stop):
        calls.append(tuple(start))
        return items[tuple(map(slice, start, stop))].copy()

    out = np.empty((20, 20), np.int32)
    answers = [kept.read(0, [10, 10], out, decode) for _ in range(5)]

    assert answers == [False, True, True, True, True]
    assert sorted(calls) == [(0, 0), (0, 16), (16, 0), (16, 16)]
    np.testing.assert_array_equal(out, items[10:30, 10:30])


@pytest.mark.parametrize("side", [65, 80])
def test_a_read_of_many_blocks_is_left_to_decoding(side: int) -> None:
    array = ArrayGeometry((128, 128), (128, 128), (16, 16), "<i4", 4)
    kept = KeptBlocks(DecodedBlocks(1 << 20), "lineage", array)
    out = np.empty((side, side), np.int32)

    assert not any(kept.read(0, [0, 0], out, lambda *_: out) for _ in range(3))
