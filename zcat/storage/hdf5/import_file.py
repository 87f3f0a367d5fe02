"""From an HDF5 file to a folder of ``.b2nd`` files, so that `export_file` can make the same HDF5 file again.

- A dataset is a file of its name and ``.b2nd``; its attributes are variable-length metadata (vlmeta). What
  Blosc2's filter compressed is copied untouched. Besides, `CREATION` tells its HDF5 type, shape and chunks.
- A group is a folder with a file `GROUP`: an array without items whose vlmeta are the group's attributes.
- `TYPES` tells the HDF5 type of each attribute. vlmeta have names of at most 31 bytes: attributes of longer
  names, and of those that stand here, are together in `OTHERS`.
- An object of several names is written under the first; the others, and soft and external links, are in `LINKS`
  of the topmost `GROUP`. `ORDER` of a group that knows in which order its links were made tells their names so.

The HDF5 file is opened by worker processes only.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from zcat.errors import BadConfig, BadRequest, NotReadable, StorageFailed, ZcatError
from zcat.limits import ATTRIBUTE_BYTES_MAX
from zcat.model.dataset import ArrayGeometry, Compression
from zcat.names import shown
from zcat.storage.disk import pwrite_all, storage_failed
from zcat.storage.frame_layers import NAME_BYTES_MAX
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.hdf5.asking import read_creation, read_inventory, read_typed_attributes
from zcat.storage.hdf5.dataset import Hdf5Dataset
from zcat.storage.hdf5.hdf5_files import has_signature
from zcat.storage.hdf5.items import ENUM_NAMES, Item
from zcat.storage.hdf5.layout import geometry_of
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.save import replaced

GROUP = "HDF5_GROUP.b2nd"
SUFFIX = ".b2nd"
CREATION = "HDF5_CREATION"
TYPES = "HDF5_TYPES"
OTHERS = "HDF5_OTHERS"
LINKS = "HDF5_LINKS"
ORDER = "HDF5_ORDER"
OURS = frozenset([CREATION, TYPES, OTHERS, LINKS, ORDER, ENUM_NAMES, "HDF5_NOTE"])
"""Names of vlmeta that are no attributes of the HDF5 file."""

Progress = Callable[[str, int, int], None]
"""Told what is at work, and how many bytes of how many are done."""

_WORKERS = 1


@dataclass(slots=True)
class Report:
    """What became of a file."""

    datasets: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Names, ``dataset`` or ``dataset@attribute``, and why."""


