import contextlib
import logging
import os
import queue
import socket as posix
import threading

import pytest
import zmq

from zcat.errors import BadMessage, Busy, Closed, NotFound, Timeout, TooLarge
from zcat.limits import CONTROL_FRAME_BYTES_MAX, MESSAGE_FRAME_BYTES_MAX
from zcat.net import sockets
from zcat.net.loop import Loop, LoopLimits
from zcat.net.sockets import DATA, SocketFactory, SocketOptions
from zcat.net.wire import Sent, Unsent, send

WAIT_S = 10


@pytest.fixture
def context():
    context = sockets.make_context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def factory(context):
    return SocketFactory(context)


@pytest.fixture
def loop():
    loop = Loop("test loop")
    yield loop
    loop.stop()


class Echo:
    """A loop with a ROUTER that answers every message with itself."""

    def __init__(self, factory, endpoint="tcp://127.0.0.1:0", loop_limits=None):
        self.router = factory.router(endpoint)
        self.endpoint = sockets.endpoint_of(self.router)
        self.loop = Loop("echo", loop_limits=loop_limits or LoopLimits())
        self.loop.register(self.router, self.answer)
        self.loop.start()

    def answer(self, parts):
        if bytes(parts[-1]) == b"bad":
            raise BadMessage("wanted something good")
        if bytes(parts[-1]) == b"bug":
            raise ZeroDivisionError("a bug")
        send(self.router, parts)


@pytest.fixture
def echo(factory):
    echo = Echo(factory)
    yield echo
    echo.loop.stop()


def asked(dealer, *parts):
    """Send a message and wait for the answer."""
    assert dealer.poll(WAIT_S * 1000, zmq.POLLOUT), "nobody there"
    assert send(dealer, parts) is Sent.OK
    return answered(dealer)


def answered(dealer):
    assert dealer.poll(WAIT_S * 1000), "no answer"
    return dealer.recv_multipart()


# -- messages ----------------------------------------------------------------------------------------


def test_a_message_reaches_its_handler_and_the_answer_comes_back(factory, echo):
    assert asked(factory.dealer(echo.endpoint), b"one", b"", b"three") == [b"one", b"", b"three"]
    assert echo.loop.counters.messages == 1


def test_small_parts_are_bytes_and_large_ones_read_only_views(context, loop):
    factory = SocketFactory(context, DATA)
    router, got = factory.router("inproc://parts"), queue.Queue()
    loop.register(router, got.put)
    loop.start()
    send(factory.dealer("inproc://parts"), [b"header", b"x" * 65536])
    peer, header, body = got.get(timeout=WAIT_S)
    assert (type(peer), header, type(body)) == (bytes, b"header", memoryview)
    assert body.readonly
    assert body == b"x" * 65536


def test_one_loop_serves_several_sockets_and_one_context_several_loops(factory, loop):
    got = queue.Queue()
    for name in ("a", "b"):
        loop.register(factory.router(f"inproc://{name}"), lambda parts, name=name: got.put((name, parts[1])))
    loop.start()
    others = [Echo(factory) for _ in range(3)]
    for name in ("a", "b"):
        send(factory.dealer(f"inproc://{name}"), [name.encode()])
    assert sorted(got.get(timeout=WAIT_S) for _ in range(2)) == [("a", b"a"), ("b", b"b")]
    for other in others:
        assert asked(factory.dealer(other.endpoint), b"x") == [b"x"]
        other.loop.stop()


def test_an_unregistered_socket_is_the_callers_again(factory, loop):
    router = factory.router("inproc://mine")
    loop.register(router, lambda parts: None)
    loop.start()
    loop.call(lambda: loop.unregister(router), WAIT_S)
    loop.stop()
    assert not router.closed
    router.close()


def test_a_flood_at_one_socket_starves_neither_timers_nor_others(factory, loop):
    handled, seen = [], []
    flooded, other = factory.router("inproc://flooded"), factory.router("inproc://other")
    loop.register(flooded, lambda parts: handled.append(1))
    done = threading.Event()
    loop.register(other, lambda parts: (seen.append(len(handled)), done.set()))
    flood = factory.dealer("inproc://flooded")
    for _ in range(1000):
        assert send(flood, [b"x"]) is Sent.OK
    send(factory.dealer("inproc://other"), [b"me too"])
    loop.call_at(0, lambda: seen.append(len(handled)))
    loop.start()
    assert done.wait(WAIT_S)
    assert max(seen) <= 100


