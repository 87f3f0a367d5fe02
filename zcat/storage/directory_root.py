"""A root that is a folder: each file in it is a dataset, read by ``pread`` and never changed.

``.b2nd`` and ``.b2frame`` files (or folders, if sparse) are offered as they are stored; any other file as a
byte frame that is compressed on demand. HDF5 files are folders besides: what is in them is offered below their
name. What a read sees is one version: the stamp of the file is looked at before and after. What is damaged,
hostile or not offered is listed with the reason, and never stops the rest.
"""

import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from zcat.errors import (
    BadConfig,
    BadName,
    BadSelection,
    Busy,
    DatasetUnknown,
    NotReadable,
    Stale,
    StorageFailed,
    ZcatError,
)
from zcat.limits import KIB
from zcat.logs import kv
from zcat.model.dataset import DatasetInfo, Entry, Kind
from zcat.names import shown
from zcat.protocol.messages import Change
from zcat.storage.beneath import SPARSE_INDEX, RootFolder, Stamp, lineage_of, stamp_of
from zcat.storage.block_layout import ChunkPart
from zcat.storage.byte_frames import ByteFrame, ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.disk import storage_failed
from zcat.storage.frame_source import ContiguousFrame, FrameSource, SparseFrame
from zcat.storage.hdf5.hdf5_files import Found, Hdf5Files
from zcat.storage.open_sources import OpenSources
from zcat.storage.root import Chunk, Looked, OnChange, check_blocks, part_of
from zcat.storage.scan import Scan, scan
from zcat.storage.watch import Watcher, WatchTimes

SOURCES_MAX = 256
DTYPE_BYTES_MAX = 16 * KIB
"""An entry, and an info, must fit a control frame with it."""

PROBLEM_LENGTH_MAX = 500
SKIPPED_TOLD_MAX = 20

NAME_TRUSTED_S = 0.02
"""A name that was looked up is not looked up again for so long while chunks are read. What is read is of its
lineage all the same: the open file is asked after each read. PERF: each of the three system calls that this saves
lets go of the GIL and has to wait for it."""

_NAMES_MAX = 1024

_SUFFIXES = {".b2nd": Kind.ARRAY, ".b2frame": Kind.FRAME}

log = logging.getLogger(__name__)

Stamps = tuple[Stamp, ...]
"""Of the file; of a sparse frame, of its index and its folder."""


@dataclass(frozen=True, slots=True)
class DirectoryTimes:
    """The rhythm of a folder."""

    settle_s: float = 0.1
    """A file that was modified less than so long ago is taken to be still in the making."""
    watch: WatchTimes = field(default_factory=WatchTimes)


