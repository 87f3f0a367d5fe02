"""The machine that fetches chunks, where the origin names peers that have them."""

import random

import pytest

from zcat.errors import BadChunk, Unavailable
from zcat.limits import KIB
from zcat.protocol.asking import AskChunks, Resolve, Tell, TransferLimits
from zcat.protocol.peers_known import PeerLimits
from zcat.protocol.swarm_messages import HeldChunk, Holders
from zcat.protocol.transfer import Transfer
from zcat.protocol.wanted import DatasetKey

DATASET = DatasetKey("sst", "a" * 32, "cube.b2nd", "1" * 32)
ORIGIN = DATASET.origin
LIMITS = TransferLimits(credit_bytes=100, reply_wait_s=5, attempts_max=3)
PEERS = PeerLimits(late_min_s=0.25, late_first_s=0.5)
ME, P, Q = "tcp://10.0.0.1:4000", "tcp://10.0.0.2:4000", "tcp://10.0.0.3:4000"
LOCAL = "tcp://127.0.0.1:4000"


def digest(nchunk):
    return bytes([nchunk]) * 32


def holders(peers, *chunks, lineage=DATASET.lineage):
    held = tuple(HeldChunk(n, digest(n), 10, tuple(range(len(peers)))) for n in chunks)
    return Holders(lineage, tuple(peers), held)


def asks(effects):
    """Give (peer or None, chunks, holders) of each request."""
    return [(e.peer, e.message.chunks, e.message.holders) for e in effects if isinstance(e, AskChunks)]


def ask_of(effects):
    (ask,) = [effect for effect in effects if isinstance(effect, AskChunks)]
    return ask


def tells(effects):
    return [effect.message for effect in effects if isinstance(effect, Tell)]


def resolved(effects):
    return {effect.ticket: effect.error for effect in effects if isinstance(effect, Resolve)}


@pytest.fixture
def transfer():
    made = Transfer(LIMITS, peer_limits=PEERS)
    made.track(ORIGIN, True, ME)
    return made


def refer(transfer, peers, *chunks, bulk=True, now_s=0.0):
    """Want chunks and be sent to peers for them; give the ticket and what follows."""
    ticket, effects = transfer.want(DATASET, chunks, 10, bulk, now_s)
    return ticket, transfer.referred(ask_of(effects).request, holders(peers, *chunks), now_s)


def test_an_origin_that_keeps_track_is_told_where_chunks_are_given_and_may_name_holders(transfer):
    _, effects = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    message = ask_of(effects).message
    assert (message.holders, message.peer) == (True, ME)


def test_another_origin_is_asked_as_ever():
    _, effects = Transfer(LIMITS).want(DATASET, [1], 10, bulk=False, now_s=0)
    message = ask_of(effects).message
    assert (message.holders, message.peer) == (False, None)


def test_the_peer_that_is_named_is_asked_and_has_to_give_what_the_origin_said(transfer):
    ticket, effects = refer(transfer, [P, Q], 1, 2)
    ask = ask_of(effects)
    assert (ask.peer, ask.message.chunks, ask.message.holders, ask.message.peer) == (P, (1, 2), False, None)
    assert transfer.is_owed(ask.request, P)
    assert not transfer.is_owed(ask.request, Q)
    assert not transfer.is_owed(ask.request, ORIGIN)
    for nchunk in (1, 2):
        assert transfer.arrived(ask.request, nchunk, 0.1) == DATASET
        assert transfer.digest(DATASET, nchunk) == digest(nchunk)
        effects = transfer.stored(DATASET, nchunk, 0.1, kept_bytes=10)
    assert resolved(effects) == {ticket: None}
    assert (transfer.peer_counters.chunks, transfer.peer_counters.nbytes) == (2, 20)


def test_a_chunk_of_the_origin_carries_its_own_digest(transfer):
    _, effects = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    transfer.arrived(ask_of(effects).request, 1, 0.1)
    assert transfer.digest(DATASET, 1) is None


