"""`mailtui queue`: what is in the queue, why it is still there, and what to do about it."""

import sys
from itertools import islice
from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.act import command_of
from mailtui.cli.ask import after_option, limit_option, source
from mailtui.cli.frame import LazyGroup, Place, QueryCommand, command_options, query_argument
from mailtui.clock import SystemClock
from mailtui.control.clean import clean_lines
from mailtui.control.reads import Document
from mailtui.control.source import need
from mailtui.control.verbs import VERBS

_SORTS = ["arrived", "next_attempt", "destination", "size", "attempts"]

# Rows of a table are aligned together; a long listing is printed in tables of this many rows, so that the first ones
# are seen at once and memory stays flat.
_TABLE = 1000


@click.group(cls=LazyGroup, lazy={"export": "mailtui.cli.export:export"})
def queue() -> None:
    """The queue: list, count, show, explain; try, hold, defer, bounce, delete, reroute, export."""


@queue.command("list", cls=QueryCommand)
@query_argument
@click.option("--sort", type=click.Choice(_SORTS), default="arrived", show_default=True, help="Order of the rows.")
@click.option("--reverse", is_flag=True, help="The other way round.")
@limit_option
@after_option
@command_options()
def list_(place: Place, query: tuple[str, ...], sort: str, reverse: bool, limit: int, after: str) -> None:
    """Recipients in the queue, newest first.

    \b
    Examples:
      mailtui queue list dest:example.com state:deferred
      mailtui queue list 'age>4h' -to:postmaster@* --sort next_attempt
    """
    with source(place) as relay:
        rows = relay.queue(" ".join(query), sort=sort, reverse=reverse, limit=limit, after=after)
        if place.json:
            output.json_lines(rows)
            return
        shown, last = 0, ""
        while page := list(islice(rows, _TABLE)):
            _print_rows(page)
            shown, last = shown + len(page), page[-1]["cursor"]
        if not shown:
            output.say("No recipient matches." if query else "The queue is empty.")
        elif shown == limit:
            output.say(f"{shown} shown; there may be more: --after {last}")


def _print_rows(rows: list[Document]) -> None:
    now = SystemClock.now()
    wide = output.columns() >= 120
    heads = [
        output.Column("ID.N"),
        output.Column("STATE"),
        output.Column("AGE", right=True),
        output.Column("TRY", right=True),
        output.Column("NEXT", right=True),
        output.Column("SIZE", right=True),
        *([output.Column("FROM", flex=True)] if wide else []),
        output.Column("TO", flex=True),
        output.Column("LAST REPLY", flex=True),
    ]
    cells = [
        [
            row["rid"],
            row["state"],
            output.span(now - (output.moment(row["arrived"]) or now)),
            row["attempts"],
            until(row["next_attempt"], now),
            output.size(row["size"]),
            *([row["sender"] or "<>"] if wide else []),
            row["recipient"],
            output.reply(row) or "-",
        ]
        for row in rows
    ]
    output.table(heads, cells)


def until(when: str | None, now: float) -> str:
    """How long it is until a moment; a hyphen for never."""
    moment = output.moment(when)
    return "-" if moment is None else output.span(moment - now)


@queue.command("count", cls=QueryCommand)
@query_argument
@command_options()
def count(place: Place, query: tuple[str, ...]) -> None:
    """How many messages, recipients and bytes match.

    \b
    Example:
      mailtui queue count dest:example.com
    """
    with source(place) as relay:
        found = relay.count(" ".join(query))
    if place.json:
        output.document(found)
    else:
        output.say(
            f"{found['messages']:,} messages, {found['recipients']:,} recipients, {output.size(found['bytes'])} bytes"
        )


@queue.command("show")
@click.argument("id")
@click.option("--transcript", is_flag=True, help="With the dialogue of each attempt.")
@click.option("--raw", is_flag=True, help="The message itself, as stored (cleaned on a terminal).")
@command_options()
def show(place: Place, id: str, transcript: bool, raw: bool) -> None:
    """One message: envelope, recipients, attempts, headers.

    \b
    Examples:
      mailtui queue show 01HZX3V7N8QRS --transcript
      mailtui queue show 01HZX3V7N8QRS --raw > message.eml
    """
    if raw and place.json:
        raise click.UsageError("--raw is the message itself and has no JSON; leave one of them out")
    with source(place) as relay:
        if raw:
            _raw(relay.raw(id))
            return
        found = relay.message(id, transcript=transcript)
    if place.json:
        output.document(found)
    else:
        _print_message(found)


def _raw(pieces: Any) -> None:
    """To a file or pipe as it is; on a terminal it could write anything, so it is cleaned there."""
    if not sys.stdout.isatty():
        stream = sys.stdout.buffer
        for piece in pieces:
            stream.write(piece)
        stream.flush()
        return
    rest = b""
    for piece in pieces:
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            click.echo(clean_lines(whole.decode("utf-8", "replace")))
    if rest:
        click.echo(clean_lines(rest.decode("utf-8", "replace")))


