import itertools
import os
import zlib

import blosc2
import h5py
import hdf5plugin
import numpy as np
import pytest
from hdf5_files import described, wave, write

from zcat.errors import BadContent
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5.convert import as_items, convert_box
from zcat.storage.hdf5.items import Filter, Item, Layout
from zcat.storage.hdf5.layout import cut_of, unit_of
from zcat.storage.hdf5.raw_chunks import decode, pipeline_of
from zcat.storage.hdf5.stored import ChunkTable, StoredData

GZIP = {"compression": "gzip", "shuffle": True}
ZSTD = {**hdf5plugin.Zstd(), "shuffle": True}


def read_raw(path, name="d"):
    """Read a dataset as the publisher does: by ``pread``, unit by unit."""
    item, table = described(path, name)
    cut = cut_of(item)
    fd = os.open(path, os.O_RDONLY)
    try:
        data = StoredData(fd, item, cut.array.itemsize, table)
        pipeline = pipeline_of(item, cut.array.itemsize)
        chunks = {}
        for nchunk in range(cut.geometry.nchunks):
            if nchunk not in chunks:
                unit = unit_of(cut, item.layout.chunks, nchunk)
                made = convert_box(data.values(unit.box, pipeline)[0], cut, unit)
                chunks.update(zip(unit.numbers, made, strict=True))
    finally:
        os.close(fd)
    made = [chunks[nchunk] for nchunk in range(len(chunks))]
    header, tail = assemble_cframe(frame_template(cut.geometry, cut.compression), [len(chunk) for chunk in made])
    return blosc2.ndarray_from_cframe(b"".join([header, *made, tail]), copy=True)[...]


def assert_same(path, name="d"):
    with h5py.File(path) as file:
        wanted = file[name][...]
    got = read_raw(path, name)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


STRUCT = np.dtype([("a", "<i4"), ("b", ">f8", (2,)), ("c", "S3")])
DTYPES = ["|i1", "<u2", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8", "<c16", "|S7", "|V5"]
OPTIONS = {
    "contiguous": {},
    "chunked": {"chunks": (30, 7)},
    "gzip": {"chunks": (30, 7), "compression": "gzip"},
    "shuffle, gzip": {"chunks": (30, 7), **GZIP},
    "zstd": {"chunks": (30, 7), **ZSTD},
}


@pytest.mark.parametrize(("dtype", "option"), list(itertools.product(DTYPES, OPTIONS)))
def test_values_are_those_of_h5py(tmp_path, dtype, option):
    values = wave((100, 33), "<i8").astype("S7" if dtype[1] in "SV" else dtype)
    values = values.view("S7").astype("V5") if dtype == "|V5" else values

    assert_same(write(tmp_path / "f.h5", d={"data": values, **OPTIONS[option]}))


@pytest.mark.parametrize("options", [{}, {"chunks": (100,)}, {"chunks": (100,), **GZIP}])
def test_compounds_come_back(tmp_path, options):
    values = np.zeros(1000, STRUCT)
    values["a"], values["b"], values["c"] = np.arange(1000), np.arange(2000).reshape(-1, 2), b"xyz"

    assert_same(write(tmp_path / "f.h5", d={"data": values, **options}))


@pytest.mark.parametrize("fill", [0, 7.5, np.nan])
@pytest.mark.parametrize("options", [{}, {"chunks": (64, 64)}, {"chunks": (300, 300), **GZIP}])
def test_what_was_never_written_is_fill_value(tmp_path, fill, options):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", (1000, 700), "<f8", fillvalue=fill, **options)
        if options:
            dataset[500:510, 100:650] = 1.25

    assert_same(path)


def test_a_grown_dataset_is_cut_at_its_shape(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", (5, 3), "<i4", maxshape=(None, None), chunks=(400, 400), **GZIP)
        dataset[...] = np.arange(15).reshape(5, 3)

    assert_same(path)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5)])
def test_scalars_and_empty_arrays_come_back(tmp_path, shape):
    assert_same(write(tmp_path / "f.h5", d=np.full(shape, 3.5)))


