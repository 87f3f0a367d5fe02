"""A client that costs little: many keep-alive connections in one thread, one request at a time on each."""

import selectors
import socket
import statistics
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What came of it."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    body_bytes: int


def load(url: str, connections: int, seconds: float) -> Load:
    """Ask for ``url`` on each connection again and again.

    Raises:
        RuntimeError: an answer is not 200.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    poll = selectors.DefaultSelector()
    waiting: dict[socket.socket, tuple[float, bytearray]] = {}
    for _ in range(connections):
        client = socket.create_connection(address)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(client, selectors.EVENT_READ)
        client.sendall(request)
        waiting[client] = (time.perf_counter(), bytearray())
    times: list[float] = []
    size = 0
    begun_s = time.perf_counter()
    until_s = begun_s + seconds
    while (now_s := time.perf_counter()) < until_s or (len(times) < 3 and now_s < until_s + 60):
        for key, _ in poll.select(1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            asked_s, got = waiting[client]
            got += client.recv(1 << 20)
            size = _whole(got)
            if size >= 0:
                now_s = time.perf_counter()
                times.append(now_s - asked_s)
                client.sendall(request)
                waiting[client] = (time.perf_counter(), bytearray())
    took_s = now_s - begun_s
    for client in waiting:
        client.close()
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Load(len(times) / took_s, statistics.median(ordered) * 1e3, p99 * 1e3, max(size, 0))


def _whole(got: bytearray) -> int:
    """Give the size of the body if all of the answer is here, else -1."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return -1
    head = bytes(got[:end]).lower()
    if not head.startswith((b"http/1.1 200", b"http/1.0 200")):
        raise RuntimeError(bytes(got[:500]).decode(errors="replace"))
    at = head.find(b"content-length:")
    if at >= 0:
        size = int(head[at + 15 :].split(b"\r", 1)[0])
        return size if len(got) >= end + 4 + size else -1
    return len(got) - end - 4 if got.endswith(b"0\r\n\r\n") else -1  # chunked
