"""`mailtui log`: events and operator actions."""

import sys

import click

from mailtui.cli import output
from mailtui.cli.ask import limit_option, source
from mailtui.cli.frame import Place, command_options
from mailtui.control.reads import Document
from mailtui.control.source import need
from mailtui.events import escape

# The journal and the history are capped far below this many entries.
_ALL = 1_000_000


@click.command("log")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on. Needs a running relay.")
@limit_option
@command_options()
def log(place: Place, follow: bool, limit: int) -> None:
    """The last events and operator actions, newest last.

    \b
    Examples:
      mailtui log --limit 200
      mailtui log --follow --json
    """
    if follow:
        relay = need(place.socket, "log --follow")
        try:
            for row in relay.log(limit=limit or _ALL):
                _print(place, row)
            for row in relay.follow():  # it goes on where the log ends
                _print(place, row)
        finally:
            relay.close()
        return
    with source(place) as asked:
        for row in asked.log(limit=limit or _ALL):
            _print(place, row)


def _print(place: Place, row: Document) -> None:
    if place.json:
        output.json_lines([row])
        sys.stdout.flush()  # whoever follows wants it now
    else:
        output.say(line(row))


def line(row: Document) -> str:
    """An entry for people."""
    fields = " ".join(
        f"{name}={escape(value) if isinstance(value, str) else value}"
        for name, value in row.items()
        if name not in ("at", "event") and value not in ("", None)
    )
    return f"{output.local(row['at'])} {row['event']} {fields}".rstrip()
