"""The wire: what is written is read back, and nothing that comes crashes the reader."""

import contextlib
import dataclasses

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadMessage, Stale, VerbUnknown
from zcat.limits import CONTROL_FRAME_BYTES_MAX
from zcat.model.dataset import ArrayGeometry, Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.model.root import Claim
from zcat.protocol.block_messages import Blocks, BlocksReply, Part
from zcat.protocol.codec import pack, unpack
from zcat.protocol.compare_messages import Compare, Compared
from zcat.protocol.messages import (
    MAGIC,
    MESSAGES,
    Announce,
    Change,
    ChunkReply,
    Chunks,
    Failed,
    Info,
    InfoReply,
    Ping,
    decode,
    encode,
)
from zcat.protocol.pages import paged, unpaged

OWNER, LINEAGE = "0" * 32, "f" * 32
ENTRY = Entry("a/b.b2nd", Kind.ARRAY, LINEAGE, 400, 100, 1, (10, 10), "<f4")
GEOMETRY = Geometry(400, 400, 400, 4, ArrayGeometry((10, 10), (10, 10), (10, 10), "<f4", 4))
CLAIM = Claim("sst", OWNER, ("tcp://127.0.0.1:5",), 1, 2, 20.0)


SCALARS = st.none() | st.integers(-5, 1 << 62) | st.text(max_size=5) | st.binary(max_size=5) | st.floats()


def maps(values):
    return st.dictionaries(st.text(max_size=5), values, max_size=3)


def header(frames):
    return msgpack.unpackb(frames[1])


def with_header(frames, **changed):
    plain = {**header(frames), **changed}
    return [frames[0], msgpack.packb({key: value for key, value in plain.items() if value is not None})]


@pytest.mark.parametrize(
    "message",
    [
        Ping(),
        Announce(CLAIM),
        InfoReply(ENTRY, GEOMETRY, Compression(), (pack({"a": 1}),)),
        Chunks("sst", "a/b.b2nd", LINEAGE, (1, 2, 3), bulk=True),
        ChunkReply(LINEAGE, 7, b"d" * 32, (b"chunk",)),
        Blocks("sst", "a/b.b2nd", LINEAGE, (Part(0, (1, 5)), Part(7, (), vouch=True)), bulk=True),
        BlocksReply(LINEAGE, 7, (1, 5), b"d" * 32, b"c" * 32, (b"head", b"blocks")),
        Compare("sst", "a/b.b2nd", LINEAGE, (0, 9), (b"d" * 64,)),
        Compared(LINEAGE, (9,)),
        Failed("stale", "moved", nchunk=4),
    ],
    ids=lambda message: message.verb,
)
def test_a_message_survives_the_wire(message):
    received = decode(encode(message, id=12))
    assert (received.message, received.id) == (message, 12)


def test_a_chunk_is_passed_on_and_not_copied():
    body = bytearray(b"chunk")
    assert encode(ChunkReply(LINEAGE, 0, b"d" * 32, (body,)))[2] is body


def test_the_info_of_a_dataset_survives_the_wire():
    info = DatasetInfo(ENTRY, GEOMETRY, Compression(), {"units": "K", "raw": b"\xff", "list": [1, 2.5, None]})
    assert decode(encode(InfoReply.of(info))).message.info() == info


def test_an_error_of_a_peer_is_raised_as_its_own_class():
    assert isinstance(decode(encode(Failed("stale", "moved"))).message.error, Stale)
    assert Failed("of-the-future", "?").error.code == "of-the-future"


def test_unknown_fields_are_ignored():
    assert decode(with_header(encode(Ping()), later="field")).message == Ping()


def test_an_unknown_verb_says_which_request_it_was():
    with pytest.raises(VerbUnknown) as caught:
        decode(with_header(encode(Ping(), id=5), verb="brew"))
    assert caught.value.request == 5


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("chunks", [], "wanted 1 to"),
        ("chunks", list(range(1025)), "wanted 1 to"),
        ("chunks", [-1], "Chunks.chunks: wanted 0 to"),
        ("chunks", [True], "wanted int, got bool"),
        ("chunks", "1", "wanted list, got str"),
        ("root", 5, "Chunks.root: wanted str"),
        ("path", None, "the field 'path' is missing"),
    ],
)
def test_a_field_that_is_wrong_is_named(field, value, says):
    frames = encode(Chunks("sst", "a", LINEAGE, (1,)))
    with pytest.raises(BadMessage, match=says):
        decode(with_header(frames, **{field: value}))


@pytest.mark.parametrize(
    "claim",
    [
        dataclasses.replace(CLAIM, root="../etc"),
        dataclasses.replace(CLAIM, owner="zz"),
        dataclasses.replace(CLAIM, endpoints=("http://x",)),
    ],
)
def test_names_are_checked_at_the_door(claim):
    with pytest.raises(BadMessage):
        decode(encode(Announce(claim)))


@pytest.mark.parametrize("lease", [float("nan"), float("inf"), -1.0, "20"])
def test_a_number_that_is_none_is_refused(lease):
    frames = encode(Announce(CLAIM))
    with pytest.raises(BadMessage):
        decode(with_header(frames, claim={**header(frames)["claim"], "lease_s": lease}))


