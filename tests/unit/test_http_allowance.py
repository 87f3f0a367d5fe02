import threading

import pytest

from zcat.errors import Busy
from zcat.http.allowance import FREE_BYTES_MAX, Allowance
from zcat.limits import MIB

TIMEOUT_S = 30.0


def test_answers_beyond_the_allowance_are_refused_until_one_is_sent():
    allowance = Allowance(10 * MIB, waiters_max=0)
    first = allowance.take(6 * MIB)
    with pytest.raises(Busy, match="smaller slices"):
        allowance.take(5 * MIB)
    second = allowance.take(4 * MIB)
    first.close()
    first.close()
    with pytest.raises(Busy):
        allowance.take(7 * MIB)
    second.close()
    allowance.take(10 * MIB).close()


def test_small_answers_are_never_refused():
    allowance = Allowance(2 * MIB, waiters_max=0)
    held = allowance.take(2 * MIB)
    allowance.take(FREE_BYTES_MAX).close()
    with pytest.raises(Busy):
        allowance.take(FREE_BYTES_MAX + 1)
    held.close()


def test_an_answer_that_is_never_sent_gives_its_share_back():
    allowance = Allowance(2 * MIB, waiters_max=0)
    share = allowance.take(2 * MIB)
    del share
    allowance.take(2 * MIB).close()


def test_who_waits_gets_the_room_that_becomes_free():
    allowance = Allowance(2 * MIB, waiters_max=1)
    held = allowance.take(2 * MIB)
    waiter = threading.Thread(target=lambda: allowance.take(2 * MIB).close())
    waiter.start()
    held.close()
    waiter.join(TIMEOUT_S)
    assert not waiter.is_alive()
    allowance.take(2 * MIB).close()
