"""``zcat get`` of folders, from a backend in memory."""

import json

import numpy as np
import pytest
from memory_backend import MemoryBackend

import zcat
from zcat.cli import exits
from zcat.cli.main import main
from zcat.client.client import Client
from zcat.errors import BadChunk, DatasetUnknown

DATA = bytes(range(100))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run ``zcat get`` in an empty folder; return the exit status and what was said on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(backend, *arguments):
        monkeypatch.setattr(zcat, "connect", lambda url: Client(backend))
        status = main(["get", *arguments])
        return status, capsys.readouterr().err

    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copies(backend):
    """How many datasets were asked for since the last call."""
    count = backend.calls.count("body")
    backend.calls.clear()
    return count


@pytest.mark.parametrize("arguments", [("lab",), ("lab", "new"), ("lab/d", "new"), ("lab/d",), ("lab/d", "old")])
def test_a_copy_of_a_folder_that_was_cut_off_goes_on_where_it_was(run, tmp_path, arguments):
    backend = MemoryBackend(d__a=DATA, d__b=DATA * 2, d__c__e=DATA)
    (tmp_path / "old").mkdir()
    backend.cut_at = 150
    status, err = run(backend, *arguments)
    assert (status, "the same command goes on" in err) == (exits.UNREACHABLE, True)
    backend.cut_at = None
    copies(backend)
    assert run(backend, *arguments)[0] == exits.OK
    assert copies(backend) == 2  # not what was there
    name = "new" if "new" in arguments else "old/d" if "old" in arguments else arguments[0].rpartition("/")[2]
    inside = "" if "lab/d" in arguments else "d/"
    assert files(tmp_path / name) == {f"{inside}a": DATA, f"{inside}b": DATA * 2, f"{inside}c/e": DATA}
    assert len(files(tmp_path)) == 3


def test_what_changed_or_was_removed_here_meanwhile_is_copied_again(run, tmp_path):
    backend = MemoryBackend(a=DATA, b=DATA, c=DATA, d=DATA * 2)
    backend.cut_at = 150
    run(backend, "lab", "new")
    backend.cut_at = None
    backend.put("a", DATA[::-1])
    (tmp_path / "new" / "b").unlink()
    copies(backend)
    run(backend, "lab", "new")
    assert copies(backend) == 3
    assert files(tmp_path / "new") == {"a": DATA[::-1], "b": DATA, "c": DATA, "d": DATA * 2}


def test_a_complete_copy_is_not_taken_for_one_that_was_cut_off(run, tmp_path):
    backend = MemoryBackend(a=DATA)
    run(backend, "lab", "new")
    run(backend, "lab", "new")
    assert set(files(tmp_path)) == {"new/a", "new/lab/a"}


@pytest.mark.parametrize(
    "line", [b"", b"{", b'"lab/d', b'"lab/"\n["a"', b'"lab/"\n[1]\n', b"\xff\n", b'["lab/"]\n']
)
def test_a_journal_that_is_damaged_costs_a_copy(run, tmp_path, line):
    (tmp_path / "lab.part.tag").write_bytes(line)
    assert run(MemoryBackend(a=DATA), "lab")[0] == exits.OK
    assert files(tmp_path) == {"lab/a": DATA}


def test_another_copy_that_was_cut_off_is_none_of_ours(run, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new.part.tag").write_text(json.dumps("other/") + "\n")
    run(MemoryBackend(a=DATA), "lab", "new")
    assert set(files(tmp_path)) == {"new/lab/a", "new.part.tag"}


def test_of_an_hdf5_file_the_file_is_copied(run, tmp_path):
    run(MemoryBackend(**{"run.h5": DATA, "run.h5__entry__x": DATA, "z": DATA}), "lab")
    assert set(files(tmp_path / "lab")) == {"run.h5", "z"}


def test_arrays_become_files_that_are_known_as_such(run, tmp_path, monkeypatch):
    backend = MemoryBackend(g__t=np.zeros(3), g__u=np.zeros(3), **{"g__u.b2nd": np.zeros(3)})

    def frame(address, start, tag):
        return MemoryBackend(**{address.path: b"a frame"}).body(address, start, tag)

    monkeypatch.setattr(backend, "body", frame)
    run(backend, "lab/g")
    assert set(files(tmp_path / "g")) == {"t.b2nd", "u", "u.b2nd"}


@pytest.mark.parametrize(("error", "status"), [(BadChunk, exits.CONTENT), (DatasetUnknown, exits.MISSING)])
def test_what_is_damaged_or_gone_is_named_and_the_rest_is_copied(run, tmp_path, monkeypatch, error, status):
    backend = MemoryBackend(a=DATA, b=DATA, c=DATA)
    body = backend.body

    def damaged(address, start, tag):
        if address.path == "b":
            raise error("chunk 7 of it")
        return body(address, start, tag)

    monkeypatch.setattr(backend, "body", damaged)
    found, err = run(backend, "lab")
    assert (found, err) == (status, "zcat: left out b: chunk 7 of it\n")
    assert files(tmp_path) == {"lab/a": DATA, "lab/c": DATA}
