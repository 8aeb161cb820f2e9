"""The Queue pane and the message in the whole console, over a socket."""

import pytest

from mailtui.console.message.screen import MessageScreen
from mailtui.console.panes.queue import QueuePane
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_row


@pytest.fixture
def many(relay: FakeRelay) -> FakeRelay:
    relay.rows = [a_row(number) for number in range(10, 70)]
    relay.count = len(relay.rows)
    return relay


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_from_the_queue_to_a_message_and_back(many: FakeRelay, console: Opener, size: tuple[int, int]) -> None:
    async with console(size) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt10@dest1.example" in shown(app))
        assert {len(line) for line in shown(app).split("\n")} == {size[0]}
        await pilot.press("j", "w")
        await until(pilot, lambda: isinstance(app.screen, MessageScreen) and "MESSAGE" in shown(app))
        assert "01HZX3V7N8Q11.0" in shown(app) and "2 of 60" in shown(app)
        await pilot.press("J", "escape")
        await until(pilot, lambda: not isinstance(app.screen, MessageScreen))
        assert app.query_main(QueuePane).table.cursor == 2


async def test_the_whole_set_is_what_a_verb_is_given(many: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt10@" in shown(app))
        await pilot.press("asterisk", "r")
        await until(pilot, lambda: any(path.startswith("/v1/verbs/queue.retry") for _, path, _ in many.asked))
        body = next(body for _, path, body in many.asked if path.startswith("/v1/verbs/"))
        assert body["set"] == app.query_main(QueuePane).set.name and body["preview"] is True


async def test_a_filter_is_typed_on_the_bottom_line(many: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt10@" in shown(app))
        await pilot.press("slash", *"bad:x", "enter")
        await until(pilot, lambda: "no such term" in shown(app).split("\n")[-3])
        await pilot.press("slash", *"to:x", "enter")
        await until(pilot, lambda: "of 1,000,000   to:x" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "to:x" not in shown(app).split("\n")[2])


async def test_a_set_that_the_relay_dropped_is_taken_again(many: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt10@" in shown(app))
        pane = app.query_main(QueuePane)
        before = pane.set
        many.gone_sets.add(before.name)
        pane._renewed = 0.0
        await until(pilot, lambda: pane.set is not before and pane.table.row is not None)
        assert "rcpt10@" in shown(app)
