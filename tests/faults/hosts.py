"""Hosts that do not exist: network namespaces around a router, with links that can be cut.

Nothing of it touches the machine's own network: each namespace is held by a sleeping process, and the kernel
removes it, with all that is in it, when that ends. A cut is a rule in the router that drops packets without a
word, as a broken switch does; it may be one-way. Needs the right to make network namespaces: root, or
``unshare -Ur`` around pytest.
"""

import contextlib
import ctypes
import functools
import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward"
_TRIAL = (
    f"ip link add zl type veth peer name zr && ip rule add from 10.77.0.1 blackhole && {_FORWARD} && nsenter -V"
)


@functools.cache
def missing() -> str | None:
    """Say why there can be no such hosts here; None if there can."""
    try:
        tried = subprocess.run(["unshare", "-n", "sh", "-c", _TRIAL], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no network namespaces: {error}"
    if tried.returncode == 0:
        return None
    return f"no network namespaces ({tried.stderr.strip()}): be root, or try `unshare -Ur python -m pytest …`"


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace with one address."""

    name: str
    address: str
    prefix: tuple[str, ...]
    """What runs a command there."""


class Hosts:
    """A router and the hosts around it. `close` it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._held = contextlib.ExitStack()
        self._cuts: set[tuple[str, str]] = set()
        self._router = self._namespace()
        subprocess.run([*self._enter(self._router), "sh", "-c", _FORWARD], check=True, capture_output=True)
        _run(self._enter(self._router), "ip link set lo up")
        self.all = {name: self._host(name, number) for number, name in enumerate(names, 1)}

    def close(self) -> None:
        self._held.close()

    def cut(self, one: str, other: str, both_ways: bool = True) -> None:
        """Let no packet pass from one host to the other."""
        for pair in ((one, other), (other, one))[: 2 if both_ways else 1]:
            if pair not in self._cuts:
                self._cuts.add(pair)
                self._rule("add", *pair)

    def part(self, half: Iterable[str]) -> None:
        """Cut all links between these hosts and the others."""
        inside = set(half)
        for name in inside:
            for other in self.all.keys() - inside:
                self.cut(name, other)

    def heal(self) -> None:
        """Take all cuts back."""
        for pair in self._cuts:
            self._rule("del", *pair)
        self._cuts.clear()

    def inside(self, work: Callable[[], T]) -> T:
        """Do something in a thread whose sockets are the router's, which reaches every host."""
        result: list[Any] = []

        def run() -> None:
            with open(f"/proc/{self._router.pid}/ns/net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            result.append(work())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return result[0]

    @property
    def router_prefix(self) -> tuple[str, ...]:
        """What runs a command beside the router: a place that no cut concerns."""
        return self._enter(self._router)

    # -- private ---------------------------------------------------------------------------------------

    def _host(self, name: str, number: int) -> Host:
        holder = self._namespace()
        here, there = f"10.77.{number}.2", f"10.77.{number}.1"
        _run(self._enter(self._router), f"ip link add z{number} type veth peer name lan netns {holder.pid}")
        _run(self._enter(self._router), f"ip addr add {there}/30 dev z{number}")
        _run(self._enter(self._router), f"ip link set z{number} up")
        for command in ("ip link set lo up", f"ip addr add {here}/30 dev lan", "ip link set lan up"):
            _run(self._enter(holder), command)
        _run(self._enter(holder), f"ip route add default via {there}")
        return Host(name, here, self._enter(holder))

    def _namespace(self) -> "subprocess.Popen[bytes]":
        holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo made; exec sleep infinity"], stdout=subprocess.PIPE
        )
        self._held.callback(holder.wait)
        self._held.callback(holder.kill)
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.stdout.close()
        return holder

    @staticmethod
    def _enter(holder: "subprocess.Popen[bytes]") -> tuple[str, ...]:
        return "nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"

    def _rule(self, verb: str, one: str, other: str) -> None:
        source, target = self.all[one].address, self.all[other].address
        _run(self._enter(self._router), f"ip rule {verb} from {source} to {target} blackhole")


def _run(prefix: tuple[str, ...], command: str) -> None:
    subprocess.run([*prefix, *command.split()], check=True, capture_output=True)
