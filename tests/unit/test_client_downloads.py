import fcntl
import os

import pytest
from memory_backend import opened

from zcat.errors import BadRequest, Busy, StorageFailed, Unavailable

DATA = bytes(range(95))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_makes_one_file_and_says_how_far_it_is(tmp_path):
    _, dataset = opened(DATA)
    told = []
    target = dataset.download(tmp_path / "y.bin", progress=lambda done, total: told.append((done, total)))
    assert target == tmp_path / "y.bin"
    assert target.read_bytes() == DATA
    assert names(tmp_path) == ["y.bin"]
    assert told[0] == (10, 95)
    assert told[-1] == (95, 95)


def test_a_download_into_a_folder_keeps_the_datasets_name(tmp_path, monkeypatch):
    _, dataset = opened(DATA)
    assert dataset.download(str(tmp_path)) == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").unlink()
    dataset.download()
    assert names(tmp_path) == ["x"]


def test_an_interrupted_download_goes_on_where_it_ended(tmp_path):
    backend, dataset = opened(DATA)
    backend.cut_at = 50
    with pytest.raises(Unavailable):
        dataset.download(tmp_path)
    assert "x" not in names(tmp_path)
    backend.cut_at = None
    told = []
    dataset.download(tmp_path, progress=lambda done, total: told.append(done))
    assert (tmp_path / "x").read_bytes() == DATA
    assert told[0] > 50
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("resume", [True, False])
def test_a_download_of_another_version_begins_anew(tmp_path, resume):
    backend, dataset = opened(DATA)
    backend.cut_at = 50
    with pytest.raises(Unavailable):
        dataset.download(tmp_path)
    backend.cut_at = None
    if resume:
        backend.put("x", DATA[::-1])
    dataset.download(tmp_path, resume=resume)
    assert (tmp_path / "x").read_bytes() == backend.contents["x"]


def test_an_empty_file_is_downloaded(tmp_path):
    _, dataset = opened(b"")
    assert dataset.download(tmp_path / "e").read_bytes() == b""


def test_two_downloads_do_not_write_one_file(tmp_path):
    _, dataset = opened(DATA)
    with open(tmp_path / "x.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            dataset.download(tmp_path)


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path):
    _, dataset = opened(DATA)
    with pytest.raises(StorageFailed, match="nowhere"):
        dataset.download(tmp_path / "nowhere" / "x")


def test_what_is_no_file_is_not_replaced(tmp_path):
    _, dataset = opened(DATA)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(BadRequest, match="is no file"):
            dataset.download(tmp_path / name)
    assert names(tmp_path) == ["link", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_an_interrupt_leaves_nothing_that_is_of_no_use(tmp_path):
    _, dataset = opened(DATA)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.download(tmp_path / "x", progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} <= {"x.part", "x.part.tag"}
    assert (tmp_path / "x.part").stat().st_size
    dataset.download(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_download_that_got_nothing_leaves_nothing(tmp_path):
    backend, dataset = opened(DATA)
    backend.cut_at = 0
    with pytest.raises(Unavailable):
        dataset.download(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
