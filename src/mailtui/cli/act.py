"""The commands that act, made from the verb registry: preview, ask, run, tell.

Promises: what selects recipients does nothing without `--yes`, or without a yes on a terminal to the very recipients
that were shown; the exit status is the contract's (4: previewed, nothing done).
"""

import sys
from collections.abc import Sequence
from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.frame import Place, QueryCommand, command_options, query_argument
from mailtui.clock import SystemClock
from mailtui.control.client import Client
from mailtui.control.errors import LOST, PREVIEWED, VerbError
from mailtui.control.reads import Document
from mailtui.control.source import need
from mailtui.control.verbs import LOSSY, NEEDS_QUERY, Arg, Verb


def command_of(verb: Verb) -> click.Command:
    """The click command of a verb."""

    @command_options()
    def run(place: Place, **given: Any) -> int:
        query = " ".join(given.pop("query", ()))
        yes, expect, reason = given.pop("yes", False), given.pop("expect", None), given.pop("reason", "")
        if verb.query == NEEDS_QUERY and not query:
            raise click.UsageError("a QUERY is missing; everything is to:*")
        return act(place, verb, query, given, yes=yes, expect=expect, reason=reason)

    function: Any = run
    for option in reversed(_options(verb)):
        function = option(function)
    if verb.query:
        function = query_argument(function)
    function.__doc__ = f"{verb.help}\n\n{_more(verb)}\n\n\b\nExample:\n  {verb.example}"
    return click.command(verb.words[-1], cls=QueryCommand if verb.query else click.Command)(function)


def selects(verb: Verb, args: Document) -> bool:
    """Whether it asks before it acts: it touches recipients that nobody has named one by one."""
    return bool(verb.query) or (verb.name == "flush" and not args.get("destination"))


def _more(verb: Verb) -> str:
    if verb.query or verb.name == "flush":
        return f"{verb.preview} Without --yes it shows what it would do; on a terminal it then asks."
    return verb.preview


def _options(verb: Verb) -> list[Any]:
    found: list[Any] = [_option(arg) for arg in verb.args]
    if verb.query or verb.name == "flush":
        found.append(click.option("--yes", is_flag=True, help="Do it."))
        found.append(
            click.option("--expect", type=click.IntRange(min=0), metavar="N", help="Only if it touches N recipients.")
        )
    if verb.name not in ("reload", "stop"):
        found.append(click.option("--reason", default="", metavar="TEXT", help="For the journal."))
    return found


def _option(arg: Arg) -> Any:
    if arg.operand:
        kind = click.Choice(arg.choices) if arg.choices else None
        return click.argument(arg.name, required=arg.required, metavar=arg.metavar or None, type=kind)
    if arg.kind == "flag":
        return click.option(arg.option, arg.name, is_flag=True, help=arg.help)
    return click.option(arg.option, arg.name, metavar=arg.metavar or "TEXT", required=arg.required, help=arg.help)


def act(
    place: Place,
    verb: Verb,
    query: str,
    args: Document,
    *,
    yes: bool = True,
    expect: int | None = None,
    reason: str = "",
) -> int:
    """Run a verb, or show what it would do; the exit status."""
    given = {name: value for name, value in args.items() if value is not None and value is not False}
    body: Document = {"query": query, "args": given, "reason": reason}
    relay = need(place.socket, " ".join(verb.words))
    try:
        if selects(verb, given) and not yes:
            return _preview(place, relay, verb, body)
        tell(place, verb, relay.verb(verb.name, **body, expect=expect))
    finally:
        relay.close()
    return 0


