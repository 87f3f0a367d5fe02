"""The real server on the loopback: connections, ranges, large bodies, and clients that mean harm."""

import contextlib
import gc
import http.client
import json
import logging
import resource
import socket
import threading
import time
import tracemalloc
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from held_datasets import HeldDataset, example_roots, held_app, held_array, held_bytes

from zcat.config import HttpConfig
from zcat.errors import AddressInUse, BadConfig, Unavailable
from zcat.http.server import HttpServer, exposure, raise_file_limit
from zcat.limits import MIB
from zcat.model.dataset import Kind

QUICK = HttpConfig(port=0, threads=2, header_deadline_s=0.5, idle_timeout_s=2.0, body_rate_min_bytes=10_000)
CUBE = "/api/fetch/lab/dir1/ds-3d.b2nd"
WAIT_S = 15.0


@contextlib.contextmanager
def serving(held, config=QUICK):
    server = HttpServer(held_app(held, config), config)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def held():
    return example_roots()


@pytest.fixture
def server(held):
    with serving(held) as server:
        yield server


def port_of(server):
    return int(server.url.rpartition(":")[2])


def connected(server):
    raw = socket.create_connection(("127.0.0.1", port_of(server)), timeout=WAIT_S)
    raw.settimeout(WAIT_S)
    return raw


def connection_to(server):
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=WAIT_S))


def get(connection, path, **headers):
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response, response.read()


def raw_answer(server, request):
    with connected(server) as raw:
        raw.sendall(request)
        return everything(raw)


def everything(raw):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65536):
            received += piece
    return received


def drip(raw, seconds_between):
    """Send a byte now and then until the server has enough; return how long it had patience."""
    begun_s, patience = time.monotonic(), threading.Event()
    with contextlib.suppress(OSError):
        while time.monotonic() - begun_s < WAIT_S:
            raw.send(b"x")
            patience.wait(seconds_between)
            raw.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if raw.recv(1000) == b"":
                    break
            raw.setblocking(True)
    return time.monotonic() - begun_s


def test_the_url_has_the_real_port_and_answers(server):
    with connection_to(server) as connection:
        response, body = get(connection, "/api/roots")

    assert response.status == 200
    assert "lab" in json.loads(body)
    assert response.headers["Server"] is None


def test_many_requests_go_over_one_connection(server):
    with connection_to(server) as connection:
        get(connection, "/api/roots")
        socket_used = connection.sock
        for path in (CUBE, f"{CUBE}?slice_=1&fmt=raw", "/nothing", "/api/info/lab/README.md"):
            response, _ = get(connection, path)
            assert not response.will_close
        assert connection.sock is socket_used


def test_head_and_not_modified_keep_the_connection_usable(server):
    with connection_to(server) as connection:
        response, _ = get(connection, CUBE)
        assert get(connection, CUBE, If_None_Match=response.headers["ETag"])[0].status == 304
        connection.request("HEAD", f"{CUBE}?slice_=1&fmt=raw")
        head = connection.getresponse()
        assert (head.read(), head.headers["Content-Length"]) == (b"", "80")
        assert get(connection, "/api/roots")[0].status == 200


def test_head_without_a_known_length_ends_the_connection_cleanly(server):
    request = f"HEAD {CUBE}?slice_=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    assert raw_answer(server, request).endswith(b"\r\n\r\n")
    assert b"\r\n0\r\n" not in raw_answer(server, request)


@pytest.mark.parametrize("complete", [True, False])
def test_large_bodies_and_their_ranges_arrive_whole(held, complete):
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2000)).astype("u1")
    large = held_array("large.b2nd", noise)
    large.complete = complete
    held.datasets["lab"]["large.b2nd"] = large
    path = "/api/fetch/lab/large.b2nd"
    with serving(held) as server, connection_to(server) as connection:
        assert get(connection, path)[1] == large.cframe
        assert get(connection, f"{path}?fmt=raw")[1] == noise.tobytes()
        assert get(connection, f"{path}?fmt=npy")[1].endswith(noise.tobytes())
        assert blosc2.decompress2(get(connection, f"{path}?fmt=chunks&slice_=5")[1]) == noise[5].tobytes()
        response, body = get(connection, path, Range="bytes=1000000-5000000")
        assert (response.status, body) == (206, large.cframe[1_000_000:5_000_001])
        response, body = get(connection, path, Range="bytes=0-1999999, 3000000-3999999")
        assert large.cframe[:2_000_000] in body
        assert large.cframe[3_000_000:4_000_000] in body
        assert get(connection, "/api/roots")[0].status == 200


def test_a_large_file_is_downloaded_whole(held):
    content = np.random.default_rng(1).bytes(9_000_000)
    held.datasets["lab"]["large.bin"] = held_bytes("large.bin", content, chunksize=1 << 20)
    with serving(held) as server, connection_to(server) as connection:
        assert get(connection, "/api/download/lab/large.bin")[1] == content


