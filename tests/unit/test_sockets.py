import os
import socket as posix

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from zcat.errors import AddressInUse, BadName, ZcatError
from zcat.net import sockets
from zcat.net.sockets import CONTROL, DATA, SocketFactory, SocketOptions

KERNEL_OPTIONS = (posix.TCP_KEEPIDLE, posix.TCP_KEEPINTVL, posix.TCP_KEEPCNT, posix.TCP_USER_TIMEOUT)


@pytest.fixture
def context():
    context = sockets.make_context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def factory(context):
    return SocketFactory(context)


@pytest.mark.parametrize("kind", ["router", "dealer", "pub", "sub", "xpub", "xsub"])
def test_every_socket_has_the_options_that_we_rely_on(factory, kind):
    socket = getattr(factory, kind)()
    wanted = {
        zmq.LINGER: 500,
        zmq.MAXMSGSIZE: 64 * 1024,
        zmq.IPV6: 1,
        zmq.HEARTBEAT_IVL: 0,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: 2,
        zmq.TCP_KEEPALIVE_INTVL: 1,
        zmq.TCP_KEEPALIVE_CNT: 3,
        zmq.TCP_MAXRT: 5000,
        zmq.HANDSHAKE_IVL: 2000,
        zmq.RECONNECT_IVL: 100,
        zmq.RECONNECT_IVL_MAX: 2000,
        zmq.CONNECT_TIMEOUT: 5000,
        zmq.BACKLOG: 1024,
        zmq.ROUTING_ID: b"",
    }
    assert {option: socket.get(option) for option in wanted} == wanted


@pytest.mark.parametrize("event", [zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED], ids=["accepted", "connected"])
def test_the_kernel_is_told_to_look_after_every_connection(factory, event):
    """Both ends: options that libzmq took and did not pass on would show here."""
    router, dealer = factory.router(), factory.dealer()
    watched = router if event == zmq.EVENT_ACCEPTED else dealer
    monitor = watched.get_monitor_socket(event)
    sockets.connect(dealer, sockets.bind(router, "tcp://127.0.0.1:0"))

    with posix.socket(fileno=os.dup(recv_monitor_message(monitor)["value"])) as connection:
        told = [connection.getsockopt(posix.IPPROTO_TCP, option) for option in KERNEL_OPTIONS]
        assert connection.getsockopt(posix.SOL_SOCKET, posix.SO_KEEPALIVE) == 1
    watched.disable_monitor()
    assert told == [2, 1, 3, 5000]


def test_a_dealer_queues_nothing_for_peers_that_are_not_there(factory):
    assert factory.dealer().get(zmq.IMMEDIATE) == 1


def test_queues_are_as_long_as_the_byte_budget_allows():
    assert SocketOptions(queue_bytes=1 << 20, typical_bytes=1 << 10).queued_max == 1024
    assert SocketOptions(queue_bytes=1 << 20, typical_bytes=1 << 20).queued_max == 16
    assert CONTROL.queued_max == 1024
    assert DATA.queued_max == 64


def test_a_short_queue_for_chunks_leaves_room_for_subscriptions(context):
    factory = SocketFactory(context, DATA)
    assert [factory.sub().get(mark) for mark in (zmq.RCVHWM, zmq.SNDHWM)] == [64, 100_000]
    assert [factory.xpub().get(mark) for mark in (zmq.RCVHWM, zmq.SNDHWM)] == [100_000, 64]


@pytest.mark.parametrize("port", ["0", "*"])
def test_bind_returns_the_real_port(factory, port):
    endpoint = sockets.bind(factory.router(), f"tcp://127.0.0.1:{port}")
    assert endpoint.startswith("tcp://127.0.0.1:")
    assert int(endpoint.rpartition(":")[2]) > 0


def test_a_taken_port_is_named_with_what_to_do(factory):
    first = factory.router("tcp://127.0.0.1:0")
    endpoint = sockets.endpoint_of(first)
    with pytest.raises(AddressInUse, match=f"cannot bind {endpoint}: somebody else has it: choose another port"):
        factory.router(endpoint)
    first.close()


def test_a_unix_socket_that_is_served_is_not_taken_over(factory, tmp_path):
    endpoint = f"ipc://{tmp_path}/zcat"
    first = factory.router(endpoint)
    with pytest.raises(AddressInUse, match="somebody else has it"):
        factory.router(endpoint)
    first.close()


def test_the_left_over_file_of_a_dead_service_is_no_hindrance(factory, tmp_path):
    (tmp_path / "zcat").touch()
    assert sockets.bind(factory.router(), f"ipc://{tmp_path}/zcat") == f"ipc://{tmp_path}/zcat"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("tcp://192.0.2.1:0", "not an address of this host"),
        ("ipc:///no/such/folder/socket", "folder does not exist"),
        ("ipc:///" + "ä" * 90, "longer than the system allows"),
    ],
)
def test_an_address_that_cannot_be_had_says_why(factory, endpoint, reason):
    with pytest.raises(AddressInUse, match=reason):
        factory.router(endpoint)


def test_an_endpoint_of_another_form_is_refused(factory):
    with pytest.raises(BadName):
        factory.dealer("http://127.0.0.1:80")
    with pytest.raises(BadName, match="cannot connect"):
        factory.dealer("tcp://127.0.0.1:*")


def test_disconnecting_what_was_never_connected_is_no_error(factory):
    sockets.disconnect(factory.dealer(), "tcp://127.0.0.1:1")


def test_an_old_libzmq_is_refused_with_what_to_do():
    with pytest.raises(ZcatError, match=r"wanted libzmq 4\.3\.5 or newer, found 4\.3\.4.*install a newer pyzmq"):
        sockets.check_libzmq((4, 3, 4))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:5555",
        "tcp://127.1.2.3:5555",
        "tcp://[::1]:5555",
        "tcp://[::ffff:127.0.0.1]:5555",
        "tcp://localhost:5555",
        "tcp://lo:5555",
        "ipc:///run/zcat",
        "inproc://zcat",
    ],
)
def test_an_endpoint_within_this_host_exposes_nothing(endpoint):
    assert sockets.exposure(endpoint) is None


@pytest.mark.parametrize(
    ("endpoint", "whence"),
    [
        ("tcp://0.0.0.0:5555", "every network of this host"),
        ("tcp://*:5555", "every network of this host"),
        ("tcp://[::]:5555", "every network of this host"),
        ("tcp://10.0.0.3:5555", "the network of 10.0.0.3"),
        ("tcp://eth0:5555", "the networks of eth0"),
    ],
)
def test_an_endpoint_that_others_can_reach_is_said_to_be(endpoint, whence):
    assert sockets.exposure(endpoint) == (
        f"{endpoint} can be reached from {whence}; nothing there is encrypted or authenticated"
    )


def test_a_bound_wildcard_is_still_seen_as_exposed(factory):
    for endpoint in ("tcp://*:0", "tcp://0.0.0.0:0"):
        bound = sockets.bind(factory.router(), endpoint)
        assert "every network" in sockets.exposure(bound)
