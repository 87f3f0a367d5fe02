"""Write the parts of a Blosc2 frame that are not chunks, for any geometry, without asking Blosc2.

Chunks are made or fetched elsewhere and put between the parts, unopened. The same geometry, compression and
attributes always give the same bytes, so a frame that is sent may be named by a strong tag.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``, ``README_B2ND_METALAYER.rst``. `frame_format` reads it back.
"""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from zcat.model.dataset import ArrayGeometry, Compression, Geometry
from zcat.storage.attributes import write_trailer
from zcat.storage.chunk_gate import CODECS, FILTERS
from zcat.storage.frame_format import B2ND, FIXED, MAGIC
from zcat.storage.frame_layers import write_layers

PADDING = "zcat"
"""Name of our own metalayer. It makes a header as long as somebody wants it to be, and says why."""

_FRAME_LEN = slice(16, 24)
_CBYTES = slice(39, 47)
_FLAGS = 0x12  # frame format 2, offsets of 64 bits
_FLAGS_WITHOUT_CHUNKSIZE = 0x53  # format 3, chunks of any size: what C-Blosc2 makes of some empty arrays
_NTHREADS = 1
_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class FrameTemplate:
    """Header, index and trailer of frames of one geometry."""

    geometry: Geometry
    trailer: bytes
    _header: bytes

    @property
    def header_len(self) -> int:
        """Length of every header of this template, in bytes."""
        return len(self._header)

    def header(self, cbytes: int, frame_len: int) -> bytes:
        """Return the header of a frame with ``cbytes`` of chunks and ``frame_len`` bytes altogether."""
        header = bytearray(self._header)
        header[_FRAME_LEN] = frame_len.to_bytes(8, "big")
        header[_CBYTES] = cbytes.to_bytes(8, "big")
        return bytes(header)

    def index(self, offsets: NDArray[np.int64]) -> bytes:
        """Return the index for chunks at these offsets, which count from the end of the header."""
        assert len(offsets) == self.geometry.nchunks
        if not len(offsets):
            return b""
        return blosc2.compress2(
            offsets.astype("<i8", copy=False), codec=blosc2.Codec.ZSTD, clevel=1, typesize=8, nthreads=1
        )


def frame_template(
    geometry: Geometry,
    compression: Compression,
    attributes: dict[str, Any] | None = None,
    padding: tuple[int, bytes] | None = None,
) -> FrameTemplate:
    """Make the template of a dataset's frames.

    Args:
        geometry: of the dataset.
        compression: what the header says; each chunk says for itself what is true of it.
        attributes: become vlmetalayers of the trailer.
        padding: makes the header a multiple of so many bytes, by a metalayer that begins with these.
    """
    array = geometry.array
    layers = {B2ND: _b2nd(array)} if array else {}
    fixed = FIXED.pack(*_fields(geometry, compression, bool(attributes)))
    tail = write_layers(layers, FIXED.size, 0)
    if padding:
        multiple, text = padding
        layers[PADDING] = text
        missing = -(FIXED.size + len(write_layers(layers, FIXED.size, 0))) % multiple
        layers[PADDING] = text + bytes(missing)
        tail = write_layers(layers, FIXED.size, 0)
    header = bytearray(fixed + tail)
    header[11:15] = len(header).to_bytes(4, "big")
    return FrameTemplate(geometry, write_trailer(attributes or {}), bytes(header))


def assemble_cframe(template: FrameTemplate, chunk_sizes: Sequence[int]) -> tuple[bytes, bytes]:
    """Return what goes before and behind the chunks of a compact frame.

    Args:
        template: of the dataset.
        chunk_sizes: compressed size of each chunk, in order; the caller puts the chunks in between.
    """
    ends = np.cumsum(np.asarray(chunk_sizes, np.int64))
    cbytes = int(ends[-1]) if len(ends) else 0
    tail = template.index(ends - np.asarray(chunk_sizes, np.int64)) + template.trailer
    return template.header(cbytes, template.header_len + cbytes + len(tail)), tail


@functools.lru_cache(maxsize=64)
def compress_options(compression: Compression, typesize: int, blocksize: int) -> dict[str, Any]:
    """Return the keyword arguments of ``blosc2.compress2`` that make a chunk as the header says.

    One thread, so that the same content always gives the same bytes. Do not change the dict: it is shared.
    """
    assert compression.codec in CODECS
    assert FILTERS.issuperset(compression.filters)
    return {
        "codec": blosc2.Codec(compression.codec),
        "codec_meta": compression.codec_meta,
        "clevel": compression.clevel,
        "filters": list(compression.filters),
        "filters_meta": list(compression.filters_meta),
        "splitmode": blosc2.SplitMode(compression.splitmode),
        "typesize": typesize,
        "blocksize": blocksize,
        "nthreads": _NTHREADS,
    }


def _fields(geometry: Geometry, compression: Compression, has_vlmeta: bool) -> tuple[Any, ...]:
    """Return the fields of ``FIXED``; the lengths of header, frame and chunks are put in later."""
    array, c = geometry.array, compression
    general = _FLAGS if geometry.chunksize else _FLAGS_WITHOUT_CHUNKSIZE
    flags = (general, 0, c.codec | c.clevel << 4, c.splitmode - 1)
    typesize = array.itemsize if array else geometry.typesize  # C-Blosc2 keeps wide ones in the header only
    sizes = (0xD3, geometry.nbytes, 0xD3, 0, 0xD2, typesize, 0xD2, geometry.blocksize, 0xD2, geometry.chunksize)
    pipeline = struct.pack("6sBB6s2x", bytes(c.filters), c.codec, c.codec_meta, bytes(c.filters_meta))
    front = (0x9E, 0xA8, MAGIC, 0xD2, 0, 0xCF, 0, 0xA4, *flags, *sizes)
    return (*front, 0xD1, _NTHREADS, 0xD1, _NTHREADS, 0xC3 if has_vlmeta else 0xC2, 0xD8, 6, pipeline)


def _b2nd(array: ArrayGeometry) -> bytes:
    """Return the content of the metalayer that makes a frame an n-d array."""
    ndim = len(array.shape)
    text = array.dtype.encode()
    axes = [bytes([0x97, 0, ndim])]
    for sizes, layout, marker in (
        (array.shape, ">Bq", 0xD3),
        (array.chunks, ">Bi", 0xD2),
        (array.blocks, ">Bi", 0xD2),
    ):
        axes.append(bytes([0x90 | ndim]))
        # an array without items may have longer "chunks" than the format can say; nothing depends on them
        axes += [struct.pack(layout, marker, size if marker == 0xD3 else min(size, _INT32_MAX)) for size in sizes]
    return b"".join(axes) + struct.pack(">BBI", 0, 0xDB, len(text)) + text
