"""Publishers that lie: what they say is refused, nothing of it is decoded, and other roots do not notice."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from liar import CHUNK, CHUNKS, ENTRY, INFO, LINEAGE, NCHUNKS, PATH, VALUES, Liar, chunk_lie, compressed, for_kind
from network import PATIENCE_S, eventually, fetched, is_synced, paths, read, write_array

from zcat.errors import BadChunk, BadContent, BadMessage, NotReadable, Stale, Timeout, Unavailable, ZcatError
from zcat.model.dataset import Kind
from zcat.protocol.messages import (
    ChunkReply,
    Chunks,
    Failed,
    Info,
    InfoReply,
    Ping,
    Pong,
    Sizes,
    SizesReply,
    Tree,
    TreePage,
)
from zcat.protocol.pages import paged
from zcat.services.frame_view import FrameView
from zcat.storage.chunk_gate import digest

SHORT_S = 0.3
"""A time-out that is meant to run out."""


@pytest.fixture
def liar(network):
    made = Liar(network.context, network.endpoints[0])
    yield made
    made.close()


@pytest.fixture
def honest(network, tmp_path):
    """What an honest root has, which the others must not touch."""
    values = write_array(tmp_path / "data" / "y.b2nd", np.arange(5000), chunks=(500,))
    network.publisher("honest", tmp_path / "data")
    return values


def special_uninit():
    chunk = bytearray(compressed(np.zeros(CHUNK, "u1")))[:32]
    chunk[12:16] = (32).to_bytes(4, "little")
    chunk[31] = 4 << 4
    return bytes(chunk)


LYING_CHUNKS = {
    "wrong digest": chunk_lie(CHUNKS[0], digest=digest(b"something else")),
    "wrong lineage": chunk_lie(CHUNKS[0], lineage="2e" * 16),
    "longer": chunk_lie(compressed(np.zeros(2 * CHUNK, "u1"))),
    "shorter": chunk_lie(compressed(np.zeros(CHUNK // 2, "u1"))),
    "wider items": chunk_lie(compressed(np.zeros(CHUNK // 2, "u2"), typesize=2)),
    "uninitialised": chunk_lie(special_uninit()),
    "truncated": chunk_lie(CHUNKS[0][:-10]),
    "no chunk": chunk_lie(os.urandom(4000)),
    "empty": chunk_lie(b""),
    "absent": chunk_lie(CHUNKS[0], data=()),
}


@pytest.mark.parametrize("lie", LYING_CHUNKS.values(), ids=LYING_CHUNKS.keys())
def test_a_chunk_that_is_not_what_it_should_be_is_never_decoded(lie, network, liar, honest):
    subscriber = network.subscriber()
    for root in ("lies", "honest"):
        subscriber.follow(root)
    liar.lie = lie
    with pytest.raises(BadChunk):
        read(subscriber, "lies", PATH)
    assert fetched(subscriber) == 0
    np.testing.assert_array_equal(read(subscriber, "honest", "y.b2nd"), honest)
    liar.lie = lambda message: None
    np.testing.assert_array_equal(read(subscriber, "lies", PATH), VALUES)
    assert subscriber.health()["loop"]["errors"] == 0


def tree(*pages, next=None, incarnation=1, owner="e1" * 16, seq=0):
    return TreePage("lies", owner, incarnation, seq, next, tuple(pages))


class Endless:
    """Pages without end."""

    def __init__(self, following):
        self.number, self.following = 0, following

    def __call__(self, message):
        if not isinstance(message, Tree):
            return None
        self.number += 1
        return [self.following(self.number, message)]


def many(number):
    return paged(replace(ENTRY, path=f"{number:09}/{n}") for n in range(20))


LYING_TREES = {
    "the same part for ever": Endless(lambda n, asked: tree(*paged([ENTRY]), next=PATH)),
    "nothing for ever": Endless(lambda n, asked: tree(next=f"{n:09}")),
    "ever more of the same name": Endless(lambda n, asked: tree(*many(1), next=f"{n:09}")),
    "backwards": Endless(lambda n, asked: tree(*many(10**9 - n), next=f"{10**9 - n:09}/9")),
    "a new life with each part": Endless(lambda n, asked: tree(*many(n), next=f"{n:09}/9", incarnation=n)),
    "somebody else's": Endless(lambda n, asked: tree(*paged([ENTRY]), owner="0" * 32)),
    "a giant page": Endless(lambda n, asked: tree(b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20))),
    "no page": Endless(lambda n, asked: tree(b"\x93\x01\x02\x03")),
    "a way out": Endless(lambda n, asked: tree(*paged([replace(ENTRY, path="../../etc/passwd")]))),
    "no lineage": Endless(lambda n, asked: tree(*paged([replace(ENTRY, lineage="../..")]))),
    "deep": Endless(lambda n, asked: tree(b"\x91" * 60_000)),
}


@pytest.mark.parametrize("lie", LYING_TREES.values(), ids=LYING_TREES.keys())
def test_a_catalogue_that_cannot_be_is_not_taken(lie, network, liar, honest):
    liar.lie = lie
    subscriber = network.subscriber(follow=("lies",))
    eventually(lambda: liar.count(Tree))
    subscriber.follow("honest")
    np.testing.assert_array_equal(read(subscriber, "honest", "y.b2nd"), honest)
    assert liar.count(Tree) < 20
    assert paths(subscriber, "lies") == []
    assert subscriber.health()["loop"]["errors"] == 0


def array(**changes):
    return replace(INFO.geometry.array, **changes)


def geometry(**changes):
    return InfoReply.of(replace(INFO, geometry=replace(INFO.geometry, **changes)))


def entry(**changes):
    return InfoReply.of(replace(INFO, entry=replace(ENTRY, **changes)))


LYING_INFOS = {
    "another path": entry(path="other.b2nd"),
    "a way out": entry(path="../x"),
    "another kind": entry(kind=Kind.FILE),
    "another shape": entry(shape=(3,)),
    "items of another size": geometry(array=array(dtype="<f8")),
    "smaller items": geometry(
        chunksize=8 * CHUNK, nbytes=8 * CHUNK * NCHUNKS, blocksize=16_000, typesize=8, array=array(itemsize=8)
    ),
    "objects": geometry(array=array(dtype="|O")),
    "objects inside": geometry(array=array(dtype="[('a', 'O')]")),
    "a dtype that is code": geometry(array=array(dtype="__import__('os').getpid()")),
    "a chunk of nothing": geometry(chunksize=0),
    "a huge chunk": geometry(chunksize=1 << 40, nbytes=1 << 41, array=None),
    "too many chunks": geometry(chunksize=1, blocksize=1, nbytes=1 << 50, array=None),
    "more dimensions than there are": geometry(array=array(shape=(1,) * 40, chunks=(1,) * 40, blocks=(1,) * 40)),
    "another answer": Pong("publisher", "e1" * 16, 1, 0, "0"),
    "attributes that are none": replace(InfoReply.of(INFO), attributes=(b"\x93\x01\x02\x03",)),
    "endless attributes": replace(InfoReply.of(INFO), attributes=(bytes(2 << 20),)),
    "deep attributes": replace(InfoReply.of(INFO), attributes=(b"\x81\xa1a" * 100_000,)),
}


@pytest.mark.parametrize("lie", LYING_INFOS.values(), ids=LYING_INFOS.keys())
def test_a_description_that_cannot_be_is_refused_in_a_sentence(lie, network, liar, honest):
    subscriber = network.subscriber()
    for root in ("lies", "honest"):
        subscriber.follow(root)
    liar.lie = for_kind(Info, lambda message: [lie])
    # a pong answers no question, so that nothing came; all else fails as soon as it is here
    with pytest.raises(Timeout if isinstance(lie, Pong) else (BadMessage, BadContent, NotReadable)) as refused:
        read(subscriber, "lies", PATH, timeout_s=SHORT_S)
    assert len(refused.value.message) > 20
    assert liar.count(Chunks) == 0
    np.testing.assert_array_equal(read(subscriber, "honest", "y.b2nd"), honest)
    liar.lie = lambda message: None
    np.testing.assert_array_equal(read(subscriber, "lies", PATH), VALUES)
    assert subscriber.health()["loop"]["errors"] == 0


LYING_SIZES = {
    "of another lineage": SizesReply("2e" * 16, (np.full(NCHUNKS, 100, "<i4").tobytes(),)),
    "too few": SizesReply(LINEAGE, (np.full(NCHUNKS - 1, 100, "<i4").tobytes(),)),
    "negative": SizesReply(LINEAGE, (np.full(NCHUNKS, -1, "<i4").tobytes(),)),
    "too large": SizesReply(LINEAGE, (np.full(NCHUNKS, 1 << 30, "<i4").tobytes(),)),
    "torn": SizesReply(LINEAGE, (b"\1" * 15,)),
    "none": SizesReply(LINEAGE),
    "not those of the chunks": SizesReply(LINEAGE, (np.full(NCHUNKS, 1000, "<i4").tobytes(),)),
}


@pytest.mark.parametrize("lie", LYING_SIZES.values(), ids=LYING_SIZES.keys())
def test_sizes_that_cannot_be_are_refused(lie, network, liar):
    subscriber = network.subscriber()
    subscriber.follow("lies")
    liar.lie = for_kind(Sizes, lambda message: [lie])
    with pytest.raises((BadContent, Stale)):
        subscriber.on_version("lies", PATH, lambda dataset: b"".join(FrameView(dataset).iter_bytes()))


def test_answers_that_come_twice_change_nothing(network, liar):
    subscriber = network.subscriber()
    liar.lie = lambda message: liar.honest(message) * 2
    subscriber.follow("lies")
    np.testing.assert_array_equal(read(subscriber, "lies", PATH), VALUES)
    assert fetched(subscriber) == NCHUNKS
    assert subscriber.health()["loop"]["errors"] == 0


def eventually_read(look):
    (result,) = eventually(lambda: [look()], retried=Timeout)
    return result


@pytest.mark.parametrize("kind", [Info, Chunks])
def test_a_publisher_that_never_answers_costs_a_reader_its_time_and_nothing_else(kind, network, liar, honest):
    subscriber = network.subscriber(fetch_timeout_s=SHORT_S)
    for root in ("lies", "honest"):
        subscriber.follow(root)
    liar.lie = for_kind(kind, lambda message: [])
    with pytest.raises(Timeout, match=r"did not (answer|come) within 0.3 s"):
        read(subscriber, "lies", PATH)

    def others():
        return read(subscriber, "honest", "y.b2nd")

    np.testing.assert_array_equal(eventually_read(others), honest)
    if kind is Info:  # a request for chunks is repeated, too, but only after seconds
        liar.lie = lambda message: None
        np.testing.assert_array_equal(eventually_read(lambda: read(subscriber, "lies", PATH)), VALUES)


@pytest.mark.parametrize("code", ["stale", "busy", "no-such-code", "closed", "bad-chunk", "dataset-unknown"])
def test_whatever_a_publisher_fails_with_ends_a_read_with_an_error(code, network, liar):
    subscriber = network.subscriber(fetch_timeout_s=SHORT_S)
    subscriber.follow("lies")
    failure = Failed(code, "because\n\x1b[2J" + "x" * 5000)
    liar.lie = for_kind(Chunks, lambda message: [replace(failure, nchunk=n) for n in message.chunks])
    with pytest.raises(ZcatError) as refused:
        read(subscriber, "lies", PATH)
    assert refused.value.code == code
    liar.lie = for_kind(Chunks, lambda message: [failure])
    with pytest.raises(ZcatError) as refused:
        read(subscriber, "lies", PATH)
    assert refused.value.code == code


def test_one_publisher_cannot_answer_for_another(network, liar):
    other = Liar(network.context, network.endpoints[0], root="victim", owner="ab" * 16)
    released = threading.Event()
    try:
        subscriber = network.subscriber()
        for root in ("lies", "victim"):
            subscriber.follow(root)
        other.lie = for_kind(Chunks, lambda message: released.wait(PATIENCE_S) and other.honest(message))
        reading = network.in_background(lambda: read(subscriber, "victim", PATH))
        eventually(lambda: other.count(Chunks))
        forged = compressed(np.full(CHUNK, 66, "u1"))
        reply = ChunkReply(LINEAGE, 0, digest(forged), (forged,))
        failure = Failed("dataset-unknown", "says somebody who should not be asked")
        numbers = range(1, 100)
        liar.extra = [(replace(reply, nchunk=n), id) for id in numbers for n in range(NCHUNKS)]
        liar.extra += [(failure, id) for id in numbers]
        wanted = subscriber.health()["loop"]["messages"] + len(liar.extra)
        eventually(lambda: subscriber.health()["loop"]["messages"] >= wanted)
        released.set()
        np.testing.assert_array_equal(reading.result(), VALUES)
    finally:
        released.set()
        other.close()


def test_who_answers_with_another_owners_key_is_not_believed(network, liar):
    subscriber = network.subscriber(quiet_after_s=3.0)
    subscriber.follow("lies")
    liar.lie = for_kind(Ping, lambda message: [Pong("publisher", "0" * 32, 1, 0, "0")])
    eventually(lambda: not is_synced(subscriber, "lies"))
    with pytest.raises(Unavailable, match="publisher of root lies does not answer"):
        read(subscriber, "lies", PATH)
    liar.lie = lambda message: None
    eventually(lambda: is_synced(subscriber, "lies"))
    np.testing.assert_array_equal(read(subscriber, "lies", PATH), VALUES)


def test_a_version_that_is_known_to_be_gone_is_never_read_again(network, liar):
    newer = replace(INFO, entry=replace(ENTRY, lineage="2e" * 16))
    subscriber = network.subscriber()
    subscriber.follow("lies")
    np.testing.assert_array_equal(read(subscriber, "lies", PATH), VALUES)

    def ahead(message):  # the catalogue still names the old version, as when its event is late
        if isinstance(message, Info):
            return [InfoReply.of(newer)]
        if isinstance(message, Chunks) and message.lineage == newer.entry.lineage:
            return [replace(reply, lineage=newer.entry.lineage) for reply in liar.honest(message)]
        return None

    def work(dataset):
        if dataset.version == INFO.version:
            raise Stale("as a chunk that is missing would have said")
        return dataset.version

    liar.lie = ahead
    assert subscriber.on_version("lies", PATH, work) == newer.version
    liar.lie = for_kind(Info, lambda message: [InfoReply.of(INFO)])  # an answer that was on its way for long
    subscriber.on_version("lies", PATH, lambda dataset: dataset.version)
    liar.lie = ahead
    assert subscriber.on_version("lies", PATH, lambda dataset: dataset.version) == newer.version


def test_a_reader_that_waits_when_the_subscriber_is_closed_is_told(network, liar):
    subscriber = network.subscriber()
    subscriber.follow("lies")
    for kind in (Info, Chunks):
        liar.lie = for_kind(kind, lambda message: [])
    liar.lie = lambda message: [] if isinstance(message, (Info, Chunks)) else None
    reading = network.in_background(lambda: read(subscriber, "lies", PATH))
    eventually(lambda: liar.count(Info))
    subscriber.close()
    with pytest.raises(ZcatError) as refused:
        reading.result(timeout=10)
    assert refused.value.code == "closed"
