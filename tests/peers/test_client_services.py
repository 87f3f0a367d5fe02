"""The Python interface on a real network: over HTTP, and joined to it without."""

import contextlib
import pickle  # noqa: TID251  # users and dask do it; zcat itself never does
from pathlib import Path

import blosc2
import numpy as np
import pytest
from network import Network, eventually, write_array, write_file, write_frame

import zcat
from zcat.config import HttpConfig
from zcat.errors import BadSelection, CacheInUse, DatasetUnknown, NotReadable, RootNotFollowed, RootUnknown, Stale
from zcat.http.app import make_app
from zcat.http.server import HttpServer

CUBE = np.arange(30 * 40 * 50, dtype="<i4").reshape(30, 40, 50)
TABLE = np.array([(i, (i, i / 2), b"x%d" % i) for i in range(500)], [("n", "<i8"), ("v", "f4", (2,)), ("s", "S4")])
TEXT = "größer\n".encode() * 30_000
HELLO = b"Hello world!" * 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    write_array(folder / "sub" / "cube.b2nd", CUBE, chunks=(7, 20, 50), blocks=(3, 10, 25))
    write_array(folder / "table.b2nd", TABLE, chunks=(100,))
    write_array(folder / "scalar.b2nd", np.array(7.5))
    write_array(folder / "empty.b2nd", np.empty((0, 3)))
    write_frame(folder / "hello.b2frame", HELLO, 100)
    write_file(folder / "notes.txt", TEXT)
    (folder / "broken.b2nd").write_bytes(b"no frame at all")
    return folder


