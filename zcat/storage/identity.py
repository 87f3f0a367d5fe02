"""Who a publisher is, on its own disk: an owner key made once, and a counter of its lives.

``owner`` and ``incarnation`` are text files of one line; ``lock`` is held as long as the process lives. The
counter is raised, and on the disk, before anybody hears of it. When the counter is lost, brokers that remember
a later life say so, and `Identity.raise_above` goes there. It never comes from a clock, which may go back.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from zcat.errors import BadContent, BadName, CacheInUse, StorageFailed
from zcat.names import check_owner, shown

_READ_MAX = 256


class Identity:
    """The owner key and the present incarnation of the process that holds the folder."""

    def __init__(self, folder: Path, lock_fd: int, owner: str, incarnation: int) -> None:
        """Belongs to `load`."""
        self.owner = owner
        self._folder = folder
        self._lock_fd = lock_fd
        self._incarnation = incarnation

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Begin a new life: lock ``folder``, which is made if need be, and raise the counter in it.

        Raises:
            CacheInUse: another process has it; the message says which.
            BadContent: the owner key is damaged. Only a person can decide to become somebody else.
            StorageFailed: the disk refused.
        """
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock_fd = _lock(folder)
        try:
            with _disk(folder):
                identity = cls(folder, lock_fd, _owner(folder), _counted(folder))
            identity.raise_above(0)
        except (BadContent, StorageFailed):
            os.close(lock_fd)
            raise
        return identity

    @property
    def incarnation(self) -> int:
        """Which life this is: above all earlier ones that the disk knows of, or that a broker told."""
        return self._incarnation

    def raise_above(self, above: int) -> int:
        """Go to an incarnation above ``above`` and the present one, and give it once it is on the disk.

        Raises:
            StorageFailed: the disk refused; the incarnation is the former one.
        """
        raised = max(self._incarnation, above) + 1
        with _disk(self._folder):
            _write(self._folder / "incarnation", f"{raised}\n")
        self._incarnation = raised
        return raised

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(folder: Path) -> int:
    """Take the lock and leave our number in it, for the message of the one who comes second."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(fd, _READ_MAX, 0).decode("ascii", "replace").strip()
        os.close(fd)
        whose = pid if pid.isascii() and pid.isdigit() else "of an unknown number"
        raise CacheInUse(
            f"folder {shown(str(folder))} is in use by process {whose}: "
            "stop that one, or give this one a folder of its own"
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _owner(folder: Path) -> str:
    path = folder / "owner"
    text = _read(path)
    if text is None:
        owner = secrets.token_hex(16)
        _write(path, f"{owner}\n")
        return owner
    try:
        return check_owner(text.strip())
    except BadName as error:
        raise BadContent(
            f"file {shown(str(path))} is damaged ({error}). Restore it; or remove it to get a new owner key, "
            "which subscribers that know the old one will not follow by themselves"
        ) from None


def _counted(folder: Path) -> int:
    """Read the counter; a lost or damaged one counts as 0, and brokers that remember more will say so."""
    text = (_read(folder / "incarnation") or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_READ_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    """Replace a file so that a power cut leaves the old text or the new one."""
    aside = path.with_name(f"{path.name}.new")
    with aside.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"folder {shown(str(folder))} for the identity: {error.strerror or error}") from error
