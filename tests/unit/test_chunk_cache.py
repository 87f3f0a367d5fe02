import contextlib
import dataclasses
import gc
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sample_datasets import OWNER, noise, sample_array, sample_frame

from zcat.errors import BadChunk, BadName, CacheInUse, Closed, StorageFailed
from zcat.model.selection import Selection
from zcat.storage.chunk_cache import OPEN_MAX, ChunkCache
from zcat.storage.chunk_gate import digest
from zcat.storage.disk_budget import FULL_FOR_S, DiskLimits
from zcat.storage.reading import read_selection

AMPLE = DiskLimits(1 << 30, 0, 0)
NCHUNKS = 16
CHUNK_BYTES = 8192
TIGHT = DiskLimits(256 * 1024, 0, 0)  # the chunks of one dataset of `sample`, and not those of two


def sample(seed=0, path="folder/data.b2nd", lineage=None):
    array = noise((NCHUNKS * CHUNK_BYTES,), seed)
    return sample_array(array, (CHUNK_BYTES,), (1024,), lineage or f"{seed:032x}", path)


def opened(cache, sample):
    return cache.dataset("root", OWNER, sample.info)


def is_right(dataset, sample, nchunk):
    chunk = dataset.chunk(nchunk)
    return chunk is not None and bytes(chunk) == sample.chunks[nchunk]


