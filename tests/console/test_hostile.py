"""Text that strangers wrote, through every place of the frame: not one byte of it acts on the terminal."""

import re
from typing import Any

import pytest
from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter
from textual.widgets import Static

from mailtui.console.dialogs.confirm import ConfirmDialog
from mailtui.console.dialogs.operations import OperationsDialog, UndoDialog
from mailtui.console.panes.overview import OverviewPane
from mailtui.console.terminal import AsciiNet, Net
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_destination, a_preview, a_row, a_status, at

CORPUS = [
    "\x1b[2J\x1b[31mred",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b]0;title\x1b\\",
    "\x9b2J\x9d0;x\x9c",
    "a\rb\nc\td\x00\x08\x7f",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "zero\u200bwidth\u200d\ufeff\U000e0041",
    "Re: [/b] invoice [",
    "[@click=app.quit]hi[/]",
    "x" * 10_000,
    "日本語" * 40,
    "e" + "\u0301" * 60,
    "\ud800\udfff lone",
    "��\ufffd",
    "",
]

ALLOWED = re.compile(
    r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f\ud800-\udfff]*"
)


def an_operation(evil: str) -> dict[str, Any]:
    return {
        "operation": "o1", "verb": evil, "command": evil, "who": evil, "at": at(-1), "asked": 1, "done": 1,
        "state": "done", "undo_until": at(60), "reason": evil,
    }  # fmt: skip


def assert_harmless(app: Any) -> None:
    """What would be written holds no control character in any text, and no line is wider than the screen."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            assert segment.control is None
            assert ALLOWED.fullmatch(segment.text), repr(segment.text[:80])
        assert strip.cell_length == app.size.width


@pytest.mark.parametrize(
    ("evil", "size"), [(evil, (80, 24) if index % 2 else (160, 48)) for index, evil in enumerate(CORPUS)]
)
async def test_the_overview_and_the_status_line(
    relay: FakeRelay, console: Opener, evil: str, size: tuple[int, int]
) -> None:
    relay.status = a_status(
        hostname=evil,
        paused=evil or None,
        listeners=[{"name": evil, "address": evil, "role": "relay", "tls": "none"}],
        warnings=[{"code": "x", "text": evil, "since": evil}],
    )
    relay.destinations = [
        a_destination(evil, state="down", reason=evil, last_reply=evil, until=evil),
        a_destination("good.example", last_reply=evil),
    ]
    relay.operations = [an_operation(evil)]
    async with console(size) as (app, pilot):
        pane = app.query_one(OverviewPane)
        await until(pilot, lambda: len(pane.destinations) == 2)
        relay.say("hold", who=evil, text=evil, reply=evil, **{f"k{evil}": evil})
        await until(pilot, lambda: any(event.get("event") == "hold" for event in app.events))
        pane._drawn = float("-inf")
        pane.tick()
        await pilot.pause()
        assert "good.example" in shown(app)
        assert_harmless(app)
        await pilot.press("comma")
        await until(pilot, lambda: isinstance(app.screen, OperationsDialog))
        await pilot.pause()
        assert_harmless(app)
        await pilot.press("escape")
        app.flash(evil)
        app.notify(evil, markup=False)
        await pilot.pause()
        assert_harmless(app)


@pytest.mark.parametrize("part", range(3))
async def test_the_dialogs(relay: FakeRelay, console: Opener, part: int) -> None:
    texts = CORPUS[part::3]

    def preview(verb: str, evil: str) -> dict[str, Any]:
        return a_preview(
            verb,
            3,
            command=evil,
            effects=[evil],
            left_out=[{"why": evil, "recipients": 1}],
            sample=[a_row(1, subject=evil, recipient=evil, destination=evil)] * 3,
        )

    relay.operations = [{**an_operation(evil), "operation": f"o{n}"} for n, evil in enumerate(texts)]
    async with console() as (app, pilot):
        for n, evil in enumerate(texts):
            relay.preview = lambda verb, body, evil=evil: preview(verb, evil)
            for verb in ("queue.hold", "queue.bounce"):
                app.run_verb(verb, query="to:*")
                await until(pilot, lambda: isinstance(app.screen, ConfirmDialog) and "Cancel" in shown(app))
                await pilot.pause()
                assert_harmless(app)
                assert "3 recipients" in shown(app)
                await pilot.press("escape")
                await until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
            await until(pilot, lambda: len(app.operations) == len(texts))
            app._own[:] = [f"o{n}"]
            await pilot.press("z")
            await until(pilot, lambda: isinstance(app.screen, UndoDialog))
            assert isinstance(app.screen, UndoDialog) and app.screen._operation["operation"] == f"o{n}"
            await pilot.pause()
            assert_harmless(app)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, UndoDialog))


async def test_markup_in_a_subject_is_text(relay: FakeRelay, console: Opener) -> None:
    relay.preview = lambda verb, body: a_preview(verb, 2, sample=[a_row(1, subject="[@click=app.quit]hi[/] [/b]")])
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="to:*")
        await until(pilot, lambda: "[@click=app.quit]hi[/] [/b]" in shown(app))


@pytest.mark.parametrize("evil", CORPUS)
def test_the_net_catches_what_slipped_by_and_keeps_the_width(evil: str) -> None:
    for net in (Net(), AsciiNet()):
        segments = net.apply(Net().apply([Segment(evil), Segment("ok")], Color(0, 0, 0)), Color(0, 0, 0))
        assert sum(segment.cell_length for segment in segments) == Segment(evil).cell_length + 2
        assert all(ALLOWED.fullmatch(segment.text) for segment in segments)
    assert all(segment.text.isascii() for segment in segments)


async def test_the_net_holds_under_a_widget_that_does_not_clean() -> None:
    class Careless(App[None]):
        def get_line_filters(self) -> list[LineFilter]:
            return [*super().get_line_filters(), Net()]

        def compose(self) -> ComposeResult:
            for evil in CORPUS:
                yield Static(Content(evil.replace("\n", " ")[:50]))

    app = Careless()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                assert ALLOWED.fullmatch(segment.text), repr(segment.text)
