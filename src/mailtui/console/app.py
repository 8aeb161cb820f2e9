"""The console's frame: one app, one screen with panes, what goes around between them, and the keys that go anywhere.

`push_message`, `show_queue` and `show_pane` go somewhere; `command_line` and `filter_line` let a line be typed; what is
asked and done stands in `asking`. What panes give the frame stands in `place.Place`. Promises: nothing waits for the
relay before the first paint; what the relay says is drawn at most four times a second, and only lines that changed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Input

from mailtui.console import commands, go, menus, words
from mailtui.console.asking import Asking
from mailtui.console.dialogs.help import HelpDialog
from mailtui.console.escape import Splice
from mailtui.console.glyphs import ASCII
from mailtui.console.head import Top
from mailtui.console.link import Link, Snapshot
from mailtui.console.palette import VerbProvider
from mailtui.console.panes.overview import OverviewPane
from mailtui.console.panes.queue import QueuePane
from mailtui.console.place import Place, is_place
from mailtui.console.present.overview import ORDINARY
from mailtui.console.supervise import Supervisor
from mailtui.console.terminal import AsciiNet, Broom, Net, Watchdog, on_hangup
from mailtui.console.widgets.frame import BottomLine, FooterKeys, Ground, Panes, StatusLine, TabStrip
from mailtui.control.errors import VerbError

Shown = TypeVar("Shown", OverviewPane, QueuePane)

# How often what the link has gathered is taken: four times a second moves, and is no more than a slow line carries.
TICK = 0.25

# How often operations are asked for (the undo clock, and the link's latency), and while one runs, in seconds.
OPERATIONS_EVERY, PROGRESS_EVERY = 5.0, 1.0

# Events kept for the overview.
EVENTS = 200

_NET, _ASCII_NET = Net(), AsciiNet()

# A second q within this many seconds leaves.
LEAVE = 3.0


class Console(Asking, inherit_bindings=False):
    """The app. Its result is what becomes of a relay that was started here: "stop" or "leave"."""

    TITLE = "mailtui"
    CSS_PATH = "frame.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (150, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = {VerbProvider}  # noqa: RUF012
    PANES = (("1", "overview"), ("2", "queue"))

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "pane('overview')", show=False),
        Binding("2", "pane('queue')", show=False),
        Binding("colon", "command", show=False),
        Binding("minus", "last", show=False),
        Binding("exclamation_mark", "needs", show=False),
        Binding("greater_than_sign", "go_prefix", show=False),
        Binding("z", "undo", show=False),
        Binding("comma", "operations", show=False),
        Binding("question_mark", "help", show=False),
        Binding("p", "pause", show=False),
        Binding("M", "mouse", show=False),
        Binding("ctrl+l", "redraw", show=False),
        Binding("q", "step_out", show=False),
        Binding("escape", "step_back", show=False),
        Binding("ctrl+c", "leave_hint", show=False, priority=True),
    ]

    def __init__(
        self,
        link: Link,
        supervisor: Supervisor | None = None,
        *,
        read_only: str = "",
        on_quit: str = "ask",
        ascii_only: bool = False,
        mouse: bool = True,
    ) -> None:
        super().__init__(link, read_only=read_only, ascii_only=ascii_only, mouse=mouse)
        self.supervisor = supervisor
        self.on_quit = on_quit
        self.set_class(self.glyphs is ASCII, "-ascii")
        self.status: dict[str, Any] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.notable: deque[dict[str, Any]] = deque(maxlen=EVENTS)  # those that are not ordinary mail
        self.paused_screen = False
        self.missed = 0  # events that came while the screen stood still
        self.overview = OverviewPane()
        self.queue = QueuePane()
        self.panes: dict[str, OverviewPane | QueuePane] = {"overview": self.overview, "queue": self.queue}
        self.shown = "overview"
        self._top = Top()
        self._watchdog: Watchdog | None = None
        self._broom: Broom | None = None
        self._splice = Splice()
        self._last_pane = "queue"
        self._left = float("-inf")
        self._prefix = False
        self._history: list[str] = []

    # -- the frame ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield StatusLine()
        yield TabStrip()
        with Panes(initial=self.shown, id="panes"):
            yield from self.panes.values()
        yield BottomLine()
        yield FooterKeys()

    def get_default_screen(self) -> Screen[Any]:
        return Ground(id="_default")

    def on_mount(self) -> None:
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """After the first paint: the relay is asked when there is something to look at."""
        if self._broom is not None:
            self._broom.start()
        self.link.start()
        self.set_interval(TICK, self._tick)
        self.overview.focus_first()
        # Workers get functions, not coroutines: one that had no time to begin before the end would be complained of.
        self.run_worker(self._recent, exit_on_error=False)  # type: ignore[arg-type]
        self._top.draw(self)

    async def _recent(self) -> None:
        """What happened before the console came."""
        try:
            rows = await self.link.lines("/v1/log?limit=50")
        except VerbError:
            return  # the link says that it is lost
        later = [*self.events]
        self.events.clear()
        self._keep([*rows, *later])

    def _keep(self, found: Iterable[dict[str, Any]]) -> None:
        for event in found:
            self.events.append(event)
            if event.get("event") not in ORDINARY:
                self.notable.append(event)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), _NET, *([_ASCII_NET] if self.glyphs is ASCII else [])]

    async def on_event(self, event: events.Event) -> None:
        """Keys pass the splice first: what is left of a torn escape sequence is no key.

        Then one after the other: Textual would send each on its way through the widgets, and what is typed quickly
        behind a `:` would reach the table, where letters are verbs, before the line is open.
        """
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self._broom is not None:
                self._broom.typed()
            typing = isinstance(self.focused, Input)
            if self._splice.swallow(event.key, event.character, time.monotonic(), typing=typing):
                return
            if not typing and not self.screen.is_modal:  # what has the focus there knows bindings only
                self.app_focus = True
                if not await self._check_bindings(event.key, priority=True):
                    await self._check_bindings(event.key)
                return
        await super().on_event(event)

    @property
    def pane(self) -> OverviewPane | QueuePane:
        """The pane that is shown."""
        return self.panes[self.shown]

    @property
    def place(self) -> Place:
        """What keys act on now: the top screen that is a place of its own, else the pane."""
        for screen in reversed(self.screen_stack):
            if is_place(screen):
                return screen
        return self.pane

    # -- what the relay says -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self.is_running:  # widgets are being taken down, the timer is the last to go
            return
        if self._watchdog is not None and self._broom is not None:
            self._watchdog.beat()
            self._broom.beat()
        if self.supervisor is not None:
            for death in self.supervisor.news():
                self.flash(death.text, error=True)
                for line in death.words[:-1]:
                    self.notify(line, title="relay.log", severity="error", markup=False, timeout=15)
        snapshot = self.link.take()
        if snapshot is not None:
            self._take(snapshot)
        if self.link.live:
            every = PROGRESS_EVERY if self.busy else OPERATIONS_EVERY
            if time.monotonic() - self._asked >= every:
                self.ask_operations()
        if not self.paused_screen:
            self._top.draw(self)
            self.place.tick()

    def _take(self, snapshot: Snapshot) -> None:
        before, self.snapshot = self.snapshot, snapshot
        self.status = snapshot.status or self.status
        self._keep(snapshot.events)
        if self.paused_screen:
            self.missed += len(snapshot.events) + snapshot.missed
            return
        if snapshot.status:
            self.overview.take(snapshot.status)
        if before is None or before.live != snapshot.live:
            for place in self.places():
                (place.live if snapshot.live else place.lost)()
            if snapshot.live:
                self._asked = float("-inf")
                if before is not None and before.heard:
                    self.flash(f"connected again, after {words.age(time.time() - before.changed)}")

    def places(self) -> Iterator[Place]:
        yield from self.panes.values()
        yield from (screen for screen in self.screen_stack[1:] if is_place(screen))

    def query_main(self, kind: type[Shown]) -> Shown:
        """The pane of a kind, whatever screen is on top."""
        return next(pane for pane in self.panes.values() if isinstance(pane, kind))

    # -- what panes and screens use ----------------------------------------------------------------------------------

    def push_message(self, id: str, ids: Sequence[str] | None = None, *, view: str = "") -> None:
        """Open a message; `ids` are its neighbours for J and K; `view` is the tab to show."""
        from mailtui.console.message.screen import MessageScreen

        self.push_screen(MessageScreen(id, ids, tab=view or "why"))

    def show_pane(self, name: str) -> None:
        """Show a pane, from wherever."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if name != self.shown:
            self._last_pane, self.shown = self.shown, name
            self.screen_stack[0].query_one(Panes).current = name
        self.screen_stack[0].query_one(FooterKeys).show(self.pane.SCOPE)
        focusable = next((widget for widget in self.pane.query("*") if widget.focusable), None)
        if focusable is not None:
            self.screen_stack[0].set_focus(focusable)  # now, and not after the next key
        self.pane.tick()
        self._top.draw(self)

    def show_queue(self, query: str) -> None:
        """The queue, filtered."""
        self.show_pane("queue")
        self.queue.show(query)

    def command_line(self, prefill: str = "") -> None:
        """Open `:`."""
        self._bottom().ask(
            ":", prefill, lambda text: go.run_line(self, text or ""), history=self._history, complete=commands.complete
        )

    def filter_line(self, current: str, changed: Callable[[str], None], done: Callable[[str | None], None]) -> None:
        """Open `/` on the bottom line."""
        self._bottom().ask("/", current, done, changed=changed)

    def _bottom(self) -> BottomLine:
        try:
            return self.screen.query_one(BottomLine)
        except NoMatches:
            return self.screen_stack[0].query_one(BottomLine)

    # -- keys --------------------------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        prefixed, self._prefix = self._prefix, False
        here = self.place.here() if prefixed else {}
        if name == "queue" and here.get("destination"):
            self.show_queue(f"dest:{here['destination']}")
        elif name == "queue" and here.get("next_hop"):
            self.show_queue(f"hop:{here['next_hop']}")
        else:
            self.show_pane(name)

    def action_go_prefix(self) -> None:
        self._prefix = True
        self.flash("> go with this row: 2 its destination's queue")

    def action_command(self) -> None:
        self.command_line()

    def action_last(self) -> None:
        self.show_pane(self._last_pane)

    def action_needs(self) -> None:
        self.show_pane("overview")
        self.overview.show_needs()

    def action_help(self) -> None:
        scopes = [self.place.SCOPE, "move", "go", "all"]
        self.push_screen(HelpDialog(scopes))

    def action_pause(self) -> None:
        self.paused_screen = not self.paused_screen
        if not self.paused_screen:
            self.flash(f"{words.count(self.missed)} events came while the screen was paused")
            if self.snapshot is not None:
                self._take(self.snapshot)
        self.missed = 0
        self._top.draw(self)

    def action_mouse(self) -> None:
        self.mouse_taken = not self.mouse_taken
        self.set_mouse(self.mouse_taken)
        self.flash("the mouse is the console's" if self.mouse_taken else "the mouse is the terminal's: it selects text")

    def action_redraw(self) -> None:
        self.screen.refresh(layout=True)
        self.refresh(repaint=True, layout=True)

    def action_leave_hint(self) -> None:
        self.flash("q q leaves the console; the relay goes on")

    def action_undo(self) -> None:
        self.menu(lambda: menus.undo_last(self))

    def action_operations(self) -> None:
        self.run_worker(menus.operations(self), group="menu", exit_on_error=False)

    def action_step_back(self) -> None:
        """Esc: one step back; it never leaves."""
        self._prefix = False
        if len(self.screen_stack) > 1:
            self.pop_screen()
        else:
            self.pane.back()

    def action_step_out(self) -> None:
        """q: one step back; at the root a second one leaves."""
        self._prefix = False
        if len(self.screen_stack) > 1:
            self.pop_screen()
        elif self.pane.back():
            pass
        elif time.monotonic() - self._left <= LEAVE:
            self.leave()
        else:
            self._left = time.monotonic()
            self.flash("q again leaves the console; the relay goes on")

    # -- leaving -----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Leave; a relay that was started here stops or stays, as asked."""
        child = self.supervisor.child if self.supervisor is not None else None
        if child is None or child.ended is not None or self.on_quit != "ask":
            self.exit(self.on_quit if self.on_quit in ("stop", "leave") else "leave")
            return
        self.run_worker(menus.leave(self), group="menu", exit_on_error=False)

    def show(self) -> str:
        """Run until left; "stop" or "leave". A lost terminal means leave."""
        self._broom = Broom()
        self._watchdog = Watchdog(self._lost_terminal)
        self._watchdog.start()
        on_hangup(self._lost_terminal)
        if self.supervisor is not None:
            self.supervisor.watch()
        try:
            return self.run(mouse=self.mouse_taken) or "leave"
        finally:
            self._watchdog.stop()
            self._broom.stop()

    def _lost_terminal(self) -> None:
        """From a signal handler or a thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.exit, "leave")

    def on_unmount(self) -> None:
        self.link.stop()
