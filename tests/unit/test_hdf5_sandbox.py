"""Workers that crash, hang, swell and lie: each costs itself, and nothing else."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from zcat.errors import (
    BadContent,
    BadRequest,
    Busy,
    Closed,
    NotReadable,
    Stale,
    StorageFailed,
    TooLarge,
    ZcatError,
)
from zcat.limits import GIB, MIB
from zcat.storage.hdf5.asking import read_attribute_digests, read_attributes, read_inventory, read_table
from zcat.storage.hdf5.sandbox import Sandbox, SandboxLimits

WICKED = textwrap.dedent(
    """
    import os, signal, socket, sys, threading, time
    from zcat.errors import NotReadable
    from zcat.storage.hdf5.wire import Answer
    from zcat.storage.hdf5.worker import main

    def say(raw):
        socket.socket(fileno=os.dup(int(sys.argv[1]))).sendall(raw)
        time.sleep(100)

    def spin():
        while True:
            pass

    def hog():
        return [bytearray(1 << 28) for _ in range(100)]

    def refuse():
        raise NotReadable("a reason")

    def op(work):
        return lambda file, fields: Answer({"is": work()}, [])

    OPERATIONS = {
        "pid": op(os.getpid),
        "environment": op(lambda: dict(os.environ)),
        "crash": op(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
        "exit": op(lambda: os._exit(7)),
        "hang": op(lambda: time.sleep(100)),
        "spin": op(spin),
        "hog": op(hog),
        "refuse": op(refuse),
        "bug": op(lambda: 1 // 0),
        "text": op(lambda: say(b"hello, this is no message at all")),
        "huge header": op(lambda: say(b"\\xff\\xff\\xff\\x7f")),
        "lying bodies": op(lambda: say(b"\\x0c\\0\\0\\0\\x81\\xa6bodies\\x91\\xcd\\xff\\xff")),
        "no map": op(lambda: say(b"\\x01\\0\\0\\0\\x90")),
        "no fields": op(lambda: say(b"\\x09\\0\\0\\0\\x81\\xa6bodies\\x90")),
        "read": lambda file, fields: Answer({"is": len(open(fields["path"], "rb").read())}, []),
        "socket": op(lambda: socket.socket().fileno()),
        "program": op(lambda: os.execv("/bin/true", ["true"])),
        "thread": op(lambda: threading.Thread(target=int).start()),
        "write": lambda file, fields: open(fields["path"], "wb", buffering=0).write(b"x" * 100),
        "sum": lambda file, fields: Answer({"is": sum(fields["numbers"])}, [b"a" * fields["size"], b""]),
    }
    main(lambda: OPERATIONS, sys.argv[1:])
    """
)
LIMITS = SandboxLimits(memory_bytes=GIB, cpu_s=20, wall_s=30, answer_bytes_max=MIB)


def wicked(count=1, limits=LIMITS, readable=None):
    return Sandbox(count, limits, (sys.executable, "-c", WICKED), readable)


def confinement():
    """Say what a process of this machine can be confined by."""
    code = "from zcat.storage.hdf5.confine import confine; print(*confine(['/usr']), sep=',')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("hdf5") / "sound.h5"
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "sound"
        data = file.create_dataset(
            "g/data", data=np.arange(100.0).reshape(10, 10), chunks=(5, 5), compression="gzip"
        )
        data.attrs.update({"unit": "K", "list": [1, 2, 3]})
        file.create_dataset("text", data=["a", "bcd"], dtype=h5py.string_dtype())
        file["table"] = np.zeros(4, [("a", "i4"), ("b", "S3")])
        file["soft"] = h5py.SoftLink("/g/data")
    return path


@pytest.fixture
def fd(path):
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def pid_of(sandbox, fd):
    return sandbox.call("pid", {}, fd)[0]["is"]


def is_gone(pid):
    """Wait until a process that is none of our children, or a buried one, is no more."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        threading.Event().wait(0.01)
    return False


def test_a_worker_answers_and_is_asked_again(fd):
    with wicked() as sandbox:
        fields, bodies = sandbox.call("sum", {"numbers": [1, 2, 3], "size": 1000}, fd)
        assert fields == {"is": 6}
        assert [bytes(body) for body in bodies] == [b"a" * 1000, b""]
        assert pid_of(sandbox, fd) == pid_of(sandbox, fd)
        assert (sandbox.started, sandbox.lost) == (1, 0)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("crash", "crashed on it .SIGSEGV."),
        ("exit", "exit 7"),
        ("text", "nonsense"),
        ("huge header", "nonsense"),
        ("no map", "nonsense"),
        ("hog", "more memory"),
    ],
)
def test_a_worker_that_dies_or_lies_is_replaced(fd, op, why):
    with wicked() as sandbox:
        with pytest.raises(BadContent, match=why):
            sandbox.call(op, {}, fd)
        assert sandbox.call("sum", {"numbers": [1], "size": 1}, fd)[0] == {"is": 1}
        assert (sandbox.started, sandbox.lost) == (2, 1)


