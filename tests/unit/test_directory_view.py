"""A subscriber's copy of the directory: snapshot, changes, gaps, failover, contested names."""

import pytest

from zcat.errors import RootContested, RootUnknown, Unavailable
from zcat.model.root import Claim
from zcat.protocol.directory_view import Ask, ClaimChanged, DirectoryView
from zcat.protocol.messages import DirectoryChanged, ListedClaim, Listing, Lookup, Pong
from zcat.protocol.pages import paged

BROKER = "c" * 32
ONE, TWO = "1" * 32, "2" * 32


def listed(root="sst", owner=ONE, incarnation=1, seq=0, state="live", endpoint="tcp://127.0.0.1:7"):
    return ListedClaim(Claim(root, owner, (endpoint,), incarnation, seq, 20.0), 0.0, state)


def listing(*claims, seq=0, after=""):
    return Listing(BROKER, 9, seq, after or None, tuple(paged(claims)))


def change(seq, claim):
    return DirectoryChanged(BROKER, 9, seq, claim)


def looking(*claims, seq=0):
    view = DirectoryView()
    assert view.use(now_s=0) == [Ask(Lookup())]
    view.listing(listing(*claims, seq=seq), now_s=0)
    return view


def test_a_claim_is_found_by_its_name():
    assert looking(listed()).resolve("sst") == listed()


def test_a_name_nobody_claims_is_unknown():
    with pytest.raises(RootUnknown, match="zcat roots"):
        looking(listed()).resolve("sss")


def test_without_a_broker_an_unknown_name_is_no_fault_of_the_name():
    with pytest.raises(Unavailable, match="no broker answers"):
        DirectoryView().resolve("sst")
    view = looking(listed())
    view.lost()
    assert view.resolve("sst") == listed()
    with pytest.raises(Unavailable, match="no broker answers"):
        view.resolve("sss")


def test_a_contested_name_needs_its_owner():
    view = looking(listed(owner=ONE), listed(owner=TWO))
    with pytest.raises(RootContested, match="sst@11111111, sst@22222222"):
        view.resolve("sst")
    assert view.resolve("sst", TWO[:4]) == listed(owner=TWO)


def test_a_claim_that_lapsed_does_not_contest():
    view = looking(listed(owner=ONE, state="lapsed"), listed(owner=TWO))
    assert view.resolve("sst") == listed(owner=TWO)


def test_the_last_known_claim_is_given_when_none_is_live():
    view = looking(listed(owner=ONE, incarnation=3, state="lapsed"), listed(owner=TWO, state="withdrawn"))
    assert view.resolve("sst").claim.owner == ONE


def test_a_change_is_applied():
    view = looking()
    assert view.changed(change(1, listed()), now_s=1) == [ClaimChanged(listed())]
    assert view.resolve("sst") == listed()


def test_a_missing_change_means_to_look_again():
    view = looking()
    assert Ask(Lookup()) in view.changed(change(2, listed()), now_s=1)


def test_a_lost_last_change_is_noticed_by_the_next_ping():
    view = looking()
    assert view.pong(Pong("broker", BROKER, 9, 1, "0"), now_s=1) == [Ask(Lookup())]
    assert looking(seq=1).pong(Pong("broker", BROKER, 9, 1, "0"), now_s=1) == []


def test_an_older_claim_never_replaces_a_newer_one():
    view = looking(listed(incarnation=2))
    assert view.changed(change(1, listed(incarnation=1, endpoint="tcp://127.0.0.1:1")), now_s=1) == []
    assert view.resolve("sst") == listed(incarnation=2)


def test_a_moved_seq_alone_is_no_news():
    view = looking(listed(seq=1))
    assert view.changed(change(1, listed(seq=2)), now_s=1) == []


def test_what_the_broker_no_longer_lists_has_lapsed():
    view = looking(listed())
    view.use(now_s=1)
    assert view.listing(listing(), now_s=1) == [ClaimChanged(listed(state="lapsed"))]


def test_a_broker_that_lags_behind_has_a_lease_of_time_to_catch_up():
    view = looking(listed(incarnation=2))
    for now_s in (1, 11, 20):
        view.use(now_s)
        assert view.listing(listing(listed(incarnation=1)), now_s) == []
    view.listing(listing(listed(incarnation=2)), now_s=21)
    view.use(now_s=22)
    assert view.listing(listing(listed(incarnation=1)), now_s=22) == []
    assert view.resolve("sst") == listed(incarnation=2)


def test_a_claim_whose_owner_lost_its_counter_and_left_is_not_live_for_ever():
    view = looking(listed(incarnation=2))
    gone = listed(incarnation=1, seq=1, state="withdrawn")
    for now_s in (1, 11):
        view.use(now_s)
        assert view.listing(listing(gone), now_s) == []
    view.use(now_s=21)
    assert view.listing(listing(gone), now_s=21) == [ClaimChanged(listed(incarnation=2, state="lapsed"))]


def test_a_listing_in_parts_is_taken_as_one():
    view = DirectoryView()
    view.use(now_s=0)
    assert view.listing(listing(listed("a"), seq=3, after="a"), now_s=0) == [Ask(Lookup(after="a"))]
    assert not view.synced
    view.listing(listing(listed("b"), seq=5), now_s=0)
    assert [held.claim.root for held in view.claims()] == ["a", "b"]
    assert view.pong(Pong("broker", BROKER, 9, 3, "0"), now_s=1) == []
    assert view.pong(Pong("broker", BROKER, 9, 4, "0"), now_s=1) != []


def test_everything_known_stays_when_the_brokers_are_gone():
    view = looking(listed())
    view.lost()
    assert view.resolve("sst") == listed()
    assert view.tick(now_s=100) == []


def test_an_answer_that_does_not_come_is_asked_for_again():
    view = DirectoryView()
    view.use(now_s=0)
    assert view.tick(now_s=2.9) == []
    assert view.tick(now_s=3) == [Ask(Lookup())]


def test_a_listing_does_not_undo_a_change_that_came_before_it():
    view = DirectoryView()
    view.use(now_s=0)
    view.changed(change(4, listed(state="lapsed")), now_s=0)
    view.listing(listing(listed(state="live"), seq=3), now_s=0)
    assert view.claims()[0].state == "lapsed"
