"""What is known of a version of an HDF5 file, kept on disk: so that a restart does not read all files again."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import blake3

from zcat.errors import BadMessage, StorageFailed
from zcat.limits import GIB
from zcat.logs import kv
from zcat.protocol.codec import from_plain, pack, to_plain, unpack
from zcat.storage.beneath import Stamp
from zcat.storage.cache_folders import read_whole, write_whole
from zcat.storage.hdf5.items import Item

_PAGE_ITEMS = 10_000
_FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Named:
    """Since when the content of an item is what it is."""

    lineage: str
    mtime_ns: int
    """Of the file, when it became so."""


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """A version of a file: its groups and datasets, by path inside the file; the root group has the empty path."""

    stamp: Stamp
    items: Mapping[str, Item]
    named: Mapping[str, Named]
    """By path."""
    from_earlier: bool = field(default=False)
    """An earlier run of the publisher may have given out parts of it, of which nothing is known now."""


@dataclass(frozen=True, slots=True)
class _Page:
    items: tuple[Item, ...]
    named: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    format: int
    path: str
    stamp: Stamp
    pages: tuple[int, ...]
    """Their lengths in bytes; they follow."""


class Inventories:
    """A folder of inventories, one file for each HDF5 file. Any thread may call; each for another file."""

    def __init__(self, folder: Path) -> None:
        """Say which folder; it is made when there is something to keep."""
        self._folder = folder

    def save(self, path: str, inventory: Inventory) -> None:
        """Keep what is known of the file ``path``. A disk that refuses is logged: the next start takes longer."""
        items = list(inventory.items.values())
        pages = []
        for at in range(0, len(items), _PAGE_ITEMS):
            part = tuple(items[at : at + _PAGE_ITEMS])
            pages.append(pack(to_plain(_Page(part, tuple(inventory.named[item.path] for item in part)))))
        head = pack(to_plain(_Head(_FORMAT, path, inventory.stamp, tuple(map(len, pages)))))
        try:
            write_whole(self._file(path), b"".join([len(head).to_bytes(4, "little"), head, *pages]))
        except StorageFailed as error:
            log.warning("an inventory is not kept %s", kv(path=path, reason=error))

    def load(self, path: str) -> Inventory | None:
        """Return what was known last of the file ``path``, None if nothing that can be read."""
        data = read_whole(self._file(path))
        if data is None:
            return None
        try:
            end = 4 + int.from_bytes(data[:4], "little")
            head = from_plain(_Head, unpack(data[4:end]))
            if head.format != _FORMAT or head.path != path:
                return None
            items: dict[str, Item] = {}
            named: dict[str, Named] = {}
            for size in head.pages:
                page = from_plain(_Page, unpack(data[end : end + size], GIB))
                end += size
                items.update((item.path, item) for item in page.items)
                named.update((item.path, one) for item, one in zip(page.items, page.named, strict=True))
        except (BadMessage, ValueError) as error:
            log.warning("a kept inventory is damaged %s", kv(path=path, reason=error))
            return None
        return Inventory(head.stamp, items, named, from_earlier=True)

    def forget(self, path: str) -> None:
        """Drop what is known of a file that is gone."""
        try:
            os.unlink(self._file(path))
        except OSError:
            return

    def _file(self, path: str) -> str:
        return os.path.join(self._folder, blake3.blake3(path.encode()).hexdigest(length=16))
