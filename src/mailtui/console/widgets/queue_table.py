"""The table for a million rows: it holds what is on the screen and draws what has changed.

A frozen set stands behind it (`Source`), a `Face` says how a row looks. Promises: no cost depends on the number of
rows; cursor and marks are names of rows, never positions; a tick draws only the lines that look different from before;
rows that are not at hand are drawn dim and asked for beside.
"""

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mailtui.console.glyphs import UNICODE, Glyphs
from mailtui.console.present.rows import Column
from mailtui.console.widgets.face import Cells, Face
from mailtui.console.widgets.lines import ROLES
from mailtui.console.widgets.pages import Pages, Row
from mailtui.console.widgets.strips import STRIPS, Look, Strips

# A range marks at most this many rows, since each is named; more than that are marked by a filter and `*`.
MOST_MARKS = 5000

# Cells by which `h` and `l` scroll.
SIDE = 16


class QueueTable(ScrollView, can_focus=True):
    """Shows a source through a face. Keys: see BINDINGS; Enter posts `Opened`."""

    DEFAULT_CSS = """
    QueueTable { width: 1fr; height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size: 0 1; }
    QueueTable > .queue-table--dim { text-style: dim; }
    QueueTable > .queue-table--strong { text-style: bold; }
    QueueTable > .queue-table--good { color: $success; }
    QueueTable > .queue-table--warn { color: $warning; text-style: bold; }
    QueueTable > .queue-table--bad { color: $error; text-style: bold; }
    QueueTable > .queue-table--cursor { text-style: reverse; }
    QueueTable > .queue-table--mark { color: $accent; text-style: bold; }
    QueueTable > .queue-table--title { color: $primary; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"queue-table--{role}" for role in ROLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("g,home", "first", show=False),
        Binding("G,upper_g,end", "last", show=False),
        Binding("pagedown,ctrl+d", "page(1)", show=False),
        Binding("pageup,ctrl+u", "page(-1)", show=False),
        Binding("h,left", "side(-1)", show=False),
        Binding("l,right", "side(1)", show=False),
        Binding("space", "mark", show=False),
        Binding("v", "range", show=False),
        Binding("asterisk", "mark_all", show=False),
        Binding("u", "unmark", show=False),
        Binding("n", "next_mark(1)", show=False),
        Binding("N,upper_n", "next_mark(-1)", show=False),
        Binding("enter", "open", show=False),
    ]

    cursor: reactive[int] = reactive(0, repaint=False, always_update=False)

    class Moved(Message):
        """The cursor stands on another row, or on the same one that is known better now."""

    class Opened(Message):
        """Enter, or a double click."""

    class Marked(Message):
        """The marks changed."""

    class Failed(Message):
        """Rows could not be fetched."""

        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

    def __init__(self, face: Face, *, glyphs: Glyphs = UNICODE, now: Callable[[], float] = time.time,
                 id: str | None = None) -> None:  # fmt: skip
        super().__init__(id=id)
        self.face = face
        self.now = now
        self.pages: Pages | None = None
        self.marks: dict[str, Row] = {}  # by name, as they were when marked
        self.all_marked, self.whole = False, True
        self.range_from: int | None = None  # where a range began
        self.places: dict[str, int] = {}  # where in this set marked rows are, as far as known
        self.drawn = 0  # looks of lines that changed so far, for tests
        self._columns: tuple[Column, ...] = ()
        self._in_sight: tuple[Column, ...] = ()
        self._strips = Strips(self, glyphs)
        self._looks: dict[int, Look | None] = {}  # position -> what stands on the screen
        self._cells: dict[int, tuple[Row, Cells]] = {}  # position -> its cells since the last tick
        self._working = False

    # What is shown

    @property
    def count(self) -> int:
        """Rows of the set."""
        return self.pages.source.count if self.pages is not None else 0

    @property
    def row(self) -> Row | None:
        """The row under the cursor, None if it is not at hand."""
        return self.at(self.cursor)

    @property
    def name_here(self) -> str:
        """The name of the row under the cursor; "" if it is not at hand."""
        row = self.row
        return self.face.name(row) if row is not None else ""

    def at(self, index: int) -> Row | None:
        """The row at this position, None if it is not at hand."""
        return self.pages.get(index) if self.pages is not None and 0 <= index < self.count else None

    @property
    def top(self) -> int:
        """The position of the first row on the screen."""
        return int(self.scroll_offset.y)

    def show(self, pages: Pages, *, cursor: int = 0, marks: Mapping[str, Row] | None = None,
             face: Face | None = None, whole: bool = True) -> None:  # fmt: skip
        """Another set in place of the one before. The cursor's row stays on its line of the screen where it can.

        `whole`: it is a set that all of can be marked, and not just some rows of one.
        """
        line = self.cursor - self.scroll_offset.y
        self.pages, self.whole = pages, whole
        self.face = face or self.face
        self.marks = dict(marks or {})
        self.places = {}
        self.all_marked, self.range_from = False, None
        self._looks.clear()
        self._cells.clear()
        self._resize()
        self.set_reactive(QueueTable.cursor, max(0, min(cursor, self.count - 1)))
        self.scroll_to(y=max(0, self.cursor - line), animate=False)
        self._reveal()
        self._ask()
        self.refresh()
        self.post_message(self.Moved())
        self.post_message(self.Marked())

    def rows_shown(self) -> list[Row]:
        """The rows on the screen, as far as they are at hand."""
        first, last = self._window()
        return [row for index in range(first, last + 1) if (row := self.at(index)) is not None]

    def tick(self, *, ask: bool = True) -> None:
        """Draw again what looks different now; `ask` for what is missing."""
        first, last = self._window()
        self._cells.clear()  # times go on
        for index in range(first, last + 1):
            if index in self._looks and self._looks[index] != self._look_of(index):
                self._dirty(index)
        if ask:
            self._ask()

    async def renew(self) -> None:
        """Read the rows on the screen again. What the source raises passes through."""
        pages = self.pages
        if pages is not None and self.count:
            await pages.renew(*self._window())
            if pages is self.pages:
                self.tick()
                self.post_message(self.Moved())

    # Drawing

    def notify_style_update(self) -> None:
        self._strips.forget()
        super().notify_style_update()

    def on_resize(self, event: events.Resize) -> None:
        self._resize()
        self._reveal()
        self._ask()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._ask()

    def _resize(self) -> None:
        width = self.scrollable_content_region.width or self.size.width
        self._columns = self.face.columns(width)
        full = 2 + sum(column.width + 1 for column in self._columns)
        self.virtual_size = Size(max(full, width), self.count + 1)
        self._see()

    def _see(self) -> None:
        """Note which columns begin left of the right edge: cells of others need not be made."""
        end, at, seen = self.scroll_offset.x + self.size.width, 2, 0
        for column in self._columns:
            seen += at < end
            at += column.width + 1
        self._in_sight = self._columns[:seen]
        self._cells.clear()

    def watch_scroll_x(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_x(old_value, new_value)
        self._see()

    @property
    def _rows_shown(self) -> int:
        return max(1, self.scrollable_content_region.height - 1)

    def _window(self) -> tuple[int, int]:
        """Positions of the first and last row on the screen."""
        first = self.scroll_offset.y
        return first, min(first + self._rows_shown, self.count) - 1

    def _look_of(self, index: int) -> Look | None:
        """How the row at `index` looks now; None if it is not at hand."""
        row = self.at(index)
        if row is None:
            return None
        name = self.face.name(row)
        between = self.range_from is not None and min(self.range_from, self.cursor) <= index <= max(
            self.range_from, self.cursor
        )
        marked = self.all_marked or between or name in self.marks
        if marked and name in self.marks:
            self.places[name] = index
        return Look(name, self._cells_of(index, row), index == self.cursor, marked)

    def _cells_of(self, index: int, row: Row) -> Cells:
        """The cells of a row, made once between two ticks: a list that scrolls is drawn whole with every key."""
        known = self._cells.get(index)
        if known is None or known[0] is not row:
            known = self._cells[index] = row, self.face.cells(row, self._in_sight, self.now())
        return known[1]

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines from our own cache, which has been through the filters. Textual's goes by place on the screen: of a
        list that scrolls it would style and filter every line again. The table has neither border nor padding."""
        strips = [self.render_line(y) for y in crop.line_range]
        left, right = crop.column_span
        return strips if (left, right) == (0, self.size.width) else [strip.crop(left, right) for strip in strips]

    def render_line(self, y: int) -> Strip:
        index = self.top + y - 1
        if y == 0:
            return self._strips.line((("  ", ""), *self.face.header(self._columns)))
        if index >= self.count:
            return self._strips.line(())
        look = self._look_of(index)
        if len(self._looks) > 4 * STRIPS:
            self._looks.clear()
        self.drawn += index not in self._looks or self._looks[index] != look
        self._looks[index] = look
        return self._strips.line(look) if look is not None else self._strips.absent(index == self.cursor)

    def _dirty(self, index: int) -> None:
        """Draw the line of this row again, if it is on the screen."""
        first, last = self._window()
        if first <= index <= last:
            self.refresh(Region(0, index - first + 1, self.size.width, 1))

    # Fetching

    def _ask(self) -> None:
        if self.pages is not None and not self._working and self.pages.look(*self._window()) and self.is_attached:
            self._working = True
            self.run_worker(self._fetch, group="pages", exit_on_error=False)  # type: ignore[arg-type]

    async def _fetch(self) -> None:
        pages = self.pages
        try:
            while pages is not None:
                found = await pages.fetch()
                if pages is not self.pages:
                    pages = self.pages  # another set meanwhile
                elif found is None:
                    return
                else:
                    self._arrived(*found)
        except Exception as error:
            if pages is self.pages:
                self.post_message(self.Failed(error))
        finally:
            self._working = False

    def _arrived(self, offset: int, size: int) -> None:
        first, last = self._window()
        for index in range(max(first, offset), min(last, offset + size - 1) + 1):
            self._dirty(index)
        if offset <= self.cursor < offset + size:
            self.post_message(self.Moved())

    # Moving

    def watch_cursor(self, old: int, new: int) -> None:
        if self.range_from is None:
            self._dirty(old)
            self._dirty(new)
        else:  # every line between takes part in the range
            first, last = self._window()
            for index in range(max(first, min(old, new)), min(last, max(old, new)) + 1):
                self._dirty(index)
        self._reveal()
        self.post_message(self.Moved())

    def validate_cursor(self, value: int) -> int:
        return max(0, min(value, self.count - 1))

    def _reveal(self) -> None:
        """Scroll so that the cursor is on the screen."""
        first, shown = self.scroll_offset.y, self._rows_shown
        if self.cursor < first:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= first + shown:
            self.scroll_to(y=self.cursor - shown + 1, animate=False)

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = self.count - 1

    def action_page(self, by: int) -> None:
        step = by * max(1, self._rows_shown - 1)
        top = self.scroll_offset.y + step
        self.scroll_to(y=max(0, min(top, self.count - self._rows_shown)), animate=False)
        self.cursor += step

    def action_side(self, by: int) -> None:
        self.scroll_to(x=max(0, self.scroll_offset.x + by * SIDE), animate=False, force=True)

    def action_open(self) -> None:
        self.post_message(self.Opened())

    def on_click(self, event: events.Click) -> None:
        index = self.scroll_offset.y + event.y - 1
        if event.y >= 1 and index < self.count:
            self.cursor = index
            if event.chain == 2:
                self.post_message(self.Opened())

    # Marking

    def action_mark(self) -> None:
        """Mark the row or unmark it, and go on to the next; a range ends here."""
        if self.range_from is not None:
            self.action_range()
            return
        if self.all_marked:
            self.app.bell()  # one set; `u` unmarks it
            return
        row = self.row
        if row is not None:
            name = self.face.name(row)
            if name in self.marks:
                del self.marks[name]
            elif len(self.marks) < MOST_MARKS:
                self.marks[name] = row
                self.places[name] = self.cursor
            else:
                self.app.bell()
            self._dirty(self.cursor)
            self.post_message(self.Marked())
        self.cursor += 1

    def action_range(self) -> None:
        """Begin a range at the cursor, or mark the one that was begun."""
        if self.all_marked or not self.count:
            return
        if self.range_from is None:
            self.range_from = self.cursor
            self._dirty(self.cursor)
        else:
            first, last = sorted((self.range_from, self.cursor))
            last = min(last, first + MOST_MARKS - len(self.marks) - 1)
            self.run_worker(self._mark(first, last), group="range", exclusive=True, exit_on_error=False)
        self.post_message(self.Marked())

    async def _mark(self, first: int, last: int) -> None:
        """Mark positions `first` to `last`: the names of those not at hand are fetched."""
        pages = self.pages
        assert pages is not None
        try:
            rows = await pages.between(first, last, lambda: pages is self.pages)
        except Exception as error:
            self.post_message(self.Failed(error))
            rows = []
        if pages is self.pages:
            names = [self.face.name(row) for row in rows]
            self.marks |= dict(zip(names, rows, strict=True))
            self.places |= {name: index for index, name in enumerate(names, first)}
            self.range_from = None
            self.refresh()
            self.post_message(self.Marked())

    def action_next_mark(self, by: int) -> None:
        """Go to the next (1) or previous (-1) marked row, of those whose place is known."""
        places = [place for name, place in self.places.items() if name in self.marks]
        beyond = [place for place in places if (place - self.cursor) * by > 0]
        if beyond:
            self.cursor = min(beyond) if by > 0 else max(beyond)

    def action_mark_all(self) -> None:
        """Mark all that match: the set itself, whatever its size."""
        if self.count and not self.whole:
            self.app.bell()  # what would be acted on is not known yet
        elif self.count:
            self.marks, self.range_from, self.all_marked = {}, None, True
            self.refresh()
            self.post_message(self.Marked())

    def action_unmark(self) -> bool:
        """Drop all marks and a range that was begun; True if there were any."""
        had = bool(self.marks) or self.all_marked or self.range_from is not None
        self.marks, self.range_from, self.all_marked = {}, None, False
        if had:
            self.refresh()
            self.post_message(self.Marked())
        return had

    @property
    def marked(self) -> int:
        """How many rows are marked."""
        if self.all_marked:
            return self.count
        if self.range_from is not None:
            return abs(self.range_from - self.cursor) + 1 + len(self.marks)
        return len(self.marks)