def on_disk(folder):
    return sum(path.lstat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def crashed(cache, folder):
    """Leave a copy of the folder as a kill would leave it at this moment, and return its path."""
    copy = f"{folder}+"
    subprocess.run(["cp", "-a", "--sparse=always", folder, copy], check=True)
    cache.close()
    shutil.rmtree(folder)
    return copy


def flip(dataset_path, content):
    """Change one byte of the first place in a file that has ``content``."""
    data = dataset_path.read_bytes()
    at = data.index(content) + len(content) // 2
    with open(dataset_path, "r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))


# -- chunks ------------------------------------------------------------------------------------------


def test_what_is_stored_is_there_and_what_is_not_is_missing(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        data = sample()
        dataset = data.stored_in(opened(cache, data), [3, 5])

        assert dataset.missing([2, 3, 4, 5]) == [2, 4]
        assert dataset.missing(np.array([5])) == []
        assert is_right(dataset, data, 3)
        assert dataset.chunk(4) is None
        assert not dataset.complete
        assert np.flatnonzero(dataset.sizes()).tolist() == [3, 5]
        assert dataset.sizes()[5] == len(data.chunks[5])


def test_a_complete_dataset_is_a_file_for_every_blosc2_reader(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        array = np.arange(600, dtype="<f4").reshape(20, 30)
        data = sample_array(array, (6, 7), (3, 7))
        dataset = data.stored_in(opened(cache, data))

        assert dataset.complete
        read = blosc2.open(str(dataset.path), mode="r")
        assert np.array_equal(read[:], array)
        assert read.schunk.vlmeta["unit"] == "K"


def test_a_chunk_with_a_wrong_digest_is_refused(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        data = sample()
        dataset = opened(cache, data)

        with pytest.raises(BadChunk, match="digest"):
            dataset.store(0, data.chunks[0], digest(data.chunks[1]))

        assert dataset.missing([0]) == [0]


def test_a_chunk_that_does_not_fit_the_geometry_is_refused_whatever_its_digest(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        other = sample_frame(b"x" * 1000, 1000).chunks[0]

        with pytest.raises(BadChunk):
            opened(cache, sample()).store(0, other, digest(other))


def test_a_chunk_may_be_stored_twice_and_by_several_threads(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache, ThreadPoolExecutor(4) as pool:
        data = sample()
        dataset = opened(cache, data)

        list(pool.map(lambda _: data.stored_in(dataset), range(8)))

        assert dataset.complete
        assert all(is_right(dataset, data, n) for n in range(NCHUNKS))
        assert cache.used_bytes - on_disk(tmp_path) < 64 * 1024, "each chunk is counted once"


def test_a_dataset_is_one_object_as_long_as_it_is_in_use(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache, ThreadPoolExecutor(4) as pool:
        data = sample()
        found = list(pool.map(lambda _: opened(cache, data), range(16)))

        assert len(set(map(id, found))) == 1
        assert opened(cache, sample(seed=1)) is not found[0]


def test_the_same_lineage_in_other_chunks_is_kept_apart(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        array = np.arange(100)
        one, other = sample_array(array, (10,), (5,)), sample_array(array, (20,), (5,))
        one.stored_in(opened(cache, one))

        assert opened(cache, other).missing([0]) == [0]
        assert opened(cache, one).complete


def test_datasets_without_items_are_complete(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        assert opened(cache, sample_array(np.empty((0, 3)), (5, 3), (5, 3))).complete


def test_after_close_all_calls_say_so(tmp_path):
    cache = ChunkCache(tmp_path, AMPLE)
    data = sample()
    dataset = data.stored_in(opened(cache, data), [0])
    cache.close()
    cache.close()

    assert not dataset.is_open
    with pytest.raises(Closed):
        data.stored_in(dataset, [1])
    with pytest.raises(Closed):
        dataset.chunk(0)
    with pytest.raises(Closed):
        opened(cache, data)


# -- runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_clean", [True, False])
def test_what_was_stored_is_there_in_the_next_run(tmp_path, is_clean):
    folder = str(tmp_path / "cache")
    cache, data = ChunkCache(folder, AMPLE), sample()
    data.stored_in(opened(cache, data), [0, 7])
    if is_clean:
        cache.close()
    else:
        folder = crashed(cache, folder)

    with ChunkCache(folder, AMPLE) as again:
        dataset = opened(again, data)
        assert dataset.missing(range(9)) == [1, 2, 3, 4, 5, 6, 8]
        assert is_right(dataset, data, 7)
        assert again.used_bytes == on_disk(folder) - on_disk(folder) % 512 - _small_files(folder)


def _small_files(folder):
    return sum(Path(folder, name).stat().st_blocks * 512 for name in ("lock", "CACHEDIR.TAG"))


def test_what_is_there_from_a_former_run_is_not_written_again(tmp_path):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        path = data.stored_in(opened(cache, data)).path
    before = path.stat()

    with ChunkCache(tmp_path, AMPLE) as cache:
        data.stored_in(opened(cache, data), [7])

    assert path.stat().st_mtime_ns == before.st_mtime_ns, "a kill in the middle would lose it"


@pytest.mark.parametrize("nchunk", [0, 7])
def test_a_byte_that_flipped_on_disk_is_noticed_at_first_use(tmp_path, nchunk):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        path = data.stored_in(opened(cache, data)).path
    flip(path, data.chunks[nchunk])

    with ChunkCache(tmp_path, AMPLE) as cache:
        dataset = opened(cache, data)
        assert dataset.missing([nchunk]) == [], "nobody looked yet"
        assert dataset.chunk(nchunk) is None
        assert dataset.missing([nchunk]) == [nchunk]
        assert all(is_right(dataset, data, n) for n in range(NCHUNKS) if n != nchunk)
        with dataset.reading():
            part = read_selection(dataset, Selection((range(5 * CHUNK_BYTES + 3, 5 * CHUNK_BYTES + 9),)))
            assert len(part) == 6
        assert data.stored_in(dataset, [nchunk]).complete


def test_a_chunk_0_full_of_garbage_does_not_reach_blosc2(tmp_path):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        path = data.stored_in(opened(cache, data)).path
    at = path.read_bytes().index(data.chunks[0])
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4096)

    with ChunkCache(tmp_path, AMPLE) as cache:
        dataset = opened(cache, data)
        with dataset.reading():
            assert len(read_selection(dataset, Selection((range(CHUNK_BYTES, CHUNK_BYTES + 9),)))) == 9
        assert dataset.missing([0, 1]) == [0]


@pytest.mark.parametrize("victim", ["frame.b2nd", "presence", "digests", "info"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "zeroed"])
def test_damaged_files_lose_chunks_but_never_give_wrong_ones(tmp_path, victim, damage):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        path = data.stored_in(opened(cache, data)).path.with_name(victim)
    length = path.stat().st_size
    path.unlink()
    if damage != "removed":
        path.write_bytes(bytes(length) if damage == "zeroed" else b"")

    with ChunkCache(tmp_path, AMPLE) as cache:
        dataset = opened(cache, data)
        with dataset.reading():
            for nchunk in range(NCHUNKS):
                assert dataset.chunk(nchunk) is None or is_right(dataset, data, nchunk)
        assert data.stored_in(dataset).complete


@pytest.mark.parametrize("has_digests", [True, False])
def test_an_index_that_changed_on_disk_is_not_believed(tmp_path, has_digests):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        path = data.stored_in(opened(cache, data)).path
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x55")
    if not has_digests:
        digests = path.with_name("digests")
        digests.write_bytes(bytes(digests.stat().st_size))

    with ChunkCache(tmp_path, AMPLE) as cache:
        assert opened(cache, data).missing([0]) == [0], "begun anew"


def test_what_a_kill_left_half_made_is_cleared_away(tmp_path):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        folder = data.stored_in(opened(cache, data)).path.parent
    (folder / "info").unlink()
    (folder.parents[1] / "unfinished-abc").write_bytes(b"x")
    (tmp_path / "trash-abc").mkdir()
    (tmp_path / "somebody's").mkdir()

    with ChunkCache(tmp_path, AMPLE) as cache:
        assert cache.used_bytes == 0
        assert not folder.exists()
        assert not (folder.parents[1] / "unfinished-abc").exists()
        assert not (tmp_path / "trash-abc").exists()
        assert (tmp_path / "somebody's").exists(), "not ours"


def test_a_second_process_is_told_who_has_the_folder(tmp_path):
    code = (
        "import sys; from zcat.storage.chunk_cache import *\n"
        "try: ChunkCache(sys.argv[1], DiskLimits(1))\n"
        "except CacheInUse as error: print(error)"
    )
    with ChunkCache(tmp_path, AMPLE):
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
        with pytest.raises(CacheInUse):
            ChunkCache(tmp_path, AMPLE)

    assert f"process {os.getpid()} on" in said.stdout
    assert "choose another folder" in said.stdout
    ChunkCache(tmp_path, AMPLE).close()


# -- without a network -------------------------------------------------------------------------------


def test_the_latest_version_of_a_dataset_is_known_in_the_next_run(tmp_path):
    old, new = sample(1), sample(2)
    with ChunkCache(tmp_path, AMPLE) as cache:
        assert cache.saved("root", OWNER, old.info.entry.path) is None
        opened(cache, new)
        opened(cache, old)
        changed = dataclasses.replace(new.info, attributes={"unit": "m", "list": [1, None, b"x"]})
        opened(cache, dataclasses.replace(new, info=changed))
        opened(cache, old)  # a reader that still has the old one

    with ChunkCache(tmp_path, AMPLE) as cache:
        assert cache.saved("root", OWNER, old.info.entry.path) == changed
        assert cache.saved("root", OWNER, "another") is None
        assert cache.saved("other", OWNER, old.info.entry.path) is None


def test_catalogues_are_kept_for_the_next_run(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        cache.save_catalogue("sst", OWNER, b"first")
        cache.save_catalogue("sst", OWNER, b"second")
        cache.save_catalogue("@public", OWNER, b"")
        opened(cache, sample())  # of a root without a catalogue

    with ChunkCache(tmp_path, AMPLE) as cache:
        assert cache.load_catalogue("sst", OWNER) == b"second"
        assert cache.load_catalogue("unknown", OWNER) is None
        assert cache.known_roots() == [("@public", OWNER), ("sst", OWNER)]

        cache.forget("sst", OWNER)
        cache.forget("sst", OWNER)
        assert cache.known_roots() == [("@public", OWNER)]


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/" * 30 + "ü.b2nd", "." * 200, "-", "/"])
def test_paths_never_lead_out_of_the_cache(tmp_path, path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        dataset = opened(cache, sample(path=path))

        assert dataset.path.resolve().parents[3] == tmp_path.resolve() / ""
        with pytest.raises(BadName):
            cache.dataset("../x", OWNER, sample().info)
        with pytest.raises(BadName):
            cache.load_catalogue("x", "../y")


# -- room --------------------------------------------------------------------------------------------


def test_superseded_lineages_go_first_then_what_was_of_no_use_for_longest(tmp_path):
    def stored(seed, path):
        data = sample(seed, path)
        return data.stored_in(opened(cache, data)).path

    with ChunkCache(tmp_path, DiskLimits(700 * 1024, 0, 0)) as cache:
        first, second, third = stored(1, "a"), stored(2, "b"), stored(3, "b")

        fourth = stored(4, "d")
        assert [path.exists() for path in (first, second, third, fourth)] == [True, False, True, True]

        opened(cache, sample(1, "a"))
        fifth = stored(5, "e")
        assert [path.exists() for path in (first, third, fourth, fifth)] == [True, False, True, True]
        assert opened(cache, sample(1, "a")).complete


def test_a_dataset_larger_than_the_quota_loses_its_oldest_chunks(tmp_path):
    data = sample_array(noise((64 * CHUNK_BYTES,)), (CHUNK_BYTES,), (1024,))
    with ChunkCache(tmp_path, TIGHT) as cache:
        dataset = opened(cache, data)
        for nchunk in range(64):
            data.stored_in(dataset, [nchunk])
            assert is_right(dataset, data, nchunk)
            assert cache.used_bytes <= TIGHT.quota_bytes
            assert on_disk(tmp_path) <= TIGHT.quota_bytes + 16 * 1024

        assert 5 < 64 - len(dataset.missing(range(64))) < 25
        assert dataset.missing([0, 1, 2]) == [0, 1, 2]


def test_a_reader_keeps_what_it_holds_on_to_and_the_rest_goes_uncached(tmp_path):
    data = sample_array(noise((64 * CHUNK_BYTES,)), (CHUNK_BYTES,), (1024,))
    with ChunkCache(tmp_path, TIGHT) as cache:
        dataset = opened(cache, data)
        with dataset.reading(range(64)):
            with pytest.raises(StorageFailed, match="no room"):
                data.stored_in(dataset)
            present = sorted(set(range(64)) - set(dataset.missing(range(64))))
            views = {nchunk: dataset.chunk(nchunk) for nchunk in present}
            assert len(present) > 5
            assert all(bytes(views[n]) == data.chunks[n] for n in present)

        data.stored_in(dataset, [63])
        assert len(dataset.missing(present)) > 0


def test_holding_on_to_some_chunks_lets_others_go(tmp_path):
    data = sample_array(noise((64 * CHUNK_BYTES,)), (CHUNK_BYTES,), (1024,))
    with ChunkCache(tmp_path, TIGHT) as cache:
        dataset = opened(cache, data)
        with dataset.reading([0, 3]), dataset.reading([3]):
            data.stored_in(dataset)
            assert dataset.missing([0, 1, 2, 3]) == [1, 2]


def test_a_handle_reads_what_came_after_chunks_were_evicted(tmp_path):
    array = noise((64 * CHUNK_BYTES,))
    data = sample_array(array, (CHUNK_BYTES,), (1024,))
    with ChunkCache(tmp_path, TIGHT) as cache:
        dataset = opened(cache, data)
        for nchunk in [*range(64), *range(64)]:
            wanted = range(nchunk * CHUNK_BYTES + 5, nchunk * CHUNK_BYTES + 50)
            with dataset.reading([nchunk]):
                data.stored_in(dataset, dataset.missing([nchunk]))
                assert np.array_equal(
                    read_selection(dataset, Selection((wanted,))), array[wanted.start : wanted.stop]
                )


def test_a_chunk_larger_than_the_quota_evicts_nothing(tmp_path):
    limits = DiskLimits(400 * 1024, 0, 0)
    small, large = sample(1, "a"), sample_array(noise((500 * 1024,)), (500 * 1024,), (1024,), path="b")
    with ChunkCache(tmp_path, limits) as cache:
        kept = small.stored_in(opened(cache, small))

        with pytest.raises(StorageFailed, match="quota"):
            large.stored_in(opened(cache, large))

        assert kept.complete


def test_the_reserve_of_the_file_system_is_left_alone(tmp_path):
    with ChunkCache(tmp_path, DiskLimits(1 << 30, reserve_share=1)) as cache, pytest.raises(StorageFailed):
        opened(cache, sample())


def test_a_chunk_in_a_view_outlives_its_dataset(tmp_path):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        view = data.stored_in(opened(cache, data), [0]).chunk(0)
    gc.collect()

    assert bytes(view) == data.chunks[0]


@contextlib.contextmanager
def tmpfs(folder, size):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_ends_in_clear_errors_and_reads_go_on(tmp_path, caplog):
    now_s = 0.0
    data = sample_array(noise((64 * CHUNK_BYTES,)), (CHUNK_BYTES,), (1024,))
    with tmpfs(tmp_path, "2m"), ChunkCache(tmp_path / "cache", AMPLE, clock=lambda: now_s) as cache:
        dataset = data.stored_in(opened(cache, data), range(10))
        with dataset.reading():
            fill(tmp_path / "filler")
            with pytest.raises(StorageFailed, match="No space left on device"):
                data.stored_in(dataset, [63])
            (tmp_path / "filler").unlink()
            with pytest.raises(StorageFailed, match="for some seconds"):
                data.stored_in(dataset, [62])
            assert dataset.missing([62, 63]) == [62, 63]
            fill(tmp_path / "filler")
            assert all(is_right(dataset, data, n) for n in range(10)), "on a disk without one free byte"
            assert len(read_selection(dataset, Selection((range(5, 50),)))) == 45
        assert "reads go on uncached" in caplog.text

        now_s += FULL_FOR_S + 1
        assert is_right(data.stored_in(dataset, [63]), data, 63), "in place of another"
        assert 0 < len(dataset.missing(range(10))) < 10


def test_a_full_disk_is_no_place_for_a_new_dataset(tmp_path):
    with tmpfs(tmp_path, "1m"), ChunkCache(tmp_path / "cache", AMPLE) as cache:
        fill(tmp_path / "filler")
        with pytest.raises(StorageFailed):
            opened(cache, sample())
        with pytest.raises(StorageFailed):
            cache.save_catalogue("root", OWNER, b"x" * 5000)
        (tmp_path / "filler").unlink()
        assert opened(cache, sample()).missing([0]) == [0]


@contextlib.contextmanager
def no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                held.enter_context(open(os.devnull))
        yield


def test_a_lack_of_descriptors_is_a_clear_error_and_takes_nothing_from_the_cache(tmp_path):
    data = sample()
    with ChunkCache(tmp_path, AMPLE) as cache:
        data.stored_in(opened(cache, data), range(NCHUNKS))
    with ChunkCache(tmp_path, AMPLE) as cache:
        with no_descriptor_left(), pytest.raises(StorageFailed, match="Too many open files"):
            opened(cache, data)
        dataset = opened(cache, data)
        with dataset.reading():
            assert all(is_right(dataset, data, n) for n in range(NCHUNKS))


def test_datasets_that_nobody_uses_are_closed(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    with ChunkCache(tmp_path, AMPLE) as cache:
        for seed in range(OPEN_MAX + 20):
            data = sample_array(np.arange(seed + 9), (9,), (3,), path=str(seed))
            dataset = data.stored_in(opened(cache, data), [0])
            with dataset.reading():
                assert dataset.handle(0)[3] == 3
        del dataset
        assert descriptors() <= before + 6 * OPEN_MAX + 1

    assert descriptors() <= before


def test_a_cache_that_was_cleared_by_hand_begins_anew(tmp_path):
    with ChunkCache(tmp_path, AMPLE) as cache:
        data = sample()
        data.stored_in(opened(cache, data))
        for seed in range(1, OPEN_MAX + 2):  # so that it is closed
            opened(cache, sample_array(np.arange(9), (9,), (3,), path=str(seed)))
        for folder in tmp_path.glob("root@*"):
            shutil.rmtree(folder)

        assert data.stored_in(opened(cache, data)).complete


# -- all at once -------------------------------------------------------------------------------------


def test_threads_that_store_read_and_evict_never_see_a_wrong_byte(tmp_path):
    samples = [sample(seed, path=f"{seed % 3}") for seed in range(4)]
    wrong, reads = [], []

    def work(seed):
        choice = random.Random(seed)
        for _ in range(150):
            data = choice.choice(samples)
            wanted = sorted(choice.sample(range(NCHUNKS), 3))
            try:
                dataset = opened(cache, data)
                with dataset.reading(wanted):
                    data.stored_in(dataset, dataset.missing(wanted))
                    reads.append(seed)
                    wrong.extend(n for n in wanted if not is_right(dataset, data, n))
                    item = wanted[1] * CHUNK_BYTES + 7
                    read_selection(dataset, Selection((range(item, item + 3),)))
            except StorageFailed:
                pass  # the others hold on to all there is

    with ChunkCache(tmp_path, TIGHT) as cache:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert on_disk(tmp_path) <= TIGHT.quota_bytes + 32 * 1024

    assert not wrong
    assert len(reads) > 100


class CacheMachine(RuleBasedStateMachine):
    """The cache against a dict: whatever happens, a chunk is either absent or the one that was stored."""

    SAMPLES = tuple(sample(seed, path=f"{seed % 2}") for seed in range(3))
    held = Bundle("held")

    @initialize()
    def begin(self):
        self.top = tempfile.mkdtemp()
        self.folder = os.path.join(self.top, "cache")
        self.cache = ChunkCache(self.folder, TIGHT)
        self.stored = set()
        self.readers = {}

    @rule(which=st.integers(0, 2), chunks=st.lists(st.integers(0, NCHUNKS - 1), min_size=1, max_size=8))
    def store(self, which, chunks):
        data = self.SAMPLES[which]
        for nchunk in chunks:
            try:
                data.stored_in(opened(self.cache, data), [nchunk])
                self.stored.add((which, nchunk))
            except StorageFailed:
                assert self.readers, "there is always room if nobody holds on to anything"

    @rule(which=st.integers(0, 2), nchunk=st.integers(0, NCHUNKS - 1))
    def read(self, which, nchunk):
        data = self.SAMPLES[which]
        with contextlib.suppress(StorageFailed):
            dataset = opened(self.cache, data)
            is_missing = dataset.missing([nchunk]) == [nchunk]
            assert is_missing or (which, nchunk) in self.stored
            assert is_right(dataset, data, nchunk) is not is_missing

    @rule(target=held, which=st.integers(0, 2), first=st.integers(0, NCHUNKS - 4))
    def hold_on(self, which, first):
        name, data, chunks = object(), self.SAMPLES[which], range(first, first + 4)
        with contextlib.suppress(StorageFailed):
            dataset = opened(self.cache, data)
            hold = dataset.reading(chunks)
            hold.__enter__()
            present = [n for n in chunks if n not in dataset.missing(chunks)]
            self.readers[name] = (dataset, data, present, hold)
        return name

    @rule(name=held)
    def let_go(self, name):
        if name in self.readers:
            self.readers.pop(name)[3].__exit__(None, None, None)

    @rule(which=st.integers(0, 2), nbytes=st.integers(0, 100_000))
    def evict(self, which, nbytes):
        with contextlib.suppress(StorageFailed):
            opened(self.cache, self.SAMPLES[which]).evict(nbytes)

    @rule(is_killed=st.booleans(), flipped=st.none() | st.tuples(st.integers(0, 2), st.integers(0, NCHUNKS - 1)))
    def run_again(self, is_killed, flipped):
        for reader in self.readers.values():
            reader[3].__exit__(None, None, None)
        self.readers.clear()
        if is_killed:
            self.folder = crashed(self.cache, self.folder)
        self.cache.close()
        if flipped:
            for path in Path(self.folder).rglob("frame.b2nd"):
                with contextlib.suppress(ValueError):
                    flip(path, self.SAMPLES[flipped[0]].chunks[flipped[1]])
        self.cache = ChunkCache(self.folder, TIGHT)
        if flipped:
            with contextlib.suppress(StorageFailed):
                assert opened(self.cache, self.SAMPLES[flipped[0]]).chunk(flipped[1]) is None
        self.stored.discard(flipped)

    @invariant()
    def the_quota_is_kept(self):
        assert self.cache.used_bytes <= TIGHT.quota_bytes
        assert on_disk(self.folder) <= TIGHT.quota_bytes + 24 * 1024

    @invariant()
    def readers_keep_what_they_hold(self):
        for dataset, data, present, _ in self.readers.values():
            assert all(is_right(dataset, data, nchunk) for nchunk in present)

    def teardown(self):
        self.cache.close()
        shutil.rmtree(self.top)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
