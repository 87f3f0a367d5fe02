"""Everything that bad links and bad middle boxes do to connections, one after the other, to all that pass."""

import time

import pytest
from cluster import endpoint_of, eventually, free_port
from proxy import FAIR, Door, Weather
from stage import WEATHERS
from writer import Writer

pytestmark = pytest.mark.timeout(300)

EXCUSED = {"unavailable", "timeout", "busy", "stale"}
EACH_S = 2.5


@pytest.fixture
def stage(cluster, tmp_path):
    """A broker and a publisher, each behind a door; another broker beside; a subscriber and its reader."""
    writer = Writer("alpha", tmp_path / "alpha", 1)
    ways = {way: free_port() for way in ("ingress", "egress", "mesh")}
    flags = [word for way, port in ways.items() for word in ("--set", f'{way}="tcp://127.0.0.1:{port}"')]
    behind = cluster.broker("b1", flags=[*flags, "--advertise", "127.0.3.1"])
    port = int(endpoint_of(behind).rpartition(":")[2])
    first = f"tcp://127.0.3.1:{port}"
    beside = cluster.broker("b2", first)
    publisher = cluster.publisher("p1", "alpha", writer.folder, [first], ["--advertise", "127.0.3.2"])
    asked_port = free_port()
    publisher.command[publisher.command.index("--listen") + 1] = f"tcp://127.0.0.1:{asked_port}"
    subscriber = cluster.subscriber("s1", ["alpha"], [first, endpoint_of(beside)])
    with (
        Door("127.0.3.1", "127.0.0.1", [port, *ways.values()], 1) as broker_door,
        Door("127.0.3.2", "127.0.0.1", [asked_port], 2) as publisher_door,
    ):
        cluster.start(behind, beside, publisher, subscriber)
        cluster.read_over_http(subscriber, ["alpha"])
        cluster.checker.wait()
        writer.start()
        yield cluster, writer, broker_door, publisher_door
        writer.stop()


def suffer(door: Door) -> None:
    for weather in WEATHERS.values():
        door.weather = weather
        time.sleep(EACH_S)
        door.weather = FAIR
        time.sleep(0.5)
    for _ in range(5):
        door.cut()
        time.sleep(0.3)
        door.half_close()
        time.sleep(0.3)


def test_nothing_that_happens_to_the_connections_of_a_broker_fails_a_read(stage, figures):
    cluster, writer, door, _ = stage
    begin_s = time.monotonic()
    suffer(door)
    writer.stop()
    figures.note("broker's door: all see the same after", cluster.checker.converged_s([writer], 40), "s", 40)
    figures.note("broker's door: failed reads", len(cluster.checker.failures()), "reads", 0)
    lag_s = cluster.checker.longest_lag_s(writer, begin_s)
    figures.note("broker's door: longest wait for news", lag_s, "s", 5)
    assert not cluster.checker.failures()
    assert lag_s < 5


def test_whatever_happens_to_the_connections_of_a_publisher_nothing_wrong_is_read(stage, figures):
    cluster, writer, _, door = stage
    suffer(door)
    door.weather = Weather(holds=True)
    eventually(lambda: not cluster.get(cluster.services["s1"], "/api/roots")["alpha"]["synced"])
    door.weather = FAIR
    writer.stop()
    figures.note("publisher's door: all see the same after", cluster.checker.converged_s([writer], 40), "s", 40)
    assert {failure.code for failure in cluster.checker.failures()} <= EXCUSED
