"""What would end the process of whoever it happens to, and so has one of its own."""

import subprocess
import sys

import pytest

BUSY_S = 2.5
"""Longer than the interval of heartbeats, twice."""

PROGRAM = f"""
import threading, zmq
from zcat.net.sockets import SocketFactory, SocketOptions, endpoint_of, make_context

context, stranger = make_context(), zmq.Context()
router = SocketFactory(context, SocketOptions(queue_bytes=1 << 20, typical_bytes=1 << 20)).router("tcp://127.0.0.1:0")
with stranger.socket(zmq.DEALER) as dealer:
    dealer.set(zmq.LINGER, 0)
    dealer.set(zmq.SNDTIMEO, 200)
    dealer.connect(endpoint_of(router))
    try:
        for _ in range(100_000):
            dealer.send(bytes(50))
    except zmq.Again:
        pass  # more than all queues hold is on its way
stranger.term()
threading.Event().wait({BUSY_S})
while router.poll(200):
    router.recv_multipart()
print("survived")
"""


@pytest.mark.timeout(60)
def test_a_peer_that_floods_a_busy_service_and_goes_does_not_end_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=50)
    assert done.stdout == "survived\n", (done.returncode, done.stderr[-500:])
