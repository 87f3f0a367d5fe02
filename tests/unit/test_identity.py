import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zcat.errors import BadContent, CacheInUse, StorageFailed
from zcat.storage.identity import Identity


def _lives(folder: Path, count: int) -> list[tuple[str, int]]:
    seen = []
    for _ in range(count):
        with Identity.load(folder) as identity:
            seen.append((identity.owner, identity.incarnation))
    return seen


def test_the_owner_is_made_once_and_each_life_has_the_next_incarnation(tmp_path: Path) -> None:
    lives = _lives(tmp_path / "new" / "state", 3)

    assert len({owner for owner, _ in lives}) == 1
    assert re.fullmatch(r"[0-9a-f]{32}", lives[0][0])
    assert [incarnation for _, incarnation in lives] == [1, 2, 3]


def test_two_folders_have_two_owners(tmp_path: Path) -> None:
    assert _lives(tmp_path / "a", 1)[0][0] != _lives(tmp_path / "b", 1)[0][0]


def test_the_counter_is_on_the_disk_before_anybody_can_hear_of_it(tmp_path: Path) -> None:
    with Identity.load(tmp_path) as identity:
        assert (tmp_path / "incarnation").read_text() == f"{identity.incarnation}\n"


@pytest.mark.parametrize(("above", "raised"), [(41, 42), (1, 2), (0, 2)])
def test_raising_goes_above_the_present_life_and_what_brokers_remember(
    tmp_path: Path, above: int, raised: int
) -> None:
    with Identity.load(tmp_path) as identity:
        assert identity.raise_above(above) == raised
        assert identity.incarnation == raised
    assert _lives(tmp_path, 1)[0][1] == raised + 1


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"-3", b"one", b"9" * 300])
def test_a_lost_or_damaged_counter_begins_again_with_the_same_owner(tmp_path: Path, content: bytes | None) -> None:
    ((owner, _),) = _lives(tmp_path, 1)
    if content is None:
        (tmp_path / "incarnation").unlink()
    else:
        (tmp_path / "incarnation").write_bytes(content)

    assert _lives(tmp_path, 1) == [(owner, 1)]


@pytest.mark.parametrize("content", [b"", b"abcd", b"\x00" * 32, b"G" * 32])
def test_a_damaged_owner_key_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "owner").write_bytes(content)

    with pytest.raises(BadContent, match="owner"):
        Identity.load(tmp_path)
    (tmp_path / "owner").unlink()
    assert _lives(tmp_path, 1)[0][1] == 1  # the lock was let go


def test_a_folder_in_use_is_refused_and_the_message_names_the_process(tmp_path: Path) -> None:
    with Identity.load(tmp_path) as first:
        with pytest.raises(CacheInUse, match=rf"process {os.getpid()}: "):
            Identity.load(tmp_path)
        assert first.raise_above(0) == 2


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = "import sys, os, pathlib; from zcat.storage.identity import Identity\n"
    program += "held = Identity.load(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)

    assert _lives(tmp_path, 1)[0][1] == 2


def test_a_place_that_cannot_be_a_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageFailed, match="file"):
        Identity.load(tmp_path / "file")
