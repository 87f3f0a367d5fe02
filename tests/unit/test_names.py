"""What is a legal name, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcat.errors import BadName
from zcat.names import (
    are_plain_paths,
    check_endpoint,
    check_owner,
    check_path,
    check_root,
    parse_root,
    shown,
    split_address,
)


@pytest.mark.parametrize("path", ["a", "a/b.b2nd", "Grüße/π.txt", "a b/c-d_e+f", "x" * 255, "名/前"])
def test_these_paths_are_legal(path):
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", ".hidden", "a/.git/b", "a\0b", "a\nb", "a\\b",
        "c:", "a*", "a?", "a<b", 'a"b', "a|b", "trailing.", "trailing ", "con", "a/NUL.txt", "com1", "x" * 256,
        "/".join("a" * 65), "a" * 600 + "/" + "b" * 600, "e\u0301", "\u202ecod.txt", "a\ufffdb", "a\u200bb",
        "a" + chr(0xD800),
    ],
)  # fmt: skip
def test_these_paths_are_refused(path):
    with pytest.raises(BadName):
        check_path(path)


@pytest.mark.parametrize("name", ["sst", "@public", "a.b-c_d+e", "X", "9" * 64])
def test_these_root_names_are_legal(name):
    assert check_root(name) == name


@pytest.mark.parametrize("name", ["", "@", "a/b", ".a", "-a", "a b", "ü", "a" * 65, "a@b", "a\0"])
def test_these_root_names_are_refused(name):
    with pytest.raises(BadName):
        check_root(name)


def test_a_root_may_name_its_owner():
    assert parse_root("sst@ab12") == ("sst", "ab12")
    assert parse_root("@public") == ("@public", None)
    assert parse_root("@public@ab12") == ("@public", "ab12")
    with pytest.raises(BadName, match="hexadecimal"):
        parse_root("sst@xyz")


def test_an_address_is_a_root_and_a_path():
    assert split_address("sst/a/b.b2nd") == ("sst", "a/b.b2nd")
    assert split_address("sst@ab12/a") == ("sst@ab12", "a")
    assert split_address("sst") == split_address("sst/") == ("sst", "")


@pytest.mark.parametrize("address", ["", "/", "sst/../x", "sst//x", "..", "sst/%2e%2e/\0"])
def test_an_address_that_leads_elsewhere_is_refused(address):
    with pytest.raises(BadName):
        split_address(address)


@pytest.mark.parametrize("owner", ["", "a" * 31, "A" * 32, "g" * 32])
def test_an_owner_is_32_hexadecimal_digits(owner):
    with pytest.raises(BadName):
        check_owner(owner)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:5560",
        "tcp://*:0",
        "tcp://[::1]:80",
        "tcp://node-17.cluster:5560",
        "ipc:///run/x",
        "inproc://a",
    ],
)
def test_these_endpoints_are_legal(endpoint):
    assert check_endpoint(endpoint) == endpoint


@pytest.mark.parametrize("endpoint", ["", "http://x", "tcp://x", "tcp://:5", "tcp://x:99999", "tcp://a b:5"])
def test_these_endpoints_are_refused(endpoint):
    with pytest.raises(BadName):
        check_endpoint(endpoint)


def test_foreign_text_is_shown_on_one_printable_line():
    assert shown("a\nb\u202e") == "'a\\nb\\u202e'"
    assert len(shown("x" * 500)) <= 82


@given(st.lists(st.text("aZ09_.+-/cCoOnN1 \né", max_size=12), max_size=4))
def test_paths_that_are_taken_to_be_plain_are_legal(paths):
    if are_plain_paths(paths):
        assert [check_path(path) for path in paths] == paths


@pytest.mark.parametrize("name", ["con", "PRN.txt", "aux", "nul.a.b", "com1", "lpt9.b2nd", "cOm3"])
def test_names_of_devices_are_not_plain(name):
    assert not are_plain_paths(["fine", f"a/{name}"])
    assert not are_plain_paths([f"{name}/a"])
    assert are_plain_paths([f"a/x{name}", f"a/{name.replace('.', '_')}x"])
