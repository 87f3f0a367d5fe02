"""A peer that a publisher believes to hold chunks, and that does what a test wants when it is asked for them."""

import threading
from collections.abc import Callable
from typing import Any

import zmq

from zcat.protocol.messages import ChunkReply, Chunks, Failed, decode, encode
from zcat.protocol.swarm_messages import Have, Holders
from zcat.storage.chunk_gate import digest

_WAIT_MS = 20_000
_LOOK_MS = 5

Answer = Callable[[Chunks], list[Any]]
"""Gets a request; gives what is answered to it."""


def lie(message: Chunks) -> list[Any]:
    return [ChunkReply(message.lineage, n, digest(b"lie" * 99), (b"lie" * 99,)) for n in message.chunks]


def refuse(message: Chunks) -> list[Any]:
    return [Failed("unavailable", "not here", n) for n in message.chunks]


def say_nothing(message: Chunks) -> list[Any]:
    return []


class FalsePeer:
    """Asks a publisher for chunks, says that it has them, and waits to be asked. `close` it."""

    def __init__(self, context: zmq.Context, publisher: str, wanted: Chunks, answer: Answer) -> None:
        self.asked: list[Chunks] = []
        self._answer = answer
        self._router = context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        self._router.bind("tcp://127.0.0.1:0")
        self.endpoint = self._router.get_string(zmq.LAST_ENDPOINT)
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.set(zmq.LINGER, 0)
        self._dealer.set(zmq.RCVTIMEO, _WAIT_MS)
        self._dealer.connect(publisher)
        place = wanted.root, wanted.path, wanted.lineage
        self._dealer.send_multipart(encode(Chunks(*place, wanted.chunks, True, True, self.endpoint), 1))
        missing = set(wanted.chunks)
        while missing:
            answer_of = decode(self._dealer.recv_multipart()).message
            if isinstance(answer_of, Holders):
                missing -= {chunk.nchunk for chunk in answer_of.chunks if chunk.digest is not None}
            else:
                missing.discard(answer_of.nchunk)
        self._dealer.send_multipart(encode(Have(*place, wanted.chunks, self.endpoint)))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._router.close()
        self._dealer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._router.poll(_LOOK_MS):
                route, *frames = self._router.recv_multipart()
                received = decode(frames)
                self.asked.append(received.message)
                for answer in self._answer(received.message):
                    self._router.send_multipart([route, *encode(answer, received.id)])
