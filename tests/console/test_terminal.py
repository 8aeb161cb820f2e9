"""The console in a terminal of its own: what reaches it, and what becomes of the relay when it is lost."""

import fcntl
import gc
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailtui.console import supervise
from mailtui.console.terminal import SWEEP, SWEEP_LATEST, Broom, prepare

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import sys
from pathlib import Path
from mailtui.console import launch
from mailtui.console.supervise import Launch
state = Path(sys.argv[1])
program = (sys.executable, "-m", "tests.console.fake", *sys.argv[3:])
import os
os.environ["PYTHONPATH"] = os.getcwd()
sys.exit(launch.run(Launch(state, state / "control.sock", program=program), on_quit=sys.argv[2]))
"""


class Terminal:
    """A pseudo-terminal with a console in it."""

    def __init__(self, state: Path, on_quit: str, *options: str) -> None:
        self.said = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        for name in ("NO_COLOR", "SSH_CONNECTION", "SSH_TTY", "TMUX"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(state), on_quit, *options],
            stdin=slave, stdout=slave, stderr=slave, env=environ, cwd=ROOT, preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(slave)

    def until(self, *texts: str, seconds: float = 40.0) -> None:
        """Read until all of these have come."""
        end = time.monotonic() + seconds
        while not all(text.encode() in self.said for text in texts):
            assert time.monotonic() < end, self.said[-2000:]
            self.read(0.1)

    def read(self, seconds: float) -> bytes:
        """What comes within this time."""
        before, end = len(self.said), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.said += os.read(self.master, 65536)
                except OSError:
                    break
        return self.said[before:]

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(state: Path, *options: str, on_quit: str = "ask") -> Iterator[Terminal]:
    shown = Terminal(state, on_quit, *options)
    try:
        yield shown
    finally:
        shown.close()
        if shown.process.poll() is None:
            shown.process.kill()
        shown.process.wait()
        for pid in _relays(state):
            os.kill(pid, signal.SIGTERM)


def _relays(state: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"tests.console.fake" in command and str(state / "control.sock").encode() in command:
            found.append(int(entry.name))
    return found


def test_a_lost_terminal_ends_the_console_and_leaves_the_relay(tmp_path: Path) -> None:
    with terminal(tmp_path, on_quit="stop") as shown:
        shown.until("1,000,000", "dest1.example")
        shown.close()
        assert shown.process.wait(20) is not None
        assert supervise.answers(tmp_path / "control.sock")


def test_leaving_with_stop_stops_the_relay_that_was_started_here(tmp_path: Path) -> None:
    with terminal(tmp_path, on_quit="stop") as shown:
        shown.until("1,000,000")
        shown.press("q")
        shown.until("q again leaves")
        shown.press("q")
        shown.until("Stopping the relay")
        assert shown.process.wait(20) == 0
        assert not supervise.answers(tmp_path / "control.sock")


def test_leaving_asks_once_what_becomes_of_the_relay(tmp_path: Path) -> None:
    with terminal(tmp_path) as shown:
        shown.until("1,000,000")
        shown.press("q")
        shown.until("q again leaves")
        shown.press("q")
        shown.until("leave it running")
        shown.read(0.5)
        shown.press("l")
        shown.until("The relay goes on (pid ")
        assert shown.process.wait(20) == 0
        assert supervise.answers(tmp_path / "control.sock")


def test_nothing_that_strangers_wrote_acts_on_the_terminal(tmp_path: Path) -> None:
    with terminal(tmp_path, "--hostile", on_quit="stop") as shown:
        shown.until("good.example")
        shown.press("2")
        shown.until("QUEUE")
        shown.read(1.0)
        shown.press("1")
        shown.read(0.5)
    # Every control character that came is part of a sequence that the console itself draws with.
    drawn = rb"\x1b(\[[0-?]*[ -/]*[@-~]|[()][AB012]|[=>78]|\]22;[a-z]+\x07)"
    left = re.sub(drawn, b"", shown.said).decode()
    assert re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", left) is None, left
    assert "�]52;c;aGk=��[2J�31m� [@click=app.quit]x[/]" in left
    assert b"\x1b]52" not in shown.said


def test_a_quiet_screen_costs_next_to_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path, on_quit="stop") as shown:
        shown.until("1,000,000", "dest1.example")
        shown.read(3.0)
        assert len(shown.read(3.0)) < 3000


def test_textual_is_imported_only_when_the_console_starts() -> None:
    program = (
        "import sys, mailtui.cli.app, mailtui.cli.watch, mailtui.console.launch;"
        "print(sorted({'textual', 'rich', 'aiohttp'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environ", "theme"),
    [
        ({"SSH_CONNECTION": "x"}, "ansi-dark"),
        ({"NO_COLOR": "1"}, "ansi-dark"),
        ({"NO_COLOR": "1", "COLORFGBG": "0;15"}, "ansi-light"),
        ({"SSH_CONNECTION": "x", "TEXTUAL_THEME": "nord"}, "nord"),
        ({}, None),
    ],
)
def test_the_theme_fits_the_link_and_the_wish(environ: MutableMapping[str, str], theme: str | None) -> None:
    prepare(environ)
    assert environ.get("TEXTUAL_THEME") == theme
    assert environ["TEXTUAL_ANIMATIONS"] == "none"
    assert environ.get("ESCDELAY") == ("500" if "SSH_CONNECTION" in environ else None)


def test_garbage_is_collected_when_no_key_comes_and_at_last_when_keys_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, swept = 0.0, []
    monkeypatch.setattr(gc, "collect", lambda: swept.append(now))
    broom = Broom(lambda: now)
    while now < 30.0:
        now += 0.25
        broom.beat()
    assert swept == [SWEEP]
    while now < 300.0:
        now += 0.25
        broom.typed()
        broom.beat()
    assert swept == [SWEEP, SWEEP + SWEEP_LATEST, SWEEP + 2 * SWEEP_LATEST]


def test_the_collector_is_as_before_when_the_console_has_gone() -> None:
    broom = Broom()
    try:
        broom.start()
        assert not gc.isenabled() and gc.get_freeze_count()
    finally:
        broom.stop()
    assert gc.isenabled() and not gc.get_freeze_count()
