"""``zcat broker``, ``zcat publish`` and ``zcat subscribe``: one kind of service in a process."""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from zcat.cli import flags, running, settings
from zcat.cli.running import Ready
from zcat.cli.settings import Settings
from zcat.config import HttpConfig
from zcat.errors import AddressInUse, BadRequest, NotFound
from zcat.names import shown

LOG_LEVEL = "info"
SOCKET_FOLDER_LENGTH_MAX = 90
"""The system takes 107 bytes for the path of a socket."""


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    broker = commands.add_parser(
        "broker",
        help="tell everybody who has what",
        description="Run a broker: the directory of roots, and the forwarder of events.",
    )
    broker.add_argument("--listen", metavar="ENDPOINT", help="of the directory, such as tcp://0.0.0.0:5560")
    broker.add_argument("--advertise", metavar="HOST", help="name or address that others are told")
    _add_interface(broker)
    announce = broker.add_argument("--announce-file", metavar="FILE", help="be listed there while it runs")
    flags.completes(announce, flags.FILE)
    broker.add_argument(
        "--peer", action="append", metavar="ENDPOINT", help="of another broker, or file:PATH; may be repeated"
    )
    _add_common(broker, ["broker"])
    broker.set_defaults(run=run_broker)

    publish = commands.add_parser(
        "publish",
        help="share a folder or an HDF5 file",
        description="Run a publisher for a folder or an HDF5 file; without NAME and PATH, one for each "
        "[publisher] of the configuration.",
    )
    publish.add_argument("root", nargs="?", metavar="NAME", help="of the root")
    path = publish.add_argument(
        "path", nargs="?", metavar="PATH", help="folder with Blosc2 and other files, or an HDF5 file"
    )
    _add_brokers(publish)
    publish.add_argument("--listen", metavar="ENDPOINT", help="where requests are answered")
    publish.add_argument("--advertise", metavar="HOST", help="name or address that others are told")
    _add_interface(publish)
    state = publish.add_argument("--state", metavar="DIR", help="folder of the owner key")
    _add_common(publish, ["publisher"])
    publish.set_defaults(run=run_publish)

    subscribe = commands.add_parser(
        "subscribe",
        help="follow roots, cache what is read, and answer HTTP",
        description="Run a subscriber with its HTTP side.",
    )
    _add_brokers(subscribe)
    subscribe.add_argument("--follow", action="append", metavar="ROOT", help="from the start; may be repeated")
    cache = subscribe.add_argument("--cache", metavar="DIR", help="folder of the cache, on a local disk")
    _add_interface(subscribe)
    subscribe.add_argument("--http", metavar="HOST:PORT", help="where HTTP is answered; port 0 takes a free one")
    subscribe.add_argument(
        "--workers", type=int, metavar="N", help="processes that answer HTTP [default: one for each core, up to 8]"
    )
    sharing = subscribe.add_mutually_exclusive_group()
    sharing.add_argument(
        "--share-listen",
        metavar="ENDPOINT",
        help="where others get chunks that are cached here, such as 'tcp://*:0' [default: on this host only]",
    )
    sharing.add_argument("--no-share", action="store_true", help="give no chunks to other subscribers")
    _add_common(subscribe, ["subscriber", "http"])
    subscribe.set_defaults(run=run_subscribe)
    flags.completes(path, flags.FILE)
    for folder in (state, cache):
        flags.completes(folder, flags.FOLDER)


def run_broker(args: argparse.Namespace) -> int:
    """Run a broker until it is stopped."""
    given = {"listen": args.listen, "advertise": args.advertise, "announce_file": args.announce_file}
    given["interface"] = args.interface
    config = Settings(args, "broker").broker(**given, peers=tuple(args.peer or ()))

    def start(stack: contextlib.ExitStack) -> Ready:
        from zcat.net.descriptors import SERVICE_FILES, raise_file_limit
        from zcat.services.broker import Broker

        raise_file_limit(SERVICE_FILES)
        broker = started(stack, Broker(config))
        return Ready("broker", None, (broker.endpoints.listen,), ())

    return running.serve(start, args.json)


