import h5py
import numpy as np
import pytest
from h5py import h5d, h5s, h5t
from hdf5_samples import opened, told

from zcat.model.dtypes import parse_dtype
from zcat.protocol.codec import unpack_attributes
from zcat.storage.hdf5.operations import attributes
from zcat.storage.hdf5.reference_paths import NOTHING, ReferencePaths
from zcat.storage.hdf5.types import read_box

ENUM = h5py.enum_dtype({"RED": 0, "GREEN": 1})
NESTED = np.dtype([("a", "<i2"), ("b", "<f8", (2,)), ("c", [("x", "u1"), ("y", "S3")])])
TEXTS = np.dtype([("name", h5py.string_dtype()), ("two", h5py.string_dtype(), (2,)), ("n", "i4")])

SAME_AS_STORED = {
    "int8": np.arange(6, dtype="i1"),
    "big-endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "uint64": np.array([2**64 - 1], "u8"),
    "float16": np.array([1.5, np.nan], "f2"),
    "float64": np.array(4.25),
    "complex": np.array([1 + 2j], "c8"),
    "big complex": np.array([1 + 2j], ">c16"),
    "bool": np.array([True, False]),
    "fixed text": np.array([b"abc", b""]),
    "opaque": np.array([b"abc", b"xyz"], "V3"),
    "dates": np.array(["2020-01-01", "NaT"], "M8[s]").astype(h5py.opaque_dtype("M8[s]")),
    "compound": np.array([(1, (2, 3), (4, b"q"))], NESTED),
    "aligned": np.array([(1, 2.0)], np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


def values_of(path, item):
    """Read a whole dataset as a worker reads boxes of it."""
    with opened(path) as file:
        box = tuple(slice(0, length) for length in item.shape)
        return read_box(file.h5[item.hdf5_path].id, box, parse_dtype(item.dtype), file.paths)


def create(path, stored, shape=(3,)):
    """Make a dataset of a type that NumPy has not."""
    with h5py.File(path, "w") as file:
        h5d.create(file.id, b"data", stored, h5s.create_simple(shape))


@pytest.mark.parametrize("kind", SAME_AS_STORED)
def test_what_numpy_has_is_offered_as_it_is_stored(path, kind):
    array = SAME_AS_STORED[kind]
    with h5py.File(path, "w") as file:
        file["data"] = array

    item = told(path)["data"]

    assert item.problem is None
    assert item.raw
    assert item.shape == array.shape
    assert values_of(path, item).tobytes() == array.tobytes()
    if array.size and item.layout.offset is not None:
        assert path.read_bytes()[item.layout.offset :][: array.nbytes] == array.tobytes()


def test_text_of_variable_length_becomes_bytes_as_wide_as_the_longest(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("utf8", data=["a", "éé", ""], dtype=h5py.string_dtype())
        file.create_dataset("ascii", data=[[b"abc"]], dtype=h5py.string_dtype("ascii"))
        file.create_dataset("unwritten", shape=(2,), dtype=h5py.string_dtype())
        file["scalar"] = "NXentry"

    items = told(path)

    assert [items[name].dtype for name in ("utf8", "ascii", "unwritten", "scalar")] == ["|S4", "|S3", "|S1", "|S7"]
    assert values_of(path, items["utf8"]).tolist() == [b"a", "éé".encode(), b""]
    assert values_of(path, items["scalar"])[()] == b"NXentry"
    assert not items["utf8"].raw
    assert "variable length" in items["utf8"].note


def test_text_inside_a_compound_is_bounded_field_by_field(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape=(2,), dtype=TEXTS)
        data[0] = ("long name", ["x", "yy"], 7)
        data[1] = ("b", ["", ""], 8)

    item = told(path)["data"]
    values = values_of(path, item)

    assert parse_dtype(item.dtype) == np.dtype([("name", "S9"), ("two", "S2", (2,)), ("n", "<i4")])
    assert values["name"].tolist() == [b"long name", b"b"]
    assert values["two"].tolist() == [[b"x", b"yy"], [b"", b""]]
    assert values["n"].tolist() == [7, 8]


def test_more_text_than_is_measured_at_a_time_is_measured_all(path):
    texts = [b"x"] * 20_000
    texts[19_999] = b"the longest"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.array(texts, "O").reshape(4, 5000), dtype=h5py.string_dtype())

    assert told(path)["data"].dtype == "|S11"


def test_too_much_text_has_a_reason_and_is_not_read(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(1 << 40,), chunks=(1 << 20,), dtype=h5py.string_dtype())

    assert "not measured" in told(path)["data"].problem


def test_arrays_as_items_become_axes(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape=(4,), dtype=np.dtype(("<f4", (2, 3))), chunks=(2,))
        data[...] = np.arange(24).reshape(4, 2, 3)

    item = told(path)["data"]

    assert (item.shape, item.layout.chunks, item.inner_axes, item.raw) == ((4, 2, 3), (2, 2, 3), 2, True)
    assert values_of(path, item).tolist() == np.arange(24).reshape(4, 2, 3).tolist()


def test_an_enumeration_is_offered_as_numbers_and_its_names_are_told(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=[0, 1], dtype=ENUM)

    item = told(path)["data"]

    assert (item.dtype, item.raw) == ("|u1", True)
    assert attributes_of(path, "/data")[0] == {"HDF5_ENUM": {"RED": 0, "GREEN": 1}}


def test_a_float_that_numpy_has_not_is_offered_as_the_next_larger_one(path):
    bfloat16 = h5t.IEEE_F16LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_ebias(127)
    create(path, bfloat16)

    item = told(path)["data"]

    assert (item.dtype, item.raw) == ("<f4", False)
    assert "2 bytes" in item.note


def test_numbers_with_padding_bits_are_not_raw(path):
    twelve_bits = h5t.STD_I16LE.copy()
    twelve_bits.set_precision(12)
    create(path, twelve_bits)

    assert not told(path)["data"].raw


@pytest.mark.parametrize("user_block", [0, 512])
def test_references_are_offered_as_the_paths_of_what_they_lead_to(path, user_block):
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file["g/data"] = np.arange(3)
        cells = file.create_dataset("cells", (2, 2), h5py.ref_dtype)
        cells[0, 0], cells[0, 1], cells[1, 0] = file["g/data"].ref, file["g"].ref, file.ref
        gone = file.create_dataset("gone", (1,), h5py.ref_dtype)
        gone[0] = file.create_group("soon").ref
        del file["soon"]

    items = told(path)

    assert items["cells"].note == "references, as the paths of what they lead to"
    assert values_of(path, items["cells"]).tolist() == [[b"/g/data", b"/g"], [b"/", b""]]
    assert values_of(path, items["gone"]).tolist() == [b"<a reference to nothing>"]


def test_references_are_offered_inside_of_compounds_too(path):
    dtype = np.dtype(
        [("n", "i4"), ("to", h5py.ref_dtype), ("more", h5py.ref_dtype, (2,)), ("t", h5py.string_dtype())]
    )
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = 1, 2
        data = file.create_dataset("data", (2,), dtype)
        data[0] = (7, file["a"].ref, [file["b"].ref, h5py.Reference()], "text")

    item = told(path)["data"]
    values = values_of(path, item)

    assert values.dtype == [("n", "<i4"), ("to", "S2"), ("more", "S2", (2,)), ("t", "S4")]
    assert values[["n", "to", "t"]].tolist() == [(7, b"/a", b"text"), (0, b"", b"")]
    assert values["more"].tolist() == [[b"/b", b""], [b"", b""]]
    assert "references" in item.note
    assert "text of variable length" in item.note


def test_a_reference_in_memory_is_the_path_of_what_it_leads_to(path):
    with h5py.File(path, "w") as file:
        some, gone = file.create_group("some").ref, file.create_group("gone").ref
        del file["gone"]
        paths = ReferencePaths(file)

        assert list(map(paths.of_reference, (some, gone, h5py.Reference()))) == [b"/some", NOTHING, b""]


def test_names_of_references_are_not_looked_for_without_end(path):
    with h5py.File(path, "w") as file:
        file["a"] = 1
        deep = file.create_group("b")
        for _ in range(600):
            deep = deep.create_group("g")
        cells = file.create_dataset("cells", (2,), h5py.ref_dtype)
        cells[0], cells[1] = file["a"].ref, deep.ref

    assert values_of(path, told(path)["cells"]).tolist() == [b"/a", NOTHING]


def test_a_reference_that_changed_changes_its_dataset_alone(path):
    def write(target):
        with h5py.File(path, "w") as file:
            file["a"], file["b"] = 1, 2
            file.create_dataset("to", (1,), h5py.ref_dtype)[0] = file[target].ref
        return {one: item.fingerprint for one, item in told(path).items()}

    one, other = write("a"), write("b")

    assert {name for name in one if one[name] != other[name]} == {"to"}


@pytest.mark.parametrize(
    ("dtype", "why"),
    [
        ("g", "portable"),
        (h5py.regionref_dtype, "references to regions"),
        (h5py.vlen_dtype("i4"), "variable length"),
        (np.dtype([("ok", "i4"), ("bad", [("inner", h5py.vlen_dtype("f4"))])]), "bad.inner"),
    ],
)
def test_what_has_no_form_is_told_with_its_reason(path, dtype, why):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(2,), dtype=dtype)

    assert why in told(path)["data"].problem


def test_a_type_that_h5py_has_not_is_told_with_its_reason(path):
    create(path, h5t.UNIX_D32LE)

    assert "time" in told(path)["data"].problem


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("<i4", 7), (bool, True), ("S4", b"ab"), (ENUM, 1), (NESTED, np.array((1, (2, 3), (4, b"q")), NESTED))],
)
def test_a_fill_value_is_one_offered_item(path, dtype, fill):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(2,), dtype=dtype, fillvalue=fill)

    item = told(path)["data"]

    assert item.fill == values_of(path, item)[:1].tobytes()


