import contextlib
import random
import struct
from dataclasses import replace

import blosc2
import numpy as np
import pytest

from zcat.errors import BadChunk
from zcat.model.dataset import ArrayGeometry, Geometry
from zcat.storage.chunk_gate import (
    DIGEST_BYTES,
    SPECIAL_NAN,
    SPECIAL_UNINIT,
    SPECIAL_ZEROS,
    check_chunk,
    digest,
    plain_chunk,
    repeat_value_chunk,
    special_chunk,
)

CODECS = ["BLOSCLZ", "LZ4", "LZ4HC", "ZLIB", "ZSTD"]
FILTERS = {"none": (0, 0), "shuffle": (0, 1), "bitshuffle": (0, 2), "delta": (3, 1), "trunc_prec": (4, 1)}


def geometry_for(items: int, itemsize: int, block_items: int | None = None) -> Geometry:
    block_items = block_items or items
    array = ArrayGeometry((items,), (items,), (block_items,), f"|V{itemsize}", itemsize)
    typesize = itemsize if itemsize < 256 else 1
    return Geometry(items * itemsize, items * itemsize, block_items * itemsize, typesize, array)


def compressed(raw: bytes, geometry: Geometry, codec: str = "ZSTD", filters: tuple[int, int] = (0, 1)) -> bytes:
    return blosc2.compress2(
        raw,
        codec=blosc2.Codec[codec],
        filters=[0, 0, 0, 0, *filters],
        filters_meta=[0, 0, 0, 0, 12 if filters[0] == 4 else 0, 0],
        typesize=geometry.typesize,
        blocksize=geometry.blocksize,
        nthreads=1,
    )


