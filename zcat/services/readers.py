"""Threads that wait for chunks, or for parts of chunks: what a `Fetcher` and a `BlockFetcher` have in common."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass
from typing import Generic, TypeVar

from zcat.errors import Closed, StorageFailed, Timeout, ZcatError
from zcat.model.dataset import DatasetInfo
from zcat.protocol.codec import Buffer
from zcat.protocol.wanted import DatasetKey
from zcat.storage.cached_dataset import CachedDataset, check_digest
from zcat.storage.chunk_gate import check_chunk

T = TypeVar("T")

Loose = dict[int, bytes]
"""Chunks by number that are right and could not be kept."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the chunks of one lineage belong."""

    key: DatasetKey
    info: DatasetInfo
    cached: CachedDataset | None
    """None when there is no room for it on disk."""

    @property
    def chunk_bytes(self) -> int:
        """A guess of the compressed size of a chunk."""
        entry, geometry = self.info.entry, self.info.geometry
        share = min(1.0, entry.cbytes / entry.nbytes) if entry.nbytes else 1.0
        return int(geometry.chunksize * share) + 32

    def keep(self, nchunk: int, data: Buffer, digest: bytes) -> bytes | None:
        """Check a chunk and write it to the cache; give it back if it cannot be written.

        Raises:
            BadChunk: it is not what its digest or its dataset says.
        """
        if self.cached is not None:
            try:
                self.cached.store(nchunk, data, digest)
                return None
            except StorageFailed:
                return bytes(data)  # checked before it was written, and what failed was the writing
        check_digest(nchunk, data, digest)
        check_chunk(data, self.info.geometry, nchunk)
        return bytes(data)


class Fetch(Generic[T]):
    """What one thread asked for, and waits for, or will."""

    def __init__(self, target: Target, what: str, abandon: "Callable[[Fetch[T]], None]") -> None:
        """Begin to wait.

        Args:
            target: whose chunks.
            what: is waited for, in words.
            abandon: called, by any thread, when nobody waits any more.
        """
        self.target = target
        self.loose: Loose = {}
        self.answer: Future[T] = Future()
        self.is_abandoned = False
        self._what = what
        self._abandon = abandon

    def result(self, wait_s: float) -> T:
        """Wait until all of it is in the cache.

        Raises:
            Stale: the dataset changed at its origin.
            Unavailable: the origin is away. Timeout: it did not send all of it in time.
            VerbUnknown, StorageFailed, BadChunk: blocks cannot be had, or kept: fetch whole chunks.
        """
        try:
            return self.answer.result(wait_s)
        except WaitedTooLong:
            self.abandon()
            key = self.target.key
            raise Timeout(f"{key.root}/{key.path}: {self._what} did not come within {wait_s:g} s") from None
        except CancelledError:
            raise Closed("the subscriber was closed") from None

    @property
    def is_done(self) -> bool:
        """All has come, or nothing will."""
        return self.answer.done()

    def abandon(self) -> None:
        """Nobody waits any more: what is not under way need not come."""
        self.is_abandoned = True
        self._abandon(self)


class Readers(Generic[T]):
    """Who holds which ticket of a machine. On the loop's thread."""

    def __init__(self) -> None:
        self._fetches: dict[int, Fetch[T]] = {}
        self._of_lineage: dict[DatasetKey, dict[int, Target]] = {}

    def add(self, ticket: int, fetch: Fetch[T]) -> None:
        """Take note of a reader."""
        self._fetches[ticket] = fetch
        self._of_lineage.setdefault(fetch.target.key, {})[ticket] = fetch.target

    def __getitem__(self, ticket: int) -> Fetch[T]:
        return self._fetches[ticket]

    def target(self, key: DatasetKey) -> Target | None:
        """Say where chunks of a lineage belong; None if nobody waits for any."""
        return next(iter(self._of_lineage.get(key, {}).values()), None)

    def tickets(self, fetch: Fetch[T]) -> list[int]:
        """Give the tickets of a reader."""
        of_lineage = self._of_lineage.get(fetch.target.key, ())
        return [ticket for ticket in of_lineage if self._fetches[ticket] is fetch]

    def pop(self, ticket: int) -> Fetch[T] | None:
        """Forget a ticket; give its reader if there was one."""
        fetch = self._fetches.pop(ticket, None)
        if fetch is not None:
            of_lineage = self._of_lineage[fetch.target.key]
            del of_lineage[ticket]
            if not of_lineage:
                del self._of_lineage[fetch.target.key]
        return fetch

    def resolve(self, ticket: int, answer: Callable[[Fetch[T]], T], error: ZcatError | None) -> None:
        """Tell a reader what became of what it waits for."""
        fetch = self.pop(ticket)
        if fetch is None or fetch.answer.done():
            return
        if error is None:
            fetch.answer.set_result(answer(fetch))
        else:
            fetch.answer.set_exception(error)

    def cancel(self) -> None:
        """Fail all, since the subscriber is closed."""
        for fetch in self._fetches.values():
            fetch.answer.cancel()
        self._fetches.clear()
        self._of_lineage.clear()
