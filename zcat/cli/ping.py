"""Ask one process of the network whether it is there, and measure how long its answer takes."""

import concurrent.futures

from zcat.errors import Timeout
from zcat.net import wire
from zcat.net.loop import Loop
from zcat.net.sockets import SocketFactory, make_context
from zcat.net.wire import Parts, Sent
from zcat.protocol.messages import Ping, Pong, decode, encode

_RETRY_S = 0.02


def ping(endpoint: str, timeout_s: float) -> tuple[Pong, float]:
    """Return the answer of a broker or peer, and the round trip in seconds.

    Raises:
        Timeout: nobody answered.
        BadName: ``endpoint`` is not one.
    """
    context = make_context()
    loop = Loop("ping")
    answer: concurrent.futures.Future[tuple[Pong, float]] = concurrent.futures.Future()
    sent_at_s = loop.now_s()

    def send() -> None:
        nonlocal sent_at_s
        sent_at_s = loop.now_s()
        # a DEALER takes nothing before it is connected, so that is not part of the round trip
        if wire.send(dealer, [bytes(frame) for frame in encode(Ping(), 1)]) is not Sent.OK:
            loop.call_after(_RETRY_S, send)

    def receive(parts: Parts) -> None:
        message = decode(parts).message
        if isinstance(message, Pong) and not answer.done():
            answer.set_result((message, loop.now_s() - sent_at_s))

    try:
        dealer = SocketFactory(context).dealer(endpoint)
        loop.register(dealer, receive)
        loop.call_after(0, send)
        loop.start()
        return answer.result(timeout_s)
    except concurrent.futures.TimeoutError:
        raise Timeout(f"{endpoint}: no answer within {timeout_s:g} s") from None
    finally:
        loop.stop()
        context.destroy(linger=0)
