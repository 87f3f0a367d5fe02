"""The Python interface of those who read: roots and datasets, over HTTP or from an embedded subscriber."""
