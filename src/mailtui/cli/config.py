"""`mailtui config`: is it valid, what is in force, and where does each value come from."""

import json
from typing import TYPE_CHECKING

import click

from mailtui import paths
from mailtui.cli import output
from mailtui.cli.frame import LazyGroup, Place, command_options
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError
from mailtui.control.reads import Document
from mailtui.control.source import find

if TYPE_CHECKING:
    from mailtui.config import Settings


@click.group(cls=LazyGroup)
def config() -> None:
    """The configuration: check it, show it."""


@config.command("check")
@command_options()
def check(place: Place) -> int:
    """Is the configuration valid? Every error at once, with file, line and key; and do the saved probes hold in it?

    Exit status 0 if it is; 2 if not; 1 if it is but a saved probe fails (mailtui access probe), as far as the relay or
    its state directory can be asked for them.

    \b
    Example:
      mailtui config check --config /etc/mailtui/mailtui.toml
    """
    from mailtui.config import ConfigError, check_files, load

    file = paths.config_file(place.state, place.config)
    source, errors, failed = (str(file) if file else None), [], []
    try:
        settings = load(place.config, state=place.state)
        errors = check_files(settings)
        if not errors:
            failed = _failed_probes(place, settings)
    except ConfigError as error:
        errors = error.errors
    if place.json:
        output.document({"source": source, "valid": not errors, "errors": errors, "probes": failed})
    elif not errors:
        output.say(f"{source}: valid" if source else "There is no configuration file; the defaults are valid.")
    if not place.json:
        for line in (*errors, *failed):
            click.echo(clean(line), err=True)
    return 2 if errors else 1 if failed else 0


def _failed_probes(place: Place, settings: "Settings") -> list[str]:
    """A sentence for each saved probe that a configuration does not answer as it expects."""
    try:
        relay = find(place.state, place.socket, place.config)
    except VerbError:  # the state directory is another user's: the configuration can be judged without it
        return []
    try:
        saved = relay.probes()
    finally:
        relay.close()
    if not saved:
        return []
    from mailtui.intake.access import AccessRules
    from mailtui.intake.probes import failures, probe_of_row

    return failures(map(probe_of_row, saved), AccessRules.from_settings(settings))


@config.command("show")
@command_options()
def show(place: Place) -> None:
    """The effective configuration, and where each value comes from: the file and line, the command line, or default.

    \b
    Example:
      mailtui config show --json
    """
    found = in_force(place)
    if place.json:
        output.document(found)
        return
    output.say(f"# {found['source'] or 'no configuration file'}")
    for entry in found["values"]:
        output.say(f"{entry['key']} = {json.dumps(entry['value'], ensure_ascii=False)}  # {entry['origin']}")


def in_force(place: Place) -> Document:
    """Of the running relay what it runs with; of a stopped one what it would start with."""
    from mailtui.control.source import attach

    relay = attach(place.socket) if not place.config else None
    if relay is not None:
        try:
            return relay.config()
        finally:
            relay.close()
    from mailtui.control.offline import load_settings
    from mailtui.control.views import config

    return config(load_settings(place.config, place.state))
