"""The publisher as tracker: who gets a chunk, who is sent to whom, who waits, and what is remembered."""

import itertools
import random

import pytest

from zcat.protocol.messages import Chunks, decode, encode
from zcat.protocol.sharers import SharerLimits
from zcat.protocol.swarm_messages import Have, HeldChunk
from zcat.protocol.tracker import Refer, Serve, Tracker, TrackerLimits

ROOT, PATH, LINEAGE = "sst", "x.b2nd", "1f" * 16
PLACE = PATH, LINEAGE
SIZE = 1000


def endpoint(asker):
    return f"tcp://10.0.0.{asker[0]}:4000"


def asks(*chunks, asker=None, holders=True, bulk=True):
    return Chunks(ROOT, PATH, LINEAGE, chunks, bulk, holders, endpoint(asker) if asker else None)


class Told:
    """A tracker and what it orders, the way a test reads it."""

    def __init__(self, **limits):
        sharing = {name: limits.pop(name) for name in list(limits) if name in SharerLimits.__slots__}
        given = {"copies_few": 1, **limits}
        self.tracker = Tracker(random.Random(1).random, TrackerLimits(**given), SharerLimits(**sharing))
        self.now_s = 0.0
        self.request = 0

    def ask(self, asker, *chunks, shares=True, **how):
        self.request += 1
        message = asks(*chunks, asker=asker if shares else None, **how)
        return self._read(self.tracker.asked(asker, self.request, message, self.now_s))

    def have(self, asker, *chunks, failed=()):
        message = Have(ROOT, PATH, LINEAGE, chunks, endpoint(asker), failed)
        return self._read(self.tracker.have(asker, message, self.now_s))

    def tick(self, after_s=1.0):
        self.now_s += after_s
        return self._read(self.tracker.tick(self.now_s))

    def _read(self, effects):
        """Give (asker, chunk) -> "served", the peers that are named, or "wait"."""
        told = {}
        for effect in effects:
            if isinstance(effect, Serve):
                for nchunk in effect.chunks:
                    held = HeldChunk(nchunk, bytes(32), SIZE)
                    self.tracker.served(effect.asker, PLACE, held, self.now_s)
                    told[effect.asker, nchunk] = "served"
                continue
            assert isinstance(effect, Refer)
            message = decode(encode(effect.message)).message  # it is within the limits of the wire
            for one in message.chunks:
                peers = tuple(message.endpoints[place] for place in one.peers)
                told[effect.asker, one.nchunk] = peers if one.digest else "wait"
        return told


A, B, C, D, E = (bytes([n]) for n in range(1, 6))


def test_the_first_gets_the_chunk_and_the_others_wait_until_it_has_it():
    told = Told()
    assert told.ask(A, 0, 1) == {(A, 0): "served", (A, 1): "served"}
    assert told.ask(B, 0) == {}
    assert told.ask(C, 0) == {}
    assert told.have(A, 0) == {(B, 0): (endpoint(A),), (C, 0): (endpoint(A),)}
    assert told.tracker.waiting_count == 0


def test_of_many_that_wait_each_end_of_a_transfer_sends_a_few_on():
    told = Told()
    askers = [bytes([n]) for n in range(1, 20)]
    for asker in askers:
        told.ask(asker, 0)
    counts, having, served = [], [A], {A}
    while having:
        sent = {}
        for asker in having:
            sent |= told.have(asker, 0)
        having = [asker for asker, _ in sent]
        served |= set(having)
        counts.append(len(having))
    assert counts[0] == 2
    assert all(after <= 3 * before for before, after in itertools.pairwise(counts))
    assert served == set(askers)


def test_one_or_two_readers_are_never_sent_anywhere():
    told = Told(copies_few=2)
    assert told.ask(A, 0) == {(A, 0): "served"}
    told.have(A, 0)
    assert told.ask(B, 0) == {(B, 0): "served"}
    assert told.ask(C, 0)[C, 0] == (endpoint(A),)


def test_who_does_not_understand_or_was_led_astray_gets_the_chunk():
    told = Told()
    told.ask(A, 0)
    assert told.ask(B, 0, holders=False) == {(B, 0): "served"}
    assert told.ask(C, 0) == {}
    assert told.ask(C, 0, holders=False) == {(C, 0): "served"}
    assert told.tracker.waiting_count == 0


def test_who_gives_nothing_away_is_sent_to_holders_and_is_none():
    told = Told()
    assert told.ask(A, 0, shares=False) == {(A, 0): "served"}
    assert told.ask(B, 0, shares=False) == {(B, 0): "served"}
    told.ask(C, 0)
    told.have(C, 0)
    assert told.ask(B, 0, shares=False) == {(B, 0): (endpoint(C),)}


def test_a_holder_that_asks_again_is_none_any_more():
    told = Told()
    told.ask(A, 0)
    told.have(A, 0)
    assert told.ask(A, 0) == {(A, 0): "served"}
    assert told.ask(B, 0) == {}


def test_what_somebody_waits_for_goes_before_copies():
    told = Told()
    told.ask(A, 0)
    told.ask(B, 0)
    told.ask(C, 0)
    told.ask(D, 0, bulk=False)
    assert set(told.have(A, 0)) == {(D, 0), (B, 0)}


def test_one_peer_is_counted_on_for_so_much_at_a_time():
    told = Told(upload_bytes=2 * SIZE)
    told.ask(A, 0, 1, 2)
    told.have(A, 0, 1, 2)
    assert set(told.ask(B, 0, 1, 2)) == {(B, 0), (B, 1)}
    assert set(told.have(B, 0)) == {(B, 2)}  # which A has room for again


