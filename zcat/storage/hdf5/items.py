"""What a worker tells of an HDF5 file: values that travel from its process to the publisher's.

They come from a process that has opened a foreign file, so they pass `zcat.protocol.codec.from_plain` like
anything that came by wire.
"""

import math
from dataclasses import dataclass

from zcat.errors import BadContent, BadMessage, NotReadable
from zcat.limits import MIB
from zcat.model.dtypes import parse_dtype
from zcat.names import check_path, shown
from zcat.protocol.codec import also_check, from_plain, unpack

NODES_MAX = 1_000_000
"""Names of groups and datasets in one file that are told."""

PAGE_BYTES_MAX = 4 * MIB
"""Of items that are told at once."""

ENUM_NAMES = "HDF5_ENUM"
"""Attribute of ours: the names of a dataset's numbers, if its type is an enumeration."""

_KINDS = ("group", "dataset")
_LAYOUTS = ("chunked", "contiguous", "compact", "virtual")


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a dataset's pipeline."""

    id: int
    name: str
    options: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset's bytes lie in the file."""

    kind: str
    """``chunked``, ``contiguous``, ``compact`` or ``virtual``."""
    chunks: tuple[int, ...] | None = None
    """Items per axis of an HDF5 chunk, along all axes of the offered shape; None unless chunked."""
    filters: tuple[Filter, ...] = ()
    offset: int | None = None
    """Of a contiguous dataset's bytes in the file; None where there are none yet (then all is fill value)."""
    stored_bytes: int = 0
    """In the file."""


@dataclass(frozen=True, slots=True)
class Item:
    """A group or dataset of a file, under one of its names."""

    path: str
    """Inside the file, without a slash at either end, made legal by `names`; empty for the root group."""
    hdf5_path: str
    """As HDF5 has it, absolute."""
    kind: str
    """``group`` or ``dataset``."""
    address: int = 0
    """Of the object in the file: the same for all names (hard links) of one object."""
    shape: tuple[int, ...] | None = None
    """None for groups and for null dataspaces."""
    dtype: str | None = None
    """Of the array that is offered, as ``model.dtypes`` reads it; None where there is none."""
    layout: Layout | None = None
    inner_axes: int = 0
    """How many of the last axes of ``shape`` lie inside each HDF5 item, which is of an array type."""
    raw: bool = False
    """Whether a stored item, behind the filters, is byte for byte an offered one: HDF5 would convert nothing."""
    fill: bytes | None = None
    """One HDF5 item (all its inner axes) in the offered dtype: what was never written; None for zeros."""
    link: tuple[str, ...] = ()
    """What a soft link says that this is; of an external one, the name of the file besides."""
    is_ordered: bool = False
    """A group that knows in which order its links were made: they are told in that order."""
    problem: str | None = None
    """Why the content is not offered."""
    note: str | None = None
    """What of it is offered in another form, such as text of variable length as fixed-width strings."""
    fingerprint: str = ""
    """32 hexadecimal digits of type, shape, chunks, filters and fill value; and of the values themselves where
    `by_value` says so. Another one means another dataset."""
    by_value: bool = False
    """Its values are compact or text of variable length, and part of the fingerprint."""
    places: str = ""
    """32 hexadecimal digits of where its stored bytes lie in the file, how many, and by which filters.

    Other ones mean that something was written. The same ones prove nothing: numbers overwritten in place leave no
    trace in any table.
    """


def read_page(packed: bytes | bytearray) -> list[Item]:
    """Read items that a worker told, as one array of msgpack.

    Raises:
        BadMessage: they are none.
    """
    plain = unpack(packed, PAGE_BYTES_MAX)
    if type(plain) is not list:
        raise BadMessage("no list of items")
    return [from_plain(Item, one) for one in plain]


def check_item(item: Item) -> None:
    """Refuse an item whose parts do not agree, so that nobody has to look again. `from_plain` calls it.

    Raises:
        BadName: its path is not legal.
        BadContent: something else is wrong with it.
    """
    if item.path:
        check_path(item.path)
    if item.kind not in _KINDS or (item.layout is not None and item.layout.kind not in _LAYOUTS):
        raise BadContent(f"an item of no known kind at {shown(item.path)}")
    if item.kind == "dataset" and item.problem is None and not _agrees(item):
        raise BadContent(f"type, shape and layout do not agree at {shown(item.path)}")


def _agrees(item: Item) -> bool:
    layout, shape = item.layout, item.shape
    if layout is None or shape is None or item.dtype is None or item.inner_axes > len(shape):
        return False
    if layout.kind == "chunked":
        chunks = layout.chunks
        if chunks is None or len(chunks) != len(shape) or 0 in chunks:
            return False
    try:
        itemsize = parse_dtype(item.dtype).itemsize
    except NotReadable:
        return False
    return item.fill is None or len(item.fill) == itemsize * math.prod(shape[len(shape) - item.inner_axes :])


also_check(Item, check_item)
