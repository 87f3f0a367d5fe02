"""A subscriber: finds roots through the brokers, follows them, and reads their datasets through its cache.

One loop thread owns all sockets and the machines. Any other thread may call the public methods; reads that
are answered by the cache touch neither the loop nor a lock that it holds.
"""

import functools
import itertools
import logging
import random
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from typing import Any, TypeVar

from zcat import __version__
from zcat.config import SubscriberConfig
from zcat.errors import Closed, RootContested, RootNotFollowed, RootUnknown, Timeout, Unavailable
from zcat.logs import kv
from zcat.model.dataset import DatasetInfo, Entry
from zcat.names import OWNER_HEX_SHOWN, parse_root, shown
from zcat.net.loop import Loop
from zcat.net.sockets import DATA, Context, SocketFactory, make_context
from zcat.protocol.asking import TransferLimits
from zcat.protocol.block_transfer import BlockTransfer
from zcat.protocol.directory_view import HERE, ClaimChanged, DirectoryView
from zcat.protocol.follower import FollowerLimits
from zcat.protocol.messages import ListedClaim
from zcat.protocol.prefetch import PrefetchLimits
from zcat.protocol.transfer import Transfer
from zcat.protocol.wanted import DatasetKey, Origin
from zcat.services.at_hand import DatasetAtHand
from zcat.services.block_fetcher import BlockFetcher
from zcat.services.broker_in_use import BrokerInUse
from zcat.services.broker_sources import check_source
from zcat.services.dataset import OpenDataset, ReadLimits
from zcat.services.fetcher import Fetcher
from zcat.services.fetching import Fetching
from zcat.services.introduction import Introduction
from zcat.services.origins import FollowedOrigins
from zcat.services.peers import Peers
from zcat.services.prefetcher import Prefetcher
from zcat.services.readers import Target
from zcat.services.subscription import Subscription, Surroundings
from zcat.services.survey import Survey
from zcat.services.versions import Versions, on_newest
from zcat.services.views import RootView, view_of, view_of_claim
from zcat.services.window import Supply
from zcat.services.workers import Workers
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.decoded_blocks import DecodedBlocks
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.reading import let_threads_run

T = TypeVar("T")

_TICK_S = 0.1
_WRITTEN_WITHIN_S = 10.0  # the catalogues, at the end
_LISTING_WAIT_S = 2.0
"""A root that its publisher just announced may take a moment to be listed."""

_Want = tuple[str, str | None, "Future[Subscription]", bool]
"""Name, owner, who waits, and whether the configuration wants it."""

log = logging.getLogger(__name__)


