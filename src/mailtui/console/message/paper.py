"""A scrolling sheet of lines, and a list on it to choose from where there is one."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message

from mailtui.console.present import Line
from mailtui.console.widgets.lines import Lines


class Paper(VerticalScroll, can_focus=True):
    """`write` fills it. `choices`: numbers of lines that can be chosen; `j` and `k` go over them, else they scroll."""

    DEFAULT_CSS = """
    Paper { height: 1fr; overflow-x: hidden; scrollbar-size: 0 1; scrollbar-gutter: stable; }
    Paper > Lines { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "step(1)", show=False),
        Binding("k,up", "step(-1)", show=False),
        Binding("g,home", "far(-1)", show=False),
        Binding("G,upper_g,end", "far(1)", show=False),
        Binding("pagedown,ctrl+d", "sheet(1)", show=False),
        Binding("pageup,ctrl+u", "sheet(-1)", show=False),
        Binding("enter", "choose", show=False),
    ]

    class Chosen(Message):
        """Enter on a choice: `number` counts from 0."""

        def __init__(self, paper: "Paper", number: int) -> None:
            super().__init__()
            self.paper = paper
            self.number = number

    class Resized(Message):
        """The sheet has another width: what is on it should be written again."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.chosen = 0
        self._lines: list[Line] = []
        self._choices: Sequence[int] = ()
        self._width = 0

    def compose(self) -> ComposeResult:
        yield Lines()

    @property
    def width(self) -> int:
        """Cells of a line."""
        return max(20, self.scrollable_content_region.width)

    @property
    def text(self) -> str:
        """What stands on it."""
        return self.query_one(Lines).text

    def write(self, lines: list[Line], choices: Sequence[int] = ()) -> None:
        """Put lines on the sheet; the place scrolled to stays."""
        self._lines, self._choices = lines, choices
        self.chosen = max(0, min(self.chosen, len(choices) - 1))
        self._draw()

    def _draw(self) -> None:
        here = self._choices[self.chosen] if self._choices else -1
        lines = [[(text, "cursor") for text, _ in line] if at == here else line for at, line in enumerate(self._lines)]
        self.query_one(Lines).set_lines(lines)

    def on_resize(self, event: events.Resize) -> None:
        if self.width != self._width:
            self._width = self.width
            self.post_message(self.Resized())

    @property
    def _aimed(self) -> "Paper":
        """The sheet that keys are for: one typed right after a change of tab still comes to the sheet of before."""
        focused = self.screen.focused
        return focused if isinstance(focused, Paper) else self

    def action_step(self, by: int) -> None:
        self._aimed.step(by)

    def action_far(self, way: int) -> None:
        self._aimed.far(way)

    def action_sheet(self, by: int) -> None:
        paper = self._aimed
        paper.scroll_relative(y=by * max(1, paper.size.height - 1), animate=False)

    def action_choose(self) -> None:
        paper = self._aimed
        if paper._choices:
            paper.post_message(self.Chosen(paper, paper.chosen))

    def step(self, by: int) -> None:
        """Over the choices, or a line further."""
        if not self._choices:
            self.scroll_relative(y=by, animate=False)
            return
        self.chosen = max(0, min(self.chosen + by, len(self._choices) - 1))
        self._draw()
        line, top, height = self._choices[self.chosen], self.scroll_offset.y, self.size.height
        if not top <= line < top + height:
            self.scroll_to(y=line if line < top else line - height + 1, animate=False)

    def far(self, way: int) -> None:
        """To the first or the last line, and choice."""
        if self._choices:
            self.step(way * len(self._choices))
        self.scroll_to(y=0 if way < 0 else self.max_scroll_y, animate=False)
