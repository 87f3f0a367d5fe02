"""Clocks: nobody's need agree with anybody's, and one that jumps ends nothing."""

import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import clock
import pytest
from cluster import endpoint_of, eventually
from writer import Writer

pytestmark = pytest.mark.timeout(300)

DAY_S = 86_400.0


@cache
def no_time_namespaces() -> str | None:
    try:
        tried = subprocess.run(
            ["unshare", "-T", "--monotonic", "1000", "true"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"no time namespaces: {error}"
    return f"no time namespaces: {tried.stderr.strip()}" if tried.returncode else None


def build(cluster, folder):
    writer = Writer("alpha", folder / "alpha", 1)
    first = cluster.broker("b1")
    second = cluster.broker("b2", endpoint_of(first))
    publisher = cluster.publisher(
        "p1", "alpha", writer.folder, [endpoint_of(first)], ["--set", "lease_s=4", "--set", "renew_s=0.5"]
    )
    subscriber = cluster.subscriber("s1", ["alpha"], [endpoint_of(second)])
    return writer, [first, second, publisher, subscriber]


def begin(cluster, writer, services):
    cluster.start(*services)
    cluster.read_over_http(services[-1], ["alpha"])
    cluster.checker.wait()
    eventually(lambda: cluster.listed(services[0]) == cluster.listed(services[1]) == {"alpha": "live"})
    writer.start()


def test_hosts_that_have_been_up_for_very_different_times_understand_each_other(cluster, tmp_path):
    reason = no_time_namespaces()
    if reason:
        pytest.skip(reason)
    writer, services = build(cluster, tmp_path)
    for service, up_s in zip(services, (0, 100_000_000, 50_000, 7), strict=True):
        offset = ["--monotonic", str(up_s), "--boottime", str(up_s)]
        service.prefix = ("unshare", "-T", *offset, "--fork", "--kill-child")
    begin(cluster, writer, services)
    time.sleep(6)  # longer than a lease
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert cluster.listed(services[0]) == cluster.listed(services[1]) == {"alpha": "live"}
    assert not cluster.checker.failures()


def test_a_clock_that_jumps_ends_nothing(cluster, tmp_path):
    """The wall clock by days, both ways; the monotonic one forward by minutes, as after a sleep of the machine."""
    writer, services = build(cluster, tmp_path)
    told = {name: tmp_path / f"clock-{name}" for name in ("b1", "b2", "p1", "s1")}
    for name, path in told.items():
        clock.offsets(path, 0, 0)
        command = cluster.services[name].command
        assert command[:3] == [sys.executable, "-m", "zcat"]
        command[1:3] = [str(Path(clock.__file__)), str(path)]
    begin(cluster, writer, services)
    dropped = []
    for name, path in told.items():
        for monotonic_s, wall_s in ((0, DAY_S), (0, -DAY_S), (90, 0), (300, 10 * DAY_S), (300, 0)):
            clock.offsets(path, monotonic_s, wall_s)
            until_s = time.monotonic() + 0.8
            while time.monotonic() < until_s:
                dropped += [
                    f"{name}: {now}" for b in services[:2] for now in cluster.listed(b).values() if now != "live"
                ]
                time.sleep(0.1)
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert not dropped
    assert {failure.code for failure in cluster.checker.failures()} <= {"unavailable", "timeout"}
