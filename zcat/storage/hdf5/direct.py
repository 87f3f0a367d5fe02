"""HDF5 chunks that were written by the Blosc2 filter: the Blosc2 chunk inside is served untouched.

The filter stores each chunk as a contiguous frame of one Blosc2 chunk: with a b2nd metalayer where the dataset
has several axes, plain otherwise. Here such a frame is taken apart by us, without HDF5 and without
Blosc2; what leaves has passed the gate, and agrees with the geometry that all chunks of the dataset have.

Source: https://github.com/Blosc/HDF5-Blosc2, ``src/blosc2_filter.c``.
"""

import math
from dataclasses import dataclass

from zcat.errors import BadContent, NotReadable
from zcat.limits import CHUNK_BYTES_MAX
from zcat.model.dataset import ArrayGeometry, Geometry
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.storage.chunk_gate import HEADER_BYTES, plain_chunk, special_chunk
from zcat.storage.frame_format import B2ND, FrameHeader, parse_header, read_index, special_of
from zcat.storage.frame_format import geometry_of as geometry_of_frame
from zcat.storage.hdf5.items import Item, Layout
from zcat.storage.hdf5.layout import BLOSC2_FILTER, Cut, geometry_of

_BLOCKSIZE = slice(8, 12)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A frame of one chunk, taken apart."""

    header: FrameHeader
    data: bytes
    """The Blosc2 chunk; empty if it is of a special kind and stands in the index only."""
    special: int
    """That kind."""


def is_direct(layout: Layout | None) -> bool:
    """Say whether all filters of a dataset are the Blosc2 filter."""
    return layout is not None and [one.id for one in layout.filters] == [BLOSC2_FILTER]


def unwrap(raw: bytes) -> Wrapped:
    """Take the frame apart that an HDF5 chunk holds.

    Raises:
        BadContent: it is no frame of one chunk.
    """
    header = parse_header(raw)
    index = raw[header.header_len + header.cbytes : header.frame_len]
    index = index[: int.from_bytes(index[12:16], "little")]
    offset = int(read_index(index, 1)[0])
    if offset < 0:
        return Wrapped(header, b"", special_of(offset))
    begin = header.header_len + offset
    size = int.from_bytes(raw[begin + 12 : begin + 16], "little")
    if not HEADER_BYTES <= size <= header.header_len + header.cbytes - begin:
        raise BadContent(f"a chunk of {size} bytes in a frame that has {header.cbytes} of chunks")
    return Wrapped(header, raw[begin : begin + size], 0)


def cut_like(item: Item, wrapped: Wrapped) -> Cut | None:
    """Return the geometry and compression that one chunk of a dataset has; None if chunks have to be converted.

    Args:
        item: a dataset of which `is_direct` holds and whose bytes in the file are those that are offered.
        wrapped: any of its chunks.
    """
    layout = item.layout
    assert layout is not None
    assert layout.chunks is not None
    assert item.shape is not None
    assert item.dtype is not None
    dtype = parse_dtype(item.dtype)
    try:
        of_frame = geometry_of_frame(wrapped.header)  # refuses plug-ins and dictionaries
        blocks = _blocks(of_frame, wrapped, layout.chunks, dtype.itemsize)
        if blocks is None or 0 in item.shape:
            return None
        array = ArrayGeometry(item.shape, layout.chunks, blocks, dtype_text(dtype), dtype.itemsize)
        geometry = geometry_of(array)
    except (BadContent, NotReadable):
        return None
    agrees = geometry.chunksize == of_frame.chunksize <= CHUNK_BYTES_MAX and geometry.typesize == of_frame.typesize
    return Cut(geometry, wrapped.header.compression, True) if agrees else None


def chunk_of(cut: Cut, like: Wrapped, raw: bytes, nchunk: int) -> bytes | None:
    """Return the Blosc2 chunk that an HDF5 chunk holds, None if it is not like the others.

    Args:
        cut: as `cut_like` made it.
        like: what it was made of.
        raw: the HDF5 chunk as stored.
        nchunk: which chunk it is, for messages.
    """
    try:
        wrapped = unwrap(raw)
        # blocks of the same size may have another shape, and only this says so
        if wrapped.header.metalayers.get(B2ND) != like.header.metalayers.get(B2ND):
            return None
        if not wrapped.data:
            return special_chunk(wrapped.special, cut.geometry, nchunk)
        return plain_chunk(wrapped.data, cut.geometry, nchunk)
    except BadContent:
        return None


def _blocks(
    of_frame: Geometry, wrapped: Wrapped, chunks: tuple[int, ...], itemsize: int
) -> tuple[int, ...] | None:
    """Return the items per axis of a block."""
    if of_frame.array is not None:
        same = of_frame.array.chunks == chunks and of_frame.array.itemsize == itemsize
        return of_frame.array.blocks if same else None
    if math.prod(chunks) * itemsize != of_frame.nbytes:
        return None
    if not wrapped.data:  # of one repeated item: nothing says how others are cut
        return None
    blocksize = int.from_bytes(wrapped.data[_BLOCKSIZE], "little")
    return _slab_of(chunks, blocksize // itemsize) if blocksize % itemsize == 0 else None


def _slab_of(chunks: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    """Return the box that ``count`` items in C order are, if boxes of that shape tile a chunk exactly."""
    blocks: list[int] = []
    for length in reversed(chunks):
        part = min(count, length)
        if part == 0 or count % part or length % part:
            return None
        blocks.append(part)
        count //= part
    return tuple(reversed(blocks)) if count == 1 else None
