"""The Python interface over the real HTTP server, and over servers that are none, or not well."""

import contextlib
import http.server
import json
import multiprocessing
import operator
import pickle  # noqa: TID251  # users and dask do it; zcat itself never does
import socket
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from held_datasets import example_roots, held_array, held_bytes

import zcat
from zcat.client.client import Client
from zcat.client.http_backend import HttpBackend
from zcat.config import HttpConfig
from zcat.errors import (
    BadMessage,
    BadSelection,
    Busy,
    Closed,
    DatasetUnknown,
    RootNotFollowed,
    Stale,
    Timeout,
    Unavailable,
)
from zcat.http.app import make_app
from zcat.http.server import HttpServer
from zcat.model.dataset import Kind

WAIT_S = 20.0
CUBE = np.arange(30 * 40 * 50, dtype="<i4").reshape(30, 40, 50)
SUBARRAYS = np.array([(i, (i, i / 2, -i)) for i in range(50)], [("n", "<i8"), ("v", ">f4", (3,))])


@contextlib.contextmanager
def serving(app):
    server = HttpServer(app, HttpConfig(port=0, threads=4))
    server.start()
    try:
        yield server.url
    finally:
        server.close()


class Counting:
    """Counts the requests of an app, names versions where the app does not, and lets a test act in between."""

    def __init__(self, held, names_versions=True):
        self.held = held
        self.requests = []
        self.names_versions = names_versions
        self.before = {}  # number of a request: what to do before it
        self._app = make_app(held)

    def __call__(self, env, start):
        self.requests.append(env["PATH_INFO"].encode("latin-1").decode())
        self.before.pop(len(self.requests), lambda: None)()

        def named(status, headers, *rest):
            if not self.names_versions:
                headers = [header for header in headers if header[0].lower() != "x-zcat-version"]
            return start(status, headers, *rest)

        return self._app(env, named)


@pytest.fixture(scope="module")
def held():
    roots = example_roots()
    more = [
        held_array("cube.b2nd", CUBE, (7, 11, 50)),
        held_array("subarrays.b2nd", SUBARRAYS, (20,)),
        held_array("empty.b2nd", np.empty((0, 4), "f8")),
        held_bytes("large.bin", bytes(range(256)) * 60_000, chunksize=1 << 20),
        held_bytes("wide.b2frame", bytes(range(240)), Kind.FRAME, 120, 12),
    ]
    roots.datasets["lab"].update({each.info.entry.path: each for each in more})
    return roots


@pytest.fixture(scope="module")
def url(held):
    with serving(make_app(held, frame_of=operator.methodcaller("frame"))) as url:
        yield url


@pytest.fixture
def client(url):
    with zcat.connect(url, timeout_s=WAIT_S) as client:
        yield client