def run_publish(args: argparse.Namespace) -> int:
    """Run one publisher, or those of the configuration, until they are stopped."""
    found = Settings(args, "publisher")
    if args.root is None:
        configs = found.publishers()
        if not configs:
            raise BadRequest("wanted NAME and PATH, or a configuration with [publisher]")
    elif args.path is None:
        raise BadRequest(f"wanted NAME and PATH, got {shown(args.root)} alone: what is to be shared?")
    else:
        if not os.path.exists(os.path.expanduser(args.path)):
            raise NotFound(f"{shown(args.path)}: no such folder or file")
        brokers = tuple(args.broker or ())
        given = {"root": args.root, "path": args.path, "brokers": brokers, "listen": args.listen}
        configs = [found.publisher(**given, advertise=args.advertise, state=args.state, interface=args.interface)]

    def start(stack: contextlib.ExitStack) -> Ready:
        from zcat.net.descriptors import SERVICE_FILES, raise_file_limit
        from zcat.services.publisher import Publisher

        raise_file_limit(SERVICE_FILES)
        for config in configs:
            started(stack, Publisher(config))
        brokers = dict.fromkeys(broker for config in configs for broker in config.brokers)
        return Ready("publish", None, tuple(brokers), tuple(config.root for config in configs))

    return running.serve(start, args.json)


def run_subscribe(args: argparse.Namespace) -> int:
    """Run a subscriber and its HTTP side until they are stopped."""
    found = Settings(args, "subscriber")
    sharing = {"share": False if args.no_share else None, "share_listen": args.share_listen}
    brokers, follow = tuple(args.broker or ()), tuple(args.follow or ())
    config = found.subscriber(
        brokers=brokers, follow=follow, cache=args.cache, interface=args.interface, **sharing
    )
    http = found.http(args.http, workers=args.workers)

    def start(stack: contextlib.ExitStack) -> Ready:
        from zcat.cli.crew import workers_of
        from zcat.net.descriptors import SERVICE_FILES, raise_file_limit
        from zcat.services.subscriber import Subscriber

        raise_file_limit(SERVICE_FILES)
        count = workers_of(http)
        subscriber = started(stack, Subscriber(config))
        url = start_workers(stack, subscriber, http, count) if count > 1 else start_http(stack, subscriber, http)
        return Ready("subscribe", url, config.brokers, config.follow)

    return running.serve(start, args.json)


def started(stack: contextlib.ExitStack, service: Any) -> Any:
    """Start a service; the stack closes it."""
    stack.callback(service.close)
    service.start()
    return service


def start_http(stack: contextlib.ExitStack, subscriber: Any, config: HttpConfig) -> str:
    """Answer HTTP for a subscriber; return the address.

    Raises:
        AddressInUse: the message says what to do.
    """
    from zcat.http.app import make_app
    from zcat.http.server import HttpServer

    server = HttpServer(make_app(subscriber, config), config)
    with _port_explained(config):
        started(stack, server)
    subscriber.introduction.http = server.url
    return server.url


def start_workers(stack: contextlib.ExitStack, subscriber: Any, config: HttpConfig, count: int) -> str:
    """Answer HTTP for a subscriber by several processes; return the address.

    Raises:
        AddressInUse: the message says what to do.
    """
    from zcat.cli.crew import Crew
    from zcat.http.app import make_app
    from zcat.http.passing import answer_passed
    from zcat.services.board import Board
    from zcat.services.worker_desk import WorkerDesk

    board = Board.make()
    stack.callback(board.close)
    endpoint = f"ipc://{_private_folder(stack, subscriber.cache_folder)}/desk"
    app = make_app(subscriber, config)
    desk = WorkerDesk(subscriber, board, endpoint, lambda request: answer_passed(app, request))
    stack.callback(desk.close)
    crew = Crew(count, config, endpoint, board, subscriber.read_limits)
    with _port_explained(config):
        started(stack, crew)
    subscriber.tells["workers"] = crew.report
    subscriber.introduction.http = crew.url
    return crew.url


def _private_folder(stack: contextlib.ExitStack, cache: str) -> str:
    """Make a folder that nobody but this user may enter; in the cache's, which is this process's alone."""
    folder = os.path.join(cache, "run")
    if len(folder) <= SOCKET_FOLDER_LENGTH_MAX:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        os.mkdir(folder, 0o700)
    else:
        folder = tempfile.mkdtemp(prefix="zcat-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _port_explained(config: HttpConfig) -> Iterator[None]:
    try:
        yield
    except AddressInUse as error:
        advice = f"; '--http {config.host}:0' takes a free port" if config.port else ""
        raise AddressInUse(f"{error.message}{advice}") from None


def _add_interface(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interface",
        metavar="NAME",
        help="be reached by others there: an interface as ib0, a network as 10.1.0.0/16",
    )


def _add_brokers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        action="append",
        metavar="ENDPOINT",
        help="such as tcp://head:5560, or file:PATH with one per line; repeatable [environment: ZCAT_BROKERS]",
    )


def _add_common(parser: argparse.ArgumentParser, sections: list[str]) -> None:
    flags.add_config(parser)
    settings.add_set(parser, sections)
    flags.add_log_level(parser)
    flags.add_json(parser)
    parser.set_defaults(log_level_default=LOG_LEVEL)
