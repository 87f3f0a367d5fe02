import pickle  # noqa: TID251  # users and dask do it; zcat itself never does

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_backend import opened

from zcat.client.array import Array
from zcat.client.backend import Address, BodyCut
from zcat.client.http_backend import HttpBackend
from zcat.errors import BadSelection, Stale, Unavailable

QUICK = settings(max_examples=200, deadline=None)
RECORD = np.dtype([("a", "<i4"), ("b", "<f8", (2,)), ("c", "S3")])


def cube():
    return np.arange(5 * 6 * 7, dtype="f4").reshape(5, 6, 7)


def table():
    return np.array([(i, (i / 2, -i), b"x%d" % (i % 10)) for i in range(8)], RECORD)


def outcome(make):
    try:
        return make()
    except (IndexError, TypeError, ValueError) as error:
        return error


def part(length):
    indices = st.lists(st.integers(-length, length - 1), max_size=6)
    bounds = st.none() | st.integers(-length - 2, length + 2)
    return st.one_of(
        st.integers(-length - 1, length),
        st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3).filter(bool)),
        indices,
        indices.map(lambda numbers: np.array(numbers, int)),
        st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
        st.sampled_from([None, ..., np.int8(1), 1.5, True, "a"]),
    )


KEYS = st.tuples(part(5), part(6), part(7)) | st.tuples(part(5), part(6)) | part(5)


# -- keys --------------------------------------------------------------------------------------------


@QUICK
@given(KEYS)
def test_a_key_gives_what_numpy_gives_or_is_refused_as_numpy_refuses_it(key):
    data = cube()
    _, dataset = opened(data)
    wanted, answer = outcome(lambda: data[key]), outcome(lambda: dataset[key])
    if isinstance(wanted, Exception):
        assert isinstance(answer, BadSelection)
        assert str(answer) == str(wanted)
    else:
        assert type(answer) is type(wanted)
        assert answer.dtype == wanted.dtype
        np.testing.assert_array_equal(answer, wanted)


@QUICK
@given(KEYS)
def test_what_is_empty_or_wrong_asks_nobody(key):
    data = cube()
    backend, dataset = opened(data)
    answer = outcome(lambda: dataset[key])
    assert backend.calls == ([] if isinstance(answer, Exception) or not np.size(answer) else ["read"])


@pytest.mark.parametrize("key", ["a", "b", "c", ["a"], ["c", "a"], ["b"], 3, slice(2, 5), [], [4, 1, 1], ...])
def test_fields_and_records_are_numpys(key):
    _, dataset = opened(table())
    answer, wanted = dataset[key], table()[key]
    assert type(answer) is type(wanted)
    assert answer.dtype == wanted.dtype
    np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("name", ["a", "b", ["c", "a"]])
@pytest.mark.parametrize("key", [2, slice(1, 6, 2), slice(0, 0), [5, 0], np.arange(8) % 3 == 0, None, ...])
def test_a_part_of_a_field_is_that_part_of_the_records(name, key):
    _, dataset = opened(table())
    for answer in (dataset[name, key], dataset[key, name]):
        np.testing.assert_array_equal(answer, table()[key][name])
        assert np.asarray(answer).dtype == table()[name].dtype or isinstance(name, str)


def test_names_that_are_no_fields_are_refused_with_those_that_are():
    _, dataset = opened(table())
    with pytest.raises(BadSelection, match="'z'; there are a, b, c"):
        dataset["z"]
    with pytest.raises(BadSelection, match="one list"):
        dataset["a", "b"]


@pytest.mark.parametrize("data", [np.array(7.5), np.array((1, (2, 3), b"x"), RECORD)])
@pytest.mark.parametrize("key", [(), ..., None, (..., None), np.True_, np.False_, 0])
def test_an_array_without_axes_has_the_keys_that_numpy_allows_it(data, key):
    _, dataset = opened(data)
    wanted, answer = outcome(lambda: data[key]), outcome(lambda: dataset[key])
    assert type(answer) is (BadSelection if isinstance(wanted, Exception) else type(wanted))
    if not isinstance(wanted, Exception):
        np.testing.assert_array_equal(answer, wanted, strict=True)


# -- as an array -------------------------------------------------------------------------------------


def test_an_array_knows_its_form_without_asking():
    backend, dataset = opened(cube())
    assert (dataset.shape, dataset.ndim, dataset.size, len(dataset)) == ((5, 6, 7), 3, 210, 5)
    assert (dataset.dtype, dataset.nbytes, dataset.chunks) == (np.dtype("f4"), 840, (3, 3, 3))
    assert (dataset.root, dataset.path, dataset.name, dataset.address) == ("lab", "x", "x", "lab/x")
    assert dataset.attrs["units"] == "m/s"
    assert "lab/x" in repr(dataset)
    assert backend.calls == []


def test_attributes_cannot_be_written():
    _, dataset = opened(cube())
    with pytest.raises(TypeError):
        dataset.attrs["units"] = "km/h"


def test_numpy_takes_it_as_an_array():
    _, dataset = opened(cube())
    np.testing.assert_array_equal(np.asarray(dataset), cube())
    assert np.asarray(dataset, dtype="i2").dtype == np.dtype("i2")
    np.testing.assert_array_equal(np.add(dataset, 1), cube() + 1)
    assert np.array(dataset, copy=True).shape == (5, 6, 7)


