"""The queue pane's list is taken again: the relay freezes a set, and cursor and marks find their rows in it.

Promises: the table shows what it showed until all that comes in its place is at hand, but for the very first list; the
cursor stays on its row or goes to the nearest that stayed, marks stay on theirs, those too that are made or taken off
while the relay is asked; and what has left is said.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtui.console import words
from mailtui.console.panes.frozen import FrozenSet, glimpse, nearest, still_there, take
from mailtui.console.widgets.pages import Pages, Row

if TYPE_CHECKING:
    from mailtui.console.panes.queue import QueuePane
    from mailtui.console.widgets.queue_table import QueueTable

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
    range_from: int | None  # where an open range began
    said: str  # what has left; "" for nothing


async def taken(pane: "QueuePane", wanted: Wanted) -> Taken:
    """Take the list that is wanted. The link's errors pass through.

    What it says of cursor and marks holds until the next await: keys are heard while the relay is asked.
    """
    table, query = pane.table, wanted.query
    new = await _set(pane, wanted)
    # Keys that are pressed while the relay is asked move the cursor on from where it was found.
    before = table.cursor
    head = wanted.top or (pane.following == "auto" and before == 0)
    cursor, moved = (0, "") if head else await nearest(new, table.at, before)
    by = cursor - before
    pages = Pages(new)
    await pages.ready(by + table.top, table.size.height)
    found, places = await _survivors(table, new, query)
    range_from = _range(table, pages, by)
    return Taken(
        new,
        pages,
        table.cursor + by,
        {rid: found[rid] for rid in table.marks if rid in found},
        places,
        range_from,
        "; ".join(part for part in (*_dropped(table, found, range_from), moved) if part),
    )


async def _set(pane: "QueuePane", wanted: Wanted) -> FrozenSet:
    """Freeze the list. While nothing at all is shown, the first rows of the queue are, until it is there."""
    making = take(pane.console.link, wanted.query, wanted.sort, wanted.reverse)
    if pane.table.count or wanted.query or wanted.sort != "arrived" or wanted.reverse:
        return await making
    first = asyncio.create_task(_glimpse(pane))
    try:
        return await making
    finally:
        first.cancel()  # it must not come on top of a list, this one or that of the next try


async def _glimpse(pane: "QueuePane") -> None:
    """Show the first rows while the first set is made: with a million it takes a second."""
    try:
        pages = Pages(await glimpse(pane.console.link))
        await pages.ready(0, pane.table.size.height)
    except Exception:
        return  # it is only there to pass the time; the set will say what is wrong
    pane.table.show(pages, whole=False)


async def _survivors(table: "QueueTable", new: FrozenSet, query: str) -> tuple[dict[str, Row], dict[str, int]]:
    """Of all that was marked meanwhile what is still there, and where: on return every mark has been asked for."""
    asked: set[str] = set()
    found: dict[str, Row] = {}
    places: dict[str, int] = {}
    while fresh := [rid for rid in table.marks if rid not in asked]:
        asked.update(fresh)
        there = await still_there(new.link, query, fresh)
        found |= there
        for rid in there if len(found) <= PLACED else ():
            if (place := await new.index(rid)) is not None:
                places[rid] = place
    return found, places


def _range(table: "QueueTable", pages: Pages, by: int) -> int | None:
    """Where an open range begins in the new list: its row has to have moved as the cursor's did."""
    if table.range_from is None:
        return None
    old, new = table.at(table.range_from), pages.get(table.range_from + by)
    return table.range_from + by if old is not None and new is not None and old["rid"] == new["rid"] else None


def _dropped(table: "QueueTable", found: dict[str, Row], range_from: int | None) -> Iterator[str]:
    """What to say of the marks that do not come along."""
    if table.all_marked:  # of another list it would mark what nobody has seen
        yield f"{words.amount(table.count, 'mark')} dropped: they named the list that was before"
    if lost := sum(rid not in found for rid in table.marks):
        yield f"{words.amount(lost, 'marked recipient')} left the list; no longer marked"
    if table.range_from is not None and range_from is None:
        yield "the open range dropped: the list has changed in it"
