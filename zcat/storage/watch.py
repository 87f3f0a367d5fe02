"""Notice that something in a root folder changed; what changed is for a scan to say.

inotify tells within milliseconds, but only what this host does: on network file systems the folder is polled
instead. inotify also loses notices (a queue that overflows, a mapped file, a limit of watches), so that all
is looked at again now and then in any case.
"""

import contextlib
import ctypes
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import watchfiles

from zcat.logs import kv

PATHS_MAX = 4096
"""Changed paths in one call; more are told as "anything"."""

_LOOK_UP_MS = 100  # how often watchfiles comes back without news: for the first word, and to see the folder vanish

_NETWORK_FILE_SYSTEMS = {
    # f_type of statfs(2), as in linux/magic.h and in the table of GNU coreutils' stat.c
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x00C36400: "ceph",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x73757245: "coda",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0xAAD7AAEA: "panfs",
    0x20030528: "orangefs",
    0x786F4256: "vboxsf",
}

_LIBC = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """How quickly a `Watcher` tells."""

    settle_s: float = 0.05
    """Changes are gathered for at most so long, and told after a quarter of it without another."""
    poll_s: float = 2.0
    """Between two looks where inotify does not help."""
    rescan_s: float = 60.0
    """Between two looks at everything where it does, in case a notice was lost."""


class Watcher:
    """A thread that calls ``on_change`` when something in a folder may have changed.

    ``on_change(paths)`` gets paths relative to the folder, ``/`` between; a path may be gone, and may be a folder,
    which stands for everything in it. Hidden ones are left out. inotify follows links, also those that lead out
    of the folder: whether a path is offered is not decided here.

    ``on_change(None)`` means: look at everything. It comes once soon after `start`, as soon as no later change is
    missed; then on every doubt. Calls come from the watcher's thread, one after the other; what one raises is
    logged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        on_change: Callable[[set[str] | None], None],
        times: WatchTimes | None = None,
        force_polling: bool | None = None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            folder: may be missing, now or later: it is waited for.
            on_change: see the class.
            times: the defaults of `WatchTimes` if None.
            force_polling: None to poll on network file systems only.
        """
        self._folder = os.path.abspath(folder)
        self._on_change = on_change
        self._times = times if times is not None else WatchTimes()
        self._force_polling = force_polling
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zcat-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch. Once only."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a call of ``on_change`` that is under way. Not to be called from within it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        times = self._times
        retry_s = times.poll_s
        while not self._stopping.is_set():
            if self._must_poll():
                self._tell(None)
                self._poll(math.inf)
                return
            began_s = time.monotonic()
            why = self._watch()
            if self._stopping.is_set():
                return
            log.warning("watching failed, polling for now %s", kv(folder=self._folder, retry_s=retry_s, why=why))
            self._tell(None)
            self._poll(retry_s)
            held = time.monotonic() - began_s > times.rescan_s + retry_s
            retry_s = times.poll_s if held else min(2 * retry_s, max(times.rescan_s, times.poll_s))

    def _must_poll(self) -> bool:
        if self._force_polling is not None:
            return self._force_polling
        return is_network_file_system(self._folder)

    def _poll(self, for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while not self._stopping.wait(self._times.poll_s):
            self._tell(None)
            if time.monotonic() >= until_s:
                return

    def _watch(self) -> str:
        """Watch by inotify until `stop`, or until it fails: then say why."""
        settle_ms = max(4, round(self._times.settle_s * 1000))
        try:
            watched = os.stat(self._folder)
            changes = watchfiles.watch(
                self._folder,
                watch_filter=None,
                debounce=settle_ms,
                step=settle_ms // 4,
                stop_event=self._stopping,
                rust_timeout=_LOOK_UP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                force_polling=False,
                recursive=True,
                ignore_permission_denied=True,
            )
            rescan_at_s = -math.inf  # the first word comes when the watch stands: what came before it was not seen
            with contextlib.closing(changes):
                for batch in changes:
                    if not os.path.samestat(os.stat(self._folder), watched):
                        return "another folder has its name now"
                    if time.monotonic() >= rescan_at_s:
                        self._tell(None)
                        rescan_at_s = time.monotonic() + self._times.rescan_s
                    elif batch:
                        self._tell_of(path for _, path in batch)
        except OSError as error:  # gone, or the limit of watches is reached
            return error.strerror or str(error)
        except RuntimeError as error:  # watchfiles' own: the limit of instances; a name that is not UTF-8
            return str(error)
        return "stopped"

    def _tell_of(self, absolute: Iterable[str]) -> None:
        prefix = self._folder.rstrip("/") + "/"
        paths = {path.removeprefix(prefix) for path in absolute if path != self._folder}
        seen = {path for path in paths if not path.startswith(".") and "/." not in path}
        if seen:
            self._tell(seen if len(seen) <= PATHS_MAX else None)

    def _tell(self, paths: set[str] | None) -> None:
        try:
            self._on_change(paths)
        except Exception:  # the top of this thread: without it, one bad call would end all notices
            log.exception("on_change failed %s", kv(folder=self._folder))


def is_network_file_system(path: str | os.PathLike[str]) -> bool:
    """Say whether other hosts may write to ``path`` without inotify's telling; False if nobody can say."""
    return _file_system_type(path) in _NETWORK_FILE_SYSTEMS


def _file_system_type(path: str | os.PathLike[str]) -> int | None:
    answer = ctypes.create_string_buffer(256)  # struct statfs: 120 bytes, f_type first
    if _LIBC.statfs(os.fsencode(path), answer) != 0:
        return None
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF
