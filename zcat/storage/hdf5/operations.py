"""What a worker can be asked about an open file: one handler for each kind of request. Only in workers."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import blake3
import msgpack

from zcat.errors import ZcatError
from zcat.limits import KIB
from zcat.protocol.codec import pack, to_plain
from zcat.storage.hdf5.answer_chunks import answer_chunks
from zcat.storage.hdf5.checks import open_dataset
from zcat.storage.hdf5.chunk_table import table_of
from zcat.storage.hdf5.inventory import walk
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.links import open_path
from zcat.storage.hdf5.open_files import OpenFile
from zcat.storage.hdf5.values import attributes_of, creation_of
from zcat.storage.hdf5.wire import Answer
from zcat.storage.hdf5.worker import Handler

_PAGE_BYTES = 128 * KIB
_PAGE_S = 2.0


class _Walk:
    """An inventory under way: pages are asked for one after the other, mostly of the same worker."""

    def __init__(self, file: OpenFile) -> None:
        self.items: Iterator[Item] = walk(file)
        self.told = 0


def inventory(file: OpenFile, fields: dict[str, Any]) -> Answer:
    """Tell a page of the items, from number ``start`` on, as msgpack; ``next`` is where another one starts."""
    start: int = fields["start"]
    under_way = file.kept.pop("walk", None)
    if not isinstance(under_way, _Walk) or under_way.told != start or start == 0:
        under_way = _Walk(file)
        under_way.told = sum(1 for _ in itertools.islice(under_way.items, start))
    page: list[bytes] = []
    size, until_s = 0, time.monotonic() + _PAGE_S
    following: dict[str, Any] = {}
    for item in under_way.items:
        page.append(pack(to_plain(item)))
        size += len(page[-1])
        if size >= _PAGE_BYTES or time.monotonic() > until_s:
            under_way.told += len(page)
            file.kept["walk"] = under_way
            following = {"next": under_way.told}
            break
    return Answer(following, [msgpack.Packer().pack_array_header(len(page)) + b"".join(page)])


def attribute_digests(file: OpenFile, fields: dict[str, Any]) -> Answer:
    """Give a digest of what `attributes` would tell of the values of each of ``paths``, one after the other."""
    digests: list[bytes] = []
    for path in fields["paths"]:
        try:
            values, _ = attributes_of(file.h5, open_path(file.h5, path))
        except ZcatError as error:
            values = {"": error.message}
        digests.append(blake3.blake3(pack(values)).digest())
    return Answer({}, [b"".join(digests)])


def attributes(file: OpenFile, fields: dict[str, Any]) -> Answer:
    """Read the attributes of the object at ``path``: values, and types, each as a body of msgpack."""
    values, types = attributes_of(file.h5, open_path(file.h5, fields["path"]))
    return Answer({}, [pack(values), pack(types)])


def creation(file: OpenFile, fields: dict[str, Any]) -> Answer:
    """Tell with what type, shape and chunks the dataset at ``path`` was made; as a body of msgpack."""
    return Answer({}, [pack(creation_of(open_dataset(file.h5, fields["path"])))])


def chunk_table(file: OpenFile, fields: dict[str, Any]) -> Answer:
    """Tell where ``count`` chunks of the dataset at ``path`` lie, from number ``start`` on: three arrays."""
    path, start, count = fields["path"], fields["start"], fields["count"]
    held = file.kept.get("table")
    if not isinstance(held, tuple) or held[0] != path:
        held = file.kept["table"] = (path, table_of(open_dataset(file.h5, path)))
    offsets, sizes, masks = held[1]
    part = slice(start, start + count)
    return Answer({"chunks": len(offsets)}, [offsets[part], sizes[part], masks[part]])


OPERATIONS: dict[str, Handler] = {
    "inventory": inventory,
    "attributes": attributes,
    "attribute_digests": attribute_digests,
    "creation": creation,
    "chunk_table": chunk_table,
    "chunk": answer_chunks,
}
"""By the name that a request has in ``op``."""
