"""A root that is one HDF5 file: what is in it is the tree, and the file itself can be downloaded by its name.

It is a folder root of which only that file is looked at, and whose names begin inside of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from zcat.errors import BadConfig
from zcat.model.dataset import DatasetInfo, Entry
from zcat.names import check_path, shown
from zcat.protocol.messages import Change
from zcat.storage.block_layout import ChunkPart
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.directory_root import DirectoryRoot, DirectoryTimes
from zcat.storage.hdf5.hdf5_files import Hdf5Files, has_signature
from zcat.storage.root import Chunk, Looked, OnChange
from zcat.storage.watch import Watcher


class Hdf5Root:
    """A ``Root`` over one file."""

    def __init__(
        self,
        path: Path,
        owner: str,
        byte_frames: ByteFrames,
        times: DirectoryTimes | None = None,
        hdf5: Hdf5Files | None = None,
    ) -> None:
        """Open the folder of the file.

        Args:
            path: of the file.
            owner, byte_frames, times: as for ``DirectoryRoot``.
            hdf5: looks into it.

        Raises:
            BadConfig: there is no such file, or it is no HDF5 file.
            BadName: its name is not legal.
        """
        assert hdf5 is not None
        check_hdf5(path)
        self._name = check_path(path.name)
        self._path = path
        self._times = times or DirectoryTimes()
        self._files = hdf5
        hdf5.include(self._name)
        self._root = DirectoryRoot(path.parent, owner, byte_frames, times, hdf5)
        self._watcher: Watcher | None = None

    def look(self, paths: set[str] | None, known: Mapping[str, Entry]) -> Looked:
        """Compare the file with what was known, as ``Root.look`` says."""
        del paths  # whatever changed, the file did
        looked = self._root.look({self._name}, _Inside(self, known))
        changes = []
        for change in looked.changes:
            path = self.outer(change.path)
            if path is not None:
                changes.append(Change(path, change.entry and self._named(change.entry, path)))
        return Looked(changes, looked.unsettled)

    def info(self, path: str) -> DatasetInfo:
        """Describe a group or dataset, as ``Root.info`` says."""
        info = self._root.info(self.inner(path))
        return replace(info, entry=self._named(info.entry, path))

    def sizes(self, path: str, lineage: str) -> bytes:
        """Give the room that each chunk takes, as ``Root.sizes`` says."""
        return self._root.sizes(self.inner(path), lineage)

    def chunk(self, path: str, lineage: str, nchunk: int) -> Chunk:
        """Read one chunk, as ``Root.chunk`` says."""
        return self._root.chunk(self.inner(path), lineage, nchunk)

    def part(
        self, path: str, lineage: str, nchunk: int, blocks: tuple[int, ...], vouch: bool
    ) -> ChunkPart | Chunk:
        """Read some blocks of one chunk, as ``Root.part`` says."""
        return self._root.part(self.inner(path), lineage, nchunk, blocks, vouch)

    def watch(self, on_change: OnChange) -> None:
        """Begin to watch, as ``Root.watch`` says; by polling, since only this file of its folder matters."""
        assert self._watcher is None
        self._watcher = Watcher(self._path, on_change, self._times.watch, force_polling=True)
        self._watcher.start()
        self._files.begin_witnessing()

    def close(self) -> None:
        """Stop watching and close the file."""
        if self._watcher is not None:
            self._watcher.stop()
        self._root.close()

    def inner(self, path: str) -> str:
        """Give the path in the folder of what has the name ``path`` in this root."""
        is_file = path == self._name and not self._is_taken()
        return path if is_file else f"{self._name}/{path}"

    def outer(self, path: str) -> str | None:
        """Give the path in this root of what has the name ``path`` in the folder; None if it has none."""
        if path == self._name:
            return None if self._is_taken() else path
        return path.removeprefix(f"{self._name}/")

    def _named(self, entry: Entry, path: str) -> Entry:
        return replace(entry, path=path, is_root=True if entry.path == self._name else None)

    def _is_taken(self) -> bool:
        """Say whether something in the file has the file's own name."""
        file = self._files.file(self._name)
        return file is not None and self._name in file.inventory.items


class _Inside(Mapping[str, Entry]):
    """Entries of this root, as those of the folder."""

    def __init__(self, root: Hdf5Root, known: Mapping[str, Entry]) -> None:
        self._root = root
        self._known = known

    def __getitem__(self, path: str) -> Entry:
        outer = self._root.outer(path)
        if outer is None:
            raise KeyError(path)
        return replace(self._known[outer], path=path)

    def __iter__(self) -> Iterator[str]:
        return map(self._root.inner, self._known)

    def __len__(self) -> int:
        return len(self._known)


def check_hdf5(path: Path) -> None:
    """Make sure that a path names an HDF5 file.

    Raises:
        BadConfig: it does not, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            if has_signature(file.fileno()):
                return
    except OSError as error:
        raise BadConfig(f"{shown(str(path), 200)}: {error.strerror}") from None
    raise BadConfig(
        f"{shown(str(path), 200)} is neither a folder nor an HDF5 file; share the folder that it is in"
    )
