"""A publisher: a folder or HDF5 file as a root, answered for on a ROUTER, told of on PUB, listed at brokers.

One loop thread owns the sockets and the catalogue; a few threads read chunks, one looks for changes, and the
folder's watcher says when. Several publishers may live in one process.
"""

import logging
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from zcat.config import PublisherConfig
from zcat.errors import BadConfig, Closed, StorageFailed, Timeout, ZcatError
from zcat.logs import kv
from zcat.model.dataset import Entry
from zcat.model.root import Claim
from zcat.names import check_root, shown
from zcat.net.loop import Loop
from zcat.net.nearby import host_mark, private_endpoint
from zcat.net.sockets import (
    CONTROL,
    Context,
    Socket,
    SocketFactory,
    bind,
    endpoint_of,
    exposure,
    make_context,
)
from zcat.protocol.catalogue import Catalogue
from zcat.protocol.messages import Changes
from zcat.protocol.serving import ServingLimits
from zcat.protocol.status_messages import LINKS
from zcat.services.advertised import advertised, check_reachable, listening
from zcat.services.announcing import Announcing
from zcat.services.broker_sources import check_source, found_at
from zcat.services.request_server import RequestServer
from zcat.services.root_origin import RootOrigin
from zcat.services.status import Teller, all_at_once
from zcat.services.tracking import SwarmCounters, Tracking
from zcat.services.workers import Workers, hand_over
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.directory_root import DirectoryRoot, DirectoryTimes
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.hdf5.hdf5_file import Tools
from zcat.storage.hdf5.hdf5_files import Hdf5Files
from zcat.storage.hdf5.hdf5_root import Hdf5Root
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.identity import Identity
from zcat.storage.root import Root
from zcat.storage.watch import WatchTimes

FAREWELL_S = 1.0
"""How long `Publisher.close` waits for brokers to confirm that the root is gone."""

RAISE_RETRY_S = 5.0

_RUN = "run"
"""In the state folder: what is of use while the process runs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a publisher is to be found."""

    root: str
    owner: str
    endpoints: tuple[str, ...]
    """As they are announced, best first."""


