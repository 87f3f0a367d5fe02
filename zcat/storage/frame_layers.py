"""The two lists of named byte strings in a Blosc2 frame: metalayers (header) and vlmetalayers (trailer).

Both have one layout: an array of the size of what follows, a map of names to positions, and the values. The
positions count from the beginning of the header or trailer. C-Blosc2 finds everything by position and never
reads the sizes in between, and so do we.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``, "Header" and "Trailer".
"""

import struct

from zcat.errors import BadContent

NAME_BYTES_MAX = 31
"""BLOSC2_METALAYER_NAME_MAXLEN: what a name of either kind may have."""

_COUNT = struct.Struct(">BBHBH")  # array of 3, uint16 size, map of N: together 7 bytes
_POSITION = struct.Struct(">Bi")
_VALUES = struct.Struct(">BH")
_VALUE = struct.Struct(">BI")
_ARRAY_3, _UINT16, _MAP16, _ARRAY16, _INT32, _BIN32, _FIXSTR = 0x93, 0xCD, 0xDE, 0xDC, 0xD2, 0xC6, 0xA0


def read_layers(raw: bytes, at: int, count_max: int) -> dict[str, bytes]:
    """Read the layers whose list begins at ``at`` of a header or trailer.

    Raises:
        BadContent: the list is cut, points outside of ``raw``, or has more than ``count_max`` entries.
    """
    try:
        _, _, _, marker, count = _COUNT.unpack_from(raw, at)
        if marker != _MAP16 or count > count_max:
            raise BadContent(f"metalayers: marker {marker:#04x} and {count} entries, at most {count_max} wanted")
        at += _COUNT.size
        layers: dict[str, bytes] = {}
        for _ in range(count):
            end = at + 1 + (raw[at] & 0x1F)
            name = raw[at + 1 : end].decode("utf-8", "replace")
            marker, position = _POSITION.unpack_from(raw, end)
            if raw[at] & 0xE0 != _FIXSTR or marker != _INT32:
                raise BadContent("metalayers: an entry is no pair of a name and a position")
            layers[name] = _value_at(raw, position)
            at = end + _POSITION.size
    except (struct.error, IndexError) as error:
        raise BadContent(f"metalayers: cut short ({error})") from None
    return layers


def write_layers(layers: dict[str, bytes], at: int, size_counts_from: int) -> bytes:
    """Write layers so that they can stand at ``at`` of a header or trailer.

    Args:
        layers: values by name; a name has at most `NAME_BYTES_MAX` bytes as UTF-8.
        at: bytes of the header or trailer before the list.
        size_counts_from: 0 in a header, 1 in a trailer: C-Blosc2 counts the first byte in one only.
    """
    names = [name.encode() for name in layers]
    map_bytes = _COUNT.size + sum(1 + len(name) + _POSITION.size for name in names)
    position = at + map_bytes + _VALUES.size
    parts = [_COUNT.pack(_ARRAY_3, _UINT16, map_bytes - size_counts_from, _MAP16, len(names))]
    for name, value in zip(names, layers.values(), strict=True):
        parts += [bytes([_FIXSTR | len(name)]), name, _POSITION.pack(_INT32, position)]
        position += _VALUE.size + len(value)
    parts.append(_VALUES.pack(_ARRAY16, len(names)))
    for value in layers.values():
        parts += [_VALUE.pack(_BIN32, len(value)), value]
    return b"".join(parts)


def _value_at(raw: bytes, position: int) -> bytes:
    if position < 0:
        raise BadContent(f"metalayers: a value at {position}")
    marker, size = _VALUE.unpack_from(raw, position)
    begin = position + _VALUE.size
    if marker != _BIN32 or size > len(raw) - begin:
        raise BadContent(f"metalayers: a value of {size} bytes at {begin}, there are {len(raw)}")
    return raw[begin : begin + size]
