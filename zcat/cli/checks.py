"""What ``zcat check`` looks at, one function each; none of them changes anything."""

import importlib.metadata
import os
import platform
import resource
import socket
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zcat.cli.ping import ping
from zcat.cli.printing import size
from zcat.errors import Timeout, ZcatError
from zcat.limits import GIB
from zcat.names import is_local_endpoint
from zcat.net.reach import reach
from zcat.net.sockets import LIBZMQ_MIN, make_context

PYTHON_MIN = (3, 11)
LIBRARIES = {"blosc2": (4, 14), "pyzmq": (26, 2), "numpy": (2, 0)}
"""What must be there, and from which version on."""

YEAR_MIN = 2025
FREE_BYTES_MIN = GIB
FILES_BESIDES = 512
"""Files that are open besides the connections of HTTP."""

NETWORK_FILE_SYSTEMS = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
    ]
)
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look found."""

    subject: str
    is_good: bool
    found: str
    advice: str = ""
    """What to do, if it is not good."""


def versions() -> Iterator[Finding]:
    """Look at Python and the libraries that decide."""
    wanted = ".".join(map(str, PYTHON_MIN))
    python = platform.python_version()
    yield Finding("python", sys.version_info >= PYTHON_MIN, python, f"wanted {wanted} or newer")
    for library, oldest in LIBRARIES.items():
        yield _library(library, oldest)
    try:
        make_context().term()
    except ZcatError as error:
        yield Finding("libzmq", False, error.message, "pip install --upgrade pyzmq")
    else:
        yield Finding("libzmq", True, f"{'.'.join(map(str, LIBZMQ_MIN))} or newer")


def clock(now_s: float | None = None) -> Finding:
    """Look whether the wall clock can be right, and whether the monotonic one runs."""
    year = time.gmtime(time.time() if now_s is None else now_s).tm_year
    begin_s = time.monotonic()
    runs = any(time.monotonic() > begin_s for _ in range(1_000_000))
    found = f"the year is {year}, the monotonic clock {'runs' if runs else 'stands'}"
    return Finding("clock", runs and year >= YEAR_MIN, found, "set the clock; on a cluster run an NTP client")


def open_files(connections_max: int) -> Finding:
    """Look how many files a service may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + FILES_BESIDES
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    advice = f"wanted {wanted} for {connections_max} connections: raise 'ulimit -Hn', or lower connections_max"
    return Finding("open files", enough, f"{soft} now, {shown} allowed", advice)


def folder(subject: str, path: Path, reserve_bytes: int) -> Finding:
    """Look whether a folder, or the one that it will be made in, can be written and has room."""
    # not its own exists(): that raises where a folder may not be looked into
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.exists(parent))
    where = str(path) if there == path.absolute() else f"{path} (to be made in {there})"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"zcat")
        space = os.statvfs(there)
    except OSError as error:
        reason = f"{where} cannot be written: {error.strerror}"
        return Finding(subject, False, reason, "name another folder with --state, --cache or --config")
    free_bytes = space.f_bavail * space.f_frsize
    wanted = max(reserve_bytes, FREE_BYTES_MIN)
    found = f"{where}, {size(free_bytes)} free"
    return Finding(subject, free_bytes >= wanted, found, f"wanted {size(wanted)}: make room, or name another disk")


def local_disk(subject: str, path: Path, mounts: Path = MOUNTS) -> Finding:
    """Look whether a folder is on a disk of this host: elsewhere sparse files and locks are slow, or unsafe."""
    subject = f"{subject} disk"
    try:
        kind = file_system(path, mounts.read_text())
    except OSError:
        return Finding(subject, True, "this system does not say what kind it is")
    advice = "a cache belongs on a local disk: name one with --cache, or in XDG_CACHE_HOME"
    return Finding(subject, kind not in NETWORK_FILE_SYSTEMS, f"{kind} file system", advice)


