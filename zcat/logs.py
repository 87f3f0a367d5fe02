"""How zcat logs: one line per event, ``key=value`` behind a few words.

``2026-11-22T19:53:35.123Z INFO zcat.services.broker lease granted root=sst expires_in_s=20``

Every module has its own ``log = logging.getLogger(__name__)``; only the command line calls `set_up`. What
comes from outside (a path, a peer's words) goes through `kv`, so that nobody can forge a line.
"""

import logging
import sys
import threading
import time
from typing import TextIO

from zcat.errors import BadConfig

LEVELS = ("debug", "info", "warning", "error")
VALUE_LENGTH_MAX = 200
_MARKS_QUOTED = frozenset(' "=\\')


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to ``stream``, from ``level`` upward; a second call replaces the first.

    Other packages are heard from ``warning`` upward, whatever ``level`` says.

    Args:
        level: one of `LEVELS`.
        stream: standard error if None.

    Raises:
        BadConfig: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise BadConfig(f"log level {level!r}: wanted one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Lines)]:
        root.removeHandler(handler)
    root.addHandler(_Lines(stream if stream is not None else sys.stderr))
    root.setLevel(logging.WARNING)
    logging.getLogger("zcat").setLevel(level.upper())


def kv(**fields: object) -> str:
    """Render ``key=value`` pairs for a log line.

    A value with spaces, quotes or characters that do not print is quoted and escaped; one that is longer than
    `VALUE_LENGTH_MAX` is cut and ends in ``…``. Floats have six significant digits.
    """
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


class RateLimiter:
    """Lets a repeated warning through only so often for each key. May be used by several threads."""

    def __init__(self, per_s: float, keys_max: int = 1024) -> None:
        """Allow each key ``per_s`` events a second (0.1: one in ten seconds), ``keys_max`` keys at a time."""
        self._interval_s = 1 / per_s
        self._keys_max = keys_max
        self._quiet_until_s: dict[str, float] = {}  # in the order of their ends, since all intervals are equal
        self._lock = threading.Lock()

    def allow(self, key: str, now_s: float) -> bool:
        """Say whether an event of ``key`` may be logged now. Without room for a new key the answer is no."""
        with self._lock:
            self._forget_until(now_s)
            if key in self._quiet_until_s or len(self._quiet_until_s) >= self._keys_max:
                return False
            self._quiet_until_s[key] = now_s + self._interval_s
            return True

    def _forget_until(self, now_s: float) -> None:
        while self._quiet_until_s:
            oldest = next(iter(self._quiet_until_s))
            if self._quiet_until_s[oldest] > now_s:
                return
            del self._quiet_until_s[oldest]


class _Lines(logging.StreamHandler[TextIO]):
    """Our handler; its class is how `set_up` finds the one of an earlier call."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(_Line())


class _Line(logging.Formatter):
    """One event on one line; a traceback too, with its line ends escaped."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += f" traceback={_quoted(self.formatException(record.exc_info))}"
        milliseconds = int(record.created % 1 * 1000)
        return f"{at}.{milliseconds:03d}Z {record.levelname} {record.name} {_printable(text)}"


def _value(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(text) > VALUE_LENGTH_MAX:
        text = text[: VALUE_LENGTH_MAX - 1] + "…"
    if text and text.isprintable() and _MARKS_QUOTED.isdisjoint(text):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    """Escape what would break the line or deceive its reader: controls, U+202E, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
