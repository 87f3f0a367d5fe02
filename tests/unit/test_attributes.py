import contextlib
import datetime
import random

import blosc2
import msgpack
import numpy as np
import pytest

from zcat.errors import BadContent
from zcat.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTES_BYTES_MAX
from zcat.storage.attributes import (
    TRAILER_END_BYTES,
    decode_attributes,
    read_trailer,
    trailer_bytes,
    write_trailer,
)

VALUES = {
    "none": None,
    "flag": True,
    "count": -(2**40),
    "pi": 3.14,
    "name": "æøå",
    "raw": b"\0\xff",
    "list": [1, [2, {"a": None}]],
    "dict": {"b": {"c": [1.5, "x"]}},
    "zeros": "\0" * 500,
    "text": "many words " * 300,
}


def trailer_of(values: dict) -> bytes:
    schunk = blosc2.SChunk(chunksize=100)
    for name, value in values.items():
        schunk.vlmeta[name] = value
    frame = schunk.to_cframe()
    return frame[-trailer_bytes(frame[-TRAILER_END_BYTES:]) :]


def packed(values: dict) -> dict:
    return {name: msgpack.packb(value) for name, value in values.items()}


def test_what_blosc2_wrote_is_read():
    assert decode_attributes(read_trailer(trailer_of(VALUES))) == VALUES


def test_what_we_write_blosc2_and_we_read():
    trailer = write_trailer(VALUES)
    assert trailer == write_trailer(VALUES)
    assert trailer_bytes(trailer[-TRAILER_END_BYTES:]) == len(trailer)
    assert decode_attributes(read_trailer(trailer)) == VALUES


def test_tuples_become_lists_and_extension_types_sentences():
    values = {"t": (1, (2, 3)), "array": np.arange(3), "set": {1}, "complex": 1j, "in": {"deep": [2j]}}
    decoded = decode_attributes(read_trailer(trailer_of(values)))
    assert decoded == {
        "t": [1, [2, 3]],
        "array": "<unreadable: msgpack extension type 46>",
        "set": "<unreadable: msgpack extension type 45>",
        "complex": "<unreadable: msgpack extension type 44>",
        "in": {"deep": ["<unreadable: msgpack extension type 44>"]},
    }


def test_odd_msgpack_becomes_plain_values():
    now = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    values = {
        "time": msgpack.packb(now, datetime=True),
        "keys": msgpack.packb({1: 2, b"k": 3}),
        "not utf-8": b"\xa2\xff\xfe",
        "list as key": b"\x81\x90\x01",
        "cut": b"\x92\x01",
        "too much": b"\x01\x02",
        "empty": b"",
        "deep": b"\x91" * 100 + b"\x01",
        "very deep": b"\x91" * 5000 + b"\x01",
    }
    decoded = decode_attributes(values)
    assert decoded["time"] == "<unreadable: msgpack extension type -1>"
    assert decoded["keys"] == {"1": 2, "b'k'": 3}
    assert decoded["not utf-8"] == "\ufffd\ufffd"
    for name in ("list as key", "cut", "too much", "empty", "very deep"):
        assert decoded[name] == "<unreadable: not msgpack>"
    assert "nested deeper" in str(decoded["deep"])


def test_a_large_attribute_is_replaced_by_a_sentence():
    values = read_trailer(trailer_of({"small": 1, "large": b"\0" * (ATTRIBUTE_BYTES_MAX + 1), "after": 2}))
    decoded = decode_attributes(values)
    assert decoded["small"] == 1
    assert decoded["after"] == 2
    assert decoded["large"].startswith("<unreadable: ")
    assert str(ATTRIBUTE_BYTES_MAX) in decoded["large"]


def test_all_attributes_together_stay_below_their_limit():
    values = read_trailer(write_trailer({f"a{i}": "x" * (ATTRIBUTE_BYTES_MAX - 10) for i in range(40)}))
    assert sum(len(name) + len(value) for name, value in values.items()) <= ATTRIBUTES_BYTES_MAX
    decoded = decode_attributes(values)
    assert sum(value.startswith("<unreadable") for value in decoded.values()) > 20


def test_names_and_values_without_a_place_in_a_frame_are_left_out():
    assert read_trailer(write_trailer({"n" * 31: 1, "n" * 32: 2, "huge": 2**80, "object": object()})).keys() == {
        "n" * 31
    }


def test_no_mutant_of_a_trailer_raises_anything_else():
    rng = random.Random(5)
    trailer = trailer_of(VALUES)
    assert isinstance(decode_attributes(packed(VALUES)), dict)
    for _ in range(3000):
        mutant = bytearray(trailer[: rng.choice([len(trailer), rng.randrange(len(trailer))])])
        for _ in range(rng.choice([1, 2, 5])):
            if mutant:
                mutant[rng.randrange(len(mutant))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        with contextlib.suppress(BadContent):
            decode_attributes(read_trailer(bytes(mutant)))


def test_what_does_not_end_like_a_trailer_is_refused():
    for end in (b"", bytes(23), b"\xce"):
        with pytest.raises(BadContent):
            trailer_bytes(end)
