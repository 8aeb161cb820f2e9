"""`mailtui access`: who may relay: rehearse a decision, grant for a while, save what must stay so."""

from collections.abc import Callable
from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.act import act, command_of
from mailtui.cli.ask import source
from mailtui.cli.config import in_force
from mailtui.cli.frame import LazyGroup, Place, command_options
from mailtui.clock import SystemClock
from mailtui.control import openrelay
from mailtui.control.reads import Document
from mailtui.control.verbs import VERBS


@click.group(cls=LazyGroup)
def access() -> None:
    """Who may relay: rehearse a decision, permit an address for a while, save probes that must hold."""


def question_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that a question to the access rules is made of."""
    options = [
        click.option("--client", required=True, metavar="IP", help="Address of the client."),
        click.option("--from", "sender", required=True, metavar="A", help="Sender; '' or '<>' for the null path."),
        click.option("--to", "recipient", required=True, metavar="B", help="Recipient."),
        click.option("--user", metavar="U", help="As whom the client is authenticated."),
        click.option("--cert", metavar="SHA256", help="Fingerprint of the client's certificate."),
        click.option("--tls", is_flag=True, help="The session is encrypted."),
        click.option("--helo", metavar="H", help="What the client says in EHLO."),
        click.option("--listener", metavar="NAME", help="At which listener."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _question(client: str, sender: str, recipient: str, more: Document) -> Document:
    return {"client": client, "from": sender or "<>", "to": recipient or "<>", **more}


@access.command("test")
@question_options
@command_options()
def test(place: Place, client: str, sender: str, recipient: str, **more: Any) -> int:
    """Would this recipient be accepted? By which rule? Nothing is sent.

    Exit status 0 if it would be accepted, else 1.

    \b
    Example:
      mailtui access test --client 203.0.113.9 --from a@a.example --to b@b.example
    """
    with source(place) as relay:
        found = relay.access_test(_question(client, sender, recipient, more))
    if place.json:
        output.document(found)
    else:
        output.say(f"{found['verdict']}: {' '.join(p for p in (found['code'], found['enhanced'], found['text']) if p)}")
        output.say(f"Rule: {found['rule']}")
        for passed in found["passed_over"]:
            output.say(f"  passed over {passed['rule']}: {passed['why']}")
    return 0 if found["verdict"] == "accept" else 1


@access.command("check")
@click.option("--client", default=openrelay.STRANGER, show_default=True, metavar="IP", help="The stranger's address.")
@click.option("--listener", metavar="NAME", help="At which listener.")
@command_options()
def check(place: Place, client: str, listener: str | None) -> int:
    """Is this an open relay? Tries every known way to send mail elsewhere as a stranger on the rules. Nothing is sent.

    Exit status 0 if none is accepted, else 1.

    \b
    Example:
      mailtui access check
    """
    domains, literal = _ours(in_force(place))
    tried, found = 0, []
    with source(place) as relay:
        for ours in domains:
            for sender, recipient in openrelay.forms(ours, literal):
                probe = {"client": client, "from": sender, "to": recipient, "listener": listener}
                answer = relay.access_test(probe)
                tried += 1
                if answer["verdict"] != "reject" and answer["rule"] not in openrelay.TAKEN_AS_OURS | {"callout"}:
                    found.append({"from": sender, "to": recipient, **answer})
    if place.json:
        output.document({"client": client, "tried": tried, "accepted": found})
    else:
        for row in found:
            output.say(f"ACCEPTED from {row['from']} to {row['to']} by rule {row['rule']}")
        output.say(f"{tried} ways tried as {client}: " + (f"{len(found)} accepted" if found else "all are refused."))
    return 1 if found else 0


def _ours(config: Document) -> tuple[list[str], str]:
    """Domains that stand for ours, and an address of ours as a literal."""
    values = {entry["key"]: entry["value"] for entry in config["values"]}
    domains = [values["hostname"], *values["access.local_domains"][:1], *values["access.relay_domains"][:1]]
    hosts = [str(value).rpartition(":")[0] for key, value in values.items()
             if key.startswith("listener.") and key.endswith(".address")]  # fmt: skip
    usable = next((host for host in hosts if host[:1].isdigit() and host != "0.0.0.0"), "127.0.0.1")
    return list(dict.fromkeys(domains)), f"[{usable}]"


access.add_command(command_of(VERBS["access.grant"]))
access.add_command(command_of(VERBS["access.revoke"]))


@access.command("grants")
@command_options()
def grants(place: Place) -> None:
    """The temporary permissions that hold now; the one that ends first stands first.

    \b
    Example:
      mailtui access grants --json
    """
    with source(place) as relay:
        rows = relay.grants()
    now = SystemClock.now()
    heads = [output.Column("ADDRESS"), output.Column("LEFT", right=True), output.Column("UNTIL"),
             output.Column("BY", flex=True), output.Column("REASON", flex=True)]  # fmt: skip

    def cells(row: Document) -> list[Any]:
        left = output.span((output.moment(row["until"]) or now) - now)
        return [row["address"], left, output.local(row["until"]), row["by"], row["reason"] or "-"]

    output.listing(rows, place.json, "No address has a grant.", heads, cells)


@access.group("probe", cls=LazyGroup)
def probe() -> None:
    """Saved questions whose answers must stay: a reload that would change one is refused."""


@probe.command("add")
@click.argument("name", metavar="NAME")
@question_options
@click.option("--expect", required=True, type=click.Choice(["accept", "reject", "defer"]), help="The verdict.")
@click.option("--rule", metavar="R", help="The rule that must decide; any if it is not given.")
@click.option("--reason", default="", metavar="TEXT", help="For the journal.")
@command_options()
def add(place: Place, name: str, client: str, sender: str, recipient: str, reason: str, **more: Any) -> int:
    """Save a question under NAME, in the place of one of that name. It need not hold now.

    A probe judges what the configuration permits: grants do not count, and where the next hop is asked for a recipient
    it counts as one that exists.

    \b
    Example:
      mailtui access probe add stranger --client 203.0.113.9 --from a@a.example --to b@b.example --expect reject
    """
    return act(place, VERBS["access.probe.add"], "", {"name": name, **_question(client, sender, recipient, more)},
               reason=reason)  # fmt: skip


@probe.command("list")
@command_options()
def list_(place: Place) -> None:
    """The saved probes.

    \b
    Example:
      mailtui access probe list
    """
    with source(place) as relay:
        rows = relay.probes()
    heads = [output.Column("NAME", flex=True), output.Column("EXPECT"), output.Column("RULE"),
             output.Column("CLIENT"), output.Column("FROM", flex=True), output.Column("TO", flex=True)]  # fmt: skip

    def cells(row: Document) -> list[Any]:
        return [row["name"], row["expect"], row["rule"] or "any", row["client"], row["from"], row["to"]]

    output.listing(rows, place.json, "No probe is saved.", heads, cells)


probe.add_command(command_of(VERBS["access.probe.remove"]))


@probe.command("run")
@command_options()
def run(place: Place) -> int:
    """Ask every probe of the configuration in force.

    Exit status 0 if all hold, else 1. mailtui config check asks them of a configuration that is to come.

    \b
    Example:
      mailtui access probe run
    """
    with source(place) as relay:
        rows = relay.run_probes()
    failed = [row for row in rows if not row["holds"]]
    if place.json:
        output.json_lines(rows)
    else:
        for row in rows:
            output.wrapped(f"{'ok  ' if row['holds'] else 'FAIL'} {row['name']}: {_fared(row)}", "", "     ")
        output.say(f"{len(rows)} asked, {len(failed)} failed." if rows else "No probe is saved.")
    return 1 if failed else 0


def _fared(row: Document) -> str:
    return str(row["error"]) if row["error"] else f"{row['verdict']} by rule {row['rule']}"
