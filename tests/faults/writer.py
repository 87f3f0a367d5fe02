"""The origin: a folder that is rewritten all the time, and the truth about it."""

import random
import threading
import time
from pathlib import Path

import contents

BEACON = "beacon.b2nd"
"""Rewritten at every other step, so that it shows how late readers are."""


class Writer:
    """Rewrites, adds and removes datasets of one folder in a thread. `start`, then `stop`."""

    def __init__(self, root: str, folder: Path, seed: int, step_s: float = 0.25, datasets_count: int = 6) -> None:
        self.root = root
        self.folder = folder
        self.written: dict[str, list[tuple[int, float]]] = {}
        """Of each path that there ever was: the generations, and when each was in its place."""
        self._random = random.Random(seed)
        self._step_s = step_s
        self._count = 0
        self._lock = threading.Lock()
        self._truth: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for path in (BEACON, *(f"d{number}.b2nd" for number in range(datasets_count))):
            self._write(path)

    @property
    def truth(self) -> dict[str, int]:
        """Every path that is there now, and its generation."""
        with self._lock:
            return dict(self._truth)

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=f"writer-{self.root}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def step(self) -> None:
        """Change one thing."""
        self._count += 1
        if self._count % 2:
            self._write(BEACON)
            return
        chance = self._random.random()
        if chance < 0.2:
            self._write(f"new/{self._count:04}.b2nd")
        elif chance < 0.3:
            self._remove()
        else:
            self._write(f"d{self._random.randrange(6)}.b2nd")

    def _run(self) -> None:
        while not self._stop.wait(self._step_s):
            self.step()

    def _write(self, path: str) -> None:
        with self._lock:
            generation = self.written[path][-1][0] + 1 if path in self.written else 1
            contents.write(self.folder, path, generation)
            self._truth[path] = generation
            self.written.setdefault(path, []).append((generation, time.monotonic()))

    def _remove(self) -> None:
        with self._lock:
            passing = sorted(path for path in self._truth if path.startswith("new/"))
            if passing:
                (self.folder / passing[0]).unlink()
                del self._truth[passing[0]]
