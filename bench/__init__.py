"""Measurements: each module answers one question and prints one table. Run with ``python -m bench.NAME``."""
