"""What was given out of one version of an HDF5 file, so that a lineage may outlive a change of its file.

For each description and each unit of chunks that leaves, a witness is remembered: a digest of the stored bytes
that it was made of. It is written down before anything leaves, so that the next run of the publisher knows it too.
``unchanged`` compares.
"""

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress

from zcat.errors import Stale
from zcat.logs import kv
from zcat.protocol.codec import pack

DESCRIPTION = -1
"""Stands for the description of a dataset or group, where else the number of a chunk is."""

TOO_MANY = -2
"""Stands for witnesses that are not remembered any more; then a change of the file changes the dataset."""

WHOLE = -3
"""Stands for a witness of all of a dataset or group, beside which no other one is needed."""

REPLACING = (TOO_MANY, WHOLE)
"""Stand in the place of all other witnesses of a dataset or group."""

WITNESSES_MAX = 1 << 16
"""Of one dataset."""

WITNESSES_OF_FILE_MAX = 1 << 19

Witnesses = Mapping[int, bytes]
"""Of one dataset or group: by the first chunk of each unit, and by `DESCRIPTION`."""

log = logging.getLogger(__name__)


class WitnessLog:
    """A file at whose end records are written. It is opened for each: there may be thousands of such files."""

    def __init__(self, path: str) -> None:
        """Take the path of a file that exists and ends with a whole record, or with none."""
        self._path = path

    def write(self, path: str, number: int, witness: bytes) -> bool:
        """Write a record; say whether it is there, for the next run of the publisher to see."""
        data = record(path, number, witness)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                return os.write(fd, data) == len(data)
            finally:
                os.close(fd)
        except OSError:
            return False

    def give_up(self) -> None:
        """Remove the file: what it says is not all any more."""
        log.warning("what was given out is not remembered for the next start %s", kv(file=self._path))
        with suppress(OSError):
            os.unlink(self._path)


class Served:
    """The witnesses of one version of a file. Any thread may call."""

    def __init__(self, held: Mapping[str, Witnesses] | None = None, log: WitnessLog | None = None) -> None:
        """Begin with what is known.

        Args:
            held: witnesses by path inside the file.
            log: where further ones are written; it has those of ``held``. None to remember them in this run only.
        """
        self._held = {path: dict(witnesses) for path, witnesses in (held or {}).items()}
        self._count = sum(map(len, self._held.values()))
        self._log = log
        self._is_sealed = False
        self._lock = threading.Lock()

    def note(self, path: str, number: int, witness: bytes) -> None:
        """Remember that a description, or a unit of chunks, is about to be given out.

        Args:
            path: of the dataset or group inside the file.
            number: of the unit's first chunk; or `DESCRIPTION`, or `WHOLE`.
            witness: of it.

        Raises:
            Stale: what was given out so far is being compared with the next version of the file.
        """
        with self._lock:
            held = self._held.setdefault(path, {})
            is_known = WHOLE in held or TOO_MANY in held or held.get(number) == witness
            if is_known and number != WHOLE:
                return
            if self._is_sealed:
                raise Stale("the HDF5 file changed; ask again in a moment")
            if number != WHOLE and (
                number in held  # of another content: the file changed just when it was read
                or len(held) >= WITNESSES_MAX
                or self._count >= WITNESSES_OF_FILE_MAX
            ):
                number, witness = TOO_MANY, b""
            if number in REPLACING:
                self._count -= len(held)
                held.clear()
            self._count += 1
            held[number] = witness
            if self._log is not None and not self._log.write(path, number, witness):
                self._log.give_up()
                self._log = None

    def of(self, path: str) -> Witnesses:
        """Give what is remembered of a dataset or group."""
        with self._lock:
            return dict(self._held.get(path, {}))

    def of_all(self, paths: Iterable[str]) -> dict[str, Witnesses]:
        """Give what is remembered of each of them."""
        return {path: witnesses for path in paths if (witnesses := self.of(path))}

    def seal(self, is_sealed: bool = True) -> None:
        """Let nothing new be given out, while it is compared; or let it again."""
        with self._lock:
            self._is_sealed = is_sealed

    def close(self) -> None:
        """Let go of the log, and let nothing new be given out."""
        with self._lock:
            self._is_sealed = True
            self._log = None


def record(path: str, number: int, witness: bytes) -> bytes:
    """Write a witness as the log has it."""
    return pack([path, number, witness])
