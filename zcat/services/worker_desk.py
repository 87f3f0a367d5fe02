"""Where a subscriber's workers ask: the processes that answer HTTP beside it, from the cache that it keeps.

A ROUTER on the subscriber's loop. What may wait, for a disk or for an origin, is done by a pool of threads; chunks
come by the subscriber's own fetcher, so that each is fetched once whoever waits for it.
"""

import contextlib
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from zcat.errors import Closed, Stale, StorageFailed, ZcatError
from zcat.model.dataset import DatasetInfo
from zcat.net.loop import Loop
from zcat.net.sockets import Socket
from zcat.net.wire import Part, Parts, Sent, send
from zcat.protocol import envelope
from zcat.protocol.block_transfer import WantedPart
from zcat.protocol.codec import pack
from zcat.protocol.messages import Failed, Message, Sizes, decode, encode
from zcat.protocol.transfer import DatasetKey
from zcat.protocol.worker_messages import (
    WORKER_MESSAGES,
    Abandon,
    Bring,
    BringParts,
    Brought,
    Open,
    Opened,
    Pass,
    Passed,
    Used,
)
from zcat.services.block_fetcher import BlockFetcher
from zcat.services.board import ROOTS_CELL, Board, cell_of
from zcat.services.fetcher import Fetcher
from zcat.services.readers import Fetch, Loose, Target
from zcat.services.subscriber import Subscriber
from zcat.services.workers import hand_over

THREADS = 32
"""For what waits; as many of a worker's requests wait for its origins at a time as without workers."""

LOOSE_PER_MESSAGE_MAX = 32
_INFOS_MAX = 4096
_RETRY_S = 0.001
_TICK_S = 1.0

log = logging.getLogger(__name__)

Passing = Callable[[Pass], Passed]
"""Answers an HTTP request."""


