"""Chunks that are cached in part: what of them can be read, and when they are believed."""

import shutil
import threading
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_datasets import OWNER, sample_array

from zcat.errors import BadChunk, StorageFailed
from zcat.model.selection import Points, Selection
from zcat.storage.block_layout import cut
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.chunk_gate import digest
from zcat.storage.decoded_blocks import DecodedBlocks, KeptBlocks
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.reading import ChunkAbsent, read_points, read_selection
from zcat.storage.shared_dataset import SharedDataset

AMPLE = DiskLimits(1 << 30, 0, 0)
ARRAY = (np.random.default_rng(0).integers(0, 90, (300, 200)).cumsum() % 100_000).astype("<i4").reshape(300, 200)
SAMPLE = sample_array(ARRAY, (100, 200), (10, 50))  # 3 chunks of 40 blocks
OTHER = sample_array(ARRAY[::-1].copy(), (100, 200), (10, 50))
NBLOCKS = 40


def opened(cache, sample=SAMPLE):
    return cache.dataset("root", OWNER, sample.info)


def part(nchunk, blocks, sample=SAMPLE, vouch=False):
    made = cut(sample.chunks[nchunk], tuple(blocks))
    assert made is not None
    return replace(made, whole_digest=digest(sample.chunks[nchunk])) if vouch else made


def box(dataset, rows, columns=range(200)):
    with dataset.reading():
        return read_selection(dataset, Selection((rows, columns)))


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", AMPLE) as cache:
        yield cache


def test_blocks_that_are_there_are_read_and_others_are_not(cache):
    dataset = opened(cache)
    dataset.store_part(1, part(1, [4, 5]))

    assert np.array_equal(box(dataset, range(110, 120), range(100)), ARRAY[110:120, :100])
    assert np.array_equal(box(dataset, range(111, 119, 3), range(99, 40, -1)[::-1]), ARRAY[111:119:3, 41:100])
    for rows, columns in ((range(110, 120), range(101)), (range(109, 120), range(100)), (range(1), range(1))):
        with pytest.raises(ChunkAbsent):
            box(dataset, rows, columns)
    assert dataset.missing([0, 1, 2]) == [0, 1, 2]
    assert dataset.chunk(1) is None
    assert np.flatnonzero(dataset.blocks_there(1)).tolist() == [4, 5]
    assert dataset.blocks_there(0) is None


def test_a_step_that_ends_in_the_next_block_does_not_need_that(cache):
    dataset = opened(cache)
    dataset.store_part(0, part(0, [0]))
    assert np.array_equal(box(dataset, range(9, 11, 2), range(48, 52, 5)), ARRAY[9:11:2, 48:52:5])


def test_points_in_blocks_that_are_there_are_read(cache):
    dataset = opened(cache)
    dataset.store_part(0, part(0, [0, 7]))
    points = np.array([[0, 0], [19, 199], [5, 7], [11, 150]])

    with dataset.reading():
        assert np.array_equal(read_points(dataset, Points(points)), ARRAY[tuple(points.T)])
        with pytest.raises(ChunkAbsent):
            read_points(dataset, Points(np.array([[0, 0], [19, 0]])))


@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [
        (range(5, 100, 60), range(0, 200, 100), [0, 2, 24, 26]),
        (np.array([3, 4, 71]), range(10), [0, 28]),
        (range(0, 100, 50), np.array([1, 199]), [0, 3, 20, 23]),
    ],
    ids=["large steps", "a list", "steps and a list"],
)
def test_blocks_between_those_that_are_wanted_are_not_looked_at(cache, rows, columns, blocks):
    dataset = opened(cache)
    dataset.store_part(0, part(0, blocks))
    decoded = DecodedBlocks(1 << 20)
    kept = KeptBlocks(decoded, "lineage", SAMPLE.info.geometry.array)
    for _ in range(3):
        with dataset.reading():
            got = read_selection(dataset, Selection((rows, columns)), kept=kept)
        assert np.array_equal(got, ARRAY[np.ix_(rows, columns)])
    SAMPLE.stored_in(dataset)
    for _ in range(3):
        with dataset.reading():
            assert np.array_equal(
                read_selection(dataset, Selection((range(100), range(200))), kept=kept), ARRAY[:100]
            )
            for row in range(0, 100, 10):
                for column in range(0, 200, 50):
                    box = Selection((range(row, row + 9), range(column, column + 49)))
                    assert np.array_equal(
                        read_selection(dataset, box, kept=kept), ARRAY[row : row + 9, column : column + 49]
                    )


