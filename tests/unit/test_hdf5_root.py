import contextlib
import os
import random
import threading
from pathlib import Path

import blosc2
import h5py
import hdf5plugin
import numpy as np
import pytest
from hdf5_files import wave, write
from network import eventually

from zcat.errors import Busy, DatasetUnknown, NotReadable, Stale, ZcatError
from zcat.limits import GIB, MIB
from zcat.model.dataset import Kind
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.directory_root import DirectoryRoot, DirectoryTimes
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5 import served
from zcat.storage.hdf5.asking import read_inventory
from zcat.storage.hdf5.dataset import Hdf5Dataset
from zcat.storage.hdf5.hdf5_file import Tools
from zcat.storage.hdf5.hdf5_files import Hdf5Files
from zcat.storage.hdf5.hdf5_root import Hdf5Root
from zcat.storage.hdf5.sandbox import Sandbox, SandboxLimits
from zcat.storage.hdf5.served import Served

OWNER = "ab" * 16
PLENTY = DiskLimits(quota_bytes=256 * MIB, reserve_share=0, reserve_bytes=0)
QUICK = DirectoryTimes(settle_s=0.0)
BLOSC2 = hdf5plugin.Blosc2(cname="zstd", clevel=3)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(2) as opened:
        yield opened


class Opened:
    """A root, and the catalogue that a publisher would have of it."""

    def __init__(self, path, state, sandbox):
        self.state = state
        kept = ByteFrames(state / "converted", PLENTY, "sst", OWNER)
        files = Hdf5Files(Tools(OWNER, _Lent(sandbox), kept, Digests()), state / "hdf5")
        kind = DirectoryRoot if path.is_dir() else Hdf5Root
        self.kept, self.files = kept, files
        self.root = kind(path, OWNER, kept, QUICK, files)
        self.known = {}

    def look(self, paths=None):
        looked = self.root.look(paths, self.known)
        for change in looked.changes:
            if change.entry is None:
                del self.known[change.path]
            else:
                self.known[change.path] = change.entry
        return {change.path for change in looked.changes}, looked.unsettled

    def read(self, path):
        info = self.root.info(path)
        chunks = [self.root.chunk(path, info.entry.lineage, n).data for n in range(info.geometry.nchunks)]
        header, tail = assemble_cframe(frame_template(info.geometry, info.compression), list(map(len, chunks)))
        cframe = b"".join([header, *chunks, tail])
        if info.geometry.array is None:
            return blosc2.schunk_from_cframe(cframe, copy=True)[:]
        return blosc2.ndarray_from_cframe(cframe, copy=True)[...]

    def __enter__(self):
        self.look()
        return self

    def __exit__(self, *_):
        self.root.close()


class _Lent:
    """A sandbox that its borrower does not close."""

    def __init__(self, sandbox):
        self.call = sandbox.call

    def close(self):
        pass


@pytest.fixture
def opened(tmp_path, sandbox):
    roots = []

    def open_it(path=None, state=None):
        state = state or tmp_path / f"state{len(roots)}"
        roots.append(Opened(path or tmp_path / "root", state, sandbox).__enter__())
        return roots[-1]

    (tmp_path / "root").mkdir()
    yield open_it
    for one in roots:
        one.root.close()


