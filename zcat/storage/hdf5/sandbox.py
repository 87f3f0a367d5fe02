"""A few processes that open HDF5 files for us: a file that crashes HDF5, or hangs it, costs only one of them.

A worker is started when it is needed, is asked one thing at a time by whichever thread wants something, and ends
when nobody asks for a while. It gets the file as an open descriptor, never as a name. What it answers is a
stranger's; when it dies, answers nonsense or takes too long, it is killed, and the next call starts another.
"""

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zcat.errors import ERROR_OF_CODE, BadContent, BadMessage, Busy, Closed, StorageFailed
from zcat.limits import GIB, MIB
from zcat.logs import kv
from zcat.names import shown
from zcat.storage.hdf5.wire import receive, send
from zcat.storage.hdf5.worker import EXIT_IDLE, EXIT_MEMORY

START_S = 30.0
"""What a worker may take until it is ready. It takes a quarter of a second, on a quiet machine."""

WORKER = (sys.executable, "-P", "-m", "zcat.storage.hdf5.worker")

log = logging.getLogger(__name__)

_ATTEMPTS = 2  # a worker may have ended, being idle, just when it was asked
_FILES_REMEMBERED = 8
_MESSAGE_MAX = 1000
_CODES = frozenset(
    [
        "bad-content",
        "bad-request",
        "bad-selection",
        "busy",
        "dataset-unknown",
        "not-readable",
        "stale",
        "too-large",
    ]
)
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TZ")
"""What workers see of our environment."""

