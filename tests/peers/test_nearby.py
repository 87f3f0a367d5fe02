"""Publisher and subscriber of one host use a socket of it, and do without when it is gone."""

import os

import numpy as np
import pytest
from network import eventually, read, write_array

from zcat.errors import Unavailable


@pytest.fixture
def values(tmp_path):
    return write_array(tmp_path / "data" / "x.b2nd", np.arange(1000).reshape(10, 100), chunks=(1, 100))


def way(subscriber):
    subscription = subscriber.subscription("sst")
    return subscription._ways[subscription._endpoint].partition(":")[0]


def test_a_subscriber_on_the_publishers_host_comes_by_its_socket(network, tmp_path, values):
    publisher = network.publisher("sst", tmp_path / "data")
    assert [endpoint.partition(":")[0] for endpoint in publisher.ready.endpoints] == ["tcp", "ipc"]
    subscriber = network.subscriber()
    subscriber.follow("sst")
    assert way(subscriber) == "ipc"
    np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), values)


def test_without_the_socket_it_comes_by_tcp(network, tmp_path, values):
    publisher = network.publisher("sst", tmp_path / "data")
    os.unlink(publisher.ready.endpoints[1].removeprefix("ipc://"))
    subscriber = network.subscriber()
    subscriber.follow("sst")
    assert way(subscriber) == "tcp"
    np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), values)


@pytest.mark.parametrize("changes", [{"ipc": False}, {"advertise": "tcp://127.0.0.1:9"}])
def test_a_publisher_offers_no_socket_if_it_shall_not(network, tmp_path, values, changes):
    assert len(network.publisher("sst", tmp_path / "data", **changes).ready.endpoints) == 1


def test_a_publisher_that_comes_back_is_met_again(network, tmp_path, values):
    publisher = network.publisher("sst", tmp_path / "data")
    subscriber = network.subscriber()
    subscriber.follow("sst")
    publisher.close()
    network.publisher("sst", tmp_path / "data")
    found = eventually(lambda: read(subscriber, "sst", "x.b2nd", timeout_s=2.0) is not None, retried=Unavailable)
    assert found
    assert way(subscriber) == "ipc"
