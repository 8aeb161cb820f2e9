"""`mailtui` without a command: the running relay, live; one is started for this user if none runs.

Promises: a relay of the whole machine is never started from here; a relay that was started here stops or stays as
asked; a lost terminal leaves it running; what is drawn is cleaned and fits the terminal.
"""

import os
import select
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from mailtui import paths
from mailtui.cli import child, output
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, Place
from mailtui.cli.log import line as log_line
from mailtui.cli.status import lines as status_lines
from mailtui.control.clean import clean
from mailtui.control.client import Client
from mailtui.control.errors import NOT_RUNNING, VerbError
from mailtui.control.source import attach

# The picture is drawn again this often, in seconds.
REFRESH = 1.0

# Lines of the log below the status.
_EVENTS = 6

_ENTER = "\x1b[?1049h\x1b[?25l"  # alternate screen, cursor hidden
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class LostTerminal(Exception):
    """The terminal has gone away."""


def watch(
    place: Place, *, listen: tuple[str, ...], smarthost: str | None, hostname: str | None, read_only: bool, on_quit: str
) -> int:
    """Show the relay until q or Ctrl-C; where there is no terminal, print its status once."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or place.json:
        return _once(place)
    quick = [part for address in listen for part in ("--listen", address)]
    quick += ["--smarthost", smarthost] if smarthost else []
    quick += ["--hostname", hostname] if hostname else []
    relay, started = attach(place.socket), None
    if relay is not None and quick:
        raise Fail(f"a relay runs already on {place.socket}, with its own settings; leave {quick[0]} out", 2)
    if relay is None:
        if read_only:
            raise Fail(f"no relay answers on {place.socket}, and --read-only starts none", NOT_RUNNING)
        if place.state == paths.SYSTEM_STATE:
            raise Fail(
                "the relay of this machine is not running; start it with systemctl start mailtui,"
                " or give another --state for one of your own",
                NOT_RUNNING,
            )
        relay, started = child.start(place, quick)
    try:
        with _screen():
            _loop(place, relay, started)
    except LostTerminal:
        return 0
    return _quit(started, on_quit) if started is not None else 0


def _once(place: Place) -> int:
    with source(place) as relay:
        found = relay.status()
    if place.json:
        output.document(found)
    else:
        for text in status_lines(found):
            output.say(text)
    return 0


def _loop(place: Place, relay: Client | None, started: child.Child | None) -> None:
    while True:
        try:
            if relay is None:
                relay = attach(place.socket)
            picture = _picture(place, relay, started)
        except VerbError as error:
            if relay is not None:
                relay.close()
            relay, picture = None, [error.text, "", "q quits"]
        _draw(picture)
        if _key(REFRESH) in ("q", "Q", "\x03", "\x04"):
            if relay is not None:
                relay.close()
            return


def _picture(place: Place, relay: Client | None, started: child.Child | None) -> list[str]:
    if relay is None:
        if started is not None and started.ended is not None:
            return [f"The relay has ended with status {started.ended}; its log is {started.log}", "", "q quits"]
        return [f"No relay answers on {place.socket}; waiting for one.", "", "q quits"]
    status = relay.status()
    picture = [*status_lines(status), "", "Last events"]
    picture += [f"  {log_line(row)}" for row in relay.log(limit=_EVENTS)] or ["  none yet"]
    return [*picture, "", *_hints(place, status), "", "q quits"]


def _hints(place: Place, status: dict[str, Any]) -> list[str]:
    """What to try next, as commands to paste into another terminal."""
    options = f" --state {shlex.quote(str(place.state))}" if place.state_named else ""
    hints = ["To try in another terminal"]
    if status["listeners"]:
        address = status["listeners"][0]["address"].replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        hints.append(f"  swaks --server {address} --from you@example.org --to someone@example.com")
    return [*hints, f"  mailtui queue list{options}", f"  mailtui history{options}", f"  mailtui log --follow{options}"]


def _draw(picture: list[str]) -> None:
    width, height = shutil.get_terminal_size((output.COLUMNS, 24))
    lines = [output.cut(clean(text), width) for text in picture]
    if len(lines) > height:
        lines = [*lines[: height - 1], "q quits"]
    try:
        sys.stdout.write(_HOME + (_END_OF_LINE + "\r\n").join(lines) + _END_OF_LINE + _END_OF_SCREEN)
        sys.stdout.flush()
    except OSError:
        raise LostTerminal from None


def _key(seconds: float) -> str:
    """The key pressed within `seconds`, "" for none."""
    fd = sys.stdin.fileno()
    try:
        if not select.select([fd], [], [], seconds)[0]:
            return ""
        pressed = os.read(fd, 64)
    except OSError:
        raise LostTerminal from None
    if not pressed:
        raise LostTerminal
    return pressed[:1].decode("latin-1")


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal as a picture: keys come one by one, and everything is put back at the end."""
    import termios
    import tty

    def lost(number: int, frame: FrameType | None) -> None:
        raise LostTerminal

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handlers = {number: signal.signal(number, lost) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        sys.stdout.write(_ENTER)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        try:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        except (OSError, termios.error):
            pass


def _quit(started: child.Child, on_quit: str) -> int:
    """What becomes of the relay that was started here."""
    if started.ended is not None:
        raise Fail(f"the relay has ended with status {started.ended}; its log is {started.log}", 1)
    if on_quit == "ask":
        try:
            stop = click.confirm("Stop the relay that was started here? Otherwise it goes on", default=False)
        except click.Abort:
            stop = False
        on_quit = "stop" if stop else "leave"
    if on_quit == "leave":
        output.say(f"The relay goes on (pid {started.pid}, log {started.log}); mailtui shows it again.")
        return 0
    output.say("Stopping the relay ...")
    return started.stop()
