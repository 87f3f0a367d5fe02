"""The processes that answer HTTP for a subscriber: any may die, and none outlives the subscriber."""

import os
import signal
import time

import pytest
from cluster import endpoint_of, eventually
from writer import Writer

pytestmark = pytest.mark.timeout(300)

PAUSE_MAX_S = 5.0
KILLS = 6


@pytest.fixture
def stage(cluster, tmp_path):
    writer = Writer("alpha", tmp_path / "alpha", 1)
    broker = cluster.broker("b1")
    publisher = cluster.publisher("p1", "alpha", writer.folder, [endpoint_of(broker)])
    subscriber = cluster.subscriber("s1", ["alpha"], [endpoint_of(broker)], ["--workers", "2"])
    cluster.start(broker, publisher, subscriber)
    for number in range(2):
        cluster.read_over_http(subscriber, ["alpha"], number, name=f"reader-{number}")
    cluster.checker.wait()
    writer.start()
    yield cluster, writer, subscriber
    writer.stop()


def workers(cluster, subscriber):
    return {each["pid"] for each in cluster.health(subscriber)["workers"] if each["ready"]}


def test_a_worker_that_is_killed_breaks_its_own_connections_only(stage, figures):
    cluster, writer, subscriber = stage
    begin_s = time.monotonic()
    for _ in range(KILLS):
        held = eventually(lambda: len(pids := workers(cluster, subscriber)) == 2 and pids, retried=(OSError,))
        os.kill(min(held), signal.SIGKILL)
        # asked on a new connection each time, which another worker takes
        eventually(lambda: workers(cluster, subscriber) - held, retried=(OSError,))  # noqa: B023
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    failed = cluster.checker.failures()
    figures.note(f"{KILLS} workers killed: reads cut off", len(failed), "reads")
    pause_s = figures.note(
        "workers killed: longest pause", cluster.checker.longest_pause_s(begin_s), "s", PAUSE_MAX_S
    )
    assert {failure.code for failure in failed} <= {"no-answer"}
    assert len(failed) <= 2 * KILLS
    assert pause_s < PAUSE_MAX_S


def test_workers_end_with_a_subscriber_that_is_killed_and_leave_it_its_address(stage):
    cluster, writer, subscriber = stage
    before = eventually(lambda: workers(cluster, subscriber))
    subscriber.kill()
    subscriber.start()
    eventually(lambda: not [pid for pid in before if os.path.exists(f"/proc/{pid}")])
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert {failure.code for failure in cluster.checker.failures()} <= {"no-answer"}
