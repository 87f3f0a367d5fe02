"""Save a dataset as a file, and go on where an interrupted download ended.

While it grows, the file is called ``NAME.part``; ``NAME.part.tag`` beside it says of which version it is. It gets
its own name when it is complete, so that whoever looks sees the old file or the new one.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from zcat.client.backend import Address, Backend
from zcat.errors import BadRequest, Busy, StorageFailed

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that are there, and those of the whole file."""


def save(backend: Backend, address: Address, target: Path, resume: bool, progress: Progress | None) -> None:
    """Download the newest version of a dataset.

    Args:
        backend: who has it.
        address: of the dataset.
        target: the file; its folder exists.
        resume: go on with what an earlier call left there.
        progress: told how far it is.

    Raises:
        BadRequest: what is at the place is no file: a device, a pipe, a folder.
        Busy: another process downloads to the same place.
        StorageFailed: the disk refused.
        Unavailable, Timeout, Stale: what has come is kept for the next call.
    """
    if target.exists() and not target.is_file():
        # SAFETY: to be replaced is the end of it; for root, and of /dev/null, for the whole host
        raise BadRequest(f"{target} is no file, and would be replaced by one; choose another path")
    try:
        with open(_beside(target, ".part"), "ab") as file:
            _lock(file, target)
            try:
                _receive(backend, address, file, target, progress, resume)
                os.replace(file.name, target)
            finally:  # also at an interrupt
                _tidy(file, target)
    except OSError as error:
        if isinstance(error, TimeoutError | StorageFailed):
            raise
        raise StorageFailed(f"{target}: {error.strerror or error}") from error


def _lock(file: BinaryIO, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{target} is being downloaded already; wait for that, or choose another path") from None


def _receive(
    backend: Backend, address: Address, file: BinaryIO, target: Path, progress: Progress | None, resume: bool
) -> None:
    tag_file = _beside(target, ".part.tag")
    tag = tag_file.read_text() if resume and tag_file.exists() else None
    # The last byte is asked for once more: a range that begins at the end of a file is none.
    start = max(file.tell() - 1, 0) if tag else 0
    with backend.body(address, start, tag) as body:
        file.truncate(body.start)
        if body.tag != tag:
            tag_file.write_text(body.tag)
        done = body.start
        for piece in body.pieces:
            file.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, body.nbytes)


def _tidy(file: BinaryIO, target: Path) -> None:
    """Leave what the next call can go on from, and nothing else."""
    part = _beside(target, ".part")
    if not file.tell():
        part.unlink(missing_ok=True)
    if not part.exists():
        _beside(target, ".part.tag").unlink(missing_ok=True)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)
