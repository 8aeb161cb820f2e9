"""The lines around every pane: status above, tabs or a banner, one line for messages and typing, keys below."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Input

from mailtui.console import keys, words
from mailtui.console.glyphs import Glyphs
from mailtui.console.widgets.lines import Lines, Spans

if TYPE_CHECKING:
    from mailtui.console.app import Console

# After the last key of a filter, before it is asked for: a fast typist makes one question of a word.
DEBOUNCE = 0.15


def status_line(
    status: Mapping[str, Any], *, width: int, now: float, live: bool, link: str, glyphs: Glyphs, progress: str = ""
) -> Spans:
    """Whose relay, since when, how much: what fits into `width` cells."""
    host = str(status.get("hostname") or "relay")
    if width < 100:
        host = words.cut(host.partition(".")[0], 20, glyphs.ellipsis)
    queue = status.get("queue") or {}
    up = words.since(status.get("since"), now)
    up = up.partition("d")[0] + "d" if "d" in up else up
    spans: list[tuple[str, str]] = [
        (" mailtui ", "title"),
        (host + " ", "strong"),
        (glyphs.dot if live else glyphs.off, "good" if live else "bad"),
        (f" up {up} " if live else " lost ", "" if live else "bad"),
    ]
    bar = (f"{glyphs.bar} ", "dim")
    pieces: list[tuple[str, str]] = []
    if progress:
        pieces.append((progress, "warn"))
    short = (("q", "recipients"), ("act", "active"), ("def", "deferred"), ("hold", "held"))
    counts = [f"{name} {words.count(int(queue.get(key) or 0))}" for name, key in short]
    if queue.get("leaving"):
        counts.append(f"leave {words.count(int(queue['leaving']))}")
    pieces.append((" ".join(counts), ""))
    if width >= 130:
        rates = status.get("rates") or {}
        names = (("in", "accepted"), ("out", "delivered"), ("4xx", "deferred"), ("5xx", "bounced"))
        pieces.append(
            (" ".join(f"{name} {words.count(int(rates.get(f'{key}_1m') or 0))}/m" for name, key in names), "")
        )
    pieces.append((link, "dim"))
    left = width - sum(words.cells(text) for text, _ in spans)
    for text, role in pieces:
        cost = words.cells(text) + 3
        if text and cost <= left + 1:  # the last blank may fall off the edge
            spans += [bar, (text + " ", role)]
            left -= cost
    return spans


class StatusLine(Lines):
    """The first line of every screen. The frame writes it."""

    def __init__(self) -> None:
        super().__init__([[]])


class TabStrip(Lines):
    """Panes, or what must not be overlooked, and the clock."""

    def __init__(self) -> None:
        super().__init__([[]])


def tab_line(
    panes: Sequence[tuple[str, str]], shown: str, banner: str, *, width: int, right: str, now: datetime
) -> Spans:
    """`banner`, if any, in place of the tabs, which follow it as far as there is room."""
    clock = f"{right}  {now.strftime('%H:%M')} {now.tzname() or ''} ".rstrip() + " "
    left = max(0, width - words.cells(clock))
    spans: list[tuple[str, str]] = []
    if banner:
        said = words.cut(f" {banner} ", left)
        spans.append((said, "banner"))
        left -= words.cells(said)
    for key, name in panes:
        tab = f" {key} {name.upper() if name == shown else name} "
        if words.cells(tab) <= left:
            spans.append((tab, "title" if name == shown else "dim"))
            left -= words.cells(tab)
    return [*spans, (" " * left, ""), (clock, "dim")]


class Ground(Screen[None]):
    """The screen under everything. Its parts cover it: nothing of its own is drawn, and each frame asks."""

    BLANK = True


class Panes(ContentSwitcher):
    """One pane of all; covered by it."""

    BLANK = True


class FooterKeys(Lines):
    """The keys of a scope, as many as fit."""

    def __init__(self, scope: str = "overview") -> None:
        super().__init__([[]])
        self.scope = scope

    def show(self, scope: str) -> None:
        self.scope = scope
        self._draw()

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        spans: list[tuple[str, str]] = [(" ", "")]
        for key, label in keys.footer(self.scope, max(10, self.size.width)):
            spans += [(key, "key"), (f" {label}  ", "dim")]
        self.set_lines([spans])


class BottomLine(Widget):
    """What happened last; or a line to type on: `:` commands, `/` filters."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "leave", "Cancel"),
        ("up", "history(-1)", "Older"),
        ("down", "history(1)", "Newer"),
        ("tab", "complete", "Complete"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._changed: Callable[[str], None] | None = None
        self._done: Callable[[str | None], None] = lambda text: None
        self._history: list[str] = []
        self._at = 0
        self._draft = ""
        self._complete: Callable[[str], list[str]] | None = None
        self._matches: list[str] = []
        self._timer: Timer | None = None
        self._before: Widget | None = None

    @property
    def console(self) -> "Console":
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield Lines([[]], id="flash")
        with Horizontal(id="entry"):
            yield Lines([[]], id="prompt")
            yield Input(id="line", compact=True)

    def flash(self, text: str, *, error: bool = False) -> None:
        """Say it, in place of what was said before."""
        self.query_one("#flash", Lines).set_lines([[(f" {text}", "bad" if error else "")]])

    def ask(
        self,
        prompt: str,
        value: str,
        done: Callable[[str | None], None],
        *,
        changed: Callable[[str], None] | None = None,
        history: list[str] | None = None,
        complete: Callable[[str], list[str]] | None = None,
    ) -> None:
        """Let a line be typed. `done` gets it, or None."""
        if not self.typing:
            self._before = self.screen.focused
        self._done, self._changed, self._complete = done, None, complete
        self._history = history if history is not None else []
        self._at, self._draft = len(self._history), value
        self.query_one("#prompt", Lines).set_lines([[(f" {prompt}", "key")]])
        self.add_class("typing")
        line = self.query_one("#line", Input)
        with line.prevent(Input.Changed):
            line.value = value
        line.cursor_position = len(value)
        self.screen.set_focus(line)  # now: the next key is typed here
        self._changed = changed

    @property
    def typing(self) -> bool:
        return self.has_class("typing")

    def _end(self, text: str | None) -> None:
        if not self.typing:
            return
        if self._timer is not None:
            self._timer.stop()
        self.remove_class("typing")
        if self._before is not None and self._before.is_attached:
            self._before.focus()
        else:
            self.screen.set_focus(None)
        done, self._done = self._done, lambda text: None
        if text and (not self._history or self._history[-1] != text):
            self._history.append(text)
        done(text)

    def action_leave(self) -> None:
        self._end(None)

    @on(Input.Submitted, "#line")
    def _given(self, event: Input.Submitted) -> None:
        event.stop()
        self._end(event.value)

    @on(Input.Changed, "#line")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self._timer is not None:
            self._timer.stop()
        if self._changed is not None:
            changed, text = self._changed, event.value
            self._timer = self.set_timer(DEBOUNCE, lambda: changed(text) if self.typing else None)

    def action_history(self, step: int) -> None:
        if not self._history:
            return
        line = self.query_one("#line", Input)
        if self._at == len(self._history):
            self._draft = line.value
        self._at = max(0, min(len(self._history), self._at + step))
        line.value = self._draft if self._at == len(self._history) else self._history[self._at]
        line.cursor_position = len(line.value)

    def action_complete(self) -> None:
        """The longest beginning that all matches share; pressed again, the next match."""
        if self._complete is None:
            return
        line = self.query_one("#line", Input)
        if line.value.strip() in self._matches and len(self._matches) > 1:
            index = (self._matches.index(line.value.strip()) + 1) % len(self._matches)
            line.value = self._matches[index] + " "
        else:
            self._matches = self._complete(line.value)
            if not self._matches:
                return
            common = self._matches[0]
            for name in self._matches:
                while not name.startswith(common):
                    common = common[:-1]
            longer = len(common) > len(line.value.strip())
            line.value = common + " " if len(self._matches) == 1 else common if longer else self._matches[0] + " "
        line.cursor_position = len(line.value)
