from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcat.config_file import check, load, make, nearest, parse_size
from zcat.errors import BadConfig


@dataclass(frozen=True, slots=True)
class Inner:
    depth: int = 3


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    brokers: tuple[str, ...] = ("tcp://127.0.0.1:1",)
    lease_s: float = 20.0
    quota_bytes: int = 10
    sizes_bytes_max: tuple[int, ...] = ()
    workers: int = 1
    is_open: bool = True
    label: str | None = None
    inner: Inner = Inner()


SECTIONS = {"sample": Sample, "inner": Inner}


def write(folder, text):
    path = folder / "zcat.toml"
    path.write_text(text)
    return path


def refusal(folder, text):
    with pytest.raises(BadConfig) as caught:
        load(write(folder, text), SECTIONS)
    return caught.value.message


def test_each_table_becomes_its_values_and_the_rest_keeps_its_defaults(tmp_path):
    text = '[sample]\nname = "sst"\nbrokers = ["a", "b"]\nlease_s = 3\nquota_bytes = "10 GiB"\nlabel = "x"'
    found = load(write(tmp_path, text), SECTIONS)
    assert found["inner"] == []
    sample = make(Sample, found["sample"][0])
    assert sample == Sample("sst", brokers=("a", "b"), lease_s=3.0, quota_bytes=10 << 30, label="x")
    assert isinstance(sample.lease_s, float)


def test_a_table_may_come_several_times(tmp_path):
    found = load(write(tmp_path, '[[sample]]\nname = "a"\n[[sample]]\nname = "b"'), SECTIONS)
    assert [values["name"] for values in found["sample"]] == ["a", "b"]


def test_a_table_in_a_table_is_a_dataclass_in_a_dataclass(tmp_path):
    found = load(write(tmp_path, '[sample]\nname = "a"\n[sample.inner]\ndepth = 5'), SECTIONS)
    assert found["sample"][0]["inner"] == Inner(5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sample]\nqota_bytes = 1", ["[sample]", "'qota_bytes'", "did you mean 'quota_bytes'"]),
        ("[sample]\nzzzzz = 1", ["'zzzzz'", "known: name, brokers"]),
        ("[sampel]\nname = 'x'", ["[sampel]", "did you mean 'sample'"]),
        ("[sample]\nworkers = 'two'", ["workers", "wanted an integer", "two"]),
        ("[sample]\nworkers = true", ["workers", "wanted an integer", "True"]),
        ("[sample]\nlease_s = '20 s'", ["lease_s", "wanted a number", "20 s"]),
        ("[sample]\nis_open = 1", ["is_open", "wanted true or false", "1"]),
        ("[sample]\nname = 1", ["name", "wanted a text", "1"]),
        ("[sample]\nbrokers = 'tcp://x:1'", ["brokers", "wanted a list", "tcp://x:1"]),
        ("[sample]\nbrokers = [1]", ["brokers[0]", "wanted a text", "1"]),
        ("[sample]\nquota_bytes = '10 apples'", ["quota_bytes", "10 apples", "10 GiB"]),
        ("[sample]\ninner = 1", ["inner", "wanted a table", "1"]),
        ("[sample]\ninner = {dept = 1}", ["inner", "'dept'", "did you mean 'depth'"]),
        ("sample = 1", ["sample is no table"]),
        ("[sample", ["not TOML", "end of document"]),
    ],
)
def test_a_refusal_names_the_file_the_key_what_was_wanted_and_what_came(tmp_path, text, words):
    message = refusal(tmp_path, text)
    assert str(tmp_path / "zcat.toml") in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"nowhere\.toml.*No such file"):
        load(tmp_path / "nowhere.toml", SECTIONS)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "zcat.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="not TOML"):
        load(path, SECTIONS)


def test_a_missing_required_field_is_named():
    with pytest.raises(BadConfig, match=r"\[sample\] lacks name"):
        make(Sample, {}, "[sample]")


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4096", 4096),
        ("10 GiB", 10 << 30),
        ("64MiB", 64 << 20),
        ("500 MB", 500_000_000),
        ("1.5 kB", 1500),
        ("2Ki", 2048),
        ("0.5 TiB", 1 << 39),
    ],
)
def test_sizes_are_written_as_people_write_them(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 gibibyte", "1e9", "ten", "1 XB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadConfig):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_a_number_of_bytes_is_read_exactly(nbytes):
    assert check(Sample, {"quota_bytes": str(nbytes)}, "")["quota_bytes"] == nbytes


@pytest.mark.parametrize(
    "line",
    ["workers = -5", "lease_s = -0.5", "lease_s = -2", "lease_s = nan", "lease_s = inf", "quota_bytes = -1"],
)
def test_numbers_below_zero_are_refused(tmp_path, line):
    assert "of at least 0, got" in refusal(tmp_path, f"[sample]\n{line}")


def test_an_integer_that_is_no_number_of_seconds_is_refused(tmp_path):
    assert "wanted a number, got 1000" in refusal(tmp_path, f"[sample]\nlease_s = {10**400}")


def test_a_word_that_is_like_none_gets_all_of_them():
    assert nearest("nope", ["info", "tree"]) == "; known: info, tree"
    assert nearest("noed", ["tree", "node"]) == "; did you mean 'node'?"


def test_what_came_is_quoted_once(tmp_path):
    assert refusal(tmp_path, "[sample]\nworkers = 'two'").endswith("wanted an integer, got 'two'")
