import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import zmq

from zcat.config import BrokerConfig
from zcat.errors import AddressInUse, Closed
from zcat.model.root import Claim
from zcat.net.sockets import Context, local_endpoint, make_context
from zcat.protocol.announcer import Announcer
from zcat.protocol.brokers import DIRECTORY_TOPIC, SendTo, reached_by
from zcat.protocol.messages import (
    Announce,
    DirectoryChanged,
    Failed,
    Granted,
    ListedClaim,
    Listing,
    Lookup,
    Ping,
    Pong,
    Renew,
    Tree,
    decode,
    encode,
)
from zcat.protocol.pages import unpaged
from zcat.services.broker import Broker

WAIT_MS = 10_000
FREE_TCP = BrokerConfig(listen="tcp://127.0.0.1:0")
OWNER = "a" * 32


def claim(root: str = "sst", owner: str = OWNER, seq: int = 0) -> Claim:
    return Claim(root, owner, ("tcp://h:1",), 1, seq, 20.0)


@pytest.fixture
def context() -> Iterator[Context]:
    context = make_context()
    yield context
    context.destroy(linger=0)


@contextmanager
def running(config: BrokerConfig, context: Context | None = None) -> Iterator[Broker]:
    broker = Broker(config, context)
    broker.start()
    try:
        yield broker
    finally:
        broker.close()


class Peer:
    """A client socket that waits for each answer."""

    def __init__(self, context: Context, endpoint: str, kind: int = zmq.DEALER) -> None:
        self.socket = context.socket(kind)
        self.socket.set(zmq.RCVTIMEO, WAIT_MS)
        self.socket.connect(endpoint)

    def ask(self, message: object, id: int = 5) -> object:
        self.socket.send_multipart(encode(message, id))  # type: ignore[arg-type]
        received = decode(self.socket.recv_multipart())
        assert received.id == id
        return received.message

    def listed(self, root: str | None = None) -> list[ListedClaim]:
        listed: list[ListedClaim] = []
        after: str | None = ""
        while after is not None:
            listing = self.ask(Lookup(root, after))
            assert isinstance(listing, Listing)
            listed += unpaged(ListedClaim, listing.pages)
            after = listing.next
        return listed


def heard(sub: zmq.Socket[bytes]) -> DirectoryChanged:
    topic, *frames = sub.recv_multipart()
    assert topic == DIRECTORY_TOPIC
    message = decode(frames).message
    assert isinstance(message, DirectoryChanged)
    return message


@contextmanager
def joined(context: Context, egress: str, peer: Peer) -> Iterator[zmq.Socket[bytes]]:
    """Give a SUB that hears the broker: since joining takes a while, claims are made until one is heard."""
    with context.socket(zmq.SUB) as sub:
        sub.connect(egress)
        sub.subscribe(DIRECTORY_TOPIC)
        sub.set(zmq.RCVTIMEO, 50)
        for seq in range(200):
            peer.ask(Announce(claim("joined", seq=seq)))
            if sub.poll(50):
                break
        while sub.poll(50):
            sub.recv_multipart()
        sub.set(zmq.RCVTIMEO, WAIT_MS)
        yield sub


