"""The services: a machine, a store and sockets each, as one object with ``start()`` and ``close()``."""
