import gc
import os
import threading
import time
from contextlib import ExitStack, contextmanager

import blosc2
import msgpack
import numpy as np
import pytest
import zmq

from zcat.config import BrokerConfig, PublisherConfig
from zcat.errors import AddressInUse, BadConfig, BadName, CacheInUse
from zcat.model.dataset import Entry
from zcat.net.sockets import local_endpoint, make_context
from zcat.protocol.compare_messages import Compare, Compared
from zcat.protocol.messages import (
    MAGIC,
    Announce,
    Change,
    Changes,
    ChunkReply,
    Chunks,
    Events,
    Failed,
    Info,
    InfoReply,
    Lookup,
    Ping,
    Pong,
    Sizes,
    SizesReply,
    Tree,
    TreePage,
    decode,
    encode,
)
from zcat.protocol.pages import unpaged
from zcat.services.advertised import _own_address, advertised, check_reachable, listening
from zcat.services.broker import Broker
from zcat.services.publisher import Publisher
from zcat.storage.chunk_gate import digest

WAIT_MS = 10_000
LONG_AGO_NS = 1_700_000_000_000_000_000
KIB, MIB = 1 << 10, 1 << 20

OUTWARDS = _own_address(())
"""This host's address, as others have it."""


@pytest.fixture
def context():
    made = make_context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


def write_array(path, values, at_ns=LONG_AGO_NS, **options):
    """Put a whole array in place by rename, as if it had been written long ago."""
    aside = path.with_name(f".{path.name}")
    made = blosc2.asarray(np.asarray(values), urlpath=str(aside), mode="w", **options)
    del made
    os.utime(aside, ns=(at_ns, at_ns))
    aside.rename(path)
    return path


@contextmanager
def publishing(folder, context=None, **changes):
    defaults = {"root": "sst", "path": str(folder), "state": str(folder.parent / "state"), "brokers": ()}
    publisher = Publisher(PublisherConfig(**{**defaults, "quota_bytes": 64 * MIB, **changes}), context)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close()


class Peer:
    """A raw socket that asks and waits."""

    def __init__(self, context, publisher, kind=zmq.DEALER):
        self.socket = context.socket(kind)
        self.socket.set(zmq.RCVTIMEO, WAIT_MS)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(publisher.ready.endpoints[0])
        self.ids = iter(range(1, 1 << 30))

    def say(self, message):
        id = next(self.ids)
        self.socket.send_multipart(encode(message, id))
        return id

    def hear(self):
        return decode(self.socket.recv_multipart())

    def ask(self, message):
        id = self.say(message)
        received = self.hear()
        assert received.id == id
        return received.message

    def tree(self):
        page = self.ask(Tree("sst"))
        assert isinstance(page, TreePage)
        assert page.next is None
        return {entry.path: entry for entry in unpaged(Entry, page.pages)}, page

    def chunks(self, path, lineage, numbers, bulk=False):
        id = self.say(Chunks("sst", path, lineage, tuple(numbers), bulk))
        answers = [self.hear() for _ in numbers]
        assert {answer.id for answer in answers} == {id}
        return [answer.message for answer in answers]

    def events_until(self, page, wanted):
        """Ask for the events after a tree until one of them is as wanted."""
        since, deadline_s = page.seq, time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline_s:
            changes = self.ask(Events("sst", page.incarnation, since))
            assert isinstance(changes, Changes)
            seen = unpaged(Change, changes.pages)
            for change in seen:
                if wanted(change):
                    return change
            self.socket.poll(10)
        raise AssertionError(f"the event did not come; the last ones were {seen}")


