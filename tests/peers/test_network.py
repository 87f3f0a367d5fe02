"""Everything together, as its users see it: follow, list, read, change, restart."""

import logging
import os
import subprocess
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest
from network import (
    Network,
    eventually,
    fetched,
    is_synced,
    paths,
    read,
    write_array,
    write_file,
    write_frame,
)

from zcat.errors import DatasetUnknown, RootNotFollowed, RootUnknown, Unavailable
from zcat.limits import KIB, MIB
from zcat.protocol.follower import FollowerLimits
from zcat.services import announcing, broker_in_use
from zcat.services.frame_view import FrameView


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def noise(shape, dtype="u2", seed=1):
    return np.random.default_rng(seed).integers(0, 60_000, shape).astype(dtype)


KEYS = (
    (slice(None),),
    (3,),
    (..., 0),
    (slice(5, 40, 3), slice(None, None, -2), 7),
    ([1, 5, 38], slice(2, 9)),
    (slice(0, 0),),
    (np.array([4, 0, 4]), np.array([1, 2, 3]), np.array([0, 9, 19])),
)


def test_what_is_read_equals_what_is_published(network, folder):
    cube = write_array(folder / "cube.b2nd", noise((40, 30, 20)), chunks=(16, 16, 16), blocks=(8, 8, 4))
    record = np.zeros(100, [("a", "<i4"), ("b", "S5")])
    record["a"] = np.arange(100)
    write_array(folder / "deep" / "er" / "record.b2nd", record, chunks=(30,), blocks=(10,))
    scalar = write_array(folder / "scalar.b2nd", np.array(3.5))
    nothing = write_array(folder / "nothing.b2nd", np.zeros((0, 4)))
    frame = write_frame(folder / "bytes.b2frame", os.urandom(70_001), chunksize=10_000)
    file = write_file(folder / "read me.txt", b"plain " * 5000)
    empty = write_file(folder / "empty", b"")
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber()

    view = subscriber.follow("sst")
    assert (view.name, view.state, view.datasets, view.synced) == ("sst", "live", 7, True)
    assert paths(subscriber, "sst") == [
        "bytes.b2frame", "cube.b2nd", "deep/er/record.b2nd", "empty", "nothing.b2nd", "read me.txt", "scalar.b2nd",
    ]  # fmt: skip
    assert paths(subscriber, "sst", "deep") == ["deep/er/record.b2nd"]
    info = subscriber.on_version("sst", "cube.b2nd", lambda dataset: dataset.info)
    assert info.geometry.array.shape == cube.shape
    assert info.geometry.array.chunks == (16, 16, 16)
    for key in KEYS:
        np.testing.assert_array_equal(read(subscriber, "sst", "cube.b2nd", key), cube[key], str(key))
    mask = cube > 50_000
    np.testing.assert_array_equal(read(subscriber, "sst", "cube.b2nd", (mask,)), cube[mask])
    np.testing.assert_array_equal(read(subscriber, "sst", "deep/er/record.b2nd"), record)
    np.testing.assert_array_equal(read(subscriber, "sst", "scalar.b2nd"), scalar)
    np.testing.assert_array_equal(read(subscriber, "sst", "nothing.b2nd"), nothing)
    assert read(subscriber, "sst", "bytes.b2frame") == frame
    assert read(subscriber, "sst", "read me.txt") == file
    assert read(subscriber, "sst", "empty") == empty
    assert subscriber.health()["status"] == "ok"


def test_a_whole_dataset_can_be_taken_away_as_a_frame(network, folder):
    cube = write_array(folder / "cube.b2nd", noise((40, 30, 20)), chunks=(16, 16, 16), blocks=(8, 8, 4))
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    cold = subscriber.on_version("sst", "cube.b2nd", lambda dataset: b"".join(FrameView(dataset).iter_bytes()))
    warm = subscriber.on_version("sst", "cube.b2nd", lambda dataset: b"".join(FrameView(dataset).iter_bytes()))
    assert cold == warm
    np.testing.assert_array_equal(blosc2.ndarray_from_cframe(cold)[:], cube)


def test_two_roots_do_not_mix(network, tmp_path):
    values = {root: write_array(tmp_path / root / "x.b2nd", noise(50, seed=n)) for n, root in enumerate("ab")}
    network.broker()
    for root in values:
        network.publisher(root, tmp_path / root)
    subscriber = network.subscriber()
    for root in values:
        subscriber.follow(root)
    for root, wanted in values.items():
        np.testing.assert_array_equal(read(subscriber, root, "x.b2nd"), wanted)
    assert [view.name for view in subscriber.roots()] == ["a", "b"]


