"""One thread that owns all sockets of one service.

The thread rule: a socket is touched by its loop's thread only, from ``Loop.start`` on. Other threads ``post`` or
``call``. Handlers run on the loop's thread one after the other, so they need no locks and must not wait.

Only this module reads the clock; what needs the time asks ``Loop.now_s`` and hands it on.
"""

import concurrent.futures
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import zmq

from zcat import limits
from zcat.errors import BadMessage, Timeout, ZcatError
from zcat.net.mailbox import Mailbox
from zcat.net.sockets import Socket
from zcat.net.wire import Inlet, Part, Parts

Handler = Callable[[Parts], None]
Action = Callable[[], None]
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """What keeps one peer, or one thread, from taking a whole loop for itself."""

    messages_per_turn_max: int = 100  # of one socket, before the others, timers and posts have their turn
    turn_s: float = 0.002  # same, in time
    parts_per_message_max: int = limits.PAGES_PER_MESSAGE_MAX + 4
    posts_max: int = 10_000
    warning_interval_s: float = 10.0  # between two log lines about the same peer
    warned_peers_max: int = 256  # peers beyond these share one line


@dataclass(slots=True)
class LoopCounters:
    """What a loop has seen since it was made. Any thread may read it."""

    messages: int = 0
    bad_messages: int = 0  # refused by a handler, with BadMessage
    long_messages: int = 0  # of too many frames; never shown to a handler
    errors: int = 0  # handlers, timers and posts that raised anything else

    def told(self) -> dict[str, int]:
        """Give what operators see."""
        refused = self.bad_messages + self.long_messages
        return {"messages": self.messages, "bad_messages": refused, "errors": self.errors}


@dataclass(slots=True)
class Timer:
    """A call to come; ``cancel`` forgets it."""

    when_s: float
    _action: Action | None = field(repr=False)

    def cancel(self) -> None:
        """Do not call. On the loop's thread only; without effect afterwards."""
        self._action = None