@pytest.mark.parametrize("transport", ["tcp", "inproc", "ipc"])
def test_a_catalogue_an_info_and_chunks(folder, context, tmp_path, transport):
    values = np.arange(60_000, dtype="<f4").reshape(600, 100)
    write_array(folder / "a.b2nd", values, chunks=(100, 100), blocks=(50, 100))
    (folder / "notes.txt").write_text("hello")
    os.utime(folder / "notes.txt", ns=(LONG_AGO_NS, LONG_AGO_NS))
    listen = {"tcp": "tcp://127.0.0.1:0", "inproc": local_endpoint("p"), "ipc": f"ipc://{tmp_path}/p"}[transport]
    with publishing(folder, context, listen=listen) as publisher:
        peer = Peer(context, publisher)
        entries, page = peer.tree()

        assert sorted(entries) == ["a.b2nd", "notes.txt"]
        assert (page.root, page.owner, page.seq) == ("sst", publisher.ready.owner, 0)
        reply = peer.ask(Info("sst", "a.b2nd"))
        assert isinstance(reply, InfoReply)
        info = reply.info()
        assert info.entry == entries["a.b2nd"]
        chunks = {reply.nchunk: reply for reply in peer.chunks("a.b2nd", info.entry.lineage, range(6))}
        for n in range(6):
            data = chunks[n].data[0]
            assert digest(data) == chunks[n].digest
            assert blosc2.decompress2(data) == values[n * 100 : n * 100 + 100].tobytes()
        (text,) = peer.chunks("notes.txt", entries["notes.txt"].lineage, [0])
        assert blosc2.decompress2(text.data[0]) == b"hello"
        sizes = peer.ask(Sizes("sst", "a.b2nd", info.entry.lineage))
        assert isinstance(sizes, SizesReply)
        assert np.frombuffer(sizes.sizes[0], "<i4").tolist() == [len(chunks[n].data[0]) for n in range(6)]
        named = b"".join(chunks[n].digest if n != 4 else bytes(32) for n in (1, 4, 5))
        compared = peer.ask(Compare("sst", "a.b2nd", info.entry.lineage, (1, 4, 5), (named,)))
        assert compared == Compared(info.entry.lineage, (1, 5))
        assert peer.ask(Compare("sst", "a.b2nd", "0" * 32, (1,), (bytes(32),))).code == "stale"
        assert publisher.stats()["answers"] >= 9


def test_a_plain_req_socket_is_answered(folder, context):
    write_array(folder / "a.b2nd", np.arange(100), chunks=(10,))
    with publishing(folder) as publisher:
        peer = Peer(context, publisher, zmq.REQ)
        entries, _ = peer.tree()
        lineage = entries["a.b2nd"].lineage

        (reply,) = peer.chunks("a.b2nd", lineage, [3])
        refused = peer.ask(Chunks("sst", "a.b2nd", lineage, (1, 2)))
        after = peer.ask(Ping())

        assert blosc2.decompress2(reply.data[0]) == np.arange(30, 40).tobytes()
        assert (refused.code, after.service) == ("bad-request", "publisher")


def test_a_chunk_that_is_asked_for_twice_in_one_request_is_given_once(folder, context):
    write_array(folder / "a.b2nd", np.arange(100), chunks=(10,))
    with publishing(folder) as publisher:
        peer = Peer(context, publisher)
        entries, _ = peer.tree()
        peer.say(Chunks("sst", "a.b2nd", entries["a.b2nd"].lineage, (3, 5, 3)))
        assert {peer.hear().message.nchunk for _ in range(2)} == {3, 5}
        assert isinstance(peer.ask(Ping()), Pong)  # nothing else is on its way


def test_a_failure_is_not_answered(folder, context):
    with publishing(folder) as publisher:
        peer = Peer(context, publisher)
        peer.say(Failed("stale", "what?"))
        assert isinstance(peer.ask(Ping()), Pong)


def test_a_ping_says_who_answers_and_how_far_it_is(folder, context):
    with publishing(folder) as publisher:
        pong = Peer(context, publisher).ask(Ping())

    assert isinstance(pong, Pong)
    assert (pong.service, pong.incarnation, pong.seq) == ("publisher", 1, 0)


def test_each_start_is_a_new_life_of_the_same_owner(folder, context):
    with publishing(folder) as publisher:
        first = Peer(context, publisher).ask(Ping())
    with publishing(folder) as publisher:
        second = Peer(context, publisher).ask(Ping())

    assert second.owner == first.owner
    assert second.incarnation > first.incarnation


