"""Starting a relay for this user, as a process of its own that outlives the terminal.

Promises: the relay runs in its own session, writes its log to `<state>/relay.log`, and is told apart from one that
somebody else started; who loses the race to start one attaches to the other.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mailtui.cli.frame import Fail, Place
from mailtui.control.client import Client
from mailtui.control.source import attach

# A relay answers on its socket before it loads its queue; a slow disk may take seconds for the first sync.
START_TIMEOUT = 15.0

# How often the socket is tried meanwhile, in seconds.
_RETRY = 0.05


class Child:
    """A relay that this process started."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """Drain and end; its exit status. It ends by itself after `[limits] drain`."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait()


def start(place: Place, quick: Sequence[str]) -> tuple[Client, Child | None]:
    """Start a relay and wait until it answers. The child is None if somebody else was faster. Fail if it cannot start.

    `quick` are options of `serve`.
    """
    try:
        place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = place.state / "relay.log"
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fail(f"cannot use the state directory {place.state}: {error.strerror}; give another --state", 2) from None
    command = [sys.executable, "-m", "mailtui", "serve", "--state", str(place.state), "--socket", str(place.socket)]
    if place.config:
        command += ["--config", place.config]
    with os.fdopen(fd, "ab") as stream:
        before = stream.tell()
        process = subprocess.Popen(
            [*command, *quick], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd="/"
        )
    child = Child(process, log)
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        ended = child.ended
        client = attach(place.socket)
        if client is not None:
            return client, child if ended is None else None
        if ended is not None:
            raise Fail(f"the relay did not start: {_last_line(log, before)}", 2)
        time.sleep(_RETRY)
    child.stop()
    raise Fail(f"the relay did not answer on {place.socket} within {START_TIMEOUT:.0f} s; see {log}", 2)


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        said = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return said[-1].removeprefix("mailtui: ") if said else f"it said nothing; see {log}"
