"""Threads for what waits: disks, digests, compression. What they find goes back by a loop's mailbox."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from zcat.errors import Busy, Closed
from zcat.net.loop import Loop

HAND_OVER_RETRY_S = 0.001

OUTCOMES_MAX = 16
OUTCOMES_S = 0.0005
"""So many outcomes, or those of so long, are handed over together."""

Work = Callable[[], None]
Outcome = Callable[[], None]
"""What a loop is to call when work is done."""

log = logging.getLogger(__name__)


class Workers:
    """A few threads and one queue. Any thread may call. How much is queued is for the caller to bound."""

    def __init__(self, name: str, count: int) -> None:
        """Start ``count`` threads."""
        assert count >= 1
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"zcat-{name}-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, work: Work) -> None:
        """Have a thread call ``work`` soon. What it raises is a bug, and is logged."""
        self._queue.put(work)

    def close(self, timeout_s: float = 1.0) -> None:
        """Forget what was not begun, and wait for what was."""
        while not self._queue.empty():
            self._queue.get()
        self.finish(timeout_s)

    def finish(self, timeout_s: float) -> None:
        """Wait until all is done that was asked for."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:  # the top of this thread
                log.exception("bug in=%s", threading.current_thread().name)


class LoopWorkers:
    """A few threads that work for a loop. How much is queued is for the caller to bound.

    What a piece of work gives is called by the loop. PERF: outcomes that come one right after the other are handed
    over together, since each post costs the thread, and the loop, a wait for the interpreter's lock: of 64 KB
    chunks that are checked and stored, a third more in the same time.
    """

    def __init__(self, name: str, count: int, loop: Loop) -> None:
        """Start ``count`` threads."""
        self._loop = loop
        self._queue: SimpleQueue[Callable[[], Outcome | None]] = SimpleQueue()
        self._workers = Workers(name, count)

    def do(self, work: Callable[[], Outcome | None]) -> None:
        """Have a thread call ``work`` soon, and the loop what that gives. What it raises is a bug, and logged."""
        self._queue.put(work)
        self._workers.do(self._do_some)

    def close(self) -> None:
        """Forget what was not begun, and wait for what was."""
        self._workers.close()

    def _do_some(self) -> None:
        outcomes: list[Outcome] = []
        until_s = self._loop.now_s() + OUTCOMES_S
        try:
            while len(outcomes) < OUTCOMES_MAX:
                outcome = self._queue.get_nowait()()
                if outcome is not None:
                    outcomes.append(outcome)
                if self._loop.now_s() >= until_s:
                    break
        except Empty:  # others were faster
            pass
        finally:
            if outcomes:
                hand_over(self._loop, partial(_call_all, outcomes))


def _call_all(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        try:
            outcome()
        except Exception:  # those behind it are waited for
            log.exception("bug in=outcome")


def hand_over(loop: Loop, action: Work) -> None:
    """Have a loop call ``action`` without fail, however full its mailbox is; unless it is stopped.

    For results that somebody counts on; not to be called on the loop's own thread.
    """
    while True:
        try:
            loop.post(action)
            return
        except Busy:
            time.sleep(HAND_OVER_RETRY_S)
        except Closed:
            return
