"""What the top of the screen says: the banner, and how the link and the terminal do."""

import time
from datetime import datetime

from mailtui.console import words
from mailtui.console.link import Snapshot

# The meter's window in seconds: shown more often, it would be what it measures.
METER = 5.0


def banner(
    snapshot: Snapshot | None, *, live: bool, paused: str, paused_screen: bool, missed: int, read_only: bool, now: float
) -> str:
    """What must not be overlooked, most urgent first; "" if nothing."""
    if not live:
        if snapshot is None or not snapshot.heard:
            return f"CONNECTING: {snapshot.problem if snapshot else 'one moment'}"
        as_of = datetime.fromtimestamp(snapshot.heard).astimezone().strftime("%H:%M:%S")
        return f"LOST {words.age(now - snapshot.heard)}: as of {as_of}; {snapshot.problem}; trying again"
    if paused_screen:
        return f"SCREEN PAUSED, {words.count(missed)} events missed: p goes on"
    if paused:
        return f"PAUSED {paused}"
    return "READ-ONLY" if read_only else ""


class Gauge:
    """Octets a second to the terminal, over the last few seconds."""

    def __init__(self) -> None:
        self._written = 0
        self._at = time.monotonic()
        self.rate = 0.0

    def read(self, written: int) -> float:
        """`written`: octets in all, so far."""
        passed = time.monotonic() - self._at
        if passed >= METER:
            self.rate = (written - self._written) / passed
            self._written, self._at = written, time.monotonic()
        return self.rate


def link_text(latency: float | None, rate: float) -> str:
    """How long the relay takes to answer, and what the terminal gets: `4ms 0.1kB`."""
    return f"{'-' if latency is None else max(1, round(latency * 1000))}ms {rate / 1000:.1f}kB"
