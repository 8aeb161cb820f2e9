"""`?`: every key, of this place first, in as many columns as fit."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll

from mailtui.console import keys, words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.widgets.lines import Lines, Spans

# Cells of the column that holds the keys.
_KEY = 10
# A column narrower than this breaks its sentences to pieces.
_COLUMN = 36


def drawn(scopes: Sequence[str], width: int) -> list[Spans]:
    """The keys of the scopes in columns, wrapped."""
    columns = max(1, min(3, (width + 2) // (_COLUMN + 2)))
    each = (width - 2 * (columns - 1)) // columns
    column: list[Spans] = []
    for key, text in keys.lines(scopes):
        if not text:
            column += [[]] if column else []
            column.append([(words.fit(key.upper(), each), "title")])
            continue
        for index, part in enumerate(words.wrap(text, each - _KEY)):
            name = words.fit("" if index else key, _KEY)
            column.append([(name, "key"), (words.fit(part, each - _KEY), "")])
    height = -(-len(column) // columns)
    lines: list[Spans] = []
    for y in range(height):
        line: list[tuple[str, str]] = []
        for x in range(columns):
            index = x * height + y
            cell = column[index] if index < len(column) and column[index] else [(" " * each, "")]
            line += [*cell, ("  ", "")] if x < columns - 1 else cell
        lines.append(line)
    return lines


class HelpDialog(Dialog[None]):
    """Esc, q and ? close it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("q,question_mark,enter", "leave", "Back"),
        ("down,j", "scroll(1)", "Down"),
        ("up,k", "scroll(-1)", "Up"),
        ("pagedown,ctrl+d,space", "scroll(10)", "Page down"),
        ("pageup,ctrl+u", "scroll(-10)", "Page up"),
    ]

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__()
        self._scopes = scopes

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            with VerticalScroll(can_focus=False):
                yield Lines(drawn(self._scopes, self.room))
            yield Lines([[("Esc", "key"), (" back   ", ""), ("j k", "key"), (" scroll", "")]])

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).styles.max_height = max(3, self.app.size.height - 3)  # border and hint
        self.query_one("#dialog").border_title = self.title_of("Keys")

    def action_scroll(self, rows: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
