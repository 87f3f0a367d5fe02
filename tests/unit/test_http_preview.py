"""``fit=`` on the data route."""

import io
import json
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from held_datasets import HeldRoots, held_array, held_bytes, wsgi_client

from zcat.config import HttpConfig

IMAGE = np.arange(4 * 60 * 80, dtype="u2").reshape(4, 60, 80)
URL = "/api/fetch/lab/image.b2nd"
WANTED = IMAGE[1].reshape(30, 2, 20, 4).mean((1, 3)).astype("f4")
ASK = {"slice_": "1", "fit": "30x20"}


@pytest.fixture
def held():
    names = np.full(50, b"abc")
    table = np.zeros(50, [("a", "i4"), ("b", "f4")])
    return HeldRoots(
        [
            held_array("image.b2nd", IMAGE, (1, 10, 10)),
            held_array("names.b2nd", names),
            held_array("table.b2nd", table),
            held_bytes("a.txt", b"0123456789"),
        ]
    )


@pytest.fixture
def client(held):
    return wsgi_client(held)


def told(result):
    return json.loads(result.headers["x-zcat-preview"])


def test_a_preview_comes_in_every_form_and_says_what_was_done(client):
    def body(fmt):
        result = client.simulate_get(URL, params={**ASK, "fmt": fmt})
        assert result.status_code == 200
        assert result.headers["x-zcat-shape"] == "30,20"
        assert result.headers["x-zcat-dtype"] == "<f4"
        assert result.headers["x-zcat-version"]
        assert told(result) == {"exact": True, "reduce": "mean", "factors": [2, 4], "chunks": 48, "chunks_of": 48}
        return result.content

    frame = blosc2.ndarray_from_cframe(body("cframe"))
    np.testing.assert_array_equal(frame[:], WANTED)
    assert json.loads(frame.schunk.vlmeta["preview"])["factors"] == [2, 4]
    np.testing.assert_array_equal(np.load(io.BytesIO(body("npy"))), WANTED)
    assert body("raw") == WANTED.tobytes()
    assert blosc2.decompress2(body("chunks")) == WANTED.tobytes()


@pytest.mark.parametrize("reduce", ["min", "max", "stride"])
def test_reduce_says_how_and_a_body_may_ask_as_well(client, reduce):
    got = client.simulate_get(URL, params={**ASK, "reduce": reduce, "fmt": "raw"})
    posted = client.simulate_post(URL, json={**ASK, "reduce": reduce, "fmt": "raw"})

    bins = IMAGE[1].reshape(30, 2, 20, 4)
    wanted = bins[:, 0, :, 0] if reduce == "stride" else getattr(bins, reduce)((1, 3))
    assert got.content == posted.content == wanted.tobytes()


def test_a_head_tells_what_would_come_without_reading(client, held):
    image = held.datasets["lab"]["image.b2nd"]

    head = client.simulate_head(URL, params={**ASK, "fmt": "raw"})

    assert (head.headers["content-length"], head.headers["x-zcat-shape"]) == ("2400", "30,20")
    assert told(head)["exact"]
    assert not image.reads


def test_a_sample_is_not_what_a_client_has_as_exact(held):
    image = held.datasets["lab"]["image.b2nd"]
    client = wsgi_client(held, HttpConfig(preview_fetch_bytes=image.info.entry.cbytes // 10))
    exact = client.simulate_get(URL, params=ASK)
    image.complete = False

    sample = client.simulate_get(URL, params=ASK, headers={"If-None-Match": exact.headers["etag"]})
    again = client.simulate_get(URL, params=ASK, headers={"If-None-Match": sample.headers["etag"]})
    forced = client.simulate_get(URL, params={**ASK, "exact": "true"})

    assert (sample.status_code, again.status_code) == (200, 304)
    assert not told(sample)["exact"]
    assert told(sample)["chunks"] < told(sample)["chunks_of"] == 48
    assert told(forced) == told(exact)


@pytest.mark.parametrize(
    ("path", "params", "says"),
    [
        ("image.b2nd", {"fit": "0"}, "such as 1024x768"),
        ("image.b2nd", {"fit": "4x4x4x4"}, "has 4 sizes, but the selection has 3 axes"),
        ("image.b2nd", {"fit": "4", "reduce": "median"}, "wanted one of mean, min, max, stride"),
        ("image.b2nd", {"fit": "4", "exact": "maybe"}, "wanted true or false"),
        ("image.b2nd", {"reduce": "max"}, "say by fit"),
        ("image.b2nd", {"exact": "1"}, "say by fit"),
        ("image.b2nd", {"fit": "4", "indices": "[[1,3]]"}, "without lists, masks"),
        ("names.b2nd", {"fit": "4"}, "wanted reduce=stride"),
        ("table.b2nd", {"fit": "4"}, r"name a field \(a, b\)"),
        ("table.b2nd", {"fit": "4", "field": "c"}, "the dataset has a, b"),
        ("a.txt", {"fit": "4"}, "fit is for arrays"),
    ],
)
def test_what_has_no_preview_is_refused_with_what_there_is(client, path, params, says):
    result = client.simulate_get(f"/api/fetch/lab/{path}", params=params)

    assert result.status_code == 400
    assert says.replace("\\", "") in result.json["message"]


def test_a_preview_is_bounded_as_any_answer_is(held):
    client = wsgi_client(held, replace(HttpConfig(), answer_max_bytes=20_000))

    assert client.simulate_get(URL, params={"fit": "60x80"}).json["code"] == "too-large"
    assert client.simulate_get(URL, params={"fit": "10x10"}).status_code == 200
