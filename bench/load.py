"""A client that costs little: many keep-alive connections in one thread, one request at a time on each.

Whether it is fast enough for what it measures, it says itself: `Load.client_share` is the part of the time that it
was busy. Near 1, the server might have been faster.
"""

import itertools
import selectors
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_ROOM_BYTES = 1 << 20
_ANSWERS_MIN = 3
_PATIENCE_S = 120


@dataclass(frozen=True)
class Load:
    """What came of it."""

    answers: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    body_bytes: int
    """Of the last answer."""
    client_share: float
    """Of one core, that this client took."""


def load(
    urls: str | Sequence[str], connections: int, seconds: float, headers: Mapping[str, str] | None = None
) -> Load:
    """Ask for ``urls`` of one server in turn, on each connection again and again, and wait for the last answers.

    Raises:
        RuntimeError: an answer is no success, or does not come.
    """
    urls = [urls] if isinstance(urls, str) else urls
    requests = itertools.cycle([_request(url, headers or {}) for url in urls])
    parts = urlsplit(urls[0])
    room = memoryview(bytearray(_ROOM_BYTES))
    with selectors.DefaultSelector() as poll:
        for _ in range(connections):
            client = socket.create_connection((parts.hostname or "", parts.port or 80))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(client, selectors.EVENT_READ, _Answer())
        times: list[float] = []
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        until_s = begun_s + seconds
        for key in list(poll.get_map().values()):
            _ask(key, next(requests))
        while poll.get_map():
            ready = poll.select(_PATIENCE_S)
            if not ready:
                raise RuntimeError(f"{urls[0]}: no answer for {_PATIENCE_S} s")
            for key, _ in ready:
                if not key.data.take(key.fileobj, room):
                    continue
                now_s = time.perf_counter()
                times.append(now_s - key.data.asked_s)
                if now_s < until_s or len(times) < _ANSWERS_MIN:
                    _ask(key, next(requests))
                else:
                    poll.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
        took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    share = cpu_s / took_s
    return Load(
        len(times), len(times) / took_s, statistics.median(ordered) * 1e3, p99 * 1e3, key.data.body_bytes, share
    )


def _request(url: str, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class _Answer:
    """What came so far on one connection."""

    def __init__(self) -> None:
        self.asked_s = 0.0
        self.body_bytes = 0
        self._head = b""
        self._left: int | None = None
        self._tail = b""

    def begin(self) -> None:
        """Wait for the next one."""
        self.asked_s = time.perf_counter()
        self._head, self._left, self._tail = b"", None, b""

    def take(self, client: socket.socket, room: memoryview) -> bool:
        """Receive; say whether the answer is whole."""
        count = client.recv_into(room)
        if not count:
            raise RuntimeError("the server closed a connection")
        if self._left is None and not self._tail:
            self._head += bytes(room[:count])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.body_bytes, count = 0, len(self._head) - end - 4
            self._read_head(self._head[:end])
            self._tail = b"\r\n" + self._head[end + 4 :][-5:]
        else:
            self._tail = (self._tail + bytes(room[max(count - 5, 0) : count]))[-5:]
        self.body_bytes += count
        if self._left is None:  # chunked
            return self._tail.endswith(b"0\r\n\r\n")
        self._left -= count
        return self._left <= 0

    def _read_head(self, head: bytes) -> None:
        lower = head.lower()
        if not lower.startswith((b"http/1.1 20", b"http/1.0 20")):
            raise RuntimeError(self._head[:500].decode(errors="replace"))
        at = lower.find(b"content-length:")
        self._left = int(lower[at + 15 :].split(b"\r", 1)[0]) if at >= 0 else None


def _ask(key: selectors.SelectorKey, request: bytes) -> None:
    key.data.begin()
    key.fileobj.sendall(request)  # type: ignore[union-attr]
