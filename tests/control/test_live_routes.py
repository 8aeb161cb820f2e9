"""Live routes: the store, the router and the listing agree, whoever sets what at once."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.control.live_routes import LiveRoutes


class Kept:
    """A store that takes its time, or has no room."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.full = False

    async def set_control(self, kind: str, control: Any) -> None:
        await asyncio.sleep(0)
        if self.full:
            raise OSError("no room")
        self.names.add(control.name)

    async def unset_control(self, kind: str, name: str) -> None:
        await asyncio.sleep(0)
        self.names.discard(name)


class Routes:
    """What a router was told last."""

    names: set[str]

    def use(self, settings: Any, rows: list[Any]) -> None:
        self.names = {row.match for row in rows}


@pytest.fixture
def live() -> tuple[LiveRoutes, Kept, Routes]:
    settings: Any = SimpleNamespace(route=[], delivery=SimpleNamespace(secrets=""))
    kept, router = Kept(), Routes()
    routes: Any = LiveRoutes(settings, ManualClock(), kept, router)  # type: ignore[arg-type]
    routes.use(settings)
    return routes, kept, router


def listed(routes: LiveRoutes) -> set[str]:
    return {row["match"] for row in routes.rows()}


async def test_two_that_are_set_at_once_both_hold(live: tuple[LiveRoutes, Kept, Routes]) -> None:
    routes, kept, router = live
    await asyncio.gather(routes.set("a.test", "mx", {}, "ann"), routes.set("b.test", "mx", {}, "bob"))
    assert kept.names == router.names == listed(routes) == {"a.test", "b.test"}


async def test_what_cannot_be_kept_does_not_route(live: tuple[LiveRoutes, Kept, Routes]) -> None:
    routes, kept, router = live
    kept.full = True
    with pytest.raises(OSError, match="no room"):
        await routes.set("a.test", "discard", {}, "ann")
    assert kept.names == router.names == listed(routes) == set()


async def test_one_that_two_take_back_at_once_is_gone_once(live: tuple[LiveRoutes, Kept, Routes]) -> None:
    routes, kept, router = live
    await routes.set("a.test", "mx", {}, "ann")
    assert sorted(await asyncio.gather(routes.unset("a.test"), routes.unset("a.test"))) == [False, True]
    assert kept.names == router.names == listed(routes) == set()
    assert not await routes.unset("a.test")
