"""Any broker may be killed, be stopped or come back, and readers notice nothing but a short delay."""

import time

import pytest
from cluster import Cluster, endpoint_of, eventually
from writer import Writer

pytestmark = pytest.mark.timeout(900)

PAUSE_MAX_S = 5.0
STOPPED_NOTICED_S = 4.0


@pytest.fixture
def three(cluster, tmp_path):
    """Three brokers of which each knows one other, a publisher that writes all the time, and three readers."""
    return build(cluster, Writer("alpha", tmp_path / "alpha", 1))


def build(cluster: Cluster, writer: Writer, flags: tuple[str, ...] = ()):
    first = cluster.broker("b1")
    second = cluster.broker("b2", endpoint_of(first))
    third = cluster.broker("b3", endpoint_of(second))
    brokers = [first, second, third]
    places = [endpoint_of(broker) for broker in brokers]
    publisher = cluster.publisher("p1", writer.root, writer.folder, places[:1], flags)
    near = cluster.subscriber("s1", [writer.root], places[:1])
    far = cluster.subscriber("s2", [writer.root], places[2:])
    cluster.start(*brokers, publisher, near, far)
    for subscriber in (near, far):
        cluster.read_over_http(subscriber, [writer.root])
    cluster.read_joined("joined", [writer.root], places[1:2])
    cluster.checker.wait()
    eventually(lambda: all(cluster.neighbours_count(broker) == 2 for broker in brokers))
    writer.start()
    return cluster, writer, brokers


def in_use(cluster: Cluster) -> list[str]:
    return [str(cluster.health(cluster.services[name])["broker"]) for name in ("s1", "s2")]


def check_all(cluster: Cluster, writer: Writer, figures, what: str, since_s: float) -> None:
    """Nobody failed, nobody waited long, and nothing is lost."""
    writer.stop()
    converged_s = cluster.checker.converged_s([writer], within_s=40)
    figures.note(f"{what}: reads", cluster.checker.reads_count(), "reads")
    failed = cluster.checker.failures()
    figures.note(f"{what}: failed reads", len(failed), "reads", 0)
    assert not failed, failed[:5]
    pause_s = figures.note(
        f"{what}: longest pause of a reader", cluster.checker.longest_pause_s(since_s), "s", PAUSE_MAX_S
    )
    lag_s = figures.note(
        f"{what}: longest wait for news", cluster.checker.longest_lag_s(writer, since_s), "s", PAUSE_MAX_S
    )
    figures.note(f"{what}: all see the same after", converged_s)
    assert pause_s < PAUSE_MAX_S
    assert lag_s < PAUSE_MAX_S


def test_kill_9_of_any_broker_of_three_again_and_again_under_load(three, figures, is_long):
    cluster, writer, brokers = three
    begin_s = time.monotonic()
    for number in range(50 if is_long else 6):
        # every second time the one that a subscriber uses
        used = [broker for broker in brokers if endpoint_of(broker) in in_use(cluster)]
        victim = used[number // 2 % len(used)] if number % 2 and used else brokers[number % 3]
        victim.kill()
        time.sleep(2.0 + number % 3)
        victim.start()
        eventually(lambda: all(cluster.neighbours_count(broker) == 2 for broker in brokers))
    check_all(cluster, writer, figures, "kill -9 of brokers", begin_s)


def test_all_brokers_killed_at_once_and_back(three, figures):
    cluster, writer, brokers = three
    begin_s = time.monotonic()
    for broker in brokers:
        broker.kill()
    time.sleep(5)
    for broker in brokers:
        broker.launch()
    for broker in brokers:
        broker.wait()
    back_s = time.monotonic()

    def is_complete():
        return all(cluster.listed(broker) == {"alpha": "live"} for broker in brokers) and all(
            cluster.health(cluster.services[name])["status"] == "ok" for name in ("s1", "s2")
        )

    eventually(is_complete)
    took_s = figures.note("all brokers back: network complete after", time.monotonic() - back_s, "s", 5)
    assert took_s < 5
    check_all(cluster, writer, figures, "all brokers away for 5 s", begin_s)
