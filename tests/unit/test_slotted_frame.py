import os
import random
from pathlib import Path

import blosc2
import numpy as np
import pytest
from blosc2_frames import ARRAYS, made, same, values

from zcat.errors import BadChunk, BadContent, NotReadable, StorageFailed
from zcat.limits import CHUNK_BYTES_MAX
from zcat.model.dataset import ArrayGeometry, Compression, Geometry
from zcat.storage.chunk_gate import plain_chunk
from zcat.storage.frame_format import geometry_of, parse_header
from zcat.storage.frame_source import ContiguousFrame
from zcat.storage.slotted_frame import PAGE_BYTES, SlottedFrame, slot_bytes

LARGE = ((50, 40, 30), (10, 40, 30), (2, 40, 30), "<f4")  # chunks of 48000 bytes
MODES: list[dict[str, str]] = [{}, {"mmap_mode": "r"}]


def chunks_of(array: blosc2.NDArray) -> tuple[Geometry, Compression, list[bytes]]:
    header = parse_header(array.to_cframe())
    geometry = geometry_of(header)
    stored = [plain_chunk(array.schunk.get_chunk(n), geometry, n) for n in range(geometry.nchunks)]
    return geometry, header.compression, stored


def noise() -> blosc2.NDArray:
    return blosc2.asarray(
        np.random.default_rng(0).normal(size=LARGE[0]).astype("f4"), chunks=LARGE[1], blocks=LARGE[2]
    )


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "cached.b2nd"


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), [*ARRAYS, LARGE])
def test_a_filled_frame_is_the_dataset_for_blosc2(path, shape, chunks, blocks, dtype):
    geometry, compression, stored = chunks_of(made(shape, chunks, blocks, dtype))
    frame = SlottedFrame.create(path, geometry, compression, {"unit": ["m"]})
    before = blosc2.open(str(path), mmap_mode="r") if stored else None
    for nchunk in random.Random(0).sample(range(len(stored)), len(stored)):
        frame.write_chunk(nchunk, stored[nchunk])
    for mode in MODES:
        array = blosc2.open(str(path), mode="r", **mode)
        assert array.dtype == np.dtype(dtype)
        assert same(array[...], values(shape, dtype))
        assert array.schunk.vlmeta["unit"] == ["m"]
    if before is not None:
        assert same(before[...], values(shape, dtype))
    assert [bytes(frame.chunk_view(n)) for n in range(frame.nchunks)] == stored
    frame.close()


@pytest.mark.parametrize("size", [0, 1, 1000, 2501])
@pytest.mark.parametrize("blocksize", [0, 256])
def test_byte_frames_too(path, size, blocksize):
    data = np.random.default_rng(1).bytes(size)
    geometry = Geometry(size, 1000, blocksize, 1)
    with_blocks = {"blocksize": blocksize, "typesize": 1}
    frame = SlottedFrame.create(path, geometry, Compression())
    for nchunk in range(geometry.nchunks):
        frame.write_chunk(nchunk, blosc2.compress2(data[nchunk * 1000 :][:1000], **with_blocks))
    for mode in MODES:
        schunk = blosc2.open(str(path), mode="r", **mode)
        assert schunk.nbytes == size
        assert b"".join(schunk.decompress_chunk(n) for n in range(schunk.nchunks)) == data
    frame.close()
    assert SlottedFrame.open(path).geometry == geometry


@pytest.mark.parametrize("mode", MODES, ids=["file", "mmap"])
def test_an_absent_chunk_is_an_error_never_garbage(path, mode):
    array = noise()
    geometry, compression, stored = chunks_of(array)
    frame = SlottedFrame.create(path, geometry, compression)
    frame.write_chunk(2, stored[2])
    opened = blosc2.open(str(path), mode="r", **mode)
    assert same(opened[20:30], array[20:30])
    for nchunk in (1, 3, 4):
        with pytest.raises(RuntimeError):
            opened[nchunk * 10 : nchunk * 10 + 1]
        with pytest.raises(BadChunk, match="not in the cache"):
            frame.chunk_view(nchunk)
    frame.close()


