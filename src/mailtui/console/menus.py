"""The questions between a key and a verb: which of two, for how long, which operation, what becomes of the relay.

Each runs in a worker: it shows a dialog, waits, and starts the verb that was chosen.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mailtui.console import actions
from mailtui.console import export as exporting
from mailtui.console.dialogs.export import ExportDialog
from mailtui.console.dialogs.menu import Ask, Entry, Menu
from mailtui.console.dialogs.operations import OperationsDialog, UndoDialog, undoable

if TYPE_CHECKING:
    from mailtui.console.asking import Asking

Selection = Mapping[str, Any]

# Fields that a listing can be sorted by (contract.md), each with its key in the menu.
SORTS = {"arrived": "a", "next_attempt": "n", "destination": "d", "size": "s", "attempts": "t"}


async def dispose(console: "Asking", selection: Selection) -> None:
    """`x`: bounce or delete."""
    entries = [
        Entry("b", "bounce: give up and tell the sender", "queue.bounce"),
        Entry("d", "delete: give up silently", "queue.delete"),
    ]
    note = "Either asks first, and can be undone until the grace ends. Esc goes back."
    verb = await console.ask(Menu("Dispose", entries, note=note))
    if verb:
        console.run_verb(verb, **selection)


async def defer(console: "Asking", selection: Selection) -> None:
    """`i`: try in ..."""
    told = await console.ask(Ask("Try in", "After how long? 30m, 2h, 1d", "1h", duration_problem))
    if told:
        console.run_verb("queue.defer", args={"for": told}, **selection)


async def hold_or_release(console: "Asking", states: Collection[str], selection: Selection) -> None:
    """`o`: by the state of what is chosen; a mixed set asks."""
    found = set(states)
    verb = "queue.release" if found == {"held"} else "queue.hold" if found and "held" not in found else None
    if verb is None:
        entries = [
            Entry("h", "hold those that are not held", "queue.hold"),
            Entry("r", "release those that are held", "queue.release"),
        ]
        note = "Some of them may be held, some not."
        verb = await console.ask(Menu("Hold or release", entries, note=note))
    if verb:
        console.run_verb(verb, **selection)


async def suspend(console: "Asking", name: str, suspended: bool) -> None:
    """`o` on a destination or next hop."""
    if suspended:
        console.run_verb("dest.resume", args={"name": name})
        return
    told = await console.ask(Ask("Suspend", f"{name}: for how long? 30m, 2h, 1d", "1h", duration_problem))
    if told:
        console.run_verb("dest.suspend", args={"name": name, "for": told})


async def sort(console: "Asking", current: str, reverse: bool, chosen: Callable[[str, bool], None]) -> None:
    """`s`: the field that is chosen already turns the order round."""
    sign = console.glyphs.up if reverse else console.glyphs.down
    entries = []
    for name, key in SORTS.items():
        now = name == current
        label = name.replace("_", " ") + (f" {sign}" if now else "")
        entries.append(Entry(key, label, (name, not reverse if now else False)))
    entries.append(Entry("r", "reverse", (current, not reverse)))
    at = list(SORTS).index(current) if current in SORTS else 0
    found = await console.ask(Menu("Sort by", entries, chosen=at))
    if found:
        chosen(*found)


async def export(console: "Asking", scopes: Sequence[exporting.Scope]) -> None:
    """`e`: rows or messages into files. What is chosen to begin with: of one message itself, the message."""
    if not scopes:
        console.flash("there is nothing to export here")
        return
    format = "eml" if len(scopes) == 1 else "jsonl"
    said = await console.ask(ExportDialog(scopes, partial(exporting.run, console.link), console.glyphs, format=format))
    if said:
        console.flash(said)


async def undo_last(console: "Asking") -> None:
    """`z`: the own last operation that can be undone."""
    await console.read_operations()
    now = time.time()
    operation = next((one for one in console.operations if console.is_mine(one) and undoable(one, now)), None)
    if operation is None:
        console.flash("nothing of yours can be undone now; , lists the operations of everybody")
    elif await console.ask(UndoDialog(operation, now)):
        await actions.undo(console, operation)


async def operations(console: "Asking") -> None:
    """`,`: those of everybody; one can be chosen to be undone."""
    await console.read_operations()
    now = time.time()
    operation = await console.ask(OperationsDialog(console.operations, now))
    if operation is None:
        return
    if problem := console.refusal():
        console.flash(problem, error=True)
    elif await console.ask(UndoDialog(operation, now)):
        await actions.undo(console, operation)


async def leave(console: "Asking") -> None:
    """What becomes of the relay that was started here."""
    entries = [
        Entry("l", "leave it running; mailtui shows it again", "leave"),
        Entry("s", "stop it: drain, then end", "stop"),
    ]
    told = await console.ask(Menu("The relay that was started here", entries))
    if told:
        console.exit(told)


def duration_problem(text: str) -> str:
    """What is wrong with a length of time; "" if nothing."""
    good = text[:-1].replace(".", "", 1).isdigit() and text[-1:].lower() in ("s", "m", "h", "d", "w")
    return "" if good else "a number and s, m, h, d or w; for example 30m, 2h, 1d"