def test_following_does_not_wait_for_a_second_ping(network, folder):
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    durations_s = []
    for _ in range(4):  # of which one at least is not kept waiting by something else on this machine
        begun_s = time.monotonic()
        subscriber.follow("sst")
        durations_s.append(time.monotonic() - begun_s)
        subscriber.unfollow("sst")
    assert min(durations_s) < FollowerLimits().ping_every_s / 2


def test_a_root_may_be_wanted_before_its_publisher_exists(network, folder):
    values = write_array(folder / "x.b2nd", noise(50))
    network.broker()
    standing = network.subscriber("standing", follow=("later",))
    asking = network.subscriber("asking")
    with pytest.raises(RootUnknown, match="later"):
        asking.follow("later", timeout_s=0.2)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(asking.follow, "later", timeout_s=1.5)
        network.publisher("later", folder)
        assert waiting.result().synced
    eventually(lambda: is_synced(standing, "later"))
    for subscriber in (standing, asking):
        np.testing.assert_array_equal(read(subscriber, "later", "x.b2nd"), values)


def test_a_root_that_is_not_followed_any_more_is_forgotten(network, folder):
    values = write_array(folder / "x.b2nd", noise(50))
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    read(subscriber, "sst", "x.b2nd")
    subscriber.unfollow("sst")
    with pytest.raises(RootNotFollowed, match="zcat follow sst"):
        read(subscriber, "sst", "x.b2nd")
    with pytest.raises(RootNotFollowed):
        subscriber.unfollow("sst")
    assert [view.followed for view in subscriber.roots()] == [False]
    with pytest.raises(RootUnknown):
        subscriber.unfollow("never")
    subscriber.close()

    again = network.subscriber()
    assert not any(view.followed for view in again.roots())
    again.follow("sst")
    np.testing.assert_array_equal(read(again, "sst", "x.b2nd"), values)
    assert fetched(again) == 0  # its chunks had stayed


def test_without_a_network_what_is_cached_is_served_and_the_rest_is_said_to_be_missing(network, folder):
    values = write_array(folder / "x.b2nd", noise(1000), chunks=(100,), blocks=(50,))
    write_array(folder / "never read.b2nd", noise(10))
    broker = network.broker()
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber(quiet_after_s=3.0)
    subscriber.follow("sst")
    read(subscriber, "sst", "x.b2nd", (slice(100, 300),))
    publisher.close()
    broker.close()

    def check(subscriber):
        np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd", (slice(120, 280),)), values[120:280])
        assert paths(subscriber, "sst") == ["never read.b2nd", "x.b2nd"]
        with pytest.raises(Unavailable, match=r"publisher of root sst does not answer"):
            read(subscriber, "sst", "x.b2nd", (slice(290, 310),))
        with pytest.raises(Unavailable, match=r"publisher of root sst does not answer"):
            read(subscriber, "sst", "never read.b2nd")
        with pytest.raises(DatasetUnknown, match="no such dataset"):
            read(subscriber, "sst", "nowhere")

    check(subscriber)  # waits until the publisher counts as away
    assert subscriber.health()["status"] == "degraded"
    subscriber.close()

    restarted = network.subscriber()
    check(restarted)
    view = restarted.follow("sst")
    assert (view.state, view.synced, view.datasets) == ("cached", False, 2)
    with pytest.raises(Unavailable, match="no broker answers"):
        restarted.follow("other", timeout_s=0.1)


def test_services_that_no_broker_answers_say_so_once(network, folder, caplog, monkeypatch):
    for module in (announcing, broker_in_use):
        monkeypatch.setattr(module, "SILENT_S", 0.02)
    nowhere = ("tcp://127.0.0.1:1",)

    def told():
        return [record.getMessage() for record in caplog.records if "no broker" in record.getMessage()]

    with caplog.at_level(logging.WARNING):
        network.publisher("sst", folder, brokers=nowhere)
        subscriber = network.subscriber(brokers=nowhere)
        eventually(lambda: len(told()) == 2)
    assert all("brokers=tcp://127.0.0.1:1" in line for line in told())
    with pytest.raises(Unavailable, match="no broker answers"):
        subscriber.entries("sst")


def test_changes_of_the_folder_are_seen_by_its_followers(network, folder):
    for name in ("stays", "changes", "goes"):
        write_array(folder / "old" / f"{name}.b2nd", noise(50))
    network.broker()
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")

    new = write_array(folder / "old" / "new.b2nd", noise(60, seed=2))
    changed = write_array(folder / "old" / "changes.b2nd", noise(70, seed=3))
    (folder / "old" / "goes.b2nd").unlink()
    eventually(lambda: {e.path: e.shape for e in subscriber.entries("sst")} == {
        "old/stays.b2nd": (50,), "old/changes.b2nd": (70,), "old/new.b2nd": (60,)
    })  # fmt: skip
    np.testing.assert_array_equal(read(subscriber, "sst", "old/new.b2nd"), new)
    np.testing.assert_array_equal(read(subscriber, "sst", "old/changes.b2nd"), changed)
    with pytest.raises(DatasetUnknown):
        read(subscriber, "sst", "old/goes.b2nd")

    (folder / "old").rename(folder / "renamed")
    eventually(
        lambda: paths(subscriber, "sst") == [f"renamed/{name}.b2nd" for name in ("changes", "new", "stays")]
    )
    np.testing.assert_array_equal(read(subscriber, "sst", "renamed/changes.b2nd"), changed)
    stats = publisher.stats()
    eventually(lambda: subscriber.roots()[0].seq == stats["seq"])


