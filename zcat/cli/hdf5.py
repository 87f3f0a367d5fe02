"""``zcat import`` and ``zcat export-hdf5``: from HDF5 files to folders of Blosc2 files, and back."""

import argparse
import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags
from zcat.cli.printing import size, text, things
from zcat.errors import BadRequest, DatasetUnknown, NotFound, NotReadable, Unavailable, ZcatError
from zcat.names import shown, split_address

if TYPE_CHECKING:
    from zcat.client.backend import Listed
    from zcat.client.client import Client
    from zcat.storage.hdf5.export_file import Exporter

Progress = Callable[[str, int, int], None]


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser(
        "import",
        help="make a folder of .b2nd files of an HDF5 file",
        description="Make a folder of an HDF5 file: a .b2nd file for each dataset, a folder for each group, with "
        "all attributes and their types, so that 'zcat export-hdf5' can make the same file again.",
    )
    flags.completes(parser.add_argument("file", metavar="FILE", help="such as run.h5"), flags.FILE)
    flags.completes(parser.add_argument("folder", metavar="DIR", help="folder to make"), flags.FOLDER)
    parser.add_argument("--force", action="store_true", help="replace a folder that was made by 'zcat import'")
    flags.add_log_level(parser)
    parser.set_defaults(run=run_import)
    parser = commands.add_parser(
        "export-hdf5",
        help="make an HDF5 file of a folder or a root",
        description="Make an HDF5 file of a folder of .b2nd files on this machine, or of a root, a folder or a "
        "dataset at a subscriber. Datasets are compressed by HDF5's Blosc2 filter (number 32026).",
    )
    source = parser.add_argument("source", metavar="ADDRESS|DIR", help="a folder here, or such as 'example'")
    flags.completes(source, flags.FOLDER)
    flags.completes(parser.add_argument("file", metavar="FILE", help="HDF5 file to write"), flags.FILE)
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    flags.add_reading(parser, has_json=False)
    parser.set_defaults(run=run_export)


def run_import(args: argparse.Namespace) -> int:
    """Make the folder."""
    if not os.path.exists(args.file):
        raise NotFound(f"{shown(args.file)}: no such file")
    from zcat.storage.hdf5.import_file import import_file

    with _progress() as progress:
        report = import_file(Path(args.file), Path(args.folder), force=args.force, progress=progress)
    _print_left_out(report.left_out)
    print(f"{text(args.file)} -> {text(args.folder)} ({things(report.datasets, 'dataset')})")
    return exits.OK if report.datasets or not report.left_out else exits.CONTENT


def run_export(args: argparse.Namespace) -> int:
    """Make the file."""
    target = Path(args.file)
    if not target.parent.is_dir():
        raise BadRequest(f"{shown(args.file)}: its folder does not exist")
    if os.path.lexists(target) and not (args.force and target.is_file()):
        advice = "--force replaces it" if target.is_file() else "choose another name"
        raise BadRequest(f"{shown(args.file)} exists; {advice}")
    from zcat.storage.hdf5.export_file import Exporter, export_folder

    with Exporter(target) as exporter, _progress() as progress:
        if os.path.isdir(args.source):
            export_folder(Path(args.source), exporter, progress)
        else:
            _export_address(args, exporter, progress)
        if exporter.left_out and not exporter.datasets:
            name, reason = exporter.left_out[0]
            raise NotReadable(f"{shown(args.source)}: nothing in it can be written; {shown(name)}: {reason}")
    _print_left_out(exporter.left_out)
    told = f"{things(exporter.datasets, 'dataset')}, {size(target.stat().st_size)}"
    print(f"{text(args.source)} -> {text(target)} ({told})")
    return exits.OK


def _export_address(args: argparse.Namespace, exporter: "Exporter", progress: Progress) -> None:
    """Fetch one dataset after the other, each into a file for a while, and write it."""
    import zcat

    root, under = split_address(args.source)
    beside = Path(args.file).parent  # there is room for large things, if anywhere
    with (
        zcat.connect(flags.url_of(args)) as client,
        tempfile.TemporaryDirectory(dir=beside, prefix=".zcat-") as scratch,
    ):
        listed = client.list(args.source)
        if not listed:
            if under:
                raise DatasetUnknown(f"{shown(args.source)}: neither a folder here nor anything at a subscriber")
            client.root(root)
        fetched = _Fetched(client, root, Path(scratch) / "fetched")
        fetched.export(listed, under, exporter, progress)


class _Fetched:
    """What is copied from a subscriber into an HDF5 file."""

    def __init__(self, client: "Client", root: str, scratch: Path) -> None:
        self._client = client
        self._root = root
        self._scratch = scratch
        self._groups: set[str] = set()

    def export(self, listed: "list[Listed]", under: str, exporter: "Exporter", progress: Progress) -> None:
        from zcat.model.dataset import Kind
        from zcat.storage.hdf5.export_file import read_group
        from zcat.storage.hdf5.import_file import GROUP, LINKS, SUFFIX

        links: Any = None
        # each group before what is in it, with what an import noted of it
        for entry in sorted(listed, key=lambda entry: entry.path.rpartition("/")[2] != GROUP):
            inside = entry.path.removeprefix(f"{under}/" if under else "")
            if entry.path == under:  # the dataset itself
                inside = entry.path.rpartition("/")[2]
            if entry.problem is not None or entry.kind is not Kind.ARRAY:
                exporter.left_out.append((inside, entry.problem or "no array"))
                continue
            folder, _, name = inside.rpartition("/")
            if name == GROUP:
                self._groups.add(folder)
            else:
                self._make_groups(under, folder, exporter)
            try:
                self._client.open(f"{self._root}/{entry.path}").download(self._scratch, resume=False)
                if name == GROUP:
                    attributes = read_group(self._scratch)
                    links = attributes.pop(LINKS, None) if not folder else links
                    exporter.group(folder, attributes)
                else:
                    path = inside.removesuffix(SUFFIX)
                    exporter.array(path, self._scratch, functools.partial(progress, path))
            except (Unavailable, NotFound):
                raise
            except ZcatError as error:
                exporter.left_out.append((inside, error.message))
        exporter.links(links)

    def _make_groups(self, under: str, folder: str, exporter: "Exporter") -> None:
        """Make the groups on the way to a dataset, with what attributes they have at the subscriber."""
        parts = folder.split("/") if folder else []
        for count in range(len(parts) + 1):
            inside = "/".join(parts[:count])
            if inside in self._groups:
                continue
            self._groups.add(inside)
            path = "/".join(filter(None, (under, inside)))
            attributes: dict[str, Any] = {}
            with contextlib.suppress(DatasetUnknown):
                attributes = self._client.root(self._root).attributes(path)
            exporter.group(inside, attributes)


def _print_left_out(left_out: list[tuple[str, str]]) -> None:
    for name, reason in left_out:
        print(f"zcat: left out {text(name)}: {text(reason)}", file=sys.stderr)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Draw a bar, if somebody watches."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(
            task, description=escape(text(name)), completed=done, total=total
        )
