"""`mailtui config`: is it valid, what is in force, and where does each value come from."""

import json

import click

from mailtui import paths
from mailtui.cli import output
from mailtui.cli.frame import LazyGroup, Place, command_options
from mailtui.control.clean import clean
from mailtui.control.reads import Document


@click.group(cls=LazyGroup)
def config() -> None:
    """The configuration: check it, show it."""


@config.command("check")
@command_options()
def check(place: Place) -> int:
    """Is the configuration valid? Every error at once, with file, line and key.

    Exit status 0 if it is, else 2.

    \b
    Example:
      mailtui config check --config /etc/mailtui/mailtui.toml
    """
    from mailtui.config import ConfigError, check_files, load

    file = paths.config_file(place.state, place.config)
    source, errors = (str(file) if file else None), []
    try:
        errors = check_files(load(place.config, state=place.state))
    except ConfigError as error:
        errors = error.errors
    if place.json:
        output.document({"source": source, "valid": not errors, "errors": errors})
    elif not errors:
        output.say(f"{source}: valid" if source else "There is no configuration file; the defaults are valid.")
    if not place.json:
        for line in errors:
            click.echo(clean(line), err=True)
    return 2 if errors else 0


@config.command("show")
@command_options()
def show(place: Place) -> None:
    """The effective configuration, and where each value comes from: the file and line, the command line, or default.

    \b
    Example:
      mailtui config show --json
    """
    found = _in_force(place)
    if place.json:
        output.document(found)
        return
    output.say(f"# {found['source'] or 'no configuration file'}")
    for entry in found["values"]:
        output.say(f"{entry['key']} = {json.dumps(entry['value'], ensure_ascii=False)}  # {entry['origin']}")


def _in_force(place: Place) -> Document:
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