@contextlib.contextmanager
def counted(names_versions=True, **arrays):
    """Serve arrays of one's own; give the app, the held root and a client."""
    roots = example_roots()
    roots.datasets["lab"].update({name: held_array(name, array) for name, array in arrays.items()})
    app = Counting(roots, names_versions)
    with serving(app) as url, Client(HttpBackend(url, WAIT_S, part_bytes=CUBE.nbytes // 2)) as client:
        yield app, roots, client


# -- what is there -----------------------------------------------------------------------------------


def test_roots_and_datasets_are_as_the_subscriber_has_them(client, held):
    assert [(root.name, root.followed) for root in client.roots()] == [("lab", True), ("other", False)]
    assert list(client["lab"]) == sorted(held.datasets["lab"])
    assert client.health()["status"] == "ok"
    dataset = client["lab/ds-1d.b2nd"]
    own = held.datasets["lab"]["ds-1d.b2nd"].info
    assert dataset.attrs == {"a": 1, "b": "foo", "nan": None}
    assert dataset.info.geometry == own.geometry
    assert dataset.info.compression == own.compression
    assert dataset.info.entry == own.entry
    assert dataset.version == own.version.text


def test_every_dataset_reads_as_it_is(client, held):
    for path, own in held.datasets["lab"].items():
        dataset = client["lab"][path]
        if isinstance(dataset, zcat.Array):
            np.testing.assert_array_equal(np.asarray(dataset), own.content, strict=True)
        else:
            assert bytes(dataset) == own.content


def test_a_folder_and_its_only_dataset_may_have_one_name():
    with counted(**{"data/data": np.zeros(3), "alone": np.zeros(2)}) as (_, _, client):
        assert [entry.path for entry in client.list("lab/data")] == ["data/data"]
        assert [entry.path for entry in client.list("lab/data/data")] == ["data/data"]
        assert [entry.path for entry in client.list("lab/alone")] == ["alone"]
        assert client.list("lab/dir1")[0].mtime_ns == 1_790_000_000_123_456_000
        assert "data" not in client["lab"]


def test_roots_are_followed_and_unfollowed():
    with counted() as (_, roots, client):
        with pytest.raises(RootNotFollowed):
            client["other/x"]
        assert client.follow("other").followed
        assert len(client["other"]) == 0
        client["other"].unfollow()
        assert not roots.views["other"].followed


def test_errors_are_those_of_the_subscriber(client):
    with pytest.raises(DatasetUnknown, match="no dataset"):
        client["lab/nothing"]
    with pytest.raises(DatasetUnknown, match="folder"):
        client["lab/dir1"]


# -- reads -------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(3)
KEYS = [
    (),
    ...,
    5,
    (slice(3, 20, 4), slice(None, None, -1)),
    (slice(None), 7, slice(40, 10, -3)),
    (None, 1, ..., 2),
    (3, 4, 5),
    [4, 4, 29, 0],
    ([1, 2], slice(None), [3, 4]),
    (np.array([[0, 5], [9, 1]]), 3),
    np.ix_([29, 0, 3], [39, 5], [1, 30, 8]),
    tuple(RANDOM.integers(0, 30, (3, 6000))),
    CUBE % 17 == 0,
    CUBE > 59_990,
    (slice(None), [0, 13, 22, 39]),
]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_keys_of_all_kinds_give_what_numpy_gives(client, key):
    answer = client["lab/cube.b2nd"][key]
    wanted = CUBE[key]
    assert type(answer) is type(wanted)
    np.testing.assert_array_equal(answer, wanted, strict=True)


@pytest.mark.parametrize("name", ["n", "v", ["v"], ["v", "n"]])
@pytest.mark.parametrize("key", [..., slice(3, 40, 7), 5, [9, 2], np.arange(50) > 47])
def test_fields_are_read_alone_or_together(client, name, key):
    answer = client["lab/subarrays.b2nd"][name, key]
    np.testing.assert_array_equal(answer, SUBARRAYS[key][name])


def test_a_field_of_any_name_is_read(client, held):
    answer = client["lab/ds-1d-fields.b2nd"]["naïve", 5:9]
    np.testing.assert_array_equal(answer, [b"foobar5", b"foobar6", b"foobar7", b"foobar8"])


def test_a_large_read_is_several_answers_put_together():
    with counted(x=CUBE) as (app, _, client):
        dataset = client["lab/x"]
        app.requests.clear()
        np.testing.assert_array_equal(dataset[...], CUBE, strict=True)
        assert set(app.requests) == {"/api/fetch/lab/x"}
        assert len(app.requests) > 1
        few = np.array([5, 1, 28, 2])
        np.testing.assert_array_equal(dataset[:, :, few], CUBE[:, :, few], strict=True)
        np.testing.assert_array_equal(dataset[np.ix_(few, few, few)], CUBE[np.ix_(few, few, few)], strict=True)


@pytest.mark.parametrize("span", [(0, None), (1000, -7), (10, 11)])
def test_bytes_are_read_from_anywhere(client, held, span):
    for path in ("large.bin", "wide.b2frame", "numbers.b2frame", "README.md"):
        assert client["lab"][path].read(*span) == held.datasets["lab"][path].content[slice(*span)]


def test_threads_share_a_client(client):
    dataset = client["lab/cube.b2nd"]
    with ThreadPoolExecutor(8) as pool:
        for row, answer in enumerate(pool.map(lambda row: dataset[row], range(30))):
            np.testing.assert_array_equal(answer, CUBE[row])


def read_first(dataset):
    return dataset[0, 0, :3].tolist()


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_other_processes_read_over_connections_of_their_own(client, how):
    dataset = client["lab/cube.b2nd"]
    assert read_first(dataset) == [0, 1, 2]  # a connection is open
    with multiprocessing.get_context(how).Pool(2) as pool:
        assert pool.map(read_first, [dataset] * 4) == [[0, 1, 2]] * 4
    assert read_first(dataset) == [0, 1, 2]


def test_a_pickled_dataset_reads_what_the_sender_saw_or_nothing():
    with counted(x=np.zeros(5)) as (_, roots, client):
        arrived = pickle.loads(pickle.dumps(client["lab/x"]))
        np.testing.assert_array_equal(arrived[:], np.zeros(5))
        roots.datasets["lab"]["x"] = held_array("x", np.ones(5))
        with pytest.raises(Stale):
            arrived[:]


# -- versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_versions", [True, False])
def test_a_read_of_several_answers_begins_anew_when_the_dataset_moves_on(names_versions):
    with counted(names_versions, x=CUBE) as (app, roots, client):
        dataset = client["lab/x"]
        other = held_array("x", CUBE + 1)
        app.before[len(app.requests) + 2] = lambda: roots.datasets["lab"].update(x=other)
        np.testing.assert_array_equal(dataset[...], CUBE + 1, strict=True)
        assert dataset.version == other.info.version.text


@pytest.mark.parametrize("names_versions", [True, False])
def test_a_pinned_dataset_is_told_at_once_that_its_version_is_gone(names_versions):
    with counted(names_versions, x=np.zeros(5)) as (_, roots, client):
        dataset = client["lab/x"].pin()
        roots.datasets["lab"]["x"] = held_array("x", np.ones(5))
        with pytest.raises(Stale, match="pinned"):
            dataset[2]


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros(9), np.zeros(5, "f4"), np.zeros((5, 1))])
@pytest.mark.parametrize("key", [slice(None), slice(4, 5), [4, 0, 4]])
def test_a_dataset_of_another_form_is_never_taken_for_the_former(other, key):
    with counted(x=np.ones(5)) as (_, roots, client):
        dataset = client["lab/x"]
        roots.datasets["lab"]["x"] = held_array("x", other)
        with pytest.raises(Stale, match="refresh"):
            dataset[key]


