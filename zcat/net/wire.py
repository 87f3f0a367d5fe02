"""Receive and send one ZeroMQ message: a list of parts, each small one as ``bytes``, each large one not copied."""

import enum
from collections.abc import Sequence
from typing import TypeAlias

import zmq

from zcat import limits
from zcat.errors import TooLarge
from zcat.net.sockets import Socket

_LAST = int(zmq.DONTWAIT)
_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)

Part: TypeAlias = bytes | memoryview
Parts: TypeAlias = list[Part]

ZERO_COPY_BYTES_MIN = 64 * limits.KIB
"""PERF: from here on not copying is 1.4 to 2.3 times as fast over tcp; at 1 KiB it is three times slower."""


class Sent(enum.Enum):
    """What became of a message that was to be sent."""

    OK = "ok"
    BUSY = "busy"  # the peer's queue is full, or a DEALER has no peer: keep it, or say so
    GONE = "gone"  # the peer is not connected any more: forget it


class Unsent:
    """Counts the bytes that were sent without a copy and that ZeroMQ still holds."""

    def __init__(self) -> None:
        self._held: list[tuple[zmq.MessageTracker, int]] = []

    def add(self, tracker: zmq.MessageTracker, size_bytes: int) -> None:
        """Count a part until its tracker is done."""
        self._held.append((tracker, size_bytes))

    def count_bytes(self) -> int:
        """Forget what was let go of, and count the rest."""
        self._held = [(tracker, size_bytes) for tracker, size_bytes in self._held if not tracker.done]
        return sum(size_bytes for _, size_bytes in self._held)


def send(socket: Socket, parts: Sequence[Part], unsent: Unsent | None = None) -> Sent:
    """Send a message, whole or not at all, and never wait.

    Parts of 64 KiB and more are not copied: they must not change until they are sent, which ``unsent`` tells.

    Raises:
        TooLarge: a part is larger than any peer accepts.
    """
    assert parts, "a message has at least one part"
    outcome = Sent.OK
    last = len(parts) - 1
    for part in parts:  # before the first is sent: half a message cannot be taken back
        if (part.nbytes if isinstance(part, memoryview) else len(part)) > limits.MESSAGE_FRAME_BYTES_MAX:
            raise TooLarge(f"a frame is larger than {limits.MESSAGE_FRAME_BYTES_MAX} bytes, which no peer accepts")
    # Asking for the events has libzmq look at what the peers say they have read. Sending alone does that once
    # in 3 million CPU ticks (config.hpp, max_command_delay): a short queue that is long empty would still count
    # as full, and a PUB would lose messages to a prompt subscriber.
    socket.get(zmq.EVENTS)
    for index, part in enumerate(parts):
        try:
            _send_part(socket, part, _MORE if index < last else _LAST, unsent)
        except zmq.Again:
            if index == 0:
                return Sent.BUSY
            # The pipe broke in the middle. libzmq (lb.cpp) now expects the rest, to drop it: if it did not come,
            # the next message would be dropped in its place.
            outcome = Sent.GONE
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH or index:
                raise
            return Sent.GONE
    return outcome


def _send_part(socket: Socket, part: Part, flags: int, unsent: Unsent | None) -> None:
    size_bytes = part.nbytes if isinstance(part, memoryview) else len(part)
    if size_bytes < ZERO_COPY_BYTES_MIN:
        socket.send(part, flags)
        return
    tracker = socket.send(part, flags, copy=False, track=unsent is not None)
    if unsent is not None and tracker is not None:
        unsent.add(tracker, size_bytes)


class Inlet:
    """Receives the messages of one socket, and refuses those of too many parts.

    SAFETY: ZMQ_MAXMSGSIZE is per frame: a peer can send a message of 300 000 empty ones. By the time that it
    is seen here libzmq holds all of it; what is left to do is not to make Python objects of it, and not to
    be kept busy by it: ``receive`` discards a slice of such a message at each call.
    """

    def __init__(self, socket: Socket, parts_max: int):
        self.socket = socket
        self.refused_count = 0
        self._parts_max = parts_max
        self._is_discarding = False

    def receive(self) -> Parts | None:
        """Return the next message, or None after having discarded a slice of one.

        Raises:
            zmq.Again: there is nothing.
        """
        parts: Parts = []
        for _ in range(self._parts_max):
            frame = self.socket.recv(zmq.DONTWAIT, copy=False)
            if not self._is_discarding:
                parts.append(_part(frame))
            if not frame.more:
                whole = not self._is_discarding
                self._is_discarding = False
                return parts if whole else None
        if not self._is_discarding:
            self.refused_count += 1
            self._is_discarding = True
        return None


def _part(frame: zmq.Frame) -> Part:
    return frame.bytes if len(frame) < ZERO_COPY_BYTES_MIN else frame.buffer.toreadonly()
