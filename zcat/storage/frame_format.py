"""Read the header and the index of a Blosc2 frame, and what they say about the dataset.

Users' files never reach ``blosc2.open``: on damaged or hostile ones it crashes the process (c-blosc2 #799).
So the format is read here, in Python, from bytes that the caller has already got by ``pread``.

A frame is ``header | chunks | index | trailer``. The index is one Blosc2 chunk of int64 positions, counted from
the end of the header; a negative one stands for a whole chunk of one special value. In a sparse frame (a
folder) the chunks are files, and the index holds their numbers. ``frame_template`` writes what this reads.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``, ``README_SFRAME_FORMAT.rst``, ``README_B2ND_METALAYER.rst``.
"""

import struct
from dataclasses import dataclass
from typing import Any

import blosc2
import msgpack
import numpy as np
from numpy.typing import NDArray

from zcat.errors import BadContent, NotReadable
from zcat.limits import CHUNK_BYTES_MAX, MIB, NCHUNKS_MAX
from zcat.model.dataset import DIMENSIONS_MAX, ArrayGeometry, Compression, Geometry, check_geometry
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.storage.chunk_gate import CODECS, FILTERS, Buffer, plain_chunk
from zcat.storage.frame_layers import read_layers

FIXED = struct.Struct(">BB8s Bi BQ B4B Bq Bq Bi Bi Bi Bh Bh B BB16s")
"""The header before its metalayers, each field behind its msgpack marker. 87 bytes, not aligned."""

HEADER_BYTES_MAX = MIB
"""Metalayers are small; what is longer is refused before it is read."""

MAGIC = b"b2frame\0"
B2ND = "b2nd"