def test_a_chunk_that_many_want_at_once_is_fetched_once(network, folder):
    values = write_array(folder / "x.b2nd", noise(200_000), chunks=(20_000,), blocks=(2_000,))
    network.broker()
    publisher = network.publisher("sst", folder)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset.info)
    before = publisher.stats()["answers"]
    readers = 16
    together = threading.Barrier(readers)

    def work(_):
        together.wait()
        return read(subscriber, "sst", "x.b2nd", (slice(None, None, 7),))

    with ThreadPoolExecutor(readers) as threads:
        for result in threads.map(work, range(readers)):
            np.testing.assert_array_equal(result, values[::7])
    assert fetched(subscriber) == 10
    assert publisher.stats()["answers"] - before == 10


def test_a_read_larger_than_the_window_goes_on_window_by_window(network, folder):
    values = write_array(folder / "x.b2nd", noise((100, 100)), chunks=(10, 10), blocks=(5, 5))
    content = write_frame(folder / "y.b2frame", os.urandom(50_000), chunksize=1000)
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber(window_bytes=1000, credit_bytes=2 * KIB)
    subscriber.follow("sst")
    np.testing.assert_array_equal(
        read(subscriber, "sst", "x.b2nd", (slice(3, 98), slice(1, None, 2))), values[3:98, 1::2]
    )
    picked = np.random.default_rng(2).integers(0, 100, (2, 500))
    np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd", tuple(picked)), values[tuple(picked)])
    assert read(subscriber, "sst", "y.b2frame") == content


def test_with_a_tiny_quota_reads_go_on_uncached(network, folder):
    values = write_array(folder / "x.b2nd", noise(MIB, "u1"), chunks=(64 * KIB,), blocks=(8 * KIB,))
    network.broker()
    network.publisher("sst", folder)
    for name, quota_bytes in (("none", 0), ("some", 256 * KIB)):
        subscriber = network.subscriber(name, quota_bytes=quota_bytes)
        subscriber.follow("sst")
        for _ in range(2):
            np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), values)
            np.testing.assert_array_equal(
                read(subscriber, "sst", "x.b2nd", (slice(7, None, 70_000),)), values[7::70_000]
            )
        assert subscriber.health()["cache"]["used_bytes"] <= quota_bytes


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4 * KIB))


def test_with_a_full_disk_reads_go_on_uncached_and_say_so_once(small_disk, network, folder, caplog):
    values = write_array(folder / "x.b2nd", noise(2 * MIB, "u1"), chunks=(128 * KIB,), blocks=(16 * KIB,))
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber(cache=str(small_disk / "cache"))
    subscriber.follow("sst")
    with pytest.raises(OSError, match="No space"):
        fill(small_disk / "of somebody else")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(read(subscriber, "sst", "x.b2nd"), values)
    assert len([record for record in caplog.records if "uncached" in record.getMessage()]) == 1
    (small_disk / "of somebody else").unlink()
    subscriber.close()
    again = network.subscriber(cache=str(small_disk / "cache"))
    eventually(lambda: is_synced(again, "sst"))
    np.testing.assert_array_equal(read(again, "sst", "x.b2nd"), values)


def test_a_dataset_of_a_million_chunks_costs_few_bytes_for_each(network, folder):
    nchunks, chunk = 1_000_000, 64
    made = blosc2.zeros(
        (nchunks * chunk,), "u1", chunks=(chunk,), blocks=(chunk,), urlpath=str(folder / "big.b2nd")
    )
    made[5 * chunk : 7 * chunk] = 7
    del made
    network.broker()
    network.publisher("sst", folder)
    subscriber = network.subscriber(fetch_timeout_s=60.0)
    tracemalloc.start()
    try:
        subscriber.follow("sst", timeout_s=30.0)
        before_bytes, _ = tracemalloc.get_traced_memory()
        got = read(subscriber, "sst", "big.b2nd", (slice(5 * chunk - 2, 5 * chunk + 2),))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(got, [0, 0, 7, 7])
    assert peak_bytes - before_bytes < 100 * nchunks
