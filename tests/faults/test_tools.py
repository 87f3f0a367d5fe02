"""The tools of this suite: what finds no fault proves nothing unless it would have found one."""

import contextlib
import queue
import socket
import threading
import time

import contents
import numpy as np
import pytest
from checker import Checker, Client, Failure, Span
from figures import Figures
from proxy import FAIR, Door, Weather
from schedule import BROKERS, GRACE_S, Fault, Schedule, draw
from writer import BEACON, Writer


@pytest.fixture
def writer(tmp_path):
    return Writer("alpha", tmp_path / "alpha", 1)


@pytest.fixture
def client(tmp_path):
    """A client that saw everything that `writer` wrote, and no process behind it."""
    checker = Checker(tmp_path / "log", {})
    client = checker.clients["c"] = Client("c", NoProcess())
    return checker, client


class NoProcess:
    def poll(self):
        return None


def test_rows_of_two_generations_are_of_none():
    first, second = contents.array("x", 1), contents.array("x", 2)
    assert contents.generation_of(second[3:7], "x", 3) == 2
    mixed = np.vstack([first[:1], second[1:2]])
    with pytest.raises(contents.WrongContent, match=r"generations \[1, 2\]"):
        contents.generation_of(mixed, "x", 0)
    for path, row in (("y", 3), ("x", 4)):
        with pytest.raises(contents.WrongContent):
            contents.generation_of(second[3:7], path, row)
    flipped = second[3:7].copy()
    flipped[2, 5] ^= np.uint64(1 << 20)
    with pytest.raises(contents.WrongContent):
        contents.generation_of(flipped, "x", 3)


def test_a_version_with_two_contents_is_found_among_all_clients(client):
    checker, one = client
    other = checker.clients["other"] = Client("other", NoProcess())
    one.versions["alpha", "x", "lineage-1"] = 4
    other.versions["alpha", "x", "lineage-1"] = 5
    (wrong,) = checker.wrong()
    assert "generation 4 to c and 5 to other" in wrong


def test_pauses_and_lags_are_measured_from_what_clients_tell(client, writer):
    checker, one = client
    now_s = time.monotonic()
    one.well_at_s = now_s
    one.pauses = [Span(now_s - 9, now_s - 6), Span(now_s - 3, now_s - 1)]
    assert checker.longest_pause_s(now_s - 10) == pytest.approx(3)
    assert checker.longest_pause_s(now_s - 5) == pytest.approx(2)
    written_s = writer.written[BEACON][0][1]
    one.seen["alpha", BEACON] = [(1, written_s + 1.5)]
    assert checker.longest_lag_s(writer, written_s) == pytest.approx(1.5)


def test_a_failure_without_excuse_is_one_outside_all_troubles():
    schedule = Schedule(1, True, (Fault(1, 2, "kill", ("b1",)), Fault(20, 21, "stop", ("p1",))))
    assert schedule.troubles() == [(20, 21 + GRACE_S)]
    longer = Schedule(1, True, (*schedule.faults, Fault(25, 60, "stop", ("b2",))))
    assert longer.troubles() == [(20, 60 + GRACE_S)]
    assert Failure("c", "alpha", "timeout", "", Span(3, 5)).when.touches(Span(5, 6))


def test_a_seed_is_one_schedule_and_every_third_lets_only_brokers_suffer():
    assert draw(7, True, 12) == draw(7, True, 12)
    assert draw(7, True, 12) != draw(8, True, 12)
    for seed in range(0, 60, 3):
        drawn = draw(seed, bool(seed % 2), 12)
        assert drawn.troubles() == []
        assert all(set(fault.whom) <= set(BROKERS) for fault in drawn.faults)


def test_figures_keep_the_worst():
    figures = Figures()
    for value in (1.0, 3.0, 2.0):
        figures.note("pause", value, "s", 5)
    assert figures.lines()[-1].split() == ["pause", "3", "s", "5", "s", "3"]


class Echo:
    """A server that sends back what it gets."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                visitor, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(visitor,), daemon=True).start()

    @staticmethod
    def _serve(visitor):
        with visitor, contextlib.suppress(OSError):
            while piece := visitor.recv(1000):
                visitor.sendall(piece)


@pytest.fixture
def way():
    """A connection through a door to an echo, and the door."""
    echo = Echo()
    with (
        Door("127.0.4.1", "127.0.0.1", [echo.port]) as door,
        socket.create_connection(("127.0.4.1", echo.port), timeout=5) as visitor,
    ):
        yield door, visitor
    echo.listener.close()


def said(visitor, text=b"hello"):
    visitor.sendall(text)
    heard = b""
    while len(heard) < len(text):
        piece = visitor.recv(100)
        if not piece:
            break
        heard += piece
    return heard


def test_a_door_passes_everything_on_and_also_byte_by_byte(way):
    door, visitor = way
    assert said(visitor) == b"hello"
    door.weather = Weather(piece_bytes=1, delay_s=0.01)
    begin_s = time.monotonic()
    assert said(visitor) == b"hello"
    assert time.monotonic() - begin_s > 0.05


def test_a_door_that_swallows_or_holds_lets_nothing_through(way):
    door, visitor = way
    assert said(visitor) == b"hello"
    for weather, later in ((Weather(swallows=True), b""), (Weather(holds=True), b"lost")):
        door.weather = weather
        visitor.settimeout(0.5)
        with pytest.raises(TimeoutError):
            said(visitor, b"lost")
        door.weather = FAIR
        visitor.settimeout(5)
        assert said(visitor, b"found").startswith(later or b"found")


def test_a_door_cuts_and_closes_halves(way):
    door, visitor = way
    address = visitor.getpeername()  # which the system no longer tells when the connection has ended
    assert said(visitor) == b"hello"
    door.half_close()
    assert visitor.recv(10) == b""
    with socket.create_connection(address, timeout=5) as second:
        assert said(second) == b"hello"
        door.cut()
        with pytest.raises(ConnectionError):
            second.recv(10)


def test_a_client_that_sees_less_than_the_origin_holds_is_named(client, writer, monkeypatch):
    checker, one = client
    told = {"alpha": {path: number for path, number in writer.truth.items() if path != "d3.b2nd"}}
    one.catalogues = queue.SimpleQueue()
    monkeypatch.setattr(checker, "_sees", lambda _: told)
    with pytest.raises(AssertionError, match=r"d3\.b2nd: wanted 1, found None"):
        checker.converged_s([writer], within_s=0.1)
