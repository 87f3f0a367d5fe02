"""How services are started, said to be ready, and stopped."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from zcat.cli import exits
from zcat.cli.printing import print_json
from zcat.net.descriptors import watch_descriptors


@dataclass(frozen=True, slots=True)
class Ready:
    """What is told on standard output as soon as everything answers."""

    what: str
    """Of which command."""
    http: str | None
    """Address of the subscriber."""
    brokers: tuple[str, ...]
    """Endpoints of the brokers that it is, or talks to."""
    roots: tuple[str, ...]
    """That it publishes or follows."""


def serve(start: Callable[[contextlib.ExitStack], Ready], as_json: bool) -> int:
    """Start, say so in one line, and stop at Ctrl-C or SIGTERM; return the exit status.

    Args:
        start: starts everything, and leaves on the stack what closes it again.
        as_json: print the line for programs.
    """
    with terminated_as_interrupted(), contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        ready = start(stack)
        _print(ready, as_json)
        stack.callback(_let_a_second_interrupt_kill)
        watch_descriptors()
    return exits.OK


def _print(ready: Ready, as_json: bool) -> None:
    if as_json:
        print_json({key: value for key, value in asdict(ready).items() if key != "what"})
    else:
        told = {"HTTP": ready.http, "broker": ", ".join(ready.brokers), "roots": ", ".join(ready.roots)}
        print(
            f"zcat {ready.what} is ready: {'; '.join(f'{name} {value}' for name, value in told.items() if value)}"
        )
    # whoever started this waits for the line, often through a pipe
    print(end="", flush=True)


def _let_a_second_interrupt_kill() -> None:
    """While everything is being closed, Ctrl-C ends the process at once; a second SIGTERM changes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at SIGTERM, as at Ctrl-C, also during the start."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        # not only SIGTERM: a shell without job control starts what ends in "&" with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
