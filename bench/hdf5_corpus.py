"""Are the HDF5 files that others made offered, and with the right values?

Takes folders, such as the packages of an environment in which projects ship their test files. Each HDF5 file in
them that is not the copy of another is offered as a root of its own, the way a publisher would, and what is in it
is read and compared with what h5py reads.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import h5py
import hdf5plugin  # noqa: F401 # the filters, for h5py
import numpy as np

from bench import report
from zcat.errors import ZcatError
from zcat.limits import GIB, MIB
from zcat.model.dataset import Entry, Kind
from zcat.model.dtypes import parse_dtype
from zcat.model.selection import Selection
from zcat.storage.byte_frames import ByteFrames
from zcat.storage.digests import Digests
from zcat.storage.directory_root import DirectoryTimes
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.hdf5.hdf5_file import Tools
from zcat.storage.hdf5.hdf5_files import Hdf5Files, has_signature
from zcat.storage.hdf5.hdf5_root import Hdf5Root
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.reference_paths import NOTHING
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.reading import LooseChunks, read_selection

OWNER = "ab" * 16
REASONS_MAX = 3
"""In a line of the table; JSON has all."""


@dataclass
class Result:
    """What came of one file."""

    file: str
    as_they_are: int = 0
    """Datasets that are offered in the type that h5py gives them."""
    otherwise: int = 0
    """Datasets that are offered in another form, and say so."""
    refused: int = 0
    """Names that are listed with a reason."""
    nobodys: int = 0
    """Datasets that are offered, and damaged where their values are: nor does h5py read them."""
    cut: int = 0
    """Datasets of which only the beginning was compared."""
    reasons: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    """Why nothing of the file is offered."""
    h5py_too: bool = True
    """Whether h5py opens the file."""
    wrong: list[str] = field(default_factory=list)
    """What is not equal, not listed, or not readable though it is offered."""


def hdf5_files(folder: Path, seen: set[bytes]) -> Iterator[Path]:
    """Give the HDF5 files below a folder, by signature, none twice; ``seen`` has digests of what they hold."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(where, name) for name in sorted(names)):
            if path.is_symlink() or not path.is_file():
                continue
            with open(path, "rb") as file:
                if not has_signature(file.fileno()):
                    continue
                content = blake3.blake3(file.read()).digest()
            if content not in seen:
                seen.add(content)
                yield path


def tried(path: Path, name: str, limit_bytes: int) -> Result:
    """Offer a file, and compare."""
    result = Result(name)
    with tempfile.TemporaryDirectory(prefix="zcat-corpus-") as room:
        copy = Path(room, "root", path.name)  # alone in its folder, as a root of one file may not be
        copy.parent.mkdir()
        shutil.copyfile(path, copy)
        kept = ByteFrames(Path(room, "converted"), DiskLimits(GIB, reserve_bytes=0), "corpus", OWNER)
        files = Hdf5Files(Tools(OWNER, Sandbox(1), kept, Digests()), Path(room, "inventories"))
        try:
            root = Hdf5Root(copy, OWNER, kept, DirectoryTimes(settle_s=0), files)
        except ZcatError as error:
            result.problem, result.h5py_too = error.message, h5py.is_hdf5(path)
            files.close()
            kept.close()
            return result
        entries = {change.path: change.entry for change in root.look(None, {}).changes if change.entry}
        held = files.file(path.name)
        if held is None:
            attributes = files.attributes(path.name)
            result.problem = str(attributes.get("unreadable", "not looked into"))
        try:
            with h5py.File(path, "r") as file:
                if held is not None:
                    _compare_file(root, entries, dict(held.inventory.items), file, limit_bytes, result)
        except OSError:
            result.h5py_too = False
        root.close()
    return result


def _compare_file(
    root: Hdf5Root,
    entries: dict[str, Entry],
    items: dict[str, Item],
    file: h5py.File,
    limit_bytes: int,
    result: Result,
) -> None:
    listed = {item.hdf5_path for item in items.values()}
    result.wrong += [f"{name}: not listed" for name in _visited(file) if name not in listed]
    for path, item in items.items():
        entry = entries.get(path)
        problem = item.problem if entry is None else entry.problem
        if problem is not None:
            result.refused += 1
            result.reasons[problem] += 1
        elif entry is not None:
            try:
                if entry.kind is Kind.GROUP:
                    root.info(path)  # it has attributes to read
                    continue
                result.as_they_are += item.note is None
                result.otherwise += item.note is not None
                difference, is_cut = _compared(root, entry, file[item.hdf5_path], limit_bytes)
            except ZcatError as error:
                difference, is_cut = f"{error.code}: {error.message}", False
                if entry.kind is Kind.ARRAY and not _is_readable(file[item.hdf5_path]):
                    result.nobodys += 1
                    result.reasons[difference] += 1
                    continue
            result.cut += is_cut
            if difference is not None:
                result.wrong.append(f"{path}: {difference}")


