"""How soon the death, or the silence, of somebody is noticed; and that a broker's own sleep is nobody's death."""

import time

import pytest
from cluster import Cluster, endpoint_of, eventually, http_of, seconds_until, status_of
from writer import Writer

pytestmark = pytest.mark.timeout(300)

DEAD_SHOWN_S = 22.0
STOP_NOTICED_S = 4.0
STOP_S = 3.0
LOADED_S = 1.0
"""What a machine that is busy with something else may add to a wait of seconds."""
LEASE_S = 4.0
SHORT_LEASE = ("--set", f"lease_s={LEASE_S}", "--set", "renew_s=0.5")


@pytest.fixture
def pair(cluster, tmp_path, request):
    """Two brokers, a publisher with one address or as many as the parameter says, a subscriber; nobody writes."""
    return build(cluster, tmp_path, ("--set", f"ipc={str(getattr(request, 'param', 1) > 1).lower()}"))


def build(cluster: Cluster, folder, flags: tuple[str, ...] = ()):
    writer = Writer("alpha", folder / "alpha", 1)
    first = cluster.broker("b1")
    second = cluster.broker("b2", endpoint_of(first))
    places = [endpoint_of(first), endpoint_of(second)]
    publisher = cluster.publisher("p1", "alpha", writer.folder, places, flags)
    subscriber = cluster.subscriber("s1", ["alpha"], places)
    cluster.start(first, second, publisher, subscriber)
    eventually(lambda: cluster.health(subscriber)["status"] == "ok")
    eventually(lambda: cluster.listed(first) == cluster.listed(second) == {"alpha": "live"})
    return cluster, writer, publisher, subscriber


def state(cluster, subscriber):
    return cluster.get(subscriber, "/api/roots")["alpha"]["state"]


def is_synced(cluster, subscriber):
    return bool(cluster.get(subscriber, "/api/roots")["alpha"]["synced"])


def test_a_publisher_that_is_killed_is_shown_as_dead_when_its_lease_is_over(pair, figures):
    cluster, _, publisher, subscriber = pair
    publisher.kill()
    killed_s = time.monotonic()
    assert state(cluster, subscriber) == "live"
    noticed_s = seconds_until(lambda: not is_synced(cluster, subscriber))
    eventually(lambda: state(cluster, subscriber) == "lapsed")
    shown_s = time.monotonic() - killed_s
    figures.note("killed publisher: noticed by its follower", noticed_s, "s", STOP_NOTICED_S)
    figures.note("killed publisher: shown as dead", shown_s, "s", DEAD_SHOWN_S)
    assert noticed_s < STOP_NOTICED_S + LOADED_S
    assert shown_s < DEAD_SHOWN_S + LOADED_S


@pytest.mark.parametrize("pair", [1, 2], indirect=True, ids=["one address", "two addresses"])
def test_a_stopped_publisher_is_noticed_and_its_going_on_too(pair, figures):
    cluster, writer, publisher, subscriber = pair
    cluster.read_over_http(subscriber, ["alpha"])
    cluster.checker.wait()
    for number in range(3):
        time.sleep(0.7 * number)  # pings have a rhythm: begin at several places of it
        publisher.stop()
        noticed_s = seconds_until(lambda: not is_synced(cluster, subscriber))
        figures.note("stopped publisher: noticed", noticed_s, "s", STOP_NOTICED_S)
        assert noticed_s < STOP_NOTICED_S + LOADED_S
        writer.step()
        publisher.go_on()
        back_s = seconds_until(lambda: is_synced(cluster, subscriber))
        figures.note("stopped publisher goes on: followed again", back_s, "s", 5)
    cluster.checker.converged_s([writer], within_s=20)


def test_a_stopped_broker_is_left_and_events_go_through_the_other(pair, figures):
    cluster, writer, _, subscriber = pair
    cluster.read_over_http(subscriber, ["alpha"])
    cluster.checker.wait()
    writer.start()
    begin_s = time.monotonic()
    for number in range(3):
        time.sleep(0.35 * number)
        noticed_s = stop_broker_in_use(cluster, subscriber)
        figures.note("stopped broker: another is in use", noticed_s, "s", 5)
        assert noticed_s < 5 + LOADED_S
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    lag_s = figures.note(
        "stopped broker: longest wait for news", cluster.checker.longest_lag_s(writer, begin_s), "s", 5
    )
    assert lag_s < 5 + LOADED_S
    assert not cluster.checker.failures()


def stop_broker_in_use(cluster, subscriber):
    """Stop it until another one is used; give how long that took."""
    used = cluster.health(subscriber)["broker"]
    broker = next(b for b in cluster.services.values() if b.name[0] == "b" and endpoint_of(b) == used)
    broker.stop()
    noticed_s = seconds_until(lambda: cluster.health(subscriber)["broker"] not in (used, None))
    broker.go_on()
    eventually(lambda: cluster.neighbours_count(broker) == 1)
    return noticed_s


def test_a_broker_that_was_stopped_for_longer_than_a_lease_drops_no_root(cluster, tmp_path, figures, is_long):
    stopped_s = 60.0 if is_long else 2 * LEASE_S
    cluster, _, publisher, subscriber = build(cluster, tmp_path, () if is_long else SHORT_LEASE)
    broker = cluster.services["b1"]
    dropped: list[str] = []
    broker.stop()
    time.sleep(stopped_s)
    broker.go_on()
    until_s = time.monotonic() + (22 if is_long else 3 * LEASE_S)
    while time.monotonic() < until_s:
        dropped += [f"{root} {now}" for root, now in cluster.listed(broker).items() if now != "live"]
        dropped += [now for now in [state(cluster, subscriber)] if now != "live"]
        time.sleep(0.1)
    figures.note(f"a broker that slept for {stopped_s:g} s: roots dropped", len(dropped), "roots", 0)
    assert not dropped
    assert publisher.is_alive()


def test_every_service_ends_within_three_seconds_while_the_others_are_stopped(pair, figures):
    cluster, _, publisher, subscriber = pair
    cluster.services["b1"].stop()
    for what, service in (
        ("subscriber", subscriber),
        ("publisher", publisher),
        ("broker", cluster.services["b2"]),
    ):
        took_s = figures.note(f"SIGTERM: {what}, while a broker is stopped", service.terminate(), "s", STOP_S)
        assert took_s < STOP_S
    cluster.services["b1"].go_on()


def test_a_dead_publisher_is_noticed_by_whoever_reads_from_it(pair, figures):
    """A read that needs a chunk fails soon, and says why; what is cached goes on."""
    cluster, _, publisher, subscriber = pair
    cluster.get(subscriber, "/api/info/alpha/d0.b2nd")
    assert read(subscriber, "d0.b2nd") == 200
    publisher.stop()
    eventually(lambda: not is_synced(cluster, subscriber))
    begin_s = time.monotonic()
    assert read(subscriber, "d1.b2nd") == 503
    figures.note("read from a stopped publisher: refused after", time.monotonic() - begin_s, "s", 4)
    assert read(subscriber, "d0.b2nd") == 200
    publisher.go_on()
    eventually(lambda: read(subscriber, "d1.b2nd") == 200)


def read(subscriber, path):
    return status_of(f"{http_of(subscriber)}/api/fetch/alpha/{path}?slice_=0:16&fmt=raw")
