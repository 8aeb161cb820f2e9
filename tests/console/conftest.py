"""A fake relay on a socket, and the console looking at it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mailtui.console.app import Console
from mailtui.console.dialogs import frame
from mailtui.console.link import Link
from tests.console.fake import FakeRelay

Opener = Callable[..., AbstractAsyncContextManager[tuple[Console, Pilot[str]]]]


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[FakeRelay]:
    async with FakeRelay(tmp_path / "control.sock") as running:
        yield running


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Opener]:
    """`async with console(size=(80, 24)) as (app, pilot)`: the console, connected."""

    @asynccontextmanager
    async def opened(
        size: tuple[int, int] = (80, 24), *, wait: bool = True, **options: Any
    ) -> AsyncIterator[tuple[Console, Pilot[str]]]:
        app = Console(Link(tmp_path / "control.sock"), **options)
        async with app.run_test(size=size) as pilot:
            if wait:
                await until(pilot, lambda: bool(app.status))
            yield app, pilot

    yield opened


@pytest.fixture
def no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dialogs listen at once."""
    monkeypatch.setattr(frame, "DEAF", 0.0)


async def until(pilot: Pilot[Any], holds: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until it holds; it fails if that does not happen."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not holds():
        assert loop.time() < end, f"this did not happen:\n{shown(pilot.app)}"
        await pilot.pause(0.02)
    await pilot.pause()


def shown(app: Any) -> str:
    """The screen as text."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())
