import io
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadConfig
from zcat.logs import VALUE_LENGTH_MAX, RateLimiter, kv, set_up

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+ .*\n")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("zcat")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:], level, ours_level = before
    root.setLevel(level)
    ours.setLevel(ours_level)


def test_an_event_is_one_line_with_time_level_and_name():
    stream = io.StringIO()
    set_up("info", stream)

    logging.getLogger("zcat.services.broker").info("lease granted %s", kv(root="sst", expires_in_s=20.0))

    assert LINE.fullmatch(stream.getvalue())
    assert stream.getvalue().endswith("Z INFO zcat.services.broker lease granted root=sst expires_in_s=20\n")


def test_the_time_is_utc_with_milliseconds():
    stream = io.StringIO()
    set_up("info", stream)
    record = logging.makeLogRecord(
        {"name": "zcat.x", "levelname": "INFO", "msg": "m", "created": 1_763_841_215.0626}
    )

    next(h for h in logging.getLogger().handlers if getattr(h, "stream", None) is stream).handle(record)

    assert stream.getvalue() == "2025-11-22T19:53:35.062Z INFO zcat.x m\n"


def test_setting_up_twice_gives_no_line_twice():
    first, second = io.StringIO(), io.StringIO()
    set_up("info", first)
    set_up("warning", second)

    logging.getLogger("zcat.a").info("too quiet")
    logging.getLogger("zcat.a").warning("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "too quiet" not in second.getvalue()


def test_other_packages_are_heard_from_warning_upward():
    stream = io.StringIO()
    set_up("debug", stream)

    logging.getLogger("waitress").info("chatter")
    logging.getLogger("waitress").warning("queue depth")

    assert "chatter" not in stream.getvalue()
    assert "WARNING waitress queue depth" in stream.getvalue()


def test_a_traceback_stays_on_its_line():
    stream = io.StringIO()
    set_up("info", stream)

    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("zcat.a").exception("bug %s", kv(where="loop"))

    assert LINE.fullmatch(stream.getvalue())
    assert r"ValueError: two\nlines" in stream.getvalue()


def test_a_line_cannot_be_forged():
    stream = io.StringIO()
    set_up("info", stream)

    logging.getLogger("zcat.a").info("x\n2026-11-22T19:53:35.123Z INFO zcat.a forged\r\x85 ")

    assert LINE.fullmatch(stream.getvalue())
    assert len(stream.getvalue().splitlines()) == 1


def test_an_unknown_level_is_refused():
    with pytest.raises(BadConfig, match="'loud': wanted one of debug, info"):
        set_up("loud")


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("sst", "k=sst"),
        (7, "k=7"),
        (None, "k=None"),
        (0.1 + 0.2, "k=0.3"),
        (1e-9, "k=1e-09"),
        ("", 'k=""'),
        ("two words", 'k="two words"'),
        ('say "hi"', r'k="say \"hi\""'),
        ("a=b", 'k="a=b"'),
        ("back\\slash", r'k="back\\slash"'),
        ("two\nlines", r'k="two\nlines"'),
        ("\u202egnp", r'k="\u202egnp"'),
        ("\udcff", r'k="\udcff"'),
        ("Größe/海", "k=Größe/海"),
    ],
)
def test_a_value_is_quoted_where_it_must_be(value: object, rendered: str):
    assert kv(k=value) == rendered


def test_fields_keep_their_order_and_long_values_are_cut():
    line = kv(b=1, a="x" * 10_000)

    assert line.startswith("b=1 a=xxx")
    assert line.endswith("x…")
    assert len(line) == len("b=1 a=") + VALUE_LENGTH_MAX


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_whatever_comes_is_printable_and_on_one_line(text: str):
    assert kv(k=text).isprintable()


def test_a_repeated_warning_is_let_through_once_per_interval():
    limiter = RateLimiter(per_s=0.1)

    allowed = [limiter.allow("peer", now_s) for now_s in (0, 1, 9.9, 10, 11, 20)]

    assert allowed == [True, False, False, True, False, True]


def test_keys_are_limited_apart_from_one_another():
    limiter = RateLimiter(per_s=1)

    assert [limiter.allow(key, 0) for key in "aabb"] == [True, False, True, False]


def test_a_flood_of_new_keys_is_bounded():
    limiter = RateLimiter(per_s=1, keys_max=10)

    allowed = sum(limiter.allow(str(number), now_s=0) for number in range(1000))

    assert allowed == 10
    assert limiter.allow("later", now_s=1)
