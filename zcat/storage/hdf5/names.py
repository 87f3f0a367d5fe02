"""Names of HDF5 links as components of legal paths, and back.

HDF5 allows everything but a slash. What ``zcat.names`` does not allow is written as ``%`` and two hexadecimal
digits (upper case) for each byte of its UTF-8; a ``%`` that would read as such an escape is escaped itself.
So `decoded` of `legal` is the name again, and two names never meet.
"""

import re
import unicodedata

from zcat.names import is_legal_component

_ESCAPE = re.compile(r"%([0-9A-F]{2})")


def legal(name: str) -> str | None:
    """Write ``name`` as a legal component of a path; most names are themselves. None if it is too long for one."""
    made = _ESCAPE.sub(r"%25\1", name)
    if is_legal_component(made):
        return made
    keep_ascii = not unicodedata.is_normalized("NFC", made)
    made = "".join(
        character
        if is_legal_component(f"x{character}x") and (character.isascii() or not keep_ascii)
        else _escaped(character)
        for character in made
    )
    if made[-1] in ". ":
        made = made[:-1] + _escaped(made[-1])
    if not is_legal_component(made):  # a dot in front, or the name of a device
        made = _escaped(made[0]) + made[1:]
    return made if is_legal_component(made) else None


def decoded(component: str) -> str:
    """Give the name that `legal` made ``component`` of."""
    raw = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), component.encode())
    return raw.decode()


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
