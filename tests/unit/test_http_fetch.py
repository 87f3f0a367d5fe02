"""The routes that give content, over datasets in memory."""

import io
import itertools
import json
import math

import blosc2
import numpy as np
import pytest
from held_datasets import example_roots, held_array, wsgi_client
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.config import HttpConfig
from zcat.http.ranges import wanted_spans

CUBE = "/api/fetch/lab/dir1/ds-3d.b2nd"


@pytest.fixture
def held():
    return example_roots()


@pytest.fixture
def client(held):
    return wsgi_client(held)


@pytest.fixture
def cube(held):
    return held.datasets["lab"]["dir1/ds-3d.b2nd"]


def array_of(result):
    shape = tuple(map(int, filter(None, result.headers["x-zcat-shape"].split(","))))
    text = result.headers["x-zcat-dtype"]
    dtype = np.dtype(eval(text) if text[0] in "[{" else text)
    return np.frombuffer(result.content, dtype).reshape(shape)


def unchunked(body):
    out = []
    while body:
        cbytes = int.from_bytes(body[12:16], "little")
        assert int.from_bytes(body[4:8], "little") <= 4 << 20
        out.append(blosc2.decompress2(body[:cbytes]))
        body = body[cbytes:]
    return b"".join(out)


KEYS = {
    "1": np.s_[1],
    "0:2, 1, ::2": np.s_[0:2, 1, ::2],
    "...,-1": np.s_[..., -1],
    "::-1, 3:0:-2": np.s_[::-1, 3:0:-2],
    "0:0": np.s_[0:0],
    "1, 2, 3": np.s_[1, 2, 3],
    "-2:": np.s_[-2:],
    "": np.s_[:],
}


@pytest.mark.parametrize("text", KEYS)
def test_a_slice_is_numpys_in_every_form(client, cube, text):
    wanted = cube.content[KEYS[text]]

    def body(fmt):
        result = client.simulate_get(CUBE, params={"slice_": text, "fmt": fmt})
        assert result.status_code == 200
        return result

    frame = blosc2.ndarray_from_cframe(body("cframe").content)
    assert frame.shape == wanted.shape
    np.testing.assert_array_equal(frame[()] if frame.ndim == 0 else frame[:], wanted)
    np.testing.assert_array_equal(array_of(body("raw")), wanted)
    np.testing.assert_array_equal(np.load(io.BytesIO(body("npy").content)), wanted)
    assert unchunked(body("chunks").content) == wanted.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(slice, *[st.none() | st.integers(-7, 7)] * 2, st.sampled_from([None, 1, 2, -1, -3])), max_size=3
    )
)
def test_any_basic_slice_is_numpys(key):
    held = example_roots_once()
    text = ",".join(":".join("" if n is None else str(n) for n in (k.start, k.stop, k.step)) for k in key)

    result = wsgi_client(held).simulate_get(CUBE, params={"slice_": text, "fmt": "raw"})

    np.testing.assert_array_equal(array_of(result), held.datasets["lab"]["dir1/ds-3d.b2nd"].content[tuple(key)])


def example_roots_once(kept=[]):  # noqa: B006
    kept.append(example_roots()) if not kept else None
    return kept[0]


@pytest.mark.parametrize(
    ("indices", "key"),
    [
        ([[2, 0, 2]], np.s_[[2, 0, 2]]),
        ([[0, 2], 1, "0:3"], np.s_[[0, 2], 1, 0:3]),
        ([None, [3, -1]], np.s_[:, [3, -1]]),
        ([[], 1], np.s_[[], 1]),
        ([1, "::2"], np.s_[1, ::2]),
    ],
)
def test_indices_are_numpys_and_the_same_in_a_body(client, cube, indices, key):
    text = json.dumps(indices)

    got = client.simulate_get(CUBE, params={"indices": text, "fmt": "raw"})
    posted = client.simulate_post(CUBE, json={"indices": text, "fmt": "raw"})
    as_list = client.simulate_post(CUBE, json={"indices": indices, "fmt": "raw", "slice_": None})

    np.testing.assert_array_equal(array_of(got), cube.content[key])
    assert posted.content == as_list.content == got.content


