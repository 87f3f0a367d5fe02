import blosc2
import numpy as np
import pytest
from blosc2_frames import ARRAYS, same, values

from zcat.errors import NotReadable
from zcat.limits import CHUNK_BYTES_MAX, NCHUNKS_MAX
from zcat.model.dataset import Compression, check_geometry
from zcat.storage.block_order import to_block_order
from zcat.storage.chunk_gate import check_chunk
from zcat.storage.frame_format import geometry_of, parse_header
from zcat.storage.slice_frames import BLOCK_BYTES, CHUNK_BYTES, cframe_of_slice, slice_geometry

LARGE = [
    ((300_000,), "f4"),
    ((1_500_001,), "f4"),
    ((3, 700, 999), "i2"),
    ((2, 3, 701, 333), "f8"),
    ((5, 1_100_000), "f4"),
    ((7, 2, 300_001), "i2"),
    ((3, 40, 9), "S30000"),
]


def read(parts: list[bytes]) -> np.ndarray:
    return blosc2.ndarray_from_cframe(b"".join(parts))[...]


@pytest.mark.parametrize(("shape", "dtype"), [(a[0], a[3]) for a in ARRAYS])
def test_a_small_array_travels_as_a_frame(shape, dtype):
    array = values(shape, dtype)
    parts = cframe_of_slice(array)
    again = blosc2.ndarray_from_cframe(b"".join(parts))
    assert again.dtype == array.dtype
    assert same(again[...], array)
    assert parts == cframe_of_slice(array)


@pytest.mark.parametrize(("shape", "dtype"), LARGE)
def test_a_large_array_travels_in_chunks(shape, dtype):
    array = values(shape, dtype)
    parts = cframe_of_slice(array)
    assert same(read(parts), array)
    geometry = geometry_of(parse_header(parts[0]))
    assert geometry == slice_geometry(array.shape, array.dtype)
    for nchunk, chunk in enumerate(parts[1:-1]):
        check_chunk(chunk, geometry, nchunk)


@pytest.mark.parametrize(
    "shape", [(1,), (10**6,), (1, 10**7), (10**7, 1), (999, 1001, 7), (2**20, 3, 5), (20,) * 5]
)
@pytest.mark.parametrize("itemsize", [1, 8, 300, 200_000])
def test_chunks_of_an_answer_are_neither_large_nor_many(shape, itemsize):
    geometry = slice_geometry(shape, np.dtype(f"V{itemsize}"))
    check_geometry(geometry, CHUNK_BYTES_MAX, NCHUNKS_MAX)
    assert geometry.array is not None
    content = np.prod(shape) * itemsize
    assert geometry.chunksize <= max(1.1 * CHUNK_BYTES, 2 * itemsize)
    assert geometry.blocksize <= max(BLOCK_BYTES, itemsize)
    assert geometry.nbytes <= 1.3 * content + 2 * CHUNK_BYTES


def test_strides_and_order_do_not_matter():
    base = np.arange(120_000, dtype="f4").reshape(30, 40, 100)
    for array in (base[::2, ::-1, 5:], base.T, np.asfortranarray(base), np.broadcast_to(base[0], base.shape)):
        assert same(read(cframe_of_slice(array)), array)


@pytest.mark.parametrize("codec", [0, 1, 2, 4, 5])
def test_any_codec_of_blosc2s_own_will_do(codec):
    array = np.arange(5000, dtype="i4")
    parts = cframe_of_slice(array, Compression(codec=codec))
    assert same(read(parts), array)
    assert parse_header(parts[0]).compression.codec == codec


def test_objects_and_long_doubles_do_not_travel():
    for dtype in (object, np.longdouble):
        with pytest.raises(NotReadable):
            cframe_of_slice(np.zeros(3, dtype))


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), [a for a in ARRAYS if 0 not in a[0]])
def test_block_order_is_that_of_blosc2(shape, chunks, blocks, dtype):
    array = values(shape, dtype)
    stored = blosc2.asarray(array, chunks=chunks, blocks=blocks)
    geometry = geometry_of(parse_header(stored.to_cframe()))
    corner = tuple(slice(c) for c in chunks)
    assert to_block_order(array[corner], geometry.array).tobytes() == stored.schunk.decompress_chunk(0)
