"""What operators have set for delivery: the pause, suspensions, limits. Kept in the store, ended by the clock.

Promises: what is set here survives a restart; what has an end ends by itself; no recipient's state changes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mailtui.clock import Clock
from mailtui.delivery.timers import Timers
from mailtui.model import Control

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.store import Store

# Kinds, as the store keeps them.
PAUSE, SUSPEND, LIMIT = "pause", "suspend", "limit"

# Names of pauses.
DELIVERY, INTAKE = "delivery", "intake"


class Controls:
    """The rows of these kinds in memory. `changed(kind, name)` is called after every change, also by the clock."""

    def __init__(
        self,
        clock: Clock,
        timers: Timers,
        store: "Store",
        changed: Callable[[str, str], None] = lambda kind, name: None,
    ) -> None:
        self.changed = changed
        self._clock = clock
        self._timers = timers
        self._store = store
        self._rows: dict[str, dict[str, Control]] = {PAUSE: {}, SUSPEND: {}, LIMIT: {}}

    def load(self, rows: list[tuple[str, Control]]) -> None:
        """At start: what the store remembers. What ended meanwhile is dropped."""
        for kind, control in rows:
            if kind in self._rows:
                self._rows[kind][control.name] = control
                self._watch(kind, control)

    def get(self, kind: str, name: str) -> Control | None:
        return self._rows[kind].get(name)

    def all(self, kind: str) -> dict[str, Control]:
        return self._rows[kind]

    @property
    def paused(self) -> Control | None:
        """The pause of delivery, if there is one."""
        return self._rows[PAUSE].get(DELIVERY)

    def suspended(self, *names: str) -> Control | None:
        """The suspension of a destination or next hop, if any of these has one."""
        suspended = self._rows[SUSPEND]
        if not suspended:
            return None
        return next((suspended[name] for name in names if name in suspended), None)

    @property
    def restricting(self) -> bool:
        """Whether anything is suspended or limited."""
        return bool(self._rows[SUSPEND] or self._rows[LIMIT])

    def restricts(self, destinations: Iterable[str]) -> bool:
        """Whether one of these is suspended or limited: its mail is handed over by claims only."""
        suspended, limited = self._rows[SUSPEND], self._rows[LIMIT]
        return any(name in suspended or name in limited for name in destinations)

    async def set(
        self,
        kind: str,
        name: str,
        *,
        until: float | None = None,
        reason: str = "",
        who: str = "",
        value: Mapping[str, Any] | None = None,
    ) -> None:
        """Set it, on disk first."""
        control = Control(name, self._clock.now(), until, reason, who, value or {})
        await self._store.set_control(kind, control)
        self._rows[kind][name] = control
        self._watch(kind, control)
        self.changed(kind, name)

    async def unset(self, kind: str, name: str) -> bool:
        """Take it back; False if it was not set."""
        if name not in self._rows[kind]:
            return False
        await self._store.unset_control(kind, name)
        self._rows[kind].pop(name, None)
        self.changed(kind, name)
        return True

    def pause_for_now(self, reason: str) -> None:
        """`--paused`: a pause of delivery that is not written down."""
        self._rows[PAUSE][DELIVERY] = Control(DELIVERY, self._clock.now(), reason=reason)

    def _watch(self, kind: str, control: Control) -> None:
        if control.until is not None:
            self._timers.at(control.until, lambda: self._over(kind, control))

    def _over(self, kind: str, control: Control) -> None:
        """Its end has come, unless it was set anew or taken back."""
        if self._rows[kind].get(control.name) is control:
            del self._rows[kind][control.name]
            self._store.unset_control(kind, control.name)
            self.changed(kind, control.name)
