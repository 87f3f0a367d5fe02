import os
import threading

import pytest
import zmq

from zcat.errors import AddressInUse, BadName, Closed
from zcat.net import sockets
from zcat.net.forwarder import Forwarder, ForwarderEndpoints
from zcat.net.sockets import CONTROL, DATA, SocketFactory, SocketOptions
from zcat.net.wire import send

WAIT_MS = 10_000
ANY = ForwarderEndpoints("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0")


@pytest.fixture
def context():
    context = sockets.make_context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def factory(context):
    return SocketFactory(context)


@pytest.fixture
def make_forwarder(context):
    made = []

    def make(options=CONTROL):
        forwarder = Forwarder(context, ANY, options)
        forwarder.start()
        made.append(forwarder)
        return forwarder

    yield make
    for forwarder in made:
        forwarder.stop()


@pytest.fixture
def forwarder(make_forwarder):
    return make_forwarder()


def publisher(factory, endpoint):
    """An XPUB instead of a PUB, so that a test can wait for subscriptions to arrive."""
    xpub = factory.xpub()
    sockets.connect(xpub, endpoint)
    return xpub


def subscriber(factory, endpoint, *topics):
    sub = factory.sub(endpoint)
    for topic in topics:
        sub.subscribe(topic)
    return sub


def got(socket):
    assert socket.poll(WAIT_MS), "nothing came"
    return socket.recv_multipart()


def test_an_event_reaches_every_subscriber_of_its_topic_and_no_other(factory, forwarder):
    pub = publisher(factory, forwarder.ingress)
    first = subscriber(factory, forwarder.egress, b"sst")
    assert got(pub) == [b"\x01sst"]
    other = subscriber(factory, forwarder.egress, b"wind")
    assert got(pub) == [b"\x01wind"]
    send(pub, [b"sst", b"header", b"x" * 60_000])
    send(pub, [b"wind", b"last"])
    assert got(first) == [b"sst", b"header", b"x" * 60_000]
    assert got(other) == [b"wind", b"last"]


def test_subscriptions_go_upstream_once_per_topic(factory, forwarder):
    pub = publisher(factory, forwarder.ingress)
    subs = [subscriber(factory, forwarder.egress, b"sst") for _ in range(3)]
    assert got(pub) == [b"\x01sst"]
    for sub in subs:
        sub.close()
    assert got(pub) == [b"\x00sst"]


def test_a_late_publisher_learns_every_topic_even_when_queues_are_short(context, make_forwarder):
    options = SocketOptions(queue_bytes=0)
    factory, forwarder = SocketFactory(context, options), make_forwarder(options)
    topics = {b"topic %d" % number for number in range(2000)}
    early = publisher(factory, forwarder.ingress)
    sub = subscriber(factory, forwarder.egress, *topics)
    for late in (early, publisher(factory, forwarder.ingress)):
        assert {got(late)[0][1:] for _ in topics} == topics
    sub.close()


def test_the_broker_itself_may_publish_and_subscribe_within_the_process(factory, forwarder):
    pub = publisher(factory, forwarder.local_ingress)
    sub = subscriber(factory, forwarder.local_egress, b"broker")
    assert got(pub) == [b"\x01broker"]
    send(pub, [b"broker", b"is up"])
    assert got(sub) == [b"broker", b"is up"]


def test_in_a_full_mesh_every_event_reaches_every_subscriber_once(factory, make_forwarder):
    brokers = [make_forwarder() for _ in range(3)]
    for broker in brokers:
        for other in brokers:
            if other is not broker:
                broker.link(other.mesh)
    subs = [subscriber(factory, broker.egress, b"") for broker in brokers]
    pubs = [publisher(factory, broker.ingress) for broker in brokers]
    for pub in pubs:
        assert got(pub) == [b"\x01"]
    heard = [set() for _ in subs]
    while any(len(each) < 3 for each in heard):  # until the three subscriptions have come through to each
        for number, pub in enumerate(pubs):
            send(pub, [b"knock", b"%d" % number])
        for sub, each in zip(subs, heard, strict=True):
            while sub.poll(20):
                each.add(sub.recv_multipart()[1])
    for number, pub in enumerate(pubs):
        for count in range(100):
            send(pub, [b"event", b"%d" % number, b"%d" % count])
        send(pub, [b"end", b"%d" % number])
    for sub in subs:
        events = []
        while len([event for event in events if event[0] == b"end"]) < 3:
            events.append(got(sub))
        for number in range(3):
            mine = [event for event in events if event[0] == b"event" and event[1] == b"%d" % number]
            assert [int(event[2]) for event in mine] == list(range(100))
        assert not sub.poll(0)


def test_what_a_broker_says_itself_stays_with_its_own_subscribers(factory, make_forwarder):
    near, far = make_forwarder(), make_forwarder()
    far.link(near.mesh)
    own, through = publisher(factory, near.local_ingress), publisher(factory, near.ingress)
    here, there = (subscriber(factory, broker.egress, b"") for broker in (near, far))
    assert got(own) == [b"\x01"]
    assert got(through) == [b"\x01"]
    while not there.poll(20):  # until its subscription has come through
        send(through, [b"knock"])
    send(own, [b"own"])
    while got(here) != [b"own"]:
        pass
    send(through, [b"end"])
    heard = [got(there)]
    while heard[-1] != [b"end"]:
        heard.append(got(there))
    assert [b"own"] not in heard


