from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import Busy, TooLarge
from zcat.limits import BUCKETS
from zcat.model.root import Claim
from zcat.protocol.digests import bucket_of, record_digest
from zcat.protocol.directory import Directory, DirectoryLimits
from zcat.protocol.federation_messages import Records
from zcat.protocol.messages import Granted, ListedClaim, Renew

A, B = "a" * 32, "b" * 32
LEASE_S = 20.0


def claim(root: str = "sst", owner: str = A, incarnation: int = 1, seq: int = 0, deleted: bool = False) -> Claim:
    return Claim(root, owner, ("tcp://h:1",), incarnation, seq, LEASE_S, deleted)


def renewal(of: Claim) -> Renew:
    return Renew(of.root, of.owner, of.incarnation, of.seq)


def directory(**limits: float) -> Directory:
    return Directory("f" * 32, 1, 0.0, DirectoryLimits(**limits))  # type: ignore[arg-type]


def ticked(machine: Directory, from_s: int, to_s: int) -> list[tuple[str, str]]:
    """Tick every second, as a loop that is awake does; give (root, state) of what changed."""
    changes = [change for now_s in range(from_s, to_s + 1) for change in machine.tick(now_s)]
    return [(change.listed.claim.root, change.listed.state) for change in changes]


def states(machine: Directory, now_s: float = 0.0) -> dict[str, str]:
    return {listed.claim.root: listed.state for listed in machine.lookup(None, now_s)[0]}


def test_an_announced_claim_is_live_listed_and_published_with_the_brokers_own_number() -> None:
    machine = directory()
    granted, (change,) = machine.announce(claim(), 5.0)
    assert granted == Granted(known=True, incarnation=1)
    assert (change.broker, change.incarnation, change.seq) == ("f" * 32, 1, 1)
    assert change.listed == ListedClaim(claim(), 0.0, "live")
    assert machine.lookup("sst", 7.0) == ([ListedClaim(claim(), 2.0, "live")], None)


def test_what_is_known_already_is_not_published_again() -> None:
    machine = directory()
    machine.announce(claim(), 0.0)
    assert machine.announce(claim(), 1.0)[1] == []
    assert machine.renew(renewal(claim()), 2.0) == (Granted(True, 1), [])


@pytest.mark.parametrize(
    ("held", "came", "taken"),
    [
        (claim(seq=3), claim(seq=4), True),
        (claim(seq=3), claim(seq=3), True),
        (claim(seq=3), claim(seq=2), False),
        (claim(seq=3), claim(incarnation=2), True),
        (claim(incarnation=2), claim(incarnation=1, seq=9), False),
        (claim(seq=3), claim(seq=4, deleted=True), True),
        (claim(seq=4, deleted=True), claim(seq=3), False),
        (claim(seq=4, deleted=True), claim(seq=4), False),
        (claim(seq=4, deleted=True), claim(incarnation=2), True),
        (claim(seq=0), replace(claim(seq=0), endpoints=("tcp://h:2",)), False),
    ],
)
def test_the_larger_incarnation_and_seq_wins_and_a_tombstone_beats_a_claim(
    held: Claim, came: Claim, taken: bool
) -> None:
    machine = directory()
    machine.announce(held, 0.0)
    granted, _ = machine.announce(came, 1.0)
    assert granted.known == taken
    assert granted.incarnation == (came if taken else held).incarnation
    assert machine.lookup("sst", 1.0)[0][0].claim == (came if taken else held)


def test_a_lease_that_is_not_renewed_lapses_within_a_tick_and_stays_to_be_seen_for_a_while() -> None:
    machine = directory(lapsed_kept_s=100)
    machine.announce(claim(), 0.0)
    assert ticked(machine, 1, 19) == []
    assert ticked(machine, 20, 21) == [("sst", "lapsed")]
    assert machine.lookup(None, 40.0)[0] == [ListedClaim(claim(), 40.0, "lapsed")]
    assert ticked(machine, 22, 130) == []
    assert machine.lookup(None, 130.0) == ([], None)


def test_renewals_keep_a_claim_live_and_bring_a_lapsed_one_back() -> None:
    machine = directory()
    machine.announce(claim(), 0.0)
    for now_s in range(1, 60):
        assert machine.tick(now_s) == []
        machine.renew(renewal(claim()), now_s)
    assert ticked(machine, 60, 90) == [("sst", "lapsed")]
    granted, (change,) = machine.renew(renewal(claim()), 91.0)
    assert granted.known
    assert change.listed.state == "live"


