"""A sheet of plain text over the whole screen, for the terminal to select from: no border, no second column."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll

from mailtui.console import words
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.present.text import fold
from mailtui.console.widgets.lines import Lines, Spans
from mailtui.control.clean import clean, clean_lines

# Lines that are drawn; the file beside has all of them.
MOST = 5000


class Sheet(Dialog[None]):
    """Esc, q and Enter close it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("q,enter", "leave", "Back"),
        ("down,j", "scroll(1)", "Down"),
        ("up,k", "scroll(-1)", "Up"),
        ("pagedown,ctrl+d,space", "scroll(10)", "Page down"),
        ("pageup,ctrl+u", "scroll(-10)", "Page up"),
        ("home,g", f"scroll(-{MOST})", "First"),
        ("end,G,upper_g", f"scroll({MOST})", "Last"),
    ]

    def __init__(self, text: str, note: str) -> None:
        super().__init__()
        self._text = clean_lines(text)
        self._note = clean(note)

    def compose(self) -> ComposeResult:
        width = self.app.size.width
        lines: list[Spans] = [[(part, "")] for line in self._text.split("\n") for part in fold(line, width)]
        with VerticalScroll(can_focus=False):
            yield Lines([*lines[:MOST], *([[("...", "dim")]] if len(lines) > MOST else [])])
        hint = "the mouse is the terminal's: it selects; Esc back"
        yield Lines([[(line, "dim")] for line in words.wrap(f"{self._note}; {hint}", width)], id="hint")

    def action_scroll(self, rows: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