class Publisher:
    """Offers one folder or HDF5 file. `start`, then `close`; or a ``with`` statement."""

    def __init__(self, config: PublisherConfig, context: Context | None = None) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            config: what to offer.
            context: shared with other services of this process; its own if None.
        """
        self._config = config
        self._context = context
        self._opened = ExitStack()
        self._closing = threading.Lock()
        self.ready: Ready | None = None
        """Known after `start`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Ready:
        """Look at the folder, bind, and begin to answer and to announce.

        Raises:
            BadConfig, BadName: the configuration says something that cannot be.
            AddressInUse: the endpoint cannot be bound.
            CacheInUse: another process has the state folder.
            BadContent, StorageFailed: the state folder is damaged, or its disk or the root's refuses.
        """
        assert self.ready is None
        config = self._config
        check_root(config.root)
        for broker in config.brokers:
            check_source(broker)
        _check_apart(Path(config.path), Path(config.state))
        with ExitStack() as opened:
            context = self._context
            if context is None:
                context = make_context()
                opened.callback(context.term)
            self._identity = opened.enter_context(Identity.load(Path(config.state)))
            self._root = self._open_root()
            opened.callback(self._root.close)
            catalogue = Catalogue(
                config.root, self._identity.owner, self._identity.incarnation, self._first_look()
            )
            self._loop = Loop(f"publisher-{config.root}")
            opened.callback(self._loop.stop)
            # Requests are small whatever their answers are, which are counted in bytes before they get to ZeroMQ.
            sockets = SocketFactory(context, CONTROL)
            endpoints = self._bind(sockets, catalogue)
            opened.callback(self._workers.close)
            opened.callback(self._origin.close)
            self._announcing = Announcing(self._loop, sockets, config.brokers, self._outdone)
            links = {LINKS: all_at_once(self._announcing.links)}
            self._server.on_status = Teller(
                "publisher", catalogue.owner, lambda: self._identity.incarnation, self.stats, links, Loop.now_s()
            ).answer
            self.ready = Ready(config.root, catalogue.owner, endpoints)
            self._loop.post(self._begin)
            self._loop.start()
            self._root.watch(self._origin.something_changed)
            self._opened = opened.pop_all()
        log.info("ready %s", kv(endpoint=self.ready.endpoints[0], root=config.root, owner=self._identity.owner))
        return self.ready

    def close(self) -> None:
        """Withdraw the root from the brokers and end, within two seconds. A second call does nothing."""
        with self._closing:
            if self.ready is None:
                return
            with suppress(Closed, Timeout):
                self._farewell()
            self._opened.close()
            self.ready = None

    def stats(self) -> dict[str, int]:
        """Count what was done since the start, and what is held now."""
        counters, catalogue, swarm = self._server.counters, self._origin.catalogue, self.swarm
        return {
            "datasets": len(catalogue),
            "incarnation": catalogue.incarnation,
            "seq": catalogue.seq,
            "brokers_listing": self._announcing.listed_count,
            "brokers_used": self._announcing.used_count,
            "contested": int(self._announcing.is_contested),
            "requests": counters.requests,
            "answers": counters.answers,
            "answers_bytes": counters.answers_bytes,
            "chunks": counters.chunks,
            "chunks_bytes": counters.chunks_bytes,
            "sharers": swarm.sharers,
            "served_to_sharers": swarm.served,
            "referred": swarm.referred,
            "waiting": swarm.waiting,
            "failures": counters.failures,
            "refused_busy": counters.refused_busy,
            "peers_lost": counters.peers_lost,
            "bad_messages": self._loop.counters.bad_messages,
            "jobs_waiting": self._server.jobs_count,
            "held_bytes": self._server.held_bytes,
            "converted_bytes": self._byte_frames.used_bytes,
        }

    @property
    def swarm(self) -> SwarmCounters:
        """What subscribers did for one another; all zero where they are not sent to one another."""
        return self._tracking.counters if self._tracking is not None else SwarmCounters(0, 0, 0, 0)

    # -- private -------------------------------------------------------------------------------------

    def _open_root(self) -> Root:
        """Open the folder, or the HDF5 file, that the configuration names."""
        config = self._config
        limits = DiskLimits(config.quota_bytes, reserve_bytes=config.reserve_bytes)
        owner = self._identity.owner
        self._byte_frames = ByteFrames(Path(config.state) / "converted", limits, config.root, owner)
        watch = WatchTimes(poll_s=config.poll_s, rescan_s=config.rescan_s)
        path = Path(config.path)
        folder = path.parent if path.is_file() else path  # a file that takes the place of another is read, too
        sandbox = Sandbox(config.hdf5_workers, readable=folder)
        hdf5 = Hdf5Files(Tools(owner, sandbox, self._byte_frames, Digests()), Path(config.state) / "hdf5")
        kind = Hdf5Root if path.is_file() else DirectoryRoot
        try:
            return kind(path, owner, self._byte_frames, DirectoryTimes(config.settle_s, watch), hdf5)
        except ZcatError:
            self._byte_frames.close()
            raise

    def _first_look(self) -> list[Entry]:
        """Look at everything; at what is being written, once more a moment later."""
        looked = self._root.look(None, {})
        changes = looked.changes
        if looked.unsettled:
            time.sleep(self._config.settle_s)
            changes = changes + self._root.look(looked.unsettled, {}).changes
        entries = [change.entry for change in changes if change.entry is not None]
        problems = sum(entry.problem is not None for entry in entries)
        log.info("looked at the root %s", kv(root=self._config.root, datasets=len(entries), problems=problems))
        return entries

    def _bind(self, sockets: SocketFactory, catalogue: Catalogue) -> tuple[str, ...]:
        """Bind the ROUTER; give the endpoints that others are told."""
        config = self._config
        router = sockets.router(listening(config.listen, config.interface))
        bound = endpoint_of(router)
        warning = exposure(bound)
        if warning:
            log.warning("%s", warning)
        self._origin = RootOrigin(self._root, catalogue, self._loop, self._publish, config.settle_s)
        self._workers = Workers("read", config.io_threads)
        limits = ServingLimits(
            peer_bytes_max=config.peer_bytes,
            total_bytes_max=config.total_bytes,
            working_max=2 * config.io_threads + 2,  # so that no thread waits for the loop
        )
        self._server = RequestServer(self._loop, router, self._origin, self._workers, limits)
        self._tracking = Tracking(config.root, self._loop, self._server) if config.track else None
        self._origin.is_tracking = config.track
        brokers = found_at(config.brokers)
        told = advertised(bound, config.advertise, brokers)
        warning = check_reachable(told, brokers, is_chosen=config.advertise is not None)
        if warning:
            log.warning("%s", warning)
        is_proxied = "://" in (config.advertise or "")  # who says so much wants everybody to come that way
        offers_nearby = config.ipc and told.startswith("tcp://") and not is_proxied
        return (told, *self._bind_nearby(router)) if offers_nearby else (told,)

    def _bind_nearby(self, router: Socket) -> list[str]:
        """Bind a socket for the subscribers of this host, too, if that can be."""
        near = private_endpoint(str(Path(self._config.state, _RUN))) if host_mark(self._identity.owner) else None
        try:
            return [bind(router, near)] if near else []
        except ZcatError as error:
            log.warning("no socket for this host %s", kv(reason=error))
            return []

    def _claim(self) -> Claim:
        assert self.ready is not None
        c = self._origin.catalogue
        host = host_mark(c.owner) if len(self.ready.endpoints) > 1 else None
        return Claim(c.root, c.owner, self.ready.endpoints, c.incarnation, c.seq, self._config.lease_s, host=host)

    def _begin(self) -> None:
        self._announcing.begin(self._claim(), self._config.renew_s)

    def _publish(self, messages: list[Changes]) -> None:
        for changes in messages:
            self._announcing.publish(changes)
        self._announcing.update(self._claim())

    def _outdone(self, above: int) -> None:
        """A broker remembers a later life of ours, so our counter was lost: go above it."""
        log.warning("going above a later life of ours %s", kv(root=self._config.root, remembered=above))
        self._workers.do(partial(self._raise_above, above))

    def _raise_above(self, above: int) -> None:
        try:
            incarnation = self._identity.raise_above(above)
        except StorageFailed as error:
            log.warning("cannot begin a new life %s", kv(root=self._config.root, reason=error))
            hand_over(self._loop, partial(self._retry_outdone, above))
        else:
            hand_over(self._loop, partial(self._new_life, incarnation))

    def _retry_outdone(self, above: int) -> None:
        self._loop.call_after(RAISE_RETRY_S, partial(self._outdone, above))

    def _new_life(self, incarnation: int) -> None:
        self._origin.new_life(incarnation)
        self._announcing.update(self._claim())

    def _farewell(self) -> None:
        """Withdraw, and wait until those brokers that listed the root, and answer, have heard it."""
        until_s = time.monotonic() + FAREWELL_S
        self._loop.call(self._announcing.withdraw, FAREWELL_S)
        while not self._announcing.is_farewell_over and time.monotonic() < until_s:
            time.sleep(0.005)


def _check_apart(path: Path, state: Path) -> None:
    """Refuse a state folder that would be offered as a part of the root."""
    root, inside = path.resolve(), state.resolve()
    if not inside.is_relative_to(root):
        return
    if not any(part.startswith(".") for part in inside.relative_to(root).parts):
        raise BadConfig(
            f"state folder {shown(str(state), 200)} lies inside the root {shown(str(path), 200)} and would be "
            "offered: name another one, or one whose name begins with a dot"
        )
