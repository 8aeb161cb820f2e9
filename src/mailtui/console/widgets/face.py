"""What the table must be told of its rows to draw them; it knows nothing else of what stands in them."""

from collections.abc import Sequence
from typing import Protocol

from mailtui.console.present.rows import Column
from mailtui.console.widgets.pages import Row

# The (text, role) of each column.
Cells = tuple[tuple[str, str], ...]


class Face(Protocol):
    """Columns for a width, cells of a row, its name."""

    def columns(self, width: int) -> tuple[Column, ...]: ...
    def header(self, shown: Sequence[Column]) -> Sequence[tuple[str, str]]: ...
    def cells(self, row: Row, shown: Sequence[Column], now: float) -> Cells: ...
    def name(self, row: Row) -> str: ...
