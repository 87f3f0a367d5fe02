"""Who follows a name goes on with whoever has it, when its owner is gone; who named an owner does not."""

import network as networks
import numpy as np
import pytest
from network import Network, eventually, write_array

from zcat.errors import ZcatError
from zcat.services import subscription


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setattr(subscription, "OVER_S", 0.1)
    made = Network(tmp_path)
    made.broker()
    yield made
    made.close()


def publisher(network, state, values, **changes):
    folder = network.folder / f"data-{state}"
    write_array(folder / "x.b2nd", np.asarray(values), chunks=(2,), blocks=(2,))
    return network.publisher("sst", folder, state, lease_s=1.0, renew_s=0.2, **changes)


def followed(subscriber):
    return [root.owner for root in subscriber.roots() if root.followed]


def read(subscriber):
    return networks.read(subscriber, "sst", "x.b2nd").tolist()


def test_a_publisher_that_lost_its_state_folder_comes_back_under_its_name(network):
    first = publisher(network, "one", [1, 2, 3])
    subscriber = network.subscriber(follow=("sst",))
    eventually(lambda: read(subscriber) == [1, 2, 3], ZcatError)
    first.close()
    second = publisher(network, "two", [4, 5])

    eventually(lambda: followed(subscriber) == [second.ready.owner])
    eventually(lambda: read(subscriber) == [4, 5], ZcatError)


def test_who_named_an_owner_stays_with_it(network):
    first = publisher(network, "one", [1, 2, 3])
    pinned, by_name = network.subscriber("pinned"), network.subscriber("by-name")
    owner = first.ready.owner
    pinned.follow(f"sst@{owner}")
    by_name.follow("sst")
    assert read(pinned) == [1, 2, 3]
    first.close()
    second = publisher(network, "two", [4, 5])

    eventually(lambda: followed(by_name) == [second.ready.owner])
    assert followed(pinned) == [owner]
    assert read(pinned) == [1, 2, 3]


def test_an_owner_that_is_there_keeps_its_followers(network):
    first = publisher(network, "one", [1, 2, 3])
    subscriber = network.subscriber(follow=("sst",))
    eventually(lambda: read(subscriber) == [1, 2, 3], ZcatError)
    second = publisher(network, "two", [4, 5])
    eventually(lambda: [root.contested for root in subscriber.roots() if root.followed] == [True])
    assert followed(subscriber) == [first.ready.owner]
    second.close()
    eventually(lambda: [root.contested for root in subscriber.roots() if root.followed] == [False])
    assert followed(subscriber) == [first.ready.owner]


def test_after_a_restart_the_name_in_the_configuration_means_whoever_has_it(network):
    first = publisher(network, "one", [1, 2, 3])
    subscriber = network.subscriber("kept", follow=("sst",))
    eventually(lambda: read(subscriber) == [1, 2, 3], ZcatError)
    subscriber.close()
    first.close()
    second = publisher(network, "two", [4, 5])

    again = network.subscriber("kept", follow=("sst",))
    eventually(lambda: followed(again) == [second.ready.owner])
    eventually(lambda: read(again) == [4, 5], ZcatError)
