"""The machine that fetches parts of chunks: what is asked when, and what becomes of it."""

import random
from dataclasses import replace

import pytest

from zcat.errors import BadChunk, Busy, Stale, Timeout, Unavailable
from zcat.protocol.block_messages import Blocks, Part
from zcat.protocol.block_transfer import AskBlocks, BlockLimits, BlocksDone, BlockTransfer, WantedPart
from zcat.protocol.transfer import DatasetKey

KEY = DatasetKey("sst", "a" * 32, "t.b2nd", "f" * 32)
OTHER = KEY._replace(path="u.b2nd")
ORIGIN = KEY.origin
LIMITS = BlockLimits(credit_bytes=1000, reply_wait_s=5, attempts_max=3, resend_after_s=0.05, parts_max=100)


def wanted(nchunk, *blocks, nbytes=10, vouch=False):
    return WantedPart(Part(nchunk, blocks, vouch), nbytes)


def ask(request, *parts, key=KEY, bulk=False):
    made = tuple(part if isinstance(part, Part) else Part(part[0], tuple(part[1:])) for part in parts)
    return AskBlocks(ORIGIN, request, Blocks(key.root, key.path, key.lineage, made, bulk))


def machine(**changes):
    return BlockTransfer(replace(LIMITS, **changes))


def come(transfer, request, nchunk, now_s=0.0):
    coming = transfer.arrived(request, nchunk, now_s)
    assert coming is not None
    return transfer.stored(coming, now_s)


def test_what_a_slice_needs_leaves_in_one_request_and_is_done_when_all_has_come():
    transfer = machine()
    ticket, effects = transfer.want(KEY, [wanted(0, 1, 2), wanted(5, 7)], False, 0)
    assert effects == [ask(1, (0, 1, 2), (5, 7))]
    assert come(transfer, 1, 5) == []
    assert come(transfer, 1, 0) == [BlocksDone(ticket, None)]
    assert transfer.parts_count == 0


def test_blocks_that_are_coming_are_not_asked_for_again():
    transfer = machine()
    first, _ = transfer.want(KEY, [wanted(0, 1, 2)], False, 0)
    second, effects = transfer.want(KEY, [wanted(0, 2, 3)], False, 0)
    third, none = transfer.want(KEY, [wanted(0, 1)], False, 0)
    assert effects == [ask(2, (0, 3))]
    assert none == []
    assert come(transfer, 1, 0) == [BlocksDone(first, None), BlocksDone(third, None)]
    assert come(transfer, 2, 0) == [BlocksDone(second, None)]


def test_the_same_blocks_of_another_dataset_are_others():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1)], False, 0)
    _, effects = transfer.want(OTHER, [wanted(0, 1)], False, 0)
    assert effects == [ask(2, (0, 1), key=OTHER)]


def test_a_digest_is_asked_for_though_all_blocks_are_coming():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1)], False, 0)
    _, effects = transfer.want(KEY, [wanted(0, 1, vouch=True)], False, 0)
    assert effects == [ask(2, Part(0, (), True))]
    _, effects = transfer.want(KEY, [wanted(0, 1, vouch=True)], False, 0)
    assert effects == []


def test_the_credit_bounds_what_is_under_way_but_one_request_always_leaves():
    transfer = machine()
    ticket, effects = transfer.want(KEY, [wanted(n, 0, nbytes=600) for n in range(3)], False, 0)
    assert effects == [ask(1, (0, 0))]
    assert come(transfer, 1, 0) == [ask(2, (1, 0))]
    assert come(transfer, 2, 1) == [ask(3, (2, 0))]
    assert come(transfer, 3, 2) == [BlocksDone(ticket, None)]
    _, effects = transfer.want(KEY, [wanted(9, 0, nbytes=5000)], False, 0)
    assert effects == [ask(4, (9, 0))]


