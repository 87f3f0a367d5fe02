"""From a TOML file and flags to the frozen dataclasses of ``zcat.config``.

Each table of the file is one dataclass, each key one of its fields; ``[[publisher]]`` writes several of a kind.
What is not written keeps the default that stands in the dataclass, and nowhere else. Sizes (fields with
``_bytes`` in their name) may be written as ``"10 GiB"``. The environment is not read here.
"""

import dataclasses
import difflib
import math
import re
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from zcat.errors import BadConfig
from zcat.names import shown

FILE_BYTES_MAX = 1 << 20

Values: TypeAlias = dict[str, Any]
"""Field names and checked values: what is written of one dataclass, which may lack required fields."""

T = TypeVar("T")

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(|[kKMGTP]i?)B?")
_PREFIXES = " KMGTP"
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def load(path: str | Path, sections: Mapping[str, type]) -> dict[str, list[Values]]:
    """Read what a file says of each section: an empty list for one that it does not name.

    Args:
        path: a TOML file.
        sections: the dataclass of each table that the file may have.

    Raises:
        BadConfig: the file cannot be read, is not TOML, or has a key or a value that cannot be; the message
            names the file, the table and the key.
    """
    document = _read(Path(path))
    found: dict[str, list[Values]] = {name: [] for name in sections}
    for name, tables in document.items():
        if name not in sections:
            raise BadConfig(f"{path}: no table [{name}]{nearest(name, sections)}")
        listed = tables if isinstance(tables, list) else [tables]
        if not all(isinstance(table, dict) for table in listed):
            raise BadConfig(f"{path}: {name} is no table; wanted [{name}] and below it its keys")
        found[name] = [check(sections[name], table, f"{path}: [{name}]") for table in listed]
    return found


def check(section: type, written: Mapping[str, Any], where: str) -> Values:
    """Return the values of a table in the types of the dataclass's fields.

    Raises:
        BadConfig: a key is none of the fields, or a value has another type; the message begins with ``where``.
    """
    wanted = typing.get_type_hints(section)
    fields = {field.name: field for field in dataclasses.fields(section)}
    found = {}
    for key, value in written.items():
        if key not in fields:
            raise BadConfig(f"{where} has no key {shown(key)}{nearest(key, fields)}")
        found[key] = _value(value, wanted[key], key, f"{where} {key}")
        _check_bounds(found[key], fields[key].metadata, f"{where} {key}")
    return found


def make(section: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """Make the dataclass.

    Raises:
        BadConfig: a field without a default has no value.
    """
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not has_default and field.name not in values:
            raise BadConfig(f"{where} lacks {field.name}, which has no default")
    return section(**values)


def parse_size(text: str) -> int:
    """Return the bytes that ``"10 GiB"``, ``"64MiB"``, ``"1.5 TB"`` or ``"4096"`` are.

    Raises:
        BadConfig: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise BadConfig(f"size {shown(text)}: wanted a number of bytes, or a text as '10 GiB', '500 MB'")
    number, prefix = match.groups()
    base = 1024 if prefix.endswith("i") else 1000
    power = _PREFIXES.index(prefix[:1].upper() or " ")
    return round(float(number) * base**power) if "." in number else int(number) * base**power


def nearest(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the end of a sentence about an unknown word: what was probably meant, or else what there is.

    Args:
        word: the unknown one.
        known: the others.
        otherwise: what to say instead of all of them.
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; {otherwise or 'known: ' + ', '.join(known)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise BadConfig(f"{path}: larger than {FILE_BYTES_MAX} bytes, so hardly a configuration")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error


def _value(value: Any, wanted: Any, key: str, where: str) -> Any:
    """Return ``value`` as the annotation ``wanted`` has it; TOML's arrays become tuples."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        (wanted,) = [kind for kind in inner if kind is not types.NoneType]  # TOML has no null: leave the key out
        return _value(value, wanted, key, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return tuple(_value(item, inner[0], key, f"{where}[{at}]") for at, item in enumerate(value))
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, dict):
            raise _wrong(where, "a table", value)
        return make(wanted, check(wanted, value, where), where)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is int and "_bytes" in key and isinstance(value, str):
        try:
            return parse_size(value)
        except BadConfig as error:
            raise BadConfig(f"{where}: {error.message}") from None
    if wanted is float and type(value) is int and abs(value) <= sys.maxsize:
        value = float(value)
    if type(value) is not wanted:  # not isinstance: true is an int to Python, and hardly meant as one
        raise _wrong(where, "a path as text" if wanted is Path else _WORDS[wanted], value)
    if wanted in (int, float) and not 0 <= value < math.inf:  # also what is not a number
        raise _wrong(where, f"{_WORDS[wanted]} of at least 0", value)
    return value


def _check_bounds(value: Any, bounds: Mapping[str, Any], where: str) -> None:
    """Refuse a number beyond what its field says of it in its metadata: ``least`` and ``most``."""
    least, most = bounds.get("least", 0), bounds.get("most", math.inf)
    if bounds and not least <= value <= most:
        raise _wrong(where, f"at least {least:g}" if value < least else f"at most {most:g}", value)


def _wrong(where: str, wanted: str, value: Any) -> BadConfig:
    return BadConfig(f"{where}: wanted {wanted}, got {shown(value) if isinstance(value, str) else repr(value)}")
