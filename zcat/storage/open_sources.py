"""Files that are held open between reads: the most recently used ones, each closed when its last user is done."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Something that holds a file open."""

    def close(self) -> None:
        """Let go of it."""
        ...


S = TypeVar("S", bound=Closable)


@dataclass(slots=True)
class _Held(Generic[S]):
    stamp: object
    source: S
    users: int = 0
    is_retired: bool = False
    """No longer to be found; to be closed by its last user."""


class OpenSources(Generic[S]):
    """Open sources by path, of one stamp each. Any thread may call."""

    def __init__(self, count_max: int) -> None:
        """Hold ``count_max`` open; more only while they are all in use at the same time."""
        self._count_max = count_max
        self._held: dict[str, _Held[S]] = {}  # the least recently used first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    @contextmanager
    def use(self, path: str, stamp: object, open_it: Callable[[], S]) -> Iterator[S]:
        """Lend the source of ``path`` as of ``stamp``, opened by ``open_it`` if it is not open.

        A source of another stamp (compared by ``==``) is retired. What ``open_it`` raises is passed on.
        """
        held = self._find(path, stamp) or self._keep(path, _Held(stamp, open_it(), 1))
        try:
            yield held.source
        finally:
            self._give_back(held)

    def forget(self, path: str) -> None:
        """Close the source of ``path`` if it is open, once nobody uses it."""
        with self._lock:
            idle = self._retire(path)
        _close(idle)

    def close(self) -> None:
        """Close all that nobody uses; the others are closed by their users."""
        with self._lock:
            idle = [held for path in list(self._held) for held in self._retire(path)]
        _close(idle)

    def _find(self, path: str, stamp: object) -> _Held[S] | None:
        with self._lock:
            held = self._held.get(path)
            if held is None or held.stamp != stamp:
                return None
            self._held[path] = self._held.pop(path)
            held.users += 1
            return held

    def _keep(self, path: str, fresh: _Held[S]) -> _Held[S]:
        with self._lock:
            other = self._held.get(path)
            if other is not None and other.stamp == fresh.stamp:  # two threads opened it at the same time
                other.users += 1
                idle, kept = [fresh], other
            else:
                idle, kept = self._retire(path), fresh
                self._held[path] = fresh
                idle += self._surplus()
        _close(idle)
        return kept

    def _surplus(self) -> list[_Held[S]]:
        count = max(0, len(self._held) - self._count_max)
        unused = (path for path, held in self._held.items() if not held.users)
        return [held for path in list(islice(unused, count)) for held in self._retire(path)]

    def _retire(self, path: str) -> list[_Held[S]]:
        """Take ``path`` out; give what is to be closed now."""
        held = self._held.pop(path, None)
        if held is None:
            return []
        held.is_retired = True
        return [] if held.users else [held]

    def _give_back(self, held: _Held[S]) -> None:
        with self._lock:
            held.users -= 1
            is_last = held.is_retired and not held.users
        if is_last:
            held.source.close()


def _close(idle: list[_Held[S]]) -> None:
    for held in idle:
        held.source.close()
