"""Read small HDF5 files once in the background, so that it is known of all in them whether it changes.

What was given out has a witness anyway. This gives one to what nobody has read yet, as far as it is cheap: when
the file is written anew, only what changed is told. It begins when all is offered, and waits for nobody.
"""

import logging
import threading
from collections import deque

from zcat.errors import ZcatError
from zcat.limits import GIB, MIB
from zcat.logs import kv
from zcat.storage.hdf5.hdf5_file import Hdf5File
from zcat.storage.hdf5.served import WHOLE

BYTES_OF_FILE_MAX = 64 * MIB
"""Of stored bytes; the smallest datasets come first."""

BYTES_MAX = GIB
"""In one run of the publisher."""

ITEMS_OF_FILE_MAX = 2000
"""A file that has more is left alone: each item costs a question to a worker."""

_ITEMS_AT_A_TIME = 64

log = logging.getLogger(__name__)


class Witnessing:
    """A thread, and what it has to read. Any thread may call."""

    def __init__(self) -> None:
        """Begin nothing before `start`."""
        self._changed = threading.Condition()
        self._waiting: deque[Hdf5File] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._left_bytes = BYTES_MAX

    def start(self) -> None:
        """Begin to read what was added."""
        self._thread = threading.Thread(target=self._run, name="hdf5-witness", daemon=True)
        self._thread.start()

    def add(self, file: Hdf5File) -> None:
        """Have a version of a file read when there is time."""
        with self._changed:
            if self._left_bytes > 0:
                self._waiting.append(file)
                self._changed.notify()

    def close(self) -> None:
        """End, after the few items that are being read."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._left_bytes > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                file = self._waiting.popleft()
            try:
                self._read(file)
            except ZcatError as error:  # it changed, or cannot be read: then it is renewed as a whole
                log.debug("not read in the background %s", kv(reason=error))
            file.rest()
        self._waiting.clear()

    def _read(self, file: Hdf5File) -> None:
        items = file.inventory.items
        if len(items) > ITEMS_OF_FILE_MAX:
            return
        sizes = {path: item.layout.stored_bytes if item.layout else 0 for path, item in items.items()}
        paths: list[str] = []
        left_bytes = min(BYTES_OF_FILE_MAX, self._left_bytes)
        for path in sorted(items, key=lambda path: sizes[path]):
            left_bytes -= sizes[path]
            if left_bytes < 0:
                break
            if items[path].problem is None and WHOLE not in file.served.of(path):
                paths.append(path)
        for at in range(0, len(paths), _ITEMS_AT_A_TIME):
            if self._is_closed:
                return
            part = paths[at : at + _ITEMS_AT_A_TIME]
            self._left_bytes -= sum(sizes[path] for path in part)
            file.witness(part)
