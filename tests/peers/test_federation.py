"""Brokers that are one directory and one network of events, whoever of them is known, stops or comes back."""

import numpy as np
import pytest
import zmq
from network import Network, eventually, is_synced, paths, read, write_array

from zcat.config import BrokerConfig
from zcat.errors import AddressInUse
from zcat.protocol.messages import Change, decode
from zcat.protocol.pages import unpaged
from zcat.services.broker import Broker

WAIT_MS = 20_000
RECOVERY_S = 5.0
"""How soon everything is back after all brokers are."""
SLACK = 2
"""Of what is timed, for a machine that is busy with something else."""


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    write_array(tmp_path / "data" / "x.b2nd", np.arange(5000), chunks=(500,), blocks=(100,))
    return tmp_path / "data"


def know_each_other(brokers):
    return all(len(broker.neighbours) == len(brokers) - 1 for broker in brokers)


def list_one_live_root(brokers):
    return all(broker.stats()["live"] == 1 for broker in brokers)


@pytest.fixture
def brokers(network):
    """Three of them; each knows only the one before it."""
    first = network.broker()
    second = network.broker(peers=(first.endpoints.listen,))
    third = network.broker(peers=(second.endpoints.listen,))
    eventually(lambda: know_each_other(network.brokers))
    return first, second, third


class Listener:
    """Hears the events of a root at one broker."""

    def __init__(self, network, broker):
        self.socket = network.context.socket(zmq.SUB)
        self.socket.connect(broker.endpoints.egress)
        self.socket.subscribe(b"root/sst/")
        self.numbers = []

    def hear(self, wait_ms=WAIT_MS):
        while self.socket.poll(wait_ms if not self.numbers else 0):
            changes = decode(self.socket.recv_multipart()[1:]).message
            count = len(unpaged(Change, changes.pages))
            self.numbers += range(changes.first_seq, changes.first_seq + count)
        return self.numbers


def test_a_publisher_and_a_subscriber_that_know_no_common_broker_find_each_other(network, brokers, folder):
    network.publisher("sst", folder, brokers=(brokers[0].endpoints.listen,))
    subscriber = network.subscriber(brokers=(brokers[2].endpoints.listen,))
    subscriber.follow("sst", timeout_s=30.0)
    np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), np.arange(5000))
    write_array(folder / "new.b2nd", np.arange(9))
    eventually(lambda: "new.b2nd" in paths(subscriber, "sst"))


def test_each_event_reaches_each_subscriber_once_wherever_it_entered(network, brokers, folder):
    publisher = network.publisher("sst", folder, brokers=(brokers[0].endpoints.listen,))
    eventually(lambda: publisher.stats()["brokers_listing"] == 3)
    listeners = [Listener(network, broker) for broker in brokers]

    def all_hear():
        write_array(folder / "knock.b2nd", np.random.default_rng().random(5))
        return all(listener.hear(wait_ms=100) for listener in listeners)

    eventually(all_hear)
    assert publisher.stats()["brokers_used"] == 1
    for number in range(20):
        write_array(folder / f"{number}.b2nd", np.arange(number + 1))
    end = eventually(lambda: publisher.stats()["datasets"] == 22 and publisher.stats()["seq"])
    for listener in listeners:
        eventually(lambda heard=listener: heard.hear()[-1] == end)
        assert listener.numbers == list(range(listener.numbers[0], end + 1))
        listener.socket.close(linger=0)


def test_brokers_say_of_their_directories_to_their_own_subscribers_only(network, brokers, folder):
    sub = network.context.socket(zmq.SUB)
    sub.connect(brokers[2].endpoints.egress)
    sub.subscribe(b"dir/")
    for number in range(5):
        network.publisher(f"r{number}", folder, brokers=(brokers[0].endpoints.listen,))
    eventually(lambda: brokers[2].stats()["live"] == 5)
    network.publisher("last", folder, brokers=(brokers[2].endpoints.listen,))
    heard = []
    while not heard or heard[-1].listed.claim.root != "last":
        assert sub.poll(WAIT_MS)
        heard.append(decode(sub.recv_multipart()[1:]).message)
    assert {change.broker for change in heard} == {brokers[2].owner}
    sub.close(linger=0)


def test_brokers_that_stop_and_come_back_are_hardly_missed(network, brokers, folder):
    publisher = network.publisher("sst", folder, brokers=(brokers[0].endpoints.listen,))
    subscriber = network.subscriber(brokers=(brokers[2].endpoints.listen,))
    subscriber.follow("sst", timeout_s=30.0)
    eventually(lambda: publisher.stats()["brokers_listing"] == 3)

    def sees(name):
        write_array(folder / name, np.arange(9))
        eventually(lambda: name in paths(subscriber, "sst"))
        np.testing.assert_array_equal(read(subscriber, "sst", name), np.arange(9))

    brokers[1].close()
    sees("without-second.b2nd")
    eventually(lambda: know_each_other([brokers[0], brokers[2]]))
    brokers[0].close()
    sees("without-first.b2nd")
    eventually(lambda: brokers[2].neighbours == ())
    again = [network.broker_again(broker) for broker in brokers[:2]]
    eventually(lambda: know_each_other([*again, brokers[2]]))
    eventually(lambda: list_one_live_root([*again, brokers[2]]))
    brokers[2].close()
    sees("without-third.b2nd")
    eventually(lambda: subscriber.health()["broker"] in [broker.endpoints.listen for broker in again])
    eventually(lambda: is_synced(subscriber, "sst") and subscriber.health()["status"] == "ok")


def test_a_network_whose_brokers_all_restart_is_complete_again_soon(network, brokers, folder):
    network.publisher("sst", folder, brokers=(brokers[0].endpoints.listen,))
    subscriber = network.subscriber(brokers=(brokers[2].endpoints.listen,))
    subscriber.follow("sst", timeout_s=30.0)
    eventually(lambda: list_one_live_root(brokers))
    for broker in brokers:
        broker.close()
    eventually(lambda: subscriber.health()["broker"] is None)
    again = [network.broker_again(broker) for broker in brokers]

    def is_complete():
        return list_one_live_root(again) and subscriber.health()["status"] == "ok"

    eventually(is_complete, within_s=RECOVERY_S * SLACK)


def test_a_broker_that_names_itself_or_nobody_stands_alone(network):
    alone = network.broker(peers=("tcp://127.0.0.1:1",))
    endpoint = alone.endpoints.listen
    alone.close()
    config = BrokerConfig(listen=endpoint, peers=(endpoint,))
    broker = eventually(lambda: Broker(config, network.context), retried=AddressInUse)
    broker.start()
    try:
        eventually(lambda: broker.stats()["requests"] >= 1)
        assert broker.neighbours == ()
    finally:
        broker.close()


def test_a_file_is_enough_for_all_to_find_each_other_whoever_is_first(network, folder, tmp_path):
    path = tmp_path / "brokers"
    entry = f"file:{path}"
    network.publisher("sst", folder, brokers=(entry,))
    subscriber = network.subscriber(brokers=(entry,))
    brokers = [network.broker(peers=(entry,), announce_file=str(path)) for _ in range(2)]
    eventually(lambda: know_each_other(brokers))
    subscriber.follow("sst", timeout_s=30.0)
    np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), np.arange(5000))
    for broker in brokers:
        broker.close()
    assert path.read_text() == ""
