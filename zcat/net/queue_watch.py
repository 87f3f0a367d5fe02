"""A thread that looks after the subscribers of a forwarder: see `zcat.net.laggards`."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from zcat.errors import Closed, Timeout
from zcat.logs import kv
from zcat.net.laggards import Behind, Laggards, QueueLimits
from zcat.net.sockets import Socket, SocketFactory, connect, local_endpoint

LOOK_EVERY_S = 0.1
"""PERF: a look at 1000 connections takes 3 ms, and happens only while events pass or somebody is behind."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen last of one socket."""

    connections_count: int = 0
    behind: tuple[Behind, ...] = ()
    """The furthest first."""
    behind_bytes: int = 0
    """Of all together."""
    put_out_count: int = 0


class QueueWatch:
    """Looks at the connections of some sockets, again and again."""

    def __init__(self, sockets: SocketFactory, limits: QueueLimits, watched: Mapping[str, Socket]) -> None:
        """Begin to note who connects; `start` begins to look.

        Args:
            sockets: of the same context.
            limits: of each of the sockets by itself.
            watched: sockets, still of this thread, by what to call them.
        """
        self.seen = dict.fromkeys(watched, Watched())
        """Its values are replaced as a whole, so that any thread may look."""
        self._laggards = {name: Laggards(limits) for name in watched}
        self._monitors = {name: _monitor(sockets, socket) for name, socket in watched.items()}
        self._sent_bytes: Callable[[], Mapping[str, int]] = dict
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zcat-forwarder-queues", daemon=True)

    def start(self, sent_bytes: Callable[[], Mapping[str, int]]) -> None:
        """Start looking. Once.

        Args:
            sent_bytes: tells how much each socket has sent, as `Laggards.look` wants it.
        """
        self._sent_bytes = sent_bytes
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Hear no more of who connects; after the watched sockets have been closed. Idempotent."""
        for monitor in self._monitors.values():
            monitor.close(linger=0)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(LOOK_EVERY_S):
                self._look(time.monotonic())
        except (Closed, Timeout) as error:  # the forwarder has ended, or hangs
            log.info("queues are no longer looked at %s", kv(reason=error))
        except zmq.ContextTerminated:
            log.info("queues are no longer looked at reason=context terminated")

    def _look(self, now_s: float) -> None:
        for name, monitor in self._monitors.items():
            self._take_events(monitor, self._laggards[name], now_s)
        sent_bytes = self._sent_bytes()
        for name, laggards in self._laggards.items():
            behind = tuple(laggards.look(sent_bytes[name], now_s))
            total_bytes = sum(each.behind_bytes for each in behind)
            self.seen[name] = Watched(len(laggards), behind, total_bytes, laggards.put_out_count)

    def _take_events(self, monitor: Socket, laggards: Laggards, now_s: float) -> None:
        while monitor.poll(0):
            event = recv_monitor_message(monitor)
            if event["event"] == zmq.EVENT_ACCEPTED:
                laggards.accepted(event["value"], now_s)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                laggards.closed(event["value"])


def _monitor(sockets: SocketFactory, socket: Socket) -> Socket:
    endpoint = local_endpoint("monitor")
    # libzmq waits for room before it tells of an event, in the thread that moves all messages: let there be room
    monitor = sockets.pair(queue_unlimited=True)
    socket.monitor(endpoint, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    connect(monitor, endpoint)
    return monitor
