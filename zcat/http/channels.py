"""Waitress's side of one connection, made patient with slow networks and impatient with hostile clients.

What is added to waitress: deadlines for those who send or take too slowly, JSON for errors that never reach the
app, pieces of a streamed body that are not copied, and the refusal of requests that say their length twice.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask

from zcat.config import HttpConfig
from zcat.http.bodies import WRAP_BYTES_MIN, BufferFile, Kept
from zcat.http.problems import code_of_status, problem
from zcat.limits import MIB
from zcat.services.at_hand import NotAtHand

TURN_BYTES = MIB
"""Of an answer that is sent before others have their turn: a third of a millisecond."""

ANSWER = "zcat.answer"
"""In the environment of a request: its answer, where that is made already."""


def replaying(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return an app that gives answers that are made already, and has ``app`` make the others."""

    def replay(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        answer = environ.get(ANSWER)
        if answer is None:
            return app(environ, start_response)
        status, headers, body = answer
        start_response(status, headers)
        return body

    return replay


class Parser(HTTPRequestParser):
    """Reads a request; refuses those whose length two readers could understand in two ways (RFC 9112, 6.1)."""

    def parse_header(self, header_plus: bytes) -> None:
        """Read the first line and the headers."""
        super().parse_header(header_plus)
        if "CONTENT_LENGTH" in self.headers and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            raise ParsingError("a request has either a Content-Length or a Transfer-Encoding")


class Task(WSGITask):
    """Answers a request by the app."""

    request: Any  # here and below: what the stubs of waitress have wrong
    channel: Any
    environ: Any

    def ask(self, app: Callable[..., Any]) -> None:
        """Have ``app`` make the answer now; `service` will send it. What the app raises leaves all as it was."""
        started: list[Any] = []
        environ = self.get_environment()
        body = app(environ, lambda *status_and_headers: started.extend(status_and_headers))
        environ[ANSWER] = (*started[:2], body)

    def build_response_header(self) -> bytes:
        """Return the header; a HEAD without a length has no chunks that would have to be ended."""
        header = super().build_response_header()
        if self.request.command == "HEAD":
            self.chunked_response = False
        return header

    def write(self, data: Any) -> None:
        """Send a piece of a body. Large ones are queued as they are: waitress itself would copy each twice.

        A view is copied: it is only good until the next piece is asked for, which may be before it is sent. PERF:
        of a large slice, these copies were a third of the time, and kept the interpreter's lock.
        """
        head = b""
        if not self.wrote_header:
            head, self.wrote_header = self.build_response_header(), True
        if not self.has_body or self.chunked_response or self.content_length is None:
            self.channel.write_soon(head)
            super().write(bytes(data))
            return
        self.content_bytes_written += len(data)
        assert self.content_bytes_written <= self.content_length
        if len(data) < WRAP_BYTES_MIN:
            self.channel.write_soon(head + bytes(data))  # PERF: in one packet, for which the client wakes up once
        else:
            self.channel.write_soon(head)
            self.channel.write_soon(_queued(data.buffer if isinstance(data, Kept) else bytes(data)))


class Refusal(ErrorTask):
    """Answers a request that cannot even be read: with JSON, as everything else that fails."""

    request: Any
    response_headers: Any

    def execute(self) -> None:
        """Send the error and close the connection."""
        error = self.request.error
        status = HTTPStatus(error.code)
        self.status = f"{status.value} {status.phrase}"
        body = problem(code_of_status(status.value), f"{error.reason}: {error.body}")
        self.response_headers.append(("Content-Type", "application/json"))
        self.response_headers.append(("Cache-Control", "no-store"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """One connection, and since when it waits for what."""

    error_task_class = Refusal
    parser_class = Parser

    server: Any
    requests: Any
    outbufs: Any
    _asked: Task | None = None
    _began_s = 0.0
    _sent_nothing_since_s: float | None = None
    _pending_bytes = 0

    def received(self, data: bytes) -> bool:
        """Take bytes of a request."""
        if self.request is None:
            self._began_s = time.monotonic()
        return super().received(data)

    def service_at_hand(self, app: Callable[..., Any]) -> bool:
        """Answer the request by an app that raises `NotAtHand` in place of taking long; False: so it did.

        For the loop, which must not wait: so nothing of former answers may be left to be sent, either.
        """
        if not self.connected or self.requests[0].error or self.total_outbufs_len:
            return False
        self._asked = Task(self, self.requests[0])
        try:
            self._asked.ask(app)
        except NotAtHand:
            return False
        self.service()
        return True

    def service(self) -> None:
        """Answer the request; one that was sent behind it begins to count only now."""
        super().service()
        self._began_s = time.monotonic()

    def task_class(self, _channel: Any, request: Any) -> Task:  # type: ignore[override]  # a class there
        """Return what answers a request: it may have been asked for already."""
        task, self._asked = self._asked, None
        return task or Task(self, request)

    def write_soon(self, data: Any) -> int:
        """Send what the socket takes, and queue the rest. PERF: a small answer passes none of the buffers."""
        if isinstance(data, bytes) and data and not self.total_outbufs_len:
            with self.outbuf_lock:
                if self.connected and not self.total_outbufs_len:
                    sent = self.send(data, do_close=False)
                    if sent:
                        self.last_activity = time.time()
                        data = data[sent:]
        return super().write_soon(data)

    def _flush_some(self, do_close: bool = True) -> bool:
        """Send what the socket takes, but no more than a turn's; say whether that was anything.

        Waitress would go on as long as the socket takes more, which it does for ever where the client is as fast,
        and nobody else would be served meanwhile.
        """
        left = TURN_BYTES
        while left > 0:
            buffer = self.outbufs[0]
            if not len(buffer):
                if len(self.outbufs) == 1:  # the last one stays, to be written to
                    break
                self.outbufs.pop(0).close()
                continue
            sent = self.send(buffer.get(min(self.sendbuf_len, left)), do_close=do_close)
            if not sent:
                break
            buffer.skip(sent, True)
            self.total_outbufs_len -= sent
            left -= sent
        if left < TURN_BYTES:
            self.last_activity = time.time()
        return left < TURN_BYTES

    def is_too_slow(self, config: HttpConfig, now_s: float) -> bool:
        """Say whether the other side keeps the connection without using it.

        Args:
            config: the limits.
            now_s: of the monotonic clock.
        """
        if self.total_outbufs_len:
            return self._takes_nothing(config, now_s)
        self._sent_nothing_since_s = None
        if self.requests or self.request is None:
            return False  # being answered; or idle, which is waitress's own business
        waited_s = now_s - self._began_s - config.header_deadline_s
        if waited_s < 0:
            return False
        received = self.request.body_bytes_received
        return not self.request.headers_finished or received < waited_s * config.body_rate_min_bytes

    def _takes_nothing(self, config: HttpConfig, now_s: float) -> bool:
        # A client that stops reading would else hold the worker that waits for room in its queue.
        # What is pending may also grow, by what the worker adds; it shrinks only when the client takes some.
        pending = self.total_outbufs_len
        if self._sent_nothing_since_s is None or pending < self._pending_bytes:
            self._sent_nothing_since_s = now_s
        self._pending_bytes = pending
        return now_s - self._sent_nothing_since_s > config.idle_timeout_s


def _queued(data: Any) -> ReadOnlyFileBasedBuffer:
    file: Any = BufferFile((data,))
    buffer = ReadOnlyFileBasedBuffer(file)
    buffer.prepare(len(data))
    return buffer
