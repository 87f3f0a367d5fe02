import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import Busy
from zcat.protocol.serving import Job, Serving, ServingLimits


def jobs(peer, *wanted, bulk=False):
    return [Job(peer, 1, one, bulk) for one in wanted]


def serving(**limits):
    return Serving(ServingLimits(**{"working_max": 1000, **limits}))


def served(machine, nbytes=1):
    """Do all that may be done now; give what was asked for, in the order of doing."""
    order = []
    while (job := machine.next()) is not None:
        machine.done(job, nbytes)
        order.append(job.wanted)
    return order


def test_peers_take_turns():
    machine = serving()
    machine.submit(jobs(b"a", "a1", "a2", "a3"))
    machine.submit(jobs(b"b", "b1"))
    machine.submit(jobs(b"c", "c1", "c2"))

    assert served(machine) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_what_somebody_waits_for_goes_before_a_copy():
    machine = serving()
    machine.submit(jobs(b"a", "copy 1", "copy 2", bulk=True))
    machine.submit(jobs(b"a", "a1"))
    machine.submit(jobs(b"b", "b1"))

    assert served(machine) == ["a1", "b1", "copy 1", "copy 2"]


def test_a_stopped_reader_holds_so_many_bytes_and_others_go_on():
    machine = serving(peer_bytes_max=100, total_bytes_max=1000)
    machine.submit(jobs(b"stopped", *range(50)))
    machine.submit(jobs(b"reading", *"abcdef"))

    order = served(machine, nbytes=40)

    assert [w for w in order if isinstance(w, int)] == [0, 1, 2]  # the third began below the limit
    while "f" not in order:
        machine.left(b"reading", 40)
        order += served(machine, nbytes=40)
    assert [w for w in order if isinstance(w, str)] == list("abcdef")
    assert machine.next() is None


def test_copies_leave_one_after_the_other_and_what_somebody_waits_for_at_once():
    machine = serving(pace_bytes=100)
    for name in (b"a", b"b", b"c"):
        machine.submit(jobs(name, *range(3), bulk=True))
    assert served(machine, 40) == [0, 0]
    machine.submit(jobs(b"d", "look"))
    assert served(machine, 40) == ["look"]
    machine.left(b"d", 40, now_s=0.1)
    machine.left(b"a", 40, now_s=0.1)
    assert served(machine, 40) == [0]


def test_a_copy_that_nobody_takes_holds_up_the_others_for_a_moment_only():
    machine = serving(pace_bytes=100)
    machine.submit(jobs(b"stopped", *range(5), bulk=True))
    machine.submit(jobs(b"reading", "x", bulk=True))
    first, second = machine.next(0.0), machine.next(0.0)
    for job in (first, second):
        machine.done(job, 60)
    assert {first.peer, second.peer} == {b"stopped", b"reading"}
    machine.left(b"reading", 60, now_s=0.5)
    machine.submit(jobs(b"reading", "y", bulk=True))
    assert machine.next(0.9) is None
    assert machine.next(1.1) is not None


def test_so_much_is_done_per_second_on_average():
    machine = serving(rate_bytes_s=100)
    machine.submit(jobs(b"a", *range(4)))
    assert machine.pause_s(0.0) == 0
    machine.done(machine.next(0.0), 50)
    assert machine.next(0.4) is None
    assert machine.pause_s(0.4) == pytest.approx(0.1)
    machine.done(machine.next(0.5), 200)
    assert (machine.next(2.4), machine.next(2.6).wanted) == (None, 2)


def test_readers_that_stopped_never_take_all_there_is():
    machine = serving(peer_bytes_max=100, total_bytes_max=200)
    for n in range(10):
        machine.submit(jobs(b"stopped %d" % n, *range(100)))
    served(machine)

    machine.submit(jobs(b"late", "now"))

    assert served(machine) == ["now"]
    assert machine.held_bytes < 200


def test_bytes_that_have_left_make_room():
    machine = serving(peer_bytes_max=10)
    machine.submit(jobs(b"a", 1, 2, 3))
    assert served(machine, nbytes=10) == [1]

    machine.left(b"a", 10)

    assert served(machine, nbytes=10) == [2]