def test_a_liar_is_never_asked_again_and_the_next_one_is(transfer):
    ticket, effects = refer(transfer, [P, Q], 1)
    transfer.arrived(ask_of(effects).request, 1, 0.1)
    effects = transfer.damaged(DATASET, 1, BadChunk("lie"), 0.1)
    assert asks(effects) == [(Q, (1,), False)]
    transfer.arrived(ask_of(effects).request, 1, 0.2)
    assert resolved(transfer.stored(DATASET, 1, 0.2, 10)) == {ticket: None}
    _, effects = refer(transfer, [P], 3, bulk=False, now_s=1000.0)
    assert asks(effects) == [(None, (3,), False)]
    assert transfer.peer_counters.lies == 1


def test_when_all_peers_fail_the_origin_sends_the_chunk_itself(transfer):
    ticket, effects = refer(transfer, [P, Q], 1, bulk=False)
    effects = transfer.peer_failed(ask_of(effects).request, 1, 0.1)
    assert asks(effects) == [(Q, (1,), False)]
    effects = transfer.peer_failed(ask_of(effects).request, None, 0.2)
    assert asks(effects) == [(None, (1,), False)]
    assert tells(effects)[0].failed == (P, Q)
    again = ask_of(effects).request
    assert transfer.referred(again, holders([P], 1), 0.2) == []  # that was not what was asked
    transfer.arrived(again, 1, 0.3)
    assert resolved(transfer.stored(DATASET, 1, 0.3, 10)) == {ticket: None}


def test_a_copy_lets_the_origin_name_others_once(transfer):
    _, effects = refer(transfer, [P], 1)
    effects = transfer.peer_failed(ask_of(effects).request, 1, 0.1)
    assert asks(effects) == [(None, (1,), True)]
    effects = transfer.referred(ask_of(effects).request, holders([Q], 1), 0.2)
    assert asks(effects) == [(Q, (1,), False)]
    effects = transfer.peer_failed(ask_of(effects).request, 1, 0.3)
    assert asks(effects) == [(None, (1,), False)]


def test_a_late_peer_gets_a_second_one_beside_it_and_the_first_answer_wins(transfer):
    ticket, effects = refer(transfer, [P, Q], 1, bulk=False)
    first = ask_of(effects).request
    assert asks(transfer.tick(0.4)) == []
    second = ask_of(transfer.tick(0.6))
    assert second.peer == Q
    assert asks(transfer.tick(0.7)) == []
    assert transfer.arrived(first, 1, 0.8) == DATASET
    assert transfer.arrived(second.request, 1, 0.8) is None  # while the first is being stored
    assert resolved(transfer.stored(DATASET, 1, 0.9, 10)) == {ticket: None}
    assert transfer.peer_counters.seconds == 1
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)


def test_if_the_first_answer_is_a_lie_the_second_one_is_waited_for(transfer):
    ticket, effects = refer(transfer, [P, Q], 1, bulk=False)
    first, second = ask_of(effects).request, ask_of(transfer.tick(0.6)).request
    transfer.arrived(first, 1, 0.7)
    assert transfer.damaged(DATASET, 1, BadChunk("lie"), 0.7) == []
    assert transfer.arrived(second, 1, 0.8) == DATASET
    assert resolved(transfer.stored(DATASET, 1, 0.8, 10)) == {ticket: None}


def test_what_is_asked_for_twice_is_bounded(transfer):
    _, effects = refer(transfer, [P, Q], *range(7), bulk=False)
    assert asks(effects) == [(P, tuple(range(7)), False)]
    assert asks(transfer.tick(0.6)) == [(Q, (0,), False)]  # an eighth of the credit, or one chunk
    assert transfer.owed_bytes == 70


def test_a_copy_waits_for_a_late_peer_until_it_counts_as_lost(transfer):
    refer(transfer, [P], 1)
    assert asks(transfer.tick(1.9)) == []
    assert asks(transfer.tick(2.0)) == [(None, (1,), True)]


