import contextlib
import socket

import pytest

from zcat.cli import checks
from zcat.errors import Timeout
from zcat.limits import GIB

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /home rw shared:2 - nfs4 server:/home rw
41 40 0:36 / /home/local rw - xfs /dev/sdb1 rw
42 22 0:37 / /mnt/with\\040space rw - lustre 10.0.0.1@tcp:/x rw
43 22 0:38 / /home rw shared:2 - cifs //server/home rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/cache", "ext4"),
        ("/home/me/.cache", "cifs"),
        ("/home/local/me", "xfs"),
        ("/mnt/with space/a", "lustre"),
        ("/homely", "ext4"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, kind):
    from pathlib import Path

    assert checks.file_system(Path(path), MOUNTINFO) == kind


def test_a_cache_on_a_network_disk_is_wrong(tmp_path):
    from pathlib import Path

    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTINFO)
    finding = checks.local_disk("cache", Path("/home/me/.cache"), mounts)
    assert not finding.is_good
    assert "cifs" in finding.found
    assert "--cache" in finding.advice
    assert checks.local_disk("cache", Path("/var/cache"), mounts).is_good


def test_this_environment_has_what_is_wanted():
    assert [finding for finding in checks.versions() if not finding.is_good] == []


def test_a_library_that_is_too_old_or_missing_is_wrong():
    old = checks._library("numpy", (99, 0))
    assert not old.is_good
    assert "99.0" in old.advice
    assert not checks._library("no-such-library-of-zcat", (1,)).is_good


def test_a_clock_of_1970_is_wrong():
    assert not checks.clock(0.0).is_good
    assert checks.clock().is_good


def test_more_connections_than_files_is_wrong():
    finding = checks.open_files(1 << 40)
    assert finding.is_good is ("unlimited" in finding.found)
    assert checks.open_files(-checks.FILES_BESIDES).is_good


def test_a_folder_that_is_yet_to_be_made_is_fine_and_not_made(tmp_path):
    finding = checks.folder("cache", tmp_path / "a" / "b", 0)
    assert str(tmp_path) in finding.found
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_wrong(tmp_path):
    finding = checks.folder("cache", tmp_path, 1 << 60)
    assert not finding.is_good
    assert "wanted" in finding.advice


def test_a_file_in_the_place_of_a_folder_is_wrong(tmp_path):
    (tmp_path / "cache").write_text("")
    assert not checks.folder("cache", tmp_path / "cache", GIB).is_good


def test_an_address_that_is_free_is_fine_and_one_that_is_not_ours_is_wrong():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        listener.close()
        finding, brokers = checks.subscriber(f"http://127.0.0.1:{port}")
    assert (finding.is_good, brokers) == (True, ())
    assert "zcat up" in finding.found
    finding, _ = checks.subscriber("http://no-such-host.invalid:1")
    assert not finding.is_good


def test_a_broker_that_does_not_answer_is_wrong():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        finding = checks.broker(f"tcp://127.0.0.1:{listener.getsockname()[1]}", 0.1)
    assert not finding.is_good
    assert "says nothing" in finding.found


def test_what_is_no_endpoint_is_wrong():
    assert not checks.broker("head:5560", 0.1).is_good


def test_ping_says_so_when_nobody_answers():
    from zcat.cli.ping import ping

    with pytest.raises(Timeout):
        ping("tcp://127.0.0.1:1", 0.05)


def test_a_folder_that_may_not_be_looked_into_is_wrong(tmp_path, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", lambda dir: forbidden(dir))
    monkeypatch.setattr("pathlib.Path.stat", forbidden)
    finding = checks.folder("cache", tmp_path / "closed" / "cache", 0)
    assert not finding.is_good
    assert "Permission denied" in finding.found
