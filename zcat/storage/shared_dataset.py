"""The cache of another process, read only: what `CachedDataset` keeps, for processes that answer beside its own.

Whoever owns the cache writes, verifies and evicts; here is only looked at what it found right. Presence is its
file, mapped, so that a chunk is seen here as soon as it is there; and a lock of the kernel on the slots that are
being read (`slot_locks`) keeps them from being punched meanwhile.
"""

import contextlib
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from zcat.errors import StorageFailed
from zcat.model.blocks import block_count
from zcat.model.dataset import DatasetInfo
from zcat.storage.cache_folders import FRAME, PRESENCE
from zcat.storage.cached_dataset import Chunks, runs
from zcat.storage.disk import storage_failed
from zcat.storage.partial_chunks import BLOCKS, Bits, read_record
from zcat.storage.presence import PARTIAL, VERIFIED
from zcat.storage.slot_locks import SlotLocks
from zcat.storage.slotted_frame import SlottedFrame

_LOCKS_MAX = 8
"""Of one read: beyond, everything between its first chunk and its last is held."""


class SharedDataset:
    """The cached chunks of one lineage, of which another process takes care. Any thread may call."""

    def __init__(self, folder: str, info: DatasetInfo) -> None:
        """Open the files.

        Raises:
            StorageFailed, BadContent: they are not there, or not what they should be.
        """
        self.info = info
        self.folder = folder
        self._path = Path(folder, FRAME)
        self._used = np.zeros(info.geometry.nchunks, np.bool_)
        self._is_used = False
        self._used_lock = threading.Lock()
        with contextlib.ExitStack() as opened:
            self._frame = SlottedFrame.open(self._path, writable=False)
            opened.callback(self._frame.close)
            self.number = self._frame.number
            """Of the frame's file: another one may be made in its place."""
            array = info.geometry.array
            self._nblocks = block_count(array) if array is not None else 0
            self._blocks_fd = -1
            self._states = _mapped(Path(folder, PRESENCE), info.geometry.nchunks)
            self._locks = SlotLocks(str(self._path))
            opened.callback(self._locks.close)
            if not self.is_current:
                raise StorageFailed(f"{folder}: it was made anew just now")
            self._close_files = weakref.finalize(self, opened.pop_all().close)
        self._handles = threading.local()

    def close(self) -> None:
        """Let go of the files, as when nobody references this any more. Nobody may be reading."""
        self._close_files()

    @property
    def is_current(self) -> bool:
        """False when the cache has another file in its place, or none."""
        try:
            return self._path.stat().st_ino == self.number
        except OSError:
            return False

    @property
    def complete(self) -> bool:
        """True if all chunks are present."""
        return bool(self._states.min(initial=VERIFIED) == VERIFIED)  # PERF: asked for each read; the highest state

    @contextlib.contextmanager
    def reading(self, chunks: Chunks | None = None) -> Iterator[None]:
        """Hold on to ``chunks``, all of them if None: what is present stays, and what comes will stay."""
        held = self._locks.hold(self._spans(chunks))
        try:
            with self._used_lock:
                self._used[slice(None) if chunks is None else np.asarray(chunks, np.int64)] = True
                self._is_used = True
            yield
        finally:
            self._locks.let_go(held)

    def missing(self, chunks: Chunks) -> list[int]:
        """Return those of ``chunks`` that are not here, in their order."""
        numbers = np.asarray(chunks, np.int64)
        missing: list[int] = numbers[self._states[numbers] != VERIFIED].tolist()
        return missing

    def chunk(self, nchunk: int) -> memoryview | None:
        """Return the compressed bytes of a chunk, None if it is absent. Inside of `reading`."""
        return self._frame.chunk_view(nchunk) if self._states[nchunk] == VERIFIED else None

    def handle(self, nchunk: int) -> Any | None:
        """Return this thread's Blosc2 handle on the frame; see `CachedDataset.handle`."""
        assert self._states[nchunk] == VERIFIED, f"chunk {nchunk} was not held on to"
        return self._handle()

    def _handle(self) -> Any | None:
        handle = getattr(self._handles, "frame", None)
        if handle is None:
            with self.reading((0,)), contextlib.suppress(OSError, RuntimeError):  # Blosc2 looks at slot 0
                handle = blosc2.open(str(self._path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
            self._handles.frame = handle
        return handle

    def any_partial(self, chunks: Chunks) -> bool:
        """Say whether blocks of any of ``chunks`` are here without the rest."""
        return bool((self._states[np.asarray(chunks, np.int64)] == PARTIAL).any())

    def blocks_there(self, nchunk: int) -> Bits | None:
        """Say of each block of a chunk that is not whole whether it is there; None if there are none."""
        if not self._nblocks or self._states[nchunk] != PARTIAL:
            return None
        if self._blocks_fd < 0:
            with self._used_lock:
                self._open_blocks()
        return read_record(self._blocks_fd, self._nblocks, nchunk)

    def may_store_parts(self, nchunk: int) -> bool:
        """Say whether the owner of the cache may keep blocks of a chunk; only it knows for sure."""
        return self._nblocks > 1

    def handle_of_blocks(self, nchunk: int, blocks: npt.NDArray[np.int64]) -> Any | None:
        """Return this thread's Blosc2 handle, to read blocks of a chunk that `chunk` did not give."""
        there = self.blocks_there(nchunk)
        return self._handle() if there is not None and there[blocks].all() else None

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the compressed size of each chunk in bytes, 0 where it is absent. Checks nothing."""
        sizes = np.zeros(self.info.geometry.nchunks, np.int64)
        for nchunk in np.flatnonzero(self._states == VERIFIED).tolist():
            sizes[nchunk] = len(self._frame.chunk_view(nchunk))
        return sizes

    def taken_use(self) -> npt.NDArray[np.bool_] | None:
        """Say for each chunk whether it was held on to since the last call; None if none was."""
        with self._used_lock:
            if not self._is_used:
                return None
            used, self._used, self._is_used = self._used, np.zeros(len(self._used), np.bool_), False
        return used

    def _open_blocks(self) -> None:
        if self._blocks_fd >= 0:
            return
        try:
            self._blocks_fd = os.open(self._path.with_name(BLOCKS), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_failed(f"opening {BLOCKS}", error) from None
        weakref.finalize(self, os.close, self._blocks_fd)

    def _spans(self, chunks: Chunks | None) -> list[tuple[int, int]]:
        if chunks is None:
            return [(0, 0)]  # up to the end of the file, in the words of fcntl
        if len(chunks) == 1:  # PERF: the common case, without NumPy
            first = int(chunks[0])
            return [self._frame.span(range(first, first + 1))]
        found = list(runs(chunks))
        if len(found) > _LOCKS_MAX:
            found = [range(found[0].start, found[-1].stop)]
        return [self._frame.span(run) for run in found]


def _mapped(path: Path, nchunks: int) -> npt.NDArray[np.uint8]:
    if not nchunks:
        return np.empty(0, np.uint8)
    try:
        with open(path, "rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), nchunks, prot=mmap.PROT_READ), np.uint8)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise storage_failed(f"opening {path.name}", error) from None
        raise StorageFailed(f"{path.name}: {error}") from None