def test_whoever_waits_has_the_origin_send_what_a_peer_is_late_with(transfer):
    refer(transfer, [Q], 2, bulk=False)
    assert asks(transfer.tick(0.6)) == [(None, (2,), False)]


def test_of_a_peer_that_says_nothing_nothing_is_expected_any_more(transfer):
    _, effects = refer(transfer, [P, Q], 1, 2)
    late = ask_of(effects).request
    assert asks(transfer.tick(1.9)) == []
    assert asks(transfer.tick(2.0)) == [(Q, (1, 2), False)]
    assert transfer.peer_counters.failures == 2
    assert transfer.arrived(late, 2, 2.1) == DATASET  # better late than a second time
    assert transfer.arrived(late, 2, 2.2) is None


def test_who_waits_while_the_origin_waits_for_a_holder_asks_for_the_chunk_itself(transfer):
    ticket, effects = transfer.want(DATASET, [1], 10, bulk=False, now_s=0)
    waiting = ask_of(effects).request
    assert asks(transfer.tick(0.4)) == []
    effects = transfer.tick(0.6)
    assert asks(effects) == [(None, (1,), False)]
    assert transfer.referred(waiting, holders([P], 1), 0.7) == []
    transfer.arrived(ask_of(effects).request, 1, 0.8)
    assert resolved(transfer.stored(DATASET, 1, 0.8, 10)) == {ticket: None}


def test_a_word_that_the_turn_comes_is_a_sign_of_life(transfer):
    _, effects = transfer.want(DATASET, [1], 10, bulk=True, now_s=0)
    request = ask_of(effects).request
    for now_s in (2, 4, 6, 8):
        assert transfer.referred(request, Holders(DATASET.lineage, (), (HeldChunk(1),)), now_s) == []
        assert asks(transfer.tick(now_s + 1)) == []
    assert transfer.is_owed(request, ORIGIN)


def test_holders_of_another_lineage_or_of_what_was_not_asked_for_change_nothing(transfer):
    _, effects = transfer.want(DATASET, [1], 10, bulk=True, now_s=0)
    request = ask_of(effects).request
    assert transfer.referred(request, holders([P], 1, lineage="2" * 32), 0) == []
    assert transfer.referred(request, holders([P], 7), 0) == []
    assert transfer.referred(request + 1, holders([P], 1), 0) == []
    assert transfer.is_owed(request, ORIGIN)


def test_an_endpoint_of_another_host_that_means_something_there_only_is_not_believed(transfer):
    _, effects = refer(transfer, [LOCAL, P], 1)
    assert asks(effects) == [(P, (1,), False)]
    transfer.track(ORIGIN, True, ME, is_near=True)
    _, effects = refer(transfer, [LOCAL, P], 2)
    assert asks(effects) == [(LOCAL, (2,), False)]


def test_what_was_stored_is_told_to_the_origin(transfer):
    _, effects = transfer.want(DATASET, [1, 2, 3], 10, bulk=True, now_s=0)
    request = ask_of(effects).request
    for nchunk in (1, 2):
        transfer.arrived(request, nchunk, 0)
        assert tells(transfer.stored(DATASET, nchunk, 0, kept_bytes=KIB if nchunk == 1 else 0)) == []
    (told,) = tells(transfer.tick(0.1))  # what has no place in the cache cannot be given away
    assert (told.path, told.lineage, told.chunks, told.peer) == (DATASET.path, DATASET.lineage, (1,), ME)
    transfer.arrived(request, 3, 0)
    (told,) = tells(transfer.stored(DATASET, 3, 0, kept_bytes=KIB))  # nothing more is owed: no reason to wait
    assert told.chunks == (3,)
    assert tells(transfer.tick(1.0)) == []


def test_what_is_large_is_told_at_once(transfer):
    _, effects = transfer.want(DATASET, [1, 2], 10, bulk=True, now_s=0)
    transfer.arrived(ask_of(effects).request, 1, 0)
    (told,) = tells(transfer.stored(DATASET, 1, 0, kept_bytes=512 * KIB))
    assert told.chunks == (1,)


