"""What would end the process of whoever it happens to, and so has one of its own."""

import subprocess
import sys

import pytest

BUSY_S = 2.5
"""Longer than any heartbeats would take to begin."""

PROGRAM = """
import sys, threading, zmq
from zcat.net.sockets import SocketFactory, SocketOptions, bind, connect, endpoint_of, make_context

kind, peer_kind, is_bound = sys.argv[1], getattr(zmq, sys.argv[2]), sys.argv[3] == "bound"
context, stranger = make_context(), zmq.Context()
victim = getattr(SocketFactory(context, SocketOptions(queue_bytes=1 << 20, typical_bytes=1 << 20)), kind)()
peer = stranger.socket(peer_kind)
for option, value in ((zmq.LINGER, 0), (zmq.SNDTIMEO, 200), (zmq.RCVTIMEO, 5000), (zmq.SNDHWM, 0)):
    peer.set(option, value)
if is_bound:
    peer.connect(bind(victim, "tcp://127.0.0.1:0"))
else:
    peer.bind("tcp://127.0.0.1:*")
    connect(victim, endpoint_of(peer))

front = []
if peer_kind == zmq.ROUTER:
    while not victim.poll(10, zmq.POLLOUT):
        pass
    victim.send(b"hello")
    front = [peer.recv_multipart()[0]]
if kind in ("sub", "xsub"):
    victim.subscribe(b"") if kind == "sub" else victim.send(bytes([1]))
    while not peer.poll(10):
        victim.poll(0)  # it does what is to do when it is asked something
for number in range(150_000):  # more than all queues hold, and the kernel
    peer.send_multipart([*front, bytes([1]) + b"%0100d" % number])
threading.Event().wait(0.5)
peer.close(linger=0)
stranger.term()
threading.Event().wait(float(sys.argv[4]))
while kind != "pub" and victim.poll(200):
    victim.recv_multipart()
print("survived")
"""

MEETINGS = [
    ("router", "DEALER", "bound"),
    ("dealer", "ROUTER", "connected"),
    ("sub", "XPUB", "connected"),
    ("xsub", "XPUB", "bound"),
    ("xsub", "XPUB", "connected"),
    ("pub", "XSUB", "connected"),
    ("pub", "XSUB", "bound"),
    ("xpub", "XSUB", "bound"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("meeting", MEETINGS, ids=" ".join)
def test_a_peer_that_floods_a_busy_service_and_goes_does_not_end_it(meeting):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *meeting, str(BUSY_S)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == "survived\n", (done.returncode, done.stderr[-500:])
