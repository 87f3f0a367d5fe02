"""One dataset of an open HDF5 file: how its chunks are made: the cheapest way that is right.

In this order: the chunk that the Blosc2 filter wrote is taken out; what is contiguous, or went through simple
filters, is read by ``pread`` and decoded here; all else is read by HDF5 in a worker process. What the first two
cannot read, though they should, goes to HDF5 as well: it is the judge of its format.
"""

import math

import blake3

from zcat.errors import BadContent, NotReadable
from zcat.model.dataset import DatasetInfo, Entry
from zcat.storage.chunk_gate import digest, repeat_value_chunk
from zcat.storage.hdf5.asking import read_chunks, read_table
from zcat.storage.hdf5.convert import Job, convert_box
from zcat.storage.hdf5.direct import Wrapped, chunk_of, cut_like, is_direct, unwrap
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.layout import Cut, Unit, cut_of, unit_of
from zcat.storage.hdf5.raw_chunks import pipeline_of
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.hdf5.stored import StoredData

_SAMPLES_MAX = 8


def description_of(attributes: bytes, cut: Cut | None) -> bytes:
    """Return the witness of a description: a digest of what is told besides an entry.

    Args:
        attributes: their digest.
        cut: of a dataset; None for a group.
    """
    return blake3.blake3(attributes + (b"" if cut is None else _said(cut))).digest()


def whole_of(attributes: bytes, dataset: "Hdf5Dataset | None") -> bytes:
    """Return the witness of all of a dataset, or of a group.

    Args:
        attributes: their digest.
        dataset: None for a group.

    Raises:
        ZcatError: as ``Hdf5Dataset.whole_witness`` says.
    """
    described = description_of(attributes, dataset.cut if dataset else None)
    return blake3.blake3(described + (dataset.whole_witness() if dataset else b"")).digest()


class Hdf5Dataset:
    """Makes chunks. Any thread may call; whether the file is still what it was is for the caller to see."""

    def __init__(self, sandbox: Sandbox, fd: int, item: Item) -> None:
        """Find out how it is cut.

        Args:
            sandbox: of workers.
            fd: of the file; it stays the caller's.
            item: one of its datasets.

        Raises:
            NotReadable, BadContent: it is not offered, or damaged.
            Busy, StorageFailed, Closed: as ``Sandbox.call`` says.
        """
        if item.problem is not None or item.shape is None or item.dtype is None or item.layout is None:
            raise NotReadable(item.problem or "it has no values")
        self.item = item
        self._sandbox = sandbox
        self._fd = fd
        self._stored = item.layout.chunks
        self.cut = cut_of(item)
        self._data = self._open_data(item)
        self._like: Wrapped | None = None
        if self._data is not None and item.raw and is_direct(item.layout):
            self._find_direct_cut(self._data)
        self._pipeline = pipeline_of(item, self.cut.array.itemsize)
        self._is_simple = item.raw and (item.layout.kind == "contiguous" or self._pipeline is not None)

    def unit(self, nchunk: int) -> Unit:
        """Return what is made together with chunk ``nchunk``."""
        return unit_of(self.cut, self._stored, nchunk)

    def info_of(self, entry: Entry) -> DatasetInfo:
        """Describe what is kept of the dataset: without its attributes."""
        return DatasetInfo(entry, self.cut.geometry, self.cut.compression)

    def direct_chunk(self, nchunk: int) -> bytes | None:
        """Take out the chunk that the Blosc2 filter wrote; None if it has to be converted.

        Raises:
            BadContent: the file is cut.
            StorageFailed: the disk failed.
        """
        if not self.cut.is_direct or self._data is None:
            return None
        assert self._like is not None
        part = self._data.chunk(nchunk)
        if part.raw is None:
            return self._filled_chunk(nchunk)
        return None if part.filter_mask else chunk_of(self.cut, self._like, part.raw, nchunk)

    def convert(self, unit: Unit) -> tuple[list[bytes], bytes]:
        """Make the chunks of a unit; give them and what `witness` gives.

        Raises:
            BadContent: the file is damaged there.
            NotReadable: HDF5 does not read it.
            Busy, StorageFailed, Closed: as ``Sandbox.call`` says.
        """
        if self._data is not None and self._data.is_unwritten(unit.box):
            filled = [self._filled_chunk(number) for number in unit.numbers]
            if None not in filled:
                return [chunk for chunk in filled if chunk is not None], self.witness(unit)
        if self._is_simple and self._data is not None:
            try:
                values, stored = self._data.values(unit.box, self._pipeline)
                return convert_box(values, self.cut, unit), self._witness_of(stored)
            except BadContent:
                pass
        made = read_chunks(self._sandbox, self._fd, Job.of(self.item.hdf5_path, self.cut, unit))
        return made, self.witness(unit, made)

    def witness(self, unit: Unit, made: list[bytes] | None = None) -> bytes:
        """Return a digest of what a unit is made of; empty where the fingerprint says it all.

        It is the digest of the chunk itself where that is served untouched.

        Args:
            unit: of this dataset.
            made: its chunks, if they are at hand.

        Raises:
            BadContent, StorageFailed: the file cannot be read.
            ZcatError: as `convert` says.
        """
        if self.item.by_value:
            return b""
        if self._data is None:  # virtual: its bytes lie elsewhere in the file
            return digest(b"".join(made)) if made else self.convert(unit)[1]
        direct = self.direct_chunk(unit.numbers[0])
        if direct is not None:
            return digest(direct)
        return self._witness_of(self._data.witness(unit.box))

    def whole_witness(self) -> bytes:
        """Return a digest of all that the dataset is made of; empty where the fingerprint says it all.

        Raises:
            NotReadable: it is virtual, and its bytes lie elsewhere.
            BadContent, StorageFailed: the file cannot be read.
        """
        if self.item.by_value or 0 in (self.item.shape or ()):
            return b""
        if self._data is None:
            raise NotReadable("a virtual dataset has no bytes of its own")
        return self._data.whole_witness()

    def _witness_of(self, stored: bytes) -> bytes:
        # another block shape gives other chunks of the same values
        return blake3.blake3(_said(self.cut) + stored).digest()

    def _open_data(self, item: Item) -> StoredData | None:
        assert item.layout is not None
        assert item.shape is not None
        if item.layout.kind not in ("chunked", "contiguous") or 0 in item.shape:
            return None
        itemsize = self.cut.array.itemsize
        if not item.raw and item.layout.kind == "contiguous":  # only ever compared, not decoded
            itemsize = item.layout.stored_bytes // math.prod(item.shape)
        table = read_table(self._sandbox, self._fd, item.hdf5_path) if item.layout.kind == "chunked" else None
        return StoredData(self._fd, item, itemsize, table)

    def _find_direct_cut(self, data: StoredData) -> None:
        for number in data.written()[:_SAMPLES_MAX]:
            part = data.chunk(number)
            if part.raw is None or part.filter_mask:
                continue
            try:
                like = unwrap(part.raw)
            except BadContent:
                continue
            cut = cut_like(self.item, like)
            if cut is not None:
                self.cut = cut
                self._like = like
                return

    def _filled_chunk(self, nchunk: int) -> bytes | None:
        if self.item.inner_axes and self.item.fill is not None:
            return None
        fill = self.item.fill or bytes(self.cut.array.itemsize)
        return repeat_value_chunk(self.cut.geometry, nchunk, fill)


def _said(cut: Cut) -> bytes:
    return repr((cut.geometry, cut.compression)).encode()