def test_a_field_of_a_structured_array_stands_alone(client, held):
    table = held.datasets["lab"]["ds-1d-fields.b2nd"].content
    path = "/api/fetch/lab/ds-1d-fields.b2nd"

    result = client.simulate_get(path, params={"field": "naïve", "slice_": "10:20", "fmt": "raw"})
    frame = client.simulate_get(path, params={"field": "b"})

    np.testing.assert_array_equal(array_of(result), table["naïve"][10:20])
    np.testing.assert_array_equal(blosc2.ndarray_from_cframe(frame.content)[:], table["b"])


def test_a_structured_array_keeps_its_dtype_in_headers(client, held):
    result = client.simulate_get("/api/fetch/lab/ds-1d-fields.b2nd", params={"slice_": "1:3", "fmt": "raw"})

    np.testing.assert_array_equal(array_of(result), held.datasets["lab"]["ds-1d-fields.b2nd"].content[1:3])


def test_a_scalar_array_is_read(client):
    result = client.simulate_get("/api/fetch/lab/ds-sc.b2nd", params={"fmt": "npy"})

    assert np.load(io.BytesIO(result.content)) == "foobar"


@pytest.mark.parametrize(
    "params",
    [
        {"slice_": "5"},
        {"slice_": "0,0,0,0"},
        {"slice_": "a"},
        {"slice_": "::0"},
        {"indices": "[[9]]"},
        {"indices": "{}"},
        {"indices": "[true]"},
        {"indices": "[[[1]]]"},
        {"indices": "[0"},
        {"indices": "[[0],[0],[0],[0]]"},
        {"field": "a"},
    ],
)
def test_a_selection_that_does_not_fit_is_refused(client, params):
    result = client.simulate_get(CUBE, params=params)

    assert result.status_code == 400
    assert result.json["code"] == "bad-selection"


@pytest.mark.parametrize(
    "params",
    [
        {"slice": "1"},
        {"fmt": "csv"},
        {"slice_": "1", "indices": "[1]"},
        {"filter": "a < 5"},
        {"fmt": ["raw", "npy"]},
    ],
)
def test_a_parameter_that_nobody_knows_is_refused_and_not_ignored(client, params):
    result = client.simulate_get(CUBE, params=params)

    assert result.status_code == 400
    assert result.json["code"] == "bad-request"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"slice_": 3}', b'{"other": "1"}', b"[" * 100_000])
def test_a_body_that_is_no_query_is_refused(client, body):
    result = client.simulate_post(CUBE, body=body)

    assert result.status_code == 400
    assert result.json["code"] == "bad-request"


def test_too_large_an_answer_is_refused_before_it_is_read(held, cube):
    client = wsgi_client(held, HttpConfig(answer_max_bytes=239))

    result = client.simulate_get(CUBE, params={"fmt": "raw"})

    assert result.status_code == 413
    assert result.json["code"] == "too-large"
    assert "answer_max_bytes" in result.json["message"]
    assert cube.reads == 0
    assert client.simulate_get(CUBE).status_code == 200  # a stored frame is streamed, whatever its size


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("ds-1d-fields.b2nd", {"field": "a", "slice_": "0:50"}),  # 200 bytes of records of 23 bytes
        ("ds-hello.b2frame", {"slice_": "::600"}),  # two bytes, far apart
    ],
)
def test_what_takes_much_memory_for_a_small_answer_is_too_large(held, path, params):
    client = wsgi_client(held, HttpConfig(answer_max_bytes=300))

    assert client.simulate_get(f"/api/fetch/lab/{path}", params=params).json["code"] == "too-large"
    assert held.datasets["lab"][path].reads == 0


def test_a_version_that_moves_under_a_read_is_read_again(client, held, cube):
    held.stale_left = 2

    result = client.simulate_get(CUBE, params={"slice_": "1", "fmt": "raw"})

    np.testing.assert_array_equal(array_of(result), cube.content[1])


def test_a_current_tag_is_answered_before_anything_is_read(client, cube):
    tag = client.simulate_get(CUBE, params={"slice_": "1", "fmt": "raw"}).headers["etag"]
    cube.reads = 0

    result = client.simulate_get(CUBE, params={"slice_": "1", "fmt": "raw"}, headers={"If-None-Match": tag})

    assert result.status_code == 304
    assert cube.reads == 0


