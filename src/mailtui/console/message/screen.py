"""The screen of one message: tabs on a small terminal, all of them at once on a wide one.

Promises: what cannot be read says so in the place where it would stand, and the rest is shown; a message that leaves
the queue while it is looked at says what became of it; every verb acts on the recipient (or message) that was opened.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from mailtui.console import copying, words
from mailtui.console.copying import Copy
from mailtui.console.export import Scope
from mailtui.console.message.facts import Facts
from mailtui.console.message.paper import Paper
from mailtui.console.panes.frozen import FrozenSet
from mailtui.console.present import Line
from mailtui.console.present.attempts import attempt_lines, dialogue_lines, tls_lines
from mailtui.console.present.content import body_lines, header_lines, hex_lines, raw_lines
from mailtui.console.present.rows import WIDE
from mailtui.console.present.text import paragraph, plain, shorten, title
from mailtui.console.present.trace import slow_title, trace_lines
from mailtui.console.present.why import why_and_attempts, why_lines
from mailtui.console.widgets.frame import BottomLine, FooterKeys, StatusLine
from mailtui.console.widgets.lines import Lines
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console

# The tabs in their order, with the key of each and the facts that it is written from.
TABS: dict[str, tuple[str, tuple[str, ...]]] = {
    "why": ("w", ("why", "message")),
    "trace": ("t", ("trace",)),
    "attempts": ("a", ("message",)),
    "headers": ("m", ("message",)),
    "body": ("b", ("message", "content")),
    "tls": ("L", ("message",)),
}

# Where the sheets stand on a wide screen, from the top; `tls` takes the place of the trace when it is asked for.
LEFT, RIGHT = ("why", "attempts", "headers"), ("trace", "tls", "body")

# How often the reason is read again while it is looked at, in seconds.
RENEW = 5.0

# Cells of a line of the trace that is copied.
TAKEN = 100

# Ways to look at the body, in the order in which `B` goes through them.
LOOKS = ("text", "raw", "hex")


class MessageScreen(Screen[tuple[FrozenSet, int] | None]):
    """Shows the message of `id` (an id or rid). `ids`, or a place in a frozen set, are what J and K go through.

    Its result is the set and the place in it that J and K came to, for the table to follow."""

    SCOPE = "message"
    DEFAULT_CSS = """
    MessageScreen { layout: vertical; }
    MessageScreen .side { width: 1fr; height: 1fr; }
    MessageScreen #sheets { height: 1fr; }
    MessageScreen Paper { display: none; }
    MessageScreen Paper.shown { display: block; }
    MessageScreen .heading { height: 1; display: none; }
    MessageScreen.-all .heading.shown { display: block; }
    MessageScreen.-all #left { width: 3fr; }
    MessageScreen.-all #right { width: 2fr; padding: 0 0 0 1; }
    MessageScreen.-all #why, MessageScreen.-all #trace, MessageScreen.-all #tls { height: auto; max-height: 45%; }
    MessageScreen.-all #attempts { height: auto; max-height: 30%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key if key != "L" else "L,upper_l", f"tab('{name}')", show=False) for name, (key, _) in TABS.items()),
        Binding("tab", "turn(1)", show=False),
        Binding("shift+tab", "turn(-1)", show=False),
        Binding("B,upper_b", "look", show=False),
        Binding("J,upper_j", "go(1)", show=False),
        Binding("K,upper_k", "go(-1)", show=False),
        Binding("ctrl+r", "reload", show=False),
        Binding("escape,q", "back", show=False),
        Binding("r", "verb('queue.retry')", show=False),
        Binding("i", "defer", show=False),
        Binding("o", "hold", show=False),
        Binding("x", "dispose", show=False),
        Binding("y", "copy", show=False),
        Binding("e", "export", show=False),
    ]

    def __init__(self, id: str, ids: Sequence[str] | None = None, *, tab: str = "why",
                 neighbours: tuple[FrozenSet, int] | None = None,
                 now: Callable[[], float] = time.time) -> None:  # fmt: skip
        super().__init__()
        self.message_id = id
        self.ids = list(ids or ())
        self.neighbours = neighbours
        self.tab = tab if tab in TABS else "why"
        self.now = now
        self.look = LOOKS[0]
        self.dialogue: int | None = None  # the attempt whose dialogue is shown
        self.facts: Facts | None = None
        self.problems: dict[str, str] = {}  # by fact: why it could not be read
        self._renewed = 0.0

    @property
    def console(self) -> "Console":
        """The app, which is the frame."""
        return cast("Console", self.app)

    def compose(self) -> ComposeResult:
        yield StatusLine()
        yield Lines([[]], id="crumb")
        yield Lines([[]], id="message-tabs")
        with Horizontal(id="sheets"):
            for side, names in (("left", LEFT), ("right", RIGHT)):
                with Vertical(id=side, classes="side"):
                    for name in names:
                        yield Lines([[]], id=f"heading-{name}", classes="heading")
                        yield Paper(id=name)
        yield BottomLine()
        yield FooterKeys(self.SCOPE)

    def on_mount(self) -> None:
        self._open(self.message_id)

    def _open(self, id: str) -> None:
        self.message_id, self.dialogue = id, None
        self.facts, self.problems = Facts(self.console.link, id), {}
        self._arrange()
        self._load()

    @property
    def wide(self) -> bool:
        return bool(self.app.size.width >= WIDE)

    def _shown(self) -> list[str]:
        """The tabs whose sheets are seen."""
        if not self.wide:
            return [self.tab]
        return [*LEFT, "tls" if self.tab == "tls" else "trace", "body"]

    def _arrange(self) -> None:
        """Show the sheets that the width and the tab ask for."""
        shown = self._shown()
        self.set_class(self.wide, "-all")
        for name in TABS:
            self.query_one(f"#{name}", Paper).set_class(name in shown, "shown")
            self.query_one(f"#heading-{name}", Lines).set_class(name in shown, "shown")
        for side, names in (("#left", LEFT), ("#right", RIGHT)):
            self.query_one(side).display = any(name in shown for name in names)
        self.set_focus(self.query_one(f"#{self.tab}", Paper))  # at once: the next key may be there already
        self._write_frame()

    # Reading

    def _load(self, *, again: bool = False) -> None:
        self.run_worker(partial(self._read, again), group="facts", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    async def _read(self, again: bool) -> None:
        facts = self.facts
        assert facts is not None
        self._renewed = time.monotonic()
        done: set[str] = set()
        for name in sorted(self._shown(), key=lambda name: name != self.tab):
            for fact in TABS[name][1]:
                if fact in done:
                    continue
                done.add(fact)
                try:
                    if again and fact != "content":
                        self.problems.pop(fact, None)
                    await facts.read(fact, again=again and fact != "content")
                except VerbError as error:
                    self.problems[fact] = error.text
            if facts is self.facts:
                await self._write(name)
        self._write_frame()

    async def _write(self, name: str) -> None:
        """Write one sheet from what is known."""
        facts, paper = self.facts, self.query_one(f"#{name}", Paper)
        assert facts is not None
        problem = next((self.problems[fact] for fact in TABS[name][1] if fact in self.problems), "")
        if not all(fact in facts.known for fact in TABS[name][1]):
            paper.write([[(problem, "warn")]])
            return
        width, now, glyphs = paper.width, self.now(), self.console.glyphs
        choices: Sequence[int] = ()
        message = facts.message
        lines: list[Line]
        if name == "why":
            write = why_lines if self.wide else why_and_attempts
            lines = write(facts.why, message, width, now, glyphs)
        elif name == "trace":
            lines = trace_lines(facts.trace, width, now, glyphs)
        elif name == "attempts":
            lines, choices = self._attempts(width, now)
        elif name == "headers":
            lines = header_lines(message.get("headers", ()), width)
        elif name == "tls":
            lines = tls_lines(facts.attempts, width, now)
        else:
            render = {"text": body_lines, "raw": raw_lines, "hex": hex_lines}[self.look]
            # Beside the loop: what strangers wrote may take its time to be taken apart.
            lines = await asyncio.to_thread(render, facts.content, int(message.get("size") or 0), width)
        if facts is self.facts:
            # What was known before stays below the reason why it may not be so any more.
            above = [*paragraph(problem, width, "warn"), []] if problem else []
            paper.write([*above, *lines], [len(above) + line for line in choices])

    def _attempts(self, width: int, now: float) -> tuple[list[Line], Sequence[int]]:
        facts = self.facts
        assert facts is not None
        if self.dialogue is not None and self.dialogue < len(facts.dialogues):
            return dialogue_lines(facts.dialogues[self.dialogue], width, now, self.console.glyphs), ()
        lines = attempt_lines(facts.attempts, width, now, self.console.glyphs)
        return lines, range(1, len(lines))

    def _write_frame(self) -> None:
        """The crumb, the tabs, and the headings of a wide screen."""
        if not self.is_mounted or self.facts is None:
            return
        width, glyphs = self.app.size.width, self.console.glyphs
        place = self._place_words()
        keys = "K prev  J next " if place else ""
        right = f"{place}   {keys}"
        left = shorten([(" Queue > ", "dim"), (self.message_id, "strong")], width - len(right), glyphs.ellipsis)
        space = width - len(right) - sum(words.cells(text) for text, _ in left)
        self.query_one("#crumb", Lines).set_lines([[*left, (" " * space, ""), (right, "dim")]])
        row = self.here()
        arrived = words.moment(row.get("arrived"))
        state = f"{row['state']} {words.age(self.now() - arrived)} " if row.get("state") and arrived else ""
        tabs: Line = [(" ", "")]
        for name in TABS:
            tabs.append((f" {name.upper() if name == self.tab else name} ", "title" if name == self.tab else "dim"))
        space = width - len(state) - sum(words.cells(text) for text, _ in tabs)
        self.query_one("#message-tabs", Lines).set_lines([[*tabs, (" " * max(0, space), ""), (state, "")]])
        if self.wide:
            for name, (key, _) in TABS.items():
                heading = self.query_one(f"#heading-{name}", Lines)
                cells = max(20, self.query_one(f"#{name}", Paper).size.width)
                line = title(name.upper(), cells, glyphs.rule, key)
                heading.set_lines([slow_title(self.facts.trace, cells, glyphs) if name == "trace" else line])

    def _place_words(self) -> str:
        if self.neighbours is not None:
            frozen, place = self.neighbours
            return f"{words.count(place + 1)} of {words.count(frozen.count)}"
        if self.message_id in self.ids:
            return f"{self.ids.index(self.message_id) + 1} of {words.count(len(self.ids))}"
        return ""

    @on(Paper.Resized)
    async def _resized(self, event: Paper.Resized) -> None:
        event.stop()
        if self.facts is not None:
            for name in self._shown():
                if all(fact in self.facts.known or fact in self.problems for fact in TABS[name][1]):
                    await self._write(name)
            self._write_frame()

    def on_resize(self, event: events.Resize) -> None:
        if self.facts is not None and self.wide != self.has_class("-all"):
            self._arrange()
            self._load()

    # What the frame asks

    def selection(self) -> dict[str, Any]:
        """The recipient or message that was opened."""
        return {"ids": [self.message_id]}

    def here(self) -> dict[str, Any]:
        """Names of the recipient that was opened, else of the first."""
        rows = self.facts.message.get("recipients", ()) if self.facts is not None else ()
        row = next((row for row in rows if row.get("rid") == self.message_id), None)
        return dict(row or next(iter(rows), {}))

    def acted(self, verb: str, answer: Mapping[str, Any]) -> None:
        self._load(again=True)

    def tick(self) -> None:
        if not self.console.paused_screen and self.console.link.live and time.monotonic() - self._renewed >= RENEW:
            self._load(again=True)
            if self.neighbours is not None:
                # The relay drops a set that nobody reads for a minute, and the table below is not read meanwhile.
                frozen, place = self.neighbours
                self.run_worker(partial(frozen.rows, place, 1), group="keep", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    def lost(self) -> None:
        """What stands here is as it was."""

    def live(self) -> None:
        self._load(again=True)

    def view(self, name: str) -> None:
        """Show a tab, by its name."""
        if name in TABS:
            self.action_tab(name)

    # Keys

    def action_tab(self, name: str) -> None:
        if name == self.tab == "attempts" and self.dialogue is not None:
            self.dialogue = None
        self.tab = name
        self._arrange()
        self._load()

    def action_turn(self, by: int) -> None:
        names = list(TABS)
        self.action_tab(names[(names.index(self.tab) + by) % len(names)])

    def action_look(self) -> None:
        """The body as text, as stored, in hex."""
        if self.tab == "body":
            self.look = LOOKS[(LOOKS.index(self.look) + 1) % len(LOOKS)]
        self.action_tab("body")

    def action_back(self) -> None:
        if self.dialogue is not None and self.tab == "attempts":
            self.dialogue = None
            self._load()
            return
        self.dismiss(self.neighbours)

    def action_reload(self) -> None:
        self._load(again=True)

    async def action_go(self, by: int) -> None:
        """The next or previous message of the set, or of the ids given."""
        if self.neighbours is not None:
            frozen, place = self.neighbours
            if not 0 <= place + by < frozen.count:
                self.console.flash("that was the last one" if by > 0 else "that was the first one")
                return
            try:
                rows = await frozen.rows(place + by, 1)
            except VerbError as error:
                self.console.flash(error.text, error=True)
                return
            if rows:
                self.neighbours = (frozen, place + by)
                self._open(str(rows[0]["rid"]))
        elif self.message_id in self.ids:
            place = self.ids.index(self.message_id) + by
            if 0 <= place < len(self.ids):
                self._open(self.ids[place])

    @on(Paper.Chosen)
    async def _chosen(self, event: Paper.Chosen) -> None:
        """The dialogue of an attempt."""
        event.stop()
        facts = self.facts
        assert facts is not None
        try:
            await facts.read("dialogues", again=True)
        except VerbError as error:
            self.console.flash(error.text, error=True)
            return
        if facts is self.facts:
            wanted = facts.attempts[event.number : event.number + 1]
            same = [
                number
                for number, one in enumerate(facts.dialogues)
                if wanted and (one.get("rid"), one.get("started")) == (wanted[0].get("rid"), wanted[0].get("started"))
            ]
            self.dialogue = same[0] if same else None
            await self._write("attempts")

    def action_verb(self, verb: str) -> None:
        self.console.run_verb(verb, **self.selection())

    def action_defer(self) -> None:
        self.console.defer_dialog(**self.selection())

    def action_dispose(self) -> None:
        self.console.dispose_menu(**self.selection())

    def action_hold(self) -> None:
        rows = self.facts.message.get("recipients", ()) if self.facts is not None else ()
        mine = [row for row in rows if row.get("rid") == self.message_id] or rows
        self.console.hold_or_release({str(row.get("state")) for row in mine}, **self.selection())

    def action_copy(self) -> None:
        """What the recipient has, and what the tab says; the trace at a width of its own, for a mail or a ticket."""
        facts, copies = self.facts, copying.of_row(row) if (row := self.here()) else []
        if facts is not None and self.tab == "trace" and "trace" in facts.known:
            lines = trace_lines(facts.trace, TAKEN, self.now(), self.console.glyphs)
            command = f"mailtui trace {self.message_id.partition('.')[0]}"
            copies.append(Copy("t", "trace", "\n".join([command, *(plain(line).rstrip() for line in lines)])))
        elif text := self.query_one(f"#{self.tab}", Paper).text.rstrip():
            copies.append(Copy("t", f"{self.tab}, as shown", text))
        self.console.copy_menu(copies)

    def action_export(self) -> None:
        """The recipient, or the message, that was opened."""
        rows = self.facts.message.get("recipients", ()) if self.facts is not None else ()
        count = 1 if "." in self.message_id else max(1, len(rows))
        self.console.export_dialog([Scope("a", f"{self.message_id}, as it is now", f"id:{self.message_id}", count)])