class DirectoryRoot:
    """A ``Root`` over a folder."""

    def __init__(
        self,
        folder: Path,
        owner: str,
        byte_frames: ByteFrames,
        times: DirectoryTimes | None = None,
        hdf5: Hdf5Files | None = None,
    ) -> None:
        """Open the folder.

        Args:
            folder: the root; nothing outside of it is ever opened.
            owner: key of the publisher, a part of each lineage.
            byte_frames: where files that are no frames are kept compressed. Closed by `close`.
            times: the defaults if None.
            hdf5: looks into HDF5 files; None to offer them as files only. Closed by `close`.

        Raises:
            BadConfig: there is no such folder.
        """
        self._times = times or DirectoryTimes()
        self._owner = owner
        self._path = folder
        self._folder = RootFolder(folder)
        self._byte_frames = byte_frames
        self._sources: OpenSources[_Source] = OpenSources(SOURCES_MAX)
        self._digests = Digests()
        self._hdf5 = hdf5
        self._names: dict[str, tuple[Stamps, float]] = {}
        self._watcher: Watcher | None = None
        self._skipped: set[str] = set()

    # -- what a Root does ----------------------------------------------------------------------------

    def look(self, paths: set[str] | None, known: Mapping[str, Entry]) -> Looked:
        """Compare the folder with what was known, as ``Root.look`` says."""
        looked = Looked()
        if paths is None or any(self._is_folder(path) for path in paths):
            self._look_everywhere(known, looked)
        else:
            for path in {self._dataset_at(path) for path in paths}:
                self._look_at(path, known, looked)
        for change in looked.changes:
            if change.entry is None:
                self._forget(change.path)
        return looked

    def info(self, path: str) -> DatasetInfo:
        """Describe a dataset, as ``Root.info`` says."""
        held = self._hdf5.holder(path) if self._hdf5 else None
        if held is not None:
            return held[0].info(held[1])
        stamps = self._stamps(path)
        if self._is_unsettled(stamps):
            raise Busy(f"{shown(path)} is being written; ask again in a moment")
        with self._use(path, stamps) as source:
            info = source.info
        return (
            replace(info, attributes=self._hdf5.attributes(path))
            if self._hdf5 and self._hdf5.is_candidate(path)
            else info
        )

    def sizes(self, path: str, lineage: str) -> bytes:
        """Give the room that each chunk takes, as ``Root.sizes`` says."""
        if self._hdf5 and self._hdf5.holder(path):
            raise NotReadable(f"{shown(path)}: the sizes of its chunks are not known before they are made")
        with self._use_lineage(path, lineage) as source:
            sizes = source.frame.stored_sizes()
        if sizes is None:
            raise NotReadable(f"{shown(path)}: the sizes of its chunks are not known before they are read")
        return sizes.astype("<i4").tobytes()

    def chunk(self, path: str, lineage: str, nchunk: int) -> Chunk:
        """Read one chunk, as ``Root.chunk`` says."""
        held = self._hdf5.holder(path) if self._hdf5 else None
        if held is not None:
            return held[0].chunk(held[1], lineage, nchunk)
        with self._use_lineage(path, lineage) as source:
            nchunks = source.info.geometry.nchunks
            if not 0 <= nchunk < nchunks:
                raise BadSelection(f"{shown(path)} has chunks 0 to {nchunks - 1}, not {nchunk}")
            data = source.read_chunk(nchunk)
        return Chunk(data, self._digests.of(lineage, nchunk, data))

    def part(
        self, path: str, lineage: str, nchunk: int, blocks: tuple[int, ...], vouch: bool
    ) -> ChunkPart | Chunk:
        """Read some blocks of one chunk, as ``Root.part`` says."""
        held = self._hdf5.holder(path) if self._hdf5 else None
        if held is not None:
            return part_of(held[0].chunk(held[1], lineage, nchunk), blocks, vouch)
        with self._use_lineage(path, lineage) as source:
            check_blocks(path, source.info.geometry, nchunk, blocks)
            part = source.frame.read_part(nchunk, blocks)
        known = self._digests.known(lineage, nchunk) if vouch else None
        if part is None or (vouch and known is None):
            return part_of(self.chunk(path, lineage, nchunk), blocks, vouch)
        return replace(part, whole_digest=known)

    def watch(self, on_change: OnChange) -> None:
        """Begin to watch, as ``Root.watch`` says."""
        assert self._watcher is None
        self._watcher = Watcher(self._path, on_change, self._times.watch)
        self._watcher.start()
        if self._hdf5 is not None:
            self._hdf5.begin_witnessing()

    def close(self) -> None:
        """Stop watching and close all files."""
        if self._watcher is not None:
            self._watcher.stop()
        self._sources.close()
        if self._hdf5 is not None:
            self._hdf5.close()
        self._byte_frames.close()
        self._folder.close()

    # -- looking -------------------------------------------------------------------------------------

    def _look_everywhere(self, known: Mapping[str, Entry], looked: Looked) -> None:
        with suppress(BadConfig):  # it is gone: then the old one, which is held, is empty
            self._folder.refresh()
        seen = set()
        walk = scan(self._folder)
        for found in walk:
            seen.add(found.path)
            if self._hdf5 is not None:
                seen.update(self._hdf5.paths(found.path))
            self._look_at(found.path, known, looked, None if found.sparse else (found.stamp,))
        looked.changes.extend(Change(path) for path in known if path not in seen)
        self._tell_skipped(walk)

    def _tell_skipped(self, walk: Scan) -> None:
        """Say once of each file that it is not offered: else nobody would know why it is missing."""
        news = [one for one in walk.skipped if one.path not in self._skipped]
        self._skipped = {one.path for one in walk.skipped}
        for one in news[:SKIPPED_TOLD_MAX]:
            log.warning("not offered %s", kv(path=one.path, why=one.reason))
        if len(news) > SKIPPED_TOLD_MAX:
            log.warning("not offered, too %s", kv(files=walk.skipped_count - SKIPPED_TOLD_MAX))

    def _look_at(
        self, path: str, known: Mapping[str, Entry], looked: Looked, stamps: Stamps | None = None
    ) -> None:
        """Compare one dataset, or what lies below a folder that is gone."""
        held = known.get(path)
        try:
            stamps = stamps or self._stamps(path)
        except (DatasetUnknown, BadName, NotReadable):
            below = f"{path}/"
            looked.changes.extend(Change(one) for one in known if one == path or one.startswith(below))
            return
        except ZcatError:  # of the moment: too many open files, a server that does not answer
            looked.unsettled.add(path)
            return
        is_same = held is not None and held.lineage == self._lineage(stamps)
        if not is_same and not self._look_at_file(path, stamps, looked):
            looked.unsettled.add(path)
        elif self._hdf5 and self._hdf5.is_candidate(path) and not self._hdf5.is_current(path, stamps[0]):
            self._hdf5.look(path, Found(stamps[0], partial(self._folder.open_file, path)), known, looked)

    def _look_at_file(self, path: str, stamps: Stamps, looked: Looked) -> bool:
        """Describe a dataset that is new or changed; say whether it is not being written."""
        if self._is_unsettled(stamps):
            return False
        try:
            with self._use(path, stamps) as source:
                entry = source.info.entry
        except (Busy, DatasetUnknown, Stale, StorageFailed):
            return False
        except ZcatError as error:
            entry = self._problem_entry(path, stamps, error.message)
        looked.changes.append(Change(path, entry))
        return True

    def _forget(self, path: str) -> None:
        self._sources.forget(path)
        if self._hdf5 is not None:
            self._hdf5.forget(path)

    def _is_folder(self, path: str) -> bool:
        """Say whether ``path`` is a folder that is no dataset, so that anything may be below it."""
        try:
            if not stat.S_ISDIR(self._folder.status(path).st_mode):
                return False
        except ZcatError:
            return False
        is_frame = _kind_of(path) is not Kind.FILE and self._is_sparse(path)
        return not is_frame and self._dataset_at(path) == path

    def _dataset_at(self, path: str) -> str:
        """Give the sparse frame or HDF5 file that ``path`` lies in, or ``path`` itself."""
        if self._hdf5 is not None and (file := self._hdf5.file_path(path)) != path:
            return file
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if _kind_of(above) is not Kind.FILE and self._is_sparse(above):
                return above
        return path

    def _is_sparse(self, path: str) -> bool:
        try:
            self._folder.status(f"{path}/{SPARSE_INDEX}")
        except ZcatError:
            return False
        return True

    def _problem_entry(self, path: str, stamps: Stamps, problem: str) -> Entry:
        size = stamps[0].size
        cut = problem if len(problem) <= PROBLEM_LENGTH_MAX else problem[: PROBLEM_LENGTH_MAX - 1] + "…"
        return replace(self._entry(path, stamps), nbytes=size, cbytes=size, problem=cut)

    def _entry(self, path: str, stamps: Stamps) -> Entry:
        mtime_ns = max(0, *(stamp.mtime_ns for stamp in stamps))
        return Entry(path, _kind_of(path), self._lineage(stamps), 0, 0, mtime_ns)

    # -- stamps and versions -------------------------------------------------------------------------

    def _stamps(self, path: str) -> Stamps:
        """Take the stamp of what has the name ``path`` now."""
        status = self._folder.status(path)
        if stat.S_ISDIR(status.st_mode) and _kind_of(path) is not Kind.FILE:
            index = self._folder.status(f"{path}/{SPARSE_INDEX}")
            return Stamp.of(index), Stamp.of(status)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetUnknown(f"{shown(path)} is no dataset")
        return (Stamp.of(status),)

    def _stamps_of_late(self, path: str) -> Stamps:
        """Take the stamp of ``path`` as of now, or of a moment ago."""
        now_s = time.monotonic()
        stamps, until_s = self._names.get(path, ((), 0.0))
        if now_s >= until_s:
            stamps = self._stamps(path)
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            self._names[path] = stamps, now_s + NAME_TRUSTED_S
        return stamps

    def _lineage(self, stamps: Stamps) -> str:
        folder = stamps[1] if len(stamps) > 1 else None
        inner = f"{folder.inode} {folder.mtime_ns} {folder.ctime_ns}" if folder else ""
        return lineage_of(self._owner, stamps[0], inner)

    def _is_unsettled(self, stamps: Stamps) -> bool:
        # A time far in the future is somebody's mistake, not a write that goes on.
        age_ns = time.time_ns() - max(stamp.mtime_ns for stamp in stamps)
        return abs(age_ns) < self._times.settle_s * 1e9

    @contextmanager
    def _use_lineage(self, path: str, lineage: str) -> "Iterator[_Source]":
        stamps = self._stamps_of_late(path)
        if self._lineage(stamps) != lineage:
            raise Stale(f"{shown(path)} is no longer the version {lineage}")
        with self._use(path, stamps) as source:
            yield source

    @contextmanager
    def _use(self, path: str, stamps: Stamps) -> "Iterator[_Source]":
        """Lend the open dataset; whatever was read of it is refused if it changed meanwhile."""
        with self._sources.use(path, stamps, lambda: self._open(path, stamps)) as source:
            try:
                yield source
            except ZcatError:
                source.check_unchanged(path)  # then that is the reason
                raise
            source.check_unchanged(path)

    def _open(self, path: str, stamps: Stamps) -> "_Source":
        sparse = len(stamps) > 1
        fd = self._folder.open_dir(path) if sparse else self._folder.open_file(path)
        try:
            source = _Source(fd, stamps)
            source.check_unchanged(path)
            frame: FrameSource
            entry = self._entry(path, stamps)
            if entry.kind is Kind.FILE:
                entry = replace(entry, cbytes=stamps[0].size)
                frame = ByteFrame(fd, entry, self._byte_frames, lambda: source.check_unchanged(path))
            else:
                frame = SparseFrame(fd) if sparse else ContiguousFrame(fd)
            source.offer(frame, entry)
        except BaseException:
            os.close(fd)
            raise
        return source


