"""``zcat up``: everything in one process, for one laptop or one experiment."""

import argparse
import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zcat.cli import flags, places, running, serve, settings
from zcat.cli.running import Ready
from zcat.cli.settings import Settings
from zcat.config import DEFAULT_BROKER
from zcat.errors import AddressInUse, BadName, BadRequest, CacheInUse, NotFound, RootUnknown
from zcat.names import check_root, shown

if TYPE_CHECKING:
    from zcat.services.subscriber import Subscriber

EXAMPLE = "example"
BROKER_LISTEN = "tcp://127.0.0.1:0"
"""Where `DEFAULT_BROKER` is taken."""
CATALOGUE_WAIT_S = 60.0
"""A large folder on a slow disk takes its time to be listed."""

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.+-]+")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "up",
        help="share folders and HDF5 files, and read them, all in one process",
        description="Run a broker, a publisher for each PATH, and a subscriber with its HTTP side, in one "
        "process. Without a PATH it makes and shares a small example.",
    )
    paths = parser.add_argument(
        "paths",
        nargs="*",
        metavar="[NAME=]PATH",
        help="folder or HDF5 file to share; without NAME= its own name is the root's",
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", help="where HTTP is answered; port 0 takes a free one [127.0.0.1:8000]"
    )
    state = parser.add_argument("--state", metavar="DIR", help="folder of owner keys, cache and example")
    flags.completes(paths, flags.FILE)
    flags.completes(state, flags.FOLDER)
    flags.add_config(parser)
    settings.add_set(parser, ["subscriber", "http", "publisher", "broker"])
    flags.add_log_level(parser)
    flags.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    try:
        return running.serve(lambda stack: start(stack, args), args.json)
    except CacheInUse as error:
        raise CacheInUse(f"{error.message}; '--state DIR' gives this 'zcat up' folders of its own") from None


def start(stack: contextlib.ExitStack, args: argparse.Namespace) -> Ready:
    """Start everything, wait until all roots can be read, and leave on the stack what stops it again."""
    from zcat.net.sockets import make_context
    from zcat.services.broker import Broker
    from zcat.services.publisher import Publisher
    from zcat.services.subscriber import Subscriber

    state = Path(args.state).expanduser().absolute() if args.state else places.state_folder()
    cache = str(state / "cache") if args.state else None
    found = Settings(args, "subscriber")
    http = found.http(args.http)
    shared = roots_of(args.paths) or {EXAMPLE: _example(state)}
    context = make_context()
    stack.callback(context.destroy, linger=0)
    try:  # the port that zcat.join and the other commands try first
        made = Broker(found.broker(listen=DEFAULT_BROKER), context)
    except AddressInUse:  # this host has a broker already, which is nobody's fault
        made = Broker(found.broker(listen=BROKER_LISTEN), context)
    broker = serve.started(stack, made)
    brokers = (broker.endpoints.listen,)
    for root, path in shared.items():
        its_state = str(state / "publishers" / root)
        config = found.publisher(root=root, path=str(path), brokers=brokers, state=its_state)
        serve.started(stack, Publisher(config, context))
    subscriber = serve.started(stack, Subscriber(found.subscriber(brokers=brokers, cache=cache), context))
    for root in shared:
        _follow(subscriber, root)
    return Ready("up", serve.start_http(stack, subscriber, http), brokers, tuple(shared))


def _follow(subscriber: "Subscriber", root: str) -> None:
    """Follow a root that is about to be announced, however busy this machine is."""
    deadline_s = time.monotonic() + CATALOGUE_WAIT_S
    while True:
        try:
            subscriber.follow(root, CATALOGUE_WAIT_S)
            return
        except RootUnknown:  # after a pause in which the broker was asked
            if time.monotonic() > deadline_s:
                raise


def roots_of(arguments: list[str]) -> dict[str, Path]:
    """Return the folder or HDF5 file of each root, by its name.

    Args:
        arguments: each ``PATH`` or ``NAME=PATH``; a path with an equals sign needs its name written.

    Raises:
        NotFound: there is no such folder or file.
        BadName: a name is not legal.
        BadRequest: two roots would have one name, or a path is empty.
    """
    roots: dict[str, Path] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or os.path.exists(argument):
            name, text = "", argument
        if not text:  # an unset variable of a script, which must not share whatever folder it runs in
            raise BadRequest(f"{shown(argument)} names no folder or file: write '.' for the current folder")
        path = Path(os.path.abspath(os.path.expanduser(text)))  # not resolved: a symbolic link's name is meant
        if not path.exists():
            raise NotFound(f"{shown(text)}: no such folder or file")
        root = check_root(name) if name else root_name(path)
        if root in roots:
            raise BadRequest(
                f"{roots[root]} and {path} would both be the root {root!r}: name one of them, as in NAME={text}"
            )
        roots[root] = path
    return roots


def root_name(path: Path) -> str:
    """Make a legal root name of the own name of a folder, or of a file without its suffix.

    Raises:
        BadName: nothing of it is legal.
    """
    name = _ILLEGAL.sub("-", path.stem if path.is_file() else path.name).strip("-._+")
    if not name:
        raise BadName(f"{path} gives no name for a root: write NAME={path}")
    return check_root(name)


def _example(state: Path) -> Path:
    from zcat.cli.example import make_example

    return make_example(state / EXAMPLE)
