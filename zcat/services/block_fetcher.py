"""Parts of chunks on their way into the cache: the shell of ``protocol.block_transfer``.

As `Fetcher` does with whole chunks: a reader's thread calls `BlockFetcher.begin` and waits, the loop thread asks
and takes the answers, another thread checks what came and writes it into its place.
"""

import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import Protocol

from zcat.errors import BadChunk, Busy, Closed, VerbUnknown, ZcatError
from zcat.logs import RateLimiter, kv
from zcat.net.loop import Loop
from zcat.protocol.block_messages import BlocksReply, Part
from zcat.protocol.block_transfer import AskBlocks, BlocksDone, BlockTransfer, Coming, Effect, WantedPart
from zcat.protocol.messages import ChunkReply, Failed
from zcat.protocol.transfer import Origin
from zcat.services.readers import Fetch, Readers, Target
from zcat.services.workers import LoopWorkers, Outcome
from zcat.storage.block_layout import ChunkPart

log = logging.getLogger(__name__)


class Origins(Protocol):
    """What the fetcher needs of those who know the origins. On the loop's thread."""

    def send(self, ask: AskBlocks) -> bool:
        """Send a request; False when it cannot leave now."""

    def why_away(self, origin: Origin) -> ZcatError | None:
        """Say why an origin cannot be reached; None if it can."""


class BlockFetcher:
    """Fetches parts of chunks. `begin`, `abandon`, `serves`: any thread; everything else: the loop's."""

    def __init__(self, loop: Loop, transfer: BlockTransfer, origins: Origins) -> None:
        """Begin with nothing wanted."""
        self._loop = loop
        self._transfer = transfer
        self._origins = origins
        self._workers = LoopWorkers("blocks", 1, loop)
        self._readers: Readers[None] = Readers()
        self._without: frozenset[Origin] = frozenset()
        self._warnings = RateLimiter(per_s=1)
        self.parts_count = 0
        self.parts_bytes = 0
        self.damaged_count = 0

    def serves(self, origin: Origin) -> bool:
        """Say whether an origin knows of blocks, as far as is known."""
        return origin not in self._without

    def begin(self, target: Target, parts: Sequence[WantedPart], bulk: bool = False) -> Fetch[None]:
        """Have parts of chunks brought into the cache.

        Args:
            target: whose chunks; it has a cache.
            parts: at least one; at most one of each chunk.
            bulk: a prefetch, which gives way to what somebody looks at.
        """
        fetch: Fetch[None] = Fetch(target, f"blocks of {len(parts)} chunks", self.abandon)
        self._loop.post(lambda: self._want(fetch, parts, bulk))
        return fetch

    def abandon(self, fetch: Fetch[None]) -> None:
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
        target = self._readers.target(coming.dataset)
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
        self._readers.cancel()
        self._workers.close()

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the machine orders."""
        for effect in effects:
            if isinstance(effect, BlocksDone):
                self._readers.resolve(effect.ticket, lambda _: None, effect.error)
            elif not self._origins.send(effect):
                self._transfer.unsent(effect.request, self._loop.now_s())

    def _want(self, fetch: Fetch[None], parts: Sequence[WantedPart], bulk: bool) -> None:
        target = fetch.target
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
        self._readers.add(ticket, fetch)
        self.carry_out(effects)

    def _abandon(self, fetch: Fetch[None]) -> None:
        for ticket in self._readers.tickets(fetch):
            self._transfer.cancel(ticket)
            self._readers.pop(ticket)

    def _keep(self, target: Target, coming: Coming, reply: BlocksReply | ChunkReply) -> Outcome | None:
        """Check and write what came, in a thread."""
        try:
            self._store(target, coming.wanted.part, reply)
        except Closed:
            return None
        except BadChunk as error:
            return functools.partial(self._damaged, target, coming, error)
        except ZcatError as error:  # no room: then whole chunks go to their readers through memory
            return functools.partial(self._refused, coming, error)
        except Exception:  # the top of this thread; a part that nobody hears of would be waited for until the end
            log.exception("bug in=keep_part")
            return functools.partial(self._damaged, target, coming, ZcatError("internal error"))
        return functools.partial(self._kept, coming, sum(map(len, reply.data)))

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