class _Source:
    """An open dataset of one version."""

    frame: FrameSource
    info: DatasetInfo

    def __init__(self, fd: int, stamps: Stamps) -> None:
        self._fd = fd
        self._stamps = stamps

    def offer(self, frame: FrameSource, entry: Entry) -> None:
        """Describe what was opened."""
        g = frame.geometry
        if entry.kind is Kind.ARRAY and g.array is None:
            raise NotReadable("a frame without the metalayer that makes it an array; .b2frame would be its suffix")
        nbytes, shape, dtype = g.nbytes, None, None
        if g.array is not None:
            shape, dtype = g.array.shape, g.array.dtype
            nbytes = g.array.itemsize
            for length in shape:
                nbytes *= length
            if len(dtype.encode()) > DTYPE_BYTES_MAX:
                raise NotReadable(f"its dtype, written out, has more than {DTYPE_BYTES_MAX} bytes")
        entry = replace(entry, nbytes=nbytes, cbytes=self._disk_bytes(), shape=shape, dtype=dtype)
        self.frame = frame
        self.info = DatasetInfo(entry, g, frame.compression, frame.attributes)

    def read_chunk(self, nchunk: int) -> bytes:
        return self.frame.read_chunk(nchunk)

    def check_unchanged(self, path: str) -> None:
        """Raise `Stale` if the file is no longer what it was when it was found."""
        try:
            now = stamp_of(self._fd)
            if len(self._stamps) > 1:
                index = os.stat(SPARSE_INDEX, dir_fd=self._fd)
                unchanged = (Stamp.of(index), now) == self._stamps
            else:
                unchanged = now == self._stamps[0]
        except OSError:
            unchanged = False
        if not unchanged:
            raise Stale(f"{shown(path)} changed while it was read")

    def close(self) -> None:
        os.close(self._fd)

    def _disk_bytes(self) -> int:
        if len(self._stamps) == 1:
            return self._stamps[0].size
        try:
            with os.scandir(self._fd) as entries:
                return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        except OSError as error:
            raise storage_failed("listing the chunks of a sparse frame", error) from None


def _kind_of(path: str) -> Kind:
    return _SUFFIXES.get(os.path.splitext(path)[1], Kind.FILE)
