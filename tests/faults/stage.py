"""Where schedules are played: three brokers, two publishers, two subscribers, their readers, in one of two places.

Either each has a host of its own, with cables that can be cut; or all are on the loopback interface, brokers and
publishers behind doors that can be shut in many ways.
"""

import contextlib
import time
from pathlib import Path

from cluster import Cluster, Service, eventually, free_port
from hosts import Hosts
from proxy import FAIR, Door, Weather
from schedule import BROKERS, EVERYBODY, GRACE_S, PUBLISHERS, SUBSCRIBERS, Fault, Schedule
from writer import Writer

ROOTS = ("alpha", "beta")
FLAGS = ("--set", "lease_s=6", "--set", "renew_s=1")
WEATHERS = {
    "delay": Weather(delay_s=0.15, jitter_s=0.15),
    "throttle": Weather(bytes_per_s=200_000),
    "trickle": Weather(piece_bytes=53),
    "hold": Weather(holds=True),
    "swallow": Weather(swallows=True),
    "resets": Weather(reset_chance=0.05),
}


class Stage:
    """Plays one schedule. `close` it."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.schedule = schedule
        self._opened = contextlib.ExitStack()
        self._hosts: Hosts | None = None
        self._doors: dict[str, Door] = {}
        if schedule.has_cables:
            self._hosts = Hosts((*EVERYBODY, "joined"))
            self._opened.callback(self._hosts.close)
        self.cluster = Cluster(folder, self._hosts)
        self._opened.callback(self.cluster.close)
        self.writers = [Writer(root, folder / root, schedule.seed + n) for n, root in enumerate(ROOTS)]
        for writer in self.writers:
            self._opened.callback(writer.stop)
        self._waiting: set[str] = set()
        self._began_s = self._all_ready_s = 0.0
        self._build()

    def close(self) -> None:
        self._opened.close()

    def play(self) -> None:
        """Do all faults, and undo them; return when everybody runs again and all cables are whole."""
        for writer in self.writers:
            writer.start()
        acts = [(fault.begin_s, self._do, fault) for fault in self.schedule.faults]
        acts += [(fault.end_s, self._undo, fault) for fault in self.schedule.faults]
        self._began_s = time.monotonic()
        for at_s, act, fault in sorted(acts, key=lambda each: each[0]):
            time.sleep(max(0.0, self._began_s + at_s - time.monotonic()))
            act(fault)
        for name in sorted(self._waiting):
            self.cluster.services[name].wait()
        self._all_ready_s = time.monotonic() - self._began_s

    def is_trouble(self, begin_s: float, end_s: float) -> bool:
        """Say whether a read of that time, in monotonic seconds, may have failed."""
        begin_s, end_s = begin_s - self._began_s, end_s - self._began_s
        # on a machine that is busy with something else, a new life may take longer to begin than the faults do
        late_s = self._all_ready_s + GRACE_S
        spans = self.schedule.troubles()
        return any(begin_s <= max(until_s, late_s) and since_s <= end_s for since_s, until_s in spans)

    # -- private ---------------------------------------------------------------------------------------

    def _build(self) -> None:
        seed = self.schedule.seed
        places: list[str] = []
        for number, name in enumerate(BROKERS):
            peers = places[-1:]
            places.append(self._broker(name, number, peers))
        for number, name in enumerate(PUBLISHERS):
            self._publisher(name, number, [places[number]])
        for number, name in enumerate(SUBSCRIBERS):
            self.cluster.subscriber(name, ROOTS, [places[-number]])
        self.cluster.start(*self.cluster.services.values())
        for name in SUBSCRIBERS:
            self.cluster.read_over_http(self.cluster.services[name], ROOTS, seed)
        self.cluster.read_joined("joined", ROOTS, places[1:2], seed)
        self.cluster.checker.wait()
        brokers = [self.cluster.services[name] for name in BROKERS]
        eventually(lambda: all(self.cluster.neighbours_count(broker) == 2 for broker in brokers))

    def _broker(self, name: str, number: int, peers: list[str]) -> str:
        """Make a broker; give the endpoint by which others reach it."""
        if self._hosts is not None:
            broker = self.cluster.broker(name, *peers)
            return broker.command[broker.command.index("--listen") + 1]
        ways = {way: free_port() for way in ("ingress", "egress", "mesh")}
        flags = [word for way, port in ways.items() for word in ("--set", f'{way}="tcp://127.0.0.1:{port}"')]
        address = f"127.0.1.{number + 1}"
        broker = self.cluster.broker(name, *peers, flags=[*flags, "--advertise", address])
        port = int(broker.command[broker.command.index("--listen") + 1].rpartition(":")[2])
        self._door(name, address, [port, *ways.values()])
        return f"tcp://{address}:{port}"

    def _publisher(self, name: str, number: int, brokers: list[str]) -> None:
        writer, flags = self.writers[number], list(FLAGS)
        if self._hosts is None:
            address = f"127.0.2.{number + 1}"
            flags += ["--advertise", address]
        publisher = self.cluster.publisher(name, writer.root, writer.folder, brokers, flags)
        if self._hosts is None:
            port = free_port()
            publisher.command[publisher.command.index("--listen") + 1] = f"tcp://127.0.0.1:{port}"
            self._door(name, address, [port])

    def _door(self, name: str, address: str, ports: list[int]) -> None:
        door = Door(address, "127.0.0.1", ports, self.schedule.seed)
        self._doors[name] = self._opened.enter_context(door)

    def _do(self, fault: Fault) -> None:
        services = [self.cluster.services[name] for name in fault.whom]
        if fault.kind == "kill":
            for service in services:
                self._ready(service)
                service.kill()
        elif fault.kind == "restart":
            for service in services:
                self._ready(service)
                service.terminate()
        elif fault.kind == "stop":
            services[0].stop()
        elif fault.kind in ("cut", "cut-one-way"):
            assert self._hosts
            self._hosts.cut(*fault.whom, both_ways=fault.kind == "cut")
        elif fault.kind == "part":
            assert self._hosts
            self._hosts.part(fault.whom)
        elif fault.kind == "cut-all":
            self._doors[fault.whom[0]].cut()
        elif fault.kind == "half-close":
            self._doors[fault.whom[0]].half_close()
        else:
            self._doors[fault.whom[0]].weather = WEATHERS[fault.kind]

    def _undo(self, fault: Fault) -> None:
        if fault.kind in ("kill", "restart"):
            for name in fault.whom:
                self.cluster.services[name].launch()
                self._waiting.add(name)
        elif fault.kind == "stop":
            self.cluster.services[fault.whom[0]].go_on()
        elif self._hosts is not None:
            others = [each for each in self.schedule.faults if each.begin_s < fault.end_s < each.end_s]
            self._hosts.heal()
            for other in others:
                if other.kind in ("cut", "cut-one-way", "part"):
                    self._do(other)
        elif fault.whom[0] in self._doors:
            self._doors[fault.whom[0]].weather = FAIR

    def _ready(self, service: Service) -> None:
        """A service that was launched again is at least up before the next thing is done to it."""
        if service.name in self._waiting:
            service.wait()
            self._waiting.discard(service.name)
