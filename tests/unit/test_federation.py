from itertools import pairwise

from zcat.protocol.brokers import SendTo
from zcat.protocol.federation import Effect, Federation, Link, Unlink
from zcat.protocol.federation_messages import Neighbour
from zcat.protocol.known_brokers import Met
from zcat.protocol.messages import Ping, Pong

A, B, C = "a" * 32, "b" * 32, "c" * 32
OWN = Neighbour("tcp://a:1", A, 1)
PING = Ping(OWN)


def pong(owner: str, *neighbours: Neighbour, mesh: str | None = "tcp://*:9") -> Pong:
    return Pong("broker", owner, 1, 0, "", mesh=mesh, neighbours=neighbours)


def neighbour(owner: str) -> Neighbour:
    return Neighbour(f"tcp://{owner[0]}:1", owner, 1)


def alone() -> Federation:
    return Federation(OWN, 0.0, random=lambda: 0.0)


def joined() -> Federation:
    machine = alone()
    assert machine.join(("tcp://b:1",), 0.0) == [Met(0, "tcp://b:1"), SendTo(0, PING)]
    assert machine.answered(0, pong(B), 0.1) == [Link("tcp://b:9")]
    return machine


def run(machine: Federation, until_s: float) -> list[tuple[float, Effect]]:
    """Call the machine when it wants to be called; nobody answers."""
    seen: list[tuple[float, Effect]] = []
    while (now_s := machine.next_deadline_s() or 1e9) <= until_s:
        seen += [(now_s, effect) for effect in machine.tick(now_s)]
    return seen


def test_one_that_answers_is_linked_and_told_of() -> None:
    machine = joined()
    assert machine.neighbours == (neighbour(B),)
    assert run(machine, 1.1) == [(1.1, SendTo(0, PING))]
    assert alone().next_deadline_s() is None


def test_whoever_introduces_itself_or_is_told_of_is_asked_before_it_is_believed() -> None:
    machine = alone()
    assert machine.introduced(neighbour(B), 0.0) == [Met(0, "tcp://b:1"), SendTo(0, PING)]
    assert len(machine.neighbours) == 0
    effects = machine.answered(0, pong(B, neighbour(C), neighbour(A)), 0.1)
    assert effects == [Met(1, "tcp://c:1"), SendTo(1, PING), Link("tcp://b:9")]
    assert machine.neighbours == (neighbour(B),)
    assert machine.answered(1, pong(C), 0.2) == [Link("tcp://c:9")]


def test_one_that_is_silent_is_parted_from_and_asked_ever_more_slowly_until_it_answers() -> None:
    machine = joined()
    seen = run(machine, 30.0)
    ((at_s, _),) = [(at_s, effect) for at_s, effect in seen if effect == Unlink("tcp://b:9")]
    assert 3.0 < at_s < 5.2
    assert len(machine.neighbours) == 0
    asked_at_s = [each for each, effect in seen if isinstance(effect, SendTo) and each > at_s]
    waits_s = [round(later - earlier, 6) for earlier, later in pairwise(asked_at_s)]
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] == 5.0
    assert Link("tcp://b:9") in machine.answered(0, pong(B), 31.0)


def test_a_broker_that_slept_itself_parts_from_nobody() -> None:
    machine = joined()
    machine.tick(1.1)
    assert machine.tick(60.0) == [SendTo(0, PING)]
    assert machine.answered(0, pong(B), 60.1) == []


def test_one_that_is_back_and_says_so_is_asked_at_once() -> None:
    machine = joined()
    run(machine, 29.0)
    assert SendTo(0, PING) in machine.introduced(neighbour(B), 29.0)


def test_another_life_at_the_same_place_is_linked_anew_if_its_mesh_moved() -> None:
    machine = joined()
    assert machine.answered(0, pong(C, mesh="tcp://*:8"), 1.0) == [Unlink("tcp://b:9"), Link("tcp://b:8")]
    assert [each.owner for each in machine.neighbours] == [C]


def test_a_broker_under_two_names_has_one_link_and_is_told_of_by_its_own_word() -> None:
    machine = alone()
    machine.join(("tcp://b:1", "tcp://also-b:1"), 0.0)
    assert machine.answered(0, pong(B), 0.1) == [Link("tcp://b:9")]
    assert machine.answered(1, pong(B), 0.1) == []
    machine.introduced(Neighbour("tcp://really-b:1", B, 1), 0.2)
    assert machine.answered(1, pong(B), 0.3) == []
    assert machine.neighbours == (Neighbour("tcp://really-b:1", B, 1),)


def test_a_broker_without_a_mesh_is_no_neighbour() -> None:
    machine = alone()
    machine.join(("tcp://b:1",), 0.0)
    assert machine.answered(0, pong(B, mesh=None), 0.1) == []
    assert len(machine.neighbours) == 0
