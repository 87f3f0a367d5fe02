"""Forward what publishers say to whoever subscribed, here and behind other brokers, without unpacking it.

Two hops, each libzmq's own proxy in a thread of its own::

    publishers --> ingress XSUB ==hop==> mesh XPUB --+--> other brokers' links
                                                     |  inproc
                         other brokers' mesh --> links XSUB ==hop==> egress XPUB --> subscribers
                                                     |
                                      the broker's own events

The mesh carries only what entered at this broker's ingress, and the egress that, what the other brokers' meshes
carry, and the broker's own events. So in a full mesh every event reaches every subscriber once, what a broker
says of itself reaches its own subscribers only, and nothing goes round. Subscriptions
travel the other way by themselves: an XPUB passes a topic on with its first subscriber and takes it back with its
last, and an XSUB tells all its topics to a publisher that comes later.

PERF: measured between processes on 2 cores, one publisher and one subscriber over tcp, against one bare proxy
and a loop in Python over pyzmq's frames: 100 B, 366-506 k messages/s (bare 318-399 k, Python 235-353 k); 64 KiB,
0.6-1.0 GB/s, all three alike. Beside a busy Python thread the loop in Python falls to 9 k messages/s, and
these hops, which never take the interpreter lock, stay at 355 k: that is what decided.
"""

import contextlib
import dataclasses
import logging
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import zmq

from zcat.errors import Closed, Timeout, ZcatError
from zcat.limits import MIB
from zcat.net.laggards import MESSAGE_PART_BYTES, QueueLimits
from zcat.net.queue_watch import QueueWatch, Watched
from zcat.net.sockets import (
    CONTROL,
    Context,
    Socket,
    SocketFactory,
    SocketOptions,
    bind,
    connect,
    disconnect,
    endpoint_of,
    local_endpoint,
)

CONTROL_TIMEOUT_S = 5.0
LIMITS = QueueLimits(peer_bytes_max=64 * MIB, total_bytes_max=256 * MIB)
LINKS_QUEUE_FACTOR = 16
EGRESS, MESH = "egress", "mesh"
"""What the sockets are called that others subscribe at."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ForwarderEndpoints:
    """Where a forwarder listens; without ``mesh`` no other broker can link to it."""

    ingress: str
    egress: str
    mesh: str | None = None


@dataclass(frozen=True, slots=True)
class ForwarderCounters:
    """What went through a forwarder since its start, in frames: libzmq counts the parts of a message singly."""

    frames_in: int  # from publishers, at the ingress
    bytes_in: int
    frames_out: int  # to the egress, once each however many subscribers there are
    bytes_out: int
    subscription_changes: int  # topics that got their first subscriber at the egress, or lost their last


class Forwarder:
    """A broker's event path; see the module's docstring.

    A subscriber that does not keep up loses what does not fit its queue, silently: events carry sequence numbers
    so that it notices. One for whom more waits than ``limits`` allow is put out.

    The broker's own events, which are for its own subscribers only, enter at ``local_ingress``; an XPUB connected
    there also hears which topics somebody subscribed to. ``local_egress`` is for its own subscriptions.

    Args:
        context: shared with whoever uses ``local_ingress`` and ``local_egress``.
        endpoints: where to listen; the real ones are then ``ingress``, ``egress`` and ``mesh``.
        options: of all sockets. Let the queues be 1000 messages long or more: libzmq's proxy forwards up to 1000
            before it looks whether subscribers have read any.
        limits: of what waits for the subscribers of each socket.

    Raises:
        AddressInUse: an endpoint cannot be had.
        BadName: an endpoint is not one.
    """

    def __init__(
        self,
        context: Context,
        endpoints: ForwarderEndpoints,
        options: SocketOptions = CONTROL,
        limits: QueueLimits = LIMITS,
    ):
        sockets = SocketFactory(context, options)
        # The way between the hops is shared by all subscribers, so it must not overflow before their own
        # queues do. It is emptied as fast as memory moves; full, it would mean that the process is starved.
        patient = dataclasses.replace(options, queue_bytes=options.queue_bytes * LINKS_QUEUE_FACTOR)
        self.local_ingress = local_endpoint("ingress")
        self.local_egress = local_endpoint("egress")
        trunk = local_endpoint("trunk")
        made: list[Socket] = []
        try:
            made.append(ingress := sockets.xsub(endpoints.ingress))
            self.ingress = endpoint_of(ingress)
            made.append(egress := sockets.xpub(self.local_egress, endpoints.egress))
            self.egress = endpoint_of(egress)
            made.append(mesh := sockets.xpub(trunk))
            self.mesh = bind(mesh, endpoints.mesh) if endpoints.mesh else None
        except ZcatError:
            for socket in made:
                socket.close(linger=0)
            raise
        self._links = SocketFactory(context, patient).xsub(self.local_ingress)
        connect(self._links, trunk)
        self._watch = QueueWatch(SocketFactory(context), limits, {EGRESS: egress, MESH: mesh})
        self._inner = _Hop("ingress", sockets, ingress, mesh)
        self._outer = _Hop("egress", sockets, self._links, egress)

    def start(self) -> None:
        """Start forwarding. Once."""
        self._outer.start()
        self._inner.start()
        self._watch.start(self._sent_bytes)

    def link(self, mesh: str) -> None:
        """Have the events of another broker, whose mesh endpoint this is. From any thread.

        Raises:
            BadName: the endpoint is not one.
            Closed: the forwarder is stopped.
        """
        self._outer.visit(lambda: connect(self._links, mesh))

    def unlink(self, mesh: str) -> None:
        """Take back a ``link``. From any thread.

        Raises:
            Closed: the forwarder is stopped.
        """
        self._outer.visit(lambda: disconnect(self._links, mesh))

    def counters(self) -> ForwarderCounters:
        """Count. From any thread; takes about 0.1 ms.

        Raises:
            Closed: the forwarder is stopped.
        """
        inner, outer = self._inner.traffic(), self._outer.traffic()
        return ForwarderCounters(
            frames_in=inner.front_in_frames,
            bytes_in=inner.front_in_bytes,
            frames_out=outer.back_out_frames,
            bytes_out=outer.back_out_bytes,
            subscription_changes=outer.back_in_frames,
        )

    def watched(self) -> dict[str, Watched]:
        """Tell who is connected, and who does not keep up, at the egress and the mesh. From any thread."""
        return dict(self._watch.seen)

    def is_alive(self) -> bool:
        """Say whether both hops are at work: True from start to stop."""
        return self._inner.is_alive() and self._outer.is_alive()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Close the sockets and end the threads. Idempotent.

        Raises:
            Timeout: a thread did not end.
        """
        self._watch.stop()
        self._inner.stop(timeout_s)
        self._outer.stop(timeout_s)
        self._watch.close()

    def _sent_bytes(self) -> dict[str, int]:
        return {EGRESS: self._outer.traffic().back_out_size, MESH: self._inner.traffic().back_out_size}


