"""A page of numbers that a subscriber and its workers share: what has changed, and how the workers are.

It is memory without a name (memfd_create(2)) that is handed down to each worker, so it ends with the last of
them. Each cell is written by one process, and a load or store of one aligned cell is one instruction.

*Generations* are how a worker knows that what it was told is still so, without asking: it remembers the number
that it saw before it asked, and asks again when the number is another one. The subscriber raises it in the same
step of its loop in which it learns of the change, before that step answers anybody; so as soon as anybody was
told of a new version, no worker takes the old one for current.
"""

import array
import mmap
import os
import threading
from typing import Self

_ROOTS = 255
_WORKERS_AT = 256

WORKERS_MAX = 64
_BYTES = 8 * (_WORKERS_AT + 2 * WORKERS_MAX)

ROOTS_CELL = 0
"""Its generation says which roots are followed."""


class Board:
    """The page, in one process."""

    def __init__(self, fd: int) -> None:
        """Map it; the descriptor becomes this object's."""
        self.fd = fd
        self._map = mmap.mmap(fd, _BYTES)
        self._cells = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()

    @classmethod
    def make(cls) -> Self:
        """Make a new page, where nothing has happened yet."""
        fd = os.memfd_create("zcat-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, _BYTES)
        board = cls(fd)
        board._cells[: _ROOTS + 1] = memoryview(array.array("Q", [1] * (_ROOTS + 1)))  # 0 is for "never seen"
        return board

    def close(self) -> None:
        """Let go of it."""
        self._cells.release()
        self._map.close()
        os.close(self.fd)

    def __getitem__(self, cell: int) -> int:
        """Return the generation of a cell: of `ROOTS_CELL`, or of one from `cell_of`."""
        return self._cells[cell]

    def generations(self) -> list[int]:
        """Return the numbers of all cells."""
        return self._cells[:_WORKERS_AT].tolist()

    def changed(self, cell: int) -> None:
        """Have all workers ask again about what hangs on ``cell``. For the subscriber alone; any thread."""
        with self._lock:
            self._cells[cell] += 1

    def seat(self, worker: int) -> "Seat":
        """Return the part of a worker, which it, and nobody else, writes while it lives."""
        return Seat(self._cells, worker)


class Seat:
    """How one worker is: each of its cells has one writer."""

    def __init__(self, cells: "memoryview[int]", number: int) -> None:
        assert 0 <= number < WORKERS_MAX
        self._cells = cells
        self._requests_at = _WORKERS_AT + 2 * number
        self._connections_at = self._requests_at + 1
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        """Requests that the worker, and those before it in its place, have answered."""
        return self._cells[self._requests_at]

    @property
    def connections(self) -> int:
        """Connections that the worker has; 0 also if there is none."""
        return max(0, self._cells[self._connections_at] - 1)

    def counted(self) -> None:
        """Count a request; any thread."""
        with self._lock:
            self._cells[self._requests_at] += 1

    def tell(self, connections: int) -> None:
        """Say how many connections the worker has."""
        self._cells[self._connections_at] = connections + 1

    def leave(self) -> None:
        """Say that there is no worker; for whoever saw it end."""
        self._cells[self._connections_at] = 0

    def is_ahead(self, connections: int) -> bool:
        """Say whether another worker has fewer connections."""
        return any(0 < told <= connections for told in self._cells[_WORKERS_AT + 1 :: 2].tolist())


def cell_of(root: str, owner: str) -> int:
    """Return the cell of a root's catalogue. Two roots may share one: they are asked about more often then."""
    return 1 + hash((root, owner)) % _ROOTS
