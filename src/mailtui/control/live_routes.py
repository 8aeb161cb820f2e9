"""Live rows of the route table: set by `route set` over the control socket, kept in the store, beside the file's.

Promises: a row that cannot be used is refused before it is kept; a live row beats the file's row of the same match; the
router knows what the store knows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.model import Control
from mailtui.queue.store import Store
from mailtui.queue.tables.controls import ROUTE
from mailtui.routing.router import Router
from mailtui.routing.routes import parse_match, parse_target, unsupported


@dataclass(frozen=True, slots=True)
class _Row:
    """A live route as the router reads rows."""

    match: str
    value: Mapping[str, Any]

    @property
    def target(self) -> str:
        return str(self.value["target"])

    @property
    def auth(self) -> str:
        return str(self.value.get("auth") or "")

    @property
    def tls(self) -> str:
        return str(self.value.get("tls") or "")

    @property
    def source(self) -> str:
        return str(self.value.get("source") or "")


class LiveRoutes:
    """One a relay. `load` first; `use` at the start and after each reload of the configuration."""

    def __init__(self, settings: Settings, clock: Clock, store: Store, router: Router) -> None:
        self._settings = settings
        self._clock = clock
        self._store = store
        self._router = router
        self._rows: dict[str, Control] = {}

    def load(self, known: Iterable[tuple[str, Control]]) -> None:
        """What the store knows of routes among all controls."""
        self._rows = {control.name: control for kind, control in known if kind == ROUTE}

    def use(self, settings: Settings) -> None:
        """Route by these settings, and by the live rows, from now on."""
        self._settings = settings
        self._apply()

    def rows(self) -> list[dict[str, Any]]:
        """Live rows and the file's, a dict each; `shadowed`: a live row of the same match beats it."""
        rows = [_shown(name, control.value, "live", False) for name, control in sorted(self._rows.items())]
        for row in self._settings.route:
            options = {"auth": row.auth, "tls": row.tls, "source": row.source}
            match = str(parse_match(row.match))
            rows.append(_shown(match, {"target": row.target, **options}, "file", match in self._rows))
        return rows

    async def set(self, match: str, target: str, options: Mapping[str, str], who: str) -> None:
        """Set a live row. Raises ValueError for one that cannot be used."""
        name = str(parse_match(match))
        auth, source, tls = (options.get(name, "") for name in ("auth", "source", "tls"))
        refusal = unsupported(parse_target(target), auth=auth, source=source, tls=tls)
        if auth and not self._settings.delivery.secrets:
            refusal = f"auth={auth} needs its password: set [delivery] secrets to a file of 'host user password' lines"
        if refusal is not None:
            raise ValueError(refusal)
        control = Control(name, self._clock.now(), who=who, value={"target": target, **options})
        await self._store.set_control(ROUTE, control)
        self._rows[name] = control
        self._apply()

    async def unset(self, match: str) -> bool:
        """Take a live row back; False if there is none."""
        name = str(parse_match(match))
        if name not in self._rows:
            return False
        await self._store.unset_control(ROUTE, name)
        gone = self._rows.pop(name, None) is not None  # else somebody else took it back meanwhile
        self._apply()
        return gone

    def _apply(self) -> None:
        self._router.use(self._settings, [_Row(name, control.value) for name, control in self._rows.items()])


def _shown(match: str, value: Mapping[str, Any], source: str, shadowed: bool) -> dict[str, Any]:
    options = {key: text for key, text in value.items() if key != "target" and text}
    return {"match": match, "target": value["target"], "options": options, "source": source, "shadowed": shadowed}
