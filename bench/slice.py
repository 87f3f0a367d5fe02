"""How long does a slice take, cached and not, beside local Blosc2, a bare HTTP server and caterva2?

Publisher, broker, subscriber and HTTP server are one process, as ``zcat up`` runs them; the client is another.
Rows in milliseconds are medians of many requests of one client; rows per second are those of 32 clients.
"""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import blosc2

import zcat
from bench import datasets, load, peers, report
from bench.replicate import started
from zcat.config import BrokerConfig, HttpConfig, PublisherConfig, SubscriberConfig

SELECTIONS = {
    "64x64": "100, 500:564, 300:364",
    "row": "100, 500, :",
    "column": ":, 500, 300",
    "100 MB": "20:45",
}
KEYS: dict[str, tuple[Any, ...]] = {
    "64x64": (100, slice(500, 564), slice(300, 364)),
    "row": (100, 500),
    "column": (slice(None), 500, 300),
    "100 MB": (slice(20, 45),),
}
WINDOW = "64x64"
Measure = Callable[[list[str], int, float], float]
REPEATS = {"64x64": 200, "row": 200, "column": 10, "100 MB": 5}


def serve(pipe: Connection, folder: str, room: str) -> None:
    """Run everything in this process; then whatever the pipe asks."""
    from zcat.http.app import make_app
    from zcat.http.server import HttpServer
    from zcat.services.broker import Broker
    from zcat.services.publisher import Publisher
    from zcat.services.subscriber import Subscriber

    broker = Broker(BrokerConfig(listen="tcp://127.0.0.1:0"))
    broker.start()
    brokers = (broker.endpoints.listen,)
    publisher = Publisher(PublisherConfig(root="bench", path=folder, state=f"{room}/publisher", brokers=brokers))
    publisher.start()
    subscriber = Subscriber(SubscriberConfig(brokers=brokers, cache=f"{room}/cache", reserve_bytes=0))
    subscriber.start()
    subscriber.follow("bench")
    server = HttpServer(make_app(subscriber), HttpConfig(port=0))
    server.start()
    pipe.send((server.url, brokers))
    pipe.recv()


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """Give the median time of one call."""
    times = []
    for _ in range(repeats):
        begun_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun_s)
    return statistics.median(times) * 1e3