class Loop:
    """Polls sockets, file descriptors, timers and a mailbox; see the module's docstring.

    Args:
        name: of the thread, and in messages to people.
        on_stop: runs last on the loop's thread, with the sockets still open: to say farewell and to fail
            what is outstanding.
        loop_limits: see there.
    """

    def __init__(self, name: str, on_stop: Action | None = None, loop_limits: LoopLimits = LoopLimits()):
        self.name = name
        self.counters = LoopCounters()
        self._on_stop = on_stop
        self._limits = loop_limits
        self._mailbox: Mailbox[Action] = Mailbox(name, loop_limits.posts_max)
        self._poller = zmq.Poller()
        self._poller.register(self._mailbox.fd, zmq.POLLIN)
        self._sockets: list[Socket] = []
        self._inlets: dict[Socket, tuple[Inlet, Handler]] = {}
        self._watched: dict[int, Action] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._warnings = _Warnings(loop_limits)
        self._thread: threading.Thread | None = None
        self._stop_lock = threading.Lock()
        self._is_stopping = False
        self._is_finished = False

    # -- before start, or on the loop's thread ---------------------------------------------------------

    def register(self, socket: Socket, handler: Handler | None = None) -> None:
        """Own a socket: hand its messages to ``handler``, if there is one, and close it at the end.

        A handler gets a list of parts: those under 64 KiB as ``bytes``, larger ones as a read-only
        ``memoryview`` of ZeroMQ's own memory, which lives as long as the view. A ROUTER's first part is the peer.
        """
        self._sockets.append(socket)
        if handler is not None:
            self._inlets[socket] = (Inlet(socket, self._limits.parts_per_message_max), handler)
            self._poller.register(socket, zmq.POLLIN)

    def unregister(self, socket: Socket) -> None:
        """Give a socket back to the caller, who closes it."""
        self._sockets.remove(socket)
        if self._inlets.pop(socket, None):
            self._poller.unregister(socket)

    def watch(self, fd: int, action: Action) -> None:
        """Call ``action`` whenever a file descriptor is readable; it stays the caller's."""
        self._watched[fd] = action
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget a file descriptor. To be called before it is closed."""
        del self._watched[fd]
        self._poller.unregister(fd)

    def call_at(self, when_s: float, action: Action) -> Timer:
        """Call once, when ``now_s`` has reached ``when_s``."""
        timer = Timer(when_s, action)
        heapq.heappush(self._timers, (when_s, next(self._timer_numbers), timer))
        return timer

    def call_after(self, delay_s: float, action: Action) -> Timer:
        """Call once, after so long."""
        return self.call_at(self.now_s() + delay_s, action)

    # -- from any thread -------------------------------------------------------------------------------

    @staticmethod
    def now_s() -> float:
        """Return the time that all loops of this process share; it never jumps and means nothing elsewhere."""
        return time.monotonic()

    def start(self) -> None:
        """Start the thread. Once."""
        assert self._thread is None, "a loop is started once"
        assert not self._is_finished, "a stopped loop stays stopped"
        self._thread = threading.Thread(target=self._run, name=f"zcat-{self.name}", daemon=True)
        self._thread.start()

    def post(self, action: Action) -> None:
        """Have the loop call ``action`` soon. What was accepted is called, also when the loop stops first.

        Raises:
            Busy: too many are waiting.
            Closed: the loop is stopped.
        """
        self._mailbox.post(action)

    def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Have the loop call ``function``, and return what it returns or raise what it raises.

        Raises:
            Timeout: it did not come to it in time; if it has not begun, it will not.
            Busy: too many calls are waiting.
            Closed: the loop is stopped.
        """
        assert not self._is_here(), "a loop that waits for itself waits for ever"
        future: concurrent.futures.Future[Result] = concurrent.futures.Future()
        self.post(lambda: _fulfil(future, function))
        done, _ = concurrent.futures.wait([future], timeout_s)
        if not done and future.cancel():
            raise Timeout(f"{self.name} did not answer within {timeout_s:g} s")
        if not future.done():
            raise Timeout(f"{self.name} did not finish within {timeout_s:g} s")
        return future.result()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Run what was posted, then ``on_stop``, close the sockets and end the thread. Idempotent.

        On the loop's own thread it returns at once, and the loop ends after the present handler.

        Raises:
            Timeout: the thread is still busy; it ends as soon as it can.
        """
        self._is_stopping = True
        self._mailbox.ring()
        if self._is_here():
            return
        if self._thread is None:
            with self._stop_lock:
                self._finish()
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise Timeout(f"{self.name} did not stop within {timeout_s:g} s: a handler is still at work")

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        except zmq.ContextTerminated:
            log.error("context terminated under a running loop loop=%s", self.name)
        finally:
            self._finish()

    def _turn(self) -> None:
        ready = self._poller.poll(self._wait_ms())
        self._run_posts()
        self._run_timers()
        for source, _ in ready:
            if isinstance(source, int):
                action = self._watched.get(source)
                if action is not None:
                    self._guard(action)
            elif source in self._inlets:  # else an earlier handler of this turn has taken it away
                self._drain(*self._inlets[source])

    def _wait_ms(self) -> int | None:
        while self._timers and self._timers[0][2]._action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        wait_s = self._timers[0][0] - self.now_s()
        return max(0, min(int(wait_s * 1000) + 1, 3_600_000)) if wait_s > 0 else 0

    def _run_posts(self) -> None:
        for action in self._mailbox.take(self._limits.messages_per_turn_max):
            self._guard(action)

    def _run_timers(self) -> None:
        now_s = self.now_s()
        due: list[Timer] = []  # first all of them: a timer that sets itself again for "now" must not keep the loop
        while self._timers and self._timers[0][0] <= now_s:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            action, timer._action = timer._action, None
            if action is not None:
                self._guard(action)

    def _drain(self, inlet: Inlet, handler: Handler) -> None:
        until_s = self.now_s() + self._limits.turn_s
        refused_before = inlet.refused_count
        for _ in range(self._limits.messages_per_turn_max):
            try:
                parts = inlet.receive()
            except zmq.Again:
                break
            if parts is not None:
                self.counters.messages += 1
                self._handle(inlet.socket, handler, parts)
            if self.now_s() >= until_s or inlet.socket not in self._inlets:
                break
        self.counters.long_messages += inlet.refused_count - refused_before

    def _handle(self, socket: Socket, handler: Handler, parts: Parts) -> None:
        try:
            handler(parts)
        except BadMessage as error:
            self.counters.bad_messages += 1
            peer = _peer(socket, parts[0])
            if self._warnings.may_log(peer, self.now_s()):
                log.warning("dropped a bad message loop=%s peer=%s reason=%s", self.name, peer, error)
        except Exception as error:
            self._failed(handler, error)

    def _guard(self, action: Action) -> None:
        try:
            action()
        except Exception as error:
            self._failed(action, error)

    def _failed(self, action: object, error: Exception) -> None:
        """Count and log, and let the loop go on: one request's failure is not the service's."""
        self.counters.errors += 1
        what = getattr(action, "__qualname__", type(action).__name__)
        if not self._warnings.may_log(f"{what} {type(error).__name__}", self.now_s()):
            return
        if isinstance(error, ZcatError):
            log.warning("failed loop=%s in=%s code=%s reason=%s", self.name, what, error.code, error)
        else:
            log.error("bug loop=%s in=%s", self.name, what, exc_info=error)

    def _finish(self) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        for action in self._mailbox.close():
            self._guard(action)
        if self._on_stop is not None:
            self._guard(self._on_stop)
        for socket in self._sockets:
            socket.close()  # its linger, set when it was made, is how long the last messages may take
        self._sockets.clear()
        self._inlets.clear()
        self._timers.clear()

    def _is_here(self) -> bool:
        return threading.current_thread() is self._thread


class _Warnings:
    """Decides which of many equal warnings are logged: a flood of bad messages must not become one of lines."""

    def __init__(self, loop_limits: LoopLimits):
        self._limits = loop_limits
        self._next_s: dict[str, float] = {}

    def may_log(self, topic: str, now_s: float) -> bool:
        if topic not in self._next_s and len(self._next_s) >= self._limits.warned_peers_max:
            self._next_s = {known: next_s for known, next_s in self._next_s.items() if next_s > now_s}
            if len(self._next_s) >= self._limits.warned_peers_max:
                topic = "others"
        if now_s < self._next_s.get(topic, now_s):
            return False
        self._next_s[topic] = now_s + self._limits.warning_interval_s
        return True


def _peer(socket: Socket, first: Part) -> str:
    return bytes(first).hex() if socket.get(zmq.TYPE) == zmq.ROUTER else "?"


def _fulfil(future: concurrent.futures.Future[Result], function: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return  # whoever asked has gone
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
