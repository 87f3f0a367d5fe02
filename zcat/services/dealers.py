"""A DEALER to each of several others, which is connected anew when it takes questions and gives no answers.

A process that hangs, or a box in the middle that has forgotten a connection, lets it stand: the kernel sees
nothing wrong, and no heartbeats of ZeroMQ look further (`zcat.net.sockets` says why). Those who talk here ask
again and again; that they are not answered is what shows it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from zcat.net.loop import Loop
from zcat.net.sockets import Socket, SocketFactory
from zcat.net.wire import Parts, Sent, send
from zcat.protocol.messages import Message, encode

SILENT_S = 4.0
"""Without an answer to what was taken for so long, a connection is given up."""
RESEND_S = 0.02
RESENDS_MAX = 40
"""A DEALER that is still connecting takes nothing; the first question should not wait for the second."""


@dataclass(slots=True)
class _Dealer:
    endpoint: str
    socket: Socket
    unanswered_since_s: float | None = None


class Dealers:
    """Connections, by number. Lives on the loop's thread, but may be made before that is started."""

    def __init__(
        self,
        loop: Loop,
        sockets: SocketFactory,
        receive: Callable[[int, Parts], None],
        renewed: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Begin without any.

        Args:
            loop: owns the sockets.
            sockets: makes them.
            receive: is given what comes, with the number of who sent it.
            renewed: is told of each connection that was given up and made anew.
        """
        self._loop = loop
        self._sockets = sockets
        self._receive = receive
        self._renewed = renewed
        self._dealers: dict[int, _Dealer] = {}

    def __len__(self) -> int:
        return len(self._dealers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._dealers)

    def __contains__(self, number: int) -> bool:
        return number in self._dealers

    def connect(self, number: int, endpoint: str) -> None:
        """Connect to another one.

        Raises:
            BadName: the endpoint is not one.
        """
        self._dealers[number] = _Dealer(endpoint, self._socket(number, endpoint))

    def close(self, number: int) -> None:
        """Let go of one."""
        self._close(self._dealers.pop(number))

    def send(self, number: int, message: Message, id: int = 0, attempts: int = RESENDS_MAX) -> Sent:
        """Ask something; again in a moment while nobody is connected there."""
        dealer = self._dealers.get(number)
        if dealer is None:
            return Sent.GONE
        now_s = self._loop.now_s()
        if dealer.unanswered_since_s is not None and now_s > dealer.unanswered_since_s + SILENT_S:
            self._renew(number, dealer)
        sent = send(dealer.socket, encode(message, id))
        if sent is Sent.OK and dealer.unanswered_since_s is None:
            dealer.unanswered_since_s = now_s
        elif sent is Sent.BUSY and attempts:
            self._loop.call_after(RESEND_S, partial(self._send_again, number, message, id, attempts - 1))
        return sent

    # -- private -------------------------------------------------------------------------------------

    def _send_again(self, number: int, message: Message, id: int, attempts: int) -> None:
        self.send(number, message, id, attempts)

    def _socket(self, number: int, endpoint: str) -> Socket:
        socket = self._sockets.dealer(endpoint)
        self._loop.register(socket, partial(self._received, number))
        return socket

    def _close(self, dealer: _Dealer) -> None:
        self._loop.unregister(dealer.socket)
        dealer.socket.close(linger=0)

    def _renew(self, number: int, dealer: _Dealer) -> None:
        self._close(dealer)
        dealer.socket = self._socket(number, dealer.endpoint)
        dealer.unanswered_since_s = None
        self._renewed(number)

    def _received(self, number: int, parts: Parts) -> None:
        self._dealers[number].unanswered_since_s = None
        self._receive(number, parts)
