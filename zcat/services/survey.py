"""Ask all brokers, and all who are known to them, how they are: what operators see.

Everybody is asked directly: all brokers that are named, then those that these tell of, then all others, each of
these at the same time, with a time limit for all together; who does not answer is shown as silent. Nothing here is
needed for anything to work, and nothing is remembered but for a moment.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from zcat.errors import BadMessage, Timeout, Unavailable, VerbUnknown, ZcatError
from zcat.limits import BROKERS_MAX
from zcat.model.root import Claim
from zcat.names import is_local_endpoint
from zcat.net.asking import Asker
from zcat.net.sockets import Context
from zcat.protocol.directory import HERE as STANDING
from zcat.protocol.directory import LIVE, STALE
from zcat.protocol.messages import Failed, ListedClaim, Listing, Lookup, Message, Ping, Pong, decode, encode
from zcat.protocol.pages import unpaged
from zcat.protocol.status_messages import (
    LINKS,
    QUEUES,
    SUBSCRIBERS,
    LinkState,
    Present,
    QueueState,
    Status,
    StatusPage,
)
from zcat.services.broker_sources import found_at

PATIENCE_S = 2.0
"""For all that are asked at the same time: one that is silent takes no time of those asked after it."""
ASKED_AT_ONCE_MAX = 32
PARTS_MAX = 1000
"""Of one answer, of a directory of the largest size: whoever says `next` for ever is left."""
KEPT_S = 1.0
"""Who looks again sooner sees the same."""

T = TypeVar("T")

_SILENT = "silent"
_HERE = "here"


@dataclass(frozen=True, slots=True)
class BrokerView:
    """One broker."""

    endpoint: str
    """By which it was asked."""
    state: str
    """``here`` or ``silent``."""
    owner: str | None = None
    version: str | None = None
    up_s: float | None = None
    round_trip_s: float | None = None
    seq: int | None = None
    """Of its directory's changes."""
    digest: int | None = None
    """Of its directory: brokers that have the same list the same."""
    problem: str | None = None
    """Why nothing more is known."""
    counts: dict[str, int] = field(default_factory=dict)
    links: tuple[LinkState, ...] = ()
    """The other brokers, as it sees them."""
    queues: tuple[QueueState, ...] = ()
    """Who does not keep up with its events, the furthest behind first."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """A publisher of one root, or a subscriber."""

    kind: str
    """``publisher`` or ``subscriber``."""
    name: str
    """Of the root; of a subscriber's host."""
    owner: str
    state: str
    """Of a publisher: that of its claim, the best that a broker says; of a subscriber: ``here``."""
    endpoints: tuple[str, ...]
    brokers: tuple[str, ...]
    """Endpoints of those that know of it."""
    lease_left_s: float
    """The longest that a broker gives it; negative after its end."""
    contested: bool = False
    incarnation: int | None = None
    seq: int | None = None
    """The highest that a broker lists."""
    lag: int = 0
    """Events by which the broker that is furthest behind is behind that."""
    answers: bool | None = None
    """It answered itself; None if it was not asked."""
    version: str | None = None
    http: str | None = None
    up_s: float | None = None
    round_trip_s: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    links: tuple[LinkState, ...] = ()
    """Brokers, as a publisher sees them."""


