"""Workers of a subscriber: they read what it caches, and never serve what it would not."""

import contextlib
import json
import random
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from network import Network, eventually, fetched, read, write_array, write_file

from zcat.config import HttpConfig
from zcat.errors import Busy, DatasetUnknown, RootNotFollowed, Stale, StorageFailed, Unavailable
from zcat.http.app import make_app
from zcat.http.passing import WorkerApp, answer_passed
from zcat.http.server import HttpServer, bound
from zcat.limits import KIB
from zcat.model.reduction import parse_fit
from zcat.model.selection import key_of_text, parse_key
from zcat.services import worker_reads
from zcat.services.board import Board
from zcat.services.dataset import ReadLimits
from zcat.services.preview import PreviewAsk, PreviewLimits, plan_preview, read_preview
from zcat.services.worker_desk import WorkerDesk
from zcat.services.worker_reads import WorkerReads

SEEDS = 3
VERSIONS = 12
SHAPE, CHUNKS = (300, 400), (50, 50)
NCHUNKS = 48


def content(version):
    return np.full(SHAPE, version, "i4")


def replace(path, version):
    write_array(path, content(version), chunks=CHUNKS, blocks=(25, 25))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    replace(made / "x.b2nd", 0)
    return made


class Staff:
    """A subscriber, its desk, and workers in this very process: only their memory is not apart."""

    def __init__(self, tmp_path, folder):
        self.network = Network(tmp_path)
        self.network.broker()
        self.publisher = self.network.publisher("sst", folder)
        self._endpoint = f"ipc://{tmp_path}/desk"
        self._opened = []

    def begin(self, **changes):
        self.subscriber = self.network.subscriber(**changes)
        self.subscriber.follow("sst")
        self.board = Board.make()
        app = make_app(self.subscriber)
        self.desk = WorkerDesk(self.subscriber, self.board, self._endpoint, lambda one: answer_passed(app, one))
        return self

    def worker(self):
        reads = WorkerReads(self._endpoint, self.board, ReadLimits(1 << 20, 30.0))
        reads.start()
        self._opened.append(reads)
        return reads

    def server(self, reads):
        server = HttpServer(WorkerApp(reads, HttpConfig(), self.board.seat(0).counted), HttpConfig(port=0))
        server.start()
        self._opened.append(server)
        return server.url

    def close(self):
        for each in reversed(self._opened):
            each.close()
        self.desk.close()
        self.network.close()
        self.board.close()


@pytest.fixture
def staff(tmp_path, folder):
    made = Staff(tmp_path, folder)
    yield made
    made.close()


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def test_a_worker_reads_what_is_cached_and_has_the_rest_fetched_once(staff):
    staff.begin()
    one, two = staff.worker(), staff.worker()
    np.testing.assert_array_equal(read(one, "sst", "x.b2nd"), content(0))
    assert fetched(staff.subscriber) == NCHUNKS
    asked = staff.subscriber.health()["loop"]["messages"]
    for _ in range(5):
        np.testing.assert_array_equal(read(two, "sst", "x.b2nd", (slice(3, 140), 7)), content(0)[3:140, 7])
    np.testing.assert_array_equal(read(staff.subscriber, "sst", "x.b2nd"), content(0))
    assert fetched(staff.subscriber) == NCHUNKS
    assert staff.subscriber.health()["loop"]["messages"] - asked < 30  # its own pings, and one question


def test_cached_data_is_read_while_the_publisher_is_away(staff):
    staff.begin()
    worker = staff.worker()
    read(worker, "sst", "x.b2nd", (slice(0, 50),))
    staff.publisher.close()
    np.testing.assert_array_equal(read(worker, "sst", "x.b2nd", (slice(0, 50),)), content(0)[:50])
    with pytest.raises(Unavailable):
        eventually(lambda: read(worker, "sst", "x.b2nd", timeout_s=0.5) is None)


def test_a_worker_says_what_its_subscriber_would(staff):
    staff.begin()
    worker = staff.worker()
    with pytest.raises(DatasetUnknown):
        read(worker, "sst", "nothing.b2nd")
    read(worker, "sst", "x.b2nd", (0, 0))
    staff.subscriber.unfollow("sst")
    with pytest.raises(RootNotFollowed):
        read(worker, "sst", "x.b2nd", (0, 0))


def test_without_room_on_the_disk_chunks_come_in_messages(staff):
    staff.begin(quota_bytes=1)
    worker = staff.worker()
    np.testing.assert_array_equal(read(worker, "sst", "x.b2nd"), content(0))


