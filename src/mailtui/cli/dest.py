"""`mailtui dest`: destinations and next hops."""

from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.act import command_of
from mailtui.cli.ask import source
from mailtui.cli.frame import LazyGroup, Place, command_options
from mailtui.clock import SystemClock
from mailtui.control.reads import Document
from mailtui.control.verbs import VERBS


@click.group(cls=LazyGroup)
def dest() -> None:
    """Destinations and next hops: window, rate, health; suspend, resume, limit."""


@dest.command("list")
@click.option("--by", type=click.Choice(["domain", "hop"]), default="domain", show_default=True, help="What is listed.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, metavar="N", help="0 for all.")
@command_options()
def list_(place: Place, by: str, limit: int) -> None:
    """Where mail waits, the fullest first, and how delivery goes there.

    \b
    Examples:
      mailtui dest list
      mailtui dest list --by hop --json
    """
    with source(place) as relay:
        rows = relay.destinations(by, limit)
    if place.json:
        output.json_lines(rows)
        return
    if not rows:
        output.say("Nothing waits.")
        return
    now = SystemClock.now()
    heads = [
        output.Column("DESTINATION" if by == "domain" else "NEXT HOP", flex=True),
        output.Column("QUEUED", right=True),
        output.Column("ACT", right=True),
        output.Column("DEFER", right=True),
        output.Column("HELD", right=True),
        output.Column("OLDEST", right=True),
        output.Column("WIN", right=True),
        output.Column("STATE"),
        output.Column("LAST REPLY", flex=True),
    ]
    output.table(heads, [_cells(row, now) for row in rows])
    if len(rows) >= limit > 0:
        output.say(f"{len(rows)} shown; there may be more: --limit 0")


def _cells(row: Document, now: float) -> list[Any]:
    return [
        _name(row),
        row["queued"],
        row["active"],
        row["deferred"],
        row["held"],
        output.span(_ago(row["oldest"], now)),
        "-" if row["window"] is None else f"{row['connections']}/{row['window']}",
        row["state"],
        row["reason"] or row["last_reply"] or "-",
    ]


def _name(row: Document) -> str:
    return str(row.get("destination") or row.get("next_hop") or "")


def _ago(text: str | None, now: float) -> float | None:
    at = output.moment(text)
    return None if at is None else max(0.0, now - at)


@dest.command("show")
@click.argument("name", metavar="NAME")
@command_options()
def show(place: Place, name: str) -> None:
    """One destination or next hop.

    \b
    Examples:
      mailtui dest show example.com
      mailtui dest show '[mx.example.com]:25'
    """
    with source(place) as relay:
        row = relay.destination(name)
    if place.json:
        output.document(row)
        return
    now = SystemClock.now()
    until = f" until {output.local(row['until'])}" if row["until"] else ""
    reason = f": {row['reason']}" if row["reason"] else ""
    window = None if row["window"] is None else f"{row['connections']} of {row['window']} connections"
    success = _ago(row["last_success"], now)
    output.fields(
        [
            ("Destination" if "destination" in row else "Next hop", _name(row)),
            ("Goes to", row.get("hop")),
            ("Domains", ", ".join(row.get("names", ())[:20])),
            ("State", f"{row['state']}{until}{reason}"),
            ("Waiting", f"queued {row['queued']:,}  active {row['active']:,}  deferred {row['deferred']:,}"
             f"  held {row['held']:,}"),
            ("Oldest", None if row["oldest"] is None else output.span(_ago(row["oldest"], now))),
            ("Window", window),
            ("Rate", row["rate"]),
            ("Last reply", row["last_reply"]),
            ("Delivered", None if success is None else f"last {output.span(success)} ago"),
        ]
    )  # fmt: skip


for _verb in ("dest.suspend", "dest.resume", "dest.limit"):
    dest.add_command(command_of(VERBS[_verb]))
