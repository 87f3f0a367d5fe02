"""The gate in front of Blosc2: no bytes are decoded before their header agrees with the dataset's geometry.

C-Blosc2 is written for chunks that C-Blosc2 made. A hostile header makes it read and write outside of its
buffers, or hand out memory that was never written. What passes here cannot: sizes are those of the geometry,
codecs and filters are the built-in ones, and of the special kinds only "one item, repeated" is left. The other
kinds (zeros, NaN, uninitialised) are rewritten to it by whoever reads a file, so they never travel.

A chunk that passes may still be wrong: Blosc2 has no checksum. That is what `digest` is for.

Source of the layout: c-blosc2 ``README_CHUNK_FORMAT.rst``.
"""

import struct
from typing import TypeAlias

import blake3
import numpy as np

from zcat.errors import BadChunk
from zcat.limits import BLOSC2_CHUNK_OVERHEAD, MIB
from zcat.model.dataset import Geometry

Buffer: TypeAlias = bytes | bytearray | memoryview

DIGEST_BYTES = 32
HEADER_BYTES = 32

CODECS = frozenset({0, 1, 2, 4, 5})
"""Codecs as a frame numbers them: blosclz, lz4, lz4hc, zlib, zstd. All others are plug-ins."""

FILTERS = frozenset(range(5))
"""None, shuffle, bitshuffle, delta, trunc_prec. All others are plug-ins."""

SPECIAL_NONE, SPECIAL_ZEROS, SPECIAL_NAN, SPECIAL_VALUE, SPECIAL_UNINIT = range(5)

_FORMATS = frozenset({0, 1, 3, 4})  # how a chunk numbers the same codecs; lz4 and lz4hc are one format
_VERSION = 5  # all that Blosc2 has written since 2.0, but for chunks of variable-length blocks (6)
_EXTENDED_HEADER = 0x05
MEMCPYED = 0x02
UNSPLIT = 0x10
"""Bits of the flags at byte 2: blocks are copies; blocks are one stream each, not one for each byte of an item."""
DELTA = 3
"""The filter that stores differences to a chunk's first block. C-Blosc2 gives wrong values when it decodes single
blocks of such a chunk (seen up to 3.3.3): only the whole may be decoded."""
_FORMAT_ZSTD = 4
_FLAGS_REFUSED = 0x8F  # dictionary, longer header, codec per block, lazy; instrumented
_BLOSCLZ_BYTES_MAX = 8 * MIB  # longer runs overflow a counter in its decoder: c-blosc2 #801
_BLOCK_BYTES = 256 * 1024  # of repeat-value chunks in frames whose chunks choose their blocks

_SIZES = struct.Struct("<4B3i")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes
_NANS = {4: np.float32("nan").tobytes(), 8: np.float64("nan").tobytes()}


def digest(data: Buffer) -> bytes:
    """Return the BLAKE3-256 of a chunk's compressed bytes: `DIGEST_BYTES` long."""
    return blake3.blake3(data).digest()


def check_chunk(
    data: Buffer, geometry: Geometry, nchunk: int, overhead_bytes: int = BLOSC2_CHUNK_OVERHEAD
) -> None:
    """Let a chunk pass only if Blosc2 can decode it without harm, to the size that the geometry says.

    Args:
        data: the whole chunk, one byte per item.
        geometry: of the dataset, checked by ``check_geometry``.
        nchunk: which chunk this is said to be; ``0 <= nchunk < geometry.nchunks``.
        overhead_bytes: how much longer than its content it may be.

    Raises:
        BadChunk: it was not decoded; the message says what was wanted and what came.
    """
    check_header(data, len(data), geometry, nchunk, overhead_bytes)


