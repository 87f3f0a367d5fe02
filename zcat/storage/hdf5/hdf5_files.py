"""The HDF5 files of a root: which version of each is offered, and what stays the same when one changes."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zcat.errors import Busy, Closed, DatasetUnknown, Stale, StorageFailed, ZcatError
from zcat.logs import kv
from zcat.model.dataset import Entry
from zcat.names import shown
from zcat.protocol.messages import Change
from zcat.storage.beneath import Stamp, lineage_of, stamp_of
from zcat.storage.disk import pread_exactly
from zcat.storage.hdf5.asking import read_pages
from zcat.storage.hdf5.hdf5_file import Hdf5File, Tools
from zcat.storage.hdf5.inventories import Inventories, Inventory, Named
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.served import Served, Witnesses, WitnessLog
from zcat.storage.hdf5.unchanged import Version, unchanged
from zcat.storage.hdf5.witnessing import Witnessing
from zcat.storage.root import Looked

SUFFIXES = (
    *(".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".cdf", ".mat"),  # anybody's
    *(".nxs", ".nx", ".hspy", ".xtal", ".uvh5", ".fast5", ".sofa"),  # instruments
    *(".h5ad", ".loom", ".cool", ".mcool", ".biom", ".nwb", ".mnc"),  # life sciences
)
"""Of files that are looked into, if they begin as HDF5 files do; others would all have to be opened."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"

PASSING = (Busy, Stale, DatasetUnknown, StorageFailed, Closed)
"""Errors of the moment."""

PATIENCE_S = 30.0
"""A file that was good before and is not readable now is taken to be in the making for so long."""

