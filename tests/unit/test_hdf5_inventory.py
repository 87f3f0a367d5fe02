import dataclasses
import os
import shutil
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hdf5_samples import opened, told
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.errors import BadContent, BadMessage, Busy, DatasetUnknown, NotReadable
from zcat.model.dataset import DIMENSIONS_MAX
from zcat.names import is_legal_component
from zcat.protocol.codec import from_plain, to_plain, unpack
from zcat.storage.hdf5 import inventory, operations
from zcat.storage.hdf5.checks import open_dataset
from zcat.storage.hdf5.chunk_table import table_of
from zcat.storage.hdf5.items import Item, Layout
from zcat.storage.hdf5.links import open_path
from zcat.storage.hdf5.names import decoded, legal
from zcat.storage.hdf5.open_files import OPEN_FILES_MAX, OpenFiles
from zcat.storage.hdf5.types import read_box


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


@pytest.fixture
def secret(tmp_path):
    """A file that must never be read."""
    (tmp_path / "secret").write_bytes(b"S" * 64)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.full(8, 83)
    return tmp_path


def table_and_bytes(path):
    """Give the chunk table of the dataset ``data``, and the file's bytes."""
    with opened(path) as file:
        return table_of(open_dataset(file.h5, "/data")), path.read_bytes()


# -- kinds of content ----------------------------------------------------------------------------------


def test_every_layout_is_told(path):
    with h5py.File(path, "w") as file:
        file["contiguous"] = np.arange(10)
        file.create_dataset("chunked", data=np.zeros((10, 7)), chunks=(4, 3), maxshape=(None, 7))
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_layout(h5d.COMPACT)
        compact = h5d.create(file.id, b"compact", h5t.STD_I32LE, h5s.create_simple((3,)), dcpl=plist)
        compact.write(h5s.ALL, h5s.ALL, np.arange(3, dtype="i4"))
        layout = h5py.VirtualLayout((10,), "i8")
        layout[:] = h5py.VirtualSource(".", "contiguous", shape=(10,))
        file.create_virtual_dataset("virtual", layout)

    items = told(path)

    assert {name: items[name].layout.kind for name in items if name} == {
        "chunked": "chunked",
        "compact": "compact",
        "contiguous": "contiguous",
        "virtual": "virtual",
    }
    assert items["chunked"].layout.chunks == (4, 3)
    assert all(item.problem is None for item in items.values())
    with opened(path) as file:
        box, dtype = (slice(0, 10),), np.dtype("i8")
        assert read_box(open_dataset(file.h5, "/virtual"), box, dtype, file.paths).tolist() == list(range(10))


def test_scalars_are_told_and_empty_ones_and_null_ones(path):
    with h5py.File(path, "w") as file:
        file["scalar"] = 4.5
        file["empty"] = np.zeros((0, 3))
        file["null"] = h5py.Empty("f4")

    items = told(path)

    assert (items["scalar"].shape, items["scalar"].problem) == ((), None)
    assert (items["empty"].shape, items["empty"].problem) == ((0, 3), None)
    assert items["null"].shape is None
    assert "no values" in items["null"].problem


def test_more_dimensions_than_blosc2_has_are_told_with_the_reason(path):
    with h5py.File(path, "w") as file:
        file["eight"] = np.zeros((1,) * 8)
        file["nine"] = np.zeros((1,) * 9)

    items = told(path)

    assert items["eight"].problem is None
    assert items["nine"].shape == (1,) * 9
    assert str(DIMENSIONS_MAX) in items["nine"].problem


FILTERS = {
    "gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "fletcher32": {"fletcher32": True},
    "scaleoffset": {"scaleoffset": 8},
    "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(),
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "zstd": hdf5plugin.Zstd(),
    "lz4": hdf5plugin.LZ4(),
    "bzip2": hdf5plugin.BZip2(),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_on_the_list_are_told_by_name_and_read(path, name):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.arange(200), chunks=(50,), **FILTERS[name])

    item = told(path)["data"]

    assert item.problem is None
    assert name in [one.name for one in item.layout.filters]
    with opened(path) as file:
        values = read_box(open_dataset(file.h5, "/data"), (slice(50, 150),), np.dtype("i8"), file.paths)
    assert values.tolist() == list(range(50, 150))


