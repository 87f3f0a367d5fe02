"""Small parts of large chunks come in blocks, from the origin, checked; and in whole chunks where they cannot."""

import os
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
from liar import Liar, for_kind
from network import PATIENCE_S, eventually, fetched, is_synced, read, write_array
from sample_datasets import LINEAGE, sample_array

from zcat.errors import BadChunk, Stale, Timeout
from zcat.limits import MIB
from zcat.protocol.block_messages import Blocks, BlocksReply
from zcat.protocol.messages import ChunkReply, Chunks, Failed, Info, InfoReply, Ping, Pong, Tree, TreePage
from zcat.protocol.pages import paged
from zcat.storage.block_layout import cut
from zcat.storage.chunk_gate import digest

SHAPE = (600, 500)
VALUES = (np.random.default_rng(0).integers(0, 1000, 600 * 500).cumsum() % 65_521).astype("<i4").reshape(SHAPE)
CUT = {"chunks": (300, 500), "blocks": (20, 125)}  # two chunks of 60 blocks


def counters(subscriber):
    return subscriber.health()["fetched"]


def following(network, root, **changes):
    subscriber = network.subscriber(follow=(root,), **changes)
    eventually(lambda: is_synced(subscriber, root))
    return subscriber


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def published(network, folder):
    write_array(folder / "x.b2nd", VALUES, **CUT)
    network.publisher("sst", folder)
    return folder


def test_a_small_slice_moves_its_blocks_and_nothing_else(network, published):
    subscriber = following(network, "sst")
    assert np.array_equal(read(subscriber, "sst", "x.b2nd", np.s_[290:310, 10:20]), VALUES[290:310, 10:20])
    assert (counters(subscriber)["chunks"], counters(subscriber)["parts"]) == (0, 2)
    assert counters(subscriber)["bytes"] < os.path.getsize(published / "x.b2nd") / 20

    assert np.array_equal(read(subscriber, "sst", "x.b2nd", np.s_[299:301, 100:120]), VALUES[299:301, 100:120])
    assert counters(subscriber)["parts"] == 2  # these blocks are here


def test_what_is_there_in_part_is_completed_without_fetching_it_twice(network, published):
    subscriber = following(network, "sst")
    for row in range(0, 140, 20):
        read(subscriber, "sst", "x.b2nd", np.s_[row, :])
    assert np.array_equal(read(subscriber, "sst", "x.b2nd"), VALUES)
    size = os.path.getsize(published / "x.b2nd")
    assert counters(subscriber)["chunks"] == 1  # the other one
    assert counters(subscriber)["bytes"] < size + 5000
    subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.fetch())
    assert subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.complete)


def test_compressed_chunks_that_are_there_in_part_are_given_whole(network, published):
    subscriber = following(network, "sst")
    for row in (0, 20, 40):
        read(subscriber, "sst", "x.b2nd", np.s_[row, :])
    chunk = subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.chunk(0))
    assert counters(subscriber)["chunks"] == 0
    other = following(network, "sst", name="b", block_reads=False)
    assert other.on_version("sst", "x.b2nd", lambda dataset: dataset.chunk(0)) == chunk


def test_points_come_in_blocks(network, published):
    subscriber = following(network, "sst")
    rows, columns = np.array([5, 599, 310, 5]), np.array([0, 499, 250, 499])
    assert np.array_equal(read(subscriber, "sst", "x.b2nd", (rows, columns)), VALUES[rows, columns])
    assert counters(subscriber)["chunks"] == 0
    assert counters(subscriber)["bytes"] < os.path.getsize(published / "x.b2nd") / 10


def test_blocks_can_be_switched_off(network, published):
    subscriber = following(network, "sst", block_reads=False)
    read(subscriber, "sst", "x.b2nd", np.s_[0, 0])
    assert (counters(subscriber)["chunks"], counters(subscriber)["parts"]) == (1, 0)


def test_readers_of_the_same_blocks_wait_for_one_request(network, published):
    subscriber = following(network, "sst")
    begin = threading.Barrier(4)

    def work():
        begin.wait(PATIENCE_S)
        return read(subscriber, "sst", "x.b2nd", np.s_[100:110, :])

    for each in [network.in_background(work) for _ in range(4)]:
        assert np.array_equal(each.result(PATIENCE_S), VALUES[100:110])
    assert counters(subscriber)["parts"] <= 4
    once = counters(subscriber)["bytes"]
    alone = following(network, "sst", name="b")
    read(alone, "sst", "x.b2nd", np.s_[100:110, :])
    assert once < 2 * counters(alone)["bytes"]


