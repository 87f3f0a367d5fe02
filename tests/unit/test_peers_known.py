"""What a reader thinks of other readers: when they are late, and who is avoided for how long."""

from zcat.protocol.peers_known import AnswerTimes, PeerLimits, PeersKnown

ORIGIN, OTHER = ("sst", "a" * 32), ("sea", "b" * 32)
PEER = "tcp://10.0.0.1:4000"
LIMITS = PeerLimits(late_min_s=0.25, late_first_s=0.5, avoided_first_s=2, avoided_max_s=5)


def test_late_is_what_nineteen_in_twenty_answers_were_not():
    times = AnswerTimes()
    for took_s in [1.0] * 29 + [9.0, 1.0, 1.0]:
        times.take(took_s)
    assert times.p95_s == 1.0
    for _ in range(3):
        times.take(9.0)
    assert times.p95_s == 9.0


def test_a_quick_peer_is_not_called_late_at_once():
    peers = PeersKnown(LIMITS)
    peers.answered(PEER, 0.001)
    assert peers.late_after_s(PEER) == 0.25
    peers.answered(PEER, 3.0)
    assert peers.late_after_s(PEER) == 3.0


def test_a_peer_that_is_new_is_expected_to_be_like_the_others():
    peers = PeersKnown(LIMITS)
    assert peers.late_after_s("tcp://10.0.0.2:4000") == 0.5
    peers.answered(PEER, 3.0)
    assert peers.late_after_s("tcp://10.0.0.2:4000") == 6.0


def test_a_peer_that_fails_is_avoided_ever_longer_until_it_answers():
    peers = PeersKnown(LIMITS)
    for now_s, wait_s in ((0, 2), (10, 4), (20, 5)):
        peers.failed(PEER, now_s)
        assert not peers.is_usable(ORIGIN, PEER, now_s + wait_s - 0.1)
        assert peers.is_usable(ORIGIN, PEER, now_s + wait_s)
    peers.failed(PEER, 30)
    peers.answered(PEER, 0.1)
    assert peers.is_usable(ORIGIN, PEER, 30)


def test_a_peer_that_is_late_is_spared_for_a_moment():
    peers = PeersKnown(LIMITS)
    peers.late(PEER, 10)
    assert not peers.is_usable(ORIGIN, PEER, 10.4)
    assert peers.is_usable(ORIGIN, PEER, 10.5)


def test_a_liar_is_never_asked_again_about_that_root():
    peers = PeersKnown(LIMITS)
    peers.lied(ORIGIN, PEER)
    peers.answered(PEER, 0.1)
    assert not peers.is_usable(ORIGIN, PEER, 1e9)
    assert peers.is_usable(OTHER, PEER, 0)
    assert peers.liars_count == 1


def test_what_is_remembered_is_bounded():
    peers = PeersKnown(PeerLimits(peers_max=3))
    for n in range(10):
        peers.lied(ORIGIN, f"tcp://10.0.0.{n}:4000")
        peers.failed(f"tcp://10.0.0.{n}:4000", 0)
    assert peers.liars_count == 3
    assert peers.is_usable(ORIGIN, "tcp://10.0.0.1:4000", 0)
