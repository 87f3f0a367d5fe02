import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import blosc2
import numpy as np
import pytest
from blosc2_frames import ARRAYS, made, same, values

from zcat.errors import BadChunk, BadContent, NotReadable
from zcat.model.dataset import Compression, Geometry
from zcat.storage.frame_format import geometry_of, parse_header
from zcat.storage.frame_source import ContiguousFrame, FrameSource, SparseFrame
from zcat.storage.frame_template import assemble_cframe, frame_template


@contextmanager
def opened(path: os.PathLike) -> Iterator[FrameSource]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield SparseFrame(fd) if os.path.isdir(path) else ContiguousFrame(fd)
    finally:
        os.close(fd)


def rebuilt(source: FrameSource) -> bytes:
    """Put all chunks into a new frame: what a reader elsewhere would see."""
    chunks = [source.read_chunk(n) for n in range(source.geometry.nchunks)]
    front, tail = assemble_cframe(frame_template(source.geometry, source.compression), [len(c) for c in chunks])
    return front + b"".join(chunks) + tail


@pytest.fixture(params=[True, False], ids=["contiguous", "sparse"])
def storage(request, tmp_path):
    return {"urlpath": str(tmp_path / "x.b2nd"), "contiguous": request.param}


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), ARRAYS)
def test_a_users_array_is_read_as_blosc2_reads_it(storage, shape, chunks, blocks, dtype):
    array = made(shape, chunks, blocks, dtype, **storage)
    array.schunk.vlmeta["unit"] = {"of": ["length", 1]}
    with opened(storage["urlpath"]) as source:
        assert source.attributes == {"unit": {"of": ["length", 1]}}
        assert source.geometry.array.shape == shape
        for nchunk in range(source.geometry.nchunks):
            assert blosc2.decompress2(source.read_chunk(nchunk)) == array.schunk.decompress_chunk(nchunk)
        assert same(blosc2.ndarray_from_cframe(rebuilt(source))[...], values(shape, dtype))


@pytest.mark.parametrize("size", [0, 1, 1000, 2501])
def test_a_byte_frame_is_read(storage, size):
    data = np.random.default_rng(3).bytes(size)
    blosc2.SChunk(chunksize=1000, data=data or None, cparams={"typesize": 8}, **storage)
    with opened(storage["urlpath"]) as source:
        assert source.attributes == {}
        assert b"".join(blosc2.decompress2(source.read_chunk(n)) for n in range(source.geometry.nchunks)) == data


@pytest.mark.parametrize(("make", "fill"), [("zeros", 0), ("nans", np.nan), ("uninit", 0), ("full", 7)])
def test_special_chunks_travel_as_repeated_values(storage, make, fill):
    options = {"dtype": "f4", "chunks": (4, 4), "blocks": (2, 4), **storage}
    if make == "full":
        array = blosc2.full((10, 10), fill, **options)
    else:
        array = getattr(blosc2, make)((10, 10), **options)
    array[:3, :3] = 5
    wanted = np.full((10, 10), fill, "f4")
    if make != "uninit":
        assert same(array[4:], wanted[4:])
    wanted[:3, :3] = 5
    with opened(storage["urlpath"]) as source:
        assert len(source.read_chunk(8)) == 36
        again = blosc2.ndarray_from_cframe(rebuilt(source))[...]
    np.testing.assert_array_equal(again[4:], wanted[4:])
    np.testing.assert_array_equal(again[:3, :3], wanted[:3, :3])


def test_rewritten_and_inserted_chunks_are_found(storage):
    schunk = blosc2.SChunk(chunksize=400, data=bytes(range(200)) * 8, cparams={"typesize": 1}, **storage)
    schunk.update_data(1, b"u" * 400, copy=True)
    schunk.insert_data(2, np.random.default_rng(0).bytes(400), copy=True)
    schunk.delete_chunk(0)
    with opened(storage["urlpath"]) as source:
        assert source.geometry.nchunks == 4
        for nchunk in range(4):
            assert blosc2.decompress2(source.read_chunk(nchunk)) == schunk.decompress_chunk(nchunk)


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_stored_sizes_are_those_of_the_chunks_as_they_are_read(tmp_path, array):
    path = tmp_path / "x.b2nd"
    made(*array, urlpath=str(path), contiguous=True)
    with opened(path) as source:
        assert list(source.stored_sizes()) == [len(source.read_chunk(n)) for n in range(source.geometry.nchunks)]