def check_header(
    data: Buffer, size: int, geometry: Geometry, nchunk: int, overhead_bytes: int = BLOSC2_CHUNK_OVERHEAD
) -> None:
    """Do the same as `check_chunk` for a chunk of ``size`` bytes of which only the beginning is here.

    Raises:
        BadChunk: as there.
    """
    flags, nbytes, blocksize = _check_sizes(data, size, geometry, nchunk)
    if size > nbytes + overhead_bytes:
        raise BadChunk(f"chunk {nchunk}: {size} bytes compressed for {nbytes} uncompressed")
    special = special_kind(data)
    if data[31] & _FLAGS_REFUSED or data[30]:
        raise BadChunk(
            f"chunk {nchunk}: flags {data[31]:#04x} and {data[30]:#04x} ask for what is not allowed here"
        )
    if special == SPECIAL_VALUE:
        _check_repeated(size - HEADER_BYTES, geometry, nbytes, blocksize)
        return
    if special != SPECIAL_NONE:
        raise BadChunk(f"chunk {nchunk}: special kind {special}, wanted a repeated value or none")
    if flags & MEMCPYED:
        if size != nbytes + HEADER_BYTES:
            raise BadChunk(f"chunk {nchunk}: {size} bytes for a plain copy of {nbytes}")
        return
    _check_pipeline(data, size, flags, nchunk)
    nblocks = -(-nbytes // blocksize)
    if size < HEADER_BYTES + 4 * nblocks:
        raise BadChunk(f"chunk {nchunk}: {size} bytes cannot hold {nblocks} block offsets")


def plain_chunk(
    data: Buffer, geometry: Geometry, nchunk: int, overhead_bytes: int = BLOSC2_CHUNK_OVERHEAD
) -> bytes:
    """Turn a chunk as it stands in a file into one that may travel.

    Special kinds become repeat-value chunks: what is uninitialised becomes zeros, since C-Blosc2 would give
    whatever its memory held before. All other chunks are checked and returned as they are.

    Raises:
        BadChunk: it does not pass the gate.
    """
    if len(data) >= HEADER_BYTES and special_kind(data) not in (SPECIAL_NONE, SPECIAL_VALUE):
        _check_sizes(data, len(data), geometry, nchunk)
        return special_chunk(special_kind(data), geometry, nchunk)
    check_chunk(data, geometry, nchunk, overhead_bytes)
    return bytes(data)


def special_kind(data: Buffer) -> int:
    """Return which ``SPECIAL_`` kind a chunk of at least `HEADER_BYTES` claims to be."""
    return data[31] >> 4 & 7


def special_chunk(kind: int, geometry: Geometry, nchunk: int) -> bytes:
    """Make the chunk without a special kind, or with a repeated value, that says the same as a special one.

    Raises:
        BadChunk: the kind is unknown, or NaN is asked of items that are no floats of 4 or 8 bytes.
    """
    if kind in (SPECIAL_ZEROS, SPECIAL_UNINIT):
        width = _item_bytes(geometry)
        if geometry.chunk_nbytes(nchunk) % width or _blocksize(geometry, nchunk) % width:
            return _zero_blocks(geometry, nchunk)  # ends in the middle of an item
        return repeat_value_chunk(geometry, nchunk, bytes(width))
    if kind != SPECIAL_NAN or geometry.typesize not in _NANS:
        raise BadChunk(f"chunk {nchunk}: special kind {kind} of items of {geometry.typesize} bytes")
    return repeat_value_chunk(geometry, nchunk, _NANS[geometry.typesize])


def repeat_value_chunk(geometry: Geometry, nchunk: int, item: bytes) -> bytes:
    """Make a chunk of ``32 + len(item)`` bytes that decodes to ``item`` over and over.

    Args:
        geometry: of the dataset.
        nchunk: which chunk.
        item: as long as an item, which is the typesize, or more where items are wider than 255 bytes.
            In a file, C-Blosc2 reads no other length.

    Raises:
        BadChunk: the item has another length, or the chunk is not a whole number of items.
    """
    nbytes, blocksize = geometry.chunk_nbytes(nchunk), _blocksize(geometry, nchunk)
    _check_repeated(len(item), geometry, nbytes, blocksize)
    size = HEADER_BYTES + len(item)
    sizes = _SIZES.pack(_VERSION, 1, _EXTENDED_HEADER, geometry.typesize, nbytes, blocksize, size)
    return sizes + bytes(15) + bytes([SPECIAL_VALUE << 4]) + item


def _zero_blocks(geometry: Geometry, nchunk: int) -> bytes:
    """Make a chunk of zeros that is not special: each block is one stream of length 0, which means zeros."""
    nbytes, blocksize = geometry.chunk_nbytes(nchunk), _blocksize(geometry, nchunk)
    nblocks = -(-nbytes // blocksize)
    size = HEADER_BYTES + 8 * nblocks
    flags = _EXTENDED_HEADER | UNSPLIT | _FORMAT_ZSTD << 5
    sizes = _SIZES.pack(_VERSION, 1, flags, geometry.typesize, nbytes, blocksize, size)
    starts = struct.pack(f"<{nblocks}i", *range(size - 4 * nblocks, size, 4))
    return sizes + bytes(16) + starts + bytes(4 * nblocks)


def _blocksize(geometry: Geometry, nchunk: int) -> int:
    """Return the blocksize for a chunk of our own; where any will do, whole items."""
    nbytes = geometry.chunk_nbytes(nchunk)
    width = _item_bytes(geometry)
    return min(geometry.blocksize or max(_BLOCK_BYTES // width, 1) * width, nbytes)


def _item_bytes(geometry: Geometry) -> int:
    return geometry.array.itemsize if geometry.array else geometry.typesize


def _check_sizes(data: Buffer, size: int, geometry: Geometry, nchunk: int) -> tuple[int, int, int]:
    if min(size, len(data)) < HEADER_BYTES:
        raise BadChunk(f"chunk {nchunk}: {len(data)} bytes, a header alone has {HEADER_BYTES}")
    version, _, flags, typesize, nbytes, blocksize, cbytes = _SIZES.unpack_from(data)
    wanted = geometry.chunk_nbytes(nchunk)
    if version != _VERSION or flags & _EXTENDED_HEADER != _EXTENDED_HEADER:
        raise BadChunk(f"chunk {nchunk}: version {version}, flags {flags:#04x}: not a chunk of Blosc2")
    if cbytes != size:
        raise BadChunk(f"chunk {nchunk}: its header says {cbytes} bytes, there are {size}")
    if nbytes != wanted or nbytes < 1:
        raise BadChunk(f"chunk {nchunk}: {nbytes} bytes uncompressed, wanted {wanted}")
    if typesize != geometry.typesize:
        raise BadChunk(f"chunk {nchunk}: typesize {typesize}, wanted {geometry.typesize}")
    if not _blocksize_agrees(blocksize, nbytes, geometry):
        raise BadChunk(
            f"chunk {nchunk}: blocks of {blocksize} bytes, wanted {geometry.blocksize or 'up to'} {nbytes}"
        )
    return flags, nbytes, blocksize


def _blocksize_agrees(blocksize: int, nbytes: int, geometry: Geometry) -> bool:
    largest = min(geometry.blocksize or nbytes, nbytes)
    may_be_smaller = geometry.blocksize == 0 or nbytes < geometry.chunksize
    return blocksize == largest or (may_be_smaller and 1 <= blocksize < largest)


def _check_repeated(item_bytes: int, geometry: Geometry, nbytes: int, blocksize: int) -> None:
    width = _item_bytes(geometry)
    if item_bytes != width or nbytes % width or blocksize % width:
        raise BadChunk(f"a repeated value of {item_bytes} bytes in {nbytes} bytes of items of {width}")


def _check_pipeline(data: Buffer, size: int, flags: int, nchunk: int) -> None:
    codec = flags >> 5
    if codec not in _FORMATS:
        raise BadChunk(f"chunk {nchunk}: codec format {codec} is not one of Blosc2's own")
    if codec == 0 and size > _BLOSCLZ_BYTES_MAX:
        raise BadChunk(f"chunk {nchunk}: {size} bytes of blosclz, the limit is {_BLOSCLZ_BYTES_MAX}")
    if not FILTERS.issuperset(data[16:22]):
        raise BadChunk(f"chunk {nchunk}: filters {list(data[16:22])} are not all Blosc2's own")
