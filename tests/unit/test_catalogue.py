from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import DatasetUnknown, Stale
from zcat.limits import CONTROL_FRAME_BYTES_MAX, PAGES_PER_MESSAGE_MAX
from zcat.model.dataset import Entry, Kind
from zcat.protocol.catalogue import EVENTS_BYTES_MAX, EVENTS_MAX, Catalogue
from zcat.protocol.messages import Change, Changes, TreePage, decode, encode
from zcat.protocol.pages import unpaged

OWNER = "ab" * 16


def entry(path, version=0, nbytes=100):
    return Entry(path, Kind.ARRAY, f"{version:032x}", nbytes, 10, 1_700_000_000_000_000_000, (5, 5), "<f4")


def added(path, version=0):
    return Change(path, entry(path, version))


def catalogue(*paths):
    return Catalogue("sst", OWNER, 7, [entry(path) for path in paths])


def numbered(messages):
    return [
        (changes.first_seq + at, change)
        for changes in messages
        for at, change in enumerate(unpaged(Change, changes.pages))
    ]


def whole_tree(origin):
    pages, after = [], ""
    while True:
        page = origin.tree(after)
        pages.append(page)
        if page.next is None:
            return pages
        after = page.next


def test_what_a_life_begins_with_is_no_event():
    origin = catalogue("b", "a")

    assert origin.seq == 0
    assert [e.path for e in origin] == ["a", "b"]
    assert origin.events(7, 0).pages == ()


def test_each_real_difference_has_the_next_number():
    origin = catalogue("a", "b")

    messages = origin.apply([added("c"), added("a"), Change("b"), added("a", 1)])

    assert numbered(messages) == [(1, added("c")), (2, Change("b")), (3, added("a", 1))]
    assert origin.seq == 3
    assert [e.path for e in origin] == ["a", "c"]


def test_what_is_no_difference_says_nothing():
    origin = catalogue("a")

    assert origin.apply([added("a"), Change("never was")]) == []
    assert origin.seq == 0


def test_many_changes_share_few_messages_and_no_page_is_too_large():
    origin = catalogue()

    messages = origin.apply(added(f"run/{n:05}.b2nd") for n in range(10_000))

    assert len(messages) <= 2
    assert all(len(page) <= CONTROL_FRAME_BYTES_MAX for m in messages for page in m.pages)
    assert [number for number, _ in numbered(messages)] == list(range(1, 10_001))
    assert all(isinstance(decode(encode(m)).message, Changes) for m in messages)


def test_ten_thousand_datasets_come_in_two_replies_in_order_of_path():
    paths = [f"folder {n % 100:03}/dataset {n:06}.b2nd" for n in range(10_000)]
    origin = catalogue(*paths)

    pages = whole_tree(origin)

    assert len(pages) <= 2
    assert [e.path for p in pages for e in unpaged(Entry, p.pages)] == sorted(paths)
    assert all(isinstance(decode(encode(p)).message, TreePage) for p in pages)


def test_a_tree_may_begin_behind_any_path():
    origin = catalogue("a", "c", "e")

    assert [e.path for e in unpaged(Entry, origin.tree("b").pages)] == ["c", "e"]
    assert [e.path for e in unpaged(Entry, origin.tree("c").pages)] == ["e"]
    assert origin.tree("e").pages == ()


def test_a_tree_is_packed_once_until_something_changes():
    origin = catalogue("a", "b")
    first = origin.tree()

    assert origin.tree().pages is first.pages
    origin.apply([added("c")])
    assert [e.path for e in unpaged(Entry, origin.tree().pages)] == ["a", "b", "c"]
    assert origin.tree().seq == 1


def test_missed_events_can_be_asked_for():
    origin = catalogue()
    origin.apply([added("a"), added("b")])
    origin.apply([Change("a")])

    assert numbered([origin.events(7, 1)]) == [(2, added("b")), (3, Change("a"))]
    assert numbered([origin.events(7, 3)]) == []


@pytest.mark.parametrize(("incarnation", "since"), [(6, 0), (8, 0), (7, 99)])
def test_events_of_another_life_are_stale(incarnation, since):
    origin = catalogue()
    origin.apply([added("a")])

    with pytest.raises(Stale):
        origin.events(incarnation, since)


def test_events_are_held_up_to_a_number():
    origin = catalogue()
    for version in range(EVENTS_MAX + 10):
        origin.apply([added("a", version)])

    with pytest.raises(Stale):
        origin.events(7, 0)
    with pytest.raises(Stale):
        origin.events(7, origin.seq - EVENTS_MAX - 1)
    assert len(numbered([origin.events(7, origin.seq - 5)])) == 5


def test_all_events_that_are_held_fit_one_message():
    origin = catalogue()
    awkward = "x" * 20_000  # three to a page, so that pages are as empty as they get
    for version in range(200):
        origin.apply([Change("a", replace(entry("a", version), problem=awkward + "y" * (version % 2 * 15_000)))])

    held = len(origin._events)
    assert held < 200
    changes = origin.events(7, origin.seq - held)
    assert len(changes.pages) <= PAGES_PER_MESSAGE_MAX
    assert sum(map(len, changes.pages)) <= EVENTS_BYTES_MAX * 1.1
    assert len(numbered([decode(encode(changes)).message])) == held


def test_equal_content_has_an_equal_digest_whatever_the_history():
    left, right = catalogue("a", "b"), catalogue()
    empty = right.digest
    right.apply([added("b"), added("x")])
    right.apply([Change("x"), added("a")])

    assert left.digest == right.digest != empty
    right.apply([added("a", 1)])
    assert left.digest != right.digest


def test_a_dataset_is_found_by_its_path():
    origin = catalogue("a")

    assert origin.entry("a") == entry("a") == origin.get("a")
    assert origin.get("b") is None
    with pytest.raises(DatasetUnknown, match="'b'"):
        origin.entry("b")


PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "z"])
STEPS = st.lists(st.lists(st.tuples(PATHS, st.none() | st.integers(0, 2)), max_size=4), max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 12))
def test_a_snapshot_and_the_events_after_it_give_the_same_catalogue(steps, snapshot_at):
    origin, follower, since = catalogue("a"), None, 0
    for number, step in enumerate(steps):
        if number == snapshot_at:
            page = origin.tree()
            follower, since = {e.path: e for e in unpaged(Entry, page.pages)}, page.seq
        origin.apply(Change(path, None if v is None else entry(path, v)) for path, v in step)
    if follower is None:
        follower = {"a": entry("a")}

    for _, change in numbered([origin.events(7, since)]):
        if change.entry is None:
            del follower[change.path]
        else:
            follower[change.path] = change.entry

    assert follower == origin.known()
