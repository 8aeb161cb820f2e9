"""The table over a million rows: what it draws, what it asks for, where cursor and marks stay."""

from collections.abc import Mapping
from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from mailtui.console.glyphs import UNICODE
from mailtui.console.present.rows import QueueFace
from mailtui.console.widgets.pages import KEPT, PAGE, WAITING, Pages
from mailtui.console.widgets.queue_table import MOST_MARKS, QueueTable
from tests.console.conftest import until
from tests.console.fake_queue import NOW, plain_row, rid, segments, shown

MILLION = 1_000_000


class Rows:
    """A source that makes its rows up; `asked` has (offset, limit) of every request."""

    def __init__(self, count: int = MILLION) -> None:
        self.count = count
        self.asked: list[tuple[int, int]] = []
        self.changed: dict[int, dict[str, Any]] = {}
        self.error: Exception | None = None

    async def rows(self, offset: int, limit: int) -> list[Mapping[str, Any]]:
        self.asked.append((offset, limit))
        if self.error is not None:
            raise self.error
        last = min(offset + limit, self.count)
        return [{**plain_row(number), **self.changed.get(number, {})} for number in range(offset, last)]


class Frame(App[None]):
    def __init__(self, source: Rows) -> None:
        super().__init__()
        self.source = source
        self.now = NOW
        self.posted: list[Any] = []

    def compose(self) -> ComposeResult:
        yield QueueTable(QueueFace(UNICODE), now=lambda: self.now)

    def on_mount(self) -> None:
        self.table.focus()
        self.table.show(Pages(self.source))

    def on_queue_table_opened(self, event: QueueTable.Opened) -> None:
        self.posted.append(event)

    def on_queue_table_failed(self, event: QueueTable.Failed) -> None:
        self.posted.append(event)

    @property
    def table(self) -> QueueTable:
        return self.query_one(QueueTable)


async def settled(pilot: Pilot[None], app: Frame) -> None:
    """Until nothing on the screen waits for a page."""
    await until(pilot, lambda: app.table.row is not None and not any(line.strip() == "…" for line in shown(app)))


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_a_million_rows_cost_two_requests_and_a_screen_of_lines(size: tuple[int, int]) -> None:
    source = Rows()
    app = Frame(source)
    async with app.run_test(size=size) as pilot:
        await settled(pilot, app)
        await until(pilot, lambda: len(source.asked) == 2)
        assert source.asked == [(0, PAGE), (PAGE, PAGE)]
        assert app.table.drawn <= 4 * size[1]
        lines = shown(app)
        assert lines[0].split()[:3] == ["ST", "NEXT", "AGE▲"]
        assert "rcpt0@dest0.example" in lines[1] and f"rcpt{size[1] - 2}@" in lines[-1]


async def test_the_end_is_one_jump_and_asks_for_the_pages_there_only() -> None:
    source = Rows()
    app = Frame(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("G")
        await settled(pilot, app)
        assert app.table.cursor == MILLION - 1 and "rcpt999999@" in shown(app)[-1]
        await until(pilot, lambda: len(source.asked) == 4)
        assert source.asked[2:] == [(999_800, PAGE), (999_600, PAGE)]
        await pilot.press("g")
        await settled(pilot, app)
        assert app.table.cursor == 0 and len(source.asked) == 4


async def test_a_step_of_the_cursor_draws_two_lines() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await until(pilot, lambda: len(app.source.asked) == 2)
        before = app.table.drawn
        await pilot.press("j")
        await pilot.pause()
        assert app.table.cursor == 1 and app.table.drawn - before == 2


async def test_a_tick_draws_what_looks_different_and_nothing_else() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await until(pilot, lambda: len(app.source.asked) == 2)
        app.now = NOW + 1.0
        app.table.tick()
        await pilot.pause()
        before = app.table.drawn
        app.now = NOW + 1.5
        app.table.tick()
        await pilot.pause()
        assert app.table.drawn == before
        app.source.changed[3] = {"state": "held"}
        await app.table.renew()
        await pilot.pause()
        assert app.table.drawn == before + 1 and "hold" in shown(app)[4]
        assert app.source.asked[-1] == (0, 23)


async def test_a_row_that_left_is_drawn_as_gone_with_what_was_known_of_it() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.source.changed[2] = {"gone": True}
        await app.table.renew()
        await pilot.pause()
        assert "gone" in shown(app)[3] and "rcpt2@dest2.example" in shown(app)[3]


async def test_every_key_that_moves() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        for key, place in (
            ("down", 1), ("j", 2), ("up", 1), ("k", 0), ("k", 0), ("pagedown", 22), ("ctrl+d", 44), ("ctrl+u", 22),
            ("pageup", 0), ("end", MILLION - 1), ("j", MILLION - 1), ("home", 0),
        ):  # fmt: skip
            await pilot.press(key)
            assert app.table.cursor == place, key
        await pilot.press("l")
        await pilot.pause()
        assert app.table.scroll_offset.x == 16 and "FROM" in shown(app)[0]
        await pilot.press("h", "h")
        assert app.table.scroll_offset.x == 0
        await pilot.press("enter")
        await pilot.pause()
        assert len(app.posted) == 1


async def test_space_marks_and_goes_down_and_u_unmarks() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("space", "space", "j", "space")
        table = app.table
        assert list(table.marks) == [rid(0), rid(1), rid(3)] and table.cursor == 4
        assert [line[1:2] for line in shown(app)[1:6]] == ["◆", "◆", " ", "◆", " "]
        await pilot.press("k", "space")
        assert list(table.marks) == [rid(0), rid(1)]
        await pilot.press("g", "n")
        assert table.cursor == 1
        await pilot.press("G")
        await settled(pilot, app)
        await pilot.press("N")
        assert table.cursor == 1
        await pilot.press("u")
        assert table.marks == {} and table.marked == 0


async def test_a_range_marks_rows_that_were_never_seen_and_has_a_limit() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "v")
        app.table.cursor = 450
        assert app.table.marked == 450
        await pilot.press("v")
        await until(pilot, lambda: app.table.range_from is None)
        assert len(app.table.marks) == 450 and rid(1) in app.table.marks and rid(450) in app.table.marks
        await pilot.press("u", "v", "G", "v")
        await until(pilot, lambda: app.table.range_from is None)
        assert len(app.table.marks) == MOST_MARKS


