"""A terminal with the real `mailtui` in it, for tests: what is on its screen, and every octet that is no drawing.

It understands exactly what Textual draws with, and nothing else: a sequence, control character or invisible code point
beyond that is a violation, kept in `violations`. So an escape sequence that got through from a mail cannot pass for one
of the console's: it is unknown, or its colours, or its place on the screen are not ones that Textual would send.
"""

import asyncio
import base64
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.cells import cell_len

ROOT = Path(__file__).parent.parent.parent

# Of nothing in these tests that one waits for is the time known; this ends a test that waits for what never comes.
PATIENCE = 20.0

_SEQUENCE = re.compile(r"\x1b(?:\[([0-?]*)([ -/]*[@-~])|\]([^\x07\x1b]*)(?:\x07|\x1b\\)|([^\[\]]))")

# Modes that Textual sets: the other screen, the cursor, focus, the mouse, whole frames, sizes, paste, wrapping.
_MODES = {"1049", "25", "1004", "1000", "1003", "1015", "1006", "1016", "2026", "2048", "2004", "7"}

# Attributes that our style sheet has: bold, dim, italic, underline, reverse. Nothing of ours blinks or is struck out.
_ATTRIBUTES = {"0", "1", "2", "3", "4", "7"}


class Terminal:
    """`async with Terminal(arguments, size) as terminal`: `mailtui ARGUMENTS` in a terminal of (columns, rows)."""

    def __init__(
        self, arguments: Sequence[str], size: tuple[int, int] = (80, 24), environ: Mapping[str, str] | None = None
    ) -> None:
        self.arguments = list(arguments)
        self.columns, self.rows = size
        self.environ = dict(environ or {})
        self.violations: list[str] = []
        self.clipboard = ""  # what was copied last
        self._allowed: str | None = None  # the one text that may be copied now
        self._seen: list[str] = []
        self.octets = 0
        self._grid = [[" "] * self.columns for _ in range(self.rows)]
        self._row = self._column = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._left = ""  # the beginning of a sequence whose end has not come
        self._came = asyncio.Event()
        self._master = -1
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._master, slave = pty.openpty()
        self._set_size()
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for name in (
            "COLUMNS",
            "LINES",
            "NO_COLOR",
            "COLORTERM",
            "SSH_CONNECTION",
            "SSH_TTY",
            "TMUX",
            "STY",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "TEXTUAL_THEME",
        ):
            environ.pop(name, None)
        os.set_blocking(self._master, False)
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mailtui", *self.arguments,
                stdin=slave, stdout=slave, stderr=slave, env=environ | self.environ, cwd=ROOT, preexec_fn=_own_terminal,
            )  # fmt: skip
        finally:
            os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        self._hang_up()

    @property
    def lines(self) -> list[str]:
        """The screen, without blanks at the ends of lines."""
        return ["".join(row).rstrip() for row in self._grid]

    @property
    def seen(self) -> str:
        """All text that was drawn, in the order of drawing."""
        return "".join(self._seen)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def press(self, keys: str) -> None:
        """Type; `keys` as a terminal sends them."""
        os.write(self._master, keys.encode())

    def allow_copy(self, text: str) -> None:
        """From now on one OSC 52 is no violation, if this text and nothing else stands in it."""
        self._allowed = text

    async def until(self, condition: str | Callable[[], object], *more: str) -> None:
        """Wait until these texts stand on the screen, or this holds."""
        texts = [condition, *more] if isinstance(condition, str) else list(more)

        def holds() -> bool:
            shown = self.text
            return all(text in shown for text in texts) and (isinstance(condition, str) or bool(condition()))

        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            wanted = [text for text in texts if text not in self.text] or condition
            raise AssertionError(f"this did not come: {wanted}; the screen:\n{self.text}") from None

    async def without(self, text: str) -> None:
        """Wait until a text is gone from the screen."""
        await self.until(lambda: text not in self.text)

    async def changed(self, seconds: float) -> None:
        """Wait until something is drawn, or for this long where it may be that nothing is."""
        before = self.octets
        try:
            async with asyncio.timeout(seconds):
                while self.octets == before:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            pass

    async def resize(self, columns: int, rows: int) -> None:
        """Make the terminal another size; what is on it stays in its corner until it is drawn again."""
        old = self._grid
        self.columns, self.rows = columns, rows
        self._grid = [[" "] * columns for _ in range(rows)]
        for new, row in zip(self._grid, old, strict=False):
            new[: len(row)] = row[:columns]
        self._set_size()

    async def ended(self) -> int:
        """Wait for the end; the exit status."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    # -- what comes --------------------------------------------------------------------------------------------------

    def _set_size(self) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))

    def _hang_up(self) -> None:
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1

    def _read(self) -> None:
        try:
            octets = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:  # nobody has the other end any more
            octets = b""
        if not octets:
            asyncio.get_running_loop().remove_reader(self._master)
        self.octets += len(octets)
        try:
            self._take(self._decoder.decode(octets))
        except UnicodeDecodeError as error:
            self.violations.append(f"not UTF-8: {error}")
            self._decoder.reset()
        self._came.set()

    def _take(self, text: str) -> None:
        text = self._left + text
        self._left = ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._draw(text[at])
                at += 1
                continue
            found = _SEQUENCE.match(text, at)
            if found is None:
                if len(text) - at > 200 + 2 * len((self._allowed or "").encode()):
                    self.violations.append(f"no end: {text[at : at + 80]!r}")
                    at += 1
                    continue
                self._left = text[at:]
                return
            self._obey(found)
            at = found.end()

    def _draw(self, char: str) -> None:
        if char == "\r":
            self._column = 0
            return
        if char == "\n":
            self._row = min(self._row + 1, self.rows - 1)
            return
        self._seen.append(char)
        category = unicodedata.category(char)
        if category[0] == "C" or category in ("Zl", "Zp"):
            self.violations.append(f"U+{ord(char):04X} after {''.join(self._seen[-40:])!r}")
            return
        width = cell_len(char)
        if self._row < self.rows:
            row = self._grid[self._row]
            if not width and self._column:
                row[min(self._column, self.columns) - 1] += char
            for cell in range(self._column, min(self._column + width, self.columns)):
                row[cell] = char if cell == self._column else ""
        self._column += width

    def _obey(self, found: re.Match[str]) -> None:
        parameters, final, command, other = found.groups()
        if command is not None:
            good = command.startswith("22;") or self._copied(command)  # the shape of the mouse's pointer
        elif other is not None:
            good = False
        elif final == "m":
            good = _colours(parameters)
        elif final == "H":
            row, _, column = parameters.partition(";")
            good = row.isdigit() and column.isdigit() and int(row) <= 200 and int(column) <= 400
            if good:
                self._row, self._column = int(row) - 1, int(column) - 1
        elif final in ("h", "l"):
            good = parameters[:1] == "?" and parameters[1:] in _MODES
        elif final == "$p":
            good = parameters in ("?2026", "?2048")
        elif final == "u":
            good = re.fullmatch(r"[<>]\d*", parameters) is not None  # the keyboard protocol
        else:
            good = False
        if not good:
            self.violations.append(f"{found.group()!r} after {''.join(self._seen[-40:])!r}")

    def _copied(self, command: str) -> bool:
        """True for the one OSC 52 that was asked for."""
        allowed, self._allowed = self._allowed, None
        if allowed is None or command != "52;c;" + base64.b64encode(allowed.encode()).decode():
            return False
        self.clipboard = allowed
        return True


def _colours(parameters: str) -> bool:
    """True for attributes that the console has, and colours of the 256 in the form that Textual writes."""
    left = re.sub(r"[34]8;5;\d+", "0", parameters)
    return all(one in _ATTRIBUTES for one in left.split(";"))


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def mailtui(*arguments: str) -> tuple[int, str, str]:
    """Run a command of the real command line beside the relay in this loop: status, output, errors."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mailtui", *arguments, env=environ, cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        said, problems = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), problems.decode()
