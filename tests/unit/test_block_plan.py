"""What comes in blocks, and what comes whole."""

import pytest

from zcat.limits import KIB, MIB
from zcat.protocol.block_plan import ChunkState, How, PlanLimits, how_to_fetch

LIMITS = PlanLimits(whole_bytes_max=32 * KIB, share_max=1 / 2, rest_share_min=1 / 8)


@pytest.mark.parametrize(
    ("nbytes", "nblocks", "there", "missing", "how"),
    [
        pytest.param(MIB, 64, 0, 1, How.BLOCKS, id="one block of a cold chunk"),
        pytest.param(MIB, 64, 0, 32, How.BLOCKS, id="half of a cold chunk"),
        pytest.param(MIB, 64, 0, 33, How.WHOLE, id="more than half of a cold chunk"),
        pytest.param(MIB, 64, 0, 64, How.WHOLE, id="all of a cold chunk"),
        pytest.param(MIB, 64, 30, 2, How.BLOCKS, id="more blocks, still not many"),
        pytest.param(MIB, 64, 30, 3, How.REST, id="one too many of a chunk that is there in part"),
        pytest.param(MIB, 64, 7, 40, How.WHOLE, id="little of a chunk is there, and most is needed"),
        pytest.param(MIB, 64, 8, 56, How.REST, id="all of a chunk that is there in part"),
        pytest.param(MIB, 64, 64, 0, How.REST, id="all blocks are there, only its digest is wanted"),
        pytest.param(32 * KIB, 64, 0, 1, How.WHOLE, id="a small chunk"),
        pytest.param(MIB, 1 << 16, 0, 1, How.WHOLE, id="offsets that are a large part of the chunk"),
        pytest.param(64 * MIB, 8192, 0, 1, How.WHOLE, id="more blocks than one request could ask for"),
    ],
)
def test_the_rule(nbytes, nblocks, there, missing, how):
    assert how_to_fetch(ChunkState(nbytes, nblocks, there, missing), LIMITS) is how
