"""From a key to the screen with a million queued: the real console on a terminal, before and while mail flows.

The terminal here is a cheap one: it takes what is written, asks for whole frames (mode 2026) as terminals of today do,
and knows which row the cursor's sign stands on. A key has been answered at the end of the frame in which the sign is on
another row and no row of the page is a placeholder. Terminal, console and relay share the processors: `p99 own` leaves
out what the console had to wait for one, and fails nothing.
"""

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from bench import procs, stock
from bench.flow import DOMAIN, Flow
from bench.million import RATE, ROWS, WAITING
from bench.peers import Mailtui
from bench.procs import MAILTUI, BenchError
from bench.sink import sinking

# What is asked for: seconds from the key to the whole frame, of 99 in a hundred keys; keys of each kind.
ANSWER, KEYS = 0.05, 200

SIZES = ((80, 24), (160, 48))

# As terminals send them. End and Home take turns, for from the last row there is no way to the last row.
DOWN, UP, PAGE_DOWN, PAGE_UP, END, HOME = "\x1b[B", "\x1b[A", "\x1b[6~", "\x1b[5~", "\x1b[F", "\x1b[H"
KINDS = {
    "down": (DOWN,), "up": (UP,), "page down": (PAGE_DOWN,), "page up": (PAGE_UP,), "end, home": (END, HOME),
}  # fmt: skip

# Seconds between an answer and the next key: a key that is held down, to a quick typist; never in step with a timer.
PAUSE = (0.02, 0.1)

# A console that does not answer for so long is stuck, and one that has not come up does not come.
STUCK, STARTED = 5.0, 30.0

# The first rows of the screen are the frame's, and so are the last ones; a line that begins so has no row yet.
SIGN, PLACEHOLDER = "▌", "…"

# A recipient, or the rid of one that was delivered before its row was ever read.
_NAME = re.compile(r"\S+@\S+|[0-9A-Z]{13}\.\d+")
_PLACE = re.compile(r"\x1b\[(\d+);(\d+)H")
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]])")
_ASKS_FRAMES, _HAS_FRAMES, _FRAME_ENDS = b"\x1b[?2026$p", b"\x1b[?2026;2$y", b"\x1b[?2026l"


class Console:
    """`mailtui` in a terminal of (columns, rows), and what stands at the beginning of each line of it."""

    def __init__(self, state: Path, size: tuple[int, int]) -> None:
        self._lines: dict[int, str] = {}
        self._left = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        for name in ("SSH_CONNECTION", "SSH_TTY", "TMUX", "NO_COLOR", "COLUMNS", "LINES"):
            environ.pop(name, None)
        command = [str(MAILTUI), "--state", str(state), "--on-quit", "leave"]
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
        )
        os.close(slave)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def frame(self, seconds: float) -> float | None:
        """Wait for the end of a frame: the moment at which it was here, None if none came."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self._master], [], [], left)[0]:
            try:
                self._left += os.read(self._master, 65536)
            except OSError:  # nobody has the other end any more
                raise BenchError(f"key: the console has ended with {self._process.wait()}") from None
            now = time.monotonic()
            if _ASKS_FRAMES in self._left:
                os.write(self._master, _HAS_FRAMES)
                self._left = self._left.replace(_ASKS_FRAMES, b"")
            drawn, end, rest = self._left.rpartition(_FRAME_ENDS)
            if end:
                self._left = rest
                self._draw(drawn.decode(errors="replace"))
                return now
        return None

    def _draw(self, text: str) -> None:
        # Only what begins at the left edge matters: the table is there, and the cursor's sign is in its first column.
        pieces = _PLACE.split(text)
        for row, column, drawn in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            if column == "1":
                self._lines[int(row)] = _CONTROL.sub("", drawn)

    @property
    def shown(self) -> str:
        return "\n".join(self._lines[row] for row in sorted(self._lines))

    @property
    def cursor(self) -> str:
        """The recipient of the row with the cursor's sign; "" as long as something is not there yet."""
        if any(line[2:3] == PLACEHOLDER for line in self._lines.values()):
            return ""
        found = [line for line in self._lines.values() if line.startswith(SIGN)]
        names = _NAME.findall(found[0]) if len(found) == 1 else []
        return names[0] if names else ""

    def until(self, text: str) -> None:
        """Wait until this stands on the screen."""
        end = time.monotonic() + STARTED
        while text not in self.shown:
            if self.frame(end - time.monotonic()) is None:
                raise BenchError(f"key: {text!r} did not come; the screen:\n{self.shown}")

    def settled(self, seconds: float) -> None:
        """Take what is drawn for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.frame(left)

    def answered(self, key: str) -> float:
        """Seconds from this key to the screen."""
        before, began = self.cursor, time.monotonic()
        self.press(key)
        while (left := began + STUCK - time.monotonic()) > 0:
            now = self.frame(left)
            if now is not None and self.cursor not in ("", before):
                return now - began
        raise BenchError(f"key: {key!r} was not answered in {STUCK:.0f} s; the screen:\n{self.shown}")

    def waited(self) -> float:
        """Seconds that the console's main thread has waited for a processor, in all (proc(5), schedstat)."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[1]) / 1e9


