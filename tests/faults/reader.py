"""A program that reads all the time and checks every item: over HTTP, or as a subscriber itself (``zcat.join``).

``python reader.py CONFIG``, with what `Config` holds as JSON. It says one JSON object per line on standard output
(see `Reader`), and reads commands from standard input: ``compare N`` asks for all that it can see now.
"""

import http.client
import json
import queue
import random
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

import contents
import numpy as np
from writer import BEACON

import zcat
from zcat.errors import ZcatError

PAUSE_TOLD_S = 0.5
TELL_EVERY_S = 0.25
READ_EVERY_S = 0.01
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Config:
    kind: str
    """``http`` or ``join``."""
    where: list[str]
    """The URL of a subscriber, or endpoints of brokers."""
    roots: list[str]
    seed: int


class Failed(Exception):
    """A read failed, with a code."""


class OverHttp:
    """What a program does that speaks HTTP: one connection, opened anew when it breaks."""

    def __init__(self, url: str) -> None:
        self._netloc = urllib.parse.urlsplit(url).netloc
        self._connection: http.client.HTTPConnection | None = None

    def follow(self, roots: list[str]) -> None:
        pass  # the subscriber's own configuration says that

    def paths(self, root: str) -> list[str]:
        return list(json.loads(self._get(f"/api/list/{root}")[0]))

    def rows(self, root: str, path: str, begin: int, end: int) -> tuple[np.ndarray, str]:
        body, version = self._get(f"/api/fetch/{root}/{path}?slice_={begin}:{end}&fmt=raw")
        return np.frombuffer(body, np.uint64).reshape(-1, contents.COLUMNS), version

    def _get(self, target: str) -> tuple[bytes, str]:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._netloc, timeout=TIMEOUT_S)
            self._connection.request("GET", target)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            raise Failed(f"no-answer: {error!r}") from None
        if answer.status != http.HTTPStatus.OK:
            told = json.loads(body)
            raise Failed(f"{told['code']}: {told['message']}")
        return body, answer.headers.get("X-Zcat-Version", "")


class Joined:
    """What a program does that is a subscriber itself."""

    def __init__(self, brokers: list[str]) -> None:
        self._client = zcat.join(brokers)

    def follow(self, roots: list[str]) -> None:
        for root in roots:
            self._client.follow(root)

    def paths(self, root: str) -> list[str]:
        try:
            return [listed.path for listed in self._client.list(root)]
        except ZcatError as error:
            raise Failed(f"{error.code}: {error.message}") from None

    def rows(self, root: str, path: str, begin: int, end: int) -> tuple[np.ndarray, str]:
        try:
            dataset = self._client[f"{root}/{path}"]
            return dataset[begin:end], dataset.version
        except ZcatError as error:
            raise Failed(f"{error.code}: {error.message}") from None


class Reader:
    """Reads, checks, and tells: ``wrong``, ``failed``, ``pause``, ``seen``, ``told`` and ``catalogue`` lines."""

    def __init__(self, config: Config) -> None:
        self._roots = config.roots
        self._random = random.Random(config.seed)
        self._way: OverHttp | Joined = (OverHttp if config.kind == "http" else Joined)(
            config.where[0] if config.kind == "http" else config.where  # type: ignore[arg-type]
        )
        self._paths: dict[str, list[str]] = {root: [BEACON] for root in config.roots}
        self._newest: dict[tuple[str, str], int] = {}
        self._versions: dict[tuple[str, str, str], int] = {}
        self._count = self._failures_count = 0
        self._well_at_s = time.monotonic()
        self._told_at_s = 0.0
        self._commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            try:
                self._way.follow(self._roots)
                break
            except ZcatError:
                time.sleep(0.1)
        self._well_at_s = time.monotonic()
        say("ready")
        while True:
            self._obey()
            root = self._random.choice(self._roots)
            self._try(root, BEACON if self._count % 3 else self._random.choice(self._paths[root]))
            if self._count % 50 == 0:
                self._list(root)
            self._tell()
            time.sleep(READ_EVERY_S)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._commands.put(line)
        self._commands.put("quit")

    def _obey(self) -> None:
        while not self._commands.empty():
            word, _, number = self._commands.get().strip().partition(" ")
            if word == "quit":
                sys.exit(0)
            say("catalogue", number=int(number), roots=self._everything())

    def _everything(self) -> dict[str, dict[str, int | str]]:
        found: dict[str, dict[str, int | str]] = {}
        for root in self._roots:
            try:
                self._paths[root] = self._listed(root)
                found[root] = {path: self._read(root, path, 0, contents.ROWS) for path in self._paths[root]}
            except Failed as failure:
                found[root] = {"": str(failure)}
        return found

    def _list(self, root: str) -> None:
        try:
            self._paths[root] = self._listed(root)
        except Failed:
            self._paths[root] = [BEACON]

    def _listed(self, root: str) -> list[str]:
        return [path for path in self._way.paths(root) if path.endswith(".b2nd")] or [BEACON]

    def _try(self, root: str, path: str) -> None:
        begin = self._random.randrange(contents.ROWS)
        end = self._random.randrange(begin, contents.ROWS) + 1
        begin_s = time.monotonic()
        self._count += 1
        try:
            self._read(root, path, begin, end)
        except Failed as failure:
            code, _, reason = str(failure).partition(": ")
            if code != "dataset-unknown":  # those that go are meant to
                self._failures_count += 1
                if self._failures_count < 1000:
                    say("failed", root=root, code=code, reason=reason, begin_s=begin_s, end_s=time.monotonic())
                return
        now_s = time.monotonic()
        if now_s - self._well_at_s > PAUSE_TOLD_S:
            say("pause", begin_s=self._well_at_s, end_s=now_s)
        self._well_at_s = now_s

    def _read(self, root: str, path: str, begin: int, end: int) -> int:
        values, version = self._way.rows(root, path, begin, end)
        try:
            if values.shape != (end - begin, contents.COLUMNS):
                raise contents.WrongContent(f"{path}: {end - begin} rows were asked, {values.shape} came")
            generation = contents.generation_of(values, path, begin)
        except contents.WrongContent as wrong:
            say("wrong", root=root, what=str(wrong), version=version)
            return -1
        self._check_history(root, path, generation, version)
        return generation

    def _check_history(self, root: str, path: str, generation: int, version: str) -> None:
        before = self._newest.get((root, path), 0)
        if generation < before:
            say("wrong", root=root, what=f"{path} went back from {before} to {generation}", version=version)
        if self._versions.setdefault((root, path, version), generation) != generation:
            say("wrong", root=root, what=f"{path} has two contents in one version", version=version)
        if generation > before:
            self._newest[root, path] = generation
            say("seen", root=root, path=path, generation=generation, version=version, at_s=time.monotonic())

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._told_at_s + TELL_EVERY_S:
            self._told_at_s = now_s
            say("told", count=self._count, failures=self._failures_count, well_at_s=self._well_at_s)


def say(what: str, **fields: Any) -> None:
    """Tell one thing to whoever started this."""
    print(json.dumps({"what": what, **fields}), flush=True)


if __name__ == "__main__":
    Reader(Config(**json.loads(sys.argv[1]))).run()