def test_a_fill_value_of_text_is_as_wide_as_its_dataset(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(2,), dtype=h5py.string_dtype(), fillvalue="none")

    item = told(path)["data"]

    assert (item.dtype, item.fill) == ("|S4", b"none")


def test_a_fill_value_of_zero_is_none(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=(2,), dtype="f4", fillvalue=0)

    assert told(path)["data"].fill is None


# -- attributes ----------------------------------------------------------------------------------------


def attributes_of(path, name):
    with opened(path) as file:
        return [unpack_attributes(body) for body in attributes(file, {"path": name}).bodies]


@pytest.mark.parametrize(
    ("given", "value", "dtype"),
    [
        (3, 3, "<i8"),
        (np.float32(1.5), 1.5, "<f4"),
        (np.arange(4, dtype="u2").reshape(2, 2), [[0, 1], [2, 3]], "<u2"),
        (True, True, "|b1"),
        (1 + 2j, [1.0, 2.0], "<c16"),
        ("é", "é", "utf-8"),
        (["a", "b"], ["a", "b"], "utf-8"),
        (np.bytes_("30 °C".encode("latin-1")), "30 °C", "ascii 5"),
        (np.void(b"\0\1"), b"\0\1", "|V2"),
        (h5py.Empty("f4"), None, "<f4"),
        (np.array([(1, b"q")], [("a", "<i2"), ("b", "S3")]), [{"a": 1, "b": "q"}], "[('a', '<i2'), ('b', '|S3')]"),
        (np.void(b"\x80\x04K\x01."), "<a pickled Python object of 5 bytes, which is not opened>", "|V5"),
        (np.bytes_(b"\x80\x02K\x01."), "<a pickled Python object of 5 bytes, which is not opened>", "ascii 5"),
    ],
)
def test_an_attribute_is_told_as_a_plain_value_with_its_type(path, given, value, dtype):
    with h5py.File(path, "w") as file:
        file.attrs["it"] = given

    values, types = attributes_of(path, "/")

    assert values == {"it": value}
    assert types["it"]["dtype"] == dtype


