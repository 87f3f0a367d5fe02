"""A broker: the directory of who serves which root, and the forwarder of events.

All state is soft: a broker that starts knows nothing, and publishers and other brokers tell it within a
renewal. It holds no chunks and no files. One loop thread owns the directory, its ROUTER and the way to the
other brokers (`zcat.services.neighbours`); events pass beside it, through the threads of `zcat.net.forwarder`,
which never wait for Python.
"""

import logging
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from zcat import __version__
from zcat.config import BrokerConfig
from zcat.errors import BadMessage, VerbUnknown, ZcatError
from zcat.limits import CONTROL_FRAME_BYTES_MAX, KIB
from zcat.logs import kv
from zcat.names import is_local_endpoint, shown
from zcat.net import wire
from zcat.net.forwarder import EGRESS, MESH, Forwarder, ForwarderEndpoints
from zcat.net.laggards import QueueLimits
from zcat.net.loop import Loop
from zcat.net.sockets import CONTROL, Context, SocketFactory, endpoint_of, exposure, make_context
from zcat.net.wire import Part, Parts, Sent
from zcat.protocol.attendance import Attendance
from zcat.protocol.brokers import BEAT_TOPIC, DIRECTORY_TOPIC
from zcat.protocol.directory import LIVE, Directory, DirectoryLimits
from zcat.protocol.envelope import split
from zcat.protocol.federation_messages import Digest, Digests, Neighbour, Records
from zcat.protocol.messages import (
    Announce,
    DirectoryChanged,
    Failed,
    Granted,
    Listing,
    Lookup,
    Message,
    Ping,
    Pong,
    Renew,
    decode,
    encode,
)
from zcat.protocol.pages import paged
from zcat.protocol.status_messages import LINKS, QUEUES, SUBSCRIBERS, QueueState, Status
from zcat.services.advertised import advertised, check_reachable, listening
from zcat.services.broker_sources import AnnouncedFile, found_at
from zcat.services.neighbours import Around, Neighbours
from zcat.services.status import ITEMS_MAX, Teller, all_at_once

LISTED_MAX = 800
"""Claims in one answer: even the largest then fit the pages of a message, and the loop is kept a few ms."""
EVENTS_QUEUED_MIN = 1024
"""Messages, whatever their size; see `Forwarder`."""
SEND_BUFFER_BYTES = 128 * KIB
"""Of each subscriber, in the kernel, which takes twice that; left to itself it would take megabytes."""
CHANGE_BYTES = KIB
"""Typical size of a published change: room for all those that one tick of the directory may make."""
STATS_TIMEOUT_S = 5.0
BEAT_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerEndpoints:
    """Where a broker really listens."""

    listen: str
    ingress: str
    egress: str
    mesh: str