def test_special_and_incompressible_chunks_and_chunks_of_differences_are_read(network, folder):
    noise = np.random.default_rng(0).integers(0, 1 << 32, SHAPE, np.uint32)
    write_array(folder / "zeros.b2nd", np.zeros(SHAPE), **CUT)
    write_array(folder / "noise.b2nd", noise, **CUT)
    write_array(folder / "delta.b2nd", VALUES, cparams={"filters": [3]}, **CUT)
    network.publisher("sst", folder)
    subscriber = following(network, "sst")
    key = np.s_[290:310, 7:9]
    assert not read(subscriber, "sst", "zeros.b2nd", key).any()
    assert np.array_equal(read(subscriber, "sst", "noise.b2nd", key), noise[key])
    parts = counters(subscriber)["parts"]
    assert np.array_equal(read(subscriber, "sst", "delta.b2nd", key), VALUES[key])
    assert counters(subscriber)["parts"] == parts


def test_datasets_of_hdf5_files_come_in_blocks(network, folder):
    with h5py.File(folder / "f.h5", "w") as file:
        file.create_dataset("x", data=np.tile(VALUES, (4, 4)), chunks=(600, 2000), compression="gzip")
    network.publisher("sst", folder)
    subscriber = following(network, "sst")
    got = eventually(lambda: read(subscriber, "sst", "f.h5/x", np.s_[1000:1010, 1000:1010]).tolist())
    assert got == np.tile(VALUES, (4, 4))[1000:1010, 1000:1010].tolist()
    assert (counters(subscriber)["chunks"], counters(subscriber)["parts"]) == (0, 1)


def test_a_full_disk_leaves_whole_chunks_in_memory(network, published):
    subscriber = following(network, "sst", quota_bytes=100_000)
    assert np.array_equal(read(subscriber, "sst", "x.b2nd", np.s_[:, 3]), VALUES[:, 3])


def test_a_dataset_that_is_rewritten_is_read_in_one_version(network, published):
    subscriber = following(network, "sst")
    read(subscriber, "sst", "x.b2nd", np.s_[0, 0])
    write_array(published / "x.b2nd", VALUES + 1, **CUT)
    assert eventually(
        lambda: read(subscriber, "sst", "x.b2nd", np.s_[500, :2]).tolist() == (VALUES[500, :2] + 1).tolist()
    )
    assert np.array_equal(read(subscriber, "sst", "x.b2nd", np.s_[0, :5]), VALUES[0, :5] + 1)


# -- publishers that are old, slow or lie ----------------------------------------------------------------

SAMPLE = sample_array(VALUES, (300, 500), (20, 125), path="x.b2nd")
INFO = replace(SAMPLE.info, entry=replace(SAMPLE.info.entry, cbytes=sum(map(len, SAMPLE.chunks))))
KEY = np.s_[25:30, 130:140]  # block 5 of chunk 0


def parts_of(message):
    for part in message.parts:
        made = cut(SAMPLE.chunks[part.nchunk], part.blocks)
        if made is None:
            chunk = SAMPLE.chunks[part.nchunk]
            yield ChunkReply(LINEAGE, part.nchunk, digest(chunk), (chunk,))
        else:
            whole = digest(SAMPLE.chunks[part.nchunk]) if part.vouch else None
            frames = bytes(made.head), bytes(made.data)
            yield BlocksReply(LINEAGE, part.nchunk, part.blocks, made.digest, whole, frames)


class Origin(Liar):
    """An origin of one large array; `lie` is asked first."""

    def honest(self, message):
        match message:
            case Ping():
                return [Pong("publisher", self.owner, self.claim.incarnation, 0, "0")]
            case Tree():
                return [
                    TreePage(self.root, self.owner, self.claim.incarnation, 0, None, tuple(paged([INFO.entry])))
                ]
            case Info():
                return [InfoReply.of(INFO)]
            case Chunks():
                chunks = SAMPLE.chunks
                return [ChunkReply(LINEAGE, n, digest(chunks[n]), (chunks[n],)) for n in message.chunks]
            case Blocks():
                return list(parts_of(message))
        return [Failed("stale", "no events here")]


@pytest.fixture
def origin(network):
    made = Origin(network.context, network.endpoints[0])
    yield made
    made.close()


def test_an_honest_origin_is_read_in_blocks(network, origin):
    subscriber = following(network, "lies")
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", KEY), VALUES[KEY])
    assert (origin.count(Blocks), origin.count(Chunks)) == (1, 0)


