"""``zcat config``: what the services would run with, and commented examples of configuration files."""

import argparse
import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zcat.cli import exits, flags
from zcat.cli.printing import print_json
from zcat.cli.settings import SECTIONS, Settings
from zcat.config_file import Values

EXAMPLES: dict[str, tuple[str, tuple[str, ...], Values]] = {
    "broker": ("zcat broker --config broker.toml", ("broker",), {}),
    "publisher": (
        "zcat publish --config publisher.toml",
        ("publisher",),
        {"root": "example", "path": "data", "state": "state/publishers/example"},
    ),
    "subscriber": (
        "zcat subscribe --config subscriber.toml",
        ("subscriber", "http"),
        {"follow": ("example",), "cache": "cache"},
    ),
}
"""For each: how to use it, its tables, and what it sets; the other keys stand in it as comments."""

_WIDTH = 110


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "config",
        help="show the configuration, or print an example of one",
        description="Show what the services would run with: the file of --config over the defaults.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="as TOML; this is what happens without a flag")
    what.add_argument("--example", choices=EXAMPLES, help="print a commented example of a file")
    flags.add_config(parser)
    flags.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    if args.example:
        print(example(args.example), end="")
        return exits.OK
    settings = Settings(args, "subscriber")
    found: list[tuple[str, Any]] = [
        ("broker", settings.broker()),
        *[("publisher", publisher) for publisher in settings.publishers()],
        ("subscriber", settings.subscriber()),
        ("http", settings.http()),
    ]
    if args.json:
        print_json([{"section": section, **dataclasses.asdict(config)} for section, config in found])
    else:
        print("\n\n".join(_table(section, config) for section, config in found))
    return exits.OK


def example(name: str) -> str:
    """Return an example of a configuration: every key with its default and what it is for.

    The words are those that stand behind each field in ``zcat.config``.
    """
    usage, sections, chosen = EXAMPLES[name]
    paragraphs = [
        f"# Used by: {usage}\n"
        '# What is commented out shows its default. Sizes may be written as "10 GiB"; relative paths begin where\n'
        "# the command is started."
    ]
    for section in sections:
        words = _words(SECTIONS[section])
        paragraphs.append(f"{_comment(words[''])}\n[{section}]")
        for field in dataclasses.fields(SECTIONS[section]):
            if words[field.name]:
                paragraphs.append(f"{_comment(words[field.name])}\n{_line(field, chosen)}")
            else:  # it shares the words of the one before
                paragraphs[-1] += f"\n{_line(field, chosen)}"
    return "\n\n".join(paragraphs) + "\n"


def toml(value: Any) -> str:
    """Write a value of a configuration as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        # a basic string of TOML escapes as JSON does, but for what Python calls surrogates, which a path may have
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return repr(value)


def _table(section: str, config: Any) -> str:
    head = f"[[{section}]]" if section == "publisher" else f"[{section}]"
    return "\n".join([head, *_assignments(dataclasses.asdict(config).items())])


def _assignments(items: Iterable[tuple[str, Any]]) -> Iterable[str]:
    return (f"# {key} =" if value is None else f"{key} = {toml(value)}" for key, value in items)


def _line(field: dataclasses.Field[Any], chosen: Values) -> str:
    if field.name in chosen:
        return f"{field.name} = {toml(chosen[field.name])}"
    if field.default is None:
        return f"# {field.name} ="
    if isinstance(field.default, int) and "_bytes" in field.name:
        return f"# {field.name} = {_size(field.default)}"
    return f"# {field.name} = {toml(field.default)}"


def _size(nbytes: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes and nbytes % factor == 0:
            return f'"{nbytes // factor} {unit}"'
    return str(nbytes)


def _comment(words: str) -> str:
    plain = (
        " ".join(words.replace("``", "").split()).replace(". None", ". If not set").replace("None", "if not set")
    )
    return textwrap.fill(plain, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _words(section: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, and that of the class under the empty name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    words = {"": ast.get_docstring(body) or ""}
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            words[node.target.id] = str(following.value.value) if is_text else ""  # type: ignore[union-attr]
    return words
