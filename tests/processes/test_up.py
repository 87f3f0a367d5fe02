"""Real processes: the commands as people and job scripts start them."""

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import blosc2
import numpy as np
import pytest

CONF = Path(__file__).parents[2] / "conf"
ZCAT = [sys.executable, "-m", "zcat"]
STOP_S = 3.0


@pytest.fixture
def start(tmp_path):
    """Start a service in an empty home; return the process and its ready line."""
    home = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "ZCAT_CONFIG": ""}
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = stack.enter_context(
                subprocess.Popen([*ZCAT, *arguments, "--json"], stdout=subprocess.PIPE, cwd=tmp_path, env=home)
            )
            stack.callback(process.kill)
            line = process.stdout.readline()
            assert line, f"{arguments} ended with {process.wait(10)} before it was ready"
            return process, json.loads(line)

        yield start


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    blosc2.asarray(np.arange(1000).reshape(10, 100), urlpath=str(folder / "a.b2nd"))
    return folder


def zcat(*arguments, **options):
    return subprocess.run([*ZCAT, *arguments], capture_output=True, timeout=60, text=True, **options)


def stop(process, number=signal.SIGTERM):
    begin_s = time.monotonic()
    process.send_signal(number)
    status = process.wait(30)
    return status, time.monotonic() - begin_s


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_shares_a_folder_and_stops_when_told(start, data, number, tmp_path):
    process, ready = start("up", str(data), f"again={data}", "--http", "127.0.0.1:0")
    assert ready["roots"] == ["data", "again"]
    assert len(ready["brokers"]) == 1
    for root in ready["roots"]:
        shown = zcat("show", f"{root}/a.b2nd[3, :5]", "--url", ready["http"])
        assert (shown.returncode, shown.stdout) == (0, "[300 301 302 303 304]\n"), shown.stderr
    got = zcat("get", "data/a.b2nd", "--url", ready["http"], cwd=tmp_path)
    assert got.returncode == 0, got.stderr
    assert blosc2.open(str(tmp_path / "a.b2nd"))[-1, -1] == 999
    status, seconds = stop(process, number)
    assert status == 0
    assert seconds <= STOP_S


def test_up_without_a_path_shares_the_example_once_and_only_once(start, tmp_path):
    process, ready = start("up", "--http", "127.0.0.1:0", "--state", str(tmp_path / "state"))
    assert ready["roots"] == ["example"]
    assert "waves.b2nd" in zcat("ls", "example", "--url", ready["http"]).stdout
    second = zcat("up", "--http", "127.0.0.1:0", "--state", str(tmp_path / "state"))
    assert second.returncode == 7
    last = second.stderr.splitlines()[-1]
    assert last.startswith("zcat: cache-in-use: ")
    assert "--state DIR" in last
    assert stop(process)[0] == 0


def test_a_port_that_is_taken_is_said_with_what_to_do(data, tmp_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        done = zcat("up", str(data), "--http", f"127.0.0.1:{port}", "--state", str(tmp_path / "state"))
    assert done.returncode == 7
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("zcat: address-in-use: ")
    assert "--http 127.0.0.1:0" in last


def test_three_commands_with_the_files_of_conf_work_together(start, data, tmp_path):
    port = free_port()
    for name in ("broker", "publisher", "subscriber"):
        text = (CONF / f"{name}.toml").read_text()
        broker = f'"tcp://127.0.0.1:{port}"'
        text = text.replace('# listen = "tcp://127.0.0.1:5560"', f"listen = {broker}")
        text = text.replace('# brokers = ["tcp://127.0.0.1:5560"]', f"brokers = [{broker}]")
        text = text.replace("# port = 8000", "port = 0")
        (tmp_path / f"{name}.toml").write_text(text)
        assert tomllib.loads(text)
    processes = [
        start("broker", "--config", "broker.toml", "--log-level", "warning"),
        start("publish", "--config", "publisher.toml", "--log-level", "warning"),
        start("subscribe", "--config", "subscriber.toml", "--log-level", "warning"),
    ]
    url = processes[-1][1]["http"]
    # the subscriber is ready before its roots are: following waits for the catalogue
    assert zcat("follow", "example", "--url", url).stdout == "following example: 1 dataset\n"
    assert zcat("show", "example/a.b2nd[9, -3:]", "--url", url).stdout == "[997 998 999]\n"
    for process, _ in reversed(processes):
        status, seconds = stop(process)
        assert status == 0
        assert seconds <= STOP_S


def test_services_stop_in_time_when_their_broker_is_gone(start, data, tmp_path):
    process, ready = start("broker", "--listen", "tcp://127.0.0.1:0", "--log-level", "warning")
    (broker,) = ready["brokers"]
    publisher, _ = start("publish", "x", str(data), "--broker", broker, "--log-level", "warning")
    subscriber, ready = start(
        "subscribe", "--broker", broker, "--follow", "x", "--http", "127.0.0.1:0", "--log-level", "warning"
    )
    assert zcat("follow", "x", "--url", ready["http"]).returncode == 0
    assert stop(process)[0] == 0
    for process in (publisher, subscriber):
        status, seconds = stop(process)
        assert status == 0
        assert seconds <= STOP_S


def test_the_installed_script_hands_over_to_gzip(tmp_path):
    script = Path(sys.executable).with_name("zcat")
    others = [folder for folder in os.defpath.split(os.pathsep) if os.access(Path(folder, "zcat"), os.X_OK)]
    if not script.exists() or not others:
        pytest.skip("needs the installed script, and gzip's")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"content"))
    path = os.pathsep.join([str(script.parent), *others])
    done = subprocess.run(["zcat", "a.gz"], capture_output=True, cwd=tmp_path, env={"PATH": path}, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"content")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_brokers_are_watched_until_an_interrupt(start, number):
    _, ready = start("broker", "--listen", "tcp://127.0.0.1:0", "--log-level", "warning")
    command = [*ZCAT, "brokers", "--broker", *ready["brokers"], "--watch", "0.2", "--json"]
    in_background = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]  # as a script's "&" does it
    with subprocess.Popen(in_background, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(number)
        _, complaints = process.communicate(timeout=30)
    assert [look["brokers"][0]["state"] for look in looks] == ["here"] * 3
    assert (process.returncode, complaints) == (0, "")
