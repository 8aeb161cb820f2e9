"""The command `mailtui`: its groups and commands, and what it does without one."""

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from mailtui import __version__
from mailtui.cli.frame import LazyGroup, Place, command_options

_EPILOG = """\b
Examples:
  mailtui                    watch the relay; start one for you if none runs
  mailtui serve --listen 127.0.0.1:2525 --smarthost smtp.example.net:25
  mailtui queue list dest:example.com state:deferred
  mailtui queue why 01HZX3V7N8QRS
  mailtui mx example.com

Exit status: 0 done; 1 not so (an unknown id, a refusal); 2 the call or the configuration is wrong, or the relay cannot
start; 3 the command needs a running relay and none runs; 4 previewed, nothing done."""


@click.group(
    name="mailtui",
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=_EPILOG,
    lazy={
        "serve": "mailtui.cli.serve:serve",
        "status": "mailtui.cli.status:status",
        "reload": "mailtui.cli.world:reload",
        "stop": "mailtui.cli.world:stop",
        "pause": "mailtui.cli.world:pause",
        "resume": "mailtui.cli.world:resume",
        "queue": "mailtui.cli.queue:queue",
        "flush": "mailtui.cli.world:flush",
        "dest": "mailtui.cli.dest:dest",
        "route": "mailtui.cli.route:route",
        "mx": "mailtui.cli.routing:mx",
        "trace": "mailtui.cli.trace:trace",
        "history": "mailtui.cli.history:history",
        "access": "mailtui.cli.access:access",
        "user": "mailtui.cli.user:user",
        "log": "mailtui.cli.log:log",
        "config": "mailtui.cli.config:config",
        "backup": "mailtui.cli.backup:backup",
        "restore-backup": "mailtui.cli.backup:restore_backup",
    },
)
@click.option("--listen", metavar="HOST:PORT", multiple=True, help="Listen here (repeatable; replaces all listeners).")
@click.option("--smarthost", metavar="HOST:PORT", help="Send everything that no route matches there.")
@click.option("--hostname", metavar="NAME", help="The relay's name in EHLO and Received lines.")
@click.option("--read-only", is_flag=True, help="Only watch: never start a relay, never act.")
@click.option(
    "--on-quit",
    type=click.Choice(["stop", "leave", "ask"]),
    default="ask",
    show_default=True,
    help="What becomes of a relay that this command started.",
)
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII only.")
@click.version_option(__version__, message="mailtui %(version)s")
@command_options()
def mailtui(place: Place, **options: Any) -> int | None:
    """An SMTP relay you can see.

    Without a command: attach to the running relay, or start one for you, and show it live.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        from mailtui.cli.watch import watch

        return watch(place, **options)
    for name in ("listen", "smarthost", "hostname", "read_only", "on_quit", "ascii_only"):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "--ascii" if name == "ascii_only" else "--" + name.replace("_", "-")
            raise click.UsageError(f"{flag} stands before the command {ctx.invoked_subcommand}, where it means nothing")
    return None


def run(args: Sequence[str]) -> int:
    """Run one command line; the exit status."""
    status = mailtui.main(list(args), prog_name="mailtui", standalone_mode=False)
    return status if isinstance(status, int) else 0
