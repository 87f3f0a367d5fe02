import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from zcat.errors import BadName, StorageFailed
from zcat.services import broker_sources
from zcat.services.broker_sources import AnnouncedFile, found_at, read_file


def test_a_file_is_read_line_by_line_and_what_is_no_endpoint_is_passed_over(tmp_path):
    path = tmp_path / "brokers"
    path.write_text("# of the job\ntcp://a:1\n\n  tcp://b:2 \nnonsense\n\xe4")
    assert found_at([f"file:{path}", "tcp://127.0.0.1:3", "tcp://127.0.0.1:3"]) == (
        "tcp://a:1", "tcp://b:2", "tcp://127.0.0.1:3",
    )  # fmt: skip
    assert found_at([f"file:{tmp_path}/none"]) == ()


@pytest.mark.parametrize("entry", ["nonsense", "file:", "http://a:1"])
def test_what_is_neither_an_endpoint_nor_a_file_is_refused(entry):
    with pytest.raises(BadName):
        found_at([entry])


def test_a_name_of_several_addresses_is_one_broker_for_each(monkeypatch):
    addresses = {"many": ["10.0.0.1", "fd00::1", "10.0.0.1"], "one": ["10.0.0.9"]}

    def getaddrinfo(host, port, type):
        if host not in addresses:
            raise socket.gaierror
        return [(None, None, None, "", (address, 0)) for address in addresses[host]]

    monkeypatch.setattr(broker_sources.socket, "getaddrinfo", getaddrinfo)
    assert found_at(["tcp://many:5"]) == ("tcp://10.0.0.1:5", "tcp://[fd00::1]:5")
    assert found_at(["tcp://one:5", "tcp://none:5", "tcp://localhost:5"]) == (
        "tcp://one:5", "tcp://none:5", "tcp://localhost:5",
    )  # fmt: skip


def test_a_broker_is_in_the_file_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_sources, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "brokers"
    first, second = AnnouncedFile(path, "tcp://a:1"), AnnouncedFile(path, "tcp://b:1")
    assert read_file(path) == ("tcp://a:1", "tcp://b:1")
    path.unlink()  # or somebody else's copy without them
    while set(read_file(path)) != {"tcp://a:1", "tcp://b:1"}:
        pass
    first.close()
    second.close()
    assert "tcp://b:1" not in read_file(path)
    assert [each.name for each in tmp_path.iterdir()] == ["brokers"]


def test_many_that_write_at_once_are_all_there_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_sources, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "brokers"
    endpoints = {f"tcp://h{number}:1" for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda endpoint: AnnouncedFile(path, endpoint), endpoints))
    while set(read_file(path)) != endpoints:
        pass
    for each in made:
        each.close()


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path):
    with pytest.raises(StorageFailed, match="cannot be written"):
        AnnouncedFile(tmp_path / "no" / "folder", "tcp://a:1")
