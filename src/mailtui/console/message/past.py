"""What the history has for a filter that nothing in the queue matches."""

import time
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from mailtui.console.message.paper import Paper
from mailtui.console.present import Line
from mailtui.console.present.past import past_lines
from mailtui.console.widgets.frame import BottomLine, FooterKeys, StatusLine
from mailtui.console.widgets.lines import Lines
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError

if TYPE_CHECKING:
    from mailtui.console.app import Console


class PastScreen(Screen[None]):
    """Rows of the history, newest first, as far as `path` asks for them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss", show=False)]

    def __init__(self, query: str, path: str) -> None:
        super().__init__()
        self.query_text = query
        self.path = path

    @property
    def console(self) -> "Console":
        """The app, which is the frame."""
        return cast("Console", self.app)

    def compose(self) -> ComposeResult:
        yield StatusLine()
        yield Lines([[(" HISTORY ", "title"), (clean(self.query_text), "key"), ("   Esc back", "dim")]], id="crumb")
        yield Paper(id="past")
        yield BottomLine()
        yield FooterKeys("all")

    async def on_mount(self) -> None:
        paper = self.query_one(Paper)
        paper.focus()
        lines: list[Line]
        try:
            rows = await self.console.link.lines(self.path)
        except VerbError as error:
            lines = [[(error.text, "warn")]]
        else:
            lines = past_lines(rows, self.app.size.width - 1, time.time(), self.console.glyphs)
        paper.write(lines)
