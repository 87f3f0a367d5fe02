import random
import struct

import blosc2
import msgpack
import pytest
from blosc2_frames import ARRAYS, made

from zcat.errors import BadContent, NotReadable
from zcat.model.dataset import Compression, Geometry
from zcat.model.dtypes import parse_dtype
from zcat.storage.frame_format import FIXED, geometry_of, header_bytes, parse_header, read_index
from zcat.storage.frame_layers import write_layers
from zcat.storage.frame_template import frame_template


def header_with(b2nd: object, **changes: int) -> bytes:
    """Return the header of a small array whose b2nd metalayer says something else."""
    template = frame_template(Geometry(160, 40, 8, 4), Compression())
    header = bytearray(
        template.header(0, 10_000)[: FIXED.size] + write_layers({"b2nd": msgpack.packb(b2nd)}, 87, 0)
    )
    header[11:15] = len(header).to_bytes(4, "big")
    for at, value in changes.items():
        struct.pack_into(">i", header, int(at[1:]), value)
    return bytes(header)


@pytest.mark.parametrize(("shape", "chunks", "blocks", "dtype"), ARRAYS)
def test_the_geometry_of_an_array_is_what_blosc2_says(shape, chunks, blocks, dtype):
    array = made(shape, chunks, blocks, dtype)
    geometry = geometry_of(parse_header(array.to_cframe()))
    assert geometry.array is not None
    assert (geometry.array.shape, geometry.array.chunks, geometry.array.blocks) == (
        shape,
        array.chunks,
        array.blocks,
    )
    assert geometry.array.itemsize == array.dtype.itemsize
    assert geometry.nbytes == array.schunk.nbytes
    assert geometry.nchunks == array.schunk.nchunks
    assert (geometry.chunksize, geometry.blocksize) == (array.schunk.chunksize, array.schunk.blocksize)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2501])