@pytest.mark.parametrize(("lease_s", "lapses_at_s"), [(0.0, 5), (5.0, 5), (20.0, 20), (1e300, 30)], ids=str)
def test_a_lease_is_moved_into_the_brokers_bounds(lease_s: float, lapses_at_s: int) -> None:
    machine = directory(lease_min_s=5, lease_max_s=30)
    machine.announce(replace(claim(), lease_s=lease_s), 0.0)
    assert ticked(machine, 1, lapses_at_s - 1) == []
    assert ticked(machine, lapses_at_s, lapses_at_s) == [("sst", "lapsed")]


@pytest.mark.parametrize(
    ("message", "known", "incarnation", "renews"),
    [
        (Renew("sst", A, 2, 5), True, 2, True),
        (Renew("sst", A, 2, 6), False, 2, True),
        (Renew("sst", A, 2, 4), False, 2, False),
        (Renew("sst", A, 1, 9), False, 2, False),
        (Renew("sst", A, 3, 0), False, 2, False),
        (Renew("sst", B, 2, 5), False, 0, False),
    ],
)
def test_only_the_same_life_renews_and_anything_but_what_is_listed_is_answered_unknown(
    message: Renew, known: bool, incarnation: int, renews: bool
) -> None:
    machine = directory()
    machine.announce(claim(incarnation=2, seq=5), 0.0)
    granted, _ = machine.renew(message, 10.0)
    assert (granted.known, granted.incarnation) == (known, incarnation)
    assert ticked(machine, 1, 25) == ([] if renews else [("sst", "lapsed")])


def test_hearsay_brings_news_and_never_renews() -> None:
    machine = directory()
    assert machine.merge(ListedClaim(claim(), 15.0, "live", hearsay=True), 0.0)[0].listed.age_s == 15.0
    for now_s in range(1, 5):
        assert machine.merge(ListedClaim(claim(), 0.0, "live", hearsay=True), now_s) == []
    assert ticked(machine, 1, 6) == [("sst", "lapsed")]
    assert machine.merge(ListedClaim(claim(), 0.0, "live", hearsay=True), 7.0) == []


def test_what_another_broker_heard_of_the_owner_itself_renews_and_is_hearsay_here() -> None:
    machine = directory()
    machine.merge(ListedClaim(claim(), 5.0, "live"), 0.0)
    assert machine.running_out(0.0) == ()
    assert machine.running_out(0.1) == (bucket_of(claim().key),)
    assert machine.merge(ListedClaim(claim(), 2.0, "live"), 10.0) == []
    assert machine.lookup("sst", 10.0)[0] == [ListedClaim(claim(), 2.0, "live", hearsay=True)]
    assert machine.merge(ListedClaim(claim(), 9.0, "live"), 11.0) == []  # heard of before that
    assert ticked(machine, 1, 29) == [("sst", "lapsed")]
    assert [change.listed.state for change in machine.merge(ListedClaim(claim(), 1.0, "live"), 30.0)] == ["live"]
    assert machine.records(Records((bucket_of(claim().key),), first_hand=True), 30.0, 9) == ([], None)
    machine.renew(renewal(claim()), 31.0)
    assert machine.running_out(50.0) == ()
    assert len(machine.records(Records((bucket_of(claim().key),), first_hand=True), 31.0, 9)[0]) == 1


def test_directories_that_list_the_same_have_one_digest_however_they_came_to_it() -> None:
    one, other = directory(), directory()
    for number in range(40):
        one.announce(claim(f"r{number}"), 0.0)
    gone = claim("r3", seq=5, deleted=True)
    one.announce(gone, 0.0)
    assert one.digest != other.digest
    asked: Records | None = Records(tuple(range(BUCKETS)))
    while asked is not None:
        records, following = one.records(asked, 1.0, 7)
        for each in records:
            other.merge(each, 1.0)
        asked = replace(asked, after=following) if following is not None else None
    assert (one.digest, one.digests()) == (other.digest, other.digests())


def test_what_lapsed_is_in_no_digest_and_what_was_withdrawn_is() -> None:
    machine = directory()
    machine.announce(claim("a"), 0.0)
    machine.announce(claim("b", seq=5, deleted=True), 0.0)
    ticked(machine, 1, 21)
    assert machine.digest == record_digest(("b", A), (1, 5, True))


def test_gossip_of_what_has_lapsed_over_there_is_not_taken() -> None:
    machine = directory()
    assert machine.merge(ListedClaim(claim(), LEASE_S, "lapsed"), 0.0) == []
    assert machine.lookup(None, 0.0) == ([], None)


