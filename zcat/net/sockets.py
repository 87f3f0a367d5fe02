"""Make ZeroMQ sockets: the only place that does, with every option that zcat relies on written out.

What is not set here is not relied on. Routing identities are never set: two peers that claim the same one make
messages vanish without an error, or reach the wrong one (libzmq #4503).
"""

import errno
import ipaddress
import os
import socket as posix
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import zmq

from zcat import limits, names
from zcat.errors import AddressInUse, BadName, ZcatError
from zcat.net.memory import keep_freed_memory

Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]
"""What annotations of other packages call them, so that they need not import ``zmq``."""

LIBZMQ_MIN = (4, 3, 5)
"""Older ones have known holes (CVE-2019-6250, CVE-2019-13132, CVE-2020-15166, CVE-2021-20236)."""
SOCKETS_MAX = 8192
IO_THREADS = 1

KEEPALIVE_IDLE_S = 2
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 3
UNCONFIRMED_MS = 5000
"""A connection on which something was sent, a probe at least, that nobody confirms for so long, is closed."""
HANDSHAKE_MS = 2000
CONNECT_TIMEOUT_MS = 5000
RECONNECT_MIN_MS = 100
RECONNECT_MAX_MS = 2000
BACKLOG = 1024

QUEUED_MIN = 16
SUBSCRIPTIONS_QUEUED_MAX = 100_000

_WHAT_TO_DO = {
    errno.EADDRINUSE: "somebody else has it: choose another port (0 takes a free one), or stop the other process",
    errno.EADDRNOTAVAIL: "it is not an address of this host: name one of its own, or * for all of them",
    errno.ENODEV: "this host has no such name, address or network interface",
    errno.EACCES: "permission denied: choose a port above 1023, or a folder that you may write in",
    errno.EPERM: "permission denied: choose a port above 1023, or a folder that you may write in",
    errno.ENOENT: "its folder does not exist: make it first",
    errno.ENAMETOOLONG: "the path is longer than the system allows: choose a shorter one",
}


def make_context() -> Context:
    """Make a context; several services of a process may share one.

    Raises:
        ZcatError: libzmq is too old.
    """
    check_libzmq(zmq.zmq_version_info())
    keep_freed_memory()
    context = zmq.Context(io_threads=IO_THREADS)  # a second one measured no faster
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    context.set(zmq.BLOCKY, 0)  # else term() waits for ever for a peer that is gone
    return context


