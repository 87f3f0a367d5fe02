import pytest

from zcat.protocol.broker_choice import BrokerChoice, Effect, Lost, Use
from zcat.protocol.brokers import SendTo
from zcat.protocol.messages import Ping, Pong

PING_0, PING_1 = SendTo(0, Ping()), SendTo(1, Ping())


def pong(number: int = 0, incarnation: int = 1, seq: int = 0) -> Pong:
    return Pong("broker", str(number) * 32, incarnation, seq, "0.1", "tcp://*:1", "tcp://*:2")


def choice(count: int = 2) -> BrokerChoice:
    return BrokerChoice(count, 0.0, random=lambda: 0.0)


def using(broker: int = 1) -> BrokerChoice:
    machine = choice()
    machine.tick(0.0)
    machine.answered(broker, pong(broker), 0.0)
    return machine


def run(machine: BrokerChoice, until_s: float) -> list[tuple[float, Effect]]:
    """Call the machine when it wants to be called; nobody answers."""
    seen: list[tuple[float, Effect]] = []
    while machine.next_deadline_s() <= until_s:
        now_s = machine.next_deadline_s()
        seen += [(now_s, effect) for effect in machine.tick(now_s)]
    return seen


def test_all_are_asked_and_the_first_that_answers_is_used() -> None:
    machine = choice()
    assert machine.tick(0.0) == [PING_0, PING_1]
    assert machine.answered(1, pong(1), 0.1) == [Use(1, pong(1))]
    assert machine.answered(0, pong(0), 0.2) == []
    assert machine.in_use == 1
    assert run(machine, 1.1) == [(1.1, PING_1)]


def test_an_answer_with_news_of_its_directory_is_not_another_broker() -> None:
    machine = using(1)
    assert machine.answered(1, pong(1, seq=9), 1.0) == []


@pytest.mark.parametrize("other", [pong(5), pong(1, incarnation=2)])
def test_a_broker_that_restarted_at_its_place_is_used_anew(other: Pong) -> None:
    assert using(1).answered(1, other, 2.0) == [Use(1, other)]


def test_a_silent_broker_is_given_up_after_its_time_and_all_are_asked() -> None:
    machine = using(1)
    seen = run(machine, 4.0)
    assert seen == [(1.0, PING_1), (2.0, PING_1), (3.0, PING_1), (4.0, Lost(1)), (4.0, PING_0), (4.0, PING_1)]
    assert machine.in_use is None
    assert machine.answered(0, pong(0), 4.1) == [Use(0, pong(0))]


def test_an_answer_in_time_keeps_a_slow_broker() -> None:
    machine = using(1)
    run(machine, 3.0)
    assert machine.answered(1, pong(1), 3.9) == []
    assert (4.0, Lost(1)) not in run(machine, 6.0)


def test_with_all_dead_the_search_goes_on_ever_more_slowly() -> None:
    asked_at_s = [now_s for now_s, effect in run(choice(1), 9.0) if effect == PING_0]
    assert asked_at_s == [0.0, 0.5, 1.5, 3.5, 5.5, 7.5]


def test_a_subscriber_that_slept_itself_does_not_blame_the_broker() -> None:
    machine = using(1)
    machine.tick(1.0)
    assert machine.tick(61.0) == [PING_1]
    assert machine.answered(1, pong(1), 61.0) == []
    assert machine.in_use == 1


def test_a_broker_that_is_learned_of_is_asked_when_none_is_in_use() -> None:
    machine = using(1)
    assert machine.add(5) == []
    seen = [effect for _, effect in run(machine, 4.2)]
    assert seen[seen.index(Lost(1)) :] == [Lost(1), PING_0, PING_1, SendTo(5, Ping())]
    assert machine.add(6) == [SendTo(6, Ping())]
    assert machine.answered(5, pong(5), 4.6) == [Use(5, pong(5))]


def test_a_broker_that_is_forgotten_is_no_more_in_use() -> None:
    machine = using(1)
    assert machine.drop(0, 1.0) == []
    machine.add(5)
    assert machine.drop(1, 1.0) == [Lost(1), SendTo(5, Ping())]