def test_a_geometry_that_cannot_be_is_refused():
    bad = dataclasses.replace(GEOMETRY, chunksize=-0, nbytes=400, blocksize=0)
    with pytest.raises(BadMessage, match="impossible geometry"):
        decode(encode(InfoReply(ENTRY, bad, Compression())))


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [MAGIC],
        [b"GET / HTTP/1.1", b""],
        [b"zcat2", pack({"verb": "ping"})],
        [MAGIC, b""],
        [MAGIC, pack([1])],
        [MAGIC, pack({"verb": 1})],
        [MAGIC, pack({"verb": "ping", "id": -1})],
        [MAGIC, b"\x90" * (CONTROL_FRAME_BYTES_MAX + 1)],
        [MAGIC, b"\x90" * 2000],
        [MAGIC, b"\x82\xa4verb\xa4ping\xa4verb\xa4pong"],
        [MAGIC, msgpack.packb({"verb": msgpack.ExtType(5, b"x")})],
        [MAGIC, pack({"verb": "ping"}), *[b""] * 100],
    ],
)
def test_garbage_is_a_bad_message(frames):
    with pytest.raises(BadMessage):
        decode(frames)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.just(MAGIC)), max_size=5))
def test_no_frames_crash_the_decoder(frames):
    with contextlib.suppress(BadMessage):
        decode(frames)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(MESSAGES)),
    st.dictionaries(
        st.sampled_from(["root", "path", "claim", "chunks", "entry", "lineage", "incarnation", "seq", "owner"]),
        st.recursive(
            st.one_of(
                st.none(), st.integers(-5, 1 << 62), st.text(max_size=5), st.binary(max_size=5), st.floats()
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
)
def test_no_header_crashes_the_decoder(verb, fields):
    with contextlib.suppress(BadMessage):
        decode([MAGIC, pack({**fields, "verb": verb})])


def test_pages_hold_what_was_put_in_and_keep_their_limit():
    entries = [dataclasses.replace(ENTRY, path=f"d/{number}.b2nd") for number in range(3000)]
    pages = paged(entries)
    assert len(pages) > 1
    assert max(map(len, pages)) <= CONTROL_FRAME_BYTES_MAX
    assert unpaged(Entry, pages) == entries
    assert unpaged(Change, paged([])) == []


def test_a_page_that_is_no_array_is_refused():
    with pytest.raises(BadMessage, match="wanted an array of Entry"):
        unpaged(Entry, [pack({"a": 1})])


def test_a_request_of_an_info_is_what_the_document_says():
    """PROTOCOL.md shows these bytes; a C programmer will compare."""
    assert encode(Info("sst", "a"), id=1) == [
        b"zcat1",
        b"\x84\xa4verb\xa4info\xa2id\x01\xa4root\xa3sst\xa4path\xa1a",
    ]
    assert unpack(encode(Info("sst", "a"))[1]) == {"verb": "info", "id": 0, "root": "sst", "path": "a"}


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (Part(0, ()),),
        (Part(0, (2, 1)),),
        (Part(0, (1, 1)),),
        (Part(0, (1,)), Part(0, (2,))),
        (Part(0, tuple(range(4000))), Part(1, tuple(range(97)))),
        tuple(Part(n, (0,)) for n in range(1025)),
    ],
    ids=["none", "no blocks", "out of order", "twice", "two of one chunk", "too many blocks", "too many parts"],
)
def test_requests_for_blocks_that_make_no_sense_are_refused(parts):
    with pytest.raises(BadMessage):
        decode(encode(Blocks("sst", "t", LINEAGE, parts)))


def test_the_largest_request_for_blocks_is_a_control_frame():
    parts = tuple(Part((1 << 24) - 1 - n, tuple(range(1 << 20, (1 << 20) + 4)), vouch=True) for n in range(1024))
    frames = encode(Blocks("r" * 64, "p" * 1024, LINEAGE, parts), (1 << 63) - 1)
    assert len(frames[1]) < CONTROL_FRAME_BYTES_MAX
    assert decode(frames).message.parts == parts


@pytest.mark.parametrize(
    "reply",
    [
        BlocksReply(LINEAGE, 0, (1,), b"d" * 31, None, (b"a", b"b")),
        Compare("sst", "x", LINEAGE, (), (b"",)),
        Compare("sst", "x", LINEAGE, (1, 2), (b"d" * 32,)),
        Compare("sst", "x", LINEAGE, (1,), ()),
        Compare("sst", "x", LINEAGE, tuple(range(1025)), (bytes(32 * 1025),)),
        BlocksReply(LINEAGE, 0, (1,), b"d" * 32, b"", (b"a", b"b")),
        BlocksReply(LINEAGE, 0, (1,), b"d" * 32, None, (b"a",)),
    ],
)
def test_parts_of_chunks_that_make_no_sense_are_refused(reply):
    with pytest.raises(BadMessage):
        decode(encode(reply))
