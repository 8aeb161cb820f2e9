"""The command line against a stopped relay's state directory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailtui import paths
from mailtui.cli.app import mailtui
from mailtui.ids import encode
from mailtui.model import State
from tests.queue.filled import NOW, Filled, to

SUBJECT = "\x1b]0;owned\x07 \u202eexe.jpg"


@dataclass
class Said:
    status: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def of_this_test_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No relay, file or setting of the machine is seen."""
    for name in ("MAILTUI_STATE", "MAILTUI_CONFIG", "MAILTUI_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SYSTEM_CONFIG", "SYSTEM_SOCKET", "SYSTEM_STATE"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setattr(paths, "SYSTEM_UNITS", ())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("mailtui.clock.SystemClock.now", staticmethod(lambda: NOW))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


@pytest.fixture
def run(state: Path) -> Run:
    def run(*args: str, input: bytes | None = None) -> Said:
        result = CliRunner().invoke(mailtui, [*args, "--state", str(state)], prog_name="mailtui", input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


@dataclass
class Queue:
    """Three messages: one never tried to two recipients, one deferred and hostile, one held; and some history."""

    fresh: str
    hostile: str
    held: str
    gone: str


@pytest.fixture
def queue(state: Path) -> Queue:
    filled = Filled(state)
    hostile = filled.add(
        to(
            "eve\x1b[2J@a.test",
            state=State.DEFERRED,
            due=NOW + 300,
            attempts=1,
            code=451,
            last_enhanced="4.7.1",
            last_reply="later\x1b]52;c;AAAA\x07",
            last_host="mx\u202e.a.test",
            expires=NOW + 86400,
            destination="a.test",
        ),
        age=7200,
        sender="x\u200b@evil.test",
        subject=SUBJECT,
        helo="\x9b2J",
        client="192.0.2.9",
        client_name="\x1bP",
        body=b"Received: from \x1b[31mx by relay.test; Tue, 14 Nov 2023 22:00:00 +0000\r\n"
        b"Subject: \x1b]0;owned\x07\r\n\tfolded\r\nX: y\r\n\r\nbody \x1b[2J\r\n",
    )
    filled.attempt(hostile, 1, at=NOW - 6, reply="later\x1b]52;c;AAAA\x07", host="mx\u202e.a.test")
    fresh = filled.add(to("ann@a.test"), to("bob@b.test", 2), age=60, subject="hello", message_id="<1@x>")
    held = filled.add(to("carl@c.test", state=State.HELD, held_by="ann"), age=30)
    gone = filled.ids.next(NOW)
    filled.past(gone, 1, "dan@d.test", result=0, at=NOW - 5)
    filled.past(0, 0, "no\x1b@d.test", result=3, at=NOW - 4, code=554, reply="denied\x07")
    filled.journal("stopped", who="mailtui", text="mailtui stopped", at=NOW - 1)
    filled.meta("clean", 1)
    filled.connection.close()
    return Queue(*map(encode, (fresh, hostile, held, gone)))