@contextlib.contextmanager
def console(state: Path, size: tuple[int, int]) -> Iterator[Console]:
    """The queue pane on a terminal, with its rows."""
    shown = Console(state, size)
    try:
        shown.until("TOP DEST")
        shown.press("2")
        end = time.monotonic() + STARTED
        while not shown.cursor or "taking the list" in shown.shown:
            if shown.frame(end - time.monotonic()) is None:
                raise BenchError(f"key: the list did not come; the screen:\n{shown.shown}")
        yield shown
    finally:
        shown.close()


def measure(state: Path, size: tuple[int, int], keys: int, what: str) -> list[str]:
    """A line for each kind of key; gives what took too long."""
    rng, missed = random.Random(3), []
    with console(state, size) as shown:
        for _ in range(3):  # off the first row, where the list follows what comes, and off the edge
            shown.answered(PAGE_DOWN)
        for kind, sequences in KINDS.items():
            took, waits = [], []
            for number in range(keys):
                shown.settled(rng.uniform(*PAUSE))
                waited = shown.waited()
                took.append(shown.answered(sequences[number % len(sequences)]))
                waits.append(shown.waited() - waited)
            order = sorted(range(keys), key=took.__getitem__)
            ninety_nine = took[order[int(0.99 * (keys - 1))]]
            wrong = ninety_nine >= ANSWER
            place = f"{what}, {size[0]}x{size[1]}, {kind}"
            own = sorted(max(0.0, one - wait) for one, wait in zip(took, waits, strict=True))[int(0.99 * (keys - 1))]
            figures = " ".join(
                f"{1000 * value:8.1f}" for value in (took[order[keys // 2]], ninety_nine, took[order[-1]])
            )
            print(f"key: {place:44} {figures} {1000 * own:8.1f}{'  MISSED' if wrong else ''}", flush=True)
            if wrong:
                missed.append(f"{place}: p99 {1000 * ninety_nine:.0f} ms")
    return missed


def prove(rows: int = ROWS, *, cache: Path, keys: int = KEYS) -> None:
    """Raises BenchError if one in a hundred keys of a kind is answered too late."""
    filled, missed = stock.stocked(cache, rows), []
    with procs.work_directory() as directory, sinking(directory) as sink:
        config = directory / "mailtui.toml"
        relay = Mailtui(directory, sink.port, config=config)
        config.write_text(WAITING.format(port=relay.port, sink=sink.port, domain=DOMAIN, nowhere=stock.NOWHERE))
        stock.copy(filled, relay.state)
        relay.start()
        try:
            print(f"key: {'':44} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'p99 own':>8}", flush=True)
            for size in SIZES:
                missed += measure(relay.state, size, keys, "no mail")
            flow = Flow(directory, relay.port, sink, RATE)
            for size in SIZES:
                missed += measure(relay.state, size, keys, f"{RATE} messages/s")
            flow.stop()
        finally:
            relay.stop()
    print(f"key: load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)
    if missed:
        raise BenchError(f"key: {len(missed)} missed: " + "; ".join(missed))
