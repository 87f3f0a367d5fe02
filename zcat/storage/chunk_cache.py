"""A subscriber's cache on disk: datasets by lineage, a quota, and what is needed to start without a network.

One process at a time works on a cache folder. It may be killed at any moment, and the disk may be full or
fail: what is lost is fetched again. Nothing is synced for that reason.
"""

import contextlib
import fcntl
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Self

from zcat.errors import BadContent, CacheInUse, Closed, StorageFailed
from zcat.logs import kv
from zcat.model.dataset import Compression, DatasetInfo, Geometry
from zcat.storage import cache_folders
from zcat.storage.cache_folders import Lineage
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.disk import is_lack
from zcat.storage.disk_budget import DiskBudget, DiskLimits

OPEN_MAX = 32
"""Datasets kept open though nobody uses them. Each takes up to six descriptors, and one for each thread that
reads."""

_FIXED_BYTES = 64 * 1024  # of a lineage without any chunk: header, index, info, and the folder itself
_RECORD_BYTES = 8  # of each chunk in the frame's index and in presence, at most
_LOCK = "lock"
_TAG = "CACHEDIR.TAG"  # backup programs leave such a folder out: https://bford.info/cachedir/
_TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Chunks that zcat fetched; it fetches them again if need be.\n"
)

log = logging.getLogger(__name__)

_Key = tuple[str, str, str, str, Geometry, Compression]


