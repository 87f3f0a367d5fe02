"""Where an answer goes: the frames that a ROUTER, and a REQ behind it, put in front of a message."""

from collections.abc import Sequence
from typing import TypeVar

from zcat.errors import BadMessage

Part = TypeVar("Part", bound=bytes | memoryview)


def split(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Split what a ROUTER received into the route and the frames of the message.

    A DEALER's message comes as the routing id and its frames; a plain REQ puts an empty frame between them and
    wants it back (ZeroMQ RFC 28, "REQ-REP").

    Returns:
        The frames to put in front of the answer, and the frames for `messages.decode`.

    Raises:
        BadMessage: there is nothing behind the route.
    """
    length = 2 if len(parts) > 1 and len(parts[1]) == 0 else 1
    if len(parts) <= length:
        raise BadMessage(f"{len(parts)} frames: a route without a message")
    return list(parts[:length]), list(parts[length:])
