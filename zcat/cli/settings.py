"""The configuration of services: defaults, the file, the environment, flags; later ones win."""

import argparse
import contextlib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zcat.cli import flags, places
from zcat.config import BrokerConfig, HttpConfig, PublisherConfig, SubscriberConfig
from zcat.config_file import Values, check, load, make, nearest
from zcat.errors import BadConfig, BadRequest, ZcatError
from zcat.names import shown

SECTIONS: dict[str, type] = {
    "broker": BrokerConfig,
    "publisher": PublisherConfig,
    "subscriber": SubscriberConfig,
    "http": HttpConfig,
}


class Settings:
    """What the file and ``--set`` say, and what follows from it."""

    def __init__(self, args: argparse.Namespace, section: str) -> None:
        """Read the file that ``args`` or the environment names, if any.

        Args:
            args: with ``config``; and ``set``, if the command has that.
            section: what a key of ``--set`` belongs to when it does not say.

        Raises:
            BadConfig: see there.
        """
        path = flags.config_of(args)
        self._found = load(path, SECTIONS) if path else {name: [] for name in SECTIONS}
        self._set = _parsed(getattr(args, "set", ()), section)
        self._path = path

    def has(self, section: str) -> bool:
        """Say whether the file has such a table."""
        return bool(self._found[section])

    def brokers(self) -> tuple[str, ...]:
        """Return the brokers that the file speaks of, in whatever table; without one, the default."""
        named = [broker for publisher in self.publishers() for broker in publisher.brokers]
        if self.has("broker"):
            named += [*_endpoint(self.broker()), *self.broker().peers]
        if self.has("subscriber") or not named:
            named = [*self.subscriber().brokers, *named]
        return tuple(dict.fromkeys(named))

    def broker(self, **given: Any) -> BrokerConfig:
        """Return the broker's configuration; ``given`` are flags, of which None says nothing."""
        return make(BrokerConfig, self._merged("broker", self._only("broker"), given))

    def publishers(self) -> list[PublisherConfig]:
        """Return the configuration of each publisher in the file."""
        return [self._publisher(written, {}) for written in self._found["publisher"]]

    def publisher(self, **given: Any) -> PublisherConfig:
        """Return the configuration of the publisher that flags name; what else the file says of it holds."""
        tables = self._found["publisher"]
        written = next((table for table in tables if table.get("root") == given.get("root")), {})
        return self._publisher(written, given)

    def subscriber(self, **given: Any) -> SubscriberConfig:
        """Return the subscriber's configuration; without a word about it, the cache is the user's."""
        values = self._merged("subscriber", self._only("subscriber"), given)
        values["cache"] = _home(values.get("cache", str(places.cache_folder())))
        return make(SubscriberConfig, values)

    def http(self, address: str | None = None, workers: int | None = None) -> HttpConfig:
        """Return the configuration of the HTTP side; ``address`` is the flag's ``HOST:PORT``."""
        given: Values = {"workers": workers}
        if address is not None:
            given["host"], given["port"] = parse_http(address)
        return make(HttpConfig, self._merged("http", self._only("http"), given))

    def _publisher(self, written: Values, given: dict[str, Any]) -> PublisherConfig:
        values = self._merged("publisher", written, given)
        state = places.state_folder() / "publishers" / str(values.get("root", ""))
        values["state"] = _home(values.get("state", str(state)))
        if "path" in values:
            values["path"] = _home(values["path"])
        return make(PublisherConfig, values, "publisher")

    def _only(self, section: str) -> Values:
        tables = self._found[section]
        if len(tables) > 1:
            raise BadConfig(f"{self._path}: wanted one table [{section}], found {len(tables)}")
        return tables[0] if tables else {}

    def _merged(self, section: str, written: Values, given: dict[str, Any]) -> Values:
        named = {key: value for key, value in given.items() if value is not None and value != ()}
        brokers = flags.brokers_of_environment() if section in ("publisher", "subscriber") else ()
        around = {"brokers": brokers} if brokers else {}
        return {**written, **around, **self._set.get(section, {}), **named}


def _endpoint(broker: BrokerConfig) -> Iterator[str]:
    """Give where a broker can be asked from its own host, if its configuration tells."""
    from zcat.services.advertised import advertised, listening

    with contextlib.suppress(ZcatError):  # which is found, and said, when its address is looked at
        endpoint = advertised(listening(broker.listen, broker.interface), None, ())
        if endpoint.rpartition(":")[2] not in ("0", "*"):
            yield endpoint


def parse_http(address: str) -> tuple[str, int]:
    """Split ``HOST:PORT``, ``[ADDRESS]:PORT`` or ``:PORT`` (of the loopback).

    Raises:
        BadRequest: it has another form.
    """
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or "/" in host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadRequest(f"HTTP address {shown(address)}: wanted HOST:PORT, such as 127.0.0.1:8000")
    return host or "127.0.0.1", int(port)


def add_set(parser: argparse.ArgumentParser, sections: Sequence[str]) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"any key of the configuration of a {sections[0]}"
        + "".join(f"; {name}.KEY=VALUE: of its {name} side" for name in sections[1:])
        + " (see 'zcat config --example')",
    )


def _parsed(assignments: Iterable[str], section: str) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise BadRequest(f"--set {shown(assignment)}: wanted KEY=VALUE")
        name, dot, inner = key.strip().partition(".")
        table, key = (name, inner) if dot else (section, name)
        if table not in SECTIONS:
            raise BadRequest(f"--set {shown(assignment)}: no section {shown(table)}{nearest(table, SECTIONS)}")
        found.setdefault(table, {}).update(
            check(SECTIONS[table], {key: _toml(text)}, f"--set {shown(assignment)}: [{table}]")
        )
    return found


def _toml(text: str) -> Any:
    """Return a value as TOML writes it; what is no TOML is a text whose quotes were left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _home(path: str) -> str:
    return str(Path(path).expanduser())
