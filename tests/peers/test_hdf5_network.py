"""HDF5 files through publisher and subscriber, as their users see them."""

import os
import signal
import threading

import falcon.testing
import h5py
import hdf5plugin
import numpy as np
import pytest
from hdf5_files import wave, write
from network import Network, eventually, is_synced, paths, read

from zcat.client.client import Client
from zcat.config import HttpConfig
from zcat.errors import BadConfig, DatasetUnknown, NotReadable, ZcatError
from zcat.http.app import make_app
from zcat.joined import JoinedBackend
from zcat.model.dataset import Kind

GZIP = {"compression": "gzip", "shuffle": True}
BLOSC2 = hdf5plugin.Blosc2(cname="zstd", clevel=3)


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def sample(path, offset=0):
    """Write a file with a few ways of storage; ``offset`` changes two datasets."""
    cube = wave((20, 300, 400))
    datasets = {
        "entry/blosc2": {"data": cube, "chunks": (2, 300, 400), **BLOSC2},
        "entry/plain": cube,
        "scalar": np.float64(2.5),
        "entry/gzip": {"data": cube + offset, "chunks": (1, 300, 400), **GZIP},
        "entry/lzf": {"data": wave((1000, 90)) + offset, "chunks": (40, 50), "compression": "lzf"},
    }
    write(path, **datasets)
    with h5py.File(path, "r+") as file:
        file.attrs["default"] = "entry"
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/gzip"].attrs["unit"] = "K"
    return {name: given["data"] if isinstance(given, dict) else given for name, given in datasets.items()}


def started(network, path):
    network.broker()
    publisher = network.publisher("sst", path)
    subscriber = network.subscriber()
    subscriber.follow("sst")
    return publisher, subscriber


def test_what_is_in_a_file_of_a_folder_is_read_elsewhere(network, folder):
    wanted = sample(folder / "run.h5")
    _, subscriber = started(network, folder)

    for name, values in wanted.items():
        np.testing.assert_array_equal(read(subscriber, "sst", f"run.h5/{name}"), values)
        np.testing.assert_array_equal(read(subscriber, "sst", f"run.h5/{name}", ...), values)
    np.testing.assert_array_equal(
        read(subscriber, "sst", "run.h5/entry/gzip", (3, slice(7, 99, 5))), wanted["entry/gzip"][3, 7:99:5]
    )
    info = subscriber.on_version("sst", "run.h5/entry/gzip", lambda dataset: dataset.info)
    assert info.attributes == {"unit": "K"}


def test_a_publisher_may_be_pointed_at_one_file(network, folder):
    wanted = sample(folder / "run.h5")
    _, subscriber = started(network, folder / "run.h5")

    assert set(paths(subscriber, "sst")) == {*wanted, "entry", "run.h5"}
    np.testing.assert_array_equal(read(subscriber, "sst", "entry/blosc2"), wanted["entry/blosc2"])
    whole = subscriber.on_version(
        "sst", "run.h5", lambda dataset: bytes(dataset.read_bytes(0, dataset.info.geometry.nbytes))
    )
    assert whole == (folder / "run.h5").read_bytes()


def test_the_attributes_of_a_root_that_is_one_file_are_the_roots(network, folder):
    sample(folder / "run.h5")
    _, subscriber = started(network, folder / "run.h5")
    http = falcon.testing.TestClient(make_app(subscriber, HttpConfig()))

    root = Client(JoinedBackend(subscriber)).root("sst")

    assert root.attributes() == {"default": "entry"}
    assert root.attributes("entry") == {"NX_class": "NXentry"}
    assert http.simulate_get("/api/info/sst").json["attributes"] == {"default": "entry"}


def test_a_root_that_is_a_folder_has_no_attributes(network, folder):
    sample(folder / "run.h5")
    _, subscriber = started(network, folder)
    http = falcon.testing.TestClient(make_app(subscriber, HttpConfig()))

    assert Client(JoinedBackend(subscriber)).root("sst").attributes() == {}
    assert "attributes" not in http.simulate_get("/api/info/sst").json


def test_other_files_are_no_roots(network, folder):
    (folder / "notes.txt").write_text("no HDF5")
    with pytest.raises(BadConfig, match="neither a folder nor an HDF5 file"):
        network.publisher("sst", folder / "notes.txt")


