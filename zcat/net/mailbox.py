"""The one door by which other threads reach a loop thread.

Any thread posts, also from a signal handler; only the loop takes. The bell is a file descriptor that the loop
polls beside its sockets: it becomes readable with the first post and stays so until the last was taken, so
a thousand posts cost one wake-up.
"""

import os
import threading
from collections import deque
from typing import Generic, TypeVar

from zcat.errors import Busy, Closed

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """A bounded queue with a bell."""

    def __init__(self, name: str, items_max: int = 10_000):
        self.name = name
        self._items_max = items_max
        self._items: deque[Item] = deque()
        self._is_rung = False
        self._is_closed = False
        # Re-entrant: a signal handler or a finaliser may post while its own thread is in the middle of a post.
        self._lock = threading.RLock()
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)

    @property
    def fd(self) -> int:
        """The bell: readable as long as something is to be taken."""
        return self._bell

    def post(self, item: Item) -> None:
        """Leave an item for the loop. From any thread.

        Raises:
            Busy: the loop is that many items behind.
            Closed: nobody will take it any more.
        """
        with self._lock:
            if self._is_closed:
                raise Closed(f"{self.name} is stopped")
            if len(self._items) >= self._items_max:
                raise Busy(f"{self.name} has {len(self._items)} requests waiting, its limit: try again later")
            self._items.append(item)
            self._ring()

    def ring(self) -> None:
        """Wake the loop without leaving anything; without effect when closed."""
        with self._lock:
            if not self._is_closed:
                self._ring()

    def take(self, items_max: int) -> list[Item]:
        """Take the oldest items, up to so many. On the loop thread only."""
        with self._lock:
            items = [self._items.popleft() for _ in range(min(items_max, len(self._items)))]
            if self._is_rung and not self._items:
                os.read(self._bell, 1)
                self._is_rung = False
            return items

    def close(self) -> list[Item]:
        """Refuse posts from now on and return what was not taken. Idempotent."""
        with self._lock:
            left = list(self._items)
            self._items.clear()
            if not self._is_closed:
                self._is_closed = True
                os.close(self._rope)
                os.close(self._bell)
            return left

    def _ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            os.write(self._rope, b"\0")
