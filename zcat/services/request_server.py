"""Answer requests on a ROUTER: the shell of ``protocol.serving``.

Requests become jobs, jobs are done in the order that `Serving` decides, on the loop if the answer is at hand
and by a worker if it has to be read, and each answer is sent when its peer has room for it. Bytes count as held
until ZeroMQ has let go of them, so that a peer that stopped reading costs a bounded amount of memory and
nobody's time.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

from zcat.errors import BadMessage, BadRequest, Busy, VerbUnknown, ZcatError
from zcat.net.loop import Loop, Timer
from zcat.net.sockets import Socket
from zcat.net.wire import Part, Parts, Sent, Unsent, send
from zcat.protocol import envelope
from zcat.protocol.block_messages import Blocks
from zcat.protocol.messages import ChunkReply, Chunks, Failed, Message, Ping, Pong, decode, encode
from zcat.protocol.serving import Job, Serving, ServingLimits
from zcat.protocol.status_messages import Status, StatusPage
from zcat.protocol.swarm_messages import Have
from zcat.services.workers import Workers, hand_over

RETRY_S = 0.001
"""While jobs wait for room: ZeroMQ has no way to say that a ROUTER's peer has some."""

BATCH_S = 0.002
"""What takes longer to read is handed over before more is begun."""

SWEEP_S = 1.0
"""While nothing waits: how soon a peer that has taken everything is forgotten."""

log = logging.getLogger(__name__)


class Answerer(Protocol):
    """What knows the answers. All but `read` are called on the loop's thread, and must not wait."""

    def pong(self) -> Pong:
        """Say who answers."""

    def admit(self, message: Message) -> None:
        """Raise the error that answers the whole request, if there is one."""

    def at_hand(self, message: Message) -> Message | None:
        """Answer from memory; None if something has to be read."""

    def read(self, message: Message, nchunk: int | None) -> Message:
        """Answer with what has to be read: of `Chunks` and `Blocks`, chunk ``nchunk``. Called by a worker."""


class Tracked(Protocol):
    """What sends readers to one another (``services.tracking``). All on the loop's thread."""

    def heard(self, peer: bytes) -> None:
        """Take a sign of life."""

    def have(self, peer: bytes, message: Have) -> None:
        """Take what a reader says that it holds."""

    def asked(self, peer: bytes, request: int, message: Chunks) -> None:
        """Take a request, and answer all of it through `RequestServer.say` and `RequestServer.submit`."""

    def answered(self, peer: bytes, message: Chunks, nchunk: int, answer: Message) -> None:
        """Take what a chunk of a request was answered with."""

    def gone(self, peer: bytes) -> None:
        """Somebody is not connected any more."""


@dataclass(slots=True)
class RequestCounters:
    """What was asked and answered since the start. Any thread may read it."""

    requests: int = 0
    answers: int = 0
    answers_bytes: int = 0
    chunks: int = 0
    chunks_bytes: int = 0
    failures: int = 0
    refused_busy: int = 0
    peers_lost: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    route: list[Part]
    message: Message
    nchunk: int | None = None


@dataclass(slots=True)
class _Outgoing:
    """What one peer has not taken yet."""

    waiting: deque[Sequence[Part]] = field(default_factory=deque)
    """Answers for which ZeroMQ has no room."""
    unsent: Unsent = field(default_factory=Unsent)
    counted_bytes: int = 0
    """What `Serving` was told and not told back."""


