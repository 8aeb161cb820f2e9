"""The console's frame: one app, one screen with panes, and what panes and screens may ask of it.

`link` asks the relay; `run_verb` takes an action from preview to result; `flash` says something; `push_message`,
`show_queue` and `show_pane` go somewhere; the menus (`dispose_menu`, `defer_dialog`, `hold_or_release`, `sort_menu`)
ask and run the verb themselves; `command_line` and `filter_line` let a line be typed. A selection is exactly one of
`set` (the id of a frozen set), `query`, `ids` (ids or rids, taken when the key was pressed). What panes give the frame
stands in `place.Place`. Promises: nothing waits for the relay before the first paint; what the relay says is drawn at
most four times a second, and only lines that changed; an action that cannot be run says why.
"""

import os
import pwd
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.filter import LineFilter
from textual.widgets import ContentSwitcher, Input
from textual.worker import Worker

from mailtui.console import actions, commands, go, head, menus, words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.dialogs.help import HelpDialog
from mailtui.console.dialogs.operations import undoable
from mailtui.console.escape import Splice
from mailtui.console.glyphs import ASCII, Glyphs, choose
from mailtui.console.link import Link, Snapshot
from mailtui.console.palette import VerbProvider
from mailtui.console.panes.overview import OverviewPane
from mailtui.console.panes.queue import QueuePane
from mailtui.console.place import Place, is_place
from mailtui.console.present.overview import ORDINARY
from mailtui.console.supervise import Supervisor
from mailtui.console.terminal import AsciiNet, Meter, Net, Watchdog, on_hangup
from mailtui.console.widgets.frame import BottomLine, FooterKeys, StatusLine, TabStrip, status_line, tab_line
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError

Answer = TypeVar("Answer")
Shown = TypeVar("Shown", OverviewPane, QueuePane)

# How often what the link has gathered is taken: four times a second moves, and is no more than a slow line carries.
TICK = 0.25

# How often operations are asked for (the undo clock, and the link's latency), and while one runs, in seconds.
OPERATIONS_EVERY, PROGRESS_EVERY = 5.0, 1.0
OPERATIONS = 50

# Events kept for the overview.
EVENTS = 200

_NET, _ASCII_NET = Net(), AsciiNet()


# The undo clock is shown when it matters: within the hour. A hold can be undone for days, and nobody watches that.
CLOCK = 3600.0

# A second q within this many seconds leaves.
LEAVE = 3.0


