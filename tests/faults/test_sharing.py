"""Subscribers that give chunks to one another: what comes from one that lies, hangs or dies harms nobody."""

import urllib.request
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest
from cluster import endpoint_of, eventually, free_port, http_of
from proxy import Door, Weather

pytestmark = pytest.mark.timeout(300)

NCHUNKS, CHUNK_BYTES = 48, 512 * 1024
WAIT_S = 120.0


@pytest.fixture
def values(tmp_path):
    values = np.random.default_rng(1).integers(0, 256, NCHUNKS * CHUNK_BYTES, np.uint8)
    (tmp_path / "data").mkdir()
    blosc2.asarray(
        values, urlpath=str(tmp_path / "data" / "big.b2nd"), chunks=(CHUNK_BYTES,), blocks=(CHUNK_BYTES // 8,)
    )
    return values


@pytest.fixture
def network(cluster, values, tmp_path):
    """A publisher and four subscribers; what two of them share goes through doors."""
    broker = cluster.broker("b1")
    publisher = cluster.publisher("p1", "sst", tmp_path / "data", [endpoint_of(broker)])
    doors, subscribers = [], []
    for number in range(4):
        flags = ["--workers", "1"]
        if number < 2:
            port, address = free_port(), f"127.0.5.{number + 1}"
            flags += ["--set", f'share_listen="tcp://127.0.0.1:{port}"', "--set", f'share_advertise="{address}"']
            doors.append(Door(address, "127.0.0.1", [port], number))
        subscribers.append(cluster.subscriber(f"s{number}", ["sst"], [endpoint_of(broker)], flags))
    with doors[0], doors[1]:
        cluster.start(broker, publisher, *subscribers)
        for subscriber in subscribers:
            eventually(lambda each=subscriber: cluster.health(each)["status"] == "ok")
        yield cluster, doors, subscribers


def whole(subscriber):
    url = f"{http_of(subscriber)}/api/fetch/sst/big.b2nd?slice_=0:{NCHUNKS * CHUNK_BYTES}&fmt=raw"
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        return np.frombuffer(answer.read(), np.uint8)


@pytest.mark.parametrize(
    "weather", [Weather(flip_chance=0.3), Weather(swallows=True)], ids=["lies", "says nothing"]
)
def test_peers_behind_bad_doors_delay_a_copy_and_change_nothing_in_it(network, values, weather, figures):
    cluster, doors, subscribers = network
    for first in subscribers[:2]:  # they have it all, so the others are sent to them
        np.testing.assert_array_equal(whole(first), values)
    for door in doors:
        door.weather = weather
    with ThreadPoolExecutor(2) as threads:
        for copy in threads.map(whole, subscribers[2:]):
            np.testing.assert_array_equal(copy, values)
    taken = [cluster.health(subscriber)["peers"]["taken"] for subscriber in subscribers[2:]]
    lies, failures = (sum(each[kind] for each in taken) for kind in ("lies", "failures"))
    figures.note("bad peers: chunks that were not what they said, found out", lies, "chunks")
    assert lies + failures > 0, "nobody was sent to a bad peer, so nothing was tried"


def test_a_peer_that_is_killed_while_it_gives_is_hardly_missed(network, values):
    cluster, _, subscribers = network
    for first in subscribers[:2]:
        np.testing.assert_array_equal(whole(first), values)
    with ThreadPoolExecutor(2) as threads:
        copies = [threads.submit(whole, subscriber) for subscriber in subscribers[2:]]
        eventually(lambda: cluster.health(subscribers[2])["fetched"]["chunks"] > 3)
        subscribers[0].kill()
        subscribers[1].stop()
        for copy in copies:
            np.testing.assert_array_equal(copy.result(WAIT_S), values)
        subscribers[1].go_on()
    subscribers[0].start()
    np.testing.assert_array_equal(whole(subscribers[0]), values)