async def test_all_are_marked_as_one_set_without_a_request() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await until(pilot, lambda: len(app.source.asked) == 2)
        await pilot.press("asterisk")
        await pilot.pause()
        assert app.table.marked == MILLION and app.table.marks == {} and len(app.source.asked) == 2
        assert all(line[1:2] == "◆" for line in shown(app)[1:])
        await pilot.press("space")
        assert app.table.marked == MILLION
        await pilot.press("u")
        assert app.table.marked == 0


async def test_rows_that_are_not_there_yet_are_dim_and_a_failure_is_told_once_a_look() -> None:
    source = Rows()
    source.error = OSError("away")
    app = Frame(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.posted)
        assert all(line.strip(" ▌") == "…" for line in shown(app)[1:])
        asked = len(source.asked)
        await pilot.pause(0.05)
        assert len(source.asked) == asked
        source.error = None
        app.table.tick()
        await settled(pilot, app)


async def test_a_smaller_window_keeps_the_cursor_in_sight() -> None:
    app = Frame(Rows())
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot, app)
        await pilot.press("pagedown", "k")
        place = app.table.cursor
        await pilot.resize_terminal(80, 24)
        await settled(pilot, app)
        assert any(line.startswith("▌") and f"rcpt{place}@" in line for line in shown(app))


async def test_an_empty_set_and_a_click() -> None:
    app = Frame(Rows(0))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("j", "G", "space", "v", "asterisk", "enter", "pagedown", "n")
        await pilot.pause()
        assert app.table.cursor == 0 and app.table.marked == 0 and app.source.asked == []
        app.source.count = 5
        app.table.show(Pages(app.source))
        await settled(pilot, app)
        await pilot.click(QueueTable, offset=(10, 3))
        assert app.table.cursor == 2
        await pilot.click(QueueTable, offset=(10, 12))
        assert app.table.cursor == 2


async def test_the_ascii_twin_has_no_other_sign() -> None:
    from mailtui.console.glyphs import ASCII

    class Plain(Frame):
        def compose(self) -> ComposeResult:
            yield QueueTable(QueueFace(ASCII), glyphs=ASCII, now=lambda: NOW)

    app = Plain(Rows())
    async with app.run_test(size=(60, 12)) as pilot:
        await until(pilot, lambda: app.table.row is not None)
        await pilot.press("space", "space")
        await pilot.pause()
        assert all(text.isascii() for line in segments(app) for text in line.split("▇"))


async def test_pages_are_bounded_and_asked_for_once() -> None:
    source = Rows()
    pages = Pages(source)
    for place in range(0, 40 * PAGE, PAGE):
        pages.look(place, place + 10)
        pages.look(place, place + 10)
    waiting = 0
    while await pages.fetch():
        waiting += 1
    assert waiting == WAITING == len(set(source.asked))
    assert source.asked[0] == (39 * PAGE, PAGE)  # where the operator is comes first
    for place in range(0, 40 * PAGE, PAGE):
        pages.look(place, place)
        while await pages.fetch():
            pass
    assert pages.get(0) is None and pages.get(39 * PAGE) is not None
    assert sum(pages.get(number * PAGE) is not None for number in range(50)) == KEPT
