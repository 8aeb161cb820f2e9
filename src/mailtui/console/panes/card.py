"""The card beside the queue's table on a wide screen: what binds the row under the cursor, and its attempts.

Promises: a cursor that moves asks for nothing; what is shown is of the row that the cursor rests on.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.timer import Timer

from mailtui.console.message.facts import Facts
from mailtui.console.present.why import card
from mailtui.console.widgets.lines import Lines
from mailtui.console.widgets.pages import Row
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console

# The card waits until the cursor rests, in seconds: a key held down asks for nothing.
REST = 0.12

# The card of a row that is looked at is read again this often, in seconds.
CARD = 5.0


class Card(Vertical):
    """`look` tells it which row is under the cursor."""

    BLANK = True  # its lines are all that it shows
    DEFAULT_CSS = """
    Card { width: 55; display: none; padding: 0 0 0 1; }
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="queue-card-box")
        self.now = now
        self._row: Row | None = None
        self._asked = ("", 0.0)  # the row that was last asked for, and when, monotonic
        self._rest: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="queue-card")

    def again(self) -> None:
        """The next look asks, whatever is known."""
        self._asked = ("", 0.0)

    def look(self, row: Row | None) -> None:
        """This row is under the cursor."""
        self._row = row
        name = _name(row)
        if name != self._asked[0] or time.monotonic() - self._asked[1] >= CARD:
            self._asked = (name, time.monotonic())
            if self._rest is not None:
                self._rest.stop()
            self._rest = self.set_timer(REST, self._read)

    def _read(self) -> None:
        self.run_worker(self._show, group="card", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    async def _show(self) -> None:
        row, paper = self._row, self.query_one(Lines)
        if row is None or row.get("gone"):
            paper.set_lines([])
            return
        console = cast("Console", self.app)
        facts = Facts(console.link, _name(row))
        try:
            await facts.read("why", "message")
        except VerbError as error:
            paper.set_lines([[(error.text, "dim")]])
            return
        if _name(self._row) == _name(row):
            paper.set_lines(card(row, facts.why, facts.message, self.content_size.width, self.now(), console.glyphs))


def _name(row: Row | None) -> str:
    return str(row["rid"]) if row is not None else ""
