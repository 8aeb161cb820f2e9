"""`mailtui serve`: the relay alone, in the foreground."""

from collections.abc import Callable
from typing import Any

import click

from mailtui import paths
from mailtui.cli.frame import Fail, Place, command_options


def quick_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The quick options: a relay without a configuration file."""
    for option in (
        click.option("--hostname", metavar="NAME", help="The relay's name in EHLO and Received lines."),
        click.option("--smarthost", metavar="HOST:PORT", help="Send everything that no route matches there."),
        click.option("--listen", metavar="HOST:PORT", multiple=True, help="Listen here (repeatable; replaces all)."),
    ):
        function = option(function)
    return function


@click.command("serve")
@quick_options
@click.option("--paused", is_flag=True, help="Start with delivery paused.")
@command_options(json=False)
def serve(place: Place, listen: tuple[str, ...], smarthost: str | None, hostname: str | None, paused: bool) -> int:
    """Run the relay in the foreground.

    Without options and without a configuration file it listens on 127.0.0.1:2525, relays for this machine only and
    delivers by MX. SIGTERM drains and ends it.

    \b
    Examples:
      mailtui serve
      mailtui serve --listen 127.0.0.1:2525 --smarthost smtp.example.net:25
    """
    from mailtui.config import ConfigError, QuickOptions, Settings, check_files, load

    quick = QuickOptions(tuple(listen), smarthost or "", hostname or "")

    def read() -> Settings:
        """The configuration as it is now, for the start and for a reload."""
        found = load(place.config, quick, place.state)
        if problems := check_files(found):
            raise ConfigError(problems)
        return found

    try:
        settings = read()
    except ConfigError as error:
        # A person who starts a relay wants all of it; each error is a line of its own, as in config check.
        raise Fail("\n".join(error.errors), 2) from None
    from mailtui.relay import StartError, run

    try:
        file = paths.config_file(place.state, place.config)
        return run(settings, place.state, place.socket, paused=paused, load=read, configuration=file)
    except StartError as error:
        raise Fail(str(error), 2) from None
