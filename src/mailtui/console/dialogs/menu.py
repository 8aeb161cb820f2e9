"""Small dialogs: a menu whose entries have keys, and a question with a line to write on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import Input

from mailtui.console import words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.widgets.lines import Lines, Spans


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a menu. `value` is the answer; `off` says why it cannot be chosen now."""

    key: str
    label: str
    value: Any
    off: str = ""


class Menu(Dialog[Any]):
    """Keys choose at once; arrows and Enter too. Esc gives None. Most destructive entries stand last."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("down,j", "move(1)", "Down"),
        ("up,k", "move(-1)", "Up"),
        ("enter", "choose", "Choose"),
    ]

    def __init__(self, title: str, entries: Sequence[Entry], *, chosen: int = 0, note: str = "") -> None:
        super().__init__()
        self._title = title
        self._entries = entries
        self._at = chosen
        self._note = note

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Lines(self._drawn(), id="entries")

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = self.title_of(self._title)

    def _drawn(self) -> list[Spans]:
        lines: list[Spans] = []
        for index, entry in enumerate(self._entries):
            label = f"{entry.label}   ({entry.off})" if entry.off else entry.label
            role = "cursor" if index == self._at else "dim" if entry.off else ""
            lines.append([(f" {entry.key}  ", "key"), (words.fit(label, self.room - 5), role)])
        lines += [[], *[[(line, "dim")] for line in words.wrap(self._note, self.room)]] if self._note else []
        return lines

    def action_move(self, step: int) -> None:
        self._at = (self._at + step) % len(self._entries)
        self.query_one(Lines).set_lines(self._drawn())

    def action_choose(self) -> None:
        self._choose(self._entries[self._at])

    def on_key(self, event: events.Key) -> None:
        for entry in self._entries:
            if event.character == entry.key:
                event.stop()
                event.prevent_default()
                self._choose(entry)
                return

    def _choose(self, entry: Entry) -> None:
        if not entry.off and self.ready:
            self.dismiss(entry.value)


class Ask(Dialog[str]):
    """One line to write on; `check` returns what is wrong with it, "" if nothing."""

    def __init__(self, title: str, prompt: str, value: str = "", check: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._title = title
        self._prompt = prompt
        self._value = value
        self._check = check

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Lines([[(line, "")] for line in words.wrap(self._prompt, self.room)])
            yield Input(self._value, id="answer", compact=True, select_on_focus=True)
            yield Lines(self._hint(), id="hint")

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = self.title_of(self._title)
        self.query_one(Input).focus()

    def _hint(self, problem: str = "") -> list[Spans]:
        return [
            [(problem, "bad")] if problem else [("Enter", "key"), (" goes on   ", ""), ("Esc", "key"), (" cancels", "")]
        ]

    @on(Input.Submitted)
    def _given(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        problem = self._check(text) if self._check else "" if text else "nothing is written"
        if problem:
            self.query_one("#hint", Lines).set_lines(self._hint(words.cut(problem, self.room)))
        elif self.ready:
            self.dismiss(text)
