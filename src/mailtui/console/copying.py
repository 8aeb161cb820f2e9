"""`y`: what can be taken away from a place, and the way of it to the clipboard.

Each place says what it has as a list of `Copy`; the functions here make that list from the relay's JSON. Promises: all
of it is text that was cleaned; it is told how it was copied; what cannot be copied stands on a sheet from which the
terminal selects, and in a file.
"""

import asyncio
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailtui.console import clipboard, words
from mailtui.console.dialogs.menu import Entry, Menu
from mailtui.console.dialogs.sheet import Sheet

if TYPE_CHECKING:
    from mailtui.console.asking import Asking

Document = Mapping[str, Any]

# What a set's listing adds to the fields of `queue list`, and the cursor, which is for going on in a listing.
NOT_FIELDS = ("index", "gone", "cursor")

_SHEET = "sheet"

# Cells of a label in the menu, and of the text that is told again when it is copied.
_LABEL, _TOLD = 16, 40


@dataclass(frozen=True, slots=True)
class Copy:
    """A text to take away; `key` chooses it in the menu."""

    key: str
    label: str
    text: str


def of_row(row: Document) -> list[Copy]:
    """What a recipient of the queue has."""
    found = [
        Copy("i", "id", str(row.get("id", ""))),
        Copy("d", "rid", str(row.get("rid", ""))),
        Copy("a", "recipient", str(row.get("recipient", ""))),
        Copy("l", "last reply", reply_of(row)),
        Copy("f", "fields, as JSON", as_json(row)),
        Copy("c", "command line", shlex.join(["mailtui", "queue", "show", str(row.get("id", ""))])),
    ]
    return [copy for copy in found if copy.text]


def of_rows(rows: Sequence[Document]) -> list[Copy]:
    """What recipients that are marked have, a line each."""
    ids = dict.fromkeys(str(row.get("id", "")) for row in rows)
    rids = ",".join(str(row.get("rid", "")) for row in rows)
    return [
        Copy("i", f"{len(ids):,} ids", "\n".join(ids)),
        Copy("d", f"{len(rows):,} rids", "\n".join(str(row.get("rid", "")) for row in rows)),
        Copy("a", "recipients", "\n".join(str(row.get("recipient", "")) for row in rows)),
        Copy("l", "last replies", "\n".join(reply_of(row) or "-" for row in rows)),
        Copy("f", "fields, as JSON", "\n".join(as_json(row) for row in rows)),
        Copy("c", "command line", shlex.join(["mailtui", "queue", "list", f"id:{rids}", "--limit", "0"])),
    ]


def of_query(query: str) -> list[Copy]:
    """What a list that is marked whole has: its rows are for `e`."""
    command = shlex.join(["mailtui", "queue", "list", *([query] if query else []), "--limit", "0"])
    return [Copy("t", "query", query or "to:*"), Copy("c", "command line", command)]


def of_destination(row: Document) -> list[Copy]:
    """What a destination or next hop has."""
    name = str(row.get("destination") or row.get("next_hop") or "")
    term = f"dest:{name}" if row.get("destination") else f"hop:{name}"
    found = [
        Copy("i", "name", name),
        Copy("l", "last reply", str(row.get("last_reply") or "")),
        Copy("t", "query", term),
        Copy("f", "fields, as JSON", as_json(row)),
        Copy("c", "command line", shlex.join(["mailtui", "dest", "show", name])),
    ]
    return [copy for copy in found if copy.text]


def reply_of(row: Document) -> str:
    """Code, enhanced code and text of the last reply; "" if there was none."""
    return " ".join(str(row[name]) for name in ("last_code", "last_enhanced", "last_reply") if row.get(name))


def as_json(row: Document) -> str:
    """A row as `--json` prints it, without the cursor: one line of ASCII."""
    return json.dumps({name: value for name, value in row.items() if name not in NOT_FIELDS})


async def choose(console: "Asking", copies: Sequence[Copy]) -> None:
    """The menu, and what was chosen in it."""
    if not copies:
        console.flash("there is nothing to copy here")
        return
    entries = [Entry(copy.key, f"{words.fit(copy.label, _LABEL)}{_first(copy.text)}", copy) for copy in copies]
    entries.append(Entry("s", "all of it on a sheet to select from, and in a file", _SHEET))
    chosen = await console.ask(Menu("Copy", entries))
    if isinstance(chosen, Copy):
        await take(console, chosen)
    elif chosen == _SHEET:
        await show(console, "\n\n".join(f"{copy.label}:\n{copy.text}" for copy in copies), "")


async def take(console: "Asking", copy: Copy) -> None:
    """To the clipboard, else onto a sheet."""
    loop = asyncio.get_running_loop()

    def write(sequence: str) -> None:
        loop.call_soon_threadsafe(console.write_terminal, sequence)

    try:
        done = await asyncio.to_thread(clipboard.copy, copy.text, os.environ, write)
    except clipboard.CopyError as error:
        await show(console, copy.text, str(error))
        return
    doubt = "" if done.sure else "; if your terminal refuses: y s"
    lines = copy.text.count("\n") + 1
    told = f"{lines:,} lines" if lines > 1 else words.cut(copy.text, _TOLD)
    console.flash(f"copied {words.cut(copy.label, _LABEL)} by {done.how}{doubt}: {told}")


async def show(console: "Asking", text: str, why: str) -> None:
    """A sheet of nothing but the text, with the mouse left to the terminal, and a file that has it whole."""
    try:
        where = f"also in {await asyncio.to_thread(clipboard.keep, text, os.environ)}"
    except OSError as error:
        where = f"no file of it could be written: {error.strerror}"
    console.set_mouse(False)
    try:
        await console.ask(Sheet(text, f"{why}; {where}" if why else where))
    finally:
        console.set_mouse(console.mouse_taken)


def _first(text: str) -> str:
    """The first line, and how many there are more."""
    first, _, rest = text.partition("\n")
    return f"{first}  (+{rest.count(chr(10)) + 1} lines)" if rest else first
