"""The protocol, sans-IO: messages, their frames, and the machines that decide what is said when.

Nothing in here touches a socket, a clock, a thread or a file. PROTOCOL.md is the twin of this package.
"""