@pytest.mark.parametrize("transport", ["tcp", "inproc"])
def test_what_is_announced_is_granted_listed_and_heard_by_subscribers(transport: str, context: Context) -> None:
    config = FREE_TCP if transport == "tcp" else BrokerConfig(listen=local_endpoint("broker"))
    with running(config, context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        pong = peer.ask(Ping())
        assert isinstance(pong, Pong)
        assert (pong.service, pong.owner) == ("broker", broker.owner)
        egress = reached_by(pong.egress or "", broker.endpoints.listen)
        assert egress == broker.endpoints.egress
        with joined(context, egress, peer) as sub:
            assert peer.ask(Announce(claim())) == Granted(known=True, incarnation=1)
            change = heard(sub)
            assert (change.broker, change.listed.claim, change.listed.state) == (broker.owner, claim(), "live")
            peer.ask(Announce(replace(claim(seq=1), deleted=True)))
            assert heard(sub).listed.state == "withdrawn"
        assert [each.state for each in peer.listed("sst")] == ["withdrawn"]
        assert peer.ask(Renew("other", OWNER, 1, 0)) == Granted(known=False, incarnation=0)
        later = peer.ask(Ping())
        assert isinstance(later, Pong)
        assert later.seq == change.seq + 1


def test_events_of_publishers_reach_the_subscribers_of_their_topic(context: Context) -> None:
    with (
        running(BrokerConfig(listen=local_endpoint("broker")), context) as broker,
        context.socket(zmq.XPUB) as publisher,
        context.socket(zmq.SUB) as sub,
    ):
        publisher.set(zmq.RCVTIMEO, WAIT_MS)
        sub.set(zmq.RCVTIMEO, WAIT_MS)
        publisher.connect(broker.endpoints.ingress)
        sub.connect(broker.endpoints.egress)
        sub.subscribe(b"root/sst")
        assert publisher.recv() == b"\x01root/sst"  # the subscription has come through
        publisher.send_multipart([b"root/other", b"no"])
        publisher.send_multipart([b"root/sst", b"yes"])
        assert sub.recv_multipart() == [b"root/sst", b"yes"]


def test_a_plain_req_socket_is_answered_whatever_it_asks(context: Context) -> None:
    with running(FREE_TCP, context) as broker:
        req = Peer(context, broker.endpoints.listen, zmq.REQ)
        assert isinstance(req.ask(Ping()), Pong)
        assert req.ask(Announce(claim())) == Granted(known=True, incarnation=1)
        assert [each.claim for each in req.listed()] == [claim()]
        req.socket.send(b"hello?")
        answer = decode(req.socket.recv_multipart()).message
        assert isinstance(answer, Failed)
        assert answer.code == "bad-message"
        assert isinstance(req.ask(Ping()), Pong)


def test_verbs_that_are_unknown_or_not_a_brokers_are_refused_with_their_id(context: Context) -> None:
    with running(FREE_TCP, context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        dance = encode(Ping(), 9)[1].replace(b"ping", b"polk")  # type: ignore[union-attr]
        peer.socket.send_multipart([b"zcat1", dance])
        received = decode(peer.socket.recv_multipart())
        assert (received.id, received.message.code) == (9, "verb-unknown")
        refused = peer.ask(Tree("sst"))
        assert isinstance(refused, Failed)
        assert refused.code == "verb-unknown"


def test_garbage_is_counted_and_survived(context: Context) -> None:
    random_bytes = random.Random(1).randbytes
    garbage = [
        [b""],
        [b"", b""],
        [b"zcat1"],
        [b"zcat2", encode(Ping())[1]],
        [b"zcat1", b"\xc1"],
        [b"zcat1", b"\x80"],
        [b"zcat1", random_bytes(300)],
        [random_bytes(40)] * 70,
        [b""] * 5000,
        *([random_bytes(8), random_bytes(60)] for _ in range(100)),
        encode(Failed("busy", "an answer nobody asked for")),
    ]
    with running(FREE_TCP, context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        other = Peer(context, broker.endpoints.listen)
        for parts in garbage:
            other.socket.send_multipart(parts)  # type: ignore[arg-type]
        other.socket.send_multipart(encode(Ping(), 1))
        while b"pong" not in other.socket.recv_multipart()[-1]:
            pass  # what was refused and answered before it
        assert isinstance(peer.ask(Ping()), Pong)
        stats = broker.stats()
        assert stats["bad_messages"] == len(garbage)
        assert stats["errors"] == 0


def test_a_full_directory_says_busy_and_hostile_claims_are_refused(context: Context) -> None:
    with running(replace(FREE_TCP, records_max=1), context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        peer.ask(Announce(claim("a")))
        busy = peer.ask(Announce(claim("b")))
        large = peer.ask(Announce(replace(claim("a"), endpoints=("tcp://host:1",) * 3000)))
        assert [each.code for each in (busy, large) if isinstance(each, Failed)] == ["busy", "too-large"]
        assert broker.stats()["live"] == 1


def test_a_long_directory_is_told_in_parts(context: Context) -> None:
    with running(BrokerConfig(listen=local_endpoint("broker")), context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        wide = ("tcp://" + "h" * 4000 + ":1",)
        for number in range(900):
            peer.ask(Announce(replace(claim(f"r{number:04}"), endpoints=wide)))
        first = peer.ask(Lookup())
        assert isinstance(first, Listing)
        assert first.next is not None
        assert [each.claim.root for each in peer.listed()] == [f"r{number:04}" for number in range(900)]


def test_two_brokers_of_one_process_are_both_told_by_one_announcer(context: Context) -> None:
    with running(FREE_TCP, context) as one, running(FREE_TCP) as other:
        peers = [Peer(context, broker.endpoints.listen) for broker in (one, other)]
        announcer = Announcer(claim(), 2, 0.0, random.random)
        for effect in announcer.tick(0.0):
            assert isinstance(effect, SendTo)
            answer = peers[effect.broker].ask(effect.message, effect.id)
            assert isinstance(answer, Granted)
            announcer.answered(effect.broker, answer, effect.id, 0.1)
        assert announcer.listed_count == 2
        assert [peer.listed()[0].claim for peer in peers] == [claim(), claim()]


def test_a_lease_that_is_not_renewed_is_heard_to_lapse(context: Context) -> None:
    config = BrokerConfig(listen=local_endpoint("broker"), lease_min_s=0.2, lease_max_s=0.2)
    with running(config, context) as broker:
        peer = Peer(context, broker.endpoints.listen)
        with joined(context, broker.endpoints.egress, peer) as sub:
            peer.ask(Announce(claim()))
            changes = {
                (change.listed.claim.root, change.listed.state) for change in (heard(sub) for _ in range(3))
            }
            assert ("sst", "lapsed") in changes


def test_an_endpoint_that_is_taken_is_said_so_and_nothing_is_left_behind(context: Context) -> None:
    with running(FREE_TCP, context) as first, pytest.raises(AddressInUse, match="choose another port"):
        Broker(replace(FREE_TCP, egress=first.endpoints.listen))


def test_a_closed_broker_gives_everything_back(context: Context) -> None:
    threads = threading.active_count()
    with running(FREE_TCP) as broker:
        listen = broker.endpoints.listen
    broker.close()
    assert threading.active_count() == threads
    with pytest.raises(Closed):
        broker.stats()
    with running(replace(FREE_TCP, listen=listen)):
        pass


@pytest.mark.parametrize(
    ("listen", "advertise", "announced"),
    [
        ("tcp://127.0.0.1:0", None, "tcp://*:"),
        ("tcp://127.0.0.1:0", "node7.cluster", "tcp://node7.cluster:"),
    ],
)
def test_the_host_that_is_announced_is_the_operators_word_or_left_to_the_other_side(
    listen: str, advertise: str | None, announced: str, context: Context
) -> None:
    with running(BrokerConfig(listen=listen, advertise=advertise)) as broker:
        pong = Peer(context, broker.endpoints.listen).ask(Ping())
        assert isinstance(pong, Pong)
        assert (pong.ingress or "").startswith(announced)
        assert (pong.egress or "").startswith(announced)
