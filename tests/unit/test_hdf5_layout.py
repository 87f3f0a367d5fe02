import math

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadContent
from zcat.limits import CHUNK_BYTES_MAX, KIB, MIB
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5.convert import convert_box
from zcat.storage.hdf5.items import Item, Layout
from zcat.storage.hdf5.layout import (
    BLOCK_BYTES,
    Unit,
    block_shape,
    box_of,
    chunk_shape,
    cut_of,
    unit_of,
)


def item(shape, dtype="<f4", chunks=None):
    layout = Layout("chunked" if chunks else "contiguous", chunks)
    return Item("d", "/d", "dataset", 1, shape, dtype, layout)


@pytest.mark.parametrize(
    ("shape", "chunks", "served"),
    [
        pytest.param((64, 1024, 1024), (1, 512, 1024), (1, 512, 1024), id="of good size: kept"),
        pytest.param(
            (1000, 64, 64), (1, 64, 64), (64, 64, 64), id="small planes: several along the only axis left"
        ),
        pytest.param((10000, 10000), (8, 8), (512, 512), id="small tiles: a larger tile"),
        pytest.param((10, 10000), (10, 1), (10, 10000), id="small columns: as many as there are"),
        pytest.param((10**6,), (1,), (262144,), id="one item each"),
        pytest.param((8192, 8192), (8192, 1024), (1024, 1024), id="too large: slabs that divide it"),
        pytest.param((4, 4096, 4096), (4, 4096, 4096), (1, 256, 4096), id="too large: planes are, too"),
        pytest.param(
            (2 * 4099, 4096), (4099, 4096), (256, 4096), id="a prime length: parts that do not divide it"
        ),
        pytest.param((10,), (10**6,), (10,), id="beyond the shape: cut"),
        pytest.param((256, 1024, 1024), None, (1, 1024, 1024), id="contiguous: one run"),
        pytest.param((3, 4, 5), None, (3, 4, 5), id="contiguous and small: whole"),
        pytest.param((10, 3 * MIB), None, (1, MIB), id="contiguous, long rows: a part of one"),
        pytest.param((), None, (), id="a scalar"),
        pytest.param((0, 5), (7, 5), (0, 5), id="nothing"),
    ],
)
def test_chunks_follow_the_rule(shape, chunks, served):
    assert chunk_shape(shape, 4, chunks) == served


def test_blocks_are_small_and_of_even_proportions():
    assert block_shape((1, 1024, 1024), 4) == (1, 128, 256)
    assert block_shape((1000,), 4) == (1000,)
    assert block_shape((3, 3), 40000) == (1, 2)
    assert block_shape((2,), 10 * MIB) == (1,)


def test_small_integers_are_shuffled_by_bits_and_wide_items_not_at_all():
    assert cut_of(item((10,), "<u2")).compression.filters[-1] == 2
    assert cut_of(item((10,), "<f4")).compression.filters[-1] == 1
    assert cut_of(item((10,), "|S300")).compression.filters[-1] == 0


def test_items_larger_than_a_chunk_may_be_are_refused():
    with pytest.raises(BadContent, match="the limit is"):
        cut_of(item((10,), f"|S{CHUNK_BYTES_MAX + 1}"))


def test_axes_inside_of_an_item_are_never_cut():
    vectors = Item("d", "/d", "dataset", 1, (50, 2000, 3000), "<f8", Layout("contiguous"), inner_axes=2)

    assert cut_of(vectors).array.chunks == (1, 2000, 3000)


axes = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 4000)), min_size=1, max_size=2)


@settings(max_examples=150, deadline=None)
@given(axes, st.sampled_from([1, 2, 3, 8, 300]), st.booleans())
def test_any_dataset_is_cut_within_the_limits_and_each_chunk_belongs_to_one_unit(pairs, itemsize, is_chunked):
    shape = tuple(length for length, _ in pairs)
    stored = tuple(chunk for _, chunk in pairs) if is_chunked else None
    cut = cut_of(item(shape, f"|S{itemsize}", stored))  # checks the geometry

    assert cut.geometry.blocksize <= max(BLOCK_BYTES, itemsize)
    unit = unit_of(cut, stored, cut.geometry.nchunks - 1)
    assert cut.geometry.nchunks - 1 in unit.numbers
    if stored is None:
        box = box_of(cut.array, 0)
        run = math.prod(part.stop - part.start for part in box)
        inside = np.zeros(shape, bool)
        inside[box] = True
        assert inside.reshape(-1)[:run].all()
    elif max(unit.numbers) != min(unit.numbers):
        assert all(unit_of(cut, stored, number) == unit for number in unit.numbers)


def test_parts_of_a_large_chunk_are_one_unit():
    shape, stored = (5000, 2048), (2048, 2048)
    cut = cut_of(item(shape, "<f8", stored))

    units = [unit_of(cut, stored, n) for n in (0, 8, 16)]

    assert cut.array.chunks == (256, 2048)
    assert [unit.numbers for unit in units] == [tuple(range(8)), tuple(range(8, 16)), tuple(range(16, 20))]
    assert [unit.box[0] for unit in units] == [slice(0, 2048), slice(2048, 4096), slice(4096, 5000)]
    assert all(unit_of(cut, stored, n) == unit for unit in units for n in unit.numbers)


@pytest.mark.parametrize(
    ("shape", "chunks"), [((100, 70, 33), None), ((500, 300), (64, 7)), ((), None), ((0, 4), None), ((7,), (100,))]
)
def test_blosc2_reads_what_was_cut(shape, chunks):
    values = np.arange(math.prod(shape), dtype="<f8").reshape(shape)
    cut = cut_of(item(shape, "<f8", chunks))
    unit = Unit(tuple(slice(0, s) for s in shape), tuple(range(cut.geometry.nchunks)))

    made = convert_box(values, cut, unit)

    header, tail = assemble_cframe(frame_template(cut.geometry, cut.compression), [len(chunk) for chunk in made])
    read = blosc2.ndarray_from_cframe(b"".join([header, *made, tail]), copy=True)
    np.testing.assert_array_equal(read[...], values)


def test_a_small_dataset_has_one_small_chunk():
    cut = cut_of(item((10,), "<f8", (1024 * KIB,)))

    assert cut.geometry.chunksize == 80
