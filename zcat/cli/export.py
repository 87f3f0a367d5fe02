"""``zcat export``: write a dataset, or a part of it, in a form that other programs read."""

import argparse
import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from zcat.cli import exits, flags
from zcat.cli.printing import size, text
from zcat.cli.selecting import PIECE_BYTES, Part, bytes_of, split_slice
from zcat.errors import BadRequest
from zcat.names import shown

if TYPE_CHECKING:
    from zcat.client.byte_frame import ByteFrame


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a dataset, or a part of it, as .b2nd, .npy, .csv or .raw",
        description="Write a dataset or a part of it, all of one version. The ending of LOCAL says how: .b2nd is "
        "a compact Blosc2 file, .npy is NumPy's, .csv has a line for each row of a table or of one or two "
        "dimensions, .raw has the items alone, in C order; of what has no axes, the bytes.",
    )
    parser.add_argument("address", metavar="ADDRESS[SLICE]", help="such as 'example/waves.b2nd[0]'")
    flags.completes(parser.add_argument("local", metavar="LOCAL", help="file to write"), flags.FILE)
    flags.add_reading(parser, has_json=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write it."""
    import zcat

    target = Path(args.local)
    if target.suffix not in WRITERS:
        raise BadRequest(f"{shown(args.local)}: wanted a file that ends in {', '.join(WRITERS)}")
    if target.exists() and not target.is_file():
        raise BadRequest(f"{shown(args.local)} is no file, and would be replaced by one; choose another path")
    if not target.parent.is_dir():
        raise BadRequest(f"{shown(args.local)}: its folder does not exist")
    address, inside = split_slice(args.address)
    with zcat.connect(flags.url_of(args)) as client:
        dataset = client.open(address).pin()
        if dataset.info.geometry.array is not None:
            WRITERS[target.suffix](Part(dataset, inside), target)  # type: ignore[arg-type]
        elif target.suffix == ".raw":
            _write_bytes(dataset, bytes_of(inside, dataset.nbytes), target)  # type: ignore[arg-type]
        else:
            raise BadRequest(
                f"{address} is a {dataset.kind.value}: 'zcat get' copies it, 'export' makes .raw of it"
            )
    print(f"{text(args.address)} -> {text(target)} ({size(target.stat().st_size)})")
    return exits.OK


def save_b2nd(part: Part, target: Path) -> None:
    """Write a compact Blosc2 file; a whole dataset keeps its chunks and blocks."""
    from zcat.storage.save import Layout, new_array

    geometry = part.array.info.geometry.array
    keeps = part.is_whole and geometry is not None and 0 not in part.shape
    chunks, blocks = (part.array.chunks, part.array.blocks) if keeps else (None, None)
    layout = Layout(part.shape, part.dtype, chunks, blocks, part.array.attrs)
    with new_array(target, layout) as array:
        # whole chunks, so that each is compressed and written once
        for box, items in part.boxes(array.chunks):
            array[box or ...] = items


def save_npy(part: Part, target: Path) -> None:
    """Write NumPy's own format."""
    from numpy.lib import format as npy

    with _new_file(target) as file:
        header = {"descr": npy.dtype_to_descr(part.dtype), "fortran_order": False, "shape": part.shape}
        try:
            npy.write_array_header_1_0(file, header)
        except ValueError:  # a table of very many fields
            npy.write_array_header_2_0(file, header)
        _write_items(part, file)


def save_raw(part: Part, target: Path) -> None:
    """Write the items alone, in C order, in the byte order of their dtype."""
    with _new_file(target) as file:
        _write_items(part, file)


def save_csv(part: Part, target: Path) -> None:
    """Write a line for each row; a table begins with the names of its fields.

    Raises:
        BadRequest: it has more dimensions than rows and columns, or fields with a shape of their own.
    """
    fields = part.dtype.names
    if len(part.shape) > (1 if fields else 2) or any(part.dtype[name].shape for name in fields or ()):
        wanted = "a table of one dimension" if fields else "one or two dimensions; name a slice"
        raise BadRequest(f".csv of shape {part.shape}, {part.dtype}: wanted {wanted}")
    with _new_file(target) as file, io.TextIOWrapper(file, "utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        if fields:
            writer.writerow(fields)
        columns = part.shape[1] if len(part.shape) == 2 else 1
        for _, items in part.boxes((1, columns)[: len(part.shape)]):
            rows = items.reshape(-1) if fields else items.reshape(-1, columns)
            writer.writerows([_cell(value) for value in row] for row in rows.tolist())


WRITERS: dict[str, Callable[[Part, Path], None]] = {
    ".b2nd": save_b2nd,
    ".npy": save_npy,
    ".csv": save_csv,
    ".raw": save_raw,
}


def _write_items(part: Part, file: BinaryIO) -> None:
    for _, items in part.boxes():
        file.write(items.tobytes())


def _write_bytes(frame: "ByteFrame", part: range, target: Path) -> None:
    with _new_file(target) as file:
        for start in part[::PIECE_BYTES]:
            file.write(frame.read(start, min(start + PIECE_BYTES, part.stop)))


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    from zcat.storage.save import replaced

    with replaced(target) as partial, partial.open("xb") as file:
        yield file


def _cell(value: object) -> object:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