def test_large_chunks_are_split_and_small_ones_put_together(tmp_path):
    path = tmp_path / "f.h5"
    write(
        path,
        large={"data": wave((4100, 1500)), "chunks": (4100, 1300), **GZIP},
        small={"data": wave((700, 900), "<i2"), "chunks": (13, 17), **GZIP},
    )

    assert_same(path, "large")
    assert_same(path, "small")


def test_a_filter_that_was_left_out_for_one_chunk_is_not_undone(tmp_path):
    path = write(tmp_path / "f.h5", d={"data": wave((256,)), "chunks": (128,), **GZIP})
    with h5py.File(path, "r+") as file:
        plain = np.arange(128, dtype="<f4")
        file["d"].id.write_direct_chunk((0,), plain.tobytes(), filter_mask=3)
        shuffled = plain.view("u1").reshape(-1, 4).T.tobytes()
        file["d"].id.write_direct_chunk((128,), shuffled, filter_mask=2)

    assert_same(path)


def pipeline(filters, itemsize, count):
    layout = Layout("chunked", (count,), tuple(Filter(one, "", (itemsize,)) for one in filters))
    return pipeline_of(Item("d", "/d", "dataset", 1, (count,), "|u1", layout, raw=True), itemsize)


@pytest.mark.parametrize("itemsize", [1, 2, 8, 300])
def test_a_stream_as_long_as_its_content_is_decoded_all_the_same(itemsize):
    size = 4200
    streams = {len(zlib.compress(bytes(range(n)) + bytes(size - n))) % 5: n for n in range(50)}
    content = bytes(range(streams[0])) + bytes(size - streams[0])
    stream = zlib.compress(content)
    nothing = b"\0\0\0\xff\xff" * ((size - len(stream)) // 5)  # empty blocks
    raw = stream[:2] + nothing + stream[2:]
    assert len(raw) == size

    assert decode(raw, 0, pipeline((1,), itemsize, size // itemsize)).tobytes() == content


@pytest.mark.parametrize("content", [b"", b"x", zlib.compress(bytes(99)), zlib.compress(bytes(101)), b"\0" * 100])
def test_a_damaged_chunk_is_refused(content):
    with pytest.raises(BadContent):
        decode(content, 0, pipeline((2, 1), 4, 25))


@pytest.mark.parametrize("filters", [(2,), (1, 2), (1, 3), (32000,), (2, 32008)])
def test_other_pipelines_are_left_to_hdf5(filters):
    assert pipeline(filters, 4, 10) is None


def test_a_table_that_lies_reads_nothing_outside_of_the_file(tmp_path):
    path = write(tmp_path / "f.h5", d={"data": wave((64,)), "chunks": (64,)})
    item, _ = described(path)
    with open(path, "rb") as file:
        for offset, size in ((10**9, 256), (0, 1 << 40), (0, -1)):
            table = ChunkTable(np.array([offset]), np.array([size]), np.zeros(1, "u4"))
            data = StoredData(file.fileno(), item, 4, table)
            with pytest.raises(BadContent):
                data.values((slice(0, 64),), pipeline_of(item, 4))
        with pytest.raises(BadContent, match="for a grid"):
            StoredData(file.fileno(), item, 4, ChunkTable(np.zeros(2), np.zeros(2), np.zeros(2)))


def test_a_witness_sees_what_was_overwritten_in_place(tmp_path):
    path = write(tmp_path / "f.h5", d=wave((64,)), e={"data": wave((64,)), "chunks": (32,)})

    def witnesses():
        found = [described(path, name) for name in "de"]
        with open(path, "rb") as file:
            return [StoredData(file.fileno(), item, 4, table).witness((slice(0, 64),)) for item, table in found]

    before = witnesses()
    with h5py.File(path, "r+") as file:
        file["e"][40] = -1
        file["new"] = wave((1000,))

    assert [a == b for a, b in zip(before, witnesses(), strict=True)] == [True, False]


def test_items_are_copied_whole():
    values = np.zeros(3, STRUCT)

    assert as_items(values, STRUCT).dtype == np.dtype("V23")
