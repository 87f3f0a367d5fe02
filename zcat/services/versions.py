"""Which version of a dataset is the newest, and how a read stays on one.

The catalogue says which lineage a dataset has, its origin what that lineage is. Where the two differ the
catalogue is late, and the origin is asked at each read until it is not.
"""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from zcat.errors import Busy, NotReadable, Stale, StorageFailed, Unavailable
from zcat.model.dataset import DatasetInfo, Entry
from zcat.net.loop import Loop
from zcat.protocol.transfer import DatasetKey, Origin
from zcat.services.at_hand import NotAtHand
from zcat.services.dataset import OpenDataset
from zcat.services.readers import Target
from zcat.services.subscription import Subscription
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.chunk_cache import ChunkCache

T = TypeVar("T")

_VERSIONS_MAX = 5
_BUSY_PAUSE_S = 0.1
_INFOS_MAX = 10_000


class Versions:
    """What is known of datasets' newest versions. Any thread may call."""

    def __init__(self, cache: ChunkCache, changed: Callable[[Origin], None]) -> None:
        """Begin with nothing known.

        Args:
            cache: where the chunks belong.
            changed: called when a version turned out not to be the newest though the catalogue still names it.
        """
        self._cache = cache
        self._changed = changed
        self._infos: dict[tuple[Origin, str], DatasetInfo] = {}
        self._gone: dict[tuple[Origin, str], str] = {}  # lineages that the catalogue names and the origin no more

    def newest(self, subscription: Subscription, path: str, wait_s: float, is_fresh: bool) -> Target:
        """Find the newest version of a dataset.

        Args:
            subscription: of its root.
            path: of the dataset.
            wait_s: for its origin, if that has to be asked.
            is_fresh: ask it in any case.

        Raises:
            DatasetUnknown, NotReadable: there is nothing to read.
            Unavailable, Timeout: it is not known here, and its origin cannot be asked.
        """
        entry = subscription.entry(path)
        place = subscription.key, path
        info = self._infos.get(place)
        is_gone = self._gone.get(place) == entry.lineage
        if is_fresh or is_gone or info is None or info.entry.lineage != entry.lineage:
            if entry.problem is not None:
                raise NotReadable(f"{subscription.root}/{path} cannot be read: {entry.problem}")
            info = self._learn(subscription, entry, wait_s)
        key = DatasetKey(subscription.root, subscription.owner, path, info.entry.lineage)
        return self.target(key, info)

    def at_hand(self, subscription: Subscription, path: str) -> Target:
        """Find the newest version of a dataset.

        Raises:
            DatasetUnknown: there is nothing to read.
            NotAtHand: somebody would have to be asked, or files to be opened.
        """
        entry = subscription.entry(path)
        place = subscription.key, path
        info = self._infos.get(place)
        if info is None or info.entry.lineage != entry.lineage or self._gone.get(place) == entry.lineage:
            raise NotAtHand
        key = DatasetKey(subscription.root, subscription.owner, path, entry.lineage)
        cached = self._cache.held(key.root, key.owner, info)
        if cached is None:
            raise NotAtHand
        return Target(key, info, cached)

    def is_as_listed(self, target: Target, subscription: Subscription) -> bool:
        """Say whether a version is the one that the catalogue names, and so the newest until that changes."""
        path = target.key.path
        lineage = subscription.entry(path).lineage
        return target.key.lineage == lineage != self._gone.get((subscription.key, path))

    def target(self, key: DatasetKey, info: DatasetInfo) -> Target:
        """Say where the chunks of a lineage belong, whether or not it is the newest."""
        try:
            cached = self._cache.dataset(key.root, key.owner, info)
        except StorageFailed:
            cached = None  # the cache has said so in the log; reads go on without it
        return Target(key, info, cached)

    def held(self, origins: Iterable[Origin], path: str, lineage: str) -> CachedDataset | None:
        """Give what is cached of a lineage of one of ``origins``; None if it was not read in this run."""
        for origin in origins:
            info = self._infos.get((origin, path))
            if info is not None and info.entry.lineage == lineage:
                return self.target(DatasetKey(*origin, path, lineage), info).cached
        return None

    def _learn(self, subscription: Subscription, entry: Entry, wait_s: float) -> DatasetInfo:
        place = subscription.key, entry.path
        try:
            info = subscription.info(entry.path, wait_s)
        except Unavailable:
            saved = self._cache.saved(subscription.root, subscription.owner, entry.path)
            is_gone = self._gone.get(place) == entry.lineage
            if saved is None or saved.entry.lineage != entry.lineage or is_gone:
                raise  # an older version is here at most, and nobody asked for that
            info = saved
        if info.entry.lineage != entry.lineage:
            # The catalogue is late: another reader's answer may be, too, and nobody shall go back to that version
            self._gone[place] = entry.lineage
            self._changed(subscription.key)
        if len(self._infos) >= _INFOS_MAX:
            self._infos.clear()  # they are cheap to ask for again, and few readers have so many datasets open
        self._infos[place] = info
        return info


def on_newest(
    opened: Callable[[bool], OpenDataset], work: Callable[[OpenDataset], T], wait_s: float, pause: threading.Event
) -> T:
    """Do something with a dataset, all of it on one version.

    Args:
        opened: gives the newest version; asks its origin if True.
        work: gets it; what it raises ends this, but for `Stale` and `Busy`.
        wait_s: after which no further try is begun.
        pause: set when nobody shall wait any more.

    Raises:
        Stale: it changed at every try.
        Busy: it is being written all the time.
    """
    deadline_s = Loop.now_s() + wait_s
    versions_count, is_fresh = 0, False
    while True:
        try:
            return work(opened(is_fresh))
        except Stale:
            versions_count, is_fresh = versions_count + 1, True
            if versions_count >= _VERSIONS_MAX or Loop.now_s() >= deadline_s:
                raise
        except Busy:
            is_fresh = True
            if Loop.now_s() >= deadline_s or pause.wait(_BUSY_PAUSE_S):
                raise
