import os

import blosc2
import numpy as np
import pytest

from zcat.errors import Stale
from zcat.limits import MIB
from zcat.model.dataset import Entry, Kind
from zcat.storage.byte_frames import CHUNK_BYTES, ByteFrame, ByteFrames
from zcat.storage.chunk_gate import check_chunk
from zcat.storage.disk_budget import DiskLimits

OWNER = "ab" * 16
PLENTY = DiskLimits(quota_bytes=64 * MIB, reserve_share=0, reserve_bytes=0)


@pytest.fixture
def kept(tmp_path):
    opened = ByteFrames(tmp_path / "state", PLENTY, "sst", OWNER)
    yield opened
    opened.close()


class File:
    """A plain file, opened as a byte frame."""

    def __init__(self, path, kept, lineage="0" * 32, is_stale=False):
        size = path.stat().st_size
        entry = Entry(path.name, Kind.FILE, lineage, size, size, 0)
        self.fd = os.open(path, os.O_RDONLY)
        self.is_stale = is_stale
        self.frame = ByteFrame(self.fd, entry, kept, self._check)

    def _check(self):
        if self.is_stale:
            raise Stale("changed")

    def read(self):
        chunks = [self.frame.read_chunk(n) for n in range(self.frame.geometry.nchunks)]
        for n, chunk in enumerate(chunks):
            check_chunk(chunk, self.frame.geometry, n)
        return b"".join(blosc2.decompress2(chunk) for chunk in chunks)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 7])
@pytest.mark.parametrize("kind", ["text", "random", "zeros", "ones"])
def test_a_file_of_any_size_comes_back(tmp_path, kept, size, kind):
    content = {
        "text": (b"words and words " * (size // 16 + 1))[:size],
        "random": os.urandom(size),
        "zeros": bytes(size),  # as in a sparse file
        "ones": b"\1" * size,
    }[kind]
    (tmp_path / "file").write_bytes(content)

    with File(tmp_path / "file", kept) as file:
        assert file.read() == content
        assert file.read() == content  # now from what was kept


def test_what_does_not_compress_is_stored_plain(tmp_path, kept):
    (tmp_path / "file").write_bytes(os.urandom(CHUNK_BYTES))

    with File(tmp_path / "file", kept) as file:
        assert len(file.frame.read_chunk(0)) == CHUNK_BYTES + 32


def test_a_chunk_is_compressed_once(tmp_path, kept, monkeypatch):
    (tmp_path / "file").write_bytes(np.arange(300_000, dtype="<i8").tobytes())
    with File(tmp_path / "file", kept) as file:
        first = [file.frame.read_chunk(n) for n in range(3)]

    monkeypatch.setattr(blosc2, "compress2", None)

    with File(tmp_path / "file", kept) as file:
        assert [file.frame.read_chunk(n) for n in range(3)] == first
    assert kept.used_bytes > 0


def test_what_was_kept_is_there_after_a_restart(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"text " * 1000)
    for run in range(2):
        kept = ByteFrames(tmp_path / "state", PLENTY, "sst", OWNER)
        with File(tmp_path / "file", kept) as file:
            assert file.read() == b"text " * 1000
        kept.close()
        if run == 0:
            monkeypatch.setattr(blosc2, "compress2", None)


def test_a_file_that_changed_during_the_read_is_stale_and_not_kept(tmp_path, kept):
    (tmp_path / "file").write_bytes(b"new " * 1000)
    with File(tmp_path / "file", kept, is_stale=True) as file, pytest.raises(Stale):
        file.read()
    (tmp_path / "file").write_bytes(b"old " * 1000)

    with File(tmp_path / "file", kept) as file:
        assert file.read() == b"old " * 1000


def test_two_versions_of_a_file_are_kept_apart(tmp_path, kept):
    for lineage, content in (("1" * 32, b"one"), ("2" * 32, b"two"), ("1" * 32, b"one")):
        (tmp_path / "file").write_bytes(content * 1000)
        with File(tmp_path / "file", kept, lineage) as file:
            assert file.read() == content * 1000


@pytest.mark.parametrize(
    "limits", [DiskLimits(0), DiskLimits(64 * MIB, reserve_share=1.0), DiskLimits(300_000, 0, 0)], ids=str
)
def test_without_room_a_file_is_served_all_the_same(tmp_path, limits):
    kept = ByteFrames(tmp_path / "state", limits, "sst", OWNER)
    content = os.urandom(2 * CHUNK_BYTES + 5)
    (tmp_path / "file").write_bytes(content)

    with File(tmp_path / "file", kept) as file:
        assert file.read() == content
        assert file.read() == content
    kept.close()


def test_the_quota_is_kept_by_dropping_the_oldest(tmp_path):
    kept = ByteFrames(tmp_path / "state", DiskLimits(5 * MIB, 0, 0), "sst", OWNER)
    for n in range(6):
        (tmp_path / f"{n}").write_bytes(os.urandom(2 * CHUNK_BYTES))
        with File(tmp_path / f"{n}", kept) as file:
            file.read()

    assert 2 * MIB < kept.used_bytes <= 5 * MIB
    kept.close()