def test_what_cannot_be_answered_says_why(folder, context):
    path = write_array(folder / "a.b2nd", np.arange(100), chunks=(10,))
    (folder / "cut.b2nd").write_bytes(path.read_bytes()[:150])
    os.utime(folder / "cut.b2nd", ns=(LONG_AGO_NS, LONG_AGO_NS))
    with publishing(folder) as publisher:
        peer = Peer(context, publisher)
        entries, page = peer.tree()
        lineage = entries["a.b2nd"].lineage
        claim = Announce(publisher._claim())

        asked = {
            "dataset-unknown": [Info("sst", "b"), Info("sst", "../a"), Chunks("sst", "b", lineage, (0, 1))],
            "root-unknown": [Tree("other"), Info("other", "a.b2nd")],
            "verb-unknown": [claim, Lookup()],
            "bad-selection": [
                Chunks("sst", "a.b2nd", lineage, (10,)),
                Chunks("sst", "a.b2nd", lineage, (1 << 40,)),
            ],
            "stale": [
                Chunks("sst", "a.b2nd", "0" * 32, (0,)),
                Events("sst", page.incarnation + 1, 0),
                Events("sst", page.incarnation, 5),
            ],
            "bad-content": [Info("sst", "cut.b2nd"), Chunks("sst", "cut.b2nd", entries["cut.b2nd"].lineage, (0,))],
        }

        assert "cut" in entries["cut.b2nd"].problem
        for code, messages in asked.items():
            for message in messages:
                failed = peer.ask(message)
                assert isinstance(failed, Failed)
                assert (code, message) == (failed.code, message), failed
        assert peer.ask(Info("sst", "a.b2nd")).entry.path == "a.b2nd"


def test_garbage_is_answered_or_dropped_and_never_stops_the_rest(folder, context):
    write_array(folder / "a.b2nd", np.arange(100))
    garbage = [
        [b"GET / HTTP/1.1"],
        [b"zcat9", msgpack.packb({"verb": "ping"})],
        [MAGIC, b"\xc1"],
        [MAGIC, msgpack.packb([1])],
        [MAGIC, msgpack.packb({"verb": "tree", "root": 5})],
        [MAGIC, msgpack.packb({"verb": "chunks", "root": "sst", "path": "a", "lineage": "0", "chunks": []})],
        [MAGIC, b"\x90" * 60_000],
        [b""],
        [b"", b""],
        [MAGIC] * 300,
    ]
    with publishing(folder) as publisher:
        peer, other = Peer(context, publisher), Peer(context, publisher)
        for frames in garbage:
            peer.socket.send_multipart(frames)
        peer.socket.send_multipart([MAGIC, msgpack.packb({"verb": "sing", "id": 7})])

        def heard():  # an answer to what looked like a REQ's has an empty frame in front
            frames = peer.socket.recv_multipart()
            return decode(frames[1:] if frames[0] == b"" else frames)

        while (received := heard()).id != 7:
            assert received.message.code == "bad-message"
        assert received.message.code == "verb-unknown"
        assert "a.b2nd" in other.tree()[0]


def test_what_is_added_changed_or_removed_is_an_event(folder, context):
    write_array(folder / "old.b2nd", np.arange(10))
    with publishing(folder, settle_s=0.02, poll_s=0.2) as publisher:
        peer = Peer(context, publisher)
        entries, page = peer.tree()

        write_array(folder / "new.b2nd", np.arange(20))
        added = peer.events_until(page, lambda change: change.path == "new.b2nd")
        write_array(folder / "old.b2nd", np.arange(30))
        changed = peer.events_until(page, lambda change: change.path == "old.b2nd")
        (folder / "new.b2nd").unlink()
        peer.events_until(page, lambda change: change == Change("new.b2nd"))

        assert added.entry.shape == (20,)
        assert changed.entry.shape == (30,)
        (failed,) = peer.chunks("old.b2nd", entries["old.b2nd"].lineage, [0])
        assert failed.code == "stale"
        assert list(peer.tree()[0]) == ["old.b2nd"]
        assert peer.tree()[1].seq == publisher.stats()["seq"] == peer.ask(Ping()).seq >= 3