def test_chunks_that_are_evicted_are_fetched_again(tmp_path, folder):
    rng = np.random.default_rng(1)
    values = write_array(folder / "noise.b2nd", rng.integers(0, 255, (64, 16 * KIB), "u1"), chunks=(1, 16 * KIB))
    staff = Staff(tmp_path, folder).begin(quota_bytes=600 * KIB)
    workers = [staff.worker() for _ in range(2)]

    def run(seed):
        chosen = random.Random(seed)
        for _ in range(60):
            low = chosen.randrange(60)
            part = read(workers[seed % 2], "sst", "noise.b2nd", (slice(low, low + chosen.randrange(1, 5)),))
            np.testing.assert_array_equal(part, values[low : low + len(part)])

    try:
        with ThreadPoolExecutor(4) as threads:
            for each in [threads.submit(run, seed) for seed in range(4)]:
                each.result()
        assert fetched(staff.subscriber) > 64
    finally:
        staff.close()


def test_what_was_brought_for_a_worker_stays_until_it_was_passed_on(staff, monkeypatch):
    def refuse(*_):
        raise StorageFailed("no descriptor is left")

    monkeypatch.setattr(worker_reads, "SharedDataset", refuse)
    staff.begin()
    real = staff.desk._gathered

    def gathered(route, id, bringing):
        bringing.target.cached.evict(1 << 30)  # as when others need the room just now
        return real(route, id, bringing)

    monkeypatch.setattr(staff.desk, "_gathered", gathered)
    np.testing.assert_array_equal(read(staff.worker(), "sst", "x.b2nd"), content(0))
    cached = staff.subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset._target.cached)
    cached.evict(1 << 30)
    assert len(cached.missing(np.arange(NCHUNKS))) == NCHUNKS  # nobody holds on to any of them


def test_a_file_that_the_cache_made_anew_is_found_again(staff):
    staff.begin()
    worker = staff.worker()
    read(worker, "sst", "x.b2nd", (slice(0, 50),))
    cache = staff.subscriber.around.cache
    for lineage in list(cache._lineages.values()):  # as when its room was needed while nobody had it open here
        for key in list(cache._recent):
            del cache._recent[key]
        cache._evict(lineage, 1 << 30)
    np.testing.assert_array_equal(read(worker, "sst", "x.b2nd"), content(0))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_worker_serves_a_version_that_is_older_than_one_that_was_served(seed, staff, folder):
    """Each reader takes a worker at random; what it sees may never be older than what anybody had seen before."""
    staff.begin()
    workers = [staff.worker() for _ in range(3)]
    stop, newest, faults = threading.Event(), [0], []

    def run(number):
        chosen = random.Random(seed * 100 + number)
        while not stop.is_set():
            before = newest[0]
            try:
                found = read(chosen.choice(workers), "sst", "x.b2nd", (slice(chosen.randrange(250), 290), 1))
            except (Stale, Busy):
                continue
            seen = np.unique(found)
            if len(seen) > 1 or seen[0] < before:
                faults.append((before, seen))
            newest[0] = max(newest[0], int(seen[0]))

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(run, number) for number in range(4)]
        try:
            for version in range(1, VERSIONS):
                replace(folder / "x.b2nd", version)
                if version % 3:
                    eventually(lambda wanted=version: newest[0] >= wanted)
        finally:
            stop.set()
        for each in runs:
            each.result()
    assert not faults
    assert newest[0] >= VERSIONS - 2