@dataclass(frozen=True, slots=True)
class _Traffic:
    """The counters of zmq_proxy_steerable(3), command STATISTICS, in its order."""

    front_in_frames: int = 0
    front_in_bytes: int = 0
    front_out_frames: int = 0
    front_out_bytes: int = 0
    back_in_frames: int = 0
    back_in_bytes: int = 0
    back_out_frames: int = 0
    back_out_bytes: int = 0

    @property
    def back_out_size(self) -> int:
        """What it may cost to have the messages wait for one subscriber."""
        return self.back_out_bytes + MESSAGE_PART_BYTES * self.back_out_frames

    def plus(self, counts: list[int]) -> "_Traffic":
        return _Traffic(*(a + b for a, b in zip(dataclasses.astuple(self), counts, strict=True)))


class _Hop:
    """One libzmq proxy in a thread, which leaves it between two messages when somebody visits its sockets."""

    def __init__(self, name: str, sockets: SocketFactory, frontend: Socket, backend: Socket):
        self._traffic = _Traffic()
        self._frontend = frontend
        self._backend = backend
        self._asker, self._control = sockets.control_pair(CONTROL_TIMEOUT_S)
        self._asker_lock = threading.Lock()
        self._visitor: Callable[[], None] | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"zcat-forwarder-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def traffic(self) -> _Traffic:
        """Return what has passed until now."""
        with self._asker_lock:
            self._check_open()
            return self._traffic if self._thread.ident is None else self._traffic_now()

    def visit(self, function: Callable[[], Result]) -> Result:
        """Return what ``function`` returns on the thread that owns the sockets."""
        future: Future[Result] = Future()

        def visitor() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._asker_lock:
            self._check_open()
            if self._thread.ident is None:  # not started: the sockets are still the caller's
                return function()
            self._visitor = visitor
            self._leave_proxy()
            return future.result(CONTROL_TIMEOUT_S)

    def stop(self, timeout_s: float) -> None:
        with self._asker_lock:
            if not self._is_stopping:
                self._is_stopping = True
                if self._thread.ident is None:
                    self._close()
                elif self._thread.is_alive():
                    with contextlib.suppress(Closed, Timeout):  # the thread ends with its context, or never
                        self._leave_proxy()
                self._asker.close(linger=0)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise Timeout(f"{self._thread.name} did not stop within {timeout_s:g} s")

    def _check_open(self) -> None:
        if self._is_stopping:
            raise Closed("the forwarder is stopped")

    def _leave_proxy(self) -> None:
        """Make the proxy return; nothing is lost meanwhile, since all queues are the sockets'.

        libzmq counts anew when it enters a proxy again, so what passes between the two commands is not counted.
        (PAUSE would prevent that, but libzmq 4.3.5 answers it and goes on forwarding.)
        """
        self._traffic = self._traffic_now()
        self._ask(b"TERMINATE")

    def _traffic_now(self) -> _Traffic:
        return self._traffic.plus([struct.unpack("=Q", count)[0] for count in self._ask(b"STATISTICS")])

    def _ask(self, command: bytes) -> list[bytes]:
        try:
            self._asker.send(command)
            return self._asker.recv_multipart()
        except zmq.Again as error:
            raise Timeout(f"{self._thread.name} did not answer within {CONTROL_TIMEOUT_S:g} s") from error
        except zmq.ZMQError as error:  # its context is terminated: while that goes on, also as EFSM
            raise Closed(f"{self._thread.name} is not at work any more: {error.strerror}") from error

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                zmq.proxy_steerable(self._frontend, self._backend, None, self._control)
                visitor, self._visitor = self._visitor, None
                if visitor is not None:
                    visitor()
        except zmq.ContextTerminated:
            log.error("context terminated under a running forwarder thread=%s", self._thread.name)
        finally:
            self._close()

    def _close(self) -> None:
        for socket in (self._frontend, self._backend, self._control):
            with contextlib.suppress(zmq.ZMQError):  # the context is terminated, and with it all monitors
                # else libzmq's I/O thread could wait for ever for somebody to take the next event
                socket.disable_monitor()
            socket.close()
