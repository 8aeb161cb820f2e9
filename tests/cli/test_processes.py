"""The command as a process: what it imports, how it ends, and the live view on a terminal."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.conftest import Queue

HEAVY = ("aiohttp", "textual", "uvloop", "dns", "pydantic", "aiosmtpd", "aiosmtplib", "sqlite_utils", "cryptography")

# A relay starts within a second; a loaded machine gets a minute.
PATIENCE = 60.0


def mailtui(*args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mailtui", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


def test_a_reading_command_imports_nothing_heavy(queue: Queue, state: Path) -> None:
    commands = ["queue list", "queue count", "queue why {}", "queue show {}", "history", "log", "queue list --nonsense"]
    lines = [[*command.format(queue.fresh).split(), "--state", str(state)] for command in commands]
    # One process for all: what the first had imported would be there after the last.
    code = (
        f"import sys\nfrom mailtui.cli.app import run\nfor line in {lines!r}:\n    print(run(line), file=sys.stderr)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    *statuses, heavy = ended.stderr.splitlines()
    assert ([line for line in statuses if line.isdigit()], heavy) == (["0"] * 6 + ["2"], "[]")


def test_version_and_status_as_a_process(state: Path) -> None:
    assert mailtui("--version").stdout.startswith("mailtui ")
    ended = mailtui("status", "--state", str(state), "--json")
    assert (ended.returncode, json.loads(ended.stdout)["running"]) == (0, False)


def test_a_reader_that_goes_away_is_no_error(queue: Queue, state: Path) -> None:
    command = [sys.executable, "-m", "mailtui", "queue", "list", "--json", "--state", str(state)]
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_relay_that_cannot_start_exits_2_with_a_line_an_error(state: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[delivery]\nprot = 1\nport = 0\n")
    ended = mailtui("serve", "--config", str(tmp_path / "bad.toml"), "--state", str(state))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = mailtui("serve", "--listen", address, "--state", str(state))
    last = ended.stderr.splitlines()[-1]
    assert (ended.returncode, last.startswith("mailtui: ")) == (2, True)
    assert address in last


class Terminal:
    """`mailtui` on a terminal of 80x24."""

    def __init__(self, *args: str) -> None:
        self.said = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(COLUMNS="80", LINES="24", TERM="xterm")
            os.execv(sys.executable, [sys.executable, "-m", "mailtui", *args])

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + PATIENCE
        while text not in self.said:
            assert time.monotonic() < until, self.said
            if select.select([self.fd], [], [], 0.1)[0]:
                self.said += os.read(self.fd, 65536)

    def press(self, keys: bytes) -> None:
        self.said = b""
        os.write(self.fd, keys)

    def end(self) -> int:
        try:
            while True:
                self.said += os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_console_starts_a_relay_shows_it_and_stops_it(state: Path) -> None:
    terminal = Terminal("--state", str(state), "--listen", "127.0.0.1:0", "--on-quit", "stop")
    try:
        terminal.wait_for(b"OVERVIEW")
        status = json.loads(mailtui("status", "--state", str(state), "--json").stdout)
        assert status["running"]
        assert os.getsid(status["pid"]) == status["pid"]
    finally:
        terminal.press(b"qq")  # it takes its relay with it
    assert terminal.end() == 0
    assert not json.loads(mailtui("status", "--state", str(state), "--json").stdout)["running"]
    assert " started " in (state / "relay.log").read_text()


def test_a_lost_terminal_leaves_the_relay_running(state: Path) -> None:
    terminal = Terminal("--state", str(state), "--listen", "127.0.0.1:0", "--on-quit", "stop")
    terminal.wait_for(b"OVERVIEW")
    os.kill(terminal.pid, signal.SIGHUP)
    terminal.end()
    status = json.loads(mailtui("status", "--state", str(state), "--json").stdout)
    assert status["running"]
    assert mailtui("stop", "--state", str(state)).returncode == 0
    assert not json.loads(mailtui("status", "--state", str(state), "--json").stdout)["running"]


def test_a_relay_that_does_not_start_is_explained(state: Path) -> None:
    terminal = Terminal("--state", str(state), "--listen", "203.0.113.1:25")
    assert terminal.end() == 2
    assert b"the relay did not start: command line: mail.postmaster" in terminal.said


def test_read_only_starts_nothing(state: Path) -> None:
    terminal = Terminal("--state", str(state), "--read-only")
    assert terminal.end() == 3
    assert not (state / "relay.log").exists()