def test_every_route_works_at_a_worker(staff, folder):
    write_file(folder / "notes.txt", b"hello")
    staff.begin()
    eventually(lambda: len(staff.subscriber.entries("sst")) == 2)
    url = staff.server(staff.worker())
    assert json.loads(get(f"{url}/api/roots"))["sst"]["subscribed"]
    assert json.loads(get(f"{url}/api/list/sst")) == ["notes.txt", "x.b2nd"]
    assert json.loads(get(f"{url}/api/info/sst"))["nfiles"] == 2
    assert json.loads(get(f"{url}/api/info/sst/x.b2nd"))["shape"] == list(SHAPE)
    assert get(f"{url}/api/fetch/sst/x.b2nd?slice_=3,4&fmt=raw") == bytes(4)
    assert get(f"{url}/api/download/sst/notes.txt") == b"hello"
    assert b"zcat" in get(url + "/")
    head = urllib.request.Request(f"{url}/api/roots", method="HEAD")
    with urllib.request.urlopen(head, timeout=30) as answer:
        assert int(answer.headers["Content-Length"]) > 10
    post = urllib.request.Request(f"{url}/api/unsubscribe/sst", data=b"", method="POST")
    assert get(post) == b'"Ok"'
    for path, status in (("/api/nothing", 404), ("/api/fetch/sst/x.b2nd", 404), ("/api/info/..", 400)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(url + path)
        assert refused.value.code == status
        assert json.loads(refused.value.read())["code"]
    assert staff.board.seat(0).requests == 12


def test_a_worker_makes_previews_and_samples_what_is_not_cached(staff, folder):
    items = np.arange(300 * 400, dtype="i4").reshape(SHAPE)
    write_array(folder / "y.b2nd", items, chunks=CHUNKS, blocks=(25, 25))
    worker = staff.begin().worker()

    def preview(limits, key="...", **more):
        def work(dataset):
            read = parse_key(key_of_text(key), SHAPE)
            plan = plan_preview(dataset, PreviewAsk(read, parse_fit("6x8"), **more), limits)
            return plan.told, read_preview(dataset, plan)

        return worker.on_version("sst", "y.b2nd", work)

    assert eventually(lambda: worker.on_version("sst", "y.b2nd", lambda dataset: True), retried=DatasetUnknown)
    told, sample = preview(PreviewLimits(1, 1 << 30))
    assert (told.exact, told.chunks, sample.shape) == (False, 1, (1, 1))
    told, got = preview(PreviewLimits(1, 1 << 30), must_be_exact=True)
    assert (told.exact, told.chunks) == (True, NCHUNKS)
    np.testing.assert_array_equal(got, items.reshape(6, 50, 8, 50).mean((1, 3)))
    assert preview(PreviewLimits(1, 1 << 30))[0].exact  # since all of it is cached now


def test_servers_of_one_socket_have_equally_many_connections(tmp_path):
    listener = bound(HttpConfig(port=0))
    listener.listen()
    listener.setblocking(False)
    board = Board.make()
    seats = [board.seat(number) for number in range(2)]
    with contextlib.ExitStack() as stack:
        for seat in seats:
            server = HttpServer(hello, HttpConfig(port=0), listener.dup(), seat)
            server.start()
            stack.callback(server.close)
        eventually(lambda: not seats[1].is_ahead(0))
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=30))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert eventually(lambda: sum(seat.connections for seat in seats) == 20)
        assert min(seat.connections for seat in seats) >= 8
    listener.close()
    board.close()


def test_a_connection_waits_a_moment_only_for_a_server_that_has_fewer_and_is_stuck():
    board = Board.make()
    board.seat(1).tell(0)  # and it never accepts
    server = HttpServer(hello, HttpConfig(port=0), crowd=board.seat(0))
    server.start()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert not board.seat(2).is_ahead(0)
    server.close()
    board.close()


def hello(_environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def test_use_by_workers_counts_when_room_is_made(staff):
    staff.begin()
    worker = staff.worker()
    cached = staff.subscriber.on_version("sst", "x.b2nd", lambda dataset: dataset._target.cached)
    told, tell = [], cached.used
    cached.used = lambda chunks: (told.extend(chunks.tolist()), tell(chunks))
    read(worker, "sst", "x.b2nd")
    eventually(lambda: set(told) == set(range(NCHUNKS)))
    told.clear()
    cached._pins.evicted([])
    read(worker, "sst", "x.b2nd", (slice(0, 50), slice(0, 50)))
    eventually(lambda: told)
    assert told == [0]


def test_small_slices_come_in_blocks_to_workers_as_well(staff, folder):
    large = (np.random.default_rng(0).integers(0, 1000, 600 * 500).cumsum() % 65_521).reshape(600, 500)
    write_array(folder / "large.b2nd", large, chunks=(300, 500), blocks=(20, 125))
    staff.begin()
    worker = staff.worker()
    eventually(lambda: read(worker, "sst", "large.b2nd", np.s_[0, 0]) is not None)
    for key in (np.s_[290:310, 10:20], np.s_[([3, 599], [0, 499])], np.s_[299:301, 14:15]):
        assert np.array_equal(read(worker, "sst", "large.b2nd", key), large[key])
    parts = staff.subscriber.health()["fetched"]["parts"]
    assert (fetched(staff.subscriber), parts) == (0, 4)
    other = staff.worker()
    assert np.array_equal(read(other, "sst", "large.b2nd", np.s_[295:305, 12:18]), large[295:305, 12:18])
    assert staff.subscriber.health()["fetched"]["parts"] == parts
    assert np.array_equal(read(worker, "sst", "large.b2nd"), large)
    assert np.array_equal(read(other, "sst", "large.b2nd", np.s_[::7]), large[::7])