def test_not_a_number_is_allowed(path):
    with h5py.File(path, "w") as file:
        file.attrs["it"] = np.nan

    assert np.isnan(attributes_of(path, "/")[0]["it"])


def test_an_enumeration_is_told_by_name(path):
    with h5py.File(path, "w") as file:
        file.attrs.create("it", [1, 0, 9], dtype=ENUM)

    values, types = attributes_of(path, "/")

    assert values["it"] == ["GREEN", "RED", 9]
    assert types["it"]["members"] == {"RED": 0, "GREEN": 1}


def test_dimension_scales_are_told_by_path(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
        file["x"].make_scale("x")
        data = file.create_dataset("g/data", data=np.zeros(3))
        data.dims[0].attach_scale(file["x"])
        data.attrs["nothing"] = h5py.Reference()

    assert attributes_of(path, "/g/data")[0] == {"DIMENSION_LIST": [["/x"]], "nothing": None}
    assert attributes_of(path, "/x")[0]["REFERENCE_LIST"] == [{"dataset": "/g/data", "dimension": 0}]


def test_attributes_keep_the_order_in_which_they_were_made(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("g", track_order=True)
        for name in ("z", "a", "m"):
            group.attrs[name] = 1

    assert list(attributes_of(path, "/g")[0]) == ["z", "a", "m"]


def test_an_attribute_that_is_too_large_is_a_sentence(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["large"] = np.zeros(100_000)
        file.attrs["text"] = "x" * 100_000
        file.attrs["small"] = 1

    values, _ = attributes_of(path, "/")

    assert values["large"].startswith("<unreadable: ")
    assert values["text"].startswith("<unreadable: ")
    assert values["small"] == 1


def test_many_attributes_together_stay_within_their_limit(path):
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(40):
            file.attrs[f"a{number:02}"] = np.zeros(7000)

    values, _ = attributes_of(path, "/")

    assert len(values) == 40
    assert values["a00"] == [0.0] * 7000
    assert values["a39"].startswith("<unreadable: ")
