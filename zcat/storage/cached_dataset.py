"""One lineage of one dataset in a subscriber's cache: a slotted frame, who is present, and the digests.

Two promises. Bytes that are given out had the digest that their origin named, in this run of the process.
And nobody who is in `CachedDataset.reading` ever loses a chunk that it holds on to.

What a kill leaves behind: a chunk is marked present after its bytes and its digest were written, so that one
that was being written is simply absent. Chunks of which only some blocks were there (`partial_chunks`) are absent
in the next run.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from zcat.errors import BadChunk, BadContent, Closed, StorageFailed
from zcat.logs import kv
from zcat.model.blocks import block_count
from zcat.model.dataset import DatasetInfo
from zcat.storage.block_layout import BlockLayout, ChunkPart, check_part
from zcat.storage.cache_folders import DIGESTS, FRAME, PRESENCE, Lineage, disk_bytes
from zcat.storage.chunk_gate import DIGEST_BYTES, check_chunk
from zcat.storage.chunk_gate import digest as digest_of
from zcat.storage.disk_budget import DiskBudget
from zcat.storage.partial_chunks import Bits, PartialChunks
from zcat.storage.pins import Pins
from zcat.storage.presence import ABSENT, PARTIAL, VERIFIED, WHOLE, Digests, Presence
from zcat.storage.slotted_frame import PAGE_BYTES, SlottedFrame

Buffer = bytes | bytearray | memoryview
Chunks = Sequence[int] | npt.NDArray[np.int64]

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
        self.former: CachedDataset | None = None
        """What there is of the dataset as it was before it was written anew, cut in the same way."""
        self._budget = budget
        self._geometry = info.geometry
        nchunks = self._geometry.nchunks
        self._path = Path(lineage.folder, FRAME)
        with contextlib.ExitStack() as opened:
            is_new = not self._path.exists()
            self._frame = self._create_frame() if is_new else SlottedFrame.open(self._path)
            opened.callback(self._frame.close)
            self._presence = Presence(Path(lineage.folder, PRESENCE), nchunks, lineage.was_open)
            opened.callback(self._presence.close)
            self._digests = Digests(Path(lineage.folder, DIGESTS), nchunks + 1)
            opened.callback(self._digests.close)
            self._check_frame(is_new)
            if not lineage.was_open:  # else a worker may be reading what we would drop
                self._drop_partial()
            self._partial = self._open_partial()
            if self._partial is not None:
                opened.callback(self._partial.close)
            self._close_files = weakref.finalize(self, opened.pop_all().close)
        self._write_lock = threading.Lock()  # of the frame's slots; before that of the pins
        self._whole_count = self._presence.count_whole()
        self._pins = Pins(nchunks)
        self._handles = threading.local()
        if nchunks and self._presence[0] < WHOLE and not lineage.was_open:
            self._frame.punch(range(1))  # a killed process may have left anything there, and Blosc2 looks at it
        lineage.was_open = True

    def close(self) -> None:
        """Let go of all files. A second call does nothing; other calls raise `Closed` from now on."""
        with self._write_lock:
            self._handles = threading.local()
            self.former = None
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
        with self._pins.lock:
            self._pins.pin(numbers, 1)
        try:
            yield
        finally:
            with self._pins.lock:
                self._pins.pin(numbers, -1)

    def used(self, chunks: Chunks) -> None:
        """Take note that ``chunks`` were of use to another process, so that others go first."""
        self.lineage.used_at_ns = time.time_ns()
        with self._pins.lock:
            self._pins.warm(np.asarray(chunks, np.int64))

    def missing(self, chunks: Chunks) -> list[int]:
        """Return those of ``chunks`` that are not whole, in their order."""
        missing: list[int] = self._presence.missing(np.asarray(chunks, np.int64)).tolist()
        return missing

    def any_partial(self, chunks: Chunks) -> bool:
        """Say whether blocks of any of ``chunks`` are here without the rest."""
        return self._presence.any_partial(np.asarray(chunks, np.int64))

    def blocks_there(self, nchunk: int) -> Bits | None:
        """Say of each block of a chunk that is not whole whether it is there; None if there are none."""
        if self._partial is None or self._presence[nchunk] != PARTIAL:
            return None
        return self._partial.there(nchunk)

    def may_store_parts(self, nchunk: int) -> bool:
        """Say whether `store_part` may succeed for a chunk."""
        return self._partial is not None and not self._partial.is_doubted(nchunk)

    def handle_of_blocks(self, nchunk: int, blocks: npt.NDArray[np.int64]) -> Any | None:
        """Return this thread's Blosc2 handle, to read blocks of a chunk that `chunk` did not give.

        Call it, and use what it returns, inside of `reading`. None if some of the blocks are not here.
        """
        there = self.blocks_there(nchunk)
        return self._handle() if there is not None and there[blocks].all() else None

    def chunk(self, nchunk: int) -> memoryview | None:
        """Return the compressed bytes of a chunk, or None if it is not whole.

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

    def digest(self, nchunk: int) -> bytes:
        """Return the digest of a chunk that `chunk` gave."""
        return self._digests[nchunk]

    def handle(self, nchunk: int) -> Any | None:
        """Return this thread's Blosc2 handle on the frame, to read a part of a chunk that `chunk` gave.

        Keep the handle itself while a part of it, as its ``schunk``, is in use. None if Blosc2 cannot open the
        file: no descriptor or address space is left. Whole chunks can be decoded then.
        """
        if self._presence[nchunk] != VERIFIED:
            self._check_open()
            raise AssertionError(f"chunk {nchunk} was not verified, or not held on to")
        return self._handle()

    def _handle(self) -> Any | None:
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
        if self.chunk(nchunk) is None:  # what is there stays: a kill during a second write would lose it
            claimed = min(_pages(len(data)), self._frame.slot_bytes) + DIGEST_BYTES
            self._write(claimed, lambda: self._store(nchunk, data, digest))
            self._check_trusted(nchunk)

    def store_part(self, nchunk: int, part: ChunkPart) -> None:
        """Keep blocks of a chunk of an array, after a look at whether Blosc2 may see them.

        Its digest is for the caller to compare: it covers what came, not the chunk. If the part vouches for the
        whole chunk and no block is missing any more, the chunk is whole from now on.

        Raises:
            BadChunk: it is not what the geometry, or what is there already, says. The chunk may be absent now.
            StorageFailed, Closed: as for `store`.
        """
        layout = check_part(part, self._geometry, nchunk)
        if self.chunk(nchunk) is not None:
            return
        pages = [_pages(stop - start) + PAGE_BYTES for start, stop in layout.runs(part.blocks)]
        records = PAGE_BYTES + DIGEST_BYTES  # which blocks are there; and the digest, in the end
        self._write(_pages(len(part.head)) + sum(pages) + records, lambda: self._store_part(nchunk, part, layout))
        self._check_trusted(nchunk)

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
                with self._pins.lock:
                    victims = self._victims(nbytes)
                    for nchunk in victims:
                        self._whole_count -= self._presence[nchunk] >= WHOLE
                        self._presence.mark(nchunk, ABSENT)
                for run in runs(victims):
                    self._frame.punch(run)
            finally:
                self._frame.give_back()
            self._recount()

    def _create_frame(self) -> SlottedFrame:
        return SlottedFrame.create(self._path, self._geometry, self.info.compression, self.info.attributes)

    def _open_partial(self) -> PartialChunks | None:
        array = self._geometry.array
        if array is None or not self._geometry.nchunks or block_count(array) < 2:
            return None
        return PartialChunks(self._path.parent, self._frame, self._presence, self._geometry)

    def _drop_partial(self) -> None:
        """Make absent what a former run had in part: nothing tells whether it is what it was."""
        for run in runs(self._presence.partial()):
            self._frame.punch(run)
            for nchunk in run:
                self._presence.mark(nchunk, ABSENT)

    def _check_frame(self, is_new: bool) -> None:
        """Compare the frame's header, index and trailer with what they were when new: Blosc2 believes them."""
        nchunks, digest = self._geometry.nchunks, digest_of(self._frame.around())
        if is_new:
            self._digests[nchunks] = digest
        elif self._digests[nchunks] != digest or self._frame.geometry != self._geometry:
            raise BadContent(f"{self._path}: the frame is not what it was")

    def _check_open(self) -> None:
        if not self.is_open:
            raise Closed(f"{self.info.entry.path}: the cache is closed")

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

    def _write(self, claimed: int, write: Callable[[], bool]) -> None:
        """Have something written within the budget, with the write lock; ``write`` says whether it was."""
        self._budget.claim(claimed)
        try:
            with self._write_lock:
                self._check_open()
                is_news = write()
                if is_news:
                    self.lineage.used_bytes += claimed
        except OSError as error:
            self._budget.release(claimed)
            raise self._budget.refused(error) from error
        except (BadChunk, Closed):
            self._budget.release(claimed)
            raise
        if not is_news:
            self._budget.release(claimed)

    def _store_part(self, nchunk: int, part: ChunkPart, layout: BlockLayout) -> bool:
        if self._presence[nchunk] == VERIFIED or self._is_doubted(nchunk):
            return False
        assert self._partial is not None, "a part of a chunk of one block"
        try:
            self._partial.add(nchunk, part, layout)
        except BadChunk:
            self._presence.mark(nchunk, ABSENT)
            raise
        self._pins.warm(nchunk)
        if part.whole_digest is not None and self._partial.there(nchunk).all():
            self._complete(nchunk, part.whole_digest)
        return True

    def _complete(self, nchunk: int, digest: bytes) -> None:
        """All blocks of a chunk are there: it is whole, if it has the digest that its origin names."""
        assert self._partial is not None
        view = self._frame.chunk_view(nchunk)
        try:
            check_digest(nchunk, view, digest)
            check_chunk(view, self._geometry, nchunk)
        except BadChunk:
            self._partial.doubt(nchunk)
            self._presence.mark(nchunk, ABSENT)
            raise
        self._digests[nchunk] = digest
        self._presence.mark(nchunk, VERIFIED)
        self._whole_count += 1

    def _is_doubted(self, nchunk: int) -> bool:
        return self._partial is not None and self._partial.is_doubted(nchunk)

    def _check_trusted(self, nchunk: int) -> None:
        if self._is_doubted(nchunk):
            raise StorageFailed(f"chunk {nchunk}: its publisher says one thing and another; it is not kept")

    def _store(self, nchunk: int, data: Buffer, digest: bytes) -> bool:
        if self._presence[nchunk] == VERIFIED:
            return False  # another thread was faster, and a third may be decoding it, so its bytes stay
        was_partial = self._presence[nchunk] == PARTIAL
        if was_partial and self._partial is not None and not self._partial.agrees(nchunk, data):
            self._partial.doubt(nchunk)
            self._presence.mark(nchunk, ABSENT)
        if self._is_doubted(nchunk):
            return False
        try:
            self._frame.write_chunk(nchunk, data)
            self._digests[nchunk] = digest
            self._presence.mark(nchunk, VERIFIED)
        except OSError:
            if not was_partial:  # what somebody may be reading was overwritten with the same bytes at most
                with contextlib.suppress(OSError):
                    self._frame.punch(range(nchunk, nchunk + 1))
            raise
        self._whole_count += 1
        self._pins.warm(nchunk)
        return True

    def _victims(self, nbytes: int) -> list[int]:
        victims: list[int] = []
        for nchunk in self._pins.free(self._presence.present()):
            if nbytes <= 0:
                break
            if not self._frame.take(nchunk):
                continue  # another process reads it
            victims.append(nchunk)
            nbytes -= self._size(nchunk)
        self._pins.evicted(victims)
        return victims

    def _size(self, nchunk: int) -> int:
        try:
            if self._partial is not None and self._presence[nchunk] == PARTIAL:
                return self._partial.nbytes(nchunk)
            return len(self._frame.chunk_view(nchunk))
        except BadChunk:
            return 0

    def _recount(self) -> None:
        """Look at the disk how much is really used, since counting assumes the worst."""
        used_bytes = disk_bytes(self.lineage.folder)
        self._budget.count(used_bytes - self.lineage.used_bytes)
        self.lineage.used_bytes = used_bytes


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES


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
