"""The dialog before an action: what it touches, what it does, and the command line that does the same.

Promises: the default is Cancel; nothing is confirmed by the key that opened it, nor in the first 400 ms; where mail
would be lost the count is typed, or the recipient's domain for a single one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import Input

from mailtui.console import words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.widgets.lines import Lines, Spans

# Up to one recipient an undoable action is done at once.
AT_ONCE = 1
# Sample rows in the dialog.
SAMPLE = 5


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Yes, and why."""

    reason: str


def asks(preview: Mapping[str, Any]) -> str:
    """What has to be confirmed: "" (nothing), "Y" (the key), or the text to type."""
    recipients = int(preview.get("recipients") or 0)
    danger = preview.get("danger", "none")
    if danger == "lossy":
        sample = preview.get("sample") or []
        if recipients == 1 and sample:
            row = sample[0]
            return str(row.get("destination") or str(row.get("recipient", "")).rpartition("@")[2] or "1")
        return str(recipients)
    if danger == "world" or recipients > AT_ONCE:
        return "Y"
    return ""


def facts(preview: Mapping[str, Any], width: int, now: float, height: int = 20) -> list[Spans]:
    """The preview as at most `height` lines of at most `width` cells; the sample gives way first."""
    lines: list[Spans] = []
    recipients, messages = int(preview.get("recipients") or 0), int(preview.get("messages") or 0)
    if recipients or messages:
        parts = [f"{words.amount(recipients, 'recipient')} of {words.amount(messages, 'message')}"]
        parts.append(words.size(preview.get("bytes")) + "B" if preview.get("bytes") else "")
        parts.append(f"oldest {words.since(preview['oldest'], now)}" if preview.get("oldest") else "")
        destinations = preview.get("destinations")
        many = len(destinations) if isinstance(destinations, list) else destinations
        parts.append(words.amount(int(many), "destination") if isinstance(many, int) and many else "")
        lines.append([(", ".join(part for part in parts if part), "strong")])
    for effect in preview.get("effects") or ():
        lines += [[(line, "")] for line in words.wrap(str(effect), width)]
    seconds = preview.get("undo_seconds")
    if seconds:
        lines.append([(f"z undoes it for {words.age(float(seconds))}.", "")])
    for left in preview.get("left_out") or ():
        text = f"left out: {words.amount(int(left.get('recipients') or 0), 'recipient')}, {left.get('why', '')}"
        lines += [[(line, "warn")] for line in words.wrap(text, width)]
    if len(lines) > height:
        lines = [*lines[: height - 1], [("... more: the command line previews all of it", "dim")]]
    sample = list(preview.get("sample") or ())[: max(0, min(SAMPLE, height - len(lines) - 2))]
    if sample:
        lines.append([])
        half = max(12, width * 2 // 5)
        for row in sample:
            recipient = words.fit(str(row.get("recipient", "")), half)
            subject = str(row.get("subject") or "(no subject)")
            lines.append([(recipient, ""), (" ", ""), (words.cut(subject, width - half - 1), "dim")])
        if recipients > len(sample):
            lines.append([(f"and {words.count(recipients - len(sample))} more", "dim")])
    return lines


class ConfirmDialog(Dialog[Confirmed]):
    """`await push_screen_wait(ConfirmDialog(...))` gives Confirmed or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("Y", "confirm", "Do it"),
        ("enter", "leave", "Cancel"),
        ("q", "leave", "Cancel"),
    ]

    def __init__(self, title: str, preview: Mapping[str, Any], *, now: float, reason: str = "") -> None:
        super().__init__()
        self._title = title
        self._preview = preview
        self._now = now
        self._reason = reason
        self.asked = asks(preview) or "Y"

    @property
    def _typed(self) -> bool:
        return self.asked != "Y"

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            command = self._command()
            yield Lines(facts(self._preview, self.room, self._now, self._height - len(command)), id="facts")
            yield Lines(command, id="command")
            if self._typed:
                yield Input(
                    placeholder=f"type {self.asked} to confirm", id="typed", compact=True, select_on_focus=False
                )
            yield Input(
                self._reason, placeholder="reason, for the journal", id="reason", compact=True, select_on_focus=False
            )
            yield Lines(self._hint(), id="hint")

    @property
    def _height(self) -> int:
        """Lines for facts and command: the screen less the border, the fields and the hint, each with a line above."""
        return max(8, self.app.size.height - 2 - 2 * (3 if self._typed else 2))

    def _command(self) -> list[Spans]:
        command = str(self._preview.get("command") or "")
        lines = list(words.wrap(command, self.room - 2))
        if len(lines) > 3:  # a long list of ids: the command is in the journal as a whole
            lines = [*lines[:2], words.cut(lines[2] + " " * self.room, self.room - 2)]
        return [[], *[[("$ " if not index else "  ", "dim"), (line, "key")] for index, line in enumerate(lines)]]

    def _hint(self, problem: str = "") -> list[Spans]:
        if problem:
            return [[(problem, "bad")]]
        if self._typed:
            return [[(f"type {self.asked}", "key"), (" and Enter does it   ", ""), ("Tab", "key"), (" reason   ", ""),
                     (" Cancel ", "cursor"), (" Esc", "key")]]  # fmt: skip
        return [[("Y", "key"), (" does it   ", ""), ("Tab", "key"), (" reason   ", ""),
                 (" Cancel ", "cursor"), (" Enter, Esc", "key")]]  # fmt: skip

    def on_mount(self) -> None:
        box = self.query_one("#dialog")
        box.border_title = self.title_of(self._title)
        if self._typed:
            self.query_one("#typed").focus()

    @on(Input.Submitted, "#reason")
    def _reason_given(self) -> None:
        if not self._typed:
            self.set_focus(None)
        elif self._right(self.query_one("#typed", Input).value):
            self._confirm()
        else:
            self.query_one("#typed").focus()

    @on(Input.Submitted, "#typed")
    def _count_given(self, event: Input.Submitted) -> None:
        if not event.value.strip():
            self.action_leave()
        elif self._right(event.value):
            self._confirm()
        else:
            self.query_one("#hint", Lines).set_lines(self._hint(f"not {self.asked}: nothing is done; type it, or Esc"))

    def _right(self, text: str) -> bool:
        return text.strip().replace(",", "").lower() == self.asked.lower()

    def action_confirm(self) -> None:
        if not self._typed:
            self._confirm()

    def _confirm(self) -> None:
        if self.ready:
            self.dismiss(Confirmed(self.query_one("#reason", Input).value.strip()))


def _field(value: str, placeholder: str, id: str) -> Input:
    return Input(value, placeholder=placeholder, id=id, compact=True, select_on_focus=False)
