"""Many small values in few frames: catalogues and listings, a msgpack array in each page."""

from collections.abc import Iterable
from typing import Any

from zcat.errors import BadMessage
from zcat.limits import CONTROL_FRAME_BYTES_MAX
from zcat.protocol.codec import Buffer, from_plain, pack, to_plain, unpack
from zcat.protocol.columns import read_columns


def paged(items: Iterable[Any], page_bytes_max: int = CONTROL_FRAME_BYTES_MAX) -> list[bytes]:
    """Pack dataclasses into frames, each a msgpack array, none larger than ``page_bytes_max``.

    Raises:
        BadMessage: one item alone is larger.
    """
    return paged_packed((pack(to_plain(item)) for item in items), page_bytes_max)


def paged_packed(items: Iterable[bytes], page_bytes_max: int = CONTROL_FRAME_BYTES_MAX) -> list[bytes]:
    """Like `paged`, of items that are msgpack already.

    Raises:
        BadMessage: one item alone is larger.
    """
    pages: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for packed in items:
        if len(packed) + 5 > page_bytes_max:
            raise BadMessage(f"an item of {len(packed)} bytes does not fit a page of {page_bytes_max}")
        if size + len(packed) + 5 > page_bytes_max:
            pages.append(_array(held))
            held, size = [], 0
        held.append(packed)
        size += len(packed)
    if held:
        pages.append(_array(held))
    return pages


def unpaged(cls: type[Any], pages: Iterable[Buffer]) -> list[Any]:
    """Read back what `paged` wrote.

    Raises:
        BadMessage: a page is not an array of ``cls``.
    """
    items: list[Any] = []
    for page in map(bytes, pages):
        read = read_columns(cls, page)
        items += _read_one_by_one(cls, page) if read is None else read
    return items


def _read_one_by_one(cls: type[Any], page: bytes) -> list[Any]:
    plain = unpack(page)
    if type(plain) is not list:
        raise BadMessage(f"page: wanted an array of {cls.__name__}, got {type(plain).__name__}")
    return [from_plain(cls, item) for item in plain]


def _array(packed: list[bytes]) -> bytes:
    return b"\xdd" + len(packed).to_bytes(4, "big") + b"".join(packed)  # msgpack "array 32"
