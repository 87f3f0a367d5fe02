"""Open what lies inside a root folder, and never anything outside of it.

A path that passed ``zcat.names`` has no ``..`` in it, but a symbolic link on the way may still lead anywhere,
and may be put there between a look and an open. So the kernel itself is asked to stay inside, at the moment
of opening: ``openat2(2)`` with ``RESOLVE_BENEATH`` (Linux 5.6). It follows relative links that stay inside.
Where that call is missing (older kernels, some containers), each component is opened for itself and no link
is followed at all.

Nothing here ever shows where on the machine the root lies, once it is open.
"""

import ctypes
import errno
import os
import stat
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import blake3

from zcat.errors import BadConfig, Busy, Closed, DatasetUnknown, NotReadable, StorageFailed, ZcatError
from zcat.names import check_path, shown

SPARSE_INDEX = "chunks.b2frame"
"""Index file of a sparse frame, which is a folder: c-blosc2 ``README_SFRAME_FORMAT.rst``."""

_SYS_OPENAT2 = 437  # the same on x86_64 and aarch64
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_OPENAT2_ATTEMPTS = 20  # EAGAIN: something was renamed during the walk, so the kernel cannot vouch for it

_INSIDE_FLAGS = os.O_PATH | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a FIFO must not make us wait
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file must show unchanged before and after a read: another stamp is another content."""

    device: int
    inode: int
    size: int
    """In bytes."""
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take the stamp from what ``stat`` said."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def stamp_of(fd: int) -> Stamp:
    """Take the stamp of an open file."""
    return Stamp.of(os.fstat(fd))


def lineage_of(owner: str, stamp: Stamp, inner: str = "") -> str:
    """Name the content of a dataset: 32 hexadecimal digits.

    Args:
        owner: key of the publisher, since inode numbers mean nothing on another host.
        stamp: of the file.
        inner: path of the dataset inside the file (HDF5), else empty.
    """
    numbers = (stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns)
    text = "\0".join([owner, *map(str, numbers), inner])
    return blake3.blake3(text.encode(), derive_key_context="zcat 1 lineage of a dataset").hexdigest(length=16)


class RootFolder:
    """A root folder, held open. Several threads may call its methods; `close` comes after the last of them.

    Paths are relative to the folder, with ``/``, and are checked by ``zcat.names.check_path``.
    """

    def __init__(self, path: str | os.PathLike[str], by_openat2: bool | None = None) -> None:
        """Open the folder at ``path``.

        Args:
            path: the folder; it may itself be, or lie behind, a symbolic link.
            by_openat2: None to use the kernel's ``openat2`` if it is there; False to do without.

        Raises:
            BadConfig: there is no such folder, or it may not be searched.
        """
        self._path = os.fspath(path)
        self._fd = self._open_itself()
        self._by_openat2 = self._has_openat2() if by_openat2 is None else by_openat2

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; files opened from it stay open. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def refresh(self) -> bool:
        """Hold the folder that now has the root's name, if it is another one than that held; say whether it is.

        For roots that are deleted and written anew, or whose file system is mounted late.

        Raises:
            BadConfig: there is no such folder now. The old one stays held.
        """
        fresh = self._open_itself()
        try:
            if os.path.samestat(os.fstat(fresh), os.fstat(self._held())):
                return False
            os.dup2(fresh, self._fd, inheritable=False)  # atomic: other threads go on with the same number
            return True
        finally:
            os.close(fresh)

    def open_file(self, path: str) -> int:
        """Open a regular file for reading; the caller closes the descriptor.

        Raises:
            BadName: the path is not legal.
            DatasetUnknown: there is no such file.
            NotReadable: it leads out of the root, may not be read, or is no regular file.
            Busy: the process has too many files open.
            StorageFailed: the disk, or the file system's server, failed.
        """
        fd = self._open(check_path(path), _FILE_FLAGS)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise DatasetUnknown(f"{shown(path)} is a folder; wanted a file")
            if not stat.S_ISREG(mode):
                raise NotReadable(f"{shown(path)} is {kind_of(mode)}; wanted a regular file")
        except ZcatError:
            os.close(fd)
            raise
        return fd

    def open_dir(self, path: str) -> int:
        """Open a folder for listing, the root itself for the empty path; the caller closes the descriptor.

        Raises:
            BadName, DatasetUnknown, NotReadable, Busy, StorageFailed: as for `open_file`.
        """
        return self._open(check_path(path) if path else ".", _FOLDER_FLAGS)

    def status(self, path: str) -> os.stat_result:
        """Ask ``stat`` about whatever is there, behind links that stay inside; it is not opened.

        Raises:
            BadName, DatasetUnknown, NotReadable, Busy, StorageFailed: as for `open_file`.
        """
        fd = self._open(check_path(path), _INSIDE_FLAGS)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def stat(self, path: str) -> Stamp | None:
        """Take the stamp of a file, or of a sparse frame's index; None if ``path`` is neither.

        Raises:
            BadName, NotReadable, Busy, StorageFailed: as for `open_file`.
        """
        try:
            status = self.status(path)
            if stat.S_ISDIR(status.st_mode):
                status = self.status(f"{path}/{SPARSE_INDEX}")
        except DatasetUnknown:
            return None
        return Stamp.of(status) if stat.S_ISREG(status.st_mode) else None

    def _open_itself(self) -> int:
        try:
            return os.open(self._path, _INSIDE_FLAGS | os.O_DIRECTORY)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise BadConfig(f"root folder {shown(self._path, 200)}: {why}") from error

    def _held(self) -> int:
        if self._fd < 0:
            raise Closed("the root is closed")
        return self._fd

    def _has_openat2(self) -> bool:
        try:
            os.close(_openat2(self._fd, ".", _INSIDE_FLAGS))
        except OSError as error:
            return error.errno not in (errno.ENOSYS, errno.EPERM)  # EPERM: a container's seccomp filter
        return True

    def _open(self, path: str, flags: int) -> int:
        open_beneath = _openat2 if self._by_openat2 else _open_by_component
        try:
            return open_beneath(self._held(), path, flags)
        except OSError as error:
            raise _explained(self._path if path == "." else path, error) from error


def kind_of(mode: int) -> str:
    """Say what a file of that ``st_mode`` is, with its article."""
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")


def _openat2(folder_fd: int, path: str, flags: int) -> int:
    raw = os.fsencode(path)
    assert b"\0" not in raw, "C would see a shorter path than the one that was checked"
    how = struct.pack("@QQQ", flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)  # struct open_how
    number = 0
    for _ in range(_OPENAT2_ATTEMPTS):
        fd: int = _LIBC.syscall(ctypes.c_long(_SYS_OPENAT2), folder_fd, raw, how, ctypes.c_size_t(len(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number))


def _open_by_component(folder_fd: int, path: str, flags: int) -> int:
    *folders, last = path.split("/")
    at = folder_fd
    try:
        for folder in folders:
            below = _open_no_link(at, folder, _INSIDE_FLAGS | os.O_DIRECTORY)
            if at != folder_fd:
                os.close(at)
            at = below
        return _open_no_link(at, last, flags)
    finally:
        if at != folder_fd:
            os.close(at)


def _open_no_link(folder_fd: int, name: str, flags: int) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder_fd)
    except NotADirectoryError:  # also what O_DIRECTORY says of a link
        if stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH opens the link itself
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return fd


def _explained(path: str, error: OSError) -> ZcatError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG:
            return DatasetUnknown(f"{shown(path)} does not exist")
        case errno.EXDEV:
            return NotReadable(f"{shown(path)}: a symbolic link leads out of the root")
        case errno.ELOOP:
            return NotReadable(f"{shown(path)}: a symbolic link on the way is not followed")
        case errno.EACCES | errno.EPERM:
            return NotReadable(f"{shown(path)}: the publisher's user may not read it")
        case errno.ENXIO | errno.ENODEV:
            return NotReadable(f"{shown(path)} is a socket or a device; wanted a regular file")
        case errno.EAGAIN:
            return Busy(f"{shown(path)} is being moved or is leased to somebody else; try again later")
        case errno.EMFILE | errno.ENFILE:
            return Busy(f"{shown(path)}: too many files are open; try again later")
        case _:
            return StorageFailed(f"{shown(path)}: {error.strerror}")
