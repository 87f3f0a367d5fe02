"""The catalogue of a followed root on disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sample_datasets import OWNER

from zcat.errors import StorageFailed
from zcat.model.dataset import Entry, Kind
from zcat.protocol.pages import paged
from zcat.services.saved_catalogue import SAVE_EVERY_S, SavedCatalogue, Snapshot
from zcat.services.workers import Workers
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.disk_budget import DiskLimits

WAIT_S = 20.0


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ChunkCache]:
    made = ChunkCache(str(tmp_path / "cache"), DiskLimits(1 << 30, 0, 0))
    yield made
    made.close()


def snapshot(count: int, seq: int) -> Snapshot:
    entries = [
        Entry(f"{n}.b2nd", Kind.ARRAY, f"{n:032x}", 8, 40, 1_700_000_000_000_000_000, (1,), "<f8")
        for n in range(count)
    ]
    return Snapshot(entries, 3, seq)


def test_what_was_saved_is_read_back(cache: ChunkCache) -> None:
    writer = Workers("test", 1)
    SavedCatalogue(cache, "root", OWNER, writer).save(snapshot(5, 7), 0.0)
    writer.finish(WAIT_S)

    assert SavedCatalogue(cache, "root", OWNER, writer).load() == snapshot(5, 7)


def test_the_last_of_several_is_kept(cache: ChunkCache) -> None:
    writer = Workers("test", 1)
    saved = SavedCatalogue(cache, "root", OWNER, writer)
    for seq in range(1, 20):
        saved.save(snapshot(seq, seq), float(seq))
    writer.finish(WAIT_S)

    assert saved.load() == snapshot(19, 19)


def test_what_is_forgotten_stays_so_though_it_was_being_written(cache: ChunkCache) -> None:
    writer = Workers("test", 1)
    saved = SavedCatalogue(cache, "root", OWNER, writer)
    saved.save(snapshot(2000, 1), 0.0)
    saved.forget()
    writer.finish(WAIT_S)

    assert saved.load() is None
    assert cache.known_roots() == []


def test_it_is_due_when_something_changed_and_not_too_often(cache: ChunkCache) -> None:
    writer = Workers("test", 1)
    saved = SavedCatalogue(cache, "root", OWNER, writer)

    assert saved.is_due((3, 1), 0.0)
    saved.save(snapshot(1, 1), 0.0)
    assert not saved.is_due((3, 1), SAVE_EVERY_S + 1)
    assert not saved.is_due((3, 2), SAVE_EVERY_S - 1)
    assert saved.is_due((3, 2), SAVE_EVERY_S + 1)
    writer.finish(WAIT_S)


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(ChunkCache):
        def save_catalogue(self, root: str, owner: str, blob: bytes) -> None:
            raise StorageFailed("no space left on device")

    writer = Workers("test", 1)
    full = Full(str(tmp_path / "cache"), DiskLimits(1 << 30, 0, 0))
    saved = SavedCatalogue(full, "root", OWNER, writer)
    saved.save(snapshot(1, 1), 0.0)
    writer.finish(WAIT_S)

    assert saved.is_due((3, 1), SAVE_EVERY_S + 1)
    assert "no space left on device" in caplog.text
    full.close()


def test_garbage_is_asked_for_again(cache: ChunkCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.save_catalogue("root", OWNER, b"\xc1 no msgpack")

    assert SavedCatalogue(cache, "root", OWNER, Workers("test", 1)).load() is None
    assert "unreadable" in caplog.text


def test_a_catalogue_is_saved_as_it_came(cache: ChunkCache) -> None:
    writer = Workers("test", 1)
    whole = snapshot(5, 7)
    SavedCatalogue(cache, "root", OWNER, writer).save(
        replace(whole, entries=[], pages=tuple(paged(whole.entries))), 0.0
    )
    writer.finish(WAIT_S)

    assert SavedCatalogue(cache, "root", OWNER, writer).load() == whole
