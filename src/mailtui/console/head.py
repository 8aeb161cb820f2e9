"""What the top of every screen says: whose relay, how much waits, what must not be overlooked, and how the link does.

Promises: only lines that changed are drawn again; a screen over the panes has the same two lines.
"""

import time
from datetime import datetime
from typing import TYPE_CHECKING

from mailtui.console import words
from mailtui.console.dialogs.operations import undoable
from mailtui.console.link import Snapshot
from mailtui.console.terminal import Meter
from mailtui.console.widgets.frame import StatusLine, TabStrip, status_line, tab_line

if TYPE_CHECKING:
    from mailtui.console.app import Console

# The meter's window in seconds: shown more often, it would be what it measures.
METER = 5.0

# The undo clock is shown when it matters: within the hour. A hold can be undone for days, and nobody watches that.
CLOCK = 3600.0


class Top:
    """Writes the status line and the tab line."""

    def __init__(self) -> None:
        self._gauge = Gauge()

    def draw(self, console: "Console") -> None:
        """As things are now."""
        now, width, live = time.time(), console.size.width, console.link.live
        driver = console._driver
        written = driver.written if isinstance(driver, Meter) else 0
        status = status_line(
            console.status,
            width=width,
            now=now,
            live=live,
            link=link_text(console.link.latency, self._gauge.read(written)),
            glyphs=console.glyphs,
            progress=progress(console),
        )
        said = banner(
            console.snapshot,
            live=live,
            paused=str(console.status.get("paused") or ""),
            paused_screen=console.paused_screen,
            missed=console.missed,
            read_only=bool(console.read_only),
            now=now,
        )
        tabs = tab_line(
            console.PANES,
            console.shown,
            said,
            width=width,
            right=undo_clock(console, now) or ("LIVE" if live else ""),
            now=datetime.fromtimestamp(now).astimezone(),
        )
        for screen in console.screen_stack:
            screen.set_class(not live and bool(console.status), "-lost")
            for widget in screen.children:  # a query would try its selector on every widget of the screen
                if isinstance(widget, StatusLine):
                    widget.set_lines([status])
                elif isinstance(widget, TabStrip):
                    widget.set_lines([tabs])


def undo_clock(console: "Console", now: float) -> str:
    """How long the own last operation can still be undone."""
    for one in console.operations:
        until = words.moment(one.get("undo_until"))
        if until is not None and until - now <= CLOCK and console.is_mine(one) and undoable(one, now):
            return f"z undo {words.age(until - now)}"
    return ""


def progress(console: "Console") -> str:
    """What the own action that runs has done so far."""
    if not console.busy:
        return ""
    running = next((one for one in console.operations if one.get("state") == "running"), None)
    if running is None:
        return console.busy + "..."
    return f"{console.busy} {words.count(running.get('done') or 0)}/{words.count(running.get('asked') or 0)}"


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
