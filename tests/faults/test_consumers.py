"""Peers that never read what they ask for, and peers that only connect: they harm nobody but themselves."""

import contextlib
import socket
import time

import pytest
import zmq
from cluster import endpoint_of, eventually, http_of, limited
from writer import Writer

from zcat.limits import MIB
from zcat.protocol.messages import Chunks, Info, Ping, encode

pytestmark = pytest.mark.timeout(300)

BROKER_BYTES_MAX = 200 * MIB
PUBLISHER_BYTES_MAX = 600 * MIB
SUBSCRIBER_BYTES_MAX = 600 * MIB
SPARE_DESCRIPTORS = {"b1": 30, "p1": 30, "s1": 200}
"""Above what each has open when it is idle; a subscriber keeps several files of some datasets open."""
FLOOD_COUNT = {"b1": 300, "p1": 300, "s1": 800}


@pytest.fixture
def stage(cluster, tmp_path):
    writer = Writer("alpha", tmp_path / "alpha", 1)
    broker = cluster.broker("b1")
    cluster.publisher("p1", "alpha", writer.folder, [endpoint_of(broker)])
    cluster.subscriber("s1", ["alpha"], [endpoint_of(broker)])
    yield cluster, writer
    writer.stop()


def begin(cluster, writer):
    cluster.start(*cluster.services.values())
    cluster.read_over_http(cluster.services["s1"], ["alpha"])
    cluster.checker.wait()
    writer.start()


def check(cluster, writer):
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert not cluster.checker.failures(), cluster.checker.failures()[:3]


def test_consumers_that_never_read_cost_others_nothing_and_little_memory(stage, figures, is_long):
    cluster, writer = stage
    begin(cluster, writer)
    broker, publisher, subscriber = (cluster.services[name] for name in ("b1", "p1", "s1"))
    pong = cluster.ask(endpoint_of(broker), Ping())
    egress = pong.egress.replace("*", "127.0.0.1")
    (asked,) = cluster.claim(broker, "alpha").endpoints
    lineage = cluster.ask(asked, Info("alpha", "d0.b2nd")).entry.lineage
    before_s = time.monotonic()
    with contextlib.ExitStack() as held:
        context = held.enter_context(zmq.Context(io_threads=1))
        context.set(zmq.MAX_SOCKETS, 4096)
        for _ in range(500 if is_long else 40):
            deaf = held.enter_context(_socket(context, zmq.SUB))
            deaf.subscribe(b"")
            deaf.connect(egress)
        greedy = [held.enter_context(_socket(context, zmq.DEALER)) for _ in range(8)]
        request = encode(Chunks("alpha", "d0.b2nd", lineage, tuple(range(16)), bulk=True), 1)
        for each in greedy:
            each.connect(asked)
            for _ in range(200):  # 100 MB of answers for each of them
                each.send_multipart(request)
        for _ in range(20):
            stalled = held.enter_context(socket.create_connection(_address(http_of(subscriber))))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.sendall(b"GET /api/download/alpha/d1.b2nd HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        time.sleep(30 if is_long else 8)
        for service, most in (
            (broker, BROKER_BYTES_MAX), (publisher, PUBLISHER_BYTES_MAX), (subscriber, SUBSCRIBER_BYTES_MAX),
        ):  # fmt: skip
            used = figures.note(
                f"deaf consumers: memory of {service.name}", service.rss_bytes() / MIB, "MiB", most / MIB
            )
            assert used < most / MIB
        pause_s = figures.note(
            "deaf consumers: longest pause of others", cluster.checker.longest_pause_s(before_s), "s", 5
        )
        assert pause_s < 5
    check(cluster, writer)


def test_processes_that_run_out_of_file_descriptors_say_so_survive_and_recover(stage):
    """Whoever connects and says nothing holds a descriptor for a while."""
    cluster, writer = stage
    services = cluster.services
    cluster.start(*services.values())
    for name, spare in SPARE_DESCRIPTORS.items():
        services[name].prefix = limited("NOFILE", _descriptors(services[name]) + spare)
    for service in services.values():
        service.terminate()
    services["s1"].command += ["--set", "http.idle_timeout_s=3", "--set", "http.header_deadline_s=2"]
    begin(cluster, writer)
    for name, count in FLOOD_COUNT.items():
        flood(cluster, name, count)
        if name == "b1":
            assert not cluster.checker.failures(), cluster.checker.failures()[:3]
    flood_end_s = time.monotonic()
    writer.stop()
    cluster.checker.converged_s([writer], within_s=30)
    late = [failure for failure in cluster.checker.failures() if failure.when.begin_s > flood_end_s]
    assert not late, late[:3]


def flood(cluster, name, count):
    """Connect so often that no descriptor is left, and go again."""
    victim = cluster.services[name]
    place = {"b1": endpoint_of, "p1": lambda _: _asked(cluster), "s1": http_of}[name](victim)
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(socket.create_connection(_address(place), timeout=10))
        eventually(lambda: "file descriptors run out" in victim.log.read_text())
        assert victim.is_alive()
    eventually(lambda: "enough file descriptors again" in victim.log.read_text())
    assert victim.is_alive()


def _socket(context, kind):
    made = context.socket(kind)
    made.set(zmq.LINGER, 0)
    made.set(zmq.RCVHWM, 1)
    made.set(zmq.SNDHWM, 10_000)
    made.set(zmq.RCVBUF, 4096)
    return made


def _asked(cluster):
    (endpoint,) = cluster.claim(cluster.services["b1"], "alpha").endpoints
    return endpoint


def _address(place):
    host, _, port = place.partition("://")[2].rpartition(":")
    return host, int(port)


def _descriptors(service):
    import os

    return len(os.listdir(f"/proc/{service.pid}/fd"))
