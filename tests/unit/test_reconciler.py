from dataclasses import replace

from zcat.model.root import Claim
from zcat.protocol.brokers import SendTo
from zcat.protocol.digests import bucket_of
from zcat.protocol.directory import Directory
from zcat.protocol.federation_messages import Digest, Digests, Records
from zcat.protocol.messages import DirectoryChanged, Listing, Pong
from zcat.protocol.pages import paged
from zcat.protocol.reconciler import Effect, Reconciler

PART = 3


def directory(owner: str, *roots: str) -> Directory:
    machine = Directory(owner * 32, 1, 0.0)
    for root in roots:
        machine.announce(Claim(root, "f" * 32, ("tcp://h:1",), 1, 0, 20.0), 0.0)
    return machine


def pong(of: Directory) -> Pong:
    return Pong("broker", of.broker, 1, 0, "", digest=of.digest)


def answered(machine: Reconciler, of: Directory, effects: list[Effect], now_s: float) -> list[Effect]:
    """Answer all questions as the broker of ``of`` does; give what else there is."""
    seen: list[Effect] = []
    while effects:
        effect = effects.pop(0)
        if not isinstance(effect, SendTo):
            seen.append(effect)
        elif isinstance(effect.message, Digest):
            effects += machine.digests(effect.broker, Digests(of.digests()), effect.id, now_s)
        else:
            assert isinstance(effect.message, Records)
            listed, following = of.records(effect.message, now_s, PART)
            listing = Listing(of.broker, 1, 0, following, tuple(paged(listed)))
            effects += machine.records(effect.broker, listing, effect.id, now_s)
    return seen


def test_what_differs_is_asked_for_in_parts_and_then_nothing_more_is() -> None:
    ours, theirs = directory("a", "same"), directory("b", "same", *(f"r{n}" for n in range(10)))
    machine = Reconciler(ours, lambda: 0.0)
    changes = answered(machine, theirs, machine.told(0, pong(theirs), 1.0), 1.0)
    assert sorted(each.listed.claim.root for each in changes if isinstance(each, DirectoryChanged)) == [
        f"r{n}" for n in range(10)
    ]
    assert ours.digest == theirs.digest
    assert machine.told(0, pong(theirs), 3.0) == []


def test_only_the_buckets_that_differ_are_asked_for() -> None:
    ours, theirs = directory("a", "same"), directory("b", "same", "other")
    machine = Reconciler(ours, lambda: 0.0)
    (asked,) = machine.told(0, pong(theirs), 1.0)
    assert isinstance(asked, SendTo)
    (asked,) = machine.digests(0, Digests(theirs.digests()), asked.id, 1.0)
    assert isinstance(asked, SendTo)
    assert asked.message == Records((bucket_of(("other", "f" * 32)),))


def test_one_neighbour_is_asked_at_a_time_and_one_that_does_not_answer_blocks_nobody_for_long() -> None:
    machine, theirs = Reconciler(directory("a"), lambda: 0.0), directory("b", "r")
    (asked,) = machine.told(0, pong(theirs), 1.0)
    assert machine.told(1, pong(directory("c", "r")), 1.1) == []
    assert machine.told(1, pong(directory("c", "r")), 4.1) != []
    assert isinstance(asked, SendTo)
    assert machine.digests(0, Digests(theirs.digests()), asked.id, 4.2) == []  # too late


def test_whoever_told_something_during_an_exchange_is_asked_next() -> None:
    ours, first, second = directory("a"), directory("b", "r"), directory("c", "s")
    machine = Reconciler(ours, lambda: 0.0)
    (asked,) = machine.told(0, pong(first), 1.0)
    assert machine.told(1, pong(second), 1.1) == []
    assert isinstance(asked, SendTo)
    (asked,) = machine.digests(0, Digests(first.digests()), asked.id, 1.2)
    assert isinstance(asked, SendTo)
    listed, _ = first.records(asked.message, 1.2, PART)  # type: ignore[arg-type]
    *_, following = machine.records(0, Listing("b" * 32, 1, 0, None, tuple(paged(listed))), asked.id, 1.2)
    assert isinstance(following, SendTo)
    assert (following.broker, following.message) == (1, Digest())


