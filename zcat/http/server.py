"""An HTTP server in a thread of its own: waitress, set up for many connections and large bodies."""

import errno
import ipaddress
import logging
import socket
import threading
import time
from typing import Any, Protocol

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from zcat.config import HttpConfig
from zcat.errors import AddressInUse, BadConfig
from zcat.http.channels import Channel, replaying
from zcat.http.threads import LatestFirst
from zcat.http.watched import Watched
from zcat.limits import GIB, KIB
from zcat.logs import kv
from zcat.net.descriptors import raise_file_limit

log = logging.getLogger(__name__)

PORT_MAX = 65535

_FILES_BESIDES = 512  # sockets of ZeroMQ, cache files and the like, besides the connections
_SPARE_CONNECTIONS = 16  # waitress counts its listener and its wake-up pipe as connections
_LOOP_TIMEOUT_S = 1.0
_CLOSE_TIMEOUT_S = 5

YIELD_S = 0.003
"""How long a connection is left to a server that has fewer."""


class Crowd(Protocol):
    """Servers of several processes that accept from one socket, as one of them sees them."""

    def tell(self, connections: int) -> None:
        """Say how many connections this one has."""

    def is_ahead(self, connections: int) -> bool:
        """Say whether another one has fewer than this."""


class HttpServer:
    """Serves a WSGI app until it is closed."""

    def __init__(
        self,
        app: Any,
        config: HttpConfig,
        listener: socket.socket | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        """Prepare; `start` binds the address.

        Args:
            app: to be served.
            config: see there.
            listener: bound already, in place of the address of ``config``.
            crowd: of servers that share the listener.

        Raises:
            BadConfig: with these numbers nobody would be answered.
        """
        _check(config)
        self._app = app
        self._config = config
        self._listener = listener
        self._crowd = crowd
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""
        """Where it answers, with the real port and no slash at the end; empty before `start`."""

    def start(self) -> None:
        """Bind the address and begin to answer.

        Raises:
            AddressInUse: somebody else has the address, or it is not this host's.
            BadConfig: nobody knows such a name.
        """
        config = self._config
        listener = self._listener or bound(config)
        raise_file_limit(config.connections_max + _FILES_BESIDES)
        self.url = url_of(listener)
        self._server = _Server(self._app, config, listener, self._crowd)
        self._thread = threading.Thread(target=self._server.run, name="zcat-http", daemon=True)
        self._thread.start()
        if self._listener is None:
            warn_of_exposure(config, self.url)

    def close(self) -> None:
        """Stop answering: connections are closed, and what was being sent is cut."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.trigger.pull_trigger(server.close_all)
        thread.join(_CLOSE_TIMEOUT_S)
        server.task_dispatcher.shutdown(timeout=_CLOSE_TIMEOUT_S)
        server.trigger.close()


def bound(config: HttpConfig) -> socket.socket:
    """Bind the address.

    Raises:
        AddressInUse: somebody else has it, or it is not this host's.
        BadConfig: nobody knows such a name.
    """
    family, kind, protocol, _, address = _resolved(config)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        what_to_do = "choose another port"
        if error.errno == errno.EADDRNOTAVAIL:
            what_to_do = "name an address of this host, or 0.0.0.0 for all of them"
        raise AddressInUse(
            f"HTTP address {config.host}:{config.port} cannot be bound ({error.strerror}): {what_to_do}"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a bound socket, with its real port and no slash at the end."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def warn_of_exposure(config: HttpConfig, url: str) -> None:
    """Log it if others than this host can reach the server."""
    warning = exposure(config)
    if warning:
        log.warning("%s %s", warning, kv(url=url))


def exposure(config: HttpConfig) -> str | None:
    """Return a sentence that warns if others than this host can reach the server; else None."""
    addresses = _resolved(config)
    if all(ipaddress.ip_address(address[4][0].partition("%")[0]).is_loopback for address in addresses):
        return None
    return (
        f"HTTP listens on {config.host}: everybody who can reach this host can read all that this subscriber "
        "follows, and can make it follow other roots; put an authenticating proxy in front, or bind 127.0.0.1"
    )


class _Server(TcpWSGIServer):
    """What `waitress.create_server` would make, with our channels and our maintenance."""

    channel_class = Channel
    trigger: Any  # here and below: what the stubs of waitress have wrong
    active_channels: Any
    task_dispatcher: Any

    def __init__(self, app: Any, config: HttpConfig, listener: socket.socket, crowd: Crowd | None = None) -> None:
        adjustments = Adjustments(
            sockets=[listener],
            threads=config.threads,
            connection_limit=config.connections_max + _SPARE_CONNECTIONS,
            channel_timeout=max(round(config.idle_timeout_s), 1),
            cleanup_interval=1,
            max_request_header_size=config.header_max_bytes,
            max_request_body_size=config.body_max_bytes + 1,  # waitress refuses the number itself
            inbuf_overflow=config.body_max_bytes + 1,
            outbuf_overflow=GIB,  # never a temporary file: what is pending is bounded by its high-water mark
            recv_bytes=64 * KIB,
            channel_request_lookahead=0,
            clear_untrusted_proxy_headers=True,
            expose_tracebacks=False,
            ident=None,
            log_socket_errors=False,
        )
        self._config = config
        self._crowd = crowd
        self._yields_until_s = 0.0
        self._at_hand: Any = getattr(app, "at_hand", None)
        self._due: list[Channel] = []
        self._loop_thread = 0
        dispatcher: Any = LatestFirst(config.threads)
        address = (listener.family, listener.type, listener.proto, listener.getsockname())
        self._watched = Watched()
        super().__init__(
            replaying(app),
            map=self._watched,
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=address,
            bind_socket=False,
        )

    def run(self) -> None:
        """Serve until `close_all`."""
        self._loop_thread = threading.get_ident()
        while self._watched:
            wait_s = _LOOP_TIMEOUT_S
            if self._due:
                wait_s = 0.0
            elif self._yields_until_s > time.monotonic():
                wait_s = YIELD_S
            self._watched.wait(wait_s)
            due, self._due = self._due, []
            for channel in due:
                if not self._answers_at_hand(channel):
                    self.task_dispatcher.add_task(channel)
        self._watched.close()

    def add_task(self, task: Any) -> None:
        """Have a request answered: at once, by the loop that has read it, if that takes no more than a moment."""
        if self._at_hand is not None and threading.get_ident() == self._loop_thread:
            self._due.append(task)
        else:
            self.task_dispatcher.add_task(task)

    def pull_trigger(self) -> None:
        """Wake the loop, if this is another thread."""
        if threading.get_ident() != self._loop_thread:
            super().pull_trigger()

    def _answers_at_hand(self, channel: Channel) -> bool:
        try:
            return channel.service_at_hand(self._at_hand)
        except Exception:  # the top of this thread; another one will meet the same, and only that client with it
            log.exception("bug in=http")
            return False

    def readable(self) -> bool:
        """Say whether a connection may be accepted; called before each wait."""
        if self._crowd is not None:
            self._crowd.tell(len(self.active_channels))
        is_yielding = self._yields_until_s > time.monotonic()
        return bool(super().readable()) and not is_yielding

    def handle_accept(self) -> None:
        """Accept a connection; but leave it to a server that has fewer for a moment, if there is one.

        Else one of two servers would get a third of the connections, and the other the rest. All of them are
        awake now, so the moment is short; and nobody waits longer for one that is stuck.
        """
        now_s = time.monotonic()
        yielded_s = now_s - self._yields_until_s
        if self._crowd is not None and yielded_s > YIELD_S and self._crowd.is_ahead(len(self.active_channels)):
            self._yields_until_s = now_s + YIELD_S
            return
        super().handle_accept()

    def maintenance(self, now: Any) -> None:
        """Close idle connections, and those of clients that are too slow; called about once a second."""
        super().maintenance(now)
        now_s = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.is_too_slow(self._config, now_s):
                log.info("connection too slow %s", kv(client=channel.addr[0]))
                # not its will_close, which waits until the client takes something: it never will
                channel.handle_close()
        self._watched.ask_all()

    def close_all(self) -> None:
        """Close everything but the trigger, which ends the loop; only its own thread may call.

        Its pipe stays open as long as anybody may ring it: the number could be another file's by then.
        """
        for channel in list(self.active_channels.values()):
            channel.handle_close()  # wakes the worker that waits for room, too
        wasyncore.dispatcher.close(self)
        self.trigger.del_channel()


def _check(config: HttpConfig) -> None:
    if not 0 <= config.port <= PORT_MAX:  # the system would take the rest of a division
        raise BadConfig(f"HTTP port {config.port}: wanted 0 to {PORT_MAX}")
    for name in ("threads", "connections_max"):
        if getattr(config, name) < 1:
            raise BadConfig(f"{name} of HTTP is {getattr(config, name)}: wanted 1 or more")


def _resolved(config: HttpConfig) -> list[Any]:
    try:
        return socket.getaddrinfo(
            config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise BadConfig(f"HTTP address {config.host}:{config.port}: {error.strerror}") from None
