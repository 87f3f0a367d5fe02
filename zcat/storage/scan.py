"""List what a root folder offers, and say what it does not offer and why.

Only names and ``stat`` are looked at, no content. Links are followed if they stay inside the root
(``zcat.storage.beneath``); hidden files and folders are passed over without a word.
"""

import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from zcat.errors import DatasetUnknown, StorageFailed, ZcatError
from zcat.logs import kv
from zcat.model.dataset import Kind
from zcat.names import PATH_BYTES_MAX, PATH_DEPTH_MAX, check_path, is_legal_component
from zcat.storage.beneath import SPARSE_INDEX, RootFolder, Stamp, kind_of

ENTRIES_MAX = 1_000_000
SKIPPED_KEPT_MAX = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A dataset, as far as its name and its ``stat`` tell."""

    path: str
    kind: Kind
    stamp: Stamp
    """Of the file; of a sparse frame: of its index, which every change of a chunk rewrites."""
    sparse: bool = False
    """It is a folder: an index and one file per chunk."""
    problem: str | None = None
    """Why its content cannot be offered; None for nearly all."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not offered."""

    path: str
    """Printable: bytes that are not UTF-8 are escaped."""
    reason: str


class Scan:
    """A walk over a root folder. Each iteration walks anew; what was skipped is complete at its end.

    Datasets come in the order of the disk, each folder's own before those of its subfolders.
    """

    def __init__(self, folder: RootFolder, entries_max: int) -> None:
        self.skipped: list[Skipped] = []
        """What is not offered: the first `SKIPPED_KEPT_MAX` of `skipped_count`."""
        self.skipped_count = 0
        self.is_cut = False
        """There were more than ``entries_max`` entries; the rest was not looked at."""
        self._folder = folder
        self._entries_max = entries_max
        self._entries_left = 0
        self._pending: deque[_Pending] = deque()

    def __iter__(self) -> Iterator[Found]:
        self.skipped, self.skipped_count, self.is_cut = [], 0, False
        self._entries_left = self._entries_max
        self._pending = deque([_Pending("", 0, frozenset())])
        return self._walk()

    def _walk(self) -> Iterator[Found]:
        while self._pending and not self.is_cut:
            pending = self._pending.popleft()
            try:
                fd = self._folder.open_dir(pending.path)
            except DatasetUnknown:
                continue  # deleted meanwhile
            except ZcatError as error:
                if not pending.path:
                    raise  # a root that cannot be read is not an empty root
                self._skip(pending.path, error.message)
                continue
            try:
                yield from self._list(pending, fd)
            except OSError as error:  # in the middle of the listing
                if not pending.path:
                    raise StorageFailed(f"the root cannot be listed: {error.strerror}") from error
                self._skip(pending.path, f"cannot be listed: {error.strerror}")
            finally:
                os.close(fd)

    def _list(self, pending: "_Pending", fd: int) -> Iterator[Found]:
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if identity in pending.ancestors:
            self._skip(pending.path, "a link back to a folder that it lies in")
            return
        if pending.depth >= PATH_DEPTH_MAX:
            self._skip(pending.path, f"lies deeper than {PATH_DEPTH_MAX} levels")
            return
        inside = _Pending(pending.path, pending.depth, pending.ancestors | {identity})
        with os.scandir(fd) as entries:
            for entry in entries:
                if self._entries_left == 0:
                    self.is_cut = True
                    log.warning("root has too many entries, rest not offered %s", kv(at=pending.path or "."))
                    return
                self._entries_left -= 1
                found = self._look(entry, inside)
                if found is not None:
                    yield found

    def _look(self, entry: os.DirEntry[str], parent: "_Pending") -> Found | None:
        """Sort out one entry: found, skipped, or a folder to look into later."""
        name = entry.name
        if name.startswith("."):
            return None
        path = f"{parent.path}/{name}" if parent.path else name
        reason = _why_not(path, name)
        if reason:
            self._skip(path, reason)
            return None
        try:
            status = self._folder.status(path) if entry.is_symlink() else entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                return Found(path, _kind_of_name(name), Stamp.of(status))
            if stat.S_ISDIR(status.st_mode):
                return self._look_into(path, name, parent)
            self._skip(path, f"is {kind_of(status.st_mode)}")
        except DatasetUnknown:
            if entry.is_symlink():
                self._skip(path, "a symbolic link to nothing")
        except FileNotFoundError:
            pass  # deleted meanwhile
        except ZcatError as error:
            self._skip(path, error.message)
        except OSError as error:
            self._skip(path, error.strerror or "stat failed")
        return None

    def _look_into(self, path: str, name: str, parent: "_Pending") -> Found | None:
        kind = _kind_of_name(name)
        if kind is not Kind.FILE:
            try:
                index = self._folder.status(f"{path}/{SPARSE_INDEX}")
            except DatasetUnknown:
                pass  # an ordinary folder that is called so
            else:
                regular = stat.S_ISREG(index.st_mode)
                problem = None if regular else f"its {SPARSE_INDEX} is {kind_of(index.st_mode)}"
                return Found(path, kind, Stamp.of(index), sparse=True, problem=problem)
        self._pending.append(_Pending(path, parent.depth + 1, parent.ancestors))
        return None

    def _skip(self, path: str, reason: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < SKIPPED_KEPT_MAX:
            self.skipped.append(Skipped(os.fsencode(path).decode("utf-8", "backslashreplace"), reason))


def scan(folder: RootFolder, entries_max: int = ENTRIES_MAX) -> Scan:
    """Walk ``folder`` and yield its datasets; the result's ``skipped`` says what is not offered.

    Args:
        folder: the root.
        entries_max: after so many files and folders the walk ends with a logged warning and ``is_cut``.

    Raises:
        NotReadable, Busy, StorageFailed: while iterating, when the root itself cannot be listed. Trouble with
            anything below it is a line in ``skipped``.
    """
    return Scan(folder, entries_max)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A folder to be listed; ``ancestors`` are the (device, inode) of those it was reached through."""

    path: str
    depth: int
    ancestors: frozenset[tuple[int, int]]


def _kind_of_name(name: str) -> Kind:
    if name.endswith(".b2nd"):
        return Kind.ARRAY
    if name.endswith(".b2frame"):
        return Kind.FRAME
    return Kind.FILE


def _why_not(path: str, name: str) -> str | None:
    if is_legal_component(name):
        if len(path.encode()) <= PATH_BYTES_MAX:
            return None
        return f"its path is longer than {PATH_BYTES_MAX} bytes"
    try:
        check_path(name)
    except ZcatError as error:
        return error.message
    return None
