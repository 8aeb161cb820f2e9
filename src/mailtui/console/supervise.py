"""Attaching to a relay, or starting one for this user and keeping it up.

Promises: a relay of the whole machine is never started from here; a relay that is started runs in its own session,
writes to `<state>/relay.log` and outlives the console; who loses the race to start one attaches to the other; a relay
that dies is started again, after a pause that grows, and its last words are shown; one that ended by order (status 0)
is not.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailtui import paths
from mailtui.control.clean import clean
from mailtui.control.errors import NOT_RUNNING, WRONG
from mailtui.control.source import attach

# A relay answers on its socket before it loads its queue; a slow disk may take seconds for the first sync.
START_TIMEOUT = 15.0

# How often the socket is tried meanwhile, and a child is looked at, in seconds.
_RETRY, _LOOK = 0.05, 0.25

# Pauses before a dead relay is started again, in seconds; the last repeats. One that ran for STEADY starts from the
# first: it was no crash at start.
PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
STEADY = 60.0

# Lines of its log that are shown when it has died, and how far back they are looked for, in octets.
LAST_WORDS, _TAIL = 5, 8192


class StartError(Exception):
    """There is no relay, and none could be started. `status`: the exit status for it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a relay here. `quick`: options of `serve`."""

    state: Path
    socket: Path
    config: str | None = None
    quick: tuple[str, ...] = ()
    program: tuple[str, ...] = (sys.executable, "-m", "mailtui", "serve")

    @property
    def log(self) -> Path:
        return self.state / "relay.log"

    def command(self) -> list[str]:
        """The command line of the relay."""
        options = ["--state", str(self.state), "--socket", str(self.socket)]
        if self.config:
            options += ["--config", self.config]
        return [*self.program, *options, *self.quick]


class Child:
    """A relay that this process started."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, mark: int) -> None:
        self._process = process
        self.log = log
        self.mark = mark  # where its words begin in the log
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """Drain and end; its exit status. It ends by itself after `[limits] drain`."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait()

    def last_words(self) -> list[str]:
        """The end of its log, cleaned; nothing that an earlier relay said."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(self.mark, file.tell() - _TAIL))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [clean(line.removeprefix("mailtui: ")) for line in said.splitlines() if line.strip()][-LAST_WORDS:]


def start(launch: Launch) -> Child | None:
    """Attach to the relay at `launch.socket`, or start one and wait until it answers.

    None if a relay was there, or somebody else was faster. StartError; VerbError if the relay may not be asked.
    """
    if answers(launch.socket):
        if launch.quick:
            raise StartError(
                f"a relay runs already on {launch.socket}, with its own settings; leave {launch.quick[0]} out", WRONG
            )
        return None
    if launch.state == paths.SYSTEM_STATE:
        raise StartError(
            "the relay of this machine is not running; start it with systemctl start mailtui,"
            " or give another --state for one of your own",
            NOT_RUNNING,
        )
    child = spawn(launch)
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        ended = child.ended
        if answers(launch.socket):
            return child if ended is None else None
        if ended is not None:
            said = child.last_words()
            raise StartError(
                f"the relay did not start: {said[-1] if said else f'it said nothing; see {child.log}'}", WRONG
            )
        time.sleep(_RETRY)
    child.stop()
    raise StartError(
        f"the relay did not answer on {launch.socket} within {START_TIMEOUT:.0f} s; see {child.log}", WRONG
    )


def answers(socket: Path) -> bool:
    """True if a relay answers. VerbError if it may not be asked."""
    client = attach(socket)
    if client is None:
        return False
    client.close()
    return True


def spawn(launch: Launch) -> Child:
    """Start the process. StartError if there is no place for its log."""
    try:
        launch.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"cannot use the state directory {launch.state}: {error.strerror}; give another --state", WRONG
        ) from None
    with os.fdopen(fd, "ab") as stream:
        mark = stream.tell()
        process = subprocess.Popen(
            launch.command(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd="/"
        )
    return Child(process, launch.log, mark)


@dataclass(frozen=True, slots=True)
class Death:
    """A child that has ended."""

    status: int
    words: tuple[str, ...]
    again: float | None  # seconds until it is started again; None: it is not

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.status == 0:
            return "the relay was stopped, and stays so; :start starts it again"
        how = f"by signal {-self.status}" if self.status < 0 else f"with status {self.status}"
        last = f': "{self.words[-1]}"' if self.words else ""
        return f"the relay died {how}{last}; started again in {self.again:g} s"


class Supervisor:
    """Keeps the relay up that this console started; `child` is None if it only watches."""

    def __init__(self, launch: Launch, child: Child | None, pauses: Sequence[float] = PAUSES) -> None:
        self.launch = launch
        self.child = child
        self.deaths = 0  # in a row
        self._pauses = pauses
        self._news: list[Death] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._start = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Look after the child, in a thread."""
        if self.child is not None:
            self._thread = threading.Thread(target=self._run, name="mailtui-supervise", daemon=True)
            self._thread.start()

    def release(self) -> Child | None:
        """Stop looking after it; the child as it is."""
        self._done.set()
        self._start.set()
        if self._thread is not None:
            self._thread.join()
        return self.child

    def start_again(self) -> bool:
        """Start a child that was stopped. False if there is none, or it runs."""
        if self.child is None or self.child.ended is None:
            return False
        self._start.set()
        return True

    def news(self) -> list[Death]:
        """What has happened since the last call."""
        with self._lock:
            found, self._news = self._news, []
        return found

    def _run(self) -> None:
        while not self._done.is_set() and self.child is not None:
            ended = self.child.ended
            if ended is None:
                self._done.wait(_LOOK)
                continue
            self.deaths = 0 if time.monotonic() - self.child.started > STEADY else self.deaths + 1
            pause = None if ended == 0 else self._pauses[min(max(self.deaths - 1, 0), len(self._pauses) - 1)]
            self._start.clear()
            with self._lock:
                self._news.append(Death(ended, tuple(self.child.last_words()), pause))
            self._start.wait(pause)
            if self._done.is_set():
                return
            try:
                # A relay that somebody else started meanwhile is left alone, and only watched.
                self.child = None if answers(self.launch.socket) else spawn(self.launch)
            except Exception as error:  # the socket is forbidden or the disk full: tell, and try again later
                with self._lock:
                    self._news.append(Death(2, (str(error),), self._pauses[-1]))
                self._done.wait(self._pauses[-1])
