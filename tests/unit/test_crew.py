import os
import socket

import pytest

from zcat.cli.crew import WORKERS_DEFAULT_MAX, Crew, workers_of
from zcat.config import HttpConfig
from zcat.errors import AddressInUse, BadConfig
from zcat.services.board import ROOTS_CELL, Board, cell_of
from zcat.services.dataset import ReadLimits


def test_there_is_a_worker_for_each_core_unless_told_otherwise():
    assert workers_of(HttpConfig()) == min(len(os.sched_getaffinity(0)), WORKERS_DEFAULT_MAX)
    assert workers_of(HttpConfig(workers=3)) == 3


@pytest.mark.parametrize("count", [-1, 65])
def test_impossible_numbers_of_workers_are_refused(count):
    with pytest.raises(BadConfig, match="workers"):
        workers_of(HttpConfig(workers=count))


def test_a_crew_whose_address_is_taken_says_so_and_can_be_closed():
    board = Board.make()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = HttpConfig(port=taken.getsockname()[1], workers=2)
        crew = Crew(2, config, "ipc://nowhere", board, ReadLimits(1 << 20, 1.0, 1 << 20))
        with pytest.raises(AddressInUse):
            crew.start()
        crew.close()
    board.close()


def test_a_change_is_seen_by_whoever_has_the_board_and_concerns_one_root():
    board = Board.make()
    other = Board(os.dup(board.fd))
    mine, roots = cell_of("a", "0" * 32), other[ROOTS_CELL]
    before = other[mine]
    assert before > 0
    board.changed(mine)
    assert other[mine] != before
    assert other[ROOTS_CELL] == roots
    assert other.generations()[mine] == other[mine]
    other.close()
    board.close()
