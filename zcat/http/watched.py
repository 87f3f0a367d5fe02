"""The connections of a server, and the wait for what happens on them, however many are idle.

Waitress asks each connection before each wait what it waits for: with a thousand idle ones, that takes longer than
a small answer. Here those that wait for a request are left alone until something comes.
"""

import select
from typing import Any

from waitress import wasyncore

_READ = select.EPOLLIN | select.EPOLLPRI


class Watched(dict[int, Any]):
    """Waitress's map of its dispatchers by file number, which the kernel is told of. For one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        self._told: dict[int, int] = {}
        """What the kernel watches of each; it is told nothing of those that wait for nothing."""
        self._unsteady: set[int] = set()
        """Those that must be asked before the next wait: other threads may have changed what they wait for."""

    def __setitem__(self, number: int, dispatcher: Any) -> None:
        super().__setitem__(number, dispatcher)
        self._unsteady.add(number)

    def __delitem__(self, number: int) -> None:
        super().__delitem__(number)
        self._unsteady.discard(number)
        self._tell(number, 0)

    def close(self) -> None:
        """Let go of the kernel's side."""
        self._epoll.close()

    def ask_all(self) -> None:
        """Ask all of them before the next wait: something was changed that nobody would see."""
        self._unsteady.update(self)

    def wait(self, wait_s: float) -> None:
        """Wait until something happens, and have it handled.

        Args:
            wait_s: at most so long.
        """
        for number in list(self._unsteady):
            if number in self:  # to ask one may close others
                self._ask(number)
        for number, events in self._epoll.poll(wait_s):
            dispatcher = self.get(number)
            if dispatcher is not None:
                self._unsteady.add(number)
                wasyncore.readwrite(dispatcher, events)

    def _ask(self, number: int) -> None:
        dispatcher = self[number]
        wanted = _READ if dispatcher.readable() else 0
        if not dispatcher.accepting:
            if dispatcher.writable():
                wanted |= select.EPOLLOUT
            if wanted == _READ:  # nothing is being answered, so nothing changes but by what comes
                self._unsteady.discard(number)
        self._tell(number, wanted)

    def _tell(self, number: int, wanted: int) -> None:
        told = self._told.get(number, 0)
        if wanted == told:
            return
        if not told:
            self._epoll.register(number, wanted)
        elif not wanted:
            self._epoll.unregister(number)
        else:
            self._epoll.modify(number, wanted)
        self._told[number] = wanted
        if not wanted:
            del self._told[number]
