import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from sample_datasets import OWNER, noise, sample_array

from zcat.errors import StorageFailed
from zcat.model.selection import parse_key
from zcat.storage import slot_locks
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.reading import read_selection
from zcat.storage.shared_dataset import SharedDataset
from zcat.storage.slot_locks import SlotLocks

NCHUNKS, CHUNK_BYTES = 16, 8192
ALL = list(range(NCHUNKS))

HOLDER = """
import sys
from zcat.storage.slot_locks import SlotLocks
SlotLocks(sys.argv[1]).hold([(int(sys.argv[2]), int(sys.argv[3]))])
print("held", flush=True)
sys.stdin.read()
"""


def sample():
    array = noise((NCHUNKS * CHUNK_BYTES,), 0)
    return sample_array(array, (CHUNK_BYTES,), (1024,), f"{0:032x}", "folder/data.b2nd")


@pytest.fixture
def data():
    return sample()


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path, DiskLimits(1 << 30, 0, 0)) as made:
        yield made


@pytest.fixture
def owned(cache, data):
    return cache.dataset("root", OWNER, data.info)


@pytest.fixture
def shared(owned, data):
    made = SharedDataset(owned.lineage.folder, data.info)
    yield made
    made.close()


def test_a_chunk_is_seen_as_soon_as_it_is_stored_and_until_it_is_evicted(data, owned, shared):
    assert shared.missing([3, 1]) == [3, 1]
    data.stored_in(owned, [1, 3])
    assert shared.missing(ALL[:4]) == [0, 2]
    with shared.reading([3]):
        assert bytes(shared.chunk(3)) == data.chunks[3]
    owned.evict(1 << 30)
    assert shared.missing([3]) == [3]
    assert shared.chunk(3) is None


def test_what_is_being_read_is_not_evicted(data, owned, shared):
    data.stored_in(owned, ALL)
    with shared.reading([5]), shared.reading(np.array([5, 7, 8])):
        owned.evict(1 << 30)
        assert owned.missing(ALL) == [n for n in ALL if n not in (5, 7, 8)]
        assert bytes(shared.chunk(7)) == data.chunks[7]
    with shared.reading([5]):
        owned.evict(1 << 30)
    assert owned.missing(ALL) == [n for n in ALL if n != 5]


def test_all_can_be_held_by_one_thread_and_let_go_of_by_another(data, owned, shared):
    data.stored_in(owned, ALL)
    held = shared.reading()
    held.__enter__()
    owned.evict(1 << 30)
    assert shared.complete
    thread = threading.Thread(target=held.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    owned.evict(1 << 30)
    assert shared.missing([0]) == [0]


def test_scattered_chunks_are_held_with_all_between_them(data, owned, shared):
    data.stored_in(owned, ALL)
    even = ALL[::2][:-1]
    with shared.reading(even), shared.reading(even[1:3]):
        owned.evict(1 << 30)
        assert not owned.missing(even)


def test_a_reader_that_is_killed_holds_nothing(data, owned):
    data.stored_in(owned, ALL)
    span = map(str, owned._frame.span(range(2, 4)))
    command = [sys.executable, "-c", HOLDER, str(owned.path), *span]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"held\n"
        owned.evict(1 << 30)
        assert owned.missing(ALL) == [n for n in ALL if n not in (2, 3)]
        reader.kill()
        reader.wait()
        owned.evict(1 << 30)
    assert owned.missing(ALL) == ALL


def test_a_reader_waits_for_who_is_punching(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    fd = os.open(path, os.O_RDWR)
    locks, held = SlotLocks(str(path)), threading.Event()
    assert slot_locks.take(fd, 10, 20)
    other = locks.hold([(40, 5)])

    def read():
        inner = locks.hold([(15, 1)])
        held.set()
        locks.let_go(inner)

    reader = threading.Thread(target=read)
    reader.start()
    assert not held.is_set()
    slot_locks.give_back(fd)
    assert held.wait(30)
    reader.join()
    locks.let_go(other)
    locks.close()
    os.close(fd)


def test_parts_are_read_by_the_handle_and_whole_chunks_by_decoding(data, owned, shared):
    array = noise((NCHUNKS * CHUNK_BYTES,), 0)
    data.stored_in(owned, ALL)
    for key in (slice(10, 20), slice(0, 3 * CHUNK_BYTES), slice(None, None, 100)):
        request = parse_key((key,), (NCHUNKS * CHUNK_BYTES,))
        with shared.reading():
            found = read_selection(shared, request.what)
        np.testing.assert_array_equal(request.finish(found), array[key])


def test_use_is_told_once(data, owned, shared):
    assert shared.taken_use() is None
    with shared.reading([4, 2]):
        pass
    assert np.flatnonzero(shared.taken_use()).tolist() == [2, 4]
    assert shared.taken_use() is None


def test_chunks_that_others_use_are_evicted_last(data, owned):
    data.stored_in(owned, ALL)
    owned.evict(1)
    owned.used([1, 2])
    owned.evict(CHUNK_BYTES * (NCHUNKS - 4))
    assert not owned.missing([1, 2])


def test_a_file_that_was_made_anew_is_noticed(data, owned, shared):
    assert shared.is_current
    os.rename(owned.path, f"{owned.path}.old")
    assert not shared.is_current
    with pytest.raises(StorageFailed):
        SharedDataset(owned.lineage.folder, data.info)
