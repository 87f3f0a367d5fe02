"""Which content of HDF5 datasets was given out, so that a lineage may outlive a change of its file.

A file in which something was added has other times and often another length, yet most of its datasets are what
they were. Their tables alone do not prove it: numbers overwritten in place leave no trace there. So for what was
given out, a digest of the stored bytes is remembered. A dataset keeps its lineage if its fingerprint is the same
and all that was given out of it is still what the file holds; what nobody has seen may be anything.
"""

import threading

from zcat.errors import ZcatError
from zcat.limits import MIB
from zcat.storage.hdf5.dataset import Hdf5Dataset

COMPARED_BYTES_MAX = 256 * MIB
"""Of stored bytes that are read again for one dataset when its file changed; if more was given out, it counts as
changed."""


class Served:
    """What was given out of one version of a file. Any thread may call."""

    def __init__(self) -> None:
        self._held: dict[str, dict[int, bytes]] = {}  # witnesses by path, and by the first chunk of each unit
        self._lock = threading.Lock()

    def note(self, path: str, first: int, witness: bytes) -> None:
        """Remember that a unit, or a part of it, was given out.

        Args:
            path: of the dataset inside the file.
            first: number of the unit's first chunk.
            witness: ``Hdf5Dataset.witness`` of it.
        """
        with self._lock:
            self._held.setdefault(path, {})[first] = witness

    def is_untouched(self, path: str) -> bool:
        """Say whether nothing of a dataset was given out."""
        return path not in self._held

    def still_holds(self, path: str, now: Hdf5Dataset, stored_bytes: int) -> bool:
        """Say whether all that was given out of a dataset is still there.

        Args:
            path: of the dataset inside the file.
            now: the dataset as it is now, of the same fingerprint.
            stored_bytes: of all of it.
        """
        with self._lock:
            witnesses = dict(self._held.get(path, {}))
        share = len(witnesses) / max(now.cut.geometry.nchunks, 1)
        if share * stored_bytes > COMPARED_BYTES_MAX:
            return False
        nchunks = now.cut.geometry.nchunks
        try:
            return all(
                first < nchunks and now.witness(now.unit(first)) == witness for first, witness in witnesses.items()
            )
        except ZcatError:
            return False

    def carry_over(self, paths: set[str], to: "Served") -> None:
        """Let what was given out of these datasets count for a later version as well."""
        with self._lock:
            for path in paths:
                if path in self._held:
                    to._held[path] = dict(self._held[path])
