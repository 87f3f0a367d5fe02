"""What a subscriber gives to others out of its cache, and the links over which it asks them."""

import pytest
from sample_datasets import LINEAGE, OWNER, noise, sample_array

from zcat.config import SubscriberConfig
from zcat.errors import Unavailable, VerbUnknown
from zcat.net.loop import Loop
from zcat.net.sockets import CONTROL, SocketFactory, make_context
from zcat.protocol.messages import Chunks, Tree
from zcat.services.peer_links import IDLE_S, LINKS_MAX, PeerLinks
from zcat.services.sharing import Sharing
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.chunk_gate import digest
from zcat.storage.disk_budget import DiskLimits

SAMPLE = sample_array(noise((8 * 8192,)), (8192,), (1024,))


@pytest.fixture
def sockets():
    context = make_context()
    yield SocketFactory(context, CONTROL)
    context.destroy(linger=0)


@pytest.fixture
def loop():
    made = Loop("test")
    yield made
    made.stop()


@pytest.fixture
def cached(tmp_path):
    with ChunkCache(tmp_path / "cache", DiskLimits(1 << 30, 0, 0)) as cache:
        yield SAMPLE.stored_in(cache.dataset("sst", OWNER, SAMPLE.info), [0, 1])


@pytest.fixture
def sharing(loop, sockets, cached):
    made = Sharing(loop, sockets, SubscriberConfig(), OWNER)
    made.find = lambda root, path, lineage: cached if (root, lineage) == ("sst", LINEAGE) else None
    yield made
    made.close()


def asked(*chunks, root="sst", lineage=LINEAGE):
    return Chunks(root, SAMPLE.info.entry.path, lineage, chunks)


def test_what_is_given_is_the_chunk_with_its_digest(sharing):
    reply = sharing.read(asked(1), 1)
    assert bytes(reply.data[0]) == SAMPLE.chunks[1]
    assert (reply.lineage, reply.nchunk, reply.digest) == (LINEAGE, 1, digest(SAMPLE.chunks[1]))


@pytest.mark.parametrize(
    ("message", "nchunk"),
    [(asked(2), 2), (asked(99), 99), (asked(0, lineage="f" * 32), 0), (asked(0, root="sea"), 0)],
    ids=["absent", "no such chunk", "another lineage", "another root"],
)
def test_what_is_not_here_is_refused(sharing, message, nchunk):
    with pytest.raises(Unavailable):
        sharing.read(message, nchunk)


def test_nothing_but_chunks_is_answered(sharing):
    with pytest.raises(VerbUnknown):
        sharing.admit(Tree("sst"))


def test_a_chunk_is_not_evicted_while_somebody_has_a_view_of_it(sharing, cached):
    view = sharing.read(asked(0), 0).data[0]
    cached.evict(1 << 30)
    assert cached.missing([0, 1]) == [1]
    assert bytes(view) == SAMPLE.chunks[0]
    del view
    cached.evict(1 << 30)
    assert cached.missing([0, 1]) == [0, 1]


def test_links_are_bounded_and_closed_when_nobody_needs_them(loop, sockets):
    links = PeerLinks(loop, sockets, lambda endpoint, parts: None)
    for port in range(1, LINKS_MAX + 10):
        assert links.send(f"tcp://127.0.0.1:{port}", asked(0), 1)
        assert len(links) <= LINKS_MAX
    links.tick(Loop.now_s() + IDLE_S + 1)
    assert len(links) == 0
