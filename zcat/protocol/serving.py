"""Who is served next: turns a heap of requests into an order that is fair and that bounds memory.

Each peer has its own queues. What somebody waits for goes before copies and prefetches; peers take turns;
and a peer that does not read what it was sent gets no more of it, while all others go on. Sans-IO: jobs go
in, the next job to do comes out, and the shell reports what became of it.
"""

from collections import deque
from dataclasses import dataclass, field

from zcat.errors import Busy
from zcat.limits import MIB

_INTERACTIVE, _BULK = 0, 1

STALLED_S = 1.0
"""A peer that took nothing for so long holds nobody else up."""


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """How much is held for others at a time. What is refused is refused with `Busy`."""

    jobs_per_peer_max: int = 4096
    jobs_max: int = 65536
    peer_bytes_max: int = 32 * MIB
    """Done for a peer and not yet taken by its side of the network."""
    total_bytes_max: int = 256 * MIB
    """The same of all peers."""
    pace_bytes: int = 8 * MIB
    """Of copies, on their way at a time to all peers that take them. If all went out at once, a slow link would be
    shared by all: the first chunk would arrive when the last does, and signs of life behind them."""
    rate_bytes_s: int = 0
    """Done for all together, on average; 0: as much as they take."""
    working_max: int = 4
    """Batches begun and not done: they may go beyond the limits in bytes by ``batch_bytes`` and an answer each."""
    batch_bytes: int = MIB
    """Small answers are made several at a time, as many as make up so much."""
    batch_jobs_max: int = 16


@dataclass(frozen=True, slots=True)
class Job:
    """One answer that a peer is to get."""

    peer: bytes
    """What a ROUTER calls it."""
    id: int
    """Of its request."""
    wanted: object
    """What is to be answered; opaque here."""
    bulk: bool = False


@dataclass(slots=True)
class _Peer:
    queues: tuple[deque[Job], deque[Job]] = field(default_factory=lambda: (deque(), deque()))
    working: int = 0
    held_bytes: int = 0
    moved_at_s: float = 0.0
    """When it last took something, or began to have something to take."""

    @property
    def jobs_count(self) -> int:
        return len(self.queues[_INTERACTIVE]) + len(self.queues[_BULK])