def test_a_file_is_announced_when_it_is_no_longer_written_to(folder, context):
    with publishing(folder, settle_s=0.05) as publisher:
        peer = Peer(context, publisher)
        _, page = peer.tree()

        (folder / "now.txt").write_text("just now")

        assert peer.events_until(page, lambda change: change.path == "now.txt").entry.nbytes == 8


def test_a_new_version_is_found_by_a_reader_before_the_disk_tells(folder, context):
    write_array(folder / "a.b2nd", np.arange(10))
    with publishing(folder) as publisher:
        publisher._root._watcher.stop()  # as on a network file system between two polls
        peer = Peer(context, publisher)
        entries, page = peer.tree()
        write_array(folder / "a.b2nd", np.arange(20))

        (failed,) = peer.chunks("a.b2nd", entries["a.b2nd"].lineage, [0])

        assert failed.code == "stale"
        assert peer.events_until(page, lambda change: change.path == "a.b2nd").entry.shape == (20,)


def test_links_out_of_the_root_and_fifos_are_not_served(folder, context, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.b2nd")
    with publishing(folder) as publisher:
        peer = Peer(context, publisher)

        assert peer.tree()[0] == {}
        for path in ("out.txt", "up/secret.txt", "pipe.b2nd", "../secret.txt", "/etc/passwd"):
            assert peer.ask(Info("sst", path)).code == "dataset-unknown"


def test_a_peer_that_stopped_reading_holds_a_bounded_amount_and_others_go_on(folder, context):
    values = np.random.default_rng(0).integers(0, 255, (64, MIB), "u1")
    write_array(folder / "a.b2nd", values, chunks=(1, MIB))
    with publishing(folder, peer_bytes=4 * MIB) as publisher:
        stopped, reading = Peer(context, publisher), Peer(context, publisher)
        stopped.socket.set(zmq.RCVHWM, 1)
        lineage = reading.tree()[0]["a.b2nd"].lineage
        slow = context.socket(zmq.DEALER)
        slow.set(zmq.RCVHWM, 1)
        slow.set(zmq.RCVBUF, 64 * KIB)
        slow.connect(publisher.ready.endpoints[0])
        for _ in range(8):
            slow.send_multipart(encode(Chunks("sst", "a.b2nd", lineage, tuple(range(64))), 1))

        for nchunk in range(64):
            (reply,) = reading.chunks("a.b2nd", lineage, [nchunk])
            assert isinstance(reply, ChunkReply)

        stats = publisher.stats()
        assert stats["jobs_waiting"] > 300
        assert stats["held_bytes"] < 4 * MIB + 10 * MIB


def test_a_peer_that_asks_for_too_much_is_told_to_wait(folder, context):
    write_array(folder / "a.b2nd", np.zeros((1024, 1000)), chunks=(1, 1000))
    with publishing(folder, peer_bytes=1) as publisher:
        peer = Peer(context, publisher)
        lineage = peer.tree()[0]["a.b2nd"].lineage
        for _ in range(20):
            peer.say(Chunks("sst", "a.b2nd", lineage, tuple(range(1024))))

        replies = []
        while not any(isinstance(reply, Failed) for reply in replies):
            replies.append(peer.hear().message)

        assert replies[-1].code == "busy"
        assert publisher.stats()["refused_busy"] >= 1


def test_a_peer_that_is_gone_is_forgotten(folder, context):
    write_array(folder / "a.b2nd", np.random.default_rng(0).normal(size=(64, 1000, 100)), chunks=(1, 1000, 100))
    with publishing(folder, peer_bytes=MIB) as publisher:
        leaving, staying = Peer(context, publisher), Peer(context, publisher)
        lineage = staying.tree()[0]["a.b2nd"].lineage
        for _ in range(30):
            leaving.say(Chunks("sst", "a.b2nd", lineage, tuple(range(64))))
        leaving.hear()
        leaving.socket.close(linger=0)

        deadline_s = time.monotonic() + 10
        while publisher.stats()["jobs_waiting"] and time.monotonic() < deadline_s:
            staying.chunks("a.b2nd", lineage, [0])

        assert publisher.stats()["jobs_waiting"] == 0


def test_a_root_is_listed_followed_and_withdrawn(folder, context):
    write_array(folder / "a.b2nd", np.arange(10))
    with ExitStack() as stack:
        brokers = [Broker(BrokerConfig(listen="tcp://127.0.0.1:0")) for _ in range(2)]
        for broker in brokers:
            broker.start()
            stack.callback(broker.close)
        endpoints = tuple(broker.endpoints.listen for broker in brokers)
        dead = "tcp://127.0.0.1:9"
        publisher = stack.enter_context(publishing(folder, brokers=(*endpoints, dead), settle_s=0.02))
        wait_until(lambda: publisher.stats()["brokers_listing"] == 2)
        subs = [context.socket(zmq.SUB) for _ in brokers]
        for sub, broker in zip(subs, brokers, strict=True):
            sub.set(zmq.RCVTIMEO, 100)
            sub.subscribe(f"root/sst/{publisher.ready.owner}/")
            sub.connect(broker.endpoints.egress)
        for sub in subs:
            heard, number = None, 0
            while heard is None and number < 100:  # until the subscription has reached the publisher
                write_array(folder / "a.b2nd", np.arange(10), at_ns=LONG_AGO_NS + (number := number + 1))
                with_timeout = sub.recv_multipart() if sub.poll(100) else None
                heard = with_timeout and decode(with_timeout[1:]).message
            assert isinstance(heard, Changes)
            assert unpaged(Change, heard.pages)[0].path == "a.b2nd"
            assert heard.owner == publisher.ready.owner

        began_s = time.monotonic()
        publisher.close()

        assert time.monotonic() - began_s < 2
        for endpoint in endpoints:
            asker = context.socket(zmq.DEALER)
            asker.connect(endpoint)
            asker.send_multipart(encode(Lookup("sst"), 1))
            listing = decode(asker.recv_multipart()).message
            assert b"withdrawn" in b"".join(listing.pages)


def test_a_lost_counter_goes_above_what_brokers_remember(folder, context):
    with ExitStack() as stack:
        broker = Broker(BrokerConfig(listen="tcp://127.0.0.1:0"))
        broker.start()
        stack.callback(broker.close)
        state = folder.parent / "state"
        for _ in range(3):
            with publishing(folder, brokers=(broker.endpoints.listen,)) as publisher:
                wait_until(lambda p=publisher: p.stats()["brokers_listing"] == 1)
        (state / "incarnation").unlink()

        publisher = stack.enter_context(publishing(folder, brokers=(broker.endpoints.listen,)))

        wait_until(lambda: publisher.stats()["brokers_listing"] == 1)
        assert publisher.stats()["incarnation"] == 4
        assert Peer(context, publisher).ask(Ping()).incarnation == 4


def test_several_publishers_live_in_one_process(tmp_path, context):
    with ExitStack() as stack:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            write_array(tmp_path / name / f"{name}.b2nd", np.arange(10))
            state = str(tmp_path / f"state {name}")
            publisher = stack.enter_context(publishing(tmp_path / name, root=name, state=state))
            page = Peer(context, publisher).ask(Tree(name))
            assert [entry.path for entry in unpaged(Entry, page.pages)] == [f"{name}.b2nd"]


def test_starts_and_failed_starts_leave_nothing_open(folder, tmp_path):
    with publishing(folder):
        pass
    before = open_files(), threading.active_count()
    other = str(tmp_path / "other")

    with publishing(folder) as publisher:
        for error, changes in (
            (CacheInUse, {}),
            (AddressInUse, {"listen": publisher.ready.endpoints[0], "state": other}),
            (BadConfig, {"path": str(tmp_path / "nowhere"), "state": other}),
            (BadConfig, {"state": str(folder / "state")}),
            (BadName, {"root": "a/b", "state": other}),
            (BadName, {"brokers": ("here",), "state": other}),
        ):
            with pytest.raises(error), publishing(folder, **changes):
                pass

    assert open_files() <= before[0]
    assert threading.active_count() <= before[1]


def test_closing_twice_is_closing_once(folder):
    with publishing(folder) as publisher:
        publisher.close()
        publisher.close()


@pytest.mark.parametrize(
    ("bound", "host", "brokers", "told"),
    [
        ("tcp://127.0.0.1:5", None, (), "tcp://127.0.0.1:5"),
        ("tcp://0.0.0.0:5", None, ("tcp://127.0.0.1:9",), f"tcp://{OUTWARDS}:5"),
        ("tcp://[::]:5", None, ("tcp://127.0.0.1:9",), f"tcp://{OUTWARDS}:5"),
        ("tcp://0.0.0.0:5", "node7", (), "tcp://node7:5"),
        ("tcp://0.0.0.0:5", "fd00::7", (), "tcp://[fd00::7]:5"),
        ("tcp://127.0.0.1:5", "tcp://gate:99", (), "tcp://gate:99"),
        ("ipc:///tmp/x", "node7", (), "ipc:///tmp/x"),
        ("inproc://x", None, (), "inproc://x"),
    ],
)
def test_what_is_advertised_can_be_reached(bound, host, brokers, told):
    assert advertised(bound, host, brokers) == told


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "tcp://0.0.0.0:5", "tcp://[::]:5"])
def test_all_addresses_are_none_to_advertise(host):
    with pytest.raises(BadConfig, match="all addresses"):
        advertised("tcp://127.0.0.1:5", host, ())


