"""Chunks on their way into the cache: the shell of ``protocol.transfer``.

A reader's thread calls `Fetcher.begin` and waits for the result. The loop thread asks the origins and takes the
answers; threads of a small pool check each chunk and write it, since a digest and a write of a few megabytes would
keep the loop from everything else for a millisecond. What cannot be written, because the disk is full, is
handed to its readers in memory: nothing fails for want of a cache.
"""

import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import Protocol

from zcat.errors import BadChunk, Busy, Closed, ZcatError
from zcat.logs import RateLimiter, kv
from zcat.net.loop import Loop
from zcat.protocol.asking import AskChunks, Effect, PeerCounters, Resolve, Tell
from zcat.protocol.messages import ChunkReply, Failed
from zcat.protocol.swarm_messages import Have, Holders
from zcat.protocol.transfer import Transfer
from zcat.protocol.wanted import Origin
from zcat.services.adopting import Adopter, Asked
from zcat.services.readers import Fetch, Loose, Readers, Target
from zcat.services.workers import LoopWorkers, Outcome

log = logging.getLogger(__name__)


class Origins(Asked, Protocol):
    """What the fetcher needs of those who know the origins. On the loop's thread."""

    def send(self, ask: AskChunks) -> bool:
        """Send a request, to its origin or to the peer that it names; False when it cannot leave now."""

    def tell(self, origin: Origin, message: Have) -> None:
        """Send what is not answered, if it can leave now."""

    def why_away(self, origin: Origin) -> ZcatError | None:
        """Say why an origin cannot be reached; None if it can."""


