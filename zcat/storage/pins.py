"""Which chunks of a cached dataset are held on to, and which were of use: what an eviction has to know."""

import threading

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_PINNED_ONE_BY_ONE_MAX = 4


class Pins:
    """Counts who holds on to each chunk. `lock` goes around everything; it is held for a moment only."""

    def __init__(self, nchunks: int) -> None:
        self.lock = threading.Lock()
        self._pins = np.zeros(nchunks, np.uint16)
        self._pins_of_all = 0
        self._is_warm = np.zeros(nchunks, np.bool_)  # of use since chunks were last evicted
        self._hand = 0  # where the last eviction ended

    def pin(self, chunks: Indices | None, count: int) -> None:
        """Hold on to chunks, all of them if None, ``count`` times more; they were of use."""
        if chunks is None:
            self._pins_of_all += count
            return
        if len(chunks) <= _PINNED_ONE_BY_ONE_MAX:
            for nchunk in chunks.tolist():  # PERF: a microsecond instead of eight for the read of one chunk
                self._pins[nchunk] = (int(self._pins[nchunk]) + count) % 65536
                self._is_warm[nchunk] = True
            return
        np.add.at(self._pins, chunks, np.uint16(count % 65536))
        self._is_warm[chunks] = True

    def warm(self, chunks: Indices | int) -> None:
        """Take note that chunks were of use, so that others go first."""
        self._is_warm[chunks] = True

    def free(self, there: Indices) -> list[int]:
        """Give those of ``there`` that nobody holds on to, in the order in which they may go."""
        if self._pins_of_all:
            return []
        there = np.concatenate([there[there >= self._hand], there[there < self._hand]])
        there = there[self._pins[there] == 0]
        is_warm = self._is_warm[there]
        return [*there[~is_warm].tolist(), *there[is_warm].tolist()]

    def evicted(self, victims: list[int]) -> None:
        """Take note of what went: use counts anew from now on."""
        self._is_warm[:] = False
        self._hand = victims[-1] + 1 if victims else 0
