"""A file that changes while it is read: each read sees one version, and no reader ever goes back."""

import threading
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest
from network import Network, eventually, paths, read, write_array

from zcat.errors import Busy, DatasetUnknown, NotFound, Stale, ZcatError

READERS = 3
VERSIONS = 16
SHAPE, CHUNKS = (300, 400), (50, 50)


def content(version):
    return np.full(SHAPE, version, "i4")


def replace(path, version):
    write_array(path, content(version), chunks=CHUNKS, blocks=(25, 25))


def rewrite(path, version):
    """Write in place, as a program does that knows nothing of its readers."""
    made = blosc2.asarray(content(version), urlpath=str(path), mode="w", chunks=CHUNKS, blocks=(25, 25))
    del made


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    replace(made / "x.b2nd", 0)
    return made


@pytest.fixture
def network(tmp_path, folder):
    made = Network(tmp_path)
    made.broker()
    made.publisher("sst", folder)
    yield made
    made.close()


class Reader:
    """Reads large slices until it is told to stop; keeps the versions that it saw, and what it was refused."""

    def __init__(self, subscriber, stop):
        self.seen, self.refused, self.mixed = [], [], []
        self._subscriber, self._stop = subscriber, stop

    def run(self):
        while not self._stop.is_set():
            try:
                result = read(self._subscriber, "sst", "x.b2nd", (slice(20, 290),), timeout_s=20.0)
            except ZcatError as error:
                self.refused.append(error)
                continue
            versions = np.unique(result)
            self.seen.append(int(versions[0]))
            if len(versions) > 1:
                self.mixed.append(versions)


@pytest.mark.parametrize("write", [replace, rewrite])
def test_every_read_sees_one_version_and_none_goes_back(write, network, folder):
    subscribers = [network.subscriber(name) for name in "ab"]
    for subscriber in subscribers:
        subscriber.follow("sst")
    stop = threading.Event()
    readers = [Reader(subscribers[number % 2], stop) for number in range(READERS)]
    with ThreadPoolExecutor(READERS) as threads:
        runs = [threads.submit(reader.run) for reader in readers]
        try:
            for version in range(1, VERSIONS):
                write(folder / "x.b2nd", version)
                if (
                    version % 2
                ):  # every other version lives until somebody has read it, the rest is replaced at once
                    eventually(lambda wanted=version: any(wanted in reader.seen for reader in readers))
            eventually(lambda: all(reader.seen and reader.seen[-1] == VERSIONS - 1 for reader in readers))
        finally:
            stop.set()
        for run in runs:
            run.result()
    for reader in readers:
        assert not reader.mixed
        assert reader.seen == sorted(reader.seen)
        assert {type(error) for error in reader.refused} <= {Stale, Busy}
    assert len({version for reader in readers for version in reader.seen}) >= VERSIONS // 2


def test_a_read_begins_anew_when_its_version_is_gone(network, folder):
    subscriber = network.subscriber()
    subscriber.follow("sst")
    tries = []

    def work(dataset):
        tries.append(dataset.version)
        if len(tries) == 1:
            replace(folder / "x.b2nd", 2)
        return dataset.chunk(5), int(dataset.version == tries[0])

    _, is_first = subscriber.on_version("sst", "x.b2nd", work)
    assert (len(tries), is_first) == (2, 0)
    assert read(subscriber, "sst", "x.b2nd", (0, 0)) == 2


def test_a_version_that_is_cached_whole_can_be_read_to_its_end(network, folder):
    subscriber = network.subscriber()
    subscriber.follow("sst")

    def work(dataset):
        dataset.fetch()
        replace(folder / "x.b2nd", 2)
        eventually(lambda: subscriber.entries("sst")[0].lineage != dataset.version.lineage)
        return [dataset.chunk(nchunk) for nchunk in range(dataset.info.geometry.nchunks)]

    assert len(subscriber.on_version("sst", "x.b2nd", work)) == 48
    assert read(subscriber, "sst", "x.b2nd", (0, 0)) == 2


def test_a_dataset_that_changes_at_every_try_is_said_to(network, folder):
    subscriber = network.subscriber()
    subscriber.follow("sst")
    tries = []

    def work(dataset):
        tries.append(dataset.version)
        replace(folder / "x.b2nd", len(tries))
        return dataset.chunk(0)

    with pytest.raises(Stale):
        subscriber.on_version("sst", "x.b2nd", work)
    assert 1 < len(tries) == len(set(tries)) < 10


def test_a_dataset_that_is_removed_is_unknown_until_it_is_there_again(network, folder):
    subscriber = network.subscriber()
    subscriber.follow("sst")

    def work(dataset):
        (folder / "x.b2nd").unlink(missing_ok=True)
        return dataset.chunk(0)

    with pytest.raises(DatasetUnknown):
        subscriber.on_version("sst", "x.b2nd", work)
    eventually(lambda: paths(subscriber, "sst") == [])
    with pytest.raises(DatasetUnknown):
        read(subscriber, "sst", "x.b2nd")
    replace(folder / "x.b2nd", 3)
    assert eventually(lambda: read(subscriber, "sst", "x.b2nd", (0, 0)), retried=NotFound) == 3