def test_what_somebody_waits_for_goes_before_what_is_prefetched():
    transfer = machine()
    _, first = transfer.want(KEY, [wanted(0, 0, nbytes=1000)], True, 0)
    for nchunk, bulk in ((1, True), (2, True), (3, False), (2, False)):
        assert transfer.want(KEY, [wanted(nchunk, 0, nbytes=1000)], bulk, 0)[1] == []
    later = [come(transfer, request, nchunk)[-1] for request, nchunk in ((1, 0), (2, 3), (3, 2))]
    assert first == [ask(1, (0, 0), bulk=True)]
    assert later == [ask(2, (3, 0)), ask(3, (2, 0)), ask(4, (1, 0), bulk=True)]


def test_a_request_is_never_larger_than_the_wire_allows():
    transfer = machine(credit_bytes=1 << 30, parts_max=5000)
    parts = [WantedPart(Part(n, tuple(range(10)), False), 1) for n in range(2000)]
    _, effects = transfer.want(KEY, parts, False, 0)
    assert sum(len(effect.message.parts) for effect in effects) == 2000
    assert max(sum(len(part.blocks) for part in effect.message.parts) for effect in effects) <= 4096
    assert max(len(effect.message.parts) for effect in effects) <= 1024


def test_a_damaged_part_is_asked_for_again_a_few_times():
    transfer, error = machine(), BadChunk("damaged")
    ticket, _ = transfer.want(KEY, [wanted(0, 1)], False, 0)
    for request in (1, 2):
        assert transfer.damaged(transfer.arrived(request, 0, 0), error, 0) == [ask(request + 1, (0, 1))]
    assert transfer.damaged(transfer.arrived(3, 0, 0), error, 0) == [BlocksDone(ticket, error)]
    assert transfer.parts_count == 0


def test_a_part_that_cannot_be_had_fails_all_who_wait_for_it():
    transfer, error = machine(), Stale("moved")
    first, _ = transfer.want(KEY, [wanted(0, 1), wanted(1, 1)], False, 0)
    second, _ = transfer.want(KEY, [wanted(0, 1)], False, 0)
    assert transfer.refused(transfer.arrived(1, 0, 0), error, 0) == [
        BlocksDone(first, error),
        BlocksDone(second, error),
    ]


def test_a_request_that_is_refused_fails_all_its_parts():
    transfer, error = machine(), Stale("moved")
    ticket, _ = transfer.want(KEY, [wanted(0, 1), wanted(1, 1)], False, 0)
    assert transfer.request_failed(1, error, 0) == [BlocksDone(ticket, error)]
    assert transfer.request_failed(1, error, 0) == []
    assert transfer.parts_count == 0


def test_what_an_origin_owes_for_too_long_is_asked_for_again():
    transfer = machine()
    ticket, _ = transfer.want(KEY, [wanted(0, 1)], False, 0)
    assert transfer.tick(4.9) == []
    assert transfer.tick(5) == [ask(2, (0, 1))]
    assert transfer.arrived(1, 0, 6) is None
    assert transfer.tick(10) == [ask(3, (0, 1))]
    (done,) = transfer.tick(15)
    assert done.ticket == ticket
    assert isinstance(done.error, Timeout)


def test_a_request_that_could_not_leave_leaves_a_moment_later():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1), wanted(1, 1)], False, 0)
    transfer.unsent(1, 0)
    assert transfer.tick(0.04) == []
    assert transfer.tick(0.05) == [ask(2, (0, 1), (1, 1))]


def test_after_a_new_connection_what_was_owed_is_asked_for_again():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1), wanted(1, 1)], False, 0)
    stored = transfer.arrived(1, 1, 0)
    assert transfer.moved(ORIGIN, 1) == [ask(2, (0, 1))]
    assert transfer.stored(stored, 1) == []
    assert transfer.moved(("other", "b" * 32), 1) == []


