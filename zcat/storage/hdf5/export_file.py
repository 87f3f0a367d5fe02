"""From ``.b2nd`` files to an HDF5 file: the way back of `import_file`, and a way for any other array.

Datasets are compressed by the Blosc2 filter. Where the HDF5 chunks are those of the array, its compressed chunks
are wrapped as the filter does it (`direct` takes such frames apart), and written without HDF5 touching them.
What an import noted of types is made again; without notes, numbers and texts become what h5py makes of them.

This process opens only HDF5 files of its own making. What it reads passed the gate of ``frame_source``.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import hdf5plugin
import numpy as np
from h5py import h5t
from numpy.typing import NDArray

from zcat.errors import BadContent, NotReadable, StorageFailed, ZcatError
from zcat.limits import MIB
from zcat.model.dataset import ArrayGeometry
from zcat.model.dtypes import parse_dtype
from zcat.storage.frame_source import ContiguousFrame
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5.attributes_back import attributes_from, write_attribute
from zcat.storage.hdf5.forms import dtype_of, memory_type, storable, stored_type
from zcat.storage.hdf5.import_file import CREATION, GROUP, LINKS, ORDER, SUFFIX
from zcat.storage.hdf5.items import ENUM_NAMES
from zcat.storage.hdf5.layout import box_of, geometry_of
from zcat.storage.hdf5.links_back import add_link, hdf5_path, restore_order
from zcat.storage.hdf5.types import plain_dtype, split
from zcat.storage.hdf5.values_back import References, as_stored, decoded, has_references, write_box
from zcat.storage.save import replaced

SMALL_BYTES = 4096
"""Smaller datasets are not compressed, unless they were chunked before."""

_Referring = tuple[str, tuple[slice, ...], NDArray[Any], h5t.TypeID]
"""A part of a dataset with references: which, where, items as they are offered, and their type in memory."""

_CHUNK_CACHE_BYTES = 64 * MIB
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


class Exporter:
    """An HDF5 file in the making. Use it in a ``with``: at its end the file takes its place, if all went well."""

    def __init__(self, file: Path) -> None:
        """Begin nothing yet.

        Args:
            file: to be made, or replaced.
        """
        self.datasets = 0
        self.direct_chunks = 0
        """Those that were written as they were stored."""
        self.left_out: list[tuple[str, str]] = []
        """Names, ``dataset``, ``dataset@attribute`` or ``dataset@attribute, its type``, and why."""
        self._place = file
        self._opened = contextlib.ExitStack()
        self._later: list[tuple[str, list[tuple[str, Any, Any]]]] = []
        self._referring: list[_Referring] = []
        self._orders: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        self._partial = self._opened.enter_context(replaced(self._place))
        try:
            self._create(is_ordered=False)
        except StorageFailed:
            self._opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write_later()
                self._restore_orders()
                self._close()
        except BaseException as failure:
            self._opened.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._opened.__exit__(kind, error, trace)

    def group(self, path: str, attributes: dict[str, Any]) -> None:
        """Make a group, or add attributes to it.

        Args:
            path: as ``names.legal`` wrote it; empty for the root group.
            attributes: as an import left them, or any.
        """
        order = attributes.get(ORDER)
        if isinstance(order, list):
            self._orders[path] = list(map(str, order))
        name = hdf5_path(path)
        try:
            if not path and path in self._orders and not len(self._file):
                self._file.close()  # a file says of its root group when it is made whether that knows an order
                self._create(is_ordered=True)
            if name not in self._file:
                self._file.create_group(name, track_order=path in self._orders or None)
            group = self._file.require_group(name)
        except _FAILURES as error:
            self._leave_out(path, error)
            return
        self._attributes(path, group, attributes)

    def array(self, path: str, frame: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Write a dataset; one that cannot be is left out.

        Args:
            path: as for `group`.
            frame: a contiguous ``.b2nd`` file.
            progress: told how many chunks of how many are done.

        Raises:
            StorageFailed: the disk refused.
        """
        try:
            fd = os.open(frame, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._array(path, ContiguousFrame(fd), progress or _silent)
            finally:
                os.close(fd)
        except StorageFailed:
            raise
        except (ZcatError, *_FAILURES) as error:
            if isinstance(error, OSError) and error.errno:
                raise StorageFailed(f"writing {self._place}: {error.strerror}") from error
            self._leave_out(path, error)

    def links(self, links: Any) -> None:
        """Give objects their other names, as an import noted them; those that are not there are left out."""
        for path, target in links.items() if isinstance(links, dict) else ():
            try:
                add_link(self._file, str(path), target)
            except _FAILURES as error:
                self._leave_out(str(path), error)

    # -- private -------------------------------------------------------------------------------------

    def _create(self, is_ordered: bool) -> None:
        try:
            self._file = self._opened.enter_context(
                h5py.File(
                    self._partial,
                    "w",
                    libver="latest",
                    rdcc_nbytes=_CHUNK_CACHE_BYTES,
                    track_order=is_ordered or None,
                )
            )
        except OSError as error:
            raise StorageFailed(f"writing {self._place}: {error}") from None

    def _array(self, path: str, frame: ContiguousFrame, progress: Callable[[int, int], None]) -> None:
        array = frame.geometry.array
        if array is None:
            raise NotReadable("no array")
        noted = frame.attributes.get(CREATION)
        creation: dict[str, Any] = noted if isinstance(noted, dict) else {}
        dtype = _stored_dtype(array, creation, frame.attributes.get(ENUM_NAMES))
        name = hdf5_path(path)
        is_ordered = creation.get("is_ordered") is True or None
        if "shape" in creation and creation["shape"] is None:
            dataset = self._file.create_dataset(name, data=h5py.Empty(dtype), track_order=is_ordered)
        else:
            dataset = self._file.create_dataset(name, **_options(array, dtype, creation), track_order=is_ordered)
            try:
                self._fill(path, frame, _memory_type(dtype, creation), progress)
            except BaseException:
                del self._file[name]
                raise
        self._attributes(path, dataset, frame.attributes)
        self.datasets += 1

    def _fill(
        self, path: str, frame: ContiguousFrame, memory: h5t.TypeID, progress: Callable[[int, int], None]
    ) -> None:
        """Copy the chunks, wrapped if they may be, else decoded; then in memory they are of that type."""
        array, dataset = frame.geometry.array, self._file[hdf5_path(path)]
        assert array is not None
        wrap = _wrapping(dataset, frame, array)
        base, inner = split(dataset.dtype)
        count = frame.geometry.nchunks
        for nchunk in range(count):
            box = box_of(array, nchunk)
            chunk = frame.read_chunk(nchunk)
            if wrap is not None:
                dataset.id.write_direct_chunk(tuple(part.start for part in box), wrap(chunk))
                self.direct_chunks += 1
            else:
                part = (path, box[: len(box) - len(inner)], decoded(frame, nchunk, chunk), memory)
                if has_references(base):
                    self._referring.append(part)
                else:
                    self._write(part, References(self._file))
            progress(nchunk + 1, count)

    def _write(self, part: _Referring, references: References) -> None:
        path, box, values, memory = part
        dataset = self._file[hdf5_path(path)]
        write_box(dataset, box, as_stored(values, split(dataset.dtype)[0], references), memory)

    def _attributes(self, path: str, found: h5py.HLObject, attributes: dict[str, Any]) -> None:
        given = list(attributes_from(attributes))
        if any(form is not None and "reference" in repr(form) for _, _, form in given):
            self._later.append((path, given))  # all of them, for the sake of their order
            return
        for name, value, form in given:
            self._attribute(path, found, name, (value, form))

    def _attribute(self, path: str, found: h5py.HLObject, name: str, typed: tuple[Any, Any]) -> None:
        try:
            write_attribute(self._file, found, name, *typed)
        except (ZcatError, *_FAILURES) as error:
            self._leave_out(f"{path}@{name}" if typed[1] is None else f"{path}@{name}, its type", error)
            if typed[1] is not None:  # the value may still be of use
                if name in found.attrs:
                    del found.attrs[name]
                self._attribute(path, found, name, (typed[0], None))

    def _write_later(self) -> None:
        """Write the references and attributes that lead to other objects, now that there are all."""
        references = References(self._file)
        for part in self._referring:
            self._write(part, references)
        self._referring.clear()
        for target in sorted(references.lost):
            self.left_out.append((f"references to {target}", "nothing is there; they are empty"))
        for path, given in self._later:
            for name, value, form in given:
                self._attribute(path, self._file[hdf5_path(path)], name, (value, form))

    def _restore_orders(self) -> None:
        for path, names in self._orders.items():
            try:
                restore_order(self._file[hdf5_path(path)], names)
            except _FAILURES as error:
                self._leave_out(f"{path}, the order of its links", error)

    def _close(self) -> None:
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:  # what was held back does not fit on the disk
            raise StorageFailed(f"writing {self._place}: {error}") from None

    def _leave_out(self, name: str, error: Exception) -> None:
        said = error.message if isinstance(error, ZcatError) else f"HDF5 does not take it: {error}"
        self.left_out.append((name or "/", said))


def export_folder(folder: Path, exporter: Exporter, progress: Callable[[str, int, int], None]) -> None:
    """Write all that is in a local folder, most often one that an import made.

    Args:
        folder: files ``.b2nd`` become datasets, folders groups; others are left out.
        exporter: entered.
        progress: told what is at work, and how many of its chunks are done.

    Raises:
        StorageFailed: the disk refused.
    """
    links: Any = None
    for at, folders, files in os.walk(folder):
        folders.sort()
        inside = Path(at).relative_to(folder).as_posix().removeprefix(".")
        attributes: dict[str, Any] = {}
        if GROUP in files:
            try:
                attributes = read_group(Path(at) / GROUP)
            except (BadContent, NotReadable) as error:
                exporter.left_out.append((f"{inside or '/'}@", f"its attributes: {error.message}"))
        links = attributes.pop(LINKS, None) if not inside else links
        exporter.group(inside, attributes)
        for name in sorted(files):
            path = f"{inside}/{name}" if inside else name
            if name.endswith(SUFFIX) and name != GROUP:
                path = path.removesuffix(SUFFIX)
                exporter.array(path, Path(at) / name, functools.partial(progress, path))
            elif name != GROUP:
                exporter.left_out.append((path, "no array"))
    exporter.links(links)


def read_group(file: Path) -> dict[str, Any]:
    """Read the attributes of a group, as an import wrote them.

    Raises:
        ZcatError: the file is damaged, or cannot be opened.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StorageFailed(f"{file}: {error.strerror}") from None
    try:
        return dict(ContiguousFrame(fd).attributes)
    finally:
        os.close(fd)


def _stored_dtype(array: ArrayGeometry, creation: dict[str, Any], members: Any) -> np.dtype:
    """Give the HDF5 type of a dataset: as noted if it fits the items, else theirs."""
    offered = storable(parse_dtype(array.dtype))
    if members and not creation and isinstance(members, dict) and offered.kind in "iu":
        return h5py.enum_dtype(members, offered)
    if not creation:
        return offered
    try:
        noted = dtype_of(creation)
        base, inner = split(noted)
    except (NotReadable, BadContent):
        return offered
    is_empty = creation.get("shape", ()) is None
    fits = base.hasobject or plain_dtype(base) == offered
    return noted if is_empty or (fits and array.shape[len(array.shape) - len(inner) :] == inner) else offered


def _options(array: ArrayGeometry, dtype: np.dtype, creation: dict[str, Any]) -> dict[str, Any]:
    """Give what ``create_dataset`` is told."""
    inner = split(dtype)[1]
    shape = array.shape[: len(array.shape) - len(inner)]
    options: dict[str, Any] = {"shape": shape, "dtype": _with_padding(dtype, creation)}
    fill = creation.get("fill")
    offered = parse_dtype(array.dtype)
    if isinstance(fill, bytes) and len(fill) == offered.itemsize and not inner and not dtype.hasobject:
        options["fillvalue"] = np.frombuffer(fill, offered)[0]
    chunks, limits = _like(creation.get("chunks"), shape), _like(creation.get("maxshape"), shape)
    if chunks is not None and _fit(chunks, limits or shape):
        options |= {"chunks": chunks, "maxshape": limits}
    elif creation.get("shape") != [] and shape and math.prod(array.shape) * array.itemsize >= SMALL_BYTES:
        options["chunks"] = array.chunks[: len(shape)]
    if "chunks" in options and not dtype.hasobject:
        options |= hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE)
    return options


def _with_padding(dtype: np.dtype, creation: dict[str, Any]) -> Any:
    """Give a type that fills its text up as it was noted, where that is not h5py's own way."""
    if not _is_of(dtype, creation):
        return dtype
    stored = stored_type(creation, dtype)
    return dtype if stored.equal(h5t.py_create(dtype, logical=True)) else h5py.Datatype(stored)


def _memory_type(dtype: np.dtype, creation: dict[str, Any]) -> h5t.TypeID:
    return memory_type(creation, dtype) if _is_of(dtype, creation) else h5t.py_create(dtype)


def _is_of(dtype: np.dtype, creation: dict[str, Any]) -> bool:
    """Say whether a type is the one that was noted."""
    try:
        return bool(dtype == dtype_of(creation))
    except (NotReadable, BadContent):  # nothing was noted
        return False


def _fit(chunks: tuple[int | None, ...], limits: tuple[int | None, ...]) -> bool:
    """Say whether h5py takes chunks: in others' files, those of an axis that stays empty may be longer than it."""
    return all(
        chunk is not None and (limit is None or chunk <= limit)
        for chunk, limit in zip(chunks, limits, strict=True)
    )


def _like(lengths: Any, shape: tuple[int, ...]) -> tuple[int | None, ...] | None:
    """Give what was noted of each axis; None if that is nothing."""
    if not isinstance(lengths, list) or not len(lengths) == len(shape) > 0:
        return None
    is_sound = all(one is None or (type(one) is int and one >= 0) for one in lengths)
    return tuple(lengths) if is_sound else None


def _wrapping(
    dataset: h5py.Dataset, frame: ContiguousFrame, array: ArrayGeometry
) -> Callable[[bytes], bytes] | None:
    """Give what makes an HDF5 chunk of a chunk; None if chunks or items differ."""
    stored = dataset.id.get_type()
    if dataset.chunks != array.chunks or stored.get_size() != array.itemsize or dataset.dtype.hasobject:
        return None
    base, _ = split(dataset.dtype)
    if plain_dtype(base) != parse_dtype(array.dtype) or not stored.equal(
        h5t.py_create(dataset.dtype, logical=True)
    ):
        return None
    one = ArrayGeometry(array.chunks, array.chunks, array.blocks, array.dtype, array.itemsize)
    template = frame_template(geometry_of(one), frame.compression)

    def wrap(chunk: bytes) -> bytes:
        header, tail = assemble_cframe(template, [len(chunk)])
        return b"".join((header, chunk, tail))

    return wrap


def _silent(done: int, total: int) -> None:
    pass
