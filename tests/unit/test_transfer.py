"""The machine that fetches chunks: credit, single flight, retries, final errors."""

import random

import pytest

from zcat.errors import BadChunk, Busy, Stale, Timeout, Unavailable
from zcat.protocol.transfer import AskChunks, DatasetKey, Resolve, Transfer, TransferLimits

DATASET = DatasetKey("sst", "a" * 32, "cube.b2nd", "1" * 32)
OTHER = DatasetKey("sst", "a" * 32, "plane.b2nd", "2" * 32)
LIMITS = TransferLimits(credit_bytes=100, reply_wait_s=5, attempts_max=3)


def asked(effects):
    return [number for effect in effects if isinstance(effect, AskChunks) for number in effect.message.chunks]


def resolved(effects):
    return {effect.ticket: effect.error for effect in effects if isinstance(effect, Resolve)}


def test_a_ticket_resolves_when_its_last_chunk_is_stored():
    transfer = Transfer(LIMITS)
    ticket, effects = transfer.want(DATASET, [3, 1], 10, bulk=False, now_s=0)
    (ask,) = effects
    assert ask.message.chunks == (1, 3)
    for nchunk in (3, 1):
        assert transfer.arrived(ask.request, nchunk, now_s=1) == DATASET
    assert transfer.stored(DATASET, 3, now_s=1) == []
    assert transfer.stored(DATASET, 1, now_s=1) == [Resolve(ticket, None)]
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)


def test_a_chunk_that_two_readers_want_is_asked_for_once():
    transfer = Transfer(LIMITS)
    first, effects = transfer.want(DATASET, [7], 10, bulk=False, now_s=0)
    second, more = transfer.want(DATASET, [7], 10, bulk=False, now_s=0)
    assert (asked(effects), asked(more)) == ([7], [])
    assert transfer.waiting(DATASET, 7) == {first, second}
    assert resolved(transfer.stored(DATASET, 7, now_s=1)) == {first: None, second: None}


def test_only_who_was_asked_owes_an_answer_until_it_is_complete():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, [0, 1], 10, bulk=False, now_s=0)
    assert transfer.is_owed(ask.request, DATASET.origin)
    assert not transfer.is_owed(ask.request, ("other", DATASET.owner))
    assert not transfer.is_owed(ask.request + 1, DATASET.origin)
    transfer.arrived(ask.request, 0, now_s=1)
    assert transfer.is_owed(ask.request, DATASET.origin)
    transfer.arrived(ask.request, 1, now_s=1)
    assert not transfer.is_owed(ask.request, DATASET.origin)


def test_no_more_than_the_credit_is_asked_for():
    transfer = Transfer(LIMITS)
    _, effects = transfer.want(DATASET, range(100), 10, bulk=False, now_s=0)
    assert asked(effects) == list(range(10))
    assert transfer.owed_bytes == 100
    later = [transfer.stored(DATASET, nchunk, now_s=1) for nchunk in range(3)]
    assert [len(asked(effects)) for effects in later] == [0, 0, 3]  # in batches of a quarter of the credit


def test_a_chunk_larger_than_the_credit_is_asked_for_alone():
    transfer = Transfer(LIMITS)
    _, effects = transfer.want(DATASET, [0, 1], 1000, bulk=False, now_s=0)
    assert asked(effects) == [0]
    assert asked(transfer.stored(DATASET, 0, now_s=1)) == [1]


def test_what_somebody_waits_for_goes_before_a_copy():
    transfer = Transfer(LIMITS)
    transfer.want(DATASET, range(30), 10, bulk=True, now_s=0)
    transfer.want(DATASET, [25, 99], 10, bulk=False, now_s=0)
    effects = [effect for nchunk in range(3) for effect in transfer.stored(DATASET, nchunk, now_s=0)]
    assert asked(effects) == [25, 99, 10]


def test_requests_hold_chunks_of_one_dataset():
    transfer = Transfer(LIMITS)
    transfer.want(DATASET, range(10), 10, bulk=False, now_s=0)
    transfer.want(OTHER, [0], 10, bulk=False, now_s=0)
    effects = [effect for nchunk in range(3) for effect in transfer.stored(DATASET, nchunk, now_s=0)]
    assert [effect.message.path for effect in effects] == ["plane.b2nd"]


def test_what_does_not_come_is_asked_for_again_and_then_given_up():
    transfer = Transfer(LIMITS)
    ticket, _ = transfer.want(DATASET, [1, 2], 10, bulk=False, now_s=0)
    assert transfer.tick(now_s=4.9) == []
    assert asked(transfer.tick(now_s=5)) == [1, 2]
    assert asked(transfer.tick(now_s=10)) == [1, 2]
    assert isinstance(resolved(transfer.tick(now_s=15))[ticket], Timeout)
    assert transfer.wanted_count == 0


def test_an_origin_that_many_share_has_more_time():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, range(5), 10, bulk=False, now_s=0)
    transfer.arrived(ask.request, 0, now_s=4)
    transfer.stored(DATASET, 0, now_s=4)
    assert transfer.tick(now_s=19) == []
    assert asked(transfer.tick(now_s=20)) == [1, 2, 3, 4]


def test_a_chunk_that_is_being_stored_is_not_overdue():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    transfer.arrived(ask.request, 1, now_s=1)
    assert transfer.tick(now_s=100) == []


def test_a_late_answer_to_a_repeated_request_is_not_taken_twice():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    (again,) = transfer.tick(now_s=5)
    assert transfer.arrived(ask.request, 1, now_s=6) is None
    assert transfer.arrived(again.request, 1, now_s=6) == DATASET
    assert transfer.arrived(again.request, 1, now_s=6) is None


