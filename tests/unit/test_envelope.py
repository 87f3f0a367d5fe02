import pytest

from zcat.errors import BadMessage
from zcat.protocol.brokers import reached_by
from zcat.protocol.envelope import split


@pytest.mark.parametrize(
    ("parts", "route", "frames"),
    [
        ([b"id", b"zcat1", b"h"], [b"id"], [b"zcat1", b"h"]),
        ([b"id", b"", b"zcat1", b"h"], [b"id", b""], [b"zcat1", b"h"]),
        ([b"id", b"", b""], [b"id", b""], [b""]),
        ([b"id", b"zcat1", b"h", b""], [b"id"], [b"zcat1", b"h", b""]),
    ],
)
def test_the_route_is_the_routing_id_and_the_empty_frame_of_a_req(
    parts: list[bytes], route: list[bytes], frames: list[bytes]
) -> None:
    assert split(parts) == (route, frames)


@pytest.mark.parametrize("parts", [[], [b"id"], [b"id", b""]])
def test_a_route_without_a_message_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(BadMessage):
        split(parts)


@pytest.mark.parametrize(
    ("endpoint", "broker", "reached"),
    [
        ("tcp://*:7", "tcp://node7:5560", "tcp://node7:7"),
        ("tcp://*:7", "tcp://[::1]:5560", "tcp://[::1]:7"),
        ("tcp://other:7", "tcp://node7:5560", "tcp://other:7"),
        ("inproc://x", "inproc://y", "inproc://x"),
        ("tcp://*:7", "ipc:///y", "tcp://*:7"),
    ],
)
def test_a_star_means_the_host_that_the_broker_was_reached_by(endpoint: str, broker: str, reached: str) -> None:
    assert reached_by(endpoint, broker) == reached
