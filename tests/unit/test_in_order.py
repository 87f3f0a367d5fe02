import os
import threading

import pytest

from zcat.storage.in_order import NICE, in_order

PATIENCE_S = 30.0


def test_results_come_in_order_whatever_is_done_first():
    second_is_done = threading.Event()

    def first():
        assert second_is_done.wait(PATIENCE_S)
        return 1

    def second():
        second_is_done.set()
        return 2

    assert list(in_order([first, second, lambda: 3], threads=2, ahead_max=2)) == [1, 2, 3]
    assert list(in_order([], threads=2, ahead_max=2)) == []


def test_the_threads_leave_processors_to_others():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    mine = niceness()
    assert list(in_order([niceness, niceness], threads=1, ahead_max=1)) == [min(mine + NICE, 19)] * 2
    assert niceness() == mine


def test_no_more_is_begun_than_may_be_ahead():
    taken = []

    def works():
        for number in range(100):
            taken.append(number)
            yield lambda number=number: number

    made = in_order(works(), threads=1, ahead_max=3)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) <= 8
    made.close()
    assert len(taken) <= 8


def test_what_goes_wrong_is_raised_in_its_place():
    def wrong():
        raise ValueError("wrong")

    made = in_order([lambda: 1, wrong, lambda: 3], threads=2, ahead_max=3)
    assert next(made) == 1
    with pytest.raises(ValueError, match="wrong"):
        next(made)