def test_a_filter_that_is_not_on_the_list_is_refused(path):
    with h5py.File(path, "w") as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(500, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        h5d.create(file.id, b"data", h5t.STD_I32LE, h5s.create_simple((8,)), dcpl=plist)

    item = told(path)["data"]

    assert "filter 500" in item.problem
    with opened(path) as file, pytest.raises(NotReadable):
        open_dataset(file.h5, "/data")


def test_a_named_type_has_no_values(path):
    with h5py.File(path, "w") as file:
        file["type"] = np.dtype("f8")

    assert "named type" in told(path)["type"].problem


def test_addresses_count_the_user_block(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["contiguous"] = np.arange(5)
        file.create_dataset("data", data=np.arange(8), chunks=(4,))
        file.create_dataset("unwritten", shape=(5,), dtype="i8")

    item = told(path)["contiguous"]
    (offsets, sizes, _), raw = table_and_bytes(path)

    assert np.frombuffer(raw, "<i8", 5, item.layout.offset).tolist() == list(range(5))
    assert np.frombuffer(raw, "<i8", 4, offsets[1]).tolist() == [4, 5, 6, 7]
    assert sizes.tolist() == [32, 32]
    assert told(path)["unwritten"].layout.offset is None


def test_a_fill_value_matters_only_where_something_may_not_be_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("written", data=np.arange(5), fillvalue=7)
        file.create_dataset("unwritten", shape=(5,), dtype="i8", fillvalue=7)
        file.create_dataset("chunked", data=np.arange(5), chunks=(4,), fillvalue=7)

    fills = {name: item.fill for name, item in told(path).items() if name}

    seven = np.int64(7).tobytes()
    assert fills == {"written": None, "unwritten": seven, "chunked": seven}


def test_a_chunk_table_is_in_row_major_order_with_holes(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape=(5, 7), chunks=(2, 3), dtype="u1", compression="gzip")
        data.id.write_direct_chunk((4, 6), b"raw", filter_mask=1)
        data.id.write_direct_chunk((0, 3), b"other")

    (offsets, sizes, masks), raw = table_and_bytes(path)

    assert len(offsets) == 9
    assert np.flatnonzero(offsets >= 0).tolist() == [1, 8]
    assert raw[offsets[8] :][:3] == b"raw"
    assert (sizes[1], sizes[8], masks[1], masks[8]) == (5, 3, 0, 1)


def test_links_are_told_in_the_order_of_their_creation_where_the_file_has_it(path):
    with h5py.File(path, "w") as file:
        ordered = file.create_group("ordered", track_order=True)
        for name in ("z", "a", "m"):
            ordered[name] = 1

    assert list(told(path)) == ["", "ordered", "ordered/z", "ordered/a", "ordered/m"]


# -- names and links -----------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_name_becomes_a_legal_one_and_back(name):
    component = legal(name)

    assert component is not None
    assert is_legal_component(component)
    assert decoded(component) == name
    assert component == name or not is_legal_component(name) or "%" in name


def test_a_name_that_is_too_long_is_left_out_and_that_is_said(path):
    with h5py.File(path, "w") as file:
        file["x" * 300] = 1
        file["a:b"] = 2

    items = told(path)

    assert list(items) == ["", "a%3Ab"]
    assert items["a%3Ab"].hdf5_path == "/a:b"
    assert "too long" in items[""].problem


def test_names_that_are_not_utf8_are_left_out_and_that_is_said(path):
    with h5py.File(path, "w") as file:
        h5d.create(file.id, b"caf\xe9", h5t.STD_I8LE, h5s.create_simple((1,)))

    assert "not UTF-8" in told(path)[""].problem


def test_one_dataset_has_several_names(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3)
        file["g/hard"] = file["a"]
        file["g/soft"] = h5py.SoftLink("/a")
        file["g/relative"] = h5py.SoftLink("hard")

    items = told(path)

    same = {items[name].address for name in ("a", "g/hard", "g/soft", "g/relative")}
    assert len(same) == 1
    assert len({items[name].fingerprint for name in ("a", "g/hard", "g/soft", "g/relative")}) == 1


def test_circles_of_links_end(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("g/h")
        group["root"] = file["/"]
        group["up"] = file["g"]
        file["g/soft"] = h5py.SoftLink("/g")
        file["loop"] = h5py.SoftLink("/loop")
        file["ping"] = h5py.SoftLink("/pong")
        file["pong"] = h5py.SoftLink("/ping")

    items = told(path)

    assert set(items) == {"", "g", "g/h", "g/h/root", "g/h/up", "g/soft", "loop", "ping", "pong"}
    assert "another name" in items["g/h/up"].note
    assert all("circle" in items[name].problem for name in ("loop", "ping", "pong"))


def test_links_that_double_at_every_level_are_not_followed_for_ever(path):
    with h5py.File(path, "w") as file:
        file.create_group("g0")
        for level in range(40):
            group = file.create_group(f"g{level + 1}")
            group["a"] = group["b"] = file[f"g{level}"]
            file[f"s{level + 1}"] = h5py.SoftLink("/".join([f"s{level}", "."] * 2) if level else "/g0")

    items = told(path)

    assert len(items) == 1 + 41 + 80 + 40


def test_groups_deeper_than_a_path_can_be_are_left_out_and_that_is_said(path):
    with h5py.File(path, "w") as file:
        file.create_group("/".join("g" * 70))

    items = told(path)

    assert len(items) == 65
    assert "levels" in items["/".join("g" * 64)].problem


def test_more_names_than_the_limit_are_left_out_and_that_is_said(path, monkeypatch):
    monkeypatch.setattr(inventory, "NODES_MAX", 5)
    with h5py.File(path, "w") as file:
        for number in range(9):
            file[f"d{number}"] = h5py.SoftLink("/nothing")

    items = told(path)

    assert len(items) == 6
    assert "left out" in items[""].problem


def test_a_dangling_link_is_told_with_its_reason(path):
    with h5py.File(path, "w") as file:
        file["gone"] = h5py.SoftLink("/not/here")
        file["through"] = h5py.SoftLink("/data/below")
        file["data"] = 1

    items = told(path)

    assert "nothing is" in items["gone"].problem
    assert "nothing is" in items["through"].problem


# -- ways out of the file --------------------------------------------------------------------------------


def test_an_external_link_is_not_followed(secret, path):
    with h5py.File(path, "w") as file:
        file["plain"] = h5py.ExternalLink("other.h5", "/secret")
        file["absolute"] = h5py.ExternalLink(str(secret / "other.h5"), "/secret")
        file["folder"] = h5py.ExternalLink(str(secret / "other.h5"), "/")
        file["behind"] = h5py.SoftLink("/folder/secret")

    items = told(path)

    assert all("external link" in items[name].problem for name in ("plain", "absolute", "folder", "behind"))
    with opened(path) as file:
        for name in ("/plain", "/folder/secret", "/behind"):
            with pytest.raises(NotReadable, match="external link"):
                open_dataset(file.h5, name)


@pytest.mark.parametrize("user_block", [0, 512])  # HDF5 adds its length even to addresses that are none
def test_raw_external_storage_is_not_read(secret, path, user_block):
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file.create_dataset("data", shape=(64,), dtype="u1", external=[(str(secret / "secret"), 0, 64)])
        file.create_dataset("passwd", shape=(64,), dtype="u1", external=[("/etc/passwd", 0, 64)])

    items = told(path)

    assert "another file" in items["data"].problem
    assert "/etc/passwd" in items["passwd"].problem
    with opened(path) as file, pytest.raises(NotReadable):
        open_dataset(file.h5, "/data")


def virtual(file, name, source, inside):
    layout = h5py.VirtualLayout((8,), "i8")
    layout[:] = h5py.VirtualSource(source, inside, shape=(8,))
    file.create_virtual_dataset(name, layout)


def test_a_virtual_dataset_may_have_sources_in_its_file_only(secret, path):
    with h5py.File(path, "w") as file:
        virtual(file, "other", str(secret / "other.h5"), "secret")
        virtual(file, "relative", "other.h5", "secret")
        virtual(file, "through", ".", "link/secret")
        virtual(file, "stored", ".", "raw")
        virtual(file, "twice", ".", "other")
        virtual(file, "missing", ".", "nothing")
        virtual(file, "itself", ".", "itself")
        file["link"] = h5py.ExternalLink(str(secret / "other.h5"), "/")
        file.create_dataset("raw", shape=(8,), dtype="i8", external=[(str(secret / "secret"), 0, 64)])

    items = told(path)

    offered = [name for name, item in items.items() if item.problem is None and item.kind == "dataset"]
    assert offered == ["missing"]
    assert "external link" in items["through"].problem
    with opened(path) as file:
        for name in ("/other", "/through", "/stored", "/twice"):
            with pytest.raises(NotReadable):
                open_dataset(file.h5, name)


def test_what_is_no_dataset_is_not_opened_as_one(path):
    with h5py.File(path, "w") as file:
        file.create_group("g")

    with opened(path) as file:
        for name in ("/g", "/nothing", "/g/nothing"):
            with pytest.raises(DatasetUnknown):
                open_dataset(file.h5, name)
        with pytest.raises(DatasetUnknown):
            open_path(file.h5, "/g/../g")


# -- the file as a whole ---------------------------------------------------------------------------------


def test_what_is_no_hdf5_file_says_so(path):
    path.write_bytes(b"x" * 5000)

    with pytest.raises(BadContent, match="no HDF5 file"):
        told(path)


def test_a_file_that_another_program_writes_is_busy(path):
    with h5py.File(path, "w", locking=True), pytest.raises(Busy, match="another program"):
        told(path)

    assert list(told(path)) == [""]


def test_a_writer_may_open_a_file_that_is_open_here(path):
    with h5py.File(path, "w") as file:
        file["data"] = 1

    with opened(path):
        program = "import sys, h5py; h5py.File(sys.argv[1], 'r+', locking=True)['data'][...] = 2"
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=60)


def test_a_file_that_is_written_for_readers_is_read(path):
    with h5py.File(path, "w", libver="latest", locking=True) as file:
        file.create_dataset("data", data=np.arange(4), chunks=(2,), maxshape=(None,))
        file.swmr_mode = True
        copy = path.with_name("copy.h5")  # since HDF5 would see that this process has the file open itself
        shutil.copy(path, copy)

    assert told(copy)["data"].shape == (4,)


def test_a_file_whose_writer_died_says_how_to_repair_it(path):
    with h5py.File(path, "w", libver="latest", locking=True) as file:
        file["data"] = 1
        file.flush()
        copy = path.with_name("copy.h5")
        shutil.copy(path, copy)

    with pytest.raises(Busy, match="h5clear"):
        told(copy)


def test_a_file_that_changed_is_opened_again(path):
    files = OpenFiles()
    shapes = []
    for length in (3, 5):
        with h5py.File(path.with_name("new.h5"), "w") as file:
            file["data"] = np.arange(length)
        path.write_bytes(path.with_name("new.h5").read_bytes())  # the same inode
        fd = os.open(path, os.O_RDONLY)
        shapes.append(files.get(fd).h5["data"].shape)
        assert files.get(fd) is files.get(fd)
        os.close(fd)

    assert shapes == [(3,), (5,)]


def test_only_a_few_files_stay_open(tmp_path):
    files = OpenFiles()
    held = []
    for number in range(OPEN_FILES_MAX + 3):
        with h5py.File(tmp_path / f"{number}.h5", "w"):
            pass
        fd = os.open(tmp_path / f"{number}.h5", os.O_RDONLY)
        held.append(files.get(fd))
        os.close(fd)

    assert [bool(file.h5) for file in held] == [False] * 3 + [True] * OPEN_FILES_MAX


# -- fingerprints ----------------------------------------------------------------------------------------


def write(path, **changed):
    given = {"numbers": np.arange(30), "text": ["a", "b"], "unit": "K", "fill": 0, "more": False, **changed}
    with h5py.File(path, "w") as file:
        file.create_dataset("kept", data=np.arange(50), chunks=(10,), compression="gzip").attrs["a"] = "b"
        data = file.create_dataset("data", data=given["numbers"], chunks=(10,), fillvalue=given["fill"])
        data.attrs["unit"] = given["unit"]
        file.create_dataset("text", data=given["text"], dtype=h5py.string_dtype())
        if given["more"]:
            file["more"] = 1


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"numbers": np.arange(31)}, "data"),
        ({"numbers": np.arange(30, dtype="u8")}, "data"),
        ({"fill": 1}, "data"),
        ({"text": ["a", "c"]}, "text"),
    ],
)
def test_a_fingerprint_changes_with_its_dataset_alone(path, changed, what):
    write(path)
    before = told(path)
    write(path, **changed)
    after = told(path)

    different = {name for name in after if before[name].fingerprint != after[name].fingerprint}
    assert what in different
    assert "kept" not in different


