"""Carrying out a `:` line: a verb is run, what only shows something opens its place."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mailtui.console import commands
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console


def run_line(console: "Console", text: str) -> None:
    """Do what the line says, or tell what is wrong with it."""
    try:
        found = commands.parse(text)
    except commands.CommandError as error:
        console.flash(str(error), error=True)
        return
    if isinstance(found, commands.Act):
        _act(console, found)
    elif found is not None:
        _show(console, found)


def _act(console: "Console", found: commands.Act) -> None:
    selection: dict[str, Any] = {}
    if found.query is not None:
        selection = {"query": found.query}
    elif found.verb in commands.CHOOSING:
        selection = dict(console.place.selection())
        if not selection:
            verb = found.verb.removeprefix("queue.")
            console.flash(f"{verb}: say which, with a QUERY, or put the cursor on it", error=True)
            return
    console.run_verb(found.verb, args=found.args, reason=found.reason, **selection)


def _show(console: "Console", found: commands.Show) -> None:
    match found.what:
        case "why" | "show" | "trace":
            work = _open(console, found.target.partition(".")[0], found.what)
            console.run_worker(work, group="open", exclusive=True, exit_on_error=False)
        case "list":
            console.show_queue(found.target)
        case "overview":
            console.show_pane("overview")
        case "help":
            console.action_help()
        case "operations":
            console.action_operations()
        case "undo":
            console.action_undo()
        case "start":
            started = console.supervisor is not None and console.supervisor.start_again()
            text = "starting the relay" if started else "no relay that was started here has been stopped"
            console.flash(text, error=not started)
        case "quit":
            console.leave()


async def _open(console: "Console", id: str, view: str) -> None:
    try:
        await console.link.call("GET", f"/v1/queue/messages/{quote(id, '')}")
    except VerbError as error:
        console.flash(error.text, error=True)
        return
    console.push_message(id, view="" if view == "show" else view)
