"""``zcat check``: one line for each thing that can be wrong, with what to do about it."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zcat.cli import exits, flags, places
from zcat.cli.printing import print_json, text
from zcat.cli.settings import Settings

if TYPE_CHECKING:
    from zcat.cli.checks import Finding

BROKER_WAIT_S = 3.0


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="look for what can be wrong",
        description="Look for what can be wrong on this host and on the way to others; exit 1 if something is.",
    )
    parser.add_argument("--broker", action="append", metavar="ENDPOINT", help="ask this one, too; may be repeated")
    parser.add_argument("--state", metavar="DIR", help="folder of state and cache, as of 'zcat up'")
    flags.add_config(parser)
    flags.add_reading(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything; print the findings as they come."""
    findings = []
    for finding in _findings(args):
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    if args.json:
        print_json([asdict(finding) for finding in findings])
    wrong = sum(not finding.is_good for finding in findings)
    if not args.json:
        print("all is well" if not wrong else f"{wrong} of {len(findings)} need attention")
    return exits.FAILED if wrong else exits.OK


def _findings(args: argparse.Namespace) -> Iterator["Finding"]:
    from zcat.cli import checks
    from zcat.services.broker_sources import found_at

    settings = Settings(args, "subscriber")
    subscriber = settings.subscriber()
    publishers = settings.publishers()
    reads = settings.has("subscriber") or not (publishers or settings.has("broker"))
    yield from checks.versions()
    yield checks.clock()
    yield checks.open_files(settings.http().connections_max)
    for publisher in publishers:
        yield checks.folder(f"state of {publisher.root}", Path(publisher.state), publisher.reserve_bytes)
    if reads:
        state = Path(args.state).expanduser() if args.state else places.state_folder()
        cache = state / "cache" if args.state else Path(subscriber.cache)
        yield checks.folder("state", state, 0)
        yield checks.folder("cache", cache, subscriber.reserve_bytes)
        yield checks.local_disk("cache", cache)
    finding, brokers = checks.subscriber(flags.url_of(args))
    yield finding
    named = [*(args.broker or ()), *brokers]
    if flags.config_of(args):
        named += settings.brokers()
        yield from _addresses(settings)
    known = found_at(named)
    for broker in known:
        yield checks.broker(broker, BROKER_WAIT_S)
    if known:
        yield from checks.network(known, BROKER_WAIT_S)


def _addresses(settings: Settings) -> Iterator["Finding"]:
    """Look whether others can reach what the configuration would tell them."""
    from zcat.cli import checks

    for publisher in settings.publishers():
        yield checks.address(f"publisher {publisher.root}", publisher, publisher.brokers)
    if settings.has("broker"):
        broker = settings.broker()
        yield checks.address("broker", broker, broker.peers)


def _line(finding: "Finding") -> str:
    line = f"{'ok   ' if finding.is_good else 'WRONG'}  {finding.subject}: {text(finding.found)}"
    return line if finding.is_good else f"{line}; {text(finding.advice)}"
