"""One version of an HDF5 file in the publisher's process: what is in it, and its chunks.

The file's stamp is compared before and after whatever is read of it. Chunks that cost a conversion are kept, by
lineage, in the publisher's own slotted frames: each is made once, whoever asks.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from zcat.errors import BadContent, BadName, BadSelection, Busy, DatasetUnknown, NotReadable, Stale, ZcatError
from zcat.limits import KIB
from zcat.model.dataset import Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.names import check_path, shown
from zcat.storage.beneath import Stamp, stamp_of
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.hdf5.asking import read_attribute_digests, read_attributes
from zcat.storage.hdf5.dataset import Hdf5Dataset, description_of, whole_of
from zcat.storage.hdf5.inventories import Inventory
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.layout import cut_of
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.hdf5.served import DESCRIPTION, WHOLE, Served
from zcat.storage.open_sources import OpenSources
from zcat.storage.root import Chunk

NOTE = "HDF5_NOTE"
"""Attribute of ours: what of a dataset is offered in another form than HDF5 has it."""

DATASETS_MAX = 256
PROBLEM_LENGTH_MAX = 500
_DTYPE_BYTES_MAX = 16 * KIB
_NOTHING = Geometry(0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all HDF5 files of a root share."""

    owner: str
    """Key of the publisher."""
    sandbox: Sandbox
    kept: ByteFrames
    """Where converted chunks are kept."""
    digests: Digests


class Hdf5File:
    """A version of a file. Any thread may call."""

    def __init__(
        self, tools: Tools, prefix: str, inventory: Inventory, open_file: Callable[[], int], served: Served
    ) -> None:
        """Take what is known; nothing is opened before it is needed.

        Args:
            tools: of the root.
            prefix: goes before the path of each item to make that of its entry; ends with a slash.
            inventory: of this version.
            open_file: opens the file, whatever version it is then.
            served: what was given out of this version.
        """
        self.inventory = inventory
        self.served = served
        self._tools = tools
        self._prefix = prefix
        self._open_file = open_file
        self._opened: OpenSources[_Open] = OpenSources(1)
        self._paths = [path for path in inventory.items if path and _is_legal(prefix + path)]
        self._turns = _Turns()
        self._infos: dict[str, DatasetInfo] = {}
        self._attributes: dict[str, tuple[dict[str, Any], bytes]] = {}

    def close(self) -> None:
        """Close the file."""
        self.served.close()
        self._opened.close()

    def rest(self) -> None:
        """Close the file until it is needed again."""
        self._opened.forget("")

    def entries(self) -> Iterator[Entry]:
        """Give the line of each group and dataset but the root group."""
        return (self.entry(path) for path in self._paths)

    def paths(self) -> list[str]:
        """List the paths of the entries."""
        return [self._prefix + path for path in self._paths]

    def entry(self, path: str) -> Entry:
        """Give the line of an item.

        Raises:
            DatasetUnknown: there is none at ``path`` inside the file.
        """
        item, named = self._item(path), self.inventory.named[path]
        kind = Kind.GROUP if item.kind == "group" else Kind.ARRAY
        entry = Entry(self._prefix + path, kind, named.lineage, 0, 0, max(0, named.mtime_ns))
        if item.problem is not None:
            return replace(entry, problem=_cut(item.problem))
        if kind is Kind.GROUP:
            return entry
        try:
            array = cut_of(item).array
            if len(array.dtype.encode()) > _DTYPE_BYTES_MAX:
                raise NotReadable(f"its dtype, written out, has more than {_DTYPE_BYTES_MAX} bytes")
        except ZcatError as error:
            return replace(entry, problem=_cut(error.message))
        nbytes = array.itemsize
        for length in array.shape:
            nbytes *= length
        stored_bytes = item.layout.stored_bytes if item.layout else 0
        return replace(entry, nbytes=nbytes, cbytes=stored_bytes, shape=array.shape, dtype=array.dtype)

    def info(self, path: str) -> DatasetInfo:
        """Describe a group or dataset.

        Raises:
            DatasetUnknown: there is none.
            NotReadable, BadContent: it cannot be offered.
            Busy: the file is being written, or was replaced a moment ago; or as ``Sandbox.call`` says.
            StorageFailed, Closed: as there.
        """
        item = self._item(path)
        if item.problem is not None and item.kind != "group":
            raise NotReadable(item.problem)
        entry = replace(self.entry(path), problem=None)
        try:
            with self._use() as opened:
                attributes, digest = self._read_attributes(opened, path)
                if item.kind == "group":
                    self.served.note(path, DESCRIPTION, description_of(digest, None))
                    return DatasetInfo(entry, _NOTHING, Compression(), attributes)
                dataset = opened.dataset(item)
                self.served.note(path, DESCRIPTION, description_of(digest, dataset.cut))
                return replace(dataset.info_of(entry), attributes=attributes)
        except Stale as error:
            raise Busy(f"{error.message}; ask again in a moment") from None

    def attributes_of_root(self) -> dict[str, Any]:
        """Read the attributes of the file itself, its root group's; a sentence stands for what cannot be read."""
        try:
            with self._use() as opened:
                return self._read_attributes(opened, "")[0]
        except ZcatError as error:
            return {"unreadable": f"<unreadable: {error.message}>"}

    def witness(self, paths: list[str]) -> None:
        """Remember all of some groups and datasets, whether it was given out or not.

        Raises:
            Stale: the file is another one by now.
            ZcatError: it cannot be read.
        """
        items = [self._item(path) for path in paths]
        made: dict[str, bytes] = {}
        with self._use() as opened:
            digests = read_attribute_digests(self._tools.sandbox, opened.fd, [item.hdf5_path for item in items])
            for item, attributes in zip(items, digests, strict=True):
                with suppress(NotReadable, BadContent):
                    made[item.path] = whole_of(attributes, None if item.kind == "group" else opened.dataset(item))
        for path, one in made.items():  # only now it is sure that they are of this version
            self.served.note(path, WHOLE, one)

    def chunk(self, path: str, lineage: str, nchunk: int) -> Chunk:
        """Give a chunk of a version of a dataset.

        One that was converted before is given also if the file is another one by now: it is of this version.

        Raises:
            Stale: ``lineage`` is not that of this version.
            BadSelection: there is no such chunk.
            ZcatError: as `info` says.
        """
        item = self._item(path)
        if self.inventory.named[path].lineage != lineage:
            raise Stale(f"{shown(self._prefix + path)} is no longer the version {lineage}")
        info = self._infos.get(path)
        if info is not None:
            data = self._tools.kept.get(info, nchunk) if 0 <= nchunk < info.geometry.nchunks else None
            if data is not None:
                return self._chunk(info, nchunk, data)
        with self._use() as opened:
            dataset = opened.dataset(item)
            nchunks = dataset.cut.geometry.nchunks
            if not 0 <= nchunk < nchunks:
                raise BadSelection(f"{shown(self._prefix + path)} has chunks 0 to {nchunks - 1}, not {nchunk}")
            info = dataset.info_of(self.entry(path))
            data = dataset.direct_chunk(nchunk)
            if data is not None:
                chunk = self._chunk(info, nchunk, data)
                self.served.note(path, nchunk, chunk.digest)
                return chunk
            self._infos[path] = info
            return self._chunk(info, nchunk, self._converted(opened, item, info, nchunk))

    # -- private -------------------------------------------------------------------------------------

    def _item(self, path: str) -> Item:
        item = self.inventory.items.get(path)
        if item is None:
            raise DatasetUnknown(f"{shown(self._prefix + path)} does not exist")
        return item

    def _read_attributes(self, opened: "_Open", path: str) -> tuple[dict[str, Any], bytes]:
        """Read the attributes of an item, with `NOTE` where there is one, and their digest."""
        known = self._attributes.get(path)
        if known is None:
            item = self._item(path)
            known = read_attributes(self._tools.sandbox, opened.fd, item.hdf5_path)
            if item.note is not None:
                known[0].setdefault(NOTE, item.note)
            if len(self._attributes) < DATASETS_MAX:
                opened.check_unchanged()
                self._attributes[path] = known
        return known

    def _chunk(self, info: DatasetInfo, nchunk: int, data: bytes) -> Chunk:
        return Chunk(data, self._tools.digests.of(info.entry.lineage, nchunk, data))

    def _converted(self, opened: "_Open", item: Item, info: DatasetInfo, nchunk: int) -> bytes:
        """Give a chunk out of what is kept, or convert it, with what belongs to it, and keep all."""
        kept, dataset = self._tools.kept, opened.dataset(item)
        unit = dataset.unit(nchunk)
        with self._turns.of((item.path, unit.numbers[0])):
            data = kept.get(info, nchunk)
            if data is not None:
                return data
            made, witness = dataset.convert(unit)
            self.served.note(item.path, unit.numbers[0], witness)
            opened.check_unchanged()  # else one version's chunks would be kept under another's name
            for number, one in zip(unit.numbers, made, strict=True):
                kept.put(info, number, one, self._tools.digests.of(info.entry.lineage, number, one))
        return made[unit.numbers.index(nchunk)]

    @contextmanager
    def _use(self) -> Iterator["_Open"]:
        """Lend the open file; whatever was read of it is refused if it changed meanwhile."""
        with self._opened.use("", self.inventory.stamp, self._open) as opened:
            try:
                yield opened
            except ZcatError:
                opened.check_unchanged()  # then that is the reason
                raise
            opened.check_unchanged()

    def _open(self) -> "_Open":
        opened = _Open(self._open_file(), self.inventory.stamp, self._tools.sandbox)
        try:
            opened.check_unchanged()
        except Stale:
            opened.close()
            raise
        return opened