@dataclass(slots=True)
class _Bringing:
    """A `Bring` or `BringParts` that is under way."""

    target: Target
    asked: Bring | BringParts
    wanted: list[int]
    fetch: Fetch[Loose] | Fetch[None]
    until_s: float
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Keeps the chunks in the cache until they were read out of it."""

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.fetch.abandon()
        self.held.close()


class WorkerDesk:
    """Answers the workers of one subscriber. Made and closed by any thread, between its start and its close."""

    def __init__(self, subscriber: Subscriber, board: Board, endpoint: str, passing: Passing) -> None:
        """Begin to answer.

        Args:
            subscriber: started.
            board: shared with the workers.
            endpoint: where they ask; in a folder that is private to this user.
            passing: answers what workers leave to this process; called by several threads.

        Raises:
            AddressInUse: the endpoint cannot be bound.
        """
        self._subscriber = subscriber
        self._board = board
        self._passing = passing
        self._fetcher: Fetcher = subscriber.around.fetcher.whole
        self._blocks: BlockFetcher = subscriber.around.fetcher.blocks
        self._loop: Loop = subscriber.around.loop
        self._infos: OrderedDict[DatasetKey, DatasetInfo] = OrderedDict()
        self._infos_lock = threading.Lock()
        self._give_up_s = 60.0 + 2 * subscriber.read_limits.fetch_timeout_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="zcat-desk")
        self._bringing: dict[tuple[bytes, int], _Bringing] = {}
        self._waiting: dict[bytes, deque[Sequence[Part]]] = {}
        self._is_closed = False
        self._socket: Socket = subscriber.around.sockets.router(endpoint)
        subscriber.on_change = self._changed
        self._loop.call(self._begin, timeout_s=5.0)

    def close(self) -> None:
        """Answer no more."""
        self._is_closed = True
        self._subscriber.on_change = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.call(self._end, timeout_s=5.0)

    # -- the loop's thread -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._loop.register(self._socket, self._receive)
        self._tick()

    def _end(self) -> None:
        self._loop.unregister(self._socket)
        self._socket.close(linger=0)
        for bringing in self._bringing.values():
            bringing.abandon()

    def _changed(self, key: tuple[str, str] | None) -> None:
        self._board.changed(ROOTS_CELL if key is None else cell_of(*key))

    def _tick(self) -> None:
        if self._is_closed:
            return
        now_s = self._loop.now_s()
        self._loop.call_at(now_s + _TICK_S, self._tick)
        for name, bringing in list(self._bringing.items()):
            if now_s > bringing.until_s:  # of a worker that died: the others give up by themselves
                self._bringing.pop(name).abandon()

    def _receive(self, parts: Parts) -> None:
        route, rest = envelope.split(parts)
        received = decode(rest, WORKER_MESSAGES)
        message, id = received.message, received.id
        match message:
            case Open():
                self._do(route, id, partial(self._open, message))
            case Bring():
                self._do(route, id, partial(self._bring, route, id, message))
            case BringParts():
                self._do(route, id, partial(self._bring_parts, route, id, message))
            case Abandon():
                bringing = self._bringing.pop((bytes(route[0]), id), None)
                if bringing is not None:
                    bringing.abandon()
            case Used():
                self._do(route, id, partial(self._used, message))
            case Sizes():
                self._do(route, id, partial(self._sizes, message))
            case Pass():
                self._do(route, id, partial(self._passing, message))

    def _do(self, route: list[Part], id: int, work: Callable[[], Message | None]) -> None:
        if not self._is_closed:
            self._pool.submit(self._answer, route, id, work)

    def _reply(self, route: list[Part], id: int, message: Message) -> None:
        peer = bytes(route[0])
        queue = self._waiting.setdefault(peer, deque())
        queue.append([*route, *encode(message, id)])
        if len(queue) == 1:
            self._flush(peer)

    def _flush(self, peer: bytes) -> None:
        queue = self._waiting.get(peer)
        while queue:
            sent = Sent.GONE if self._is_closed else send(self._socket, queue[0])
            if sent is Sent.BUSY:
                self._loop.call_after(_RETRY_S, partial(self._flush, peer))
                return
            if sent is Sent.GONE:
                queue.clear()
                break
            queue.popleft()
        self._waiting.pop(peer, None)

    def _brought(self, route: list[Part], id: int, bringing: _Bringing) -> None:
        self._bringing.pop((bytes(route[0]), id), None)
        answer, cached = bringing.fetch.answer, bringing.target.cached
        error = Closed("the subscriber was closed") if answer.cancelled() else answer.exception()
        if error is not None:
            bringing.held.close()
            code, text = (error.code, error.message) if isinstance(error, ZcatError) else ("failed", str(error))
            self._reply(route, id, Failed(code, text))
        elif not answer.result() and cached is not None and cached.number == bringing.asked.number:
            bringing.held.close()  # the worker has locked the slots
            self._reply(route, id, Brought())
        else:
            self._do(route, id, partial(self._gathered, route, id, bringing))

    # -- the pool's threads ------------------------------------------------------------------------------

    def _answer(self, route: list[Part], id: int, work: Callable[[], Message | None]) -> None:
        answer: Message | None
        try:
            answer = work()
        except ZcatError as error:
            answer = Failed(error.code, error.message)
        except Exception:  # the top of this thread
            log.exception("bug in=desk")
            answer = Failed(ZcatError.code, "internal error")
        if answer is not None:
            hand_over(self._loop, partial(self._reply, route, id, answer))

    def _open(self, asked: Open) -> Opened:
        target, lasts = self._subscriber.open(asked.root, asked.path, asked.wait_s, asked.fresh)
        key, info = target.key, target.info
        with self._infos_lock:
            self._infos[key] = info
            self._infos.move_to_end(key)
            if len(self._infos) > _INFOS_MAX:
                self._infos.popitem(last=False)
        folder = None
        if target.cached is not None:
            folder = target.cached.lineage.folder
            if info.geometry.nchunks:
                with target.cached.reading((0,)):
                    target.cached.chunk(0)  # Blosc2 looks at it when a worker opens the frame
        attributes = (pack(info.attributes),)
        cell = cell_of(key.root, key.owner)
        lasts = lasts and folder is not None
        described = (info.entry, info.geometry, info.compression)
        return Opened(key.root, key.owner, cell, lasts, *described, folder, attributes)

    def _bring(self, route: list[Part], id: int, asked: Bring) -> Brought | None:
        target = self._target(asked)
        if target is None:
            raise Stale(f"{asked.path}: this version was not read for long")
        missing: list[int] = np.frombuffer(asked.chunks[0], np.int64).tolist()
        wanted = missing
        cached = target.cached
        if cached is not None:
            with cached.reading(missing):  # one that a former run left is looked at now
                missing = [nchunk for nchunk in missing if cached.chunk(nchunk) is None]
        if not missing and cached is not None and cached.number == asked.number:
            return Brought()
        with contextlib.ExitStack() as holding:
            if cached is not None:
                holding.enter_context(cached.reading(wanted))
            fetch = self._fetcher.begin(target, missing, asked.bulk)
            until_s = Loop.now_s() + self._give_up_s
            self._await(route, id, _Bringing(target, asked, wanted, fetch, until_s, holding.pop_all()))
        return None

    def _bring_parts(self, route: list[Part], id: int, asked: BringParts) -> None:
        target = self._target(asked)
        if target is None:
            raise Stale(f"{asked.path}: this version was not read for long")
        if target.cached is None or target.cached.number != asked.number:
            raise StorageFailed(f"{asked.path}: not cached where the worker looks; whole chunks can be passed on")
        parts = [WantedPart(part, nbytes) for part, nbytes in zip(asked.parts, asked.sizes, strict=True)]
        fetch = self._blocks.begin(target, parts, asked.bulk)
        self._await(route, id, _Bringing(target, asked, [], fetch, Loop.now_s() + self._give_up_s))

    def _await(self, route: list[Part], id: int, bringing: _Bringing) -> None:
        name = bytes(route[0]), id
        hand_over(self._loop, lambda: self._bringing.update({name: bringing}))
        bringing.fetch.answer.add_done_callback(
            lambda _: hand_over(self._loop, partial(self._brought, route, id, bringing))
        )

    def _gathered(self, route: list[Part], id: int, bringing: _Bringing) -> Brought:
        """Give the chunks themselves to a worker that does not have the file open that they are in."""
        loose, cached = dict(bringing.fetch.answer.result() or {}), bringing.target.cached
        rest = [nchunk for nchunk in bringing.wanted if nchunk not in loose]
        if cached is not None:
            with bringing.held, cached.reading(rest):
                views = ((nchunk, cached.chunk(nchunk)) for nchunk in rest)
                loose |= {nchunk: bytes(view) for nchunk, view in views if view is not None}
        numbers = list(loose)
        while len(numbers) > LOOSE_PER_MESSAGE_MAX:
            part, numbers = numbers[:LOOSE_PER_MESSAGE_MAX], numbers[LOOSE_PER_MESSAGE_MAX:]
            answer = Brought(tuple(part), more=True, data=tuple(loose[nchunk] for nchunk in part))
            hand_over(self._loop, partial(self._reply, route, id, answer))
        return Brought(tuple(numbers), data=tuple(loose[nchunk] for nchunk in numbers))

    def _sizes(self, asked: Sizes) -> Message:
        subscription = self._subscriber.subscription(asked.root)
        return subscription.sizes(asked.path, asked.lineage, self._subscriber.read_limits.fetch_timeout_s)

    def _used(self, told: Used) -> None:
        target = self._target(told)
        if target is not None and target.cached is not None and target.cached.number == told.number:
            bits = np.unpackbits(np.frombuffer(told.chunks[0], np.uint8), count=target.info.geometry.nchunks)
            target.cached.used(np.flatnonzero(bits))
        else:
            self._changed((told.root, told.owner))  # it reads what is no longer the cache's: let it look again

    def _target(self, asked: Bring | BringParts | Used) -> Target | None:
        """Find what a worker reads; None if it was not asked about for long."""
        key = DatasetKey(asked.root, asked.owner, asked.path, asked.lineage)
        with self._infos_lock:
            info = self._infos.get(key)
        return self._subscriber.target(key, info) if info is not None else None
