import contextlib
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from blosc2_frames import ARRAYS, same, values
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_datasets import OWNER, ZSTD, sample_array, sample_frame

from zcat.errors import BadContent, BadSelection
from zcat.model.selection import Selection, check_points, parse_key
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.chunk_gate import digest
from zcat.storage.decoded_blocks import DecodedBlocks, KeptBlocks
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.reading import ChunkAbsent, LooseChunks, read_bytes, read_points, read_selection

LIMITS = DiskLimits(1 << 30, 0, 0)


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", LIMITS) as cache:
        yield cache


@contextlib.contextmanager
def sources(cache, sample):
    """All ways to have the chunks: on disk, in memory, and half of them here and there."""
    cached = sample.stored_in(cache.dataset("root", OWNER, sample.info))
    loose = dict(enumerate(sample.chunks))
    even = {nchunk: chunk for nchunk, chunk in loose.items() if nchunk % 2 == 0}
    with cached.reading():
        yield [cached, LooseChunks(sample.info, loose), LooseChunks(sample.info, even, cached)]


def read(source, key):
    wanted = parse_key(key, source.info.geometry.array.shape)
    how = read_selection if isinstance(wanted.what, Selection) else read_points
    return wanted.finish(how(source, wanted.what))


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), ARRAYS)
def test_whole_arrays_of_all_kinds_are_read(cache, shape, chunks, blocks, dtype):
    array = values(shape, dtype)
    with sources(cache, sample_array(array, chunks, blocks)) as each:
        for source in each:
            result = read(source, ...)
            assert result.dtype == array.dtype
            assert same(result, array)


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), [a for a in ARRAYS if a[0] and 0 not in a[0]])
def test_single_items_of_all_kinds_are_read(cache, shape, chunks, blocks, dtype):
    array = values(shape, dtype)
    corner = [[0] * len(shape), [-1] * len(shape), [n // 2 for n in shape], [0] * len(shape)]
    with sources(cache, sample_array(array, chunks, blocks)) as each:
        for source in each:
            result = read_points(source, check_points(corner, shape))
            assert same(result, array[tuple(np.array(corner).T)])


KEYS = [
    np.s_[3:9, 50:60],
    np.s_[5, 7],
    np.s_[::3, ::-7],
    np.s_[40:41],
    np.s_[[1, 5, 6, 44], 3:70:2],
    np.s_[[1, 5, 44], [0, 99, 50]],
    np.s_[..., 17],
    np.s_[10:10, :],
    np.s_[2:4, [3, 4, 9]],
    np.arange(4500).reshape(45, 100) % 71 == 0,
]


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), [a for a in ARRAYS if a[0] and 0 not in a[0]])
def test_what_is_read_again_and_again_stays_right(cache, shape, chunks, blocks, dtype):
    array = values(shape, dtype)
    rng = np.random.default_rng(1)
    with sources(cache, sample_array(array, chunks, blocks)) as each:
        for source in each:
            decoded = DecodedBlocks(4 * source.info.geometry.blocksize)
            kept = KeptBlocks(decoded, "lineage", source.info.geometry.array)
            for _ in range(10):
                low = [int(rng.integers(length)) for length in shape]
                steps = [int(rng.integers(1, 3)) for _ in shape]
                key = tuple(slice(at, at + 4 * step, step) for at, step in zip(low, steps, strict=True))
                selection = parse_key(key, shape).what
                for _ in range(4):
                    assert same(read_selection(source, selection, kept=kept), array[key])
            assert decoded.held_bytes <= 4 * source.info.geometry.blocksize


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_parts_are_what_numpy_gives(cache, key):
    array = np.arange(4500, dtype="<i4").reshape(45, 100)
    with sources(cache, sample_array(array, (20, 50), (4, 8))) as each:
        for source in each:
            assert np.array_equal(read(source, key), array[key])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_box_of_any_geometry_is_what_numpy_gives(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    blocks = tuple(data.draw(st.integers(1, n)) for n in chunks)
    array = values(shape, "<u2") + np.arange(np.prod(shape), dtype="<u2").reshape(shape)
    key = tuple(
        data.draw(st.one_of(st.slices(n), st.integers(-n, n - 1), st.lists(st.integers(0, n - 1), min_size=1)))
        for n in shape
    )
    try:
        wanted = array[key]
    except IndexError:
        return
    folder = tmp_path_factory.mktemp("cache")
    with ChunkCache(folder, LIMITS) as cache, sources(cache, sample_array(array, chunks, blocks)) as each:
        for source in each:
            assert np.array_equal(read(source, key), wanted)


def test_results_are_in_c_order_and_belong_to_the_caller(cache):
    array = np.arange(64 * 64, dtype="<f4").reshape(64, 64)
    with sources(cache, sample_array(array, (64, 64), (8, 16))) as each:
        for source in each:
            for axes in [(range(64), range(64)), (range(4), range(8)), (range(0, 64, 5), range(3, 9))]:
                result = read_selection(source, Selection(axes))
                assert result.flags.c_contiguous
                assert result.flags.owndata
                result[...] = 0
            assert np.array_equal(read(source, ...), array)


def test_many_points_in_one_chunk_are_read_in_their_order(cache):
    array = np.arange(64 * 64).reshape(64, 64)
    coordinates = np.random.default_rng(0).integers(0, 64, (500, 2))
    with sources(cache, sample_array(array, (64, 64), (8, 16))) as each:
        for source in each:
            for count in (1, 10, 500):
                points = check_points(coordinates[:count], (64, 64))
                assert np.array_equal(read_points(source, points), array[tuple(coordinates[:count].T)])


@pytest.mark.parametrize("filters", [(0, 0, 0, 0, 0, 3), (0, 0, 0, 0, 3, 1)])
def test_parts_of_chunks_that_store_differences_are_right(cache, filters):
    array = np.random.default_rng(0).integers(0, 100, (400, 500)).cumsum().astype("<i4").reshape(400, 500)
    sample = sample_array(array, (200, 250), (20, 25), compression=replace(ZSTD, filters=filters))
    points = np.random.default_rng(1).integers(0, 400, (5, 2))
    with sources(cache, sample) as each:
        for source in each:
            assert same(read(source, np.s_[230:235, 100:110]), array[230:235, 100:110])
            assert same(read_points(source, check_points(points, array.shape)), array[tuple(points.T)])


def test_bytes_of_chunks_that_store_differences_are_right(cache):
    content = np.arange(60_000, dtype="<u2").tobytes()
    options = {"typesize": 2, "nthreads": 1, "blocksize": 4096, "filters": [blosc2.Filter.DELTA]}
    whole = sample_frame(content, len(content), typesize=2)
    sample = replace(whole, chunks=[bytes(blosc2.compress2(content, **options))])
    with sources(cache, sample) as each:
        for source in each:
            assert read_bytes(source, 90_001, 90_100) == content[90_001:90_100]


def test_a_field_of_a_structured_type_is_read_alone(cache):
    array = values((40, 3), [("a", "<i4"), ("b", "|S3")])
    with sources(cache, sample_array(array, (15, 2), (4, 2))) as each:
        result = read_selection(each[0], Selection((range(3, 30), range(3))), field="a")

        assert result.flags.c_contiguous
        assert np.array_equal(result, array[3:30]["a"])
        with pytest.raises(BadSelection, match="wanted one of"):
            read_selection(each[0], Selection((range(3), range(3))), field="c")


@pytest.mark.parametrize("typesize", [1, 4])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 20_000), (0, 0), (19_999, 20_000), (8_190, 8_200), (5, 300), (1, 19_999)]
)
def test_bytes_of_a_frame_are_read(cache, typesize, start, stop):
    content = np.random.default_rng(0).bytes(20_000)
    with sources(cache, sample_frame(content, 8192, typesize=typesize)) as each:
        for source in each:
            assert read_bytes(source, start, stop) == content[start:stop]


def test_all_chunks_that_are_missing_are_named(cache):
    sample = sample_array(np.arange(100), (10,), (5,))
    dataset = sample.stored_in(cache.dataset("root", OWNER, sample.info), [2, 3])

    with dataset.reading(), pytest.raises(ChunkAbsent) as caught:
        read(dataset, np.s_[15:55])

    assert caught.value.chunks == (1, 4, 5)


def test_a_chunk_that_its_origin_vouched_for_but_nobody_can_decode_is_an_error(cache):
    sample = sample_array(np.random.default_rng(0).normal(size=5000).cumsum(), (5000,), (500,))
    chunk = bytearray(sample.chunks[0])
    chunk[32:72] = b"\xff" * 40  # block offsets
    dataset = cache.dataset("root", OWNER, sample.info)
    dataset.store(0, chunk, digest(chunk))

    for key in (np.s_[:], np.s_[10:12]):
        with dataset.reading(), pytest.raises(BadContent, match="cannot be decoded"):
            read(dataset, key)
