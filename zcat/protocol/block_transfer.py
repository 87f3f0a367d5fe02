"""Machine: fetch parts of chunks from the origins of datasets.

A smaller sister of `Transfer`: its unit is a part, some blocks of one chunk. A block that is on its way already is
not asked for again; what a slice needs of many chunks leaves in one request, if there is credit; what somebody
waits for goes before what is prefetched. Parts come from the origin alone, since no digest of a chunk covers them.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zcat.errors import Busy, Timeout, ZcatError
from zcat.limits import BLOCKS_PER_REQUEST_MAX, CHUNKS_PER_REQUEST_MAX, MIB
from zcat.protocol.block_messages import Blocks, Part
from zcat.protocol.transfer import DatasetKey, Origin


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """What may be under way, and how patient one is."""

    credit_bytes: int = 8 * MIB
    """Asked of one origin and not yet stored; one request is always allowed."""
    reply_wait_s: float = 5.0
    """Without any part from an origin for so long, what it owes is asked for again."""
    attempts_max: int = 3
    resend_after_s: float = 0.02
    """When a request could not leave (no connection yet)."""
    parts_max: int = 1 << 16
    """Beyond, new readers are refused."""


@dataclass(frozen=True, slots=True)
class WantedPart:
    """Blocks of one chunk that are to come."""

    part: Part
    nbytes: int
    """A guess of what comes."""


@dataclass(frozen=True, slots=True)
class AskBlocks:
    """Effect: send this to the origin; if it cannot leave, tell `BlockTransfer.unsent`."""

    origin: Origin
    request: int
    message: Blocks


@dataclass(frozen=True, slots=True)
class BlocksDone:
    """Effect: the ticket is fulfilled, or failed with ``error``."""

    ticket: int
    error: ZcatError | None


Effect = AskBlocks | BlocksDone
Place = tuple[DatasetKey, int]


@dataclass(slots=True, eq=False)
class Coming:
    """A part that somebody waits for."""

    dataset: DatasetKey
    wanted: WantedPart
    bulk: bool
    tickets: set[int] = field(default_factory=set)
    request: int | None = None
    """The request that it was asked in; None while it is queued, or when it has come and is being stored."""
    attempts: int = 0

    @property
    def place(self) -> Place:
        """Whose part it is."""
        return self.dataset, self.wanted.part.nchunk


@dataclass(slots=True)
class _Line:
    """One origin: what waits to be asked of it, and what it owes."""

    urgent: deque[Coming] = field(default_factory=deque)
    bulk: deque[Coming] = field(default_factory=deque)
    owed: dict[Coming, None] = field(default_factory=dict)
    owed_bytes: int = 0
    progress_at_s: float = 0.0
    held_until_s: float = 0.0

    def owe(self, coming: Coming) -> None:
        self.owed[coming] = None
        self.owed_bytes += coming.wanted.nbytes

    def release(self, coming: Coming) -> None:
        if coming in self.owed:
            del self.owed[coming]
            self.owed_bytes -= coming.wanted.nbytes


def batches(parts: Sequence[WantedPart]) -> Iterator[list[WantedPart]]:
    """Cut a list of parts into such as fit one request."""
    batch: list[WantedPart] = []
    count = 0
    for wanted in parts:
        count += len(wanted.part.blocks)
        if batch and (len(batch) == CHUNKS_PER_REQUEST_MAX or count > BLOCKS_PER_REQUEST_MAX):
            yield batch
            batch, count = [], len(wanted.part.blocks)
        batch.append(wanted)
    if batch:
        yield batch


class BlockTransfer:
    """All parts of chunks on their way to this process. Belongs to one thread."""

    def __init__(self, limits: BlockLimits | None = None, requests: Iterator[int] | None = None) -> None:
        self._limits = limits or BlockLimits()
        self._request_ids = requests or itertools.count(1)
        self._places: dict[Place, list[Coming]] = {}
        self._tickets: dict[int, set[Coming]] = {}
        self._requests: dict[int, dict[int, Coming]] = {}
        self._lines: dict[Origin, _Line] = {}
        self._next_ticket = 1

    @property
    def parts_count(self) -> int:
        """Parts that are queued, asked for or being stored."""
        return sum(map(len, self._places.values()))

    def want(
        self, dataset: DatasetKey, parts: Sequence[WantedPart], bulk: bool, now_s: float
    ) -> tuple[int, list[Effect]]:
        """Open a ticket for parts of chunks.

        Args:
            dataset: whose chunks.
            parts: at least one; at most one of each chunk.
            bulk: nobody waits for them.
            now_s: the time.

        Returns:
            The ticket and what to do.

        Raises:
            Busy: too much is wanted already.
        """
        assert parts
        if self.parts_count + len(parts) > self._limits.parts_max:
            raise Busy(
                f"parts of {self.parts_count} chunks are being fetched, the limit is {self._limits.parts_max}"
            )
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        waits = self._tickets[ticket] = set()
        line = self._lines.setdefault(dataset.origin, _Line(progress_at_s=now_s))
        for wanted in parts:
            waits.update(self._join(dataset, wanted, bulk, line))
        for coming in waits:
            coming.tickets.add(ticket)
        return ticket, self._ask(dataset.origin, now_s)

    def cancel(self, ticket: int) -> None:
        """Close a ticket whose reader went away; what is not asked for yet is not asked for any more."""
        for coming in self._tickets.pop(ticket, ()):
            coming.tickets.discard(ticket)
            line = self._lines.get(coming.dataset.origin)
            if not coming.tickets and (line is None or coming not in line.owed):
                self._forget(coming)  # its place in the queue is skipped when it comes up

    def is_owed(self, request: int, origin: Origin) -> bool:
        """Say whether an origin still owes something on a request; nobody else can answer it."""
        return any(coming.dataset.origin == origin for coming in self._requests.get(request, {}).values())

    def arrived(self, request: int, nchunk: int, now_s: float) -> Coming | None:
        """Give the part that an answer is about; None when it is no longer waited for."""
        coming = self._requests.get(request, {}).pop(nchunk, None)
        if coming is None:
            return None
        if not self._requests[request]:
            del self._requests[request]
        coming.request = None
        self._lines[coming.dataset.origin].progress_at_s = now_s
        return coming

    def stored(self, coming: Coming, now_s: float) -> list[Effect]:
        """A part that arrived is in its place."""
        effects: list[Effect] = []
        for ticket in self._settle(coming):
            waits = self._tickets[ticket]
            waits.discard(coming)
            if not waits:
                del self._tickets[ticket]
                effects.append(BlocksDone(ticket, None))
        return effects + self._ask(coming.dataset.origin, now_s)

    def refused(self, coming: Coming, error: ZcatError, now_s: float) -> list[Effect]:
        """A part cannot be had, or not be kept: final for all who wait for it."""
        effects = [effect for ticket in self._settle(coming) for effect in self._fail(ticket, error)]
        return effects + self._ask(coming.dataset.origin, now_s)

    def damaged(self, coming: Coming, error: ZcatError, now_s: float) -> list[Effect]:
        """A part came and is not what it should be: ask again, a few times."""
        return self._again([coming], error) + self._ask(coming.dataset.origin, now_s)

    def request_failed(self, request: int, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin refused a whole request."""
        owed = self._requests.pop(request, {})
        effects: list[Effect] = []
        for coming in owed.values():
            coming.request = None
            effects += self.refused(coming, error, now_s)
        return effects

    def unsent(self, request: int, now_s: float) -> None:
        """A request could not leave: keep its parts at the head of the queue for a moment."""
        for coming in reversed(self._requests.pop(request).values()):
            self._lines[coming.dataset.origin].held_until_s = now_s + self._limits.resend_after_s
            self._requeue(coming)

    def moved(self, origin: Origin, now_s: float) -> list[Effect]:
        """The origin restarted or has another address: what it owed will not come; ask again."""
        for coming in reversed(self._asked(origin)):
            self._take_back(coming)
            self._requeue(coming)
        return self._ask(origin, now_s)

    def away(self, origin: Origin, error: ZcatError) -> list[Effect]:
        """The origin cannot be reached: fail all who wait for it, at once."""
        line = self._lines.pop(origin, None)
        if line is None:
            return []
        lost = [coming for held in self._places.values() for coming in held if coming.dataset.origin == origin]
        tickets = sorted({ticket for coming in lost for ticket in coming.tickets})
        for coming in lost:
            self._take_back(coming)
            self._forget(coming)
        return [effect for ticket in tickets for effect in self._fail(ticket, error)]

    def tick(self, now_s: float) -> list[Effect]:
        """Ask again for what is overdue, and for what could not leave before."""
        effects: list[Effect] = []
        for origin, line in list(self._lines.items()):
            if line.owed and now_s >= line.progress_at_s + self._limits.reply_wait_s:
                line.progress_at_s = now_s
                overdue = self._asked(origin)
                error = Timeout(f"root {origin[0]}: its publisher owes parts of {len(overdue)} chunks, sends none")
                effects += self._again(overdue, error)
            effects += self._ask(origin, now_s)
        return effects

    # -- private -------------------------------------------------------------------------------------

    def _join(self, dataset: DatasetKey, wanted: WantedPart, bulk: bool, line: _Line) -> list[Coming]:
        """Give the parts to wait for: those that are coming already, and a new one for what is left."""
        part, joined = wanted.part, []
        left, is_vouched = set(part.blocks), False
        for coming in self._places.get((dataset, part.nchunk), ()):
            theirs = coming.wanted.part
            is_vouched = is_vouched or theirs.vouch
            if not left.isdisjoint(theirs.blocks) or (part.vouch and theirs.vouch):
                left.difference_update(theirs.blocks)
                joined.append(coming)
                if coming.bulk and not bulk and coming not in line.owed:
                    coming.bulk = False
                    line.urgent.append(coming)  # its place in the other queue is skipped when it comes up there
        if left or (part.vouch and not is_vouched):
            share = max(1, wanted.nbytes * len(left) // max(1, len(part.blocks)))
            fresh = Coming(dataset, WantedPart(Part(part.nchunk, tuple(sorted(left)), part.vouch), share), bulk)
            self._places.setdefault(fresh.place, []).append(fresh)
            (line.bulk if bulk else line.urgent).append(fresh)
            joined.append(fresh)
        return joined

    def _ask(self, origin: Origin, now_s: float) -> list[Effect]:
        line = self._lines.get(origin)
        if line is None or now_s < line.held_until_s:
            return []
        effects: list[Effect] = []
        while batch := self._next_batch(line):
            request = next(self._request_ids)
            if not line.owed:
                line.progress_at_s = now_s
            for coming in batch:
                coming.request = request
                line.owe(coming)
            self._requests[request] = {coming.wanted.part.nchunk: coming for coming in batch}
            key = batch[0].dataset
            parts = tuple(coming.wanted.part for coming in batch)
            effects.append(
                AskBlocks(origin, request, Blocks(key.root, key.path, key.lineage, parts, batch[0].bulk))
            )
        return effects

    def _next_batch(self, line: _Line) -> list[Coming]:
        """Take queued parts of one dataset, as many as the credit and a request allow."""
        batch: dict[int, Coming] = {}
        room = self._limits.credit_bytes - line.owed_bytes
        blocks_count = 0
        for queue in (line.urgent, line.bulk):
            while queue and len(batch) < CHUNKS_PER_REQUEST_MAX:
                coming = queue[0]
                part, first = coming.wanted.part, next(iter(batch.values()), coming)
                if not self._is_queued(coming):
                    queue.popleft()  # cancelled, or asked for from the other queue
                    continue
                blocks_count += len(part.blocks)
                fits = coming.wanted.nbytes <= room or not (line.owed or batch)
                goes_along = first.dataset == coming.dataset and first.bulk == coming.bulk
                if not fits or not goes_along or part.nchunk in batch or blocks_count > BLOCKS_PER_REQUEST_MAX:
                    return list(batch.values())
                batch[part.nchunk] = queue.popleft()
                room -= coming.wanted.nbytes
        return list(batch.values())

    def _is_queued(self, coming: Coming) -> bool:
        line = self._lines[coming.dataset.origin]
        return coming in self._places.get(coming.place, ()) and coming not in line.owed

    def _asked(self, origin: Origin) -> list[Coming]:
        """Give what an origin owes, but for what has come and is being stored."""
        line = self._lines.get(origin)
        return [coming for coming in line.owed if coming.request is not None] if line else []

    def _take_back(self, coming: Coming) -> None:
        """Expect no answer to the request of a part any more."""
        owed = self._requests.get(coming.request) if coming.request is not None else None
        if coming.request is not None and owed is not None:
            del owed[coming.wanted.part.nchunk]
            if not owed:
                del self._requests[coming.request]
        coming.request = None

    def _requeue(self, coming: Coming) -> None:
        line = self._lines[coming.dataset.origin]
        line.release(coming)
        coming.request = None
        if coming.tickets:
            (line.bulk if coming.bulk else line.urgent).appendleft(coming)
        else:
            self._forget(coming)

    def _again(self, comings: list[Coming], error: ZcatError) -> list[Effect]:
        effects: list[Effect] = []
        for coming in reversed(comings):
            if coming not in self._places.get(coming.place, ()):
                continue  # it came, and its origin went away while it was checked
            self._take_back(coming)
            coming.attempts += 1
            if coming.attempts >= self._limits.attempts_max:
                for ticket in self._settle(coming):
                    effects += self._fail(ticket, error)
            else:
                self._requeue(coming)
        return effects

    def _settle(self, coming: Coming) -> list[int]:
        """Forget a part; give the tickets that waited for it."""
        line = self._lines.get(coming.dataset.origin)
        if line is not None:
            line.release(coming)
        self._forget(coming)
        return sorted(coming.tickets)

    def _forget(self, coming: Coming) -> None:
        held = self._places.get(coming.place, [])
        if coming in held:
            held.remove(coming)
        if not held:
            self._places.pop(coming.place, None)

    def _fail(self, ticket: int, error: ZcatError) -> list[Effect]:
        if ticket not in self._tickets:
            return []
        self.cancel(ticket)
        return [BlocksDone(ticket, error)]
