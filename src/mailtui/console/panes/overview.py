"""The overview: how much flows, what needs the operator, where the mail waits, what happened last.

`present.overview` draws it; the pane keeps the cursor and the course of the rates, and asks for destinations.
"""

import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widget import Widget

from mailtui.console import copying, words
from mailtui.console.present.overview import (
    FLOWS,
    WIDE,
    Row,
    destination_rows,
    event_lines,
    flow_lines,
    name_of,
    needs,
    waiting,
)
from mailtui.console.widgets.lines import Lines, Spans
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console

# A step of the sparklines, in seconds, and how many are kept: an hour, in 720 small tuples.
STEP, STEPS = 5.0, 720

# How often the list of destinations is asked for, in seconds, and how long it may be.
DESTINATIONS_EVERY, DESTINATIONS = 5.0, 50

# How often the events are drawn: they fly by anyway, and each line costs its cells.
EVENTS_EVERY = 1.0


class Flow:
    """The rates of the last hour."""

    def __init__(self) -> None:
        self.steps: deque[tuple[int, ...]] = deque(maxlen=STEPS)
        self._last = float("-inf")

    def add(self, rates: Mapping[str, Any], now: float) -> None:
        """Keep the rates if a step has passed. `now`: monotonic seconds."""
        if now - self._last >= STEP:
            self._last = now
            self.steps.append(tuple(int(rates.get(name) or 0) for _, name, _ in FLOWS))


