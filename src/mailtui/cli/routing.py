"""`mailtui mx`: the delivery plan."""

import click

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Place, command_options


@click.command("mx")
@click.argument("target", metavar="DOMAIN|ADDRESS")
@command_options()
def mx(place: Place, target: str) -> None:
    """The way that mail for a domain or address would take now.

    \b
    Examples:
      mailtui mx example.com
      mailtui mx user@example.com --json
    """
    with source(place) as relay:
        plan = relay.plan(target)
    if place.json:
        output.document(plan)
        return
    outcome = plan["outcome"]
    reply = " ".join(str(part) for part in (plan["code"], plan["enhanced"]) if part)
    output.fields(
        [
            ("Domain", plan["domain"]),
            ("Outcome", f"{outcome} ({reply})" if reply else outcome),
            ("Via", f"{plan['via']} {plan['route']}".rstrip()),
            ("Next hop", plan["next_hop"]),
            ("Reason", plan["reason"]),
            ("DNSSEC", plan["dnssec"]),
        ]
    )
    if plan["hosts"]:
        output.say()
        heads = [
            output.Column("PREF", right=True),
            output.Column("HOST", flex=True),
            output.Column("ADDRESSES", flex=True),
            output.Column("TLS"),
        ]
        rows = [
            [host["preference"], host["name"], host["error"] or " ".join(host["addresses"]), host["tls"]["level"]]
            for host in plan["hosts"]
        ]
        output.table(heads, rows)
    for dropped in plan["dropped"]:
        output.say(f"Left out: {dropped['name']}: {dropped['why']}")