def test_an_origin_that_is_away_fails_all_who_wait_for_it():
    transfer, error = machine(), Unavailable("away")
    first, _ = transfer.want(KEY, [wanted(0, 1, nbytes=1000)], False, 0)
    second, _ = transfer.want(KEY, [wanted(1, 1, nbytes=1000)], False, 0)
    assert transfer.away(ORIGIN, error) == [BlocksDone(first, error), BlocksDone(second, error)]
    assert transfer.parts_count == 0
    assert not transfer.is_owed(1, ORIGIN)


def test_what_nobody_waits_for_any_more_is_not_asked_for():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1, nbytes=1000)], False, 0)
    ticket, _ = transfer.want(KEY, [wanted(1, 1, nbytes=1000)], False, 0)
    transfer.cancel(ticket)
    assert [type(effect) for effect in come(transfer, 1, 0)] == [BlocksDone]
    assert transfer.parts_count == 0


def test_a_part_that_came_for_nobody_is_stored_all_the_same():
    transfer = machine()
    ticket, _ = transfer.want(KEY, [wanted(0, 1)], False, 0)
    transfer.cancel(ticket)
    assert come(transfer, 1, 0) == []
    assert transfer.parts_count == 0


def test_only_who_was_asked_can_answer():
    transfer = machine()
    transfer.want(KEY, [wanted(0, 1)], False, 0)
    assert transfer.is_owed(1, ORIGIN)
    assert not transfer.is_owed(1, ("sst", "b" * 32))
    assert not transfer.is_owed(2, ORIGIN)
    assert transfer.arrived(1, 3, 0) is None


def test_too_many_parts_are_refused():
    with pytest.raises(Busy):
        machine().want(KEY, [wanted(n, 0) for n in range(101)], False, 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_ticket_ends_whatever_happens(seed):
    """Readers come and go, answers are lost, damaged or late, the origin moves and goes away."""
    chance, transfer = random.Random(seed), machine()
    open_tickets, requests, arrived, now_s = set(), {}, [], 0.0

    def do(effects):
        for effect in effects:
            if isinstance(effect, BlocksDone):
                open_tickets.discard(effect.ticket)
            elif chance.random() < 0.1:
                transfer.unsent(effect.request, now_s)
            else:
                requests[effect.request] = [part.nchunk for part in effect.message.parts]

    for _ in range(300):
        now_s += chance.random()
        what = chance.random()
        if what < 0.3:
            parts = [
                wanted(n, *sorted(chance.sample(range(6), 2)), nbytes=chance.choice((10, 400)))
                for n in chance.sample(range(5), chance.randint(1, 3))
            ]
            ticket, effects = transfer.want(KEY, parts, chance.random() < 0.3, now_s)
            open_tickets.add(ticket)
            do(effects)
        elif what < 0.35 and open_tickets:
            ticket = chance.choice(sorted(open_tickets))
            transfer.cancel(ticket)
            open_tickets.discard(ticket)
        elif what < 0.7 and requests:
            request = chance.choice(sorted(requests))
            coming = transfer.arrived(request, chance.choice(requests[request]), now_s)
            if coming is not None:
                arrived.append(coming)
        elif what < 0.9 and arrived:
            coming = arrived.pop()
            if chance.random() < 0.8:
                do(transfer.stored(coming, now_s))
            else:
                end = chance.choice((transfer.damaged, transfer.refused))
                do(end(coming, BadChunk("x"), now_s))
        elif what < 0.95:
            do(transfer.tick(now_s))
        elif what < 0.98:
            do(transfer.moved(ORIGIN, now_s))
        else:
            do(transfer.away(ORIGIN, Unavailable("away")))
    for coming in arrived:
        do(transfer.stored(coming, now_s))
    for _ in range(200):
        now_s += 6
        do(transfer.tick(now_s))
        for request in list(requests):
            for nchunk in requests.pop(request):
                coming = transfer.arrived(request, nchunk, now_s)
                if coming is not None:
                    do(transfer.stored(coming, now_s))
    assert open_tickets == set()
    assert transfer.parts_count == 0
