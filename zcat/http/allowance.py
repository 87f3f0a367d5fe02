"""How much memory answers may take, all together: the limit of one says nothing of many at once."""

import contextlib
import threading
from dataclasses import dataclass

from zcat.errors import Busy
from zcat.limits import MIB
from zcat.net.memory import return_freed_memory

FREE_BYTES_MAX = MIB
"""Smaller answers are not counted: the number of threads bounds them."""

KEPT_BYTES_MAX = 256 * MIB
"""When more than this was taken, and all of it is given back, the process returns its free memory at once."""

KEPT_S = 2.0
"""After less it does so a little later, if nothing is taken then: fresh pages cost a tenth of an answer's time."""

WAIT_S = 5.0
"""For room, as answers before it are sent."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Of answers."""

    one_max_bytes: int
    """Of a single one that is made in memory."""
    slice_max_bytes: int | None
    """Of a single one that is streamed, uncompressed."""
    together: "Allowance"
    """For those that are being made and sent."""


class Allowance:
    """Bytes that are taken and given back, by any thread."""

    def __init__(self, nbytes_max: int, waiters_max: int) -> None:
        """Begin with nothing taken.

        Args:
            nbytes_max: of all answers together; one larger than that is never let in.
            waiters_max: threads that may wait for room; the others are needed for small answers.
        """
        self._nbytes_max = nbytes_max
        self._waiters_max = waiters_max
        self._waiters = 0
        self._taken = 0
        self._most_taken = 0
        self._will_trim = False
        self._changed = threading.Condition()

    def take(self, nbytes: int) -> "Share":
        """Take memory for an answer, waiting a little if there is no room.

        Raises:
            Busy: there is still none.
        """
        if nbytes <= FREE_BYTES_MAX:
            return Share(self, 0)
        with self._changed:
            if not self._has_room(nbytes) and not self._wait(nbytes):
                raise Busy(
                    f"answers being sent take {self._taken} of {self._nbytes_max} bytes of memory, there is no "
                    f"room for {nbytes}: try again, ask for smaller slices, or for the whole dataset"
                )
            self._taken += nbytes
            self._most_taken = max(self._most_taken, self._taken)
        return Share(self, nbytes)

    def give_back(self, nbytes: int) -> None:
        """Give back what was taken; called by `Share`."""
        with self._changed:
            self._taken -= nbytes
            self._changed.notify_all()
            if self._taken:
                return
            wait_s = KEPT_S if self._most_taken <= KEPT_BYTES_MAX else 0.0
            if wait_s and self._will_trim:
                return
            self._most_taken, self._will_trim = 0, True
            # in a thread of its own, since whoever gives back may be the one that sends to all clients
            timer = threading.Timer(wait_s, self._trim)
        timer.name, timer.daemon = "zcat-trim", True
        with contextlib.suppress(RuntimeError):  # this process ends, and returns all it has
            timer.start()

    def _trim(self) -> None:
        self._will_trim = False
        if not self._taken:
            return_freed_memory()

    def _has_room(self, nbytes: int) -> bool:
        return self._taken + nbytes <= self._nbytes_max

    def _wait(self, nbytes: int) -> bool:
        if self._waiters >= self._waiters_max:
            return False
        self._waiters += 1
        try:
            return self._changed.wait_for(lambda: self._has_room(nbytes), WAIT_S)
        finally:
            self._waiters -= 1


class Share:
    """What one answer has taken, until it is sent."""

    def __init__(self, allowance: Allowance, nbytes: int) -> None:
        self._allowance = allowance
        self._nbytes = nbytes

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._allowance.give_back(nbytes)

    def __del__(self) -> None:
        self.close()  # of an answer that was never sent
