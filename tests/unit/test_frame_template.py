import blosc2
import numpy as np
import pytest
from blosc2_frames import ARRAYS, made, same, values

from zcat.model.dataset import Compression
from zcat.storage.attributes import TRAILER_END_BYTES, decode_attributes, read_trailer, trailer_bytes
from zcat.storage.chunk_gate import plain_chunk
from zcat.storage.frame_format import geometry_of, parse_header
from zcat.storage.frame_template import PADDING, assemble_cframe, frame_template

NTHREADS_AT = (63, 64, 66, 67)


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), [a for a in ARRAYS if isinstance(a[3], str)])
@pytest.mark.parametrize("attributes", [{}, {"one": 1, "two": {"k": ["v"] * 50}}], ids=["plain", "attributes"])
def test_a_header_and_trailer_are_byte_for_byte_those_of_blosc2(shape, chunks, blocks, dtype, attributes):
    array = made(shape, chunks, blocks, dtype, contiguous=True)
    for name, value in attributes.items():
        array.schunk.vlmeta[name] = value
    frame = array.to_cframe()
    header = parse_header(frame)
    template = frame_template(geometry_of(header), header.compression, attributes)
    ours, theirs = (
        bytearray(template.header(header.cbytes, header.frame_len)),
        bytearray(frame[: header.header_len]),
    )
    for at in NTHREADS_AT:  # of whoever wrote it; no reader looks at it
        ours[at] = theirs[at] = 0
    assert ours == theirs
    trailer = frame[-trailer_bytes(frame[-TRAILER_END_BYTES:]) :]
    if attributes:
        assert decode_attributes(read_trailer(template.trailer)) == decode_attributes(read_trailer(trailer))
    else:
        assert template.trailer == trailer


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), ARRAYS)
def test_chunks_between_its_ends_are_a_frame(shape, chunks, blocks, dtype):
    array = made(shape, chunks, blocks, dtype)
    header = parse_header(array.to_cframe())
    geometry = geometry_of(header)
    stored = [plain_chunk(array.schunk.get_chunk(i), geometry, i) for i in range(geometry.nchunks)]
    template = frame_template(geometry, header.compression, {"unit": "m"})
    front, tail = assemble_cframe(template, [len(chunk) for chunk in stored])
    frame = front + b"".join(stored) + tail
    again = blosc2.ndarray_from_cframe(frame)
    assert len(frame) == parse_header(frame).frame_len
    assert again.dtype == np.dtype(dtype)
    assert same(again[...], values(shape, dtype))
    assert again.schunk.vlmeta["unit"] == "m"


@pytest.mark.parametrize("size", [0, 1, 2501])
def test_byte_frames_too(size):
    data = np.random.default_rng(1).bytes(size)
    schunk = blosc2.SChunk(chunksize=1000, data=data or None, cparams={"typesize": 4})
    header = parse_header(schunk.to_cframe())
    stored = [schunk.get_chunk(i) for i in range(schunk.nchunks)]
    front, tail = assemble_cframe(
        frame_template(geometry_of(header), header.compression), [len(c) for c in stored]
    )
    again = blosc2.schunk_from_cframe(front + b"".join(stored) + tail)
    assert again.nbytes == size
    assert b"".join(again.decompress_chunk(n) for n in range(again.nchunks)) == data


def test_padding_makes_the_header_a_multiple():
    array = made(*ARRAYS[3])
    geometry = geometry_of(parse_header(array.to_cframe()))
    for multiple in (4096, 300, 256, 211, 212):
        template = frame_template(geometry, Compression(), {}, padding=(multiple, b"because"))
        assert template.header_len % multiple == 0
        header = parse_header(template.header(0, 10_000))
        assert header.header_len == template.header_len
        assert header.metalayers[PADDING].startswith(b"because")
        assert geometry_of(header) == geometry