def test_an_old_publisher_is_asked_for_whole_chunks(network, origin):
    origin.lie = for_kind(Blocks, lambda message: [Failed("verb-unknown", "verb 'blocks' is not known to zcat1")])
    subscriber = following(network, "lies")
    for key in (KEY, np.s_[25:30, 300:310], np.s_[500, :5]):
        assert np.array_equal(read(subscriber, "lies", "x.b2nd", key), VALUES[key])
    assert origin.count(Blocks) == 1
    assert origin.count(Chunks) == 2


def test_an_origin_that_was_renewed_is_asked_for_blocks_again(network, origin):
    origin.lie = for_kind(Blocks, lambda message: [Failed("verb-unknown", "?")])
    subscriber = following(network, "lies")
    read(subscriber, "lies", "x.b2nd", KEY)
    origin.lie = lambda message: None
    origin.announce(replace(origin.claim, incarnation=2))
    eventually(lambda: read(subscriber, "lies", "x.b2nd", np.s_[500:502, :2]) is not None)
    eventually(lambda: origin.count(Ping) >= 2)
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", np.s_[440:445, :5]), VALUES[440:445, :5])


def spoil(frame, at, value):
    return frame[:at] + bytes([value]) + frame[at + 1 :]


def changed(change):
    """A lie: each honest part, changed, under the right digest of what is sent."""

    def tell(message):
        for reply in parts_of(message):
            made = change(reply)
            part = replace(cut(SAMPLE.chunks[0], (5,)), head=made.data[0], data=made.data[1])
            yield replace(made, digest=part.digest)

    return for_kind(Blocks, lambda message: list(tell(message)))


