"""Brokers, publishers and subscribers as real processes, each by the command that people use."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import zmq
from checker import Checker
from hosts import Host, Hosts

import zcat
from zcat.model.root import Claim
from zcat.protocol.messages import ListedClaim, Lookup, Message, Ping, decode, encode
from zcat.protocol.pages import unpaged

T = TypeVar("T")

READY_S = 60.0
PORTS = (20_000, 32_000)
PATIENCE_S = 60.0
"""How long anything may take that has no figure of its own, on a machine that is busy with something else."""
LOOK_S = 0.02
ASK_MS = 10_000
LOOPBACK = Host("here", "127.0.0.1", ())
FORBIDDEN = ("Traceback", " bug loop=", "Assertion failed", "Segmentation")
"""In logs: what no fault excuses."""


@dataclass(slots=True)
class Service:
    """One process of zcat, in one life after another."""

    name: str
    host: Host
    command: list[str]
    log: Path
    environment: dict[str, str]
    prefix: tuple[str, ...] = ()
    process: "subprocess.Popen[str] | None" = None
    ready: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start the process; `wait` until it is ready."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.host.prefix, *self.prefix, *self.command],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, cwd=self.log.parent,
            )  # fmt: skip
        self.stopped = False

    def wait(self) -> None:
        """Read what it says when everything answers."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended before it was ready: {self.log.read_text()[-2000:]}"
        self.ready = json.loads(line)

    def start(self) -> None:
        self.launch()
        self.wait()

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.stopped = False

    def terminate(self) -> float:
        """End it as an operator does; give the seconds that it took. It must end well."""
        assert self.process is not None
        begin_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        assert status == 0, f"{self.name} ended with {status}"
        return time.monotonic() - begin_s

    def stop(self) -> None:
        """Stop it in the middle of whatever it does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.stopped = False

    def rss_bytes(self) -> int:
        """Memory that it holds."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Cluster:
    """Makes services, and ends those that are still there at the end. Times are in a service's own flags."""

    def __init__(self, folder: Path, hosts: Hosts | None = None) -> None:
        self.folder = folder
        self.hosts = hosts
        self.services: dict[str, Service] = {}
        empty = {"XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "ZCAT_CONFIG": "", "ZCAT_BROKERS": ""}
        ours = str(Path(zcat.__file__).parents[1])  # what is tested is what was imported here
        self._environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": ours, **empty}
        self.checker = Checker(folder / "readers.log", self._environment)

    def close(self) -> None:
        self.checker.close()
        for service in self.services.values():
            if service.is_alive():
                service.kill()

    def judge(self) -> None:
        """Close, and assert that no client saw anything wrong, and that no log shows a bug."""
        wrong = self.checker.wrong()
        self.close()
        bugs = self.logs_forbidden()
        assert not wrong, "\n".join(wrong[:10])
        assert not bugs, "\n".join(bugs[:10])

    def start(self, *services: Service) -> None:
        """Start several at the same time; return when all are ready."""
        for service in services:
            service.launch()
        for service in services:
            service.wait()

    def broker(self, name: str, *peers: str, at: Host | None = None, flags: Sequence[str] = ()) -> Service:
        """Make a broker with a place of its own, which it has in all its lives."""
        host = at or self._host(name)
        port = 5560 if host.prefix else free_port()
        endpoint = f"tcp://{host.address}:{port}"
        others = [word for peer in peers for word in ("--peer", peer)]
        return self._made(name, host, ["broker", "--listen", endpoint, *others, *flags])

    def publisher(
        self, name: str, root: str, folder: Path, brokers: Sequence[str], flags: Sequence[str] = ()
    ) -> Service:
        host = self._host(name)
        named = [word for broker in brokers for word in ("--broker", broker)]
        # what goes over ipc passes no cable and no door
        place = ["--listen", f"tcp://{host.address}:0", "--set", "ipc=false"]
        place += ["--state", str(self.folder / f"state-{name}")]
        return self._made(name, host, ["publish", root, str(folder), *place, *named, *flags])

    def subscriber(
        self, name: str, roots: Sequence[str], brokers: Sequence[str], flags: Sequence[str] = ()
    ) -> Service:
        host = self._host(name)
        named = [word for broker in brokers for word in ("--broker", broker)]
        named += [word for root in roots for word in ("--follow", root)]
        http = f"{host.address}:{8000 if host.prefix else free_port()}"
        space = ["--cache", str(self.folder / f"cache-{name}"), "--set", "reserve_bytes=0"]
        return self._made(name, host, ["subscribe", "--http", http, *space, *named, *flags])

    def read_over_http(self, subscriber: Service, roots: Sequence[str], seed: int = 0, name: str = "") -> None:
        prefix = self.hosts.router_prefix if self.hosts else ()
        config = {"kind": "http", "where": [http_of(subscriber)], "roots": list(roots), "seed": seed}
        self.checker.add(name or f"reader-{subscriber.name}", config, prefix)

    def read_joined(self, name: str, roots: Sequence[str], brokers: Sequence[str], seed: int = 0) -> None:
        config = {"kind": "join", "where": list(brokers), "roots": list(roots), "seed": seed}
        self.checker.add(name, config, self._host(name).prefix)

    def logs_forbidden(self) -> list[str]:
        """Lines of any log that show a bug."""
        return [
            f"{path.name}: {line}"
            for path in sorted(self.folder.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()
            if any(word in line for word in FORBIDDEN)
        ]

    def inside(self, work: Callable[[], T]) -> T:
        """Do something where every host can be reached."""
        return self.hosts.inside(work) if self.hosts else work()

    def ask(self, endpoint: str, message: Message) -> Any:
        """Ask a broker or publisher directly."""
        return self.inside(lambda: ask(endpoint, message))

    def listed(self, broker: Service) -> dict[str, str]:
        """The states of all roots, as one broker tells."""
        answer = self.ask(endpoint_of(broker), Lookup())
        claims = [listed for listed in unpaged(ListedClaim, answer.pages)]
        return {listed.claim.root: listed.state for listed in claims}

    def claim(self, broker: Service, root: str) -> Claim:
        answer = self.ask(endpoint_of(broker), Lookup(root))
        (listed,) = unpaged(ListedClaim, answer.pages)
        return listed.claim

    def neighbours_count(self, broker: Service) -> int:
        return len(self.ask(endpoint_of(broker), Ping()).neighbours)

    def health(self, subscriber: Service) -> dict[str, Any]:
        return self.get(subscriber, "/api/health")

    def get(self, subscriber: Service, target: str) -> Any:
        """Ask a subscriber over HTTP, on a connection of its own."""
        return self.inside(lambda: get_json(http_of(subscriber) + target))

    def _host(self, name: str) -> Host:
        return self.hosts.all[name] if self.hosts else LOOPBACK

    def _made(self, name: str, host: Host, arguments: list[str]) -> Service:
        command = [sys.executable, "-m", "zcat", *arguments, "--json", "--log-level", "info"]
        service = Service(name, host, command, self.folder / f"{name}.log", self._environment)
        self.services[name] = service
        return service


def endpoint_of(broker: Service) -> str:
    """Of a broker's directory, as it was asked for."""
    return broker.command[broker.command.index("--listen") + 1]


def http_of(subscriber: Service) -> str:
    return "http://" + subscriber.command[subscriber.command.index("--http") + 1]


def ask(endpoint: str, message: Message, wait_ms: int = ASK_MS) -> Any:
    """Ask as a plain REQ."""
    with zmq.Context() as context, context.socket(zmq.REQ) as asker:
        asker.set(zmq.RCVTIMEO, wait_ms)
        asker.set(zmq.LINGER, 0)
        asker.connect(endpoint)
        asker.send_multipart(encode(message))
        return decode(asker.recv_multipart()).message


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def status_of(url: str) -> int:
    """Read all of an answer, and give its status."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def limited(name: str, value: int) -> tuple[str, ...]:
    """Give a prefix that runs a command with a limit of the system, such as ``NOFILE``."""
    script = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_{name}, ({value}, {value}));"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return sys.executable, "-c", script


def free_port() -> int:
    """A port that nobody has, below those that the system gives to whoever connects or does not care."""
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(
    look: Callable[[], T], within_s: float = PATIENCE_S, retried: tuple[type[Exception], ...] = ()
) -> T:
    """Look until there is something true; give it."""
    until_s = time.monotonic() + within_s
    never = threading.Event()
    while True:
        try:
            found = look()
            if found:
                return found
        except retried:
            if time.monotonic() >= until_s:
                raise
        assert time.monotonic() < until_s, f"nothing came of it within {within_s:g} s"
        never.wait(LOOK_S)


def seconds_until(look: Callable[[], object], within_s: float = PATIENCE_S) -> float:
    """How long it takes until there is something true."""
    begin_s = time.monotonic()
    eventually(look, within_s)
    return time.monotonic() - begin_s