class Board(Lines, can_focus=True):
    """What needs you, and the destinations, with a cursor that stays on its row."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("down,j", "move(1)", "Down"),
        ("up,k", "move(-1)", "Up"),
        ("pagedown,ctrl+d", "move(10)", "Page down"),
        ("pageup,ctrl+u", "move(-10)", "Page up"),
        ("home,g", "move(-10000)", "First"),
        ("end,G", "move(10000)", "Last"),
    ]

    def __init__(self) -> None:
        super().__init__(id="board")
        self.rows: list[Row] = []
        self._at: tuple[bool, str] | None = None

    def get_content_height(self, container: Any, viewport: Any, width: int) -> int:
        return max(1, int(container.height))

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        choice = [row for row in self.rows if row.target]
        return next((row for row in choice if row.name == self._at), choice[0] if choice else None)

    def write(self, rows: Sequence[Row]) -> None:
        """Show these; the cursor stays on the row with the same target."""
        self.rows = list(rows)
        self._draw()

    def _draw(self) -> None:
        chosen = self.row
        height = max(1, self.size.height)
        top = 0
        if chosen is not None and (at := self.rows.index(chosen)) >= height:
            top = at - height + 1
        shown = self.rows[top : top + height]
        lines = [self._with_cursor(row) if row is chosen else row.spans for row in shown]
        self.set_lines([*lines, *[[] for _ in range(height - len(lines))]])

    def _with_cursor(self, row: Row) -> Spans:
        text = "".join(piece for piece, _ in row.spans)
        return [(words.fit(text, self.size.width), "cursor" if self.has_focus else "strong")]

    def on_focus(self) -> None:
        self._draw()

    def on_blur(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_click(self, event: events.Click) -> None:
        if 0 <= event.y < len(self.rows) and self.rows[event.y].target:
            self._at = self.rows[event.y].name
            self._draw()

    def first(self) -> None:
        """The cursor on what needs you."""
        self._at = next((row.name for row in self.rows if row.target), None)
        self._draw()

    def action_move(self, step: int) -> None:
        choice = [row.name for row in self.rows if row.target]
        chosen = self.row
        if chosen is not None:
            index = choice.index(chosen.name) + step
            self._at = choice[max(0, min(len(choice) - 1, index))]
            self._draw()


class OverviewPane(Widget, can_focus=False):
    """Pane 1."""

    SCOPE = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter", "open", "Open"),
        ("r", "try_now", "Try now"),
        ("o", "suspend", "Suspend"),
        ("y", "copy", "Copy"),
    ]

    def __init__(self) -> None:
        super().__init__(id="overview")
        self.flow = Flow()
        self.top = Lines([[], []], id="flow")
        self.board = Board()
        self.events = Lines([[(" RECENT", "title")]], id="events")
        self.destinations: list[dict[str, Any]] = []
        self._asked = float("-inf")
        self._drawn = float("-inf")

    @property
    def console(self) -> "Console":
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield self.top
        with Vertical(id="columns"):
            yield self.board
            yield self.events

    def on_resize(self) -> None:
        self._drawn = float("-inf")
        self.call_after_refresh(self.tick)

    def tick(self) -> None:
        """Draw what has changed; ask for destinations now and then."""
        console = self.console
        if not self.display or console.paused_screen or not self.is_attached:
            return
        now, status, width = time.time(), console.status, self.size.width
        if not width:
            return
        self.top.set_lines(flow_lines(status, self.flow.steps, now, width, console.glyphs))
        board = self.board
        across = board.size.width or width
        urgent = needs(status, self.destinations, now, across, console.glyphs)
        head, rows = destination_rows(self.destinations, now, across, console.glyphs)
        many = f" {len(urgent)} " if urgent else " nothing "
        title = (" NEEDS YOU " + console.glyphs.rule * across)[: max(0, across - len(many) - 2)] + many
        room = max(2, board.size.height - 4)
        board.write([Row([(title, "title")]), *urgent[:room], Row([]), Row(head), *(rows or [Row([(" none", "dim")])])])
        if time.monotonic() - self._drawn >= EVENTS_EVERY * 0.9:
            self._drawn = time.monotonic()
            panel = self.events
            wide = width >= WIDE
            count = max(1, panel.size.height - 1)
            kept = console.events if wide else console.notable
            newest = itertools.islice(reversed(kept), count)
            lines = event_lines(newest, now, panel.size.width or width)
            lines = lines or [[(" nothing yet", "dim")]]
            panel.set_lines(
                [[(" EVENTS" if wide else " RECENT", "title")], *lines, *[[] for _ in range(count - len(lines))]]
            )
        if console.link.live and time.monotonic() - self._asked >= DESTINATIONS_EVERY:
            self._asked = time.monotonic()
            self.run_worker(self._ask, group="destinations", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    async def _ask(self) -> None:
        try:
            found = await self.console.link.lines(f"/v1/destinations?by=domain&limit={DESTINATIONS}")
        except VerbError as error:
            self.console.flash(f"destinations: {error.text}", error=True)
            return
        self.destinations = sorted(found, key=lambda one: (-waiting(one), name_of(one)))
        self.tick()

    def take(self, status: Mapping[str, Any]) -> None:
        """A new status."""
        self.flow.add(status.get("rates") or {}, time.monotonic())
        self.tick()

    def show_needs(self) -> None:
        """`!`: the cursor on what needs you."""
        board = self.board
        board.focus()
        board.first()

    def focus_first(self) -> None:
        self.board.focus()

    def here(self) -> dict[str, str]:
        """The destination under the cursor."""
        row = self.board.row
        return {"destination": row.destination, "next_hop": row.next_hop} if row else {}

    def selection(self) -> dict[str, Any]:
        row = self.board.row
        return {"query": row.target} if row else {}

    def back(self) -> bool:
        return False

    def acted(self, verb: str, answer: Mapping[str, Any]) -> None:
        self._asked = float("-inf")

    def lost(self) -> None: ...

    def live(self) -> None:
        self._asked = float("-inf")

    def action_open(self) -> None:
        row = self.board.row
        if row is not None and row.target:
            self.console.show_queue(row.target)

    def action_try_now(self) -> None:
        row = self.board.row
        if row is None:
            return
        if row.destination:
            self.console.run_verb("flush", args={"destination": row.destination})
        else:
            self.console.run_verb("queue.retry", query=row.target)

    def action_suspend(self) -> None:
        row = self.board.row
        if row is not None and row.target:
            self.console.suspend_dialog(row.destination or row.next_hop, row.suspended)

    def action_copy(self) -> None:
        row = self.board.row
        found = next((one for one in self.destinations if row is not None and row.target and name_of(one) in
                      (row.destination, row.next_hop)), None)  # fmt: skip
        self.console.copy_menu(copying.of_destination(found) if found is not None else [])