class Subscriber:
    """Follows roots and reads their datasets. Several may live in one process, each with a cache of its own."""

    def __init__(self, config: SubscriberConfig, context: Context | None = None) -> None:
        """Open the cache. Nothing is said to anybody before `start`.

        Args:
            config: see there.
            context: shared with others of this process (needed for inproc endpoints); its own if None.

        Raises:
            CacheInUse: another process works on the cache folder.
            StorageFailed: the folder cannot be made or written.
            BadName: an endpoint or a root is not one.
        """
        for root in config.follow:
            parse_root(root)
        for broker in config.brokers:
            check_source(broker)  # before the cache is locked
        self.owner = secrets.token_hex(16)
        self._config = config
        self._cache = ChunkCache(config.cache, DiskLimits(config.quota_bytes, reserve_bytes=config.reserve_bytes))
        made = context or make_context()
        self._own_context = made if context is None else None
        self._loop = Loop("subscriber", on_stop=self._farewell)
        ids = itertools.count(1)
        sockets = SocketFactory(made, DATA)
        self._peers = Peers(self._loop, made, config, self.owner)
        transfer = Transfer(TransferLimits(config.credit_bytes), ids, random.Random(self.owner).random)
        origins = FollowedOrigins(lambda: self._subscriptions, self._peers)
        whole = Fetcher(self._loop, transfer, origins, config.storing_threads)
        self._fetcher = Fetching(whole, BlockFetcher(self._loop, BlockTransfer(requests=ids), origins))
        writer = Workers("catalogue", 1)
        self.around = Surroundings(
            self._loop, sockets, self._fetcher, self._cache, ids, writer, self._changed, self._peers
        )
        """What a part of this subscriber works with."""
        self.on_change: Callable[[Origin | None], None] | None = None
        """Told when the catalogue of a root has changed, or, with None, which roots are followed. Any thread."""
        self.tells: dict[str, Callable[[], Any]] = {}
        """What others add to `health`, by key."""
        self._view = DirectoryView()
        self._broker = BrokerInUse(config.brokers, self._loop, sockets, self._view, random.random)
        self._broker.on_claim = self._claim_changed
        self._broker.on_changes = self._root_changed
        self.introduction = Introduction(self.owner, lambda: (self.around, self._subscriptions.values()))
        self._broker.presence = self.introduction.presence
        self.survey = Survey(made, lambda: self._broker.endpoints)
        self._subscriptions: dict[Origin, Subscription] = {}  # replaced as a whole, so that any thread may read it
        self._wanted: list[_Want] = []
        self._by_name: set[str] = set()  # roots that are followed whoever owns them
        self._versions = Versions(self._cache, self._changed)
        self.read_limits = ReadLimits.of(config)
        """Of every read."""
        self._prefetcher = Prefetcher(PrefetchLimits(config.prefetch_bytes))
        self._decoded = DecodedBlocks(config.decoded_bytes)
        self._pause = threading.Event()  # set when closing, so that nobody sleeps through it

    @property
    def cache_folder(self) -> str:
        """Where the cache is; this process has it alone."""
        return self._config.cache

    def start(self) -> None:
        """Begin: look for a broker, and follow what the configuration and the cache name. Returns at once."""
        let_threads_run()
        self._peers.start(self._fetcher.whole, self._find)
        self.introduction.endpoints = self._peers.endpoints
        for root, owner in self._cache.known_roots():
            self._add(root, owner)
        self._broker.start()
        self._loop.call_after(0, self._tick)
        self._loop.start()
        for root in self._config.follow:
            name, owner_begin = parse_root(root)
            self._loop.post(functools.partial(self._want, name, owner_begin, Future(), True))

    def close(self) -> None:
        """Stop. Who waits gets `Closed`. Idempotent."""
        self._pause.set()
        self._loop.stop()
        self._prefetcher.close()
        self._fetcher.close()
        self._peers.close()
        closed = Closed("the subscriber was closed")
        for _, _, found, _ in self._wanted:
            found.set_exception(closed)
        for subscription in self._subscriptions.values():
            subscription.fail(closed)
            subscription.save(Loop.now_s())
        self.around.writer.finish(_WRITTEN_WITHIN_S)
        self._cache.close()
        if self._own_context is not None:
            self._own_context.term()

    # -- roots -------------------------------------------------------------------------------------------

    def roots(self) -> list[RootView]:
        """Tell of all roots that brokers list, and of those that are followed, in order of name.

        Raises:
            Timeout: the loop is too busy to say.
        """
        return self._loop.call(self._views, timeout_s=5.0)

    def follow(self, root: str, timeout_s: float = 10.0) -> RootView:
        """Follow a root from now on, also after a restart; return when its catalogue is here.

        Where the publisher cannot be reached, and a catalogue of a former run is here, that one does: the view
        says that it is not ``synced``.

        Args:
            root: ``name``, or ``name@owner`` with the first digits of the owner's key.
            timeout_s: how long to wait for it.

        Raises:
            RootUnknown: no broker lists it in that time. Unavailable: none answers, or its publisher is away.
            RootContested: several publishers claim it, and no owner was named.
            Timeout: it is listed, and its publisher does not answer. It is followed all the same.
        """
        name, owner = parse_root(root)
        deadline_s = Loop.now_s() + timeout_s
        found: Future[Subscription] = Future()
        self._loop.post(lambda: self._want(name, owner, found))
        try:
            try:
                subscription = found.result(min(timeout_s, _LISTING_WAIT_S))
            except WaitedTooLong:
                if self._broker.in_use is not None:
                    self._resolve(name, owner)  # a broker that answers does not list it: no use in waiting longer
                subscription = found.result(max(0.0, deadline_s - Loop.now_s()))
        except (WaitedTooLong, RootUnknown) as error:
            self._loop.post(lambda: self._unwant(found))
            if isinstance(error, RootUnknown):
                raise
            state = self._resolve(name, owner).state
            raise Unavailable(f"brokers call root {shown(root)} {state!r}: its publisher is away") from None
        is_saved = subscription.has_catalogue and subscription.listed is None  # of a former run, and maybe offline
        wait_s = max(0.0, deadline_s - Loop.now_s())
        try:
            subscription.ready.result(min(wait_s, _LISTING_WAIT_S) if is_saved else wait_s)
        except WaitedTooLong:
            if not subscription.has_catalogue:
                raise Timeout(
                    f"root {name} is listed, and its publisher does not answer: it is followed as soon as it does"
                ) from None
        return self._loop.call(lambda: self._view_of(subscription), timeout_s=5.0)

    def unfollow(self, root: str) -> None:
        """Follow a root no longer. What is cached of it stays until its room is needed.

        Raises:
            RootNotFollowed: it is not followed.
            RootContested: several of that name are, and no owner was named.
        """
        subscription = self.subscription(root)
        self._loop.call(lambda: self._remove(subscription), timeout_s=5.0)

    def subscription(self, root: str) -> Subscription:
        """Find a followed root by ``name`` or ``name@owner``.

        Raises:
            RootUnknown, RootNotFollowed, RootContested: see `unfollow`.
        """
        name, owner = parse_root(root)
        found = self._followed(name, owner)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{name}@{each.owner[:OWNER_HEX_SHOWN]}" for each in found)
            raise RootContested(f"several roots {shown(name)} are followed: name one of {names}")
        self._resolve(name, owner)
        raise RootNotFollowed(f"root {shown(name)} is not followed here: `zcat follow {name}` changes that")

    def entries(self, root: str, under: str = "") -> list[Entry]:
        """List datasets of a followed root, in order of path.

        Args:
            root: ``name`` or ``name@owner``.
            under: a folder, or one dataset; empty for all.

        Raises:
            RootUnknown, RootNotFollowed, RootContested: see `unfollow`.
        """
        entries = self.subscription(root).entries()
        if under:
            inside = under + "/"
            entries = [entry for entry in entries if entry.path == under or entry.path.startswith(inside)]
        return sorted(entries, key=lambda entry: entry.path)

    # -- datasets ----------------------------------------------------------------------------------------

    def on_version(
        self, root: str, path: str, work: Callable[[OpenDataset], T], timeout_s: float | None = None
    ) -> T:
        """Do something with a dataset, all of it on one version.

        When the dataset changes meanwhile, ``work`` is begun anew on the next version, a few times.

        Args:
            root: ``name`` or ``name@owner`` of a followed root.
            path: of the dataset.
            work: gets the dataset; what it raises ends this, but for `Stale` and `Busy`.
            timeout_s: after which no further try is begun; None: the fetch time-out of the configuration.

        Raises:
            DatasetUnknown, NotReadable: there is nothing to read.
            RootUnknown, RootNotFollowed, RootContested: see `unfollow`.
            Unavailable, Timeout, Stale, Busy: what is missing here cannot be had, or changes at every try.
        """
        subscription = self.subscription(root)
        wait_s = self._config.fetch_timeout_s if timeout_s is None else timeout_s

        def opened(is_fresh: bool) -> OpenDataset:
            target = self._versions.newest(subscription, path, wait_s, is_fresh)
            return OpenDataset(self._supply(target), subscription, self.read_limits, self._prefetcher)

        return on_newest(opened, work, wait_s, self._pause)

    def at_hand(self, root: str, path: str, work: Callable[[OpenDataset], T]) -> T:
        """Do as `on_version` does, if that takes no more than a moment; else raise `NotAtHand`."""
        subscription = self.subscription(root)
        supply = self._supply(self._versions.at_hand(subscription, path))
        return work(DatasetAtHand(supply, subscription, self.read_limits, self._prefetcher))

    def open(self, root: str, path: str, wait_s: float, is_fresh: bool = False) -> tuple[Target, bool]:
        """Find the newest version of a dataset, for who reads it in another process.

        Its origin is waited for ``wait_s``, if it has to be asked, which it is in any case if ``is_fresh``.

        Returns:
            What to read, and whether it is the one that the catalogue names, and so the newest until that changes.
        """
        subscription = self.subscription(root)
        target = self._versions.newest(subscription, path, wait_s, is_fresh)
        return target, self._versions.is_as_listed(target, subscription)

    def target(self, key: DatasetKey, info: DatasetInfo) -> Target:
        """Say where the chunks of a lineage belong, whether or not it is the newest."""
        return self._versions.target(key, info)

    def health(self) -> dict[str, Any]:
        """Tell how this subscriber is: ``status`` is ``ok``, or ``degraded`` when something it needs is away."""
        views = [view for view in self.roots() if view.followed]
        is_ok = self._broker.in_use is not None and all(view.synced for view in views)
        return {
            "status": "ok" if is_ok else "degraded",
            "service": "subscriber",
            "version": __version__,
            "broker": self._broker.in_use,
            "brokers": list(self._broker.endpoints),
            "roots": [view.summary() for view in views],
            "cache": {"used_bytes": self._cache.used_bytes, "quota_bytes": self._config.quota_bytes},
            "fetched": self._fetcher.counters(),
            "peers": self._peers.summary(self._fetcher.whole),
            "loop": self._loop.counters.told(),
            **{key: tell() for key, tell in self.tells.items()},
        }

    # -- inside: readers' threads ------------------------------------------------------------------------

    def _supply(self, target: Target) -> Supply:
        return Supply(target, self._fetcher.whole, self._fetcher.blocks, self.read_limits.plan, self._decoded)

    def _find(self, root: str, path: str, lineage: str) -> CachedDataset | None:
        """Give what is cached of one lineage, for others."""
        return self._versions.held([key for key in self._subscriptions if key[0] == root], path, lineage)

    def _followed(self, name: str, owner: str | None) -> list[Subscription]:
        named = [each for each in self._subscriptions.values() if each.root == name]
        return [each for each in named if each.owner.startswith(owner or "")]

    def _resolve(self, name: str, owner: str | None) -> ListedClaim:
        """Give the claim that a name means, or raise `RootUnknown` or `RootContested` as the brokers see it."""
        return self._loop.call(lambda: self._view.resolve(name, owner), timeout_s=5.0)

    # -- inside: the loop's thread -----------------------------------------------------------------------

    def _farewell(self) -> None:
        self._broker.leave()
        for subscription in self._subscriptions.values():
            subscription.farewell()

    def _tick(self) -> None:
        now_s = Loop.now_s()
        self._loop.call_at(now_s + _TICK_S, self._tick)
        self._broker.tick(now_s)
        for subscription in self._subscriptions.values():
            subscription.tick(now_s)
            if subscription.root in self._by_name and subscription.is_over(now_s):
                self._succeed(subscription)
        self._fetcher.tick(now_s)
        self._peers.tick(now_s)

    def _want(
        self, name: str, owner: str | None, found: "Future[Subscription]", is_standing: bool = False
    ) -> None:
        """Follow a root as soon as its name means one claim; a standing wish outlives that it means several."""
        (self._by_name.discard if owner else self._by_name.add)(name)
        held = self._followed(name, owner)
        if len(held) == 1:  # whoever follows one owner stays with it, also when the name becomes contested
            found.set_result(held[0])
            return
        try:
            listed = self._view.resolve(name, owner)
        except RootContested as error:
            if is_standing:
                log.warning("not followed %s", kv(root=name, reason=error))
                self._wanted.append((name, owner, found, is_standing))
            else:
                found.set_exception(error)
        except (RootUnknown, Unavailable):
            self._wanted.append((name, owner, found, is_standing))  # it may be about to be listed
        else:
            if listed.state not in HERE:
                self._wanted.append((name, owner, found, is_standing))
                return
            found.set_result(self._add(name, listed.claim.owner))

    def _succeed(self, gone: Subscription) -> None:
        """Follow who has the name now: a publisher that lost its state folder comes back as another owner."""
        heir = self._view.heir(gone.root, gone.owner)
        if heir is not None and len(self._followed(gone.root, None)) == 1:
            log.warning("followed instead, as another owner %s", kv(root=gone.root, gone=gone.owner, owner=heir))
            self._remove(gone)
            self._add(gone.root, heir)

    def _unwant(self, found: "Future[Subscription]") -> None:
        self._wanted = [want for want in self._wanted if want[2] is not found]

    def _add(self, root: str, owner: str) -> Subscription:
        limits = FollowerLimits(quiet_after_s=self._config.quiet_after_s)
        subscription = Subscription(root, owner, self.around, limits)
        self._subscriptions = {**self._subscriptions, subscription.key: subscription}
        self._changed(None)
        self._broker.subscribe(subscription.topic)
        for listed in self._view.claims(root):
            if listed.claim.owner == owner:
                subscription.claim(listed)
        log.info("following %s", kv(root=root, owner=owner[:OWNER_HEX_SHOWN]))
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        self._subscriptions = {key: each for key, each in self._subscriptions.items() if each is not subscription}
        self._changed(None)
        self._broker.unsubscribe(subscription.topic)
        self._fetcher.away(subscription.key, RootNotFollowed(f"root {subscription.root} is no longer followed"))
        subscription.close()
        subscription.forget()

    def _claim_changed(self, change: ClaimChanged) -> None:
        claim = change.listed.claim
        subscription = self._subscriptions.get(claim.key)
        if subscription is not None:
            subscription.claim(change.listed)
        wanted = [want for want in self._wanted if want[0] == claim.root]
        self._wanted = [want for want in self._wanted if want[0] != claim.root]
        for want in wanted:
            self._want(*want)

    def _root_changed(self, message: Any) -> None:
        subscription = self._subscriptions.get((message.root, message.owner))
        if subscription is not None:
            subscription.changes(message)

    def _changed(self, key: Origin | None) -> None:
        if self.on_change is not None:
            self.on_change(key)

    def _views(self) -> list[RootView]:
        views = [self._view_of(subscription) for subscription in self._subscriptions.values()]
        for listed in self._view.claims():
            if listed.claim.key not in self._subscriptions and listed.state in HERE:
                views.append(view_of_claim(listed, self._view.is_contested(listed.claim.root)))
        return sorted(views, key=lambda view: (view.name, view.owner or ""))

    def _view_of(self, subscription: Subscription) -> RootView:
        return view_of(subscription, self._view.is_contested(subscription.root))
