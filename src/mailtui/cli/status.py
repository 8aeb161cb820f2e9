"""`mailtui status`: how the relay is."""

import sys

import click

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Place, command_options
from mailtui.clock import SystemClock
from mailtui.control.clean import clean
from mailtui.control.reads import Document
from mailtui.control.source import need


@click.command("status")
@click.option("--follow", "-f", is_flag=True, help="Show it again whenever it changes. Needs a running relay.")
@command_options()
def status(place: Place, follow: bool) -> None:
    """Running, since when, rates, queue, listeners, disk, warnings.

    A stopped relay has a status too: what is in its queue.

    \b
    Examples:
      mailtui status --json
      mailtui status --follow
    """
    if follow:
        _follow(place)
        return
    with source(place) as relay:
        found = relay.status()
    if place.json:
        output.document(found)
    else:
        for line in lines(found):
            output.say(line)


def _follow(place: Place) -> None:
    """On a terminal in place; else one status below the other."""
    relay = need(place.socket, "status --follow")
    try:
        for row in relay.events():
            if row["event"] != "status":
                continue
            if place.json:
                output.json_lines([row["status"]])
            elif sys.stdout.isatty():
                # Home, and erase to the end of each line and of the screen: no flicker.
                text = "\x1b[K\n".join(clean(line) for line in lines(row["status"]))
                sys.stdout.write(f"\x1b[H{text}\x1b[K\n\x1b[J")
            else:
                for line in lines(row["status"]):
                    output.say(line)
                output.say()
            sys.stdout.flush()
    finally:
        relay.close()


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