def test_tags_differ_by_version_selection_field_and_form(client):
    def tag(path, **params):
        return client.simulate_get(f"/api/fetch/lab/{path}", params=params).headers["etag"]

    tags = [
        tag("dir1/ds-3d.b2nd"),
        tag("dir1/ds-3d.b2nd", fmt="raw"),
        tag("dir1/ds-3d.b2nd", slice_="1"),
        tag("dir1/ds-3d.b2nd", slice_="2"),
        tag("dir1/ds-3d.b2nd", indices="[1]"),
        tag("dir1/ds-2d.b2nd", slice_="1"),
        tag("ds-1d-fields.b2nd", field="a"),
        tag("ds-1d-fields.b2nd", field="b"),
    ]
    assert len(set(tags)) == len(tags)
    assert not any(tag.startswith("W/") for tag in tags)


@pytest.mark.parametrize("fmt", ["raw", "npy"])
def test_head_knows_the_length_without_reading(client, cube, fmt):
    wanted = client.simulate_get(CUBE, params={"slice_": "1", "fmt": fmt}).headers
    cube.reads = 0

    result = client.simulate_head(CUBE, params={"slice_": "1", "fmt": fmt})

    assert result.headers["content-length"] == wanted["content-length"]
    assert result.headers["etag"] == wanted["etag"]
    assert cube.reads == 0


def test_head_of_a_frame_knows_its_length(client, cube):
    assert client.simulate_head(CUBE).headers["content-length"] == str(len(cube.cframe))
    assert "content-length" not in client.simulate_head(CUBE, params={"slice_": "1"}).headers


def test_the_phases_of_an_answer_are_told(client):
    timing = client.simulate_get(CUBE, params={"slice_": "1"}).headers["server-timing"]

    assert [phase.partition(";")[0] for phase in timing.split(", ")] == ["find", "read", "encode"]


# -- ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [True, False])
def test_a_whole_dataset_is_its_frame(client, cube, complete):
    cube.complete = complete

    result = client.simulate_get(CUBE, params={"slice_": ""})

    assert result.content == cube.cframe
    assert result.headers["accept-ranges"] == "bytes"
    assert result.headers["content-length"] == str(len(cube.cframe))
    assert cube.reads == 0


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=10-99999", 10, None)],
)
def test_one_range_is_a_part_that_says_where_it_lies(client, cube, complete, header, start, stop):
    cube.complete = complete

    result = client.simulate_get(CUBE, headers={"Range": header})

    wanted = cube.cframe[start:stop]
    first = start if start >= 0 else len(cube.cframe) + start
    assert result.status_code == 206
    assert result.content == wanted
    assert result.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(cube.cframe)}"


def test_several_ranges_are_parts_of_one_body(client, cube):
    result = client.simulate_get(CUBE, headers={"Range": "bytes=200-209, 0-4, 5-9"})

    boundary = result.headers["content-type"].partition("boundary=")[2].encode()
    parts = result.content.split(b"--" + boundary)
    assert result.status_code == 206
    assert len(parts) == 4
    assert parts[1].endswith(b"\r\n\r\n" + cube.cframe[:10] + b"\r\n")
    assert f"Content-Range: bytes 200-209/{len(cube.cframe)}".encode() in parts[2]
    assert parts[3] == b"--\r\n"
    assert int(result.headers["content-length"]) == len(result.content)


def test_a_range_behind_the_end_is_refused_with_the_length(client, cube):
    result = client.simulate_get(CUBE, headers={"Range": f"bytes={len(cube.cframe)}-"})

    assert result.status_code == 416
    assert result.headers["content-range"] == f"bytes */{len(cube.cframe)}"
    assert result.json["code"] == "bad-range"


def test_a_computed_answer_has_no_ranges(client):
    result = client.simulate_get(CUBE, params={"slice_": "1"}, headers={"Range": "bytes=0-1"})

    assert result.status_code == 416
    assert client.simulate_get(CUBE, params={"slice_": "1"}).headers["accept-ranges"] == "none"


