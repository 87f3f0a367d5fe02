"""Brokers of three ages in one network, and peers that speak a language that nobody knows yet."""

import contextlib
import random

import msgpack
import pytest
import zmq
from cluster import ASK_MS, endpoint_of, eventually
from interpreter import Interpreter
from writer import Writer

from zcat.protocol.messages import Ping, encode

pytestmark = pytest.mark.timeout(300)


def test_an_older_and_a_later_broker_serve_beside_one_of_today(cluster, tmp_path, figures):
    writer = Writer("alpha", tmp_path / "alpha", 1)
    brokers = [cluster.broker(name) for name in ("older", "later")]
    cluster.start(*brokers)
    with (
        Interpreter(endpoint_of(brokers[0]), is_older=True) as older,
        Interpreter(endpoint_of(brokers[1]), is_older=False) as later,
    ):
        places = {"older": older.endpoint, "later": later.endpoint}
        today = cluster.broker("today", *places.values())
        places["today"] = endpoint_of(today)
        publisher = cluster.publisher("p1", "alpha", writer.folder, list(places.values()))
        subscribers = [cluster.subscriber(f"s-{name}", ["alpha"], [place]) for name, place in places.items()]
        cluster.start(today, publisher, *subscribers)
        for subscriber in subscribers:
            cluster.read_over_http(subscriber, ["alpha"])
        cluster.checker.wait()
        eventually(lambda: all(cluster.listed(broker) == {"alpha": "live"} for broker in (*brokers, today)))
        writer.start()
        eventually(lambda: cluster.checker.reads_count() > 300)
        writer.stop()
        took_s = cluster.checker.converged_s([writer], within_s=30)
        figures.note("brokers of three versions: everybody sees everything after", took_s, "s", 40)
        assert not cluster.checker.failures(), cluster.checker.failures()[:3]
        # whoever uses the older one is told of everything there, too
        (used,) = {cluster.health(subscriber)["broker"] for subscriber in subscribers[:1]}
        assert used == older.endpoint
        publisher.terminate()
        eventually(lambda: cluster.listed(brokers[0]) == cluster.listed(today) == {"alpha": "withdrawn"})
        eventually(lambda: cluster.get(subscribers[0], "/api/roots")["alpha"]["state"] == "withdrawn")


FUTURE = [
    [b"zcat1", msgpack.packb({"verb": "dance", "id": 5, "steps": [1, 2]})],
    [b"zcat1", msgpack.packb({"verb": "ping", "id": 6, "mood": "good", "neighbour": None})],
    [b"zcat1", msgpack.packb({"verb": "lookup", "id": 7, "after": "", "filter": {"deep": {"er": b"x"}}})],
]


def test_peers_of_the_future_get_an_answer_or_none_and_disturb_nobody(cluster, tmp_path):
    writer = Writer("alpha", tmp_path / "alpha", 1)
    broker = cluster.broker("b1")
    publisher = cluster.publisher("p1", "alpha", writer.folder, [endpoint_of(broker)])
    subscriber = cluster.subscriber("s1", ["alpha"], [endpoint_of(broker)])
    cluster.start(broker, publisher, subscriber)
    cluster.read_over_http(subscriber, ["alpha"])
    cluster.checker.wait()
    (asked,) = cluster.claim(broker, "alpha").endpoints
    chance = random.Random(1)
    with contextlib.ExitStack() as held:
        context = held.enter_context(zmq.Context())
        for place in (endpoint_of(broker), asked):
            dealer = held.enter_context(context.socket(zmq.DEALER))
            dealer.set(zmq.LINGER, 0)
            dealer.connect(place)
            answers = {}
            for message in FUTURE:
                dealer.send_multipart(message)
            dealer.send_multipart([b"zcat2", chance.randbytes(100)])  # may be dropped without a word
            dealer.send_multipart(encode(Ping(), 9))
            while 9 not in answers:
                assert dealer.poll(ASK_MS)
                header = msgpack.unpackb(dealer.recv_multipart()[1])
                answers[header["id"]] = header
            assert answers[5]["code"] == "verb-unknown"
            assert answers[6]["verb"] == "pong"
    writer.start()
    eventually(lambda: cluster.checker.reads_count() > 100)
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert not cluster.checker.failures()
