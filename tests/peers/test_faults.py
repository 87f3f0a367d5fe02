"""Bad luck and bad manners: services that stop and come back, names that two claim, and noise on every socket."""

import random
import socket
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import zmq
from network import eventually, is_synced, paths, read, write_array

from zcat.errors import BadName, CacheInUse, RootContested, RootUnknown, Unavailable
from zcat.model.dataset import Entry, Kind
from zcat.protocol.messages import Change, Changes, Ping, Pong, decode, encode
from zcat.protocol.pages import paged

WAIT_MS = 20_000
RECOVERY_S = 5.0
"""How soon everything is back after a broker."""
SLACK = 2
"""Of what is timed, for a machine that is busy with something else."""


@pytest.fixture
def folder(tmp_path):
    write_array(tmp_path / "data" / "x.b2nd", np.arange(5000), chunks=(500,), blocks=(100,))
    return tmp_path / "data"


def check(subscriber, root="sst"):
    np.testing.assert_array_equal(read(subscriber, root, "x.b2nd"), np.arange(5000))


# -- names and folders that two want -------------------------------------------------------------------


def test_whoever_follows_one_of_two_claimants_stays_and_a_newcomer_has_to_choose(network, folder, tmp_path):
    write_array(tmp_path / "other" / "x.b2nd", np.zeros(10))
    first = network.publisher("sst", folder, "state-1")
    faithful = network.subscriber("faithful")
    assert faithful.follow("sst").owner == first.ready.owner
    second = network.publisher("sst", tmp_path / "other", "state-2")
    eventually(lambda: any(view.contested for view in faithful.roots()))

    check(faithful)
    newcomer = network.subscriber("newcomer")
    with pytest.raises(RootContested, match=rf"sst@{first.ready.owner[:8]}.*|.*sst@{second.ready.owner[:8]}"):
        eventually(lambda: newcomer.follow("sst", timeout_s=20.0), retried=RootUnknown)
    newcomer.follow(f"sst@{second.ready.owner[:8]}")
    np.testing.assert_array_equal(read(newcomer, "sst", "x.b2nd"), np.zeros(10))
    assert faithful.follow("sst").owner == first.ready.owner
    assert network.brokers[0].stats()["live"] == 2


def test_a_contested_root_of_the_configuration_is_followed_when_one_claim_is_left(network, folder, caplog):
    publishers = [network.publisher("sst", folder, f"state-{n}") for n in range(2)]
    eventually(lambda: network.brokers[0].stats()["live"] == 2)  # else the first one is followed alone
    subscriber = network.subscriber(follow=("sst",))
    eventually(lambda: "not followed root=sst" in caplog.text)
    assert not any(view.followed for view in subscriber.roots())
    publishers[0].close()
    eventually(lambda: is_synced(subscriber, "sst"))
    check(subscriber)


def test_two_subscribers_cannot_have_one_cache(network):
    first = network.subscriber("a")
    with pytest.raises(CacheInUse, match="choose another folder"):
        network.subscriber("a")
    first.close()
    network.subscriber("a")


def test_a_subscriber_that_cannot_be_made_locks_nothing(network):
    with pytest.raises(BadName) as refused:
        network.subscriber("a", brokers=("nonsense",))
    network.subscriber("a")  # while the error, and with it all that it refers to, is still there
    assert "nonsense" in refused.value.message


# -- services that stop and come back ------------------------------------------------------------------


def test_a_root_whose_publisher_has_gone_is_said_to_be_away(network, folder):
    publisher = network.publisher("sst", folder)
    seer = network.subscriber("seer")
    eventually(lambda: any(view.name == "sst" for view in seer.roots()))
    publisher.close()
    eventually(lambda: not seer.roots())
    with pytest.raises(Unavailable, match="brokers call root 'sst' 'withdrawn': its publisher is away"):
        seer.follow("sst", timeout_s=0.2)


