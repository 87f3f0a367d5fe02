"""What takes no more than a moment is answered by the thread that has read the request; nothing else is."""

import socket
import threading
from contextlib import closing

import numpy as np
import pytest
from network import Network, eventually, read, write_array

from zcat.config import HttpConfig
from zcat.errors import BadSelection, DatasetUnknown
from zcat.http.app import make_app
from zcat.http.server import HttpServer
from zcat.model.selection import Points, parse_key
from zcat.services.at_hand import NotAtHand

SHAPE = (400, 600)
CUBE = np.arange(400 * 600, dtype="f4").reshape(SHAPE)
LARGE = np.arange(4 << 20, dtype="u1")
FETCH = "/api/fetch/sst/x.b2nd?fmt=raw&slice_="


@pytest.fixture
def network(tmp_path):
    write_array(tmp_path / "data" / "x.b2nd", CUBE, chunks=(100, 300), blocks=(20, 60))
    write_array(tmp_path / "data" / "large.b2nd", LARGE, chunks=(1 << 20,), blocks=(1 << 16,))
    network = Network(tmp_path)
    network.broker()
    network.publisher("sst", tmp_path / "data")
    with closing(network):
        yield network


@pytest.fixture
def subscriber(network):
    made = network.subscriber()
    made.follow("sst")
    return made


def at_hand(subscriber, key, path="x.b2nd"):
    def work(dataset):
        box = parse_key(key, dataset.info.geometry.array.shape)
        return box.finish(dataset.read(box.what))

    return subscriber.at_hand("sst", path, work)


class Threads:
    """An app, and the names of the threads that it was called by."""

    def __init__(self, app):
        self._app = app
        self.names = []

    def __call__(self, environ, start_response):
        self.names.append(threading.current_thread().name)
        return self._app(environ, start_response)

    def at_hand(self, environ, start_response):
        answer = self._app.at_hand(environ, start_response)
        self.names.append(threading.current_thread().name)
        return answer


@pytest.fixture
def served(subscriber):
    app = Threads(make_app(subscriber))
    server = HttpServer(app, HttpConfig(port=0))
    server.start()
    with closing(server):
        yield server, app


def connected(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)


