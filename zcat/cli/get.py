"""``zcat get``: copy datasets, folders and roots to this machine."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags
from zcat.cli.journal import Journal
from zcat.cli.printing import size, text
from zcat.errors import (
    BadChunk,
    BadContent,
    BadRequest,
    DatasetUnknown,
    NotReadable,
    StorageFailed,
    Unavailable,
    ZcatError,
)
from zcat.names import check_path, parse_root, shown, split_address

if TYPE_CHECKING:
    from zcat.client.client import Client
    from zcat.client.dataset import Dataset

ATTEMPTS_MAX = 4
"""Each goes on where the one before was cut off."""

Progress = Callable[[int, int], None]


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "get",
        help="copy a dataset, a folder or a root to this machine",
        description="Copy a dataset, or all of a folder or a root: into LOCAL if that is a folder that exists, "
        "else under that name. Arrays become .b2nd files; of an HDF5 file in a folder, the file itself is copied. "
        "What was interrupted goes on when the same command is called again.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="such as example/waves.b2nd, or example")
    local = parser.add_argument("local", nargs="?", default=".", metavar="LOCAL", help="file or folder [here]")
    flags.completes(local, flags.FILE)
    flags.add_reading(parser, has_json=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy it."""
    import zcat

    _, path = split_address(args.address)
    with zcat.connect(flags.url_of(args)) as client:
        if path:
            with contextlib.suppress(DatasetUnknown):
                dataset = client.open(args.address)
                _get_dataset(dataset, _target(dataset, args.local))
                return exits.OK
        return _get_folder(client, args.address, Path(args.local))


def _get_folder(client: "Client", address: str, local: Path) -> int:
    """Copy all under an address; what cannot be read is named and left out."""
    root, under = split_address(address)
    listed = client.list(address)
    if not listed and under:
        advice = (
            "'zcat export' writes a part" if address.endswith("]") else f"'zcat ls {root}' lists what there is"
        )
        raise DatasetUnknown(f"{shown(address)}: neither a folder nor a dataset; {advice}")
    folder, journal = _place(local, under.rpartition("/")[2] or parse_root(root)[0], f"{root}/{under}")
    paths = {entry.path for entry in listed}
    status = exits.OK
    for entry in listed:
        if any(str(above) in paths for above in PurePosixPath(entry.path).parents):
            continue  # of an HDF5 file, which is a file and a folder, and has it all
        if entry.problem is not None:
            status = _leave_out(entry.path, NotReadable(entry.problem))
            continue
        # SAFETY: the names come from elsewhere, and become files here
        target = folder / check_path(entry.path).removeprefix(f"{under}/" if under else "")
        try:
            dataset = client.open(f"{root}/{entry.path}")
            if str(PurePosixPath(entry.path).with_name(dataset.file_name)) not in paths:
                target = target.with_name(dataset.file_name)
            if not journal.has(entry.path, dataset.version) or not target.is_file():
                _make_folder(target.parent)
                journal.begin()
                _get_dataset(dataset, target)
                journal.add(entry.path, dataset.version)
        except (DatasetUnknown, NotReadable, BadContent, BadChunk) as error:  # the others are as good as before
            status = _leave_out(entry.path, error)
    journal.complete()
    return status


def _place(local: Path, name: str, address: str) -> tuple[Path, Journal]:
    """Return where to copy: to ``local`` if that is new, or a copy to it was cut off; else to a folder in it."""
    journal = Journal(local, address)
    if local.is_dir() and not journal.is_under_way:
        return local / name, Journal(local / name, address)
    return local, journal


def _leave_out(path: str, error: ZcatError) -> int:
    print(f"zcat: left out {text(path)}: {text(error.message)}", file=sys.stderr)
    return exits.status_of(error)


def _get_dataset(dataset: "Dataset", target: Path) -> None:
    with _progress(dataset.name) as progress:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                dataset.download(target, progress=progress)
                break
            except Unavailable as error:
                if attempt == ATTEMPTS_MAX:
                    raise type(error)(f"{error.message}; the same command goes on from here") from None
    print(f"{text(dataset.address)} -> {text(target)} ({size(target.stat().st_size)})")


def _target(dataset: "Dataset", local: str) -> Path:
    target = Path(local)
    if target.is_dir():
        return target / dataset.file_name
    if local.endswith("/") or not target.parent.is_dir():
        raise BadRequest(f"{shown(local)}: its folder does not exist")
    return target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"{folder}: {error.strerror}") from error


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """Draw a bar, if somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(text(name)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
