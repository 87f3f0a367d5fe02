"""Threads for what waits: disks, digests, compression. What they find goes back by a loop's mailbox."""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from zcat.errors import Busy, Closed
from zcat.net.loop import Loop

HAND_OVER_RETRY_S = 0.001

Work = Callable[[], None]

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
