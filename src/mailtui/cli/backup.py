"""`mailtui backup` and `mailtui restore-backup`."""

import contextlib
import os
from pathlib import Path

import click

from mailtui import paths
from mailtui.cli import output
from mailtui.cli.frame import Fail, Place, command_options
from mailtui.clock import SystemClock
from mailtui.control.errors import NOT_SO, PREVIEWED, WRONG
from mailtui.control.source import attach, need


@click.command("backup")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--reason", default="", metavar="TEXT", help="For the journal.")
@command_options()
def backup(place: Place, file: Path, reason: str) -> None:
    """Write a consistent copy while running: a tar of database, spool files and configuration.

    FILE is written by you, not by the relay's user; it is complete, or not there. It holds mail: keep it safe.

    \b
    Example:
      mailtui backup /var/backups/mailtui.tar
    """
    relay = need(place.socket, "backup")
    part = file.with_name(f".{file.name}.part")
    try:
        size = 0
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
            for piece in relay.backup(reason):
                out.write(piece)
                size += len(piece)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except OSError as error:
        raise Fail(f"{file}: cannot be written: {error.strerror}", WRONG) from None
    finally:
        relay.close()
        with contextlib.suppress(OSError):
            part.unlink()
    if place.json:
        output.document({"file": str(file), "bytes": size})
    else:
        output.say(f"{file}: {output.size(size)} bytes")


@click.command("restore-backup")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Also where a queue is: it is moved aside.")
@command_options()
def restore_backup(place: Place, file: Path, yes: bool) -> int:
    """Put a backup back where no relay runs. The relay then starts paused: mailtui resume.

    A queue that is there is moved into a directory of its own beside it; without --yes nothing is done then.

    \b
    Example:
      mailtui restore-backup /var/backups/mailtui.tar --state /var/lib/mailtui
    """
    running = attach(place.socket)
    if running is not None:
        running.close()
        raise Fail(f"a relay runs on {place.socket}; stop it first: mailtui stop", WRONG)
    if not file.is_file():
        raise Fail(f"{file}: there is no such file", WRONG)
    from mailtui.queue.database import LockHeld, StoreError
    from mailtui.queue.restore import holds_queue, put_back

    if holds_queue(place.state) and not yes:
        output.say(f"{place.state} holds a queue. With --yes it is moved aside, and {file} takes its place.")
        output.say("Nothing was done.")
        return PREVIEWED
    try:
        aside, configuration = put_back(place.state, file, who=_who(), now=SystemClock.now())
    except LockHeld as error:
        raise Fail(str(error), WRONG) from None
    except StoreError as error:
        raise Fail(str(error), NOT_SO) from None
    found = paths.config_file(place.state, place.config)
    if place.json:
        output.document(
            {
                "state_dir": str(place.state),
                "moved_aside": str(aside) if aside else None,
                "configuration": str(configuration) if configuration else None,
                "paused": "delivery",
            }
        )
        return 0
    output.say(f"{file} was restored to {place.state}.")
    if aside:
        output.say(f"The queue that was there is in {aside}.")
    if configuration:
        used = "it is used" if found == configuration else f"it is not used: {found} is"
        output.say(f"Its configuration is {configuration}; {used}.")
    output.say("Delivery is paused: what was delivered since the backup would go out again.")
    output.say("Start the relay, look at the queue, then: mailtui resume")
    return 0


def _who() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
