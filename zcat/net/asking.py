"""Ask one peer something and wait for the answer: for threads that own no loop, and have time."""

import itertools
import time
from types import TracebackType
from typing import Self

import zmq

from zcat import limits
from zcat.errors import Timeout
from zcat.net.sockets import CONTROL, Context, SocketFactory
from zcat.net.wire import Inlet, Parts, Sent, send

_RETRY_S = 0.01
"""A DEALER takes nothing before it is connected."""
_PARTS_MAX = limits.PAGES_PER_MESSAGE_MAX + 4


class Asker:
    """A connection to one ROUTER. Used by the thread that made it, in a ``with`` statement."""

    def __init__(self, context: Context, endpoint: str) -> None:
        """Connect.

        Raises:
            BadName: ``endpoint`` is not one.
        """
        self.endpoint = endpoint
        self.ids = itertools.count(1)
        """Numbers for requests."""
        self._dealer = SocketFactory(context, CONTROL).dealer(endpoint)
        self._inlet = Inlet(self._dealer, _PARTS_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dealer.close(linger=0)

    def send(self, parts: Parts, until_s: float) -> None:
        """Send a message as soon as somebody is there.

        Raises:
            Timeout: nobody was, until then.
        """
        while send(self._dealer, parts) is not Sent.OK:
            if time.monotonic() >= until_s:
                raise Timeout(f"{self.endpoint}: nobody there takes a message")
            time.sleep(_RETRY_S)

    def receive(self, until_s: float) -> Parts:
        """Return the next message.

        Raises:
            Timeout: none came until then.
        """
        while True:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not self._dealer.poll(max(1, int(left_s * 1000))):
                raise Timeout(f"{self.endpoint}: no answer in time")
            try:
                parts = self._inlet.receive()
            except zmq.Again:
                continue
            if parts is not None:
                return parts