def test_a_damaged_chunk_is_asked_for_again_three_times_at_most():
    transfer = Transfer(LIMITS)
    ticket, (ask,) = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    effects = [ask]
    for _ in range(3):
        transfer.arrived(effects[0].request, 1, now_s=0)
        effects = transfer.damaged(DATASET, 1, BadChunk("digest"), now_s=0)
    assert isinstance(resolved(effects)[ticket], BadChunk)


def test_a_stale_chunk_fails_all_who_wait_for_it():
    transfer = Transfer(LIMITS)
    first, (ask,) = transfer.want(DATASET, [1, 2], 10, bulk=False, now_s=0)
    second, _ = transfer.want(DATASET, [2], 10, bulk=False, now_s=0)
    transfer.arrived(ask.request, 2, now_s=0)
    assert set(resolved(transfer.refused(DATASET, 2, Stale("gone"), now_s=0))) == {first, second}


def test_a_request_that_is_refused_as_a_whole_fails_its_chunks():
    transfer = Transfer(LIMITS)
    ticket, (ask,) = transfer.want(DATASET, [1, 2], 10, bulk=False, now_s=0)
    assert set(resolved(transfer.request_failed(ask.request, Stale("gone"), now_s=0))) == {ticket}
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)


def test_what_could_not_leave_leaves_a_moment_later_in_the_same_order():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, [4, 5, 6], 10, bulk=False, now_s=0)
    transfer.unsent(ask.request, now_s=0)
    assert transfer.tick(now_s=0.01) == []
    assert asked(transfer.tick(now_s=0.06)) == [4, 5, 6]


def test_when_the_origin_is_away_all_who_wait_hear_it_at_once():
    transfer = Transfer(LIMITS)
    first, _ = transfer.want(DATASET, range(50), 10, bulk=True, now_s=0)
    second, _ = transfer.want(OTHER, [1], 10, bulk=False, now_s=0)
    effects = transfer.away(DATASET.origin, Unavailable("away"))
    assert set(resolved(effects)) == {first, second}
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)


def test_a_new_life_of_the_origin_is_asked_for_everything_again():
    transfer = Transfer(LIMITS)
    _, (ask,) = transfer.want(DATASET, [1, 2], 10, bulk=False, now_s=0)
    transfer.arrived(ask.request, 1, now_s=0)
    assert asked(transfer.moved(DATASET.origin, now_s=1)) == [2]


def test_a_cancelled_ticket_costs_nothing_more():
    transfer = Transfer(LIMITS)
    ticket, _ = transfer.want(DATASET, range(30), 10, bulk=False, now_s=0)
    transfer.cancel(ticket)
    assert transfer.wanted_count == 10  # those that are under way
    assert [e for nchunk in range(10) for e in transfer.stored(DATASET, nchunk, now_s=0)] == []
    assert transfer.wanted_count == 0


def test_too_many_wanted_chunks_are_refused():
    transfer = Transfer(TransferLimits(wanted_chunks_max=5))
    with pytest.raises(Busy):
        transfer.want(DATASET, range(6), 10, bulk=False, now_s=0)


@pytest.mark.parametrize("seed", range(60))
def test_every_ticket_resolves_whatever_happens(seed):
    """Readers come and go, chunks are lost, damaged, repeated and refused, the origin restarts."""
    rng = random.Random(seed)
    transfer = Transfer(LIMITS)
    open_tickets, wire, now_s = set(), [], 0.0

    def carry_out(effects):
        for effect in effects:
            if isinstance(effect, Resolve):
                open_tickets.discard(effect.ticket)
            elif rng.random() < 0.1:
                transfer.unsent(effect.request, now_s)
            else:
                wire.extend((effect.request, nchunk) for nchunk in effect.message.chunks)
        assert transfer.owed_bytes <= LIMITS.credit_bytes

    def answer(request, nchunk):
        dataset = transfer.arrived(request, nchunk, now_s)
        if dataset is None:
            return []
        kind = rng.random()
        if kind < 0.05:
            return transfer.refused(dataset, nchunk, Stale("s"), now_s)
        if kind < 0.15:
            return transfer.damaged(dataset, nchunk, BadChunk("b"), now_s)
        return transfer.stored(dataset, nchunk, now_s)

    for step in range(400):
        now_s += rng.random()
        if step < 300 and rng.random() < 0.2:
            nchunks = rng.sample(range(40), rng.randint(1, 20))
            dataset = rng.choice([DATASET, OTHER])
            ticket, effects = transfer.want(dataset, nchunks, rng.choice([1, 10, 60]), rng.random() < 0.5, now_s)
            open_tickets.add(ticket)
            carry_out(effects)
        if open_tickets and rng.random() < 0.03:
            ticket = rng.choice(sorted(open_tickets))
            open_tickets.discard(ticket)
            transfer.cancel(ticket)
        if rng.random() < 0.02:
            carry_out(transfer.moved(DATASET.origin, now_s))
        rng.shuffle(wire)
        for _ in range(min(len(wire), rng.randint(0, 4))):
            request, nchunk = wire.pop()
            if rng.random() > 0.15:
                carry_out(answer(request, nchunk))
            if rng.random() < 0.1:
                carry_out(answer(request, nchunk))
        carry_out(transfer.tick(now_s))
    for _ in range(40):
        now_s += 5
        while wire:
            carry_out(answer(*wire.pop()))
        carry_out(transfer.tick(now_s))
    assert not open_tickets
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)