# -- hostile bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        os.urandom(4096),
        b"GET / HTTP/1.1\r\nHost: zcat\r\n\r\n",
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + bytes(48) + os.urandom(500),
        b"",
    ],
    ids=["random", "http", "greeting", "nothing"],
)
def test_garbage_on_the_port_is_survived(factory, echo, garbage):
    host, port = echo.endpoint.removeprefix("tcp://").split(":")
    with posix.create_connection((host, int(port))) as stranger, contextlib.suppress(OSError):
        stranger.sendall(garbage)
        stranger.shutdown(posix.SHUT_WR)
        stranger.settimeout(WAIT_S)
        while stranger.recv(4096):
            pass
    assert asked(factory.dealer(echo.endpoint), b"still there?") == [b"still there?"]


def test_a_giant_frame_disconnects_its_sender_and_nobody_else(context, factory, echo):
    giant = SocketFactory(context, DATA).dealer(echo.endpoint)
    monitor = giant.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    assert giant.poll(WAIT_S * 1000, zmq.POLLOUT)
    send(giant, [b"x" * (CONTROL_FRAME_BYTES_MAX + 1)])
    assert monitor.poll(WAIT_S * 1000), "not disconnected"
    giant.disable_monitor()
    assert asked(factory.dealer(echo.endpoint), b"still there?") == [b"still there?"]
    assert echo.loop.counters.messages == 1


def test_a_message_of_100_000_frames_is_refused_and_the_next_one_is_not(factory, echo):
    dealer = factory.dealer(echo.endpoint)
    assert dealer.poll(WAIT_S * 1000, zmq.POLLOUT)
    for _ in range(99_999):
        dealer.send(b"", zmq.SNDMORE)
    dealer.send(b"")
    assert asked(dealer, b"short") == [b"short"]
    assert (echo.loop.counters.messages, echo.loop.counters.long_messages) == (1, 1)


@pytest.mark.parametrize(("parts_count", "is_refused"), [(3, False), (4, True), (8, True), (9, True)])
def test_the_limit_of_frames_counts_the_peer_too(factory, parts_count, is_refused):
    echo = Echo(factory, loop_limits=LoopLimits(parts_per_message_max=4))
    dealer = factory.dealer(echo.endpoint)
    assert dealer.poll(WAIT_S * 1000, zmq.POLLOUT)
    send(dealer, [b"x"] * parts_count)
    assert asked(dealer, b"end") == ([b"end"] if is_refused else [b"x"] * parts_count)
    echo.loop.stop()
    assert echo.loop.counters.long_messages == is_refused


# -- failures ----------------------------------------------------------------------------------------


def test_bad_messages_are_counted_and_logged_once_in_a_while(factory, echo, caplog):
    dealer = factory.dealer(echo.endpoint)
    assert dealer.poll(WAIT_S * 1000, zmq.POLLOUT)
    for _ in range(50):
        send(dealer, [b"bad"])
    assert asked(dealer, b"good") == [b"good"]
    assert echo.loop.counters.bad_messages == 50
    [record] = [record for record in caplog.records if record.name == "zcat.net.loop"]
    assert record.levelno == logging.WARNING
    assert "wanted something good" in record.getMessage()


def test_strangers_without_number_do_not_fill_the_log(factory, caplog):
    echo = Echo(factory, "inproc://crowd", LoopLimits(warned_peers_max=3))
    for _ in range(20):
        dealer = factory.dealer("inproc://crowd")
        send(dealer, [b"bad"])
        assert asked(dealer, b"next") == [b"next"]
    echo.loop.stop()
    assert echo.loop.counters.bad_messages == 20
    assert len(caplog.records) == 4


def test_a_bug_in_a_handler_is_logged_with_its_traceback_and_the_loop_goes_on(factory, echo, caplog):
    dealer = factory.dealer(echo.endpoint)
    assert dealer.poll(WAIT_S * 1000, zmq.POLLOUT)
    send(dealer, [b"bug"])
    assert asked(dealer, b"good") == [b"good"]
    assert echo.loop.counters.errors == 1
    [record] = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_failing_timers_and_posts_are_survived(loop, caplog):
    loop.start()
    loop.post(lambda: 1 / 0)
    loop.post(lambda: loop.call_at(0, lambda: [][0]))
    done = threading.Event()
    loop.post(lambda: loop.call_after(0.001, done.set))
    assert done.wait(WAIT_S)
    assert loop.counters.errors == 2