def test_a_key_that_does_not_fit_is_refused_without_a_question():
    with counted(x=np.ones(5)) as (app, _, client):
        dataset = client["lab/x"]
        app.requests.clear()
        with pytest.raises(BadSelection):
            dataset[7]
        assert dataset[3:3].shape == (0,)
        assert app.requests == []


# -- downloads ---------------------------------------------------------------------------------------


def test_downloads_are_the_files(client, held, tmp_path):
    assert client["lab/large.bin"].download(tmp_path).read_bytes() == held.datasets["lab"]["large.bin"].content
    own = held.datasets["lab"]["cube.b2nd"]
    assert client["lab/cube.b2nd"].download(tmp_path).read_bytes() == own.cframe


def test_a_download_that_is_broken_off_goes_on_where_it_was(client, held, tmp_path):
    dataset = client["lab/large.bin"]

    class Enough(Exception):
        pass

    def stop(done, _total):
        if done > 5_000_000:
            raise Enough

    with pytest.raises(Enough):
        dataset.download(tmp_path, progress=stop)
    begun = (tmp_path / "large.bin.part").stat().st_size
    told = []
    dataset.download(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert (tmp_path / "large.bin").read_bytes() == held.datasets["lab"]["large.bin"].content
    assert begun >= 5_000_000
    assert told[0][0] > begun - 1
    assert told[-1] == (15_360_000, 15_360_000)


def test_an_answer_that_is_cut_is_asked_for_once_more(held):
    cuts = iter([1, 0, 1, 1])  # of what follows the description: cut, whole, and twice cut

    def cutting(env, start):
        body = b"".join(app(env, start))
        is_cut = "fetch" in env["PATH_INFO"] and next(cuts)
        return [body[:-10] if is_cut else body]

    app = make_app(held)
    with serving(cutting) as url, zcat.connect(url) as client:
        np.testing.assert_array_equal(client["lab/cube.b2nd"][3], CUBE[3])
        with pytest.raises(Unavailable):
            client["lab/cube.b2nd"][3]


# -- servers that are not well -----------------------------------------------------------------------


@contextlib.contextmanager
def answering(handle):
    """Serve connections with a function of (connection, number of the connection)."""
    numbers = iter(range(1000))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            handle(self.request, next(numbers))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def answer(body, status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_nobody_there_is_told_with_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Unavailable, match="zcat subscribe"):
        zcat.connect(url).roots()


def test_a_server_that_says_nothing_is_waited_for_as_long_as_was_said():
    done = threading.Event()
    with answering(lambda connection, _: done.wait(WAIT_S)) as url:
        with pytest.raises(Timeout, match=r"0\.1 s"):
            zcat.connect(url, timeout_s=0.1).roots()
        done.set()


def test_a_connection_that_was_closed_while_idle_is_made_again():
    served = []

    def once(connection, number):
        connection.recv(10_000)
        served.append(number)
        connection.sendall(answer(b"{}"))  # and closes, without having said so

    with answering(once) as url, zcat.connect(url, timeout_s=WAIT_S) as client:
        assert [client.roots(), client.roots(), client.roots()] == [[], [], []]
    assert served == [0, 1, 2]


def test_a_server_that_hangs_up_is_asked_twice_and_then_given_up():
    asked = []

    def hang_up(connection, number):
        connection.recv(10_000)
        asked.append(number)

    with answering(hang_up) as url, pytest.raises(Unavailable):
        zcat.connect(url, timeout_s=WAIT_S).roots()
    assert asked == [0, 1]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(b"<html>hello</html>"), BadMessage),
        (answer(b"[1, 2]"), BadMessage),
        (answer(b"<html>no</html>", "404 Not Found"), Unavailable),
        (answer(b"[]", "500 Internal Server Error"), Unavailable),
        (answer(b"", "307 Temporary Redirect", Location="http://127.0.0.1:9/"), BadMessage),
        (answer(json.dumps({"code": "busy", "message": "m"}).encode(), "503 Busy"), Busy),
        (answer(json.dumps({"code": "of-tomorrow", "message": "m"}).encode(), "400 Bad"), zcat.ZcatError),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Unavailable),
    ],
)
def test_what_a_subscriber_would_not_say_is_told_as_such(reply, error):
    def handle(connection, _number):
        connection.recv(10_000)
        connection.sendall(reply)

    with answering(handle) as url, pytest.raises(error) as raised:
        zcat.connect(url, timeout_s=WAIT_S).roots()
    assert raised.type is error