def test_a_link_can_be_taken_back(factory, make_forwarder):
    near, far = make_forwarder(), make_forwarder()
    pub = publisher(factory, far.ingress)
    near.link(far.mesh)
    sub = subscriber(factory, near.egress, b"sst")
    assert got(pub) == [b"\x01sst"]
    near.unlink(far.mesh)
    assert got(pub) == [b"\x00sst"]
    near.unlink(far.mesh)
    sub.close()


def test_a_link_to_no_endpoint_is_refused(forwarder):
    with pytest.raises(BadName):
        forwarder.link("nonsense")
    assert forwarder.is_alive()


def test_counters_count_what_passed(factory, forwarder):
    pub = publisher(factory, forwarder.ingress)
    sub = subscriber(factory, forwarder.egress, b"sst")
    got(pub)
    for _ in range(10):
        send(pub, [b"sst", b"12345"])
        got(sub)
    counters = forwarder.counters()
    assert (counters.frames_in, counters.bytes_in) == (20, 80)
    assert (counters.frames_out, counters.bytes_out) == (20, 80)
    assert counters.subscription_changes == 1


def test_counting_and_linking_lose_no_event(factory, forwarder):
    pub = publisher(factory, forwarder.ingress)
    sub = subscriber(factory, forwarder.egress, b"")
    got(pub)
    done = threading.Event()

    def disturb():
        for _ in range(50):
            forwarder.counters()
            forwarder.link("inproc://nobody")
            forwarder.unlink("inproc://nobody")
        done.set()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    count = 0
    while not done.is_set():
        for number in range(count, count + 10):
            send(pub, [b"%d" % number, b"body"])
        for number in range(count, count + 10):
            assert got(sub) == [b"%d" % number, b"body"]
        count += 10
    disturber.join()


def test_a_subscriber_that_does_not_read_loses_its_own_events_only(context, make_forwarder):
    forwarder = make_forwarder(SocketOptions(queue_bytes=0, frame_bytes_max=DATA.frame_bytes_max))
    factory = SocketFactory(context, SocketOptions(queue_bytes=0, frame_bytes_max=DATA.frame_bytes_max))
    pub = publisher(factory, forwarder.ingress)
    stalled = subscriber(factory, forwarder.egress, b"")
    stalled_is_there = got(pub)
    assert stalled_is_there == [b"\x01"]
    reader = subscriber(factory, forwarder.egress, b"", b"reader")
    assert got(pub) == [b"\x01reader"]
    body = b"x" * 1_000_000
    for count in range(100):
        send(pub, [b"%d" % count, body])
        assert got(reader)[0] == b"%d" % count
    kept = 0
    while stalled.poll(100):
        stalled.recv_multipart()
        kept += 1
    assert 0 < kept < 100


def test_garbage_at_the_ingress_is_survived(factory, forwarder):
    stranger = factory.dealer(forwarder.ingress)  # of the wrong kind: refused by ZeroMQ's handshake
    raw = factory.context.socket(zmq.STREAM)
    raw.connect(forwarder.ingress)
    raw_id = raw.recv()
    raw.recv()
    raw.send_multipart([raw_id, os.urandom(1000)])
    pub = publisher(factory, forwarder.ingress)
    sub = subscriber(factory, forwarder.egress, b"sst")
    assert got(pub) == [b"\x01sst"]
    send(pub, [b"sst"])
    assert got(sub) == [b"sst"]
    stranger.close(linger=0)
    raw.close(linger=0)


def test_a_taken_endpoint_leaves_nothing_open(context, factory, forwarder):
    with pytest.raises(AddressInUse):
        Forwarder(context, ForwarderEndpoints("tcp://127.0.0.1:0", forwarder.egress))
    assert forwarder.is_alive()


def test_a_stopped_forwarder_is_closed(context):
    forwarder = Forwarder(context, ANY)
    forwarder.start()
    forwarder.stop()
    forwarder.stop()
    assert not forwarder.is_alive()
    with pytest.raises(Closed):
        forwarder.counters()
    with pytest.raises(Closed):
        forwarder.link("tcp://127.0.0.1:1")


def test_a_forwarder_survives_the_end_of_its_context():
    context = sockets.make_context()
    forwarder = Forwarder(context, ANY)
    forwarder.start()
    forwarder.counters()
    ending = threading.Thread(target=context.term)
    ending.start()
    forwarder.stop()
    ending.join(10)
    assert not ending.is_alive()


def test_fifty_forwarders_leave_no_thread_and_no_descriptor():
    def once():
        context = sockets.make_context()
        forwarder = Forwarder(context, ANY)
        forwarder.start()
        forwarder.stop()
        never_started = Forwarder(context, ANY)
        never_started.stop()
        context.term()  # hangs if a socket is left

    once()
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(50):
        once()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_the_end_of_a_forwarder_holds_up_nobody_else_in_its_context(factory, make_forwarder):
    ending, staying = make_forwarder(), make_forwarder()
    subs = [subscriber(factory, ending.egress, b"") for _ in range(10)]
    pub = publisher(factory, ending.ingress)
    assert got(pub) == [b"\x01"]
    ending.stop()
    for sub in subs:
        sub.close()
    reader, pub = subscriber(factory, staying.egress, b""), publisher(factory, staying.ingress)
    assert got(pub) == [b"\x01"]
    send(pub, [b"x"])
    assert got(reader) == [b"x"]
