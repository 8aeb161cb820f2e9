"""`mailtui user`: the accounts of SMTP AUTH.

Promises: a password is asked for on the terminal, without an echo, or read from standard input; it is never an
argument, which others could see, and it leaves this process only as a verifier.
"""

import getpass
import sys
from typing import Any

import click

from mailtui.cli import output
from mailtui.cli.ask import source
from mailtui.cli.frame import Fail, LazyGroup, Place, command_options
from mailtui.control.errors import WRONG
from mailtui.control.reads import Document
from mailtui.control.source import attach
from mailtui.control.verbs import VERBS


@click.group(cls=LazyGroup)
def user() -> None:
    """Accounts for SMTP AUTH: who may log in and relay."""


def _password_option(function: Any) -> Any:
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")(
        function
    )


def _reason_option(function: Any) -> Any:
    return click.option("--reason", default="", metavar="TEXT", help="For the journal.")(function)


@user.command("add")
@click.argument("name", metavar="NAME")
@_password_option
@command_options()
def add(place: Place, name: str, password_stdin: bool) -> int:
    """Add an account. Asks for its password.

    A name is a word such as ann or ann@example.com; capitals make no difference.

    \b
    Examples:
      mailtui user add ann
      mailtui user add ann --password-stdin < password.txt
    """
    return _act(place, "user.add", {"name": name, "verifier": _verifier(password_stdin)})


@user.command("remove")
@click.argument("name", metavar="NAME")
@_reason_option
@command_options()
def remove(place: Place, name: str, reason: str) -> int:
    """Remove an account, and close its sessions.

    What it has queued is delivered all the same; user quarantine holds it.

    \b
    Example:
      mailtui user remove ann
    """
    return _act(place, "user.remove", {"name": name}, reason)


@user.command("list")
@command_options()
def list_(place: Place) -> None:
    """The accounts.

    \b
    Example:
      mailtui user list
    """
    with source(place) as relay:
        rows = relay.users()
    heads = [
        output.Column("USER", flex=True),
        output.Column("SINCE"),
        output.Column("QUEUED", right=True),
        output.Column("QUARANTINED"),
        output.Column("REASON", flex=True),
    ]

    def cells(row: Document) -> list[Any]:
        return [
            row["user"], output.local(row["since"]), row["queued"], output.local(row["quarantined"]) or "-",
            row["reason"],
        ]  # fmt: skip

    output.listing(rows, place.json, "There is no account; mailtui user add NAME makes one.", heads, cells)


@user.command("passwd")
@click.argument("name", metavar="NAME")
@_password_option
@command_options()
def passwd(place: Place, name: str, password_stdin: bool) -> int:
    """Change the password of an account. Asks for the new one.

    It holds from the next login on; sessions under way go on.

    \b
    Example:
      mailtui user passwd ann
    """
    return _act(place, "user.passwd", {"name": name, "verifier": _verifier(password_stdin)})


@user.command("quarantine")
@click.argument("name", metavar="NAME")
@_reason_option
@command_options()
def quarantine(place: Place, name: str, reason: str) -> int:
    """Hold all queued mail of an account, close its sessions, and refuse new ones.

    user release undoes it.

    \b
    Example:
      mailtui user quarantine ann --reason 'sends spam since noon'
    """
    return _act(place, "user.quarantine", {"name": name}, reason)


@user.command("release")
@click.argument("name", metavar="NAME")
@_reason_option
@command_options()
def release(place: Place, name: str, reason: str) -> int:
    """End a quarantine: the account may log in, and what the quarantine held is released.

    What an operator has held besides stays held.

    \b
    Example:
      mailtui user release ann
    """
    return _act(place, "user.release", {"name": name}, reason)


def _act(place: Place, verb: str, args: Document, reason: str = "") -> int:
    """Tell the running relay, or change what a stopped one will find."""
    relay = attach(place.socket)
    if relay is not None:
        try:
            answer = relay.verb(verb, args=args, reason=reason)
        finally:
            relay.close()
    else:
        from mailtui.clock import SystemClock
        from mailtui.control import offline_users
        from mailtui.control.orders import wanted

        want = wanted(VERBS[verb], getpass.getuser(), args=args, reason=reason)
        answer = offline_users.run(place.state, want, SystemClock(), place.config)
    if place.json:
        output.document(answer)
    else:
        output.say(str(answer["text"]))
    return 0


def _verifier(from_stdin: bool) -> str:
    """The verifier of a password: from standard input, or asked for twice."""
    from mailtui.intake.verifier import Verifier

    try:
        if from_stdin:
            # One line; the end of the line is no part of it, whatever made it.
            password = sys.stdin.readline().rstrip("\r\n")
        elif sys.stdin.isatty():
            password = click.prompt("Password", hide_input=True, confirmation_prompt="Again")
        else:
            raise Fail("there is no terminal to ask for the password on; give it with --password-stdin", WRONG)
        return Verifier.make(password).text
    except UnicodeError:
        raise Fail("the password cannot be used: it is not UTF-8", WRONG) from None
    except ValueError as error:
        raise Fail(f"the password cannot be used: {error}", WRONG) from None
