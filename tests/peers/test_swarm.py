"""Subscribers that give chunks to one another: what the publisher sends, and what becomes of bad peers."""

from contextlib import ExitStack

import numpy as np
import pytest
from false_peer import FalsePeer, lie, refuse, say_nothing
from network import eventually, read, write_array

from zcat.errors import AddressInUse
from zcat.protocol.messages import Chunks

NCHUNKS = 24
CHUNK = 5000


@pytest.fixture
def values(tmp_path):
    noise = np.random.default_rng(3).integers(0, 1 << 30, NCHUNKS * CHUNK).astype("i4")
    return write_array(tmp_path / "data" / "x.b2nd", noise, chunks=(CHUNK,), blocks=(1000,))


@pytest.fixture
def publisher(network, values, tmp_path):
    return network.publisher("sst", tmp_path / "data")


@pytest.fixture
def false_peers(network, publisher):
    """Makes peers that are not what the publisher takes them for."""
    with ExitStack() as opened:
        lineage = publisher._root.info("x.b2nd").entry.lineage
        wanted = Chunks("sst", "x.b2nd", lineage, tuple(range(NCHUNKS)))

        def make(answer, count=3):
            made = []
            for _ in range(count):
                made.append(FalsePeer(network.context, publisher.ready.endpoints[0], wanted, answer))
                opened.callback(made[-1].close)
            return made

        yield make


def follower(network, name, **changes):
    subscriber = network.subscriber(name, **changes)
    subscriber.follow("sst")
    return subscriber


def fetch(subscriber):
    subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.fetch())


def taken(subscriber):
    return subscriber.health()["peers"]["taken"]


def given(subscriber):
    return subscriber.health()["peers"]["given"]


def test_a_publisher_sends_readers_to_one_another(network, publisher, values):
    subscribers = [follower(network, name) for name in "abcdef"]
    for done in [network.in_background(lambda one=one: fetch(one)) for one in subscribers]:
        done.result()
    for subscriber in subscribers:
        np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), values)
    assert publisher.stats()["chunks"] <= 3 * NCHUNKS
    assert sum(taken(one)["chunks"] for one in subscribers) >= 3 * NCHUNKS
    assert sum(given(one)["chunks"] for one in subscribers) >= 3 * NCHUNKS
    assert publisher.swarm.sharers == 6
    assert [taken(one)["lies"] for one in subscribers] == [0] * 6


def test_what_somebody_looks_at_comes_from_peers_too(network, publisher, values):
    for name in "abc":
        fetch(follower(network, name))
    late = follower(network, "late")
    np.testing.assert_array_equal(read(late, "sst", "x.b2nd", (slice(0, 4 * CHUNK),)), values[: 4 * CHUNK])
    assert taken(late)["chunks"] == 4


def test_one_or_two_readers_get_all_from_the_publisher_without_a_detour(network, publisher, values):
    for name in "ab":
        fetch(follower(network, name))
    assert publisher.stats()["chunks"] == 2 * NCHUNKS
    assert publisher.swarm.referred == 0


@pytest.mark.parametrize("bulk", [True, False], ids=["copied", "looked at"])
def test_what_liars_send_is_never_believed_and_they_are_not_asked_again(
    network, values, false_peers, bulk, caplog
):
    liars = false_peers(lie)
    reader = follower(network, "a")
    if bulk:
        fetch(reader)
    np.testing.assert_array_equal(read(reader, "sst", "x.b2nd"), values)
    assert taken(reader)["lies"] >= 3
    assert taken(reader)["chunks"] == 0
    asked = [len(liar.asked) for liar in liars]
    assert all(asked)
    assert any(liar.endpoint in caplog.text for liar in liars)
    health = reader.health()
    assert (health["loop"]["errors"], health["status"]) == (0, "ok")
    np.testing.assert_array_equal(read(follower(network, "b"), "sst", "x.b2nd"), values)


def test_peers_that_have_evicted_what_they_had_cost_a_question_each(network, publisher, values, false_peers):
    false_peers(refuse)
    reader = follower(network, "a")
    np.testing.assert_array_equal(read(reader, "sst", "x.b2nd"), values)
    assert taken(reader)["failures"] >= NCHUNKS
    assert taken(reader)["lies"] == 0


@pytest.mark.parametrize("bulk", [True, False], ids=["copied", "looked at"])
def test_peers_that_died_cost_a_delay(network, publisher, values, false_peers, bulk):
    false_peers(say_nothing)
    reader = follower(network, "a")
    if bulk:
        fetch(reader)
    np.testing.assert_array_equal(read(reader, "sst", "x.b2nd"), values)


def test_a_peer_that_ends_is_named_to_nobody(network, publisher, values):
    readers = [follower(network, name) for name in "abc"]
    for reader in readers:
        fetch(reader)
    assert publisher.swarm.sharers == 3
    for reader in readers:
        reader.close()
    eventually(lambda: publisher.swarm.sharers == 0)
    fetch(follower(network, "d"))
    assert publisher.swarm.referred == NCHUNKS  # for the third of the first three


def test_a_subscriber_that_shares_nothing_is_asked_for_nothing(network, publisher, values):
    readers = [follower(network, name, share=False) for name in "abcd"]
    for reader in readers:
        fetch(reader)
    assert publisher.stats()["chunks"] == 4 * NCHUNKS
    assert readers[0].health()["peers"]["shared_at"] is None


def test_a_publisher_that_keeps_no_track_serves_all(network, values, tmp_path):
    publisher = network.publisher("sst", tmp_path / "data", track=False)
    readers = [follower(network, name) for name in "abcd"]
    for reader in readers:
        fetch(reader)
    assert publisher.stats()["chunks"] == 4 * NCHUNKS
    assert publisher.stats()["failures"] == 0


def test_what_is_shared_passes_at_the_rate_that_is_allowed(network, publisher, values):
    first = [follower(network, name, share_rate_bytes=400_000) for name in "ab"]
    for reader in first:
        fetch(reader)
    fetch(follower(network, "c"))
    assert sum(given(one)["chunks"] for one in first) > 0


def test_an_address_that_is_taken_is_said_at_the_start(network, publisher, tmp_path):
    with pytest.raises(AddressInUse):
        network.subscriber("a", share_listen=publisher.ready.endpoints[0])