def test_each_reader_has_an_order_of_its_own():
    orders = []
    for seed in range(2):
        transfer = Transfer(random=random.Random(seed).random)
        transfer.track(ORIGIN, True, ME)
        _, effects = transfer.want(DATASET, range(100), 10, bulk=True, now_s=0)
        orders.append(ask_of(effects).message.chunks)
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1]) == set(range(100))


def test_copies_that_wait_for_holders_leave_room_for_those_who_wait(transfer):
    refer(transfer, [P], *range(7))
    transfer.want(DATASET, range(20, 60), 10, bulk=True, now_s=0)
    assert transfer.owed_bytes == 70
    _, effects = transfer.want(DATASET, [99], 10, bulk=False, now_s=0)
    assert asks(effects) == [(None, (99,), True)]


def test_when_the_origin_is_away_all_who_wait_hear_it(transfer):
    ticket, effects = refer(transfer, [P], 1)
    assert set(resolved(transfer.away(ORIGIN, Unavailable("away")))) == {ticket}
    assert transfer.arrived(ask_of(effects).request, 1, 0.1) is None
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)


@pytest.mark.parametrize("seed", range(60))
def test_every_ticket_resolves_whatever_origin_and_peers_do(seed):
    """The origin sends, names or keeps waiting; peers send, lie, refuse or say nothing; readers come and go."""
    rng = random.Random(seed)
    transfer = Transfer(LIMITS, random=rng.random, peer_limits=PEERS)
    transfer.track(ORIGIN, True, ME)
    open_tickets, wire, now_s = set(), [], 0.0

    def carry_out(effects):
        for effect in effects:
            if isinstance(effect, Resolve):
                open_tickets.discard(effect.ticket)
            elif isinstance(effect, AskChunks):
                if rng.random() < 0.05:
                    transfer.unsent(effect.request, now_s)
                else:
                    wire.extend((effect, nchunk) for nchunk in effect.message.chunks)

    def deliver(ask, nchunk):
        if not transfer.is_owed(ask.request, ask.peer or ORIGIN):
            return []
        kind = rng.random()
        if ask.peer is not None and kind < 0.15:
            return transfer.peer_failed(ask.request, nchunk, now_s)
        if ask.message.holders and kind < 0.7:
            if kind < 0.2:
                wire.append((ask, nchunk))
                return transfer.referred(ask.request, Holders(DATASET.lineage, (), (HeldChunk(nchunk),)), now_s)
            named = rng.sample([P, Q, "tcp://10.0.0.4:1", LOCAL], rng.randint(1, 3))
            return transfer.referred(ask.request, holders(named, nchunk), now_s)
        if transfer.arrived(ask.request, nchunk, now_s) is None:
            return []
        if kind > 0.95:
            return transfer.damaged(DATASET, nchunk, BadChunk("b"), now_s)
        return transfer.stored(DATASET, nchunk, now_s, 10)

    for step in range(400):
        now_s += rng.random() * 0.3
        if step < 300 and rng.random() < 0.2:
            nchunks = rng.sample(range(40), rng.randint(1, 20))
            ticket, effects = transfer.want(DATASET, nchunks, 10, rng.random() < 0.5, now_s)
            open_tickets.add(ticket)
            carry_out(effects)
        if open_tickets and rng.random() < 0.03:
            ticket = rng.choice(sorted(open_tickets))
            open_tickets.discard(ticket)
            transfer.cancel(ticket)
        if rng.random() < 0.01:
            carry_out(transfer.moved(ORIGIN, now_s))
        rng.shuffle(wire)
        for _ in range(min(len(wire), rng.randint(0, 4))):
            ask, nchunk = wire.pop()
            if rng.random() > 0.1:
                carry_out(deliver(ask, nchunk))
        carry_out(transfer.tick(now_s))
    for _ in range(200):
        now_s += 1
        while wire:
            carry_out(deliver(*wire.pop()))
        carry_out(transfer.tick(now_s))
    assert not open_tickets
    assert (transfer.wanted_count, transfer.owed_bytes) == (0, 0)