def test_a_range_of_another_version_is_answered_whole(client, cube):
    tag = client.simulate_get(CUBE).headers["etag"]

    same = client.simulate_get(CUBE, headers={"Range": "bytes=0-9", "If-Range": tag})
    other = client.simulate_get(CUBE, headers={"Range": "bytes=0-9", "If-Range": '"other"'})

    assert same.status_code == 206
    assert other.status_code == 200
    assert other.content == cube.cframe


@pytest.mark.parametrize("header", ["bytes=", "bytes=a-b", "items=0-1", "bytes=5-4", "bytes=-", "nonsense"])
def test_a_range_that_says_nothing_is_ignored(client, cube, header):
    assert client.simulate_get(CUBE, headers={"Range": header}).content == cube.cframe


def test_too_many_ranges_are_answered_whole():
    many = "bytes=" + ",".join(f"{i * 2}-{i * 2}" for i in range(257))

    assert wanted_spans(many, None, '"t"', 10_000) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8), st.integers(0, 50))
def test_merged_ranges_hold_exactly_what_was_asked_for(pairs, nbytes):
    pairs = [(min(pair), max(pair)) for pair in pairs]
    spans = wanted_spans("bytes=" + ", ".join(f"{a}-{b}" for a, b in pairs), None, '"t"', nbytes)

    wanted = {i for a, b in pairs for i in range(a, b + 1) if i < nbytes}
    assert wanted == {i for a, b in spans for i in range(a, b)}
    assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))


# -- byte frames and files ---------------------------------------------------------------------------


def test_a_byte_frame_is_sliced_by_its_items(client):
    def fetch(path, **params):
        return client.simulate_get(f"/api/fetch/lab/{path}", params=params).content

    assert blosc2.schunk_from_cframe(fetch("ds-hello.b2frame", slice_="3:8"))[:] == b"lo wo"
    assert blosc2.schunk_from_cframe(fetch("ds-hello.b2frame", slice_="3"))[:] == b"l"
    assert blosc2.schunk_from_cframe(fetch("README.md", slice_="2:8"))[:] == b"Header"
    assert fetch("ds-hello.b2frame", slice_="5::-1", fmt="raw") == b" olleH"
    assert fetch("numbers.b2frame", slice_="3:5", fmt="raw") == np.array([3, 4], "<i4").tobytes()
    assert fetch("numbers.b2frame", slice_="9:3", fmt="raw") == b""


def test_a_whole_byte_frame_is_its_frame(client, held):
    content = client.simulate_get("/api/fetch/lab/ds-hello.b2frame").content

    assert content == held.datasets["lab"]["ds-hello.b2frame"].cframe


def test_indices_are_not_for_byte_frames(client):
    result = client.simulate_get("/api/fetch/lab/README.md", params={"indices": "[[1]]"})

    assert result.json["code"] == "bad-selection"


# -- points, chunks, downloads -----------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["raw", "chunks"])
def test_points_come_in_the_order_asked_for(client, cube, fmt):
    points = np.array([[0, 0, 0], [2, 3, 4], [-1, 1, 2], [0, 0, 0]], "<i8")

    result = client.simulate_post("/api/points/lab/dir1/ds-3d.b2nd", params={"fmt": fmt}, body=points.tobytes())

    wanted = cube.content[tuple(points.T)]
    assert (result.content if fmt == "raw" else unchunked(result.content)) == wanted.tobytes()
    assert result.headers["x-zcat-shape"] == "4"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("dir1/ds-3d.b2nd", b"1234567", "bad-request"),
        ("dir1/ds-3d.b2nd", np.array([[9, 9, 9]]).tobytes(), "bad-selection"),
        ("README.md", bytes(8), "bad-selection"),
        ("ds-sc.b2nd", b"", "bad-selection"),
    ],
)
def test_points_that_do_not_fit_are_refused(client, path, body, code):
    assert client.simulate_post(f"/api/points/lab/{path}", body=body).json["code"] == code


