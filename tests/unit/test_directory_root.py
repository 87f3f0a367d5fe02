import os
import threading
import time
from pathlib import Path

import blosc2
import numpy as np
import pytest

from zcat.errors import BadConfig, BadSelection, Busy, DatasetUnknown, NotReadable, Stale, ZcatError
from zcat.limits import MIB
from zcat.model.dataset import Kind
from zcat.storage.block_layout import check_part, spans_of
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.chunk_gate import check_chunk, digest
from zcat.storage.directory_root import DirectoryRoot, DirectoryTimes
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.watch import WatchTimes

OWNER = "ab" * 16
LIMITS = DiskLimits(quota_bytes=64 * MIB, reserve_share=0, reserve_bytes=0)
LONG_AGO_NS = 1_700_000_000_000_000_000


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def root(folder, tmp_path):
    opened = DirectoryRoot(folder, OWNER, ByteFrames(tmp_path / "state", LIMITS, "sst", OWNER))
    yield opened
    opened.close()


def write_array(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = blosc2.asarray(np.asarray(values), urlpath=str(path), mode="w", **options)
    del made
    return settle(path)


def settle(path, at_ns=LONG_AGO_NS):
    """Make a file look as if it had been written long ago."""
    for one in [*(path.iterdir() if path.is_dir() else ()), path]:
        os.utime(one, ns=(at_ns, at_ns))
    return path


def entries(root):
    return {change.path: change.entry for change in root.look(None, {}).changes}


def decoded(root, path):
    info = root.info(path)
    chunks = [root.chunk(path, info.entry.lineage, n) for n in range(info.geometry.nchunks)]
    for n, chunk in enumerate(chunks):
        check_chunk(chunk.data, info.geometry, n)
        assert chunk.digest == digest(chunk.data)
    return b"".join(blosc2.decompress2(chunk.data) for chunk in chunks)


def test_each_kind_is_listed_and_readable(root, folder):
    values = np.arange(6000, dtype="<f4").reshape(60, 100)
    write_array(folder / "deep" / "a.b2nd", values, chunks=(10, 100), blocks=(5, 100))
    write_array(folder / "sparse.b2nd", values, chunks=(60, 100), blocks=(5, 100), contiguous=False)
    frame = blosc2.SChunk(chunksize=4000, data=values.tobytes(), urlpath=str(folder / "b.b2frame"), mode="w")
    del frame
    settle(folder / "b.b2frame")
    (folder / "notes.txt").write_bytes(b"hello " * 1000)
    settle(folder / "notes.txt")

    listed = entries(root)

    assert {path: entry.kind for path, entry in listed.items()} == {
        "deep/a.b2nd": Kind.ARRAY,
        "sparse.b2nd": Kind.ARRAY,
        "b.b2frame": Kind.FRAME,
        "notes.txt": Kind.FILE,
    }
    assert all(entry.problem is None for entry in listed.values())
    assert (listed["deep/a.b2nd"].shape, listed["deep/a.b2nd"].dtype) == ((60, 100), "<f4")
    assert listed["deep/a.b2nd"].nbytes == values.nbytes
    assert decoded(root, "deep/a.b2nd") == values.tobytes()
    assert decoded(root, "sparse.b2nd") == values.tobytes()
    assert decoded(root, "b.b2frame") == values.tobytes()
    assert decoded(root, "notes.txt") == b"hello " * 1000
    assert all(root.info(path).entry == entry for path, entry in listed.items())


def test_special_chunks_leave_as_repeated_values(root, folder):
    made = blosc2.zeros((1000, 100), dtype="<f8", chunks=(100, 100), urlpath=str(folder / "z.b2nd"), mode="w")
    del made
    settle(folder / "z.b2nd")

    assert decoded(root, "z.b2nd") == bytes(800_000)
    assert len(root.chunk("z.b2nd", root.info("z.b2nd").entry.lineage, 3).data) == 40


def test_an_empty_file_has_no_chunks(root, folder):
    (folder / "empty").touch()
    settle(folder / "empty")

    assert root.info("empty").geometry.nchunks == 0
    with pytest.raises(BadSelection):
        root.chunk("empty", root.info("empty").entry.lineage, 0)


def test_attributes_come_with_the_info(root, folder):
    array = blosc2.asarray(np.arange(5), urlpath=str(folder / "a.b2nd"), mode="w")
    array.schunk.vlmeta["units"] = "K"
    del array
    settle(folder / "a.b2nd")

    assert root.info("a.b2nd").attributes == {"units": "K"}


def test_a_look_says_only_what_differs(root, folder):
    write_array(folder / "a.b2nd", np.arange(10))
    write_array(folder / "b.b2nd", np.arange(10))
    known = entries(root)

    write_array(folder / "a.b2nd", np.arange(20))
    (folder / "b.b2nd").unlink()
    write_array(folder / "c" / "c.b2nd", np.arange(30))

    for paths in (None, {"a.b2nd", "b.b2nd", "c/c.b2nd"}):
        looked = root.look(paths, known)
        assert {change.path: change.entry and change.entry.shape for change in looked.changes} == {
            "a.b2nd": (20,),
            "b.b2nd": None,
            "c/c.b2nd": (30,),
        }
        assert looked.unsettled == set()


def test_a_folder_that_is_gone_takes_what_was_in_it(root, folder):
    write_array(folder / "run" / "a.b2nd", np.arange(10))
    write_array(folder / "run" / "b.b2nd", np.arange(10))
    write_array(folder / "running.b2nd", np.arange(10))
    known = entries(root)
    (folder / "run").rename(folder.parent / "elsewhere")

    looked = root.look({"run"}, known)

    assert sorted(change.path for change in looked.changes) == ["run/a.b2nd", "run/b.b2nd"]
    assert {change.entry for change in looked.changes} == {None}


def test_a_folder_that_is_new_is_looked_through(root, folder):
    write_array(folder / "run.b2nd" / "a.b2nd", np.arange(10))  # an ordinary folder that is called so

    assert [change.path for change in root.look({"run.b2nd"}, {}).changes] == ["run.b2nd/a.b2nd"]


def test_a_change_inside_a_sparse_frame_is_a_change_of_the_frame(root, folder):
    path = write_array(folder / "s.b2nd", np.arange(1000), contiguous=False)
    known = entries(root)
    settle(path / "chunks.b2frame", LONG_AGO_NS + 1)

    looked = root.look({"s.b2nd/00000000.chunk"}, known)

    assert [change.path for change in looked.changes] == ["s.b2nd"]
    assert looked.changes[0].entry.lineage != known["s.b2nd"].lineage


def test_a_chunk_that_is_rewritten_before_the_index_says_so_is_not_given_out(root, folder):
    path = write_array(folder / "s.b2nd", np.arange(1000), contiguous=False)
    lineage = root.info("s.b2nd").entry.lineage
    assert root.chunk("s.b2nd", lineage, 0).data
    chunk = path / "00000000.chunk"

    settle(chunk, time.time_ns() + 1_000_000_000)

    with pytest.raises(Busy, match="rewritten"):
        root.chunk("s.b2nd", lineage, 0)


def test_a_file_that_is_being_written_is_not_announced(folder, tmp_path):
    kept = ByteFrames(tmp_path / "state", LIMITS, "sst", OWNER)
    root = DirectoryRoot(folder, OWNER, kept, DirectoryTimes(settle_s=3600))
    (folder / "new.txt").write_text("half a sen")
    write_array(folder / "old.b2nd", np.arange(10))
    old = entries(root)
    write_array(folder / "old.b2nd", np.arange(20))
    os.utime(folder / "old.b2nd")

    looked = root.look(None, old)

    assert looked.changes == []
    assert looked.unsettled == {"new.txt", "old.b2nd"}
    with pytest.raises(Busy, match="being written"):
        root.info("new.txt")
    with pytest.raises(Stale):
        root.chunk("old.b2nd", old["old.b2nd"].lineage, 0)
    root.close()


def test_damaged_files_are_listed_with_the_reason_and_never_stop_the_rest(root, folder):
    good = write_array(folder / "good.b2nd", np.arange(100_000))
    whole = good.read_bytes()
    (folder / "cut.b2nd").write_bytes(whole[: len(whole) // 2])
    (folder / "text.b2nd").write_text("not a frame")
    (folder / "empty.b2frame").touch()
    (folder / "object.b2nd").write_bytes(whole.replace(b"<i8", b"|O8"))
    (folder / "hollow.b2nd").mkdir()
    (folder / "hollow.b2nd" / "chunks.b2frame").write_bytes(whole[:60])
    for path in folder.iterdir():
        settle(path)

    listed = entries(root)

    assert {path for path, entry in listed.items() if entry.problem} == {
        "cut.b2nd",
        "text.b2nd",
        "empty.b2frame",
        "object.b2nd",
        "hollow.b2nd",
    }
    assert "cut after" in listed["cut.b2nd"].problem
    for path, entry in listed.items():
        if entry.problem:
            with pytest.raises(ZcatError):
                root.info(path)
            with pytest.raises(ZcatError):
                root.chunk(path, entry.lineage, 0)
    assert decoded(root, "good.b2nd") == np.arange(100_000).tobytes()


def test_a_chunk_that_is_too_large_is_a_problem(root, folder):
    made = blosc2.zeros((9_000_000,), dtype="<f8", chunks=(9_000_000,), urlpath=str(folder / "l.b2nd"), mode="w")
    del made
    settle(folder / "l.b2nd")

    assert "limit" in entries(root)["l.b2nd"].problem


def test_a_frame_that_is_no_array_is_not_offered_as_one(root, folder):
    made = blosc2.SChunk(data=bytes(1000), urlpath=str(folder / "f.b2nd"), mode="w")
    del made
    settle(folder / "f.b2nd")

    assert ".b2frame" in entries(root)["f.b2nd"].problem


def test_nothing_outside_of_the_folder_is_listed_or_read(root, folder, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    settle(secret)
    (folder / "out.txt").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.txt")
    (folder / ".hidden").touch()

    assert entries(root) == {}
    for path in ("out.txt", "up/secret.txt", "../secret.txt", "pipe.txt", ".hidden", "nothing"):
        with pytest.raises(ZcatError):
            root.info(path)
    assert root.look({"out.txt", "up", "pipe.txt", ".hidden", "../secret.txt"}, {}).changes == []


def test_a_missing_folder_is_a_mistake_in_the_configuration(tmp_path):
    kept = ByteFrames(tmp_path / "state", LIMITS, "sst", OWNER)

    with pytest.raises(BadConfig):
        DirectoryRoot(tmp_path / "nowhere", OWNER, kept)
    kept.close()


def test_a_chunk_of_another_lineage_is_stale(root, folder):
    path = write_array(folder / "a.b2nd", np.arange(10))
    lineage = root.info("a.b2nd").entry.lineage
    settle(path, LONG_AGO_NS + 1)

    with pytest.raises(Stale):
        root.chunk("a.b2nd", lineage, 0)
    with pytest.raises(Stale):
        root.sizes("a.b2nd", "0" * 32)
    with pytest.raises(DatasetUnknown):
        root.chunk("b.b2nd", lineage, 0)


@pytest.mark.parametrize("nchunk", [-1, 2, 1 << 40])
def test_a_chunk_out_of_range_is_refused(root, folder, nchunk):
    write_array(folder / "a.b2nd", np.arange(10), chunks=(5,))

    with pytest.raises(BadSelection, match="0 to 1"):
        root.chunk("a.b2nd", root.info("a.b2nd").entry.lineage, nchunk)


def test_a_damaged_chunk_is_refused_and_the_others_are_not(root, folder):
    path = write_array(folder / "a.b2nd", np.random.default_rng(0).integers(0, 99, 10_000), chunks=(1000,))
    raw = bytearray(path.read_bytes())
    at = int.from_bytes(raw[11:15], "big")
    raw[at + 8 : at + 12] = (0).to_bytes(4, "little")  # the blocksize of the first chunk
    path.write_bytes(raw)
    settle(path)
    lineage = root.info("a.b2nd").entry.lineage

    with pytest.raises(ZcatError, match="chunk 0"):
        root.chunk("a.b2nd", lineage, 0)
    assert root.chunk("a.b2nd", lineage, 1).data


def test_sizes_are_room_enough_for_each_chunk(root, folder):
    write_array(folder / "a.b2nd", np.random.default_rng(0).normal(size=10_000), chunks=(1000,))
    (folder / "t").write_bytes(b"x" * 10)
    settle(folder / "t")
    lineage = root.info("a.b2nd").entry.lineage

    sizes = np.frombuffer(root.sizes("a.b2nd", lineage), "<i4")

    assert sizes.tolist() == [len(root.chunk("a.b2nd", lineage, n).data) for n in range(10)]
    with pytest.raises(NotReadable):
        root.sizes("t", root.info("t").entry.lineage)


def test_a_watch_tells_of_changes(folder, tmp_path):
    kept = ByteFrames(tmp_path / "state", LIMITS, "sst", OWNER)
    root = DirectoryRoot(folder, OWNER, kept, DirectoryTimes(watch=WatchTimes(settle_s=0.01)))
    begun, told = threading.Event(), threading.Event()
    root.watch(lambda paths: begun.set() if paths is None else told.set() if "a.txt" in paths else None)

    assert begun.wait(10)
    (folder / "a.txt").touch()

    assert told.wait(10)
    root.close()


def test_files_are_not_held_open_without_end(root, folder, monkeypatch):
    monkeypatch.setattr("zcat.storage.directory_root.SOURCES_MAX", 8)
    for n in range(300):
        (folder / f"{n}.txt").write_bytes(b"x")
        settle(folder / f"{n}.txt")
    before = len(os.listdir("/proc/self/fd"))

    for path in entries(root):
        root.info(path)

    assert len(os.listdir("/proc/self/fd")) <= before + 256


def test_a_reader_beside_a_writer_sees_one_version_at_a_time(root, folder):
    """A file is replaced fifty times by rename while it is read: each chunk is of one version."""
    path, aside = folder / "a.b2nd", folder / ".aside"

    def write(version):
        write_array(aside, np.full((64, 1000), version, "<i4"), chunks=(8, 1000))
        settle(aside, LONG_AGO_NS + version)
        aside.rename(path)

    write(0)
    done, progress, values = threading.Event(), threading.Event(), {}

    def read():
        while not done.is_set():
            try:
                info = root.info("a.b2nd")
                for nchunk in range(info.geometry.nchunks):
                    data = root.chunk("a.b2nd", info.entry.lineage, nchunk).data
                    found = np.unique(np.frombuffer(blosc2.decompress2(data), "<i4")).tolist()
                    values.setdefault(info.entry.lineage, set()).update(found)
                    progress.set()
            except (Stale, DatasetUnknown):
                continue

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(1, 51):
        assert progress.wait(10)
        progress.clear()
        write(version)
    done.set()
    for reader in readers:
        reader.join()

    assert len(values) > 10
    assert all(len(found) == 1 for found in values.values()), values


def test_a_file_that_shrinks_while_it_is_read_is_stale(root, folder):
    path = Path(folder / "t.bin")
    path.write_bytes(os.urandom(3 * MIB))
    settle(path)
    lineage = root.info("t.bin").entry.lineage
    assert root.chunk("t.bin", lineage, 0).data

    os.truncate(path, MIB)
    settle(path)

    with pytest.raises(Stale):
        root.chunk("t.bin", lineage, 2)


def test_a_file_that_is_not_offered_is_told_once(root, folder, caplog):
    (folder / "a:b.txt").write_text("x")
    for _ in range(2):
        root.look(None, {})
    told = [record.getMessage() for record in caplog.records if "not offered" in record.getMessage()]
    assert len(told) == 1
    assert "path=a:b.txt" in told[0]
    assert "':'" in told[0]


WIDE = (np.random.default_rng(0).integers(0, 90, 200 * 500).cumsum() % 9973).astype("<i4").reshape(200, 500)


@pytest.mark.parametrize("contiguous", [True, False])
def test_parts_of_chunks_are_read_with_their_digests(root, folder, contiguous):
    write_array(folder / "a.b2nd", WIDE, chunks=(100, 500), blocks=(10, 250), contiguous=contiguous)
    info = root.info("a.b2nd")
    whole = root.chunk("a.b2nd", info.entry.lineage, 1)

    part = root.part("a.b2nd", info.entry.lineage, 1, (0, 3, 19), vouch=False)
    vouched = root.part("a.b2nd", info.entry.lineage, 1, (), vouch=True)

    layout = check_part(part, info.geometry, 1)
    for nblock, span in spans_of(part, layout):
        assert span == whole.data[layout.starts[nblock] : layout.stops[nblock]]
    assert part.whole_digest is None
    assert vouched.whole_digest == whole.digest


def test_the_digest_of_a_chunk_is_found_out_if_it_was_never_given(root, folder):
    write_array(folder / "a.b2nd", WIDE, chunks=(100, 500), blocks=(10, 250))
    lineage = root.info("a.b2nd").entry.lineage
    vouched = root.part("a.b2nd", lineage, 1, (2,), vouch=True)
    assert vouched.blocks == (2,)
    assert vouched.whole_digest == root.chunk("a.b2nd", lineage, 1).digest


@pytest.mark.parametrize("contiguous", [True, False])
def test_chunks_that_are_not_worth_cutting_are_given_whole(root, folder, contiguous):
    write_array(
        folder / "zeros.b2nd", np.zeros((200, 500)), chunks=(100, 500), blocks=(10, 250), contiguous=contiguous
    )
    write_array(folder / "a.b2nd", WIDE, chunks=(100, 500), blocks=(10, 250), contiguous=contiguous)
    for path, blocks in (("zeros.b2nd", (1,)), ("a.b2nd", tuple(range(20)))):
        lineage = root.info(path).entry.lineage
        whole = root.part(path, lineage, 1, blocks, vouch=False)
        assert whole == root.chunk(path, lineage, 1)


def test_parts_that_are_not_there_are_refused(root, folder):
    write_array(folder / "a.b2nd", WIDE, chunks=(100, 500), blocks=(10, 250))
    settle((folder / "plain.bin").write_bytes(b"x" * 5000) and folder / "plain.bin")
    lineage, plain = (root.info(path).entry.lineage for path in ("a.b2nd", "plain.bin"))
    for path, version, nchunk, nblock in (
        ("a.b2nd", lineage, 2, 0),
        ("a.b2nd", lineage, -1, 0),
        ("a.b2nd", lineage, 0, 20),
        ("plain.bin", plain, 0, 0),
    ):
        with pytest.raises(BadSelection):
            root.part(path, version, nchunk, (nblock,), vouch=False)
    with pytest.raises(Stale):
        root.part("a.b2nd", "0" * 32, 0, (0,), vouch=False)


def test_a_file_that_is_replaced_while_a_part_is_read_is_stale(root, folder):
    path = write_array(folder / "a.b2nd", WIDE, chunks=(100, 500), blocks=(10, 250))
    lineage = root.info("a.b2nd").entry.lineage
    root.part("a.b2nd", lineage, 0, (0,), vouch=False)
    with open(path, "r+b") as file:
        file.seek(3000)
        file.write(b"\0" * 10)
    with pytest.raises(Stale):
        root.part("a.b2nd", lineage, 0, (0,), vouch=False)