def import_file(file: Path, folder: Path, *, force: bool = False, progress: Progress | None = None) -> Report:
    """Make a folder of an HDF5 file; it appears when it is complete.

    Args:
        file: an HDF5 file.
        folder: does not exist yet, or is empty.
        force: replace the folder, if it is one that was made by an import.
        progress: told as it goes on.

    Raises:
        BadRequest: there is something at ``folder``.
        BadConfig: ``file`` is no HDF5 file, or cannot be opened.
        ZcatError: it cannot be read at all; or the disk refused.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name
    check_target(folder, force)
    if file.is_dir():
        raise BadConfig(f"{shown(str(file), 200)} is a folder, wanted an HDF5 file")
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadConfig(f"{shown(str(file), 200)}: {error.strerror}") from None
    try:
        if not has_signature(fd):
            raise BadConfig(f"{shown(str(file), 200)} is no HDF5 file")
        with Sandbox(_WORKERS, readable=file) as sandbox, _new_folder(folder) as partial:
            return _Import(sandbox, fd, partial, progress or _silent).run()
    finally:
        os.close(fd)


def check_target(folder: Path, force: bool) -> None:
    """Make sure that an import may write there.

    Raises:
        BadRequest: it may not.
    """
    name = shown(str(folder), 200)
    if not folder.parent.is_dir():
        raise BadRequest(f"{name}: the folder that it is to be in does not exist")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise BadRequest(f"{name} is no folder; choose another name")
    if not any(folder.iterdir()):
        return
    if not (folder / GROUP).is_file():
        raise BadRequest(f"{name} is no folder that an import made, and is never replaced; choose another name")
    if not force:
        raise BadRequest(f"{name} exists; --force replaces it")


class _Import:
    def __init__(self, sandbox: Sandbox, fd: int, folder: Path, progress: Progress) -> None:
        self._sandbox = sandbox
        self._fd = fd
        self._folder = folder
        self._progress = progress
        self._report = Report()
        self._links: dict[str, str | list[str]] = {}
        self._orders: dict[str, list[str]] = {}
        self._done = 0
        self._total = 0

    def run(self) -> Report:
        items = read_inventory(self._sandbox, self._fd)
        self._total = sum(item.layout.stored_bytes for item in items if item.layout is not None)
        self._orders = _orders(items)
        first: dict[int, str] = {}
        for item in items:
            if item.link:
                self._links[item.path] = list(item.link)
                if len(item.link) > 1:  # the link comes back, but what it leads to was not read
                    self._leave_out(item.path, item.problem or "an external link")
                continue
            other = first.get(item.address) if item.address else None
            if other is not None:
                self._links[item.path] = other
                continue
            try:
                self._item(item)
            except StorageFailed:
                raise
            except ZcatError as error:
                self._leave_out(item.path, error.message)
                continue
            first[item.address] = item.path
        if self._links:
            self._group("", "/", {LINKS: self._links})
        return self._report

    def _item(self, item: Item) -> None:
        if item.kind == "group":
            self._group(item.path, item.hdf5_path, {})
            if item.problem is not None:
                self._leave_out(item.path, item.problem)
            return
        target = self._folder / (item.path + SUFFIX)
        if os.path.lexists(target) or target.name == GROUP:
            raise NotReadable(f"its name is taken: another object becomes {target.name}")
        if item.shape is None:
            self._empty(item, target)
        else:
            self._array(item, target)
        self._report.datasets += 1

    def _group(self, path: str, hdf5_path: str, more: dict[str, Any]) -> None:
        folder = self._folder / path
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise NotReadable(f"a folder of this name cannot be: {error.strerror}") from None
        attributes = more | self._attributes(path, hdf5_path, is_told=not more)
        order = self._orders.get(path)
        if order is not None and len(msgpack.packb(order)) <= ATTRIBUTE_BYTES_MAX:
            attributes[ORDER] = order
        elif order is not None and not more:
            self._leave_out(path, f"the order of its links: more than {ATTRIBUTE_BYTES_MAX} bytes")
        _write_nothing(folder / GROUP, attributes)

    def _empty(self, item: Item, target: Path) -> None:
        """Write a dataset without a dataspace, which has a type only."""
        creation = read_creation(self._sandbox, self._fd, item.hdf5_path) if item.layout else {"shape": ()}
        if creation["shape"] is not None:
            raise NotReadable(item.problem or "it has no values")
        attributes = {CREATION: creation} | self._attributes(item.path, item.hdf5_path)
        _write_nothing(target, attributes)

    def _array(self, item: Item, target: Path) -> None:
        dataset = Hdf5Dataset(self._sandbox, self._fd, item)
        creation = read_creation(self._sandbox, self._fd, item.hdf5_path)
        attributes = {CREATION: creation} | self._attributes(item.path, item.hdf5_path)
        with replaced(target) as partial:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                self._write(fd, dataset, attributes)
            finally:
                os.close(fd)
        self._done += item.layout.stored_bytes if item.layout else 0

    def _write(self, fd: int, dataset: Hdf5Dataset, attributes: dict[str, Any]) -> None:
        """Write a frame; chunks in the order in which they are made, which the index undoes."""
        geometry = dataset.cut.geometry
        template = frame_template(geometry, dataset.cut.compression, attributes)
        offsets = np.full(geometry.nchunks, -1, np.int64)
        stored_bytes = dataset.item.layout.stored_bytes if dataset.item.layout else 0
        end = 0
        for nchunk in range(geometry.nchunks):
            if offsets[nchunk] >= 0:
                continue
            direct = dataset.direct_chunk(nchunk)
            unit = dataset.unit(nchunk)
            made = {nchunk: direct} if direct else dict(zip(unit.numbers, dataset.convert(unit)[0], strict=True))
            for number, chunk in made.items():
                pwrite_all(fd, chunk, template.header_len + end)
                offsets[number] = end
                end += len(chunk)
            share = stored_bytes * (nchunk + 1) // geometry.nchunks
            self._progress(dataset.item.path, self._done + share, self._total)
        tail = template.index(offsets) + template.trailer
        pwrite_all(fd, tail, template.header_len + end)
        pwrite_all(fd, template.header(end, template.header_len + end + len(tail)), 0)

    def _attributes(self, path: str, hdf5_path: str, is_told: bool = True) -> dict[str, Any]:
        """Give the vlmeta for the attributes of an object."""
        values, types = read_typed_attributes(self._sandbox, self._fd, hdf5_path)
        others: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for name, value in values.items():
            if name not in types and name != ENUM_NAMES:
                if is_told:
                    self._leave_out(f"{path}@{name}", str(value))
            elif len(name.encode()) > NAME_BYTES_MAX or (name in OURS and name in types):
                others[name] = value
            else:
                plain[name] = value
        made = plain | ({TYPES: types} if types else {}) | ({OTHERS: others} if others else {})
        for name in (TYPES, OTHERS):
            if name in made and len(msgpack.packb(made[name])) > ATTRIBUTE_BYTES_MAX:
                del made[name]
                if is_told:
                    what = "types of attributes" if name == TYPES else "attributes of long names"
                    self._leave_out(path, f"its {what}: together more than {ATTRIBUTE_BYTES_MAX} bytes")
        return made

    def _leave_out(self, name: str, reason: str) -> None:
        self._report.left_out.append((name or "/", reason))


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside ``folder``, which takes its place at the end, if all went well."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        partial.mkdir()
        yield partial
        if folder.is_dir():
            os.rename(folder, former)
        os.rename(partial, folder)
    except ZcatError:
        raise  # some of ours are OSErrors, too
    except OSError as error:
        raise storage_failed(f"writing {folder}", error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _write_nothing(target: Path, attributes: dict[str, Any]) -> None:
    """Write an array without items, for the sake of its attributes."""
    template = frame_template(geometry_of(ArrayGeometry((0,), (0,), (0,), "|u1", 1)), Compression(), attributes)
    header, tail = assemble_cframe(template, [])
    with replaced(target) as partial:
        partial.write_bytes(header + tail)


def _orders(items: list[Item]) -> dict[str, list[str]]:
    """Give the names of the links of each group that knows their order."""
    orders: dict[str, list[str]] = {item.path: [] for item in items if item.is_ordered}
    for item in items:
        folder, _, name = item.path.rpartition("/")
        if name and folder in orders:
            orders[folder].append(name)
    return orders


def _silent(name: str, done: int, total: int) -> None:
    pass