class Survey:
    """Asks, for any thread."""

    def __init__(self, context: Context, sources: Callable[[], Sequence[str]], patience_s: float = PATIENCE_S):
        """Prepare.

        Args:
            context: for the sockets.
            sources: tells the brokers to begin with: endpoints, or files of such. These tell of the others.
            patience_s: for the answers of all that are asked at the same time.
        """
        self._context = context
        self._sources = sources
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def brokers(self) -> list[BrokerView]:
        """Ask all brokers how they are."""
        return self._fresh("brokers", lambda: self._each_broker(_ask_broker))

    def peers(self, is_asked: bool = True) -> list[PeerView]:
        """Ask all brokers whom they know, and these, unless ``is_asked`` is false, how they are.

        Raises:
            Unavailable: no broker answers.
        """
        return self._fresh(f"peers {is_asked}", lambda: self._peers(is_asked))

    def _fresh(self, what: str, look: Callable[[], T]) -> T:
        with self._lock:
            looked_at_s, found = self._kept.get(what, (float("-inf"), None))
            if found is None or time.monotonic() > looked_at_s + KEPT_S:
                found = look()
                self._kept[what] = time.monotonic(), found
            result: T = found
            return result

    def _peers(self, is_asked: bool) -> list[PeerView]:
        heard = [known for known in self._each_broker(_ask_known) if known.broker.state == _HERE]
        if not heard:
            raise Unavailable("no broker answers: 'zcat brokers' tells which were asked, and 'zcat check' why")
        peers = [*_publishers(heard), *_subscribers(heard)]
        if not is_asked:
            return peers
        until_s = time.monotonic() + self._patience_s
        # those that brokers doubt are asked last: they would take the time of the others
        order = sorted(peers, key=lambda peer: peer.state not in (LIVE, _HERE))
        answered = self._all(lambda peer: _ask_peer(self._context, peer, until_s), order)
        by_key = {(peer.kind, peer.name, peer.owner): peer for peer in answered}
        return [by_key[peer.kind, peer.name, peer.owner] for peer in peers]

    def _each_broker(self, ask: Callable[[Context, str, float], "Any"]) -> list[Any]:
        """Ask the brokers that are named, then those that these tell of, each once."""
        wanted, asked, found = list(found_at(self._sources())), set[str](), []
        owners: set[str | None] = set()
        while wanted and len(asked) < BROKERS_MAX:
            asked |= set(wanted)
            until_s = time.monotonic() + self._patience_s
            told: dict[str, None] = {}
            for answer in self._all(partial(_asked, ask, self._context, until_s), wanted):
                broker = answer if isinstance(answer, BrokerView) else answer.broker
                if broker.owner is not None and broker.owner in owners:
                    continue
                owners.add(broker.owner)
                found.append(answer)
                told |= dict.fromkeys(
                    link.endpoint
                    for link in broker.links
                    if is_local_endpoint(broker.endpoint) or not is_local_endpoint(link.endpoint)
                )
            wanted = [endpoint for endpoint in told if endpoint not in asked]
        return found

    def _all(self, ask: Callable[[Any], T], wanted: Sequence[Any]) -> list[T]:
        with ThreadPoolExecutor(min(ASKED_AT_ONCE_MAX, max(1, len(wanted)))) as threads:
            return list(threads.map(ask, wanted))


def as_json(view: BrokerView | PeerView) -> dict[str, Any]:
    """Give a view as plain values."""
    return dataclasses.asdict(view)


# -- one at a time -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    """What one broker knows of others."""

    broker: BrokerView
    claims: tuple[ListedClaim, ...] = ()
    present: tuple[Present, ...] = ()


def _asked(ask: Callable[[Context, str, float], T], context: Context, until_s: float, endpoint: str) -> T:
    return ask(context, endpoint, until_s)


def _ask_broker(context: Context, endpoint: str, until_s: float) -> BrokerView:
    """Ask one broker; an older one, which does not answer `Status`, tells less."""
    try:
        with Asker(context, endpoint) as asker:
            pong, round_trip_s = _ping(asker, until_s)
            broker = BrokerView(
                endpoint, _HERE, pong.owner, pong.version, None, round_trip_s, pong.seq, pong.digest
            )
            if pong.service != "broker":
                return replace(broker, problem=f"it is a {pong.service}, and no broker")
            try:
                status, links = _section(asker, LINKS, LinkState, until_s)
                _, queues = _section(asker, QUEUES, QueueState, until_s)
            except VerbUnknown:
                links = [LinkState(each.endpoint, _HERE, 0.0, each.owner) for each in pong.neighbours]
                return replace(broker, links=tuple(links), problem="too old to tell more")
            counts = {count.name: count.value for count in status.counts}
            return replace(broker, up_s=status.up_s, counts=counts, links=tuple(links), queues=tuple(queues))
    except ZcatError as error:
        return BrokerView(endpoint, _SILENT, problem=error.message.removeprefix(f"{endpoint}: "))


def _ask_known(context: Context, endpoint: str, until_s: float) -> _Known:
    """Ask one broker whom it knows."""
    broker = _ask_broker(context, endpoint, until_s)
    if broker.state != _HERE or (broker.problem and not broker.links):
        return _Known(broker)
    try:
        with Asker(context, endpoint) as asker:
            claims = list(_parts(asker, Lookup(), ListedClaim, until_s))
            try:
                _, present = _section(asker, SUBSCRIBERS, Present, until_s)
            except VerbUnknown:
                present = []
            return _Known(broker, tuple(claims), tuple(present))
    except ZcatError as error:
        return _Known(replace(broker, problem=error.message))


def _ask_peer(context: Context, peer: PeerView, until_s: float) -> PeerView:
    """Ask a publisher, or a subscriber that answers peers, about itself."""
    if not peer.endpoints or time.monotonic() >= until_s:
        return peer
    try:
        with Asker(context, peer.endpoints[0]) as asker:
            pong, round_trip_s = _ping(asker, until_s)
            if pong.owner != peer.owner:
                return replace(peer, answers=False)
            told = replace(peer, answers=True, version=pong.version, round_trip_s=round_trip_s)
            try:
                status, links = _section(asker, LINKS, LinkState, until_s)
            except VerbUnknown:
                return told
            counts = {**peer.counts, **{count.name: count.value for count in status.counts}}
            return replace(told, up_s=status.up_s, counts=counts, links=tuple(links))
    except ZcatError:
        return replace(peer, answers=False)


