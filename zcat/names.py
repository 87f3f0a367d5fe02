"""What is a legal name: of a root, of a dataset's path, of an endpoint.

The only place that decides it. Every path that comes by wire, by HTTP or by command line passes through
here once; behind it, code may assume that a path is relative, clean and inside its root. (That it does not
leave the root by a symbolic link is decided again when the file is opened, by ``storage.beneath``.)
"""

import re
import unicodedata
from collections.abc import Sequence

from zcat.errors import BadName

PATH_BYTES_MAX = 1024
PATH_DEPTH_MAX = 64
COMPONENT_BYTES_MAX = 255
ROOT_BYTES_MAX = 64
OWNER_HEX_LENGTH = 32
OWNER_HEX_SHOWN = 8

_ROOT = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9_.+-]*")
_OWNER = re.compile(r"[0-9a-f]{4,32}")
_ENDPOINT = re.compile(
    r"(tcp://(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.*-]+):(\d{1,5}|\*)|ipc://[^\0]{1,107}|inproc://[^\0]{1,200})"
)
_FORBIDDEN = frozenset('\\:*?"<>|')
_USUAL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?")
_COMPONENT = (  # what `_USUAL` is, but for names of devices
    r"(?![cpanlCPANL](?:[oO][nN]|[rR][nN]|[uU][xX]|[uU][lL]|[oO][mM][0-9]|[pP][tT][0-9])(?:[./]|\Z))"
    r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?"
)
_PLAIN_PATH = re.compile(f"{_COMPONENT}(?:/{_COMPONENT})*")
_PLAIN_PATH_LENGTH_MAX = 2 * PATH_DEPTH_MAX  # then no other limit can be exceeded
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)


def check_root(name: str) -> str:
    """Return ``name`` if a root may have it.

    Raises:
        BadName: empty, too long, or other characters than letters, digits and ``_ . + -``.
    """
    if len(name.encode("utf-8", "replace")) > ROOT_BYTES_MAX or not _ROOT.fullmatch(name):
        raise BadName(
            f"root name {shown(name)}: wanted 1 to {ROOT_BYTES_MAX} letters, digits or '_.+-', "
            "beginning with a letter or digit"
        )
    return name


def parse_root(text: str) -> tuple[str, str | None]:
    """Split ``root`` or ``root@owner`` into the name and the first hexadecimal digits of the owner.

    Raises:
        BadName: either part is not legal.
    """
    name, at, owner = text.rpartition("@")
    if not at or not name:  # no "@", or the leading one of a name such as "@public"
        return check_root(text), None
    if not _OWNER.fullmatch(owner):
        raise BadName(f"owner {shown(owner)}: wanted 4 to {OWNER_HEX_LENGTH} hexadecimal digits after the '@'")
    return check_root(name), owner


def check_owner(owner: str) -> str:
    """Return ``owner`` if it is a whole owner key: 32 hexadecimal digits.

    Raises:
        BadName: it is not.
    """
    if len(owner) != OWNER_HEX_LENGTH or not _OWNER.fullmatch(owner):
        raise BadName(f"owner {shown(owner)}: wanted {OWNER_HEX_LENGTH} hexadecimal digits")
    return owner


def check_path(path: str) -> str:
    """Return ``path`` if a dataset may have it: relative, clean, in Unicode's NFC, without a way out.

    Raises:
        BadName: the message says which component breaks which rule.
    """
    if len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        raise BadName(f"path {shown(path)}: longer than {PATH_BYTES_MAX} bytes")
    components = path.split("/")
    if len(components) > PATH_DEPTH_MAX:
        raise BadName(f"path {shown(path)}: more than {PATH_DEPTH_MAX} levels")
    for component in components:
        why = _why_not(component)
        if why:
            raise BadName(f"path {shown(path)}: {shown(component)} {why}")
    return path


def are_plain_paths(paths: Sequence[str]) -> bool:
    """Say whether all are short and of usual letters, and legal: quick, and False means "look at each one"."""
    return max(map(len, paths), default=0) < _PLAIN_PATH_LENGTH_MAX and all(map(_PLAIN_PATH.fullmatch, paths))


def is_legal_component(component: str) -> bool:
    """Say whether a file or folder of that name is offered at all."""
    return _why_not(component) is None


def split_address(text: str) -> tuple[str, str]:
    """Split ``root/path/in/it`` into root and path; the path is empty for the root itself.

    Raises:
        BadName: either part is not legal.
    """
    root, _, path = text.strip("/").partition("/")
    parse_root(root)
    return root, check_path(path) if path else ""


def check_endpoint(endpoint: str) -> str:
    """Return ``endpoint`` if ZeroMQ can bind or connect it: ``tcp://HOST:PORT``, ``ipc://PATH``, ``inproc://NAME``.

    Raises:
        BadName: it has another form.
    """
    if not _ENDPOINT.fullmatch(endpoint):
        raise BadName(f"endpoint {shown(endpoint)}: wanted tcp://HOST:PORT, ipc://PATH or inproc://NAME")
    port = endpoint.rpartition(":")[2]
    if endpoint.startswith("tcp:") and port != "*" and int(port) > 65535:
        raise BadName(f"endpoint {shown(endpoint)}: port {port} is above 65535")
    return endpoint


def is_local_endpoint(endpoint: str) -> bool:
    """Say whether an endpoint means something else, or nothing, on another host."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return not endpoint.startswith("tcp://") or host in ("localhost", "[::1]") or host.startswith("127.")


def shown(text: str, length_max: int = 80) -> str:
    """Quote foreign text for a message: on one line, printable, cut."""
    text = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return ascii(text) if any(not character.isprintable() for character in text) else repr(text)


def _why_not(component: str) -> str | None:
    # PERF: what nearly all names are made of needs no look at each character: a third of the time
    is_usual = _USUAL.fullmatch(component) is not None and len(component) <= COMPONENT_BYTES_MAX
    why = None if is_usual else _why_not_unusual(component)
    if why is None and component.split(".")[0].lower() in _DEVICES:
        return "is the name of a device on some systems"
    return why


def _why_not_unusual(component: str) -> str | None:
    if component == "":
        return "is empty"
    if component.startswith("."):
        return "begins with a dot"
    if component[-1] in ". ":
        return "ends with a dot or a space"
    try:
        size = len(component.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > COMPONENT_BYTES_MAX:
        return f"is longer than {COMPONENT_BYTES_MAX} bytes"
    for character in component:
        # Cc and Cf are control and format characters: U+202E makes "txt.exe" of "exe.txt" on a screen
        if character in _FORBIDDEN or unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
            return f"has the character {character!a}"
    if "\ufffd" in component:
        return "was not UTF-8"
    if not unicodedata.is_normalized("NFC", component):
        return "is not in Unicode's normal form NFC"
    return None
