"""What happens, told once: a line of the mail log on standard error, a counter, and the recent events in memory.

Promises: an event is written before the loop turns again and never blocks for more than one write; text from outside
is escaped, so that a line stays a line; secrets are never passed in.
"""

import asyncio
import json
import re
import sys
from collections import deque
from typing import Any, TextIO

from mailtui.clock import Clock, rfc3339
from mailtui.ids import encode

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Enough for `mailtui log` and the console to show the last minutes of a busy relay, at about 1 KiB an event.
RECENT = 2000

# `*_1m` rates are counted in buckets of one second, the last 60 whole ones.
WINDOW = 60


class Rate:
    """Events in the last minute."""

    __slots__ = ("_buckets", "_second", "total")

    def __init__(self) -> None:
        self._buckets = [0] * (WINDOW + 1)
        self._second = 0
        self.total = 0

    def _roll(self, second: int) -> None:
        gap = second - self._second
        if gap:
            for i in range(1, min(gap, WINDOW + 1) + 1):
                self._buckets[(second - min(gap, WINDOW + 1) + i) % (WINDOW + 1)] = 0
            self._second = second

    def add(self, monotonic: float, count: int = 1) -> None:
        second = int(monotonic)
        if second != self._second:
            self._roll(second)
        self._buckets[second % (WINDOW + 1)] += count
        self.total += count

    def last_minute(self, monotonic: float) -> int:
        second = int(monotonic)
        self._roll(second)
        return sum(self._buckets) - self._buckets[second % (WINDOW + 1)]


# Values that need no escaping, nearly all of them: printable ASCII without blank, quote and equals sign.
_PLAIN = re.compile(r"[!#-<>-~]+").fullmatch


def escape(value: str) -> str:
    """A value as it may stand in a log line or on a terminal: printable, one line; quoted if it holds a blank."""
    if not value.isprintable():
        value = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
    if " " in value or '"' in value or "=" in value or not value:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return value


class Events:
    """The relay's teller. One instance a relay; every room gets it."""

    def __init__(self, clock: Clock, stream: TextIO | None = None, form: str = "text", level: str = "info") -> None:
        self.clock = clock
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.rates: dict[str, Rate] = {}
        self.sequence = 0
        self._stream = stream if stream is not None else sys.stderr
        self._json = form == "json"
        self._level = LEVELS[level]
        self._lines: list[dict[str, Any]] = []

    def emit(
        self, event: str, *, id: int = 0, rid: str = "", text: str = "", level: str = "info", **fields: Any
    ) -> None:
        """Tell an event. `id` is a queue id; fields are str, int, float, bool or None, and empty ones are left out."""
        rate = self.rates.get(event)
        if rate is None:
            rate = self.rates[event] = Rate()
        rate.add(self.clock.monotonic())
        self.sequence += 1
        at = self.clock.now()
        record: dict[str, Any] = {"at": at, "event": event}
        if id:
            record["id"] = encode(id)
        if rid:
            record["rid"] = rid
        if text:
            record["text"] = text
        for key, value in fields.items():
            if value is not None and value != "":
                record[key] = value
        self.recent.append(record)
        if LEVELS[level] >= self._level:
            if not self._lines:
                self._schedule()
            self._lines.append(record)

    def count(self, event: str) -> int:
        """How many of an event in the last minute."""
        rate = self.rates.get(event)
        return rate.last_minute(self.clock.monotonic()) if rate else 0

    def flush(self) -> None:
        """Write what is waiting; a broken standard error never stops mail."""
        lines, self._lines = self._lines, []
        if lines:
            try:
                self._stream.write("".join([self._line(record) for record in lines]))
                self._stream.flush()
            except (OSError, ValueError):
                pass

    def _schedule(self) -> None:
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:  # no loop: the relay starts or ends
            pass

    def _line(self, record: dict[str, Any]) -> str:
        at = rfc3339(record["at"])
        if self._json:
            return json.dumps(record | {"at": at}) + "\n"
        line = f"{at} {record['event']}"
        for key, value in record.items():
            if value.__class__ is not str:
                if key != "at":
                    line += f" {key}={value}"
            elif key != "event":
                line += f" {key}={value if _PLAIN(value) else escape(value)}"
        return line + "\n"
