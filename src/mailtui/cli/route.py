"""`mailtui route`: where mail goes when not to its MX."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.act import act, command_of
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, LazyGroup, Place, command_options
from mailtui.control.errors import WRONG
from mailtui.control.reads import Document
from mailtui.control.source import need
from mailtui.control.verbs import VERBS

# Options of a route, in the order of the contract.
OPTIONS = ("auth", "tls", "source")


@click.group(cls=LazyGroup)
def route() -> None:
    """The route table: where mail goes when not to its MX. Live rows beat the file's."""


@route.command("list")
@command_options()
def list_(place: Place) -> None:
    """The rows: live ones, and those of the file.

    \b
    Example:
      mailtui route list
    """
    with source(place) as relay:
        rows = relay.routes()
    heads = [
        output.Column("MATCH", flex=True),
        output.Column("TARGET", flex=True),
        output.Column("OPTIONS", flex=True),
        output.Column("QUEUED", right=True),
        output.Column("FROM"),
    ]

    def cells(row: Document) -> list[Any]:
        source = "file, beaten by the live row" if row["shadowed"] else row["source"]
        return [row["match"], row["target"], _options_text(row) or "-", row["queued"], source]

    output.listing(rows, place.json, "There is no route: mail goes to its MX, or to the smarthost.", heads, cells)


def _options_text(row: Document) -> str:
    return " ".join(f"{name}={value}" for name, value in row["options"].items())


@route.command("set")
@click.argument("match", metavar="MATCH")
@click.argument("target", metavar="TARGET")
@click.argument("options", nargs=-1, metavar="[auth=USER] [tls=LEVEL] [source=IP]")
@click.option("--reason", default="", metavar="TEXT", help="For the journal.")
@command_options()
def set_(place: Place, match: str, target: str, options: tuple[str, ...], reason: str) -> int:
    """Send the mail of MATCH to TARGET, from the next attempt on.

    MATCH is an address, a domain, .domain (its subdomains), * or from: one of these. TARGET is mx, smtp://[host]:port,
    smtp://domain, smtps://[host], lmtp://[host]:port, lmtp:unix:PATH, error:5.1.2 text, defer, hold, discard; several
    next hops with , (equal) and | (then). auth=USER wants its password in the file of [delivery] secrets.

    \b
    Examples:
      mailtui route set example.com 'smtp://[mailbox.internal]:25'
      mailtui route set .example.net 'smtp://[192.0.2.1]:25|mx' tls=encrypt
    """
    args: Document = {"match": match, "target": target}
    for word in options:
        name, equals, value = word.partition("=")
        if name not in OPTIONS or not equals or not value:
            raise click.UsageError(f"{word} is no option of a route; there are auth=USER, tls=LEVEL and source=IP")
        args[name] = value
    return act(place, VERBS["route.set"], "", args, reason=reason)


route.add_command(command_of(VERBS["route.unset"]))


@route.command("test")
@click.argument("target", metavar="ADDRESS|DOMAIN")
@click.option("--from", "sender", default="", metavar="A", help="For rows that go by the sender.")
@command_options()
def test(place: Place, target: str, sender: str) -> None:
    """Which row an address or domain meets. Asks no DNS: mailtui mx shows the hosts.

    \b
    Example:
      mailtui route test user@example.com --from ann@example.net
    """
    with source(place) as relay:
        found = relay.route_test(target, sender)
    if place.json:
        output.document(found)
        return
    what = {"live": "a live row", "file": "a row of the file", "smarthost": "the smarthost", "none": "no row: its MX"}
    output.fields(
        [
            ("For", found["address"] or found["domain"]),
            ("Row", found["match"]),
            ("Target", found["target"]),
            ("Options", _options_text(found)),
            ("By", what[found["source"]]),
        ]
    )


@route.command("export")
@command_options()
def export(place: Place) -> None:
    """The table as it holds now, as [[route]] for mailtui.toml or for route import; --json: JSON Lines.

    \b
    Example:
      mailtui route export > routes.toml
    """
    with source(place) as relay:
        rows = [row for row in relay.routes() if not row["shadowed"]]
    exported = [{"match": row["match"], "target": row["target"], **row["options"]} for row in rows]
    if place.json:
        output.json_lines(exported)
        return
    for row in exported:
        # A JSON string is a TOML string: both escape alike what may stand here.
        output.say("[[route]]")
        for name, value in row.items():
            output.say(f"{name} = {json.dumps(value)}")
        output.say()


@route.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--reason", default="", metavar="TEXT", help="For the journal.")
@command_options()
def import_(place: Place, file: Path, reason: str) -> int:
    """Set every row of FILE: [[route]] tables (TOML), or JSON Lines. All are checked before the first is set.

    \b
    Example:
      mailtui route import routes.toml
    """
    rows = [_row(file, number, row) for number, row in enumerate(_read(file), 1)]
    relay = need(place.socket, "route import")
    from mailtui.control.controls import check_route

    try:
        for row in rows:
            check_route(row["match"], row["target"], {name: row[name] for name in OPTIONS if name in row})
        answers = [relay.verb("route.set", args=row, reason=reason) for row in rows]
    finally:
        relay.close()
    if place.json:
        output.document({"set": len(answers), "commands": [answer["command"] for answer in answers]})
    else:
        for answer in answers:
            output.say(answer["text"])
        output.say(f"{len(answers)} set.")
    return 0


def _read(file: Path) -> list[Any]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Fail(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}", WRONG) from None
    try:
        if text.lstrip().startswith("{"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        found = tomllib.loads(text).get("route", [])
        return found if isinstance(found, list) else [found]
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise Fail(f"{file}: neither [[route]] tables nor JSON Lines: {error}", WRONG) from None


def _row(file: Path, number: int, row: Any) -> Document:
    """A row as `route set` takes it. Fail for what is none."""
    if not isinstance(row, dict):
        raise Fail(f"{file}: row {number} is no table", WRONG)
    options = row.pop("options", None)
    flat = {**row, **(options if isinstance(options, dict) else {})}
    extra = {"queued", "source", "shadowed"} if options is not None else set()  # a line of route list --json
    value = {name: text for name, text in flat.items() if name not in extra or name in (options or {})}
    unknown = [name for name in value if name not in ("match", "target", *OPTIONS)]
    if unknown or not all(isinstance(text, str) for text in value.values()) or not {"match", "target"} <= value.keys():
        what = f"unknown key {unknown[0]}" if unknown else "match and target are needed, all of them texts"
        raise Fail(f"{file}: row {number}: {what}", WRONG)
    return value
