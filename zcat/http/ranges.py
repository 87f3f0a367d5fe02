"""Byte ranges and entity tags: which bytes of a body a request wants, and whether it wants any.

Source: RFC 9110, sections 8.8.3, 13 and 14.
"""

import hashlib
import re

RANGES_MAX = 256

_RANGE = re.compile(r"[ \t]*(\d{0,19})-(\d{0,19})[ \t]*")
_TAG = re.compile(r'(?:W/)?("[^"]*")')

Span = tuple[int, int]
"""``start`` and ``stop`` of wanted bytes, ``stop`` not included."""


def make_tag(*parts: str) -> str:
    """Return a strong entity tag, in its quotes, for what these parts determine altogether."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f'"{hashlib.blake2b(text, digest_size=16).hexdigest()}"'


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Say whether the client has what ``tag`` names, by its ``If-None-Match`` header."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)


def wanted_spans(header: str | None, if_range: str | None, tag: str, nbytes: int) -> list[Span] | None:
    """Return the ranges that a request asks for, sorted, those that touch merged.

    Returns:
        None where the whole body is to be sent: no ``Range`` header, one that says nothing (RFC 9110 lets a
        server ignore it), one of too many ranges, or an ``If-Range`` of another version. Empty where no range
        lies inside the body.
    """
    if header is None or (if_range is not None and if_range.strip() != tag):
        return None
    unit, _, text = header.partition("=")
    parts = text.split(",")
    if unit.strip().lower() != "bytes" or len(parts) > RANGES_MAX:
        return None
    spans = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None or match[0].strip() == "-":
            return None
        first, last = match[1], match[2]
        if not first:
            spans.append((max(nbytes - int(last), 0), nbytes))
        elif last and int(last) < int(first):
            return None
        else:
            spans.append((int(first), min(int(last) + 1, nbytes) if last else nbytes))
    return _merged([(start, stop) for start, stop in spans if start < stop])


def content_range(span: Span, nbytes: int) -> str:
    """Return the value of the header that places a part."""
    return f"bytes {span[0]}-{span[1] - 1}/{nbytes}"


def part_head(boundary: str, content_type: str, span: Span, nbytes: int) -> bytes:
    """Return what goes before one part of a ``multipart/byteranges`` body."""
    lines = (f"--{boundary}", f"Content-Type: {content_type}", f"Content-Range: {content_range(span, nbytes)}")
    return "\r\n".join(("", *lines, "", "")).encode()


def last_line(boundary: str) -> bytes:
    """Return what ends a ``multipart/byteranges`` body."""
    return f"\r\n--{boundary}--\r\n".encode()


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
