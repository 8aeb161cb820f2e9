"""Lines of styled text, one strip each: the paper on which the console writes everything but tables and forms.

Promises: only lines that changed are drawn again (Textual repaints whole regions, and over a slow link that counts); no
markup is parsed; a line never wraps and never runs over the edge.
"""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

# A line: pieces of text with the role that styles them; "" is plain.
Spans = Sequence[tuple[str, str]]

ROLES = ("dim", "strong", "good", "warn", "bad", "cursor", "mark", "title", "key", "link", "banner")


class Lines(Widget):
    """`set_lines` writes it. A role is styled by the component class `lines--ROLE` (frame.tcss)."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{role}" for role in ROLES}
    ALLOW_SELECT = True

    def __init__(self, lines: Sequence[Spans] = (), *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._written: list[tuple[tuple[str, str], ...]] = [tuple(line) for line in lines]

    @property
    def text(self) -> str:
        """What stands there, without styles."""
        return "\n".join("".join(piece for piece, _ in line) for line in self._written)

    def set_lines(self, lines: Sequence[Spans]) -> None:
        """Write. Unchanged lines are not drawn again."""
        new = [tuple(line) for line in lines]
        old, self._written = self._written, new
        if len(new) != len(old):
            self.refresh(layout=True)
            return
        for y, (before, after) in enumerate(zip(old, new, strict=True)):
            if before != after:
                self.refresh(Region(0, y, self.size.width, 1))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._written)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        if y >= len(self._written):
            return Strip.blank(width, base)
        segments = [
            Segment(piece, base + self.get_component_rich_style(f"lines--{role}", partial=True) if role else base)
            for piece, role in self._written[y]
        ]
        return Strip(segments).adjust_cell_length(width, base)