class Broker:
    """One broker. Several may live in one process; they share nothing but, if one is given, the context."""

    def __init__(self, config: BrokerConfig, context: Context | None = None) -> None:
        """Bind everything; nothing is answered before `start`.

        Args:
            config: see there.
            context: shared with others of this process (needed for inproc endpoints); its own if None.

        Raises:
            AddressInUse: an endpoint cannot be had.
            BadName: an endpoint is not one.
            BadConfig: other brokers could not reach this one; or it has no address on the interface.
        """
        self.owner = secrets.token_hex(16)
        """Key of this broker: another one at each start, since it remembers nothing of the former life."""
        self._config = config
        self._own_context = make_context() if context is None else None
        self._context = context or self._own_context
        assert self._context is not None
        self._loop = Loop("broker")
        self._forwarder: Forwarder | None = None
        self._announced: AnnouncedFile | None = None
        limits = DirectoryLimits(
            lease_min_s=config.lease_min_s, lease_max_s=config.lease_max_s, records_max=config.records_max
        )
        self._directory = Directory(self.owner, 1, Loop.now_s(), limits)
        self._attendance = Attendance()
        try:
            self._bind(self._context)
        except ZcatError:
            self.close()
            raise
        self._counts = dict.fromkeys(("requests", "failed", "unsent", "events"), 0)
        sections = {
            LINKS: all_at_once(self._neighbours.links),
            SUBSCRIBERS: lambda after: self._attendance.listed(Loop.now_s(), after, ITEMS_MAX),
            QUEUES: all_at_once(self._queues),
        }
        self._teller = Teller("broker", self.owner, lambda: 1, self._count_all, sections, Loop.now_s())
        self._answers: dict[type[Any], Callable[[Any], Message]] = {
            Ping: self._ping,
            Announce: self._announce,
            Renew: self._renew,
            Lookup: self._lookup,
            Digest: self._digest,
            Records: self._records,
            Status: self._teller.answer,
        }

    def start(self) -> None:
        """Begin to answer and to forward. Once.

        Raises:
            StorageFailed: the file that names this broker cannot be written.
        """
        assert self._forwarder is not None
        self._forwarder.start()
        self._loop.call_at(self._directory.next_deadline_s(), self._tick)
        self._loop.call_after(BEAT_S, self._beat)
        self._neighbours.join(self._config.peers)
        if self._config.announce_file is not None:
            self._announced = AnnouncedFile(Path(self._config.announce_file), self._own.endpoint)
            if is_local_endpoint(self._own.endpoint):
                log.warning("only this host can reach what stands in the file %s", kv(endpoint=self._own.endpoint))
        self._loop.start()
        log.info(
            "ready %s", kv(endpoint=self.endpoints.listen, ingress=self._pong.ingress, egress=self._pong.egress)
        )
        for endpoint in astuple(self.endpoints):
            sentence = exposure(endpoint)
            if sentence:
                log.warning("%s", sentence)

    def close(self) -> None:
        """Stop, and free the endpoints. Idempotent. Publishers and subscribers go on with other brokers."""
        if self._announced is not None:
            self._announced.close()
            self._announced = None
        self._loop.stop()
        if self._forwarder is not None:
            self._forwarder.stop()
        if self._own_context is not None:
            self._own_context.term()

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The other brokers that answer and are linked. From any thread."""
        return self._neighbours.here

    def stats(self) -> dict[str, int]:
        """Count what is listed and what went through. From any thread.

        Raises:
            Closed: the broker is closed.
        """
        return self._loop.call(self._count_all, STATS_TIMEOUT_S)

    # -- before the start --------------------------------------------------------------------------------

    def _bind(self, context: Context) -> None:
        config = self._config
        control = SocketFactory(context, replace(CONTROL, queue_bytes=config.answers_bytes))
        self._router = control.router(listening(config.listen, config.interface))
        self._loop.register(self._router, self._received)
        listen = endpoint_of(self._router)
        asked = ForwarderEndpoints(
            listening(config.ingress or _beside(listen, "ingress"), config.interface),
            listening(config.egress or _beside(listen, "egress"), config.interface),
            listening(config.mesh or _beside(listen, "mesh"), config.interface),
        )
        queue_bytes = max(config.events_bytes, EVENTS_QUEUED_MIN * CONTROL_FRAME_BYTES_MAX)
        options = replace(CONTROL, queue_bytes=queue_bytes, send_buffer_bytes=SEND_BUFFER_BYTES)
        limits = QueueLimits(config.events_bytes, config.events_total_bytes)
        self._forwarder = Forwarder(context, asked, options, limits)
        changes = SocketFactory(context, replace(CONTROL, typical_bytes=CHANGE_BYTES))
        self._pub = changes.pub(self._forwarder.local_ingress)
        self._loop.register(self._pub)
        assert self._forwarder.mesh is not None
        self.endpoints = BrokerEndpoints(
            listen, self._forwarder.ingress, self._forwarder.egress, self._forwarder.mesh
        )
        self._pong = Pong(
            "broker",
            self.owner,
            1,
            0,
            __version__,
            _advertised(self.endpoints.ingress, config.advertise),
            _advertised(self.endpoints.egress, config.advertise),
            _advertised(self.endpoints.mesh, config.advertise),
        )
        others = found_at(config.peers)
        told = advertised(listen, config.advertise, others)
        warning = check_reachable(told, others, is_chosen=config.advertise is not None)
        if warning:
            log.warning("%s", warning)
        self._own = Neighbour(told, self.owner, 1)
        self._neighbours = Neighbours(
            self._own, Around(self._loop, control, self._forwarder, self._directory, self._publish), random.random
        )

    # -- on the loop's thread ----------------------------------------------------------------------------

    def _received(self, parts: Parts) -> None:
        route, frames = split(parts)
        self._counts["requests"] += 1
        try:
            received = decode(frames)
        except VerbUnknown as error:
            self._send(route, Failed(error.code, error.message), error.request)
            return
        except BadMessage as error:
            if len(route) > 1:  # a REQ, which hangs until it is answered, whatever it sent
                self._send(route, Failed(error.code, error.message), 0)
            raise
        self._send(route, self._answer(received.message), received.id)

    def _answer(self, message: Message) -> Message:
        if isinstance(message, Failed):  # or two that do not understand each other would never stop
            raise BadMessage(f"a failure that nobody waited for: {shown(message.message)}")
        answer = self._answers.get(type(message))
        if answer is None:
            return Failed(VerbUnknown.code, f"a broker does not answer {message.verb!r}")
        try:
            return answer(message)
        except ZcatError as error:
            return Failed(error.code, error.message)

    def _ping(self, message: Ping) -> Pong:
        if message.neighbour is not None:
            self._neighbours.introduced(message.neighbour)
        if message.presence is not None:
            self._attendance.heard(message.presence, Loop.now_s())
        directory = self._directory
        return replace(self._pong, seq=directory.seq, digest=directory.digest, neighbours=self._neighbours.here)

    def _announce(self, message: Announce) -> Granted:
        granted, changes = self._directory.announce(message.claim, Loop.now_s())
        self._publish(changes)
        return granted

    def _renew(self, message: Renew) -> Granted:
        granted, changes = self._directory.renew(message, Loop.now_s())
        self._publish(changes)
        return granted

    def _lookup(self, message: Lookup) -> Listing:
        directory = self._directory
        listed, following = directory.lookup(message.root, Loop.now_s(), message.after, LISTED_MAX)
        return Listing(directory.broker, directory.incarnation, directory.seq, following, tuple(paged(listed)))

    def _digest(self, message: Digest) -> Digests:
        return Digests(self._directory.digests())

    def _records(self, message: Records) -> Listing:
        directory = self._directory
        listed, following = directory.records(message, Loop.now_s(), LISTED_MAX)
        return Listing(directory.broker, directory.incarnation, directory.seq, following, tuple(paged(listed)))

    def _tick(self) -> None:
        now_s = Loop.now_s()
        self._publish(self._directory.tick(now_s))
        self._attendance.tick(now_s)
        self._loop.call_at(self._directory.next_deadline_s(), self._tick)

    def _beat(self) -> None:
        wire.send(self._pub, [BEAT_TOPIC, *_parts(self._ping(Ping()))])
        self._loop.call_after(BEAT_S, self._beat)

    def _publish(self, changes: Iterable[DirectoryChanged]) -> None:
        for change in changes:
            _log_change(change)
            wire.send(self._pub, [DIRECTORY_TOPIC, *_parts(change)])
            self._counts["events"] += 1

    def _send(self, route: Sequence[Part], message: Message, id: int) -> None:
        self._counts["failed"] += isinstance(message, Failed)
        if wire.send(self._router, [*route, *_parts(message, id)]) is not Sent.OK:
            self._counts["unsent"] += 1  # the peer went, or does not read; whoever misses an answer asks again

    def _queues(self) -> list[QueueState]:
        assert self._forwarder is not None
        watched = self._forwarder.watched()
        queues = [
            QueueState(name, each.peer, each.behind_bytes, each.behind_s)
            for name in (EGRESS, MESH)
            for each in watched[name].behind
        ]
        return sorted(queues, key=lambda queue: -queue.behind_bytes)

    def _count_all(self) -> dict[str, int]:
        assert self._forwarder is not None
        watched = self._forwarder.watched()
        return {
            **self._directory.counts(),
            **self._counts,
            "seq": self._directory.seq,
            "neighbours": len(self._neighbours.here),
            "subscribers": len(self._attendance),
            "connections": watched[EGRESS].connections_count,
            "slow": sum(len(each.behind) for each in watched.values()),
            "queued_bytes": sum(each.behind_bytes for each in watched.values()),
            "put_out": sum(each.put_out_count for each in watched.values()),
            **self._loop.counters.told(),
            **asdict(self._forwarder.counters()),
        }


def _log_change(change: DirectoryChanged) -> None:
    claim, state = change.listed.claim, change.listed.state
    # a dataset that grows moves its root's seq all the time, which is nothing to tell an operator
    level = logging.DEBUG if state == LIVE and claim.seq > 0 else logging.INFO
    log.log(level, "claim changed %s", kv(root=claim.root, owner=claim.owner, state=state, seq=change.seq))


def _parts(message: Message, id: int = 0) -> list[Part]:
    return [frame if isinstance(frame, memoryview) else bytes(frame) for frame in encode(message, id)]


def _beside(listen: str, name: str) -> str:
    """Make the endpoint for events from that of the directory."""
    if listen.startswith("tcp://"):
        return listen.rpartition(":")[0] + ":0"
    return f"{listen}.{name}"


def _advertised(endpoint: str, host: str | None) -> str:
    """What others are told: the port is ours, the host is the operator's word or the one they know."""
    if not endpoint.startswith("tcp://"):
        return endpoint
    return f"tcp://{host or '*'}:{endpoint.rpartition(':')[2]}"
