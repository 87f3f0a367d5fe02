"""Reads along while everything is made to fail, and decides what was wrong of all that clients saw.

Each client is a `reader.py` of its own, so that a pause is a pause of zcat and not of the test's interpreter.
What is checked all the time: each item is the origin's, for the version that came with it; one read sees one
version; one version has one content, whoever reads it; versions never go back as long as the process that serves
them lives. At the end everybody must see exactly what the origin holds, so no event was lost for good.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from writer import BEACON, Writer

READY_S = 60.0
ANSWER_S = 60.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Span:
    """A time, in the monotonic seconds that all processes of a host share."""

    begin_s: float
    end_s: float

    def touches(self, other: "Span") -> bool:
        return self.begin_s <= other.end_s and other.begin_s <= self.end_s


@dataclass(frozen=True, slots=True)
class Failure:
    """A read that failed."""

    client: str
    root: str
    code: str
    reason: str
    when: Span


@dataclass(slots=True)
class Client:
    """One reader process, and what it told."""

    name: str
    process: "subprocess.Popen[str]"
    ready: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    well_at_s: float = 0.0
    """When a read succeeded last."""
    wrong: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pauses: list[Span] = field(default_factory=list)
    seen: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict)
    versions: dict[tuple[str, str, str], int] = field(default_factory=dict)
    catalogues: "queue.SimpleQueue[dict[str, Any]]" = field(default_factory=queue.SimpleQueue)


class Checker:
    """The readers of one cluster. `close` it."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.clients: dict[str, Client] = {}
        self._log = log.open("w")
        self._environment = environment
        self._asked = 0

    def add(self, name: str, config: dict[str, Any], prefix: Sequence[str] = ()) -> None:
        """Start a reader; `wait` until it reads."""
        program = Path(__file__).with_name("reader.py")
        process = subprocess.Popen(
            [*prefix, sys.executable, str(program), json.dumps(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=self._environment,
        )  # fmt: skip
        client = self.clients[name] = Client(name, process)
        threading.Thread(target=self._listen, args=(client,), daemon=True).start()

    def wait(self) -> None:
        """Return when every reader has read something."""
        for client in self.clients.values():
            assert client.ready.wait(READY_S), f"{client.name} did not begin to read; see {self._log.name}"
        until_s = time.monotonic() + READY_S
        while any(client.count < 20 for client in self.clients.values()):
            assert time.monotonic() < until_s, f"somebody reads nothing: {self.failures()[-3:]}"
            time.sleep(LOOK_S)

    def close(self) -> None:
        for client in self.clients.values():
            assert client.process.stdin
            client.process.kill()
            client.process.wait()
            client.process.stdin.close()
        self._log.close()

    # -- what was seen ---------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """Everything that no client may ever see."""
        found = [f"{client.name}: {what}" for client in self.clients.values() for what in client.wrong]
        contents: dict[tuple[str, str, str], tuple[int, str]] = {}
        for client in self.clients.values():
            for key, generation in list(client.versions.items()):
                other, who = contents.setdefault(key, (generation, client.name))
                if other != generation:
                    found.append(f"{key} is generation {other} to {who} and {generation} to {client.name}")
        died = [client.name for client in self.clients.values() if client.process.poll() is not None]
        return found + [f"{name}: the reader died; see {self._log.name}" for name in died]

    def failures(self) -> list[Failure]:
        return [failure for client in self.clients.values() for failure in list(client.failures)]

    def reads_count(self) -> int:
        return sum(client.count for client in self.clients.values())

    def longest_pause_s(self, since_s: float, names: Sequence[str] = ()) -> float:
        """The longest time in which a client that tried had no successful read."""
        now_s = time.monotonic()
        longest = 0.0
        for client in self.clients.values():
            if names and client.name not in names:
                continue
            spans = [*client.pauses, Span(client.well_at_s, now_s)]
            longest = max([longest, *(span.end_s - span.begin_s for span in spans if span.end_s >= since_s)])
        return longest

    def longest_lag_s(self, writer: Writer, since_s: float) -> float:
        """The longest time from a rewrite of the beacon until a client saw it, or a later one."""
        written = [(generation, at_s) for generation, at_s in writer.written[BEACON] if at_s >= since_s]
        longest = 0.0
        for client in self.clients.values():
            seen = list(client.seen.get((writer.root, BEACON), ()))
            for generation, at_s in written:
                later = [seen_s for number, seen_s in seen if number >= generation]
                longest = max(longest, (min(later) if later else time.monotonic()) - at_s)
        return longest

    def converged_s(self, writers: Sequence[Writer], within_s: float, names: Sequence[str] = ()) -> float:
        """Wait until every client sees exactly what the origins hold; give how long that took.

        The writers must have stopped.
        """
        begin_s = time.monotonic()
        truth = {writer.root: writer.truth for writer in writers}
        waiting = [client for client in self.clients.values() if not names or client.name in names]
        while True:
            waiting = [client for client in waiting if self._sees(client) != truth]
            took_s = time.monotonic() - begin_s
            if not waiting:
                return took_s
            assert took_s < within_s, self._difference(waiting[0], truth)
            time.sleep(LOOK_S)

    # -- private ---------------------------------------------------------------------------------------

    def _sees(self, client: Client) -> dict[str, Any]:
        assert client.process.stdin
        self._asked += 1
        client.process.stdin.write(f"compare {self._asked}\n")
        client.process.stdin.flush()
        while True:
            told = client.catalogues.get(timeout=ANSWER_S)
            if told["number"] == self._asked:
                return dict(told["roots"])

    def _difference(self, client: Client, truth: dict[str, dict[str, int]]) -> str:
        told = self._sees(client)
        lines = [f"{client.name} does not see what the origin holds:"]
        for root, wanted in truth.items():
            found = told.get(root, {})
            for path in sorted({*wanted, *found}):
                if wanted.get(path) != found.get(path):
                    lines.append(f"  {root}/{path}: wanted {wanted.get(path)}, found {found.get(path)}")
        return "\n".join(lines[:20])

    def _listen(self, client: Client) -> None:
        assert client.process.stdout
        for line in client.process.stdout:
            told = json.loads(line)
            what = told.pop("what")
            if what == "told":
                client.count, client.well_at_s = told["count"], told["well_at_s"]
            elif what == "seen":
                client.seen.setdefault((told["root"], told["path"]), []).append((told["generation"], told["at_s"]))
                client.versions[told["root"], told["path"], told["version"]] = told["generation"]
            elif what == "failed":
                when = Span(told["begin_s"], told["end_s"])
                client.failures.append(Failure(client.name, told["root"], told["code"], told["reason"], when))
            elif what == "wrong":
                client.wrong.append(f"{told['root']}: {told['what']} (version {told['version']})")
            elif what == "pause":
                client.pauses.append(Span(told["begin_s"], told["end_s"]))
            elif what == "catalogue":
                client.catalogues.put(told)
            else:
                client.well_at_s = time.monotonic()
                client.ready.set()
        client.ready.set()
