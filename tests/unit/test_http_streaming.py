"""Answers that are sent while they are read, over datasets in memory."""

import io

import blosc2
import numpy as np
import pytest
from held_datasets import example_roots, held_array, wsgi_client

from zcat.config import HttpConfig
from zcat.http import parts, streaming
from zcat.limits import MIB

PATH = "/api/fetch/lab/large.b2nd"
CONTENT = np.arange(40 * 60 * 50, dtype="<i4").reshape(40, 60, 50)
KEYS = ("", "1:", "3:20, ::2, 5:", "7", "..., 3", "39, 1:, :", "::-1", "5, 6")


@pytest.fixture
def held(monkeypatch):
    for module in (parts, streaming):
        monkeypatch.setattr(module, "STREAM_BYTES_MIN", 1000)
    monkeypatch.setattr(parts, "PIECE_BYTES", 5000)
    monkeypatch.setattr(parts, "PIECE_BYTES_MAX", 20_000)
    made = example_roots()
    made.datasets["lab"]["large.b2nd"] = held_array("large.b2nd", CONTENT, (8, 20, 50))
    return made


@pytest.fixture
def client(held):
    return wsgi_client(held)


def decoded(body, fmt, dtype="<i4"):
    if fmt == "cframe":
        return blosc2.ndarray_from_cframe(body)[...]
    if fmt == "npy":
        return np.load(io.BytesIO(body))
    if fmt == "raw":
        return np.frombuffer(body, dtype)
    out = []
    while body:
        cbytes = int.from_bytes(body[12:16], "little")
        out.append(blosc2.decompress2(body[:cbytes]))
        body = body[cbytes:]
    return np.frombuffer(b"".join(out), dtype)


@pytest.mark.parametrize("fmt", ["raw", "npy", "chunks", "cframe"])
@pytest.mark.parametrize("key", KEYS)
def test_a_streamed_slice_is_the_same_as_one_in_memory(client, key, fmt):
    wanted = eval(f"CONTENT[{key}]") if key else CONTENT
    answer = client.simulate_get(PATH, params={"slice_": key or "...", "fmt": fmt})
    assert answer.status_code == 200, answer.text
    found = decoded(answer.content, fmt)
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    if fmt in ("npy", "cframe"):
        assert found.shape == wanted.shape
    head = client.simulate_head(PATH, params={"slice_": key or "...", "fmt": fmt})
    if "content-length" in head.headers and "content-length" in answer.headers:
        assert head.headers["content-length"] == answer.headers["content-length"]


def test_a_streamed_slice_says_its_length_where_it_is_known(client):
    assert client.simulate_get(PATH, params={"fmt": "raw"}).headers["content-length"] == str(CONTENT.nbytes)


def test_pieces_are_read_one_by_one(client, held):
    client.simulate_get(PATH, params={"fmt": "raw"})
    assert held.datasets["lab"]["large.b2nd"].reads > 20


def test_what_is_streamed_needs_no_memory_for_all_of_it(held):
    client = wsgi_client(held, HttpConfig(answer_max_bytes=100_000))
    assert client.simulate_get(PATH, params={"fmt": "raw"}).content == CONTENT.tobytes()
    assert client.simulate_get(PATH, params={"fmt": "raw", "slice_": "::-1"}).json["code"] == "too-large"


def test_a_frame_may_have_as_many_bytes_as_are_allowed_once_it_is_compressed(held):
    rng = np.random.default_rng(0)
    held.datasets["lab"]["noise.b2nd"] = held_array("noise.b2nd", rng.integers(0, 256, (2 * MIB,), "u1"), (MIB,))
    client = wsgi_client(held, HttpConfig(answer_max_bytes=MIB))
    refused = client.simulate_get("/api/fetch/lab/noise.b2nd", params={"slice_": "1:"})
    assert refused.status_code == 413
    assert str(MIB) in refused.json["message"]
    assert client.simulate_get(PATH, params={"slice_": "1:"}).status_code == 200


def test_a_field_is_streamed_without_the_others(held, client):
    content = np.zeros(5000, [("a", "<i4"), ("b", "<f8", (2,))])
    content["a"], content["b"] = np.arange(5000), np.arange(10_000).reshape(-1, 2)
    held.datasets["lab"]["large.b2nd"] = held_array("large.b2nd", content, (500,))
    for name in ("a", "b"):
        answer = client.simulate_get(PATH, params={"field": name, "fmt": "raw"})
        assert answer.content == np.ascontiguousarray(content[name]).tobytes()


@pytest.mark.parametrize("fmt", ["raw", "chunks", "npy"])
def test_bytes_are_streamed_too(client, held, fmt):
    frame = held.datasets["lab"]["ds-hello.b2frame"]
    whole = bytes(frame.content)
    answer = client.simulate_get("/api/fetch/lab/ds-hello.b2frame", params={"slice_": "3:", "fmt": fmt})
    assert decoded(answer.content, fmt, "u1").tobytes() == whole[3:]


def test_who_says_what_it_can_bear_is_not_sent_more(client):
    answer = client.simulate_get(PATH, params={"fmt": "raw", "max_bytes": str(CONTENT.nbytes - 1)})
    assert answer.status_code == 413
    assert f"{CONTENT.nbytes} bytes" in answer.json["message"]
    assert str(CONTENT.nbytes - 1) in answer.json["message"]
    assert client.simulate_get(PATH, params={"fmt": "raw", "max_bytes": str(CONTENT.nbytes)}).status_code == 200
    post = client.simulate_post(PATH, json={"slice_": "1:", "max_bytes": 10})
    assert post.json["code"] == "too-large"
    assert client.simulate_get(PATH, params={"max_bytes": "-3"}).status_code == 400
    assert (
        client.simulate_get(PATH, params={"max_bytes": "100"}).json["code"] == "too-large"
    )  # also of a whole frame


def test_an_operator_may_limit_slices(held):
    client = wsgi_client(held, HttpConfig(slice_max_bytes=CONTENT.nbytes - 1))
    refused = client.simulate_get(PATH, params={"fmt": "raw"})
    assert refused.status_code == 413
    assert "slice_max_bytes" in refused.json["message"]
    assert str(CONTENT.nbytes - 1) in refused.json["message"]
    assert client.simulate_get(PATH, params={"fmt": "raw", "slice_": "1:"}).status_code == 200
