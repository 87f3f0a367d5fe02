"""The recipe of README.md: brokers are restarted one at a time, and nobody notices."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import blosc2
import numpy as np
import pytest

from zcat.net.sockets import make_context
from zcat.services.survey import Survey

ZCAT = [sys.executable, "-m", "zcat"]
STOP_S = 3.0
WAIT_S = 60.0
CHUNKS = 400
CHUNK_ITEMS = 1000


class Running:
    """A command that is started, stopped, and started again."""

    def __init__(self, folder, *arguments):
        self.command = [*ZCAT, *arguments, "--json", "--log-level", "error"]
        self.home = {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, env=self.home)
        self.ready = json.loads(self.process.stdout.readline())

    def stop(self):
        begun_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0
        assert time.monotonic() - begun_s <= STOP_S
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Reader(threading.Thread):
    """Reads one chunk after the other over HTTP, from all roots in turn, and compares."""

    def __init__(self, url, roots):
        super().__init__(daemon=True)
        self.url, self.roots = url, roots
        self.count, self.failures, self.longest_s = 0, [], 0.0
        self.stopping = threading.Event()
        self.start()

    def run(self):
        while not self.stopping.is_set():
            root, chunk = self.roots[self.count % len(self.roots)], self.count // len(self.roots) % CHUNKS
            first = chunk * CHUNK_ITEMS
            begun_s = time.monotonic()
            try:
                with urllib.request.urlopen(
                    f"{self.url}/api/fetch/{root}/a.b2nd?slice_={first}:{first + 3}&fmt=raw", timeout=WAIT_S
                ) as answer:
                    values = np.frombuffer(answer.read(), "<i8").tolist()
                if values != [first, first + 1, first + 2]:
                    self.failures.append(values)
            except OSError as error:
                self.failures.append(error)
            self.longest_s = max(self.longest_s, time.monotonic() - begun_s)
            self.count += 1
            self.stopping.wait(0.01)

    def end(self):
        self.stopping.set()
        self.join(WAIT_S)


@pytest.fixture
def context():
    made = make_context()
    yield made
    made.destroy(linger=0)


def test_brokers_are_restarted_one_by_one_and_no_read_fails(tmp_path, context):
    with contextlib.ExitStack() as stack:

        def run(*arguments):
            running = Running(tmp_path, *arguments)
            stack.callback(running.kill)
            return running

        brokers = [run("broker", "--listen", "tcp://127.0.0.1:0")]
        (first,) = brokers[0].ready["brokers"]
        brokers += [run("broker", "--listen", "tcp://127.0.0.1:0", "--peer", first) for _ in range(2)]
        endpoints = [running.ready["brokers"][0] for running in brokers]
        named = [part for endpoint in endpoints for part in ("--broker", endpoint)]
        for running, endpoint in zip(brokers, endpoints, strict=True):  # it is to come back where it was
            running.command[running.command.index("--listen") + 1] = endpoint
            for other in endpoints:
                running.command += ["--peer", other]
        for root in ("x", "y"):
            (tmp_path / root).mkdir()
            items = np.arange(CHUNKS * CHUNK_ITEMS)
            blosc2.asarray(items, urlpath=str(tmp_path / root / "a.b2nd"), chunks=(CHUNK_ITEMS,))
            run("publish", root, str(tmp_path / root), *named)
        follow = ("--follow", "x", "--follow", "y")
        subscriber = run("subscribe", *named, *follow, "--http", "127.0.0.1:0", "--cache", str(tmp_path / "cache"))
        survey = Survey(context, lambda: endpoints)

        def is_in_step():
            """What the recipe waits for: all brokers are here, linked, and list the same."""
            views = survey.brokers()
            links = [link for view in views for link in view.links if view.state == "here"]
            live = {view.counts.get("live") for view in views}
            return len(links) == 6 and all("in step" in link.notes for link in links) and live == {2}

        def wait_until_in_step():
            until_s = time.monotonic() + WAIT_S
            while not is_in_step():
                assert time.monotonic() < until_s, "the brokers did not come together"

        wait_until_in_step()
        for root in ("x", "y"):
            follow_it = [*ZCAT, "follow", root, "--url", subscriber.ready["http"]]
            assert subprocess.run(follow_it, capture_output=True, timeout=WAIT_S).returncode == 0
        reader = Reader(subscriber.ready["http"], ("x", "y"))
        stack.callback(reader.end)
        for running in brokers:
            running.stop()
            running.start()
            wait_until_in_step()
        while reader.count < 100:
            assert reader.is_alive()
            time.sleep(0.01)
        reader.end()
        assert reader.failures == []
        health = json.loads(
            urllib.request.urlopen(f"{subscriber.ready['http']}/api/health", timeout=WAIT_S).read()
        )
        assert health["status"] == "ok"
