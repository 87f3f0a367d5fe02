import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zcat.cli.handover import is_meant_for_gzip, next_on_path
from zcat.cli.main import COMMANDS, OPTIONS

TEXT = b"one line\nanother\n" * 1000
OURS = [sys.executable, "-m", "zcat"]
needs_gzip = pytest.mark.skipif(next_on_path(os.environ["PATH"], "") is None, reason="no other zcat on PATH")


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "notes.gz"
    path.write_bytes(gzip.compress(TEXT))
    return path


def run(*arguments, **options):
    return subprocess.run([*OURS, *arguments], capture_output=True, timeout=60, **options)


def is_meant(*arguments):
    return is_meant_for_gzip([str(argument) for argument in arguments], COMMANDS, OPTIONS)


def script(folder, text):
    folder.mkdir()
    path = folder / "zcat"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_file_that_exists_is_meant_for_gzip(packed):
    assert is_meant(packed)
    assert is_meant("-f", packed)
    assert is_meant("-lv", packed, "nowhere.gz")
    assert is_meant("--", packed)
    assert is_meant(packed.with_suffix(""))  # gzip looks for notes.gz by itself


def test_our_commands_and_options_are_ours_whatever_follows(packed):
    for command in COMMANDS:
        assert not is_meant(command, packed)
    for option in OPTIONS:
        assert not is_meant(option, packed)
    assert not is_meant("--url=http://127.0.0.1:1", packed)


def test_a_folder_is_ours_unless_an_option_says_otherwise(packed):
    assert not is_meant(packed.parent)
    assert is_meant("-r", packed.parent)
    assert is_meant(packed.parent, packed)


def test_what_exists_nowhere_is_ours_to_refuse():
    assert not is_meant("nowhere.gz")
    assert not is_meant("-f", "nowhere.gz")


@needs_gzip
def test_a_file_comes_out_as_by_gzip(packed):
    done = run(packed)
    assert (done.returncode, done.stdout, done.stderr) == (0, TEXT, b"")


@needs_gzip
def test_a_pipe_comes_out_as_by_gzip(packed):
    for arguments in ([], ["-"], ["-f"]):
        done = run(*arguments, input=packed.read_bytes())
        assert (done.returncode, done.stdout) == (0, TEXT)


@needs_gzip
def test_a_file_as_standard_input_comes_out_as_by_gzip(packed):
    with packed.open("rb") as file:
        assert run(stdin=file).stdout == TEXT


@needs_gzip
def test_options_and_a_name_that_is_no_text_arrive_byte_for_byte(tmp_path):
    plain = os.fsencode(tmp_path) + b"/not gzip \xff.txt"
    Path(os.fsdecode(plain)).write_bytes(TEXT)
    done = run("-f", plain)
    assert (done.returncode, done.stdout) == (0, TEXT)


@needs_gzip
def test_the_exit_status_of_a_damaged_file_is_that_of_gzip(packed):
    packed.write_bytes(packed.read_bytes()[:-20])
    theirs = subprocess.run([next_on_path(os.environ["PATH"], ""), packed], capture_output=True, timeout=60)
    done = run(packed)
    assert theirs.returncode != 0
    assert (done.returncode, done.stdout, done.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


@needs_gzip
def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path):
    path = tmp_path / "large.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    with subprocess.Popen([*OURS, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) in (-13, 141)  # by SIGPIPE, or by a shell that says so


def test_without_another_zcat_it_says_what_to_do(packed, tmp_path):
    done = run(packed, env={**os.environ, "PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"zcat: not-found: ")
    assert b"gzip -cd" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_ours_are_passed_over_on_path(tmp_path):
    mine = script(tmp_path / "mine", "#!/usr/bin/python3\nfrom zcat.cli.main import main\nmain()\n")
    script(tmp_path / "other-environment", "#!/usr/bin/python3\nfrom zcat.cli.main import main\nmain()\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "zcat").symlink_to(mine)
    (tmp_path / "empty").mkdir()
    script(tmp_path / "not-executable", "#!/bin/sh\n").chmod(0o644)
    theirs = script(tmp_path / "gzip", '#!/bin/sh\nexec gzip -cd "$@"\n')
    folders = ["mine", "other-environment", "linked", "empty", "not-executable", "gzip"]
    path = os.pathsep.join(str(tmp_path / folder) for folder in folders)
    assert next_on_path(path, str(mine)) == theirs


def test_the_bin_of_our_environment_is_passed_over(tmp_path):
    assert next_on_path(str(Path(sys.prefix, "bin")), "") is None