def _print_message(found: Document) -> None:
    now = SystemClock.now()
    helo = f"({found['helo']})" if found["helo"] else ""
    client = " ".join(part for part in (found["client"], found["client_name"], helo) if part)
    output.fields(
        [
            ("Id", found["id"]),
            ("From", found["sender"] or "<>"),
            ("Subject", found["subject"]),
            ("Message-ID", found["message_id"]),
            (
                "Arrived",
                f"{output.local(found['arrived'])}, {output.span(now - (output.moment(found['arrived']) or now))} ago",
            ),
            ("Size", output.size(found["size"])),
            ("Client", client),
            ("User", found["user"]),
            ("Listener", " ".join(part for part in (found["listener"], found["protocol"]) if part)),
            ("TLS", found["tls"] or "none"),
        ]
    )
    output.say()
    output.say("Recipients")
    _print_rows(found["recipients"])
    if found["attempts"]:
        output.say()
        output.say("Attempts")
        _print_attempts(found["attempts"])
    output.say()
    output.say("Headers")
    for name, value in found["headers"]:
        output.wrapped(f"{name}: {value}", "  ")


def _print_attempts(attempts: list[Document]) -> None:
    heads = [
        output.Column("N", right=True),
        output.Column("AT"),
        output.Column("HOST", flex=True),
        output.Column("TLS"),
        output.Column("TOOK", right=True),
        output.Column("REPLY", flex=True),
    ]
    rows = []
    for one in attempts:
        took = (output.moment(one["finished"]) or 0) - (output.moment(one["started"]) or 0)
        rows.append(
            [
                one["rid"].rpartition(".")[2],
                output.local(one["started"]),
                one["host"] or one["address"] or "-",
                one["tls"]["reached"] or "-",
                f"{took:.1f}s",
                output.reply(one, "") or "-",
            ]
        )
    output.table(heads, rows)
    for one in attempts:
        if one.get("transcript"):
            output.say()
            output.say(f"Dialogue of {one['rid']}, {output.local(one['started'])}")
            for line in one["transcript"].split("\n"):
                output.say(f"  {line}")


@queue.command("why")
@click.argument("id", metavar="ID|RID")
@command_options()
def why(place: Place, id: str) -> None:
    """What binds a recipient now, and what would release it.

    \b
    Examples:
      mailtui queue why 01HZX3V7N8QRS
      mailtui queue why 01HZX3V7N8QRS.2
    """
    with source(place) as relay:
        rows = relay.why(id)
    if place.json:
        output.json_lines(rows)
        return
    now = SystemClock.now()
    for number, row in enumerate(rows):
        if number:
            output.say()
        output.say(f"{row['rid']}  {row['state']}  {row['recipient']}")
        output.wrapped(row["because"], "  ", "  ")
        since = output.moment(row["since"])
        output.fields(
            [
                ("  Limiter", row["limiter"] + (f", for {output.span(now - since)}" if since else "")),
                ("  Released", row["releases"]),
                ("  Next try", _when(row["next_attempt"], now)),
                ("  Given up", _when(row["expires"], now)),
                ("  Rule", row["rule"]),
            ]
        )


def _when(text: str | None, now: float) -> str:
    moment = output.moment(text)
    if moment is None:
        return ""
    left = output.span(moment - now)
    return f"{output.local(text)}, {'now' if left == 'now' else 'in ' + left}"


@queue.command("shape")
@click.option(
    "--by",
    type=click.Choice(["domain", "dest", "sender", "reply"]),
    default="dest",
    show_default=True,
    help="What stands in a line.",
)
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, metavar="N", help="0 for all.")
@command_options()
def shape(place: Place, by: str, limit: int) -> None:
    """How many recipients are older than 5, 10, 20 ... 1280 minutes, the fullest line first.

    \b
    Example:
      mailtui queue shape --by reply
    """
    with source(place) as relay:
        rows = relay.shape(by, limit)
    if place.json:
        output.json_lines(rows)
        return
    if not rows:
        output.say("The queue is empty.")
        return
    ages = [bucket["older_than"] for bucket in rows[0]["buckets"]]
    heads = [output.Column(by.upper(), flex=True), output.Column("TOTAL", right=True)]
    heads += [output.Column(f">{age // 60}m", right=True) for age in ages]
    cells = [[row["key"], row["total"], *(bucket["recipients"] for bucket in row["buckets"])] for row in rows]
    output.table(heads, cells)


@queue.command("operations")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="0 for all.")
@command_options()
def operations(place: Place, limit: int) -> None:
    """What operators did to the queue, newest first, and what can still be undone.

    \b
    Example:
      mailtui queue operations
    """
    relay = need(place.socket, "queue operations")
    try:
        rows = relay.operations(limit)
    finally:
        relay.close()
    if place.json:
        output.json_lines(rows)
        return
    if not rows:
        output.say("Nobody did anything yet.")
        return
    now = SystemClock.now()
    heads = [
        output.Column("OP"),
        output.Column("AT"),
        output.Column("WHO", flex=True),
        output.Column("DONE", right=True),
        output.Column("UNDO", right=True),
        output.Column("COMMAND", flex=True),
    ]
    cells = [
        [
            row["operation"],
            output.local(row["at"])[5:],
            row["who"],
            f"{row['done']}/{row['asked']}",
            _undo(row, now),
            row["command"].removeprefix("mailtui "),
        ]
        for row in rows
    ]
    output.table(heads, cells)


def _undo(row: Document, now: float) -> str:
    """How long an operation can still be undone."""
    until = output.moment(row["undo_until"])
    if row["state"] != "done":
        return str(row["state"])
    return "-" if until is None or until <= now else output.span(until - now)


for _name in ("retry", "hold", "release", "bounce", "delete", "defer", "reroute", "restore", "undo"):
    queue.add_command(command_of(VERBS[f"queue.{_name}"]))
