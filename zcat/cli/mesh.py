"""``zcat brokers`` and ``zcat peers``: how the network is, for those who look after it."""

import argparse
import contextlib
import sys
import time as clock
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags, running
from zcat.cli.printing import count, duration, print_json, print_table, size, text, yes
from zcat.cli.settings import Settings
from zcat.config import DEFAULT_BROKER
from zcat.errors import Unavailable, ZcatError
from zcat.names import OWNER_HEX_SHOWN

if TYPE_CHECKING:
    from zcat.services.survey import Survey

WATCH_S = 2.0
WATCH_MIN_S = 0.2
WATCH_MAX_S = 86400.0
SLOW_SHOWN_MAX = 10

_TO_THE_TOP_AND_CLEAR = "\x1b[H\x1b[J"

Row = dict[str, Any]
Columns = dict[str, Callable[[Any], str]]


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    brokers = commands.add_parser(
        "brokers",
        help="show the brokers, and whom each is linked to",
        description="Show how the brokers are: what they list and forward, whom each is linked to, and who does "
        "not keep up with their events. Each is asked directly.",
    )
    _add_common(brokers, run_brokers)
    peers = commands.add_parser(
        "peers",
        help="show the publishers and subscribers that brokers know",
        description="Show the publishers and subscribers that the brokers know: leases left, lives, how far "
        "brokers are behind them, names that several claim, and what each says of itself.",
    )
    peers.add_argument("--brief", action="store_true", help="ask the brokers only, and not each peer")
    _add_common(peers, run_peers)


def run_brokers(args: argparse.Namespace) -> int:
    """Show the brokers."""
    return _run(args, "brokers", _show_brokers)


def run_peers(args: argparse.Namespace) -> int:
    """Show publishers and subscribers."""
    return _run(args, "peers", _show_peers)