def _preview(place: Place, relay: Client, verb: Verb, body: Document) -> int:
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not place.json
    found = relay.verb(verb.name, **body, preview=True, keep=terminal)
    if place.json:
        output.document(found)
        return PREVIEWED
    for line in preview_lines(verb, found):
        output.wrapped(line, "", "  ")
    _sample(found["sample"], found["recipients"])
    if not found["recipients"]:
        return 0 if terminal else PREVIEWED
    output.say()
    output.wrapped(f"$ {found['command']}", "", "    ")
    if not terminal:
        output.say("Nothing was done: this was a preview. With --yes it is done.")
        return PREVIEWED
    if not _confirmed(verb, found):
        output.say("Nothing was done.")
        return PREVIEWED
    tell(place, verb, _run_previewed(relay, verb, body, found))
    return 0


def _run_previewed(relay: Client, verb: Verb, body: Document, found: Document) -> Document:
    """To the recipients that were shown; if their set was forgotten over a long thought, only if as many match now."""
    try:
        return relay.verb(verb.name, **{**body, "query": None, "set": found.get("set")})
    except VerbError as error:
        if error.http != LOST:
            raise
        return relay.verb(verb.name, **body, expect=found["recipients"])


def _confirmed(verb: Verb, found: Document) -> bool:
    if found["danger"] == LOSSY:
        count = str(found["recipients"])
        return str(click.prompt(f"Type {count} to do it", default="", show_default=False)).replace(",", "") == count
    return click.confirm("Do it?")


def preview_lines(verb: Verb, found: Document) -> list[str]:
    """A preview for people."""
    if not found["recipients"]:
        return ["Nothing to do.", *_left_out(found)]
    now = SystemClock.now()
    oldest = output.moment(found["oldest"])
    parts = [
        f"{amount(found['recipients'], 'recipient')} of {amount(found['messages'], 'message')}",
        f"{output.size(found['bytes'])} bytes",
        *([f"oldest {output.span(now - oldest)}"] if oldest is not None else []),
        amount(found["destinations"], "destination"),
    ]
    undo = found["undo_seconds"]
    return [
        f"{verb.title}: {', '.join(parts)}",
        *found["effects"],
        *([f"It can be undone for {output.span(undo)}."] if undo else []),
        *_left_out(found),
    ]


def _left_out(found: Document) -> list[str]:
    return [f"Left out: {amount(one['recipients'], 'recipient')}: {one['why']}" for one in found["left_out"]]


def _sample(rows: Sequence[Document], recipients: int) -> None:
    if not rows:
        return
    output.say()
    heads = [output.Column("ID.N"), output.Column("FROM", flex=True), output.Column("TO", flex=True),
             output.Column("SUBJECT", flex=True)]  # fmt: skip
    output.table(heads, [[row["rid"], row["sender"] or "<>", row["recipient"], row["subject"]] for row in rows])
    if recipients > len(rows):
        output.say(f"and {recipients - len(rows):,} more")


def tell(place: Place, verb: Verb, answer: Document) -> None:
    """The answer of a run."""
    if place.json:
        output.document(answer)
    else:
        for line in result_lines(verb, answer):
            output.wrapped(line, "", "  ")


def result_lines(verb: Verb, answer: Document) -> list[str]:
    """The answer of a run for people: every number that is not nought, and how to take it back."""
    if "done" not in answer:
        return [str(answer["text"])]
    done, asked = answer["done"], answer["asked"]
    if not asked:
        return ["0 recipients: nothing matched."]
    said = f"{verb.done} {done:,} of {amount(asked, 'recipient')}" if done != asked else ""
    lines = [said or f"{verb.done} {amount(done, 'recipient')}"]
    if answer["delivered_before"]:
        lines.append(f"{answer['delivered_before']:,} had left the queue before")
    if answer["pending"]:
        waves = verb.action == "retry"
        lines.append(f"{answer['pending']:,} " + ("follow in waves" if waves else "in delivery: done if that fails"))
    lines += [f"{one['recipients']:,} left out: {one['why']}" for one in answer["left_out"]]
    if answer.get("undo_until"):
        lines.append(f"undo until {output.local(answer['undo_until'])}: mailtui queue undo {answer['operation']}")
    return lines


def amount(number: int, noun: str) -> str:
    """1 recipient, 2 recipients."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