@pytest.mark.parametrize("op", ["hang", "lying bodies"])
def test_a_worker_that_hangs_is_killed_when_its_time_is_over(fd, op):
    with wicked(limits=SandboxLimits(memory_bytes=GIB, wall_s=0.3)) as sandbox:
        with pytest.raises(BadContent, match=r"more than 0\.3 s"):
            sandbox.call(op, {}, fd)
        assert (sandbox.started, sandbox.lost) == (1, 1)


def test_a_worker_that_computes_for_ever_is_ended_by_the_kernel(fd):
    limits = SandboxLimits(memory_bytes=GIB, cpu_s=0)
    with wicked(limits=limits) as sandbox, pytest.raises(BadContent, match="computed for more"):
        sandbox.call("spin", {}, fd)


def test_an_answer_without_fields_is_nonsense(fd):
    with wicked() as sandbox, pytest.raises(BadContent, match="nonsense"):
        sandbox.call("no fields", {}, fd)


def test_what_an_operation_refuses_costs_no_worker(fd):
    with wicked() as sandbox:
        with pytest.raises(NotReadable, match="a reason"):
            sandbox.call("refuse", {}, fd)
        with pytest.raises(BadContent, match="ZeroDivisionError"):
            sandbox.call("bug", {}, fd)
        with pytest.raises(BadRequest, match="known operation"):
            sandbox.call("fly", {}, fd)
        with pytest.raises(TooLarge, match="answer of"):
            sandbox.call("sum", {"numbers": [], "size": 2 * MIB}, fd)
        assert (sandbox.started, sandbox.lost) == (1, 0)


def test_a_worker_may_write_no_file_and_sees_little_of_our_environment(fd, tmp_path, monkeypatch):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/tmp/plugins")
    monkeypatch.setenv("ZCAT_TOKEN", "secret")
    with wicked() as sandbox:
        environment = sandbox.call("environment", {}, fd)[0]["is"]
        assert environment["HDF5_PLUGIN_PATH"] == ""
        assert "ZCAT_TOKEN" not in environment
        with pytest.raises(BadContent, match="File too large"):
            sandbox.call("write", {"path": str(tmp_path / "new")}, fd)


def test_a_worker_loads_modules_from_where_we_do_and_from_nowhere_else(fd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "modules", "/elsewhere", ""]))
    with wicked() as sandbox:
        paths = sandbox.call("environment", {}, fd)[0]["is"]["PYTHONPATH"].split(os.pathsep)
    assert paths[1:] == [str(tmp_path), str(tmp_path / "modules"), "/elsewhere"]


@pytest.mark.skipif("landlock" not in confinement(), reason="a kernel without Landlock")
def test_a_worker_opens_nothing_beside_its_root(fd, path, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with wicked(readable=path.parent) as sandbox:
        assert sandbox.call("read", {"path": str(path)}, fd)[0]["is"] == path.stat().st_size
        pid = pid_of(sandbox, fd)
        with pytest.raises(Busy):
            sandbox.call("read", {"path": str(tmp_path / "secret")}, fd)
        with pytest.raises(Busy):
            sandbox.call("write", {"path": str(path.parent / "new")}, fd)
        assert pid_of(sandbox, fd) != pid
    assert not (path.parent / "new").exists()


@pytest.mark.skipif("seccomp" not in confinement(), reason="a kernel without seccomp")
def test_a_worker_makes_no_connection_and_starts_no_program(fd, path):
    with wicked(readable=path.parent) as sandbox:
        assert sandbox.call("thread", {}, fd)[0] == {"is": None}
        for op in ("socket", "program"):
            with pytest.raises(Busy):
                sandbox.call(op, {}, fd)


def test_a_root_that_was_made_anew_is_read_by_a_new_worker(tmp_path, path):
    root = tmp_path / "root"
    with Sandbox(1, LIMITS, readable=root) as sandbox:
        for _ in range(2):
            root.mkdir()
            copied = root / "sound.h5"
            copied.write_bytes(path.read_bytes())
            with open(copied, "rb") as file:
                assert [item.path for item in read_inventory(sandbox, file.fileno())] == SOUND
            shutil.rmtree(root)


def test_one_worker_that_hangs_does_not_disturb_the_others(fd):
    with wicked(2, SandboxLimits(memory_bytes=GIB, wall_s=20)) as sandbox, ThreadPoolExecutor(1) as pool:
        hung = pool.submit(sandbox.call, "hang", {}, fd)
        pids = {pid_of(sandbox, fd) for _ in range(20)}
        assert len(pids) <= 2
        assert not hung.done()
        sandbox.close()
        with pytest.raises(Closed):
            hung.result(timeout=20)


def test_many_threads_get_their_own_answers(fd):
    def work(number):
        fields, bodies = sandbox.call("sum", {"numbers": [number, 1], "size": number}, fd)
        return fields["is"] == number + 1 and len(bodies[0]) == number

    with wicked(3) as sandbox, ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(300)))
        assert sandbox.started <= 3
        assert sandbox.lost == 0