def all_kinds(path):
    """Write a file with one dataset of each kind."""
    color = h5py.enum_dtype({"RED": 0, "GREEN": 1}, "i1")
    struct = np.dtype([("a", "<i4"), ("b", [("c", ">f4", (2,)), ("d", "S5")])])
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["title"] = "all kinds"
        group = file.create_group("entry/data")
        group.attrs["NX_class"] = "NXdata"
        group["floats"] = wave((50, 60))
        group["floats"].attrs["unit"] = "K"
        for name, dtype in {"half": "f2", "complex": "c16", "bool": "?", "big": ">i8", "date": "S19"}.items():
            group[name] = wave((30, 4), "i4").astype(dtype)
        group["enum"] = np.arange(20, dtype="i1") % 2
        group.create_dataset("color", data=np.arange(20) % 2, dtype=color)
        group.create_dataset("text", data=["a", "längere", ""], dtype=h5py.string_dtype())
        group.create_dataset("vectors", data=np.zeros(7, struct))
        group["scalar"] = 4.5
        group["none"] = h5py.Empty("f4")
        group["empty"] = np.zeros((0, 3))
        group.create_dataset("array", data=np.arange(60).reshape(10, 2, 3), dtype=np.dtype(("<i4", ())))
        group.create_dataset("lzf", data=wave((100, 90)), chunks=(40, 50), compression="lzf", fletcher32=True)
        group.create_dataset("gzip", data=wave((100, 90)), chunks=(40, 50), compression="gzip", shuffle=True)
        group.create_dataset("scaled", data=wave((100,), "i4"), chunks=(30,), scaleoffset=0)
        group.create_dataset("blosc2", data=wave((100, 90)), chunks=(40, 50), **BLOSC2)
        group.create_dataset("bitshuffle", data=wave((100, 90)), chunks=(40, 50), **hdf5plugin.Bitshuffle())
        sparse = group.create_dataset("sparse", (1000, 1000), "i2", chunks=(200, 300), fillvalue=-7, **BLOSC2)
        sparse[10:220, 5] = 3
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(group.id, b"compact", h5py.h5t.STD_I16LE, space, compact).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="i2")
        )
        group.create_dataset("reference", data=group.ref, dtype=h5py.ref_dtype)
        group["hard"] = group["floats"]
        group["soft"] = h5py.SoftLink("/entry/data/gzip")
        group["away"] = h5py.ExternalLink("/etc/passwd", "/")
        group.create_dataset("deep", data=np.zeros((1,) * 9))
    return path


NOT_OFFERED = {"none", "away", "deep"}


def test_a_root_of_one_file_is_looked_into_whatever_its_name(tmp_path, opened):
    write(tmp_path / "table.biom", values=wave((7, 5)))

    one = opened(tmp_path / "table.biom")

    assert set(one.known) == {"table.biom", "values"}
    np.testing.assert_array_equal(one.read("values"), wave((7, 5)))


def test_values_of_each_kind_are_those_of_h5py(tmp_path, opened):
    path = all_kinds(tmp_path / "root" / "all.h5")
    root = opened()

    with h5py.File(path) as file:
        for name, dataset in _items(file["entry/data"]):
            address = f"all.h5/entry/data/{name}"
            entry = root.known[address]
            assert entry.problem is None, (name, entry.problem)
            values, wanted = root.read(address), dataset[...]
            if h5py.check_ref_dtype(dataset.dtype):
                wanted = np.array(file[dataset[()]].name, "S")
            elif dataset.dtype.hasobject:
                wanted = wanted.astype("S")
            assert entry.shape == values.shape == wanted.shape, name
            assert values.tobytes() == wanted.tobytes(), name
            assert np.dtype(values.dtype) == wanted.dtype or wanted.dtype.metadata, name
    for name in NOT_OFFERED:
        entry = root.known[f"all.h5/entry/data/{name}"]
        assert entry.problem
        with pytest.raises(NotReadable):
            root.root.info(entry.path)


def _items(group):
    return [(name, group[name]) for name in group if name not in NOT_OFFERED]


def test_groups_are_entries_and_have_attributes(tmp_path, opened):
    all_kinds(tmp_path / "root" / "all.h5")
    root = opened()

    entry = root.known["all.h5/entry/data"]
    info = root.root.info("all.h5/entry/data")

    assert entry.kind is Kind.GROUP
    assert info.attributes == {"NX_class": "NXdata"}
    assert info.geometry.nchunks == 0
    assert root.root.info("all.h5/entry/data/floats").attributes == {"unit": "K"}


def test_the_file_itself_is_offered_besides_with_the_attributes_of_its_root(tmp_path, opened):
    path = all_kinds(tmp_path / "root" / "all.h5")
    root = opened()

    assert root.known["all.h5"].kind is Kind.FILE
    assert root.read("all.h5") == path.read_bytes()
    assert root.root.info("all.h5").attributes == {"title": "all kinds"}


