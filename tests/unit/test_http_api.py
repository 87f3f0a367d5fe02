"""The routes that say what there is, the errors, and the document that describes them."""

import json

import pytest
from held_datasets import OWNER, example_roots, wsgi_client

from zcat import errors
from zcat.config import HttpConfig
from zcat.http.app import routes
from zcat.http.openapi import document
from zcat.http.problems import STATUS_OF
from zcat.http.strict_json import dumps


@pytest.fixture
def held():
    return example_roots()


@pytest.fixture
def client(held):
    return wsgi_client(held)


def assert_problem(result, status, code):
    assert result.status_code == status
    assert result.json["code"] == code
    assert result.json["message"] == result.json["detail"]
    assert result.headers["x-content-type-options"] == "nosniff"


def test_roots_are_a_dictionary_by_name(client):
    roots = client.simulate_get("/api/roots").json

    assert set(roots) == {"lab", "other"}
    assert roots["lab"]["name"] == "lab"
    assert roots["lab"]["subscribed"] is True
    assert roots["lab"]["owner"] == OWNER
    assert roots["lab"]["datasets"] == 11
    assert roots["other"]["subscribed"] is False


def test_a_followed_claim_stands_for_a_contested_name(held, client):
    views = [held.views["lab"], held.views["lab"]]
    held.views = dict(enumerate(views))
    held.views[1] = type(views[0])("lab", owner="f" * 32, followed=False, contested=True)

    assert client.simulate_get("/api/roots").json["lab"]["owner"] == OWNER


def test_following_a_root_answers_ok_and_is_seen(client):
    assert client.simulate_post("/api/subscribe/other").json == "Ok"
    assert client.simulate_get("/api/roots").json["other"]["subscribed"] is True
    assert client.simulate_post("/api/unsubscribe/other").json == "Ok"
    assert client.simulate_get("/api/roots").json["other"]["subscribed"] is False


def test_following_an_unknown_root_is_not_found(client):
    assert_problem(client.simulate_post("/api/subscribe/nobody"), 404, "root-unknown")


def test_following_takes_a_root_and_no_path(client):
    assert_problem(client.simulate_post("/api/subscribe/lab/dir1"), 400, "bad-name")


def test_a_page_of_another_site_cannot_follow_a_root(client, held):
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}

    assert_problem(client.simulate_post("/api/subscribe/other", headers=foreign), 403, "forbidden")
    assert not held.views["other"].followed


def test_a_listing_is_deep_sorted_and_relative(client):
    assert client.simulate_get("/api/list/lab/dir1").json == ["ds-2d.b2nd", "ds-3d.b2nd", "größe.txt"]
    everything = client.simulate_get("/api/list/lab").json
    assert everything == sorted(everything)
    assert "dir1/ds-2d.b2nd" in everything


def test_a_listing_takes_a_slash_at_the_end(client):
    assert len(client.simulate_get("/api/list/lab/dir1/").json) == 3


def test_the_listing_of_a_dataset_is_its_name(client):
    assert client.simulate_get("/api/list/lab/dir1/ds-2d.b2nd").json == ["ds-2d.b2nd"]


def test_the_listing_of_nothing_is_empty(client):
    assert client.simulate_get("/api/list/lab/nowhere").json == []


def test_a_listing_of_a_root_that_is_not_followed_says_what_to_do(client):
    result = client.simulate_get("/api/list/other")

    assert_problem(result, 404, "root-not-followed")
    assert "/api/subscribe/other" in result.json["message"]


def test_a_detailed_listing_has_an_object_for_each_dataset(client):
    first = client.simulate_get("/api/list/lab/dir1", params={"details": "1"}).json[0]

    assert first["path"] == "ds-2d.b2nd"
    assert first["kind"] == "array"
    assert first["shape"] == [10, 20]
    assert first["dtype"] == "<u2"
    assert first["nbytes"] == 400
    assert first["problem"] is None
    assert first["mtime"] == "2026-09-21T14:13:20.123456Z"


def test_the_info_of_an_array_has_what_caterva2_clients_read(client):
    info = client.simulate_get("/api/info/lab/dir1/ds-2d.b2nd").json

    assert info["shape"] == [10, 20]
    assert info["chunks"] == [5, 5]
    assert info["blocks"] == [2, 3]
    assert info["dtype"] == "uint16"
    assert info["accept_ranges"] == "bytes"
    assert info["schunk"]["nchunks"] == 8
    assert info["schunk"]["urlpath"] is None
    assert info["schunk"]["cparams"]["filters"] == [0, 0, 0, 0, 0, 1]
    assert info["schunk"]["cparams"]["filters, meta"] == [[1, 0]]


def test_the_info_of_a_structured_array_names_its_fields(client):
    assert client.simulate_get("/api/info/lab/ds-1d-fields.b2nd").json["dtype"].startswith("[('a', '<i4'), ")


def test_the_info_of_a_file_is_that_of_its_super_chunk(client):
    info = client.simulate_get("/api/info/lab/README.md").json

    assert info["nbytes"] == 85
    assert info["contiguous"] is True
    assert info["kind"] == "file"
    assert "schunk" not in info


def test_the_info_of_a_folder_counts_what_lies_in_it(client):
    info = client.simulate_get("/api/info/lab/dir1").json

    assert info["kind"] == "group"
    assert info["nfiles"] == 3
    assert client.simulate_get("/api/info/lab").json["nfiles"] == 11