def test_a_chunk_that_was_given_and_did_not_arrive_is_given_to_the_next():
    told = Told(lost_after_s=5.0)
    told.ask(A, 0)
    told.ask(B, 0)
    told.ask(C, 0)
    assert "served" not in told.tick(4.0).values()
    assert told.tick(2.0) == {(B, 0): "served", (C, 0): "wait"}


def test_those_that_wait_are_told_so():
    told = Told(lost_after_s=50.0)
    told.ask(A, 0)
    told.ask(B, 0)
    assert told.tick(1.0) == {}
    assert told.tick(1.5) == {(B, 0): "wait"}
    assert told.tick(1.0) == {}
    assert told.tick(1.5) == {(B, 0): "wait"}


def test_a_silent_peer_is_named_to_nobody():
    told = Told(silent_s=10)
    told.ask(A, 0)
    told.have(A, 0)
    told.now_s = 9
    assert told.ask(B, 0) == {(B, 0): (endpoint(A),)}
    told.now_s = 12
    assert told.ask(C, 0) == {(C, 0): "served"}
    told.tracker.heard(A, 12)
    assert endpoint(A) in told.ask(D, 0)[D, 0]


def test_a_peer_of_which_two_complain_is_named_to_nobody_for_a_while():
    told = Told()
    told.ask(A, 0, 1)
    told.have(A, 0, 1)
    for number, asker in enumerate((B, B, C)):
        other = bytes([100 + number])
        assert told.ask(other, 1)[other, 1] == (endpoint(A),)
        told.have(asker, failed=(endpoint(A),))
    assert told.ask(D, 1)[D, 1] == "served"
    told.now_s = 31
    told.tracker.heard(A, 31)
    assert endpoint(A) in told.ask(E, 1)[E, 1]


def test_who_asks_again_was_sent_to_a_peer_in_vain():
    told = Told()
    told.ask(A, 0, 1)
    told.have(A, 0, 1)
    assert told.ask(B, 0)[B, 0] == (endpoint(A),)
    assert told.ask(B, 0)[B, 0] == "served"
    assert told.ask(C, 1)[C, 1] == (endpoint(A),)  # that is said of one chunk only


def test_a_peer_that_leaves_is_named_to_nobody():
    told = Told()
    told.ask(A, 0)
    told.have(A, 0)
    told.tracker.have(A, Have(ROOT, "", "", ()), 0)
    assert told.ask(B, 0) == {(B, 0): "served"}


def test_a_chunk_that_cannot_be_read_is_told_to_all_who_wait_and_forgotten():
    told = Told()
    effects = told.tracker.asked(A, 1, asks(0, asker=A), 0)
    told.ask(B, 0)
    assert len(effects) == 1
    (effect,) = told.tracker.unserved(A, PLACE, 0)
    assert (effect.asker, effect.chunks) == (B, (0,))
    assert told.tracker.unserved(B, PLACE, 0) == []
    assert told.tracker.chunks_count == 0


def test_who_is_gone_does_not_wait():
    told = Told()
    told.ask(A, 0)
    told.ask(B, 0)
    told.tracker.gone(B)
    assert told.tracker.waiting_count == 0
    assert told.have(A, 0) == {}


def test_what_is_remembered_is_bounded_and_what_is_too_much_is_served():
    told = Told(chunks_max=10, waiting_max=2)
    for low in range(0, 100, 5):
        assert set(told.ask(A, *range(low, low + 5)).values()) == {"served"}
        told.have(A, *range(low, low + 5))
        assert told.tracker.chunks_count <= 10
    told.ask(A, 200, 201, 202)
    assert list(told.ask(B, 200, 201, 202).values()) == ["served"]  # two wait


def test_a_large_answer_is_told_in_as_many_messages_as_it_takes():
    told = Told(upload_bytes=1 << 40)
    for n in range(100):
        asker = bytes([n + 1])
        told.ask(asker, *range(n * 10, n * 10 + 10))
        told.have(asker, *range(n * 10, n * 10 + 10))
    reader = bytes([200])
    assert len(told.ask(reader, *range(1000))) == 1000


@pytest.mark.parametrize("seed", range(20))
def test_everybody_is_answered_whatever_happens(seed):
    """Askers get what they are sent for or not, die, lie, and come back; loads go back to nothing."""
    rng = random.Random(seed)
    told = Told(lost_after_s=3.0, upload_bytes=3 * SIZE)
    open_asks = {}

    def take(answers):
        for (asker, nchunk), answer in answers.items():
            assert (asker, nchunk) in open_asks
            if answer != "wait":
                open_asks[asker, nchunk] = answer

    for _ in range(200):
        told.now_s += rng.random() * 0.3
        asker = bytes([rng.randint(1, 12)])
        if rng.random() < 0.5:
            chunks = rng.sample(range(8), rng.randint(1, 4))
            open_asks |= {(asker, n): None for n in chunks}
            take(told.ask(asker, *chunks, holders=rng.random() < 0.9, bulk=rng.random() < 0.5))
        answered = [key for key, answer in open_asks.items() if answer is not None]
        for asker, nchunk in rng.sample(answered, min(3, len(answered))):
            answer = open_asks.pop((asker, nchunk))
            failed = tuple(answer[:1]) if answer != "served" and rng.random() < 0.1 else ()
            if rng.random() < 0.8:
                take(told.have(asker, nchunk, failed=failed))
        take(told.tick(0.1))
    for _ in range(400):
        take(told.tick(1.0))
    assert None not in open_asks.values()
    assert told.tracker.waiting_count == 0
    assert not told.tracker.is_busy
