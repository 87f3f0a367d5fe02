"""Values from Blosc2 chunks back to HDF5: what `types` made of text and references is again what it was."""

from typing import Any

import h5py
import numpy as np
from h5py import h5t
from numpy.typing import NDArray

from zcat.model.dataset import DatasetInfo, Entry, Kind
from zcat.model.selection import Selection
from zcat.storage.frame_source import ContiguousFrame
from zcat.storage.hdf5.layout import box_of
from zcat.storage.hdf5.links_back import object_at
from zcat.storage.reading import LooseChunks, read_selection


class References:
    """Makes references of the paths of objects in a file that is being written."""

    def __init__(self, file: h5py.File) -> None:
        """Know none yet."""
        self.lost: set[str] = set()
        """Paths that lead to nothing."""
        self._file = file
        self._known: dict[bytes, Any] = {b"": h5py.Reference()}

    def of(self, path: bytes) -> Any:
        """Give the reference to what is at a path; a null one where nothing is."""
        if path not in self._known:
            try:
                self._known[path] = object_at(self._file, path.decode()).ref
            except (LookupError, ValueError):
                self.lost.add(path.decode("utf-8", "replace"))
                self._known[path] = h5py.Reference()
        return self._known[path]


def decoded(frame: ContiguousFrame, nchunk: int, chunk: bytes) -> NDArray[Any]:
    """Decode a chunk of an array, as far as it lies inside the shape."""
    array = frame.geometry.array
    assert array is not None
    entry = Entry("", Kind.ARRAY, "", 0, 0, 0, array.shape, array.dtype)
    source = LooseChunks(DatasetInfo(entry, frame.geometry, frame.compression), {nchunk: chunk})
    axes = tuple(range(part.start, part.stop) for part in box_of(array, nchunk))
    return read_selection(source, Selection(axes))


def has_references(dtype: np.dtype) -> bool:
    """Say whether a type that `forms.dtype_of` made is one of references, or has some inside."""
    if dtype.subdtype is not None:
        return has_references(dtype.subdtype[0])
    if dtype.names is not None:
        return any(has_references(dtype[name]) for name in dtype.names)
    return h5t.check_ref_dtype(dtype) is h5py.Reference


def as_stored(values: NDArray[Any], dtype: np.dtype, references: References) -> NDArray[Any]:
    """Give items the type that HDF5 has: bytes of fixed width become text of variable length, or references."""
    if not dtype.hasobject:
        return values.view(dtype)
    made: NDArray[Any] = np.empty(values.shape, dtype)
    _copy_texts(values, made, references)
    return made


def write_box(
    dataset: h5py.Dataset, box: tuple[slice, ...], values: NDArray[Any], memory_type: h5t.TypeID
) -> None:
    """Write in the very type, so that HDF5 converts nothing but text and references."""
    memory = file = h5py.h5s.ALL
    if box:
        file = dataset.id.get_space()
        file.select_hyperslab(tuple(part.start for part in box), tuple(part.stop - part.start for part in box))
        memory = h5py.h5s.create_simple(tuple(part.stop - part.start for part in box))
    dataset.id.write(memory, file, np.ascontiguousarray(values), memory_type)


def _copy_texts(values: NDArray[Any], made: NDArray[Any], references: References) -> None:
    if made.dtype.names is not None:
        for name in made.dtype.names:
            _copy_texts(values[name], made[name], references)
    elif has_references(made.dtype):
        for at in np.ndindex(made.shape):
            made[at] = references.of(bytes(values[at]))
    else:
        made[...] = values.astype(object) if made.dtype.hasobject else values
