"""HDF5 files that a worker has open, the most recent few: a request for a chunk should not open its file again.

A file that changed is another file: it is known by its stamp, taken from the open file that came with the
request. HDF5 opens it by that descriptor too, so there is no name that could lead elsewhere meanwhile.
"""

import fcntl
import os

import h5py

from zcat.errors import BadContent, Busy, Stale
from zcat.names import shown
from zcat.storage.beneath import Stamp, stamp_of
from zcat.storage.hdf5.reference_paths import ReferencePaths

OPEN_FILES_MAX = 8


class OpenFile:
    """One open file, and what is worth keeping of it as long as it is."""

    def __init__(self, fd: int, stamp: Stamp) -> None:
        """Open it; belongs to `OpenFiles`."""
        self.stamp = stamp
        self.h5 = _open(fd)
        self.paths = ReferencePaths(self.h5)
        self.kept: dict[str, object] = {}
        """What an operation wants to find again at the next request, by a name of its own."""

    def close(self) -> None:
        """Close it, with all that is open in it."""
        self.kept.clear()
        self.h5.close()


class OpenFiles:
    """The most recent few."""

    def __init__(self) -> None:
        self._files: dict[Stamp, OpenFile] = {}

    def get(self, fd: int) -> OpenFile:
        """Give the file that ``fd`` is open on; the descriptor stays the caller's.

        Raises:
            Busy: another program has it open for writing.
            Stale: it was deleted, or another one was put in its place.
            BadContent: it is no HDF5 file, or a damaged one.
        """
        _check_no_writer(fd)
        stamp = stamp_of(fd)
        held = self._files.pop(stamp, None)
        if held is None:
            self._make_room(stamp)
            held = OpenFile(fd, stamp)
        self._files[stamp] = held
        return held

    def _make_room(self, stamp: Stamp) -> None:
        # HDF5 knows a file by its inode: what it remembers of the old content must be gone before it opens the new
        old = [s for s in self._files if (s.device, s.inode) == (stamp.device, stamp.inode)]
        oldest = list(self._files)[: max(0, len(self._files) - OPEN_FILES_MAX + 1)]
        for one in {*old, *oldest}:
            self._files.pop(one).close()


def _check_no_writer(fd: int) -> None:
    """Look for the lock that HDF5 holds on a file that it writes.

    It is not held on to: another program that opens the file for writing while we do would fail.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another program has the file open for writing; try again later") from None
    except OSError:
        return  # a file system without locks
    fcntl.flock(fd, fcntl.LOCK_UN)


def _open(fd: int) -> h5py.File:
    if not os.fstat(fd).st_nlink:
        raise Stale("the file was replaced or deleted meanwhile")  # and HDF5 wants it to have a name
    name = f"/proc/self/fd/{fd}"
    try:
        return h5py.File(name, "r", driver="sec2", locking=False)
    except PermissionError:
        raise
    except OSError as error:
        if "already open for" not in str(error):
            raise BadContent(f"no HDF5 file that can be read: {_cleaned(error, name)}") from None
    try:  # the mark of a writer that lets others read meanwhile
        return h5py.File(name, "r", driver="sec2", locking=False, swmr=True)
    except OSError:
        raise Busy(
            "the file is marked as open for writing; if no program writes it, one did not end well: "
            "'h5clear -s FILE' takes the mark away"
        ) from None


def _cleaned(error: OSError, name: str) -> str:
    return shown(str(error).replace(name, "it"), 300)
