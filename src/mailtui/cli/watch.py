"""`mailtui` without a command: the console; where there is no terminal, the status once.

Promises: nothing of Textual is imported before the console starts.
"""

import sys

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, Place
from mailtui.cli.status import lines as status_lines


def watch(
    place: Place,
    *,
    listen: tuple[str, ...],
    smarthost: str | None,
    hostname: str | None,
    read_only: bool,
    on_quit: str,
    ascii_only: bool,
) -> int:
    """Attach to the relay, or start one for this user, and show it until the operator leaves."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or place.json:
        return _once(place)
    from mailtui.console import launch
    from mailtui.console.supervise import Launch, StartError

    quick = [part for address in listen for part in ("--listen", address)]
    quick += ["--smarthost", smarthost] if smarthost else []
    quick += ["--hostname", hostname] if hostname else []
    wanted = Launch(place.state, place.socket, place.config, tuple(quick))
    try:
        return launch.run(wanted, read_only=read_only, on_quit=on_quit, ascii_only=ascii_only)
    except StartError as error:
        raise Fail(str(error), error.status) from None


def _once(place: Place) -> int:
    with source(place) as relay:
        found = relay.status()
    if place.json:
        output.document(found)
    else:
        for text in status_lines(found):
            output.say(text)
    return 0
