"""The machine that keeps a root's catalogue current: snapshot, events, gaps, new lives."""

import random
from contextlib import suppress

import pytest

from zcat.errors import BadMessage, Stale
from zcat.model.dataset import Entry, Kind
from zcat.protocol.follower import AskOrigin, Follower, FollowerLimits, Synced, Updated
from zcat.protocol.messages import Change, Changes, Events, Ping, Pong, Tree, TreePage
from zcat.protocol.pages import paged

OWNER = "b" * 32


def entry(path, version=0):
    return Entry(path, Kind.FILE, f"{version:032x}", 1, 1, 1)


def pong(incarnation, seq):
    return Pong("publisher", OWNER, incarnation, seq, "0")


def page(incarnation, seq, entries, after=None):
    return TreePage("sst", OWNER, incarnation, seq, after, tuple(paged(entries)))


def changes(incarnation, first_seq, *made):
    return Changes("sst", OWNER, incarnation, first_seq, tuple(paged(made)))


def questions(effects):
    return [effect.message for effect in effects if isinstance(effect, AskOrigin)]


def following(*entries):
    follower = Follower("sst", OWNER)
    follower.connected(now_s=0)
    follower.pong(pong(1, 0), now_s=0)
    follower.page(page(1, 0, entries), now_s=0)
    assert follower.synced
    return follower


def test_following_begins_with_the_whole_catalogue():
    follower = Follower("sst", OWNER)
    assert questions(follower.connected(now_s=0)) == [Ping()]
    assert questions(follower.pong(pong(1, 7), now_s=0)) == [Tree("sst")]
    effects = follower.page(page(1, 7, [entry("a"), entry("b")]), now_s=0)
    assert effects == [Updated(("a", "b")), Synced()]
    assert follower.stamp == (1, 7)


def test_a_catalogue_is_given_away_as_it_came_once_and_not_after_a_change():
    follower = following(entry("a"), entry("b"))
    assert follower.take_pages() == tuple(paged([entry("a"), entry("b")]))
    assert follower.take_pages() == ()

    follower = following(entry("a"))
    follower.changes(changes(1, 1, Change("a")), now_s=1)
    assert follower.take_pages() == ()


def test_a_catalogue_in_parts_is_not_given_away():
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 7), now_s=0)
    follower.page(page(1, 7, [entry("a")], after="a"), now_s=0)
    follower.page(page(1, 7, [entry("b")]), now_s=0)
    assert follower.synced
    assert follower.take_pages() == ()


def test_a_catalogue_in_parts_is_taken_when_all_are_there():
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 7), now_s=0)
    assert questions(follower.page(page(1, 7, [entry("a")], after="a"), now_s=0)) == [Tree("sst", after="a")]
    assert follower.catalogue == {}
    follower.page(page(1, 7, [entry("b")]), now_s=0)
    assert set(follower.catalogue) == {"a", "b"}


@pytest.mark.parametrize(
    "part",
    [
        page(1, 7, [], after="b"),
        page(1, 7, [entry("b")], after="z"),
        page(1, 7, [entry("a")], after="a"),
        page(1, 7, [entry("c"), entry("b")]),
        page(1, 7, [entry("b"), entry("b")]),
    ],
    ids=["empty", "leaps", "stays", "backwards", "twice"],
)
def test_a_catalogue_whose_parts_lead_nowhere_is_given_up_and_asked_for_later(part):
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 7), now_s=0)
    follower.page(page(1, 7, [entry("a")], after="a"), now_s=0)
    with pytest.raises(BadMessage, match="root sst: a part of its catalogue"):
        follower.page(part, now_s=0)
    assert follower.catalogue == {}
    assert questions(follower.pong(pong(1, 7), now_s=1)) == []
    follower.heard(now_s=5)
    assert questions(follower.tick(now_s=5))[-1] == Tree("sst")
    follower.page(page(1, 7, [entry("b")]), now_s=5)
    assert set(follower.catalogue) == {"b"}


def test_datasets_are_counted_and_groups_are_not():
    group = Entry("g", Kind.GROUP, f"{0:032x}", 0, 0, 1)
    follower = following(entry("a"), group, entry("g/b"))
    assert follower.datasets_count == 2
    follower.changes(changes(1, 1, Change("c", entry("c")), Change("a", entry("a", 1))), now_s=1)
    assert follower.datasets_count == 3
    follower.changes(changes(1, 3, Change("a"), Change("g")), now_s=1)
    assert follower.datasets_count == 2
    copy = Follower("sst", OWNER)
    copy.restore({"g": group, "x": entry("x")}, 1, 1)
    assert copy.datasets_count == 1


