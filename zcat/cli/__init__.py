"""The command ``zcat``: the only place where everything is put together."""
