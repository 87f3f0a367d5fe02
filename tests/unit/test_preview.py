"""Previews: what is read of a dataset, and what is told about it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from held_datasets import held_array, held_bytes
from test_reduction import naive

from zcat.errors import BadSelection, NotReadable, TooLarge
from zcat.model.geometry import chunks_touched
from zcat.model.reduction import Reduce, parse_fit
from zcat.model.selection import Selection, parse_key
from zcat.services.preview import PreviewAsk, PreviewLimits, plan_preview, read_preview

AMPLE = PreviewLimits(fetch_bytes=1 << 40, decode_bytes=1 << 40)
PIECE = 128 << 10


class Counted:
    """A dataset in memory that notes which chunks are read."""

    def __init__(self, array, chunks, blocks=None, cached=0):
        self._held = held_array("a.b2nd", array, chunks, blocks)
        count = self._held.info.geometry.nchunks
        # each chunk counts 1000 bytes on the wire
        self.info = replace(self._held.info, entry=replace(self._held.info.entry, cbytes=1000 * count))
        self.complete = cached == count
        self.in_blocks = False
        self.chunks = set()
        self._cached = cached

    def missing_count(self, chunks):
        return int((chunks >= self._cached).sum())

    def parts(self, what, window_bytes=None):
        length = len(what.axes[0])
        for low, high in itertools.pairwise(sorted({0, 1, length // 3, length - 1, length})):
            part = Selection((what.axes[0][low:high], *what.axes[1:]))
            self.chunks |= set(chunks_touched(self.info.geometry.array, part).tolist())
            yield (slice(low, high), *(slice(0, len(axis)) for axis in what.axes[1:])), self._held.read(part)


def asked(source, key, fit, reduce="mean", field="", exact=False):
    read = parse_key(key, source.info.geometry.array.shape)
    return PreviewAsk(read, parse_fit(fit, reduce), field, exact)


def preview(source, key, fit, reduce="mean", limits=AMPLE, **more):
    plan = plan_preview(source, asked(source, key, fit, reduce, **more), limits)
    block = read_preview(source, plan)
    assert (block.shape, block.dtype) == (plan.shape, plan.dtype)
    assert block.flags.c_contiguous
    return block, plan.told


@pytest.mark.parametrize("reduce", list(Reduce))
@pytest.mark.parametrize("key", [np.s_[...], np.s_[3, ::-1, 5:], np.s_[::2, 7], np.s_[-3:, ::3, ::-2], np.s_[4:4]])
def test_a_preview_of_all_items_is_what_numpy_makes_of_its_answer(key, reduce):
    array = np.random.default_rng(0).integers(0, 1000, (9, 20, 31)).astype("f4")
    array[array < 100] = np.nan
    answer = array[key]

    got, told = preview(Counted(array, (2, 7, 8), cached=10**6), key, "4x6", reduce.value)

    np.testing.assert_allclose(got, naive(answer, (4, 6), reduce), rtol=1e-6)
    assert told.exact
    assert told.chunks == told.chunks_of or reduce is Reduce.STRIDE


def test_what_was_done_is_told():
    source = Counted(np.zeros((10, 100, 100)), (1, 50, 50))

    _, told = preview(source, np.s_[2:5], "10x30")

    assert (told.reduce, told.factors, told.chunks, told.chunks_of) == ("mean", (1, 10, 4), 12, 12)
    assert len(source.chunks) == 12


def test_a_stride_reads_no_chunk_between_its_items():
    source = Counted(np.arange(10_000.0), (10,))

    got, told = preview(source, ..., "10", "stride")

    np.testing.assert_array_equal(got, np.arange(0, 10_000, 1000))
    assert (told.exact, told.chunks, told.chunks_of, len(source.chunks)) == (True, 10, 1000, 10)


def test_a_field_is_read_alone_and_one_with_a_shape_keeps_it():
    table = np.zeros(100, [("a", "i4"), ("b", "f4", (3,)), ("c", "S3")])
    table["a"] = np.arange(100)
    table["b"] = np.arange(300).reshape(100, 3)
    source = Counted(table, (10,), cached=10)

    np.testing.assert_array_equal(preview(source, ..., "10", field="a")[0], np.arange(4.5, 100, 10))
    np.testing.assert_array_equal(preview(source, ..., "10", field="b")[0], table["b"].reshape(10, 10, 3).mean(1))
    np.testing.assert_array_equal(preview(source, ..., "10", "stride", field="c")[0], table["c"][::10])
    np.testing.assert_array_equal(preview(source, ..., "10", "stride")[0], table[::10])
    for wrong in ({"field": "d"}, {}):
        with pytest.raises(BadSelection, match=r"has a, b, c|name a field \(a, b, c\)"):
            preview(source, ..., "10", **wrong)


def test_chunks_that_are_missing_are_sampled_beyond_the_budget_and_that_is_told():
    array = np.arange(100_000.0)
    source = Counted(array, (100,))

    got, told = preview(source, ..., "10", limits=replace(AMPLE, fetch_bytes=50_500))

    assert not told.exact
    assert (told.chunks, told.chunks_of, len(source.chunks)) == (50, 1000, 50)
    assert told.factors == (10_000,)
    np.testing.assert_allclose(got, naive(array, (10,), Reduce.MEAN), atol=1000)  # five chunks of each bin


def test_with_more_bins_than_chunks_may_be_read_the_answer_is_coarser():
    array = np.add.outer(np.arange(640.0), np.arange(640.0))
    source = Counted(array, (10, 10))

    got, told = preview(source, ..., "64x64", limits=replace(AMPLE, fetch_bytes=256_000))

    assert (told.exact, told.factors, told.chunks) == (False, (40, 40), 256)
    assert got.shape == (16, 16)
    np.testing.assert_allclose(got, naive(array, (16, 16), Reduce.MEAN), atol=40)


def test_what_is_cached_already_costs_nothing_of_the_budget():
    array = np.arange(100_000.0)
    tight = replace(AMPLE, fetch_bytes=50_500)

    assert preview(Counted(array, (100,), cached=950), ..., "10", limits=tight)[1].exact
    assert not preview(Counted(array, (100,), cached=949), ..., "10", limits=tight)[1].exact
    assert preview(Counted(array, (100,)), np.s_[:5000], "10", limits=tight)[1].exact


def test_of_what_is_cached_blocks_are_sampled_where_decoding_all_would_take_too_long():
    array = np.arange(2**20, dtype="f8")
    source = Counted(array, (2**17,), (2**14,), cached=8)  # eight chunks of 1 MiB, blocks of 128 KiB

    got, told = preview(source, ..., "4", limits=replace(AMPLE, decode_bytes=8 * PIECE))

    assert (told.exact, told.chunks, told.factors) == (False, 8, (2**18,))
    np.testing.assert_allclose(got, naive(array, (4,), Reduce.MEAN), atol=2**14)
    assert preview(source, ..., "4", limits=replace(AMPLE, decode_bytes=8 << 20))[1].exact


def test_where_blocks_can_be_fetched_each_of_many_bins_has_a_few():
    array = np.arange(2**20, dtype="f8")
    source = Counted(array, (2**17,), (2**14,))  # eight chunks of eight blocks, which cost 125 + 64 bytes each
    source.in_blocks = True
    tight = replace(AMPLE, fetch_bytes=16 * 189)

    got, told = preview(source, ..., "16", limits=tight)
    assert (told.exact, told.chunks, told.factors) == (False, 8, (2**16,))
    np.testing.assert_allclose(got, naive(array, (16,), Reduce.MEAN), atol=2**15)

    got, told = preview(source, ..., "16", "stride", limits=tight)
    assert told.exact
    np.testing.assert_array_equal(got, array[:: 2**16])
    assert len(preview(source, ..., "32", "stride", limits=tight)[0]) <= 16


def test_small_chunks_count_as_what_they_cost():
    source = Counted(np.arange(10_000.0), (10,), cached=1000)

    assert preview(source, ..., "10", limits=replace(AMPLE, decode_bytes=1000 * PIECE))[1].exact
    assert not preview(source, ..., "10", limits=replace(AMPLE, decode_bytes=999 * PIECE))[1].exact


def test_a_stride_beyond_the_budget_is_wider_and_told_not_to_be_exact():
    source = Counted(np.arange(100_000.0), (10,))

    got, told = preview(source, ..., "1000", "stride", limits=replace(AMPLE, fetch_bytes=100_000))

    assert not told.exact
    assert len(got) <= 100
    np.testing.assert_array_equal(got, np.arange(0, 100_000, told.factors[0]))


def test_whoever_must_have_it_exact_gets_it():
    array = np.arange(10_000.0)
    none = PreviewLimits(0, 0)

    got, told = preview(Counted(array, (10,)), ..., "10", limits=none, exact=True)

    assert told.exact
    np.testing.assert_allclose(got, naive(array, (10,), Reduce.MEAN))


@pytest.mark.parametrize("reduce", ["max", "stride"])
def test_axes_without_a_size_are_whole_or_refused(reduce):
    source = Counted(np.zeros((100, 30, 30)), (1, 10, 10))
    tight = replace(AMPLE, fetch_bytes=100_000)

    got, told = preview(source, ..., "10x10", reduce, limits=tight)
    assert (got.shape, told.exact, told.chunks) == ((100, 1, 1), False, 100)
    with pytest.raises(TooLarge, match=r"more than 99 parts of 1x10x10 items .*name an index of the other axes"):
        preview(source, ..., "10x10", reduce, limits=replace(AMPLE, fetch_bytes=99_000))


def test_an_empty_selection_has_an_empty_preview():
    got, told = preview(Counted(np.zeros((10, 10), "i8"), (5, 5)), np.s_[:, 3:3], "4x4")

    assert (got.shape, got.dtype, told.exact, told.chunks) == ((4, 0), np.dtype("f8"), True, 0)
    assert preview(Counted(np.zeros((0, 10)), (1, 5)), ..., "4")[0].shape == (0, 4)


def test_bytes_have_no_preview():
    source = held_bytes("a.txt", b"123")
    ask = PreviewAsk(parse_key(..., (3,)), parse_fit(2))

    with pytest.raises(NotReadable, match="no array"):
        plan_preview(source, ask, AMPLE)
