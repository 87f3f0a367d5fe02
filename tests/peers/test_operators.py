"""What operators see: brokers, and whoever is known to them."""

import json
import logging
import socket

import numpy as np
import pytest
import zmq
from falcon import testing
from network import Network, eventually, write_array

from zcat.cli import exits, main
from zcat.errors import Unavailable
from zcat.http.app import make_app
from zcat.protocol.status_messages import Status
from zcat.services.publisher import FAREWELL_S
from zcat.services.survey import Survey


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    write_array(tmp_path / "data" / "x.b2nd", np.arange(5000), chunks=(500,), blocks=(100,))
    return tmp_path / "data"


@pytest.fixture
def brokers(network):
    """Three of them; each knows only the one before it."""
    first = network.broker()
    second = network.broker(peers=(first.endpoints.listen,))
    third = network.broker(peers=(second.endpoints.listen,))
    eventually(lambda: all(len(broker.neighbours) == 2 for broker in network.brokers))
    return first, second, third


@pytest.fixture
def survey(network, brokers):
    """Begins at one broker."""
    return Survey(network.context, lambda: (brokers[0].endpoints.listen,))


def found(look, condition):
    """Look until what is seen fulfils a condition; give it."""
    seen = []

    def is_so():
        seen[:] = look()
        return condition(seen)

    eventually(is_so)
    return seen


def test_all_brokers_are_found_from_one_and_tell_whom_they_are_linked_to(survey, brokers):
    views = found(survey.brokers, lambda views: all("in step" in link.notes for v in views for link in v.links))
    assert {view.owner for view in views} == {broker.owner for broker in brokers}
    for view in views:
        assert (view.state, view.problem, len(view.links)) == ("here", None, 2)
        assert all(link.state == "here" and link.round_trip_s is not None for link in view.links)
        assert 0 < view.round_trip_s < 10
        assert {"live", "frames_in", "queued_bytes", "put_out", "subscribers"} <= set(view.counts)


def test_a_broker_that_is_gone_is_silent_and_away(survey, brokers):
    brokers[2].close()
    views = found(
        survey.brokers, lambda views: {link.state for v in views for link in v.links} == {"here", "away"}
    )
    by_endpoint = {view.endpoint: view for view in views}
    assert by_endpoint[brokers[2].endpoints.listen].state == "silent"
    assert by_endpoint[brokers[1].endpoints.listen].state == "here"


def test_an_older_broker_tells_what_it_can(survey, brokers):
    del brokers[1]._answers[Status]
    views = {view.endpoint: view for view in survey.brokers()}
    old = views[brokers[1].endpoints.listen]
    assert (old.state, old.problem) == ("here", "too old to tell more")
    assert len(old.links) == 2


def test_publishers_and_subscribers_are_seen_by_whichever_broker_they_use(survey, network, folder):
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber(brokers=(network.endpoints[2],))
    subscriber.follow("sst")
    peers = found(survey.peers, lambda peers: len(peers) == 2 and len(peers[0].brokers) == 3 and peers[0].links)
    told, reader = peers
    assert (told.kind, told.name, told.state, told.contested) == ("publisher", "sst", "live", False)
    assert told.endpoints == publisher.ready.endpoints
    assert (told.answers, told.incarnation, told.lag) == (True, 1, 0)
    assert 0 < told.lease_left_s <= 20
    assert told.counts["datasets"] == 1
    assert sum("events" in link.notes for link in told.links) == 1
    assert sum("listed" in link.notes for link in told.links) == 3
    assert (reader.kind, reader.owner, reader.brokers) == ("subscriber", subscriber.owner, (network.endpoints[2],))
    assert (reader.counts["roots"], reader.counts["roots_current"]) == (1, 1)
    assert 0 < reader.lease_left_s <= 10


def test_a_subscriber_that_leaves_says_so(survey, network):
    subscriber = network.subscriber()
    found(survey.peers, lambda peers: [peer.owner for peer in peers] == [subscriber.owner])
    subscriber.close()
    # its lease would last longer than anybody waits here for a sign
    found(survey.peers, lambda peers: peers == [])


