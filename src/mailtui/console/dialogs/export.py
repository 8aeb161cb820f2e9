"""The export dialog: which rows, as what, into which file; then how far it is.

Promises: the command line that repeats it stands there before anything is written; a path that is there already is
refused while it can still be changed; Esc leaves, also while it writes. Its result is what there is to say.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input

from mailtui.console import export, words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.export import Progress, Scope
from mailtui.console.glyphs import Glyphs
from mailtui.console.widgets.lines import Lines, Spans
from mailtui.control import files
from mailtui.control.errors import VerbError

Write = Callable[[Scope, str, str, Progress], Awaitable[str]]

# (key, format, what it is)
FORMATS = (
    ("j", "jsonl", "JSON Lines, a row a line, for scripts"),
    ("c", "csv", "CSV for a spreadsheet; ' before what it would calculate"),
    ("e", "eml", "messages: a directory of .eml, an envelope .json beside each"),
)

# How often the progress is drawn, in seconds, and its bar's cells.
DRAWN, _BAR = 0.25, 20

# Lines that a command line may take.
_LINES = 4


class ExportDialog(Dialog[str]):
    """`write` does it. With one scope only there is nothing to choose there; `format` is the one chosen at first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *((scope, f"scope('{scope}')", "Which") for scope in ("v", "m", "a")),
        *((key, f"format('{name}')", "As") for key, name, _ in FORMATS),
        ("enter", "write", "Write"),
        ("q", "leave", "Cancel"),
    ]

    def __init__(self, scopes: Sequence[Scope], write: Write, glyphs: Glyphs, *, format: str = "jsonl") -> None:
        super().__init__()
        self._scopes = scopes
        self._write_it = write
        self._glyphs = glyphs
        self._now = time.time()
        self.scope = next((scope for scope in scopes if scope.key == "m"), scopes[-1])
        self.format = format
        self.progress: Progress | None = None  # while it writes
        self._default = export.default_name(format, self._now)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Lines(self._choices(), id="choices")
            with Horizontal(id="to"):
                yield Lines([[("To", "dim")]])
                yield Input(self._default, placeholder="path", id="path", compact=True, select_on_focus=False)
            yield Lines(self._command(), id="command")
            yield Lines(self._hint(), id="hint")

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = self.title_of("Export")
        self.set_interval(DRAWN, self._draw_progress)

    @property
    def _path(self) -> Input:
        return self.query_one("#path", Input)

    def _choices(self) -> list[Spans]:
        scopes = [(scope.key, scope.label, scope is self.scope) for scope in self._scopes]
        formats = [(key, label, name == self.format) for key, name, label in FORMATS]
        return [*self._group("Which", scopes), [], *self._group("As", formats)]

    def _group(self, name: str, rows: Sequence[tuple[str, str, bool]]) -> list[Spans]:
        width = self.room - 12
        return [
            [(words.fit("" if at else name, 7), "dim"), (f"{key}  ", "key"),
             (words.fit(f" {label}", width, mark=self._glyphs.ellipsis), "cursor" if chosen else "")]
            for at, (key, label, chosen) in enumerate(rows)
        ]  # fmt: skip

    def _command(self) -> list[Spans]:
        path = self._path.value if self.is_mounted else self._default
        command, note = export.command_line(self.scope, self.format, path)
        lines = list(words.wrap(command, self.room - 2))
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], words.cut(lines[_LINES - 1], self.room - 3, "") + self._glyphs.ellipsis]
        found: list[Spans] = [[("  " if at else "$ ", "dim"), (line, "key")] for at, line in enumerate(lines)]
        return [[], *found, *([[(f"  {note}", "dim")]] if note else [])]

    def _hint(self, problem: str = "") -> list[Spans]:
        if problem:
            return [[(line, "bad")] for line in words.wrap(problem, self.room)]
        return [
            [("Tab", "key"), (" path   ", ""), ("Enter", "key"), (" writes   ", ""), ("Esc", "key"), (" leaves", "")]
        ]

    def _draw(self, problem: str = "") -> None:
        self.query_one("#choices", Lines).set_lines(self._choices())
        self.query_one("#command", Lines).set_lines(self._command())
        self.query_one("#hint", Lines).set_lines(self._hint(problem))

    def _draw_progress(self) -> None:
        if self.progress is not None:
            self.query_one("#hint", Lines).set_lines([self._progress_line(self.progress)])

    def _progress_line(self, progress: Progress) -> Spans:
        if progress.stopped.is_set():
            return [("leaving ...", "warn")]
        full = _BAR * min(progress.done + progress.gone, progress.total) // max(1, progress.total)
        of = f" {words.count(progress.done)} of {words.amount(progress.total, progress.unit)}"
        return [
            (self._glyphs.block * full, "good"), (self._glyphs.rule * (_BAR - full), "dim"), (of, "strong"),
            (f", {words.size(progress.octets)}B   ", ""), ("Esc", "key"), (" leaves", ""),
        ]  # fmt: skip

    # Keys

    def action_scope(self, key: str) -> None:
        chosen = next((scope for scope in self._scopes if scope.key == key), None)
        if chosen is not None and self.progress is None:
            self.scope = chosen
            self._draw()

    def action_format(self, name: str) -> None:
        """Another format; the end of a name that was not typed goes with it."""
        if self.progress is not None or not self.ready:
            return
        untouched = self._path.value == self._default
        self.format, self._default = name, export.default_name(name, self._now)
        if untouched:
            self._path.value = self._default
        self._draw()

    @on(Input.Changed, "#path")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self.progress is None:
            self._draw()

    @on(Input.Submitted, "#path")
    def _given(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_write()

    def action_write(self) -> None:
        if self.progress is not None or not self.ready:
            return
        text = self._path.value
        problem = export.problem_of(text, self.format)
        if problem:
            self._draw(problem)
            return
        self.progress = Progress(total=self.scope.count)
        self._path.disabled = True
        self._draw_progress()
        self.run_worker(self._work(text), group="export", exit_on_error=False)

    def action_leave(self) -> None:
        if self.progress is None:
            self.dismiss(None)
        else:  # what runs notices, tidies up, and ends the dialog
            self.progress.stopped.set()
            self._draw_progress()

    async def _work(self, text: str) -> None:
        progress = self.progress
        assert progress is not None
        try:
            said = await self._write_it(self.scope, self.format, text, progress)
        except files.Left:
            self.dismiss(_left(progress, self.format))
        except VerbError as error:
            self._failed(error.text)
        except OSError as error:
            self._failed(f"{error.filename or text}: {error.strerror}")
        else:
            self.dismiss(f"exported {said}")

    def _failed(self, problem: str) -> None:
        """Say it; another path may do."""
        self.progress = None
        self._path.disabled = False
        self._draw(problem)


def _left(progress: Progress, format: str) -> str:
    if format == "eml":
        return f"left: {words.amount(progress.done, 'message')} written, each of them whole"
    return "left: nothing is kept of it"