class Cold:
    """An embedded subscriber with an empty cache for each measurement."""

    def __init__(self, brokers: tuple[str, ...], name: str, room: Path) -> None:
        self._brokers, self._name, self._room = brokers, name, room

    def __call__(self, key: tuple[Any, ...]) -> float:
        """Read once, with nothing cached but the catalogue; give milliseconds."""
        cache = tempfile.mkdtemp(dir=self._room)
        with zcat.join(self._brokers, cache=cache, follow=["bench"]) as client:
            dataset = client["bench/" + self._name]
            took_ms = median_ms(lambda: dataset[key], 1)
        shutil.rmtree(cache)
        return took_ms


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--caterva2", metavar="PYTHON", help="python of an environment with caterva2[server]")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load by 32 clients in each round")
    args = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(args.folder or opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-bench-")))
        data, room = folder / "data", Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        data.mkdir(parents=True, exist_ok=True)
        path = datasets.cube(data, 256)
        pipe = started(opened, serve, str(data), str(room))
        url, brokers = pipe.recv()
        _, hello = peers.hello(opened, room)
        local = blosc2.open(str(path), mode="r", mmap_mode="r")
        joined = opened.enter_context(zcat.join(brokers, follow=["bench"]))
        client = opened.enter_context(zcat.connect(url))
        address = f"bench/{path.name}"
        there, here = client[address], joined[address]
        for dataset in (there, here):
            dataset[:]  # all of it is cached from here on
        fetch = f"{url}/api/fetch/{address}"
        theirs = None
        if args.caterva2:
            # resolved no further than its folder: the interpreter itself is often a link
            environment = Path(args.caterva2).absolute().parent.parent
            server = peers.caterva2(opened, peers.Data(data, path, room), environment)
            theirs = server.targets["info"][0].url.replace("/info/", "/fetch/")
        else:
            print("caterva2 is left out: name the python of its environment by --caterva2")

        one: dict[str, Callable[[], float]] = {}
        for name, key in KEYS.items():
            count, text = REPEATS[name], SELECTIONS[name].replace(" ", "")
            one[f"{name}: local blosc2"] = partial(median_ms, partial(local.__getitem__, key), count)
            one[f"{name}: join"] = partial(median_ms, partial(here.__getitem__, key), count)
            one[f"{name}: connect"] = partial(median_ms, partial(there.__getitem__, key), count)
            one[f"{name}: HTTP raw"] = partial(p50, f"{fetch}?slice_={text}&fmt=raw", 1, 1.0)
            one[f"{name}: HTTP cframe"] = partial(p50, f"{fetch}?slice_={text}", 1, 1.0)
            if theirs:
                one[f"{name}: caterva2 cframe"] = partial(p50, f"{theirs}?slice_={text}", 1, 1.0)
            if name == WINDOW:
                one |= _anywhere(p50, f"{name}: ", fetch, theirs)
            one[f"{name}: join, cold"] = partial(Cold(brokers, path.name, room), key)
        one["hello, 16 KiB"] = partial(p50, hello, 1, 1.0)
        rows = report.rounds(one, "ms", args.rounds)
        for name, text in SELECTIONS.items():
            shown = [row for row in rows if row.name.startswith((f"{name}:", "hello"))]
            against = {
                "of local": f"{name}: local blosc2",
                "of caterva2": f"{name}: caterva2 cframe",
                "of hello": "hello, 16 KiB",
            }
            report.show(f"Slice {text} of 256 x 1024 x 1024 float32", shown, against, args.json)

        text = SELECTIONS["64x64"].replace(" ", "")
        many: dict[str, Callable[[], float]] = {
            "hello, 16 KiB": partial(per_s, hello, args.seconds),
            "HTTP raw": partial(per_s, f"{fetch}?slice_={text}&fmt=raw", args.seconds),
            "HTTP cframe": partial(per_s, f"{fetch}?slice_={text}", args.seconds),
        }
        if theirs:
            many["caterva2 cframe"] = partial(per_s, f"{theirs}?slice_={text}", args.seconds)
        many |= _anywhere(lambda urls, *_: per_s(urls, args.seconds), "", fetch, theirs)
        loads = report.rounds(many, "requests/s", args.rounds)
        report.show(
            "64x64, 32 clients", loads, {"of hello": "hello, 16 KiB", "of caterva2": "caterva2 cframe"}, args.json
        )


def _anywhere(measure: Measure, prefix: str, fetch: str, theirs: str | None) -> dict[str, Callable[[], float]]:
    """Measure windows of which none is asked for twice soon: what was decoded for one is no use to others."""
    rng = random.Random(0)
    texts = [
        f"{plane},{y}:{y + 64},{x}:{x + 64}"
        for plane, y, x in ((rng.randrange(256), rng.randrange(960), rng.randrange(960)) for _ in range(5000))
    ]
    bases = {"HTTP raw": (fetch, "&fmt=raw"), "HTTP cframe": (fetch, ""), "caterva2 cframe": (theirs, "")}
    return {
        f"{prefix}{name}, anywhere": partial(measure, [f"{base}?slice_={text}{rest}" for text in texts], 1, 1.0)
        for name, (base, rest) in bases.items()
        if base is not None
    }


def p50(urls: str | list[str], connections: int, seconds: float) -> float:
    """Give the median time of an answer, in milliseconds."""
    return load.load(urls, connections, seconds).p50_ms


def per_s(urls: str | list[str], seconds: float) -> float:
    """Give the answers per second that 32 clients get together."""
    return load.load(urls, 32, seconds).requests_per_s


if __name__ == "__main__":
    main()
