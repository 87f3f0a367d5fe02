"""HTTP requests that a worker leaves to its subscriber: all that is not read from the cache that both share.

So every route there is works at every worker, and only those that move data need to know that there are any.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import falcon

from zcat.config import HttpConfig
from zcat.errors import ZcatError
from zcat.http import problems
from zcat.http.app import make_app
from zcat.http.at_hand import reraise
from zcat.http.reads import Dataset, Network
from zcat.limits import MIB
from zcat.model.dataset import Entry
from zcat.protocol.codec import pack, unpack
from zcat.protocol.worker_messages import Pass, Passed

OWN = ("/api/fetch/", "/api/points/", "/api/chunk/", "/api/download/", "/api/info/")
"""Beginnings of paths that a worker answers itself."""

ANSWER_BYTES_MAX = 60 * MIB
"""Of a passed answer: a listing of half a million datasets."""

_HEAD_BYTES_MAX = MIB

T = TypeVar("T")
StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[Any]]


class Worker(Protocol):
    """What a worker has of its subscriber."""

    def on_version(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        """Run ``work`` on the newest version of a dataset."""

    def at_hand(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        """Run ``work`` on the newest version of a dataset if that takes no more than a moment."""

    def passed(self, request: Pass) -> Passed:
        """Have the subscriber answer a request."""


class WorkerApp:
    """The WSGI app of a worker."""

    def __init__(self, worker: Worker, config: HttpConfig, counted: Callable[[], None]) -> None:
        """Make it.

        Args:
            worker: its methods are called from the server's threads.
            config: as the subscriber has it.
            counted: called once for each request.
        """
        self._worker = worker
        self._counted = counted
        self._own = make_app(_OwnReads(worker), config)
        self._own.add_error_handler(_Elsewhere, reraise)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[Any]:
        """Answer a request."""
        self._counted()
        if environ["PATH_INFO"].startswith(OWN):
            try:
                return self._own(environ, start_response)
            except _Elsewhere:
                pass
        return _pass(self._worker, environ, start_response)

    def at_hand(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[Any]:
        """Answer a request if that takes no more than a moment; see `zcat.http.app.App.at_hand`."""
        answer = self._own.at_hand(environ, start_response)
        self._counted()
        return answer


def answer_passed(app: App, request: Pass) -> Passed:
    """Answer a request that a worker passed on; called by any thread of the subscriber.

    Args:
        app: the subscriber's own.
        request: the texts of its environment, and its body.
    """
    head, body = request.parts
    environ: dict[str, Any] = unpack(head, _HEAD_BYTES_MAX)
    environ |= {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        started[:] = status, headers

    parts = app(environ, start_response)
    try:
        answer = b"".join(map(bytes, _within(parts, ANSWER_BYTES_MAX)))
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
    status, headers = started
    return Passed((pack([status, [list(header) for header in headers]]), answer))


class _Elsewhere(Exception):
    """This worker cannot say; the subscriber can."""


class _OwnReads:
    """What a worker reads itself."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def on_version(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        return self._worker.on_version(root, path, work)

    def at_hand(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        return self._worker.at_hand(root, path, work)

    def entries(self, root: str, under: str = "") -> list[Entry]:
        raise _Elsewhere

    def roots(self) -> list[Any]:
        raise _Elsewhere

    def follow(self, root: str) -> Any:
        raise _Elsewhere

    def unfollow(self, root: str) -> None:
        raise _Elsewhere

    def health(self) -> dict[str, Any]:
        raise _Elsewhere

    @property
    def survey(self) -> Network:
        raise _Elsewhere


def _pass(worker: Worker, environ: dict[str, Any], start_response: StartResponse) -> Iterable[Any]:
    head = pack({key: value for key, value in environ.items() if type(value) is str and "." not in key})
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        passed = worker.passed(Pass((head, body)))
    except ZcatError as error:
        return _failed(error, start_response)
    status, headers = unpack(passed.parts[0], _HEAD_BYTES_MAX)
    start_response(status, [tuple(header) for header in headers])
    return [bytes(passed.parts[1])]


def _failed(error: ZcatError, start_response: StartResponse) -> Iterable[Any]:
    status = HTTPStatus(problems.status_of(error))
    body = problems.problem(error.code, error.message)
    headers = [
        ("Content-Type", falcon.MEDIA_JSON),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def _within(parts: Iterable[Any], nbytes_max: int) -> Iterator[Any]:
    for part in parts:
        nbytes_max -= len(part)
        if nbytes_max < 0:
            raise ZcatError("an answer for a worker is larger than one message may be")
        yield part