LIES = {
    "an offset outside": lambda r: replace(r, data=(spoil(r.data[0], 32 + 4 * 5 + 2, 0x7F), r.data[1])),
    "a stream too long": lambda r: replace(r, data=(r.data[0], spoil(r.data[1], 2, 0x7F))),
    "another blocksize": lambda r: replace(r, data=(spoil(r.data[0], 8, 1), r.data[1])),
    "another size": lambda r: replace(r, data=(spoil(r.data[0], 5, 1), r.data[1])),
    "lazy": lambda r: replace(r, data=(spoil(r.data[0], 31, 8), r.data[1])),
    "a plug-in filter": lambda r: replace(r, data=(spoil(r.data[0], 21, 35), r.data[1])),
    "no head": lambda r: replace(r, data=(b"", r.data[1])),
    "no data": lambda r: replace(r, data=(r.data[0], b"")),
    "more data": lambda r: replace(r, data=(r.data[0], r.data[1] * 2)),
    "other blocks": lambda r: replace(r, blocks=(6,)),
    "another lineage": lambda r: replace(r, lineage="0" * 32),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_blocks_that_are_not_what_they_should_be_are_never_decoded(network, origin, lie):
    origin.lie = changed(lie)
    subscriber = following(network, "lies")
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", KEY), VALUES[KEY])  # whole chunks are honest
    assert origin.count(Blocks) == 3
    assert origin.count(Chunks) == 1
    assert counters(subscriber)["damaged"] == 3


def test_a_wrong_digest_is_noticed(network, origin):
    origin.lie = for_kind(
        Blocks, lambda message: [replace(reply, digest=bytes(32)) for reply in parts_of(message)]
    )
    subscriber = following(network, "lies")
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", KEY), VALUES[KEY])
    assert counters(subscriber)["damaged"] == 3


def test_an_origin_that_contradicts_itself_is_believed_for_whole_chunks_only(network, origin):
    other = sample_array(VALUES // 90, (300, 500), (20, 125), path="x.b2nd")

    def tell(message):
        made = cut(other.chunks[0], message.parts[0].blocks)
        frames = bytes(made.head), bytes(made.data)
        return [BlocksReply(LINEAGE, 0, made.blocks, made.digest, None, frames)]

    subscriber = following(network, "lies")
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", KEY), VALUES[KEY])
    origin.lie = for_kind(Blocks, tell)
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", np.s_[0:3, :9]), VALUES[0:3, :9])
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", np.s_[:300]), VALUES[:300])


def test_a_rest_whose_digest_is_wrong_is_fetched_whole(network, origin):
    subscriber = following(network, "lies")
    for row in range(0, 100, 20):
        read(subscriber, "lies", "x.b2nd", np.s_[row, :])
    origin.lie = for_kind(
        Blocks, lambda message: [replace(reply, chunk_digest=bytes(32)) for reply in parts_of(message)]
    )
    assert np.array_equal(read(subscriber, "lies", "x.b2nd", np.s_[:300]), VALUES[:300])
    assert fetched(subscriber) == 1


def test_an_origin_that_says_nothing_ends_in_a_time_out(network, origin):
    origin.lie = for_kind(Blocks, lambda message: [])
    subscriber = following(network, "lies", fetch_timeout_s=0.3)
    with pytest.raises(Timeout):
        read(subscriber, "lies", "x.b2nd", KEY)


def test_a_version_that_is_gone_is_stale_in_blocks_too(network, origin):
    origin.lie = for_kind(Blocks, lambda message: [Failed("stale", "gone", part.nchunk) for part in message.parts])
    subscriber = following(network, "lies")
    with pytest.raises(Stale):
        read(subscriber, "lies", "x.b2nd", KEY)


def test_an_origin_whose_whole_chunks_are_damaged_as_well_is_given_up(network, origin):
    def tell(message):
        if isinstance(message, Blocks | Chunks):
            numbers = message.chunks if isinstance(message, Chunks) else [part.nchunk for part in message.parts]
            return [ChunkReply(LINEAGE, n, bytes(32), (SAMPLE.chunks[n],)) for n in numbers]
        return None

    origin.lie = tell
    subscriber = following(network, "lies")
    with pytest.raises(BadChunk):
        read(subscriber, "lies", "x.b2nd", KEY)


def test_large_reads_of_few_blocks_go_on_window_by_window(network, folder):
    tall = np.tile(VALUES, (4, 1))
    write_array(folder / "tall.b2nd", tall, **CUT)
    network.publisher("sst", folder)
    subscriber = following(network, "sst", window_bytes=2 * MIB)
    assert np.array_equal(read(subscriber, "sst", "tall.b2nd", np.s_[:, 7]), tall[:, 7])
    rows = np.arange(0, 2400, 7)
    assert np.array_equal(read(subscriber, "sst", "tall.b2nd", (rows, rows % 500)), tall[rows, rows % 500])


# -- what is fetched ahead -------------------------------------------------------------------------------


def test_a_reader_that_goes_on_in_equal_steps_finds_what_it_needs(network, published):
    subscriber = following(network, "sst", prefetch_bytes=16 * MIB)
    for row in (0, 20, 40):
        read(subscriber, "sst", "x.b2nd", np.s_[row : row + 20])
    eventually(lambda: subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.complete))
    for row in range(60, 600, 20):
        assert np.array_equal(read(subscriber, "sst", "x.b2nd", np.s_[row : row + 20]), VALUES[row : row + 20])


def test_a_read_that_is_repeated_is_no_step(network, published):
    subscriber = following(network, "sst", prefetch_bytes=16 * MIB)
    for row in (0, 20, 40):
        for _ in range(20):
            read(subscriber, "sst", "x.b2nd", np.s_[row : row + 20])
    assert eventually(lambda: subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.complete))


def test_no_more_is_fetched_ahead_than_the_limit_says(network, folder):
    tall = np.tile(VALUES, (4, 1))
    write_array(folder / "tall.b2nd", tall, **CUT)
    network.publisher("sst", folder)
    size = os.path.getsize(folder / "tall.b2nd")
    subscriber = following(network, "sst", prefetch_bytes=size // 8)
    for row in (0, 20, 40):
        read(subscriber, "sst", "tall.b2nd", np.s_[row : row + 20])
    eventually(lambda: counters(subscriber)["bytes"] > size // 12)
    for row in (60, 80):
        read(subscriber, "sst", "tall.b2nd", np.s_[row : row + 20])
    assert counters(subscriber)["bytes"] < size // 8 * 3


def test_reads_without_a_pattern_fetch_nothing_ahead(network, published):
    subscriber = following(network, "sst", prefetch_bytes=16 * MIB)
    for row in (0, 30, 40, 300, 580):
        read(subscriber, "sst", "x.b2nd", np.s_[row, :10])
    assert counters(subscriber)["parts"] + counters(subscriber)["chunks"] == 5


def test_an_origin_that_fails_what_is_fetched_ahead_disturbs_nobody(network, origin):
    def tell(message):
        if isinstance(message, Blocks | Chunks) and message.bulk:
            return [Failed("busy", "not now")]
        return None

    origin.lie = tell
    subscriber = following(network, "lies", prefetch_bytes=16 * MIB)
    for row in range(0, 120, 20):
        assert np.array_equal(read(subscriber, "lies", "x.b2nd", np.s_[row, :10]), VALUES[row, :10])