_METALAYERS_MAX = 16  # BLOSC2_MAX_METALAYERS
_VERSIONS = (1, 2, 3)  # of the frame format
_VARIABLE_CHUNKS, _VARIABLE_BLOCKS = 0x40, 0x80
_OFFSETS_MASK, _OFFSETS_64_BIT = 0x30, 0x10
_CODEC_ELSEWHERE = 6  # BLOSC_UDCODEC_FORMAT: the number is in another byte
_WIDE = 255  # wider items have typesize 1 in their chunks


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the header of a frame says. Lengths and sizes in bytes; believe none of them before `geometry_of`."""

    header_len: int
    frame_len: int
    nbytes: int
    cbytes: int
    typesize: int
    blocksize: int
    chunksize: int
    compression: Compression
    has_vlmeta: bool
    is_sparse: bool
    """A folder of chunk files, of which this is the index file."""
    is_regular: bool
    """All chunks but the last have one size, and all blocks of a chunk; only such frames are offered."""
    uses_dictionaries: bool
    metalayers: dict[str, bytes]


def header_bytes(raw: bytes) -> int:
    """Return how long the header is of which ``raw`` is the beginning, so that all of it can be read.

    Raises:
        BadContent: this is no frame, or its header is longer than `HEADER_BYTES_MAX`.
    """
    if len(raw) < FIXED.size or raw[2:10] != MAGIC:
        raise BadContent("not a Blosc2 frame: it does not begin with 'b2frame'")
    length = int.from_bytes(raw[11:15], "big", signed=True)
    if not FIXED.size < length <= HEADER_BYTES_MAX:
        raise BadContent(f"a frame header of {length} bytes, wanted {FIXED.size} to {HEADER_BYTES_MAX}")
    return length


def parse_header(raw: bytes) -> FrameHeader:
    """Read a frame's header.

    Args:
        raw: the first bytes of the frame; `header_bytes` of them, or more.

    Raises:
        BadContent: this is no frame, or it is cut or damaged.
    """
    length = header_bytes(raw)
    if len(raw) < length:
        raise BadContent(f"a frame header of {length} bytes is cut after {len(raw)}")
    fields = FIXED.unpack_from(raw)
    general, kind, codecs, other = fields[8:12]
    frame_len, nbytes, cbytes, typesize, blocksize, chunksize = fields[6], *fields[13:22:2]
    pipeline = fields[-1]
    if general & 0x0F not in _VERSIONS or general & _OFFSETS_MASK != _OFFSETS_64_BIT or kind & 0x0F > 1:
        raise BadContent(f"a frame of flags {general:#04x}, kind {kind}: a later format, or damaged")
    if min(nbytes, cbytes, blocksize) < 0 or typesize < 1 or not length < frame_len < 1 << 62:
        raise BadContent(f"impossible sizes in a frame header: {frame_len=} {nbytes=} {cbytes=} {typesize=}")
    codec = codecs & 0x0F
    return FrameHeader(
        header_len=length,
        frame_len=frame_len,
        nbytes=nbytes,
        cbytes=cbytes,
        typesize=typesize,
        blocksize=blocksize,
        chunksize=chunksize,
        compression=Compression(
            codec=pipeline[6] if codec == _CODEC_ELSEWHERE else codec,
            codec_meta=pipeline[7],
            clevel=codecs >> 4,
            filters=tuple(pipeline[:6]),
            filters_meta=tuple(pipeline[8:14]),
            splitmode=(other & 3) + 1,
        ),
        has_vlmeta=fields[26] == 0xC3,
        is_sparse=kind & 0x0F == 1,
        is_regular=not general & (_VARIABLE_CHUNKS | _VARIABLE_BLOCKS),
        uses_dictionaries=bool(pipeline[14] & 1),
        metalayers=read_layers(raw[:length], FIXED.size, _METALAYERS_MAX),
    )


def geometry_of(header: FrameHeader) -> Geometry:
    """Return the geometry that a header describes, if the dataset can be offered.

    Raises:
        BadContent: its numbers contradict one another or exceed the limits.
        NotReadable: it is sound, but uses what is not offered: plug-ins, dictionaries, chunks of any size,
            items of Python objects.
    """
    compression = header.compression
    if not header.is_regular and header.nbytes:
        raise NotReadable("its chunks or blocks vary in size: such frames have no fixed grid of chunks")
    if compression.codec not in CODECS or not FILTERS.issuperset(compression.filters):
        raise NotReadable(
            f"compressed by a plug-in (codec {compression.codec}, filters {compression.filters}): not offered"
        )
    if header.uses_dictionaries:
        raise NotReadable("compressed with dictionaries: not offered")
    chunksize = header.chunksize if header.nbytes else max(header.chunksize, 0)  # -1 where it was never chosen
    typesize = header.typesize if header.typesize <= _WIDE else 1
    array = _array_of(header.metalayers[B2ND], header.typesize) if B2ND in header.metalayers else None
    # A byte frame's header may name any blocksize: that of its last chunk, for instance.
    blocksize = header.blocksize if array else 0
    geometry = check_geometry(
        Geometry(header.nbytes, chunksize, blocksize, typesize, array), CHUNK_BYTES_MAX, NCHUNKS_MAX
    )
    if array and geometry.nchunks * chunksize != header.nbytes:
        raise BadContent(f"{geometry.nchunks} chunks of {chunksize} bytes, the header says {header.nbytes} in all")
    return geometry


def read_index(index_chunk: Buffer, nchunks: int) -> NDArray[np.int64]:
    """Return the positions of all chunks: ``(nchunks,)``, of any order; negative ones are special chunks.

    Raises:
        BadContent: the index is damaged, or for another number of chunks.
    """
    if nchunks == 0:
        return np.empty(0, np.int64)
    nbytes = nchunks * 8
    geometry = Geometry(nbytes, nbytes, 0, typesize=8)
    sound = plain_chunk(index_chunk, geometry, 0, overhead_bytes=index_bytes_max(nchunks) - nbytes)
    try:
        return np.frombuffer(blosc2.decompress2(sound, nthreads=1), "<i8")
    except (ValueError, RuntimeError):
        raise BadContent("the index of chunks cannot be decompressed") from None


def index_bytes_max(nchunks: int) -> int:
    """Return how long an index may be. C-Blosc2 stores some that compression made longer."""
    return nchunks * 16 + 1024


def special_of(offset: int) -> int:
    """Return which ``SPECIAL_`` kind (of ``chunk_gate``) a negative offset stands for."""
    return offset >> 56 & 7


def _array_of(metalayer: bytes, typesize: int) -> ArrayGeometry:
    try:
        fields = msgpack.unpackb(metalayer, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise BadContent(f"the b2nd metalayer is no msgpack ({error})") from None
    match fields:
        case [_, ndim, [*shape], [*chunks], [*blocks], 0, str(text)]:
            pass
        case [_, ndim, [*shape], [*chunks], [*blocks]]:
            text = "|u1"  # B2ND_DEFAULT_DTYPE, of the time before arrays had a dtype
        case _:
            raise BadContent("the b2nd metalayer has not the fields that an array needs")
    axes = (tuple(shape), tuple(chunks), tuple(blocks))
    limits = (1 << 62, 1 << 31, 1 << 31)
    if not all(
        _are_sizes(a, limit) and len(a) == ndim <= DIMENSIONS_MAX for a, limit in zip(axes, limits, strict=True)
    ):
        raise BadContent(f"the b2nd metalayer names impossible axes for {str(ndim)[:20]} dimensions")
    dtype = parse_dtype(text)
    if dtype.itemsize != typesize and (typesize != 1 or dtype.itemsize <= _WIDE):
        raise BadContent(f"items of {typesize} bytes, but dtype {text[:80]} has {dtype.itemsize}")
    return ArrayGeometry(*axes, dtype=dtype_text(dtype), itemsize=dtype.itemsize)


def _are_sizes(values: tuple[Any, ...], limit: int) -> bool:
    return all(type(value) is int and 0 <= value < limit for value in values)
