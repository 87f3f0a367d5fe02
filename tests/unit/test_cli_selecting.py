import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from zcat.cli.selecting import Part, boxes, bytes_of, split_slice
from zcat.cli.show import array_text
from zcat.errors import BadRequest, BadSelection
from zcat.model.selection import slice_text

shapes = hn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


class Source:
    """What these functions need of an array: NumPy's own will do, and counts what is read."""

    def __init__(self, items):
        self.items = items
        self.shape, self.dtype = items.shape, items.dtype
        self.items_read = 0

    def __getitem__(self, key):
        fields = [part for part in key if isinstance(part, str)] if isinstance(key, tuple) else []
        rest = tuple(part for part in key if not isinstance(part, str)) if fields else key
        answer = self.items[rest]
        self.items_read += answer.size
        return answer[fields[0]] if fields else answer


@st.composite
def items_and_text(draw):
    shape = draw(shapes)
    items = np.arange(np.prod(shape, dtype=int), dtype="<i4").reshape(shape)
    if not shape:
        return items, None
    key = draw(hn.basic_indices(shape, allow_newaxis=False))
    return items, draw(st.sampled_from([None, slice_text(key)]))


def expected(items, text):
    return items if text is None or text == "" else eval(f"items[{text}]", {"items": items})


@given(items_and_text(), st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_boxes_of_a_part_make_up_the_part(given_, items_max):
    items, text = given_
    part = Part(Source(items), text)
    wanted = expected(items, text)
    assert part.shape == wanted.shape
    found = np.full(part.shape, -1)
    for box, piece in part.boxes():
        found[box] = piece
    np.testing.assert_array_equal(found, wanted)


@given(shapes, st.integers(1, 60), st.data())
@settings(deadline=None, max_examples=60)
def test_boxes_cover_every_item_once_in_whole_units_and_within_the_limit(shape, items_max, data):
    unit = tuple(data.draw(st.integers(1, 10)) for _ in shape)
    counts = np.zeros(shape, int)
    for box in boxes(shape, unit, items_max):
        counts[box] += 1
        assert counts[box].size <= max(items_max, np.prod(unit, dtype=int))
        assert all(part.start % step == 0 for part, step in zip(box, unit, strict=True))
    assert (counts == 1).all()


@given(shapes, st.integers(1, 60))
@settings(deadline=None, max_examples=50)
def test_boxes_of_single_items_follow_each_other_in_c_order(shape, items_max):
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    order = [number for box in boxes(shape, (1,) * len(shape), items_max) for number in numbers[box].ravel()]
    assert order == list(range(numbers.size))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sst/a.b2nd", ("sst/a.b2nd", None)),
        ("sst/a.b2nd[3, :10, ::2]", ("sst/a.b2nd", "3, :10, ::2")),
        ("sst/a.b2nd[]", ("sst/a.b2nd", "")),
        ("sst/run[1]/a.b2nd", ("sst/run[1]/a.b2nd", None)),
        ("sst/run[1]/a.b2nd[2]", ("sst/run[1]/a.b2nd", "2")),
        ("sst/a[1].b2nd", ("sst/a[1].b2nd", None)),
        ("sst/a[1].b2nd[2]", ("sst/a[1].b2nd", "2")),
        ("sst/a.b2nd[[0, 1], 2]", ("sst/a.b2nd", "[0, 1], 2")),
        ("sst/a.b2nd 0]", ("sst/a.b2nd 0]", None)),
    ],
)
def test_a_slice_stands_in_brackets_at_the_end(text, parts):
    assert split_slice(text) == parts


def test_a_bracket_that_is_not_closed_is_refused():
    with pytest.raises(BadRequest, match="quotes"):
        split_slice("sst/a.b2nd[3,")


@given(items_and_text())
@settings(deadline=None, max_examples=50)
def test_a_small_part_prints_as_by_numpy(given_):
    items, text = given_
    wanted = expected(items, text)
    assert array_text(Source(items), text, None) == (
        np.array2string(wanted, max_line_width=100) if np.ndim(wanted) or not np.isscalar(wanted) else str(wanted)
    )


@pytest.mark.parametrize("text", [None, "::-1", "5", "..., 3", ":, 4:2000:7, 1", "0, :, ::-2"])
def test_a_large_part_prints_as_by_numpy_and_only_its_edges_are_read(text):
    items = np.arange(20 * 3000 * 8).reshape(20, 3000, 8)
    source = Source(items)
    wanted = expected(items, text)
    assert array_text(source, text, None) == np.array2string(wanted, threshold=1000, max_line_width=100)
    assert source.items_read <= 8 * 8 * 8


def test_on_demand_every_item_is_printed():
    items = np.arange(5000)
    assert array_text(Source(items), None, None, is_all=True).split()[-1] == "4999]"
    assert "..." not in array_text(Source(items), None, None, is_all=True)


def test_one_field_of_a_table_is_printed_alone():
    table = np.zeros(4000, dtype=[("a", "<i4"), ("b", "S3")])
    table["b"] = b"xyz"
    assert array_text(Source(table), "1:3", "b") == "[b'xyz' b'xyz']"
    assert array_text(Source(table), "1", "b") == "b'xyz'"
    assert "..." in array_text(Source(table), None, "b")


def test_what_an_item_holds_cannot_act_on_a_terminal():
    assert "\x1b" not in array_text(Source(np.array(["\x1b[31mred"])), None, None)


def test_a_slice_that_does_not_fit_is_refused():
    with pytest.raises(BadSelection):
        array_text(Source(np.zeros((2, 2))), "5, 0", None)


def test_a_field_of_what_has_none_is_refused_as_such():
    with pytest.raises(BadSelection, match="have no fields"):
        array_text(Source(np.zeros(3)), None, "b")


@pytest.mark.parametrize(
    ("inside", "wanted"),
    [
        (None, b"hello"),
        ("", b"hello"),
        ("...", b"hello"),
        ("1:3", b"el"),
        ("-3:", b"llo"),
        ("3:1", b""),
        (":99", b"hello"),
        ("..., 2:", b"llo"),
    ],
)
def test_bytes_are_taken_as_python_takes_them(inside, wanted):
    part = bytes_of(inside, 5)
    assert b"hello"[part.start : part.stop] == wanted
    assert len(part) == len(wanted)


@pytest.mark.parametrize("inside", ["2", "::2", "::-1", "0:1,0:1"])
def test_bytes_have_neither_axes_nor_steps(inside):
    with pytest.raises((BadRequest, BadSelection)):
        bytes_of(inside, 5)
