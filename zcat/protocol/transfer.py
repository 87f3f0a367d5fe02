"""Machine: fetch chunks, each one once however many readers wait for it.

What is asked for is bounded in bytes for each origin (its credit); what somebody waits for goes before what is
only copied. A chunk that does not come, or comes damaged, is asked for again a few times. Readers hold *tickets*:
a ticket resolves when all of its chunks are stored, or with the first error that is final.

An origin that keeps track of who holds what may name peers instead of sending a chunk, together with the
chunk's digest. Then these are asked, one after the other. If one is late with what somebody waits for, a second
one is asked beside it, and the first answer wins; and when they all fail, the origin is asked for the chunk
itself. A peer is a carrier only: what it says is believed as far as the origin's digest goes.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from zcat.errors import Busy, Timeout, ZcatError
from zcat.protocol.asking import AskChunks, Effect, PeerCounters, Resolve, Tell, TransferLimits
from zcat.protocol.brokers import Random
from zcat.protocol.gains import Gains
from zcat.protocol.line import Line, in_order
from zcat.protocol.messages import Chunks
from zcat.protocol.peers_known import PeerLimits, PeersKnown
from zcat.protocol.swarm_messages import Holders
from zcat.protocol.under_way import UnderWay
from zcat.protocol.wanted import DatasetKey, Origin, Request, Wanted, WantedChunk

__all__ = ["AskChunks", "DatasetKey", "Effect", "Origin", "Resolve", "Tell", "Transfer", "TransferLimits"]

_FORGOTTEN_AFTER = 8
"""Times as long as a request takes to be lost."""
_REFERRALS_MAX = 2
"""To so many lists of peers, an origin may send a copy on for one chunk."""


class Transfer:
    """All chunks on their way to this process."""

    def __init__(
        self,
        limits: TransferLimits | None = None,
        requests: Iterator[int] | None = None,
        random: Random | None = None,
        peer_limits: PeerLimits | None = None,
    ) -> None:
        """Begin with nothing wanted.

        Args:
            limits, peer_limits: the defaults if None.
            requests: numbers for requests.
            random: gives this reader an order of its own, of origins that keep track; None: ascending.
        """
        self._limits = limits or TransferLimits()
        self._request_ids = requests or itertools.count(1)
        self._random = random
        self._peers = PeersKnown(peer_limits)
        self._gains = Gains()
        self._under_way = UnderWay()
        self._tickets: dict[int, set[Wanted]] = {}
        self._chunks, self._lines = self._under_way.chunks, self._under_way.lines
        self._requests = self._under_way.requests
        self._next_ticket = 1
        self.peer_counters = PeerCounters()

    @property
    def wanted_count(self) -> int:
        """Chunks that are queued, asked for or being stored."""
        return len(self._chunks)

    @property
    def owed_bytes(self) -> int:
        """Bytes asked for and not yet stored, of all origins."""
        return sum(line.owed_bytes for line in self._lines.values())

    def track(self, origin: Origin, is_tracking: bool, peer: str | None, is_near: bool = False) -> None:
        """Learn whether an origin names holders, and where it may send others for what is stored here.

        Args:
            origin: it answered.
            is_tracking: what it says.
            peer: an endpoint; None if nothing is given to others.
            is_near: it was reached by an endpoint that means something on this host only, and may name such ones.
        """
        if is_tracking:
            self._gains.track(origin, peer, is_near)
        else:
            self._gains.untrack(origin)

    def want(
        self, dataset: DatasetKey, nchunks: Iterable[int], chunk_bytes: int, bulk: bool, now_s: float
    ) -> tuple[int, list[Effect]]:
        """Open a ticket for chunks that are not in the cache.

        Args:
            dataset: whose chunks.
            nchunks: their numbers, at least one.
            chunk_bytes: a guess of the compressed size of one.
            bulk: nobody waits for them; they give way to those of others.
            now_s: the time.

        Returns:
            The ticket and what to do.

        Raises:
            Busy: too many chunks are wanted already.
        """
        wanted = {(dataset, nchunk) for nchunk in nchunks}
        assert wanted
        if len(self._chunks) + len(wanted) > self._limits.wanted_chunks_max:
            raise Busy(
                f"{len(self._chunks)} chunks are being fetched, the limit is {self._limits.wanted_chunks_max}"
            )
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self._tickets[ticket] = wanted
        line = self._lines.setdefault(dataset.origin, Line(now_s))
        for key in in_order(wanted, self._random if self._gains.is_tracking(dataset.origin) else None):
            chunk = self._chunks.get(key)
            if chunk is None:
                chunk = self._chunks[key] = WantedChunk(max(1, chunk_bytes))
                line.enqueue(key, bulk)
            elif chunk.bulk and not bulk and chunk.is_queued:
                line.enqueue(key, False)  # its place in the other queue is skipped when it comes up there
            chunk.bulk = chunk.bulk and bulk
            chunk.tickets.add(ticket)
        return ticket, self._ask(dataset.origin, now_s)

    def cancel(self, ticket: int) -> None:
        """Close a ticket whose reader went away; chunks that nobody else wants are not asked for any more."""
        for key in self._tickets.pop(ticket, ()):
            chunk = self._chunks.get(key)
            if chunk is not None:
                chunk.tickets.discard(ticket)
                if not chunk.tickets and chunk.is_queued and not chunk.requests:
                    self._under_way.settle(key)

    def is_owed(self, request: int, whom: Origin | str) -> bool:
        """Say whether an origin, or the peer at an endpoint, owes something on a request: only it can answer."""
        held = self._requests.get(request)
        if held is None:
            return False
        return held.peer == whom if held.peer is not None else held.dataset.origin == whom

    def arrived(self, request: int, nchunk: int, now_s: float) -> DatasetKey | None:
        """Say which dataset a chunk that came belongs to; None when it is no longer waited for."""
        held = self._requests.get(request)
        if held is None or nchunk not in held.missing:
            return None
        self._requests.settle(request, nchunk)
        self._note_answer(held, now_s)
        if held.peer is not None:
            self._peers.answered(held.peer, now_s - held.asked_at_s)
        chunk = self._chunks.get((held.dataset, nchunk))
        if chunk is None or chunk.is_here:
            return None  # another answer was faster
        chunk.requests.discard(request)
        chunk.is_here, chunk.source = True, held.peer
        return held.dataset

    def digest(self, dataset: DatasetKey, nchunk: int) -> bytes | None:
        """Give the digest that a chunk which arrived from a peer must have; None if it came from its origin."""
        chunk = self._chunks[dataset, nchunk]
        return chunk.digest if chunk.source is not None else None

    def waiting(self, dataset: DatasetKey, nchunk: int) -> frozenset[int]:
        """Give the tickets that wait for a chunk."""
        chunk = self._chunks.get((dataset, nchunk))
        return frozenset(chunk.tickets) if chunk else frozenset()

    def stored(self, dataset: DatasetKey, nchunk: int, now_s: float, kept_bytes: int = 0) -> list[Effect]:
        """A chunk that arrived is in its place.

        Args:
            dataset: whose chunk.
            nchunk: its number.
            now_s: the time.
            kept_bytes: its size; 0 if it is not in the cache, but handed to its readers.
        """
        effects: list[Effect] = []
        chunk = self._chunks.get((dataset, nchunk))
        if chunk is not None and chunk.source is not None:
            self.peer_counters.chunks += 1
            self.peer_counters.nbytes += kept_bytes
        if kept_bytes:
            self._gains.gained(dataset, nchunk, kept_bytes)
        for ticket in self._under_way.settle((dataset, nchunk)):
            missing = self._tickets[ticket]
            missing.discard((dataset, nchunk))
            if not missing:
                del self._tickets[ticket]
                effects.append(Resolve(ticket, None))
        return effects + self._ask(dataset.origin, now_s)

    def refused(self, dataset: DatasetKey, nchunk: int, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin says that there is no such chunk any more: final for all who wait for it."""
        effects: list[Effect] = []
        for ticket in self._under_way.settle((dataset, nchunk)):
            effects += self._fail(ticket, error)
        return effects + self._ask(dataset.origin, now_s)

    def damaged(self, dataset: DatasetKey, nchunk: int, error: ZcatError, now_s: float) -> list[Effect]:
        """A chunk came and is not what it should be: ask again, somebody else or a few times."""
        key = dataset, nchunk
        chunk = self._chunks.get(key)
        if chunk is None or chunk.source is None:
            return self._again([key], error, now_s) + self._ask(dataset.origin, now_s)
        self.peer_counters.lies += 1
        self._peers.lied(dataset.origin, chunk.source)
        self._gains.failed(dataset.origin, chunk.source)
        chunk.is_here, chunk.source = False, None
        if chunk.requests:
            return []  # a second one is under way
        return self._elsewhere([key], now_s) + self._ask(dataset.origin, now_s)

    def referred(self, request: int, message: Holders, now_s: float) -> list[Effect]:
        """The origin names holders of chunks that it was asked for, or says that their turn comes."""
        held = self._requests.get(request)
        if held is None or held.peer is not None:
            return []
        self._note_answer(held, now_s)
        self._lines[held.dataset.origin].is_shared = True
        named: list[Wanted] = []
        for one in message.chunks:
            key = held.dataset, one.nchunk
            if one.nchunk not in held.missing or one.digest is None or message.lineage != held.dataset.lineage:
                continue
            self._requests.settle(request, one.nchunk)
            chunk = self._chunks[key]
            chunk.requests.discard(request)
            if chunk.is_direct:
                continue  # the origin was asked once more meanwhile, and sends it
            named_peers = (message.endpoints[place] for place in one.peers)
            chunk.digest, chunk.referrals = one.digest, chunk.referrals + 1
            chunk.holders = [peer for peer in named_peers if self._gains.may_name(held.dataset.origin, peer)]
            named.append(key)
        return self._elsewhere(named, now_s) + self._ask(held.dataset.origin, now_s)

    def peer_failed(self, request: int, nchunk: int | None, now_s: float) -> list[Effect]:
        """A peer refuses a request, or one chunk of it: ask others."""
        held = self._requests.get(request)
        if held is None or held.peer is None or (nchunk is not None and nchunk not in held.missing):
            return []
        if nchunk is None:
            self._requests.drop(request)
        else:
            self._requests.settle(request, nchunk)
            held = replace(held, missing={nchunk})
        return self._give_up(request, held, now_s)

    def request_failed(self, request: int, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin refused a whole request."""
        held = self._requests.drop(request)
        if held is None:
            return []
        self._lines[held.dataset.origin].progress_at_s = now_s
        return [effect for n in sorted(held.missing) for effect in self.refused(held.dataset, n, error, now_s)]

    def unsent(self, request: int, now_s: float) -> None:
        """A request could not leave: keep its chunks at the head of the queue for a moment."""
        held = self._requests.drop(request)
        assert held is not None
        line = self._lines[held.dataset.origin]
        if held.peer is None:
            line.held_until_s = now_s + self._limits.resend_after_s
        else:
            self._peers.failed(held.peer, now_s)
        for nchunk in sorted(held.missing, reverse=True):
            self._chunks[held.dataset, nchunk].requests.discard(request)
            self._under_way.requeue(line, (held.dataset, nchunk))

    def moved(self, origin: Origin, now_s: float) -> list[Effect]:
        """The origin restarted or has another address: what it owed will not come; ask again."""
        line = self._lines.get(origin)
        for key in reversed(self._under_way.asked_of_origin(line)) if line else ():
            self._under_way.forget_requests(key)
            self._under_way.requeue(self._lines[origin], key)
        return self._ask(origin, now_s)

    def away(self, origin: Origin, error: ZcatError) -> list[Effect]:
        """The origin cannot be reached: fail all who wait for it, at once."""
        self._gains.untrack(origin)
        line = self._lines.pop(origin, None)
        if line is None:
            return []
        keys = [key for key in self._chunks if key[0].origin == origin]
        tickets = sorted({ticket for key in keys for ticket in self._chunks.pop(key).tickets})
        self._requests.forget(origin)
        return [effect for ticket in tickets for effect in self._fail(ticket, error)]

    def tick(self, now_s: float) -> list[Effect]:
        """Ask again for what is overdue, and for what could not leave before; tell what is here now."""
        effects: list[Effect] = []
        for origin, line in list(self._lines.items()):
            if line.owed and now_s >= line.progress_at_s + line.patience_s(self._limits.reply_wait_s):
                line.progress_at_s = now_s
                overdue = self._under_way.asked_of_origin(line)
                error = Timeout(f"root {origin[0]}: its publisher owes {len(overdue)} chunks and sends none")
                effects += self._again(overdue, error, now_s)
            effects += self._ask(origin, now_s)
            effects += [Tell(origin, message) for message in self._gains.due(origin, is_time=True)]
        for number, request in self._requests.all():
            if request.peer is not None:
                effects += self._look_at_peer(number, request, now_s)
            elif request.may_refer and not request.bulk:
                effects += self._look_at_origin(request, now_s)
        return effects

    def _note_answer(self, request: Request, now_s: float) -> None:
        """A request made progress."""
        request.progress_at_s = now_s
        if request.peer is None:
            line = self._lines[request.dataset.origin]
            line.progressed(now_s)
            if not request.bulk:
                line.times.take(now_s - request.asked_at_s)

    # -- peers ---------------------------------------------------------------------------------------

    def _elsewhere(self, keys: list[Wanted], now_s: float) -> list[Effect]:
        """Ask the next holder of each chunk; where there is none, queue it for its origin."""
        by_peer: dict[tuple[str, DatasetKey, bool], list[int]] = {}
        for key in keys:
            dataset, nchunk = key
            chunk = self._chunks[key]
            if not chunk.tickets and not chunk.requests:
                self._under_way.settle(key)  # whoever wanted it went away
                continue
            peer = self._next_holder(dataset.origin, chunk, now_s)
            if peer is not None:
                by_peer.setdefault((peer, dataset, chunk.bulk), []).append(nchunk)
                continue
            # nobody waits for a copy: once, its origin may name others
            chunk.is_direct = not chunk.bulk or chunk.referrals >= _REFERRALS_MAX
            self._under_way.requeue(self._lines[dataset.origin], key)
        effects: list[Effect] = []
        for (peer, dataset, bulk), numbers in by_peer.items():
            message = Chunks(dataset.root, dataset.path, dataset.lineage, tuple(numbers), bulk)
            effects.append(
                self._under_way.send(
                    AskChunks(dataset.origin, next(self._request_ids), message, peer), dataset, now_s
                )
            )
        return effects

    def _next_holder(self, origin: Origin, chunk: WantedChunk, now_s: float) -> str | None:
        asked = {held.peer for number in chunk.requests if (held := self._requests.get(number)) is not None}
        while chunk.holders:
            peer = chunk.holders.pop(0)
            if peer not in asked and self._peers.is_usable(origin, peer, now_s):
                return peer
        return None

    def _look_at_peer(self, number: int, request: Request, now_s: float) -> list[Effect]:
        """See whether a peer is late, so that a second one is asked, or so late that nothing is expected of it."""
        assert request.peer is not None
        quiet_s = now_s - request.progress_at_s
        lost_after_s = self._peers.lost_after_s(request.peer)
        if request.is_lost:
            if quiet_s >= _FORGOTTEN_AFTER * lost_after_s:
                self._requests.drop(number)
            return []
        if quiet_s >= lost_after_s:
            request.is_lost = True
            return self._give_up(number, request, now_s)
        if request.bulk or quiet_s < self._peers.late_after_s(request.peer):
            return []  # nobody waits for a copy, and links may be slow because all are busy
        if not request.is_late:
            request.is_late = True
            self._peers.late(request.peer, now_s)
        return self._second([(request.dataset, nchunk) for nchunk in sorted(request.missing)], now_s)

    def _look_at_origin(self, request: Request, now_s: float) -> list[Effect]:
        """See whether somebody waits for too long because an origin waits for a holder: then it shall serve."""
        line = self._lines[request.dataset.origin]
        if now_s - request.asked_at_s < self._peers.late_s(line.times):
            return []
        return self._second([(request.dataset, nchunk) for nchunk in sorted(request.missing)], now_s)

    def _second(self, keys: list[Wanted], now_s: float) -> list[Effect]:
        """Ask for chunks a second time, as far as the budget for that goes: the first answer wins."""
        bytes_max = int(self._limits.credit_bytes * self._limits.second_share)
        chosen: list[Wanted] = []
        for key in keys:
            chunk = self._chunks[key]
            is_alone = len(chunk.requests) == 1 and not chunk.is_queued and not chunk.is_here
            if is_alone and self._lines[key[0].origin].ask_twice(key, chunk.nbytes, bytes_max):
                chosen.append(key)
        if not chosen:
            return []
        self.peer_counters.seconds += len(chosen)
        return self._elsewhere(chosen, now_s) + self._ask(chosen[0][0].origin, now_s)

    def _give_up(self, number: int, request: Request, now_s: float) -> list[Effect]:
        """Ask others for what is missing of a peer's."""
        assert request.peer is not None
        origin = request.dataset.origin
        self._peers.failed(request.peer, now_s)
        self._gains.failed(origin, request.peer)
        self.peer_counters.failures += len(request.missing)
        keys: list[Wanted] = []
        for nchunk in sorted(request.missing):
            chunk = self._chunks.get((request.dataset, nchunk))
            if chunk is not None and number in chunk.requests:
                chunk.requests.discard(number)
                if not chunk.requests and not chunk.is_queued and not chunk.is_here:
                    keys.append((request.dataset, nchunk))
        return self._elsewhere(keys, now_s) + self._ask(origin, now_s)

    # -- the origin ----------------------------------------------------------------------------------

    def _ask(self, origin: Origin, now_s: float) -> list[Effect]:
        line = self._lines.get(origin)
        if line is None or now_s < line.held_until_s:
            return []
        effects: list[Effect] = []
        while batch := line.next_batch(self._chunks, self._limits.credit_bytes, is_begun=bool(effects)):
            if not line.owed:
                line.progress_at_s = now_s
            dataset, first = batch[0][0], self._chunks[batch[0]]
            numbers = tuple(nchunk for _, nchunk in batch)
            bulk = all(self._chunks[key].bulk for key in batch)
            message = Chunks(dataset.root, dataset.path, dataset.lineage, numbers, bulk)
            message = self._gains.request(message, origin, not first.is_direct)
            effects.append(
                self._under_way.send(AskChunks(origin, next(self._request_ids), message), dataset, now_s)
            )
        is_time = bool(effects) or not line.owed
        return [*(Tell(origin, have) for have in self._gains.due(origin, is_time)), *effects]

    # -- one chunk -----------------------------------------------------------------------------------

    def _again(self, keys: list[Wanted], error: ZcatError, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for key in reversed(keys):
            chunk = self._chunks.get(key)
            if chunk is None:
                continue
            self._under_way.forget_requests(key)
            chunk.attempts += 1
            if chunk.attempts >= self._limits.attempts_max:
                for ticket in self._under_way.settle(key):
                    effects += self._fail(ticket, error)
            else:
                self._under_way.requeue(self._lines[key[0].origin], key)
        return effects

    def _fail(self, ticket: int, error: ZcatError) -> list[Effect]:
        if ticket not in self._tickets:
            return []
        self.cancel(ticket)
        return [Resolve(ticket, error)]
