"""Attributes of a dataset: the vlmetalayers in a frame's trailer, each a Blosc2 chunk of msgpack.

What a file says here never makes its dataset unreadable: an attribute that is damaged, too large or of a type
that has no plain form is replaced by a sentence that says so.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``, "Trailer"; that values are msgpack is python-blosc2's choice.
"""

import struct
from typing import Any

import blosc2
import msgpack

from zcat.errors import BadChunk, BadContent
from zcat.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTES_BYTES_MAX, BLOSC2_CHUNK_OVERHEAD
from zcat.model.dataset import Geometry
from zcat.storage.chunk_gate import HEADER_BYTES, plain_chunk
from zcat.storage.frame_layers import NAME_BYTES_MAX, read_layers, write_layers

TRAILER_BYTES_MAX = 8 * ATTRIBUTES_BYTES_MAX
"""A longer trailer is not read; its attributes together are far above their limit."""

TRAILER_END_BYTES = 23
"""After the vlmetalayers: length of the trailer (5 bytes), fingerprint type (2), fingerprint (16)."""

_VLMETALAYERS_MAX = 8192  # BLOSC2_MAX_VLMETALAYERS
_LAYERS_AT = 2
_SENTENCE_BYTES = 128  # a name and why its value is not there
_DEPTH_MAX = 32
_TUPLE = "__tuple__"  # python-blosc2 writes a tuple as a list that begins with this
_END = struct.Struct(">BIBB16x")


def read_trailer(trailer: bytes) -> dict[str, bytes]:
    """Return the msgpack text of each attribute, decompressed, in the file's order.

    Values of more than `ATTRIBUTE_BYTES_MAX`, and those that would make all together more than
    `ATTRIBUTES_BYTES_MAX`, are replaced by the msgpack of a sentence.

    Raises:
        BadContent: the trailer is not one.
    """
    layers = read_layers(trailer, _LAYERS_AT, _VLMETALAYERS_MAX)
    values: dict[str, bytes] = {}
    left = ATTRIBUTES_BYTES_MAX - _SENTENCE_BYTES * len(layers)
    for name, chunk in layers.items():
        try:
            value = _decompressed(chunk, left)
            left -= len(value)
        except BadContent as error:
            value = msgpack.packb(_unreadable(error.message))
        values[name] = value
    return values


def decode_attributes(values: dict[str, bytes]) -> dict[str, Any]:
    """Decode the msgpack text of attributes into None, bool, int, float, str, bytes, list and dict.

    Keys of dicts become strings, tuples lists. Whatever has no such form is a sentence.
    """
    return {name: _decoded(value) for name, value in values.items()}


def write_trailer(attributes: dict[str, Any]) -> bytes:
    """Write the trailer of a frame with these attributes, deterministically.

    A name of more than 31 bytes, or a value that is no msgpack, has no place in a frame and is left out.
    """
    layers = {}
    for name, value in attributes.items():
        if len(name.encode()) <= NAME_BYTES_MAX:
            try:
                packed = msgpack.packb(value)
            except (TypeError, ValueError, OverflowError):
                continue
            layers[name] = blosc2.compress2(packed, codec=blosc2.Codec.ZSTD, clevel=1, typesize=1, nthreads=1)
    front = b"\x94\x01" + write_layers(layers, _LAYERS_AT, 1)
    return front + _END.pack(0xCE, len(front) + TRAILER_END_BYTES, 0xD8, 0)


def trailer_bytes(end: bytes) -> int:
    """Return the length of a trailer of which ``end`` is the last `TRAILER_END_BYTES`.

    Raises:
        BadContent: these are not the last bytes of a trailer.
    """
    if len(end) != TRAILER_END_BYTES or end[0] != 0xCE:
        raise BadContent("the frame does not end with a trailer: it is cut short or still being written")
    return int.from_bytes(end[1:5], "big")


def _decompressed(chunk: bytes, left: int) -> bytes:
    if len(chunk) < HEADER_BYTES:
        raise BadContent(f"a value of {len(chunk)} compressed bytes")
    nbytes = int.from_bytes(chunk[4:8], "little", signed=True)
    if nbytes > ATTRIBUTE_BYTES_MAX:
        raise BadContent(f"{nbytes} bytes, the limit is {ATTRIBUTE_BYTES_MAX}")
    if nbytes > left:
        raise BadContent(f"all attributes are above {ATTRIBUTES_BYTES_MAX} bytes")
    if nbytes < 1 or len(chunk) > nbytes + BLOSC2_CHUNK_OVERHEAD or chunk[3] == 0:
        raise BadContent("damaged")
    try:
        sound = plain_chunk(chunk, Geometry(nbytes, nbytes, 0, typesize=chunk[3]), 0)
        return blosc2.decompress2(sound, nthreads=1)
    except (BadChunk, ValueError, RuntimeError):
        raise BadContent("damaged") from None


def _decoded(value: bytes) -> Any:
    try:
        return _plain(msgpack.unpackb(value, strict_map_key=False, unicode_errors="replace"), _DEPTH_MAX)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        return _unreadable("not msgpack")


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        return _unreadable(f"nested deeper than {_DEPTH_MAX}")
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case [first, *rest] if first == _TUPLE:
            return [_plain(item, depth - 1) for item in rest]
        case list():
            return [_plain(item, depth - 1) for item in value]
        case dict():
            return {key if isinstance(key, str) else str(key): _plain(v, depth - 1) for key, v in value.items()}
        case msgpack.ExtType(code=code):
            return _unreadable(f"msgpack extension type {code}")
        case _:
            return _unreadable("msgpack extension type -1")  # a time stamp, which msgpack decodes by itself


def _unreadable(why: str) -> str:
    return f"<unreadable: {why}>"
