"""HTTP to one subscriber: kept-alive connections, honest time-outs, and its errors as ours."""

import contextlib
import json
import os
import urllib.parse
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from zcat.client.backend import BodyCut
from zcat.errors import BadMessage, BadRequest, Closed, Timeout, Unavailable, ZcatError, error_of
from zcat.limits import KIB
from zcat.names import shown

CONNECT_TIMEOUT_S = 10.0
"""A host that does not answer at all is given up after this, if ``timeout_s`` is not less."""

POOL_CONNECTIONS = 16
"""Connections that are kept; more threads than that may read, over connections that are not."""

_ERROR_BYTES_MAX = 64 * KIB


class Connection:
    """Requests to one subscriber. Any thread, and any process that is forked off, may send them."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: such as ``http://127.0.0.1:8000``; a path in front of ``/api`` may follow.
            timeout_s: how long to wait for a connection, and each time for the next bytes of an answer.

        Raises:
            BadRequest: that is no URL of a subscriber, or no time.
        """
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError as error:  # a bracket that is not closed
            raise BadRequest(f"subscriber {shown(url)}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise BadRequest(f"subscriber {shown(url)}: wanted a URL such as http://127.0.0.1:8000")
        if not timeout_s > 0:
            raise BadRequest(f"timeout_s is {timeout_s}, wanted a number of seconds above 0")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self.timeout_s = timeout_s
        self._timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._pid = 0
        self._is_closed = False

    def close(self) -> None:
        """Close all connections; later requests raise `Closed`."""
        self._is_closed = True
        if self._pool is not None:
            self._pool.close()

    def json(self, method: str, route: str) -> Any:
        """Send a request without a body, and return the JSON that is answered."""
        with self.open(method, route) as response:
            data = self.take(response, None)
        try:
            return json.loads(data)
        except ValueError:
            raise BadMessage(f"{self.url} answers, but not as a zcat subscriber does: is the URL right?") from None

    @contextlib.contextmanager
    def open(
        self, method: str, route: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request, and give its answer, whose body has yet to be taken.

        Args:
            method: all that are used may be repeated without harm.
            route: what follows the URL, quoted.
            body: of the request.
            headers: besides those that are always sent.

        Raises:
            ZcatError: as the subscriber says, or `Unavailable` or `Timeout` where it says nothing.
        """
        response = self._send(method, route, body, {"Accept-Encoding": "identity", **(headers or {})})
        try:
            if response.status >= 400:
                raise self._refusal(response)
            yield response
        except BaseException:
            response.close()  # what is left of the body would be taken for the next answer
            raise
        finally:
            response.release_conn()

    def take(self, response: urllib3.BaseHTTPResponse, nbytes: int | None) -> bytes:
        """Return the next ``nbytes`` of a body, fewer only at its end; or all that is left of it.

        Raises:
            BodyCut: the other side broke off. Timeout: nothing came.
        """
        try:
            return response.read(nbytes)
        except ReadTimeoutError:
            raise self._timed_out() from None
        except HTTPError as error:
            raise BodyCut(f"{self.url} broke off in the middle of an answer ({error})") from None

    def _send(
        self, method: str, route: str, body: bytes | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            try:
                return self._request(method, route, body, headers)
            except ProtocolError:
                # A server may close an idle connection just when it is used again: that says nothing about it.
                return self._request(method, route, body, headers)
        except NewConnectionError as error:
            raise Unavailable(
                f"nobody answers at {self.url} ({error.__cause__ or error}); is a subscriber running there? "
                "Start one with: zcat subscribe"
            ) from None
        except (ConnectTimeoutError, ReadTimeoutError):
            raise self._timed_out() from None
        except LocationParseError:
            raise BadRequest(f"subscriber {shown(self.url)}: that is no URL") from None
        except HTTPError as error:
            raise Unavailable(f"{self.url} cannot be asked: {error}") from None

    def _request(
        self, method: str, route: str, body: bytes | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        return self._connections().urlopen(
            method,
            self._prefix + route,
            body=body,
            headers=headers,
            timeout=self._timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _connections(self) -> urllib3.HTTPConnectionPool:
        if self._is_closed:
            raise Closed(f"the client of {self.url} is closed; make another with zcat.connect")
        pool = self._pool
        if pool is None or self._pid != os.getpid():
            # Two processes on one connection would take each other's answers: a forked one makes its own.
            # PERF: a pool of one host, not urllib3's manager of pools, which adds 0.1 ms to each request
            pool = urllib3.connection_from_url(self.url, maxsize=POOL_CONNECTIONS, block=False)
            self._pool, self._pid = pool, os.getpid()
        return pool

    def _timed_out(self) -> Timeout:
        return Timeout(
            f"no answer from {self.url} within {self.timeout_s:g} s; zcat.connect(timeout_s=…) sets that"
        )

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ZcatError:
        try:
            problem = json.loads(response.read(_ERROR_BYTES_MAX))
            return error_of(str(problem["code"]), str(problem["message"]))
        except (ValueError, TypeError, KeyError, HTTPError):
            return Unavailable(f"{self.url} answers {response.status}, and not as a zcat subscriber does")
