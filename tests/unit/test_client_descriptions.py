import copy

import pytest

from zcat.client.descriptions import parse_info, parse_listing, parse_roots
from zcat.errors import BadContent, BadMessage, NotReadable
from zcat.model.dataset import Kind

CPARAMS = {
    "codec": 5,
    "codec_meta": 0,
    "clevel": 1,
    "filters": [0, 0, 0, 0, 0, 1],
    "filters_meta": [0] * 6,
    "splitmode": 4,
    "typesize": 4,
}
FRAME = {"nbytes": 400, "cbytes": 99, "chunksize": 80, "blocksize": 40, "cparams": CPARAMS}
COMMON = {
    "mtime": "2026-09-21T13:33:20.123456Z",
    "lineage": "0" * 32,
    "size": 400,
    "attributes": {"a": 1, "raw": {"base64": "/w=="}},
}
ARRAY = {
    **COMMON,
    "kind": "array",
    "shape": [10, 10],
    "chunks": [2, 10],
    "blocks": [1, 10],
    "dtype": "float32",
    "schunk": FRAME,
}


def changed(**items):
    described = copy.deepcopy(ARRAY)
    described.update(items)
    return described


def test_a_description_of_an_array_becomes_its_info():
    info = parse_info(ARRAY, "a/x.b2nd")
    assert info.geometry.array.shape == (10, 10)
    assert info.geometry.array.dtype == "<f4"
    assert info.entry.mtime_ns == 1_789_997_600_123_456_000
    assert info.version.etag == f'"{"0" * 32}-10"'
    assert info.attributes == {"a": 1, "raw": b"\xff"}


def test_a_file_and_a_folder_are_told_apart():
    assert parse_info({**COMMON, **FRAME, "kind": "file"}, "x").entry.kind is Kind.FILE
    assert parse_info({"kind": "group", "nfiles": 3}, "x") is None


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [], {}, changed(shape=None), changed(mtime="soon"), changed(schunk={}), changed(kind="x")],
)
def test_what_is_no_description_is_refused(value):
    with pytest.raises(BadMessage):
        parse_info(value, "x")


@pytest.mark.parametrize(
    "items",
    [{"chunks": [0, 10]}, {"shape": [-1, 10]}, {"blocks": [1]}, {"dtype": "float64"}, {"dtype": "os.system"}],
)
def test_numbers_that_do_not_agree_are_refused(items):
    with pytest.raises(BadContent):
        parse_info(changed(**items), "x")


@pytest.mark.parametrize("dtype", ["object", "[('a', 'O')]", "|O8"])
def test_objects_are_never_read(dtype):
    with pytest.raises(NotReadable):
        parse_info(changed(dtype=dtype), "x")


def test_roots_and_listings_that_are_none_are_refused():
    for value in (None, [1], {"lab": {}}, "x"):
        with pytest.raises(BadMessage):
            parse_roots(value)
    for value in (None, [1], [{}]):
        with pytest.raises(BadMessage):
            parse_listing(value)
