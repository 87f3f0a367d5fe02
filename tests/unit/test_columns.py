"""Reading many values at once gives what reading them one by one gives, or nothing."""

import contextlib
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcat.errors import BadMessage
from zcat.model.dataset import Entry, Kind
from zcat.model.root import Claim
from zcat.protocol.codec import from_plain, to_plain, unpack
from zcat.protocol.columns import read_columns
from zcat.protocol.messages import Change, ListedClaim
from zcat.protocol.pages import paged, unpaged
from zcat.protocol.status_messages import LinkState

ENTRY = Entry("run001/frame.b2nd", Kind.ARRAY, "ab" * 16, 400, 160, 1_700_000_000_000_000_000, (10, 10), "<f4")
CLAIM = Claim("sst", "c" * 32, ("tcp://127.0.0.1:5560", "ipc:///tmp/x"), 3, 9, 20.0)
MANY = {
    Entry: [ENTRY, replace(ENTRY, path="b", kind=Kind.FILE, shape=None, dtype=None, problem="it is torn")],
    Change: [Change("a", replace(ENTRY, path="a")), Change("gone")],
    ListedClaim: [
        ListedClaim(CLAIM, 0.5, "live"),
        ListedClaim(replace(CLAIM, deleted=True), 7.0, "withdrawn", True),
    ],
    LinkState: [LinkState("tcp://127.0.0.1:5560", "here", 2.0, notes=("in step",))],
}


def array(*plain):
    return msgpack.packb(list(plain), use_bin_type=True)


def one_by_one(cls, page):
    return [from_plain(cls, item) for item in unpack(page)]


@pytest.mark.parametrize("cls", MANY, ids=lambda cls: cls.__name__)
def test_what_peers_send_is_read_in_columns(cls):
    (page,) = paged(MANY[cls])
    assert read_columns(cls, page) == MANY[cls] == one_by_one(cls, page)


def test_an_empty_page_has_no_items():
    assert read_columns(Entry, array()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"of_a_newer_peer": 1},
        {"path": "Ångström/δ.b2nd"},
        {"path": "long" * 60},
    ],
    ids=str,
)
def test_what_is_unusual_and_right_is_read_one_by_one(change):
    page = array(to_plain(ENTRY) | change)
    assert read_columns(Entry, page) is None
    assert unpaged(Entry, [page]) == one_by_one(Entry, page)


WRONG = [
    {"path": "../x"},
    {"path": "a//b"},
    {"path": "a/con.txt"},
    {"path": "a/LPT1"},
    {"path": "a."},
    {"path": ""},
    {"path": "a\n"},
    {"path": 7},
    {"lineage": "ab" * 15},
    {"lineage": "AB" * 16},
    {"lineage": "\n" + "ab" * 15 + "a"},
    {"kind": "folder"},
    {"kind": None},
    {"kind": []},
    {"nbytes": -1},
    {"nbytes": 1 << 63},
    {"nbytes": True},
    {"nbytes": 1.0},
    {"shape": 10},
    {"shape": {}},
    {"shape": [10, -1]},
    {"shape": ["10"]},
    {"is_root": 1},
    {"dtype": b"<f4"},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
@pytest.mark.parametrize("at", [0, 2])
def test_one_that_is_wrong_is_found_among_many(change, at):
    plain = [to_plain(replace(ENTRY, path=f"{number}.b2nd")) for number in range(3)]
    plain[at] |= change
    assert read_columns(Entry, array(*plain)) is None
    with pytest.raises(BadMessage):
        unpaged(Entry, [array(*plain)])


@pytest.mark.parametrize("missing", ["path", "kind", "lineage", "nbytes", "cbytes", "mtime_ns"])
def test_a_missing_field_is_found(missing):
    plain = to_plain(ENTRY)
    del plain[missing]
    with pytest.raises(BadMessage, match=missing):
        unpaged(Entry, [array(to_plain(ENTRY), plain)])


def packed_map(*pairs):
    return bytes([0x80 + len(pairs)]) + b"".join(msgpack.packb(key) + msgpack.packb(value) for key, value in pairs)


@pytest.mark.parametrize("place", ["at the top", "within"])
def test_a_key_twice_is_refused(place):
    pairs = list(to_plain(ENTRY).items())
    twice = packed_map(*pairs, pairs[0])
    if place == "within":
        twice = b"\x82" + msgpack.packb("path") + msgpack.packb(ENTRY.path) + msgpack.packb("entry") + twice
    with pytest.raises(BadMessage, match="twice"):
        unpaged(Entry if place == "at the top" else Change, [b"\x91" + twice])


def test_a_key_that_is_no_text_is_refused():
    plain = packed_map(*to_plain(ENTRY).items(), (b"more", 1))
    with pytest.raises(BadMessage, match="no text"):
        unpaged(Entry, [b"\x91" + plain])


@pytest.mark.parametrize(
    "page",
    [b"", b"\xc1", b"\x80", b"\xa1a", b"\x91" * 600 + b"\x90", array(1), array([]), array(None), array() + b"x"],
    ids=lambda page: page[:8].hex(),
)
def test_what_is_no_array_of_maps_is_refused(page):
    assert read_columns(Entry, page) is None
    with pytest.raises(BadMessage):
        unpaged(Entry, [page])


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 1 << 63), st.floats(), st.text(max_size=3), st.binary(max_size=2)
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
)
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([*to_plain(ENTRY), "problem", "is_root", "claim", "age_s"]), VALUES
    ),
    max_size=3,
)


@given(st.sampled_from([Entry, Change, ListedClaim]), MUTATIONS)
def test_columns_never_accept_what_the_items_alone_would_not(cls, mutations):
    plain = [to_plain(value) for value in MANY[cls]]
    for at, name, value in mutations:
        plain[at][name] = value
    page = array(*plain)
    read = read_columns(cls, page)
    expected = None
    with contextlib.suppress(BadMessage):
        expected = one_by_one(cls, page)
    assert read is None or read == expected