class Console(App[str], inherit_bindings=False):
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
        super().__init__(driver_class=Meter, watch_css=False)
        self.link = link
        self.supervisor = supervisor
        self.read_only = read_only
        self.on_quit = on_quit
        self.glyphs: Glyphs = choose(ascii_only)
        self.set_class(self.glyphs is ASCII, "-ascii")
        self.status: dict[str, Any] = {}
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.notable: deque[dict[str, Any]] = deque(maxlen=EVENTS)  # those that are not ordinary mail
        self.operations: list[dict[str, Any]] = []
        self.paused_screen = False
        self.overview = OverviewPane()
        self.queue = QueuePane()
        self.panes: dict[str, OverviewPane | QueuePane] = {"overview": self.overview, "queue": self.queue}
        self._shown = "overview"
        self._watchdog: Watchdog | None = None
        self._mouse = mouse
        self._splice = Splice()
        self._snapshot: Snapshot | None = None
        self._missed = 0
        self._last_pane = "queue"
        self._own: list[str] = []
        self._busy = ""
        self._asking = False
        self._asked = float("-inf")
        self._left = float("-inf")
        self._prefix = False
        self._history: list[str] = []
        self._gauge = head.Gauge()
        self._user = _user()

    # -- the frame ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield StatusLine()
        yield TabStrip()
        with ContentSwitcher(initial=self._shown, id="panes"):
            yield from self.panes.values()
        yield BottomLine()
        yield FooterKeys()

    def on_mount(self) -> None:
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """After the first paint: the relay is asked when there is something to look at."""
        self.link.start()
        self.set_interval(TICK, self._tick)
        self.overview.focus_first()
        # Workers get functions, not coroutines: one that had no time to begin before the end would be complained of.
        self.run_worker(self._recent, exit_on_error=False)  # type: ignore[arg-type]
        self._draw_frame()

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
        return self.panes[self._shown]

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
        if self._watchdog is not None:
            self._watchdog.beat()
        if self.supervisor is not None:
            for death in self.supervisor.news():
                self.flash(death.text, error=True)
                for line in death.words[:-1]:
                    self.notify(line, title="relay.log", severity="error", markup=False, timeout=15)
        snapshot = self.link.take()
        if snapshot is not None:
            self._take(snapshot)
        if self.link.live:
            every = PROGRESS_EVERY if self._busy else OPERATIONS_EVERY
            if time.monotonic() - self._asked >= every:
                self.ask_operations()
        if not self.paused_screen:
            self._draw_frame()
            self.place.tick()

    def _take(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        self.status = snapshot.status or self.status
        self._keep(snapshot.events)
        if self.paused_screen:
            self._missed += len(snapshot.events) + snapshot.missed
            return
        if snapshot.status:
            self.overview.take(snapshot.status)
        if before is None or before.live != snapshot.live:
            for place in self._places():
                (place.live if snapshot.live else place.lost)()
            if snapshot.live:
                self._asked = float("-inf")
                if before is not None and before.heard:
                    self.flash(f"connected again, after {words.age(time.time() - before.changed)}")

    def _places(self) -> Iterator[Place]:
        yield from self.panes.values()
        yield from (screen for screen in self.screen_stack[1:] if is_place(screen))

    def query_main(self, kind: type[Shown]) -> Shown:
        """The pane of a kind, whatever screen is on top."""
        return next(pane for pane in self.panes.values() if isinstance(pane, kind))

    def ask_operations(self) -> None:
        """Ask for operations, beside."""
        self._asked = time.monotonic()
        self.run_worker(self.read_operations, group="operations", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    async def read_operations(self) -> None:
        """Operations, and the latency of a small request."""
        try:
            self.operations = await self.link.lines(f"/v1/operations?limit={OPERATIONS}")
            await self.link.call("GET", "/v1/status", timed=True)
        except VerbError:
            pass  # the link tells when it is lost; an older relay knows no operations

    # -- drawing the frame -------------------------------------------------------------------------------------------

    def _draw_frame(self) -> None:
        now, width, live = time.time(), self.size.width, self.link.live
        written = self._driver.written if isinstance(self._driver, Meter) else 0
        link = head.link_text(self.link.latency, self._gauge.read(written))
        progress = self._progress()
        status = status_line(
            self.status, width=width, now=now, live=live, link=link, glyphs=self.glyphs, progress=progress
        )
        banner = head.banner(
            self._snapshot,
            live=live,
            paused=str(self.status.get("paused") or ""),
            paused_screen=self.paused_screen,
            missed=self._missed,
            read_only=bool(self.read_only),
            now=now,
        )
        tabs = tab_line(
            self.PANES,
            self._shown,
            banner,
            width=width,
            right=self._undo_clock(now) or ("LIVE" if live else ""),
            now=datetime.fromtimestamp(now).astimezone(),
        )
        for screen in self.screen_stack:
            screen.set_class(not live and bool(self.status), "-lost")
            for line in screen.query(StatusLine):
                line.set_lines([status])
            for strip in screen.query(TabStrip):
                strip.set_lines([tabs])

    def _undo_clock(self, now: float) -> str:
        """How long the own last operation can still be undone."""
        for one in self.operations:
            until = words.moment(one.get("undo_until"))
            if until is not None and until - now <= CLOCK and self.is_mine(one) and undoable(one, now):
                return f"z undo {words.age(until - now)}"
        return ""

    def _progress(self) -> str:
        """What the own action that runs has done so far."""
        if not self._busy:
            return ""
        running = next((one for one in self.operations if one.get("state") == "running"), None)
        if running is None:
            return self._busy + "..."
        return f"{self._busy} {words.count(running.get('done') or 0)}/{words.count(running.get('asked') or 0)}"

    # -- what panes and screens use ----------------------------------------------------------------------------------

    def refusal(self) -> str:
        """Why no verb can be run now; "" if one can."""
        if self.read_only:
            return f"read-only: {self.read_only}"
        if not self.link.live:
            problem = self._snapshot.problem if self._snapshot else "not connected yet"
            return f"not now: {problem}"
        return ""

    def run_verb(
        self,
        verb: str,
        *,
        set: str | None = None,
        query: str | None = None,
        ids: Sequence[str] | None = None,
        args: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> Worker[dict[str, Any] | None]:
        """See the module's docstring."""
        work = actions.act(self, verb, set=set, query=query, ids=ids, args=args, reason=reason)
        return self.run_worker(work, group="verbs", exit_on_error=False)

    async def ask(self, dialog: Dialog[Answer]) -> Answer | None:
        """The answer to a dialog; None while another one waits, or is on its way: two never lie on each other."""
        if self._asking:
            return None
        self._asking = True
        try:
            return await self.push_screen_wait(dialog)
        finally:
            self._asking = False

    def begin(self, what: str) -> None:
        """An action runs."""
        self._busy = what
        self._asked = time.monotonic()

    def end(self) -> None:
        self._busy = ""

    def done(self, verb: str, answer: Mapping[str, Any], *, undo: bool) -> None:
        """An action is done: tell, and let everybody look again."""
        if answer.get("operation"):
            self._own.append(str(answer["operation"]))
        text = actions.result_text(verb, answer, undo=undo)
        self.flash(text)
        self.ask_operations()
        for place in self._places():
            place.acted(verb, answer)

    def flash(self, text: str, *, error: bool = False) -> None:
        """One line at the bottom of the screen."""
        said = clean(text)
        for screen in self.screen_stack:
            for line in screen.query(BottomLine):
                line.flash(said, error=error)

    def push_message(self, id: str, ids: Sequence[str] | None = None, *, view: str = "") -> None:
        """Open a message; `ids` are its neighbours for J and K; `view` is the tab to show."""
        from mailtui.console.message.screen import MessageScreen

        self.push_screen(MessageScreen(id, ids, tab=view or "why"))

    def show_pane(self, name: str) -> None:
        """Show a pane, from wherever."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if name != self._shown:
            self._last_pane, self._shown = self._shown, name
            self.screen_stack[0].query_one("#panes", ContentSwitcher).current = name
        self.screen_stack[0].query_one(FooterKeys).show(self.pane.SCOPE)
        focusable = next((widget for widget in self.pane.query("*") if widget.focusable), None)
        if focusable is not None:
            self.screen_stack[0].set_focus(focusable)  # now, and not after the next key
        self.pane.tick()
        self._draw_frame()

    def show_queue(self, query: str) -> None:
        """The queue, filtered."""
        self.show_pane("queue")
        self.queue.show(query)

    def dispose_menu(self, **selection: Any) -> None:
        """`x`: bounce or delete."""
        self._ask(lambda: menus.dispose(self, selection))

    def defer_dialog(self, **selection: Any) -> None:
        """`i`: try in ..."""
        self._ask(lambda: menus.defer(self, selection))

    def hold_or_release(self, states: Collection[str], **selection: Any) -> None:
        """`o`: by the states of what is chosen; a mixed set, or one that is not known, asks."""
        self._ask(lambda: menus.hold_or_release(self, states, selection))

    def suspend_dialog(self, name: str, suspended: bool) -> None:
        """`o` on a destination or next hop."""
        self._ask(lambda: menus.suspend(self, name, suspended))

    def sort_menu(self, current: str, reverse: bool, chosen: Callable[[str, bool], None]) -> None:
        """`s`; `chosen` gets the field and whether it is reversed."""
        self.run_worker(menus.sort(self, current, reverse, chosen), group="menu", exit_on_error=False)

    def _ask(self, menu: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Show a menu, if what it offers can be done now."""
        if problem := self.refusal():
            self.flash(problem, error=True)
        else:
            self.run_worker(menu(), group="menu", exit_on_error=False)

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
            self.flash(f"{words.count(self._missed)} events came while the screen was paused")
            if self._snapshot is not None:
                self._take(self._snapshot)
        self._missed = 0
        self._draw_frame()

    def action_mouse(self) -> None:
        if isinstance(self._driver, Meter):
            self._mouse = not self._mouse
            self._driver.set_mouse(self._mouse)
            self.flash("the mouse is the console's" if self._mouse else "the mouse is the terminal's: it selects text")

    def action_redraw(self) -> None:
        self.screen.refresh(layout=True)
        self.refresh(repaint=True, layout=True)

    def action_leave_hint(self) -> None:
        self.flash("q q leaves the console; the relay goes on")

    def action_undo(self) -> None:
        self._ask(lambda: menus.undo_last(self))

    def action_operations(self) -> None:
        self.run_worker(menus.operations(self), group="menu", exit_on_error=False)

    def is_mine(self, operation: Mapping[str, Any]) -> bool:
        """True for an operation of this console, or of its user."""
        return str(operation.get("operation")) in self._own or operation.get("who") == self._user

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
        self._watchdog = Watchdog(self._lost_terminal)
        self._watchdog.start()
        on_hangup(self._lost_terminal)
        if self.supervisor is not None:
            self.supervisor.watch()
        try:
            return self.run(mouse=self._mouse) or "leave"
        finally:
            self._watchdog.stop()

    def _lost_terminal(self) -> None:
        """From a signal handler or a thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.exit, "leave")

    def on_unmount(self) -> None:
        self.link.stop()


def _user() -> str:
    """Who we are in the journal: the relay names its peers so."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
