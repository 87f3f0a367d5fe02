"""Beside a slotted frame: which of its chunks are there (`Presence`), and their digests (`Digests`).

Both are files of fixed-size records, one for each chunk, that grow neither nor shrink. A record is written
with one ``pwrite``, which either happens or does not when the process is killed. Nothing is synced: after a
power cut a record may promise a chunk that is not there, which is why each chunk is checked against its digest
at its first use in each run.
"""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zcat.errors import BadContent
from zcat.storage.chunk_gate import DIGEST_BYTES
from zcat.storage.disk import pread_exactly, pwrite_all, storage_failed

ABSENT = 0
PARTIAL = 1
"""Some blocks are there."""
WHOLE = 2
"""Written in a former run, and not looked at since."""
VERIFIED = 3
"""Whole, and its digest was found right in this run."""

Indices = npt.NDArray[np.int64]


class Presence:
    """One byte for each chunk: `ABSENT`, `PARTIAL`, `WHOLE` or `VERIFIED`.

    Any thread may read; whoever marks a chunk holds the dataset's write lock.
    """

    def __init__(self, path: Path, nchunks: int, is_of_this_run: bool = False) -> None:
        """Open the file, or create it with all chunks absent. Nothing of a former run is `VERIFIED` afterwards.

        Raises:
            StorageFailed: the disk is full or failed.
            BadContent: the file has another length than ``nchunks``.
        """
        self._fd = open_records(path, nchunks, is_sparse=False)
        self._states: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        if nchunks:
            # Read through a map, write by pwrite: a store into a map that finds the disk full is no error but
            # SIGBUS. On tmpfs even a load from a hole is, therefore this file is not sparse.
            self._states = np.frombuffer(mmap.mmap(self._fd, nchunks, prot=mmap.PROT_READ), np.uint8)
        if not is_of_this_run and (self._states == VERIFIED).any():
            pwrite_all(self._fd, np.minimum(self._states, WHOLE).tobytes(), 0)

    def close(self) -> None:
        """Let go of the file. A second call does nothing; afterwards all chunks seem absent to `missing`."""
        if self._fd >= 0:
            self._states = np.zeros(len(self._states), np.uint8)  # drops the map
            os.close(self._fd)
            self._fd = -1

    def __getitem__(self, nchunk: int) -> int:
        return int(self._states[nchunk])

    def mark(self, nchunk: int, state: int) -> None:
        """Change the state of one chunk.

        Raises:
            StorageFailed: the disk failed.
        """
        assert ABSENT <= state <= VERIFIED
        assert 0 <= nchunk < len(self._states)
        pwrite_all(self._fd, bytes([state]), nchunk)

    def missing(self, chunks: Indices) -> Indices:
        """Return those of ``chunks`` that are not whole, in their order."""
        return chunks[self._states[chunks] < WHOLE]

    def any_partial(self, chunks: Indices) -> bool:
        """Say whether any of ``chunks`` is there in part."""
        return bool((self._states[chunks] == PARTIAL).any())

    def partial(self) -> Indices:
        """Number the chunks of which some blocks are there, in ascending order."""
        return np.flatnonzero(self._states == PARTIAL)

    def present(self) -> Indices:
        """Number the chunks of which anything is there, in ascending order."""
        return np.flatnonzero(self._states >= PARTIAL)

    def whole(self) -> Indices:
        """Number the chunks that are whole, in ascending order."""
        return np.flatnonzero(self._states >= WHOLE)

    def count_whole(self) -> int:
        """Count the chunks that are whole."""
        return int(np.count_nonzero(self._states >= WHOLE))


class Digests:
    """32 bytes for each chunk; what was never written reads as zeros. The file is sparse."""

    def __init__(self, path: Path, nchunks: int) -> None:
        """Open the file, or create it.

        Raises:
            StorageFailed: the disk is full or failed.
            BadContent: the file has another length than ``nchunks`` records.
        """
        self._fd = open_records(path, nchunks * DIGEST_BYTES)

    def close(self) -> None:
        """Let go of the file. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __getitem__(self, nchunk: int) -> bytes:
        return pread_exactly(self._fd, DIGEST_BYTES, nchunk * DIGEST_BYTES)

    def __setitem__(self, nchunk: int, digest: bytes) -> None:
        assert len(digest) == DIGEST_BYTES
        pwrite_all(self._fd, digest, nchunk * DIGEST_BYTES)


def open_records(path: Path, length: int, is_sparse: bool = True) -> int:
    """Open a file of records, or create it with zeros; return its descriptor.

    Args:
        path: of the file.
        length: in bytes.
        is_sparse: what was never written takes no room; False if the file is to be mapped.

    Raises:
        StorageFailed: the disk is full or failed.
        BadContent: the file has another length.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_failed(f"opening {path.name}", error) from None
    try:
        found = os.fstat(fd).st_size
        if found not in (0, length):
            raise BadContent(f"{path.name}: {found} bytes long, wanted {length}")
        if found < length and is_sparse:
            os.ftruncate(fd, length)
        elif found < length:
            os.posix_fallocate(fd, 0, length)
    except OSError as error:
        os.close(fd)
        raise storage_failed(f"making {path.name} {length} bytes long", error) from None
    except BadContent:
        os.close(fd)
        raise
    return fd