def test_what_changes_nothing_is_not_asked_for_again_before_something_has_changed() -> None:
    ours, theirs = directory("a", "more", "r"), directory("b", "r")
    machine = Reconciler(ours, lambda: 0.0)
    assert answered(machine, theirs, machine.told(0, pong(theirs), 1.0), 1.0) == []
    assert machine.told(0, pong(theirs), 5.0) == []
    assert machine.told(0, pong(theirs), 10.9) == []
    ours.announce(Claim("new", "f" * 32, (), 1, 0, 20.0), 5.0)
    assert machine.told(0, pong(theirs), 6.0) != []


def test_an_owner_that_is_heard_of_again_over_there_comes_back_though_no_digest_changes() -> None:
    ours, theirs = directory("a"), directory("b", "r")
    theirs.tick(15.0)  # it slept, so the claim has another lease there, though nobody was heard of
    machine = Reconciler(ours, lambda: 0.0)
    assert answered(machine, theirs, machine.told(0, pong(theirs), 25.0), 25.0) == []
    theirs.announce(theirs.lookup("r", 26.0)[0][0].claim, 26.0)
    assert machine.told(0, pong(theirs), 34.9) == []
    (change,) = answered(machine, theirs, machine.told(0, pong(theirs), 35.0), 35.0)
    assert isinstance(change, DirectoryChanged)
    assert change.listed.state == "live"


def test_a_neighbour_that_is_gone_blocks_nobody() -> None:
    machine, theirs = Reconciler(directory("a"), lambda: 0.0), directory("b", "r")
    assert machine.told(0, pong(theirs), 1.0) != []
    assert machine.told(2, pong(directory("d", "r")), 1.0) == []
    machine.forget(2)
    machine.forget(0)
    (asked,) = machine.told(1, pong(directory("c", "r")), 1.1)
    assert isinstance(asked, SendTo)
    assert asked.broker == 1
    assert machine.digests(1, Digests(directory("a").digests()), asked.id, 1.2) == []


def test_the_same_neighbour_is_left_in_peace_for_a_while() -> None:
    ours, theirs = directory("a"), directory("b", "r")
    machine = Reconciler(ours, lambda: 0.0)
    answered(machine, theirs, machine.told(0, pong(theirs), 1.0), 1.0)
    theirs.announce(Claim("new", "f" * 32, (), 1, 0, 20.0), 1.0)
    assert machine.told(0, pong(theirs), 1.1) == []
    assert machine.told(0, pong(theirs), 1.6) != []


def test_leases_of_owners_that_only_the_neighbour_hears_of_are_renewed_from_there() -> None:
    ours, theirs = directory("a"), directory("b", "r")
    machine = Reconciler(ours, lambda: 0.0)
    answered(machine, theirs, machine.told(0, pong(theirs), 1.0), 1.0)
    claim = theirs.lookup("r", 1.0)[0][0].claim
    for now_s in range(2, 60):
        theirs.announce(claim, now_s)
        assert ours.tick(now_s) == []
        answered(machine, theirs, machine.told(0, pong(theirs), now_s), now_s)
    ended = [change for now_s in range(60, 90) for change in ours.tick(now_s)]
    assert [change.listed.state for change in ended] == ["lapsed"]


def test_a_sign_of_life_ages_on_its_way() -> None:
    ours, theirs = directory("a"), directory("b", "r")
    machine = Reconciler(ours, lambda: 0.0)
    (asked,) = machine.told(0, pong(theirs), 1.0)
    assert isinstance(asked, SendTo)
    (asked,) = machine.digests(0, Digests(theirs.digests()), asked.id, 1.0)
    assert isinstance(asked, SendTo)
    listed = [replace(each, age_s=4.0) for each in theirs.lookup(None, 1.0)[0]]
    (change,) = machine.records(0, Listing("b" * 32, 1, 0, None, tuple(paged(listed))), asked.id, 3.5)
    assert isinstance(change, DirectoryChanged)
    assert change.listed.age_s == 6.5


def test_a_neighbour_that_heard_nothing_itself_lets_the_others_have_their_turn() -> None:
    ours, deaf, theirs = directory("a"), directory("d"), directory("b", "r")
    for machine in (Reconciler(ours, lambda: 0.0), Reconciler(deaf, lambda: 0.0)):
        answered(machine, theirs, machine.told(0, pong(theirs), 1.0), 1.0)
    machine = Reconciler(ours, lambda: 0.0)
    asked = machine.told(1, pong(deaf), 7.0)
    assert asked != []
    answered(machine, deaf, asked, 7.0)
    assert machine.told(1, pong(deaf), 9.0) == []
    assert machine.told(0, pong(theirs), 9.0) != []