class Fetcher:
    """Fetches chunks from origins. `begin` and `abandon` are for any thread, everything else for the loop's."""

    def __init__(self, loop: Loop, transfer: Transfer, origins: Origins, threads: int) -> None:
        """Begin with nothing wanted.

        Args:
            loop: whose thread runs this.
            transfer: the machine, for this shell alone.
            origins: how to reach them.
            threads: how many check and write chunks.
        """
        self._loop = loop
        self._transfer = transfer
        self._origins = origins
        self._workers = LoopWorkers("store", threads, loop)
        self.adopter = Adopter(self._workers, origins)
        self._readers: Readers[Loose] = Readers()
        self._warnings = RateLimiter(per_s=1)
        self.chunks_count = 0
        self.chunks_bytes = 0
        self.damaged_count = 0

    def begin(self, target: Target, nchunks: Sequence[int], bulk: bool = False) -> Fetch[Loose]:
        """Have chunks brought into the cache.

        Args:
            target: whose chunks.
            nchunks: their numbers; those that are there already cost nothing.
            bulk: a copy, which gives way to what somebody looks at.
        """
        fetch: Fetch[Loose] = Fetch(target, f"{len(nchunks)} chunks", self.abandon)
        self._loop.post(lambda: self._want(fetch, nchunks, bulk))
        return fetch

    def abandon(self, fetch: Fetch[Loose]) -> None:
        """Nobody waits for it any more."""
        with contextlib.suppress(Closed, Busy):
            self._loop.post(lambda: self._abandon(fetch))

    def arrived(self, whom: Origin | str, id: int, reply: ChunkReply) -> None:
        """Take a chunk that an origin, or the peer at an endpoint, sent: check and write it elsewhere."""
        now_s = self._loop.now_s()
        if not self._transfer.is_owed(id, whom):
            return  # it came twice, or too late, or from somebody who was not asked
        key = self._transfer.arrived(id, reply.nchunk, now_s)
        if key is None:
            return
        target = self._readers.target(key)
        if target is None:  # whoever wanted it went away
            self.carry_out(self._transfer.stored(key, reply.nchunk, now_s))
            return
        if not reply.data or reply.lineage != target.key.lineage:
            self._damaged(target, reply.nchunk, BadChunk(f"chunk {reply.nchunk}: no data of this lineage"), whom)
            return
        # SAFETY: what a peer says of the digest counts for nothing, its origin's word does
        digest = self._transfer.digest(key, reply.nchunk) or reply.digest
        self._workers.do(functools.partial(self._keep, target, reply, digest, whom))

    def referred(self, origin: Origin, id: int, message: Holders) -> None:
        """Take an origin's word of who holds chunks that it was asked for."""
        if self._transfer.is_owed(id, origin):
            self.carry_out(self._transfer.referred(id, message, self._loop.now_s()))

    def failed(self, whom: Origin | str, id: int, failure: Failed) -> bool:
        """Take the refusal of an origin, or of the peer at an endpoint; False if it is none of ours."""
        now_s = self._loop.now_s()
        if not self._transfer.is_owed(id, whom):
            return False
        if isinstance(whom, str):
            self.carry_out(self._transfer.peer_failed(id, failure.nchunk, now_s))
            return True
        if failure.nchunk is None:
            self.carry_out(self._transfer.request_failed(id, failure.error, now_s))
            return True
        key = self._transfer.arrived(id, failure.nchunk, now_s)
        if key is None:
            return False
        self.carry_out(self._transfer.refused(key, failure.nchunk, failure.error, now_s))
        return True

    def track(self, origin: Origin, is_tracking: bool, peer: str | None, is_near: bool) -> None:
        """Learn whether an origin names holders; see `Transfer.track`."""
        self._transfer.track(origin, is_tracking, peer, is_near)

    def away(self, origin: Origin, error: ZcatError) -> None:
        """Fail all who wait for an origin that cannot be reached."""
        self.carry_out(self._transfer.away(origin, error))

    def moved(self, origin: Origin) -> None:
        """The origin restarted or has another address."""
        self.adopter.moved(origin)
        self.carry_out(self._transfer.moved(origin, self._loop.now_s()))

    def tick(self, now_s: float) -> None:
        """Ask again for what is overdue."""
        self.carry_out(self._transfer.tick(now_s))

    def close(self) -> None:
        """Fail all readers. The loop has stopped, or stops after this."""
        self._readers.cancel()
        self._workers.close()
        self.adopter.close()

    @property
    def peer_counters(self) -> PeerCounters:
        """What came from other subscribers, and what did not. Any thread may read it."""
        return self._transfer.peer_counters

    @property
    def owed_bytes(self) -> int:
        """Bytes asked for and not yet stored."""
        return self._transfer.owed_bytes

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the machine orders."""
        for effect in effects:
            if isinstance(effect, Resolve):
                self._readers.resolve(effect.ticket, lambda fetch: fetch.loose, effect.error)
            elif isinstance(effect, Tell):
                self._origins.tell(effect.origin, effect.message)
            elif not self._origins.send(effect):
                self._transfer.unsent(effect.request, self._loop.now_s())

    def _want(self, fetch: Fetch[Loose], nchunks: Sequence[int], bulk: bool) -> None:
        cached = fetch.target.cached
        missing = cached.missing(nchunks) if cached is not None else list(nchunks)
        then = functools.partial(self._want_missing, fetch, nchunks, bulk)
        if not self.adopter.begin(fetch, missing, then):
            then()

    def _want_missing(self, fetch: Fetch[Loose], nchunks: Sequence[int], bulk: bool) -> None:
        target = fetch.target
        missing = target.cached.missing(nchunks) if target.cached is not None else list(nchunks)
        if fetch.is_abandoned:
            return
        if not missing:
            fetch.answer.set_result({})
            return
        error = self._origins.why_away(target.key.origin)
        if error is not None:
            fetch.answer.set_exception(error)
            return
        try:
            ticket, effects = self._transfer.want(
                target.key, missing, target.chunk_bytes, bulk, self._loop.now_s()
            )
        except Busy as error:
            fetch.answer.set_exception(error)
            return
        self._readers.add(ticket, fetch)
        self.carry_out(effects)

    def _abandon(self, fetch: Fetch[Loose]) -> None:
        for ticket in self._readers.tickets(fetch):
            self._transfer.cancel(ticket)
            self._readers.pop(ticket)

    def _keep(self, target: Target, reply: ChunkReply, digest: bytes, whom: Origin | str) -> Outcome | None:
        """Check and write a chunk, in a thread."""
        data = reply.data[0]
        try:
            loose = target.keep(reply.nchunk, data, digest)
        except Closed:
            return None
        except ZcatError as error:
            return functools.partial(self._damaged, target, reply.nchunk, error, whom)
        except Exception:  # the top of this thread; a chunk that nobody hears of would be waited for until the end
            log.exception("bug in=keep")
            return functools.partial(self._damaged, target, reply.nchunk, ZcatError("internal error"), whom)
        return functools.partial(self._kept, target, reply.nchunk, loose, len(data))

    def _kept(self, target: Target, nchunk: int, loose: bytes | None, nbytes: int) -> None:
        self.chunks_count += 1
        self.chunks_bytes += nbytes
        if loose is not None:
            for ticket in self._transfer.waiting(target.key, nchunk):
                self._readers[ticket].loose[nchunk] = loose
        kept_bytes = nbytes if loose is None else 0
        self.carry_out(self._transfer.stored(target.key, nchunk, self._loop.now_s(), kept_bytes))

    def _damaged(self, target: Target, nchunk: int, error: ZcatError, whom: Origin | str) -> None:
        self.damaged_count += 1
        now_s = self._loop.now_s()
        if self._warnings.allow(target.key.root, now_s):
            peer = {"peer": whom} if isinstance(whom, str) else {}  # which is not asked for this root again
            log.warning(
                "a chunk was refused %s", kv(root=target.key.root, path=target.key.path, error=error, **peer)
            )
        self.carry_out(self._transfer.damaged(target.key, nchunk, error, now_s))
