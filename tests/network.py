"""A whole network in one process: brokers, publishers and subscribers that share a context and a folder."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from zcat.config import BrokerConfig, PublisherConfig, SubscriberConfig
from zcat.errors import AddressInUse, NotFound, ZcatError
from zcat.limits import MIB
from zcat.model.selection import parse_key
from zcat.net.sockets import make_context
from zcat.services.broker import Broker
from zcat.services.publisher import Publisher
from zcat.services.subscriber import Subscriber

PATIENCE_S = 30.0
"""How long anything may take on a machine that is busy with something else; nothing waits that long by itself."""

LOOK_S = 0.01


class Network:
    """Makes services, and closes those that are still open at the end, the latest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context()
        self.brokers: list[Broker] = []
        self._opened = ExitStack()
        self._opened.callback(self.context.destroy, linger=0)
        self._threads = self._opened.enter_context(ThreadPoolExecutor(4))

    def close(self) -> None:
        self._opened.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Of all brokers that were started without an endpoint of their own."""
        return tuple(broker.endpoints.listen for broker in self.brokers)

    def broker(self, **changes: Any) -> Broker:
        broker = self._started(Broker(BrokerConfig(**{"listen": "tcp://127.0.0.1:0", **changes}), self.context))
        self.brokers.append(broker)
        return broker

    def broker_again(self, closed: Broker) -> Broker:
        """Start another broker at the place of one that was closed, as soon as the place is free."""
        config = BrokerConfig(listen=closed.endpoints.listen)
        broker = eventually(lambda: Broker(config, self.context), retried=AddressInUse)
        self.brokers[self.brokers.index(closed)] = broker
        return self._started(broker)

    def publisher(self, root: str, path: Path, state: str | None = None, **changes: Any) -> Publisher:
        defaults = {"root": root, "path": str(path), "state": str(self.folder / (state or f"state-{root}"))}
        limits = {"brokers": self.endpoints, "settle_s": 0.02, "quota_bytes": 256 * MIB, "reserve_bytes": 0}
        return self._started(Publisher(PublisherConfig(**{**defaults, **limits, **changes}), self.context))

    def subscriber(self, name: str = "a", **changes: Any) -> Subscriber:
        defaults = {"cache": str(self.folder / f"cache-{name}"), "brokers": self.endpoints, "reserve_bytes": 0}
        defaults["prefetch_bytes"] = 0  # what is fetched is counted
        return self._started(Subscriber(SubscriberConfig(**{**defaults, **changes}), self.context))

    def in_background(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have another thread do something; its result must be asked for before the end."""
        return self._threads.submit(work)

    def _started(self, service: Any) -> Any:
        self._opened.callback(service.close)
        service.start()
        return service


def eventually(look: Callable[[], Any], retried: type[ZcatError] = NotFound, within_s: float = PATIENCE_S) -> Any:
    """Look until there is something true; give it. An error of the class ``retried`` counts as false."""
    until_s = time.monotonic() + within_s
    never = threading.Event()
    while True:
        with suppress(retried):
            found = look()
            if found:
                return found
        assert time.monotonic() < until_s, f"nothing came of it within {within_s:g} s"
        never.wait(LOOK_S)


def read(subscriber: Subscriber, root: str, path: str, key: Any = (), timeout_s: float | None = None) -> Any:
    """Read a part of an array, or all of a byte frame."""

    def work(dataset: Any) -> Any:
        array = dataset.info.geometry.array
        if array is None:
            return bytes(dataset.read_bytes(0, dataset.info.geometry.nbytes))
        request = parse_key(key, array.shape)
        return request.finish(dataset.read(request.what))

    return subscriber.on_version(root, path, work, timeout_s)


def paths(subscriber: Subscriber, root: str, under: str = "") -> list[str]:
    return [entry.path for entry in subscriber.entries(root, under)]


def is_synced(subscriber: Subscriber, root: str) -> bool:
    return any(view.synced for view in subscriber.roots() if view.name == root and view.followed)


def fetched(subscriber: Subscriber) -> int:
    """Chunks that came over the network since the start."""
    return int(subscriber.health()["fetched"]["chunks"])


def write_array(path: Path, values: Any, **options: Any) -> np.ndarray:
    """Put a whole array in its place at once, and give it."""
    values = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    made = blosc2.asarray(values, urlpath=str(aside), mode="w", **options)
    del made
    aside.rename(path)
    return values


def write_frame(path: Path, content: bytes, chunksize: int) -> bytes:
    """Put a byte frame in its place at once, and give its content."""
    aside = path.with_name(f".{path.name}")
    made = blosc2.SChunk(chunksize=chunksize, data=content, urlpath=str(aside), mode="w", contiguous=True)
    del made
    aside.rename(path)
    return content


def write_file(path: Path, content: bytes) -> bytes:
    """Put a plain file in its place at once, and give its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(content)
    aside.rename(path)
    return content