def test_few_jobs_are_begun_at_a_time():
    machine = serving(working_max=2)
    machine.submit(jobs(b"a", 1, 2, 3))
    first, second = machine.next(), machine.next()

    assert first
    assert second
    assert machine.next() is None
    machine.done(first, 1)
    assert machine.next() is not None


def test_small_answers_are_made_several_at_a_time():
    machine = serving(working_max=2, batch_bytes=100, batch_jobs_max=5)
    machine.submit(jobs(b"a", *range(20)))
    assert [job.wanted for job in machine.next_batch()] == [0]  # nothing is known of answers yet
    (first,) = machine.next_batch()
    assert machine.next_batch() == []

    machine.done(first, 30)

    assert [job.wanted for job in machine.next_batch()] == [2, 3, 4]
    machine.done(first, 1)
    assert [job.wanted for job in machine.next_batch()] == [5, 6, 7, 8, 9]


def test_what_was_not_begun_after_all_is_next_again():
    machine = serving(batch_bytes=100)
    machine.submit(jobs(b"a", "a1", "a2", "a3"))
    machine.submit(jobs(b"b", "b1", bulk=True))
    machine.done(machine.next(), 25)
    batch = machine.next_batch()
    assert [job.wanted for job in batch] == ["a2", "a3", "b1"]

    machine.done(batch[0], 90)
    for job in reversed(batch[1:]):
        machine.put_back(job)

    assert (machine.jobs_count, machine.working) == (2, 0)
    assert served(machine) == ["a3", "b1"]


def test_too_many_jobs_of_a_peer_are_refused_whole():
    machine = serving(jobs_per_peer_max=3)
    machine.submit(jobs(b"a", 1, 2))

    with pytest.raises(Busy):
        machine.submit(jobs(b"a", 3, 4))

    machine.submit(jobs(b"b", 5))
    assert sorted(served(machine)) == [1, 2, 5]


def test_too_many_jobs_of_all_are_refused():
    machine = serving(jobs_max=2)
    machine.submit(jobs(b"a", 1, 2))

    with pytest.raises(Busy):
        machine.submit(jobs(b"b", 3))
    assert machine.peers_count == 1


def test_the_jobs_of_a_peer_that_is_gone_are_dropped():
    machine = serving()
    machine.submit(jobs(b"a", 1, 2, 3))
    machine.submit(jobs(b"b", 4))
    begun = machine.next()
    assert begun

    assert machine.drop(b"a") == 2

    assert served(machine) == [4]
    machine.done(begun, 7)
    machine.left(b"a", 7)
    machine.left(b"b", 1)
    assert (machine.peers_count, machine.held_bytes, machine.working, machine.jobs_count) == (0, 0, 0, 0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("sndplx"), st.integers(0, 3), st.integers(0, 60)), max_size=60))
def test_counts_agree_with_what_happened_whatever_the_order(steps):
    machine = serving(working_max=3, peer_bytes_max=100, total_bytes_max=150, batch_jobs_max=1)
    begun, held = [], []
    for step, number, size in steps:
        peer = b"%d" % number
        if step == "s":
            machine.submit(jobs(peer, size, bulk=size % 2 == 1))
        elif step == "n" and (job := machine.next()) is not None:
            begun.append(job)
        elif step == "d" and begun:
            machine.done(begun[0], size)
            held.append((begun.pop(0).peer, size))
        elif step == "p" and begun:
            machine.put_back(begun.pop())
        elif step == "l" and held:
            machine.left(*held.pop(0))
        elif step == "x":
            machine.drop(peer)
        assert machine.working == len(begun) <= 3
        assert machine.held_bytes == sum(size for _, size in held) <= 150 + 3 * 60
    for job in begun:
        machine.done(job, 0)
    for one in held:
        machine.left(*one)
    rest = served(machine, nbytes=0)
    assert machine.jobs_count == machine.working == machine.held_bytes == machine.peers_count == 0, rest
