"""The shell that fetches chunks: what only happens when something else goes wrong."""

import threading

import pytest
from sample_datasets import LINEAGE, OWNER, noise, sample_array

from zcat.errors import StorageFailed, ZcatError
from zcat.net.loop import Loop, LoopLimits
from zcat.protocol.messages import ChunkReply
from zcat.protocol.transfer import DatasetKey, Transfer
from zcat.services.fetcher import Fetcher
from zcat.services.readers import Target
from zcat.storage.chunk_gate import digest

WAIT_S = 20
SAMPLE = sample_array(noise((400,)), (100,), (50,))
KEY = DatasetKey("sst", OWNER, SAMPLE.info.entry.path, LINEAGE)


class Asked:
    """Who is asked, and never answers by itself."""

    def __init__(self):
        self.requests = []

    def send(self, ask):
        self.requests.append(ask)
        return True

    def why_away(self, origin):
        return None


@pytest.fixture
def made():
    loop, asked = Loop("test", loop_limits=LoopLimits(posts_max=2)), Asked()
    fetcher = Fetcher(loop, Transfer(), asked, 1)
    loop.start()
    yield loop, asked, fetcher
    loop.stop()
    fetcher.close()


def reply(nchunk):
    data = SAMPLE.chunks[nchunk]
    return ChunkReply(LINEAGE, nchunk, digest(data), (data,))


def test_a_chunk_that_was_checked_is_heard_of_however_much_the_loop_has_to_do(made):
    class FullDisk:
        """A cache without room."""

        former = None

        def __init__(self):
            self.was_asked = threading.Event()

        def missing(self, chunks):
            return list(chunks)

        def store(self, nchunk, data, digest):
            self.was_asked.set()
            raise StorageFailed("full")

    loop, asked, fetcher = made
    cached = FullDisk()
    fetch = fetcher.begin(Target(KEY, SAMPLE.info, cached), [1])

    def busy():
        loop.post(asked.requests.clear)
        loop.post(asked.requests.clear)
        fetcher.arrived(KEY.origin, asked.requests[0].request, reply(1))
        cached.was_asked.wait(WAIT_S)
        threading.Event().wait(0.05)  # it finds the mailbox full now; if this machine is slower, nothing is tested

    loop.post(busy)
    assert fetch.result(WAIT_S) == {1: SAMPLE.chunks[1]}


def test_what_goes_wrong_unexpectedly_fails_who_waits_for_it(made, caplog):
    class Broken:
        """A cache that has a bug."""

        former = None

        def missing(self, chunks):
            return list(chunks)

        def store(self, nchunk, data, digest):
            raise RuntimeError("a bug")

    loop, asked, fetcher = made
    fetch = fetcher.begin(Target(KEY, SAMPLE.info, Broken()), [1])
    for attempt in range(3):
        loop.call(lambda n=attempt: fetcher.arrived(KEY.origin, asked.requests[n].request, reply(1)), WAIT_S)
        if attempt < 2:
            wait_for_request(loop, asked, attempt + 2)
    with pytest.raises(ZcatError, match="internal error"):
        fetch.result(WAIT_S)
    assert "a bug" in caplog.text


def wait_for_request(loop, asked, count):
    while loop.call(lambda: len(asked.requests), WAIT_S) < count:
        pass
