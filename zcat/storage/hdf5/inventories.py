"""What is known of a version of an HDF5 file, kept on disk: so that a restart does not read all files again."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import blake3
import msgpack

from zcat.errors import BadMessage, StorageFailed
from zcat.limits import GIB, KIB
from zcat.logs import kv
from zcat.protocol.codec import from_plain, pack, to_plain, unpack
from zcat.storage.beneath import Stamp
from zcat.storage.cache_folders import read_whole, write_whole
from zcat.storage.hdf5.items import Item, read_page
from zcat.storage.hdf5.served import REPLACING, Witnesses, WitnessLog, record

_FORMAT = 3
_RECORD_BYTES_MAX = 4 * KIB
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

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
    served: Mapping[str, Witnesses] | None = field(default_factory=dict)
    """What earlier runs of the publisher gave out; None if that is not known for sure."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Of all items, in their order."""

    lineages: tuple[str, ...]
    mtimes_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    format: int
    path: str
    stamp: Stamp
    pages: tuple[int, ...]
    """Lengths in bytes of what follows: pages of items, as the worker told them."""
    names: int
    """The same of their names, behind the pages; then come witnesses to the end of the file."""
    boot: str = ""
    """During which run of the machine it was written. The file is never synced: a machine that went down may have
    lost the last witnesses, and nobody would see that."""


class Inventories:
    """A folder of inventories, one file for each HDF5 file. Any thread may call; each for another file."""

    def __init__(self, folder: Path) -> None:
        """Say which folder; it is made when there is something to keep."""
        self._folder = folder
        self._boot = _boot_id()

    def save(self, path: str, inventory: Inventory, pages: Sequence[bytes | bytearray]) -> WitnessLog | None:
        """Keep what is known of the file ``path``.

        Args:
            path: of the file.
            inventory: what is known.
            pages: its items, as a worker told them: they need not be packed again.

        Returns:
            Where to write what else is given out of it. None if the disk refused, which is logged: then the next
            start takes longer, and gives everything a new lineage.
        """
        named = [inventory.named[one] for one in inventory.items]
        names = pack(to_plain(_Names(tuple(one.lineage for one in named), tuple(one.mtime_ns for one in named))))
        lengths = tuple(map(len, pages))
        head = pack(to_plain(_Head(_FORMAT, path, inventory.stamp, lengths, len(names), self._boot)))
        served = [record(one, *each) for one, held in (inventory.served or {}).items() for each in held.items()]
        data = b"".join([len(head).to_bytes(4, "little"), head, *pages, names, *served])
        try:
            write_whole(self._file(path), data)
        except StorageFailed as error:
            log.warning("an inventory is not kept %s", kv(path=path, reason=error))
            self.forget(path)  # it is of another version
            return None
        return WitnessLog(self._file(path))

    def log(self, path: str) -> WitnessLog:
        """Give the log of what is kept of the file ``path``."""
        return WitnessLog(self._file(path))

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
            for size in head.pages:
                items.update((item.path, item) for item in read_page(data[end : end + size]))
                end += size
            names = from_plain(_Names, unpack(data[end : end + head.names], GIB))
            end += head.names
            pairs = zip(names.lineages, names.mtimes_ns, strict=True)
            named = dict(zip(items, (Named(*pair) for pair in pairs), strict=True))
        except (BadMessage, ValueError) as error:
            log.warning("a kept inventory is damaged %s", kv(path=path, reason=error))
            return None
        is_whole = head.boot == self._boot != ""
        return Inventory(head.stamp, items, named, _read_served(data[end:]) if is_whole else None)

    def forget(self, path: str) -> None:
        """Drop what is known of a file that is gone."""
        try:
            os.unlink(self._file(path))
        except OSError:
            return

    def _file(self, path: str) -> str:
        return os.path.join(self._folder, blake3.blake3(path.encode()).hexdigest(length=16))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _read_served(data: bytes) -> dict[str, dict[int, bytes]] | None:
    """Read the witnesses at the end of a file, of which later ones replace earlier ones; None if one is cut."""
    served: dict[str, dict[int, bytes]] = {}
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(data) + 1, max_str_len=_RECORD_BYTES_MAX)
    unpacker.feed(data)
    try:
        while unpacker.tell() < len(data):
            path, number, witness = unpacker.unpack()
            held = served.setdefault(path, {})
            if number in REPLACING:
                held.clear()
            held[number] = witness
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        log.warning("what was given out of a file is not known %s", kv(reason=type(error).__name__))
        return None
    return served
