"""What can be taken away from the queue pane: texts for `y`, sets of rows for `e`.

Promises: marks come before the row under the cursor, as for every verb; a list that is marked whole is exported as the
set that was marked, without what came after it.
"""

from typing import TYPE_CHECKING

from mailtui.console import copying, words
from mailtui.console.copying import Copy
from mailtui.console.export import Scope
from mailtui.control.clean import clean

if TYPE_CHECKING:
    from mailtui.console.panes.queue import QueuePane


def copies(pane: "QueuePane") -> list[Copy]:
    """What the row under the cursor has, or the marked ones; of a list that is marked whole, what it is."""
    table = pane.table
    if table.all_marked:
        return copying.of_query(pane.query_text)
    if table.marks:
        return copying.of_rows(list(table.marks.values()))
    return copying.of_row(table.row) if table.row is not None else []


def scopes(pane: "QueuePane") -> list[Scope]:
    """The rows on the screen, those marked, all that match."""
    table = pane.table
    found = []

    def named(key: str, label: str, rids: list[str]) -> None:
        if rids:
            text = f"{words.amount(len(rids), 'row')} {label}"
            found.append(Scope(key, text, f"id:{','.join(rids)}", len(rids), pane.sort, pane.reverse))

    named("v", "on the screen", [str(row["rid"]) for row in table.rows_shown() if not row.get("gone")])
    named("m", "marked", list(table.marks))
    if pane.set is not None and pane.set.count:
        whole = table.all_marked
        label = (
            f"all {words.count(table.count)} {'marked' if whole else 'that match'} {clean(pane.query_text)}".rstrip()
        )
        frozen = pane.set if whole else None
        key = "m" if whole else "a"
        found.append(Scope(key, label.rstrip(), pane.query_text, table.count, pane.sort, pane.reverse, frozen))
    return found