def test_the_info_of_nothing_is_not_found(client):
    assert_problem(client.simulate_get("/api/info/lab/nothing.b2nd"), 404, "dataset-unknown")


def test_attributes_become_strict_json(client):
    attributes = client.simulate_get("/api/info/lab/ds-1d.b2nd").json["attributes"]

    assert attributes == {"a": 1, "b": "foo", "nan": None}
    assert client.simulate_get("/api/info/lab/ds-sc.b2nd").json["schunk"]["vlmeta"] == {"raw": {"base64": "/w=="}}


def test_strict_json_has_no_nan_anywhere():
    value = {"x": [1.5, float("inf"), {"y": float("nan")}], 1: b"text", "t": (1, 2)}

    assert json.loads(dumps(value)) == {"x": [1.5, None, {"y": None}], "1": "text", "t": [1, 2]}


def test_health_is_never_cached(client):
    result = client.simulate_get("/api/health")

    assert result.json["status"] == "ok"
    assert result.json["cache"]["hit_ratio"] is None
    assert result.headers["cache-control"] == "no-store"


def test_the_front_page_says_where_the_api_is(client):
    result = client.simulate_get("/")

    assert "/api/openapi.json" in result.text
    assert "default-src 'none'" in result.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/api/roots", "/api/list/lab", "/api/info/lab/ds-1d.b2nd", "/api/info/lab"])
def test_a_client_with_the_current_tag_gets_no_body(client, path):
    tag = client.simulate_get(path).headers["etag"]

    result = client.simulate_get(path, headers={"If-None-Match": f'"other", {tag}'})

    assert result.status_code == 304
    assert result.content == b""
    assert result.headers["etag"] == tag


@pytest.mark.parametrize("path", ["/", "/api/roots", "/api/list/lab", "/api/info/lab/README.md", "/api/health"])
def test_head_has_the_headers_of_get_and_no_body(client, path):
    got, head = client.simulate_get(path), client.simulate_head(path)

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "path",
    [
        "lab/%2e%2e/secret",
        "lab/..%2fsecret",
        "lab%2Fds-1d.b2nd",
        "lab/a%00b",
        "lab/a%5cb",
        "lab/%ff%fe",
        "lab/.hidden",
        "lab//twice",
        "lab/a%0d%0ab",
        "%2e%2e/lab",
        "lab/%E2%80%AEtxt.exe",
    ],
)
@pytest.mark.parametrize("route", ["info", "list", "fetch", "download"])
def test_a_path_that_is_no_name_is_refused(client, route, path):
    assert_problem(client.simulate_get(f"/api/{route}/{path}"), 400, "bad-name")


def test_an_address_without_a_route_is_not_found(client):
    assert_problem(client.simulate_get("/api/nothing"), 404, "not-found")


def test_a_method_that_a_route_does_not_take_is_refused(client):
    assert_problem(client.simulate_delete("/api/roots"), 405, "method-not-allowed")


def test_an_error_of_our_own_shows_nothing_of_the_inside(held, client, caplog):
    held.roots = lambda: 1 // 0

    result = client.simulate_get("/api/roots")

    assert_problem(result, 500, "internal")
    assert "division" not in result.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("cls", errors.ERROR_OF_CODE.values())
def test_every_error_has_a_status_and_one_shape(held, client, cls):
    def fail(*_):
        raise cls("what was wanted, what came")

    held.health = fail
    result = client.simulate_get("/api/health")

    assert_problem(result, STATUS_OF[cls], cls.code)
    assert result.json["message"] == "what was wanted, what came"


def test_the_table_of_statuses_has_no_more_than_the_errors():
    assert set(STATUS_OF) == set(errors.ERROR_OF_CODE.values())


def test_an_error_with_a_code_of_a_newer_version_has_a_status(held, client):
    def fail():
        raise errors.error_of("from-the-future", "who knows")

    held.health = fail

    assert_problem(client.simulate_get("/api/health"), 500, "from-the-future")


def test_the_document_describes_exactly_the_routes(held):
    table = routes(held, HttpConfig(), type(held).roots)

    described = {path: set(methods) for path, methods in document()["paths"].items()}
    served = {
        template.replace(":path}", "}"): {m for m in ("get", "post", "put", "delete") if hasattr(r, f"on_{m}")}
        for template, r in table.items()
    }

    assert described == served
    assert all(hasattr(resource, "on_head") for resource in table.values() if hasattr(resource, "on_get"))


def test_the_document_is_served(client):
    served = client.simulate_get("/api/openapi.json").json

    assert served["openapi"] == "3.1.0"
    assert served == json.loads(json.dumps(document()))


def test_other_origins_may_read_only_if_they_are_configured(held, client):
    headers = {"Origin": "https://viewer.example.org"}
    allowing = wsgi_client(held, HttpConfig(cors_origins=("https://viewer.example.org",)))

    assert "access-control-allow-origin" not in client.simulate_get("/api/roots", headers=headers).headers
    result = allowing.simulate_get("/api/roots", headers=headers)
    assert result.headers["access-control-allow-origin"] == "https://viewer.example.org"
    assert (
        "access-control-allow-origin"
        not in allowing.simulate_get("/api/roots", headers={"Origin": "https://evil.example"}).headers
    )
