"""From HDF5 files to folders of Blosc2 files and back, compared by h5py."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from hdf5_files import wave, write

from zcat.cli import exits
from zcat.cli.main import main
from zcat.errors import BadConfig, BadContent, BadRequest, NotReadable
from zcat.storage.hdf5.direct import unwrap
from zcat.storage.hdf5.export_file import Exporter, export_folder
from zcat.storage.hdf5.forms import dtype_of
from zcat.storage.hdf5.import_file import GROUP, import_file
from zcat.storage.hdf5.links_back import object_at
from zcat.storage.save import Layout, save_array

BLOSC2 = hdf5plugin.Blosc2(cname="zstd", clevel=3)
ENUM = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 7}, "<i2")
TEXT = h5py.string_dtype()
DAY = h5py.opaque_dtype("<M8[D]")
DAYS = np.arange("2026-01-01", "2026-01-05", dtype="M8[D]").astype(DAY)
MIXED = {"unit": "K", "names": ["x", "y"], "map": {"a": 1}}


def there_and_back(path, tmp_path):
    """Import a file and export it again; give the new file, and both reports."""
    report = import_file(path, tmp_path / "folder", force=True)
    made = tmp_path / "made.h5"
    with Exporter(made) as exporter:
        export_folder(tmp_path / "folder", exporter, lambda *_: None)
    return made, report, exporter


def same_type(one, other):
    assert one.dtype == other.dtype
    assert h5py.check_enum_dtype(one.dtype) == h5py.check_enum_dtype(other.dtype)
    assert h5py.check_string_dtype(one.dtype) == h5py.check_string_dtype(other.dtype)


def check_same(path, made):
    """Compare two files by h5py: objects, types, shapes, values, attributes."""
    with h5py.File(path) as before, h5py.File(made) as after:
        names, found = [], []
        before.visit(names.append)
        after.visit(found.append)
        assert sorted(found) == sorted(names)
        for name in ["/", *names]:
            check_same_attributes(before[name], after[name])
            if isinstance(before[name], h5py.Dataset):
                assert after[name].shape == before[name].shape, name
                same_type(before[name], after[name])
                if before[name].shape is not None:
                    np.testing.assert_array_equal(after[name][()], before[name][()], err_msg=name)


def check_same_attributes(before, after):
    assert set(after.attrs) == set(before.attrs)
    for name, wanted in before.attrs.items():
        same_type(before.attrs.get_id(name), after.attrs.get_id(name))
        assert after.attrs.get_id(name).shape == before.attrs.get_id(name).shape
        if not isinstance(wanted, h5py.Empty):
            np.testing.assert_array_equal(after.attrs[name], wanted, err_msg=name)


@pytest.mark.parametrize(
    "given",
    [
        {"data": wave((50, 60)), "chunks": (20, 30), **BLOSC2},
        {"data": wave((300, 400, 5)), "chunks": (100, 150, 5), **BLOSC2},
        {"data": wave((300_000,), ">i4"), "chunks": (100_000,), **BLOSC2},
        {"data": wave((300, 400)), "chunks": (300, 400), "compression": "gzip", "maxshape": (None, 400)},
        {"data": wave((90, 70), "<u2"), "chunks": (7, 9), "compression": "lzf", "shuffle": True},
        {"data": wave((1000, 700))},
        {"data": wave((1500, 2000), "<f8"), "chunks": (1500, 2000)},
        {"data": np.float64(2.5)},
        {"data": np.array(b"text", "S4")},
        {"data": np.zeros((0, 3), "<f4"), "maxshape": (None, 3), "chunks": (4, 3)},
        {"data": np.zeros((0,), "<i2")},
        {"data": h5py.Empty("<f4")},
        {"data": wave((2000,)) > 100},
        {"data": wave((2000,)) + 1j},
        {"data": np.arange(5, dtype="<f2")},
        {"data": np.array([0, 1, 7], "<i2"), "dtype": ENUM},
        {"data": ["one", "zwölf", ""], "dtype": TEXT},
        {"data": "alone", "dtype": TEXT},
        {"data": ["ä".encode(), b"b"], "dtype": h5py.string_dtype("utf-8", 4)},
        {"data": np.array([(1, 2.5, [1, 2])] * 5000, [("a", "<i4"), ("b", ">f8"), ("c", "<i2", (2,))])},
        {"data": np.array([(1, "x"), (2, "yy")], [("n", "<i4"), ("t", TEXT)])},
        {"data": np.array([(1, 7), (2, 0)], [("n", "<i4"), ("colour", ENUM)])},
        {"shape": (3000, 40), "dtype": "<i4", "chunks": (1000, 40), "fillvalue": 9},
        {"data": wave((30,)), "fillvalue": 9.5},
        {"data": DAYS, "dtype": DAY},
        {"data": DAYS.reshape(2, 2), "dtype": DAY, "chunks": (1, 2), **BLOSC2},
        {"shape": (4,), "dtype": np.dtype([("n", "<i4"), ("day", DAY)])},
    ],
    ids=lambda given: f"{given.get('dtype', getattr(given.get('data'), 'dtype', ''))}"[:30],
)
def test_a_dataset_comes_back_as_it_was(given, tmp_path):
    path = write(tmp_path / "run.h5", d=given)

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.datasets, report.left_out, exporter.left_out) == (1, [], [])
    check_same(path, made)
    with h5py.File(path) as before, h5py.File(made) as after:
        if before["d"].chunks is not None:
            assert after["d"].chunks == before["d"].chunks
            assert after["d"].maxshape == before["d"].maxshape
        if before["d"].shape is not None:
            assert after["d"].fillvalue == before["d"].fillvalue or before["d"].dtype.names or not before["d"].size


def test_compressed_chunks_are_copied_untouched(tmp_path):
    path = write(tmp_path / "run.h5", d={"data": wave((250, 400), "<f8"), "chunks": (100, 150), **BLOSC2})

    made, _, exporter = there_and_back(path, tmp_path)

    assert exporter.direct_chunks == 9
    with h5py.File(path) as before, h5py.File(made) as after:
        np.testing.assert_array_equal(after["d"][...], before["d"][...])
        for start in ((0, 0), (100, 150), (200, 300)):
            wanted, found = (unwrap(file["d"].id.read_direct_chunk(start)[1]) for file in (before, after))
            assert found.data == wanted.data


def test_arrays_as_items_come_back(tmp_path):
    values = wave((30, 3, 4), "<i4")
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (30,), np.dtype(("<i4", (3, 4))), chunks=(10,))[...] = values

    made, _, exporter = there_and_back(path, tmp_path)

    assert exporter.left_out == []
    with h5py.File(made) as file:
        assert (file["d"].shape, file["d"].chunks) == ((30,), (10,))
        np.testing.assert_array_equal(file["d"][...], values)


def test_attributes_come_back_with_their_types(tmp_path):
    path = write(tmp_path / "run.h5", **{"g/d": wave((20,)), "e": wave((3,))})
    given = {
        "int8": np.int8(-3),
        "big": np.array([1.5, np.nan], ">f4"),
        "bool": True,
        "bools": np.array([[True, False]]),
        "complex": 1 - 2j,
        "text": "Grad °",
        "texts": np.array(["a", "bc"], TEXT),
        "ascii": np.bytes_(b"fixed"),
        "nothing": h5py.Empty("<i4"),
        "none_of_them": np.zeros((0, 2), "<u2"),
        "opaque": np.void(b"\x00\x01\xff"),
        "row": np.array((1, 2.5), [("a", "<i4"), ("b", "<f8")]),
        "HDF5_TYPES": "a name of ours",
        "HDF5_ENUM": 5,
        "a name that is longer than Blosc2 has room for": 7,
        "unsigned": np.uint64(2**64 - 1),
        "half": np.float16(0.1),
    }
    with h5py.File(path, "r+") as file:
        for found in (file, file["g"], file["g/d"]):
            for name, value in given.items():
                found.attrs[name] = value
            found.attrs.create("colours", [1, 0], dtype=ENUM)

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.left_out, exporter.left_out) == ([], [])
    check_same(path, made)


def test_an_attribute_of_a_type_that_cannot_be_kept_keeps_its_value(tmp_path):
    path = write(tmp_path / "run.h5", d=wave((3,)))
    with h5py.File(path, "r+") as file:
        file.attrs["long"] = np.longdouble(2.5)

    made, _, exporter = there_and_back(path, tmp_path)

    assert [name for name, _ in exporter.left_out] == ["@long, its type"]
    with h5py.File(made) as file:
        assert file.attrs["long"] == 2.5


def test_other_names_and_references_lead_to_the_same_objects(tmp_path):
    path = write(tmp_path / "run.h5", **{"g/x": wave((20,)), "y": wave((20,))})
    with h5py.File(path, "r+") as file:
        file["z"] = file["g/x"]
        file["g/up"] = file["/"]
        file["g/x"].make_scale("x")
        file["y"].dims[0].attach_scale(file["g/x"])

    made, _, exporter = there_and_back(path, tmp_path)

    assert exporter.left_out == []
    with h5py.File(made) as file:
        assert file["z"] == file["g/x"]
        assert file["g/up"] == file["/"]
        assert file["y"].dims[0][0] == file["g/x"]


def names_in_order(group):
    return [(name, type(group.get(name, getlink=True))) for name in group]


def test_the_order_of_links_comes_back_where_the_file_knows_it(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", track_order=True) as file:
        for name in ("zebra", "cow", "ant"):
            file[f"z/{name}"] = wave((5,))
        ordered = file.create_group("m", track_order=True)
        for name in ("two", "one", "three"):
            ordered[name] = wave((5,))
        ordered["first"] = h5py.SoftLink("/m/one")
        ordered["again"] = ordered["two"]
        ordered.create_group("last")
        file["a"] = 1
        file["a"].attrs["z"] = 1
        file.create_dataset("sorted", data=1, track_order=True).attrs.update({"z": 1, "y": file["a"].ref, "a": 3})

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.left_out, exporter.left_out) == ([], [])
    with h5py.File(path) as before, h5py.File(made) as after:
        for name in ("/", "z", "m"):
            assert names_in_order(after[name]) == names_in_order(before[name])
        assert list(after["sorted"].attrs) == ["z", "y", "a"]
        assert after[after["sorted"].attrs["y"]] == after["a"]
        np.testing.assert_array_equal(after["m/again"][...], wave((5,)))


def test_references_as_values_come_back(tmp_path):
    path = tmp_path / "f.h5"
    pair = np.dtype([("n", "<i4"), ("to", h5py.ref_dtype)])
    with h5py.File(path, "w") as file:
        cells = file.create_dataset("cells", (2, 2), h5py.ref_dtype)
        file["z/data"] = wave((5,))
        cells[0, 0], cells[1, 1] = file["z/data"].ref, file["z"].ref
        file.create_dataset("pairs", (1,), pair)[0] = (4, file["z/data"].ref)
        file.create_dataset("gone", (1,), h5py.ref_dtype)[0] = file.create_group("soon").ref
        del file["soon"]

    made, report, exporter = there_and_back(path, tmp_path)

    assert report.left_out == []
    assert [name for name, _ in exporter.left_out] == ["references to <a reference to nothing>"]
    with h5py.File(made) as file:
        assert file["cells"].dtype == h5py.ref_dtype
        assert file[file["cells"][0, 0]] == file["z/data"]
        assert file[file["cells"][1, 1]] == file["z"]
        assert not file["cells"][0, 1]
        assert file["pairs"][0]["n"] == 4
        assert file[file["pairs"][0]["to"]] == file["z/data"]


def test_no_other_file_is_opened_for_a_name_that_is_told_of_an_object(tmp_path):
    (tmp_path / "folder").mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = 1
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["soft"] = h5py.SoftLink("/link")
        file["group/data"] = 1

        for path in ("/link", "/link/x", "/soft/x", "/nothing", "/group/data/x"):
            with pytest.raises(LookupError):
                object_at(file, path)
        assert object_at(file, "/group/data") == file["group/data"]
        assert object_at(file, "/") == file["/"]


def test_soft_and_external_links_come_back_as_such(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["a/soft"] = h5py.SoftLink("/z/data")  # met before what it leads to
        file["a/group"] = h5py.SoftLink("../z")
        file["a/nowhere"] = h5py.SoftLink("/nothing")
        file["a/other"] = h5py.ExternalLink("other.h5", "/x")
        file["z/data"] = wave((5,))
        file["z/again"] = file["z/data"]

    made, report, exporter = there_and_back(path, tmp_path)

    assert [name for name, _ in report.left_out] == ["a/other"]
    assert exporter.left_out == []
    with h5py.File(made) as file:
        assert file.get("a/soft", getlink=True).path == "/z/data"
        assert file.get("a/group", getlink=True).path == "../z"
        assert file.get("a/nowhere", getlink=True).path == "/nothing"
        other = file.get("a/other", getlink=True)
        assert (other.filename, other.path) == ("other.h5", "/x")
        assert file["z/again"] == file["z/data"]
        np.testing.assert_array_equal(file["a/soft"][...], wave((5,)))


def padded(padding, size=6):
    made = h5py.h5t.C_S1.copy()
    made.set_size(size)
    made.set_strpad(padding)
    return made


PADDINGS = [h5py.h5t.STR_NULLTERM, h5py.h5t.STR_SPACEPAD, h5py.h5t.STR_NULLPAD]


@pytest.mark.parametrize("padding", PADDINGS)
def test_text_is_filled_up_as_it_was(tmp_path, padding):
    path = tmp_path / "f.h5"
    compound = h5py.h5t.create(h5py.h5t.COMPOUND, 10)
    compound.insert(b"number", 0, h5py.h5t.STD_I32LE)
    compound.insert(b"text", 4, padded(padding))
    values = np.array([b"one", b"filled"], "S6")
    with h5py.File(path, "w") as file:
        for name, stored in (("text", padded(padding)), ("table", compound)):
            dataset = file.create_dataset(name, shape=(2,), dtype=h5py.Datatype(stored))
            # without HDF5's conversion, which puts a NUL in the place of a letter
            raw = b"".join(one.ljust(6, b" \0"[padding != h5py.h5t.STR_SPACEPAD :][:1]) for one in values)
            written = raw if name == "text" else b"\1\0\0\0" + raw[:6] + b"\2\0\0\0" + raw[6:]
            items = np.frombuffer(written, f"V{stored.get_size()}")
            dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, items, stored)
            again = h5py.h5a.create(dataset.id, b"again", stored, h5py.h5s.create_simple((2,)))
            again.write(items, mtype=stored)

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.left_out, exporter.left_out) == ([], [])
    check_same(path, made)
    with h5py.File(path) as before, h5py.File(made) as after:
        for name in ("text", "table"):
            assert after[name].id.get_type().equal(before[name].id.get_type())
            assert raw_bytes(after[name].id) == raw_bytes(before[name].id)
            one, other = before[name].attrs.get_id("again"), after[name].attrs.get_id("again")
            assert other.get_type().equal(one.get_type())
            assert raw_bytes(other) == raw_bytes(one)


def test_chunks_that_are_longer_than_an_axis_which_stays_empty(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1024,))
        h5py.h5d.create(file.id, b"ids", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((0,), (0,)), plist)

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.left_out, exporter.left_out) == ([], [])
    check_same(path, made)


def raw_bytes(found):
    stored = found.get_type()
    values = np.zeros(found.shape, f"V{stored.get_size()}")
    if isinstance(found, h5py.h5a.AttrID):
        found.read(values, mtype=stored)
    else:
        found.read(h5py.h5s.ALL, h5py.h5s.ALL, values, stored)
    return values.tobytes()


def test_attributes_that_are_not_utf_8_come_back_byte_for_byte(tmp_path):
    path = tmp_path / "f.h5"
    texts = np.array([b"20 \xb0C", "20 °C".encode()], "S8")
    with h5py.File(path, "w") as file:
        file.attrs["fixed"] = texts
        file.attrs.create("variable", texts.tolist(), dtype=TEXT)
        h5py.h5a.create(file.id, b"\xb5m", h5py.h5t.STD_I8LE, h5py.h5s.create(h5py.h5s.SCALAR))
        h5py.h5a.create(file.id, b"\xb5s", h5py.h5t.STD_I8LE, h5py.h5s.create(h5py.h5s.NULL))

    made, report, exporter = there_and_back(path, tmp_path)

    assert (report.left_out, exporter.left_out) == ([], [])
    with h5py.File(path) as before, h5py.File(made) as after:
        for name in (b"fixed", b"variable"):
            wanted, got = (attribute_bytes(one, name) for one in (before, after))
            assert got == wanted
        assert h5py.h5a.exists(after.id, b"\xb5m")
        assert h5py.h5a.open(after.id, b"\xb5s").get_space().get_simple_extent_type() == h5py.h5s.NULL


def attribute_bytes(file, name):
    values = np.asarray(file.attrs[name.decode()]).ravel().tolist()
    return [one if isinstance(one, bytes) else one.encode("utf-8", "surrogateescape") for one in values]


def test_odd_names_come_back(tmp_path):
    path = write(tmp_path / "run.h5", **{"..a/b:c ": wave((3,)), "100%41": wave((3,)), "é": wave((3,))})

    made, _, _ = there_and_back(path, tmp_path)

    check_same(path, made)


def test_what_cannot_be_imported_is_told_and_the_rest_is_there(tmp_path, capsys):
    path = write(tmp_path / "run.h5", good=wave((20,)))
    with h5py.File(path, "r+") as file:
        file["away"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("vlen", (3,), h5py.vlen_dtype("<i4"))

    assert main(["import", str(path), str(tmp_path / "folder")]) == exits.OK

    told = capsys.readouterr().err
    assert "left out away: an external link" in told
    assert "left out vlen: " in told
    assert sorted(one.name for one in (tmp_path / "folder").iterdir()) == [GROUP, "good.b2nd"]


def test_nothing_is_replaced_unasked(tmp_path, capsys):
    path, folder = write(tmp_path / "run.h5", d=wave((20,))), tmp_path / "folder"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    import_file(path, folder)

    with pytest.raises(BadRequest, match="--force"):
        import_file(path, folder)
    import_file(path, folder, force=True)
    with pytest.raises(BadRequest, match="never replaced"):
        import_file(path, precious, force=True)
    assert main(["export-hdf5", str(folder), str(path)]) == exits.REFUSED
    assert main(["export-hdf5", str(folder), str(path), "--force"]) == exits.OK
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "precious", "run.h5"]


@pytest.mark.parametrize(
    "form",
    [
        None,
        {"dtype": "object"},
        {"dtype": "utf-8 x"},
        {"dtype": "vlen <i4"},
        {"dtype": "<i4", "members": [1]},
        {"dtype": "<i4", "inner": [1 << 40]},
        {"dtype": "x", "itemsize": 16, "fields": [["a", {"dtype": "utf-8"}, 0], ["b", {"dtype": "<i8"}, 4]]},
        {"dtype": "x", "itemsize": 16, "fields": [["a", {"dtype": "utf-8"}, 12]]},
    ],
    ids=repr,
)
def test_a_type_that_a_stranger_tells_is_not_believed(form):
    with pytest.raises((BadContent, NotReadable)):
        dtype_of(form)


def test_a_folder_of_any_arrays_becomes_a_file(tmp_path):
    folder = tmp_path / "folder"
    (folder / "g").mkdir(parents=True)
    save_array(folder / "g" / "a.b2nd", wave((300, 400)), Layout((300, 400), np.dtype("<f4"), attributes=MIXED))
    save_array(folder / "g" / "days.b2nd", DAYS, Layout((4,), np.dtype("<M8[D]")))
    (folder / "b.b2nd").write_bytes(b"no array")
    (folder / GROUP).write_bytes(b"no array")
    (folder / "notes.txt").write_text("hello")

    with Exporter(tmp_path / "made.h5") as exporter:
        export_folder(folder, exporter, lambda *_: None)

    assert sorted(name for name, _ in exporter.left_out) == ["/@", "b", "g/a@map", "notes.txt"]
    with h5py.File(tmp_path / "made.h5") as file:
        np.testing.assert_array_equal(file["g/a"][...], wave((300, 400)))
        np.testing.assert_array_equal(file["g/days"][...], DAYS)
        assert file["g/a"].attrs["unit"] == "K"
        assert list(file["g/a"].attrs["names"]) == ["x", "y"]


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "made.h5").write_text("before")

    def export():
        with Exporter(tmp_path / "made.h5") as exporter:
            exporter.group("g", {"a": 1})
            raise KeyError

    with pytest.raises(KeyError):
        export()

    assert (tmp_path / "made.h5").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "run.h5").write_text("no HDF5")
    with pytest.raises(BadConfig, match="no HDF5 file"):
        import_file(tmp_path / "run.h5", tmp_path / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["run.h5"]
