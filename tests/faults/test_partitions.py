"""Cut cables between hosts that a kernel makes: what is on one side goes on, and both are one again afterwards."""

import time

import pytest
from cluster import Cluster, endpoint_of, eventually, seconds_until
from writer import Writer

pytestmark = pytest.mark.timeout(300)

LEASE_S = 4.0
SHORT_LEASE = ("--set", f"lease_s={LEASE_S}", "--set", "renew_s=0.5")
STOP_NOTICED_S = 4.0
LOADED_S = 1.0


@pytest.fixture
def two_sides(make_hosts, tmp_path, is_long):
    """On each side a broker, a publisher and a subscriber that follows both roots, with a reader each."""
    hosts = make_hosts("b1", "p1", "s1", "b2", "p2", "s2")
    cluster = Cluster(tmp_path, hosts)
    writers = [Writer("alpha", tmp_path / "alpha", 1), Writer("beta", tmp_path / "beta", 2)]
    first = cluster.broker("b1")
    second = cluster.broker("b2", endpoint_of(first))
    places = [endpoint_of(first), endpoint_of(second)]
    flags = () if is_long else SHORT_LEASE
    publishers = [
        cluster.publisher(f"p{n + 1}", writer.root, writer.folder, [places[n]], flags)
        for n, writer in enumerate(writers)
    ]
    subscribers = [cluster.subscriber(f"s{n + 1}", ["alpha", "beta"], [places[n]]) for n in range(2)]
    cluster.start(first, second, *publishers, *subscribers)
    for subscriber in subscribers:
        cluster.read_over_http(subscriber, ["alpha", "beta"])
    cluster.checker.wait()
    for writer in writers:
        writer.start()
    yield cluster, hosts, writers
    for writer in writers:
        writer.stop()
    cluster.judge()


def test_both_sides_of_a_partition_go_on_and_are_one_again_after_it(two_sides, figures, is_long):
    cluster, hosts, writers = two_sides
    begin_s = time.monotonic()
    hosts.part(["b1", "p1", "s1"])
    time.sleep(30 if is_long else 2 * LEASE_S)
    counts = {path: writer.written[path][-1][0] for writer in writers for path in ["beacon.b2nd"]}
    own = {
        "alpha": cluster.checker.clients["reader-s1"].seen["alpha", "beacon.b2nd"][-1][0],
        "beta": cluster.checker.clients["reader-s2"].seen["beta", "beacon.b2nd"][-1][0],
    }
    for writer in writers:  # each side has the news of its own root all the time
        assert own[writer.root] > writer.written["beacon.b2nd"][-1][0] - 10, (own, counts)
    hosts.heal()
    healed_s = time.monotonic()

    def agree():
        return all(
            cluster.listed(cluster.services[name]) == {"alpha": "live", "beta": "live"} for name in ("b1", "b2")
        )

    eventually(agree)
    figures.note("partition: brokers agree again", time.monotonic() - healed_s, "s", 40)
    eventually(lambda: all(_is_ok(cluster, name) for name in ("s1", "s2")))
    figures.note("partition: subscribers current again", time.monotonic() - healed_s, "s", 40)
    for writer in writers:
        writer.stop()
    cluster.checker.converged_s(writers, within_s=40)
    took_s = figures.note("partition: everybody sees everything", time.monotonic() - healed_s, "s", 40)
    assert took_s < 40
    crossing = {("reader-s1", "beta"), ("reader-s2", "alpha")}
    failed = [failure for failure in cluster.checker.failures() if (failure.client, failure.root) not in crossing]
    assert not failed, failed[:5]
    assert {failure.code for failure in cluster.checker.failures()} <= {"unavailable", "timeout", "stale"}
    figures.note("partition: failed reads of one's own side", len(failed), "reads", 0)
    assert begin_s < healed_s


def _is_ok(cluster, name):
    return cluster.health(cluster.services[name])["status"] == "ok"


def test_a_link_that_is_dead_without_a_word_is_noticed_soon(two_sides, figures):
    cluster, hosts, _ = two_sides
    hosts.cut("s1", "p2")
    noticed_s = seconds_until(lambda: not _root(cluster, "s1", "beta")["synced"])
    figures.note("dead link to a publisher: noticed", noticed_s, "s", STOP_NOTICED_S)
    assert noticed_s < STOP_NOTICED_S + LOADED_S
    hosts.heal()
    figures.note("dead link heals: followed again", seconds_until(lambda: _root(cluster, "s1", "beta")["synced"]))

    hosts.cut("s1", "b1")
    noticed_s = seconds_until(lambda: cluster.health(cluster.services["s1"])["broker"] == _place(cluster, "b2"))
    figures.note("dead link to a broker: another is in use", noticed_s, "s", 5)
    assert noticed_s < 5 + LOADED_S
    assert not [failure for failure in cluster.checker.failures() if failure.root == "alpha"]


def test_brokers_that_hear_each_other_one_way_only_lose_no_event(two_sides):
    cluster, hosts, writers = two_sides
    hosts.cut("b1", "b2", both_ways=False)
    time.sleep(6)
    for writer in writers:
        writer.stop()
    cluster.checker.converged_s(writers, within_s=30)
    hosts.heal()
    for writer in writers:
        writer.start()
    eventually(lambda: all(cluster.neighbours_count(cluster.services[name]) == 1 for name in ("b1", "b2")))
    for writer in writers:
        writer.stop()
    cluster.checker.converged_s(writers, within_s=30)
    assert not cluster.checker.failures()


def _root(cluster, name, root):
    return cluster.get(cluster.services[name], "/api/roots")[root]


def _place(cluster, name):
    return endpoint_of(cluster.services[name])