_SET = {
    "BLOSC_NTHREADS": "1",
    "HDF5_PLUGIN_PATH": "",
    "HDF5_PLUGIN_PRELOAD": "::",  # no filter is ever loaded from a file: H5PLpublic.h, H5PL_NO_PLUGIN
    "HDF5_USE_FILE_LOCKING": "FALSE",  # a lock of ours would make a writer fail that opens the file meanwhile
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a worker may take. A request that needs more fails, and costs the worker."""

    memory_bytes: int = 2 * GIB
    """Address space, of which an idle worker has about 150 MB."""
    cpu_s: int = 30
    """Of one request."""
    wall_s: float = 60.0
    """Of one request."""
    answer_bytes_max: int = 256 * MIB
    waiting_max: int = 256
    """Calls that wait for a worker; a further one is told that we are busy."""
    idle_s: int = 60
    """After which a worker that is not asked ends."""


class Sandbox:
    """A pool of workers. Any thread may call."""

    def __init__(
        self,
        count: int,
        limits: SandboxLimits | None = None,
        worker: Sequence[str] = WORKER,
        readable: Path | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            count: of workers, at most; as many calls are answered at a time.
            limits: of each of them.
            worker: the command that starts one, without its numbers.
            readable: the folder that all files are in, or the file; workers can open nothing else, where the
                kernel knows how to prevent that. None for all files.
        """
        assert count > 0
        self._limits = limits or SandboxLimits()
        self._command = tuple(worker)
        self._readable = () if readable is None else (os.path.abspath(readable),)
        self._changed = threading.Condition()
        self._idle: list[_Worker] = []
        self._at_work: set[_Worker] = set()
        self._free = count
        self._waiting = 0
        self._is_closed = False
        self.started = 0
        """Workers, so far."""
        self.lost = 0
        """Workers that had to be killed, or died."""

    def call(
        self, op: str, fields: dict[str, Any], fd: int, wait_s: float | None = None
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """Ask a worker about a file.

        Args:
            op: an operation, of ``operations.OPERATIONS``.
            fields: what it is told; what `codec.pack` takes.
            fd: of the file; it stays the caller's.
            wait_s: how long to wait for a free worker; None for as long as one request may take.

        Returns:
            The fields and the bodies of the answer: well-formed, but a stranger's.

        Raises:
            BadContent: the file is damaged, or HDF5 died or hung of it.
            Busy: too many calls wait, or no worker became free; or the file is open for writing.
            NotReadable, DatasetUnknown, TooLarge, ...: what the operation says.
            StorageFailed: no worker can be started.
            Closed: the sandbox is.
        """
        status = os.fstat(fd)
        file = (status.st_dev, status.st_ino)
        until_s = time.monotonic() + (self._limits.wall_s if wait_s is None else wait_s)
        for _ in range(_ATTEMPTS):
            worker = self._take(file, until_s)
            is_sound = False
            try:
                answer = worker.ask({**fields, "op": op}, fd, file)
                is_sound = True
            except _EndedIdle:
                continue
            finally:
                self._give_back(worker, is_sound)
            return _unwrapped(*answer)
        raise Busy("the worker processes for HDF5 end as soon as they are started; try again later")

    def close(self) -> None:
        """End all workers; calls that are under way fail. A second call does nothing."""
        with self._changed:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for worker in (*idle, *self._at_work):
                worker.kill()
            self._changed.notify_all()
        for worker in idle:
            worker.bury()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, file: tuple[int, int], until_s: float) -> "_Worker":
        """Wait for a worker, rather one that has the file open, and start it if need be."""
        with self._changed:
            if self._waiting >= self._limits.waiting_max:
                raise Busy(f"{self._waiting} requests for HDF5 files wait already; try again later")
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._free or self._is_closed, until_s - time.monotonic())
            finally:
                self._waiting -= 1
            if self._is_closed:
                raise Closed("the sandbox for HDF5 files is closed")
            if not self._free:
                raise Busy("all worker processes for HDF5 are at work; try again later")
            self._free -= 1
            for dead in [one for one in self._idle if not one.is_alive]:  # no request's fault
                self._idle.remove(dead)
                dead.bury()
                self.lost += dead.exit_code != EXIT_IDLE
            worker = next((one for one in self._idle if file in one.files), None)
            if worker is None and self._idle:
                worker = self._idle[-1]
            if worker is not None:
                self._idle.remove(worker)
            else:
                worker = _Worker(self._command, self._limits, self._readable)
                self.started += 1
            self._at_work.add(worker)
        return worker

    def _give_back(self, worker: "_Worker", is_sound: bool) -> None:
        if not is_sound:
            worker.bury()
        with self._changed:
            self._at_work.discard(worker)
            self._free += 1
            self.lost += not (is_sound or worker.ended_idle)
            if is_sound and not self._is_closed:
                self._idle.append(worker)
            self._changed.notify()
        if self._is_closed:
            worker.bury()


class _EndedIdle(Exception):
    """The worker ended before it took the request."""


