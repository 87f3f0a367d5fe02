"""Decode a chunk stream into an array: the body of ``fmt=chunks``.

The body is Blosc2 chunks one after the other, which hold the C-order bytes of the array. Each says in its header
how long it is. C-Blosc2 believes that header, and writes beyond the end of a buffer that is too small, so
nothing is decoded before the header agrees with what is still wanted, and asks for nothing but Blosc2's own
codecs and filters.

Source of the layout: c-blosc2 ``README_CHUNK_FORMAT.rst``.
"""

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.client.backend import BodyCut
from zcat.errors import BadChunk
from zcat.limits import BLOSC2_CHUNK_OVERHEAD, CHUNK_BYTES_MAX, MIB

Reader: TypeAlias = Callable[[int], bytes]
"""Gives the next bytes of the body: as many as are wanted, fewer only at its end."""

HEADER_BYTES = 32

_SIZES = struct.Struct("<4B3i")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes
_VERSION = 5
_EXTENDED_HEADER = 0x05
_MEMCPYED = 0x02
_FLAGS_REFUSED = 0x8F  # dictionary, longer header, codec per block, lazy; instrumented
_FORMATS = frozenset({1, 3, 4})  # lz4, zlib, zstd
_FILTERS = frozenset({0, 1, 2})  # none, shuffle, bitshuffle
_SPECIAL_NONE, _SPECIAL_ZEROS, _SPECIAL_NAN, _SPECIAL_VALUE = range(4)
_NAN_BYTES = (4, 8)

# PERF: waking Blosc2's threads costs 0.1 ms, ten times as much as decoding 16 KiB
_ONE_THREAD_BYTES_MAX = MIB


def decode(read: Reader, out: npt.NDArray[Any]) -> None:
    """Fill an array from a chunk stream, chunk by chunk as it comes.

    Args:
        read: gives the body.
        out: C-contiguous, of any shape and dtype.

    Raises:
        BadChunk: what came is no such stream, or longer than the array.
        BodyCut: it is shorter.
    """
    left = out.reshape(-1).view(np.uint8)
    while len(left):
        header = _exactly(read, HEADER_BYTES)
        nbytes, cbytes = check_header(header, len(left))
        _decompress(header + _exactly(read, cbytes - HEADER_BYTES), left[:nbytes])
        left = left[nbytes:]
    if read(1):
        raise BadChunk("the answer goes on behind the last item")


def check_header(header: bytes, nbytes_max: int) -> tuple[int, int]:
    """Return the sizes of a chunk, uncompressed and compressed, if Blosc2 can decode it without harm.

    Args:
        header: the first `HEADER_BYTES` of the chunk.
        nbytes_max: what it may decode to.

    Raises:
        BadChunk: it was not decoded; the message says what was wanted and what came.
    """
    version, _, flags, typesize, nbytes, blocksize, cbytes = _SIZES.unpack_from(header)
    if version != _VERSION or flags & _EXTENDED_HEADER != _EXTENDED_HEADER:
        raise BadChunk(f"the answer holds no chunk of Blosc2: version {version}, flags {flags:#04x}")
    if not 1 <= nbytes <= min(nbytes_max, CHUNK_BYTES_MAX):
        raise BadChunk(f"a chunk of {nbytes} bytes in an answer that lacks {nbytes_max}")
    if not 1 <= blocksize <= nbytes or not typesize:
        raise BadChunk(f"blocks of {blocksize} bytes in a chunk of {nbytes}, items of {typesize}")
    if not HEADER_BYTES <= cbytes <= nbytes + BLOSC2_CHUNK_OVERHEAD:
        raise BadChunk(f"a chunk of {cbytes} bytes, compressed, for {nbytes} uncompressed")
    if header[31] & _FLAGS_REFUSED or header[30]:
        raise BadChunk(f"flags {header[31]:#04x} and {header[30]:#04x} ask for what is not allowed here")
    special = header[31] >> 4 & 7
    if special != _SPECIAL_NONE:
        _check_special(special, typesize, nbytes, cbytes)
    elif flags & _MEMCPYED:
        if cbytes != nbytes + HEADER_BYTES:
            raise BadChunk(f"{cbytes} bytes for a plain copy of {nbytes}")
    else:
        _check_pipeline(header, flags >> 5, -(-nbytes // blocksize), cbytes)
    return nbytes, cbytes


def _exactly(read: Reader, nbytes: int) -> bytes:
    data = read(nbytes)
    if len(data) != nbytes:
        raise BodyCut(f"an answer ended early: wanted {nbytes} bytes more, got {len(data)}")
    return data


def _check_special(special: int, typesize: int, nbytes: int, cbytes: int) -> None:
    item_bytes = cbytes - HEADER_BYTES
    fits = {
        _SPECIAL_ZEROS: item_bytes == 0,
        _SPECIAL_NAN: item_bytes == 0 and typesize in _NAN_BYTES,
        _SPECIAL_VALUE: item_bytes == typesize,
    }
    if not fits.get(special, False) or nbytes % typesize:
        raise BadChunk(f"special kind {special} of {cbytes} bytes, items of {typesize} in {nbytes} bytes")


def _check_pipeline(header: bytes, codec: int, nblocks: int, cbytes: int) -> None:
    if codec not in _FORMATS or not _FILTERS.issuperset(header[16:22]):
        raise BadChunk(f"codec format {codec} and filters {list(header[16:22])}: not those of an answer")
    if cbytes < HEADER_BYTES + 4 * nblocks:
        raise BadChunk(f"{cbytes} bytes cannot hold {nblocks} block offsets")


def _decompress(chunk: bytes, out: npt.NDArray[np.uint8]) -> None:
    import blosc2  # PERF: takes 0.4 s to load, and a command that lists or describes decodes nothing

    options = {"nthreads": 1} if len(out) <= _ONE_THREAD_BYTES_MAX else {}
    try:
        blosc2.decompress2(chunk, dst=out, **options)
    except (ValueError, RuntimeError) as error:
        raise BadChunk(f"a chunk of the answer is damaged: {error}") from None
