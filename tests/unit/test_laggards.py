import os
import socket

import pytest

from zcat.net.laggards import Laggards, QueueLimits, Taken, taken

LIMITS = QueueLimits(peer_bytes_max=1000, total_bytes_max=1500)


class Kernel:
    """Connections over the loopback, and what the kernel is made to say of them."""

    def __init__(self) -> None:
        self.says: dict[int, Taken] = {}
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def connect(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
        self.pairs.append((near, far))
        self.says[near.fileno()] = Taken(False, 0)
        return near.fileno()

    def far(self, fd: int) -> socket.socket:
        return next(far for near, far in self.pairs if near.fileno() == fd)

    def look(self, fd: int) -> Taken:
        return self.says[fd]

    def close(self) -> None:
        for near, far in self.pairs:
            near.close()
            far.close()


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


def is_put_out(kernel, fd):
    far = kernel.far(fd)
    far.settimeout(10)
    return far.recv(1) == b""


def test_who_has_all_that_was_sent_is_not_behind(kernel):
    laggards = Laggards(LIMITS, kernel.look)
    laggards.accepted(kernel.connect(), 0.0)
    for second in range(10):
        assert laggards.look(10_000 * second, float(second)) == []
    assert (len(laggards), laggards.total_bytes, laggards.put_out_count) == (1, 0, 0)


def test_who_takes_nothing_is_behind_by_all_that_was_sent_since(kernel):
    laggards, fd = Laggards(LIMITS, kernel.look), kernel.connect()
    laggards.accepted(fd, 0.0)
    laggards.look(5000, 1.0)
    kernel.says[fd] = Taken(True, 0)
    (behind,) = laggards.look(5400, 3.0)
    assert (behind.behind_bytes, behind.behind_s) == (400, 2.0)
    host, port = kernel.far(fd).getsockname()
    assert behind.peer == f"{host}:{port}"


def test_what_was_taken_meanwhile_counts(kernel):
    laggards, fd = Laggards(LIMITS, kernel.look), kernel.connect()
    laggards.accepted(fd, 0.0)
    kernel.says[fd] = Taken(True, 2500)
    (behind,) = laggards.look(3000, 1.0)
    assert behind.behind_bytes == 500


def test_who_catches_up_is_level_again(kernel):
    laggards, fd = Laggards(LIMITS, kernel.look), kernel.connect()
    laggards.accepted(fd, 0.0)
    kernel.says[fd] = Taken(True, 0)
    laggards.look(900, 1.0)
    kernel.says[fd] = Taken(False, 900)
    assert laggards.look(900, 2.0) == []
    kernel.says[fd] = Taken(True, 900)
    (behind,) = laggards.look(1800, 3.0)
    assert behind.behind_bytes == 900


def test_who_is_too_far_behind_is_put_out_and_nobody_else(kernel):
    laggards, slow, prompt = Laggards(LIMITS, kernel.look), kernel.connect(), kernel.connect()
    for fd in (slow, prompt):
        laggards.accepted(fd, 0.0)
    kernel.says[slow] = Taken(True, 0)
    assert laggards.look(1001, 0.1) == []
    assert is_put_out(kernel, slow)
    assert (len(laggards), laggards.put_out_count) == (1, 1)
    kernel.far(prompt).send(b"still here")
    assert next(near for near, _ in kernel.pairs if near.fileno() == prompt).recv(100) == b"still here"


def test_when_all_together_hold_too_much_the_furthest_goes_first(kernel):
    laggards = Laggards(LIMITS, kernel.look)
    fds = [kernel.connect() for _ in range(3)]
    for place, fd in enumerate(fds):
        laggards.accepted(fd, 0.0)
        kernel.says[fd] = Taken(True, 100 * place)
    behind = laggards.look(700, 5.0)
    assert [each.behind_bytes for each in behind] == [600, 500]
    assert is_put_out(kernel, fds[0])


def test_who_is_behind_for_a_moment_only_is_not_put_out_for_the_others(kernel):
    laggards = Laggards(LIMITS, kernel.look)
    fds = [kernel.connect() for _ in range(3)]
    for fd in fds:
        laggards.accepted(fd, 0.0)
        kernel.says[fd] = Taken(True, 0)
    assert len(laggards.look(700, 0.5)) == 3


def test_a_descriptor_that_is_somebody_elses_now_is_left_alone(kernel, tmp_path):
    laggards, fd = Laggards(LIMITS, kernel.look), kernel.connect()
    laggards.accepted(fd, 0.0)
    kernel.says[fd] = Taken(True, 0)
    with open(tmp_path / "other", "w") as other:
        os.dup2(other.fileno(), fd)
        assert laggards.look(5000, 1.0) == []
    assert (len(laggards), laggards.put_out_count) == (0, 0)


def test_a_connection_that_went_at_once_is_none(kernel):
    laggards, fd = Laggards(LIMITS, kernel.look), kernel.connect()
    kernel.close()
    laggards.accepted(fd, 0.0)
    assert len(laggards) == 0


def fill(near):
    near.setblocking(False)
    try:
        while True:
            near.send(bytes(65536))
    except BlockingIOError:
        return


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_the_kernel_knows_who_reads(kernel, family):
    near, far = kernel.pairs[-1] if family == socket.AF_INET and kernel.connect() else socket.socketpair()
    with near, far:
        near.send(b"x")
        far.recv(1)
        assert not taken(near.fileno()).waiting
        fill(near)
        assert taken(near.fileno()).waiting
        if family == socket.AF_INET:
            assert taken(near.fileno()).acked_bytes > 0
