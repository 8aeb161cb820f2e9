"""The Queue pane: a frozen set of the queue in a table, what binds the row under the cursor, and the verbs on it.

Promises: what is marked is what is acted on (rids, or the set itself); a set that is taken again keeps the cursor on
its row and the marks on theirs, and says what has left; a filter is always shown, and a wrong one changes nothing.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from mailtui.console import words
from mailtui.console.message.past import PastScreen
from mailtui.console.message.screen import MessageScreen
from mailtui.console.panes import away
from mailtui.console.panes.card import Card
from mailtui.console.panes.frozen import FrozenSet
from mailtui.console.panes.taking import Wanted, taken
from mailtui.console.present.about import PAST, About, empty_line, title_line
from mailtui.console.present.rows import WIDE, QueueFace, cursor_lines, sort_words
from mailtui.console.present.text import shorten
from mailtui.console.widgets.lines import Lines
from mailtui.console.widgets.queue_table import QueueTable
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console

# Rows on the screen are read again this often, in seconds, while the pane is seen; it also keeps the relay's set alive.
RENEW = 2.0

# How often it is looked whether the rows on the screen look different now, in seconds: no age shown changes sooner.
LOOK = 1.0

# A followed list is taken again at most this often, in seconds, and takes at most a twentieth of the relay's time.
FOLLOW, FOLLOW_SHARE = 3.0, 20.0


class RowBox(Horizontal):
    """Table and card side by side, and nothing else."""

    BLANK = True


class QueuePane(Widget, can_focus=False):
    """Panes are told by the frame when to `tick`; see `console/app.py`."""

    SCOPE = "queue"
    BLANK = True  # its parts cover it: nothing of its own is drawn, and each frame asks
    DEFAULT_CSS = """
    QueuePane { layout: vertical; height: 1fr; }
    QueuePane > #queue-title { height: 1; }
    QueuePane > RowBox { height: 1fr; }
    QueuePane.-card Card { display: block; }
    QueuePane > #queue-cursor { height: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", show=False),
        Binding("s", "sort", show=False),
        Binding("f", "follow", show=False),
        Binding("ctrl+r", "retake", show=False),
        Binding("w", "open('why')", show=False),
        Binding("t", "open('trace')", show=False),
        Binding("r", "verb('queue.retry')", show=False),
        Binding("i", "defer", show=False),
        Binding("o", "hold", show=False),
        Binding("x", "dispose", show=False),
        Binding("y", "copy", show=False),
        Binding("e", "export", show=False),
    ]

    def __init__(self, *, id: str = "queue", now: Callable[[], float] = time.time) -> None:
        super().__init__(id=id)
        self.now = now
        self.query_text = ""
        self.sort, self.reverse = "arrived", False
        self.set: FrozenSet | None = None
        self.following = "auto"  # "auto": as long as the cursor stands on the first row; "on": as asked by `f`; ""
        self.note: tuple[str, str] = ("", "")  # (text, role) in place of what binds the row: an error, a count
        self.past = 0  # rows of the history that match a filter which nothing in the queue matches
        self._renewed = self._taken = self._looked = 0.0  # monotonic
        self._took = 0.0  # seconds that the relay needed for the set
        self._seen: Any = None  # the queue's counts when the set was taken
        self._renewing = self._taking = False
        self._due = True  # the next tick takes the set
        self._wanted: Wanted | None = None

    @property
    def console(self) -> "Console":
        """The app, which is the frame."""
        return cast("Console", self.app)

    def compose(self) -> ComposeResult:
        yield Lines([[]], id="queue-title")
        with RowBox():
            yield QueueTable(self._face(), glyphs=self.console.glyphs, now=self.now, id="queue-table")
            yield Card(self.now)
        yield Lines([[], []], id="queue-cursor")

    @property
    def table(self) -> QueueTable:
        return self.query_one("#queue-table", QueueTable)

    def _face(self) -> QueueFace:
        return QueueFace(self.console.glyphs, self.sort, self.reverse)

    def on_mount(self) -> None:
        self._write()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= WIDE, "-card")
        self.query_one(Card).again()
        self._write()

    def focus(self, scroll_visible: bool = True) -> "QueuePane":
        """The table is what takes keys."""
        self.table.focus(scroll_visible)
        return self

    # What the frame asks

    def show(self, query: str, *, sort: str = "arrived", reverse: bool = False) -> None:
        """Show what matches `query`, from the top."""
        self.following = "auto"
        self._change(query, sort, reverse)

    def selection(self) -> dict[str, Any]:
        """What a verb acts on: the marks, else the row under the cursor; {} if there is none."""
        table = self.table
        if table.all_marked and self.set is not None:
            return {"set": self.set.name}
        if table.range_from is not None:
            self.console.flash("a range is open: v or Space marks it, Esc drops it", error=True)
            return {}
        if table.marks:
            return {"ids": list(table.marks)}
        row = table.row
        return {"ids": [str(row["rid"])]} if row is not None and not row.get("gone") else {}

    def here(self) -> dict[str, Any]:
        """Names of the row under the cursor."""
        row = self.table.row
        return dict(row) if row is not None else {}

    def back(self) -> bool:
        """One step back: an open range, the marks, the filter."""
        table = self.table
        if table.range_from is not None:
            table.range_from = None
            table.refresh()
            self._write()
            return True
        if table.action_unmark():
            return True
        if self.query_text:
            self._change("", self.sort, self.reverse)
            return True
        return False

    def tick(self) -> None:
        """A few times a second while the pane is seen."""
        if self.console.paused_screen:
            return
        table, clock = self.table, time.monotonic()
        if clock - self._looked >= LOOK:
            self._looked = clock
            table.tick(ask=self.console.link.live)
        self._write()
        if not self.console.link.live or self._taking:
            return
        if self._due or self._stale(clock):
            self._due = False
            self.retake()
        elif self.set is not None and clock - self._renewed >= RENEW and not self._renewing:
            self._renewed, self._renewing = clock, True
            self.run_worker(self._renew, group="renew", exit_on_error=False)  # type: ignore[arg-type]

    def acted(self, verb: str, answer: Mapping[str, Any]) -> None:
        """A verb was carried out: what was marked for it is done with."""
        if self.app.screen is self.screen:  # not what was done from a message on top of it
            self.table.action_unmark()
        self._renewed = 0.0
        self.tick()

    def lost(self) -> None:
        """The link is gone: what stands here is as it was."""
        self._write()

    def live(self) -> None:
        """The link is back. The relay may be another one: its sets are not ours. The next tick takes one."""
        self._due = True

    # The set

    def _stale(self, clock: float) -> bool:
        """True if the list should be taken again by itself: there is none yet, whatever rows are shown meanwhile; or it
        is followed or empty, and the queue has changed."""
        table = self.table
        if clock - self._taken < max(FOLLOW, FOLLOW_SHARE * self._took):
            return False
        if self.set is None:
            return True
        if table.marked or (not self.following and table.count):
            return False
        return bool(self.console.status.get("queue") != self._seen)

    def _change(self, query: str, sort: str, reverse: bool) -> None:
        self.retake(query=query, sort=sort, reverse=reverse, top=query != self.query_text)

    def retake(self, *, query: str | None = None, sort: str | None = None, reverse: bool | None = None,
               top: bool = False) -> None:  # fmt: skip
        """Take the set again, or another one. `top`: the cursor goes to the first row."""
        self._wanted = Wanted(
            self.query_text if query is None else query,
            self.sort if sort is None else sort,
            self.reverse if reverse is None else reverse,
            top,
        )
        if not self._taking:
            self._taking = True
            self.run_worker(self._take, group="set", exit_on_error=False)  # type: ignore[arg-type]

        self._due = False

    async def _take(self) -> None:
        """Take what is wanted, one set after the other: one that is given up half-way would stay with the relay."""
        try:
            while self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                await self._retake(wanted)
        except Exception as error:
            before = self.note
            self._say(error)
            if self.set is not None or self.note != before:  # the first list is tried for until it is there
                self.console.flash(self.note[0], error=True)
        finally:
            self._taking = False
            self._taken = time.monotonic()

    async def _retake(self, wanted: Wanted) -> None:
        old, started = self.set, time.monotonic()
        counts = self.console.status.get("queue")
        new = await taken(self, wanted)
        self.query_text, self.sort, self.reverse = wanted.query, wanted.sort, wanted.reverse
        self.set, self.note, self.past = new.set, ("", ""), 0
        self._taken = self._renewed = time.monotonic()
        self._took, self._seen = self._taken - started, counts
        self.table.show(new.pages, cursor=new.cursor, marks=new.marks, face=self._face())
        self.table.places |= new.places
        self.table.range_from = new.range_from
        if new.said:
            self.console.flash(new.said)
        self._write()
        if wanted.query and not new.set.count:
            self.run_worker(self._look_back(wanted.query), group="past", exclusive=True, exit_on_error=False)
        if old is not None:
            try:
                await old.drop()
            except VerbError:
                pass  # it is gone already, and that is all we want

    async def _renew(self) -> None:
        try:
            await self.table.renew()
            self.note = ("", "") if self.note[1] == "bad" and not self._taking else self.note
        except Exception as error:
            self._failed(error)
        finally:
            self._renewing = False

    @on(QueueTable.Failed)
    def _rows_failed(self, event: QueueTable.Failed) -> None:
        event.stop()
        self._failed(event.error)

    def _failed(self, error: Exception) -> None:
        if not getattr(error, "gone", False):
            self._say(error)
        elif not self._taking:  # the relay drops a set that nobody reads for a minute
            self.retake()

    def _say(self, error: Exception) -> None:
        """Write what went wrong where the row's reason stands."""
        text = error.text if isinstance(error, VerbError) else f"the console failed: {type(error).__name__}: {error}"
        self.note = (text, "bad")
        self._write()

    async def _look_back(self, query: str) -> None:
        """Nothing in the queue matches: does the history know it?"""
        try:
            found = await self.console.link.lines(_past(query))
        except VerbError:
            return  # not every term of the queue makes sense there
        if query == self.query_text and not self.table.count:
            self.past = len(found)
            self._write()

    # What is written

    def _write(self) -> None:
        """The title and the two lines of the row under the cursor; lines that did not change are not drawn."""
        if not self.is_mounted:
            return
        width, glyphs = self.size.width, self.console.glyphs
        about = About(
            query=clean(self.query_text),  # it may have been pasted
            by=sort_words(self.sort, self.reverse, glyphs),
            count=self.set.count if self.set is not None else None,
            total=(self.console.status.get("queue") or {}).get("recipients"),
            marked=self.table.marked,
            following=bool(self.following),
            past=self.past,
        )
        self.query_one("#queue-title", Lines).set_lines([title_line(about, width, glyphs)])
        row = self.table.row
        lines = cursor_lines(dict(row) if row is not None else None, width, self.now(), glyphs)
        if about.count == 0:
            lines = [empty_line(about), []]
        if self.note[0]:
            lines = [lines[0], [(f" {self.note[0]}", self.note[1])]]
        self.query_one("#queue-cursor", Lines).set_lines([shorten(line, width, glyphs.ellipsis) for line in lines])

    @on(QueueTable.Moved)
    def _moved(self, event: QueueTable.Moved) -> None:
        event.stop()
        if self.following == "auto" and self.table.cursor:
            self.following = ""
        self._write()
        if self.has_class("-card"):
            self.query_one(Card).look(self.table.row)

    @on(QueueTable.Marked)
    def _marked(self, event: QueueTable.Marked) -> None:
        event.stop()
        self._write()

    # Keys

    @on(QueueTable.Opened)
    def _opened(self, event: QueueTable.Opened) -> None:
        event.stop()
        self.action_open("why")

    def action_open(self, tab: str) -> None:
        """Open the message under the cursor; of an empty list, what the history has."""
        if self.past and not self.table.count:
            self.app.push_screen(PastScreen(self.query_text, _past(self.query_text)))
            return
        row = self.table.row
        if row is not None:
            neighbours = (self.set, self.table.cursor) if self.set is not None else None
            screen = MessageScreen(str(row["rid"]), tab=tab, neighbours=neighbours, now=self.now)
            self.app.push_screen(screen, self._returned)

    def _returned(self, place: tuple[FrozenSet, int] | None) -> None:
        """Back from the message: the cursor goes where J and K went, if it is still the same set."""
        if place is not None and place[0] is self.set:
            self.table.cursor = place[1]

    def action_filter(self) -> None:
        self.console.filter_line(self.query_text, self._typing, self._typed)

    def _typing(self, text: str) -> None:
        self.run_worker(self._count(text), group="count", exclusive=True, exit_on_error=False)

    async def _count(self, text: str) -> None:
        """How many match what has been typed so far, or what is wrong with it."""
        try:
            found = await self.console.link.call("GET", f"/v1/queue/count?query={quote(text, '')}")
        except VerbError as error:
            self.note = (error.text, "bad")
        else:
            self.note = (f"{words.amount(found['recipients'], 'recipient')} match", "strong")
        self._write()

    def _typed(self, text: str | None) -> None:
        self.workers.cancel_group(self, "count")
        self.note = ("", "")
        if text is None:
            self._write()
        else:
            self._change(text.strip(), self.sort, self.reverse)

    def action_sort(self) -> None:
        self.console.sort_menu(
            self.sort, self.reverse, lambda sort, reverse: self._change(self.query_text, sort, reverse)
        )

    def action_follow(self) -> None:
        """Follow the row under the cursor while the list changes; on the first row, the newest."""
        self.following = "" if self.following else "auto" if not self.table.cursor else "on"
        if self.following:
            self.retake()
        self.console.flash(
            "following: the list is taken again by itself" if self.following else "the list stands still"
        )
        self._write()

    def action_retake(self) -> None:
        self.retake()

    def action_verb(self, verb: str) -> None:
        if selection := self.selection():
            self.console.run_verb(verb, **selection)

    def action_defer(self) -> None:
        if selection := self.selection():
            self.console.defer_dialog(**selection)

    def action_dispose(self) -> None:
        if selection := self.selection():
            self.console.dispose_menu(**selection)

    def action_hold(self) -> None:
        """Hold or release, by the states of what is selected; of a whole set they are not known, so it asks."""
        if selection := self.selection():
            table = self.table
            rows = list(table.marks.values()) or [table.row or {}]
            states = {str(row.get("state")) for row in rows}
            self.console.hold_or_release({"held", "deferred"} if table.all_marked else states, **selection)

    def action_copy(self) -> None:
        self.console.copy_menu(away.copies(self))

    def action_export(self) -> None:
        self.console.export_dialog(away.scopes(self))


def _past(query: str) -> str:
    return f"/v1/history?query={quote(query, '')}&limit={PAST}"