def test_a_catalogue_that_is_too_long_is_given_up():
    follower = Follower("sst", OWNER, FollowerLimits(datasets_max=2))
    follower.pong(pong(1, 7), now_s=0)
    with pytest.raises(BadMessage, match="more than 2 datasets"):
        follower.page(page(1, 7, [entry("a"), entry("b"), entry("c")]), now_s=0)


def test_an_origin_that_restarts_all_the_time_is_asked_less_often():
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 7), now_s=0)
    asked = []
    for life in range(1, 20):
        asked += questions(follower.page(page(life, 0, [entry(f"{life:02}")], after=f"{life:02}"), now_s=0))
    assert len(asked) < 10
    follower.heard(now_s=5)
    assert questions(follower.tick(now_s=5))[-1] == Tree("sst")


def test_events_that_come_while_the_catalogue_is_on_its_way_are_applied_to_it():
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 0), now_s=0)
    follower.changes(changes(1, 1, Change("a", entry("a", 1))), now_s=0)
    follower.page(page(1, 0, [entry("a")]), now_s=0)
    assert follower.catalogue == {"a": entry("a", 1)}
    assert follower.stamp == (1, 1)


def test_an_event_changes_the_catalogue():
    follower = following(entry("a"))
    effects = follower.changes(changes(1, 1, Change("a"), Change("b", entry("b"))), now_s=1)
    assert effects == [Updated(("a", "b"))]
    assert set(follower.catalogue) == {"b"}


def test_events_that_the_origin_never_sent_are_found_out_by_its_next_answer():
    follower = following(entry("a"))
    follower.changes(changes(1, 1, Change("a"), Change("b", entry("b"))), now_s=1)
    assert questions(follower.pong(pong(1, 0), now_s=2)) == [Events("sst", 1, 2)]
    assert questions(follower.failed(Stale("at event 0"), now_s=2)) == [Tree("sst")]
    follower.page(page(1, 0, [entry("a")]), now_s=2)
    assert (set(follower.catalogue), follower.stamp, follower.synced) == ({"a"}, (1, 0), True)


def test_events_that_overtake_an_answer_cost_one_question():
    follower = following(entry("a"))
    follower.changes(changes(1, 1, Change("a")), now_s=1)
    assert questions(follower.pong(pong(1, 0), now_s=2)) == [Events("sst", 1, 1)]
    assert questions(follower.changes(changes(1, 2), now_s=2)) == []
    assert questions(follower.pong(pong(1, 1), now_s=4)) == []
    assert (follower.catalogue, follower.synced) == ({}, True)


def test_an_event_that_comes_twice_changes_nothing():
    follower = following()
    event = changes(1, 1, Change("a", entry("a")))
    follower.changes(event, now_s=1)
    assert follower.changes(event, now_s=1) == []


def test_a_missing_event_is_asked_for_and_what_came_after_it_waits():
    follower = following()
    assert questions(follower.changes(changes(1, 2, Change("b", entry("b"))), now_s=1)) == [Events("sst", 1, 0)]
    assert not follower.synced
    effects = follower.changes(changes(1, 1, Change("a", entry("a"))), now_s=1)
    assert [type(effect) for effect in effects] == [Updated, Updated, Synced]
    assert set(follower.catalogue) == {"a", "b"}


def test_a_lost_last_event_is_noticed_by_the_next_ping():
    follower = following()
    assert questions(follower.pong(pong(1, 3), now_s=2)) == [Events("sst", 1, 0)]


def test_events_that_the_origin_no_longer_has_mean_the_whole_catalogue():
    follower = following()
    follower.pong(pong(1, 3), now_s=2)
    assert questions(follower.failed(Stale("too old"), now_s=2)) == [Tree("sst")]


def test_a_new_life_of_the_origin_means_the_whole_catalogue():
    follower = following(entry("a"))
    assert questions(follower.pong(pong(2, 0), now_s=2)) == [Tree("sst")]
    effects = follower.page(page(2, 0, [entry("b")]), now_s=2)
    assert effects == [Updated(("a", "b")), Synced()]


def test_an_origin_restored_from_a_backup_is_believed():
    follower = following(entry("a"))
    follower.pong(pong(5, 0), now_s=1)
    follower.page(page(5, 0, [entry("a")]), now_s=1)
    assert questions(follower.pong(pong(2, 4), now_s=2)) == [Tree("sst")]
    follower.page(page(2, 4, [entry("c")]), now_s=2)
    assert (follower.stamp, follower.synced, set(follower.catalogue)) == ((2, 4), True, {"c"})


