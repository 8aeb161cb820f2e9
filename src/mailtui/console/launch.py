"""Starting the console: a relay to look at, the terminal, the app, and what becomes of the relay afterwards.

Promises: Textual is imported only here, and only when there is something to show; a terminal that is lost leaves the
relay running; errors come as StartError or VerbError before the screen is taken.
"""

import os
import sys
from typing import TextIO

from mailtui.console import supervise
from mailtui.console.supervise import Launch, StartError, Supervisor
from mailtui.control.errors import NOT_RUNNING

READ_ONLY = "started with --read-only"


def run(
    launch: Launch, *, read_only: bool = False, on_quit: str = "ask", ascii_only: bool = False, say: TextIO = sys.stdout
) -> int:
    """Show the relay until the operator leaves; the exit status."""
    if read_only:
        if not supervise.answers(launch.socket):
            raise StartError(f"no relay answers on {launch.socket}, and --read-only starts none", NOT_RUNNING)
        child = None
    else:
        child = supervise.start(launch)
    supervisor = Supervisor(launch, child)
    wish = _show(launch, supervisor, read_only=read_only, on_quit=on_quit, ascii_only=ascii_only)
    child = supervisor.release()
    if child is None:
        return 0
    if child.ended is not None:
        if child.ended:
            raise StartError(f"the relay has ended with status {child.ended}; its log is {child.log}", 1)
        return 0
    if wish == "stop":
        _print(say, "Stopping the relay ...")
        return child.stop()
    _print(say, f"The relay goes on (pid {child.pid}, log {child.log}); mailtui shows it again.")
    return 0


def _show(launch: Launch, supervisor: Supervisor, *, read_only: bool, on_quit: str, ascii_only: bool) -> str:
    from mailtui.console import terminal

    terminal.prepare(os.environ)  # before anything else of Textual: it reads its environment once
    sys.setswitchinterval(terminal.SWITCH)

    from mailtui.console.app import Console
    from mailtui.console.link import Link

    mouse = "TMUX" not in os.environ  # tmux has a mouse of its own, and its users select with it
    console = Console(
        Link(launch.socket),
        supervisor,
        read_only=READ_ONLY if read_only else "",
        on_quit=on_quit,
        ascii_only=ascii_only,
        mouse=mouse,
    )
    return console.show()


def _print(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except OSError:
        pass  # the terminal is gone
