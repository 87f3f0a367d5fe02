from zcat.protocol.brokers import SendTo
from zcat.protocol.entrances import Effect, Enter, Entrances, Leave
from zcat.protocol.federation_messages import Neighbour
from zcat.protocol.messages import Ping, Pong

OWNERS = [letter * 32 for letter in "abcd"]


def pong(number: int, *linked: int, ingress: str | None = "tcp://*:1") -> Pong:
    neighbours = tuple(Neighbour(f"tcp://{OWNERS[each][0]}:1", OWNERS[each], 1) for each in linked)
    return Pong("broker", OWNERS[number], 1, 0, "", ingress, neighbours=neighbours)


def entrances(count: int = 3) -> Entrances:
    machine = Entrances(0.0, random=lambda: 0.0)
    for number in range(count):
        assert machine.add(number, 0.0) == [SendTo(number, Ping())]
    return machine


def run(machine: Entrances, until_s: float) -> list[tuple[float, Effect]]:
    """Call the machine when it wants to be called; nobody answers."""
    seen: list[tuple[float, Effect]] = []
    while machine.next_deadline_s() <= until_s:
        now_s = machine.next_deadline_s()
        seen += [(now_s, effect) for effect in machine.tick(now_s) if not isinstance(effect, SendTo)]
    return seen


def test_events_go_to_the_first_that_answers_and_to_no_other_that_is_linked_to_it() -> None:
    machine = entrances()
    assert machine.answered(1, pong(1, 0, 2), 0.0) == [Enter(1, "tcp://*:1")]
    assert machine.answered(0, pong(0, 1, 2), 0.0) == []
    assert machine.answered(2, pong(2, 0, 1), 0.0) == []


def test_brokers_that_are_not_linked_are_all_told() -> None:
    machine = entrances()
    assert machine.answered(0, pong(0), 0.0) == [Enter(0, "tcp://*:1")]
    assert machine.answered(1, pong(1), 0.0) == [Enter(1, "tcp://*:1")]
    assert machine.answered(2, pong(2, 1), 0.0) == []


def test_while_two_brokers_are_cut_off_from_each_other_both_are_told() -> None:
    machine = entrances(2)
    machine.answered(0, pong(0, 1), 0.0)
    machine.answered(1, pong(1, 0), 0.0)
    assert machine.answered(1, pong(1), 0.0) == [Enter(1, "tcp://*:1")]
    assert machine.answered(1, pong(1, 0), 0.0) == [Leave(1)]


def test_when_the_one_in_use_is_silent_another_takes_its_place_and_keeps_it() -> None:
    machine = entrances(2)
    machine.answered(0, pong(0, 1), 0.0)
    machine.answered(1, pong(1, 0), 0.0)
    seen: list[Effect] = []
    for now_s in range(5):
        seen += [effect for effect in machine.tick(now_s) if not isinstance(effect, SendTo)]
        machine.answered(1, pong(1, 0), 0.0)
    assert seen == [Leave(0), Enter(1, "tcp://*:1")]
    assert machine.answered(0, pong(0, 1), 0.0) == []


def test_when_all_are_silent_the_one_in_use_is_kept() -> None:
    machine = entrances(2)
    machine.answered(0, pong(0, 1), 0.0)
    assert run(machine, 60.0) == []
    assert machine.answered(1, pong(1), 0.0) == [Leave(0), Enter(1, "tcp://*:1")]


def test_after_a_sleep_of_our_own_nobody_is_taken_for_silent() -> None:
    machine = entrances(2)
    machine.tick(0.0)
    machine.answered(0, pong(0, 1), 0.0)
    machine.answered(1, pong(1, 0), 0.0)
    machine.tick(1.0)
    assert [effect for effect in machine.tick(60.0) if not isinstance(effect, SendTo)] == []


def test_an_ingress_that_moved_is_left_for_the_new_one() -> None:
    machine = entrances(1)
    machine.answered(0, pong(0), 0.0)
    assert machine.answered(0, pong(1, ingress="tcp://*:2"), 0.0) == [Leave(0), Enter(0, "tcp://*:2")]
    assert machine.drop(0) == [Leave(0)]


def test_a_broker_without_an_ingress_is_no_entrance() -> None:
    assert entrances(1).answered(0, pong(0, ingress=None), 0.0) == []