_RETRY_S = (0.25, 5.0)  # after a file was busy: at first, and at most
_USER_BLOCKS = (0, 512, 1024, 2048, 4096, 8192)  # where HDF5 looks for its signature; larger ones are never met

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was found."""

    stamp: Stamp
    open_file: Callable[[], int]
    """Opens it; called again whenever that is needed. Raises ``ZcatError``."""


@dataclass(slots=True)
class _Trouble:
    """A file that could not be looked into."""

    stamp: Stamp
    since_s: float
    until_s: float
    """When to try again."""
    retry_s: float
    reason: str | None = None
    """Why it never will be, as long as it is as it is."""


class Hdf5Files:
    """By path in the root. One thread at a time refreshes; any may ask for the rest."""

    def __init__(self, tools: Tools, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without any.

        Args:
            tools: of the root; closed by `close`, but for what converted chunks are kept in.
            folder: where inventories are kept.
            clock: monotonic, in seconds.
        """
        self._tools = tools
        self._inventories = Inventories(folder)
        self._witnessing = Witnessing()
        self._clock = clock
        self._files: dict[str, Hdf5File] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._included: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all files, and end the workers."""
        self._tools.sandbox.close()
        self._witnessing.close()
        for file in self._files.values():
            file.close()

    def begin_witnessing(self) -> None:
        """Begin to read small files in the background, as `witnessing` says. Once only."""
        self._witnessing.start()

    def include(self, path: str) -> None:
        """Have a file looked into whatever its name; before the first look."""
        self._included.add(path)

    def is_candidate(self, path: str) -> bool:
        """Say whether a file is looked into, going by its name."""
        return path.lower().endswith(SUFFIXES) or path in self._included

    def file(self, path: str) -> Hdf5File | None:
        """Give the version that is offered of the file ``path``."""
        return self._files.get(path)

    def attributes(self, path: str) -> dict[str, Any]:
        """Give the attributes of the file ``path`` itself, or the reason why there are none."""
        file, trouble = self._files.get(path), self._troubles.get(path)
        if file is not None:
            return file.attributes_of_root()
        if trouble is not None and trouble.reason is not None:
            return {"unreadable": f"<unreadable as HDF5: {trouble.reason}>"}
        return {}

    def holder(self, path: str) -> tuple[Hdf5File, str] | None:
        """Give the file that ``path`` lies in, and its path inside of it; None if it lies in none."""
        at = path.find("/")
        while at > 0:
            file = self._files.get(path[:at])
            if file is not None:
                return file, path[at + 1 :]
            at = path.find("/", at + 1)
        return None

    def file_path(self, path: str) -> str:
        """Give the path of the file that ``path`` lies in, or ``path`` itself."""
        at = path.find("/")
        while at > 0:
            if path[:at] in self._files or path[:at] in self._troubles:
                return path[:at]
            at = path.find("/", at + 1)
        return path

    def is_current(self, path: str, stamp: Stamp) -> bool:
        """Say whether nothing new is to be known of a file that is as ``stamp`` says."""
        held, trouble = self._files.get(path), self._troubles.get(path)
        if trouble is not None and trouble.stamp == stamp:
            return trouble.reason is not None
        return held is not None and held.inventory.stamp == stamp

    def look(self, path: str, found: Found, known: Mapping[str, Entry], looked: Looked) -> None:
        """Compare what is in a file with what was known of it.

        Args:
            path: of the file.
            found: how it is now.
            known: entries by path.
            looked: changes are added to it; the file itself, if it has to be looked at again.
        """
        before = self.paths(path)
        try:
            file = self.refresh(path, found)
        except PASSING:
            looked.unsettled.add(path)
            return
        except ZcatError:
            file = None
        entries = {} if file is None else {entry.path: entry for entry in file.entries()}
        news = (Change(at, entry) for at, entry in entries.items() if known.get(at) != entry)
        looked.changes.extend([*news, *(Change(at) for at in before if at not in entries)])

    def paths(self, path: str) -> list[str]:
        """List the paths of all that is offered of what is inside the file ``path``."""
        file = self._files.get(path)
        return [] if file is None else file.paths()

    def refresh(self, path: str, found: Found) -> Hdf5File | None:
        """Look into a file, unless its version is known.

        Args:
            path: of the file.
            found: how it is now.

        Returns:
            None if it is no HDF5 file.

        Raises:
            Busy, Stale, DatasetUnknown, StorageFailed, Closed: not now; what was offered before still is.
            ZcatError: it cannot be read, nor will it be as long as it is as it is.
        """
        stamp, held = found.stamp, self._files.get(path)
        if held is not None and held.inventory.stamp == stamp:
            return held
        trouble = self._troubles.get(path)
        if trouble is not None and self._clock() < trouble.until_s and trouble.reason is None:
            raise Busy(f"{shown(path)} could not be read a moment ago")
        loaded = self._inventories.load(path) if held is None else None
        before = held.inventory if held is not None else loaded
        served = held.served if held is not None else Served(loaded.served if loaded else None)
        try:
            with _sealed(served):
                inventory, pages = self._look(path, found, before, served)
        except ZcatError as error:
            self._note_trouble(path, stamp, error, was_good=held is not None)
            raise
        with self._lock:
            self._troubles.pop(path, None)
        if inventory is None:
            self.forget(path)
            return None
        served.close()  # before its log is replaced
        return self._replace(path, inventory, found, pages)

    def forget(self, path: str) -> None:
        """Drop a file that is gone."""
        with self._lock:
            file = self._files.pop(path, None)
            self._troubles.pop(path, None)
        if file is not None:
            file.close()
            self._inventories.forget(path)

    # -- private -------------------------------------------------------------------------------------

    def _look(
        self, path: str, found: Found, before: Inventory | None, given: Served
    ) -> tuple[Inventory | None, list[bytearray] | None]:
        """Take the inventory of a file: that of before, if the file is the same, or a new one, with its pages."""
        stamp, fd = found.stamp, found.open_file()
        try:
            if not has_signature(fd):
                return None, None
            if before is not None and before.stamp == stamp:
                return before, None
            items: dict[str, Item] = {}
            named: dict[str, Named] = {}
            pages: list[bytearray] = []
            birth = os.urandom(16).hex()
            for page in read_pages(self._tools.sandbox, fd):
                pages.append(page.packed)
                items.update((item.path, item) for item in page.items)
                named.update(self._born(path, stamp, birth, page.items))
            served: dict[str, Witnesses] = {}
            if before is not None and before.served is not None:
                now = Version(self._tools.sandbox, fd, stamp, items)
                same = list(unchanged(before.items, before.stamp, given, now))
                named.update((one, before.named[one]) for one in same)
                served = given.of_all(same)
            if stamp_of(fd) != stamp:
                raise Stale(f"{shown(path)} changed while it was read")
        finally:
            os.close(fd)
        return Inventory(stamp, items, named, served), pages

    def _born(self, path: str, stamp: Stamp, birth: str, items: Iterable[Item]) -> Iterator[tuple[str, Named]]:
        """Name the content of items anew.

        By a random number, too: if what is kept of the file is lost, nobody knows what was given out under names
        that the same stamp would make again.
        """
        for item in items:
            lineage = lineage_of(self._tools.owner, stamp, f"{path}\0{item.path}\0{birth}")
            yield item.path, Named(lineage, stamp.mtime_ns)

    def _replace(self, path: str, inventory: Inventory, found: Found, pages: list[bytearray] | None) -> Hdf5File:
        """Offer a version; ``pages`` are its items as they are to be kept, None if they are kept already."""
        if pages is None:
            witness_log: WitnessLog | None = self._inventories.log(path)
        else:
            witness_log = self._inventories.save(path, inventory, pages)
        served = Served(inventory.served, witness_log if inventory.served is not None else None)
        file = Hdf5File(self._tools, f"{path}/", inventory, found.open_file, served)
        with self._lock:
            held = self._files.get(path)
            self._files[path] = file
        if held is not None:
            held.close()
        if inventory.served is not None:
            self._witnessing.add(file)
        return file

    def _note_trouble(self, path: str, stamp: Stamp, error: ZcatError, was_good: bool) -> None:
        now_s = self._clock()
        trouble = self._troubles.get(path)
        if trouble is None or trouble.reason is not None:
            trouble = _Trouble(stamp, now_s, now_s, _RETRY_S[0])
        trouble.stamp = stamp
        trouble.until_s = now_s + trouble.retry_s
        trouble.retry_s = min(2 * trouble.retry_s, _RETRY_S[1])
        with self._lock:
            self._troubles[path] = trouble
        if isinstance(error, PASSING):
            return
        if was_good and now_s - trouble.since_s < PATIENCE_S:
            raise Busy(f"{shown(path)} cannot be read at present: {error.message}") from None
        trouble.reason = error.message
        with self._lock:
            file = self._files.pop(path, None)
        if file is not None:
            file.close()
        log.warning("not offered as HDF5 %s", kv(path=path, reason=error))


def has_signature(fd: int) -> bool:
    """Say whether a file begins as an HDF5 file does, perhaps behind a user block."""
    size = os.fstat(fd).st_size
    return any(
        at + len(SIGNATURE) <= size and pread_exactly(fd, len(SIGNATURE), at) == SIGNATURE for at in _USER_BLOCKS
    )


@contextmanager
def _sealed(served: Served) -> Iterator[None]:
    """Let nothing further be given out; if there is no new version after all, let it again."""
    served.seal()
    try:
        yield
    except BaseException:
        served.seal(False)
        raise