class Serving:
    """The queues of one ROUTER. Belongs to one thread.

    A job goes through `submit`, `next` or `next_batch`, `done` and, when its bytes have left, `left`.
    """

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._peers: dict[bytes, _Peer] = {}
        # Peers with jobs of each kind, in the order of their turns.
        self._turns: tuple[dict[bytes, None], dict[bytes, None]] = ({}, {})
        self._now_s = self._free_at_s = 0.0
        self._holding: dict[bytes, _Peer] = {}  # peers for which something is held
        self._answer_bytes = 0  # of the last answer
        self.jobs_count = 0
        """Waiting."""
        self.working = 0
        """Begun and not done."""
        self.held_bytes = 0
        """Done and not left."""

    def submit(self, jobs: list[Job]) -> None:
        """Queue the jobs of one request of one peer, all or none.

        Raises:
            Busy: a queue is full.
        """
        limits, peer = self._limits, self._peers.get(jobs[0].peer) or _Peer()
        if peer.jobs_count + len(jobs) > limits.jobs_per_peer_max:
            raise Busy(f"{peer.jobs_count} answers are waiting for you, the limit is {limits.jobs_per_peer_max}")
        if self.jobs_count + len(jobs) > limits.jobs_max:
            raise Busy(f"{self.jobs_count} answers are waiting, the limit is {limits.jobs_max}")
        self._peers[jobs[0].peer] = peer
        for job in jobs:
            kind = _BULK if job.bulk else _INTERACTIVE
            peer.queues[kind].append(job)
            self._turns[kind].setdefault(job.peer)
        self.jobs_count += len(jobs)

    def next(self, now_s: float = 0.0) -> Job | None:
        """Give the job to begin now; None when there is none, or none for which there is room."""
        self._now_s = max(now_s, self._now_s)
        if self.pause_s(self._now_s):
            return None
        free_bytes = self._limits.total_bytes_max - self.held_bytes
        if self.working >= self._limits.working_max * self._batch_max() or free_bytes <= 0:
            return None
        # The more is held, the less each may hold: readers that have stopped then never take all there is.
        share_bytes = min(self._limits.peer_bytes_max, free_bytes)
        for kind in (_INTERACTIVE, _BULK):
            if kind == _BULK and self._turns[kind] and self._is_at_pace():
                return None
            for name in self._turns[kind]:
                peer = self._peers[name]
                if peer.held_bytes < share_bytes:
                    return self._begin(name, peer, kind)
        return None

    def next_batch(self, now_s: float = 0.0) -> list[Job]:
        """Give the jobs to begin now, together: one, or several if answers have been small lately.

        Whoever finds that their answers make up more than ``batch_bytes`` does not go on, and puts the rest back.

        PERF: a job that is handed to a thread by itself costs both sides a wait for the interpreter's lock, which
        is more than what reading 64 KB takes.
        """
        batch: list[Job] = []
        for _ in range(self._batch_max()):
            job = self.next(now_s)
            if job is None:
                break
            batch.append(job)
        return batch

    def put_back(self, job: Job) -> None:
        """Say that ``job`` was not begun after all; it is the next of its peer."""
        kind, peer = (_BULK if job.bulk else _INTERACTIVE), self._peers[job.peer]
        peer.queues[kind].appendleft(job)
        self._turns[kind].setdefault(job.peer)
        peer.working -= 1
        self.working -= 1
        self.jobs_count += 1

    def done(self, job: Job, nbytes: int) -> None:
        """Say that ``job`` has its answer, of ``nbytes``, which are held until `left`."""
        self.working -= 1
        self.held_bytes += nbytes
        if self._limits.rate_bytes_s:
            self._free_at_s = max(self._free_at_s, self._now_s) + nbytes / self._limits.rate_bytes_s
        self._answer_bytes = nbytes
        peer = self._peers[job.peer]
        peer.working -= 1
        if not peer.held_bytes:
            peer.moved_at_s = self._now_s
        peer.held_bytes += nbytes
        if nbytes:
            self._holding[job.peer] = peer
        self._forget_if_idle(job.peer, peer)

    def pause_s(self, now_s: float) -> float:
        """Say how long no job may begin, so that the rate is kept."""
        return max(0.0, self._free_at_s - now_s) if self.jobs_count else 0.0

    def left(self, name: bytes, nbytes: int, now_s: float = 0.0) -> None:
        """Say that ``nbytes`` for a peer are no longer held: sent, or given up."""
        self._now_s = max(now_s, self._now_s)
        self.held_bytes -= nbytes
        peer = self._peers.get(name)
        if peer is None:
            return  # nothing of it was held any more
        peer.held_bytes -= nbytes
        peer.moved_at_s = self._now_s
        if not peer.held_bytes:
            self._holding.pop(name, None)
        self._forget_if_idle(name, peer)

    def drop(self, name: bytes) -> int:
        """Forget what a peer still waits for, since it is gone; give how many jobs these were."""
        peer = self._peers.get(name)
        if peer is None:
            return 0
        count = peer.jobs_count
        self.jobs_count -= count
        for kind in (_INTERACTIVE, _BULK):
            peer.queues[kind].clear()
            self._turns[kind].pop(name, None)
        self._forget_if_idle(name, peer)
        return count

    @property
    def peers_count(self) -> int:
        """Peers for which something waits, is being done, or is held."""
        return len(self._peers)

    # -- private -------------------------------------------------------------------------------------

    def _batch_max(self) -> int:
        limits = self._limits
        return min(max(1, limits.batch_bytes // (self._answer_bytes or limits.batch_bytes)), limits.batch_jobs_max)

    def _is_at_pace(self) -> bool:
        """Say whether so much is on its way that another copy would only make all of it slower."""
        since_s = self._now_s - STALLED_S
        moving = (peer.held_bytes for peer in self._holding.values() if peer.moved_at_s >= since_s)
        moving_bytes = sum(moving) + self.working * self._answer_bytes
        return moving_bytes > 0 and moving_bytes + self._answer_bytes > self._limits.pace_bytes

    def _begin(self, name: bytes, peer: _Peer, kind: int) -> Job:
        job = peer.queues[kind].popleft()
        del self._turns[kind][name]
        if peer.queues[kind]:
            self._turns[kind][name] = None  # its next turn comes after everybody else's
        peer.working += 1
        self.working += 1
        self.jobs_count -= 1
        return job

    def _forget_if_idle(self, name: bytes, peer: _Peer) -> None:
        if not peer.jobs_count and not peer.working and not peer.held_bytes:
            del self._peers[name]
