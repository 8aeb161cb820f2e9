"""What every command shares: lazy loading, the common options, and errors in one line with the contract's status."""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mailtui import paths
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError


class Fail(Exception):
    """A command that ends with one line on standard error and this exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Unread(Exception):
    """`mailtui queue list | head`: whoever read has what it wanted. Click would make it a failure."""


@dataclass(frozen=True, slots=True)
class Place:
    """The common options of a command: which relay is meant, and how to print."""

    state: Path
    socket: Path
    config: str | None  # as named by --config; None: the search order
    json: bool
    state_named: bool  # by flag or environment


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when they are called (or listed by --help)."""

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}  # name -> "module:attribute"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *self.commands]  # in the order of the contract

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but an error is one line, and the exit status is the contract's."""
        status = self._run(list(sys.argv[1:] if args is None else args), prog_name or "mailtui", extra)
        if standalone_mode:
            sys.exit(status)
        return status

    def _run(self, args: list[str], prog_name: str, extra: dict[str, Any]) -> int:
        try:
            result = super().main(args, prog_name=prog_name, standalone_mode=False, **extra)
            return result if isinstance(result, int) else 0
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else prog_name
            return _complain(f"{path}: {_usage(error)}; see {path} --help", 2)
        except click.ClickException as error:
            return _complain(f"{prog_name}: {error.format_message()}", 2)
        except Fail as error:
            for line in str(error).split("\n"):
                _complain(f"{prog_name}: {line}", error.status)
            return error.status
        except VerbError as error:
            return _complain(f"{prog_name}: {error.text}", error.exit)
        except (click.Abort, KeyboardInterrupt):
            return 130  # 128 + SIGINT, as shells have it
        except Unread:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush finds a place
            return 0


def _usage(error: click.UsageError) -> str:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        command = error.ctx.command if error.ctx is not None else None
        names = ", ".join(command.list_commands(error.ctx)) if isinstance(command, click.Group) and error.ctx else ""
        return f"a command is missing, one of: {names}"
    return error.format_message().rstrip(".")


def _complain(text: str, status: int) -> int:
    # One line, whatever stood in an argument or came from a file.
    click.echo(clean(" ".join(text.split("\n"))), err=True)
    return status


def command_options(*, json: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that every command takes. The command gets a `Place` as its first argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(**kwargs: Any) -> Any:
            root = click.get_current_context().find_root().params
            flags = {name: kwargs.pop(name, None) or root.get(name) for name in ("state", "config", "socket")}
            as_json = bool(kwargs.pop("json", False) or root.get("json"))
            state = paths.state_dir(flags["state"])
            named = bool(flags["state"] or os.environ.get("MAILTUI_STATE"))
            place = Place(state, paths.socket_path(state, flags["socket"]), flags["config"], as_json, named)
            try:
                result = function(place, **kwargs)
                sys.stdout.flush()
            except BrokenPipeError:
                raise Unread from None
            return result

        options = [
            click.option("--state", metavar="DIR", help="State directory of the relay [env: MAILTUI_STATE]."),
            click.option("--config", metavar="FILE", help="Configuration file [env: MAILTUI_CONFIG]."),
            click.option("--socket", metavar="PATH", help="Control socket of the relay [env: MAILTUI_SOCKET]."),
        ]
        if json:
            options.append(click.option("--json", is_flag=True, help="Print JSON, for scripts."))
        result: Callable[..., Any] = wrapper
        for option in reversed(options):
            result = option(result)
        return result

    return decorate


class QueryCommand(click.Command):
    """A command with QUERY arguments: `-to:x` is a term, not a bundle of options; `--nonsense` is still an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for word in ctx.params.get("query", ()):
            if word.startswith("--"):
                raise click.NoSuchOption(word.split("=")[0], ctx=ctx)
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mailtui.queue.terms import TERMS

        super().format_epilog(ctx, formatter)
        with formatter.section("QUERY"):
            formatter.write_text(
                "All terms must hold; -term negates; a comma lists alternatives; no QUERY is everything."
            )
            formatter.write_text("Terms: " + ", ".join(term.example for _, term in sorted(TERMS.items())))


def query_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """QUERY: words joined by blanks (contract.md "QUERY")."""
    return click.argument("query", nargs=-1, metavar="[QUERY]...")(function)
