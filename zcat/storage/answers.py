"""Blosc2 bodies for what a request asks of a dataset: bare chunks, and frames of bytes.

`slice_frames` makes the frames of arrays. A *chunk stream* is for clients that know what they asked for: chunks
of Blosc2, each of which says its own length (``nbytes`` at bytes 4 to 8, ``cbytes`` at 12 to 16, little-endian;
c-blosc2 ``README_CHUNK_FORMAT.rst``), and which hold the C-order bytes of the array one after the other.
"""

from collections.abc import Iterator

import blosc2
import numpy as np

from zcat.limits import KIB, MIB
from zcat.model.dataset import Compression, Geometry
from zcat.storage.frame_template import assemble_cframe, compress_options, frame_template
from zcat.storage.slice_frames import FAST

STREAM_CHUNK_BYTES = 4 * MIB
"""No chunk of a stream holds more than this, uncompressed."""

SMALL_BYTES = 256 * KIB
"""Up to here the time to compress counts, beyond it the time to send."""

_ZLIB, _ZSTD = 4, 5
_SHUFFLES = frozenset({0, 1, 2})
_SHUFFLED = (0, 0, 0, 0, 0, 1)
_NO_META = (0, 0, 0, 0, 0, 0)


def answer_compression(own: Compression, nbytes: int) -> Compression:
    """Choose how an answer is compressed: the dataset's shuffle, and its codec's family at a low level.

    Args:
        own: of the dataset. Filters that lose bits are left out, they have done their work.
        nbytes: of the answer, uncompressed.
    """
    filters = own.filters if _SHUFFLES.issuperset(own.filters) else _SHUFFLED
    if nbytes > SMALL_BYTES and own.codec in (_ZLIB, _ZSTD):
        return Compression(_ZSTD, clevel=1, filters=filters)
    return Compression(FAST.codec, clevel=FAST.clevel, filters=filters, splitmode=FAST.splitmode)


def chunk_stream(array: np.ndarray, compression: Compression) -> Iterator[bytes]:
    """Yield the chunks that hold an array: none for an empty one.

    Args:
        array: C-contiguous, of any shape and dtype.
        compression: as from `answer_compression`.
    """
    raw = array.reshape(-1).view(np.uint8)
    itemsize = array.dtype.itemsize
    step = STREAM_CHUNK_BYTES - STREAM_CHUNK_BYTES % itemsize or STREAM_CHUNK_BYTES
    options = compress_options(compression, _typesize(itemsize), 0)
    for start in range(0, len(raw), step):
        yield blosc2.compress2(raw[start : start + step], **options)


def cframe_of_bytes(data: np.ndarray, compression: Compression) -> list[bytes]:
    """Return a byte frame in parts, which ``blosc2.schunk_from_cframe(b"".join(parts))`` reads.

    Args:
        data: one axis, contiguous; its items are those of the frame.
        compression: as from `answer_compression`.
    """
    itemsize = data.dtype.itemsize
    chunksize = min(data.nbytes, STREAM_CHUNK_BYTES - STREAM_CHUNK_BYTES % itemsize or itemsize)
    raw = data.view(np.uint8)
    options = compress_options(compression, _typesize(itemsize), 0)
    starts = range(0, len(raw), chunksize or 1)
    chunks = [blosc2.compress2(raw[start : start + chunksize], **options) for start in starts]
    template = frame_template(Geometry(data.nbytes, chunksize, 0, _typesize(itemsize)), compression)
    header, tail = assemble_cframe(template, [len(chunk) for chunk in chunks])
    return [header, *chunks, tail]


def _typesize(itemsize: int) -> int:
    return itemsize if itemsize < 256 else 1
