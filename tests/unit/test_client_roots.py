import numpy as np
import pytest
from memory_backend import OWNER, MemoryBackend

import zcat
from zcat.client.array import Array
from zcat.client.byte_frame import ByteFrame
from zcat.client.client import Client
from zcat.errors import BadName, BadRequest, DatasetUnknown, NotReadable, RootContested, RootUnknown


@pytest.fixture
def backend():
    return MemoryBackend(a__wind=np.zeros((2, 3)), a__b__rain=np.zeros(4, "u1"), notes=b"text")


@pytest.fixture
def client(backend):
    return Client(backend)


def test_a_root_is_what_is_in_it(client):
    root = client["lab"]
    assert list(root) == ["a/b/rain", "a/wind", "notes"]
    assert len(root) == 3
    assert "a/wind" in root
    assert "a" not in root
    assert 5 not in root
    assert "../lab" not in root
    assert repr(root) == "<zcat.Root lab live, followed, 3 datasets>"


def test_what_is_in_a_root_but_cannot_be_read_is_in_it_all_the_same(client, backend, monkeypatch):
    def refuse(address):
        raise NotReadable("objects")

    monkeypatch.setattr(backend, "info", refuse)
    assert "a/wind" in client["lab"]


def test_a_root_is_drawn_as_a_tree(client):
    assert client["lab"].tree().splitlines() == [
        "lab",
        "├── a/",
        "│   ├── b/",
        "│   │   └── rain  (4,) |u1",
        "│   └── wind  (2, 3) <f8",
        "└── notes  4 bytes",
    ]
    assert client["lab"].tree("a/b").splitlines() == ["lab/a/b", "└── rain  (4,) |u1"]


def test_an_address_is_a_root_or_a_dataset(client):
    assert isinstance(client["lab/a/wind"], Array)
    assert isinstance(client.open("lab/notes"), ByteFrame)
    assert client["lab"]["a/wind"].address == "lab/a/wind"
    assert [entry.path for entry in client.list("lab/a")] == ["a/b/rain", "a/wind"]
    with pytest.raises(DatasetUnknown):
        client["lab/nothing"]
    with pytest.raises(BadName, match="root/path"):
        client.open("lab")
    with pytest.raises(BadName):
        client["lab/../etc"]


def test_a_client_has_roots_and_what_is_in_them(client):
    assert "lab" in list(client)
    for address in ("lab", "lab/a/wind", "lab/notes"):
        assert address in client
    for address in ("nowhere", "lab/nothing", "lab/../etc", "", 5):
        assert address not in client


def test_following_is_for_all_and_shows_in_the_root(client, backend):
    root = client["lab"]
    root.unfollow()
    assert not root.followed
    assert root.follow() is root
    assert root.followed
    client.unfollow("lab")
    assert not backend.followed
    assert client.follow("lab").followed


def test_a_root_that_nobody_knows_is_told_with_those_that_are(client):
    with pytest.raises(RootUnknown, match="lab, twice"):
        client["nix"]


def test_a_contested_root_wants_its_owner(client):
    with pytest.raises(RootContested, match=f"twice@{OWNER}"):
        client["twice"]
    assert client[f"twice@{OWNER[:8]}"].owner == OWNER
    names = [root.name for root in client.roots()]
    assert names == ["lab", f"twice@{OWNER}", f"twice@{OWNER[::-1]}"]
    assert client[names[1]].contested


def test_leaving_a_client_closes_it(backend):
    with Client(backend) as client:
        assert client.health() == {"status": "ok"}
    assert backend.calls == ["close"]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "tcp://127.0.0.1:5560", "http://", "http://x/?a=1"])
def test_what_is_no_url_of_a_subscriber_is_refused(url):
    with pytest.raises(BadRequest, match=r"http://127\.0\.0\.1:8000"):
        zcat.connect(url)


def test_a_client_is_made_without_a_word_to_anybody():
    assert repr(zcat.connect("http://127.0.0.1:9/")) == "<zcat.Client http://127.0.0.1:9>"


def test_all_public_names_are_there():
    for name in zcat.__all__:
        if name != "join":
            assert getattr(zcat, name).__name__ == name
    assert set(zcat.__all__) <= set(dir(zcat))
    with pytest.raises(AttributeError, match="nothing"):
        zcat.nothing  # noqa: B018
