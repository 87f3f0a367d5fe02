import itertools

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.dataset import ArrayGeometry, Geometry
from zcat.model.geometry import (
    byte_pieces,
    chunks_touched,
    pieces,
    points_by_chunk,
    read_piece,
    unblock,
    whole_chunks,
)
from zcat.model.selection import Points, Selection, parse_key

QUICK = settings(max_examples=150, deadline=None)


def array_geometry(shape, chunks, blocks=None):
    return ArrayGeometry(shape, chunks, blocks or chunks, "<i8", 8)


@st.composite
def axes(draw, length):
    if length == 0 or draw(st.booleans()):
        first, stop = draw(st.integers(0, length)), draw(st.integers(0, length))
        return range(first, max(first, stop), draw(st.integers(1, 9)))
    return np.array(sorted(draw(st.sets(st.integers(0, length - 1)))), np.int64)


@st.composite
def selections(draw):
    """Draw an array's geometry and a selection of it."""
    shape = tuple(draw(st.lists(st.integers(0, 12), max_size=3)))
    chunks = tuple(draw(st.integers(1, max(n, 1))) for n in shape)
    blocks = tuple(draw(st.integers(1, c)) for c in chunks)
    return array_geometry(shape, chunks, blocks), Selection(tuple(draw(axes(n)) for n in shape))