def test_threads_whose_workers_crash_leave_the_others_their_answers(fd):
    def work(number):
        if number % 10:
            return sandbox.call("sum", {"numbers": [number], "size": 1}, fd)[0]["is"] == number
        with pytest.raises(BadContent):
            sandbox.call("crash", {}, fd)
        return True

    with wicked(2) as sandbox, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
        assert sandbox.lost == 4


def test_when_all_workers_are_at_work_a_call_is_told_so(fd):
    with wicked() as sandbox, ThreadPoolExecutor(1) as pool:
        first = pool.submit(sandbox.call, "hang", {}, fd)
        while not sandbox.started:
            threading.Event().wait(0.001)
        with pytest.raises(Busy, match="at work"):
            sandbox.call("pid", {}, fd, wait_s=0)
        sandbox.close()
        assert isinstance(first.exception(timeout=30), Closed)


def test_when_too_many_calls_wait_a_further_one_is_told_so(fd):
    with wicked(limits=SandboxLimits(waiting_max=0)) as sandbox, pytest.raises(Busy, match="wait already"):
        sandbox.call("pid", {}, fd)


def test_a_worker_that_died_while_it_was_idle_is_no_requests_fault(fd):
    with wicked() as sandbox:
        pid = pid_of(sandbox, fd)
        os.kill(pid, signal.SIGKILL)
        sandbox._idle[0]._process.wait()
        assert pid_of(sandbox, fd) != pid
        assert (sandbox.started, sandbox.lost) == (2, 1)


def test_an_idle_worker_ends_and_the_next_call_does_not_notice(fd):
    with wicked(limits=SandboxLimits(memory_bytes=GIB, idle_s=1)) as sandbox:
        pid = pid_of(sandbox, fd)
        assert is_gone(pid)
        assert pid_of(sandbox, fd) != pid
        assert (sandbox.started, sandbox.lost) == (2, 0)


def test_a_worker_that_was_killed_from_outside_is_replaced(fd):
    with wicked() as sandbox:
        os.kill(pid_of(sandbox, fd), signal.SIGKILL)
        with pytest.raises(BadContent, match="SIGKILL"):
            pid_of(sandbox, fd)
        assert pid_of(sandbox, fd)


def test_closing_ends_all_workers(fd):
    with wicked() as sandbox:
        pid = pid_of(sandbox, fd)
    assert is_gone(pid)
    with pytest.raises(Closed):
        pid_of(sandbox, fd)