def file_system(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that a path is on.

    Source: proc(5), ``/proc/pid/mountinfo``.
    """
    resolved, best, kind = path.resolve(), -1, "unknown"
    for line in mountinfo.splitlines():
        mounted, _, rest = line.partition(" - ")
        point = Path(mounted.split(" ")[4].encode().decode("unicode_escape"))
        if resolved.is_relative_to(point) and len(point.parts) >= best:  # the last one of a path hides the others
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind


def subscriber(url: str) -> tuple[Finding, tuple[str, ...]]:
    """Ask the subscriber how it is; return the finding, and the brokers that it knows."""
    import zcat

    try:
        with zcat.connect(url) as client:
            health = client.health()
    except ZcatError as error:
        return _not_answering(url, error), ()
    roots = ", ".join(str(root["name"]) for root in health["roots"] if not root["synced"])
    trouble = "no broker answers" if health["broker"] is None else f"not current: {roots}"
    is_good = health["status"] == "ok"
    found = f"{url} answers, version {health['version']}" + ("" if is_good else f", {trouble}")
    advice = "see its log, and whether brokers and publishers run; 'zcat unfollow' forgets a root that is no more"
    return Finding("subscriber", is_good, found, advice), tuple(health["brokers"])


def broker(endpoint: str, timeout_s: float) -> Finding:
    """Ask a broker whether it is there."""
    try:
        pong, round_trip_s = ping(endpoint, timeout_s)
    except Timeout:
        why = reach(endpoint, timeout_s)
        return Finding("broker", False, why.found, why.advice)
    except ZcatError as error:
        return Finding("broker", False, error.message, "start it with 'zcat broker', or mend the endpoint")
    found = f"{endpoint} answers in {round_trip_s * 1000:.1f} ms, version {pong.version}"
    return Finding(
        "broker", pong.service == "broker", found, f"it is a {pong.service}: name the broker's endpoint"
    )


def network(brokers: Sequence[str], timeout_s: float) -> Iterator[Finding]:
    """Look at all publishers that brokers list: whether they are where they say, and whether names clash."""
    from zcat.services.survey import Survey

    context = make_context()
    try:
        peers = Survey(context, lambda: brokers, timeout_s).peers()
    except ZcatError:  # which has been said of each broker
        return
    finally:
        context.destroy(linger=0)
    standing = [peer for peer in peers if peer.kind == "publisher" and peer.state in ("live", "stale")]
    for name in sorted({peer.name for peer in standing if peer.contested}):
        owners = " and ".join(f"{name}@{peer.owner[:8]}" for peer in standing if peer.name == name)
        advice = "stop one, or give it another name; until then readers must write which they mean"
        yield Finding("root", False, f"{name} is contested: {owners}", advice)
    for peer in standing:
        yield _publisher(peer, timeout_s)


def address(subject: str, config: Any, brokers: tuple[str, ...]) -> Finding:
    """Look whether the brokers can reach what a publisher or a broker would tell them."""
    from zcat.services.advertised import advertised, check_reachable, listening
    from zcat.services.broker_sources import found_at

    try:
        others = found_at(brokers)
        told = advertised(listening(config.listen, config.interface), config.advertise, others)
        warning = check_reachable(told, others, is_chosen=config.advertise is not None)
    except ZcatError as error:
        return Finding(subject, False, error.message, "see [publisher] and [broker] of the configuration")
    return Finding(
        subject, warning is None, warning or f"others are told {told}", "is there a tunnel or the like?"
    )


def _publisher(peer: Any, timeout_s: float) -> Finding:
    subject, at = f"root {peer.name}@{peer.owner[:8]}", ", ".join(peer.endpoints)
    if not all(map(is_local_endpoint, peer.brokers)) and all(map(is_local_endpoint, peer.endpoints)):
        advice = "start its publisher with --interface or --listen, so that others can reach it"
        return Finding(subject, False, f"{at} is told to everybody, and means another place on each host", advice)
    if peer.answers is False:
        why = reach(peer.endpoints[0], timeout_s) if peer.endpoints else None
        if why is not None:
            return Finding(subject, False, why.found, why.advice)
    return Finding(subject, True, f"{at} answers" if peer.answers else f"{at} was not asked")


def _library(name: str, oldest: tuple[int, ...]) -> Finding:
    wanted = ".".join(map(str, oldest))
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install '{name}>={wanted}'")
    numbers = tuple(int(part) for part in found.split(".")[: len(oldest)] if part.isdigit())
    return Finding(name, numbers >= oldest, found, f"wanted {wanted} or newer: pip install --upgrade {name}")


def _not_answering(url: str, error: ZcatError) -> Finding:
    """Tell a subscriber that is not started yet from one that cannot be reached."""
    address = urllib.parse.urlsplit(url)
    if address.hostname in ("127.0.0.1", "localhost", "::1") and _is_free(address.hostname, address.port or 80):
        return Finding("subscriber", True, f"none at {url}; its port is free ('zcat up' starts one)")
    advice = "is the address right (--url, ZCAT_URL), and is it a subscriber of zcat?"
    return Finding("subscriber", False, error.message, advice)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
