"""All areas of the command line, in the order of ``zcat --help``."""

from types import ModuleType

from zcat.cli import (
    browse,
    check,
    completion,
    config,
    export,
    get,
    hdf5,
    mesh,
    serve,
    show,
    up,
)

ALL: tuple[ModuleType, ...] = (up, serve, config, check, mesh, browse, show, get, export, hdf5, completion)
"""Each has ``add(commands)``, which adds its commands to the parser, and runs them by ``args.run(args)``."""
