"""Share n-dimensional Blosc2 datasets among the hosts of a cluster."""

__version__ = "0.1.0"