def test_files_that_only_sound_like_hdf5_are_files(tmp_path, opened):
    (tmp_path / "root" / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 10)
    (tmp_path / "root" / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))

    root = opened()

    assert set(root.known) == {"old.mat", "broken.h5"}
    assert root.read("broken.h5")[:4] == b"\x89HDF"


def test_a_root_may_be_one_file(tmp_path, opened):
    path = all_kinds(tmp_path / "all.h5")
    root = opened(path)

    assert root.known["entry"].kind is Kind.GROUP
    assert root.known["all.h5"].kind is Kind.FILE
    np.testing.assert_array_equal(root.read("entry/data/gzip"), wave((100, 90)))
    path.unlink()
    root.look()
    assert root.known == {}


def change(path):
    """Change one dataset in place, and add another one."""
    with h5py.File(path, "r+") as file:
        file["changed"][3] = -1
        file["packed_changed"][50] = -1
        file["new"] = wave((10,))


@pytest.mark.parametrize("was_read", [True, False])
def test_what_did_not_change_keeps_its_lineage_when_its_file_does(tmp_path, opened, was_read):
    path = tmp_path / "root" / "f.h5"
    packed = {"data": wave((100,), "i8"), "chunks": (30,), "compression": "gzip"}
    direct = {"data": wave((64, 64)), "chunks": (32, 32), **BLOSC2}
    write(path, same=wave((10,)), changed=wave((10,)), packed=packed, packed_changed=packed, direct=direct)
    root = opened()
    before = dict(root.known)
    if was_read:
        for name in ("same", "changed", "packed", "packed_changed", "direct"):
            root.read(f"f.h5/{name}")

    change(path)
    changed, _ = root.look()

    told = {"f.h5", "f.h5/new", "f.h5/packed_changed", "f.h5/changed"}
    assert changed == told if was_read else changed <= told
    for name in ("same", "changed", "packed", "packed_changed", "direct", "new"):
        with h5py.File(path) as file:
            np.testing.assert_array_equal(root.read(f"f.h5/{name}"), file[name][...])
    if was_read:
        with pytest.raises(Stale):
            root.root.chunk("f.h5/changed", before["f.h5/changed"].lineage, 0)


def test_a_replaced_file_keeps_the_lineages_of_what_is_the_same(tmp_path, opened):
    path = tmp_path / "root" / "f.h5"
    write(path, same=wave((10,)), other=wave((10,)))
    root = opened()
    root.read("f.h5/same"), root.read("f.h5/other")
    before = dict(root.known)

    write(tmp_path / "next.h5", same=wave((10,)), other=wave((10,)) + 1)
    os.replace(tmp_path / "next.h5", path)
    root.look()

    assert root.known["f.h5/same"] == before["f.h5/same"]
    assert root.known["f.h5/other"].lineage != before["f.h5/other"].lineage
    np.testing.assert_array_equal(root.read("f.h5/other"), wave((10,)) + 1)


VARIETY = {
    "plain": wave((40, 30)),
    "packed": {"data": wave((100, 90)), "chunks": (30, 40), "compression": "gzip", "shuffle": True},
    "checked": {"data": wave((50, 50)), "chunks": (20, 20), "fletcher32": True},
    "direct": {"data": wave((64, 64)), "chunks": (32, 32), **BLOSC2},
    "texts": {"data": ["a", "bc", ""] * 9, "dtype": h5py.string_dtype()},
    "filled": {"shape": (80,), "chunks": (30,), "dtype": "i4", "fillvalue": 7},
}


def write_again(path, before, **changed):
    """Write a file anew, as a whole and with everything at another place, and put it where the old one is."""
    fresh = path.with_suffix(".new")
    with h5py.File(fresh, "w") as file:
        file["in_front"] = wave((before,))
        group = file.create_group("group")
        group.attrs["title"] = changed.pop("title", "t")
        for name, given in (VARIETY | changed).items():
            options = given if isinstance(given, dict) else {"data": given}
            file.create_dataset(name, **options).attrs["unit"] = changed.get("unit", "K")
    os.replace(fresh, path)