def test_without_a_broker_known_roots_are_read_and_with_it_everything_is_back_soon(network, folder, tmp_path):
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    broker = network.brokers[0]
    broker.close()
    check(subscriber)
    new = write_array(folder / "new.b2nd", np.arange(9))
    eventually(lambda: "new.b2nd" in paths(subscriber, "sst"))  # by the publisher's own word, without a broker
    np.testing.assert_array_equal(read(subscriber, "sst", "new.b2nd"), new)

    again = network.broker_again(broker)
    later = network.subscriber("later")

    def is_back():
        check(subscriber)
        listed = [view.state for view in later.roots() if view.name == "sst"]
        return subscriber.health()["status"] == "ok" and listed == ["live"]

    eventually(is_back, within_s=RECOVERY_S * SLACK)
    assert again.stats()["live"] == 1
    later.follow("sst")
    check(later)
    write_array(folder / "newer.b2nd", np.arange(9))
    eventually(lambda: "newer.b2nd" in paths(later, "sst") and "newer.b2nd" in paths(subscriber, "sst"))


def test_of_two_brokers_one_may_go(network, folder):
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    used = subscriber.health()["broker"]
    (broker,) = (one for one in network.brokers if one.endpoints.listen == used)
    broker.close()
    check(subscriber)
    eventually(lambda: subscriber.health()["broker"] not in (used, None))
    eventually(lambda: subscriber.health()["status"] == "ok" and subscriber.roots()[0].state == "live")
    check(subscriber)


def test_a_publisher_that_restarts_begins_a_new_life_which_its_followers_notice(network, folder):
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber()
    before = subscriber.follow("sst")
    publisher.close()
    (folder / "x.b2nd").rename(folder / "y.b2nd")
    again = network.publisher("sst", folder)
    assert again.ready.owner == before.owner
    eventually(lambda: paths(subscriber, "sst") == ["y.b2nd"] and is_synced(subscriber, "sst"))
    assert subscriber.roots()[0].incarnation == before.incarnation + 1
    np.testing.assert_array_equal(read(subscriber, "sst", "y.b2nd"), np.arange(5000))


def test_a_publisher_that_lost_its_key_is_another_one_also_at_the_same_address(network, folder, tmp_path):
    publisher = network.publisher("sst", folder)
    endpoint = publisher.ready.endpoints[0]
    subscriber = network.subscriber(quiet_after_s=3.0)
    old = subscriber.follow("sst")
    publisher.close()
    (folder / "x.b2nd").rename(folder / "y.b2nd")
    again = network.publisher("sst", folder, "state-new", listen=endpoint)
    assert again.ready.owner != old.owner
    eventually(lambda: not is_synced(subscriber, "sst"))
    with pytest.raises(Unavailable, match="publisher of root sst does not answer"):
        read(subscriber, "sst", "x.b2nd")  # the old owner's word is not the new one's to give

    new = eventually(lambda: subscriber.follow(f"sst@{again.ready.owner[:8]}"))
    assert (new.owner, new.synced) == (again.ready.owner, True)
    subscriber.unfollow(f"sst@{old.owner}")
    assert paths(subscriber, "sst") == ["y.b2nd"]
    np.testing.assert_array_equal(read(subscriber, "sst", "y.b2nd"), np.arange(5000))
    assert network.subscriber("new").follow("sst").owner == again.ready.owner


def test_an_event_that_the_publisher_never_sent_is_found_out(network, folder):
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber()
    view = subscriber.follow("sst")
    false = Entry("false.b2nd", Kind.FILE, "0" * 32, 1, 1, 1)
    event = Changes(
        "sst",
        view.owner,
        view.incarnation,
        view.seq + 1,
        tuple(paged([Change("x.b2nd"), Change(false.path, false)])),
    )
    with network.context.socket(zmq.PUB) as forger:
        forger.set(zmq.LINGER, 0)
        forger.connect(network.brokers[0].endpoints.ingress)

        def is_believed():
            forger.send_multipart([f"root/sst/{view.owner}/".encode(), *encode(event)])
            return paths(subscriber, "sst") == ["false.b2nd"]

        eventually(is_believed)
    eventually(lambda: paths(subscriber, "sst") == ["x.b2nd"] and is_synced(subscriber, "sst"))
    assert subscriber.roots()[0].seq == publisher.stats()["seq"]
    check(subscriber)


