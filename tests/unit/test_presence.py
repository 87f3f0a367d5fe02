import os
import resource
import time

import numpy as np
import pytest

from zcat.errors import BadContent
from zcat.storage.presence import ABSENT, PARTIAL, VERIFIED, WHOLE, Digests, Presence


def test_all_chunks_of_a_new_file_are_absent(tmp_path):
    presence = Presence(tmp_path / "presence", 5)

    assert [presence[n] for n in range(5)] == [ABSENT] * 5
    assert presence.missing(np.array([3, 1])).tolist() == [3, 1]
    assert presence.count_whole() == 0


def test_partial_chunks_are_missing_and_whole_ones_are_not(tmp_path):
    presence = Presence(tmp_path / "presence", 4)
    for nchunk, state in enumerate([ABSENT, PARTIAL, WHOLE, VERIFIED]):
        presence.mark(nchunk, state)

    assert presence.missing(np.arange(4)).tolist() == [0, 1]
    assert presence.whole().tolist() == [2, 3]


def test_what_was_verified_is_only_whole_when_opened_again(tmp_path):
    presence = Presence(tmp_path / "presence", 3)
    presence.mark(0, PARTIAL)
    presence.mark(2, VERIFIED)

    again = Presence(tmp_path / "presence", 3)  # the first was not closed, as after a kill

    assert [again[n] for n in range(3)] == [PARTIAL, ABSENT, WHOLE]


def test_two_openings_of_one_file_see_each_other(tmp_path):
    one, other = Presence(tmp_path / "presence", 3), Presence(tmp_path / "presence", 3)
    one.mark(1, VERIFIED)

    assert other[1] == VERIFIED


@pytest.mark.parametrize("kind", [Presence, Digests])
def test_a_file_of_another_length_is_damaged(tmp_path, kind):
    kind(tmp_path / "file", 3).close()

    with pytest.raises(BadContent, match="wanted"):
        kind(tmp_path / "file", 4)


def test_no_chunks_are_none_missing(tmp_path):
    presence = Presence(tmp_path / "presence", 0)

    assert presence.count_whole() == 0
    assert presence.missing(np.empty(0, np.int64)).tolist() == []
    presence.close()
    presence.close()


def test_a_digest_that_was_never_written_is_zeros(tmp_path):
    digests = Digests(tmp_path / "digests", 3)
    digests[1] = b"x" * 32

    assert Digests(tmp_path / "digests", 3)[1] == b"x" * 32
    assert digests[2] == bytes(32)


def test_a_million_chunks_open_at_once_and_take_little_memory(tmp_path):
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        presence, digests = Presence(tmp_path / "presence", 1_000_000), Digests(tmp_path / "digests", 1_000_000)
        took_s.append(time.perf_counter() - began_s)
        presence.mark(999_999, VERIFIED)
        presence.close()
        digests.close()

    assert min(took_s) < 0.02
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 16 * 1024
    assert os.stat(tmp_path / "digests").st_blocks * 512 < 64 * 1024
