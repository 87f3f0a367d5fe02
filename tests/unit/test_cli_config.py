import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from zcat.cli import exits
from zcat.cli.config import EXAMPLES, toml
from zcat.cli.main import main
from zcat.cli.settings import SECTIONS, Settings, parse_http
from zcat.cli.up import root_name, roots_of
from zcat.config import DEFAULT_BROKER, BrokerConfig, HttpConfig, PublisherConfig, SubscriberConfig
from zcat.config_file import check, load, make
from zcat.errors import BadConfig, BadName, BadRequest, NotFound

CONF = Path(__file__).parents[2] / "conf"


class Args:
    def __init__(self, config=None, **flags):
        self.config = config
        self.set = []
        vars(self).update(flags)


@pytest.fixture(autouse=True)
def _nobody_elses_environment(monkeypatch, tmp_path):
    for name in ("ZCAT_BROKERS", "ZCAT_CONFIG", "ZCAT_URL", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_files_of_conf_are_what_the_command_prints(name, capsys):
    assert main(["config", "--example", name]) == exits.OK
    assert (CONF / f"{name}.toml").read_text() == capsys.readouterr().out, (
        "zcat config --example NAME > conf/NAME.toml"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_files_of_conf_load(name):
    found = load(CONF / f"{name}.toml", SECTIONS)
    for section in EXAMPLES[name][1]:
        (values,) = found[section]
        make(SECTIONS[section], values)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_files_of_conf_name_every_field_with_its_default_and_say_what_it_is(name):
    text = (CONF / f"{name}.toml").read_text()
    tables = text.split("\n[")[1:]
    for section, table in zip(EXAMPLES[name][1], tables, strict=True):
        lines = table.splitlines()
        for field in dataclasses.fields(SECTIONS[section]):
            (at,) = [at for at, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{field.name} =")]
            assert lines[at - 1].startswith("# "), f"{section}.{field.name} has no words"
            value = lines[at].partition("=")[2].strip()
            if lines[at].startswith("# ") and value:
                read = check(SECTIONS[section], tomllib.loads(f"{field.name} = {value}"), "")
                assert read[field.name] == field.default


def test_the_files_of_conf_work_together():
    publisher = make(PublisherConfig, load(CONF / "publisher.toml", SECTIONS)["publisher"][0])
    subscriber = make(SubscriberConfig, load(CONF / "subscriber.toml", SECTIONS)["subscriber"][0])
    broker = make(BrokerConfig, load(CONF / "broker.toml", SECTIONS)["broker"][0])
    assert broker.listen in publisher.brokers
    assert broker.listen in subscriber.brokers
    assert publisher.root in subscriber.follow


def test_what_is_shown_can_be_loaded_again(tmp_path, capsys):
    assert main(["config", "--show", "--config", str(CONF / "publisher.toml")]) == exits.OK
    path = tmp_path / "shown.toml"
    path.write_text(capsys.readouterr().out)
    found = load(path, SECTIONS)
    assert (
        make(PublisherConfig, found["publisher"][0])
        == Settings(Args(CONF / "publisher.toml"), "publisher").publishers()[0]
    )
    assert make(HttpConfig, found["http"][0]) == HttpConfig()
    assert found["subscriber"][0]["cache"] == str(tmp_path / ".cache/zcat")


def test_what_is_shown_is_there_for_programs(capsys):
    assert main(["config", "--json"]) == exits.OK
    sections = json.loads(capsys.readouterr().out)
    assert [section["section"] for section in sections] == ["broker", "subscriber", "http"]
    assert sections[0]["listen"] == DEFAULT_BROKER


@pytest.mark.parametrize("value", ['a "quoted" \\ path', "\x1b\U0001d173", True, 3, 2.5, ("a", "b"), ()])
def test_values_are_written_as_toml(value):
    read = tomllib.loads(f"value = {toml(value)}")["value"]
    assert (tuple(read) if isinstance(read, list) else read) == value


def test_flags_win_over_set_over_file_over_defaults(tmp_path):
    path = tmp_path / "zcat.toml"
    path.write_text("[subscriber]\nquota_bytes = 1\nreserve_bytes = 2\nfetch_timeout_s = 3\n[http]\nport = 4")
    settings = Settings(
        Args(path, set=["reserve_bytes=20 MB", "brokers=['tcp://a:1']", "http.threads=3"]), "subscriber"
    )
    subscriber = settings.subscriber(brokers=("tcp://b:2",), follow=(), cache=None)
    assert subscriber.brokers == ("tcp://b:2",)
    assert (subscriber.quota_bytes, subscriber.reserve_bytes, subscriber.fetch_timeout_s) == (1, 20_000_000, 3.0)
    assert (settings.http().port, settings.http().threads) == (4, 3)
    assert settings.http("127.0.0.1:5").port == 5


BOUNDED = [
    (section, field.name)
    for section, made in SECTIONS.items()
    for field in dataclasses.fields(made)
    if field.metadata
]


@pytest.mark.parametrize(("section", "name"), BOUNDED)
def test_what_no_service_could_work_with_is_refused(section, name):
    (field,) = [field for field in dataclasses.fields(SECTIONS[section]) if field.name == name]
    least, most = field.metadata["least"], field.metadata["most"]
    assert least <= field.default <= most
    Settings(Args(set=[f"{name}={least}"]), section)
    with pytest.raises(BadConfig, match=f"{name}: wanted"):
        Settings(Args(set=[f"{name}={least - 1 if isinstance(least, int) else least / 2}"]), section)
    with pytest.raises(BadConfig, match=f"{name}: wanted"):
        Settings(Args(set=[f"{name}={most + 1}"]), section)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("quota", "KEY=VALUE"),
        ("subscriber.follow=3", r"--set 'subscriber.follow=3': \[subscriber\] follow: wanted a list"),
        ("qota_bytes=1", "did you mean 'quota_bytes'"),
        ("htpt.port=1", "did you mean 'http'"),
        ("http.port=many", "wanted an integer"),
    ],
)
def test_a_wrong_assignment_says_what_was_wanted(assignment, words):
    with pytest.raises(BadRequest, match=words):
        Settings(Args(set=[assignment]), "subscriber")


def test_a_publisher_of_the_file_lends_its_keys_to_the_flags_of_its_name(tmp_path):
    path = tmp_path / "zcat.toml"
    path.write_text('[[publisher]]\nroot = "a"\npath = "x"\nlease_s = 5\n[[publisher]]\nroot = "b"\npath = "y"')
    settings = Settings(Args(path), "publisher")
    assert [config.root for config in settings.publishers()] == ["a", "b"]
    assert settings.publisher(root="a", path="z").lease_s == 5.0
    assert settings.publisher(root="c", path="z").lease_s == 20.0


def test_two_publishers_have_two_states(tmp_path):
    settings = Settings(Args(), "publisher")
    states = {settings.publisher(root=root, path="x").state for root in "ab"}
    assert states == {str(tmp_path / ".local/state/zcat/publishers" / root) for root in "ab"}


@pytest.mark.parametrize(
    ("text", "brokers"),
    [
        ("[http]\nport = 1", (DEFAULT_BROKER,)),
        ('[[publisher]]\nroot = "a"\npath = "x"\nbrokers = ["tcp://h:1"]', ("tcp://h:1",)),
        ('[broker]\nlisten = "tcp://127.0.0.3:7"\npeers = ["file:/f"]', ("tcp://127.0.0.3:7", "file:/f")),
        ('[broker]\nlisten = "tcp://127.0.0.3:0"\npeers = ["tcp://h:1"]', ("tcp://h:1",)),
        ('[broker]\ninterface = "nonesuch"\npeers = ["tcp://h:1"]', ("tcp://h:1",)),
        (
            '[subscriber]\nbrokers = ["tcp://h:2"]\n[[publisher]]\nroot = "a"\npath = "x"\nbrokers = ["tcp://h:1"]',
            ("tcp://h:2", "tcp://h:1"),
        ),
    ],
    ids=["none", "publisher", "broker", "broker on any port", "broker nowhere", "several"],
)
def test_the_brokers_of_a_file_are_those_of_all_its_tables(tmp_path, text, brokers):
    path = tmp_path / "zcat.toml"
    path.write_text(text)
    assert Settings(Args(path), "subscriber").brokers() == brokers


def test_a_subscriber_is_configured_once(tmp_path):
    path = tmp_path / "zcat.toml"
    path.write_text("[[subscriber]]\n[[subscriber]]")
    with pytest.raises(BadConfig, match="found 2"):
        Settings(Args(path), "subscriber").subscriber()


def test_the_environment_may_name_the_file_and_the_folders(tmp_path, monkeypatch):
    path = tmp_path / "zcat.toml"
    path.write_text("[http]\nport = 4")
    monkeypatch.setenv("ZCAT_CONFIG", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    settings = Settings(Args(), "subscriber")
    assert settings.http().port == 4
    assert settings.subscriber().cache == str(tmp_path / "c" / "zcat")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    assert settings.subscriber().cache == str(tmp_path / ".cache/zcat")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        (":8000", ("127.0.0.1", 8000)),
        ("head:1", ("head", 1)),
    ],
)
def test_an_http_address_is_host_and_port(text, address):
    assert parse_http(text) == address


