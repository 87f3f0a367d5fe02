import contextlib
import socket
import threading

import pytest
import zmq

from zcat.net.reach import reach

WAIT_S = 5.0


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def bound(context):
    """Bind a socket of a kind, and keep it."""
    kept = []

    def bound(kind):
        kept.append(context.socket(kind))
        return f"tcp://127.0.0.1:{kept[-1].bind_to_random_port('tcp://127.0.0.1')}"

    return bound


def test_a_refusal_says_that_the_host_is_there():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    assert "refused" in reach(endpoint, WAIT_S).found


def test_a_name_that_nobody_knows_is_told_as_such():
    assert "does not know the name" in reach("tcp://no-such-host.invalid:5560", WAIT_S).found


@pytest.mark.parametrize("kind", [zmq.XPUB, zmq.XSUB])
def test_a_port_for_events_is_known_as_one(bound, kind):
    told = reach(bound(kind), WAIT_S)
    assert "port for events" in told.found
    assert "directory" in told.advice


def test_a_router_that_is_silent_and_another_kind_are_told_apart(bound):
    assert "ROUTER" in reach(bound(zmq.ROUTER), WAIT_S).found
    assert "REP" in reach(bound(zmq.REP), WAIT_S).found


@pytest.mark.parametrize(
    "says", [b"SSH-2.0-OpenSSH_9.2p1\r\n".ljust(80), b"", b"HTTP/1.0 400 Bad\r\n\r\n" + bytes(60)]
)
def test_another_program_is_known_as_one(says):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.sendall(says)

        server = threading.Thread(target=serve)
        server.start()
        told = reach(f"tcp://127.0.0.1:{listener.getsockname()[1]}", WAIT_S)
        server.join()
    assert "does not speak ZeroMQ" in told.found


def test_who_takes_a_connection_and_says_nothing_hangs():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "says nothing" in reach(f"tcp://127.0.0.1:{listener.getsockname()[1]}", 0.1).found


def test_what_is_no_tcp_is_told_too():
    assert "nobody answers" in reach("ipc:///nowhere", 0.1).found