def test_a_silent_broker_takes_no_time_of_the_publishers(network, brokers, folder):
    """Nor of the brokers that are learned of: it is there, and never answers."""
    network.publisher("sst", folder)
    silent = network.context.socket(zmq.ROUTER)
    port = silent.bind_to_random_port("tcp://127.0.0.1")
    survey = Survey(
        network.context, lambda: (brokers[0].endpoints.listen, f"tcp://127.0.0.1:{port}"), patience_s=1.0
    )
    try:
        (publisher,) = found(survey.peers, lambda peers: len(peers) == 1)
        assert publisher.answers
        states = [broker.state for broker in survey.brokers()]
        assert sorted(states) == ["here", "here", "here", "silent"]
    finally:
        silent.close(linger=0)


@pytest.mark.parametrize("bound", ["http://0.0.0.0:80", "http://[::]:80"])
def test_a_subscriber_that_answers_everywhere_names_its_host(network, bound):
    subscriber = network.subscriber()
    subscriber.introduction.http = bound
    assert subscriber.introduction.presence().http == f"http://{socket.gethostname()}:80"
    subscriber.introduction.http = "http://127.0.0.1:80"
    assert subscriber.introduction.presence().http == "http://127.0.0.1:80"


def test_where_no_broker_answers_that_is_said(network):
    with pytest.raises(Unavailable, match="no broker answers"):
        Survey(network.context, lambda: ("tcp://127.0.0.1:9",), patience_s=0.1).peers()


def test_a_name_that_two_publishers_claim_is_told_by_both_and_seen(survey, network, brokers, folder, caplog):
    with caplog.at_level(logging.INFO, "zcat.services.announcing"):
        first = network.publisher("sst", folder)
        second = network.publisher("sst", folder, state="other")
        peers = found(survey.peers, lambda peers: len(peers) == 2 and all(peer.contested for peer in peers))
        assert {peer.owner for peer in peers} == {first.ready.owner, second.ready.owner}

        def named():
            lines = [record.getMessage() for record in caplog.records if "contested:" in record.getMessage()]
            return {
                (mine.ready.owner, other.ready.owner)
                for mine, other in ((first, second), (second, first))
                for line in lines
                if f"owner={mine.ready.owner}" in line and f"other={other.ready.owner}" in line
            }

        eventually(lambda: len(named()) == 2)
        second.close()
        eventually(lambda: any("contested no more" in record.getMessage() for record in caplog.records))


def test_a_publisher_waits_at_its_end_for_those_brokers_only_that_are_there(network, folder):
    broker = network.broker()
    publisher = network.publisher("sst", folder)
    eventually(lambda: publisher.stats()["brokers_listing"] == 1)
    broker.close()
    eventually(lambda: not publisher._announcing._entrances.is_heard)
    begun_s = publisher._loop.now_s()
    publisher._farewell()
    assert publisher._loop.now_s() - begun_s < FAREWELL_S


def test_http_tells_the_same(network, brokers, folder):
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    client = testing.TestClient(make_app(subscriber))
    told = client.simulate_get("/api/brokers").json["brokers"]
    assert [broker["state"] for broker in told] == ["here"] * 3
    assert client.simulate_get("/api/health").json["brokers"][0] == brokers[0].endpoints.listen
    kinds = found(
        lambda: [peer["kind"] for peer in client.simulate_get("/api/peers").json["peers"]],
        lambda kinds: len(kinds) == 2,
    )
    assert kinds == ["publisher", "subscriber"]
    unasked = client.simulate_get("/api/peers?ask=0").json["peers"]
    assert unasked[0]["answers"] is None


def test_the_commands_print_tables_and_json(survey, network, brokers, folder, capsys):
    network.publisher("sst", folder)
    found(survey.peers, lambda peers: peers and len(peers[0].brokers) == 3)
    named = ("--broker", brokers[0].endpoints.listen)
    assert main.main(["brokers", *named]) == exits.OK
    assert capsys.readouterr().out.count(brokers[2].endpoints.listen) == 5
    assert main.main(["peers", *named]) == exits.OK
    assert "sst" in capsys.readouterr().out
    assert main.main(["peers", *named, "--json", "--brief"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["peers"][0]["name"] == "sst"


def test_brokers_that_are_all_silent_are_an_exit_status(capsys):
    assert main.main(["brokers", "--broker", "tcp://127.0.0.1:9"]) == exits.UNREACHABLE
    assert "silent" in capsys.readouterr().out
