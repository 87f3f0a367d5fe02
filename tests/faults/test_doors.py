"""Everything that bad links and bad middle boxes do to connections, one after the other, to all that pass."""

import time
from dataclasses import dataclass

import pytest
from cluster import Cluster, Service, endpoint_of, eventually, free_port, seconds_until
from proxy import FAIR, Door, Weather
from stage import WEATHERS
from writer import Writer

pytestmark = pytest.mark.timeout(300)

EXCUSED = {"unavailable", "timeout", "busy", "stale"}
EACH_S = 2.5
ANEW = "no events come from the broker, connecting anew"


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is on it, and which doors they are behind."""

    cluster: Cluster
    writer: Writer
    broker_door: Door
    """Of all its ports but that for events to subscribers."""
    egress_door: Door
    publisher_door: Door

    @property
    def all_of_broker(self) -> tuple[Door, Door]:
        return self.broker_door, self.egress_door


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
        Door("127.0.3.1", "127.0.0.1", [port, ways["ingress"], ways["mesh"]], 1) as broker_door,
        Door("127.0.3.1", "127.0.0.1", [ways["egress"]], 3) as egress_door,
        Door("127.0.3.2", "127.0.0.1", [asked_port], 2) as publisher_door,
    ):
        cluster.start(behind, beside, publisher, subscriber)
        cluster.read_over_http(subscriber, ["alpha"])
        cluster.checker.wait()
        writer.start()
        yield Stage(cluster, writer, broker_door, egress_door, publisher_door)
        writer.stop()


def suffer(*doors: Door) -> None:
    for weather in WEATHERS.values():
        for door in doors:
            door.weather = weather
        time.sleep(EACH_S)
        for door in doors:
            door.weather = FAIR
        time.sleep(0.5)
    for _ in range(5):
        for what in (Door.cut, Door.half_close):
            for door in doors:
                what(door)
            time.sleep(0.3)


def test_nothing_that_happens_to_the_connections_of_a_broker_fails_a_read(stage, figures):
    cluster, writer = stage.cluster, stage.writer
    begin_s = time.monotonic()
    suffer(*stage.all_of_broker)
    writer.stop()
    figures.note("broker's door: all see the same after", cluster.checker.converged_s([writer], 40), "s", 40)
    figures.note("broker's door: failed reads", len(cluster.checker.failures()), "reads", 0)
    lag_s = cluster.checker.longest_lag_s(writer, begin_s)
    figures.note("broker's door: longest wait for news", lag_s, "s", 5)
    assert not cluster.checker.failures()
    assert lag_s < 5


def test_whatever_happens_to_the_connections_of_a_publisher_nothing_wrong_is_read(stage, figures):
    cluster, writer, door = stage.cluster, stage.writer, stage.publisher_door
    suffer(door)
    door.weather = Weather(holds=True)
    eventually(lambda: not cluster.get(cluster.services["s1"], "/api/roots")["alpha"]["synced"])
    door.weather = FAIR
    writer.stop()
    figures.note("publisher's door: all see the same after", cluster.checker.converged_s([writer], 40), "s", 40)
    assert {failure.code for failure in cluster.checker.failures()} <= EXCUSED


def test_connections_that_a_box_has_forgotten_are_noticed_by_their_silence(stage, figures):
    """No packet tells of it, and the kernels at both ends see nothing wrong."""
    cluster, writer = stage.cluster, stage.writer
    brokers = [cluster.services["b1"], cluster.services["b2"]]
    begin_s = time.monotonic()
    for _ in range(2):
        linked = [said(broker, " linked mesh=") for broker in brokers]
        for door in stage.all_of_broker:
            door.forget()
        back_s = seconds_until(lambda before=linked: said(brokers[1], " linked mesh=") > before[1])
        eventually(lambda: [cluster.neighbours_count(broker) for broker in brokers] == [1, 1])
        figures.note("forgotten connections of a broker: linked again", back_s, "s", 10)
        stage.publisher_door.forget()
        time.sleep(EACH_S)
    writer.stop()
    cluster.checker.converged_s([writer], 40)
    lag_s = cluster.checker.longest_lag_s(writer, begin_s)
    figures.note("forgotten connections: longest wait for news", lag_s, "s", 10)
    assert {failure.code for failure in cluster.checker.failures()} <= EXCUSED
    assert lag_s < 10


def test_a_subscriber_that_hears_no_events_any_more_connects_anew(stage):
    cluster, subscriber = stage.cluster, stage.cluster.services["s1"]
    eventually(lambda: cluster.health(subscriber)["broker"] is not None)
    used = cluster.health(subscriber)["broker"]
    if used != endpoint_of(cluster.services["b1"]).replace("127.0.0.1", "127.0.3.1"):
        cluster.services["b2"].kill()
        eventually(lambda: cluster.health(subscriber)["broker"] not in (used, None))
    time.sleep(EACH_S)  # beats are expected after the first
    before = said(subscriber, ANEW)  # a broker that was killed is silent, too
    stage.egress_door.forget()
    eventually(lambda: said(subscriber, ANEW) == before + 1)
    time.sleep(3 * EACH_S)
    assert said(subscriber, ANEW) == before + 1
    assert not cluster.checker.failures()


def said(service: Service, what: str) -> int:
    """How often its log says something."""
    return service.log.read_text().count(what)
