"""`mailtui access`: who may relay."""

import click

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import LazyGroup, Place, command_options


@click.group(cls=LazyGroup)
def access() -> None:
    """Who may relay: rehearse a decision."""


@access.command("test")
@click.option("--client", required=True, metavar="IP", help="Address of the client.")
@click.option("--from", "sender", required=True, metavar="A", help="Sender; '' or '<>' for the null path.")
@click.option("--to", "recipient", required=True, metavar="B", help="Recipient.")
@click.option("--user", metavar="U", help="As whom the client is authenticated.")
@click.option("--cert", metavar="SHA256", help="Fingerprint of the client's certificate.")
@click.option("--tls", is_flag=True, help="The session is encrypted.")
@click.option("--helo", metavar="H", help="What the client says in EHLO.")
@click.option("--listener", metavar="NAME", help="At which listener.")
@command_options()
def test(place: Place, client: str, sender: str, recipient: str, **more: object) -> int:
    """Would this recipient be accepted? By which rule? Nothing is sent.

    Exit status 0 if it would be accepted, else 1.

    \b
    Example:
      mailtui access test --client 203.0.113.9 --from a@a.example --to b@b.example
    """
    probe = {"client": client, "from": sender or "<>", "to": recipient, **more}
    with source(place) as relay:
        found = relay.access_test(probe)
    if place.json:
        output.document(found)
    else:
        output.say(f"{found['verdict']}: {' '.join(p for p in (found['code'], found['enhanced'], found['text']) if p)}")
        output.say(f"Rule: {found['rule']}")
        for passed in found["passed_over"]:
            output.say(f"  passed over {passed['rule']}: {passed['why']}")
    return 0 if found["verdict"] == "accept" else 1