@pytest.mark.parametrize(
    "text", ["", "8000", "host", "host:", "host:http", "host:65536", "host:-1", "http://host:1"]
)
def test_what_is_no_http_address_is_refused(text):
    with pytest.raises(BadRequest, match="HOST:PORT"):
        parse_http(text)


def test_a_root_is_named_after_its_folder(tmp_path):
    for name in ("sst", "my data (2)", "-x-"):
        (tmp_path / name).mkdir()
    assert root_name(tmp_path / "my data (2)") == "my-data-2"
    assert root_name(tmp_path / "-x-") == "x"
    assert roots_of([str(tmp_path / "sst"), f"other={tmp_path}/sst/"]) == {
        "sst": tmp_path / "sst",
        "other": tmp_path / "sst",
    }


def test_two_folders_of_one_name_need_another(tmp_path):
    for parent in "ab":
        (tmp_path / parent / "sst").mkdir(parents=True)
    with pytest.raises(BadRequest, match="NAME="):
        roots_of([str(tmp_path / "a/sst"), str(tmp_path / "b/sst")])


def test_a_folder_whose_name_gives_none_needs_one():
    with pytest.raises(BadName, match="NAME=/"):
        roots_of(["/"])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        roots_of([f"a={tmp_path}/nowhere"])


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    (tmp_path / "run=3").mkdir()
    assert roots_of([str(tmp_path / "run=3")]) == {"run-3": tmp_path / "run=3"}


@pytest.mark.parametrize("argument", ["", "=", "x="])
def test_an_empty_path_is_not_the_current_folder(argument):
    with pytest.raises(BadRequest, match="for the current folder"):
        roots_of([argument])


def test_brokers_of_the_environment_stand_above_the_file_and_below_flags(monkeypatch, tmp_path):
    file = tmp_path / "zcat.toml"
    file.write_text('[subscriber]\nbrokers = ["tcp://file:1"]\n')
    assert Settings(Args(str(file)), "subscriber").subscriber().brokers == ("tcp://file:1",)
    monkeypatch.setenv("ZCAT_BROKERS", "tcp://a:1,tcp://b:1 file:/brokers")
    found = Settings(Args(str(file)), "subscriber")
    assert found.subscriber().brokers == ("tcp://a:1", "tcp://b:1", "file:/brokers")
    assert found.subscriber(brokers=("tcp://flag:1",)).brokers == ("tcp://flag:1",)
