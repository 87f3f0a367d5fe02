"""Threads that work for a loop."""

import threading

import pytest

from zcat.net.loop import Loop
from zcat.services.workers import OUTCOMES_MAX, LoopWorkers

WAIT_S = 20


@pytest.fixture
def loop():
    loop = Loop("test")
    loop.start()
    yield loop
    loop.stop()


@pytest.fixture
def workers(loop):
    workers = LoopWorkers("test", 1, loop)
    yield workers
    workers.close()


def test_the_loop_calls_what_each_piece_of_work_gives_in_order(loop, workers):
    called, all_done = [], threading.Event()

    def work(n):
        return lambda: called.append((n, threading.current_thread().name))

    for n in range(3 * OUTCOMES_MAX):
        workers.do(lambda n=n: work(n))
    workers.do(lambda: all_done.set)

    assert all_done.wait(WAIT_S)
    assert called == [(n, "zcat-test") for n in range(3 * OUTCOMES_MAX)]


def test_what_queues_up_is_handed_over_together(loop, workers, monkeypatch):
    begun, go_on, all_done = threading.Event(), threading.Event(), threading.Event()
    posts = []

    def first():
        begun.set()
        go_on.wait(WAIT_S)

    workers.do(first)
    assert begun.wait(WAIT_S)
    real = loop.post
    monkeypatch.setattr(loop, "post", lambda action: (posts.append(action), real(action)))
    monkeypatch.setattr(loop, "now_s", lambda: 0.0)  # all of it in no time
    for _ in range(OUTCOMES_MAX - 1):
        workers.do(lambda: list)
    workers.do(lambda: all_done.set)
    go_on.set()

    assert all_done.wait(WAIT_S)
    assert len(posts) == 1


def test_work_without_an_outcome_and_bugs_keep_nobody_from_theirs(loop, workers, caplog):
    def bug():
        raise RuntimeError("a bug")

    done, after = threading.Event(), threading.Event()
    workers.do(lambda: None)
    workers.do(lambda: bug)  # on the loop
    workers.do(lambda: done.set)
    workers.do(bug)  # in the thread
    workers.do(lambda: after.set)

    assert done.wait(WAIT_S)
    assert after.wait(WAIT_S)
    assert caplog.text.count("a bug") >= 2