def test_gossip_about_an_older_hearing_does_not_shorten_a_lease() -> None:
    machine = directory()
    machine.announce(claim(), 10.0)
    machine.merge(ListedClaim(claim(seq=1), 15.0, "live"), 11.0)
    assert ticked(machine, 11, 29) == []
    assert states(machine) == {"sst": "live"}


def test_a_broker_that_slept_gives_everybody_a_new_lease_first() -> None:
    machine = directory()
    for number in range(10):
        machine.announce(claim(f"r{number}"), 0.0)
    assert machine.tick(60.0) == []  # promise: 60 s of SIGSTOP, and no root is dropped
    assert ticked(machine, 61, 79) == []
    for number in range(9):
        machine.renew(renewal(claim(f"r{number}")), 79.0)
    assert ticked(machine, 80, 81) == [("r9", "lapsed")]


def test_a_tick_that_is_a_little_late_gives_nobody_anything() -> None:
    machine = directory()
    machine.announce(claim(), 0.0)
    ticked(machine, 1, 12)
    assert [change.listed.state for change in machine.tick(21.0)] == ["lapsed"]


def test_when_most_leases_run_out_together_they_are_stale_and_not_lapsed() -> None:
    machine = directory(stale_kept_s=100)
    for number in range(4):
        machine.announce(claim(f"r{number}"), float(number))
    assert ticked(machine, 1, 30) == [(f"r{number}", "stale") for number in range(4)]
    assert ticked(machine, 31, 60) == []
    _, (change,) = machine.renew(renewal(claim("r0")), 61.0)
    assert change.listed.state == "live"
    for now_s in range(62, 130):
        machine.renew(renewal(claim("r0")), now_s)
        machine.tick(now_s)
    assert states(machine) == {"r0": "live", "r1": "lapsed", "r2": "lapsed", "r3": "lapsed"}


def test_when_most_are_heard_of_again_the_rest_of_the_stale_lapse() -> None:
    machine = directory()
    for number in range(5):
        machine.announce(claim(f"r{number}"), 0.0)
    ticked(machine, 1, 25)
    for now_s in range(26, 70):
        for number in range(3):
            machine.renew(renewal(claim(f"r{number}")), now_s)
        machine.tick(now_s)
    assert states(machine) == {"r0": "live", "r1": "live", "r2": "live", "r3": "lapsed", "r4": "lapsed"}


def test_a_mass_silence_is_worked_off_over_several_ticks() -> None:
    machine = directory(ends_per_tick_max=4)
    for number in range(10):
        machine.announce(claim(f"r{number}"), 0.0)
    ticked(machine, 1, 19)
    assert [len(machine.tick(now_s)) for now_s in (20.0, 21.0, 22.0, 23.0)] == [4, 4, 2, 0]


@pytest.mark.parametrize(("here", "gone"), [(0, 2), (3, 3), (10, 5)])
def test_a_minority_or_a_few_lapse_as_they_should(here: int, gone: int) -> None:
    machine = directory()
    for number in range(here + gone):
        machine.announce(claim(f"r{number:02}"), 0.0)
    for now_s in range(1, 30):
        for number in range(here):
            machine.renew(renewal(claim(f"r{number:02}")), now_s)
        machine.tick(now_s)
    assert list(states(machine).values()) == ["live"] * here + ["lapsed"] * gone


def test_a_withdrawn_root_leaves_a_tombstone_for_a_day_and_its_rank_for_longer() -> None:
    machine = directory(tick_s=1e6)
    machine.announce(claim(seq=3), 0.0)
    _, (change,) = machine.announce(claim(seq=4, deleted=True), 1.0)
    assert change.listed.state == "withdrawn"
    machine.tick(86_400.0)
    assert states(machine) == {"sst": "withdrawn"}
    machine.tick(86_402.0)
    assert states(machine) == {}
    assert machine.merge(ListedClaim(claim(seq=3), 0.0, "live"), 86_403.0) == []
    assert machine.announce(claim(seq=3), 86_403.0)[0] == Granted(known=False, incarnation=1)
    assert machine.renew(renewal(claim(seq=3)), 86_403.0)[0] == Granted(known=False, incarnation=1)
    assert machine.announce(claim(incarnation=2), 86_404.0)[0] == Granted(known=True, incarnation=2)