# -- noise ---------------------------------------------------------------------------------------------


def noise():
    """Messages that nobody should send."""
    rng = random.Random(5)
    header = encode(Ping())[1]
    deep = b"\x81\xa1a" * 20_000 + b"\xc0"
    return [
        [b""], [b"zcat1"], [b"zcat2", header], [b"zcat1", b"\xc1"], [b"zcat1", deep], [b"zcat1", b"\x91" * 60_000],
        [b"zcat1", b"\xdf\xff\xff\xff\xff"], [b"zcat1", b"\xc7\x08\x01" + bytes(8)], [b"zcat1", bytes(60_000)],
        [b"zcat1", msgpack.packb({"verb": "dance"})], [b"zcat1", msgpack.packb({"verb": "ping", "id": -1})],
        [b"zcat1", msgpack.packb({"verb": "tree", "id": 1, "root": "../..", "after": "\0"})],
        [b"zcat1", msgpack.packb({"verb": "chunks", "root": "sst", "path": "x", "lineage": "", "chunks": [-1]})],
        [b"zcat1", header, *[b"x"] * 60], [b"zcat1", header, *[b""] * 5000],
        *([rng.randbytes(rng.randrange(40)), rng.randbytes(rng.randrange(300))] for _ in range(200)),
    ]  # fmt: skip


def say_http(endpoint):
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    for raw in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", random.Random(3).randbytes(3000), b"\xff" + bytes(70_000)):
        with socket.create_connection((host, int(port)), timeout=20) as stranger, suppress(OSError):
            stranger.sendall(raw)


def shout(context, endpoint, kind, tiny_count, topic=()):
    """Send noise, a giant frame and very many small messages; wait until ZeroMQ has taken them."""
    with context.socket(kind) as stranger:
        stranger.set(zmq.SNDTIMEO, WAIT_MS)
        stranger.set(zmq.LINGER, 0)
        stranger.connect(endpoint)
        with suppress(zmq.Again):
            for parts in noise():
                stranger.send_multipart([*topic, *parts])
            for _ in range(tiny_count):
                stranger.send_multipart([*topic, b"zcat1", b"\x80"])
            stranger.send_multipart([*topic, bytes(80 << 20)])


def pong(context, endpoint):
    with context.socket(zmq.REQ) as asker:
        asker.set(zmq.RCVTIMEO, WAIT_MS)
        asker.set(zmq.LINGER, 0)
        asker.connect(endpoint)
        asker.send_multipart(encode(Ping()))
        return decode(asker.recv_multipart()).message


@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["directory", "ingress", "egress", "publisher"])
def test_noise_on_a_socket_disturbs_nobody(where, network, folder, request):
    tiny_count = request.config.getoption("--tiny-frames")
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber()
    view = subscriber.follow("sst")
    places = network.brokers[0].endpoints
    endpoint = {
        "directory": places.listen, "ingress": places.ingress, "egress": places.egress,
        "publisher": publisher.ready.endpoints[0],
    }[where]  # fmt: skip
    say_http(endpoint)
    if where == "ingress":  # as events, which reach the subscriber
        for topic in (b"dir/", f"root/sst/{view.owner}/".encode()):
            shout(network.context, endpoint, zmq.PUB, tiny_count, (topic,))
    else:
        shout(network.context, endpoint, zmq.XSUB if where == "egress" else zmq.DEALER, tiny_count)

    for good in (places.listen, publisher.ready.endpoints[0]):
        assert isinstance(pong(network.context, good), Pong)
    check(subscriber)
    write_array(folder / "new.b2nd", np.arange(9))
    eventually(lambda: "new.b2nd" in paths(subscriber, "sst"))
    newcomer = network.subscriber("newcomer")
    newcomer.follow("sst", timeout_s=20.0)
    check(newcomer)
    assert network.brokers[0].stats()["errors"] == 0
    assert subscriber.health()["loop"]["errors"] == 0
