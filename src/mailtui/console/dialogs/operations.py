"""Operations: the list of everybody's, and the question before one is undone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical

from mailtui.console import words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.widgets.lines import Lines, Spans

Operation = Mapping[str, Any]


def undoable(operation: Operation, now: float) -> bool:
    """True while it can be undone."""
    until = words.moment(operation.get("undo_until"))
    return operation.get("state") in ("done", "running") and until is not None and until > now


def summary(operation: Operation, now: float) -> str:
    """One line: when, who, what, how many, and for how long it can be undone."""
    done, asked = int(operation.get("done") or 0), int(operation.get("asked") or 0)
    count = words.count(done) if done == asked else f"{words.count(done)} of {words.count(asked)}"
    state = str(operation.get("state") or "")
    if undoable(operation, now):
        state = f"undo {words.since(operation.get('undo_until'), now)}"
    verb = str(operation.get("verb") or "").removeprefix("queue.")
    parts = [words.clock(operation.get("at"), now, seconds=False), str(operation.get("who") or ""), verb, count, state]
    reason = str(operation.get("reason") or "")
    return "  ".join(part for part in (*parts, f'"{reason}"' if reason else "") if part)


class UndoDialog(Dialog[bool]):
    """Shows the operation; Enter undoes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("enter", "undo", "Undo"), ("q", "leave", "Cancel")]

    def __init__(self, operation: Operation, now: float) -> None:
        super().__init__()
        self._operation = operation
        self._now = now

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Lines(self._drawn())

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = self.title_of("Undo")

    def _drawn(self) -> list[Spans]:
        lines: list[Spans] = [[(words.cut(summary(self._operation, self._now), self.room), "strong")]]
        command = str(self._operation.get("command") or "")
        lines += [[("$ " if not n else "  ", "dim"), (line, "key")] for n, line in
                  enumerate(list(words.wrap(command, self.room - 2))[:3])]  # fmt: skip
        text = "State and clock of each recipient come back as they were; what has left meanwhile is counted."
        lines += [[(line, "")] for line in words.wrap(text, self.room)]
        return [*lines, [], [("Enter", "key"), (" undoes it   ", ""), ("Esc", "key"), (" leaves it", "")]]

    def action_undo(self) -> None:
        if self.ready:
            self.dismiss(True)


class OperationsDialog(Dialog[Operation]):
    """The list, newest first. Enter gives the one under the cursor, to be undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("down,j", "move(1)", "Down"),
        ("up,k", "move(-1)", "Up"),
        ("enter", "choose", "Undo"),
        ("q,comma", "leave", "Back"),
    ]

    def __init__(self, operations: Sequence[Operation], now: float) -> None:
        super().__init__()
        self._operations = list(operations)
        self._now = now
        self._at = 0
        self._top = 0

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Lines(self._drawn())

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = self.title_of("Operations")
        self.query_one(Lines).set_lines(self._drawn())

    def _drawn(self) -> list[Spans]:
        if not self._operations:
            return [[("none yet", "dim")], [], [("Esc", "key"), (" back", "")]]
        rows = max(3, self.app.size.height - 9)
        self._top = min(max(self._top, self._at - rows + 1), self._at)
        lines: list[Spans] = []
        for index in range(self._top, min(self._top + rows, len(self._operations))):
            operation = self._operations[index]
            role = "cursor" if index == self._at else "" if undoable(operation, self._now) else "dim"
            lines.append([(words.fit(summary(operation, self._now), self.room), role)])
        command = str(self._operations[self._at].get("command") or "")
        hint: Spans = [("Enter", "key"), (" undo   ", ""), ("Esc", "key"), (" back", "")]
        return [*lines, [], [("$ ", "dim"), (words.cut(command, self.room - 2), "key")], hint]

    def action_move(self, step: int) -> None:
        if self._operations:
            self._at = max(0, min(len(self._operations) - 1, self._at + step))
            self.query_one(Lines).set_lines(self._drawn())

    def action_choose(self) -> None:
        if self._operations and self.ready and undoable(self._operations[self._at], self._now):
            self.dismiss(self._operations[self._at])
