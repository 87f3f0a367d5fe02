"""What all who talk to a list of brokers share: how they ask for a send, how they retry, where they connect."""

from collections.abc import Callable
from dataclasses import dataclass

from zcat.protocol.federation_messages import Digest, Records
from zcat.protocol.messages import Announce, Lookup, Ping, Renew

Random = Callable[[], float]
"""Gives a number from 0 up to 1, as ``random.random`` does; passed in, so that a seed replays a run."""

DIRECTORY_TOPIC = b"dir/"
"""A broker publishes `DirectoryChanged` as this frame, followed by those of the message."""

BEAT_TOPIC = b"beat/"
"""Under this one it publishes its `Pong`, once a second, so that its subscribers know that events reach them."""


@dataclass(frozen=True, slots=True)
class SendTo:
    """Effect: send this to the broker of that number. A send that fails is a message lost."""

    broker: int
    message: Announce | Renew | Lookup | Ping | Digest | Records
    id: int = 0


def backoff_s(failures: int, first_s: float, max_s: float, random: Random) -> float:
    """Say how long to wait after ``failures`` in a row: doubled each time, and by up to a half less, at random.

    Without the random part, all who lost one broker would come back to it in step.
    """
    return min(max_s, first_s * 2.0 ** min(failures - 1, 30)) * (1 - random() / 2)


def reached_by(endpoint: str, broker: str) -> str:
    """Put the host that ``broker`` was reached by in place of the ``*`` of an endpoint that it announced."""
    if not endpoint.startswith("tcp://*:") or not broker.startswith("tcp://"):
        return endpoint
    return broker.rpartition(":")[0] + ":" + endpoint.rpartition(":")[2]
