"""One lineage of one dataset in a subscriber's cache: a slotted frame, who is present, and the digests.

Two promises. Bytes that are given out had the digest that their origin named, in this run of the process.
And nobody who is in `CachedDataset.reading` ever loses a chunk that it holds on to.

What a kill leaves behind: a chunk is marked present after its bytes and its digest were written, so that one
that was being written is simply absent.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from zcat.errors import BadChunk, BadContent, Closed
from zcat.logs import kv
from zcat.model.dataset import DatasetInfo
from zcat.storage.cache_folders import DIGESTS, FRAME, PRESENCE, Lineage, disk_bytes
from zcat.storage.chunk_gate import DIGEST_BYTES, check_chunk
from zcat.storage.chunk_gate import digest as digest_of
from zcat.storage.disk_budget import DiskBudget
from zcat.storage.presence import ABSENT, VERIFIED, WHOLE, Digests, Presence
from zcat.storage.slotted_frame import PAGE_BYTES, SlottedFrame

Buffer = bytes | bytearray | memoryview
Chunks = Sequence[int] | npt.NDArray[np.int64]

_PINNED_ONE_BY_ONE_MAX = 4

log = logging.getLogger(__name__)


class CachedDataset:
    """The cached chunks of one lineage. Made by ``ChunkCache.dataset``; any thread may call.

    It stays usable while it is referenced: if room is needed, chunks go, and are absent then.
    """

    def __init__(self, lineage: Lineage, info: DatasetInfo, budget: DiskBudget) -> None:
        """Open the files, or create them in a folder that is there.

        Raises:
            StorageFailed: the disk is full or failed.
            BadContent: the files are damaged.
        """
        self.info = info
        self.lineage = lineage
        self._budget = budget
        self._geometry = info.geometry
        nchunks = self._geometry.nchunks
        self._path = Path(lineage.folder, FRAME)
        with contextlib.ExitStack() as opened:
            is_new = not self._path.exists()
            self._frame = self._create_frame() if is_new else SlottedFrame.open(self._path)
            opened.callback(self._frame.close)
            self._presence = Presence(Path(lineage.folder, PRESENCE), nchunks)
            opened.callback(self._presence.close)
            self._digests = Digests(Path(lineage.folder, DIGESTS), nchunks + 1)
            opened.callback(self._digests.close)
            self._check_frame(is_new)
            self._close_files = weakref.finalize(self, opened.pop_all().close)
        self._write_lock = threading.Lock()  # of the frame's slots; before _pins_lock
        self._pins_lock = threading.Lock()  # of what follows; never held during input or output but one byte
        self._whole_count = self._presence.count_whole()
        self._pins = np.zeros(nchunks, np.uint16)
        self._pins_of_all = 0
        self._is_warm = np.zeros(nchunks, np.bool_)  # of use since chunks were last evicted
        self._hand = 0  # where the last eviction ended
        self._handles = threading.local()
        if nchunks and self._presence[0] < WHOLE:
            self._frame.punch(range(1))  # a killed process may have left anything there, and Blosc2 looks at it

    def close(self) -> None:
        """Let go of all files. A second call does nothing; other calls raise `Closed` from now on."""
        with self._write_lock:
            self._handles = threading.local()
            self._close_files()

    @property
    def complete(self) -> bool:
        """True if all chunks are present."""
        return self._whole_count == self._geometry.nchunks

    @property
    def is_open(self) -> bool:
        """False after `close`."""
        return self._close_files.alive

    @property
    def number(self) -> int:
        """Of the frame's file; see `SlottedFrame.number`."""
        return self._frame.number

    @property
    def path(self) -> Path:
        """The frame file: a dataset for every Blosc2 reader, if it is `complete`."""
        return self._path

    @contextlib.contextmanager
    def reading(self, chunks: Chunks | None = None) -> Iterator[None]:
        """Hold on to ``chunks``, all of them if None: what is present stays, and what comes will stay.

        Hold on before asking what is `missing`. What `chunk` returned is good until the end of this.
        """
        numbers = None if chunks is None else np.asarray(chunks, np.int64)
        self.lineage.used_at_ns = time.time_ns()
        with self._pins_lock:
            self._pin(numbers, 1)
        try:
            yield
        finally:
            with self._pins_lock:
                self._pin(numbers, -1)

    def used(self, chunks: Chunks) -> None:
        """Take note that ``chunks`` were of use to another process, so that others go first."""
        self.lineage.used_at_ns = time.time_ns()
        with self._pins_lock:
            self._is_warm[np.asarray(chunks, np.int64)] = True

    def missing(self, chunks: Chunks) -> list[int]:
        """Return those of ``chunks`` that are not here, in their order."""
        missing: list[int] = self._presence.missing(np.asarray(chunks, np.int64)).tolist()
        return missing

    def chunk(self, nchunk: int) -> memoryview | None:
        """Return the compressed bytes of a chunk, or None if it is absent.

        At its first use in this run its digest is checked; a chunk that is not what it was is absent from
        then on. Call it, and use what it returns, inside of `reading`.

        Raises:
            Closed: the cache is closed.
        """
        state = self._presence[nchunk]
        if state < WHOLE:
            self._check_open()
            return None
        if state < VERIFIED and not self._verify(nchunk):
            return None
        try:
            return self._frame.chunk_view(nchunk)
        except ValueError:  # the frame was closed since we looked
            self._check_open()
            raise

    def handle(self, nchunk: int) -> Any | None:
        """Return this thread's Blosc2 handle on the frame, to read a part of a chunk that `chunk` gave.

        Keep the handle itself while a part of it, as its ``schunk``, is in use. None if Blosc2 cannot open the
        file: no descriptor or address space is left. Whole chunks can be decoded then.
        """
        if self._presence[nchunk] != VERIFIED:
            self._check_open()
            raise AssertionError(f"chunk {nchunk} was not verified, or not held on to")
        handle = getattr(self._handles, "frame", None)
        if handle is None:
            self.chunk(0)  # Blosc2 looks at slot 0 when it opens a frame, so that must be right or empty
            with self._write_lock:
                self._check_open()
                with contextlib.suppress(OSError, RuntimeError):
                    handle = blosc2.open(str(self._path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
                self._handles.frame = handle
        return handle

    def store(self, nchunk: int, data: Buffer, digest: bytes) -> None:
        """Keep a chunk, after a look at whether it is what ``digest`` and the geometry say.

        Raises:
            BadChunk: it is not. Nothing was written, and nothing decoded.
            StorageFailed: there is no room, or the disk failed; go on without the cache.
            Closed: the cache is closed.
        """
        check_digest(nchunk, data, digest)
        check_chunk(data, self._geometry, nchunk)
        pages = -(-len(data) // PAGE_BYTES) * PAGE_BYTES
        claimed = min(pages, self._frame.slot_bytes) + DIGEST_BYTES
        if self.chunk(nchunk) is not None:  # what is there stays: a kill during a second write would lose it
            return
        self._budget.claim(claimed)
        try:
            with self._write_lock:
                is_news = self._store(nchunk, data, digest)
                if is_news:
                    self.lineage.used_bytes += claimed
        except OSError as error:
            self._budget.release(claimed)
            raise self._budget.refused(error) from error
        except Closed:
            self._budget.release(claimed)
            raise
        if not is_news:
            self._budget.release(claimed)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the compressed size of each chunk in bytes, 0 where it is absent. Checks nothing."""
        sizes = np.zeros(self._geometry.nchunks, np.int64)
        for nchunk in self._presence.whole().tolist():
            sizes[nchunk] = self._size(nchunk)
        return sizes

    def evict(self, nbytes: int) -> None:
        """Make chunks absent that nobody reads, at least ``nbytes`` of them if there are so many.

        Those that were of no use since the last eviction go first, in the order of their numbers, going on
        where the last eviction ended.
        """
        with self._write_lock:
            if not self.is_open:
                return
            try:
                with self._pins_lock:
                    victims = self._victims(nbytes)
                    for nchunk in victims:
                        self._presence.mark(nchunk, ABSENT)
                    self._whole_count -= len(victims)
                for run in runs(victims):
                    self._frame.punch(run)
            finally:
                self._frame.give_back()
            self._recount()

    def _create_frame(self) -> SlottedFrame:
        return SlottedFrame.create(self._path, self._geometry, self.info.compression, self.info.attributes)

    def _check_frame(self, is_new: bool) -> None:
        """Compare the frame's header, index and trailer with what they were when new: Blosc2 believes them."""
        nchunks, frame = self._geometry.nchunks, self._frame
        with open(self._path, "rb") as file:
            parts = file.read(frame.header_len)
            file.seek(frame.header_len + nchunks * frame.slot_bytes)
            parts += file.read()
        if is_new:
            self._digests[nchunks] = digest_of(parts)
        elif self._digests[nchunks] != digest_of(parts) or frame.geometry != self._geometry:
            raise BadContent(f"{self._path}: the frame is not what it was")

    def _check_open(self) -> None:
        if not self.is_open:
            raise Closed(f"{self.info.entry.path}: the cache is closed")

    def _pin(self, chunks: npt.NDArray[np.int64] | None, count: int) -> None:
        if chunks is None:
            self._pins_of_all += count
            return
        if len(chunks) <= _PINNED_ONE_BY_ONE_MAX:
            for nchunk in chunks.tolist():  # PERF: a microsecond instead of eight for the read of one chunk
                self._pins[nchunk] = (int(self._pins[nchunk]) + count) % 65536
                self._is_warm[nchunk] = True
            return
        np.add.at(self._pins, chunks, np.uint16(count % 65536))
        self._is_warm[chunks] = True

    def _verify(self, nchunk: int) -> bool:
        view: Buffer = b""
        try:
            view = self._frame.chunk_view(nchunk)
            check_digest(nchunk, view, self._digests[nchunk])
            check_chunk(view, self._geometry, nchunk)
            is_right = True
        except BadChunk:
            is_right = False
        with self._write_lock:
            self._check_open()
            if self._presence[nchunk] == WHOLE:  # else somebody was faster
                if is_right:
                    self._presence.mark(nchunk, VERIFIED)
                else:
                    self._discard(nchunk)
            return self._presence[nchunk] == VERIFIED

    def _discard(self, nchunk: int) -> None:
        log.warning(
            "a cached chunk changed on disk, it is fetched again %s",
            kv(path=self.info.entry.path, nchunk=nchunk, folder=self.lineage.folder),
        )
        self._presence.mark(nchunk, ABSENT)
        self._whole_count -= 1
        self._frame.punch(range(nchunk, nchunk + 1))
        self._recount()

    def _store(self, nchunk: int, data: Buffer, digest: bytes) -> bool:
        self._check_open()
        if self._presence[nchunk] == VERIFIED:
            return False  # another thread was faster, and a third may be decoding it, so its bytes stay
        try:
            self._frame.write_chunk(nchunk, data)
            self._digests[nchunk] = digest
            self._presence.mark(nchunk, VERIFIED)
        except OSError:
            with contextlib.suppress(OSError):
                self._frame.punch(range(nchunk, nchunk + 1))
            raise
        self._whole_count += 1
        self._is_warm[nchunk] = True
        return True

    def _victims(self, nbytes: int) -> list[int]:
        if self._pins_of_all:
            return []
        whole = self._presence.whole()
        whole = np.concatenate([whole[whole >= self._hand], whole[whole < self._hand]])
        whole = whole[self._pins[whole] == 0]
        is_warm = self._is_warm[whole]
        victims: list[int] = []
        for nchunk in [*whole[~is_warm].tolist(), *whole[is_warm].tolist()]:
            if nbytes <= 0:
                break
            if not self._frame.take(nchunk):
                continue  # another process reads it
            victims.append(nchunk)
            nbytes -= self._size(nchunk)
        self._is_warm[:] = False
        self._hand = victims[-1] + 1 if victims else 0
        return victims

    def _size(self, nchunk: int) -> int:
        try:
            return len(self._frame.chunk_view(nchunk))
        except BadChunk:
            return 0

    def _recount(self) -> None:
        """Look at the disk how much is really used, since counting assumes the worst."""
        used_bytes = disk_bytes(self.lineage.folder)
        self._budget.count(used_bytes - self.lineage.used_bytes)
        self.lineage.used_bytes = used_bytes


def runs(chunks: Chunks) -> Iterator[range]:
    """Group chunk numbers into ranges of neighbours."""
    numbers = np.sort(np.asarray(chunks, np.int64))
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        if len(run):
            yield range(int(run[0]), int(run[-1]) + 1)


def check_digest(nchunk: int, data: Buffer, digest: bytes) -> None:
    """Compare a chunk's compressed bytes with the digest that its origin named.

    Raises:
        BadChunk: they differ.
    """
    if digest_of(data) != digest:
        raise BadChunk(f"chunk {nchunk}: {len(data)} bytes that do not have the digest {digest.hex()[:16]}…")
