"""How the publisher and its workers speak: a length, a header of msgpack, and bodies of bytes, over a socket.

The header's map has ``bodies``, the sizes of what follows it. A request may bring an open file along
(SCM_RIGHTS). Neither side ever unpickles anything.
"""

import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from zcat.errors import BadMessage
from zcat.limits import MIB
from zcat.protocol.codec import Buffer, pack, unpack

HEADER_BYTES_MAX = MIB
"""Of an answer: a page of an inventory, at most."""

BODIES_MAX = 64

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker's handler gives back."""

    fields: dict[str, Any] = field(default_factory=dict)
    bodies: list[Buffer] = field(default_factory=list)


def send(sock: socket.socket, header: dict[str, Any], bodies: list[Buffer], fd: int | None = None) -> None:
    """Send one message, and with it an open file, which stays open here.

    Raises:
        OSError: the other side is gone; ``TimeoutError`` by the socket's time-out.
    """
    views = [memoryview(body).cast("B") for body in bodies]
    packed = pack({**header, "bodies": [view.nbytes for view in views]})
    length = _LENGTH.pack(len(packed))
    if fd is None:
        sock.sendall(length)
    else:
        sent = socket.send_fds(sock, [length], [fd])
        sock.sendall(length[sent:])
    sock.sendall(packed)
    for view in views:
        sock.sendall(view)


def receive(
    sock: socket.socket, bodies_bytes_max: int, until_s: float | None = None, fds_max: int = 0
) -> tuple[dict[str, Any], list[bytearray], list[int]]:
    """Receive one message: its header, its bodies, and the files that came along.

    Args:
        sock: a socket of its own, which may be left unusable when this fails.
        bodies_bytes_max: of all bodies together.
        until_s: of ``time.monotonic()``; None to wait for ever.
        fds_max: open files that are taken; others the kernel closes.

    Raises:
        EOFError: the other side closed, or died.
        TimeoutError: it is ``until_s``.
        BadMessage: what came is none of our messages.
        OSError: the socket failed.
    """
    _set_timeout(sock, until_s)
    fds: list[int] = []
    if fds_max:
        first, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, fds_max)
    else:
        first = sock.recv(_LENGTH.size)
    if not first:
        raise EOFError
    rest = _exactly(sock, _LENGTH.size - len(first), until_s)
    (size,) = _LENGTH.unpack(first + rest)
    if size > HEADER_BYTES_MAX:
        raise BadMessage(f"a header of {size} bytes, the limit is {HEADER_BYTES_MAX}")
    header = unpack(_exactly(sock, size, until_s), HEADER_BYTES_MAX)
    sizes = header.pop("bodies", None) if type(header) is dict else None
    if type(sizes) is not list or len(sizes) > BODIES_MAX or not all(type(s) is int and s >= 0 for s in sizes):
        raise BadMessage(f"a header without the sizes of at most {BODIES_MAX} bodies")
    if sum(sizes) > bodies_bytes_max:
        raise BadMessage(f"an answer of {sum(sizes)} bytes, the limit is {bodies_bytes_max}")
    return header, [_exactly(sock, size, until_s) for size in sizes], fds


def _exactly(sock: socket.socket, size: int, until_s: float | None) -> bytearray:
    buffer = bytearray(size)
    left = memoryview(buffer)
    while left:
        _set_timeout(sock, until_s)
        count = sock.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
    return buffer


def _set_timeout(sock: socket.socket, until_s: float | None) -> None:
    if until_s is not None:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