class _Worker:
    """One process, asked by one thread at a time. `kill` may be called by another one."""

    def __init__(self, command: tuple[str, ...], limits: SandboxLimits, readable: tuple[str, ...]) -> None:
        self.files: list[tuple[int, int]] = []
        """Those that it has open, probably."""
        self.ended_idle = False
        self._command = command
        self._limits = limits
        self._readable = readable
        self._lock = threading.Lock()
        self._is_killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._life_fd = -1

    def ask(
        self, fields: dict[str, Any], fd: int, file: tuple[int, int]
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """Ask one thing; when this fails, the worker is of no use any more."""
        if self._socket is None:
            self._start()
        assert self._socket is not None
        self.files = [file, *(one for one in self.files if one != file)][:_FILES_REMEMBERED]
        until_s = time.monotonic() + self._limits.wall_s
        try:
            self._socket.settimeout(self._limits.wall_s)
            send(self._socket, fields, [], fd)
            header, bodies, _ = receive(self._socket, self._limits.answer_bytes_max, until_s)
            return header, bodies
        except TimeoutError:
            raise BadContent(
                f"the file could not be read: HDF5 took more than {self._limits.wall_s:g} s for it"
            ) from None
        except (BadMessage, RecursionError) as error:
            raise BadContent(f"the file could not be read: nonsense came from the HDF5 library: {error}") from None
        except (EOFError, OSError):
            raise self._obituary() from None

    @property
    def is_alive(self) -> bool:
        """False once its process has ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of its process, once that has ended."""
        return self._process.returncode if self._process is not None else None

    def kill(self) -> None:
        """End it now; whoever waits for its answer sees that it died."""
        with self._lock:
            self._is_killed = True
            if self._process is not None:
                self._process.kill()

    def bury(self) -> None:
        """End it, and let go of all that belongs to it."""
        self.kill()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            if self._life_fd >= 0:
                os.close(self._life_fd)
                self._life_fd = -1
            if self._process is not None:
                self._process.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        life_read, life_write = os.pipe()
        limits = self._limits
        numbers = (
            theirs.fileno(),
            life_read,
            limits.memory_bytes,
            math.ceil(limits.cpu_s),
            limits.answer_bytes_max,
            limits.idle_s,
        )
        self._socket, self._life_fd = ours, life_write
        try:
            with self._lock:
                if self._is_killed:
                    raise Closed("the sandbox for HDF5 files is closed")
                self._process = subprocess.Popen(
                    [*self._command, *map(str, numbers), *self._readable],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what HDF5 and the allocator say when they give up
                    env=_environment(),
                    cwd="/",
                    pass_fds=(theirs.fileno(), life_read),
                    process_group=0,  # Ctrl-C at the publisher's terminal is for the publisher
                )
            theirs.close()
            header, _, _ = receive(ours, 0, time.monotonic() + START_S)
        except (OSError, EOFError, BadMessage) as error:
            if self._is_killed:
                raise Closed("the sandbox for HDF5 files is closed") from None
            why = f"{type(error).__name__} {error}".strip()
            raise StorageFailed(f"a worker process for HDF5 did not start: {shown(why, 200)}") from None
        finally:
            theirs.close()
            os.close(life_read)
        if "code" in header:
            raise StorageFailed(
                f"a worker process for HDF5 did not start: {shown(str(header.get('message')), 600)}"
            )
        log.debug("hdf5 worker started %s", kv(pid=self._process.pid, confined=header.get("confined")))

    def _obituary(self) -> Exception:
        """Say what it died of."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        limits = self._limits
        if self._is_killed:
            return Closed("the sandbox for HDF5 files is closed")
        if code == EXIT_IDLE:
            self.ended_idle = True
            return _EndedIdle()
        if code == EXIT_MEMORY:
            why = f"HDF5 needed more memory for it than the limit of {limits.memory_bytes / MIB:.0f} MiB"
        elif code == -signal.SIGXCPU:
            why = f"HDF5 computed for more than {limits.cpu_s} s on it"
        elif code < 0:
            why = f"the HDF5 library crashed on it ({_signal_name(-code)})"
        else:
            why = f"the HDF5 library ended its process (exit {code})"
        log.warning("hdf5 worker died %s", kv(exit=code, why=why))
        return BadContent(f"the file could not be read: {why}")


def _unwrapped(header: dict[str, Any], bodies: list[bytearray]) -> tuple[dict[str, Any], list[bytearray]]:
    code, fields = header.get("code"), header.get("fields")
    if code is not None:
        known = ERROR_OF_CODE[code] if isinstance(code, str) and code in _CODES else BadContent
        raise known(str(header.get("message"))[:_MESSAGE_MAX])
    if type(fields) is not dict:
        raise BadContent("the file could not be read: nonsense came from the HDF5 library")
    return fields, bodies


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    home = str(Path(__file__).parents[3])  # of the package, which the option -P hides where it was not installed
    # relative to where we are: a worker is elsewhere, and may read whatever it loads modules from
    paths = (os.path.abspath(one) for one in kept.get("PYTHONPATH", "").split(os.pathsep) if one)
    return {**kept, **_SET, "PYTHONPATH": os.pathsep.join([home, *paths])}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
