"""What all dialogs share: a box in the middle with a title, that Esc leaves without doing anything."""

import time
from typing import ClassVar, Generic, TypeVar

from textual.binding import BindingType
from textual.content import Content
from textual.screen import ModalScreen

Result = TypeVar("Result")

# A key that was on its way when the dialog opened must not confirm it. Seconds.
DEAF = 0.4


class Dialog(ModalScreen[Result | None], Generic[Result]):
    """Esc dismisses with None. `ready` is False for the first moment."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Cancel")]
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self._opened = time.monotonic()

    def on_mount(self) -> None:
        self._opened = time.monotonic()

    @property
    def ready(self) -> bool:
        return time.monotonic() - self._opened >= DEAF

    @property
    def room(self) -> int:
        """Cells for text in the box: the screen less border and padding, and never wider than what reads well."""
        return max(20, min(self.app.size.width - 6, 110))

    def action_leave(self) -> None:
        self.dismiss(None)

    def title_of(self, text: str) -> Content:
        """A text as a border's title; no markup is parsed."""
        return Content(f" {text} ")
