"""``zcat roots``, ``follow``, ``unfollow``, ``ls``, ``tree`` and ``info``: what there is."""

import argparse
import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags
from zcat.cli.printing import count, print_json, print_table, shape, size, text, things, time, yes
from zcat.errors import DatasetUnknown
from zcat.names import OWNER_HEX_SHOWN, parse_root, shown, split_address

if TYPE_CHECKING:
    from zcat.client.backend import Listed
    from zcat.client.client import Client
    from zcat.client.dataset import Dataset

CODECS = ("blosclz", "lz4", "lz4hc", "none", "zlib", "zstd")
DTYPE_WIDTH_MAX = 16
FILTERS = {1: "shuffle", 2: "bitshuffle", 3: "delta", 4: "trunc_prec"}


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    roots = commands.add_parser("roots", help="list the roots that are known", description="List all known roots.")
    flags.add_reading(roots)
    roots.set_defaults(run=run_roots)
    for name, run, words in (
        ("follow", run_follow, "let the subscriber follow a root"),
        ("unfollow", run_unfollow, "let the subscriber forget a root"),
    ):
        parser = commands.add_parser(name, help=words, description=f"{words.capitalize()}.")
        parser.add_argument("root", metavar="ROOT", help="name, or name@owner where several publishers claim it")
        flags.add_reading(parser)
        parser.set_defaults(run=run)

    listing = commands.add_parser(
        "ls",
        help="list a root or a folder",
        description="List what is in a root or a folder; names that end in a slash are folders.",
    )
    _add_address(listing, "ROOT[/PATH]")
    listing.add_argument("-l", "--long", action="store_true", help="with shapes, types and sizes")
    listing.add_argument("-r", "--recursive", action="store_true", help="with what is in folders, instead of them")
    flags.add_reading(listing)
    listing.set_defaults(run=run_ls)

    tree = commands.add_parser(
        "tree", help="draw a root or a folder as a tree", description="Draw a root or a folder as a tree."
    )
    _add_address(tree, "ROOT[/PATH]")
    flags.add_reading(tree)
    tree.set_defaults(run=run_tree)

    info = commands.add_parser(
        "info",
        help="tell all about a dataset, a folder or a root",
        description="Tell all that is known of a dataset, a folder or a root.",
    )
    _add_address(info, "ADDRESS")
    flags.add_reading(info)
    info.set_defaults(run=run_info)


def run_roots(args: argparse.Namespace) -> int:
    """List all roots."""
    with _client(args) as client:
        rows = [
            {
                "name": root.name,
                "state": root.state,
                "followed": root.followed,
                "current": root.synced,
                "datasets": len(root) if root.followed else None,
                "owner": root.owner if args.json else (root.owner or "")[:OWNER_HEX_SHOWN] or None,
            }
            for root in client.roots()
        ]
    columns = {"name": text, "state": text, "followed": yes, "current": yes, "datasets": count, "owner": text}
    print_json(rows) if args.json else print_table(rows, columns)
    return exits.OK


def run_follow(args: argparse.Namespace) -> int:
    """Follow a root."""
    parse_root(args.root)
    with _client(args) as client:
        root = client.follow(args.root)
        listed = root.list()
        told = {"name": root.name, "owner": root.owner, "followed": True, "datasets": len(listed)}
    print_json(told) if args.json else print(f"following {root.name}: {things(len(listed), 'dataset')}")
    return exits.OK


def run_unfollow(args: argparse.Namespace) -> int:
    """Follow a root no longer."""
    parse_root(args.root)
    with _client(args) as client:
        client.unfollow(args.root)
    told = {"name": args.root, "followed": False}
    print_json(told) if args.json else print(f"no longer following {args.root}")
    return exits.OK


def run_ls(args: argparse.Namespace) -> int:
    """List one level of a folder, or all of it."""
    _, under = split_address(args.address)
    with _client(args) as client:
        listed = _listed(client, args.address)
    rows = [_row(entry, _below(entry.path, under)) for entry in listed]
    if not args.recursive:
        rows = _one_level(rows)
    if args.json:
        print_json(rows)
    elif args.long:
        print_table(rows, _COLUMNS)
    else:
        for row in rows:
            print(text(row["path"]))
    for entry in listed:
        if entry.problem and args.long and not args.json:
            print(f"not readable: {text(entry.path)}: {text(entry.problem)}")
    return exits.OK


def run_tree(args: argparse.Namespace) -> int:
    """Draw a tree."""
    name, under = split_address(args.address)
    with _client(args) as client:
        listed = _listed(client, args.address)
        if args.json:
            print_json(_nested([_row(entry, _below(entry.path, under)) for entry in listed]))
            return exits.OK
        print("\n".join(map(text, client.root(name).tree(under).split("\n"))))
    return exits.OK


def run_info(args: argparse.Namespace) -> int:
    """Tell about one thing."""
    _, path = split_address(args.address)
    with _client(args) as client:
        try:
            told = (
                _told_of_folder(client, args.address) if not path else _told_of_dataset(client.open(args.address))
            )
        except DatasetUnknown:
            told = _told_of_folder(client, args.address)
    if args.json:
        print_json(told)
        return exits.OK
    attributes = told.pop("attributes", {})
    width = max(map(len, told))
    for name, value in told.items():
        print(f"{name:<{width}}  {text(_readable(name, value))}")
    if attributes:
        print("attributes")
        width = max(len(text(name)) for name in attributes)
        for name, value in attributes.items():
            print(f"  {text(name):<{width}}  {text(value)}")
    return exits.OK


