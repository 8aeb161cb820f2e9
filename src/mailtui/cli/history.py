"""`mailtui history`: what left the queue, or was refused."""

from itertools import islice

import click

from mailtui.cli import output
from mailtui.cli.ask import after_option, limit_option, source
from mailtui.cli.frame import Place, QueryCommand, command_options, query_argument

_TABLE = 1000


@click.command("history", cls=QueryCommand)
@query_argument
@limit_option
@after_option
@command_options()
def history(place: Place, query: tuple[str, ...], limit: int, after: str) -> None:
    """What was delivered, bounced, deleted or refused, newest first, with the final reply.

    \b
    Examples:
      mailtui history to:user@example.com
      mailtui history dest:example.com 'age<1d' --json
    """
    with source(place) as relay:
        rows = relay.history(" ".join(query), limit=limit, after=after)
        if place.json:
            output.json_lines(rows)
            return
        heads = [
            output.Column("AT"),
            output.Column("ID.N"),
            output.Column("RESULT"),
            output.Column("TO", flex=True),
            output.Column("REPLY", flex=True),
        ]
        shown, last = 0, ""
        while page := list(islice(rows, _TABLE)):
            cells = [
                [output.local(row["at"])[5:], row["rid"] or "-", row["result"], row["recipient"], output.reply(row, "")]
                for row in page
            ]
            output.table(heads, cells)
            shown, last = shown + len(page), page[-1]["cursor"]
        if not shown:
            output.say("Nothing matches." if query else "The history is empty.")
        elif shown == limit:
            output.say(f"{shown} shown; there may be more: --after {last}")
