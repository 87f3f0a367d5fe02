"""A file that is written anew costs the network what changed: the rest is taken from the former lineage."""

import os
import shutil
import threading

import blosc2
import numpy as np
import pytest
from network import eventually, read, write_array

from zcat.errors import Closed, VerbUnknown
from zcat.protocol.compare_messages import Compare
from zcat.services import adopting
from zcat.services.root_origin import RootOrigin

SHAPE, CHUNKS = (320, 400), (40, 400)
COUNT = 8


def content(changed=()):
    made = np.random.default_rng(0).normal(size=SHAPE)
    for nchunk in changed:
        made[nchunk * CHUNKS[0]] += 1
    return made


def write(folder, changed=(), chunks=CHUNKS):
    """Put a new file in the place of the old one; by one thread, since several order blocks as they are done."""
    cparams = {"nthreads": 1}
    write_array(folder / "x.b2nd", content(changed), chunks=chunks, blocks=(10, 400), cparams=cparams)


def update(folder, changed):
    """Change rows of chunks in a copy, and put it in the place of the file."""
    copy = folder.parent / "copy.b2nd"
    shutil.copy(folder / "x.b2nd", copy)
    array = blosc2.open(str(copy), mode="a")
    for nchunk in changed:
        array[nchunk * CHUNKS[0]] = content(changed)[nchunk * CHUNKS[0]]
    os.replace(copy, folder / "x.b2nd")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    write(made)
    return made


@pytest.fixture(autouse=True)
def published(network, folder):
    network.publisher("sst", folder)


def follower(network, **changes):
    subscriber = network.subscriber(**changes)
    subscriber.follow("sst")
    return subscriber


def see(subscriber, changed=()):
    """Read until it is the new version; say how many chunks came by wire, and how many from the former lineage."""
    before = subscriber.health()["fetched"]

    def is_new():
        return np.array_equal(read(subscriber, "sst", "x.b2nd", ()), content(changed))

    eventually(is_new)
    after = subscriber.health()["fetched"]
    return after["chunks"] - before["chunks"], after["adopted"] - before["adopted"]


def test_only_what_changed_is_fetched(network, folder):
    subscriber = follower(network)
    assert see(subscriber) == (COUNT, 0)

    write(folder, changed=[2, 5])
    assert see(subscriber, changed=[2, 5]) == (2, COUNT - 2)

    write(folder)
    assert see(subscriber) == (2, COUNT - 2)

    update(folder, changed=[3])
    assert see(subscriber, changed=[3]) == (1, COUNT - 1)


def test_a_subscriber_that_was_restarted_knows_what_it_has_of_the_former_lineage(network, folder):
    first = follower(network)
    see(first)
    first.close()
    write(folder, changed=[7])

    assert see(follower(network), changed=[7]) == (1, COUNT - 1)


def test_what_was_damaged_on_disk_meanwhile_is_fetched(network, folder):
    first = follower(network)
    see(first)
    path = first.on_version("sst", "x.b2nd", lambda dataset: dataset._target.cached.path)
    first.close()
    with path.open("r+b") as frame:
        frame.seek(path.stat().st_size // COUNT * 3 + 8192)  # behind the begin of the fourth slot
        frame.write(bytes(1024))
    write(folder, changed=[0])

    assert see(follower(network), changed=[0]) == (2, COUNT - 2)


def test_what_is_cut_in_another_way_is_not_compared(network, folder):
    subscriber = follower(network)
    see(subscriber)

    write(folder, changed=[0], chunks=(80, 400))

    assert see(subscriber, changed=[0]) == (COUNT // 2, 0)


def test_a_dataset_of_which_nothing_is_as_before_is_not_compared_to_its_end(network, folder, monkeypatch):
    monkeypatch.setattr(adopting, "IN_VAIN_MAX", 4)
    asked, real = [], RootOrigin.admit
    monkeypatch.setattr(RootOrigin, "admit", lambda self, message: (asked.append(message), real(self, message)))
    all_of_them = range(COUNT)
    chunk_bytes = content().nbytes // COUNT
    subscriber = follower(network, window_bytes=2 * chunk_bytes)
    see(subscriber)

    write(folder, changed=all_of_them)

    assert see(subscriber, changed=all_of_them) == (COUNT, 0)
    compared = [message.chunks for message in asked if isinstance(message, Compare)]
    assert 4 <= sum(map(len, compared)) < COUNT


def test_who_waits_for_a_comparison_hears_that_the_subscriber_is_closed(network, folder, monkeypatch):
    is_asked, go_on, real = threading.Event(), threading.Event(), RootOrigin._compare

    def compare(self, message):
        is_asked.set()
        go_on.wait(20)
        return real(self, message)

    monkeypatch.setattr(RootOrigin, "_compare", compare)
    subscriber = follower(network)
    see(subscriber)
    write(folder, changed=[1])
    eventually(lambda: subscriber.on_version("sst", "x.b2nd", lambda dataset: not dataset.complete))
    reading = network.in_background(lambda: read(subscriber, "sst", "x.b2nd", ()))
    assert is_asked.wait(20)
    subscriber.close()
    with pytest.raises(Closed):
        reading.result(10)
    go_on.set()


def test_an_origin_that_does_not_know_the_question_sends_the_chunks(network, folder, monkeypatch):
    asked, real = [], RootOrigin.admit

    def admit(self, message):
        if isinstance(message, Compare):
            asked.append(message)
            raise VerbUnknown("compare?")
        real(self, message)

    monkeypatch.setattr(RootOrigin, "admit", admit)
    subscriber = follower(network)
    see(subscriber)
    write(folder, changed=[1])
    assert see(subscriber, changed=[1]) == (COUNT, 0)
    write(folder, changed=[2])
    assert see(subscriber, changed=[2]) == (COUNT, 0)
    assert len(asked) == 1
