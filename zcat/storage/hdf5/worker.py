"""The process that opens HDF5 files, and may die of them: ``python -m zcat.storage.hdf5.worker``.

Only `Sandbox` starts it. It answers one request after the other, until nobody asked for a while, or until the
process that started it is gone. It limits itself before it loads HDF5; whoever asks limits the time besides.
"""

import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zcat.errors import BadRequest, TooLarge, ZcatError
from zcat.names import shown
from zcat.storage.hdf5.confine import confine
from zcat.storage.hdf5.wire import Answer, receive, send

if TYPE_CHECKING:
    from zcat.storage.hdf5.open_files import OpenFile, OpenFiles

Handler = Callable[["OpenFile", dict[str, Any]], Answer]
"""Answers one kind of request about an open file; raises ``ZcatError``, or whatever h5py does."""

EXIT_IDLE = 0
EXIT_MEMORY = 3

_NUMBERS = 6

_REQUEST_BODIES_BYTES_MAX = 0
_OPEN_DESCRIPTORS_MAX = 64


def main(handlers: Callable[[], Mapping[str, Handler]], arguments: list[str]) -> None:
    """Serve until the end.

    Args:
        handlers: loads HDF5 and gives what answers each kind of request.
        arguments: numbers: descriptor of the socket, of the life line; limits of memory in bytes, of CPU time per
            request in seconds, of an answer in bytes; and the seconds without a request after which it ends. Then
            the paths below which files may be opened; none for all.
    """
    sock_fd, life_fd, memory_bytes, cpu_s, answer_bytes_max, idle_s = map(int, arguments[:_NUMBERS])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(life_fd)
    _limit(memory_bytes)
    sock = socket.socket(fileno=sock_fd)
    try:
        by_name = handlers()
        _close_plugins()
        files = importlib.import_module("zcat.storage.hdf5.open_files").OpenFiles()
        readable = arguments[_NUMBERS:]
        confined = confine(readable) if readable else []
    except Exception as error:
        send(sock, {"code": "failed", "message": _said(error)}, [])
        raise
    gc.freeze()  # PERF: to look through all that is loaded, again and again, is a fifteenth of a long walk
    send(sock, {"confined": confined}, [])
    _serve(sock, files, by_name, (cpu_s, answer_bytes_max, idle_s))


def handlers() -> Mapping[str, Handler]:
    """Load HDF5 and its filters, and give the handlers of all requests."""
    importlib.import_module("hdf5plugin")
    operations = importlib.import_module("zcat.storage.hdf5.operations")
    return operations.OPERATIONS


def _serve(
    sock: socket.socket, files: "OpenFiles", by_name: Mapping[str, Handler], limits: tuple[int, int, int]
) -> None:
    cpu_s, answer_bytes_max, idle_s = limits
    while select.select([sock], [], [], idle_s)[0]:
        try:
            fields, _, fds = receive(sock, _REQUEST_BODIES_BYTES_MAX, fds_max=1)
        except EOFError:
            break
        _limit_cpu(cpu_s)
        try:
            header, bodies = _answer(by_name, files, fields, fds, answer_bytes_max)
        except MemoryError:  # what HDF5 left half done, nobody knows
            os._exit(EXIT_MEMORY)
        except PermissionError:  # the root was moved, or made anew, since this process was confined to it
            os._exit(EXIT_IDLE)
        finally:
            for fd in fds:
                os.close(fd)
        send(sock, header, bodies)
    os._exit(EXIT_IDLE)  # without HDF5's own clean-up, which walks through whatever a foreign file left behind


def _answer(
    by_name: Mapping[str, Handler], files: "OpenFiles", fields: dict[str, Any], fds: list[int], bytes_max: int
) -> tuple[dict[str, Any], list[Any]]:
    try:
        handler = by_name.get(fields.pop("op"))
        if handler is None or len(fds) != 1:
            raise BadRequest("wanted a known operation, and one open file")
        answer = handler(files.get(fds[0]), fields)
        size = sum(memoryview(body).nbytes for body in answer.bodies)
        if size > bytes_max:
            raise TooLarge(f"an answer of {size} bytes, the limit is {bytes_max}")
    except ZcatError as error:
        return {"code": error.code, "message": error.message}, []
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a foreign file makes h5py raise nearly anything
        return {"code": "bad-content", "message": _said(error)}, []
    return {"fields": answer.fields}, answer.bodies


def _said(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
    return f"HDF5: {type(error).__name__}: {shown(str(error), 400)}{where}"


def _die_with(life_fd: int) -> None:
    """Have the kernel end this process when the other end of a pipe closes, even amid a call to HDF5."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([life_fd], [], [], 0)[0]:  # it closed before we listened
        os._exit(EXIT_IDLE)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_DESCRIPTORS_MAX, _OPEN_DESCRIPTORS_MAX))


def _limit_cpu(cpu_s: int) -> None:
    """Give one request its time: the limit counts from the start of the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_s = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, resource.RLIM_INFINITY))


def _close_plugins() -> None:
    """Leave HDF5 no folder to load further filters from; those that are loaded stay."""
    h5pl = importlib.import_module("h5py").h5pl
    while h5pl.size():
        h5pl.remove(0)


if __name__ == "__main__":
    main(handlers, sys.argv[1:])