def test_a_chunk_comes_as_it_is_stored(client, held):
    result = client.simulate_get("/api/chunk/lab/ds-1d.b2nd", params={"nchunk": "3"})

    assert np.frombuffer(blosc2.decompress2(result.content), "<i8")[0] == 300
    tag = result.headers["etag"]
    again = client.simulate_get("/api/chunk/lab/ds-1d.b2nd?nchunk=3", headers={"If-None-Match": tag})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("query", "code"), [("nchunk=10", "bad-selection"), ("nchunk=-1", "bad-request"), ("", "bad-request")]
)
def test_a_chunk_that_is_not_there_is_refused(client, query, code):
    result = client.simulate_get(f"/api/chunk/lab/ds-1d.b2nd?{query}")

    assert result.status_code == 400
    assert result.json["code"] == code


def test_a_download_is_the_file_under_its_own_name(client):
    result = client.simulate_get("/api/download/lab/dir1/größe.txt", headers={"Range": "bytes=2-4"})

    assert result.status_code == 206
    assert result.content == b"234"
    assert result.headers["content-type"] == "text/plain"
    assert result.headers["content-disposition"] == (
        "attachment; filename=\"gr__e.txt\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt"
    )
    assert result.headers["vary"] == "Accept-Encoding"


def test_a_download_is_compressed_for_who_asks_for_it(client, held):
    result = client.simulate_get("/api/download/lab/README.md", headers={"Accept-Encoding": "blosc2"})
    declined = client.simulate_get("/api/download/lab/README.md", headers={"Accept-Encoding": "blosc2;q=0, gzip"})

    assert result.headers["content-encoding"] == "blosc2"
    assert blosc2.schunk_from_cframe(result.content)[:] == declined.content == b"# Header example\n" * 5
    assert result.headers["etag"] != declined.headers["etag"]


def test_a_download_of_an_array_is_its_frame(client, cube):
    result = client.simulate_get("/api/download/lab/dir1/ds-3d.b2nd", headers={"Accept-Encoding": "blosc2"})

    assert result.content == cube.cframe
    assert "content-encoding" not in result.headers


def test_a_large_array_comes_in_chunks_of_at_most_four_mebibytes(held):
    large = np.arange(3_000_001, dtype="f8").reshape(1, -1)
    held.datasets["lab"]["large.b2nd"] = held_array("large.b2nd", large)

    body = wsgi_client(held).simulate_get("/api/fetch/lab/large.b2nd", params={"fmt": "chunks"})

    assert unchunked(body.content) == large.tobytes()
    assert math.prod(map(int, body.headers["x-zcat-shape"].split(","))) == large.size


@pytest.mark.parametrize("fmt", ["cframe", "chunks"])
@pytest.mark.parametrize("text", ["2:5", "3", "...", "0:7, 0:6", "-1"])
def test_a_part_made_of_whole_chunks_is_sent_as_it_is_stored(client, held, text, fmt):
    content = np.arange(7 * 6 * 5, dtype="<i4").reshape(7, 6, 5)
    planes = held.datasets["lab"]["planes.b2nd"] = held_array("planes.b2nd", content, (1, 6, 5))
    result = client.simulate_get("/api/fetch/lab/planes.b2nd", params={"slice_": text, "fmt": fmt})
    wanted = eval(f"content[{text}]")
    if fmt == "cframe":
        np.testing.assert_array_equal(blosc2.ndarray_from_cframe(result.content)[...], wanted, strict=True)
    else:
        assert unchunked(result.content) == wanted.tobytes()
    assert planes.reads == 0


@pytest.mark.parametrize("text", ["2:4", "2", "1:3, 0:3", "4:7", "..."])
@pytest.mark.parametrize("chunks", [(2, 6, 5), (2, 3, 5), (3, 4, 2), (1, 3, 5)])
def test_however_chunks_lie_the_values_are_numpys(client, held, text, chunks):
    content = np.arange(7 * 6 * 5, dtype="<i4").reshape(7, 6, 5)
    held.datasets["lab"]["x.b2nd"] = held_array("x.b2nd", content, chunks)
    wanted = eval(f"content[{text}]")
    url = f"/api/fetch/lab/x.b2nd?slice_={text.replace(' ', '')}"
    np.testing.assert_array_equal(
        blosc2.ndarray_from_cframe(client.simulate_get(url).content)[...], wanted, strict=True
    )
    assert unchunked(client.simulate_get(url + "&fmt=chunks").content) == wanted.tobytes()
