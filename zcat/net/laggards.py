"""How far each subscriber of a publishing socket is behind, and the end of those who are too far.

ZeroMQ bounds its queues in messages, whatever their size, and tells neither what waits for a peer nor who it is.
So this looks from outside. A monitor gives the descriptor of each connection, and of a descriptor the kernel
knows what its peer has taken. Where everything that was handed to the kernel has been sent, nothing waits before
it either: the connection is *level*, and what the socket has sent until then is noted. From there on it is
behind by what the socket sends, less what the peer takes. That is more than what really waits for it if it wants
some of the topics only; it is never less, but for what passes between two looks. (What waits for several peers
is in memory once, and counted for each; of each frame 64 bytes are each peer's own.)

Whoever is too far behind is put out: its connection is shut down, ZeroMQ lets go of all that waited for it, and
the peer, which connects again, sees by the numbers of the events that some are missing.

Sources: libzmq's zmq_socket_monitor(3); Linux' include/uapi/linux/tcp.h, ``struct tcp_info``; unix(7), SIOCOUTQ.
"""

import contextlib
import fcntl
import logging
import os
import socket as posix
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from zcat.logs import kv

MESSAGE_PART_BYTES = 64
"""Of each frame in each queue, whatever its size: libzmq's ``zmq_msg_t``."""
FORGIVEN_S = 1.0
"""Whoever is behind for less is not put out for the sake of the others' room."""

_TCP_INFO_BYTES = 192
_BYTES_ACKED_AT, _NOTSENT_AT = 120, 144
_SIOCOUTQ = 0x5411

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait for subscribers, in bytes."""

    peer_bytes_max: int
    total_bytes_max: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What the kernel knows of a connection."""

    waiting: bool
    """Not all that it was handed has been sent."""
    acked_bytes: int
    """That the peer has confirmed since the beginning; 0 where nobody counts."""


@dataclass(frozen=True, slots=True)
class Behind:
    """One subscriber that does not keep up."""

    peer: str
    behind_bytes: int
    behind_s: float


@dataclass(slots=True)
class _Connection:
    inode: int
    peer: str
    sent_bytes: int
    """By the socket, when this one was level."""
    acked_bytes: int
    level_at_s: float
    behind_bytes: int = 0


Look: TypeAlias = Callable[[int], Taken]


class Laggards:
    """The connections of one socket. Used by one thread."""

    def __init__(self, limits: QueueLimits, look: Look | None = None) -> None:
        """Begin with none.

        Args:
            limits: see there.
            look: asks about a descriptor; may raise OSError. The kernel, if None.
        """
        self.put_out_count = 0
        self._limits = limits
        self._look = look or taken
        self._connections: dict[int, _Connection] = {}
        self._sent_bytes = 0

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def total_bytes(self) -> int:
        """What all are behind by, as of the last look."""
        return sum(connection.behind_bytes for connection in self._connections.values())

    def accepted(self, fd: int, now_s: float) -> None:
        """Take a new connection; until the next look it counts as level."""
        with contextlib.suppress(OSError):  # it went again already
            inode, peer = os.fstat(fd).st_ino, _peer(fd)
            self._connections[fd] = _Connection(inode, peer, self._sent_bytes, 0, now_s)

    def closed(self, fd: int) -> None:
        """Forget a connection."""
        self._connections.pop(fd, None)

    def look(self, sent_bytes: int, now_s: float) -> list[Behind]:
        """See how far each one is behind; put out who is too far.

        Args:
            sent_bytes: that the socket has sent since its start, to all of its subscribers together: its frames,
                and `MESSAGE_PART_BYTES` for each.
            now_s: the time.

        Returns:
            Who is behind and not put out, the furthest first.
        """
        if sent_bytes == self._sent_bytes and not self.total_bytes:
            return []
        self._sent_bytes = sent_bytes
        for fd, connection in list(self._connections.items()):
            try:
                if os.fstat(fd).st_ino != connection.inode:
                    raise OSError  # the descriptor is somebody else's now
                found = self._look(fd)
            except OSError:
                del self._connections[fd]
                continue
            if not found.waiting:
                connection.sent_bytes, connection.acked_bytes = sent_bytes, found.acked_bytes
                connection.level_at_s, connection.behind_bytes = now_s, 0
                continue
            taken_bytes = found.acked_bytes - connection.acked_bytes
            connection.behind_bytes = max(1, sent_bytes - connection.sent_bytes - taken_bytes)
        self._judge(now_s)
        behind = [
            Behind(each.peer, each.behind_bytes, now_s - each.level_at_s)
            for each in self._connections.values()
            if each.behind_bytes
        ]
        return sorted(behind, key=lambda each: -each.behind_bytes)

    def _judge(self, now_s: float) -> None:
        total_bytes = self.total_bytes
        ordered = sorted(self._connections.items(), key=lambda item: -item[1].behind_bytes)
        for fd, connection in ordered:
            is_too_far = connection.behind_bytes > self._limits.peer_bytes_max
            is_in_the_way = total_bytes > self._limits.total_bytes_max
            if not is_too_far and not (is_in_the_way and now_s - connection.level_at_s >= FORGIVEN_S):
                continue
            total_bytes -= connection.behind_bytes
            self._put_out(fd, connection)

    def _put_out(self, fd: int, connection: _Connection) -> None:
        self.put_out_count += 1
        del self._connections[fd]
        level = logging.WARNING if self.put_out_count & (self.put_out_count - 1) == 0 else logging.DEBUG
        log.log(
            level,
            "put out, since it does not read %s",
            kv(peer=connection.peer, behind_bytes=connection.behind_bytes, so_far=self.put_out_count),
        )
        with contextlib.suppress(OSError):
            borrowed = posix.socket(fileno=fd)
            try:
                borrowed.shutdown(posix.SHUT_RDWR)
            finally:
                borrowed.detach()  # it is libzmq's, which closes it


def taken(fd: int) -> Taken:
    """Ask the kernel about a connection over TCP or of the Unix domain.

    Raises:
        OSError: the descriptor is none any more.
    """
    borrowed = posix.socket(fileno=fd)
    try:
        if borrowed.family == posix.AF_UNIX:
            (unread,) = struct.unpack("i", fcntl.ioctl(fd, _SIOCOUTQ, bytes(4)))
            return Taken(unread > 0, 0)
        info = borrowed.getsockopt(posix.IPPROTO_TCP, posix.TCP_INFO, _TCP_INFO_BYTES)
    finally:
        borrowed.detach()
    if len(info) < _NOTSENT_AT + 4:  # Linux before 4.6 does not tell
        return Taken(False, 0)
    (acked,) = struct.unpack_from("Q", info, _BYTES_ACKED_AT)
    (notsent,) = struct.unpack_from("I", info, _NOTSENT_AT)
    return Taken(notsent > 0, acked)


def _peer(fd: int) -> str:
    borrowed = posix.socket(fileno=fd)
    try:
        if borrowed.family == posix.AF_UNIX:
            return "this host"
        host, port = borrowed.getpeername()[:2]
        host = host.removeprefix("::ffff:")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        borrowed.detach()
