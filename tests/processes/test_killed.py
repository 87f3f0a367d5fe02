"""Real processes that are killed at any moment, and what the others and the next life make of it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from network import Network, eventually, fetched, is_synced, paths, read, write_array

from zcat.errors import ZcatError

STOP_S = 3.0
RECOVERY_S = 5.0
SLACK = 2
"""Of what is timed, for a machine that is busy with something else."""

NCHUNKS, CHUNK = 64, 64 * 1024


class Processes:
    """Starts services by the command that people use, and ends them."""

    def __init__(self, folder):
        self._folder = folder
        empty = {"XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "ZCAT_CONFIG": ""}
        self._home = {**os.environ, "HOME": str(folder), **empty}
        self.stack = contextlib.ExitStack()

    def start(self, *arguments):
        """Give the process and what it says when it is ready."""
        command = [sys.executable, "-m", "zcat", *arguments, "--json", "--log-level", "warning"]
        process = self.stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, cwd=self._folder, env=self._home)
        )
        self.stack.callback(process.kill)
        line = process.stdout.readline()
        assert line, f"{arguments} ended with {process.wait(30)} before it was ready"
        return process, json.loads(line)

    def broker(self, listen="tcp://127.0.0.1:0"):
        process, ready = self.start("broker", "--listen", listen)
        return process, ready["brokers"][0]

    def publisher(self, folder, broker):
        state = str(self._folder / "state")
        return self.start("publish", "sst", str(folder), "--broker", broker, "--state", state)[0]

    def subscriber(self, cache, broker):
        little = ("--set", f"window_bytes={2 * CHUNK}", "--set", f"credit_bytes={2 * CHUNK}")  # at a time
        process, ready = self.start(
            *("subscribe", "--broker", broker, "--follow", "sst", "--cache", str(cache)),
            *("--http", "127.0.0.1:0", *little),
        )
        return process, ready["http"].rstrip("/")


@pytest.fixture
def processes(tmp_path):
    made = Processes(tmp_path)
    with made.stack:
        yield made


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


def write_noise(folder, number):
    values = np.random.default_rng(number).integers(0, 256, NCHUNKS * CHUNK, np.uint8)
    return write_array(folder / f"x{number}.b2nd", values, chunks=(CHUNK,), blocks=(CHUNK // 8,))


def kill(process):
    process.kill()
    process.wait(30)


class Reading:
    """Reads random parts all the time in a thread, until the end of the ``with``; keeps what went wrong."""

    def __init__(self, subscriber, path, values):
        self.count, self.failures = 0, []
        self._what = subscriber, path, values
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self.count or self.failures)
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _run(self):
        subscriber, path, values = self._what
        rng = random.Random(1)
        while not self._stop.is_set():
            begin = rng.randrange(len(values) - 1)
            end = begin + rng.randrange(1, 2 * CHUNK)
            try:
                if not np.array_equal(read(subscriber, "sst", path, (slice(begin, end),)), values[begin:end]):
                    self.failures.append((begin, end))
            except ZcatError as error:
                self.failures.append(error)
            self.count += 1


def test_while_a_broker_is_killed_and_started_again_no_read_fails(processes, network, tmp_path):
    broker, endpoint = processes.broker()
    values = write_noise(tmp_path / "data", 0)
    processes.publisher(tmp_path / "data", endpoint)
    subscriber = network.subscriber(brokers=(endpoint,))
    subscriber.follow("sst")
    with Reading(subscriber, "x0.b2nd", values) as reading:
        kill(broker)
        before = reading.count
        eventually(lambda: reading.count > before + 20)
        processes.broker(endpoint)
        newcomer = network.subscriber("newcomer", brokers=(endpoint,))

        def is_back():
            listed = [view.state for view in newcomer.roots()]
            return listed == ["live"] and subscriber.health()["status"] == "ok"

        eventually(is_back, within_s=RECOVERY_S * SLACK)
        write_noise(tmp_path / "data", 1)
        eventually(lambda: "x1.b2nd" in paths(subscriber, "sst"))
        newcomer.follow("sst")
        np.testing.assert_array_equal(read(newcomer, "sst", "x0.b2nd"), values)
    assert not reading.failures


def test_a_publisher_that_is_killed_comes_back_in_a_new_life(processes, network, tmp_path):
    _, endpoint = processes.broker()
    values = write_noise(tmp_path / "data", 0)
    publisher = processes.publisher(tmp_path / "data", endpoint)
    subscriber = network.subscriber(brokers=(endpoint,))
    before = subscriber.follow("sst")
    np.testing.assert_array_equal(read(subscriber, "sst", "x0.b2nd"), values)
    with Reading(subscriber, "x0.b2nd", values) as reading:
        kill(publisher)
        new = write_noise(tmp_path / "data", 1)
        processes.publisher(tmp_path / "data", endpoint)
        eventually(lambda: is_synced(subscriber, "sst") and paths(subscriber, "sst") == ["x0.b2nd", "x1.b2nd"])
        (after,) = subscriber.roots()
        assert (after.owner, after.incarnation) == (before.owner, before.incarnation + 1)
        np.testing.assert_array_equal(read(subscriber, "sst", "x1.b2nd"), new)
    assert not reading.failures


def download_and_kill(process, url, stop_bytes):
    """Read so many bytes of an answer, and kill whoever gives it."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
        answer.read(stop_bytes)
        kill(process)
    kill(process)


