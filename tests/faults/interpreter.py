"""Speaks another version of the wire than the broker behind it: an older one, or a later one.

It stands in front of a broker's directory and rewrites the headers and pages that pass. An older broker knows
nothing of other brokers: it leaves out what federations added, and refuses their verbs. A later one has more
fields everywhere.
"""

import threading
from collections.abc import Callable
from typing import Any, Self

import msgpack
import zmq

LOOK_MS = 10
ADDED_LATER = {"pong": ("mesh", "digest", "neighbours"), "ping": ("neighbour",), "listing": ()}
"""Fields that brokers before federations did not have."""
NEW_VERBS = ("digest", "records")

Message = dict[str, Any]
Rewrite = Callable[[Message], Message]


def older(header: Message) -> Message:
    """Leave out what an older peer does not know."""
    return {key: value for key, value in header.items() if key not in ADDED_LATER.get(header.get("verb", ""), ())}


def later(value: Any) -> Any:
    """Add a field to every map, as a later peer may."""
    if isinstance(value, dict):
        return {**{key: later(each) for key, each in value.items()}, "of-the-future": {"x": [1, None]}}
    return [later(each) for each in value] if isinstance(value, list) else value


class Interpreter:
    """A thread in front of a broker; use it in a ``with`` statement."""

    def __init__(self, broker: str, is_older: bool) -> None:
        self._broker = broker
        self._is_older = is_older
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self.port = self._front.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self._ways: dict[bytes, zmq.Socket[bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.refused_count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._stop.is_set():
            for ready, _ in poller.poll(LOOK_MS):
                if ready is self._front:
                    route, *frames = self._front.recv_multipart()
                    if route not in self._ways:
                        self._ways[route] = self._way()
                        poller.register(self._ways[route], zmq.POLLIN)
                    self._inward(route, frames)
                else:
                    route = next(route for route, way in self._ways.items() if way is ready)
                    self._front.send_multipart([route, *self._rewritten(ready.recv_multipart())])

    def _way(self) -> "zmq.Socket[bytes]":
        way = self._context.socket(zmq.DEALER)
        way.connect(self._broker)
        return way

    def _inward(self, route: bytes, frames: list[bytes]) -> None:
        at = frames.index(b"zcat1")
        header = msgpack.unpackb(frames[at + 1])
        if self._is_older and header["verb"] in NEW_VERBS:
            self.refused_count += 1
            refusal = {"verb": "failed", "id": header["id"], "code": "verb-unknown", "message": "of a later time"}
            self._front.send_multipart([route, *frames[: at + 1], msgpack.packb(refusal)])
        else:
            self._ways[route].send_multipart(self._rewritten(frames))

    def _rewritten(self, frames: list[bytes]) -> list[bytes]:
        at = frames.index(b"zcat1")
        rewrite: Callable[[Any], Any] = older if self._is_older else later
        header = rewrite(msgpack.unpackb(frames[at + 1]))
        pages = [self._page(page) for page in frames[at + 2 :]]
        return [*frames[: at + 1], msgpack.packb(header), *pages]

    def _page(self, page: bytes) -> bytes:
        items = msgpack.unpackb(page)
        if self._is_older:
            items = [{key: value for key, value in item.items() if key != "hearsay"} for item in items]
            return bytes(msgpack.packb(items))
        return bytes(msgpack.packb(later(items)))
