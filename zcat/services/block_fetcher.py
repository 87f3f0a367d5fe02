"""Parts of chunks on their way into the cache: the shell of ``protocol.block_transfer``.

As `Fetcher` does with whole chunks: a reader's thread calls `BlockFetcher.begin` and waits, the loop thread asks
and takes the answers, another thread checks what came and writes it into its place.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from typing import Protocol

from zcat.errors import BadChunk, Busy, Closed, Timeout, VerbUnknown, ZcatError
from zcat.logs import RateLimiter, kv
from zcat.net.loop import Loop
from zcat.protocol.block_messages import BlocksReply, Part
from zcat.protocol.block_transfer import AskBlocks, BlocksDone, BlockTransfer, Coming, Effect, WantedPart
from zcat.protocol.messages import ChunkReply, Failed
from zcat.protocol.transfer import DatasetKey, Origin
from zcat.services.fetcher import Target
from zcat.services.workers import Workers, hand_over
from zcat.storage.block_layout import ChunkPart

log = logging.getLogger(__name__)


class Origins(Protocol):
    """What the fetcher needs of those who know the origins. On the loop's thread."""

    def send(self, ask: AskBlocks) -> bool:
        """Send a request; False when it cannot leave now."""

    def why_away(self, origin: Origin) -> ZcatError | None:
        """Say why an origin cannot be reached; None if it can."""


class BlockFetch:
    """Parts of chunks of one dataset that a thread waits for, or will."""

    def __init__(self, fetcher: "BlockFetcher", key: DatasetKey) -> None:
        self.key = key
        self.answer: Future[None] = Future()
        self._fetcher = fetcher

    def result(self, wait_s: float) -> None:
        """Wait until the blocks are in the cache.

        Raises:
            VerbUnknown, StorageFailed, BadChunk: they cannot be had, or kept, in parts: fetch whole chunks.
            Stale: the dataset changed at its origin.
            Unavailable: the origin is away. Timeout: it did not send all of them in time.
        """
        try:
            self.answer.result(wait_s)
        except WaitedTooLong:
            self.abandon()
            raise Timeout(f"{self.key.root}/{self.key.path}: blocks did not come within {wait_s:g} s") from None
        except CancelledError:
            raise Closed("the subscriber was closed") from None

    @property
    def is_done(self) -> bool:
        """All has come, or nothing will."""
        return self.answer.done()

    def abandon(self) -> None:
        """Nobody waits any more: what is not under way need not come."""
        self._fetcher.abandon(self)