def asked(raw, *requests):
    """Send requests at once; return the status and the body of each answer, in their order."""
    raw.sendall(b"".join(f"GET {request} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for request in requests))
    lines = raw.makefile("rb")
    answers = []
    for _ in requests:
        status, length = lines.readline().split()[1], 0
        while (line := lines.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        answers.append((int(status), lines.read(length)))
    return answers


def test_what_is_cached_is_at_hand_and_what_is_not_is_not(subscriber):
    with pytest.raises(NotAtHand):
        at_hand(subscriber, (3, slice(5, 90)))  # nobody knows yet what it is
    read(subscriber, "sst", "x.b2nd", (slice(0, 100), slice(0, 300)))
    np.testing.assert_array_equal(at_hand(subscriber, (3, slice(5, 90, 2))), CUBE[3, 5:90:2])
    np.testing.assert_array_equal(at_hand(subscriber, (slice(90, 20, -30), [7, 250])), CUBE[90:20:-30, [7, 250]])
    with pytest.raises(NotAtHand):
        at_hand(subscriber, (slice(90, 110), 0))  # of which a chunk is missing
    with pytest.raises(DatasetUnknown):
        at_hand(subscriber, (0,), "nothing.b2nd")


def test_what_takes_longer_is_not_at_hand_though_it_is_cached(subscriber):
    read(subscriber, "sst", "large.b2nd")
    assert at_hand(subscriber, (slice(0, 1 << 20, 4096),), "large.b2nd").nbytes == 256
    for key in ((slice(1 << 10, 3 << 20, 4096),), (slice(0, 3 << 20),)):
        with pytest.raises(NotAtHand):
            at_hand(subscriber, key, "large.b2nd")
    for work in (
        lambda dataset: dataset.read(Points(np.array([[1], [2]]))),
        lambda dataset: dataset.sizes(),
        lambda dataset: list(dataset.views([np.arange(2)])),
        lambda dataset: dataset.bring(np.arange(2)),
        lambda dataset: dataset.fetch(),
    ):
        with pytest.raises(NotAtHand):
            subscriber.at_hand("sst", "large.b2nd", work)


def test_a_dataset_that_changed_is_not_at_hand_until_it_was_asked_about(network, subscriber, tmp_path):
    read(subscriber, "sst", "x.b2nd")
    before = subscriber.entries("sst", "x.b2nd")[0].lineage
    write_array(tmp_path / "data" / "x.b2nd", -CUBE, chunks=(100, 300), blocks=(20, 60))
    eventually(lambda: subscriber.entries("sst", "x.b2nd")[0].lineage != before)
    with pytest.raises(NotAtHand):
        at_hand(subscriber, (3, slice(5, 90)))
    read(subscriber, "sst", "x.b2nd")
    np.testing.assert_array_equal(at_hand(subscriber, (3, slice(5, 90))), -CUBE[3, 5:90])


def test_the_thread_of_the_connections_answers_what_is_at_hand_and_no_more(served):
    server, app = served
    with closing(connected(server)) as raw:
        for _ in range(2):
            [(status, body)] = asked(raw, f"{FETCH}3,5:90")
            assert (status, body) == (200, CUBE[3, 5:90].tobytes())
        [(status, _)] = asked(raw, f"{FETCH}:")
        assert status == 200
        for elsewhere in ("/api/roots", f"{FETCH}3,5:90&fit=10", f"{FETCH}3,5:90{' ' * 1024}".replace(" ", "%20")):
            [(status, _)] = asked(raw, elsewhere)
            assert status == 200
        [(status, _)] = asked(raw, f"{FETCH}900")
        assert status == 400
    own, pool = "zcat-http", "zcat-http-worker"
    assert app.names == [pool, own, pool, pool, pool, pool, own]


def test_answers_come_in_the_order_of_requests_whoever_makes_them(served):
    server, app = served
    with closing(connected(server)) as raw:
        asked(raw, f"{FETCH}:")  # all of it is cached now, and too much to be at hand
        answers = asked(raw, f"{FETCH}1", "/api/roots", f"{FETCH}2", f"{FETCH}:", f"{FETCH}3", f"{FETCH}4")
    bodies = [body for _, body in answers]
    assert [status for status, _ in answers] == [200] * 6
    assert [bodies[0], *bodies[2:]] == [part.tobytes() for part in (CUBE[1], CUBE[2], CUBE, CUBE[3], CUBE[4])]
    assert {"zcat-http", "zcat-http-worker"} == set(app.names)


def test_a_client_that_reads_none_of_many_answers_keeps_nobody_waiting(served):
    server, _ = served
    with closing(connected(server)) as deaf, closing(connected(server)) as other:
        asked(other, f"{FETCH}:")
        request = f"GET {FETCH}:100,:300 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        deaf.setblocking(False)
        refusals = 0
        while refusals < 50:  # one after the other: the server takes no more of them
            try:
                deaf.send(request * 100)
                refusals = 0
            except BlockingIOError:
                refusals += 1
                asked(other, f"{FETCH}1")
        assert asked(other, f"{FETCH}1") == [(200, CUBE[1].tobytes())]


def test_an_error_of_its_own_in_what_is_at_hand_concerns_one_client(subscriber, caplog):
    class Broken:
        def __call__(self, environ, start_response):
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]

        def at_hand(self, environ, start_response):
            raise BadSelection("outside of what handles errors")

    server = HttpServer(Broken(), HttpConfig(port=0))
    server.start()
    with closing(server), closing(connected(server)) as raw:
        assert asked(raw, "/", "/") == [(200, b"ok")] * 2
    assert "bug in=http" in caplog.text
