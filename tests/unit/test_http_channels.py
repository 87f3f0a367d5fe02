"""One connection's side of the server: what it sends, and how much of it at a time."""

import socket
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer

from zcat.http.bodies import BufferFile, Kept
from zcat.http.channels import TURN_BYTES, Channel, Task


@pytest.fixture
def pair():
    """A channel, and its client."""
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(socket.socket()) as client:
        client.connect(listener.getsockname())
        accepted, address = listener.accept()
        server = SimpleNamespace(active_channels={}, pull_trigger=lambda: None, adj=Adjustments(ident=None))
        channel = Channel(server, accepted, address, Adjustments(), map={})
        yield channel, client
        channel.handle_close()


def queue(channel, items):
    buffer = ReadOnlyFileBasedBuffer(BufferFile((items,)))
    buffer.prepare(items.nbytes)
    channel.outbufs.insert(0, buffer)
    channel.total_outbufs_len += items.nbytes


def received(client, nbytes):
    parts = []
    while nbytes:
        parts.append(client.recv(nbytes))
        nbytes -= len(parts[-1])
    return b"".join(parts)


def test_no_more_than_a_turns_worth_is_sent_at_a_time(pair):
    channel, client = pair
    items = np.arange(8 * TURN_BYTES // 4, dtype="<u4").view("u1")
    queue(channel, items)
    left, got = items.nbytes, []
    while left:
        channel._flush_some()
        sent = left - channel.total_outbufs_len
        assert sent <= TURN_BYTES
        left -= sent
        got.append(received(client, sent))
    assert b"".join(got) == items.tobytes()
    assert len(channel.outbufs) == 2  # what is empty goes in the next turn
    assert channel._flush_some() is False
    assert len(channel.outbufs) == 1


def test_a_small_answer_is_sent_at_once_and_what_the_client_does_not_take_is_queued(pair):
    channel, client = pair
    channel.write_soon(b"a small answer")
    assert channel.total_outbufs_len == 0
    assert received(client, 14) == b"a small answer"
    large = np.random.default_rng(0).bytes(32 << 20)
    for start in range(0, len(large), 1 << 20):
        channel.write_soon(large[start : start + (1 << 20)])
        if channel.total_outbufs_len:
            break
    assert channel.total_outbufs_len
    wanted = start + (1 << 20)
    got = received(client, wanted - channel.total_outbufs_len)
    while channel.total_outbufs_len:
        before = channel.total_outbufs_len
        channel._flush_some()
        got += received(client, before - channel.total_outbufs_len)
    assert got == large[:wanted]


@pytest.mark.parametrize(("wrap", "is_copied"), [(memoryview, True), (Kept, False)])
def test_what_waits_to_be_sent_is_copied_unless_nobody_writes_to_it_again(pair, wrap, is_copied):
    channel, client = pair
    items = np.zeros(4 * TURN_BYTES, "u1")
    task = Task(channel, SimpleNamespace(version="1.1", headers={}, command="GET"))
    task.complete, task.content_length = True, items.nbytes
    task.write(wrap(memoryview(items)))
    items[:] = 1
    got = b""
    with client.makefile("rb") as lines:
        while lines.readline() != b"\r\n":
            pass
        while len(got) < items.nbytes:
            ready = items.nbytes - channel.total_outbufs_len - len(got)
            got += lines.read(ready)
            channel._flush_some()
    assert (got[-1] == 0) is is_copied