def test_a_file_that_is_replaced_is_read_anew_and_what_did_not_change_is_not_fetched_again(network, folder):
    sample(folder / "run.h5")
    _, subscriber = started(network, folder)
    before = {entry.path: entry.lineage for entry in subscriber.entries("sst")}
    for name in ("gzip", "blosc2", "lzf", "plain"):
        read(subscriber, "sst", f"run.h5/entry/{name}")

    wanted = sample(network.folder / "next.h5", offset=1)
    os.replace(network.folder / "next.h5", folder / "run.h5")

    def lineages():
        return {entry.path: entry.lineage for entry in subscriber.entries("sst")}

    eventually(lambda: lineages()["run.h5/entry/lzf"] != before["run.h5/entry/lzf"])
    eventually(lambda: is_synced(subscriber, "sst"))
    now = lineages()
    assert now["run.h5/entry/gzip"] != before["run.h5/entry/gzip"]
    assert now["run.h5/entry/blosc2"] == before["run.h5/entry/blosc2"]
    assert now["run.h5/entry/plain"] == before["run.h5/entry/plain"]
    for name, values in wanted.items():
        np.testing.assert_array_equal(read(subscriber, "sst", f"run.h5/{name}"), values)


def test_the_second_reader_costs_no_conversion(network, folder):
    wanted = sample(folder / "run.h5")["entry/lzf"]
    publisher, first = started(network, folder)
    second = network.subscriber("second")
    second.follow("sst")

    np.testing.assert_array_equal(read(first, "sst", "run.h5/entry/lzf"), wanted)
    asked = publisher._root._hdf5._tools.sandbox
    calls = []
    call = asked.call
    asked.call = lambda op, *rest: calls.append(op) or call(op, *rest)
    np.testing.assert_array_equal(read(second, "sst", "run.h5/entry/lzf"), wanted)

    assert "chunk" not in calls


def test_a_worker_that_is_killed_costs_a_reader_nothing_or_an_error_and_the_next_one_nothing(network, folder):
    wanted = sample(folder / "run.h5")["entry/lzf"]
    publisher, subscriber = started(network, folder)
    sandbox = publisher._root._hdf5._tools.sandbox
    stop = threading.Event()

    def kill():
        while not stop.wait(0.02):
            for worker in list(sandbox._at_work):
                if worker._process is not None:
                    os.kill(worker._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        np.testing.assert_array_equal(read(subscriber, "sst", "run.h5/entry/lzf"), wanted)
    except ZcatError:
        pass
    finally:
        stop.set()
        killer.join()

    # the last signal may still be on its way to a worker that has the next request by now
    plain = wave((20, 300, 400))
    eventually(lambda: (read(subscriber, "sst", "run.h5/entry/plain") == plain).all(), retried=ZcatError)
    eventually(lambda: (read(subscriber, "sst", "run.h5/entry/lzf") == wanted).all(), retried=ZcatError)


def test_groups_over_http_and_in_python(network, folder):
    sample(folder / "run.h5")
    _, subscriber = started(network, folder)
    http = falcon.testing.TestClient(make_app(subscriber, HttpConfig()))

    info = http.simulate_get("/api/info/sst/run.h5/entry").json
    assert (info["kind"], info["attributes"], info["nfiles"]) == ("group", {"NX_class": "NXentry"}, 4)
    assert http.simulate_get("/api/info/sst/run.h5").json["attributes"] == {"default": "entry"}
    listed = http.simulate_get("/api/list/sst/run.h5").json
    assert sorted(listed) == ["entry/blosc2", "entry/gzip", "entry/lzf", "entry/plain", "scalar"]
    assert "run.h5" in http.simulate_get("/api/list/sst").json
    assert "run.h5/entry" not in http.simulate_get("/api/list/sst").json
    assert http.simulate_get("/api/fetch/sst/run.h5/entry").status_code == 422
    assert http.simulate_get("/api/download/sst/run.h5/entry").status_code == 422


def test_what_cannot_be_offered_is_listed_with_the_reason(network, folder):
    with h5py.File(folder / "odd.h5", "w") as file:
        file["away"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["nothing"] = h5py.Empty("f8")
        file["good"] = wave((5,))
    _, subscriber = started(network, folder)

    problems = {entry.path: entry.problem for entry in subscriber.entries("sst")}
    assert "external link" in problems["odd.h5/away"]
    assert problems["odd.h5/nothing"]
    assert problems["odd.h5/good"] is None
    with pytest.raises(NotReadable):
        read(subscriber, "sst", "odd.h5/away")
    assert subscriber.entries("sst")[0].kind is Kind.FILE


def test_attributes_of_groups_in_python(network, folder):
    sample(folder / "run.h5")
    _, subscriber = started(network, folder)
    root = Client(JoinedBackend(subscriber)).root("sst")

    assert root.attributes("run.h5/entry") == {"NX_class": "NXentry"}
    assert root.attributes("run.h5/entry/gzip") == {"unit": "K"}
    assert [entry.path for entry in root.list("run.h5/entry")][:2] == ["run.h5/entry/blosc2", "run.h5/entry/gzip"]
    assert "run.h5/entry" not in root
    with pytest.raises(DatasetUnknown):
        root.attributes("run.h5/nothing")
