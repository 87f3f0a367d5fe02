"""The workers of ``zcat subscribe --workers N``: processes that answer HTTP, kept alive.

The listening socket is bound here and handed down, so a connection waits in one queue that all workers serve:
whoever is idle takes it, and when one dies, what waits is taken by the others. (With SO_REUSEPORT each would
have a queue of its own, which dies with it.) A worker ends when its standard input does: also when this process
is killed.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from zcat.config import HttpConfig
from zcat.errors import BadConfig, ZcatError
from zcat.http.server import bound, url_of, warn_of_exposure
from zcat.logs import kv
from zcat.services.board import WORKERS_MAX, Board, Seat
from zcat.services.dataset import ReadLimits
from zcat.storage import slot_locks

WORKERS_DEFAULT_MAX = 8
"""Each takes some 60 MB; whoever wants more says so."""

READY_WAIT_S = 60.0
STARTS_MAX = 3
"""Of a worker at the beginning; one that has served once is replaced for ever."""
STOP_WAIT_S = 1.5
ARENAS_MAX = "1"
"""Heaps of glibc in a worker. It gives free memory back from the end of the first one alone (malloc_trim(3)): with
one for each thread, a few large slices left each worker 100 MB larger."""
STEADY_S = 10.0
"""A worker that lived for so long died by accident, and is replaced at once."""
PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 10.0
"""Between two starts of one that dies young: the pause doubles up to this."""

log = logging.getLogger(__name__)


def workers_of(config: HttpConfig) -> int:
    """Return how many processes shall answer.

    Raises:
        BadConfig: so many cannot be, on this system or on any.
    """
    if not 0 <= config.workers <= WORKERS_MAX:
        raise BadConfig(f"{config.workers} workers: wanted 1 to {WORKERS_MAX}, or 0 for one for each core")
    if not slot_locks.SUPPORTED:
        if config.workers > 1:
            raise BadConfig(f"{config.workers} workers: only Linux has the locks that more than 1 needs")
        return 1
    return config.workers or min(len(os.sched_getaffinity(0)), WORKERS_DEFAULT_MAX)


class Crew:
    """The workers. `start` returns when all of them serve."""

    def __init__(self, count: int, config: HttpConfig, endpoint: str, board: Board, limits: ReadLimits) -> None:
        """Prepare.

        Args:
            count: of workers.
            config: of the HTTP side.
            endpoint: of the subscriber's desk.
            board: shared with it.
            limits: of reads.
        """
        self._config = config
        self._board = board
        self._order = {
            "http": asdict(config),
            "endpoint": endpoint,
            "limits": asdict(limits),
            "level": logging.getLevelName(logging.getLogger("zcat").getEffectiveLevel()).lower(),
        }
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._posts = [_Post(self, number, board.seat(number)) for number in range(count)]
        self.url = ""

    def start(self) -> None:
        """Bind the address, and have all workers answer.

        Raises:
            AddressInUse, BadConfig: the address cannot be had.
            ZcatError: a worker does not start; the log says more.
        """
        self._listener = bound(self._config)
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self.url = url_of(self._listener)
        for post in self._posts:
            post.start()
        deadline_s = time.monotonic() + READY_WAIT_S
        for post in self._posts:
            while not post.is_ready.wait(0.1):
                if post.restarts_count >= STARTS_MAX or time.monotonic() > deadline_s:
                    raise ZcatError("a worker of the HTTP side does not start; the log has why")
        warn_of_exposure(self._config, self.url)

    def close(self) -> None:
        """Stop all workers: asked first, killed a moment later."""
        self._stopping.set()
        for post in self._posts:
            post.ask_to_end()
        deadline_s = time.monotonic() + STOP_WAIT_S
        for post in self._posts:
            post.end(deadline_s)
        if self._listener is not None:
            self._listener.close()

    def report(self) -> list[dict[str, Any]]:
        """Tell how the workers are, for the health of the subscriber."""
        return [post.report() for post in self._posts]

    def spawn(self, number: int) -> "subprocess.Popen[bytes]":
        """Start a process; it answers when its standard output says so."""
        assert self._listener is not None
        files = self._listener.fileno(), self._board.fd
        process = subprocess.Popen(
            [sys.executable, "-m", "zcat.cli.http_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=files,
            process_group=0,  # Ctrl-C in a terminal is for this process, which then ends the workers
            env={"MALLOC_ARENA_MAX": ARENAS_MAX, **os.environ},
        )
        assert process.stdin is not None
        order = {**self._order, "number": number, "listener": files[0], "board": files[1]}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        return process

    @property
    def stopping(self) -> threading.Event:
        """Set when no worker shall be replaced any more."""
        return self._stopping


class _Post:
    """One worker after the other in one place."""

    def __init__(self, crew: Crew, number: int, seat: Seat) -> None:
        self._crew = crew
        self._number = number
        self._seat = seat
        self._process: subprocess.Popen[bytes] | None = None
        self.restarts_count = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"zcat-crew-{number}", daemon=True)
        self.is_ready = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def report(self) -> dict[str, Any]:
        process, ready = self._process, self.is_ready.is_set()
        return {
            "pid": process.pid if process is not None else None,
            "ready": ready,
            "requests": self._seat.requests,
            "connections": self._seat.connections,
            "restarts": self.restarts_count,
        }

    def ask_to_end(self) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def end(self, deadline_s: float) -> None:
        process = self._process
        if process is not None:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread.ident is not None:  # else the address could not be had, and nobody was started
            self._thread.join(1.0)

    def _run(self) -> None:
        pause_s = PAUSE_MIN_S
        while not self._crew.stopping.is_set():
            begun_s = time.monotonic()
            status = self._serve()
            if self._crew.stopping.is_set():
                return
            lived_s = time.monotonic() - begun_s
            pause_s = PAUSE_MIN_S if lived_s >= STEADY_S else min(2 * pause_s, PAUSE_MAX_S)
            self.restarts_count += 1
            log.warning(
                "a worker died and is replaced %s",
                kv(
                    worker=self._number,
                    status=status,
                    lived_s=lived_s,
                    restarts=self.restarts_count,
                    pause_s=pause_s,
                ),
            )
            self._crew.stopping.wait(pause_s)

    def _serve(self) -> int | str:
        """Run one process; return what it ended with."""
        try:
            with self._lock:
                if self._crew.stopping.is_set():
                    return 0
                process = self._process = self._crew.spawn(self._number)
        except OSError as error:
            return error.strerror or str(error)
        assert process.stdout is not None
        if process.stdout.readline():
            self.is_ready.set()
        status = process.wait()
        self.is_ready.clear()
        self._seat.leave()
        process.stdout.close()
        return status