def other(name):
    """Give a dataset of `VARIETY` with another value at its end."""
    if name == "texts":
        return {**VARIETY[name], "data": ["a", "bc", ""] * 8 + ["a", "bc", "x"]}
    values = (VARIETY[name]["data"] if isinstance(VARIETY[name], dict) else VARIETY[name]).copy()
    values.reshape(-1)[-1] += 1
    return {**VARIETY[name], "data": values} if isinstance(VARIETY[name], dict) else values


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("name", ["plain", "packed", "checked", "direct", "texts", None])
def test_of_a_file_that_was_written_anew_only_what_changed_is_renewed(tmp_path, opened, name, is_restarted):
    path = tmp_path / "root" / "f.h5"
    write_again(path, 10)
    root = opened()
    before = {one: root.known[f"f.h5/{one}"] for one in (*VARIETY, "group")}
    for one in before:
        root.read(f"f.h5/{one}") if one != "group" else root.root.info(f"f.h5/{one}")
    if is_restarted:
        root.root.close()

    write_again(path, 1000, **({name: other(name)} if name else {}))
    root = opened(state=root.state) if is_restarted else root
    root.look()

    assert {one for one in before if root.known[f"f.h5/{one}"].lineage != before[one].lineage} == {name} - {None}
    with h5py.File(path) as file:
        for one in VARIETY:
            wanted = file[one][...]
            assert (
                root.read(f"f.h5/{one}").tobytes() == np.asarray(wanted, root.known[f"f.h5/{one}"].dtype).tobytes()
            )


def test_attributes_that_were_told_renew_what_they_belong_to_when_they_change(tmp_path, opened):
    path = tmp_path / "root" / "f.h5"
    write_again(path, 10)
    root = opened()
    before = dict(root.known)
    root.read("f.h5/packed"), root.root.info("f.h5/group")

    write_again(path, 10, unit="C", title="other")
    root.look()

    assert root.known["f.h5/packed"].lineage != before["f.h5/packed"].lineage
    assert root.known["f.h5/group"].lineage != before["f.h5/group"].lineage
    assert root.root.info("f.h5/packed").attributes == {"unit": "C"}


def _cut_the_end(kept):
    os.truncate(kept, kept.stat().st_size - 1)


def _of_another_boot(kept):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()
    kept.write_bytes(kept.read_bytes().replace(boot, boot[::-1]))


@pytest.mark.parametrize("spoil", [_cut_the_end, _of_another_boot, os.unlink])
def test_what_was_given_out_is_renewed_when_it_is_not_known_for_sure(tmp_path, opened, spoil):
    path = tmp_path / "root" / "f.h5"
    write_again(path, 10)
    root = opened()
    before = dict(root.known)
    root.read("f.h5/packed"), root.read("f.h5/plain")
    root.root.close()

    spoil(next((root.state / "hdf5").iterdir()))
    write_again(path, 10)
    root = opened(state=root.state)

    assert not {entry.lineage for entry in before.values()} & {entry.lineage for entry in root.known.values()}


def test_a_disk_that_refuses_witnesses_leaves_none_that_could_be_believed(tmp_path, opened, monkeypatch):
    write_again(tmp_path / "root" / "f.h5", 10)
    root = opened()
    monkeypatch.setattr(served, "record", lambda *one: b"")
    monkeypatch.setattr(served.os, "write", lambda fd, data: -1)

    root.read("f.h5/packed")

    assert list((root.state / "hdf5").iterdir()) == []
    monkeypatch.undo()
    root.read("f.h5/plain")