def _publishers(heard: Sequence[_Known]) -> list[PeerView]:
    """Make of what brokers list one line for each claim, in order of root and owner."""
    listed: dict[tuple[str, str], list[tuple[BrokerView, ListedClaim]]] = {}
    for known in heard:
        for claim in known.claims:
            listed.setdefault(claim.claim.key, []).append((known.broker, claim))
    standing: dict[str, set[str]] = {}
    for (root, owner), seen in listed.items():
        if any(each.state in STANDING for _, each in seen):
            standing.setdefault(root, set()).add(owner)
    return [_publisher(seen, len(standing.get(key[0], ())) > 1) for key, seen in sorted(listed.items())]


def _publisher(seen: Sequence[tuple[BrokerView, ListedClaim]], is_contested: bool) -> PeerView:
    newest: Claim = max((each.claim for _, each in seen), key=lambda claim: claim.stamp)
    states = {each.state for _, each in seen}
    same_life = [each.claim.seq for _, each in seen if each.claim.incarnation == newest.incarnation]
    state = next((state for state in (LIVE, STALE) if state in states), sorted(states)[0])
    return PeerView(
        kind="publisher",
        name=newest.root,
        owner=newest.owner,
        state=state,
        endpoints=newest.endpoints,
        brokers=tuple(broker.endpoint for broker, _ in seen),
        lease_left_s=max(each.claim.lease_s - each.age_s for _, each in seen),
        contested=is_contested and state in STANDING,
        incarnation=newest.incarnation,
        seq=newest.seq,
        lag=max(same_life) - min(same_life),
    )


def _subscribers(heard: Sequence[_Known]) -> list[PeerView]:
    """Make one line for each reader; two brokers know one for a moment after it changed from one to the other."""
    newest: dict[str, tuple[BrokerView, Present]] = {}
    for known in heard:
        for present in known.present:
            held = newest.get(present.presence.owner)
            if held is None or present.age_s < held[1].age_s:
                newest[present.presence.owner] = known.broker, present
    views = [_subscriber(broker, present) for broker, present in newest.values()]
    return sorted(views, key=lambda view: (view.name, view.owner))


def _subscriber(broker: BrokerView, present: Present) -> PeerView:
    presence = present.presence
    return PeerView(
        kind=presence.service,
        name=presence.host,
        owner=presence.owner,
        state=_HERE,
        endpoints=presence.endpoints,
        brokers=(broker.endpoint,),
        lease_left_s=presence.lease_s - present.age_s,
        version=presence.version,
        http=presence.http,
        counts={count.name: count.value for count in presence.counts},
    )


# -- questions ---------------------------------------------------------------------------------------


def _ping(asker: Asker, until_s: float) -> tuple[Pong, float]:
    """Return the answer and the round trip, without the time that connecting took."""
    _answer(asker, Ping(), until_s)
    begun_s = time.monotonic()
    pong = _answer(asker, Ping(), until_s)
    if not isinstance(pong, Pong):
        raise BadMessage(f"{asker.endpoint}: asked 'ping', answered {pong.verb!r}")
    return pong, time.monotonic() - begun_s


def _section(asker: Asker, name: str, item: type[T], until_s: float) -> tuple[StatusPage, list[T]]:
    items: list[T] = []
    after: str | None = ""
    for _ in range(PARTS_MAX):
        page = _answer(asker, Status(name, after or ""), until_s)
        if not isinstance(page, StatusPage):
            raise BadMessage(f"{asker.endpoint}: asked 'status', answered {page.verb!r}")
        items += unpaged(item, page.pages)
        after = page.next
        if after is None:
            return page, items
    raise BadMessage(f"{asker.endpoint}: a status without an end")


def _parts(asker: Asker, lookup: Lookup, item: type[T], until_s: float) -> Iterable[T]:
    for _ in range(PARTS_MAX):
        listing = _answer(asker, lookup, until_s)
        if not isinstance(listing, Listing):
            raise BadMessage(f"{asker.endpoint}: asked 'lookup', answered {listing.verb!r}")
        yield from unpaged(item, listing.pages)
        if listing.next is None:
            return
        lookup = Lookup(lookup.root, listing.next)


def _answer(asker: Asker, message: Message, until_s: float) -> Message:
    """Ask, and return what answers it.

    Raises:
        Timeout: nothing did.
        ZcatError: that it failed.
    """
    if time.monotonic() >= until_s:
        raise Timeout(f"{asker.endpoint}: no time left to ask")
    id = next(asker.ids)
    asker.send(encode(message, id), until_s)
    while True:
        received = decode(asker.receive(until_s))
        if received.id != id:
            continue
        if isinstance(received.message, Failed):
            raise received.message.error
        answer: Message = received.message
        return answer