class BlockFetcher:
    """Fetches parts of chunks. `begin`, `abandon`, `serves`: any thread; everything else: the loop's."""

    def __init__(self, loop: Loop, transfer: BlockTransfer, origins: Origins) -> None:
        """Begin with nothing wanted."""
        self._loop = loop
        self._transfer = transfer
        self._origins = origins
        self._workers = Workers("blocks", 1)
        self._readers: dict[int, BlockFetch] = {}
        self._targets: dict[DatasetKey, Target] = {}
        self._without: frozenset[Origin] = frozenset()
        self._warnings = RateLimiter(per_s=1)
        self.parts_count = 0
        self.parts_bytes = 0
        self.damaged_count = 0

    def serves(self, origin: Origin) -> bool:
        """Say whether an origin knows of blocks, as far as is known."""
        return origin not in self._without

    def begin(self, target: Target, parts: Sequence[WantedPart], bulk: bool = False) -> BlockFetch:
        """Have parts of chunks brought into the cache.

        Args:
            target: whose chunks; it has a cache.
            parts: at least one; at most one of each chunk.
            bulk: a prefetch, which gives way to what somebody looks at.
        """
        fetch = BlockFetch(self, target.key)
        self._loop.post(lambda: self._want(fetch, target, parts, bulk))
        return fetch

    def abandon(self, fetch: BlockFetch) -> None:
        """Nobody waits for it any more."""
        with contextlib.suppress(Closed, Busy):
            self._loop.post(lambda: self._abandon(fetch))

    def is_owed(self, origin: Origin, id: int) -> bool:
        """Say whether an answer with this number is for here."""
        return self._transfer.is_owed(id, origin)

    def arrived(self, origin: Origin, id: int, reply: BlocksReply | ChunkReply) -> None:
        """Take a part, or a whole chunk that was not cut: check and write it elsewhere, then go on here."""
        if not self._transfer.is_owed(id, origin):
            return
        coming = self._transfer.arrived(id, reply.nchunk, self._loop.now_s())
        if coming is None:
            return
        target = self._targets.get(coming.dataset)
        if target is None:  # whoever wanted it went away
            self.carry_out(self._transfer.stored(coming, self._loop.now_s()))
        else:
            self._workers.do(functools.partial(self._keep, target, coming, reply))

    def failed(self, origin: Origin, id: int, failure: Failed) -> bool:
        """Take an origin's refusal; False if it is none of ours."""
        if not self._transfer.is_owed(id, origin):
            return False
        now_s, error = self._loop.now_s(), failure.error
        if isinstance(error, VerbUnknown):
            self._without |= {origin}
        if failure.nchunk is None:
            self.carry_out(self._transfer.request_failed(id, error, now_s))
            return True
        coming = self._transfer.arrived(id, failure.nchunk, now_s)
        if coming is not None:
            self.carry_out(self._transfer.refused(coming, error, now_s))
        return coming is not None

    def away(self, origin: Origin, error: ZcatError) -> None:
        """Fail all who wait for an origin that cannot be reached."""
        self.carry_out(self._transfer.away(origin, error))

    def moved(self, origin: Origin) -> None:
        """The origin restarted or has another address; it may also be of another version now."""
        self._without -= {origin}
        self.carry_out(self._transfer.moved(origin, self._loop.now_s()))

    def tick(self, now_s: float) -> None:
        """Ask again for what is overdue."""
        self.carry_out(self._transfer.tick(now_s))

    def close(self) -> None:
        """Fail all readers. The loop has stopped, or stops after this."""
        for fetch in self._readers.values():
            fetch.answer.cancel()
        self._readers.clear()
        self._workers.close()

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the machine orders."""
        for effect in effects:
            if isinstance(effect, BlocksDone):
                self._resolve(effect)
            elif not self._origins.send(effect):
                self._transfer.unsent(effect.request, self._loop.now_s())

    def _want(self, fetch: BlockFetch, target: Target, parts: Sequence[WantedPart], bulk: bool) -> None:
        error = self._origins.why_away(target.key.origin)
        if error is None and not self.serves(target.key.origin):
            error = VerbUnknown(f"the publisher of root {target.key.root} knows of no blocks")
        if error is not None:
            fetch.answer.set_exception(error)
            return
        try:
            ticket, effects = self._transfer.want(target.key, parts, bulk, self._loop.now_s())
        except Busy as error:
            fetch.answer.set_exception(error)
            return
        self._targets[target.key] = target
        self._readers[ticket] = fetch
        self.carry_out(effects)

    def _abandon(self, fetch: BlockFetch) -> None:
        for ticket, held in list(self._readers.items()):
            if held is fetch:
                self._transfer.cancel(ticket)
                self._forget(ticket)

    def _keep(self, target: Target, coming: Coming, reply: BlocksReply | ChunkReply) -> None:
        """Check and write what came, in a thread."""
        outcome: Callable[[], None]
        try:
            self._store(target, coming.wanted.part, reply)
            outcome = functools.partial(self._kept, coming, sum(map(len, reply.data)))
        except Closed:
            return
        except BadChunk as error:
            outcome = functools.partial(self._damaged, target, coming, error)
        except ZcatError as error:  # no room: then whole chunks go to their readers through memory
            outcome = functools.partial(self._refused, coming, error)
        except Exception:  # the top of this thread; a part that nobody hears of would be waited for until the end
            log.exception("bug in=keep_part")
            outcome = functools.partial(self._damaged, target, coming, ZcatError("internal error"))
        hand_over(self._loop, outcome)

    def _store(self, target: Target, asked: Part, reply: BlocksReply | ChunkReply) -> None:
        """SAFETY: bytes from the wire reach the cache through `store` and `store_part` alone, which check them."""
        assert target.cached is not None
        if reply.lineage != target.key.lineage:
            raise BadChunk(f"chunk {reply.nchunk}: not of the lineage that was asked for")
        if isinstance(reply, ChunkReply):
            if not reply.data:
                raise BadChunk(f"chunk {reply.nchunk}: no data")
            target.cached.store(reply.nchunk, reply.data[0], reply.digest)
            return
        head, data = reply.data
        part = ChunkPart(head, reply.blocks, data, reply.chunk_digest)
        if reply.blocks != asked.blocks or part.digest != reply.digest:
            raise BadChunk(f"chunk {reply.nchunk}: other blocks than asked for, or damaged on the way")
        target.cached.store_part(reply.nchunk, part)

    def _kept(self, coming: Coming, nbytes: int) -> None:
        self.parts_count += 1
        self.parts_bytes += nbytes
        self.carry_out(self._transfer.stored(coming, self._loop.now_s()))

    def _refused(self, coming: Coming, error: ZcatError) -> None:
        self.carry_out(self._transfer.refused(coming, error, self._loop.now_s()))

    def _damaged(self, target: Target, coming: Coming, error: ZcatError) -> None:
        self.damaged_count += 1
        now_s = self._loop.now_s()
        if self._warnings.allow(target.key.root, now_s):
            log.warning(
                "a part of a chunk was refused %s", kv(root=target.key.root, path=target.key.path, error=error)
            )
        self.carry_out(self._transfer.damaged(coming, error, now_s))

    def _resolve(self, effect: BlocksDone) -> None:
        fetch = self._forget(effect.ticket)
        if fetch is None or fetch.answer.done():
            return
        if effect.error is None:
            fetch.answer.set_result(None)
        else:
            fetch.answer.set_exception(effect.error)

    def _forget(self, ticket: int) -> BlockFetch | None:
        fetch = self._readers.pop(ticket, None)
        if fetch is not None and all(other.key != fetch.key for other in self._readers.values()):
            self._targets.pop(fetch.key, None)
        return fetch