def test_a_forgotten_claim_may_come_back_from_its_owner_but_not_by_gossip() -> None:
    machine = directory(lapsed_kept_s=10)
    machine.announce(claim(), 0.0)
    ticked(machine, 1, 40)
    assert machine.merge(ListedClaim(claim(), 0.0, "live", hearsay=True), 41.0) == []
    assert machine.announce(claim(), 42.0)[0].known


def test_two_live_owners_of_a_name_are_both_listed_and_contested() -> None:
    machine = directory()
    machine.announce(claim(owner=A), 0.0)
    granted, _ = machine.announce(claim(owner=B), 10.0)
    assert granted.contested
    assert machine.is_contested("sst")
    assert [listed.claim.owner for listed in machine.lookup("sst", 10.0)[0]] == [A, B]
    ticked(machine, 11, 25)
    assert not machine.is_contested("sst")
    assert not machine.renew(renewal(claim(owner=B)), 26.0)[0].contested


def test_a_full_directory_refuses_a_new_claim_and_serves_those_it_has() -> None:
    machine = directory(records_max=2)
    machine.announce(claim("r0"), 0.0)
    machine.announce(claim("r1"), 0.0)
    with pytest.raises(Busy):
        machine.announce(claim("r2"), 1.0)
    assert machine.merge(ListedClaim(claim("r2"), 0.0, "live"), 1.0) == []
    assert machine.announce(claim("r1", seq=1), 1.0)[0].known
    assert machine.announce(claim("r1", seq=2, deleted=True), 1.0)[0].known
    assert machine.announce(claim("r2"), 1.0)[0].known


def test_in_a_full_directory_a_new_claim_takes_the_place_of_what_lapsed_first() -> None:
    machine = directory(records_max=2)
    machine.announce(claim("r0"), 0.0)
    machine.announce(claim("r1"), 1.0)
    ticked(machine, 1, 30)
    machine.announce(claim("r2"), 31.0)
    assert states(machine) == {"r1": "lapsed", "r2": "live"}


def test_a_flood_of_tombstones_is_bounded_in_everything_that_is_kept() -> None:
    machine = directory(tombstones_max=10, remembered_max=20)
    for number in range(5000):
        machine.announce(claim(f"r{number}", deleted=True), 0.0)
    assert machine.counts() == {"live": 0, "stale": 0, "lapsed": 0, "withdrawn": 10, "remembered": 20}
    assert len(machine._ends) < 1100


def test_a_claim_with_endless_endpoints_is_refused() -> None:
    with pytest.raises(TooLarge, match="endpoints"):
        directory().announce(replace(claim(), endpoints=("tcp://host:1",) * 1000), 0.0)


@pytest.mark.parametrize("count_max", [1, 2, 3, 7, 8, 100])
def test_a_lookup_in_parts_gives_each_record_once_and_in_order(count_max: int) -> None:
    machine = directory()
    for root in ("b", "@public", "a", "c.d"):
        for owner in (B, A):
            machine.announce(claim(root, owner), 0.0)
    parts, after = [], ""
    while after is not None:
        part, after = machine.lookup(None, 0.0, after, count_max)
        assert len(part) <= count_max
        parts += part
    assert [listed.claim.key for listed in parts] == sorted(listed.claim.key for listed in parts)
    assert len(parts) == 8


def test_a_lookup_of_one_root_finds_that_root_alone_also_in_parts() -> None:
    machine = directory()
    for root in ("a", "ab", "b"):
        machine.announce(claim(root, A), 0.0)
    machine.announce(claim("a", B), 0.0)
    (first,), after = machine.lookup("a", 0.0, count_max=1)
    (second,), last = machine.lookup("a", 0.0, after or "", count_max=1)
    assert [first.claim.key, second.claim.key, last] == [("a", A), ("a", B), None]
    assert machine.lookup("c", 0.0) == ([], None)
    assert machine.lookup("a", 0.0, after=f"a@{B}") == ([], None)


listings = st.lists(
    st.builds(
        lambda incarnation, seq, deleted: ListedClaim(claim("r", A, incarnation, seq, deleted), 0.0, "live"),
        st.integers(1, 3),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(listings, st.randoms(use_true_random=False))
def test_merging_gives_the_same_in_any_order_and_any_number_of_times(
    told: list[ListedClaim], random: object
) -> None:
    one, other = directory(), directory()
    for listed in told:
        one.merge(listed, 0.0)
    again = told + told
    random.shuffle(again)  # type: ignore[attr-defined]
    for listed in again:
        other.merge(listed, 0.0)
    assert one.lookup(None, 0.0) == other.lookup(None, 0.0)
