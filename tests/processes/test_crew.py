"""Worker processes that are killed, and a subscriber that is, and what is left of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from network import eventually, write_array

STOP_S = 3.0
SLACK = 2
"""For a machine that is busy with something else."""


@pytest.fixture
def crew(tmp_path, network):
    """Start ``zcat subscribe --workers 2``; return the process and its address."""
    write_array(tmp_path / "data" / "x.b2nd", np.arange(1000).reshape(10, 100), chunks=(1, 100), blocks=(1, 50))
    network.publisher("sst", tmp_path / "data")
    command = (
        *(sys.executable, "-m", "zcat", "subscribe", "--broker", network.endpoints[0], "--follow", "sst"),
        *("--cache", str(tmp_path / "cache"), "--http", "127.0.0.1:0", "--workers", "2", "--json"),
    )
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(open(tmp_path / "said", "w"))
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, cwd=tmp_path, start_new_session=True)
        )
        stack.callback(process.kill)
        url = json.loads(process.stdout.readline())["http"]
        eventually(lambda: get(f"{url}/api/fetch/sst/x.b2nd?slice_=3,4&fmt=raw"), retried=OSError)
        yield process, url


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def workers(url):
    return json.loads(get(f"{url}/api/health"))["workers"]


def is_alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(crew):
    _, url = crew
    first, second = (worker["pid"] for worker in workers(url))
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not is_alive(first))
    for _ in range(20):
        assert get(f"{url}/api/fetch/sst/x.b2nd?slice_=3,4&fmt=raw") == np.int64(304).tobytes()
    now = eventually(lambda: (found := workers(url))[0]["ready"] and found)
    assert now[0]["pid"] != first
    assert now[1]["pid"] == second
    assert [worker["restarts"] for worker in now] == [1, 0]
    assert sum(worker["requests"] for worker in now) > 20


def test_a_subscriber_that_is_killed_leaves_no_worker_and_its_cache_can_be_taken(crew, network, tmp_path):
    process, url = crew
    pids = [worker["pid"] for worker in workers(url)]
    process.kill()
    process.wait()
    eventually(lambda: not any(map(is_alive, pids)), within_s=STOP_S * SLACK)
    again = network.subscriber("again", cache=str(tmp_path / "cache"))
    again.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_subscriber_that_is_stopped_ends_all_workers_in_time(crew, number, tmp_path):
    process, url = crew
    pids = [worker["pid"] for worker in workers(url)]
    begun_s = time.monotonic()
    process.send_signal(number)
    assert process.wait(30) == 0
    assert time.monotonic() - begun_s < STOP_S * SLACK
    assert not any(map(is_alive, pids))
    assert not (tmp_path / "cache" / "run").exists()


def test_a_signal_that_reaches_everybody_is_no_accident(crew, tmp_path):
    """As systemd stops a service: SIGTERM to each of its processes."""
    process, url = crew
    pids = [worker["pid"] for worker in workers(url)]
    for pid in (process.pid, *pids):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(30) == 0
    assert not any(map(is_alive, pids))
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_ctrl_c_while_the_workers_start_is_no_accident(tmp_path):
    command = (
        *(sys.executable, "-m", "zcat", "subscribe", "--broker", "tcp://127.0.0.1:1", "--cache", "cache"),
        *("--http", "127.0.0.1:0", "--workers", "2"),
    )
    with (
        open(tmp_path / "said", "w") as said,
        subprocess.Popen(command, stdout=said, stderr=said, cwd=tmp_path, start_new_session=True) as process,
    ):
        try:
            began = eventually(lambda: children(process.pid))
            os.killpg(process.pid, signal.SIGINT)  # which is what a terminal does
            assert process.wait(30) == 0
            eventually(lambda: not any(map(is_alive, began)))
        finally:
            process.kill()
    assert "Traceback" not in (tmp_path / "said").read_text()


def children(pid):
    """Processes that any thread of it started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found
