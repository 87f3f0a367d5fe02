"""How a worker asks its subscriber: a DEALER on a loop of its own, and threads that wait for the answers."""

import functools
import itertools
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass, field
from typing import Any

from zcat.errors import Closed, Timeout
from zcat.net.loop import Action, Loop
from zcat.net.sockets import DATA, SocketFactory, make_context
from zcat.net.wire import Parts, Sent, send
from zcat.protocol.messages import Failed, Message, decode, encode
from zcat.protocol.worker_messages import WORKER_MESSAGES, Abandon, Brought

_RESEND_S = 0.01
"""A socket that is still connecting, or whose queue is full, takes nothing."""


@dataclass(slots=True)
class Question:
    """What somebody waits for."""

    id: int
    message: Message
    answer: "Future[Any]" = field(default_factory=Future)
    loose: dict[int, bytes] = field(default_factory=dict)
    """Chunks that came in parts of the answer before the last."""


class Asking:
    """Questions to the subscriber, and its answers. Any thread may call."""

    def __init__(self, endpoint: str, tick: Action, tick_s: float) -> None:
        """Connect; `start` begins.

        Args:
            endpoint: of the subscriber's desk.
            tick: called on the loop every ``tick_s``.
            tick_s: see there.
        """
        self._context = make_context()
        self._loop = Loop("worker")
        self._socket = SocketFactory(self._context, DATA).dealer(endpoint)
        self._ids = itertools.count(1)
        self._questions: dict[int, Question] = {}
        self._action, self._tick_s = tick, tick_s

    def start(self) -> None:
        """Begin to ask."""
        self._loop.register(self._socket, self._receive)
        self._loop.call_after(self._tick_s, self._tick)
        self._loop.start()

    def close(self) -> None:
        """Stop. Who waits gets `Closed`."""
        self._loop.stop()
        for question in self._questions.values():
            question.answer.cancel()
        self._context.destroy(linger=0)

    def ask(self, message: Message, wait_s: float) -> Any:
        """Ask, and wait for the answer.

        Raises:
            Timeout: there was none in time. Else what the subscriber says.
        """
        return self.wait(self.begin(message), wait_s)

    def begin(self, message: Message) -> Question:
        """Ask; `wait` for the answer, or `abandon` it."""
        question = Question(next(self._ids), message)
        self._loop.post(lambda: self._pose(question))
        return question

    def wait(self, question: Question, wait_s: float) -> Any:
        """Wait for an answer.

        Raises:
            Timeout: there was none in time. Else what the subscriber says.
        """
        try:
            return question.answer.result(wait_s)
        except WaitedTooLong:
            self.abandon(question)
            raise Timeout(f"the subscriber did not answer {question.message.verb!r} within {wait_s:g} s") from None
        except CancelledError:
            raise Closed("the worker was closed") from None

    def abandon(self, question: Question) -> None:
        """Nobody waits for it any more."""
        self._loop.post(lambda: self._drop(question))

    def tell(self, message: Message) -> None:
        """Say what is not answered, if it can be said now. On the loop."""
        send(self._socket, encode(message))

    def _tick(self) -> None:
        self._loop.call_after(self._tick_s, self._tick)
        self._action()

    def _pose(self, question: Question) -> None:
        if question.answer.done():
            return
        self._questions[question.id] = question
        if send(self._socket, encode(question.message, question.id)) is not Sent.OK:
            self._loop.call_after(_RESEND_S, functools.partial(self._pose, question))

    def _drop(self, question: Question) -> None:
        question.answer.cancel()
        if self._questions.pop(question.id, None) is not None:
            send(self._socket, encode(Abandon(), question.id))

    def _receive(self, parts: Parts) -> None:
        received = decode(parts, WORKER_MESSAGES)
        message, question = received.message, self._questions.get(received.id)
        if question is None:
            return
        if isinstance(message, Brought):
            question.loose.update(zip(message.loose, map(bytes, message.data), strict=True))
            if message.more:
                return
        del self._questions[received.id]
        if isinstance(message, Failed):
            question.answer.set_exception(message.error)
        else:
            question.answer.set_result(question.loose if isinstance(message, Brought) else message)
