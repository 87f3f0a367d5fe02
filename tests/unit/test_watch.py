import errno
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles

from zcat.storage.watch import _NETWORK_FILE_SYSTEMS, PATHS_MAX, Watcher, WatchTimes, is_network_file_system

WAIT_S = 10.0
QUICK = WatchTimes(settle_s=0.02, poll_s=0.02, rescan_s=60)


class Watching:
    """A watcher that writes down what it tells."""

    def __init__(self, top: Path, times: WatchTimes = QUICK, force_polling: bool | None = False) -> None:
        self.told: queue.SimpleQueue[set[str] | None] = queue.SimpleQueue()
        self.watcher = Watcher(top, self.told.put, times, force_polling)
        self.watcher.start()

    def next(self) -> set[str] | None:
        return self.told.get(timeout=WAIT_S)

    def until(self, wanted: str | None) -> None:
        """Wait until ``wanted`` is told, whatever comes before it."""
        while True:
            told = self.next()
            if told is wanted or (told is not None and wanted in told):
                return


Watch = Callable[..., Watching]


@pytest.fixture
def watch() -> Iterator[Watch]:
    watchings: list[Watching] = []

    def start(*args: object, **options: object) -> Watching:
        watchings.append(Watching(*args, **options))  # type: ignore[arg-type]
        return watchings[-1]

    yield start
    for watching in watchings:
        watching.watcher.stop()


def threads_of_this_process() -> int:
    return len(os.listdir("/proc/self/task"))


def test_the_first_word_is_look_at_everything(watch: Watch, tmp_path: Path):
    assert watch(tmp_path).next() is None
    assert watch(tmp_path, force_polling=True).next() is None


def test_a_new_file_is_told_by_its_path(watch: Watch, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    watching = watch(tmp_path)
    assert watching.next() is None

    (tmp_path / "sub" / "a.b2nd").write_bytes(b"x")

    assert watching.next() == {"sub/a.b2nd"}


def test_change_rename_and_deletion_are_told(watch: Watch, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    watching = watch(tmp_path)
    watching.until(None)

    with open(tmp_path / "a", "ab") as file:
        file.write(b"more")
    watching.until("a")
    (tmp_path / "a").rename(tmp_path / "c")
    watching.until("c")
    (tmp_path / "b").unlink()
    watching.until("b")


def test_a_new_folder_is_watched_too(watch: Watch, tmp_path: Path):
    watching = watch(tmp_path)
    watching.until(None)

    (tmp_path / "sub").mkdir()
    watching.until("sub")
    (tmp_path / "sub" / "a").touch()
    watching.until("sub/a")


def test_a_folder_behind_a_link_is_told_with_relative_paths(watch: Watch, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    watching = watch(tmp_path / "alias")
    watching.until(None)

    (tmp_path / "real" / "a").touch()

    assert watching.next() == {"a"}


def test_reading_tells_nothing_and_hidden_files_neither(watch: Watch, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    watching = watch(tmp_path)
    watching.until(None)

    (tmp_path / "a").read_bytes()
    (tmp_path / ".git" / "index").touch()
    (tmp_path / ".half").write_bytes(b"x")
    (tmp_path / ".half").rename(tmp_path / "whole")

    assert watching.next() == {"whole"}


def test_very_many_changes_are_told_as_anything(tmp_path: Path):
    told: list[set[str] | None] = []
    watcher = Watcher(tmp_path, told.append)

    watcher._tell_of(f"{tmp_path}/{number}" for number in range(PATHS_MAX))
    watcher._tell_of(f"{tmp_path}/{number}" for number in range(PATHS_MAX + 1))

    assert [paths and len(paths) for paths in told] == [PATHS_MAX, None]


def test_everything_is_looked_at_again_now_and_then(watch: Watch, tmp_path: Path):
    watching = watch(tmp_path, WatchTimes(settle_s=0.02, poll_s=60, rescan_s=0.01))

    assert [watching.next() for _ in range(3)] == [None] * 3


def test_polling_looks_at_everything_each_time(watch: Watch, tmp_path: Path):
    watching = watch(tmp_path, WatchTimes(poll_s=0.01), force_polling=True)

    assert [watching.next() for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "OS file watch limit reached"), RuntimeError("Too many open files (os error 24)")],
)
def test_without_inotify_the_folder_is_polled_and_a_warning_logged(
    watch: Watch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    def refuse(*_: object, **__: object) -> Iterator[object]:
        raise error
        yield

    monkeypatch.setattr(watchfiles, "watch", refuse)
    with caplog.at_level(logging.WARNING, "zcat"):
        watching = watch(tmp_path)
        assert [watching.next() for _ in range(3)] == [None] * 3

    assert "watching failed, polling for now" in caplog.text
    assert str(error.args[-1]) in caplog.text


def test_a_name_that_is_not_utf_8_does_not_end_the_watch(watch: Watch, tmp_path: Path):
    watching = watch(tmp_path)
    watching.until(None)

    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    watching.until(None)

    deadline_s = time.monotonic() + WAIT_S
    for number in range(1000):  # until inotify is back
        (tmp_path / f"{number}").touch()
        if watching.next() is not None:
            break
        assert time.monotonic() < deadline_s


def test_a_folder_that_is_missing_or_vanishes_is_waited_for(watch: Watch, tmp_path: Path):
    top = tmp_path / "root"
    watching = watch(top)
    watching.until(None)  # by polling

    for name in ("a", "b"):
        top.mkdir()
        deadline_s = time.monotonic() + WAIT_S
        told: set[str] | None = None
        while told is None:
            (top / name).touch()
            told = watching.next()
            assert time.monotonic() < deadline_s
        shutil.rmtree(top)
        watching.until(None)


def test_a_call_that_fails_is_logged_and_the_watch_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def fail(_: set[str] | None) -> None:
        calls.put(None)
        raise ValueError("a bug")

    watcher = Watcher(tmp_path, fail, QUICK, force_polling=True)
    watcher.start()
    try:
        for _ in range(3):
            calls.get(timeout=WAIT_S)
    finally:
        watcher.stop()

    assert "on_change failed" in caplog.text


@pytest.mark.parametrize("force_polling", [False, True])
def test_stopping_is_quick_and_leaves_no_thread(watch: Watch, tmp_path: Path, force_polling: bool):
    before = threads_of_this_process()
    watching = watch(tmp_path, WatchTimes(poll_s=60), force_polling)
    watching.until(None)
    began_s = time.monotonic()

    watching.watcher.stop()
    watching.watcher.stop()

    assert time.monotonic() - began_s < 0.3
    assert "zcat-watch" not in {thread.name for thread in threading.enumerate()}
    deadline_s = time.monotonic() + WAIT_S  # inotify's own thread ends by itself
    while threads_of_this_process() > before:
        assert time.monotonic() < deadline_s
        os.sched_yield()


def test_a_watcher_that_never_started_can_be_stopped(tmp_path: Path):
    Watcher(tmp_path, lambda _: None).stop()


def test_local_file_systems_are_told_from_network_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not is_network_file_system("/proc")
    assert not is_network_file_system(tmp_path / "missing")

    monkeypatch.setitem(_NETWORK_FILE_SYSTEMS, 0x9FA0, "what linux/magic.h has for /proc")

    assert is_network_file_system("/proc")


def test_a_network_file_system_is_polled(watch: Watch, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(_NETWORK_FILE_SYSTEMS, 0x9FA0, "what linux/magic.h has for /proc")

    watching = watch("/proc", WatchTimes(poll_s=0.01), force_polling=None)

    assert [watching.next() for _ in range(3)] == [None] * 3
