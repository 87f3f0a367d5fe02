"""Sockets, the loop that owns them, and the one door into it."""