def _client(args: argparse.Namespace) -> "Client":
    import zcat

    return zcat.connect(flags.url_of(args))


def _add_address(parser: argparse.ArgumentParser, metavar: str) -> None:
    parser.add_argument("address", metavar=metavar, help="such as example/waves.b2nd")


def _listed(client: "Client", address: str) -> "Sequence[Listed]":
    """List what is at an address.

    Raises:
        DatasetUnknown: there is nothing, and it is neither a root nor a group of an HDF5 file, which may be empty.
    """
    listed = client.list(address)
    root, under = split_address(address)
    if not listed and under:
        try:
            client.root(root).attributes(under)
        except DatasetUnknown:
            advice = f"'zcat ls {root}' lists what there is"
            raise DatasetUnknown(f"{shown(address)}: neither a folder nor a dataset; {advice}") from None
    return listed


def _below(path: str, under: str) -> str:
    """Return a path relative to a folder; of the dataset that was itself named, its name."""
    return (
        path.removeprefix(f"{under}/") if under and path != under else path.rpartition("/")[2] if under else path
    )


def _row(entry: "Listed", path: str) -> dict[str, Any]:
    return {
        "path": path,
        "kind": entry.kind.value,
        "shape": entry.shape,
        "dtype": entry.dtype and _dtype(entry.dtype),
        "size": entry.nbytes,
        "stored": entry.cbytes,
        "modified": _time(entry.mtime_ns),
        "problem": entry.problem,
    }


def _one_level(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gather rows into one for each folder of the first level."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, slash, _ = row["path"].partition("/")
        if not slash:
            found[name] = row
            continue
        folder = found.setdefault(
            f"{name}/",
            {**dict.fromkeys(row), "path": f"{name}/", "kind": "folder", "size": 0, "stored": 0, "modified": ""},
        )
        folder["size"] += row["size"]
        folder["stored"] += row["stored"]
        folder["modified"] = max(folder["modified"], row["modified"])
    return [found[name] for name in sorted(found)]


def _nested(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make of rows a tree: each folder has its name and its ``children``."""
    tree: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: str(row["path"])):
        *folders, name = row.pop("path").split("/")
        level = tree
        for folder in folders:
            if not level or level[-1]["name"] != folder:  # in order of path, so it is the last one or new
                level.append({"name": folder, "kind": "folder"})
            level = level[-1].setdefault("children", [])
        level.append({"name": name, **row})
    return tree


def _told_of_dataset(dataset: "Dataset") -> dict[str, Any]:
    info = dataset.info
    geometry, array = info.geometry, info.geometry.array
    codec = info.compression.codec
    filters = [FILTERS.get(number, str(number)) for number in info.compression.filters if number]
    return {
        "address": dataset.address,
        "kind": dataset.kind.value,
        **({"shape": array.shape, "dtype": _dtype(array.dtype)} if array else {}),
        **({"chunks": array.chunks, "blocks": array.blocks} if array else {}),
        "nchunks": geometry.nchunks,
        "chunksize": geometry.chunksize,
        "size": dataset.nbytes,
        "stored": dataset.cbytes,
        "codec": CODECS[codec] if codec < len(CODECS) else str(codec),
        "clevel": info.compression.clevel,
        "filters": filters,
        "modified": _time(info.entry.mtime_ns),
        "version": dataset.version,
        "attributes": dict(info.attributes),
    }


def _told_of_folder(client: "Client", address: str) -> dict[str, Any]:
    name, under = split_address(address)
    listed = _listed(client, address)
    told: dict[str, Any] = {"address": address, "kind": "folder" if under else "root"}
    root = client.root(name)
    if not under:
        told |= {"owner": root.owner, "state": root.state, "current": root.synced}
    return told | {
        "datasets": len(listed),
        "size": sum(entry.nbytes for entry in listed),
        "stored": sum(entry.cbytes for entry in listed),
        "modified": max((_time(entry.mtime_ns) for entry in listed), default=None),
        **({"attributes": attributes} if (attributes := root.attributes(under)) else {}),
    }


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("shape", "chunks", "blocks"):
        return shape(value)
    if name in ("size", "stored", "chunksize"):
        return f"{size(value)} ({value} bytes)" if value >= 1000 else f"{value} bytes"
    if isinstance(value, bool):
        return yes(value)
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _dtype(descr: str) -> str:
    """Write a dtype as NumPy does: ``float32``; of a table, its fields."""
    from zcat.model.dtypes import parse_dtype

    return str(parse_dtype(descr))


def _short(dtype: str) -> str:
    return text(dtype if len(dtype) <= DTYPE_WIDTH_MAX else dtype[: DTYPE_WIDTH_MAX - 1] + "…")


_COLUMNS: dict[str, Callable[[Any], str]] = {
    **{"kind": text, "shape": shape, "dtype": _short, "size": size, "stored": size},
    **{"modified": time, "path": text},
}


def _time(mtime_ns: int) -> str:
    at = datetime.datetime.fromtimestamp(mtime_ns // 1_000_000_000, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
