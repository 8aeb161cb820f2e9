"""The screen of one message: its tabs, and all of them at once on a wide terminal."""

from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from mailtui.console.message.paper import Paper
from mailtui.console.message.screen import TABS, MessageScreen
from tests.console.conftest import until
from tests.console.fake_queue import NOW, FakeFrame, FakeLink, plain_row, rid, shown
from tests.console.test_present_message import MIXED, a_trace, an_attempt, hop


def a_link() -> FakeLink:
    link = FakeLink(range(10))
    row = plain_row(0)
    link.message = {**row, "client_name": "", "helo": "h.example", "listener": "mx", "protocol": "ESMTP", "tls": None,
                    "headers": [["Received", "from a by b"], ["Subject", "Subject 0"]], "recipients": [row],
                    "attempts": [an_attempt(900, reply="older"), an_attempt(60)]}  # fmt: skip
    link.trace = a_trace(hop(1, None), hop(2, 1.0), hop(3, 438.0, trusted=True))
    link.content = MIXED
    return link


async def opened(pilot: Pilot[None], app: FakeFrame, **options: Any) -> MessageScreen:
    screen = MessageScreen(rid(0), now=lambda: NOW, **options)
    await app.push_screen(screen)
    await until(pilot, lambda: screen.facts is not None and screen.facts.known.issuperset(TABS[screen.tab][1]))
    await pilot.pause()
    return screen


def text(app: FakeFrame) -> str:
    return "\n".join(shown(app))


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("t", "trace", "The slowest is hop 3"),
        ("a", "attempts", "451 4.7.1 older"),
        ("m", "headers", "Received: from a by b"),
        ("b", "body", "part: application/pdf"),
        ("L", "tls", "verified by mta-sts"),
    ],
)
async def test_each_tab_has_its_key(key: str, name: str, said: str) -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert "Waits for attempt 4" in text(app) and " WHY " in shown(app)[2]
        assert "deferred 2h00m" in shown(app)[2]
        await pilot.press(key)
        await until(pilot, lambda: said in text(app))
        assert screen.tab == name and f" {name.upper()} " in shown(app)[2]
        assert len(app.screen.query("Paper.shown")) == 1
        await pilot.press("w")
        await until(pilot, lambda: "Waits for attempt 4" in text(app))
        for _ in TABS:
            await pilot.press("tab")
        assert screen.tab == "why"


async def test_a_wide_screen_shows_all_at_once_and_the_keys_move_the_focus() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(160, 48)) as pilot:
        screen = await opened(pilot, app)
        for said in ("Waits for attempt 4", "451 4.7.1 older", "The slowest is hop 3", "from a by b", "part: applica"):
            await until(pilot, lambda said=said: said in text(app))
        assert screen.focused is screen.query_one("#why", Paper)
        await pilot.press("t")
        assert screen.focused is screen.query_one("#trace", Paper)
        await pilot.press("L")
        await until(pilot, lambda: "verified by mta-sts" in text(app))
        assert "The slowest is hop 3" not in text(app)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: len(app.screen.query("Paper.shown")) == 1)


async def test_the_dialogue_of_an_attempt_is_one_enter_away() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await pilot.press("a")
        await until(pilot, lambda: "older" in text(app))
        await pilot.press("j", "enter")
        await until(pilot, lambda: "EHLO relay1" in text(app))
        assert "REPLY   451 4.7.1 older" in text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "EHLO relay1" not in text(app))
        assert isinstance(app.screen, MessageScreen)
        await pilot.press("k", "enter")
        await until(pilot, lambda: "REPLY   451 4.7.1 greylisted" in text(app))


async def test_a_key_typed_right_after_a_tab_is_for_that_tab() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(160, 48)) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: "older" in text(app))
        for key in ("t", "a", "j", "enter"):  # all of them there before the first is looked at
            app.post_message(events.Key(key, key if len(key) == 1 else "\r"))
        await until(pilot, lambda: "EHLO relay1" in text(app))
        assert "REPLY   451 4.7.1 older" in text(app)


async def test_the_body_is_bounded_and_can_be_seen_raw_and_in_hex() -> None:
    link = a_link()
    link.content = MIXED + b"x" * 1_000_000
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("b")
        await until(pilot, lambda: "café" in text(app))
        assert screen.facts is not None and len(screen.facts.content) == 65536
        await pilot.press("B")
        await until(pilot, lambda: "Content-Transfer-Encoding" in text(app))
        await pilot.press("B")
        await until(pilot, lambda: "000010  " in text(app))
        await pilot.press("G")
        await pilot.pause()
        assert "the rest is not shown" in text(app)


async def test_verbs_act_on_what_was_opened() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("r", "i", "x", "o")
        ids = {"ids": [rid(0)]}
        assert app.verbs == [("queue.retry", ids), ("defer", ids), ("dispose", ids), ("hold ['deferred']", ids)]
        assert screen.here()["destination"] == "dest0.example"


async def test_a_message_that_left_says_what_became_of_it() -> None:
    link = FakeLink(range(10))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        link.gone.add(0)
        screen.acted("queue.delete", {})
        await until(pilot, lambda: "is not in the queue any more: delivered" in text(app))
        await pilot.press("m")
        await until(pilot, lambda: "is not in the queue any more" in text(app) and "no headers" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, MessageScreen))


async def test_ids_given_are_gone_through_with_j_and_k() -> None:
    app = FakeFrame(FakeLink(range(10)))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, ids=[rid(0), rid(4)])
        assert "1 of 2" in shown(app)[1]
        await pilot.press("K", "J", "J")
        await until(pilot, lambda: rid(4) in shown(app)[1] and "rcpt4@" in text(app))


async def test_the_reason_is_read_again_while_it_is_looked_at() -> None:
    link = a_link()
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        asked = len(link.requests)
        screen.tick()
        await pilot.pause()
        assert len(link.requests) == asked
        screen._renewed = 0.0
        screen.tick()
        await until(pilot, lambda: len(link.requests) > asked)


async def test_a_tab_can_be_asked_for_by_name() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app, tab="trace")
        await until(pilot, lambda: "The slowest is hop 3" in text(app))
        screen.view("why")
        await until(pilot, lambda: "Waits for attempt 4" in text(app))
        screen.view("show")
        assert screen.tab == "why"