def test_an_array_without_a_copy_is_refused():
    backend, dataset = opened(cube())
    with pytest.raises(ValueError, match="without a copy"):
        np.array(dataset, copy=False)
    assert backend.calls == []


def test_an_iteration_reads_many_rows_at_a_time_and_all_of_one_version():
    data = np.arange(100.0).reshape(50, 2)
    backend, dataset = opened(data)
    np.testing.assert_array_equal(list(dataset), list(data))
    assert backend.calls == ["read"]


def test_an_iteration_stops_when_the_dataset_is_rewritten(monkeypatch):
    monkeypatch.setattr("zcat.client.array.ITERATED_BYTES", 1)
    backend, dataset = opened(np.arange(9))
    rows = iter(dataset)
    assert next(rows) == 0
    backend.put("x", np.arange(9) * 2)
    assert [next(rows), next(rows)] == [1, 2]
    with pytest.raises(Stale):
        next(rows)


def test_an_array_without_axes_has_no_length_and_no_items():
    _, dataset = opened(np.array(3))
    with pytest.raises(TypeError):
        len(dataset)
    with pytest.raises(TypeError):
        iter(dataset)


def test_only_an_array_of_one_item_is_true_or_false():
    assert bool(opened(np.array([[2]]))[1])
    assert not opened(np.array(0))[1]
    with pytest.raises(ValueError, match="ambiguous"):
        bool(opened(np.arange(2))[1])


def test_an_empty_array_is_read_without_a_question():
    backend, dataset = opened(np.empty((0, 3), "c8"))
    assert np.asarray(dataset).shape == (0, 3)
    assert list(dataset) == []
    assert backend.calls == []


# -- versions ----------------------------------------------------------------------------------------


def test_a_read_begins_anew_when_the_dataset_is_rewritten_in_the_same_form():
    backend, dataset = opened(np.zeros(4))
    before = dataset.version
    backend.before_read = [lambda: backend.put("x", np.ones(4)), lambda: backend.put("x", np.full(4, 2.0))]
    np.testing.assert_array_equal(dataset[:], np.full(4, 2.0))
    assert dataset.version != before
    assert backend.calls.count("read") == 3


def test_a_read_gives_up_on_a_dataset_that_never_rests():
    backend, dataset = opened(np.zeros(4))
    backend.before_read = [lambda: backend.put("x", np.ones(4))] * 9
    with pytest.raises(Stale, match="faster than it can be read"):
        dataset[:]
    assert backend.calls.count("read") == 4


@pytest.mark.parametrize("other", [np.zeros(5), np.zeros(4, "f4"), np.zeros((2, 2))])
def test_a_rewrite_in_another_form_is_refused_until_refreshed(other):
    backend, dataset = opened(np.zeros(4))
    backend.put("x", other)
    with pytest.raises(Stale, match="refresh"):
        dataset[:]
    assert dataset.refresh()
    assert dataset.shape == other.shape
    np.testing.assert_array_equal(dataset[...], other)


def test_a_dataset_that_grows_keeps_its_shape_until_refreshed():
    backend, dataset = opened(np.arange(4))
    backend.put("x", np.arange(6), is_append=True)
    np.testing.assert_array_equal(dataset[:], np.arange(4))
    assert dataset[-1] == 3
    assert dataset.refresh()
    assert not dataset.refresh()
    assert dataset[-1] == 5


def test_a_pinned_dataset_reads_its_own_lineage_or_nothing():
    backend, dataset = opened(np.zeros(4))
    pinned = dataset.pin()
    backend.put("x", np.ones(4))
    with pytest.raises(Stale, match="pinned"):
        pinned[:]
    assert dataset[0] == 1
    pinned.refresh()
    assert pinned.pinned
    assert pinned[0] == 1


def test_an_answer_that_is_cut_is_read_again_only_if_the_dataset_has_changed():
    backend, dataset = opened(np.zeros(4))

    def cut():
        raise BodyCut("cut")

    def rewrite_and_cut():
        backend.put("x", np.ones(4))
        cut()

    backend.before_read = [cut]
    with pytest.raises(Unavailable, match="cut"):
        dataset[:]
    backend.before_read = [rewrite_and_cut]
    assert dataset[0] == 1


def test_an_array_that_became_a_file_is_to_be_opened_again():
    backend, dataset = opened(np.zeros(4))
    backend.put("x", b"text")
    with pytest.raises(Stale, match="open it again"):
        dataset.refresh()


# -- elsewhere ---------------------------------------------------------------------------------------


def test_a_pickled_dataset_is_its_address_and_its_version():
    _, held = opened(cube())
    dataset = Array(HttpBackend("http://127.0.0.1:9/zcat/", 5.0), Address("lab", "x"), held.info)
    data = pickle.dumps(dataset)
    arrived = pickle.loads(data)
    again = pickle.loads(data)
    assert (arrived.address, arrived.version, arrived.shape) == (dataset.address, dataset.version, dataset.shape)
    assert arrived._backend.url == "http://127.0.0.1:9/zcat"
    assert arrived._backend is again._backend
    assert arrived.pinned
    assert len(data) < 3000


def test_the_token_for_dask_changes_with_the_version():
    backend, dataset = opened(np.zeros(4))
    token = dataset.__dask_tokenize__()
    assert token == dataset.pin().__dask_tokenize__()
    backend.put("x", np.ones(4))
    dataset.refresh()
    assert dataset.__dask_tokenize__() != token
