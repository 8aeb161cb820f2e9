"""What a pane, or a screen that is a place of its own, does for the frame."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard


class Place(Protocol):
    """A pane is a widget with `id`; a screen is pushed over the panes."""

    SCOPE: str  # of its keys: `keys.SCOPES`

    def selection(self) -> Mapping[str, Any]:
        """What an action would act on: one of `set` (the id of a frozen set), `query`, `ids` (ids or rids); or {}."""

    def here(self) -> Mapping[str, str]:
        """The row under the cursor: `destination`, `next_hop`, `id` ...; {} if there is none."""

    def tick(self) -> None:
        """Draw what has changed. At most four times a second, and only while it is seen."""

    def acted(self, verb: str, answer: Mapping[str, Any]) -> None:
        """An action is done."""

    def lost(self) -> None:
        """The relay went away."""

    def live(self) -> None:
        """The relay is there (again)."""


def is_place(screen: object) -> TypeGuard[Place]:
    """True for screens that are places, False for dialogs."""
    return hasattr(screen, "SCOPE")
