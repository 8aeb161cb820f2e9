"""`mailtui queue export`: messages as files."""

from pathlib import Path

import click

from mailtui.cli import output
from mailtui.cli.act import amount
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, Place, QueryCommand, command_options, query_argument
from mailtui.control.errors import WRONG
from mailtui.control.files import write_message


@click.command("export", cls=QueryCommand)
@query_argument
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@command_options()
def export(place: Place, query: tuple[str, ...], directory: Path) -> int:
    """Write the messages that match into DIR: ID.eml as stored, and ID.json with the envelope, beside each.

    The .json names the recipients that match in `selected`. Nothing changes in the queue. A file that exists is not
    written over.

    \b
    Example:
      mailtui queue export dest:example.com ./mail
    """
    if not query:
        raise click.UsageError("a QUERY is missing; everything is to:*")
    written = gone = octets = 0
    with source(place) as relay:
        # All of them first: the listing must not go on while the queue moves under it.
        selected: dict[str, list[str]] = {}
        for row in relay.queue(" ".join(query), sort="arrived", reverse=False, limit=0, after=""):
            selected.setdefault(row["id"], []).append(row["rid"])
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for id, rids in selected.items():
                size = write_message(relay, directory, id, rids)
                written, gone, octets = written + (size > 0), gone + (size == 0), octets + size
        except OSError as error:
            raise Fail(f"{error.filename or directory}: cannot be written: {error.strerror}", WRONG) from None
    if place.json:
        output.document({"directory": str(directory), "messages": written, "gone": gone, "bytes": octets})
    else:
        left = f"; {gone} left the queue meanwhile" if gone else ""
        output.say(f"{amount(written, 'message')}, {output.size(octets)} bytes in {directory}{left}")
    return 0