def test_more_witnesses_than_are_remembered_renew_the_dataset(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(served, "WITNESSES_MAX", 3)
    path = tmp_path / "root" / "f.h5"
    write_again(path, 10)
    root = opened()
    before = dict(root.known)
    root.read("f.h5/direct"), root.read("f.h5/plain")

    write_again(path, 1000)
    root.look()

    assert root.known["f.h5/direct"].lineage != before["f.h5/direct"].lineage
    assert root.known["f.h5/plain"].lineage == before["f.h5/plain"].lineage


def test_what_was_read_in_the_background_is_compared_though_nobody_else_read_it(tmp_path, opened):
    path = tmp_path / "root" / "f.h5"
    write_again(path, 10)
    root = opened()
    before = dict(root.known)
    file = root.files.file("f.h5")

    root.files.begin_witnessing()
    eventually(lambda: all(served.WHOLE in file.served.of(one) for one in (*VARIETY, "group")))
    write_again(path, 1000, plain=other("plain"), direct=other("direct"), title="other")
    root.look()

    changed = {
        one for one in (*VARIETY, "group") if root.known[f"f.h5/{one}"].lineage != before[f"f.h5/{one}"].lineage
    }
    assert changed == {"plain", "direct", "group"}


@pytest.mark.parametrize("name", [*VARIETY, "unwritten", "small"])
def test_what_a_conversion_says_that_it_was_made_of_is_what_is_compared_later(tmp_path, sandbox, name):
    path = tmp_path / "f.h5"
    write_again(path, 10)
    with h5py.File(path, "r+") as file:
        file.create_dataset("unwritten", (40, 30), "<f4", chunks=(20, 30), compression="gzip", fillvalue=2.5)
        file.create_dataset("small", data=wave((40, 30)), chunks=(7, 7), compression="gzip")
    with open(path, "rb") as file:
        item = next(one for one in read_inventory(sandbox, file.fileno()) if one.path == name)
        dataset = Hdf5Dataset(sandbox, file.fileno(), item)
        unit = dataset.unit(0)

        made, witness = dataset.convert(unit)

        assert len(made) == len(unit.numbers)
        if not dataset.cut.is_direct:  # whose chunks are not converted
            assert witness == dataset.witness(unit)


def test_a_unit_that_was_read_with_two_contents_renews_its_dataset():
    given = Served()
    given.note("d", 0, b"a")
    given.note("d", 0, b"b")

    assert served.TOO_MANY in given.of("d")


def test_nothing_new_is_given_out_while_it_is_compared():
    given = Served()
    given.note("d", 0, b"a")
    given.seal()

    given.note("d", 0, b"a")
    with pytest.raises(Stale):
        given.note("d", 1, b"b")
    given.seal(False)
    given.note("d", 1, b"b")

    assert given.of("d") == {0: b"a", 1: b"b"}


def test_a_file_that_changed_under_a_read_is_stale_or_busy(tmp_path, opened):
    path = write(tmp_path / "root" / "f.h5", d=wave((10,)), e=wave((10,)))
    root = opened()
    lineage = root.root.info("f.h5/d").entry.lineage

    with h5py.File(path, "r+") as file:
        file["d"][0] = 9

    with pytest.raises(Stale):
        root.root.chunk("f.h5/d", lineage, 0)
    with pytest.raises(Busy):
        root.root.info("f.h5/e")


def test_a_file_that_is_being_written_offers_what_it_did(tmp_path, opened):
    packed = {"data": wave((100,)), "chunks": (50,), "compression": "gzip"}
    path = write(tmp_path / "root" / "f.h5", d=packed)
    root = opened()
    lineage = root.root.info("f.h5/d").entry.lineage
    chunk = root.root.chunk("f.h5/d", lineage, 0)

    with h5py.File(path, "r+") as file:
        file["d"][...] = 0
        file.flush()
        changed, unsettled = root.look()
        assert unsettled == {"f.h5"}
        assert "f.h5/d" in root.known
        assert "f.h5/d" not in changed
        assert root.root.chunk("f.h5/d", lineage, 0) == chunk  # it was kept
    eventually(lambda: not root.look()[1])
    np.testing.assert_array_equal(root.read("f.h5/d"), np.zeros(100))


def test_files_and_what_is_in_them_come_and_go(tmp_path, opened):
    root = opened()
    path = write(tmp_path / "root" / "f.h5", d=wave((10,)), **{"g/e": wave((3,))})
    assert root.look({"f.h5"})[0] == {"f.h5", "f.h5/d", "f.h5/g", "f.h5/g/e"}
    assert root.look()[0] == set()
    with h5py.File(path, "r+") as file:
        del file["g"]
    assert {"f.h5/g", "f.h5/g/e"} <= root.look({"f.h5/g"})[0]
    assert set(root.known) == {"f.h5", "f.h5/d"}
    path.unlink()
    root.look({"f.h5"})
    assert root.known == {}
    with pytest.raises(DatasetUnknown):
        root.root.info("f.h5/d")


def test_a_restart_converts_nothing_again_and_asks_no_worker(tmp_path, sandbox):
    (tmp_path / "root").mkdir()
    write(tmp_path / "root" / "f.h5", d={"data": wave((1000,)), "chunks": (500,), "compression": "lzf"})
    with Opened(tmp_path / "root", tmp_path / "state", sandbox) as root:
        root.read("f.h5/d")
        before = dict(root.known)

    with Sandbox(1) as unused, Opened(tmp_path / "root", tmp_path / "state", unused) as root:
        assert root.known == before
        assert unused.started == 0
        np.testing.assert_array_equal(root.read("f.h5/d"), wave((1000,)))


def test_readers_at_the_same_time_have_one_conversion(tmp_path, opened, sandbox):
    data = wave((400_000,), "f8")
    write(tmp_path / "root" / "f.h5", d={"data": data, "chunks": (400_000,), "compression": "lzf"})
    root = opened()
    info = root.root.info("f.h5/d")
    asked = []
    call = sandbox.call

    def counted(op, fields, fd, wait_s=None):
        asked.append(op)
        return call(op, fields, fd, wait_s)

    root.root._hdf5._tools.sandbox.call = counted
    got = []
    readers = [
        threading.Thread(target=lambda: got.append(root.root.chunk("f.h5/d", info.entry.lineage, 0)))
        for _ in range(6)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert asked == ["chunk"]
    assert len(got) == 6
    assert len({chunk.digest for chunk in got}) == 1


def damaged(raw, chance):
    """Change some bytes, mostly where HDF5 keeps its own: at the beginning, and behind what marks a header."""
    changed = bytearray(raw)
    marks = [at for mark in (b"OHDR", b"SNOD", b"TREE", b"HEAP", b"GCOL", b"FRHP") for at in _found(raw, mark)]
    for _ in range(chance.choice([1, 3, 20])):
        at = (chance.choice(marks) if marks and chance.random() < 0.8 else 0) + chance.randrange(200)
        changed[at % len(raw)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    return bytes(changed)


def _found(raw, mark):
    at = raw.find(mark)
    while at >= 0:
        yield at
        at = raw.find(mark, at + 1)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_files_leave_the_rest_of_the_root_readable(tmp_path, libver):
    chance = random.Random(libver)
    folder = tmp_path / "root"
    folder.mkdir()
    all_kinds(folder / "good.h5")
    with h5py.File(tmp_path / "small.h5", "w", libver=libver) as file:
        for name, given in VARIETY.items():
            options = given if isinstance(given, dict) else {"data": given}
            file.create_dataset(f"entry/{name}", **options).attrs["unit"] = "K"
    raw = (tmp_path / "small.h5").read_bytes()
    for number in range(20):
        (folder / f"bad{number}.h5").write_bytes(damaged(raw, chance))

    limits = SandboxLimits(memory_bytes=GIB, cpu_s=1, wall_s=20)
    with Sandbox(1, limits, readable=folder) as sandbox, Opened(folder, tmp_path / "state", sandbox) as root:
        for path, entry in sorted(root.known.items()):
            if entry.problem is None and entry.kind is Kind.ARRAY:
                with contextlib.suppress(ZcatError, ValueError):
                    root.read(path)

        assert "good.h5/entry/data/gzip" in root.known
        np.testing.assert_array_equal(root.read("good.h5/entry/data/lzf"), wave((100, 90)))


def test_damage_in_one_dataset_leaves_the_others_readable(tmp_path, opened):
    packed = {"data": np.random.default_rng(0).random(1000), "chunks": (500,), "compression": "gzip"}
    path = write(tmp_path / "root" / "f.h5", bad=packed, good=packed)
    with h5py.File(path) as file:
        chunk = file["bad"].id.get_chunk_info(1)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + 50)
        file.write(os.urandom(chunk.size - 50))
    root = opened()

    with pytest.raises(ZcatError):
        root.read("f.h5/bad")
    np.testing.assert_array_equal(root.read("f.h5/good"), packed["data"])