def _add_common(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument(
        "--broker",
        action="append",
        metavar="ENDPOINT",
        help="ask from this one on; may be repeated [environment: ZCAT_BROKERS; else those that the subscriber at "
        "--url knows]",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=WATCH_S,
        metavar="SECONDS",
        help=f"show it again and again, until Ctrl-C [{WATCH_S:g}]",
    )
    flags.add_config(parser)
    flags.add_reading(parser)
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not WATCH_MIN_S <= seconds <= WATCH_MAX_S:  # also what is not a number
        raise argparse.ArgumentTypeError(f"{text!r}: wanted seconds from {WATCH_MIN_S:g} to {WATCH_MAX_S:g}")
    return seconds


def _run(args: argparse.Namespace, what: str, show: Callable[[list[Row]], None]) -> int:
    with _looking(args, what) as look:
        if args.watch is None:
            rows = look()
            print_json({what: rows}) if args.json else show(rows)
            is_somebody_there = what != "brokers" or any(row["state"] == "here" for row in rows)
            return exits.OK if is_somebody_there else exits.UNREACHABLE
        # which is how one ends it, also in the background of a script, where SIGINT is ignored at first
        with running.terminated_as_interrupted(), contextlib.suppress(KeyboardInterrupt):
            while True:
                _draw(look, what, show, args.json)
                clock.sleep(args.watch)
    return exits.OK


def _draw(look: Callable[[], list[Row]], what: str, show: Callable[[list[Row]], None], as_json: bool) -> None:
    rows: list[Row] = []
    problem = ""
    try:
        rows = look()
    except ZcatError as error:  # it may be over at the next look
        problem = error.message
    if as_json:
        print_json({what: rows, **({"problem": problem} if problem else {})})
    else:
        if sys.stdout.isatty():
            print(_TO_THE_TOP_AND_CLEAR, end="")
        print(clock.strftime("%Y-%m-%d %H:%M:%S"))
        print(text(problem)) if problem else show(rows)
    sys.stdout.flush()


@contextlib.contextmanager
def _looking(args: argparse.Namespace, what: str) -> Iterator[Callable[[], list[Row]]]:
    """Give what asks: brokers directly, if any are named; else the subscriber, if one answers."""
    named = _named(args)
    if not named:
        import zcat

        with zcat.connect(flags.url_of(args)) as client:
            try:
                client.health()
            except Unavailable:
                named = (DEFAULT_BROKER,)
            else:
                yield lambda: list(client.brokers() if what == "brokers" else client.peers(not args.brief))
                return
    from zcat.net.sockets import make_context
    from zcat.services.survey import Survey

    context = make_context()
    try:
        survey = Survey(context, lambda: named)
        yield lambda: _of_survey(survey, what, args)
    finally:
        context.destroy(linger=0)


def _named(args: argparse.Namespace) -> tuple[str, ...]:
    if args.broker:
        return tuple(args.broker)
    if flags.config_of(args):
        return Settings(args, "subscriber").brokers()
    return flags.brokers_of_environment()


def _of_survey(survey: "Survey", what: str, args: argparse.Namespace) -> list[Row]:
    from zcat.services.survey import as_json

    views: Sequence[Any] = survey.brokers() if what == "brokers" else survey.peers(not args.brief)
    return [as_json(view) for view in views]


# -- tables ------------------------------------------------------------------------------------------


def _show_brokers(rows: list[Row]) -> None:
    if not rows:
        print("no broker is known")
        return
    print_table([_broker(row) for row in rows], _BROKER)
    for row in rows:
        if row["problem"]:
            endpoint, problem = text(row["endpoint"]), text(row["problem"])
            print(problem if problem.startswith(endpoint) else f"{endpoint}: {problem}")
    links = [_link(row["endpoint"], link) for row in rows for link in row["links"]]
    if links:
        print()
        print_table(links, _LINK)
    slow = [{"broker": row["endpoint"], **queue} for row in rows for queue in row["queues"]]
    if slow:
        print()
        print_table([_queue(row) for row in slow[:SLOW_SHOWN_MAX]], _QUEUE)
        if len(slow) > SLOW_SHOWN_MAX:
            print(f"and {len(slow) - SLOW_SHOWN_MAX} more")


def _broker(row: Row) -> Row:
    counts = row["counts"]
    listed = counts.get("live", 0) + counts.get("stale", 0) if counts else None
    return {
        "broker": row["endpoint"],
        "state": row["state"],
        "version": row["version"],
        "up": row["up_s"],
        "round trip": row["round_trip_s"],
        "roots": listed,
        "stale": counts.get("stale"),
        "subscribers": counts.get("subscribers"),
        "in": counts.get("bytes_in"),
        "out": counts.get("bytes_out"),
        "slow": counts.get("slow"),
        "queued": counts.get("queued_bytes"),
        "put out": counts.get("put_out"),
    }


def _link(broker: str, link: Row) -> Row:
    return {
        "from": broker,
        "to": link["endpoint"],
        "state": link["state"],
        "since": link["since_s"],
        "round trip": link["round_trip_s"],
        "notes": ", ".join(link["notes"]),
    }


def _queue(row: Row) -> Row:
    names = {"broker": "broker", "socket": "socket", "peer": "peer", "behind_bytes": "behind", "behind_s": "for"}
    return {shown: row[name] for name, shown in names.items()}


def _show_peers(rows: list[Row]) -> None:
    publishers = [row for row in rows if row["kind"] == "publisher"]
    readers = [row for row in rows if row["kind"] != "publisher"]
    if not rows:
        print("nobody is known")
    if publishers:
        print_table([_publisher(row) for row in publishers], _PUBLISHER)
    if publishers and readers:
        print()
    if readers:
        print_table([_reader(row) for row in readers], _READER)
    names = sorted({row["name"] for row in publishers if row["contested"]})
    if names:
        print(f"\ncontested: {', '.join(map(text, names))}; readers must write ROOT@OWNER")


def _publisher(row: Row) -> Row:
    counts = row["counts"]
    return {
        "root": row["name"],
        "owner": row["owner"][:OWNER_HEX_SHOWN],
        "state": "contested" if row["contested"] else row["state"],
        "lease": row["lease_left_s"] if row["lease_left_s"] >= 0 else None,  # of a claim that stands no more
        "life": row["incarnation"],
        "seq": row["seq"],
        "lag": row["lag"],
        "brokers": len(row["brokers"]),
        "answers": row["answers"],
        "round trip": row["round_trip_s"],
        "waiting": counts.get("jobs_waiting"),
        "held": counts.get("held_bytes"),
        "given": counts.get("answers_bytes"),
        "endpoint": ", ".join(row["endpoints"]),
    }


def _reader(row: Row) -> Row:
    counts = row["counts"]
    return {
        "subscriber": row["name"],
        "owner": row["owner"][:OWNER_HEX_SHOWN],
        "lease": row["lease_left_s"],
        "broker": ", ".join(row["brokers"]),
        "roots": counts.get("roots"),
        "current": counts.get("roots_current"),
        "cached": counts.get("cached_bytes"),
        "fetched": counts.get("fetched_bytes"),
        "from peers": counts.get("taken_bytes"),
        "given": counts.get("given_bytes"),
        "http": row["http"],
    }


_BROKER: Columns = {
    **{"broker": text, "state": text, "version": text, "up": duration, "round trip": duration, "roots": count},
    **{"stale": count, "subscribers": count, "in": size, "out": size, "slow": count, "queued": size},
    "put out": count,
}
_LINK: Columns = {
    "from": text,
    "to": text,
    "state": text,
    "since": duration,
    "round trip": duration,
    "notes": text,
}
_QUEUE: Columns = {"broker": text, "socket": text, "peer": text, "behind": size, "for": duration}
_PUBLISHER: Columns = {
    **{"root": text, "owner": text, "state": text, "lease": duration, "life": count, "seq": count, "lag": count},
    **{"brokers": count, "answers": yes, "round trip": duration, "waiting": count, "held": size, "given": size},
    "endpoint": text,
}
_READER: Columns = {
    **{"subscriber": text, "owner": text, "lease": duration, "broker": text, "roots": count, "current": count},
    **{"cached": size, "fetched": size, "from peers": size, "given": size, "http": text},
}
