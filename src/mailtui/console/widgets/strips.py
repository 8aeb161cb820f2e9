"""How the lines of the queue's table are drawn: looks in, strips ready for the terminal out.

Promises: a line that was drawn before is not drawn again, wherever on the screen it stands now; styles are worked out
once for each role until `forget`; what is outside the screen is not drawn.
"""

from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.cache import LRUCache
from textual.color import Color
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mailtui.console.glyphs import Glyphs
from mailtui.console.widgets.face import Cells

# Lines kept ready to be drawn: some screens of them.
STRIPS = 512

# The (text, role) of what stands in a line, from left to right.
Pieces = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Look:
    """All that decides how a row's line is drawn."""

    name: str
    cells: Cells
    cursor: bool
    marked: bool


class Strips:
    """The lines of one table, as wide as it and from where it is scrolled to. Roles are its component classes."""

    def __init__(self, table: ScrollView, glyphs: Glyphs) -> None:
        self._table = table
        self._glyphs = glyphs
        self._kept: LRUCache[Any, Strip] = LRUCache(STRIPS)
        self._styles: dict[tuple[str, bool], Style] = {}
        self._ground: Color | None = None  # the colour behind everything, for the filters

    def forget(self) -> None:
        """Styles changed."""
        self._kept.clear()
        self._styles.clear()
        self._ground = None

    def line(self, what: Look | Pieces) -> Strip:
        """The line of a row that looks like this, or of these pieces: drawn if it is not at hand."""
        width, left = self._table.size.width, self._table.scroll_offset.x
        key = what, width, left
        strip = self._kept.get(key)
        if strip is None:
            if isinstance(what, Look):
                strip = self._draw(self._pieces(what), width, left, what.cursor)
            else:
                strip = self._draw(what, width, left, False)
            self._kept[key] = strip
        return strip

    def absent(self, cursor: bool) -> Strip:
        """The line of a row that is not at hand."""
        return self.line(((f"{self._glyphs.cursor if cursor else ' '} {self._glyphs.ellipsis}", "dim"),))

    def _pieces(self, look: Look) -> Pieces:
        glyphs = self._glyphs
        pieces = [(glyphs.cursor if look.cursor else " ", ""), (glyphs.mark if look.marked else " ", "mark")]
        for text, role in look.cells:
            pieces += [(text, role), (" ", "")]
        return tuple(pieces)

    def _draw(self, pieces: Pieces, width: int, left: int, cursor: bool) -> Strip:
        """What is seen of a line, ready for the terminal: one strip, for each costs as much as all of its text."""
        end, at = left + width, 0  # where the next piece begins
        seen = []
        for text, role in pieces:
            start, at = at, at + cell_len(text)
            if start < left or at > end:
                text = _cut(text, left - start, end - start)
            if text:
                seen.append(Segment(text, self._style(role, cursor)))
            if at >= end:
                break
        else:
            seen.append(Segment(" " * (end - max(at, left)), self._style("", cursor)))
        if self._ground is None:
            self._ground = self._table.background_colors[1]
        for filter in self._table.get_line_filters():
            seen = filter.apply(seen, self._ground)
        return Strip(seen, width)

    def _style(self, role: str, cursor: bool) -> Style:
        """How a role looks, on the cursor's line or not. Textual works it out anew for each frame."""
        style = self._styles.get((role, cursor))
        if style is None:
            style = self._table.rich_style
            # On the cursor's line every cell has the cursor's colours: two sets of them would fight.
            for one in ("cursor" if cursor else "", role if not cursor or role == "mark" else ""):
                if one:
                    style += self._table.get_component_rich_style(f"queue-table--{one}", partial=True)
            self._styles[role, cursor] = style
        return style


def _cut(text: str, first: int, end: int) -> str:
    """Those cells of a text that are not left of `first` and before `end`."""
    first = max(0, first)
    return Strip([Segment(text)]).crop(first, max(first, end)).text