def test_an_event_of_a_former_life_changes_nothing():
    follower = following()
    follower.pong(pong(2, 0), now_s=1)
    follower.page(page(2, 0, []), now_s=1)
    assert follower.changes(changes(1, 1, Change("a", entry("a"))), now_s=1) == []


def test_a_restored_catalogue_asks_only_for_what_it_missed():
    follower = Follower("sst", OWNER)
    follower.restore({"a": entry("a")}, 4, 10)
    assert questions(follower.pong(pong(4, 12), now_s=0)) == [Events("sst", 4, 10)]


def test_a_question_without_an_answer_is_asked_again():
    follower = Follower("sst", OWNER)
    follower.pong(pong(1, 0), now_s=0)
    assert questions(follower.tick(now_s=4.9)) == [Ping()]
    follower.heard(now_s=4.9)
    assert questions(follower.tick(now_s=5)) == [Tree("sst")]


def test_an_origin_that_says_nothing_is_away():
    follower = following()
    assert follower.is_here(now_s=3.4)
    assert not follower.is_here(now_s=3.5)


class Origin:
    """A toy publisher: a catalogue, its events, and its lives."""

    def __init__(self):
        self.catalogue, self.incarnation, self.events = {}, 1, []

    @property
    def seq(self):
        return len(self.events)

    def change(self, rng, number):
        path = rng.choice("abcdef")
        gone = rng.random() < 0.3
        made = Change(path) if gone else Change(path, entry(path, number))
        self.catalogue.pop(path, None)
        if made.entry is not None:
            self.catalogue[path] = made.entry
        self.events.append(made)
        return changes(self.incarnation, self.seq, made)

    def restart(self):
        self.incarnation, self.events = self.incarnation + 1, []

    def answer(self, question):
        if isinstance(question, Ping):
            return pong(self.incarnation, self.seq)
        if isinstance(question, Tree):
            rest = [self.catalogue[path] for path in sorted(self.catalogue) if path > question.after]
            after = rest[1].path if len(rest) > 2 else None
            return page(self.incarnation, self.seq, rest[:2] if after else rest, after)
        if question.incarnation != self.incarnation or self.seq - question.since > 5:
            return Stale("no longer here")
        return changes(self.incarnation, question.since + 1, *self.events[question.since :])


@pytest.mark.parametrize("seed", range(150))
def test_after_any_weather_the_catalogue_is_the_origins(seed):
    """Events and answers are lost, repeated and overtake one another; the origin restarts."""
    rng = random.Random(seed)
    origin, follower, now_s = Origin(), Follower("sst", OWNER), 0.0
    wire, trees = [], []

    def carry_out(effects):
        asked = questions(effects)
        wire.extend(("ask", question) for question in asked)
        trees.extend(question for question in asked if isinstance(question, Tree))

    def deliver(kind, what):
        if kind == "ask":
            wire.append(("answer", (what, origin.answer(what))))
            return
        if kind == "answer":
            question, what = what
            if isinstance(what, TreePage) and question is not trees[-1]:
                return  # the shell knows by its number that it is no answer to the last question
        if isinstance(what, Pong):
            carry_out(follower.pong(what, now_s))
        elif isinstance(what, TreePage):
            with suppress(BadMessage):  # a part that comes twice does not go on where the last one ended
                carry_out(follower.page(what, now_s))
        elif isinstance(what, Changes):
            carry_out(follower.changes(what, now_s))
        else:
            carry_out(follower.failed(what, now_s))

    carry_out(follower.connected(now_s))
    for number in range(300):
        now_s += 0.3
        if rng.random() < 0.3:
            wire.append(("event", origin.change(rng, number)))
        if rng.random() < 0.01:
            origin.restart()
        for _ in range(rng.randint(0, 3)):
            if wire:
                kind, what = wire.pop(rng.randrange(min(len(wire), 4)))
                if rng.random() < 0.8:
                    deliver(kind, what)
                if rng.random() < 0.1:
                    deliver(kind, what)
        carry_out(follower.tick(now_s))
    for _ in range(30):
        now_s += 1
        while wire:
            deliver(*wire.pop(0))
        carry_out(follower.tick(now_s))
    assert follower.synced
    assert follower.catalogue == origin.catalogue
    assert follower.stamp == (origin.incarnation, origin.seq)