# -- time, descriptors -------------------------------------------------------------------------------


def test_timers_run_in_the_order_of_their_times(loop):
    order, done = [], threading.Event()
    now_s = loop.now_s()
    loop.call_at(now_s + 0.02, done.set)
    for delay_s in (0.01, 0.0, 0.005, 0.0):
        loop.call_at(now_s + delay_s, lambda delay_s=delay_s: order.append(delay_s))
    loop.start()
    assert done.wait(WAIT_S)
    assert order == [0.0, 0.0, 0.005, 0.01]


def test_a_timer_never_comes_early(loop):
    done, seen = threading.Event(), []
    timer = loop.call_after(0.005, lambda: (seen.append(loop.now_s()), done.set()))
    loop.start()
    assert done.wait(WAIT_S)
    assert seen[0] >= timer.when_s


def test_a_cancelled_timer_does_not_run(loop):
    ran, done = [], threading.Event()
    timer = loop.call_after(0.001, lambda: ran.append(1))
    loop.call_after(0.002, done.set)
    timer.cancel()
    loop.start()
    assert done.wait(WAIT_S)
    assert ran == []
    timer.cancel()


def test_a_timer_that_is_always_due_does_not_keep_the_loop(loop):
    def again():
        loop.call_at(0, again)

    again()
    loop.start()
    assert loop.call(lambda: "served", WAIT_S) == "served"


def test_a_watched_descriptor_calls_when_readable(loop):
    readable, writable = os.pipe()
    got = queue.Queue()
    loop.watch(readable, lambda: got.put(os.read(readable, 100)))
    loop.start()
    os.write(writable, b"news")
    assert got.get(timeout=WAIT_S) == b"news"
    loop.call(lambda: loop.unwatch(readable), WAIT_S)
    loop.stop()
    os.close(readable)
    os.close(writable)


# -- other threads -----------------------------------------------------------------------------------


def test_call_returns_what_the_function_returns_on_the_loops_thread(loop):
    loop.start()
    assert loop.call(threading.current_thread, WAIT_S).name == "zcat-test loop"


def test_call_raises_what_the_function_raises(loop):
    loop.start()

    def fail():
        raise NotFound("nothing there")

    with pytest.raises(NotFound, match="nothing there"):
        loop.call(fail, WAIT_S)
    assert loop.counters.errors == 0


def test_a_call_that_was_not_begun_in_time_is_never_made(loop):
    made = []
    with pytest.raises(Timeout, match="did not answer within 0 s"):
        loop.call(lambda: made.append(1), timeout_s=0)
    loop.start()
    loop.call(lambda: None, WAIT_S)
    assert made == []


def test_a_call_that_takes_too_long_says_so(loop):
    begun, release = threading.Event(), threading.Event()
    loop.start()
    loop.post(lambda: begun.set() or release.wait(WAIT_S))
    assert begun.wait(WAIT_S)
    with pytest.raises(Timeout):
        loop.call(lambda: None, timeout_s=0.001)
    release.set()


def test_posts_beyond_the_limit_are_refused():
    loop = Loop("small", loop_limits=LoopLimits(posts_max=2))
    for _ in range(2):
        loop.post(lambda: None)
    with pytest.raises(Busy):
        loop.post(lambda: None)
    loop.stop()


# -- the end -----------------------------------------------------------------------------------------


def test_what_was_posted_runs_before_on_stop_and_the_sockets_close_after(factory):
    order = []
    router = factory.router("inproc://end")
    loop = Loop("ending", on_stop=lambda: order.append(("on_stop", router.closed)))
    loop.register(router)
    loop.start()
    for i in range(500):
        loop.post(lambda i=i: order.append(i))
    loop.stop()
    assert order == [*range(500), ("on_stop", False)]
    assert router.closed


def test_a_farewell_of_on_stop_is_still_delivered(factory):
    sub = factory.sub()
    endpoint = sockets.bind(sub, "tcp://127.0.0.1:0")
    sub.subscribe(b"")
    pub = factory.pub(endpoint)
    loop = Loop("leaving", on_stop=lambda: send(pub, [b"farewell"]))
    loop.register(pub)
    while not sub.poll(10):  # until the subscription has arrived
        send(pub, [b"hello"])
    loop.start()
    loop.stop()
    parts = answered(sub)
    while parts == [b"hello"]:
        parts = answered(sub)
    assert parts == [b"farewell"]