def check_libzmq(version: tuple[int, ...]) -> None:
    """Refuse a libzmq with known holes.

    Raises:
        ZcatError: ``version`` is older than ``LIBZMQ_MIN``.
    """
    if version < LIBZMQ_MIN:
        wanted, found = (".".join(map(str, each)) for each in (LIBZMQ_MIN, version))
        raise ZcatError(
            f"wanted libzmq {wanted} or newer, found {found}, which has known holes: install a newer pyzmq"
        )


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How much one peer may hold in memory, and how large its frames may be.

    ZeroMQ's queues (high-water marks) count messages, however many frames each has: the typical size of a message
    makes one of the other. What forwards the messages of others watches their bytes, too: `zcat.net.laggards`.
    """

    queue_bytes: int = 64 * limits.MIB  # per peer and direction
    typical_bytes: int = limits.CONTROL_FRAME_BYTES_MAX  # of a message
    frame_bytes_max: int = limits.CONTROL_FRAME_BYTES_MAX  # a peer that sends a larger one is disconnected
    linger_s: float = 0.5  # how long the last messages may take after close
    send_buffer_bytes: int | None = None  # of the kernel, for each connection over TCP; None: as it likes

    @property
    def queued_max(self) -> int:
        """The high-water mark."""
        return max(QUEUED_MIN, self.queue_bytes // self.typical_bytes)


CONTROL = SocketOptions()
"""For sockets that carry msgpack frames only."""

DATA = SocketOptions(typical_bytes=limits.MIB, frame_bytes_max=limits.MESSAGE_FRAME_BYTES_MAX)
"""For sockets that carry chunks."""


class SocketFactory:
    """Makes the sockets of one service.

    Each method takes the endpoints to bind (router, xpub, xsub) or connect (dealer, pub, sub); for the other way
    round, or for later, call ``bind`` and ``connect`` on the result. ``endpoint_of`` tells where a socket listens.
    """

    def __init__(self, context: Context, options: SocketOptions = CONTROL):
        self.context = context
        self.options = options

    def router(self, *endpoints: str) -> Socket:
        """Make a ROUTER that says so when a peer is gone or slow, and bind it."""
        router = self._make(zmq.ROUTER)
        # without it, what is for an unknown or a slow peer is dropped without a word
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.ROUTER_HANDOVER, 0)
        return self._attached(router, bind, endpoints)

    def dealer(self, *endpoints: str) -> Socket:
        """Make a DEALER that queues nothing for peers that are not there, and connect it."""
        dealer = self._make(zmq.DEALER)
        dealer.set(zmq.IMMEDIATE, 1)
        return self._attached(dealer, connect, endpoints)

    def link(self, endpoint: str) -> Socket:
        """Make a DEALER that keeps what is sent while it is being connected, and connect it."""
        return self._attached(self._make(zmq.DEALER), connect, (endpoint,))

    def pub(self, *endpoints: str) -> Socket:
        """Make a PUB and connect it."""
        pub = self._make(zmq.PUB)
        pub.set(zmq.RCVHWM, SUBSCRIPTIONS_QUEUED_MAX)
        return self._attached(pub, connect, endpoints)

    def sub(self, *endpoints: str) -> Socket:
        """Make a SUB and connect it."""
        return self._attached(self._subscribing(zmq.SUB), connect, endpoints)

    def xpub(self, *endpoints: str) -> Socket:
        """Make an XPUB and bind it."""
        xpub = self._make(zmq.XPUB)
        xpub.set(zmq.RCVHWM, SUBSCRIPTIONS_QUEUED_MAX)
        # Upstream learns of a topic with its first subscriber and forgets it with its last: once each.
        # Publishers that come late are told by XSUB, which remembers all topics.
        xpub.set(zmq.XPUB_VERBOSE, 0)
        xpub.set(zmq.XPUB_VERBOSER, 0)
        xpub.set(zmq.XPUB_NODROP, 0)  # one slow subscriber would stop all the others
        return self._attached(xpub, bind, endpoints)

    def xsub(self, *endpoints: str) -> Socket:
        """Make an XSUB and bind it."""
        return self._attached(self._subscribing(zmq.XSUB), bind, endpoints)

    def control_pair(self, timeout_s: float) -> tuple[Socket, Socket]:
        """Make a REQ and the REP that it is connected to, inside this process; the REQ never waits longer."""
        asker, answerer = self._make(zmq.REQ), self._make(zmq.REP)
        asker.set(zmq.SNDTIMEO, round(timeout_s * 1000))
        asker.set(zmq.RCVTIMEO, round(timeout_s * 1000))
        connect(asker, bind(answerer, local_endpoint("control")))
        return asker, answerer

    def pair(self, queue_unlimited: bool = False) -> Socket:
        """Make a PAIR, for messages within this process."""
        pair = self._make(zmq.PAIR)
        if queue_unlimited:
            pair.set(zmq.RCVHWM, 0)
        return pair

    def _subscribing(self, kind: int) -> Socket:
        socket = self._make(kind)
        # What it sends are subscriptions, which are small; libzmq drops those above the mark without a word
        # (xsub.cpp, send_subscription), so a mark meant for chunks would lose topics.
        socket.set(zmq.SNDHWM, SUBSCRIPTIONS_QUEUED_MAX)
        return socket

    def _make(self, kind: int) -> Socket:
        socket = self.context.socket(kind)
        options = self.options
        socket.set(zmq.LINGER, round(options.linger_s * 1000))
        socket.set(zmq.SNDHWM, options.queued_max)
        socket.set(zmq.RCVHWM, options.queued_max)
        if options.send_buffer_bytes is not None:
            socket.set(zmq.SNDBUF, options.send_buffer_bytes)
        socket.set(zmq.MAXMSGSIZE, options.frame_bytes_max)
        socket.set(zmq.IPV6, 1)
        socket.set(zmq.BACKLOG, BACKLOG)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)  # whoever connects and says nothing holds a descriptor
        socket.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        # SAFETY: no heartbeats of ZeroMQ. A peer that sends more than fits the queue and goes, while nobody takes
        # its messages for a second, would end the process, whatever the kind of the socket: libzmq 4.3.5 asserts
        # when it is time for a ping on such a connection (libzmq #4841), or for the answer to one, which is why
        # nobody else should send any either. The kernel finds dead hosts and links; whether a process works is
        # seen by whoever asks it something.
        socket.set(zmq.HEARTBEAT_IVL, 0)
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
        socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
        socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
        socket.set(zmq.TCP_MAXRT, UNCONFIRMED_MS)  # TCP_USER_TIMEOUT of tcp(7)
        return socket

    @staticmethod
    def _attached(socket: Socket, attach: Callable[[Socket, str], object], endpoints: tuple[str, ...]) -> Socket:
        try:
            for endpoint in endpoints:
                attach(socket, endpoint)
        except ZcatError:
            socket.close(linger=0)
            raise
        return socket


def bind(socket: Socket, endpoint: str) -> str:
    """Bind, and return the endpoint with its real port: ``tcp://127.0.0.1:0`` and ``:*`` take a free one.

    Raises:
        BadName: the endpoint has a form that ZeroMQ does not know.
        AddressInUse: it cannot be had; the message says what to do.
    """
    names.check_endpoint(endpoint)
    if endpoint.startswith("ipc://") and is_served(endpoint.removeprefix("ipc://")):
        raise AddressInUse(f"cannot bind {endpoint}: {_WHAT_TO_DO[errno.EADDRINUSE]}")
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        reason = _WHAT_TO_DO.get(error.errno or 0, error.strerror)
        raise AddressInUse(f"cannot bind {endpoint}: {reason}") from error
    return endpoint_of(socket)


def connect(socket: Socket, endpoint: str) -> None:
    """Connect: now if somebody listens there, else as soon as somebody does.

    Raises:
        BadName: the endpoint is not one that can be connected.
    """
    names.check_endpoint(endpoint)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BadName(f"cannot connect to {endpoint}: {error.strerror}") from error


def disconnect(socket: Socket, endpoint: str) -> None:
    """Take back a ``connect``; without effect if there was none."""
    try:
        socket.disconnect(endpoint)
    except zmq.ZMQError as error:
        if error.errno != errno.ENOENT:
            raise


def endpoint_of(socket: Socket) -> str:
    """Return the endpoint that the socket was bound or connected to last."""
    endpoint = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
    # An IPv4 address bound by an IPv6 socket; hosts without IPv6 could not connect to this spelling of it.
    if endpoint.startswith("tcp://[::ffff:"):
        endpoint = "tcp://" + endpoint.removeprefix("tcp://[::ffff:").replace("]", "")
    return endpoint


def local_endpoint(purpose: str) -> str:
    """Make up an ``inproc`` endpoint that nobody else in this process has."""
    return f"inproc://zcat-{purpose}-{uuid.uuid4().hex}"


def exposure(endpoint: str) -> str | None:
    """Say in a sentence who can reach a bound endpoint; None if nobody outside this host."""
    if not endpoint.startswith("tcp://"):
        return None
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host in {"localhost", "lo"}:
        return None
    try:
        address = ipaddress.ip_address("0.0.0.0" if host == "*" else host)
    except ValueError:  # the name of a host or of a network interface
        return _sentence(endpoint, f"the networks of {host}")
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return None
    return _sentence(
        endpoint, "every network of this host" if address.is_unspecified else f"the network of {host}"
    )


def _sentence(endpoint: str, whence: str) -> str:
    return f"{endpoint} can be reached from {whence}; nothing there is encrypted or authenticated"


def is_served(path: str) -> bool:
    """Say whether somebody accepts connections on a Unix socket.

    libzmq removes whatever has the path before it binds (ipc_listener.cpp), so a second service would take the
    first one's clients without either noticing.
    """
    if not os.path.exists(path):
        return False
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0