def test_places_tell_what_was_written_and_fingerprints_do_not(path):
    write(path)
    before = told(path)
    with h5py.File(path, "r+") as file:
        file["more"] = np.arange(1000)
        file["kept"][20:30] = np.arange(10) * 123456789123

    after = told(path)

    assert {name for name in before if before[name].fingerprint != after[name].fingerprint} == set()
    assert {name for name in before if before[name].places != after[name].places} == {"kept"}


def test_values_that_a_fingerprint_has_are_said_to_be_in_it(path):
    write(path)

    assert {name for name, item in told(path).items() if item.by_value} == {"text"}


def test_compact_values_are_part_of_the_fingerprint(path):
    prints = []
    for value in (1, 2):
        with h5py.File(path, "w") as file:
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_layout(h5d.COMPACT)
            data = h5d.create(file.id, b"data", h5t.STD_I32LE, h5s.create_simple((1,)), dcpl=plist)
            data.write(h5s.ALL, h5s.ALL, np.array([value], "i4"))
        prints.append(told(path)["data"].fingerprint)

    assert prints[0] != prints[1]


# -- pages -----------------------------------------------------------------------------------------------


def test_pages_tell_each_item_once_and_pass_the_door(path, monkeypatch):
    monkeypatch.setattr(operations, "_PAGE_BYTES", 1000)
    with h5py.File(path, "w") as file:
        for number in range(40):
            file.create_dataset(f"g{number % 3}/d{number}", data=np.arange(4), chunks=(2,), compression="gzip")
    whole = list(told(path).values())
    items, start = [], 0

    with opened(path) as file:
        while start is not None:
            if start > 10:
                file.kept.clear()  # another worker is asked for this page
            answer = operations.inventory(file, {"start": start})
            items += [from_plain(Item, one) for one in unpack(answer.bodies[0])]
            start = answer.fields.get("next")

    assert items == whole


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "../up"},
        {"kind": "door"},
        {"dtype": "|O8"},
        {"shape": None},
        {"shape": (2, 2)},
        {"fill": b"123"},
        {"inner_axes": 5},
        {"layout": None},
        {"layout": Layout("chunked", (0,))},
        {"layout": Layout("elsewhere")},
    ],
)
def test_an_item_whose_parts_do_not_agree_is_refused(changed):
    sound = Item("a", "/a", "dataset", 1, (4,), "<i4", Layout("chunked", (2,)), fill=b"1234")
    assert from_plain(Item, to_plain(sound)) == sound

    with pytest.raises(BadMessage):
        from_plain(Item, to_plain(dataclasses.replace(sound, **changed)))
