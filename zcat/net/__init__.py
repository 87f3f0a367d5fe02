"""Everything that touches ZeroMQ: sockets, the loop thread that owns them, its mailbox, the forwarder.

No other package imports ``zmq``. Services see sockets only as tokens that they hand back to this package,
and messages only as lists of ``bytes`` and ``memoryview``.
"""