def test_a_handle_that_was_open_before_reads_blocks_that_came_later(cache):
    dataset = opened(cache)
    SAMPLE.stored_in(dataset, [2])
    assert np.array_equal(box(dataset, range(200, 202), range(3)), ARRAY[200:202, :3])
    dataset.store_part(0, part(0, [0]))
    assert np.array_equal(box(dataset, range(2), range(3)), ARRAY[:2, :3])
    dataset.store_part(0, part(0, [1]))
    assert np.array_equal(box(dataset, range(2), range(90)), ARRAY[:2, :90])


def test_a_chunk_of_which_all_blocks_came_is_whole_once_its_digest_is_right(cache):
    dataset = opened(cache)
    dataset.store_part(1, part(1, range(20)))
    dataset.store_part(1, part(1, range(10, 30)))
    assert dataset.chunk(1) is None
    dataset.store_part(1, part(1, range(30, NBLOCKS), vouch=True))

    with dataset.reading():
        assert bytes(dataset.chunk(1)) == SAMPLE.chunks[1]
    assert dataset.blocks_there(1) is None
    assert dataset.missing([0, 1, 2]) == [0, 2]


def test_a_vouched_part_that_leaves_blocks_missing_makes_nothing_whole(cache):
    dataset = opened(cache)
    dataset.store_part(1, part(1, range(10), vouch=True))
    assert dataset.chunk(1) is None


def test_a_digest_alone_makes_a_chunk_whole_of_which_all_blocks_are_there(cache):
    dataset = opened(cache)
    for blocks in (range(20), range(20, NBLOCKS)):
        dataset.store_part(1, part(1, blocks))
    dataset.store_part(1, part(1, [], vouch=True))
    assert dataset.missing([1]) == []


def test_a_whole_chunk_takes_the_place_of_its_parts(cache):
    dataset = opened(cache)
    dataset.store_part(1, part(1, range(3)))
    SAMPLE.stored_in(dataset)
    assert dataset.complete
    assert np.array_equal(box(dataset, range(300)), ARRAY)
    assert np.array_equal(blosc2.open(str(dataset.path))[:], ARRAY)


def test_a_part_of_a_chunk_that_is_whole_changes_nothing(cache):
    dataset = opened(cache)
    SAMPLE.stored_in(dataset)
    dataset.store_part(1, part(1, [1], OTHER))
    assert np.array_equal(box(dataset, range(300)), ARRAY)


def test_an_origin_that_contradicts_itself_is_not_kept_in_this_run(cache, tmp_path):
    dataset = opened(cache)
    dataset.store_part(1, part(1, [1]))
    with pytest.raises(BadChunk):
        dataset.store_part(1, part(1, [2], OTHER))
    assert dataset.blocks_there(1) is None
    assert not dataset.may_store_parts(1)
    with pytest.raises(StorageFailed):
        dataset.store_part(1, part(1, [2]))
    with pytest.raises(StorageFailed):
        SAMPLE.stored_in(dataset, [1])
    SAMPLE.stored_in(dataset, [0, 2])  # others are


def test_a_whole_chunk_that_contradicts_its_parts_is_not_kept(cache):
    dataset = opened(cache)
    dataset.store_part(0, part(0, [1]))
    with pytest.raises(StorageFailed):
        OTHER.stored_in(dataset, [0])
    assert dataset.missing([0]) == [0]
    assert dataset.blocks_there(0) is None


def test_a_chunk_whose_parts_do_not_have_its_digest_is_absent(cache):
    dataset = opened(cache)
    dataset.store_part(1, part(1, range(20)))
    wrong = replace(part(1, range(20, NBLOCKS)), whole_digest=bytes(32))
    with pytest.raises(BadChunk):
        dataset.store_part(1, wrong)
    assert dataset.missing([1]) == [1]
    assert dataset.blocks_there(1) is None


@pytest.mark.parametrize("is_clean", [True, False])
def test_chunks_that_were_there_in_part_are_absent_in_the_next_run(tmp_path, is_clean):
    folder = tmp_path / "cache"
    with ChunkCache(folder, AMPLE) as cache:
        dataset = opened(cache)
        SAMPLE.stored_in(dataset, [2])
        dataset.store_part(0, part(0, [1]))
        dataset.store_part(1, part(1, range(15)))
        if not is_clean:
            shutil.copytree(folder, tmp_path / "killed")
            folder = tmp_path / "killed"
    with ChunkCache(folder, AMPLE) as cache:
        dataset = opened(cache)
        assert dataset.missing([0, 1, 2]) == [0, 1]
        assert dataset.blocks_there(1) is None
        with pytest.raises(ChunkAbsent):
            box(dataset, range(100, 101))
        dataset.store_part(1, part(1, [20]))
        assert np.flatnonzero(dataset.blocks_there(1)).tolist() == [20]
        assert np.array_equal(box(dataset, range(250, 260)), ARRAY[250:260])


