"""Disks: the roots of publishers, the caches of subscribers, and the Blosc2 frame format."""
