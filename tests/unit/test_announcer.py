from dataclasses import replace

import pytest

from zcat.model.root import Claim
from zcat.protocol.announcer import Announcer, AnnouncerTimes, RaiseIncarnation
from zcat.protocol.brokers import SendTo, backoff_s
from zcat.protocol.messages import Announce, Failed, Granted, Renew

CLAIM = Claim("sst", "a" * 32, ("tcp://h:1",), 3, 7, 20.0)
TAKEN = Granted(known=True, incarnation=3)
RENEW = Renew("sst", "a" * 32, 3, 7)


def announcer(brokers_count: int = 1) -> Announcer:
    return Announcer(CLAIM, brokers_count, 0.0, random=lambda: 0.0, times=AnnouncerTimes())


def messages(effects: list[SendTo | RaiseIncarnation]) -> list[object]:
    return [effect.message if isinstance(effect, SendTo) else effect for effect in effects]


def listed(brokers_count: int = 1) -> Announcer:
    machine = announcer(brokers_count)
    for effect in machine.tick(0.0):
        assert isinstance(effect, SendTo)
        machine.answered(effect.broker, TAKEN, effect.id, 0.1)
    return machine


def test_the_claim_is_announced_to_every_broker_and_then_renewed() -> None:
    machine = announcer(2)
    first, second = machine.tick(0.0)
    assert (first, second) == (SendTo(0, Announce(CLAIM), 1), SendTo(1, Announce(CLAIM), 2))
    machine.answered(0, TAKEN, 1, 0.1)
    assert machine.listed_count == 1
    assert machine.next_deadline_s() == 1.0  # the other one has not answered
    machine.answered(1, TAKEN, 2, 0.2)
    assert machine.listed_count == 2
    assert machine.tick(2.0) == []
    assert machine.tick(2.1) == [SendTo(0, RENEW, 3)]


def test_a_broker_that_does_not_answer_is_asked_ever_more_slowly() -> None:
    machine = announcer()
    asked_at_s = []
    while len(asked_at_s) < 6:
        at_s = machine.next_deadline_s()
        assert at_s is not None
        asked_at_s.append(at_s)
        machine.tick(at_s)
    assert asked_at_s == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]


def test_one_dead_broker_does_not_slow_the_others_down() -> None:
    machine = announcer(2)
    renewed_at_s = []
    for tenth in range(200):
        now_s = tenth / 10
        for effect in machine.tick(now_s):
            assert isinstance(effect, SendTo)
            if effect.broker == 0:
                renewed_at_s.append(now_s)
                machine.answered(0, TAKEN, effect.id, now_s)
    assert renewed_at_s == [float(second) for second in range(0, 20, 2)]


def test_a_broker_that_forgot_is_told_again() -> None:
    machine = listed()
    (renewal,) = machine.tick(2.1)
    assert isinstance(renewal, SendTo)
    assert machine.answered(0, Granted(known=False, incarnation=0), renewal.id, 3.0) == [
        SendTo(0, Announce(CLAIM), 3)
    ]


def test_a_refusal_is_followed_by_a_pause_and_not_believed_to_be_a_loss() -> None:
    machine = announcer()
    machine.tick(0.0)
    assert machine.answered(0, Failed("busy", "full"), 1, 0.1) == []
    assert machine.tick(1.0) == []
    assert messages(machine.tick(1.1)) == [Announce(CLAIM)]


def test_a_change_is_announced_at_once_and_many_changes_in_one_go() -> None:
    machine = listed()
    claims = [replace(CLAIM, seq=seq) for seq in range(8, 12)]
    (sent,) = machine.update(claims[0], 5.0)
    assert sent == SendTo(0, Announce(claims[0]), 2)
    assert machine.listed_count == 0
    assert [machine.update(later, 5.1) for later in claims[1:]] == [[], [], []]
    assert machine.answered(0, TAKEN, 2, 5.2) == []  # of the first: not yet what stands
    assert machine.next_deadline_s() == 5.5
    assert messages(machine.tick(5.5)) == [Announce(claims[-1])]


@pytest.mark.parametrize(
    ("answer", "above"),
    [
        (Granted(known=False, incarnation=9), 9),
        (Granted(known=True, incarnation=9), 9),
        (Granted(known=False, incarnation=3), 3),
        (Granted(known=False, incarnation=0), 3),
    ],
)
def test_a_claim_that_is_not_taken_makes_the_publisher_go_above_what_is_remembered(
    answer: Granted, above: int
) -> None:
    machine = announcer(2)
    machine.tick(0.0)
    assert machine.answered(0, answer, 1, 0.1) == [RaiseIncarnation(above)]
    assert machine.next_deadline_s() is None
    assert machine.tick(60.0) == []  # nothing is sent under a number that is another life's
    risen = replace(CLAIM, incarnation=above + 1, seq=0)
    assert messages(machine.update(risen, 61.0)) == [Announce(risen), Announce(risen)]


@pytest.mark.parametrize("id", [1, 77])
def test_a_late_or_repeated_answer_changes_nothing(id: int) -> None:
    machine = announcer()
    machine.tick(0.0)
    machine.tick(1.0)  # asks again, with id 2
    assert machine.answered(0, Granted(known=False, incarnation=9), id, 1.1) == []
    assert machine.answered(0, TAKEN, 2, 1.2) == []
    assert machine.answered(0, Granted(known=False, incarnation=9), 2, 1.3) == []
    assert machine.listed_count == 1


def test_withdrawing_goes_to_all_at_once_until_all_have_confirmed() -> None:
    machine = listed(2)
    tombstone = replace(CLAIM, seq=8, deleted=True)
    first, second = machine.withdraw(0.2)
    assert messages([first, second]) == [Announce(tombstone), Announce(tombstone)]
    assert isinstance(first, SendTo)
    machine.answered(0, TAKEN, first.id, 0.3)
    assert not machine.is_withdrawn
    (again,) = machine.tick(1.2)
    assert isinstance(again, SendTo)
    assert again.broker == 1
    machine.answered(1, Granted(known=False, incarnation=4), again.id, 1.3)  # a later life is listed there
    assert machine.is_withdrawn
    assert machine.next_deadline_s() is None


def test_the_word_contested_is_passed_on() -> None:
    machine = announcer()
    machine.tick(0.0)
    machine.answered(0, Granted(True, 3, contested=True), 1, 0.1)
    assert machine.contested


@pytest.mark.parametrize(
    ("failures", "number", "wait_s"), [(1, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.5, 3.0), (9, 0.0, 5.0), (999, 1.0, 2.5)]
)
def test_a_backoff_doubles_up_to_a_limit_and_is_shortened_at_random(
    failures: int, number: float, wait_s: float
) -> None:
    assert backoff_s(failures, 1.0, 5.0, lambda: number) == wait_s


def test_a_broker_that_comes_back_is_told_at_its_first_sign_of_life() -> None:
    machine = listed()
    for _ in range(4):
        at_s = machine.next_deadline_s()
        assert at_s is not None
        machine.tick(at_s)
    due_s = machine.next_deadline_s()
    assert due_s is not None
    assert messages(machine.heard(0, due_s - 2.0)) == [RENEW]
    assert machine.heard(0, due_s - 1.9) == []


def test_a_broker_that_is_learned_of_is_told_at_once_and_one_that_is_forgotten_no_more() -> None:
    machine = listed(1)
    assert machine.add(7, 0.5) == [SendTo(7, Announce(CLAIM), 2)]
    machine.answered(7, TAKEN, 2, 0.6)
    assert machine.listed_count == 2
    machine.drop(7)
    assert messages(machine.tick(3.0)) == [RENEW]