def smooth(nbytes: int) -> bytes:
    return np.cumsum(np.random.default_rng(7).integers(0, 3, nbytes // 4), dtype="i4").astype("f4").tobytes()


def patched(chunk: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(chunk)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("block_items", [4096, 512])
def test_what_blosc2_compresses_passes(codec, filters, block_items):
    geometry = geometry_for(4096, 4, block_items)
    chunk = compressed(smooth(4096 * 4), geometry, codec, filters)
    check_chunk(chunk, geometry, 0)
    check_chunk(memoryview(chunk), geometry, 0)
    assert plain_chunk(chunk, geometry, 0) == chunk


def test_a_chunk_that_does_not_compress_passes():
    geometry = geometry_for(1000, 4)
    chunk = compressed(np.random.default_rng(0).bytes(4000), geometry)
    assert len(chunk) == 4032
    check_chunk(chunk, geometry, 0)


def test_the_short_last_chunk_of_a_byte_frame_passes():
    schunk = blosc2.SChunk(chunksize=100_000, data=smooth(250_004), cparams={"typesize": 4})
    geometry = Geometry(250_004, 100_000, 0, 4)
    for nchunk in range(3):
        check_chunk(schunk.get_chunk(nchunk), geometry, nchunk)


@pytest.mark.parametrize(
    ("what", "at", "layout", "values"),
    [
        ("its header says", 12, "<i", [4000]),
        ("uncompressed", 4, "<i", [16380]),
        ("uncompressed", 4, "<i", [0]),
        ("uncompressed", 4, "<i", [-1]),
        ("blocks", 8, "<i", [2048]),
        ("blocks", 8, "<i", [0]),
        ("typesize", 3, "B", [8]),
        ("version", 0, "B", [6]),
        ("not a chunk of Blosc2", 2, "B", [0x81]),
        ("codec", 2, "B", [0x05 | 6 << 5]),
        ("codec", 2, "B", [0x05 | 7 << 5]),
        ("filters", 16, "B", [35]),
        ("filters", 21, "B", [5]),
        ("flags", 31, "B", [0x01]),
        ("flags", 31, "B", [0x02]),
        ("flags", 31, "B", [0x08]),
        ("flags", 31, "B", [0x80]),
        ("flags", 30, "B", [0x01]),
        ("special", 31, "B", [1 << 4]),
        ("special", 31, "B", [2 << 4]),
        ("special", 31, "B", [4 << 4]),
        ("special", 31, "B", [7 << 4]),
        ("repeated", 31, "B", [3 << 4]),
        ("plain copy", 2, "B", [0x85 | 0x02]),
    ],
)
def test_a_header_that_disagrees_is_refused(what, at, layout, values):
    geometry = geometry_for(4096, 4, 4096)
    chunk = patched(compressed(smooth(16384), geometry), at, layout, *values)
    with pytest.raises(BadChunk, match=what):
        check_chunk(chunk, geometry, 0)


def test_truncated_and_extended_chunks_are_refused():
    geometry = geometry_for(4096, 4)
    chunk = compressed(smooth(16384), geometry)
    for wrong in (b"", chunk[:31], chunk[:32], chunk[:-1], chunk + b"\0"):
        with pytest.raises(BadChunk):
            check_chunk(wrong, geometry, 0)


def test_blocks_whose_offsets_do_not_fit_are_refused():
    geometry = geometry_for(4096, 4)
    chunk = patched(compressed(bytes(16380) + b"abcd", geometry), 8, "<i", 4)
    with pytest.raises(BadChunk, match="block offsets"):
        check_chunk(chunk, replace(geometry, blocksize=0, array=None), 0)


def test_blosclz_of_more_than_8_mb_is_refused():
    geometry = Geometry(1 << 24, 1 << 24, 0, 1)
    header = struct.pack("<4B3i", 5, 1, 0x05, 1, 1 << 24, 1 << 18, (8 << 20) + 1)
    with pytest.raises(BadChunk, match="blosclz"):
        check_chunk(header.ljust((8 << 20) + 1, b"\0"), geometry, 0)


@pytest.mark.parametrize("itemsize", [1, 2, 3, 4, 7, 8, 12, 16, 255, 256, 300, 1000])
@pytest.mark.parametrize("block_items", [6, 2])
def test_a_repeated_item_decodes_to_that_item(itemsize, block_items):
    geometry = geometry_for(6, itemsize, block_items)
    item = np.random.default_rng(itemsize).bytes(itemsize)
    chunk = repeat_value_chunk(geometry, 0, item)
    assert len(chunk) == 32 + itemsize
    check_chunk(chunk, geometry, 0)
    assert blosc2.decompress2(chunk) == item * 6
    assert plain_chunk(chunk, geometry, 0) == chunk


@pytest.mark.parametrize("blocksize", [0, 100_000, 600_000])
def test_zeros_that_end_in_the_middle_of_an_item_are_small_too(blocksize):
    geometry = Geometry(1_000_003, 600_000, blocksize, 8)
    assert len(special_chunk(SPECIAL_ZEROS, geometry, 0)) == 40
    for nchunk in range(2):
        chunk = special_chunk(SPECIAL_ZEROS, geometry, nchunk)
        check_chunk(chunk, geometry, nchunk)
        assert blosc2.decompress2(chunk) == bytes(geometry.chunk_nbytes(nchunk))
        assert len(chunk) <= 72
    with pytest.raises(BadChunk):
        repeat_value_chunk(geometry, 1, bytes(8))


def test_an_item_of_another_size_is_refused():
    geometry = geometry_for(6, 4)
    for item in (b"", b"ab", bytes(24)):
        with pytest.raises(BadChunk):
            repeat_value_chunk(geometry, 0, item)


@pytest.mark.parametrize(
    ("kind", "special"), [("ZERO", SPECIAL_ZEROS), ("NAN", SPECIAL_NAN), ("UNINIT", SPECIAL_UNINIT)]
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_chunks_of_a_file_become_repeated_values(kind, special, dtype):
    itemsize = np.dtype(dtype).itemsize
    schunk = blosc2.SChunk(chunksize=800, cparams={"typesize": itemsize})
    schunk.fill_special(800 // itemsize, blosc2.SpecialValue[kind])
    geometry = Geometry(800, 800, 0, itemsize)
    stored = schunk.get_chunk(0)
    with pytest.raises(BadChunk):
        check_chunk(stored, geometry, 0)
    plain = plain_chunk(stored, geometry, 0)
    check_chunk(plain, geometry, 0)
    wanted = np.full(800 // itemsize, np.nan if kind == "NAN" else 0, dtype)
    np.testing.assert_array_equal(np.frombuffer(blosc2.decompress2(plain), dtype), wanted)
    assert plain == special_chunk(special, geometry, 0)


def test_nan_of_items_that_are_no_floats_is_refused():
    with pytest.raises(BadChunk):
        special_chunk(SPECIAL_NAN, geometry_for(6, 2), 0)


def test_a_digest_is_blake3():
    assert len(digest(b"")) == DIGEST_BYTES
    assert digest(memoryview(b"")).hex().startswith("af1349b9f5f9a1a6a0404dea36dcc949")


def test_no_mutant_that_passes_crashes_blosc2():
    """All in this process: a crash would take the test run with it."""
    rng = random.Random(20240)
    seeds = []
    for codec in CODECS:
        for filters in FILTERS.values():
            geometry = geometry_for(512, 4, rng.choice([512, 64]))
            seeds.append((compressed(smooth(2048), geometry, codec, filters), geometry))
    seeds.append((repeat_value_chunk(geometry_for(512, 4), 0, b"abcd"), geometry_for(512, 4)))
    passed = 0
    for _ in range(6000):
        chunk, geometry = rng.choice(seeds)
        mutant = bytearray(chunk)
        for _ in range(rng.choice([1, 1, 2, 4])):
            # bytes before 16 nearly always make the gate refuse; those behind are what Blosc2 gets to see
            mutant[rng.randrange(16 if rng.random() < 0.9 else 0, len(mutant))] = rng.choice(
                [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
            )
        try:
            check_chunk(mutant, geometry, 0)
        except BadChunk:
            continue
        passed += 1
        destination = bytearray(geometry.chunksize)
        with contextlib.suppress(ValueError, RuntimeError):
            blosc2.decompress2(mutant, dst=destination, nthreads=1)
    assert passed > 2000
