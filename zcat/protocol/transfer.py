"""Machine: fetch chunks from the origins of datasets.

Each chunk is asked for once, however many readers wait for it. What is asked for and has not come is
bounded in bytes for each origin (its credit); what somebody waits for goes before what is only copied. A
chunk that does not come, or comes damaged, is asked for again a few times. Readers hold *tickets*: a ticket
resolves when all of its chunks are stored, or with the first error that is final.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from zcat.errors import Busy, Timeout, ZcatError
from zcat.limits import CHUNKS_PER_REQUEST_MAX, MIB
from zcat.protocol.messages import Chunks

Origin = tuple[str, str]
"""(root, owner): whom chunks are asked of."""


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """One lineage of one dataset of one origin."""

    root: str
    owner: str
    path: str
    lineage: str

    @property
    def origin(self) -> Origin:
        """Whom to ask."""
        return self.root, self.owner


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """What a transfer may hold, and how patient it is."""

    credit_bytes: int = 32 * MIB
    """Asked of one origin and not yet stored; at least one chunk is always allowed."""
    reply_wait_s: float = 5.0
    """Without any chunk from an origin for so long, what it owes is asked for again."""
    attempts_max: int = 3
    resend_after_s: float = 0.05
    """When a request could not leave (no connection yet)."""
    wanted_chunks_max: int = 1 << 20
    """Beyond, new readers are refused."""


@dataclass(frozen=True, slots=True)
class AskChunks:
    """Effect: send this to the origin; if it cannot leave, tell `Transfer.unsent`."""

    origin: Origin
    request: int
    message: Chunks


@dataclass(frozen=True, slots=True)
class Resolve:
    """Effect: the ticket is fulfilled, or failed with ``error``."""

    ticket: int
    error: ZcatError | None


Effect = AskChunks | Resolve
Wanted = tuple[DatasetKey, int]


@dataclass(slots=True)
class _Chunk:
    """A chunk that somebody waits for."""

    nbytes: int
    """Guess of its compressed size while it is asked for."""
    tickets: set[int] = field(default_factory=set)
    bulk: bool = True
    request: int | None = None
    """The request that it was asked in; None while it is queued."""
    attempts: int = 0


@dataclass(slots=True)
class _Line:
    """One origin: what waits to be asked of it, and what it owes."""

    urgent: deque[Wanted] = field(default_factory=deque)
    bulk: deque[Wanted] = field(default_factory=deque)
    owed: dict[Wanted, None] = field(default_factory=dict)
    owed_bytes: int = 0
    progress_at_s: float = 0.0
    held_until_s: float = 0.0


class Transfer:
    """All chunks on their way to this process."""

    def __init__(self, limits: TransferLimits | None = None, requests: Iterator[int] | None = None) -> None:
        self._limits = limits or TransferLimits()
        self._request_ids = requests or itertools.count(1)
        self._chunks: dict[Wanted, _Chunk] = {}
        self._tickets: dict[int, set[Wanted]] = {}
        self._lines: dict[Origin, _Line] = {}
        self._requests: dict[int, tuple[DatasetKey, set[int]]] = {}
        self._next_ticket = 1

    @property
    def wanted_count(self) -> int:
        """Chunks that are queued, asked for or being stored."""
        return len(self._chunks)

    @property
    def owed_bytes(self) -> int:
        """Bytes asked for and not yet stored, of all origins."""
        return sum(line.owed_bytes for line in self._lines.values())

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
        line = self._lines.setdefault(dataset.origin, _Line(progress_at_s=now_s))
        for key in sorted(wanted, key=lambda key: key[1]):
            chunk = self._chunks.get(key)
            if chunk is None:
                chunk = self._chunks[key] = _Chunk(max(1, chunk_bytes))
                (line.bulk if bulk else line.urgent).append(key)
            elif chunk.bulk and not bulk and chunk.request is None:
                line.urgent.append(key)  # its place in the other queue is skipped when it comes up there
            chunk.bulk = chunk.bulk and bulk
            chunk.tickets.add(ticket)
        return ticket, self._ask(dataset.origin, now_s)

    def cancel(self, ticket: int) -> None:
        """Close a ticket whose reader went away; chunks that nobody else wants are not asked for any more."""
        for key in self._tickets.pop(ticket, ()):
            chunk = self._chunks.get(key)
            if chunk is not None:
                chunk.tickets.discard(ticket)
                if not chunk.tickets and chunk.request is None:
                    del self._chunks[key]

    def arrived(self, request: int, nchunk: int, now_s: float) -> DatasetKey | None:
        """Say which dataset a chunk that came belongs to; None when it is no longer waited for."""
        dataset, missing = self._requests.get(request, (None, set[int]()))
        if dataset is None or nchunk not in missing:
            return None
        missing.discard(nchunk)
        if not missing:
            del self._requests[request]
        self._lines[dataset.origin].progress_at_s = now_s
        return dataset

    def waiting(self, dataset: DatasetKey, nchunk: int) -> frozenset[int]:
        """Give the tickets that wait for a chunk."""
        chunk = self._chunks.get((dataset, nchunk))
        return frozenset(chunk.tickets) if chunk else frozenset()

    def stored(self, dataset: DatasetKey, nchunk: int, now_s: float) -> list[Effect]:
        """A chunk that arrived is in its place (or handed to its readers, where there is no place)."""
        effects: list[Effect] = []
        for ticket in self._settle((dataset, nchunk)):
            missing = self._tickets[ticket]
            missing.discard((dataset, nchunk))
            if not missing:
                del self._tickets[ticket]
                effects.append(Resolve(ticket, None))
        return effects + self._ask(dataset.origin, now_s)

    def refused(self, dataset: DatasetKey, nchunk: int, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin says that there is no such chunk any more: final for all who wait for it."""
        effects: list[Effect] = []
        for ticket in self._settle((dataset, nchunk)):
            effects += self._fail(ticket, error)
        return effects + self._ask(dataset.origin, now_s)

    def damaged(self, dataset: DatasetKey, nchunk: int, error: ZcatError, now_s: float) -> list[Effect]:
        """A chunk came and is not what it should be: ask again, a few times."""
        return self._again([(dataset, nchunk)], error, now_s) + self._ask(dataset.origin, now_s)

    def is_owed(self, request: int, origin: Origin) -> bool:
        """Say whether an origin still owes something on a request; nobody else can answer it."""
        return request in self._requests and self._requests[request][0].origin == origin

    def request_failed(self, request: int, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin refused a whole request."""
        dataset, missing = self._requests.pop(request, (None, set[int]()))
        if dataset is None:
            return []
        self._lines[dataset.origin].progress_at_s = now_s
        return [effect for nchunk in sorted(missing) for effect in self.refused(dataset, nchunk, error, now_s)]

    def unsent(self, request: int, now_s: float) -> None:
        """A request could not leave: keep its chunks at the head of the queue for a moment."""
        dataset, missing = self._requests.pop(request)
        line = self._lines[dataset.origin]
        line.held_until_s = now_s + self._limits.resend_after_s
        for nchunk in sorted(missing, reverse=True):
            self._requeue(line, (dataset, nchunk))

    def moved(self, origin: Origin, now_s: float) -> list[Effect]:
        """The origin restarted or has another address: what it owed will not come; ask again."""
        line = self._lines.get(origin)
        if line is None:
            return []
        for key in reversed([key for key in line.owed if self._is_asked(key)]):
            self._forget_request(key)
            self._requeue(line, key)
        return self._ask(origin, now_s)

    def away(self, origin: Origin, error: ZcatError) -> list[Effect]:
        """The origin cannot be reached: fail all who wait for it, at once."""
        line = self._lines.pop(origin, None)
        if line is None:
            return []
        keys = [key for key in self._chunks if key[0].origin == origin]
        tickets = sorted({ticket for key in keys for ticket in self._chunks.pop(key).tickets})
        self._requests = {id: held for id, held in self._requests.items() if held[0].origin != origin}
        return [effect for ticket in tickets for effect in self._fail(ticket, error)]

    def tick(self, now_s: float) -> list[Effect]:
        """Ask again for what is overdue, and for what could not leave before."""
        effects: list[Effect] = []
        for origin, line in list(self._lines.items()):
            if line.owed and now_s >= line.progress_at_s + self._limits.reply_wait_s:
                line.progress_at_s = now_s
                overdue = [key for key in line.owed if self._is_asked(key)]
                error = Timeout(f"root {origin[0]}: its publisher owes {len(overdue)} chunks and sends none")
                effects += self._again(overdue, error, now_s)
            effects += self._ask(origin, now_s)
        return effects

    def _is_asked(self, key: Wanted) -> bool:
        """Tell a chunk that is owed from one that came and is being stored."""
        request = self._chunks[key].request
        held = self._requests.get(request) if request is not None else None
        return held is not None and key[1] in held[1]

    def _ask(self, origin: Origin, now_s: float) -> list[Effect]:
        line = self._lines.get(origin)
        if line is None or now_s < line.held_until_s:
            return []
        credit = self._limits.credit_bytes
        # whole batches: with small chunks, a request for each one that is stored would cost more than the chunk
        if line.owed and credit - line.owed_bytes < credit // 4:
            return []
        effects: list[Effect] = []
        while batch := self._next_batch(line):
            request = next(self._request_ids)
            dataset = batch[0][0]
            if not line.owed:
                line.progress_at_s = now_s
            for key in batch:
                chunk = self._chunks[key]
                chunk.request = request
                line.owed[key] = None
                line.owed_bytes += chunk.nbytes
            numbers = tuple(nchunk for _, nchunk in batch)
            bulk = all(self._chunks[key].bulk for key in batch)
            self._requests[request] = dataset, set(numbers)
            message = Chunks(dataset.root, dataset.path, dataset.lineage, numbers, bulk)
            effects.append(AskChunks(origin, request, message))
        return effects

    def _next_batch(self, line: _Line) -> list[Wanted]:
        """Take queued chunks of one dataset, as many as the credit allows."""
        batch: dict[Wanted, None] = {}
        room = self._limits.credit_bytes - line.owed_bytes
        for queue in (line.urgent, line.bulk):
            while queue and len(batch) < CHUNKS_PER_REQUEST_MAX:
                key = queue[0]
                chunk = self._chunks.get(key)
                if chunk is None or chunk.request is not None:
                    queue.popleft()  # cancelled, or asked for from the other queue
                    continue
                if batch and key[0] != next(iter(batch))[0]:
                    return list(batch)
                if chunk.nbytes > room and (line.owed or batch):
                    return list(batch)
                queue.popleft()
                if key not in batch:
                    batch[key] = None
                    room -= chunk.nbytes
        return list(batch)

    def _settle(self, key: Wanted) -> list[int]:
        """Forget a chunk; give the tickets that waited for it."""
        chunk = self._chunks.pop(key, None)
        if chunk is None:
            return []
        self._release(key, chunk)
        return sorted(chunk.tickets)

    def _release(self, key: Wanted, chunk: _Chunk) -> None:
        line = self._lines.get(key[0].origin)
        if line is not None and key in line.owed:
            del line.owed[key]
            line.owed_bytes -= chunk.nbytes

    def _requeue(self, line: _Line, key: Wanted) -> None:
        chunk = self._chunks.get(key)
        if chunk is None:
            return
        self._release(key, chunk)
        chunk.request = None
        if chunk.tickets:
            (line.bulk if chunk.bulk else line.urgent).appendleft(key)
        else:
            del self._chunks[key]

    def _forget_request(self, key: Wanted) -> None:
        request = self._chunks[key].request
        held = self._requests.get(request) if request is not None else None
        if request is not None and held is not None:
            held[1].discard(key[1])
            if not held[1]:
                del self._requests[request]

    def _again(self, keys: list[Wanted], error: ZcatError, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for key in reversed(keys):
            chunk = self._chunks.get(key)
            if chunk is None:
                continue
            self._forget_request(key)
            chunk.attempts += 1
            if chunk.attempts >= self._limits.attempts_max:
                for ticket in self._settle(key):
                    effects += self._fail(ticket, error)
            else:
                self._requeue(self._lines[key[0].origin], key)
        return effects

    def _fail(self, ticket: int, error: ZcatError) -> list[Effect]:
        if ticket not in self._tickets:
            return []
        self.cancel(ticket)
        return [Resolve(ticket, error)]