class Broken(http.server.BaseHTTPRequestHandler):
    """Passes requests on to an app's server, and spoils the answers to reads."""

    protocol_version = "HTTP/1.1"
    spoil = staticmethod(lambda body: body)
    origin = None

    def do_GET(self):
        with socket.create_connection(self.origin) as there:
            there.sendall(f"GET {self.path} HTTP/1.0\r\n\r\n".encode())
            data = b"".join(iter(lambda: there.recv(65536), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        spoiled = self.spoil(body) if "/fetch/" in self.path else body
        self.wfile.write(head + b"\r\nConnection: close\r\n\r\n" + spoiled)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda body: body[:-1], Unavailable),
        (lambda body: body[:20], Unavailable),
        (lambda body: b"\x07" + body[1:], zcat.ZcatError),
        (lambda body: body[:4] + b"\xff\xff\xff\x7f" + body[8:], zcat.ZcatError),
    ],
)
def test_a_spoiled_answer_is_refused_and_the_client_goes_on(url, spoil, error):
    host, port = url.removeprefix("http://").split(":")
    handler = type("Spoiling", (Broken,), {"spoil": staticmethod(spoil), "origin": (host, int(port))})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with zcat.connect(f"http://127.0.0.1:{server.server_address[1]}", timeout_s=WAIT_S) as client:
            dataset = client["lab/cube.b2nd"]
            with pytest.raises(error):
                dataset[1]
            assert client["lab/cube.b2nd"].shape == CUBE.shape
        server.shutdown()


def test_a_closed_client_says_so(url):
    client = zcat.connect(url)
    dataset = client["lab/cube.b2nd"]
    client.close()
    with pytest.raises(Closed, match=r"zcat\.connect"):
        dataset[0]
