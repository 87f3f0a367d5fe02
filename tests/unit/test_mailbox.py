import select
import threading

import pytest

from zcat.errors import Busy, Closed
from zcat.net.mailbox import Mailbox


@pytest.fixture
def mailbox():
    mailbox = Mailbox("the loop", items_max=3)
    yield mailbox
    mailbox.close()


def is_ringing(mailbox):
    return bool(select.select([mailbox.fd], [], [], 0)[0])


def test_items_are_taken_in_the_order_of_their_posts(mailbox):
    for item in "abc":
        mailbox.post(item)
    assert mailbox.take(2) == ["a", "b"]
    assert mailbox.take(2) == ["c"]
    assert mailbox.take(2) == []


def test_the_bell_rings_from_the_first_post_until_the_last_is_taken(mailbox):
    assert not is_ringing(mailbox)
    mailbox.post(1)
    mailbox.post(2)
    mailbox.take(1)
    assert is_ringing(mailbox)
    mailbox.take(1)
    assert not is_ringing(mailbox)


def test_a_ring_without_an_item_wakes_once(mailbox):
    mailbox.ring()
    assert is_ringing(mailbox)
    assert mailbox.take(1) == []
    assert not is_ringing(mailbox)


def test_a_full_mailbox_is_busy_until_something_is_taken(mailbox):
    for item in range(3):
        mailbox.post(item)
    with pytest.raises(Busy, match="the loop has 3 requests waiting"):
        mailbox.post(3)
    mailbox.take(1)
    mailbox.post(3)


def test_a_closed_mailbox_gives_back_what_was_left_and_refuses_more(mailbox):
    mailbox.post("late")
    assert mailbox.close() == ["late"]
    assert mailbox.close() == []
    mailbox.ring()
    with pytest.raises(Closed, match="the loop is stopped"):
        mailbox.post("later")


def test_nothing_is_lost_or_doubled_when_many_threads_post():
    mailbox = Mailbox("busy", items_max=10_000)
    threads = [threading.Thread(target=lambda n=n: [mailbox.post((n, i)) for i in range(1000)]) for n in range(8)]
    for thread in threads:
        thread.start()
    taken = []
    while len(taken) < 8000:
        assert select.select([mailbox.fd], [], [], 10)[0], "the bell did not ring"
        taken += mailbox.take(100)
    for thread in threads:
        thread.join()
    assert not is_ringing(mailbox)
    assert [[i for n, i in taken if n == wanted] for wanted in range(8)] == [list(range(1000))] * 8
    mailbox.close()