def test_what_this_run_found_right_stays_so_when_its_files_are_opened_again(cache):
    """Another process may be reading it just then."""
    dataset = opened(cache)
    SAMPLE.stored_in(dataset, [2])
    dataset.store_part(0, part(0, [1]))
    dataset.store_part(1, part(1, range(15)))
    cache._recent.clear()
    reader = SharedDataset(dataset.lineage.folder, SAMPLE.info)
    del dataset
    assert not len(cache._open)

    with reader.reading([0, 1, 2]):
        again = opened(cache)
        assert bytes(reader.chunk(2)) == SAMPLE.chunks[2]
        assert np.array_equal(box(reader, range(130, 140), range(50)), ARRAY[130:140, :50])
        assert np.array_equal(box(reader, range(10), range(50, 100)), ARRAY[:10, 50:100])
    assert again.missing([0, 1, 2]) == [0, 1]
    assert np.flatnonzero(again.blocks_there(1)).tolist() == list(range(15))
    again.store_part(1, part(1, range(15, NBLOCKS), vouch=True))
    assert again.missing([1]) == []


def test_parts_count_in_the_quota_and_are_evicted(tmp_path):
    large = sample_array(np.random.default_rng(1).integers(0, 1 << 20, (4000, 200)), (100, 200), (10, 50))
    with ChunkCache(tmp_path / "cache", DiskLimits(1 << 20, 0, 0)) as cache:
        dataset = opened(cache, large)
        for nchunk in range(40):
            dataset.store_part(nchunk, part(nchunk, range(30), large))
        there = [nchunk for nchunk in range(40) if dataset.blocks_there(nchunk) is not None]
        assert 0 < len(there) < 40
        assert cache.used_bytes <= 1 << 20


def test_who_reads_blocks_keeps_them(tmp_path):
    large = sample_array(np.random.default_rng(1).integers(0, 1 << 20, (4000, 200)), (100, 200), (10, 50))
    with ChunkCache(tmp_path / "cache", DiskLimits(1 << 20, 0, 0)) as cache:
        dataset = opened(cache, large)
        with dataset.reading([5]):
            for nchunk in (5, *range(6, 40)):
                dataset.store_part(nchunk, part(nchunk, range(30), large))
            assert dataset.blocks_there(5) is not None


def test_a_dataset_without_blocks_keeps_no_parts(cache):
    dataset = opened(cache, sample_array(ARRAY, (100, 200), (100, 200)))
    assert not dataset.may_store_parts(0)


@given(st.lists(st.tuples(st.integers(0, 2), st.sets(st.integers(0, NBLOCKS - 1), max_size=30)), max_size=8))
@settings(max_examples=25, deadline=None)
def test_whatever_came_in_which_order_is_there(tmp_path_factory, steps):
    with ChunkCache(tmp_path_factory.mktemp("cache"), AMPLE) as cache:
        dataset, there = opened(cache), {0: set(), 1: set(), 2: set()}
        for nchunk, blocks in steps:
            dataset.store_part(nchunk, part(nchunk, sorted(blocks), vouch=True))
            there[nchunk] |= blocks
        for nchunk, blocks in there.items():
            bits = dataset.blocks_there(nchunk)
            if len(blocks) == NBLOCKS:
                assert dataset.missing([nchunk]) == []
            elif bits is not None:
                assert set(np.flatnonzero(bits).tolist()) == blocks
            else:
                assert not blocks
            for nblock in blocks:
                row, column = nchunk * 100 + nblock // 4 * 10, nblock % 4 * 50
                got = box(dataset, range(row, row + 10), range(column, column + 50))
                assert np.array_equal(got, ARRAY[row : row + 10, column : column + 50])


def test_threads_that_store_parts_and_wholes_and_read_see_no_wrong_value(cache):
    dataset, errors = opened(cache), []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(60):
            nchunk, row, column = (int(random.integers(n)) for n in (3, 10, 4))
            try:
                if random.random() < 0.03:
                    SAMPLE.stored_in(dataset, [nchunk])
                dataset.store_part(nchunk, part(nchunk, [row * 4 + column]))
                top, left = nchunk * 100 + row * 10, column * 50
                got = box(dataset, range(top, top + 10), range(left, left + 50))
                assert np.array_equal(got, ARRAY[top : top + 10, left : left + 50])
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
