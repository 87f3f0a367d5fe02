"""What running processes take: memory and time of a server with all its children."""

import contextlib
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    pid: int
    log: Path
    """What it says."""


def started(
    opened: ExitStack, name: str, command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> Started:
    """Run a command in a folder until ``opened`` closes."""
    log = folder / f"{name}.log"
    with open(log, "wb") as said:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=said, stderr=said
        )
    opened.callback(end, process)
    return Started(process.pid, log)


def answers(server: Started, url: str, wait_s: float = 60) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: it does not.
    """
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        try:
            with urlopen(url, timeout=10):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer; its log: {server.log.read_text(errors='replace')[-1000:]}")


def free_port() -> int:
    """Give a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and see that it does."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid: int) -> list[int]:
    """Give a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(entry.name))[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for number in found:
        found += children.get(number, [])
    return found


def cpu_s(pid: int) -> float:
    """Give the processor time that a process and its descendants have taken."""
    ticks = 0
    for number in tree(pid):
        with contextlib.suppress(OSError):
            fields = _stat(number)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def memory_mb(pid: int) -> dict[str, float]:
    """Give the memory of a process and its descendants, in MB.

    ``own`` is what only they have and no file backs; ``resident`` counts cached files that they have mapped, too,
    and what several of them share only once.
    """
    sizes = {"Pss": 0, "Anonymous": 0}
    for number in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in sizes:
                    sizes[name] += int(rest.split()[0]) * 1024
    return {"own": sizes["Anonymous"] / 1e6, "resident": sizes["Pss"] / 1e6}


def _stat(pid: int) -> list[str]:
    """Give the fields of ``/proc/PID/stat`` that follow the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
