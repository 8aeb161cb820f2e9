"""`mailtui trace`: the hops of a message."""

import sys
from pathlib import Path

import click

from mailtui import ids
from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, Place, command_options
from mailtui.control.reads import Document

# Of a file only the header section is read; no honest one is larger.
_HEADER_LIMIT = 1 << 20


@click.command("trace")
@click.argument("target", metavar="ID|FILE|-")
@command_options()
def trace(place: Place, target: str) -> None:
    """The way of a message so far: who handed it to whom, when, and how long it took.

    Of a queued message (ID), a message file (FILE), or standard input (-).

    \b
    Examples:
      mailtui trace 01HZX3V7N8QRS
      mailtui trace message.eml
    """
    if target == "-":
        found = _trace(place, sys.stdin.buffer.read(_HEADER_LIMIT))
    elif Path(target).is_file():
        found = _trace(place, _read(Path(target)))
    elif _is_id(target):
        with source(place) as relay:
            found = relay.trace(target)
    else:
        raise Fail(f'"{target}" is neither a queue id nor a file; give one of them, or - for standard input', 2)
    if place.json:
        output.document(found)
    else:
        _print(found)


def _is_id(text: str) -> bool:
    try:
        ids.parse(text)
    except ValueError:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_LIMIT)
    except OSError as error:
        raise Fail(f"{path}: cannot be read: {error.strerror}", 2) from None


def _trace(place: Place, data: bytes) -> Document:
    """The hops of a message's octets; whom to believe is said by the configuration, if there is one to be read."""
    from mailtui import paths
    from mailtui.control import answers
    from mailtui.control.errors import VerbError

    own, trusted = "", []
    if paths.config_file(place.state, place.config) is not None:
        from mailtui.control.offline import load_settings

        try:
            settings = load_settings(place.config, place.state)
            own, trusted = settings.hostname, settings.trace.trusted
        except VerbError:
            if place.config:
                raise
    unix = data.replace(b"\r\n", b"\n")
    return answers.trace(unix.partition(b"\n\n")[0] + b"\n", own, trusted)


def _print(found: Document) -> None:
    heads = [
        output.Column("#", right=True),
        output.Column("FROM", flex=True),
        output.Column("BY", flex=True),
        output.Column("WITH"),
        output.Column("TLS"),
        output.Column("AT"),
        output.Column("DELAY", right=True),
    ]
    rows = []
    for hop in found["hops"]:
        slow = hop["index"] == found["slowest"]
        rows.append(
            [
                hop["index"],
                hop["from"] or hop["ip"] or "?",
                hop["by"] or "?",
                hop["protocol"] or "-",
                {True: "yes", False: "no", None: "?"}[hop["tls"]],
                output.local(hop["time"])[5:] or "?",
                _delay(hop["delay"]) + ("*" if slow else ""),
            ]
        )
    if not rows:
        output.say("No Received lines: this message has not been through any relay.")
        return
    output.table(heads, rows)
    trusted = [hop["index"] for hop in found["hops"] if hop["trusted"]]
    if trusted:
        which = f"Hops {trusted[0]} to {trusted[-1]} were" if len(trusted) > 1 else f"Hop {trusted[0]} was"
        below = "" if trusted[0] == 1 else "; those before can be forged"
        output.say(f"{which} stamped by us or by hosts you trust{below}.")
    if found["total_delay"] is not None:
        output.say(f"In all {_delay(found['total_delay'])}" + ("; * is the slowest." if found["slowest"] else "."))
    for hop in found["hops"]:
        for warning in hop["warnings"]:
            output.wrapped(f"Hop {hop['index']}: {warning}", "", "  ")
    for warning in found["warnings"]:
        output.wrapped(f"WARNING  {warning}", "", "         ")


def _delay(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"-{output.span(-seconds)}" if seconds < 0 else output.span(seconds)
