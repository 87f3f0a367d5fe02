"""Decode stored HDF5 chunks without HDF5, where their filters are simple: shuffle, deflate, zstd.

HDF5 decodes one chunk at a time in a process. But a chunk that went through shuffle and deflate is, but for a
header, a Blosc2 chunk of one block: the same order of bytes, the same stream. So a header is put before it, and
Blosc2 decodes it: with its own zlib-ng, in vector instructions, in as many threads as ask, to exactly the size
that the dataset's type says.

Source: HDF5 File Format Specification, "Data Storage - Filter Pipeline"; c-blosc2 ``README_CHUNK_FORMAT.rst``.
"""

import math
import struct
from dataclasses import dataclass

import blosc2
import numpy as np
from numpy.typing import NDArray

from zcat.errors import BadContent
from zcat.limits import CHUNK_BYTES_MAX
from zcat.storage.hdf5.items import Item

_DEFLATE, _SHUFFLE, _ZSTD = 1, 2, 32015
# Not shuffle alone: where edge chunks are left unfiltered, as a dataset may ask, nothing would tell.
_SIMPLE = ((), (_DEFLATE,), (_SHUFFLE, _DEFLATE), (_ZSTD,), (_SHUFFLE, _ZSTD))
_FORMATS = {_DEFLATE: 3, _ZSTD: 4}  # how a Blosc2 chunk numbers its codecs
_NOTHING = {_DEFLATE: b"\0", _ZSTD: b"\x50\x2a\x4d\x18\0\0\0\0"}  # for zstd, an empty skippable frame
_TYPESIZE_MAX = 255
_FLAGS = 0x05 | 0x10  # extended header, blocks are not split
_HEADER = struct.Struct("<4B3i6s10xii")  # header, where the block begins, how long its stream is


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Filters that are decoded here, in the order in which they were applied."""

    filters: tuple[int, ...]
    itemsize: int
    nbytes: int
    """Of a chunk, decoded."""


def pipeline_of(item: Item, itemsize: int) -> Pipeline | None:
    """Return how the chunks of a dataset are decoded, None if that is for HDF5 to do.

    Args:
        item: a dataset with a layout.
        itemsize: as offered, in bytes.
    """
    layout = item.layout
    if not item.raw or layout is None or layout.chunks is None:
        return None
    rank = len(layout.chunks) - item.inner_axes
    itemsize *= math.prod(layout.chunks[rank:])  # shuffle takes an item of an array type as one
    filters = tuple(one.id for one in layout.filters)
    nbytes = itemsize * math.prod(layout.chunks[:rank])
    shuffled = next((one.options[:1] for one in layout.filters if one.id == _SHUFFLE), (itemsize,))
    if filters not in _SIMPLE or shuffled != (itemsize,) or nbytes > CHUNK_BYTES_MAX:
        return None
    return Pipeline(filters, itemsize, nbytes)


def decode(raw: bytes, filter_mask: int, pipeline: Pipeline) -> NDArray[np.uint8]:
    """Return the bytes of a chunk in C order.

    Args:
        raw: as stored.
        filter_mask: bit *i* says that filter *i* was left out for this chunk.
        pipeline: of the dataset.

    Raises:
        BadContent: the chunk is damaged, or has another size than the dataset's type says.
    """
    applied = [one for at, one in enumerate(pipeline.filters) if not filter_mask >> at & 1]
    codec = next((one for one in applied if one in _FORMATS), None)
    is_shuffled = _SHUFFLE in applied and pipeline.itemsize > 1
    if codec is None:
        plain = np.frombuffer(raw, np.uint8)
        by_blosc2 = False
    else:
        by_blosc2 = is_shuffled and pipeline.itemsize <= _TYPESIZE_MAX
        plain = _decompressed(raw, codec, pipeline, by_blosc2)
    if len(plain) != pipeline.nbytes:
        raise BadContent(f"a chunk of {len(plain)} bytes, its dataset's have {pipeline.nbytes}")
    if is_shuffled and not by_blosc2:
        plain = np.ascontiguousarray(plain.reshape(pipeline.itemsize, -1).T).reshape(-1)
    return plain


def _decompressed(raw: bytes, codec: int, pipeline: Pipeline, is_shuffled: bool) -> NDArray[np.uint8]:
    if not raw:  # which Blosc2 would take for zeros
        raise BadContent("a chunk of no bytes")
    typesize = pipeline.itemsize if is_shuffled else 1
    if len(raw) == pipeline.nbytes:  # Blosc2 would take a stream of that very length for plain bytes
        raw += _NOTHING[codec]
    flags = _FLAGS | _FORMATS[codec] << 5
    filters = bytes([0, 0, 0, 0, 0, int(is_shuffled)])
    size, nbytes = _HEADER.size + len(raw), pipeline.nbytes
    header = _HEADER.pack(5, 1, flags, typesize, nbytes, nbytes, size, filters, _HEADER.size - 4, len(raw))
    decoded = np.empty(nbytes, np.uint8)
    try:
        blosc2.decompress2(header + raw, dst=decoded, nthreads=1)
    except (ValueError, RuntimeError):
        raise BadContent(f"a chunk of {len(raw)} bytes that cannot be decompressed to {nbytes}") from None
    return decoded
