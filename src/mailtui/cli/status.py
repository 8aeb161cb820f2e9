"""`mailtui status`: how the relay is."""

import click

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Place, command_options
from mailtui.clock import SystemClock
from mailtui.control.reads import Document


@click.command("status")
@command_options()
def status(place: Place) -> None:
    """Running, since when, rates, queue, listeners, disk, warnings.

    A stopped relay has a status too: what is in its queue.

    \b
    Example:
      mailtui status --json
    """
    with source(place) as relay:
        found = relay.status()
    if place.json:
        output.document(found)
    else:
        for line in lines(found):
            output.say(line)


def lines(found: Document) -> list[str]:
    """The status for people, a line an element, each within 80 columns where names allow it."""
    now = SystemClock.now()
    queue, rates, disk = found["queue"], found["rates"], found["disk"]
    oldest = output.moment(queue["oldest"])
    if found["running"]:
        since = output.moment(found["since"]) or now
        head = f"running for {output.span(now - since)}, pid {found['pid']}, version {found['version']}"
    else:
        head = "not running; start it with mailtui serve"
    said = [f"mailtui {found['hostname']}  {head}", f"State    {found['state_dir']}"]
    if found["paused"]:
        said.append(f"PAUSED   {found['paused']}; mailtui resume")
    for listener in found["listeners"]:
        said.append(f"Listens  {listener['address']}  {listener['name']}, {listener['role']}, TLS {listener['tls']}")
    said.append(
        f"Queue    {queue['recipients']:,} recipients of {queue['messages']:,} messages,"
        f" {output.size(queue['bytes'])}; oldest {output.span(None if oldest is None else now - oldest)}"
    )
    states = ("queued", "active", "deferred", "held", "leaving")
    said.append("         " + "  ".join(f"{name} {queue[name]:,}" for name in states))
    if found["running"]:
        names = ("accepted", "delivered", "deferred", "bounced", "refused")
        said.append("Minute   " + "  ".join(f"{name} {rates[f'{name}_1m']:,}" for name in names))
    if disk["free"] is not None:
        needed = f", {output.size(disk['needed'])} needed" if disk["needed"] is not None else ""
        said.append(f"Disk     {output.size(disk['free'])} free{needed}")
    for warning in found["warnings"]:
        said.append(f"WARNING  {warning['text']}")
    return said
