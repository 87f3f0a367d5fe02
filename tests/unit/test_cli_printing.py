import json
import time

import pytest

from zcat.cli import mesh, printing


def test_a_table_to_a_pipe_is_in_full_width_and_without_colours(capsys):
    name = "a" * 300
    rows = [{"name": name, "nbytes": 10}, {"name": "b [bold]x[/bold]", "nbytes": None}]
    printing.print_table(rows, {"name": printing.text, "nbytes": printing.size})
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "NBYTES"]
    assert first.split() == [name, "10", "B"]
    assert second.split() == ["b", "[bold]x[/bold]", "-"]
    assert "\x1b" not in head


def test_a_long_table_keeps_every_row(capsys):
    printing.print_table([{"n": n} for n in range(200)], {"n": printing.count})
    assert len(capsys.readouterr().out.splitlines()) == 201


def test_nothing_that_is_printed_acts_on_a_terminal():
    assert printing.text("a\x1b[31m\nb\u202ec") == "a\\x1b[31m\\nb\\u202ec"
    assert printing.lines("a\x1b[31m\r\n\tb") == "a\ufffd[31m\n\tb"


def test_sizes_have_three_digits():
    sizes = [0, 999, 1000, 1536, 10 << 20, 123 << 30, 5 << 50]
    assert [printing.size(nbytes) for nbytes in sizes] == [
        "0 B",
        "999 B",
        "0.98 KiB",
        "1.50 KiB",
        "10.0 MiB",
        "123 GiB",
        "5.00 PiB",
    ]


def test_shapes_are_written_with_crosses():
    assert printing.shape((3, 512)) == "3 x 512"
    assert printing.shape(()) == "scalar"


def test_json_is_one_line(capsys):
    printing.print_json({"a": ["ü", None]})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": ["ü", None]}


@pytest.mark.parametrize(("zone", "shown"), [("UTC", "2026-11-22 19:53"), ("Asia/Tokyo", "2026-11-23 04:53")])
def test_times_are_those_of_the_readers_zone(zone, shown, monkeypatch):
    with monkeypatch.context() as around:
        around.setenv("TZ", zone)
        time.tzset()
        assert printing.time("2026-11-22T19:53:35Z") == shown
    time.tzset()


def test_a_claim_that_stands_no_more_has_no_lease(capsys):
    row = {"name": "sst", "owner": "ab" * 16, "state": "withdrawn", "contested": False, "lease_left_s": -900.0}
    row |= dict.fromkeys(("incarnation", "seq", "lag", "round_trip_s"), 0) | {"answers": False, "counts": {}}
    row |= {"kind": "publisher", "brokers": [], "endpoints": []}
    mesh._show_peers([row])
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["sst", "abababab", "withdrawn", "-"]