@pytest.mark.timeout(900)
def test_a_subscriber_that_is_killed_while_it_fills_its_cache_leaves_nothing_wrong(
    processes, network, tmp_path, request
):
    kills_count = request.config.getoption("--kills")
    _, endpoint = processes.broker()
    (tmp_path / "data").mkdir()
    processes.publisher(tmp_path / "data", endpoint)
    choice = random.Random(0)
    cache = tmp_path / "cache"
    spared = 0
    for number in range(kills_count):
        values = write_noise(tmp_path / "data", number)
        path = f"x{number}.b2nd"
        process, http = processes.subscriber(cache, endpoint)
        eventually(lambda url=f"{http}/api/info/sst/{path}": is_answered(url), retried=OSError)
        download_and_kill(process, f"{http}/api/download/sst/{path}", choice.randrange(1, values.nbytes))

        survivor = network.subscriber(cache=str(cache), brokers=(endpoint,))
        eventually(lambda one=survivor: is_synced(one, "sst"))
        np.testing.assert_array_equal(read(survivor, "sst", path), values)
        spared += NCHUNKS - fetched(survivor)
        survivor.close()
    assert 0 < spared < kills_count * NCHUNKS

    everything = network.subscriber(cache=str(cache), brokers=())
    for number in range(kills_count):
        expected = np.random.default_rng(number).integers(0, 256, NCHUNKS * CHUNK, np.uint8)
        np.testing.assert_array_equal(read(everything, "sst", f"x{number}.b2nd"), expected)


def is_answered(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status == 200


def test_each_service_ends_cleanly_in_the_middle_of_its_work(processes, network, tmp_path):
    broker, endpoint = processes.broker()
    values = write_noise(tmp_path / "data", 0)
    publisher = processes.publisher(tmp_path / "data", endpoint)
    subscriber, http = processes.subscriber(tmp_path / "cache", endpoint)
    reader = network.subscriber(brokers=(endpoint,), window_bytes=CHUNK, credit_bytes=CHUNK)
    reader.follow("sst")
    eventually(lambda: is_answered(f"{http}/api/info/sst/x0.b2nd"), retried=OSError)
    with Reading(reader, "x0.b2nd", values), urllib.request.urlopen(f"{http}/api/download/sst/x0.b2nd") as answer:
        answer.read(CHUNK)
        for process in (subscriber, publisher, broker):
            begin_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - begin_s < STOP_S * SLACK