def test_a_single_block_is_readable_when_it_is_there(path):
    array = noise()
    geometry, compression, stored = chunks_of(array)
    frame = SlottedFrame.create(path, geometry, compression)
    starts = np.frombuffer(stored[3][32:52], "<i4")
    end = min([int(s) for s in starts if s > starts[4]] + [len(stored[3])])
    partly = bytearray(len(stored[3]))
    partly[:52] = stored[3][:52]
    partly[starts[4] : end] = stored[3][starts[4] : end]
    frame.write_chunk(3, partly)
    assert same(blosc2.open(str(path), mmap_mode="r")[38:40], array[38:40])
    frame.close()


def test_slots_and_headers_are_page_aligned_where_that_pays():
    assert slot_bytes(Geometry(10_000, 1000, 0, 1)) == 1032
    assert slot_bytes(Geometry(10_000, 4064, 0, 1)) == PAGE_BYTES
    assert slot_bytes(Geometry(10_000, 4065, 0, 1)) == 2 * PAGE_BYTES


def test_a_header_too_long_for_one_page_takes_two(path):
    fields = [(f"a field with a long name, number {i}", "<i4") for i in range(120)]
    array = blosc2.zeros((10,), dtype=np.dtype(fields), chunks=(5,), blocks=(5,))
    geometry, compression, _ = chunks_of(array)
    frame = SlottedFrame.create(path, geometry, compression)
    assert frame.header_len == 2 * PAGE_BYTES
    frame.close()
    frame = SlottedFrame.open(path)
    assert (frame.header_len, frame.geometry) == (2 * PAGE_BYTES, geometry)
    frame.close()


def test_evicted_chunks_are_absent_and_their_disk_is_free(path):
    array = noise()
    geometry, compression, stored = chunks_of(array)
    frame = SlottedFrame.create(path, geometry, compression)
    empty_bytes = frame.disk_bytes()
    for nchunk, chunk in enumerate(stored):
        frame.write_chunk(nchunk, chunk)
    full_bytes = frame.disk_bytes()
    assert full_bytes >= empty_bytes + 0.9 * sum(len(chunk) for chunk in stored)
    frame.punch(range(0, 0))
    frame.punch(range(2, 4))
    assert frame.disk_bytes() < full_bytes - 1.5 * len(stored[2])
    for nchunk in (2, 3):
        with pytest.raises(BadChunk):
            frame.chunk_view(nchunk)
    assert bytes(frame.chunk_view(4)) == stored[4]
    frame.punch(range(0, 5))
    opened = blosc2.open(str(path), mmap_mode="r")  # possible: slot 0 has its placeholder again
    with pytest.raises(RuntimeError):
        opened[10]
    assert frame.disk_bytes() <= empty_bytes + PAGE_BYTES
    frame.close()


def test_small_slots_can_be_evicted_one_by_one(path):
    geometry, compression, stored = chunks_of(made(*ARRAYS[2]))
    frame = SlottedFrame.create(path, geometry, compression)
    for nchunk, chunk in enumerate(stored):
        frame.write_chunk(nchunk, chunk)
    frame.punch(range(1, 2))
    assert bytes(frame.chunk_view(0)) == stored[0]
    assert bytes(frame.chunk_view(2)) == stored[2]
    with pytest.raises(BadChunk):
        frame.chunk_view(1)
    frame.close()


def test_views_outlive_the_frame_and_are_not_writable(path):
    geometry, compression, stored = chunks_of(noise())
    frame = SlottedFrame.create(path, geometry, compression)
    frame.write_chunk(1, stored[1])
    view = frame.chunk_view(1)
    frame.close()
    frame.close()
    assert view.readonly
    assert bytes(view) == stored[1]