def test_a_loopback_address_is_not_told_to_brokers_on_other_hosts():
    elsewhere = ("tcp://127.0.0.1:9", "tcp://203.0.113.7:5560")
    with pytest.raises(BadConfig, match=r"this host only.*--interface"):
        check_reachable("tcp://127.0.0.1:5", elsewhere, is_chosen=False)
    assert "this host only" in (check_reachable("tcp://127.0.0.1:5", elsewhere, is_chosen=True) or "")
    assert check_reachable("tcp://127.0.0.1:5", elsewhere[:1], is_chosen=False) is None
    assert check_reachable("tcp://198.51.100.1:5", elsewhere, is_chosen=False) is None


def test_a_publisher_that_nobody_could_reach_does_not_start(folder, tmp_path):
    config = PublisherConfig("sst", str(folder), str(tmp_path / "s"), brokers=("tcp://203.0.113.7:5560",))
    with pytest.raises(BadConfig, match="another one"):
        Publisher(config).start()


def test_a_service_listens_on_the_interface_that_is_named(folder, tmp_path):
    assert listening("tcp://0.0.0.0:5", "lo") == "tcp://127.0.0.1:5"
    assert listening("tcp://127.0.0.1:0", "127.0.0.0/8") == "tcp://127.0.0.1:0"
    assert listening("ipc:///tmp/x", "lo") == "ipc:///tmp/x"
    with pytest.raises(BadConfig, match="name one"):
        listening("tcp://198.51.100.1:5", "lo")
    with publishing(folder, interface="lo", listen="tcp://*:0") as publisher:
        assert publisher.ready.endpoints[0].startswith("tcp://127.0.0.1:")


def test_a_wildcard_is_never_advertised():
    assert "0.0.0.0" not in advertised("tcp://0.0.0.0:5", None, ())
    assert "*" not in advertised("tcp://*:5", None, ("tcp://no.such.host.invalid:1",))


def open_files():
    gc.collect()  # contexts of earlier tests
    return len(os.listdir("/proc/self/fd"))


def wait_until(condition):
    deadline_s = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.005)
