"""Take from this process, for good, what reading HDF5 files never needs: files elsewhere, the network, programs.

So that even a file that takes over the HDF5 library finds nothing to take and no way out. By Landlock (Linux 5.13)
no file is opened but below some folders, and for reading only; by seccomp no socket is made, no program started,
no other process looked into. Where the kernel lacks one of them, the rest still holds: resource limits, checks of
links, and a process of its own.

Sources: the kernel's ``userspace-api/landlock.rst`` and ``userspace-api/seccomp_filter.rst``.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_VERSION = 1  # flag of landlock_create_ruleset: give the version of the interface
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # by the version that brought them
_TCP_RIGHTS_FROM, _TCP_RIGHTS = 4, 3
_SCOPES_FROM, _SCOPES = 6, 3  # abstract sockets, signals
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _BY_FILTER = 38, 22, 2
_O_PATH = os.O_PATH | os.O_CLOEXEC

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
"""Where modules and libraries are loaded from late; nothing there is secret."""

_REFUSED = {
    # socket, socketpair, connect, bind, execve, execveat, ptrace, process_vm_readv and _writev, io_uring_setup,
    # bpf, userfaultfd, perf_event_open, keyctl, add_key, request_key
    "x86_64": (0xC000003E, (41, 53, 42, 49, 59, 322, 101, 310, 311, 425, 321, 323, 298, 250, 248, 249)),
    "aarch64": (0xC00000B7, (198, 199, 203, 200, 221, 281, 117, 270, 271, 425, 280, 282, 241, 219, 217, 218)),
}
"""By machine: how seccomp names it (``AUDIT_ARCH``), and the numbers of calls."""

_X32 = 0x40000000  # calls by another numbering begin there
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000

_LIBC = ctypes.CDLL(None, use_errno=True)


def confine(readable: Iterable[str]) -> list[str]:
    """Confine this process, and whatever it starts.

    Args:
        readable: folders and files; what is there, and the interpreter's own files, can be opened for reading.

    Returns:
        What is in force: ``landlock N``, ``seccomp``, or nothing.
    """
    if _call_prctl(_NO_NEW_PRIVILEGES, 1) != 0:
        return []
    in_force = []
    version = _restrict_files([*readable, *_SYSTEM, sys.prefix, sys.base_prefix, *filter(None, sys.path)])
    if version:
        in_force.append(f"landlock {version}")
    if _filter_calls():
        in_force.append("seccomp")
    return in_force


def _restrict_files(readable: list[str]) -> int:
    """Give the version of Landlock that is in force; 0 for none."""
    version: int = _call(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return 0
    handled = sum(rights for since, rights in _FILE_RIGHTS.items() if since <= version)
    tcp = _TCP_RIGHTS if version >= _TCP_RIGHTS_FROM else 0
    scopes = _SCOPES if version >= _SCOPES_FROM else 0
    fields = struct.pack("@QQQ", handled, tcp, scopes)[: 8 + 8 * bool(tcp) + 8 * bool(scopes)]
    ruleset: int = _call(_CREATE_RULESET, fields, len(fields), 0)
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        return version if _call(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        fd = os.open(path, _O_PATH)
    except OSError:  # then nothing can be read there either
        return
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _filter_calls() -> bool:
    if platform.machine() not in _REFUSED or sys.maxsize < 1 << 32:
        return False
    machine, refused = _REFUSED[platform.machine()]
    left = len(refused)
    program = [
        (_LOAD, 0, 0, 4),  # struct seccomp_data: the machine
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the call
        (_IF_AT_LEAST, left + 1, 0, _X32),
        *((_IF_EQUAL, left - at, 0, number) for at, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    filters = struct.pack("@HP", len(program), ctypes.addressof(code))
    return _call_prctl(_SET_SECCOMP, _BY_FILTER, filters) == 0


def _call_prctl(option: int, *arguments: int | bytes) -> int:
    wide = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in (*arguments, 0, 0, 0)][:4]
    return int(_LIBC.prctl(option, *wide))


def _call(number: int, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(_LIBC.syscall(ctypes.c_long(number), *wide))
