"""Connections that are made anew when nobody answers."""

import itertools
from collections.abc import Iterator

import pytest

from zcat.net.loop import Loop
from zcat.net.sockets import Context, SocketFactory, endpoint_of, make_context
from zcat.net.wire import Parts, Sent
from zcat.protocol.envelope import split
from zcat.protocol.messages import Ping, Pong, encode
from zcat.services import dealers
from zcat.services.dealers import Dealers

WAIT_MS = 10_000
PONG = Pong("broker", "a" * 32, 1, 0, "0")


class Stage:
    """A ROUTER of the test's thread, and DEALERs of a loop."""

    def __init__(self, context: Context) -> None:
        self.sockets = SocketFactory(context)
        self.router = self.sockets.router("tcp://127.0.0.1:0")
        self.loop = Loop("test")
        self.answers = 0
        self.renewed: list[int] = []
        self.dealers = Dealers(self.loop, self.sockets, self._answered, self.renewed.append)
        self.dealers.connect(7, endpoint_of(self.router))
        self.loop.start()

    def _answered(self, number: int, parts: Parts) -> None:
        assert number == 7
        self.answers += 1

    def ask(self) -> bytes:
        """Send something; give the route by which it came."""
        self.loop.call(lambda: self.dealers.send(7, Ping()), 10)
        assert self.router.poll(WAIT_MS), "nothing came"
        self._route = self.router.recv_multipart()
        return self._route[0]

    def answer(self) -> None:
        route, _ = split(self._route)
        before = self.answers
        self.router.send_multipart([*route, *encode(PONG)])
        for _ in itertools.takewhile(lambda _: self.answers == before, itertools.count()):
            self.loop.call(lambda: None, 10)


@pytest.fixture
def stage() -> Iterator[Stage]:
    context = make_context()
    made = Stage(context)
    yield made
    made.loop.stop()
    made.router.close(linger=0)
    context.term()


def test_who_answers_keeps_the_connection(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealers, "SILENT_S", -1.0)
    routes = set()
    for _ in range(5):
        routes.add(stage.ask())
        stage.answer()
    assert len(routes) == 1
    assert stage.renewed == []


def test_who_takes_questions_and_never_answers_is_connected_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealers, "SILENT_S", 1e9)
    first = stage.ask()
    assert stage.ask() == first  # there is still time
    monkeypatch.setattr(dealers, "SILENT_S", -1.0)
    second = stage.ask()
    assert second != first
    assert stage.renewed == [7]
    stage.answer()
    assert stage.ask() == second


def test_what_takes_nothing_is_not_taken_to_be_silent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealers, "SILENT_S", -1.0)
    stage.loop.call(lambda: stage.dealers.connect(8, "tcp://127.0.0.1:1"), 10)
    for _ in range(3):
        assert stage.loop.call(lambda: stage.dealers.send(8, Ping(), attempts=0), 10) is Sent.BUSY
    assert stage.renewed == []


def test_who_was_closed_is_gone(stage: Stage) -> None:
    stage.loop.call(lambda: stage.dealers.close(7), 10)
    assert stage.loop.call(lambda: stage.dealers.send(7, Ping()), 10) is Sent.GONE
    assert 7 not in stage.dealers
    assert len(stage.dealers) == 0
