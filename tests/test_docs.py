"""The pages say what the code does; PROTOCOL.md is compared field by field and byte by byte."""

import dataclasses
import json
import re
import types
import typing
from enum import Enum
from pathlib import Path

import pytest

from zcat import config, errors, limits, names
from zcat.model import dataset
from zcat.model.root import Claim
from zcat.protocol import (
    announcer,
    attendance,
    block_messages,
    block_transfer,
    broker_choice,
    codec,
    directory,
    entrances,
    federation,
    federation_messages,
    follower,
    messages,
    peers_known,
    reconciler,
    serving,
    sharers,
    status_messages,
    swarm_messages,
    tracker,
    transfer,
)

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()

VALUES = {
    "claim": Claim,
    "listed": messages.ListedClaim,
    "neighbour": federation_messages.Neighbour,
    "entry": dataset.Entry,
    "geometry": dataset.Geometry,
    "array": dataset.ArrayGeometry,
    "compression": dataset.Compression,
    "part": block_messages.Part,
    "change": messages.Change,
    "held": swarm_messages.HeldChunk,
    "count": status_messages.Count,
    "presence": status_messages.Presence,
    "present": status_messages.Present,
    "link": status_messages.LinkState,
    "queue": status_messages.QueueState,
}
DESCRIBED = {**VALUES, **messages.MESSAGES}
WORDS = {int: "int", float: "number", bool: "bool", str: "text", bytes: "bin"}
WORDS.update({cls: name for name, cls in VALUES.items()})

UNITS = {"KIB", "MIB", "GIB"}
CONSTANTS = {name: value for name, value in vars(limits).items() if name.isupper() and name not in UNITS} | {
    "ENDPOINTS_BYTES_MAX": directory.ENDPOINTS_BYTES_MAX,
    "DIMENSIONS_MAX": dataset.DIMENSIONS_MAX,
    "PATH_BYTES_MAX": names.PATH_BYTES_MAX,
    "PATH_DEPTH_MAX": names.PATH_DEPTH_MAX,
    "COMPONENT_BYTES_MAX": names.COMPONENT_BYTES_MAX,
    "ROOT_BYTES_MAX": names.ROOT_BYTES_MAX,
    "OWNER_HEX_LENGTH": names.OWNER_HEX_LENGTH,
    "LINEAGE_HEX_LENGTH": codec.LINEAGE_HEX_LENGTH,
}
MODULES = (
    announcer,
    block_transfer,
    attendance,
    broker_choice,
    config,
    directory,
    entrances,
    federation,
    follower,
    peers_known,
    reconciler,
    serving,
    sharers,
    tracker,
    transfer,
)


def sections(text, mark):
    """Give the text below each heading of one level, by what stands in its backquotes or else the heading."""
    parts = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    return {
        title.strip("`"): re.split(r"^#", body, flags=re.MULTILINE)[0]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def rows(text):
    """Give the cells of the table rows that begin with something in backquotes."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in cells]


def word(hint):
    """Give the type of a field as the page writes it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return word(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return f"[{word(arguments[0])}]"
    return "text" if isinstance(hint, type) and issubclass(hint, Enum) else WORDS[hint]


def default(field):
    """Give the default of a field as the page writes it."""
    if field.default is dataclasses.MISSING:
        return "required"
    return "absent" if field.default is None else f"`{json.dumps(codec.to_plain(field.default))}`"


def described(cls):
    """Give the rows that the table of a class wants."""
    hints = typing.get_type_hints(cls)
    bodies = getattr(cls, "bodies", None)
    return [
        [f"`{field.name}`", "frames", ""]
        if field.name == bodies
        else [f"`{field.name}`", word(hints[field.name]), default(field)]
        for field in dataclasses.fields(cls)
    ]


def examples():
    """Give each example of the page: for each of its frames, what it says and its bytes."""
    for block in re.findall(r"^```frames\n(.*?)^```", PROTOCOL, flags=re.MULTILINE | re.DOTALL):
        frames = re.findall(r"^\d+ ?(.*)\n((?:  [0-9a-f]+\n)+)", block, flags=re.MULTILINE)
        yield [(said, bytes.fromhex(written)) for said, written in frames]


EXAMPLES = {json.loads(example[1][0])["verb"]: example for example in examples()}


def as_json(value):
    return json.loads(json.dumps(value, default=lambda binary: "0x" + bytes(binary).hex()))


@pytest.mark.parametrize("name", DESCRIBED)
def test_each_field_of_the_wire_is_described_with_its_type_and_default(name):
    section = sections(PROTOCOL, "####")[name]
    assert [row[:3] for row in rows(section)] == described(DESCRIBED[name])


def test_nothing_is_described_that_does_not_travel():
    assert set(sections(PROTOCOL, "####")) == set(DESCRIBED)


@pytest.mark.parametrize("verb", EXAMPLES)
def test_an_example_is_what_the_encoder_gives(verb):
    frames = [written for _, written in EXAMPLES[verb]]
    received = messages.decode(frames)
    assert [bytes(frame) for frame in messages.encode(received.message, received.id)] == frames
    assert received.message.verb == verb


@pytest.mark.parametrize("verb", EXAMPLES)
def test_an_example_says_what_its_bytes_say(verb):
    (first, magic), *others = EXAMPLES[verb]
    assert first.encode() == magic == messages.MAGIC
    for said, written in others:
        if said:
            assert json.loads(said) == as_json(codec.unpack(written))


def test_there_is_an_example_of_most_messages():
    assert len(EXAMPLES) >= 15
    assert {"ping", "announce", "tree-page", "changes", "info-reply", "chunks", "chunk", "failed"} <= set(EXAMPLES)


def test_the_error_table_has_all_codes_and_no_other():
    codes = [row[0].strip("`") for row in rows(sections(PROTOCOL, "##")["8. Error codes"])]
    assert sorted(codes) == sorted(errors.ERROR_OF_CODE)


def test_the_limits_of_the_wire_stand_there_with_their_values():
    table = {row[0].strip("`"): row[1] for row in rows(sections(PROTOCOL, "###")["9.1 Part of the wire"])}
    assert table == {name: str(value) for name, value in CONSTANTS.items()}


@pytest.mark.parametrize("row", rows(sections(PROTOCOL, "###")["9.2 Rhythm and patience"]), ids=lambda row: row[0])
def test_a_default_is_what_the_page_says(row):
    class_name, field_name = row[0].strip("`").split(".")
    cls = next(vars(module)[class_name] for module in MODULES if class_name in vars(module))
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    assert row[1] == str(fields[field_name])


@pytest.mark.parametrize("page", ["PROTOCOL.md", "CONTRIBUTING.md"])
def test_each_module_that_a_page_names_is_there(page):
    named = re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*\.py)`", (ROOT / page).read_text())
    assert [path for path in named if not (ROOT / path).exists() and not (ROOT / "zcat" / path).exists()] == []
