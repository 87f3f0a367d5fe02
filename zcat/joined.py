"""A subscriber inside the reader's own process: the same roots and datasets as over HTTP, without the HTTP."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

from zcat.client.backend import Address, Asked, Body, Listed, PreviewKey, RootInfo
from zcat.client.client import Client
from zcat.client.preview import Preview
from zcat.config import DEFAULT_BROKER, HttpConfig, SubscriberConfig
from zcat.errors import DatasetUnknown, Stale
from zcat.limits import MIB
from zcat.model.dataset import DatasetInfo, Entry, Kind
from zcat.model.selection import Points, Selection, parse_key
from zcat.services.dataset import OpenDataset
from zcat.services.frame_view import FrameView
from zcat.services.preview import PreviewAsk, PreviewLimits, plan_preview, read_preview
from zcat.services.subscriber import Subscriber
from zcat.services.survey import as_json

T = TypeVar("T")

_PIECE_BYTES = 4 * MIB


def join(
    brokers: str | Sequence[str] = DEFAULT_BROKER, cache: str | None = None, follow: str | Sequence[str] = ()
) -> Client:
    """Make this process a subscriber, and return a client of it.

    Args:
        brokers: endpoints of brokers' directories; the first that answers is used.
        cache: folder for the chunks that are read; only one process may use it. By default a temporary one, which
            is removed when the client is closed.
        follow: roots to follow at once, ``name`` or ``name@owner``; others by ``client.follow``.

    Raises:
        RootUnknown, RootContested: a root of ``follow`` cannot be followed.
        Timeout: its catalogue did not come in time.
        CacheInUse: another process uses the folder.

    Example:
        >>> with zcat.join("tcp://broker:5560", follow=["weather"]) as client:
        ...     print(client["weather/2024/wind.b2nd"][0, 10:74, 20:84])
    """
    endpoints = (brokers,) if isinstance(brokers, str) else tuple(brokers)
    names = (follow,) if isinstance(follow, str) else tuple(follow)
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="zcat-")) if cache is None else cache
        subscriber = Subscriber(SubscriberConfig(brokers=endpoints, cache=folder))
        opened.callback(subscriber.close)
        subscriber.start()
        for name in names:
            subscriber.follow(name)
        return Client(JoinedBackend(subscriber, opened.pop_all()))


class JoinedBackend:
    """Reads from a subscriber of this process."""

    def __init__(self, subscriber: Subscriber, opened: contextlib.ExitStack | None = None) -> None:
        """Take a started subscriber, and what to close with it."""
        self._subscriber = subscriber
        self._opened = opened or contextlib.ExitStack()
        config = HttpConfig()  # whose readers get the same
        self._preview_limits = PreviewLimits(config.preview_fetch_bytes, config.preview_decode_bytes)

    @property
    def url(self) -> str:
        """For people only."""
        return "zcat:joined"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a subscriber cannot be pickled: open datasets that travel with zcat.connect(URL)")

    def close(self) -> None:
        """Close the subscriber, and remove the cache if it is a temporary one."""
        self._opened.close()

    def roots(self) -> list[RootInfo]:
        """Return all roots that are known, by name."""
        views = sorted(self._subscriber.roots(), key=lambda view: (view.name, view.owner or ""))
        return [
            RootInfo(
                name=view.name,
                owner=view.owner,
                state=view.state,
                followed=view.followed,
                contested=view.contested,
                datasets=view.datasets,
                synced=view.synced,
            )
            for view in views
        ]

    def follow(self, root: str) -> None:
        """Begin to follow a root."""
        self._subscriber.follow(root)

    def unfollow(self, root: str) -> None:
        """Stop following a root."""
        self._subscriber.unfollow(root)

    def health(self) -> dict[str, Any]:
        """Say how the subscriber is."""
        return self._subscriber.health()

    def network(self, what: str, is_asked: bool = True) -> list[dict[str, Any]]:
        """Tell how the ``brokers`` or the ``peers`` are."""
        survey = self._subscriber.survey
        views = survey.brokers() if what == "brokers" else survey.peers(is_asked)
        return [as_json(view) for view in views]

    def listing(self, root: str, under: str) -> list[Listed]:
        """Return the datasets of a root, or those under a folder, or one dataset."""
        entries = [entry for entry in self._subscriber.entries(root, under) if entry.kind is not Kind.GROUP]
        if len(entries) > 1:  # an HDF5 file is a dataset, and a folder that does not list itself
            entries = [entry for entry in entries if entry.path != under]
        return [_listed(entry) for entry in entries]

    def info(self, address: Address) -> DatasetInfo:
        """Return what is known of the newest version."""
        info = self._subscriber.on_version(*address, lambda dataset: dataset.info)
        if info.entry.kind is Kind.GROUP:
            raise DatasetUnknown(f"{address} is a folder; wanted one of the datasets in it")
        return info

    def attributes(self, address: Address) -> dict[str, Any]:
        """Return the attributes of a dataset, a group or a root; none of a folder."""
        root, path = address
        if not path:
            path = next((entry.path for entry in self._subscriber.entries(root) if entry.is_root), "")
        if not path:
            return {}
        try:
            return self._subscriber.on_version(root, path, lambda dataset: dataset.info.attributes)
        except DatasetUnknown:
            if not self._subscriber.entries(*address):
                raise
            return {}

    def read(self, asked: Asked, what: Selection | Points, field: str | None) -> npt.NDArray[Any]:
        """Read items of an array, all of one version."""
        block = self._on(asked, lambda dataset: dataset.read(what))
        return block if field is None else block[field]

    def preview(self, asked: Asked, what: PreviewKey) -> Preview:
        """Read a part of an array made small."""

        def work(dataset: OpenDataset) -> Preview:
            array = dataset.info.geometry.array
            assert array is not None
            ask = PreviewAsk(parse_key(what.key, array.shape), what.fit, what.field or "", what.is_exact)
            plan = plan_preview(dataset, ask, self._preview_limits)
            return Preview(read_preview(dataset, plan), dataset.version.text, plan.told)

        return self._on(asked, work)

    def read_bytes(self, asked: Asked, start: int, stop: int) -> bytes | bytearray:
        """Read content bytes of a byte frame or file, all of one version."""
        return self._on(asked, lambda dataset: dataset.read_bytes(start, stop))

    @contextlib.contextmanager
    def body(self, address: Address, start: int, tag: str | None) -> Iterator[Body]:
        """Open the newest version as a file."""
        dataset = self._subscriber.on_version(*address, lambda found: found)
        now = dataset.info.version.etag
        begin = start if tag == now else 0
        if dataset.info.entry.kind is Kind.FILE:
            yield Body(now, begin, dataset.info.geometry.nbytes, _file_pieces(dataset, begin))
            return
        frame = FrameView(dataset)
        try:
            yield Body(now, begin, frame.nbytes, frame.iter_bytes(begin))
        finally:
            frame.close()

    def _on(self, asked: Asked, read: Callable[[OpenDataset], T]) -> T:
        """Run a read on the lineage that is wanted; tell at once if the newest version is of another one."""

        def on_lineage(dataset: OpenDataset) -> T | None:
            return read(dataset) if dataset.info.entry.lineage == asked.info.entry.lineage else None

        answer = self._subscriber.on_version(*asked.address, on_lineage)
        if answer is None:
            raise Stale(f"{asked.address} has changed")
        return answer


def _file_pieces(dataset: OpenDataset, start: int) -> Iterator[bytes | bytearray]:
    end = dataset.info.geometry.nbytes
    for at in range(start, end, _PIECE_BYTES):
        yield dataset.read_bytes(at, min(at + _PIECE_BYTES, end))


def _listed(entry: Entry) -> Listed:
    return Listed(
        path=entry.path,
        kind=entry.kind,
        shape=entry.shape,
        dtype=entry.dtype,
        nbytes=entry.nbytes,
        cbytes=entry.cbytes,
        mtime_ns=entry.mtime_ns,
        problem=entry.problem,
    )