@pytest.fixture(scope="module")
def network(folder, tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.broker()
        network.publisher("lab", folder)
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def http_client(network):
    subscriber = network.subscriber("http")
    server = HttpServer(make_app(subscriber), HttpConfig(port=0, threads=2))
    server.start()
    try:
        with zcat.connect(server.url) as client:
            client.follow("lab")
            yield client
    finally:
        server.close()


@pytest.fixture(scope="module")
def joined_client(network):
    with zcat.join(network.endpoints, follow="lab") as client:
        yield client


@pytest.fixture(params=["http", "joined"])
def client(request):
    return request.getfixturevalue(f"{request.param}_client")


def test_a_root_shows_what_lies_in_the_folder(client):
    root = client["lab"]
    wanted = [
        "broken.b2nd",
        "empty.b2nd",
        "hello.b2frame",
        "notes.txt",
        "scalar.b2nd",
        "sub/cube.b2nd",
        "table.b2nd",
    ]
    assert list(root) == wanted
    assert (root.state, root.followed, len(root)) == ("live", True, 7)
    assert "sub/cube.b2nd" in root
    assert "broken.b2nd" in root
    assert "sub" not in root
    assert "cube.b2nd  (30, 40, 50) <i4" in root.tree()
    assert [entry.path for entry in client.list("lab/sub")] == ["sub/cube.b2nd"]
    assert client.health()["status"] == "ok"


KEYS = [
    (),
    5,
    (slice(3, 20, 4), slice(None, None, -1)),
    [4, 4, 29],
    np.ix_([29, 0], [39, 5], [1, 30]),
    CUBE > 59_000,
]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_keys_give_what_numpy_gives(client, key):
    np.testing.assert_array_equal(client["lab/sub/cube.b2nd"][key], CUBE[key], strict=True)


def test_all_kinds_of_datasets_are_read(client):
    root = client["lab"]
    np.testing.assert_array_equal(root["table.b2nd"]["v", 10:20], TABLE["v"][10:20], strict=True)
    np.testing.assert_array_equal(root["table.b2nd"]["s"], TABLE["s"], strict=True)
    np.testing.assert_array_equal(root["table.b2nd"][["s", "n"], [3, 1]], TABLE[["s", "n"]][[3, 1]])
    assert root["scalar.b2nd"][()] == 7.5
    assert np.asarray(root["empty.b2nd"]).shape == (0, 3)
    assert bytes(root["hello.b2frame"]) == HELLO
    assert root["hello.b2frame"].read(95, -3) == HELLO[95:-3]
    assert root["notes.txt"].text() == TEXT.decode()
    np.testing.assert_array_equal(list(root["sub/cube.b2nd"]), CUBE)


def test_errors_are_the_same(client):
    with pytest.raises(RootUnknown):
        client["nix"]
    with pytest.raises(DatasetUnknown):
        client["lab/nothing"]
    with pytest.raises(DatasetUnknown):
        client["lab/sub"]
    with pytest.raises(NotReadable):
        client["lab/broken.b2nd"]


def test_downloads_are_blosc2_files_and_files(client, tmp_path):
    root = client["lab"]
    array = blosc2.open(str(root["sub/cube.b2nd"].download(tmp_path)))
    np.testing.assert_array_equal(array[:], CUBE)
    assert array.chunks == (7, 20, 50)
    assert blosc2.open(str(root["hello.b2frame"].download(tmp_path)))[:] == HELLO
    assert Path(root["notes.txt"].download(tmp_path)).read_bytes() == TEXT


def test_a_rewritten_dataset_is_followed_but_not_by_what_is_pinned(client, folder, request):
    name = f"live-{request.node.callspec.id}.b2nd"
    write_array(folder / name, np.zeros(100), chunks=(10,))
    assert eventually(lambda: name in client["lab"])
    dataset = client["lab"][name]
    pinned = dataset.pin()
    assert dataset[5] == pinned[5] == 0
    write_array(folder / name, np.ones(100), chunks=(10,))
    assert eventually(lambda: dataset[5] == 1)
    with pytest.raises(Stale, match="pinned"):
        pinned[5]
    write_array(folder / name, np.ones((10, 10)), chunks=(5, 10))
    assert eventually(lambda: is_stale(dataset))
    dataset.refresh()
    assert dataset.shape == (10, 10)
    assert dataset[3, 3] == 1
    (folder / name).unlink()
    assert eventually(lambda: name not in client["lab"])


def is_stale(dataset):
    try:
        dataset[...]
    except Stale:
        return True
    return False


def test_what_is_not_followed_is_told_as_such(network, folder):
    network.publisher("other", folder, state="state-other-joined")
    with zcat.join(network.endpoints) as client:
        assert eventually(lambda: client["other"], retried=RootUnknown)
        with pytest.raises(RootNotFollowed):
            client["other/notes.txt"]
        assert client.follow("other")["notes.txt"].text() == TEXT.decode()
        client["other"].unfollow()
        assert not client["other"].followed


def test_a_temporary_cache_is_gone_when_the_client_is_closed(network, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with zcat.join(network.endpoints, follow=["lab"]) as client:
        assert client["lab/sub/cube.b2nd"][1, 2, 3] == CUBE[1, 2, 3]
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_ones_own_stays_and_has_one_user(network, tmp_path):
    cache = str(tmp_path / "cache")
    with zcat.join(network.endpoints, cache=cache, follow=["lab"]) as client:
        client["lab/sub/cube.b2nd"][...]
        with pytest.raises(CacheInUse), contextlib.closing(zcat.join(network.endpoints, cache=cache)):
            pass
    assert list((tmp_path / "cache").iterdir())


def test_a_root_that_cannot_be_followed_leaves_nothing_behind(network, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RootUnknown):
        zcat.join(network.endpoints, follow=["nix"])
    assert list(tmp_path.iterdir()) == []


def test_a_joined_dataset_does_not_travel_and_says_what_does(joined_client):
    with pytest.raises(TypeError, match=r"zcat\.connect"):
        pickle.dumps(joined_client["lab/notes.txt"])


def test_a_preview_is_made_where_the_data_is_and_says_what_was_done(client):
    cube = client["lab/sub/cube.b2nd"]

    small = cube.preview(np.s_[3, ::-1], fit=(8, 10), reduce="max")
    means = cube.preview(fit="6x8x10")

    np.testing.assert_array_equal(small, CUBE[3, ::-1].reshape(8, 5, 10, 5).max((1, 3)))
    np.testing.assert_array_equal(means.values, CUBE.reshape(6, 5, 8, 5, 10, 5).mean((1, 3, 5)))
    assert (small.exact, small.factors, small.version) == (True, (5, 5), cube.version)
    assert (means.shape, means.dtype, means.chunks, means.chunks_of) == ((6, 8, 10), np.dtype("f8"), 10, 10)
    assert np.asarray(small, "f4").dtype == np.dtype("f4")


def test_a_preview_of_a_table_is_one_of_a_field(client):
    table = client["lab/table.b2nd"]

    np.testing.assert_array_equal(table.preview(fit=5, field="n"), TABLE["n"].reshape(5, 100).mean(1))
    np.testing.assert_array_equal(
        table.preview(fit=5, field="v", reduce="min"), TABLE["v"].reshape(5, 100, 2).min(1)
    )
    np.testing.assert_array_equal(table.preview(fit=5, reduce="stride"), TABLE[::100])
    with pytest.raises(BadSelection, match="name a field"):
        table.preview(fit=5)
    with pytest.raises(BadSelection, match="2 sizes"):
        table.preview(fit=(5, 5), field="n")


def test_a_preview_of_what_was_rewritten_is_stale_for_whoever_has_pinned_it(client, folder):
    path = folder / f"moving-{type(client._backend).__name__}.b2nd"
    write_array(path, np.zeros(100), chunks=(10,))
    address = f"lab/{path.name}"
    eventually(lambda: address in client)
    moving = client[address]
    pinned, version = moving.pin(), moving.version

    write_array(path, np.ones(100), chunks=(10,))
    eventually(lambda: client[address].version != version)

    assert moving.preview(fit=4).values.tolist() == [1, 1, 1, 1]
    assert moving.version != version
    with pytest.raises(Stale):
        pinned.preview(fit=4)
