"""One followed root: its catalogue, and the conversation with its publisher. The shell of ``protocol.follower``.

Lives on the subscriber's loop; what other threads may call says so.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass
from typing import Any

from zcat.errors import BadMessage, Closed, DatasetUnknown, Timeout, Unavailable, ZcatError
from zcat.logs import kv
from zcat.model.dataset import DatasetInfo, Entry
from zcat.names import is_local_endpoint
from zcat.net.loop import Loop
from zcat.net.nearby import ways
from zcat.net.sockets import Socket, SocketFactory
from zcat.net.wire import Parts, Sent, send
from zcat.protocol.block_messages import BlocksReply
from zcat.protocol.directory_view import HERE
from zcat.protocol.follower import AskOrigin, Effect, Follower, FollowerLimits, Synced, Updated
from zcat.protocol.messages import (
    Changes,
    ChunkReply,
    Failed,
    Info,
    InfoReply,
    ListedClaim,
    Message,
    Pong,
    Sizes,
    SizesReply,
    Tree,
    TreePage,
    decode,
    encode,
)
from zcat.protocol.swarm_messages import Have, Holders
from zcat.services.described import described
from zcat.services.fetching import Fetching
from zcat.services.peers import Peers
from zcat.services.saved_catalogue import SavedCatalogue, Snapshot
from zcat.services.workers import Workers
from zcat.storage.chunk_cache import ChunkCache

log = logging.getLogger(__name__)

SILENT_S = 5.0
"""Then a connection to an origin that does not answer is given up, for another of its addresses if it has any."""
OVER_S = 20.0
"""Silent for so long, an origin that no broker ever listed here is gone; for others their own lease decides."""
RESEND_S = 0.02
RESENDS_MAX = 40
"""A DEALER that is still connecting takes nothing; the first question should not wait for the second."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a subscription works with; all of it is its subscriber's."""

    loop: Loop
    sockets: SocketFactory
    fetcher: Fetching
    cache: ChunkCache
    ids: Iterator[int]
    """Numbers for requests, shared with the fetcher: an answer says only the number."""
    writer: Workers
    """Writes catalogues: one thread."""
    changed: Callable[[tuple[str, str]], None]
    """Called with the key of a subscription, in the step in which its catalogue changed."""
    peers: Peers


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that a thread waits for."""

    message: Message
    answer: "Future[Any]"


class Subscription:
    """A root of one owner that this process follows."""

    def __init__(self, root: str, owner: str, around: Surroundings, limits: FollowerLimits) -> None:
        """Begin with the catalogue of a former run, if there is one."""
        self.root = root
        self.owner = owner
        self.listed: ListedClaim | None = None
        self.ready: Future[None] = Future()
        """Done when the catalogue is the origin's, or the origin is known to be away."""
        self._around = around
        self._begun_at_s = around.loop.now_s()
        self._limits = limits
        self._follower = Follower(root, owner, limits)
        self._socket: Socket | None = None
        self._ways: tuple[str, ...] = ()  # to the origin, from here
        self._endpoint = 0  # of them, in use
        self._asked_id = 0
        self._tree_id = 0
        self._questions: dict[int, _Question] = {}
        self._connected_at_s = self._trusted_until_s = float("-inf")
        self._was_here = False
        self._is_taking = False
        """What was sent last found a connection: one that stands, though nobody may answer there."""
        self._is_tracked = False
        """The origin sends readers to one another, as the fetcher knows."""
        self._is_met = False
        """Whoever answers at that address is the owner."""
        self._saved = SavedCatalogue(around.cache, root, owner, around.writer)
        known = self._saved.load()
        if known is not None:
            catalogue = {entry.path: entry for entry in known.entries}
            self._follower.restore(catalogue, known.incarnation, known.seq)

    # -- any thread --------------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[str, str]:
        """(root, owner)."""
        return self.root, self.owner

    @property
    def topic(self) -> bytes:
        """Of the root's events."""
        return f"root/{self.root}/{self.owner}/".encode()

    @property
    def synced(self) -> bool:
        """The catalogue is known to be the origin's, as of a few seconds ago at most."""
        return self._follower.synced and self.is_here()

    @property
    def stamp(self) -> tuple[int, int]:
        """(incarnation, seq) of the catalogue."""
        return self._follower.stamp

    @property
    def has_catalogue(self) -> bool:
        """There is a catalogue, of this run or of a former one."""
        return self._follower.incarnation > 0

    def is_here(self) -> bool:
        """Say whether the origin answers; a new claim has the benefit of the doubt for a moment."""
        now_s = self._around.loop.now_s()
        return self._follower.is_here(now_s) or now_s < self._trusted_until_s

    def is_over(self, now_s: float) -> bool:
        """Say whether the origin is gone: no broker lists it as being there, and it was silent for a lease."""
        lease_s = OVER_S if self.listed is None else self.listed.claim.lease_s
        is_listed = self.listed is not None and self.listed.state in HERE
        return not is_listed and now_s > max(self._begun_at_s, self._follower.heard_at_s) + lease_s

    def entry(self, path: str) -> Entry:
        """Give a dataset's line of the catalogue.

        Raises:
            DatasetUnknown: the root has no such dataset, or its catalogue is not here yet.
        """
        entry = self._follower.catalogue.get(path)
        if entry is None:
            why = "has no such dataset" if self.has_catalogue else "is not known yet: its publisher is away"
            raise DatasetUnknown(f"{self.root}/{path}: the root {why}")
        return entry

    def entries(self) -> list[Entry]:
        """Give the whole catalogue, in no order."""
        return list(self._follower.catalogue.values())  # one step for the interpreter: the loop may change it

    def __len__(self) -> int:
        return self._follower.datasets_count

    def info(self, path: str, wait_s: float) -> DatasetInfo:
        """Ask the origin about a dataset.

        Raises:
            Unavailable: it is away. Timeout: it does not answer in time. Whatever the origin says, too.
            BadMessage, BadContent, NotReadable: what it says cannot be, or not be read; see `described`.
        """
        return described(self._question(Info(self.root, path), InfoReply, wait_s), path)

    def sizes(self, path: str, lineage: str, wait_s: float) -> SizesReply:
        """Ask the origin for the compressed sizes of all chunks.

        Raises:
            NotReadable: it does not know them. Stale: the lineage is gone. Else as for `info`.
        """
        return self._question(Sizes(self.root, path, lineage), SizesReply, wait_s)

    # -- the loop's thread -------------------------------------------------------------------------------

    def claim(self, listed: ListedClaim) -> None:
        """Take what the directory says of the origin: connect to it, or to where it is now."""
        before, self.listed = self.listed, listed
        moved = before is None or before.claim.endpoints != listed.claim.endpoints
        lives_anew = before is not None and before.claim.incarnation != listed.claim.incarnation
        if listed.state in HERE and (moved or self._socket is None):
            self._endpoint = 0
            self._trust()
            self._connect()
        elif lives_anew and self._socket is not None:
            self._trust()
            self._begin()
        if listed.state not in HERE and self.has_catalogue:
            self._settle()

    def farewell(self) -> None:
        """Tell the origin that nothing is given to others here any more."""
        if self._is_tracked:
            self._send(Have(self.root, "", "", ()), 0)

    def send_chunks(self, message: Message, id: int) -> bool:
        """Send a request of the fetcher's."""
        return self._send(message, id)

    def ask(self, message: Message) -> "Future[Any]":
        """Ask the origin; give its answer, which may be an error, when it comes."""
        question = _Question(message, Future())
        self._pose(next(self._around.ids), question)
        return question.answer

    def changes(self, message: Changes) -> None:
        """Take events that the origin published."""
        self._carry_out(self._follower.changes(message, self._around.loop.now_s()))

    def tick(self, now_s: float) -> None:
        """Ping, ask again, notice that the origin went away, connect anew or elsewhere, save."""
        if self._socket is not None:
            self._carry_out(self._follower.tick(now_s))
        is_here = self.is_here()
        if self._was_here and not is_here:
            log.warning("publisher away %s", kv(root=self.root, owner=self.owner[:8]))
            self._lose()
        self._was_here = is_here
        quiet_s = now_s - self._connected_at_s
        if not is_here and self.listed and quiet_s > SILENT_S and (len(self._ways) > 1 or self._is_taking):
            self._endpoint = (self._endpoint + 1) % len(self._ways)
            self._connect()
        if self._saved.is_due(self.stamp, now_s):
            self.save(now_s)

    def save(self, now_s: float) -> None:
        """Keep the catalogue for a start without a network."""
        if self.has_catalogue:
            self._saved.save(Snapshot(self.entries(), *self.stamp, self._follower.take_pages()), now_s)

    def forget(self) -> None:
        """Keep it no longer."""
        self._saved.forget()

    def close(self) -> None:
        """Let go of the origin and fail who waits for it."""
        self._disconnect()
        self.fail(Closed(f"root {self.root} is no longer followed"))

    def fail(self, error: ZcatError) -> None:
        """Fail who waits for an answer or for the catalogue; also after the loop's end."""
        self._fail_questions(error)
        if not self.ready.done():
            self.ready.set_exception(error)

    def _question(self, message: Message, wanted: type[Any], wait_s: float) -> Any:
        question = _Question(message, Future())
        id = next(self._around.ids)
        self._around.loop.post(lambda: self._pose(id, question))
        try:
            reply = question.answer.result(wait_s)
        except WaitedTooLong:
            self._around.loop.post(lambda: self._drop(id))
            raise Timeout(f"the publisher of root {self.root} did not answer within {wait_s:g} s") from None
        except CancelledError:
            raise Closed("the subscriber was closed") from None
        if not isinstance(reply, wanted):
            raise BadMessage(f"asked {message.verb!r}, answered {reply.verb!r}")
        return reply

    def _drop(self, id: int) -> None:
        self._questions.pop(id, None)

    def _pose(self, id: int, question: _Question) -> None:
        if not self.is_here():
            question.answer.set_exception(self.why_away())
            return
        self._questions[id] = question
        self._send(question.message, id)  # what cannot leave now leaves when the origin answers a ping

    def why_away(self) -> Unavailable:
        """Say that the origin cannot be reached, and what the brokers say of it."""
        state = f"its brokers say {self.listed.state!r}" if self.listed else "no broker lists it"
        return Unavailable(f"the publisher of root {self.root} does not answer ({state})")

    def _connect(self) -> None:
        assert self.listed is not None
        self._disconnect()
        claim = self.listed.claim
        self._ways = ways(claim.endpoints, claim.host, claim.owner)
        if not self._ways:
            return
        self._endpoint %= len(self._ways)  # a socket of this host may be gone
        endpoint = self._ways[self._endpoint]
        try:
            self._socket = self._around.sockets.dealer(endpoint)
        except ZcatError as error:
            log.warning("cannot connect to a publisher %s", kv(root=self.root, endpoint=endpoint, reason=error))
            return
        self._around.loop.register(self._socket, self._receive)
        level = logging.INFO if self.is_here() else logging.DEBUG  # again and again
        log.log(level, "connecting %s", kv(root=self.root, owner=self.owner[:8], endpoint=endpoint))
        self._begin()

    def _trust(self) -> None:
        """Take the origin to be here until it should have answered.

        Not when another of its addresses is tried: one that is dead would seem to be here half of the time.
        """
        self._trusted_until_s = self._around.loop.now_s() + self._limits.quiet_after_s
        self._was_here = True

    def _begin(self) -> None:
        """A connection or a life of the origin begins: nothing that it owed will come."""
        now_s = self._around.loop.now_s()
        self._connected_at_s = now_s
        self._is_met = self._is_tracked = False
        self._carry_out(self._follower.connected(now_s))
        for id, question in self._questions.items():
            self._send(question.message, id)
        self._around.fetcher.moved(self.key)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._around.loop.unregister(self._socket)
            self._socket.close(linger=0)
            self._socket = None

    def _ask(self, socket: Socket | None, message: Message, attempts: int = RESENDS_MAX) -> None:
        """Send a question of the follower's; in a moment, if the socket is not connected yet."""
        if socket is not self._socket:
            return  # that conversation is over
        id = next(self._around.ids)
        if isinstance(message, Tree):
            self._tree_id = id
        if self._send(message, id) or not attempts:
            return
        self._around.loop.call_after(RESEND_S, functools.partial(self._ask, socket, message, attempts - 1))

    def _send(self, message: Message, id: int) -> bool:
        self._is_taking = self._socket is not None and send(self._socket, encode(message, id)) is Sent.OK
        return self._is_taking

    def _receive(self, parts: Parts) -> None:
        try:
            received = decode(parts)
        except BadMessage as error:
            question = self._questions.pop(error.request, None) if self._is_met else None
            if question is not None:  # no use in waiting for a better answer
                question.answer.set_exception(error)
            raise
        message, id, now_s = received.message, received.id, self._around.loop.now_s()
        if isinstance(message, Pong):
            self._pong(message, now_s)
            return
        if not self._is_met:
            return  # from somebody else, who has that address now
        self._follower.heard(now_s)
        match message:
            case ChunkReply() | BlocksReply():
                self._around.fetcher.arrived(self.key, id, message)
            case Holders():
                self._around.fetcher.referred(self.key, id, message)
            case TreePage() if id == self._tree_id:  # a late one may not go on where the last one ended
                self._carry_out(self._follower.page(message, now_s))
            case Changes():
                self._carry_out(self._follower.changes(message, now_s))
            case Failed():
                self._failed(id, message, now_s)
            case _:
                question = self._questions.pop(id, None)
                if question is not None:
                    question.answer.set_result(message)

    def _pong(self, pong: Pong, now_s: float) -> None:
        self._is_met = pong.owner == self.owner
        if not self._is_met:
            raise BadMessage(
                f"root {self.root}: wanted the owner {self.owner[:8]}, {pong.owner[:8]} answers there"
            )
        if self.has_catalogue and pong.incarnation != self._follower.incarnation:
            self._around.fetcher.moved(self.key)
        self._track(pong.tracks)
        self._carry_out(self._follower.pong(pong, now_s))
        for id, question in self._questions.items():
            if id < self._asked_id:  # asked before the last ping, so it was lost, or its answer is late
                self._send(question.message, id)
        self._asked_id = max(self._asked_id, next(self._around.ids))

    def _track(self, is_tracking: bool) -> None:
        """Learn whether the origin sends readers to one another, and whether it can send any here."""
        if is_tracking == self._is_tracked:
            return
        self._is_tracked = is_tracking
        assert self.listed is not None
        endpoint = self._ways[self._endpoint]
        if endpoint.startswith("ipc://"):  # others are to find us where they find the origin
            endpoint = next((way for way in self._ways if not way.startswith("ipc://")), endpoint)
        shared_at = self._around.peers.shared_at(endpoint)
        self._around.fetcher.track(self.key, is_tracking, shared_at, is_local_endpoint(endpoint))

    def _failed(self, id: int, failure: Failed, now_s: float) -> None:
        question = self._questions.pop(id, None)
        if question is not None:
            question.answer.set_exception(failure.error)
        elif not self._around.fetcher.failed(self.key, id, failure):
            self._carry_out(self._follower.failed(failure.error, now_s))

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case AskOrigin(message):
                    self._ask(self._socket, message)
                case Updated(paths):
                    self._around.changed(self.key)
                    log.debug("catalogue changed %s", kv(root=self.root, count=len(paths), seq=self.stamp[1]))
                case Synced():
                    incarnation, seq = self.stamp
                    count = len(self)
                    log.info("synced %s", kv(root=self.root, incarnation=incarnation, seq=seq, datasets=count))
                    self._settle()

    def _settle(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _lose(self) -> None:
        error = self.why_away()
        self._fail_questions(error)
        self._around.fetcher.away(self.key, error)
        self._is_tracked = False
        if self.has_catalogue:
            self._settle()

    def _fail_questions(self, error: ZcatError) -> None:
        questions, self._questions = list(self._questions.values()), {}
        for question in questions:
            if not question.answer.done():
                question.answer.set_exception(error)
