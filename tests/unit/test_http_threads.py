"""The dispatcher of HTTP's threads: which thread works next, how many there are, and how they end."""

import threading
from collections.abc import Iterator

import pytest

from zcat.http.threads import LatestFirst

WAIT_S = 20


class Recorded:
    """A task that says where it was done, and waits until it is let go."""

    def __init__(self, held: bool = False, error: Exception | None = None) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.go_on = threading.Event()
        self.thread = 0
        self.is_cancelled = False
        self._error = error
        if not held:
            self.go_on.set()

    def service(self) -> None:
        self.thread = threading.get_ident()
        self.began.set()
        assert self.go_on.wait(WAIT_S)
        self.ended.set()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def dispatcher() -> Iterator[LatestFirst]:
    made = LatestFirst(3)
    yield made
    made.shutdown()


def idle_at_last(dispatcher: LatestFirst, count: int) -> None:
    """Wait until so many threads sleep."""
    until = threading.Event()
    for _ in range(WAIT_S * 1000):
        if dispatcher.idle_count == count:
            return
        until.wait(0.001)
    raise AssertionError(f"{dispatcher.idle_count} threads sleep, not {count}")


def test_tasks_are_done_side_by_side_up_to_the_limit_and_then_in_their_order(dispatcher: LatestFirst) -> None:
    held = [Recorded(held=True) for _ in range(3)]
    waiting = [Recorded(), Recorded()]

    for task in (*held, *waiting):
        dispatcher.add_task(task)
    assert all(task.began.wait(WAIT_S) for task in held)
    assert not any(task.began.is_set() for task in waiting)
    held[1].go_on.set()

    assert all(task.ended.wait(WAIT_S) for task in waiting)
    assert waiting[0].thread == waiting[1].thread == held[1].thread
    held[0].go_on.set()
    held[2].go_on.set()


def test_the_thread_that_worked_last_works_next(dispatcher: LatestFirst) -> None:
    first, second = Recorded(held=True), Recorded(held=True)
    dispatcher.add_task(first)
    dispatcher.add_task(second)
    assert first.began.wait(WAIT_S)
    assert second.began.wait(WAIT_S)
    second.go_on.set()
    idle_at_last(dispatcher, 1)
    first.go_on.set()
    idle_at_last(dispatcher, 2)

    for _ in range(5):
        task = Recorded()
        dispatcher.add_task(task)
        assert task.ended.wait(WAIT_S)
        idle_at_last(dispatcher, 2)
        assert task.thread == first.thread


def test_one_client_needs_one_thread(dispatcher: LatestFirst) -> None:
    threads = set()
    for _ in range(20):
        task = Recorded()
        dispatcher.add_task(task)
        assert task.ended.wait(WAIT_S)
        idle_at_last(dispatcher, 1)
        threads.add(task.thread)

    assert len(threads) == 1


def test_a_task_that_fails_costs_no_thread(dispatcher: LatestFirst, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        dispatcher.add_task(Recorded(error=ValueError("of the app")))
    last = Recorded()
    dispatcher.add_task(last)

    assert last.ended.wait(WAIT_S)
    idle_at_last(dispatcher, dispatcher.threads_count)
    assert "bug in=http" in caplog.text


def test_what_waits_at_the_end_is_cancelled_and_what_comes_later_too() -> None:
    dispatcher = LatestFirst(1)
    held, waiting, late = Recorded(held=True), Recorded(), Recorded()
    dispatcher.add_task(held)
    assert held.began.wait(WAIT_S)
    dispatcher.add_task(waiting)

    dispatcher.shutdown(timeout=0)
    dispatcher.add_task(late)
    held.go_on.set()
    assert held.ended.wait(WAIT_S)
    dispatcher.shutdown()

    assert waiting.is_cancelled
    assert late.is_cancelled
    assert not waiting.began.is_set()
    assert not late.began.is_set()


def test_every_task_is_done_once_whoever_adds_it(dispatcher: LatestFirst) -> None:
    tasks = [Recorded() for _ in range(400)]

    def add(some: list[Recorded]) -> None:
        for task in some:
            dispatcher.add_task(task)

    adders = [threading.Thread(target=add, args=(tasks[number::4],)) for number in range(4)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()

    assert all(task.ended.wait(WAIT_S) for task in tasks)
    assert dispatcher.threads_count <= 3