@pytest.mark.parametrize("item", [np.dtype("f8"), np.dtype("S300")], ids=str)
@pytest.mark.parametrize("fill", [blosc2.zeros, blosc2.uninit])
def test_stored_sizes_know_the_chunks_that_are_only_in_the_index(tmp_path, fill, item):
    array = fill((1000,), dtype=item, chunks=(300,), blocks=(100,), urlpath=str(tmp_path / "x.b2nd"))
    array[300:600] = np.arange(300).astype(item)
    with opened(tmp_path / "x.b2nd") as source:
        assert list(source.stored_sizes()) == [len(source.read_chunk(n)) for n in range(4)]


def test_a_sparse_frame_says_nothing_of_sizes(tmp_path):
    made(*ARRAYS[3], urlpath=str(tmp_path / "x.b2nd"), contiguous=False)
    with opened(tmp_path / "x.b2nd") as source:
        assert source.stored_sizes() is None


def test_a_frame_of_a_million_chunks_opens_at_once(tmp_path):
    geometry = Geometry(1_000_000 * 1000, 1000, 0, 1)
    sizes = np.random.default_rng(0).integers(40, 900, 1_000_000)
    front, tail = assemble_cframe(frame_template(geometry, Compression()), sizes)
    with open(tmp_path / "x.b2frame", "wb") as file:
        file.write(front)
        file.seek(int(sizes.sum()), os.SEEK_CUR)
        file.write(tail)
    with opened(tmp_path / "x.b2frame") as source, pytest.raises(BadChunk):
        source.read_chunk(999_999)


def test_links_and_devices_are_no_chunks(tmp_path):
    folder = tmp_path / "x.b2nd"
    array = made(*ARRAYS[3], urlpath=str(folder), contiguous=False)
    assert array.schunk.nchunks == 4
    (folder / "00000000.chunk").rename(tmp_path / "elsewhere")
    (folder / "00000000.chunk").symlink_to(tmp_path / "elsewhere")
    (folder / "00000001.chunk").unlink()
    os.mkfifo(folder / "00000001.chunk")
    (folder / "00000002.chunk").unlink()
    (folder / "00000003.chunk").write_bytes(bytes(1 << 16))
    with opened(folder) as source:
        for nchunk in range(4):
            with pytest.raises(BadChunk):
                source.read_chunk(nchunk)
    (folder / "chunks.b2frame").rename(tmp_path / "index")
    (folder / "chunks.b2frame").symlink_to(tmp_path / "index")
    with pytest.raises(BadContent), opened(folder):
        pass


def test_an_index_file_alone_is_no_dataset(tmp_path):
    made(*ARRAYS[3], urlpath=str(tmp_path / "x.b2nd"), contiguous=False)
    with pytest.raises(BadContent), opened(tmp_path / "x.b2nd" / "chunks.b2frame"):
        pass


def test_damaged_attributes_do_not_hide_the_dataset(tmp_path):
    path = tmp_path / "x.b2nd"
    array = made(*ARRAYS[3], urlpath=str(path))
    array.schunk.vlmeta["unit"] = "m"
    frame = bytearray(path.read_bytes())
    at = frame.rindex(b"\xa4unit")
    frame[at] = 0xFF
    path.write_bytes(frame)
    with opened(path) as source:
        assert source.attributes["unreadable"].startswith("<unreadable: ")
        source.read_chunk(0)


def test_threads_may_read_at_once(tmp_path):
    path = tmp_path / "x.b2nd"
    data = np.random.default_rng(0).integers(0, 100, 200_000)
    array = blosc2.asarray(data, chunks=(5000,), blocks=(1000,), urlpath=str(path))
    wanted = [array.schunk.get_chunk(n) for n in range(40)]
    wrong: list[int] = []
    with opened(path) as source:

        def read(seed: int) -> None:
            order = random.Random(seed).sample(range(40), 40)
            wrong.extend(n for n in order if source.read_chunk(n) != wanted[n])

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_no_mutant_of_a_file_raises_anything_else(tmp_path):
    rng = random.Random(11)
    array = made(*ARRAYS[3])
    array.schunk.vlmeta["unit"] = "m"
    frame = array.to_cframe()
    header = parse_header(frame)
    assert geometry_of(header).nchunks == 4
    path = tmp_path / "x.b2nd"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(1500):
        mutant = bytearray(frame[: rng.choice([len(frame), len(frame), rng.randrange(len(frame))])])
        for _ in range(rng.choice([0, 1, 2, 6])):
            if mutant:
                mutant[rng.randrange(len(mutant))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        os.ftruncate(fd, 0)
        os.pwrite(fd, mutant, 0)
        try:
            source = ContiguousFrame(fd)
            source.stored_sizes()
        except (BadContent, NotReadable):
            continue
        for nchunk in range(min(source.geometry.nchunks, 5)):
            try:
                blosc2.decompress2(source.read_chunk(nchunk))
            except (BadContent, ValueError, RuntimeError):
                continue
    os.close(fd)
