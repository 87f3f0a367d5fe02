"""``zcat show``: a dataset, or a part of it, as text."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags
from zcat.cli.printing import lines, size, text
from zcat.cli.selecting import bytes_of, key_of, split_slice
from zcat.errors import BadRequest, BadSelection

if TYPE_CHECKING:
    from zcat.client.array import Array
    from zcat.client.byte_frame import ByteFrame

ITEMS_MAX = 1000
"""More items than this are summarised, as NumPy does."""
EDGE_ITEMS = 3
TEXT_BYTES_MAX = 1 << 20
HEX_BYTES_MAX = 512
_HEX_BYTES_PER_LINE = 16


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "show",
        help="print a dataset, or a part of it",
        description="Print a dataset or a part of it. Of a large one, only what is printed is fetched.",
    )
    parser.add_argument("address", metavar="ADDRESS[SLICE]", help="such as 'example/waves.b2nd[0, ::32, :5]'")
    parser.add_argument("--field", metavar="NAME", help="of a structured dataset, print this field alone")
    parser.add_argument(
        "--fit", metavar="SIZES", help="made small: at most so many items along the last axes, such as 20x10"
    )
    parser.add_argument("--reduce", metavar="HOW", help="with --fit: mean, min, max or stride [mean]")
    parser.add_argument("--all", action="store_true", help="print every item, however many there are")
    flags.add_reading(parser, has_json=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    import zcat

    address, inside = split_slice(args.address)
    if args.reduce is not None and args.fit is None:
        raise BadRequest(f"--reduce {args.reduce} says how, and --fit SIZES to what; wanted both, or none")
    with zcat.connect(flags.url_of(args)) as client:
        dataset = client.open(address)
        if dataset.info.geometry.array is not None and args.fit is not None:
            print(_preview_text(dataset, inside, args))  # type: ignore[arg-type]
        elif dataset.info.geometry.array is not None:
            print(array_text(dataset, inside, args.field, args.all))  # type: ignore[arg-type]
        elif args.field is not None or args.fit is not None:
            raise BadRequest(f"{address} has no fields, and cannot be made small: it is a {dataset.kind.value}")
        else:
            _print_bytes(dataset, inside, args.all)  # type: ignore[arg-type]
    return exits.OK


def array_text(array: "Array", inside: str | None, field: str | None, is_all: bool = False) -> str:
    """Return a part of an array as NumPy prints it.

    Args:
        array: the dataset.
        inside: the slice as text; None for all of it.
        field: the only one to print.
        is_all: summarise nothing.

    Raises:
        BadSelection: the slice or the field does not fit.
    """
    import numpy as np

    from zcat.model.selection import Selection, parse_key

    if field is not None and array.dtype.names is None:
        raise BadSelection(f"there is no field {field!r}: its items are {array.dtype}, and have no fields")
    read = parse_key(key_of(inside, array.shape), array.shape)
    assert isinstance(read.what, Selection)  # a text has no lists of indices
    is_summary = read.what.size > ITEMS_MAX and not is_all
    # PERF: NumPy shows the edges of each long axis; so the edges, and one item between them, print the same
    axes: list[Any] = [_edges(axis) if is_summary else axis for axis in read.what.axes]
    key = np.ix_(*[np.asarray(axis, np.int64) for axis in axes]) if is_summary else (*map(_slice, axes),)
    block = array[(field, *key) if field is not None else key or ...]
    part = read.finish(np.asarray(block))
    if not isinstance(part, np.ndarray):
        return lines(str(part))
    threshold = 0 if is_summary else sys.maxsize
    return lines(np.array2string(part, threshold=threshold, edgeitems=EDGE_ITEMS, max_line_width=100))


def _preview_text(array: "Array", inside: str | None, args: argparse.Namespace) -> str:
    import numpy as np

    key = key_of(inside, array.shape) or ...
    small = array.preview(key, fit=args.fit, reduce=args.reduce or "mean", field=args.field)
    if not small.exact:
        print(f"zcat: a sample: {small.chunks} of {small.chunks_of} chunks were read", file=sys.stderr)
    is_summary = small.values.size > ITEMS_MAX and not args.all
    threshold = 0 if is_summary else sys.maxsize
    return lines(np.array2string(small.values, threshold=threshold, edgeitems=EDGE_ITEMS, max_line_width=100))


def _edges(axis: Any) -> Any:
    length = len(axis)
    if length <= 2 * EDGE_ITEMS + 1:
        return axis
    return [axis[at] for at in (*range(EDGE_ITEMS), length // 2, *range(length - EDGE_ITEMS, length))]


def _slice(axis: range) -> slice:
    return slice(axis.start, axis.stop, axis.step)


def _print_bytes(frame: "ByteFrame", inside: str | None, is_all: bool) -> None:
    asked = bytes_of(inside, frame.nbytes)
    part = asked if is_all else asked[:TEXT_BYTES_MAX]
    shown = frame.read(part.start, part.stop) if part else b""
    words = _as_text(shown)
    if words is None and not is_all:
        shown = shown[:HEX_BYTES_MAX]
    print((lines(words) if words is not None else _as_hex(shown, part.start)).removesuffix("\n"))
    left = len(asked) - len(shown)
    if left > 0:
        what = f"{size(left)} more of {text(frame.address)}: 'zcat get' copies it, --all prints it"
        print(f"zcat: {what}", file=sys.stderr)


def _as_text(data: bytes) -> str | None:
    """Return bytes as text, if that is what they are; the last letter may be cut."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode() if error.start >= len(data) - 3 and error.start else None


def _as_hex(data: bytes, start: int) -> str:
    rows = range(0, len(data), _HEX_BYTES_PER_LINE)
    return "\n".join(_hex_line(start + at, data[at : at + _HEX_BYTES_PER_LINE]) for at in rows)


def _hex_line(at: int, piece: bytes) -> str:
    letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
    return f"{at:08x}  {piece.hex(' '):<{3 * _HEX_BYTES_PER_LINE}} {letters}"
