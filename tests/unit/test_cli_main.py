import argparse
import re
import resource
import subprocess
import sys

import pytest
import shtab

from zcat import __version__
from zcat.cli import exits, flags, main
from zcat.cli.completion import SHELLS
from zcat.cli.main import COMMANDS, OPTIONS, make_parser


def run(capsys, *arguments):
    status = main.main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def commands_of(parser):
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def test_the_list_of_commands_is_that_of_the_parser():
    assert sorted(commands_of(make_parser())) == sorted(COMMANDS)


def test_the_list_of_options_is_that_of_the_parser():
    parser = make_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    assert set(OPTIONS) == known


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_something_to_run(command, capsys):
    status, out, _ = run(capsys, command, "--help")
    assert status == exits.OK
    assert out.startswith(f"usage: zcat {command}")
    assert callable(commands_of(make_parser())[command].get_default("run"))


def test_the_help_lists_commands_and_exit_statuses(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == exits.OK
    for command in COMMANDS:
        assert re.search(rf"^    {command} ", out, re.MULTILINE)
    assert exits.table() in out


def test_the_version_is_told(capsys):
    assert run(capsys, "--version") == (exits.OK, f"zcat {__version__}\n", "")


def test_a_word_that_is_neither_command_nor_file_names_the_nearest_command(capsys):
    status, out, err = run(capsys, "shwo")
    assert (status, out) == (exits.REFUSED, "")
    assert err == "zcat: bad-request: 'shwo' is neither a command nor a file; did you mean 'show'?\n"
    assert run(capsys, "nope.gz")[2].endswith("; 'zcat --help' lists the commands\n")


def test_a_folder_is_told_from_a_command(capsys, tmp_path):
    status, _, err = run(capsys, str(tmp_path))
    assert status == exits.REFUSED
    assert f"'zcat up {tmp_path}' shares it" in err


@pytest.mark.parametrize("arguments", [["ls"], ["roots", "--nonsense"], ["up", "--http"], ["completion", "fish"]])
def test_a_wrong_command_line_is_one_line_and_status_2(arguments, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (exits.REFUSED, "")
    assert err.startswith("zcat: bad-request: ")
    assert err.count("\n") == 1
    assert "--help'" in err


@pytest.mark.parametrize("command", ["up", "ls", "publish"])
def test_an_unknown_option_leads_to_the_help_of_its_command(command, capsys):
    assert run(capsys, command, "a", "--nonsense")[2].endswith(f"; see 'zcat {command} --help'\n")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9", "x"])
def test_to_watch_needs_a_time(seconds, capsys):
    status, _, err = run(capsys, "brokers", "--watch", seconds)
    assert status == exits.REFUSED
    assert seconds in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("publish", "sst"), exits.REFUSED, "wanted NAME and PATH, got 'sst' alone"),
        (("publish", "sst", "/nowhere/at/all"), exits.MISSING, "'/nowhere/at/all': no such folder or file"),
        (("import", "/nowhere.h5", "x"), exits.MISSING, "'/nowhere.h5': no such file"),
        (("subscribe", "--no-share", "--share-listen", "tcp://*:0"), exits.REFUSED, "not allowed with"),
        (("show", "a/b", "--reduce", "min"), exits.REFUSED, "--fit SIZES"),
        (("brokers", "--broker", "tcp://127.0.0.1:1", "--json"), exits.UNREACHABLE, ""),
    ],
)
def test_a_mistake_is_said_before_anything_is_done(arguments, status, words, capsys):
    found, _, err = run(capsys, *arguments)
    assert (found, words in err) == (status, True), err


def test_a_broker_that_is_silent_is_named_once(capsys):
    out = run(capsys, "brokers", "--broker", "tcp://127.0.0.1:1")[1]
    assert out.endswith("\ntcp://127.0.0.1:1: nobody there takes a message\n")


def test_what_is_to_be_copied_from_a_help_is_in_one_piece(capsys):
    out = run(capsys, "completion", "--help")[1]
    assert "zcat completion bash > ~/.local/share/bash-completion/completions/zcat\n" in out


def test_an_address_where_nobody_answers_is_one_line_and_status_5(capsys):
    status, out, err = run(capsys, "roots", "--url", "http://127.0.0.1:1")
    assert (status, out) == (exits.UNREACHABLE, "")
    assert err.startswith("zcat: unavailable: ")
    assert err.count("\n") == 1


def test_an_address_that_is_no_url_is_one_line_and_status_2(capsys):
    for url in ("http://[::1", "localhost:8000", "http://"):
        status, out, err = run(capsys, "roots", "--url", url)
        assert (status, out) == (exits.REFUSED, "")
        assert err.startswith("zcat: bad-request: subscriber ")


def test_the_address_may_stand_before_the_command_or_in_the_environment(capsys, monkeypatch):
    assert "127.0.0.1:1" in run(capsys, "--url", "http://127.0.0.1:1", "roots")[2]
    monkeypatch.setenv("ZCAT_URL", "http://127.0.0.1:2")
    assert "127.0.0.1:2" in run(capsys, "roots")[2]
    assert "127.0.0.1:1" in run(capsys, "roots", "--url", "http://127.0.0.1:1")[2]


def test_ctrl_c_is_status_130(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run", interrupted)
    assert run(capsys, "roots") == (exits.INTERRUPTED, "", "")


def test_a_reader_that_goes_away_is_no_news():
    command = [sys.executable, "-m", "zcat", "completion", "zsh"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == exits.BROKEN_PIPE


def test_a_full_disk_behind_the_output_is_one_line_and_status_7():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "zcat", "completion", "zsh"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert done.returncode == exits.LOCAL
    assert done.stderr == "zcat: storage-failed: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(closed):
    command = f"exec {sys.executable} -m zcat roots --url http://127.0.0.1:1 {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (exits.UNREACHABLE, "")
    assert done.stderr.count("\n") == ("2>&-" not in closed)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_complete(shell, capsys):
    status, out, _ = run(capsys, "completion", shell)
    assert status == exits.OK
    for command in COMMANDS:
        assert command in out


def test_files_and_folders_are_completed_as_shtab_does_it():
    assert flags.FILE.items() <= shtab.FILE.items()
    assert flags.FOLDER.items() <= shtab.DIRECTORY.items()
    assert set(flags.FILE) == set(flags.FOLDER) == set(SHELLS)


def test_help_loads_nothing_heavy():
    heavy = "{'zmq', 'h5py', 'falcon', 'waitress', 'blosc2', 'numpy', 'rich', 'urllib3', 'shtab', 'asyncio'}"
    program = (
        "import sys; from zcat.cli.main import main; main(['--help']); "
        f"loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_is_there_at_once():
    def processor_s():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "zcat", "--help"], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # of the processor, not of the clock, and the best of a few: others may be at work on this machine
    assert min(processor_s() for _ in range(3)) < 0.25
