"""A publisher that answers as it is told to: honestly, until a test has it lie. It speaks the real messages."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import blosc2
import numpy as np
import zmq

from zcat.model.dataset import ArrayGeometry, Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.model.root import Claim
from zcat.names import check_root
from zcat.protocol.messages import (
    Announce,
    ChunkReply,
    Chunks,
    Failed,
    Info,
    InfoReply,
    Ping,
    Pong,
    Sizes,
    SizesReply,
    Tree,
    TreePage,
    decode,
    encode,
)
from zcat.protocol.pages import paged
from zcat.storage.chunk_gate import digest

PATH, LINEAGE = "x.b2nd", "1f" * 16
NCHUNKS, CHUNK = 4, 10_000
VALUES = np.arange(NCHUNKS * CHUNK, dtype="u1") // 3

_WAIT_MS = 20_000
_LOOK_MS = 5

Lie = Callable[[Any], list[Any] | None]
"""Gets a request; gives what is answered to it, or None for the truth. Bytes are sent as they are."""


def compressed(values: np.ndarray, typesize: int = 1) -> bytes:
    return bytes(blosc2.compress2(values, typesize=typesize, blocksize=2000, nthreads=1))


CHUNKS = [compressed(VALUES[n * CHUNK : (n + 1) * CHUNK]) for n in range(NCHUNKS)]
ENTRY = Entry(PATH, Kind.ARRAY, LINEAGE, VALUES.nbytes, sum(map(len, CHUNKS)), 0, VALUES.shape, "|u1")
INFO = DatasetInfo(
    ENTRY,
    Geometry(VALUES.nbytes, CHUNK, 2000, 1, ArrayGeometry(VALUES.shape, (CHUNK,), (2000,), "|u1", 1)),
    Compression(filters=(0, 0, 0, 0, 0, 1)),
)


class Liar:
    """A ROUTER with a root of one array, listed at a broker by a claim of its own. `close` it."""

    def __init__(self, context: zmq.Context, broker: str, root: str = "lies", owner: str = "e1" * 16) -> None:
        self.root, self.owner = check_root(root), owner
        self.lie: Lie = lambda message: None
        self.asked: list[Any] = []
        self.extra: list[tuple[Any, int]] = []
        """Messages, and the number each answers, that are sent behind the next answer to a ping."""
        self._router = context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        self._router.bind("tcp://127.0.0.1:0")
        self.endpoint = self._router.get_string(zmq.LAST_ENDPOINT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._context, self._broker = context, broker
        self.claim = Claim(root, owner, (self.endpoint,), 1, 0, 300.0)
        self.announce(self.claim)

    def announce(self, claim: Claim) -> None:
        self.claim = claim
        with self._context.socket(zmq.REQ) as asker:
            asker.set(zmq.RCVTIMEO, _WAIT_MS)
            asker.set(zmq.LINGER, 0)
            asker.connect(self._broker)
            asker.send_multipart(encode(Announce(claim)))
            assert decode(asker.recv_multipart()).message.known

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._router.close()

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.asked)

    def honest(self, message: Any) -> list[Any]:
        match message:
            case Ping():
                return [Pong("publisher", self.owner, self.claim.incarnation, 0, "0")]
            case Tree():
                return [TreePage(self.root, self.owner, self.claim.incarnation, 0, None, tuple(paged([ENTRY])))]
            case Info():
                return [InfoReply.of(INFO)]
            case Sizes():
                return [SizesReply(LINEAGE, (np.array([len(c) for c in CHUNKS], "<i4").tobytes(),))]
            case Chunks():
                return [ChunkReply(LINEAGE, n, digest(CHUNKS[n]), (CHUNKS[n],)) for n in message.chunks]
        return [Failed("stale", "no events here")]

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._router.poll(_LOOK_MS):
                continue
            route, *frames = self._router.recv_multipart()
            received = decode(frames)
            self.asked.append(received.message)
            told = self.lie(received.message)
            answers = [(one, received.id) for one in (self.honest(received.message) if told is None else told)]
            if isinstance(received.message, Ping):
                answers, self.extra = answers + self.extra, []
            for answer, id in answers:
                frames = answer if isinstance(answer, list) else encode(answer, id)
                self._router.send_multipart([route, *frames])


def for_kind(kind: type, tell: Callable[[Any], list[Any]]) -> Lie:
    """Lie about requests of one kind only."""
    return lambda message: tell(message) if isinstance(message, kind) else None


def chunk_lie(made: bytes, **changes: Any) -> Lie:
    """Answer with a wrong chunk, under its own right digest unless ``changes`` say otherwise."""

    def tell(message: Chunks) -> list[Any]:
        honest = ChunkReply(LINEAGE, 0, digest(made), (made,))
        return [replace(honest, nchunk=n, **changes) for n in message.chunks]

    return for_kind(Chunks, tell)
