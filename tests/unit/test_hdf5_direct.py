import os

import blosc2
import h5py
import hdf5plugin
import numpy as np
import pytest
from hdf5_files import described, wave, write

from zcat.errors import BadContent
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5.direct import chunk_of, cut_like, is_direct, unwrap
from zcat.storage.hdf5.stored import StoredData

BLOSC2 = hdf5plugin.Blosc2(cname="zstd", clevel=3)


class Opened:
    """A dataset of the Blosc2 filter, as the publisher sees it."""

    def __init__(self, path, name="d"):
        with h5py.File(path) as file:
            self.values = file[name][...]
        self.item, self.table = described(path, name)
        self.fd = os.open(path, os.O_RDONLY)
        self.data = StoredData(self.fd, self.item, self.values.dtype.itemsize, self.table)
        self.like = unwrap(self.data.chunk(self.data.written()[0]).raw)
        self.cut = cut_like(self.item, self.like)

    def chunks(self):
        raws = (self.data.chunk(n).raw for n in range(len(self.table.offsets)))
        return [chunk_of(self.cut, self.like, raw, n) for n, raw in enumerate(raws)]

    def read(self):
        made, cut = self.chunks(), self.cut
        header, tail = assemble_cframe(
            frame_template(cut.geometry, cut.compression), [len(chunk) for chunk in made]
        )
        return blosc2.ndarray_from_cframe(b"".join([header, *made, tail]), copy=True)[...]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype"),
    [
        ((100, 120), (30, 50), "<f4"),
        ((10, 300, 300), (1, 300, 300), ">i2"),
        ((65536,), (16384,), "<f8"),
        ((1000,), (300,), "<i4"),
        ((7, 600, 600), (4, 600, 600), "<c16"),
        ((50, 40), (50, 40), "|u1"),
        ((500,), (100,), "|S12"),
    ],
)
def test_chunks_of_the_blosc2_filter_are_read_as_they_are(tmp_path, shape, chunks, dtype):
    values = wave(shape, "<i8").astype(dtype)
    with Opened(write(tmp_path / "f.h5", d={"data": values, "chunks": chunks, **BLOSC2})) as opened:
        assert is_direct(opened.item.layout)
        assert opened.cut.array.chunks == chunks
        assert opened.cut.array.dtype == np.dtype(dtype).str
        np.testing.assert_array_equal(opened.read(), values)
        raw = opened.data.chunk(0).raw
        assert opened.chunks()[0] in raw  # untouched


def test_an_axis_that_grew_ends_with_a_whole_chunk(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", (5, 40), "<i4", chunks=(16, 64), maxshape=(None, None), **BLOSC2)
        dataset[...] = np.arange(200).reshape(5, 40)
        dataset.resize((20, 40))
        dataset[5:] = 7

    with Opened(path) as opened:
        np.testing.assert_array_equal(opened.read(), opened.values)


def test_chunks_of_zeros_are_repeat_value_chunks(tmp_path):
    values = np.full((100, 100), 2.5)
    values[:50] = 0
    with Opened(write(tmp_path / "f.h5", d={"data": values, "chunks": (50, 50), **BLOSC2})) as opened:
        np.testing.assert_array_equal(opened.read(), values)
        assert len(opened.chunks()[0]) == 40


def test_chunks_that_are_cut_in_another_way_have_to_be_converted(tmp_path):
    path = write(tmp_path / "f.h5", d={"data": wave((64, 64)), "chunks": (32, 64), **BLOSC2})
    other = blosc2.asarray(wave((32, 64)), chunks=(32, 64), blocks=(8, 16)).to_cframe()
    with h5py.File(path, "r+") as file:
        file["d"].id.write_direct_chunk((32, 0), other)
    with Opened(path) as opened:
        first, second = opened.chunks()

    assert first is not None
    assert second is None


@pytest.mark.parametrize("count", [100_000, 65_537])
def test_blocks_that_do_not_tile_a_chunk_have_to_be_converted(tmp_path, count):
    given = {"data": wave((200_000,), "<f8"), "chunks": (count,), **hdf5plugin.Blosc2(clevel=1)}
    with Opened(write(tmp_path / "f.h5", d=given)) as opened:
        assert opened.cut is None


def test_foreign_frames_are_refused(tmp_path):
    path = write(tmp_path / "f.h5", d={"data": wave((64, 64)), "chunks": (64, 64), **BLOSC2})
    with Opened(path) as opened:
        raw = opened.data.chunk(0).raw
        wide = blosc2.asarray(wave((64, 64), "<f8"), chunks=(64, 64)).to_cframe()

        assert chunk_of(opened.cut, opened.like, wide, 0) is None
        end = opened.like.header.header_len + opened.like.header.cbytes
        for cut in range(0, end, max(end // 50, 1)):
            assert chunk_of(opened.cut, opened.like, raw[:cut], 0) is None
        assert cut_like(opened.item, unwrap(wide)) is None
    with pytest.raises(BadContent):
        unwrap(b"no frame at all" * 20)
