"""The queue pane's list is taken again: the relay freezes a set, and cursor and marks find their rows in it.

Promises: the table shows what it showed until all that comes in its place is at hand, but for the very first list; the
cursor stays on its row or goes to the nearest that stayed, marks stay on theirs, and what has left is said.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtui.console import words
from mailtui.console.panes.frozen import FrozenSet, glimpse, nearest, still_there, take
from mailtui.console.widgets.pages import Pages, Row
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.panes.queue import QueuePane

# Marks whose places in a new set are asked for one by one; those of more are learnt when they are seen.
PLACED = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The list that is to be taken."""

    query: str
    sort: str
    reverse: bool
    top: bool  # the cursor goes to the first row


@dataclass(frozen=True, slots=True)
class Taken:
    """A list that can be shown at once."""

    set: FrozenSet
    pages: Pages
    cursor: int
    marks: dict[str, Row]  # the marked rows that are still there
    places: dict[str, int]  # where those are in the set, as far as known
    said: str  # what has left; "" for nothing


async def taken(pane: "QueuePane", wanted: Wanted) -> Taken:
    """Take the list that is wanted. The link's errors pass through."""
    table, link = pane.table, pane.console.link
    query, sort, reverse = wanted.query, wanted.sort, wanted.reverse
    if pane.set is None and not query and sort == "arrived" and not reverse:
        new, _ = await asyncio.gather(take(link, query, sort, reverse), _glimpse(pane))
    else:
        new = await take(link, query, sort, reverse)
    marks, left = await _survivors(pane, query)
    places = {rid: await new.index(rid) for rid in marks} if len(marks) <= PLACED else {}
    # Keys that are pressed while the relay is asked move the cursor on from where it was found.
    before = table.cursor
    head = wanted.top or (pane.following == "auto" and before == 0)
    cursor, moved = (0, "") if head else await nearest(new, table.at, before)
    pages = Pages(new)
    await pages.ready(cursor - before + table.top, table.size.height)
    return Taken(
        new,
        pages,
        cursor + table.cursor - before,
        marks,
        {rid: place for rid, place in places.items() if place is not None},
        "; ".join(part for part in (left, moved) if part),
    )


async def _glimpse(pane: "QueuePane") -> None:
    """Show the first rows while the first set is made: with a million it takes a second."""
    try:
        pages = Pages(await glimpse(pane.console.link))
        await pages.ready(0, pane.table.size.height)
    except VerbError:
        return  # the set will say what is wrong
    pane.table.show(pages, whole=False)


async def _survivors(pane: "QueuePane", query: str) -> tuple[dict[str, Row], str]:
    """The marked rows that are still there, and what to say of the others."""
    table = pane.table
    if table.all_marked:
        return {}, f"{words.amount(table.count, 'mark')} dropped: they named the list that was before"
    if not table.marks:
        return {}, ""
    found = await still_there(pane.console.link, query, table.marks)
    lost = len(table.marks) - len(found)
    return found, f"{words.amount(lost, 'marked recipient')} left the list; no longer marked" if lost else ""
