import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from zcat.errors import BadConfig, BadName, Closed, DatasetUnknown, NotReadable, ZcatError
from zcat.storage import beneath
from zcat.storage.beneath import RootFolder, Stamp, lineage_of, stamp_of

SECRET = b"not for you"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A root folder with a neighbour that nobody may see."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.b2nd").write_bytes(b"aaa")
    (root / "sub" / "b.b2nd").write_bytes(b"bbb")
    return root


@pytest.fixture(params=[None, False], ids=["openat2", "by-component"])
def folder(request: pytest.FixtureRequest, top: Path) -> Iterator[RootFolder]:
    with RootFolder(top, by_openat2=request.param) as folder:
        yield folder


@pytest.fixture
def kernel_folder(top: Path) -> Iterator[RootFolder]:
    with RootFolder(top) as folder:
        yield folder


def content(folder: RootFolder, path: str) -> bytes:
    fd = folder.open_file(path)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("path", "wanted"), [("a.b2nd", b"aaa"), ("sub/b.b2nd", b"bbb")])
def test_a_file_inside_is_opened(folder: RootFolder, path: str, wanted: bytes):
    assert content(folder, path) == wanted


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside/secret",
        "sub/../../outside/secret",
        "sub/..",
        "./a.b2nd",
        ".",
        "",
        "/etc/passwd",
        "//etc/passwd",
        "sub//b.b2nd",
        "sub/",
        "a.b2nd\0",
        "a.b2nd\0/../x",
        "sub\\..\\..\\outside",
        ".hidden",
        "sub/.hidden",
        "a\nb",
        "a\u202eb",
        "a\udcff",
        "e\u0301",
        "con",
        "x" * 256,
        "x/" * 64 + "x",
        "/".join(["x" * 200] * 6),
    ],
)
def test_an_illegal_path_is_refused_before_anything_is_opened(folder: RootFolder, path: str):
    with pytest.raises(BadName):
        folder.open_file(path)
    with pytest.raises(BadName):
        folder.stat(path)
    if path:
        with pytest.raises(BadName):
            folder.open_dir(path)


@pytest.mark.parametrize("path", ["..%2foutside%2fsecret", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"])
def test_an_encoded_slash_is_just_a_name(folder: RootFolder, path: str):
    with pytest.raises((DatasetUnknown, BadName)):  # the latter where it begins with a dot
        folder.open_file(path)


@pytest.mark.parametrize("path", ["none", "none/none", "sub/none", "a.b2nd/none"])
def test_what_is_missing_is_unknown(folder: RootFolder, path: str):
    with pytest.raises(DatasetUnknown, match="does not exist"):
        folder.open_file(path)
    with pytest.raises(DatasetUnknown):
        folder.open_dir(path)
    assert folder.stat(path) is None


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("../outside/secret", "link"),
        ("{outside}/secret", "link"),
        ("../outside", "link/secret"),
        ("{outside}", "link/secret"),
        ("..", "link/outside/secret"),
        ("/proc/self/root{outside}/secret", "link"),
        ("/proc/self/root", "link{outside}/secret"),
        ("/proc/self/cwd", "link/setup.cfg"),
        ("sub/../../outside/secret", "link"),
        ("sub/up/outside/secret", "link"),
    ],
)
def test_a_link_that_leads_outside_is_refused(folder: RootFolder, top: Path, target: str, path: str):
    outside = str(top.parent / "outside")
    (top / "sub" / "up").symlink_to("../..")
    (top / "link").symlink_to(target.format(outside=outside))
    path = path.format(outside=outside)
    before = open_fds()

    with pytest.raises(NotReadable, match="symbolic link") as caught:
        folder.open_file(path)
    with pytest.raises(NotReadable):
        folder.stat(path)

    if outside not in path:
        assert str(top.parent) not in str(caught.value)
    assert open_fds() == before


def test_a_link_that_goes_out_and_comes_back_is_refused(folder: RootFolder, top: Path):
    (top / "link").symlink_to(f"../{top.name}/a.b2nd")

    with pytest.raises(NotReadable, match="symbolic link"):
        folder.open_file("link")


def test_a_chain_of_links_that_ends_outside_is_refused(folder: RootFolder, top: Path):
    (top / "one").symlink_to("sub/two")
    (top / "sub" / "two").symlink_to("../three")
    (top / "three").symlink_to("../outside/secret")

    with pytest.raises(NotReadable, match="symbolic link"):
        folder.open_file("one")