def test_a_worker_dies_with_the_process_that_started_it_even_when_it_hangs(path):
    program = textwrap.dedent(
        """
        import os, sys, threading
        from zcat.storage.hdf5.sandbox import Sandbox
        sandbox = Sandbox(1, worker=(sys.executable, "-c", sys.argv[2]), readable=sys.argv[1])
        fd = os.open(sys.argv[1], os.O_RDONLY)
        print(sandbox.call("pid", {}, fd)[0]["is"], flush=True)
        sandbox.call("spin", {}, fd)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program, path, WICKED], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert is_gone(pid)


def test_a_worker_that_cannot_start_says_why(fd):
    for command in ((sys.executable, "-c", "raise SystemExit(1)"), ("/no/such/program",)):
        with Sandbox(1, LIMITS, command) as sandbox, pytest.raises(StorageFailed, match="did not start"):
            sandbox.call("pid", {}, fd)


def test_nothing_is_left_open(fd):
    before = len(os.listdir("/proc/self/fd"))
    with wicked() as sandbox:
        pid_of(sandbox, fd)
        for op in ("crash", "text"):
            with pytest.raises(BadContent):
                sandbox.call(op, {}, fd)
    with Sandbox(1, LIMITS, ("/no/such/program",)) as sandbox, pytest.raises(StorageFailed):
        sandbox.call("pid", {}, fd)

    assert len(os.listdir("/proc/self/fd")) <= before  # less, if something of an earlier test is closed late


# -- the workers that there are --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    limits = SandboxLimits(memory_bytes=GIB, cpu_s=1, wall_s=20)
    with Sandbox(2, limits, readable=tmp_path_factory.getbasetemp()) as sandbox:
        yield sandbox


def everything(sandbox, path):
    """Ask all that can be asked of a file; give the paths of what it has."""
    fd = os.open(path, os.O_RDONLY)
    try:
        items = read_inventory(sandbox, fd)
        for item in items:
            if item.problem is None:
                read_attributes(sandbox, fd, item.hdf5_path)
            if item.problem is None and item.layout is not None and item.layout.chunks is not None:
                read_table(sandbox, fd, item.hdf5_path)
        return [item.path for item in items]
    finally:
        os.close(fd)


SOUND = ["", "g", "g/data", "soft", "table", "text"]


def test_a_sound_file_is_told(sandbox, path, fd):
    assert everything(sandbox, path) == SOUND
    values, digest = read_attributes(sandbox, fd, "/g/data")
    assert values == {"unit": "K", "list": [1, 2, 3]}
    assert read_attribute_digests(sandbox, fd, ["/g/data", "/g", "/g/data"])[::2] == [digest, digest]
    table = read_table(sandbox, fd, "/g/data")
    assert (table.offsets > 0).all()
    assert len(table.sizes) == 4


def test_a_file_that_was_deleted_meanwhile_is_stale(sandbox, path, tmp_path):
    shutil.copy(path, tmp_path / "gone.h5")
    fd = os.open(tmp_path / "gone.h5", os.O_RDONLY)
    os.unlink(tmp_path / "gone.h5")
    try:
        with pytest.raises(Stale):
            read_inventory(sandbox, fd)
    finally:
        os.close(fd)


def test_what_is_no_file_at_all_is_bad_content(sandbox, tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(BadContent):
        read_inventory(sandbox, ours.fileno())
    (tmp_path / "empty.h5").touch()
    with pytest.raises(BadContent, match="no HDF5 file"):
        everything(sandbox, tmp_path / "empty.h5")


def damaged(raw, seed):
    """Cut a file short, or change some of its bytes."""
    chance = random.Random(seed)
    if seed % 4 == 0:
        return raw[: chance.randrange(len(raw))]
    changed = bytearray(raw)
    for _ in range(chance.choice([1, 5, 50])):
        at = chance.randrange(len(raw))
        changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << chance.randrange(8)])
    return bytes(changed)


def test_damaged_files_cost_a_worker_each_at_most(sandbox, path, tmp_path):
    raw = path.read_bytes()
    for seed in range(60):
        lost = sandbox.lost
        (tmp_path / f"{seed}.h5").write_bytes(damaged(raw, seed))
        with contextlib.suppress(ZcatError):
            everything(sandbox, tmp_path / f"{seed}.h5")
        assert sandbox.lost <= lost + 1, seed

    assert everything(sandbox, path) == SOUND


def test_a_text_that_would_fill_the_memory_costs_a_worker_at_most(sandbox, path, tmp_path):
    bomb = tmp_path / "bomb.h5"
    with h5py.File(bomb, "w") as file:
        data = file.create_dataset("data", shape=(8192,), dtype=h5py.string_dtype())
        data[0] = "x" * MIB
    raw = bytearray(bomb.read_bytes())
    with h5py.File(bomb) as file:
        at = file["data"].id.get_offset()
    raw[at : at + 8192 * 16] = raw[at : at + 16] * 8192  # all of them are the first one
    bomb.write_bytes(raw)

    fd = os.open(bomb, os.O_RDONLY)
    with contextlib.suppress(BadContent):  # or HDF5 notices it itself, and there is a reason
        assert "memory" in read_inventory(sandbox, fd)[1].problem
    os.close(fd)

    assert everything(sandbox, path) == SOUND