def test_an_answer_that_cannot_be_finished_is_cut_and_not_completed(held, caplog):
    cube = held.datasets["lab"]["dir1/ds-3d.b2nd"]
    cube.complete = False
    whole = cube.frame()

    class Broken:
        nbytes, local = whole.nbytes, False

        def iter_bytes(self, start=0, stop=None):
            yield cube.cframe[:500]
            raise Unavailable("the publisher is gone")

        def close(self):
            whole.close()

    cube.frame = Broken
    with serving(held) as server, connection_to(server) as connection:
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(connection, CUBE)
        assert len(caught.value.partial) <= 500
    assert "the publisher is gone" in caplog.text


def test_a_slice_of_any_size_takes_the_memory_of_a_few_pieces(held):
    huge = huge_zeros()
    held.datasets["lab"]["huge.b2nd"] = huge
    size, taken = huge.content.nbytes, 0
    with serving(held, replace(QUICK, answer_max_bytes=MIB * 200)) as server, connected(server) as raw:
        tracemalloc.start()
        raw.sendall(b"GET /api/fetch/lab/huge.b2nd?fmt=raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while piece := raw.recv(MIB):
            taken += len(piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert size < taken < size + 1000
    assert peak < size / 4


@pytest.mark.parametrize("slice_", ["", "&slice_=:,1:"])
def test_a_client_that_goes_away_stops_the_work(held, slice_):
    huge = huge_zeros()
    held.datasets["lab"]["huge.b2nd"] = huge
    path = f"/api/fetch/lab/huge.b2nd?fmt=raw{slice_}"
    with serving(held, replace(QUICK, idle_timeout_s=100.0)) as server:
        with connected(server) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 200 OK")
            wait_until(huge.is_quiet)  # what nobody takes is not read ahead of
            assert huge.reads < 12
        wait_until(lambda: not any(thread.name.startswith("zcat-ahead") for thread in threading.enumerate()))
        assert huge.reads < 12


def huge_zeros():
    """Half a gigabyte that takes no memory, in 128 chunks."""
    shape, chunks = (128, 1024, 1024), (1, 1024, 1024)
    array = blosc2.zeros(shape, "f4", chunks=chunks, blocks=(1, 32, 1024))
    return Huge("huge.b2nd", np.broadcast_to(np.float32(0), shape), array.schunk, Kind.ARRAY)


class Huge(HeldDataset):
    """A dataset that tells when nobody has read for a while."""

    read_at_s = 0.0

    def read(self, what):
        self.read_at_s = time.monotonic()
        return super().read(what)

    def is_quiet(self):
        return self.read_at_s and time.monotonic() > self.read_at_s + 0.3


def wait_until(look):
    until_s = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < until_s
        threading.Event().wait(0.01)


def test_parallel_clients_all_get_their_own_answer(server, held):
    cube = held.datasets["lab"]["dir1/ds-3d.b2nd"].content
    wrong = []

    def work(number):
        with connection_to(server) as connection:
            for i in range(50):
                index = (number + i) % 3
                if get(connection, f"{CUBE}?slice_={index}&fmt=raw")[1] != cube[index].tobytes():
                    wrong.append((number, i))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- clients that mean harm, or are broken -----------------------------------------------------------


def test_a_header_that_comes_byte_by_byte_is_cut_off(server):
    with connected(server) as raw:
        raw.sendall(b"GET /api/roots HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        assert drip(raw, 0.05) < WAIT_S


def test_a_body_that_comes_byte_by_byte_is_cut_off(server):
    with connected(server) as raw:
        raw.sendall(b"POST /api/fetch/lab/ds-1d.b2nd HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")

        assert drip(raw, 0.05) < WAIT_S


def test_slow_clients_do_not_keep_others_waiting(server):
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            raw = stack.enter_context(connected(server))
            raw.sendall(b"GET /api/roots HTTP/1.1\r\nHost:")
        with connection_to(server) as connection:
            assert get(connection, "/api/roots")[0].status == 200


def test_clients_that_do_not_read_lose_the_workers_they_hold(held):
    noise = np.random.default_rng(0).integers(0, 256, (6000, 10_000)).astype("u1")
    large = held_array("large.b2nd", noise)
    large.complete = False  # so that a worker fetches and sends
    held.datasets["lab"]["large.b2nd"] = large
    with serving(held) as server, contextlib.ExitStack() as stack:
        for _ in range(QUICK.threads):
            raw = stack.enter_context(connected(server))
            raw.sendall(b"GET /api/fetch/lab/large.b2nd HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.recv(1000)
        with connection_to(server) as connection:  # all workers are busy with them, until they are cut
            assert get(connection, "/api/roots")[0].status == 200


def test_memory_of_answers_that_nobody_takes_is_limited_and_given_back(held):
    rows = np.random.default_rng(0).integers(0, 256, (2, 8 * MIB)).astype("u1")
    held.datasets["lab"]["rows.b2nd"] = held_array("rows.b2nd", rows)
    config = replace(QUICK, answer_max_bytes=8 * MIB, idle_timeout_s=WAIT_S, threads=2)  # so that nobody waits
    path = "/api/fetch/lab/rows.b2nd?slice_=0&fmt=raw"
    with serving(held, config) as server, connection_to(server) as connection:
        for _ in range(3):  # what was not given back would be missing in the next round
            with contextlib.ExitStack() as stack:
                for _ in range(2):
                    taken(server, path, stack)
                answer, body = get(connection, path)
                assert (answer.status, json.loads(body)["code"]) == (503, "busy")
                assert get(connection, "/api/fetch/lab/rows.b2nd?slice_=0,:9&fmt=raw")[0].status == 200


def taken(server, path, stack):
    """Begin to take an answer, as soon as the server has seen that those before are gone."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        raw = stack.enter_context(connected(server))
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if b"200 OK" in raw.recv(1000):
            return
    raise AssertionError("there is no room for an answer")


def test_a_silent_connection_is_closed(server):
    with connected(server) as raw:
        assert raw.recv(1) == b""


def test_a_thousand_idle_connections_do_not_stop_a_good_client(held):
    raise_file_limit(4096)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2200:
        pytest.skip("this system allows too few open files for both ends of 1000 connections")
    with serving(held, replace(QUICK, idle_timeout_s=30.0)) as server, contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(server))
        with connection_to(server) as connection:
            for _ in range(20):
                assert get(connection, "/api/roots")[0].status == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5",
    ],
)
def test_a_request_of_two_lengths_is_refused(server, headers):
    request = b"POST /api/fetch/lab/ds-1d.b2nd HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n0\r\n\r\n"

    answer = raw_answer(server, request)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad-request"
    assert answer.count(b"HTTP/1.1") == 1


def test_an_old_request_with_a_transfer_encoding_and_a_length_is_refused(server):
    request = b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"

    assert b" 400 " in raw_answer(server, request).partition(b"\r\n")[0]


def test_a_header_that_is_too_long_is_refused_as_json(server):
    answer = raw_answer(server, b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n")

    assert b" 431 " in answer.partition(b"\r\n")[0]
    assert "detail" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(server):
    head = f"POST {CUBE} HTTP/1.1\r\nHost: x\r\nContent-Length: {(16 << 20) + 1}\r\n\r\n".encode()

    answer = raw_answer(server, head)

    assert b" 413 " in answer.partition(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too-large"


def test_a_body_of_just_the_limit_is_read(held):
    with serving(held, replace(QUICK, body_max_bytes=800)) as server, connection_to(server) as connection:
        connection.request("POST", "/api/points/lab/ds-1d.b2nd", body=np.arange(100, dtype="<i8").tobytes())
        assert connection.getresponse().read() == np.arange(100, dtype="<i8").tobytes()


@pytest.mark.parametrize("path", ["/api/info/../../etc/passwd", "/api/info/lab/..%2f..%2fetc", "/api/list/lab%00"])
def test_a_path_that_climbs_is_refused_by_the_real_server_too(server, path):
    answer = raw_answer(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 400 ") or answer.startswith(b"HTTP/1.1 404 ")
    assert b"bad-name" in answer or b"not-found" in answer


# -- life --------------------------------------------------------------------------------------------


def test_starting_and_closing_leaves_no_thread_and_no_socket(held):
    gc.collect()
    before = threading.active_count()
    for _ in range(5):
        with serving(held) as server, connection_to(server) as connection:
            get(connection, "/api/roots")
            port = port_of(server)
        with pytest.raises(OSError):  # noqa: PT011
            socket.create_connection(("127.0.0.1", port), timeout=1)
    assert threading.active_count() == before


def test_closing_twice_or_before_the_start_is_nothing(held):
    server = HttpServer(held_app(held, QUICK), QUICK)
    server.close()
    server.start()
    server.close()
    server.close()


def test_an_address_of_somebody_else_is_an_error_that_says_what_to_do(server, held):
    config = replace(QUICK, port=port_of(server))

    with pytest.raises(AddressInUse, match="choose another port"):
        HttpServer(held_app(held, config), config).start()


def test_a_name_that_is_not_ours_is_an_error():
    with pytest.raises(AddressInUse, match="name an address of this host"):
        HttpServer(None, replace(QUICK, host="192.0.2.1")).start()


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_whoever_binds_beyond_the_loopback_is_warned(host, warns):
    sentence = exposure(replace(QUICK, host=host))

    assert (sentence is not None) == warns
    if sentence:
        assert "proxy" in sentence


def test_no_word_is_logged_about_ordinary_requests(server, caplog):
    caplog.set_level(logging.INFO)
    with connection_to(server) as connection:
        get(connection, "/api/roots")
        get(connection, "/nothing")

    assert caplog.records == []


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"port": -1}, {"threads": 0}, {"connections_max": 0}])
def test_numbers_with_which_nobody_would_be_answered_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(BadConfig, match=name):
        HttpServer(None, replace(QUICK, **wrong))


def test_a_name_that_nobody_knows_is_no_matter_of_ports():
    with pytest.raises(BadConfig, match=r"no-such-host\.invalid"):
        HttpServer(None, replace(QUICK, host="no-such-host.invalid")).start()
