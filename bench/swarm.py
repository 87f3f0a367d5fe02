"""How many copies leave a publisher, and how long does it take, when many read the same dataset at once?

1, 4 and 16 subscribers, each a process, copy one dataset into empty caches at the same moment: with the swarm, and
with it switched off. Where the system lets us make network namespaces (root, Linux), each process has a host of
its own with links of a limited rate; else all are on the loopback and share the processors, which then decide.
"""

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import datasets, report
from zcat.config import BrokerConfig, PublisherConfig, SubscriberConfig

ROOT = "bench"
WAIT_S = 600.0


class Loopback:
    """All processes on this host."""

    name = "loopback"

    def address(self, number: int) -> str:
        """Give the address of a process."""
        return "127.0.0.1"

    def command(self, number: int) -> list[str]:
        """Give what stands before the command of a process."""
        return []


class Namespaces:
    """A host for each process: a network namespace with one link to a common bridge, limited both ways."""

    def __init__(self, opened: ExitStack, count: int, mbit: int) -> None:
        """Make them; ``opened`` removes them.

        Raises:
            OSError, subprocess.CalledProcessError: this machine does not let us.
        """
        self.name = f"links of {mbit} Mbit/s"
        self._tag = f"zb{time.monotonic_ns() // 1000 % 100_000}"
        bridge = f"{self._tag}br"
        _ip("link", "add", bridge, "type", "bridge")
        opened.callback(_ip, "link", "del", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(count):
            space, ours, theirs = f"{self._tag}n{number}", f"{self._tag}a{number}", f"{self._tag}b{number}"
            _ip("netns", "add", space)
            opened.callback(_ip, "netns", "del", space)
            _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
            _ip("link", "set", ours, "master", bridge, "up")
            _ip("-n", space, "addr", "add", f"{self.address(number)}/24", "dev", theirs)
            _ip("-n", space, "link", "set", theirs, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            limit = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms"]
            _run(["tc", "qdisc", "add", "dev", ours, *limit])
            _run(["tc", "-n", space, "qdisc", "add", "dev", theirs, *limit])

    def address(self, number: int) -> str:
        """Give the address of a process."""
        return f"10.213.77.{number + 1}"

    def command(self, number: int) -> list[str]:
        """Give what stands before the command of a process."""
        return ["ip", "netns", "exec", f"{self._tag}n{number}"]


class Worker:
    """A process that is told things line by line and answers line by line."""

    def __init__(
        self, opened: ExitStack, network: Loopback | Namespaces, number: int, role: dict[str, Any]
    ) -> None:
        command = [*network.command(number), sys.executable, "-m", "bench.swarm", "--role", json.dumps(role)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opened.callback(self._end)

    def tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(
    network: Loopback | Namespaces, path: Path, room: Path, count: int, is_swarm: bool
) -> dict[str, float]:
    """Let ``count`` subscribers copy a dataset at once; give seconds to the last, and the publisher's copies."""
    total = sum(datasets.chunk_sizes(path))
    with ExitStack() as opened:
        folder = Path(tempfile.mkdtemp(dir=room))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        origin_role = {"folder": str(path.parent), "state": str(folder / "state"), "track": is_swarm}
        origin = Worker(opened, network, 0, {"is": "origin", "at": network.address(0), **origin_role})
        brokers = origin.hear()
        readers = []
        for number in range(1, count + 1):
            role = {"is": "reader", "at": network.address(number), "brokers": brokers, "share": is_swarm}
            role |= {"cache": str(folder / f"cache{number}"), "path": path.name}
            readers.append(Worker(opened, network, number, role))
        for reader in readers:
            reader.hear()
        for reader in readers:
            reader.tell("go")
        took = [reader.hear() for reader in readers]
        origin.tell("stats")
        stats = origin.hear()
        return {
            "last s": max(one["took_s"] for one in took),
            "median s": sorted(one["took_s"] for one in took)[len(took) // 2],
            "copies": stats["chunks_bytes"] / total,
            "from peers": sum(one["peers"]["taken"]["nbytes"] for one in took) / total,
            "asked twice": sum(one["peers"]["taken"]["seconds"] for one in took),
        }


def play(role: dict[str, Any]) -> None:
    """Be one of the processes."""
    if role["is"] == "origin":
        play_origin(role)
    else:
        play_reader(role)


def play_origin(role: dict[str, Any]) -> None:
    logging.disable()  # that others than this host can reach it is what is wanted
    from zcat.services.broker import Broker
    from zcat.services.publisher import Publisher

    listen = f"tcp://{role['at']}:0"
    broker = Broker(BrokerConfig(listen=listen))
    broker.start()
    brokers = (broker.endpoints.listen,)
    config = PublisherConfig(ROOT, role["folder"], role["state"], brokers, listen, track=role["track"])
    publisher = Publisher(config)
    publisher.start()
    print(json.dumps(brokers), flush=True)
    for _ in sys.stdin:
        print(json.dumps(publisher.stats()), flush=True)
    publisher.close()
    broker.close()


def play_reader(role: dict[str, Any]) -> None:
    logging.disable()
    from zcat.services.subscriber import Subscriber

    brokers, listen = tuple(role["brokers"]), f"tcp://{role['at']}:0"
    config = SubscriberConfig(
        brokers,
        cache=role["cache"],
        reserve_bytes=0,
        share=role["share"],
        share_listen=listen,
        # a sign of life waits behind the chunks on a link that is full, and sixteen share the publisher's
        quiet_after_s=WAIT_S,
        fetch_timeout_s=WAIT_S,
    )
    subscriber = Subscriber(config)
    subscriber.start()
    subscriber.follow(ROOT, WAIT_S)
    subscriber.on_version(ROOT, role["path"], lambda dataset: dataset.info)
    print("true", flush=True)
    sys.stdin.readline()
    begun_s = time.perf_counter()
    subscriber.on_version(ROOT, role["path"], lambda dataset: dataset.fetch())
    took_s = time.perf_counter() - begun_s
    print(json.dumps({"took_s": took_s, "peers": subscriber.health()["peers"]}), flush=True)
    sys.stdin.read()  # it goes on giving to others
    subscriber.close()


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--planes", type=int, help="of 4 MiB, 1.7 MB compressed (default: 96; quick: 24)")
    parser.add_argument("--readers", default="1,4,16", help="how many at a time (default: 1,4,16)")
    parser.add_argument("--mbit", type=int, default=100, help="of each link, where there are namespaces")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, even where the machine can")
    parser.add_argument("--role", help="for its own processes")
    args = parser.parse_args()
    if args.role:
        play(json.loads(args.role))
        return
    counts = [int(count) for count in args.readers.split(",")]
    with ExitStack() as opened:
        network = Loopback() if args.loopback else made_network(opened, max(counts) + 1, args.mbit)
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        data, room = folder / "data", folder / "room"
        for each in (data, room):
            each.mkdir(parents=True, exist_ok=True)
        path = datasets.cube(data, args.planes or (24 if args.quick else 96))
        total = sum(datasets.chunk_sizes(path))
        ideal_s = total * 8e-6 / args.mbit
        rows = []
        for count in counts:
            for is_swarm in (True, False):
                name = f"{count} readers, {'swarm' if is_swarm else 'publisher alone'}"
                outcome = measure(network, path, room, count, is_swarm)
                report.progress(f"{name}: {outcome}")
                row = report.Row(name, "s", [outcome.pop("last s")], dict(outcome))
                if isinstance(network, Namespaces):
                    row.notes["last, of one copy over one link"] = row.median / ideal_s
                rows.append(row)
        title = (
            f"{total / 1e6:.0f} MB (compressed) copied by several at once, {network.name}: when the last is done"
        )
        report.show(title, rows, {}, args.json)


def made_network(opened: ExitStack, count: int, mbit: int) -> Loopback | Namespaces:
    """Make namespaces if this machine lets us."""
    with ExitStack() as made:
        try:
            network = Namespaces(made, count, mbit)
        except (OSError, subprocess.CalledProcessError) as error:
            report.progress(f"no network namespaces, so all are on the loopback: {error}")
            return Loopback()
        opened.push(made.pop_all())
        return network


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
