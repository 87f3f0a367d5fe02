"""Where a cache keeps what: names on disk, small files written whole, and the inventory at the start.

``<cache>/<root>@<owner>/catalogue`` is a root's catalogue, and ``<cache>/<root>@<owner>/<dataset>/<lineage>/`` has
what is cached of a lineage: ``frame.b2nd``, ``presence``, ``digests`` and ``info``.

Names are made of hashes, with a hint for people: nothing that came by wire is ever a part of a path, but
root names and owner keys, which ``zcat.names`` keeps harmless. The inventory looks at, and clears away, nothing
that is not named like this.
"""

import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass

import blake3

from zcat.errors import BadMessage, BadName, StorageFailed
from zcat.limits import ATTRIBUTES_BYTES_MAX, MIB
from zcat.model.dataset import DatasetInfo
from zcat.names import check_owner, check_root
from zcat.protocol.codec import from_plain, pack, to_plain, unpack

FRAME = "frame.b2nd"
PRESENCE = "presence"
DIGESTS = "digests"
INFO = "info"
CATALOGUE = "catalogue"

_INFO_BYTES_MAX = ATTRIBUTES_BYTES_MAX + MIB
_HINT_LENGTH_MAX = 40
_NOT_IN_HINTS = re.compile(r"[^A-Za-z0-9_.-]+")
_DATASET = re.compile(r"[0-9a-f]{16}-[A-Za-z0-9_.-]*")
_LINEAGE = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}")
_TRASH = "trash-"
_UNFINISHED = "unfinished-"


@dataclass(slots=True)
class Lineage:
    """A lineage in the cache, open or not."""

    folder: str
    used_bytes: int
    """On disk."""
    used_at_ns: int
    """When it was last of use: since 1970-01-01 UTC. Only the order counts."""
    known_at_ns: int
    """When its info was written; the largest of a dataset's lineages is the one of today."""
    was_open: bool = False
    """In this run: what it says was looked at, and others may be reading what was found right."""

    @property
    def dataset_folder(self) -> str:
        """What all lineages of the dataset lie in."""
        return os.path.dirname(self.folder)


def root_folder(cache: str, root: str, owner: str) -> str:
    """Give the folder of a root.

    Raises:
        BadName: the root's name or the owner's key is not legal.
    """
    return os.path.join(cache, f"{check_root(root)}@{check_owner(owner)}")


def dataset_folder(root: str, path: str) -> str:
    """Give the folder of the dataset ``path`` inside the folder of its root."""
    hint = _NOT_IN_HINTS.sub("_", path)[-_HINT_LENGTH_MAX:]
    return os.path.join(root, f"{blake3.blake3(path.encode()).hexdigest(length=8)}-{hint}")


def lineage_folder(dataset: str, info: DatasetInfo) -> str:
    """Give the folder of a lineage inside the folder of its dataset.

    A publisher that cuts or compresses the same content in another way gets another folder.
    """
    cut = pack([to_plain(info.geometry), to_plain(info.compression)])
    return os.path.join(dataset, f"{info.entry.lineage}-{blake3.blake3(cut).hexdigest(length=4)}")


def write_whole(path: str, data: bytes) -> None:
    """Replace a small file: whoever reads it sees the old or the new content, whole. It is not synced.

    Raises:
        StorageFailed: the disk is full or failed.
    """
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        fd, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(unfinished, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def read_whole(path: str) -> bytes | None:
    """Read a small file; None if there is none, or the disk does not give it."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def write_info(lineage: Lineage, info: DatasetInfo, after_ns: int) -> None:
    """Keep ``info`` as the latest of its lineage, and its lineage as the latest of its dataset.

    Args:
        lineage: where; its ``known_at_ns`` is set.
        info: of it.
        after_ns: what the other lineages' ``known_at_ns`` say at most.

    Raises:
        StorageFailed: the disk is full or failed.
    """
    path = os.path.join(lineage.folder, INFO)
    write_whole(path, pack(to_plain(info)))
    status = os.stat(path)
    lineage.known_at_ns = max(status.st_mtime_ns, after_ns + 1)  # clocks are set back now and then
    os.utime(path, ns=(status.st_atime_ns, lineage.known_at_ns))


def read_info(lineage_folder: str) -> DatasetInfo | None:
    """Read what `write_info` wrote; None if it is not there or damaged."""
    data = read_whole(os.path.join(lineage_folder, INFO))
    if data is None:
        return None
    try:
        return from_plain(DatasetInfo, unpack(data, _INFO_BYTES_MAX))
    except BadMessage:
        return None


def remove(cache: str, folder: str) -> None:
    """Take a folder away: at once for whoever looks, whatever happens to this process meanwhile.

    Raises:
        StorageFailed: the disk failed.
    """
    try:
        trash = tempfile.mkdtemp(prefix=_TRASH, dir=cache)
        with contextlib.suppress(FileNotFoundError):  # somebody cleared the cache by hand
            os.rename(folder, os.path.join(trash, "it"))
    except OSError as error:
        raise StorageFailed(f"{folder}: {error.strerror}") from error
    shutil.rmtree(trash, ignore_errors=True)
    with contextlib.suppress(OSError):  # the last lineage of its dataset takes the dataset's folder with it
        os.rmdir(os.path.dirname(folder))


def disk_bytes(folder: str) -> int:
    """Add up what the files of a lineage take on disk."""
    with os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries)


def names(folder: str) -> list[str]:
    """List a folder; one that is not there has nothing in it."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def inventory(cache: str) -> list[Lineage]:
    """Find all lineages, and clear away what a killed process left half made."""
    found: list[Lineage] = []
    for name in names(cache):
        if name.startswith(_TRASH):
            shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
        elif _root_of(name) is not None:
            found.extend(_inventory_of_root(cache, os.path.join(cache, name)))
    return found


def roots(cache: str) -> list[tuple[str, str]]:
    """List the roots that have a catalogue, as (name, owner), in order of name."""
    named = ((name, _root_of(name)) for name in sorted(names(cache)))
    return [root for name, root in named if root and os.path.exists(os.path.join(cache, name, CATALOGUE))]


def _inventory_of_root(cache: str, root: str) -> list[Lineage]:
    found: list[Lineage] = []
    for name in names(root):
        folder = os.path.join(root, name)
        if name.startswith(_UNFINISHED):
            os.unlink(folder)
        elif _DATASET.fullmatch(name):
            found.extend(_inventory_of_dataset(cache, folder))
    return found


def _inventory_of_dataset(cache: str, dataset: str) -> list[Lineage]:
    found: list[Lineage] = []
    for name in filter(_LINEAGE.fullmatch, names(dataset)):
        folder = os.path.join(dataset, name)
        try:
            known_at_ns = os.stat(os.path.join(folder, INFO)).st_mtime_ns
            used_at_ns = os.stat(os.path.join(folder, PRESENCE)).st_mtime_ns
        except FileNotFoundError:  # info is written last
            remove(cache, folder)
            continue
        found.append(Lineage(folder, disk_bytes(folder), used_at_ns, known_at_ns))
    return found


def _root_of(name: str) -> tuple[str, str] | None:
    root, _, owner = name.rpartition("@")
    try:
        return check_root(root), check_owner(owner)
    except BadName:
        return None