@pytest.mark.parametrize("typesize", [1, 4, 8])
def test_a_byte_frame_may_end_anywhere(size, typesize):
    data = bytes(range(256)) * 10
    schunk = blosc2.SChunk(chunksize=1000, data=data[:size] or None, cparams={"typesize": typesize})
    geometry = geometry_of(parse_header(schunk.to_cframe()))
    assert geometry.array is None
    assert (geometry.nbytes, geometry.nchunks, geometry.typesize) == (size, -(-size // 1000), typesize)


@pytest.mark.parametrize(
    ("codec", "clevel", "filters", "splitmode"),
    [("BLOSCLZ", 1, [1], "AUTO_SPLIT"), ("LZ4HC", 9, [3, 2], "NEVER_SPLIT"), ("ZLIB", 0, [0], "ALWAYS_SPLIT")],
)
def test_compression_is_read(codec, clevel, filters, splitmode):
    options = {
        "codec": blosc2.Codec[codec],
        "clevel": clevel,
        "filters": filters,
        "splitmode": blosc2.SplitMode[splitmode],
    }
    compression = parse_header(blosc2.SChunk(cparams=options).to_cframe()).compression
    assert compression.codec == blosc2.Codec[codec].value
    assert compression.clevel == clevel
    assert compression.splitmode == blosc2.SplitMode[splitmode].value
    assert [f for f in compression.filters if f] == [f for f in filters if f]


def test_the_index_is_read_special_offsets_and_all():
    array = blosc2.zeros((10, 10), chunks=(5, 5), blocks=(5, 5), dtype="f4")
    array[:5, :5] = 1
    frame = array.to_cframe()
    header = parse_header(frame)
    index = frame[header.header_len + header.cbytes :]
    index = index[: int.from_bytes(index[12:16], "little")]
    offsets = read_index(index, 4)
    assert sorted(offsets < 0) == [False, True, True, True]
    for wrong in (3, 5, 0x7FFF_FFFF):
        with pytest.raises(BadContent):
            read_index(index, wrong)
    with pytest.raises(BadContent):
        read_index(index[:-1], 4)


@pytest.mark.parametrize("flag", [0x40, 0x80], ids=["chunks", "blocks"])
def test_frames_without_a_grid_of_chunks_are_said_to_be_unreadable(flag):
    frame = bytearray(blosc2.SChunk(chunksize=1000, data=bytes(2500)).to_cframe())
    frame[25] |= flag
    with pytest.raises(NotReadable, match="vary"):
        geometry_of(parse_header(bytes(frame)))


def test_plug_ins_and_dictionaries_are_said_to_be_unreadable():
    array = blosc2.zeros((100, 100), dtype="f4", cparams={"codec": blosc2.Codec.NDLZ, "filters": [0]})
    with pytest.raises(NotReadable, match="codec 32"):
        geometry_of(parse_header(array.to_cframe()))
    schunk = blosc2.SChunk(cparams={"filters": [blosc2.Filter.BYTEDELTA], "typesize": 4})
    with pytest.raises(NotReadable, match="plug-in"):
        geometry_of(parse_header(schunk.to_cframe()))
    schunk = blosc2.SChunk(cparams={"use_dict": True, "codec": blosc2.Codec.ZSTD})
    with pytest.raises(NotReadable, match="dictionar"):
        geometry_of(parse_header(schunk.to_cframe()))


@pytest.mark.parametrize("at", [2, 14, 25, 26])
def test_other_magic_versions_and_kinds_are_refused(at):
    frame = bytearray(blosc2.zeros((10,), dtype="f4").to_cframe())
    frame[at] = 0x0F
    with pytest.raises(BadContent):
        parse_header(bytes(frame))


@pytest.mark.parametrize(
    "b2nd",
    [
        None,
        [0, 1],
        [0, 1, [40], [10], [2], 1, "<f4"],
        [0, 2, [40], [10], [2], 0, "<f4"],
        [0, 1, [-40], [10], [2], 0, "<f4"],
        [0, 1, [40.0], [10], [2], 0, "<f4"],
        [0, 1, [True], [10], [2], 0, "<f4"],
        [0, 1, [2**63], [10], [2], 0, "<f4"],
        [0, 1, [40], [0], [2], 0, "<f4"],
        [0, 1, [40], [10], [0], 0, "<f4"],
        [0, 1, [40], [10], [11], 0, "<f4"],
        [0, 1, [40], [10], [3], 0, "<f4"],
        [0, 1, [41], [10], [2], 0, "<f4"],
        [0, 1, [40], [10], [2], 0, "<f8"],
        [0, 1, [40], [10], [2], 0, b"<f4"],
        [0, 9, [40] * 9, [10] * 9, [2] * 9, 0, "<f4"],
        [0, "1", [40], [10], [2], 0, "<f4"],
    ],
)
def test_an_array_that_contradicts_itself_is_refused(b2nd):
    assert geometry_of(parse_header(header_with([0, 1, [40], [10], [2], 0, "<f4"]))).nchunks == 4
    with pytest.raises(BadContent):
        geometry_of(parse_header(header_with(b2nd)))


def test_a_dtype_of_objects_is_never_made():
    with pytest.raises(NotReadable):
        geometry_of(parse_header(header_with([0, 1, [40], [10], [2], 0, "|O8"], _48=8)))


def test_chunks_and_counts_above_the_limits_are_refused():
    for changes in ({"_58": 65 << 20}, {"_58": -5}, {"_58": 0}, {"_48": 0}):
        with pytest.raises(BadContent):
            geometry_of(parse_header(header_with([0, 1, [40], [10], [2], 0, "<f4"], **changes)))


@pytest.mark.parametrize("name", ["array", "structured", "bytes"])
def test_no_mutant_of_a_header_raises_anything_else(name):
    rng = random.Random(name)
    if name == "bytes":
        frame = blosc2.SChunk(chunksize=1000, data=bytes(2500), meta={"a": 1, "b": "text"}).to_cframe()
    else:
        frame = made(*ARRAYS[3 if name == "array" else 9]).to_cframe()
    header = frame[: header_bytes(frame)]
    for _ in range(4000):
        mutant = bytearray(header[: rng.choice([len(header), len(header), rng.randrange(len(header))])])
        for _ in range(rng.choice([0, 1, 2, 6])):
            if mutant:
                at = rng.randrange(10 if rng.random() < 0.9 and len(mutant) > 10 else 0, len(mutant))
                mutant[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            geometry = geometry_of(parse_header(bytes(mutant)))
        except (BadContent, NotReadable):
            continue
        assert geometry.nchunks >= 0
        assert not (geometry.array and parse_dtype(geometry.array.dtype).hasobject)


def test_a_header_that_claims_to_be_huge_is_not_read():
    raw = bytearray(blosc2.zeros((10,), dtype="f4").to_cframe())
    raw[11:15] = (1 << 30).to_bytes(4, "big")
    with pytest.raises(BadContent):
        header_bytes(bytes(raw))
