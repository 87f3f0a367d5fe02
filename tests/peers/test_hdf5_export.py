"""``zcat export-hdf5`` of what a subscriber offers: an imported folder, and an HDF5 file as it lies there."""

import contextlib

import h5py
import numpy as np
import pytest
from hdf5_files import wave, write

from zcat.cli import exits, up
from zcat.cli.main import main, make_parser

TEXT = h5py.string_dtype()


@pytest.fixture
def sample(tmp_path):
    path = write(
        tmp_path / "run.h5",
        **{
            "entry/cube": {"data": wave((20, 30, 400)), "chunks": (2, 30, 400), "compression": "gzip"},
            "entry/names": {"data": ["one", "zwölf"], "dtype": TEXT},
            "scalar": np.float64(2.5),
        },
    )
    with h5py.File(path, "r+") as file:
        file.attrs["gain"] = np.float32(np.nan)
        file.attrs["title"] = "test"
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/cube"].attrs["offsets"] = np.arange(3, dtype="<u2")
        file["other"] = file["entry/cube"]
    return path


@pytest.fixture
def subscriber(sample, tmp_path, monkeypatch):
    """Share a folder with the file and what an import makes of it."""
    data = tmp_path / "data"
    data.mkdir()
    assert main(["import", str(sample), str(data / "imported")]) == exits.OK
    (data / "run.h5").write_bytes(sample.read_bytes())
    arguments = ["up", f"data={data}", "--http", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    with contextlib.ExitStack() as stack:
        started = up.start(stack, make_parser().parse_args(arguments))
        monkeypatch.setenv("ZCAT_URL", started.http)
        yield


@pytest.mark.usefixtures("subscriber")
def test_an_imported_folder_comes_back_through_the_network(sample, tmp_path):
    made = tmp_path / "made.h5"

    assert main(["export-hdf5", "data/imported", str(made)]) == exits.OK

    with h5py.File(sample) as before, h5py.File(made) as after:
        assert set(after) == set(before)
        for name in ("entry/cube", "entry/names", "scalar"):
            assert after[name].dtype == before[name].dtype
            assert after[name].chunks == before[name].chunks
            np.testing.assert_array_equal(after[name][()], before[name][()])
        assert after["other"] == after["entry/cube"]
        assert np.isnan(after.attrs["gain"])
        assert after.attrs["gain"].dtype == np.float32
        assert after["entry"].attrs["NX_class"] == "NXentry"
        assert after["entry/cube"].attrs["offsets"].dtype == np.uint16


@pytest.mark.usefixtures("subscriber")
def test_an_hdf5_file_at_a_subscriber_is_written_again(sample, tmp_path):
    made = tmp_path / "made.h5"

    assert main(["export-hdf5", "data/run.h5", str(made)]) == exits.OK

    with h5py.File(sample) as before, h5py.File(made) as after:
        np.testing.assert_array_equal(after["entry/cube"][...], before["entry/cube"][...])
        assert after["scalar"][()] == 2.5
        assert after["entry"].attrs["NX_class"] == "NXentry"
        assert list(after["entry/cube"].attrs["offsets"]) == [0, 1, 2]


def test_a_root_that_is_one_file_tells_its_attributes_and_is_written_again(sample, tmp_path, monkeypatch, capsys):
    arguments = ["up", f"run={sample}", "--http", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    made = tmp_path / "made.h5"
    with contextlib.ExitStack() as stack:
        started = up.start(stack, make_parser().parse_args(arguments))
        monkeypatch.setenv("ZCAT_URL", started.http)

        assert main(["info", "run"]) == exits.OK
        assert "gain" in capsys.readouterr().out
        assert main(["export-hdf5", "run", str(made)]) == exits.OK

    with h5py.File(made) as after:
        assert after.attrs["title"] == "test"
        assert after["scalar"][()] == 2.5


def test_a_group_without_datasets_has_attributes_to_be_seen(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "run.h5", "w") as file:
        file.create_group("user").attrs["name"] = "Ada"
    arguments = ["up", f"data={tmp_path / 'data'}", "--http", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    with contextlib.ExitStack() as stack:
        started = up.start(stack, make_parser().parse_args(arguments))
        monkeypatch.setenv("ZCAT_URL", started.http)

        assert main(["info", "data/run.h5/user"]) == exits.OK
        assert "Ada" in capsys.readouterr().out
        assert main(["ls", "data/run.h5/user"]) == exits.OK
        assert main(["info", "data/run.h5/nobody"]) == exits.MISSING


@pytest.mark.usefixtures("subscriber")
def test_what_is_not_there_is_said_and_leaves_nothing(tmp_path):
    assert main(["export-hdf5", "data/nothing", str(tmp_path / "made.h5")]) == exits.MISSING
    assert not list(tmp_path.glob("*made*"))
    assert not list(tmp_path.glob(".*"))
