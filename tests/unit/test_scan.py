import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zcat.errors import Closed
from zcat.model.dataset import Kind
from zcat.storage.beneath import RootFolder
from zcat.storage.scan import SKIPPED_KEPT_MAX, Found, Scan, scan


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    top.mkdir()
    return top


@pytest.fixture(params=[None, False], ids=["openat2", "by-component"])
def folder(request: pytest.FixtureRequest, top: Path) -> Iterator[RootFolder]:
    with RootFolder(top, by_openat2=request.param) as folder:
        yield folder


@pytest.fixture
def kernel_folder(top: Path) -> Iterator[RootFolder]:
    with RootFolder(top) as folder:
        yield folder


def write(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def walked(folder: RootFolder) -> tuple[dict[str, Found], dict[str, str], Scan]:
    """Found by path, reasons by path, and the scan itself."""
    walk = scan(folder)
    found = {f.path: f for f in walk}
    return found, {s.path: s.reason for s in walk.skipped}, walk


def test_every_file_is_found_with_its_kind_and_stamp(folder: RootFolder, top: Path):
    kinds = {
        "a.b2nd": Kind.ARRAY,
        "deep/er/b.b2nd": Kind.ARRAY,
        "c.b2frame": Kind.FRAME,
        "README.md": Kind.FILE,
        "deep/plain": Kind.FILE,
        "a.b2nd~": Kind.FILE,
        "half.tmp": Kind.FILE,
        "half.part": Kind.FILE,
        "Größe.b2nd": Kind.ARRAY,
    }
    for path in kinds:
        write(top / path)

    found, skipped, walk = walked(folder)

    assert {path: f.kind for path, f in found.items()} == kinds
    assert all(f.stamp == folder.stat(path) and not f.sparse and f.problem is None for path, f in found.items())
    assert skipped == {}
    assert walk.skipped_count == 0
    assert not walk.is_cut


def test_a_second_iteration_walks_anew(folder: RootFolder, top: Path):
    write(top / "a")
    (top / "b?").touch()
    walk = scan(folder)
    list(walk)
    write(top / "c")

    assert {f.path for f in walk} == {"a", "c"}
    assert [s.path for s in walk.skipped] == ["b?"]


def test_an_empty_root_has_nothing(folder: RootFolder):
    assert list(scan(folder)) == []


def test_a_sparse_frame_is_one_dataset(folder: RootFolder, top: Path):
    for name, kind in (("a.b2nd", Kind.ARRAY), ("sub/f.b2frame", Kind.FRAME)):
        write(top / name / "chunks.b2frame")
        write(top / name / "00000000.chunk")

        found, _, _ = walked(folder)

        assert found[name] == Found(name, kind, folder.stat(name), sparse=True)
    assert set(found) == {"a.b2nd", "sub/f.b2frame"}


def test_a_folder_that_is_only_called_like_a_dataset_is_a_folder(folder: RootFolder, top: Path):
    write(top / "a.b2nd" / "x.b2nd")
    write(top / "plain" / "chunks.b2frame")

    found, _, _ = walked(folder)

    assert {path: f.sparse for path, f in found.items()} == {"a.b2nd/x.b2nd": False, "plain/chunks.b2frame": False}


def test_a_sparse_frame_with_an_index_of_the_wrong_kind_has_a_problem(folder: RootFolder, top: Path):
    (top / "a.b2nd").mkdir()
    os.mkfifo(top / "a.b2nd" / "chunks.b2frame")

    found, _, _ = walked(folder)

    assert found["a.b2nd"].problem == "its chunks.b2frame is a FIFO"


def test_hidden_files_and_folders_are_passed_over_in_silence(folder: RootFolder, top: Path):
    write(top / ".hidden.b2nd")
    write(top / ".git" / "config")
    write(top / "sub" / ".a.b2nd.tmp")

    found, skipped, walk = walked(folder)

    assert (found, skipped, walk.skipped_count) == ({}, {}, 0)


def test_illegal_names_are_not_offered_and_said_so(folder: RootFolder, top: Path):
    write(top / "e\u0301.b2nd")
    write(top / "a:b")
    write(top / "back\\slash" / "inside")
    write(top / "ends ")
    write(top / "nul")
    write(top / "a\u202eb")
    os.close(os.open(os.fsencode(top) + b"/caf\xe9.b2nd", os.O_CREAT | os.O_WRONLY))

    found, skipped, walk = walked(folder)

    assert found == {}
    assert walk.skipped_count == 7
    assert "normal form NFC" in skipped["e\u0301.b2nd"]
    assert "':'" in skipped["a:b"]
    assert "is not UTF-8" in skipped["caf\\xe9.b2nd"]
    assert set(skipped) == {"e\u0301.b2nd", "a:b", "back\\slash", "ends ", "nul", "a\u202eb", "caf\\xe9.b2nd"}


def test_what_is_no_file_is_not_offered(folder: RootFolder, top: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(top / "pipe.b2nd")
    (top / "null").symlink_to("/dev/null")
    monkeypatch.chdir(top)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock")

        found, skipped, _ = walked(folder)

    assert found == {}
    assert skipped["pipe.b2nd"] == "is a FIFO"
    assert skipped["sock"] == "is a socket"
    assert "symbolic link" in skipped["null"]


def test_a_device_is_not_offered():
    with RootFolder("/dev") as folder:
        walk = scan(folder)
        assert "null" not in {f.path for f in walk}
        assert {s.path: s.reason for s in walk.skipped}["null"] == "is a device"


def test_links_that_lead_outside_are_not_offered(folder: RootFolder, top: Path):
    write(top.parent / "outside" / "secret.b2nd")
    (top / "file.b2nd").symlink_to("../outside/secret.b2nd")
    (top / "dir").symlink_to("../outside")
    (top / "absolute").symlink_to(top.parent / "outside")
    (top / "proc").symlink_to("/proc/self/root")
    (top / "chain").symlink_to("dir/secret.b2nd")

    found, skipped, _ = walked(folder)

    assert found == {}
    assert set(skipped) == {"file.b2nd", "dir", "absolute", "proc", "chain"}
    assert all("symbolic link" in reason and "outside/" not in reason for reason in skipped.values())


def test_a_sparse_frame_whose_index_lies_outside_is_not_offered(folder: RootFolder, top: Path):
    write(top.parent / "outside" / "chunks.b2frame")
    (top / "a.b2nd").mkdir()
    (top / "a.b2nd" / "chunks.b2frame").symlink_to("../../outside/chunks.b2frame")

    found, skipped, _ = walked(folder)

    assert found == {}
    assert "symbolic link" in skipped["a.b2nd"]


def test_links_that_stay_inside_are_offered(kernel_folder: RootFolder, top: Path):
    write(top / "data" / "a.b2nd")
    write(top / "data" / "s.b2nd" / "chunks.b2frame")
    (top / "latest.b2nd").symlink_to("data/a.b2nd")
    (top / "alias").symlink_to("data")
    (top / "sparse.b2nd").symlink_to("data/s.b2nd")

    found, skipped, _ = walked(kernel_folder)

    assert {path: (f.kind, f.sparse) for path, f in found.items()} == {
        "data/a.b2nd": (Kind.ARRAY, False),
        "alias/a.b2nd": (Kind.ARRAY, False),
        "latest.b2nd": (Kind.ARRAY, False),
        "data/s.b2nd": (Kind.ARRAY, True),
        "alias/s.b2nd": (Kind.ARRAY, True),
        "sparse.b2nd": (Kind.ARRAY, True),
    }
    assert skipped == {}


def test_loops_of_links_end(folder: RootFolder, top: Path):
    write(top / "sub" / "a.b2nd")
    (top / "sub" / "up").symlink_to("..")
    (top / "here").symlink_to(".")
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")
    (top / "gone").symlink_to("nothing")

    found, skipped, _ = walked(folder)

    assert set(found) == {"sub/a.b2nd"}
    assert set(skipped) == {"sub/up", "here", "one", "two", "gone"}


def test_a_folder_swapped_for_a_link_during_the_walk_leads_nowhere(folder: RootFolder, top: Path):
    write(top.parent / "outside" / "secret.b2nd")
    write(top / "first.b2nd")
    write(top / "sub" / "a.b2nd")
    walk = iter(scan(folder))

    found = [next(walk)]  # the root is being listed, its folders come after
    shutil.rmtree(top / "sub")
    (top / "sub").symlink_to("../outside")
    found += walk

    assert [f.path for f in found] == ["first.b2nd"]


def test_what_vanishes_during_the_walk_is_no_trouble(folder: RootFolder, top: Path):
    write(top / "first.b2nd")
    write(top / "sub" / "a.b2nd")
    walk = scan(folder)
    rest = iter(walk)

    next(rest)
    shutil.rmtree(top / "sub")

    assert list(rest) == []
    assert walk.skipped == []


def test_depth_is_bounded(folder: RootFolder, top: Path):
    deepest = top.joinpath(*["d"] * 63)
    write(deepest / "a")
    write(deepest / "d" / "too deep")

    found, skipped, _ = walked(folder)

    assert set(found) == {"d/" * 63 + "a"}
    assert "deeper than 64" in skipped["/".join(["d"] * 64)]


def test_a_path_that_is_too_long_is_not_offered(folder: RootFolder, top: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(top)
    for _ in range(5):  # step by step, since the whole may be longer than the system's limit
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
    Path("y" * 18).touch()
    Path("y" * 19).touch()
    Path("y" * 20).touch()

    found, skipped, _ = walked(folder)

    assert {len(path) for path in found} == {1023, 1024}
    assert [len(path) for path in skipped] == [1025]


def test_the_number_of_entries_is_bounded(folder: RootFolder, top: Path, caplog: pytest.LogCaptureFixture):
    for number in range(20):
        write(top / f"sub{number % 2}" / f"f{number}")
    walk = scan(folder, entries_max=10)

    with caplog.at_level(logging.WARNING, "zcat"):
        found = list(walk)

    assert len(found) == 8  # and two folders
    assert walk.is_cut
    assert caplog.text.count("root has too many entries") == 1


def test_exactly_as_many_entries_as_allowed_are_not_cut(folder: RootFolder, top: Path):
    for number in range(10):
        write(top / f"f{number}")
    walk = scan(folder, entries_max=10)

    assert len(list(walk)) == 10
    assert not walk.is_cut


def test_the_list_of_what_is_skipped_is_bounded(folder: RootFolder, top: Path):
    for number in range(SKIPPED_KEPT_MAX + 5):
        (top / f"{number}?").touch()

    _, _, walk = walked(folder)

    assert len(walk.skipped) == SKIPPED_KEPT_MAX
    assert walk.skipped_count == SKIPPED_KEPT_MAX + 5


def test_a_root_that_cannot_be_listed_is_not_an_empty_root(top: Path):
    folder = RootFolder(top)
    folder.close()

    with pytest.raises(Closed):
        list(scan(folder))


def test_no_descriptor_is_left_open(folder: RootFolder, top: Path):
    write(top / "sub" / "a")
    write(top / "b")
    write(top / "c")
    before = len(os.listdir("/proc/self/fd"))

    list(scan(folder))
    half = iter(scan(folder))
    next(half)
    del half

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thousand_files_take_a_fraction_of_a_second(kernel_folder: RootFolder, top: Path):
    for number in range(20):
        (top / f"sub{number}").mkdir()
        for file in range(50):
            os.close(os.open(top / f"sub{number}" / f"{file}.b2nd", os.O_CREAT | os.O_WRONLY))
    began_s = time.process_time()

    found = list(scan(kernel_folder))

    assert len(found) == 1000
    assert time.process_time() - began_s < 0.1  # measured: 0.01