def brute_force_chunks(array, selection):
    numbers = set()
    for item in itertools.product(*selection.axes):
        at = tuple(int(i) // c for i, c in zip(item, array.chunks, strict=True))
        numbers.add(int(np.ravel_multi_index(at, array.grid)) if array.grid else 0)
    return sorted(numbers)


def stored_chunk(data, array, nchunk):
    """Return a chunk of an array as Blosc2 has it: padded, block after block."""
    origin = np.unravel_index(nchunk, array.grid) if array.grid else ()
    part = data[tuple(slice(o * c, (o + 1) * c) for o, c in zip(origin, array.chunks, strict=True))]
    padded = np.zeros(array.padded_chunk, data.dtype)
    padded[tuple(map(slice, part.shape))] = part
    starts = [range(0, p, b) for p, b in zip(array.padded_chunk, array.blocks, strict=True)]
    blocks = [
        padded[tuple(slice(at, at + b) for at, b in zip(corner, array.blocks, strict=True))].ravel()
        for corner in itertools.product(*starts)
    ]
    return np.concatenate(blocks)


@given(selections())
@QUICK
def test_the_chunks_touched_are_those_that_hold_an_item(case):
    array, selection = case

    numbers = chunks_touched(array, selection)

    assert numbers.dtype == np.int64
    assert numbers.tolist() == brute_force_chunks(array, selection)
    assert [piece.nchunk for piece in pieces(array, selection)] == numbers.tolist()


@given(selections())
@QUICK
def test_the_pieces_of_a_selection_make_its_block(case):
    array, selection = case
    data = np.arange(np.prod(array.shape, dtype=int)).reshape(array.shape)
    block = np.full(selection.shape, -1)

    for piece in pieces(array, selection):
        raw = stored_chunk(data, array, piece.nchunk)
        part = read_piece(raw, array, piece.inside)
        assert part.shape == block[(*piece.outside, ...)].shape
        assert (block[(*piece.outside, ...)] == -1).all()
        block[(*piece.outside, ...)] = part

    wanted = data[np.ix_(*selection.axes)] if data.ndim else data
    np.testing.assert_array_equal(block, wanted)


@given(selections().filter(lambda case: 0 not in case[0].shape), st.data())
@QUICK
def test_points_are_grouped_by_the_chunk_that_holds_them(case, data):
    array = case[0]
    columns = st.tuples(*[st.integers(0, n - 1) for n in array.shape])
    drawn = data.draw(st.lists(columns, max_size=30))
    wanted = np.array(drawn, np.int64).reshape(len(drawn), len(array.shape))
    found = np.full_like(wanted, -1)
    numbers = []

    for nchunk, inside, positions in points_by_chunk(array, Points(wanted)):
        numbers.append(nchunk)
        origin = np.array(np.unravel_index(nchunk, array.grid) if array.grid else (), np.int64) * array.chunks
        assert ((inside >= 0) & (inside < array.chunks)).all()
        assert (np.diff(positions) > 0).all()
        found[positions] = inside + origin

    np.testing.assert_array_equal(found, wanted)
    assert numbers == sorted(set(numbers))


@given(st.integers(0, 100), st.integers(1, 30), st.data())
@QUICK
def test_the_pieces_of_a_range_of_bytes_make_it(nbytes, chunksize, data):
    geometry = Geometry(nbytes, chunksize if nbytes else 0, 0, 1)
    content = bytes(range(nbytes))
    start = data.draw(st.integers(0, nbytes))
    stop = data.draw(st.integers(start, nbytes))

    found = bytearray()
    for piece in byte_pieces(geometry, start, stop):
        chunk = content[piece.nchunk * chunksize :][: geometry.chunk_nbytes(piece.nchunk)]
        assert piece.offset == len(found)
        assert 0 <= piece.start < piece.stop <= len(chunk)
        found += chunk[piece.start : piece.stop]

    assert bytes(found) == content[start:stop]


@pytest.mark.parametrize(
    ("shape", "chunks", "blocks"),
    [
        ((20,), (7,), (3,)),
        ((20, 30), (10, 15), (10, 15)),
        ((20, 30), (11, 13), (4, 5)),
        ((9, 8, 7), (5, 4, 7), (2, 3, 2)),
        ((5, 4, 3, 6), (3, 4, 2, 5), (2, 1, 2, 3)),
        ((), (), ()),
    ],
)
def test_chunks_are_laid_out_as_blosc2_lays_them_out(shape, chunks, blocks):
    data = np.arange(np.prod(shape, dtype=int), dtype="<i8").reshape(shape)
    stored = blosc2.asarray(data, chunks=chunks, blocks=blocks)
    array = array_geometry(stored.shape, stored.chunks, stored.blocks)
    everything = parse_key(..., shape).what
    some = parse_key(tuple(slice(n // 3, None, 2) for n in shape) or ..., shape).what

    for selection in (everything, some):
        block = np.full(selection.shape, -1)
        for piece in pieces(array, selection):
            raw = np.frombuffer(stored.schunk.decompress_chunk(piece.nchunk), array.dtype)
            np.testing.assert_array_equal(
                read_piece(raw, array, piece.inside), unblock(raw, array)[(*piece.inside, ...)]
            )
            block[(*piece.outside, ...)] = read_piece(raw, array, piece.inside)
        np.testing.assert_array_equal(block, data[np.ix_(*selection.axes)] if shape else data)


@pytest.mark.parametrize("blocks", [(10, 20), (3, 20), (1, 5)])
def test_a_chunk_whose_blocks_are_in_order_is_not_copied(blocks):
    array = array_geometry((100, 200), (10, 20), blocks)
    raw = np.arange(np.prod(array.padded_chunk))

    assert np.shares_memory(unblock(raw, array), raw)
    assert np.shares_memory(read_piece(raw, array, (slice(2, 7, 1), slice(1, 9, 1))), raw)


def test_a_selection_of_a_huge_array_is_cut_piece_by_piece():
    array = array_geometry((1 << 40, 1 << 20), (1 << 17, 1 << 20))
    selection = parse_key((slice(5, None), 7), array.shape).what

    first, second = itertools.islice(pieces(array, selection), 2)

    assert first == (0, (slice(5, 1 << 17, 1), slice(7, 8, 1)), (slice(0, (1 << 17) - 5), slice(0, 1)))
    assert second.nchunk == 1


def test_a_step_larger_than_a_chunk_steps_over_chunks():
    array = array_geometry((1 << 30,), (1 << 10,))

    numbers = chunks_touched(array, Selection((range(0, 1 << 30, 1 << 20),)))

    np.testing.assert_array_equal(numbers, np.arange(0, 1 << 20, 1 << 10))


def test_the_whole_of_an_array_of_many_chunks_is_numbered():
    array = array_geometry((1 << 12, 1 << 10), (2, 2))

    np.testing.assert_array_equal(chunks_touched(array, parse_key(..., array.shape).what), np.arange(1 << 20))


@pytest.mark.parametrize(
    ("key", "numbers", "shape"),
    [
        ((slice(0, 4),), list(range(8)), (4, 6, 5)),
        ((slice(2, 4), slice(0, 3)), [4, 6], (2, 3, 5)),
        ((1,), [2, 3], (6, 5)),
        ((..., slice(None)), list(range(14)), (7, 6, 5)),
        ((3, slice(3, 6)), [7], (3, 5)),
    ],
)
def test_a_part_between_chunk_borders_is_made_of_whole_chunks(key, numbers, shape):
    array = ArrayGeometry((7, 6, 5), (1, 3, 5), (1, 3, 5), "<f4", 4)
    found = whole_chunks(Geometry(14 * 60, 60, 60, 4, array), parse_key(key, array.shape))
    assert found.numbers.tolist() == numbers
    assert found.geometry.array.shape == shape
    assert found.geometry.nbytes == len(numbers) * 60


@pytest.mark.parametrize(
    "key", [(0, slice(1, 4)), (0, 2), (slice(0, 4, 2),), (slice(None, None, -1),), (None,), (slice(5, 5),)]
)
def test_a_part_that_cuts_chunks_or_turns_them_is_not(key):
    array = ArrayGeometry((7, 6, 5), (1, 3, 5), (1, 3, 5), "<f4", 4)
    assert whole_chunks(Geometry(14 * 60, 60, 60, 4, array), parse_key(key, array.shape)) is None
