"""What of a folder has been copied so far, so that the same command goes on where it was cut off.

The journal of ``FOLDER`` is ``FOLDER.part.tag`` beside it, where a single file has its tag while it grows. Its
first line is the address, each further one a path and the version of it that was copied, all in JSON. It is gone
when the copy is complete. A line that a crash cut is none: its dataset is copied again.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from zcat.errors import StorageFailed

SUFFIX = ".part.tag"


class Journal:
    """Of one folder."""

    def __init__(self, folder: Path, address: str) -> None:
        """Read it, if there is one.

        Args:
            folder: of the copy; need not exist.
            address: of what is copied.

        Raises:
            StorageFailed: it is there and cannot be read.
        """
        self._path = Path(os.path.abspath(folder) + SUFFIX)
        self._address = address
        with _explained(self._path):
            lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.is_file() else []
        found = [_parsed(line) for line in lines]
        self.is_under_way = found[:1] == [address]
        """An earlier call began to copy the same to the same folder."""
        copied = found[1:] if self.is_under_way else []
        self._versions = {line[0]: line[1] for line in copied if isinstance(line, list) and len(line) == 2}

    def begin(self) -> None:
        """Write that the copy is under way.

        Raises:
            StorageFailed: the disk refuses.
        """
        if not self.is_under_way:
            with _explained(self._path):
                self._path.write_bytes(_line(self._address))
            self.is_under_way = True

    def has(self, path: str, version: str) -> bool:
        """Say whether this version was copied."""
        return self._versions.get(path) == version

    def add(self, path: str, version: str) -> None:
        """Write that it was copied.

        Raises:
            StorageFailed: the disk refuses.
        """
        with _explained(self._path), self._path.open("ab") as file:
            file.write(_line([path, version]))

    def complete(self) -> None:
        """Be gone."""
        with _explained(self._path):
            self._path.unlink(missing_ok=True)


def _line(value: str | list[str]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