def test_a_loop_of_links_is_refused(folder: RootFolder, top: Path):
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")

    for path in ("one", "one/x"):
        with pytest.raises(NotReadable, match="symbolic link"):
            folder.open_file(path)


def test_links_that_stay_inside_are_followed(kernel_folder: RootFolder, top: Path):
    (top / "file").symlink_to("sub/b.b2nd")
    (top / "dir").symlink_to("sub")
    (top / "sub" / "up").symlink_to("../a.b2nd")

    assert content(kernel_folder, "file") == b"bbb"
    assert content(kernel_folder, "dir/b.b2nd") == b"bbb"
    assert content(kernel_folder, "sub/up") == b"aaa"
    assert kernel_folder.stat("file") == kernel_folder.stat("sub/b.b2nd")


def test_without_openat2_no_link_is_followed_at_all(top: Path):
    (top / "file").symlink_to("sub/b.b2nd")
    (top / "dir").symlink_to("sub")

    with RootFolder(top, by_openat2=False) as folder:
        for look in (folder.open_file, folder.stat):
            for path in ("file", "dir/b.b2nd"):
                with pytest.raises(NotReadable, match="symbolic link on the way is not followed"):
                    look(path)
        with pytest.raises(NotReadable):
            folder.open_dir("dir")


def test_a_fifo_is_refused_and_makes_nobody_wait(folder: RootFolder, top: Path):
    os.mkfifo(top / "pipe.b2nd")

    with pytest.raises(NotReadable, match=r"'pipe.b2nd' is a FIFO; wanted a regular file"):
        folder.open_file("pipe.b2nd")
    assert folder.stat("pipe.b2nd") is None


