"""The wait for connections: who is asked before it, and who is told of what."""

import socket
from contextlib import closing

import pytest

from zcat.http.watched import Watched

ACCEPTING, IDLE, BUSY = "accepting", "idle", "busy"


class Side:
    """One side of a connection, with the face that waitress gives to it."""

    def __init__(self, watched, state=IDLE):
        self.socket, self.peer = socket.socketpair()
        self.accepting = state == ACCEPTING
        self.state = state
        self.asked = 0
        self.told = []
        self.number = self.socket.fileno()
        watched[self.number] = self

    def readable(self):
        self.asked += 1
        return self.state != BUSY

    def writable(self):
        return self.state == "sending"

    def handle_read_event(self):
        self.told.append(self.socket.recv(100))

    def handle_write_event(self):
        self.told.append("writable")

    def handle_close(self):
        self.told.append("closed")

    def close(self):
        self.socket.close()
        self.peer.close()


@pytest.fixture
def watched():
    with closing(Watched()) as made:
        yield made
        for side in list(made.values()):
            side.close()


def test_who_waits_for_a_request_is_not_asked_before_each_wait(watched):
    idle, listener = Side(watched), Side(watched, ACCEPTING)
    for _ in range(5):
        watched.wait(0)
    assert (idle.asked, listener.asked) == (1, 5)
    idle.peer.send(b"a request")
    watched.wait(0)
    watched.wait(0)
    assert idle.told == [b"a request"]
    assert idle.asked == 2
    watched.ask_all()
    watched.wait(0)
    assert idle.asked == 3


def test_who_is_being_answered_is_asked_until_that_is_over(watched):
    side = Side(watched)
    watched.wait(0)
    side.peer.send(b"a request")
    watched.wait(0)
    side.state = BUSY
    side.peer.send(b"and another one")
    watched.wait(0)
    assert side.told == [b"a request"]  # it waits for nothing now
    side.state = "sending"  # as another thread would change it
    watched.wait(0)
    assert side.told[1:] in ([b"and another one", "writable"], ["writable", b"and another one"])
    side.state = IDLE
    watched.wait(0)
    watched.wait(0)
    assert side.told[3:] == []


def test_a_number_that_is_used_again_belongs_to_the_new_one(watched):
    old = Side(watched)
    watched.wait(0)
    del watched[old.number]
    old.close()
    new = Side(watched)
    assert new.number == old.number
    new.peer.send(b"for the new one")
    watched.wait(0)
    assert (old.told, new.told) == ([], [b"for the new one"])


def test_one_that_is_closed_while_another_is_asked_is_left_alone(watched):
    class Closing(Side):
        def readable(self):
            for number in [number for number in watched if number != self.number]:
                watched[number].close()
                del watched[number]
            return super().readable()

    Closing(watched, ACCEPTING)
    others = [Side(watched) for _ in range(5)]
    watched.wait(0)
    assert len(watched) == 1
    assert sum(side.asked for side in others) <= 5
    watched.wait(0)
