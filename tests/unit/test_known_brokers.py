from zcat.limits import BROKERS_MAX
from zcat.protocol.federation_messages import Neighbour
from zcat.protocol.known_brokers import FORGET_S, Forgotten, KnownBrokers, Met
from zcat.protocol.messages import Pong

A, B, C = "a" * 32, "b" * 32, "c" * 32


def neighbour(owner: str, host: str | None = None) -> Neighbour:
    return Neighbour(f"tcp://{host or owner[0]}:1", owner, 1)


def pong(owner: str, *neighbours: Neighbour) -> Pong:
    return Pong("broker", owner, 1, 0, "", neighbours=neighbours)


def known(*endpoints: str, own: str = "") -> KnownBrokers:
    machine = KnownBrokers(0.0, own)
    assert machine.configured(endpoints, 0.0) == [Met(number, each) for number, each in enumerate(endpoints)]
    return machine


def test_a_broker_tells_of_others_and_those_are_met_once() -> None:
    machine = known("tcp://a:1")
    told = pong(A, neighbour(B), neighbour(C))
    assert machine.heard(0, told, 1.0) == [Met(1, "tcp://b:1"), Met(2, "tcp://c:1")]
    assert machine.heard(0, told, 2.0) == []
    assert machine.introduced(neighbour(C), 2.0) == []
    assert machine.endpoints == {0: "tcp://a:1", 1: "tcp://b:1", 2: "tcp://c:1"}


def test_one_that_is_known_under_another_name_is_not_met_and_one_that_turns_out_so_is_forgotten() -> None:
    machine = known("tcp://a:1", "tcp://also-b:1")
    machine.heard(1, pong(B), 1.0)
    assert machine.heard(0, pong(A, neighbour(B)), 1.0) == []
    assert machine.introduced(neighbour(C, "c1"), 1.0) == [Met(2, "tcp://c1:1")]
    assert machine.introduced(neighbour(C, "c2"), 1.0) == [Met(3, "tcp://c2:1")]
    assert machine.heard(2, pong(C), 2.0) == []
    assert machine.heard(3, pong(C), 2.0) == [Forgotten(3)]


def test_a_broker_does_not_know_itself() -> None:
    machine = known("tcp://a:1", own=A)
    assert machine.introduced(neighbour(A, "self"), 0.0) == []
    assert machine.heard(0, pong(A), 0.0) == [Forgotten(0)]
    assert machine.endpoints == {}


def test_what_nobody_tells_of_any_more_is_forgotten_and_what_is_configured_never() -> None:
    machine = known("tcp://a:1", "tcp://away:1")
    machine.heard(0, pong(A, neighbour(B)), 0.0)
    half_s = FORGET_S / 2
    assert machine.heard(0, pong(A), half_s) == []
    assert machine.heard(0, pong(A), 2 * half_s) == []
    assert machine.heard(0, pong(A), 2 * half_s + 1) == [Forgotten(2)]
    assert machine.endpoints == {0: "tcp://a:1", 1: "tcp://away:1"}


def test_after_a_silence_of_everybody_nobody_is_forgotten_at_once() -> None:
    machine = known("tcp://a:1")
    machine.heard(0, pong(A, neighbour(B)), 0.0)
    assert machine.heard(0, pong(A), 10 * FORGET_S) == []


def test_a_loopback_address_means_nothing_on_another_host() -> None:
    machine = known("tcp://a:1", "tcp://127.0.0.1:1")
    local = "tcp://127.0.0.1:2"
    assert machine.heard(0, pong(A, Neighbour(local, B, 1)), 0.0) == []
    assert machine.heard(1, pong(C, Neighbour(local, B, 1)), 0.0) == [Met(2, local)]


def test_no_more_are_learned_of_than_the_limit() -> None:
    machine = known("tcp://a:1")
    for number in range(2 * BROKERS_MAX):
        machine.introduced(Neighbour(f"tcp://h{number}:1", f"{number:032x}", 1), 0.0)
    assert len(machine.endpoints) == BROKERS_MAX