class ChunkCache:
    """The cache in one folder. Any thread may call."""

    def __init__(
        self, folder: str | os.PathLike[str], limits: DiskLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the folder, which is created if need be, and see what is in it.

        Raises:
            CacheInUse: another process has it.
            StorageFailed: the folder cannot be made or locked.
        """
        self._folder = os.path.abspath(folder)
        self._lock_fd = _lock_folder(self._folder)
        self._lock = threading.RLock()  # of what follows; before the locks of a dataset
        self._budget = DiskBudget(self._folder, limits, self._make_room, clock)
        self._lineages = {lineage.folder: lineage for lineage in cache_folders.inventory(self._folder)}
        self._budget.count(sum(lineage.used_bytes for lineage in self._lineages.values()))
        self._open: weakref.WeakValueDictionary[_Key, CachedDataset] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[_Key, CachedDataset] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all datasets and give the folder free. A second call does nothing."""
        with self._lock:
            for dataset in list(self._open.values()):
                dataset.close()
            self._recent.clear()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    @property
    def used_bytes(self) -> int:
        """What the chunks, and what belongs to them, take on disk."""
        return self._budget.used_bytes

    def dataset(self, root: str, owner: str, info: DatasetInfo) -> CachedDataset:
        """Give the cached chunks of the lineage that ``info`` describes: the same object as long as it is in use.

        Raises:
            BadName: root or owner is not legal.
            StorageFailed: there is no room, or the disk failed; go on without the cache.
            Closed: the cache is closed.
        """
        key = (root, owner, info.entry.path, info.entry.lineage, info.geometry, info.compression)
        found = self._find(key, info)
        if found is not None:
            return found
        root_folder = cache_folders.root_folder(self._folder, root, owner)
        folder = cache_folders.lineage_folder(cache_folders.dataset_folder(root_folder, info.entry.path), info)
        claimed = 0
        if folder not in self._lineages:
            claimed = _FIXED_BYTES + _RECORD_BYTES * info.geometry.nchunks
            self._budget.claim(claimed)  # without our lock, since others may have to make room
        try:
            with self._lock:
                return self._find(key, info) or self._open_dataset(key, folder, info)
        except StorageFailed as error:
            raise self._budget.refused(error) from error
        finally:
            self._budget.release(claimed)

    def held(self, root: str, owner: str, info: DatasetInfo) -> CachedDataset | None:
        """Give what `dataset` would, if it is open: then nothing has to be waited for."""
        return self._open.get((root, owner, info.entry.path, info.entry.lineage, info.geometry, info.compression))

    def saved(self, root: str, owner: str, path: str) -> DatasetInfo | None:
        """Return the latest version known of a dataset, None if nothing of it is cached.

        Raises:
            BadName: root or owner is not legal.
        """
        root_folder = cache_folders.root_folder(self._folder, root, owner)
        folder = cache_folders.dataset_folder(root_folder, path)
        with self._lock:
            lineages = self._lineages_of(folder)
        lineages.sort(key=lambda lineage: lineage.known_at_ns, reverse=True)
        infos = (cache_folders.read_info(lineage.folder) for lineage in lineages)
        return next((info for info in infos if info is not None and info.entry.path == path), None)

    def save_catalogue(self, root: str, owner: str, blob: bytes) -> None:
        """Keep the catalogue of a root, in whatever form, instead of what was kept before.

        Raises:
            BadName: root or owner is not legal.
            StorageFailed: the disk is full or failed; what was kept before is still there.
        """
        folder = cache_folders.root_folder(self._folder, root, owner)
        cache_folders.write_whole(os.path.join(folder, cache_folders.CATALOGUE), blob)

    def load_catalogue(self, root: str, owner: str) -> bytes | None:
        """Return what `save_catalogue` kept last.

        Raises:
            BadName: root or owner is not legal.
        """
        folder = cache_folders.root_folder(self._folder, root, owner)
        return cache_folders.read_whole(os.path.join(folder, cache_folders.CATALOGUE))

    def forget(self, root: str, owner: str) -> None:
        """Drop the catalogue of a root. Its chunks stay until their room is needed.

        Raises:
            BadName: root or owner is not legal.
        """
        folder = cache_folders.root_folder(self._folder, root, owner)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, cache_folders.CATALOGUE))

    def known_roots(self) -> list[tuple[str, str]]:
        """List the roots whose catalogue is kept, as (root, owner), in order of root."""
        return cache_folders.roots(self._folder)

    def _find(self, key: _Key, info: DatasetInfo) -> CachedDataset | None:
        with self._lock:
            if self._lock_fd < 0:
                raise Closed(f"{self._folder}: the cache is closed")
            found = self._open.get(key)
            if found is not None:
                self._keep_open(key, found)
                if found.info != info:
                    self._write_info(found.lineage, info)
                    found.info = info
            return found

    def _open_dataset(self, key: _Key, folder: str, info: DatasetInfo) -> CachedDataset:
        lineage = self._lineages.get(folder)
        try:
            dataset = self._open_files(lineage or self._new_lineage(folder), info)
        except (BadContent, StorageFailed) as error:
            if lineage is None or is_lack(error):
                raise
            log.warning("a damaged part of the cache begins anew %s", kv(folder=folder, error=error))
            self._remove(lineage)
            dataset = self._open_files(self._new_lineage(folder), info)
        self._open[key] = dataset
        if not dataset.complete:
            dataset.former = self._former(key, dataset)
        self._keep_open(key, dataset)
        return dataset

    def _former(self, key: _Key, dataset: CachedDataset) -> CachedDataset | None:
        """Open the lineage before this one, if it was cut alike, so that chunks of both may be the same."""
        others = [one for one in self._lineages_of(dataset.lineage.dataset_folder) if one is not dataset.lineage]
        latest = max(others, key=lambda one: one.known_at_ns, default=None)
        info = cache_folders.read_info(latest.folder) if latest is not None else None
        if latest is None or info is None or info.geometry.chunksize != dataset.info.geometry.chunksize:
            return None
        former = next((one for one in self._open.values() if one.lineage is latest), None)
        if former is None:
            try:
                former = self._open_files(latest, info)
            except (BadContent, StorageFailed) as error:
                log.debug("no former lineage folder=%s reason=%s", latest.folder, error)
                return None
            place = info.entry.path, info.entry.lineage, info.geometry, info.compression
            self._open[*key[:2], *place] = former
        former.former = None  # nobody reads it any more but to compare
        return former

    def _open_files(self, lineage: Lineage, info: DatasetInfo) -> CachedDataset:
        dataset = CachedDataset(lineage, info, self._budget)
        try:
            if cache_folders.read_info(lineage.folder) != info:
                self._write_info(lineage, info)
            os.utime(os.path.join(lineage.folder, cache_folders.PRESENCE))  # for the order of a later run
        except OSError as error:
            dataset.close()
            raise StorageFailed(f"{lineage.folder}: {error}") from error
        used_bytes = cache_folders.disk_bytes(lineage.folder)
        self._budget.count(used_bytes - lineage.used_bytes)
        lineage.used_bytes = used_bytes
        return dataset

    def _new_lineage(self, folder: str) -> Lineage:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"{folder}: {error.strerror}") from error
        lineage = self._lineages[folder] = Lineage(folder, 0, time.time_ns(), 0)
        return lineage

    def _write_info(self, lineage: Lineage, info: DatasetInfo) -> None:
        others = self._lineages_of(lineage.dataset_folder)
        cache_folders.write_info(lineage, info, max(other.known_at_ns for other in others))

    def _lineages_of(self, dataset_folder: str) -> list[Lineage]:
        folders = (os.path.join(dataset_folder, name) for name in cache_folders.names(dataset_folder))
        return [self._lineages[folder] for folder in folders if folder in self._lineages]

    def _keep_open(self, key: _Key, dataset: CachedDataset) -> None:
        dataset.lineage.used_at_ns = time.time_ns()
        self._recent[key] = dataset
        self._recent.move_to_end(key)
        if len(self._recent) > OPEN_MAX:
            self._recent.popitem(last=False)

    def _make_room(self, nbytes: int) -> None:
        """Evict what was of no use for longest, superseded lineages before all others."""
        goal = self._budget.used_bytes - nbytes
        with self._lock:
            latest: dict[str, int] = {}
            for lineage in self._lineages.values():
                known_at_ns = latest.get(lineage.dataset_folder, 0)
                latest[lineage.dataset_folder] = max(known_at_ns, lineage.known_at_ns)
            order = sorted(
                self._lineages.values(),
                key=lambda one: (one.known_at_ns == latest[one.dataset_folder], one.used_at_ns),
            )
        for lineage in order:
            wanted = self._budget.used_bytes - goal
            if wanted <= 0:
                break
            self._evict(lineage, wanted)

    def _evict(self, lineage: Lineage, nbytes: int) -> None:
        with self._lock:
            for key in [key for key, one in self._recent.items() if one.lineage is lineage]:
                del self._recent[key]
            for one in self._open.values():
                if one.former is not None and one.former.lineage is lineage:
                    one.former = None
            dataset = next((one for one in self._open.values() if one.lineage is lineage), None)
            if dataset is None and lineage.folder in self._lineages:
                with contextlib.suppress(StorageFailed):  # a broken disk gives no room; the next one may
                    self._remove(lineage)
        if dataset is not None:
            dataset.evict(nbytes)

    def _remove(self, lineage: Lineage) -> None:
        cache_folders.remove(self._folder, lineage.folder)
        del self._lineages[lineage.folder]
        self._budget.release(lineage.used_bytes)


def _lock_folder(folder: str) -> int:
    try:
        os.makedirs(folder, exist_ok=True)
        fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)
        except BlockingIOError:
            who = os.pread(fd, 200, 0).decode(errors="replace") or "unknown"
            os.close(fd)
            raise CacheInUse(
                f"the cache {folder} is in use by process {who}: stop that one, or choose another folder"
            ) from None
        except OSError:
            os.close(fd)
            raise
        if not os.path.exists(os.path.join(folder, _TAG)):
            cache_folders.write_whole(os.path.join(folder, _TAG), _TAG_TEXT)
    except StorageFailed:
        raise
    except OSError as error:
        raise StorageFailed(
            f"the cache folder {folder}: {error.strerror}; wanted a local, writable one"
        ) from error
    return fd