class RequestServer:
    """Answers the requests of one ROUTER. Lives on the loop's thread."""

    def __init__(
        self, loop: Loop, router: Socket, answerer: Answerer, workers: Workers, limits: ServingLimits
    ) -> None:
        """Take over a bound ROUTER, before the loop is started."""
        self.counters = RequestCounters()
        self.tracking: Tracked | None = None
        """To be set before the loop is started, if at all."""
        self.on_status: Callable[[Status], StatusPage] | None = None
        """Answers `Status`, as soon as it comes."""
        self._loop = loop
        self._router = router
        self._answerer = answerer
        self._workers = workers
        self._serving = Serving(limits)
        self._batch_bytes = limits.batch_bytes
        self._outgoing: dict[bytes, _Outgoing] = {}
        self._timer: Timer | None = None
        loop.register(router, self._receive)

    @property
    def held_bytes(self) -> int:
        """Answers that are held for peers, as of the last count."""
        return self._serving.held_bytes

    @property
    def jobs_count(self) -> int:
        """Answers that wait for their turn."""
        return self._serving.jobs_count

    def say(self, peer: bytes, message: Message, id: int) -> None:
        """Send something small at once; a peer that has no room for it will ask again."""
        self._say([peer], message, id)

    def submit(self, peer: bytes, message: Chunks, id: int) -> None:
        """Answer a request, or a part of one, in its turn."""
        try:
            self._serving.submit(self._jobs([peer], message, id))
        except Busy as error:
            self.counters.refused_busy += 1
            self.counters.failures += 1
            for nchunk in message.chunks:
                self._say([peer], Failed(error.code, error.message, nchunk), id)
        self._pump()

    def waiting(self) -> dict[str, int]:
        """Give what operators see of what is held."""
        return {"jobs_waiting": self.jobs_count, "held_bytes": self.held_bytes}

    # -- requests ------------------------------------------------------------------------------------

    def _receive(self, parts: Parts) -> None:
        self.counters.requests += 1
        route, frames = envelope.split(cast("list[bytes]", parts))
        try:
            received = decode(frames)
        except BadMessage as error:
            id = error.request if isinstance(error, VerbUnknown) else 0
            self._say(list(route), Failed(error.code, error.message), id)
            raise  # to be counted and logged
        message: Message = received.message
        if isinstance(message, Failed):
            return  # an answer to an answer would be the first of many
        if isinstance(message, Ping):
            if self.tracking is not None:
                self.tracking.heard(bytes(route[0]))
            self._say(list(route), self._answerer.pong(), received.id)
            return
        if isinstance(message, Status) and self.on_status is not None:
            self._say(list(route), self._status(message), received.id)
            return
        try:
            if self.tracking is not None and isinstance(message, Have):
                self.tracking.have(bytes(route[0]), message)
                return
            self._answerer.admit(message)
            if self.tracking is not None and isinstance(message, Chunks) and len(route) == 1:
                self.tracking.asked(bytes(route[0]), received.id, message)
                return
            self._serving.submit(self._jobs(list(route), message, received.id))
        except ZcatError as error:
            self.counters.refused_busy += isinstance(error, Busy)
            self.counters.failures += 1
            self._say(list(route), Failed(error.code, error.message), received.id)
            return
        self._pump()

    def _status(self, message: Status) -> Message:
        assert self.on_status is not None
        try:
            return self.on_status(message)
        except ZcatError as error:
            return Failed(error.code, error.message)

    def _jobs(self, route: list[Part], message: Message, id: int) -> list[Job]:
        peer = bytes(route[0])
        if isinstance(message, Chunks):
            nchunks = message.chunks
        elif isinstance(message, Blocks):
            nchunks = tuple(part.nchunk for part in message.parts)
        else:
            return [Job(peer, id, _Wanted(route, message))]
        if len(route) > 1 and len(nchunks) > 1:
            raise BadRequest(f"{len(nchunks)} chunks: a REQ socket takes one answer, so ask for one at a time")
        return [Job(peer, id, _Wanted(route, message, nchunk), message.bulk) for nchunk in nchunks]

    def _say(self, route: list[Part], message: Message, id: int) -> None:
        """Send something small at once; a peer that has no room for it will ask again."""
        sent = send(self._router, [*route, *_parts(message, id)])
        if sent is Sent.GONE:
            self._lose(bytes(route[0]))

    # -- answers -------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Begin what may be begun; when there is no room, see whether there is some now."""
        self._begin_all()
        if self._serving.jobs_count and not self._serving.working and self._count():
            self._begin_all()
        self._set_timer()

    def _begin_all(self) -> None:
        now_s = self._loop.now_s()
        while batch := self._serving.next_batch(now_s):
            to_read = [job for job in batch if not self._is_answered(job)]
            if to_read:
                self._workers.do(partial(self._read, to_read))

    def _is_answered(self, job: Job) -> bool:
        """Answer a job if nothing has to be read for that."""
        wanted = cast(_Wanted, job.wanted)
        try:
            answer = self._answerer.at_hand(wanted.message)
        except ZcatError as error:
            answer = Failed(error.code, error.message, wanted.nchunk)
        if answer is not None:
            self._answer(job, answer, _parts(answer, job.id))
        return answer is not None

    def _read(self, jobs: Sequence[Job]) -> None:
        """Do jobs in a worker, until that is enough for one go."""
        answers: list[tuple[Job, Message, list[Part]]] = []
        nbytes, until_s = 0, self._loop.now_s() + BATCH_S
        for job in jobs:
            answer = self._read_one(cast(_Wanted, job.wanted))
            frames = _parts(answer, job.id)
            answers.append((job, answer, frames))
            nbytes += _size(frames)
            if nbytes >= self._batch_bytes or self._loop.now_s() >= until_s:
                break
        hand_over(self._loop, partial(self._read_done, answers, jobs[len(answers) :]))

    def _read_one(self, wanted: _Wanted) -> Message:
        try:
            return self._answerer.read(wanted.message, wanted.nchunk)
        except ZcatError as error:
            return Failed(error.code, error.message, wanted.nchunk)
        except Exception as error:
            log.exception("bug in=read verb=%s", wanted.message.verb)
            return Failed(ZcatError.code, f"internal error: {type(error).__name__}", wanted.nchunk)

    def _read_done(self, answers: Sequence[tuple[Job, Message, list[Part]]], left: Sequence[Job]) -> None:
        for job in reversed(left):
            self._serving.put_back(job)
        for answer in answers:
            self._answer(*answer)
        self._pump()

    def _answer(self, job: Job, answer: Message, frames: list[Part]) -> None:
        wanted = cast(_Wanted, job.wanted)
        nbytes = _size(frames)
        if isinstance(answer, ChunkReply):
            self.counters.chunks += 1
            self.counters.chunks_bytes += len(answer.data[0])
        if self.tracking is not None and isinstance(wanted.message, Chunks):
            assert wanted.nchunk is not None
            self.tracking.answered(job.peer, wanted.message, wanted.nchunk, answer)
        self.counters.failures += isinstance(answer, Failed)
        self._serving.done(job, nbytes)
        outgoing = self._outgoing.setdefault(job.peer, _Outgoing())
        outgoing.counted_bytes += nbytes
        outgoing.waiting.append([*wanted.route, *frames])
        self._flush(job.peer, outgoing)

    def _flush(self, peer: bytes, outgoing: _Outgoing) -> None:
        while outgoing.waiting:
            sent = send(self._router, outgoing.waiting[0], outgoing.unsent)
            if sent is Sent.BUSY:
                return
            if sent is Sent.GONE:
                outgoing.waiting.clear()
                self._lose(peer)
                return
            self.counters.answers += 1
            self.counters.answers_bytes += _size(outgoing.waiting.popleft())

    def _lose(self, peer: bytes) -> None:
        self.counters.peers_lost += 1
        self._serving.drop(peer)
        if self.tracking is not None:
            self.tracking.gone(peer)

    def _count(self) -> bool:
        """Send what now has room, tell `Serving` what has left; say whether anything has."""
        has_left = False
        for peer, outgoing in list(self._outgoing.items()):
            self._flush(peer, outgoing)
            held_bytes = outgoing.unsent.count_bytes() + sum(_size(parts[1:]) for parts in outgoing.waiting)
            left_bytes = outgoing.counted_bytes - held_bytes
            if left_bytes > 0:
                outgoing.counted_bytes = held_bytes
                self._serving.left(peer, left_bytes, self._loop.now_s())
                has_left = True
            if not outgoing.counted_bytes and not outgoing.waiting:
                del self._outgoing[peer]
        return has_left

    def _set_timer(self) -> None:
        now_s = self._loop.now_s()
        paused_s = self._serving.pause_s(now_s)
        if not self._outgoing and not paused_s:
            return
        is_waiting = self._serving.jobs_count or any(outgoing.waiting for outgoing in self._outgoing.values())
        when_s = now_s + (max(RETRY_S, paused_s) if is_waiting else SWEEP_S)
        if self._timer is not None:
            if self._timer.when_s <= when_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._count()
        self._pump()


def _parts(message: Message, id: int) -> list[Part]:
    return encode(message, id)


def _size(parts: Sequence[Part]) -> int:
    return sum(map(len, parts))
