"""Where brokers are to be found: endpoints, names of several addresses, files that brokers write themselves into.

A file on a shared file system is how the processes of a batch job find each other: it has one endpoint per line.
"""

import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zcat.errors import BadName, StorageFailed, ZcatError
from zcat.limits import BROKERS_MAX, CONTROL_FRAME_BYTES_MAX
from zcat.logs import kv
from zcat.names import check_endpoint
from zcat.net.loop import Loop

FILE = "file:"
"""What an entry begins with that names a file."""
LOOK_EVERY_S = 5.0

log = logging.getLogger(__name__)


class BrokerSources:
    """The entries of a configuration. Looked at when it is made, and again while no broker answers."""

    def __init__(self, entries: Sequence[str], loop: Loop, found: Callable[[Sequence[str]], None]) -> None:
        """Look for the first time.

        Args:
            entries: endpoints, or ``file:`` and the path of a file.
            loop: on which `look_again` and ``found`` are called.
            found: takes all endpoints that a later look found.

        Raises:
            BadName: an entry is neither.
        """
        self.endpoints = found_at(entries)
        self.entries = tuple(entries)
        self._loop = loop
        self._found = found
        self._is_looking = False
        self._next_s = loop.now_s() + LOOK_EVERY_S
        # what was one address and stands there as it is written is looked up by ZeroMQ itself, at each connect
        self._may_change = any(entry.startswith(FILE) or _host(entry) is not None for entry in entries)

    def look_again(self) -> None:
        """Look once more, if that was not done just now: in a thread, since disks and names may be slow."""
        if not self._may_change or self._is_looking or self._loop.now_s() < self._next_s:
            return
        self._is_looking = True
        threading.Thread(target=self._look, name="zcat-broker-sources", daemon=True).start()

    def _look(self) -> None:
        endpoints = found_at(self.entries)
        with contextlib.suppress(ZcatError):  # the loop has ended
            self._loop.post(lambda: self._looked(endpoints))

    def _looked(self, endpoints: Sequence[str]) -> None:
        self._is_looking, self._next_s = False, self._loop.now_s() + LOOK_EVERY_S
        self._found(endpoints)


def check_source(entry: str) -> str:
    """Return ``entry`` if it names brokers.

    Raises:
        BadName: it is neither an endpoint nor ``file:`` and a path.
    """
    if entry.startswith(FILE) and len(entry) > len(FILE):
        return entry
    return check_endpoint(entry)


def found_at(entries: Iterable[str]) -> tuple[str, ...]:
    """Give the endpoints that entries mean now, each once.

    Raises:
        BadName: an entry is neither an endpoint nor a file.
    """
    found: dict[str, None] = {}
    for entry in entries:
        check_source(entry)
        is_file = entry.startswith(FILE)
        for endpoint in read_file(Path(entry.removeprefix(FILE))) if is_file else _addresses(entry):
            found[endpoint] = None
    return tuple(found)


def read_file(path: Path) -> tuple[str, ...]:
    """Give the endpoints in a file; what is none is passed over, and a file that cannot be read is empty."""
    try:
        with path.open("rb") as file:
            text = file.read(CONTROL_FRAME_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ()
    endpoints = []
    for line in text.splitlines():
        with contextlib.suppress(BadName):
            endpoints.append(check_endpoint(line.strip()))
    return tuple(endpoints[:BROKERS_MAX])


class AnnouncedFile:
    """A line of a file, kept there while this lives: others may replace the file at the same time."""

    def __init__(self, path: Path, endpoint: str) -> None:
        """Write the line.

        Raises:
            StorageFailed: the file cannot be written.
        """
        self._path = path
        self._endpoint = endpoint
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="zcat-announced-file", daemon=True)
        _rewrite(path, endpoint, is_there=True)
        self._thread.start()

    def close(self) -> None:
        """Take the line out."""
        self._closing.set()
        self._thread.join()
        with contextlib.suppress(StorageFailed):
            _rewrite(self._path, self._endpoint, is_there=False)

    def _keep(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                _rewrite(self._path, self._endpoint, is_there=True)
            except StorageFailed as error:
                log.warning("not in the file of brokers %s", kv(path=self._path, reason=error))


def _rewrite(path: Path, endpoint: str, is_there: bool) -> None:
    """Put a line into a file, or take it out, in one step for whoever reads."""
    endpoints = read_file(path)
    if (endpoint in endpoints) == is_there:
        return
    lines = [each for each in endpoints if each != endpoint] + ([endpoint] if is_there else [])
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as aside:
            aside.write("".join(f"{line}\n" for line in lines))
        os.chmod(aside.name, 0o644)
        os.replace(aside.name, path)
    except OSError as error:
        raise StorageFailed(f"{path}: cannot be written: {error.strerror}") from error


def _addresses(endpoint: str) -> tuple[str, ...]:
    """Give one endpoint for each address of a name that has several; else the endpoint as it is."""
    host = _host(endpoint)
    if host is None:
        return (endpoint,)
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return (endpoint,)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    if len(addresses) == 1:
        return (endpoint,)
    port = endpoint.rpartition(":")[2]
    return tuple(f"tcp://[{each}]:{port}" if ":" in each else f"tcp://{each}:{port}" for each in addresses)


def _host(endpoint: str) -> str | None:
    """Give the host of an endpoint if it is a name that may have several addresses."""
    if not endpoint.startswith("tcp://"):
        return None
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return None
    return None if host == "localhost" else host