def test_a_stopped_loop_stays_stopped(factory):
    ends = []
    loop = Loop("once", on_stop=lambda: ends.append(1))
    loop.start()
    loop.stop()
    loop.stop()
    assert ends == [1]
    with pytest.raises(Closed):
        loop.post(lambda: None)
    with pytest.raises(Closed):
        loop.call(lambda: None, WAIT_S)


def test_a_loop_that_never_started_stops_all_the_same(factory):
    router, ends = factory.router(), []
    loop = Loop("never", on_stop=lambda: ends.append(1))
    loop.register(router)
    loop.stop()
    loop.stop()
    assert (router.closed, ends) == (True, [1])


def test_a_loop_may_stop_itself(factory):
    ended = threading.Event()
    loop = Loop("suicidal", on_stop=ended.set)
    loop.start()
    loop.post(loop.stop)
    assert ended.wait(WAIT_S)
    loop.stop()


def test_stopping_a_loop_whose_handler_hangs_says_so():
    begun, release = threading.Event(), threading.Event()
    loop = Loop("hanging")
    loop.start()
    loop.post(lambda: begun.set() or release.wait(WAIT_S))
    assert begun.wait(WAIT_S)
    with pytest.raises(Timeout, match="hanging did not stop"):
        loop.stop(timeout_s=0.001)
    release.set()
    loop.stop()


def test_fifty_starts_and_stops_leave_no_thread_and_no_descriptor(context, factory):
    def once():
        echo = Echo(factory, "tcp://127.0.0.1:0")
        dealer = factory.dealer(echo.endpoint)
        assert asked(dealer, b"x") == [b"x"]
        echo.loop.stop()
        dealer.close(linger=0)

    once()
    threads = threading.active_count()
    for _ in range(50):
        once()
    context.term()  # returns when the last socket is really gone
    assert threading.active_count() == threads
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        other = sockets.make_context()
        echo = Echo(SocketFactory(other))
        echo.loop.stop()
        other.term()
    assert len(os.listdir("/proc/self/fd")) == descriptors


# -- sending -----------------------------------------------------------------------------------------


def test_sending_to_a_peer_that_is_gone_says_so(factory):
    assert send(factory.router(), [b"nobody", b"x"]) is Sent.GONE


def test_sending_without_a_peer_or_to_a_full_queue_is_busy(context):
    factory = SocketFactory(context, SocketOptions(queue_bytes=0))
    router, dealer = factory.router("inproc://full"), factory.dealer()
    assert send(dealer, [b"x"]) is Sent.BUSY
    sockets.connect(dealer, "inproc://full")
    outcomes = [send(dealer, [b"a", b"b"]) for _ in range(40)]
    assert outcomes == [Sent.OK] * 32 + [Sent.BUSY] * 8
    assert [answered(router)[1:] for _ in range(32)] == [[b"a", b"b"]] * 32


def test_a_short_queue_that_the_peer_has_emptied_is_not_full(context):
    factory = SocketFactory(context, SocketOptions(queue_bytes=0))
    router, pub = factory.router("inproc://requests"), factory.pub()
    sockets.bind(pub, "inproc://events")
    dealer, sub = factory.dealer("inproc://requests"), factory.sub("inproc://events")
    sub.subscribe(b"")
    for count in range(1000):
        assert send(dealer, [b"%d" % count]) is Sent.OK
        peer, text = answered(router)
        assert send(router, [peer, text]) is Sent.OK
        assert answered(dealer) == [text]
        send(pub, [text])
        assert answered(sub) == [text]


def test_a_frame_that_every_peer_would_refuse_is_not_sent(factory):
    too_large = memoryview(bytearray(MESSAGE_FRAME_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        send(factory.dealer(), [b"header", too_large])


def test_large_parts_are_counted_until_zeromq_lets_go_of_them(context):
    factory = SocketFactory(context, DATA)
    router, dealer, unsent = factory.router("inproc://held"), factory.dealer("inproc://held"), Unsent()
    assert send(dealer, [b"header", b"x" * 100_000], unsent) is Sent.OK
    assert unsent.count_bytes() == 100_000
    trackers = [tracker for tracker, _ in unsent._held]
    answered(router)
    trackers[0].wait(WAIT_S)
    assert unsent.count_bytes() == 0