def test_a_frame_is_found_again_with_its_chunks(path):
    geometry, compression, stored = chunks_of(noise())
    frame = SlottedFrame.create(path, geometry, compression)
    frame.write_chunk(4, stored[4])
    frame.close()
    again = SlottedFrame.open(path, writable=False)
    assert (again.geometry, again.compression, again.nchunks) == (geometry, compression, 5)
    assert bytes(again.chunk_view(4)) == stored[4]
    with pytest.raises(StorageFailed):
        again.write_chunk(1, stored[1])
    again.close()


def test_creating_replaces_what_was_there_and_leaves_nothing_aside(path):
    geometry, compression, stored = chunks_of(noise())
    first = SlottedFrame.create(path, geometry, compression)
    first.write_chunk(1, stored[1])
    second = SlottedFrame.create(path, geometry, compression)
    with pytest.raises(BadChunk):
        second.chunk_view(1)
    assert bytes(first.chunk_view(1)) == stored[1]
    assert os.listdir(path.parent) == [path.name]
    first.close()
    second.close()


def test_a_folder_that_is_not_there_is_a_storage_failure(tmp_path):
    geometry, compression, _ = chunks_of(noise())
    with pytest.raises(StorageFailed, match="making 'x'"):
        SlottedFrame.create(tmp_path / "nowhere" / "x", geometry, compression)
    with pytest.raises(StorageFailed, match="opening 'x'"):
        SlottedFrame.open(tmp_path / "x")


def test_a_million_chunks_take_hardly_any_disk(path):
    array = ArrayGeometry((1_000_000, 1024, 1024), (1, 1024, 1024), (1, 64, 1024), "<f4", 4)
    geometry = Geometry(1_000_000 << 22, 1 << 22, 1 << 18, 4, array)
    frame = SlottedFrame.create(path, geometry, Compression())
    assert frame.disk_bytes() < 200 * 1024
    item = np.float32(42).tobytes()
    frame.write_chunk(
        999_999, plain_chunk(blosc2.compress2(item * (1 << 20), typesize=4, blocksize=1 << 18), geometry, 0)
    )
    assert blosc2.open(str(path), mmap_mode="r")[999_999, 5, 5] == 42
    frame.close()


def test_a_dataset_longer_than_any_file_is_a_clear_failure(path):
    geometry = Geometry(CHUNK_BYTES_MAX << 22, CHUNK_BYTES_MAX, 0, 1)
    with pytest.raises(StorageFailed, match=r"longer than|mapping"):
        SlottedFrame.create(path, geometry, Compression())
    assert os.listdir(path.parent) == []


def test_other_frames_and_damaged_ones_are_no_slotted_frames(path):
    array = noise()
    path.write_bytes(array.to_cframe())
    with pytest.raises(BadContent, match="not a slotted frame"):
        SlottedFrame.open(path)
    geometry, compression, _ = chunks_of(array)
    SlottedFrame.create(path, geometry, compression).close()
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 1)
    with pytest.raises(BadContent):
        SlottedFrame.open(path)
    rng = random.Random(3)
    for _ in range(500):
        mutant = bytearray(whole[:300])
        mutant[rng.randrange(300)] = rng.randrange(256)
        path.write_bytes(bytes(mutant) + whole[300:4096])
        os.truncate(path, len(whole))
        try:
            SlottedFrame.open(path).close()
        except (BadContent, NotReadable):
            continue


def test_a_slotted_frame_can_be_published_too(path):
    geometry, compression, stored = chunks_of(noise())
    frame = SlottedFrame.create(path, geometry, compression, {"a": 1})
    frame.write_chunk(3, stored[3])
    fd = os.open(path, os.O_RDONLY)
    source = ContiguousFrame(fd)
    assert source.geometry == geometry
    assert source.attributes == {"a": 1}
    assert source.stored_sizes() is None
    assert source.read_chunk(3) == stored[3]
    with pytest.raises(BadChunk):
        source.read_chunk(2)
    os.close(fd)
    frame.close()
