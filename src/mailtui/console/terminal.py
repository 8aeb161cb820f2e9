"""The terminal under the console: a driver that counts and can be told about the mouse, and a last net for text.

Promises: no control character that is part of a text reaches the terminal, whichever widget drew it; a terminal that is
lost, or that has not taken a byte for a minute, ends the console and nothing else.
"""

import gc
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import astuple
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import LineFilter

from mailtui.console.glyphs import ASCII, UNICODE
from mailtui.control.clean import clean

# A terminal that does not read fills Textual's queue and stops its loop (console.md 2.6); after this long, in seconds,
# the operator is not there any more.
STALL = 60.0

# How often the watchdog looks, in seconds; the console beats four times in one.
LOOK = 1.0

# Garbage is collected so often at most, in seconds, once no key has come for REST; or SWEEP_LATEST after the last time,
# when a key is held down. There is little of it: rows and events hold no references to each other.
SWEEP, REST, SWEEP_LATEST = 20.0, 1.0, 120.0

# Frames a second on a terminal of this machine. A key waits for the next one: 4 ms on average, 8 with Textual's 60.
LOCAL_FPS = "120"

# Textual's thread of the event loop gives the interpreter to one that works on what the relay has sent at most this
# long, in seconds. Python's 5 ms, a few times in a row, are what an operator feels.
SWITCH = 0.001

_MOUSE = ("\x1b[?1000{0}", "\x1b[?1003{0}", "\x1b[?1015{0}", "\x1b[?1006{0}")


class Net(LineFilter):
    """Cleans every segment before it is written. The link has done so already: this is for what slips by."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(text.isprintable() and text.isascii() for text, _, _ in segments):
            return segments
        return [
            Segment(text if text.isascii() and text.isprintable() else _kept(text), style)
            for text, style, _ in segments
        ]


def _kept(text: str) -> str:
    """`text` cleaned, in as many cells as before: the line must not grow."""
    safe = clean(text)
    return text if safe == text else set_cell_size(safe, cell_len(text))


class AsciiNet(LineFilter):
    """What a terminal without UTF-8 can show: our signs as their twins, anything else as question marks."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(text.isascii() for text, _, _ in segments):
            return segments
        return [Segment(_ascii(text), style) for text, style, _ in segments]


_TWINS = {
    ord(sign): twin
    for one, other in zip(astuple(UNICODE), astuple(ASCII), strict=True)
    for sign, twin in zip(one, other, strict=False)
} | str.maketrans("│┃╭╮╰╯┌┐└┘├┤─━╺╸▔▁▎▊▌▐", "||++++++++++------||||")


def _ascii(text: str) -> str:
    said = text.translate(_TWINS)
    return said if said.isascii() else "".join(c if c.isascii() else "?" * cell_len(c) for c in said)


class Meter(LinuxDriver):
    """Counts what goes to the terminal, and ends quietly when the terminal is gone."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        if sys.__stderr__ is None or not sys.__stderr__.isatty():
            self._file = sys.__stdout__ or self._file  # `mailtui 2>errors`: Textual draws on standard error
        self.written = 0  # octets, in all

    def write(self, data: str) -> None:
        self.written += len(data) if data.isascii() else len(data.encode("utf-8", "replace"))
        super().write(data)

    def set_mouse(self, on: bool) -> None:
        """Take the mouse, or leave it to the terminal, which then selects text with it."""
        for sequence in _MOUSE:
            self.write(sequence.format("h" if on else "l"))
        self.flush()

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except OSError:  # EIO: the terminal is gone
            self._app.call_later(self._app.exit)


class Watchdog:
    """Ends the process when the terminal is lost or stuck. `beat` must be called from the event loop."""

    def __init__(self, leave: Callable[[], None], stall: float = STALL) -> None:
        self._leave = leave  # called from a thread
        self._stall = stall
        self._beat = time.monotonic()
        self._done = threading.Event()
        self._attributes: list[Any] | None = None
        try:
            self._attributes = termios.tcgetattr(sys.__stdin__.fileno()) if sys.__stdin__ else None
        except (termios.error, ValueError, OSError):
            pass

    def start(self) -> None:
        threading.Thread(target=self._run, name="mailtui-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._done.set()

    def beat(self) -> None:
        self._beat = time.monotonic()

    def _run(self) -> None:
        told, late, beat = False, 0.0, self._beat
        while not self._done.wait(LOOK):
            if not told and _hung_up():
                told = True
                self._leave()
            # Counted in our own turns: a process that was stopped (Ctrl+Z, a frozen machine) has missed them as well.
            late = late + LOOK if self._beat == beat else 0.0
            beat = self._beat
            if late > self._stall:
                self._end()

    def _end(self) -> None:
        """The loop stands still in a write that nobody reads: nothing but leaving helps."""
        if self._attributes is not None and sys.__stdin__ is not None:
            try:
                termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, self._attributes)
            except (termios.error, ValueError, OSError):
                pass
        os._exit(0)


def _hung_up() -> bool:
    """True if nobody is at the other end of our terminal."""
    try:
        poll = select.poll()
        poll.register(sys.__stdin__.fileno(), 0)  # type: ignore[union-attr]
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return True


def prepare(environ: MutableMapping[str, str]) -> None:
    """Set what Textual reads when it is imported: calm and small over SSH, no colours where none are wanted.

    What the operator has set stays.
    """
    remote = "SSH_CONNECTION" in environ or "SSH_TTY" in environ
    plain = "NO_COLOR" in environ
    if remote:
        environ.setdefault("TEXTUAL_FPS", "15")
        environ.setdefault("ESCDELAY", "500")
    else:
        environ.setdefault("TEXTUAL_FPS", LOCAL_FPS)
    environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    if remote or plain:  # 16 colours cost a quarter less bytes, and `ansi-*` alone sends none under NO_COLOR
        light = environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
        environ.setdefault("TEXTUAL_THEME", "ansi-light" if light else "ansi-dark")


class Broom:
    """Collects garbage while nobody types. By itself Python does so in the middle of a frame, and with all of Textual
    to look at it takes 30 to 50 ms in which no key is answered."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._swept = self._typed = monotonic()

    def start(self) -> None:
        """After the first paint: what stands now stays, and is not looked at again."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def stop(self) -> None:
        gc.enable()
        gc.unfreeze()

    def typed(self) -> None:
        """A key has come."""
        self._typed = self._monotonic()

    def beat(self) -> None:
        """Called a few times a second."""
        now = self._monotonic()
        passed = now - self._swept
        if passed >= SWEEP and (now - self._typed >= REST or passed >= SWEEP_LATEST):
            self._swept = now
            gc.collect()


def on_hangup(leave: Callable[[], None]) -> None:
    """A lost terminal (SIGHUP) and SIGTERM leave; the relay goes on."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: leave())