def _visited(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(lambda name: names.append(f"/{name}"))
    return names


def _compared(root: Hdf5Root, entry: Entry, dataset: h5py.Dataset, limit_bytes: int) -> tuple[str | None, bool]:
    """Say what is different in a dataset, if anything is; and whether only its beginning was compared."""
    info = root.info(entry.path)
    array = info.geometry.array
    assert array is not None
    rows, is_cut = array.shape[0] if array.shape else 1, False
    if array.shape and entry.nbytes > limit_bytes:
        rows, is_cut = max(1, rows * limit_bytes // entry.nbytes), True
    needed = info.geometry.nchunks
    if is_cut:
        needed = -(-rows // array.chunks[0]) * math.prod(array.grid[1:])
    chunks = {number: root.chunk(entry.path, info.entry.lineage, number).data for number in range(needed)}
    shape = (rows, *array.shape[1:]) if array.shape else ()
    got = read_selection(LooseChunks(info, chunks), Selection(tuple(map(range, shape))))
    wanted: np.ndarray = np.zeros(dataset.shape, dataset.dtype)  # what was never written may be left as it is
    if array.shape:
        wanted = dataset[:rows]
    elif dataset.dtype.hasobject and dataset.dtype.names is None:
        wanted[()] = dataset[()]
    else:  # h5py cuts a single text where NULs follow
        dataset.read_direct(wanted)
    if got.dtype != parse_dtype(array.dtype):
        return f"read as {got.dtype}, described as {array.dtype}", is_cut
    return _difference(got, wanted, dataset.file), is_cut


def _is_readable(dataset: h5py.Dataset) -> bool:
    try:
        dataset[()]
    except (OSError, RuntimeError, ValueError):
        return False
    return True


def _difference(got: np.ndarray, wanted: np.ndarray, file: h5py.File) -> str | None:
    """Compare values, bit by bit; text of variable length, and paths, with bytes that are filled up."""
    if got.shape != wanted.shape:
        return f"shape {got.shape}, h5py has {wanted.shape}"
    if wanted.dtype.names is not None:
        if got.dtype.names != wanted.dtype.names:
            return f"fields {got.dtype.names}, h5py has {wanted.dtype.names}"
        found = (_difference(got[name], wanted[name], file) for name in wanted.dtype.names)
        return next((one for one in found if one is not None), None)
    if h5py.check_ref_dtype(wanted.dtype) is not None:
        pairs = zip(got.reshape(-1).tolist(), wanted.flat, strict=True)
        return None if all(_is_path_of(path, reference, file) for path, reference in pairs) else "other references"
    if wanted.dtype.hasobject:
        texts = [_as_bytes(text).rstrip(b"\0") for text in wanted.flat]
        return None if got.reshape(-1).tolist() == texts else "other text"
    if wanted.dtype.kind != "M" and got.dtype != np.dtype(wanted.dtype.str):
        return f"dtype {got.dtype}, h5py has {wanted.dtype}"
    return None if got.tobytes() == wanted.tobytes() else "other values"


def _is_path_of(path: bytes, reference: h5py.Reference, file: h5py.File) -> bool:
    if not reference:
        return path == b""
    try:
        found = file[reference]
    except (ValueError, RuntimeError, KeyError):
        return path == NOTHING
    return path != NOTHING and bool(file[path] == found)


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def summary(results: list[Result]) -> dict[str, int]:
    """Count."""
    opened = [one for one in results if one.problem is None]
    return {
        "files": len(results),
        "files offered whole": sum(not one.refused for one in opened),
        "files offered but for some names": sum(bool(one.refused) for one in opened),
        "files refused": len(results) - len(opened),
        "files refused that h5py opens": sum(one.problem is not None and one.h5py_too for one in results),
        "datasets offered as they are": sum(one.as_they_are for one in results),
        "datasets offered in another form": sum(one.otherwise for one in results),
        "names refused": sum(one.refused for one in results),
        "datasets that nor h5py reads": sum(one.nobodys for one in results),
        "datasets compared in part": sum(one.cut for one in results),
        "mismatches": sum(len(one.wrong) for one in results),
    }


def _line(one: Result) -> dict[str, Any]:
    reasons = [f"{count} x {reason}" for reason, count in one.reasons.most_common(REASONS_MAX)]
    if len(one.reasons) > REASONS_MAX:
        reasons.append(f"{len(one.reasons) - REASONS_MAX} other reasons")
    if one.problem is not None:
        reasons = [one.problem, "h5py opens it" if one.h5py_too else "nor does h5py open it"]
    equal = "-" if one.problem is not None else "no" if one.wrong else "yes"
    counts = {"as they are": one.as_they_are, "otherwise": one.otherwise, "refused": one.refused}
    return {"file": one.file, **counts, "equal": equal, "reasons": "; ".join(reasons)}


def main() -> int:
    """Try all and print; give the exit code: 1 if anything is not equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="where to look for HDF5 files")
    parser.add_argument("--limit", type=int, default=64, help="MiB of each dataset to compare (default: 64)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    results, seen = [], set[bytes]()
    for folder in args.folders:
        for path in hdf5_files(folder, seen):
            name = str(path.relative_to(folder))
            report.progress(name)
            results.append(tried(path, name, args.limit * MIB))
    counts = summary(results)
    if args.json:
        print(json.dumps({"summary": counts, "files": [vars(one) for one in results]}, indent=1))
    else:
        report.print_table([_line(one) for one in results])
        print()
        for one in results:
            for wrong in one.wrong:
                print(f"{one.file}: {wrong}")
        print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 1 if counts["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
