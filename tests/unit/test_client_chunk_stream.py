import io
import struct

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.client.backend import BodyCut
from zcat.client.chunk_stream import HEADER_BYTES, check_header, decode
from zcat.errors import BadChunk
from zcat.model.dataset import Compression
from zcat.storage.answers import chunk_stream

LZ4, ZSTD = Compression(codec=1), Compression()
ARRAYS = [
    np.arange(24, dtype="i2").reshape(2, 3, 4),
    np.zeros(1000),
    np.full(1000, np.nan),
    np.ones((), "c16"),
    np.empty((0, 3), "f4"),
    np.array([b"a", b"bcd"], "S300"),
    np.array([(1, 2.5), (3, 4.5)], [("a", "u1"), ("b", "<f8")]),
    np.random.default_rng(1).integers(0, 255, 5000, "u1"),
    np.arange(3 << 20, dtype="i4"),
]


def stream_of(array, compression=ZSTD):
    return b"".join(chunk_stream(array, compression))


def patched(offset, data, array=ARRAYS[0]):
    stream = bytearray(stream_of(array, LZ4))
    stream[offset : offset + len(data)] = data
    return bytes(stream)


def int32(number):
    return struct.pack("<i", number)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
@pytest.mark.parametrize("compression", [LZ4, ZSTD])
def test_an_array_comes_back_as_it_was_sent(array, compression):
    out = np.empty_like(array)
    decode(io.BytesIO(stream_of(array, compression)).read, out)
    assert out.tobytes() == array.tobytes()


HOSTILE = {
    "another version": patched(0, b"\x06"),
    "no Blosc2 header": patched(2, b"\x00"),
    "more than is wanted": patched(4, int32(49)),
    "nothing": patched(4, int32(0)),
    "a negative size": patched(4, int32(-1)),
    "no block": patched(8, int32(0)),
    "a block larger than the chunk": patched(8, int32(1 << 20)),
    "shorter than its header": patched(12, int32(31)),
    "longer than it can be": patched(12, int32(1 << 30)),
    "no typesize": patched(3, b"\x00"),
    "a lazy chunk": patched(31, b"\x08"),
    "a dictionary": patched(31, b"\x01"),
    "uninitialised memory": patched(31, b"\x40"),
    "a repeated value of no length": patched(31, b"\x30"),
    "an unknown kind": patched(31, b"\x70"),
    "a filter that is a plug-in": patched(16, b"\xa0", np.arange(1000)),
    "a codec that is a plug-in": patched(2, b"\xc5", np.arange(1000)),
    "no room for block offsets": patched(8, int32(1), np.arange(1000)),
    "a plain copy of another length": patched(2, b"\x27", np.arange(1000)),
    "more than the array": stream_of(ARRAYS[0]) + b"\x00",
}


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE)
def test_a_chunk_that_does_not_fit_is_never_decoded(stream):
    out = np.empty(1000, int) if len(stream) > 200 else np.empty(24, "i2")
    with pytest.raises(BadChunk):
        decode(io.BytesIO(stream).read, out)


def test_a_chunk_whose_content_is_damaged_is_told_as_such():
    stream = bytearray(stream_of(np.random.default_rng(1).integers(0, 9, 5000, "i8"), LZ4))
    stream[HEADER_BYTES : HEADER_BYTES + 4] = b"\xff\xff\xff\x7f"
    with pytest.raises(BadChunk, match="damaged"):
        decode(io.BytesIO(stream).read, np.empty(5000, "i8"))


@pytest.mark.parametrize("length", [0, 10, HEADER_BYTES, HEADER_BYTES + 5])
def test_a_stream_that_ends_early_is_told_as_such(length):
    with pytest.raises(BodyCut, match="early"):
        decode(io.BytesIO(stream_of(ARRAYS[0])[:length]).read, np.empty(24, "i2"))


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 1 << 31))
def test_no_header_whatever_asks_for_more_than_is_wanted(header, nbytes_max):
    try:
        nbytes, cbytes = check_header(b"\x05\x01" + bytes([header[2] | 5]) + header[3:], nbytes_max)
    except BadChunk:
        return
    assert 0 < nbytes <= nbytes_max
    assert HEADER_BYTES <= cbytes <= nbytes + blosc2.MAX_OVERHEAD