class _Open:
    """An open file, and the datasets of it that were used."""

    def __init__(self, fd: int, stamp: Stamp, sandbox: Sandbox) -> None:
        self.fd = fd
        self._stamp = stamp
        self._sandbox = sandbox
        self._datasets: dict[str, Hdf5Dataset] = {}
        self._lock = threading.Lock()

    def dataset(self, item: Item) -> Hdf5Dataset:
        found = self._datasets.get(item.hdf5_path)
        if found is None:
            found = Hdf5Dataset(self._sandbox, self.fd, item)
            with self._lock:
                found = self._datasets.setdefault(item.hdf5_path, found)
                if len(self._datasets) > DATASETS_MAX:
                    del self._datasets[next(iter(self._datasets))]
        return found

    def check_unchanged(self) -> None:
        if stamp_of(self.fd) != self._stamp:
            raise Stale("the HDF5 file changed while it was read")

    def close(self) -> None:
        os.close(self.fd)


class _Turns:
    """One at a time for each key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[object, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, key: object) -> Iterator[None]:
        """Wait for the turn, and have it."""
        with self._lock:
            turn, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = turn, users + 1
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = turn, users - 1


def _cut(problem: str) -> str:
    return problem if len(problem) <= PROBLEM_LENGTH_MAX else problem[: PROBLEM_LENGTH_MAX - 1] + "…"


def _is_legal(path: str) -> bool:
    """Say whether a path is legal behind its prefix too: it may be too long or too deep then."""
    try:
        check_path(path)
    except BadName:
        return False
    return True