def test_a_socket_is_refused(folder: RootFolder, top: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(top)  # a socket's path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock")

        with pytest.raises(NotReadable, match="socket"):
            folder.open_file("sock")


def test_a_device_is_refused():
    with RootFolder("/dev") as folder, pytest.raises(NotReadable, match="is a device"):
        folder.open_file("null")


def test_a_folder_is_no_file_and_a_file_no_folder(folder: RootFolder):
    before = open_fds()

    with pytest.raises(DatasetUnknown, match="'sub' is a folder"):
        folder.open_file("sub")
    with pytest.raises(DatasetUnknown):
        folder.open_dir("a.b2nd")

    assert open_fds() == before


def test_a_file_that_may_not_be_read_is_listed_but_not_opened(folder: RootFolder, top: Path):
    (top / "a.b2nd").chmod(0)

    assert folder.stat("a.b2nd") is not None
    if os.access(top / "a.b2nd", os.R_OK):  # the super-user reads it all the same
        assert content(folder, "a.b2nd") == b"aaa"
    else:
        with pytest.raises(NotReadable, match="may not read it"):
            folder.open_file("a.b2nd")


def test_a_folder_swapped_for_a_link_after_the_look_is_not_followed(folder: RootFolder, top: Path):
    (top / "sub" / "secret").write_bytes(b"mine")
    assert folder.stat("sub/secret") is not None
    shutil.rmtree(top / "sub")
    (top / "sub").symlink_to("../outside")

    with pytest.raises(NotReadable):
        folder.open_file("sub/secret")


def test_descriptors_are_read_only_and_not_inherited(folder: RootFolder):
    fd = folder.open_file("a.b2nd")
    try:
        assert not os.get_inheritable(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
    finally:
        os.close(fd)


def test_folders_are_opened_for_listing_and_the_empty_path_is_the_root(folder: RootFolder):
    for path, names in (("", {"a.b2nd", "sub"}), ("sub", {"b.b2nd"})):
        fd = folder.open_dir(path)
        try:
            assert set(os.listdir(fd)) == names
        finally:
            os.close(fd)


def test_nothing_leaks_a_descriptor(folder: RootFolder, top: Path):
    (top / "out").symlink_to("../outside")
    before = open_fds()

    for path in ("a.b2nd", "sub/b.b2nd"):
        os.close(folder.open_file(path))
        folder.stat(path)
    for path in ("none", "sub", "sub/none/none", "out", "out/secret", "a.b2nd/x"):
        with pytest.raises(ZcatError):
            folder.open_file(path)

    assert open_fds() == before


def test_a_stamp_is_the_same_by_name_and_by_descriptor(folder: RootFolder, top: Path):
    fd = folder.open_file("a.b2nd")
    by_descriptor = stamp_of(fd)
    os.close(fd)

    assert folder.stat("a.b2nd") == by_descriptor == Stamp.of(os.stat(top / "a.b2nd"))


@pytest.mark.parametrize("change", ["append", "replace", "touch", "rewrite with the old mtime"])
def test_every_change_of_a_file_changes_its_stamp(folder: RootFolder, top: Path, change: str):
    file = top / "a.b2nd"
    os.utime(file, ns=(1, 1))
    before = folder.stat("a.b2nd")

    if change == "append":
        file.write_bytes(b"aaaa")
    elif change == "replace":
        (top / "new").write_bytes(b"AAA")
        os.utime(top / "new", ns=(1, 1))
        (top / "new").rename(file)
    elif change == "touch":
        os.utime(file)
    else:
        while os.stat(file).st_ctime_ns == before.ctime_ns:  # until the file system's clock has ticked
            file.write_bytes(b"AAA")
            os.utime(file, ns=(1, 1))

    assert folder.stat("a.b2nd") not in (before, None)


def test_the_stamp_of_a_sparse_frame_is_its_index(folder: RootFolder, top: Path):
    (top / "s.b2nd").mkdir()
    assert folder.stat("s.b2nd") is None

    (top / "s.b2nd" / "chunks.b2frame").write_bytes(b"index")

    assert folder.stat("s.b2nd") == folder.stat("s.b2nd/chunks.b2frame") is not None


def test_a_lineage_is_32_digits_and_depends_on_everything():
    stamp = Stamp(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5)
    others = [
        lineage_of("b" * 32, stamp),
        lineage_of("a" * 32, stamp, "group/x"),
        lineage_of("a" * 32, Stamp(2, 2, 3, 4, 5)),
        lineage_of("a" * 32, Stamp(1, 3, 3, 4, 5)),
        lineage_of("a" * 32, Stamp(1, 2, 4, 4, 5)),
        lineage_of("a" * 32, Stamp(1, 2, 3, 5, 5)),
        lineage_of("a" * 32, Stamp(1, 2, 3, 4, 6)),
        lineage_of("a" * 32, Stamp(12, 3, 4, 5, 0)),
    ]

    lineage = lineage_of("a" * 32, stamp)

    assert lineage == lineage_of("a" * 32, stamp)
    assert len(lineage) == 32
    assert set(lineage) <= set("0123456789abcdef")
    assert len({lineage, *others}) == len(others) + 1


@pytest.mark.parametrize("path", ["missing", "file", "nul\0"])
def test_a_root_that_is_no_folder_is_a_bad_configuration(tmp_path: Path, path: str):
    (tmp_path / "file").touch()

    with pytest.raises(BadConfig, match="root folder"):
        RootFolder(f"{tmp_path}/{path}")


def test_a_root_may_itself_be_a_link(top: Path, tmp_path: Path):
    (tmp_path / "alias").symlink_to(top)

    with RootFolder(tmp_path / "alias") as folder:
        assert content(folder, "sub/b.b2nd") == b"bbb"


def test_a_root_that_is_written_anew_is_taken_up_on_refresh(folder: RootFolder, top: Path):
    assert not folder.refresh()
    shutil.rmtree(top)
    with pytest.raises(BadConfig):
        folder.refresh()
    top.mkdir()
    (top / "new").write_bytes(b"new")
    before = open_fds()

    assert folder.stat("new") is None
    assert folder.refresh()

    assert content(folder, "new") == b"new"
    assert not folder.refresh()
    assert open_fds() == before


def test_a_closed_root_opens_nothing(top: Path):
    folder = RootFolder(top)
    folder.close()
    folder.close()

    with pytest.raises(Closed):
        folder.open_file("a.b2nd")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_refuses_openat2_the_fall_back_is_used(
    top: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(beneath, "_openat2", refuse)

    with RootFolder(top) as folder:
        assert content(folder, "sub/b.b2nd") == b"bbb"


def test_this_kernel_has_openat2_and_it_is_used(kernel_folder: RootFolder, top: Path):
    """All the tests above would be about the fall-back alone otherwise."""
    (top / "link").symlink_to("a.b2nd")

    assert stat.S_ISREG(kernel_folder.status("link").st_mode)
