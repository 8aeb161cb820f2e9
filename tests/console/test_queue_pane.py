"""The Queue pane: the set, the filter, what the cursor's row says, and what the verbs are given."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from textual.pilot import Pilot

from mailtui.clock import rfc3339
from mailtui.console.link import AnswerError
from mailtui.console.message.past import PastScreen
from mailtui.console.message.screen import MessageScreen
from mailtui.console.panes import card
from mailtui.console.panes import queue as pane_module
from tests.console.conftest import until
from tests.console.fake_queue import NOW, FakeFrame, FakeLink, answer, rid, shown

MILLION = 1_000_000


async def settled(pilot: Pilot[None], app: FakeFrame) -> None:
    """Until the set is taken and the row under the cursor is there."""
    pane = app.pane
    await until(pilot, lambda: not pane._taking and pane.set is not None and (pane.table.row or not pane.set.count))


async def retaken(pilot: Pilot[None], app: FakeFrame) -> None:
    """`ctrl+r`, and until it is done."""
    before = app.pane.set
    await pilot.press("ctrl+r")
    await until(pilot, lambda: app.pane.set is not before)
    await settled(pilot, app)


@pytest.mark.parametrize(("size", "card"), [((80, 24), False), ((160, 48), True)])
async def test_a_million_rows_at_once(size: tuple[int, int], card: bool) -> None:
    link = FakeLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test(size=size) as pilot:
        await settled(pilot, app)
        lines = shown(app)
        assert lines[0].startswith(" QUEUE  by AGE▲   1,000,000")
        assert len(lines) == size[1] and "rcpt0@dest0.example" in lines[2]
        assert rid(0) in lines[-2] and "waits 10m for try 4; last: 451 4.7.1 greylisted" in lines[-1]
        if card:
            await until(pilot, lambda: "Waits for attempt 4" in "\n".join(shown(app)))
        else:
            assert not any("/why/" in path for path in link.requests)
        await until(pilot, lambda: len(link.pages) == 2)
        for _ in range(3):
            app.pane.tick()
            await pilot.pause()
        assert len(link.pages) == 2 and len(link.taken) == 1


async def test_the_card_waits_until_the_cursor_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "REST", 0.05)
    link = FakeLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot, app)
        await until(pilot, lambda: any("/why/" in path for path in link.requests))
        for _ in range(20):
            app.pane.table.action_move(1)
        await until(pilot, lambda: any(rid(20)[:13] in path for path in link.requests))
        await pilot.pause(0.1)
        assert len([path for path in link.requests if "/why/" in path]) == 2


async def test_the_cursor_stays_on_its_row_when_the_set_is_taken_again() -> None:
    link = FakeLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.pane.table.cursor = 500
        await settled(pilot, app)
        line = next(at for at, text in enumerate(shown(app)) if text.startswith("▌"))
        link.numbers = range(-40, MILLION)  # forty came in front of it
        await retaken(pilot, app)
        table = app.pane.table
        assert table.cursor == 540 and table.name_here == rid(500)
        assert shown(app)[line].startswith("▌") and "rcpt500@" in shown(app)[line]
        assert not any("left the list" in said for said in app.said)


class SlowLink(FakeLink):
    """Makes sets when it is let."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.may = asyncio.Event()

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False) -> Any:
        if method == "POST":
            await self.may.wait()
        return await super().call(method, path, body, lines=lines)


async def test_keys_typed_while_a_set_is_taken_are_not_undone() -> None:
    link = SlowLink(range(MILLION))
    link.may.set()
    app = FakeFrame(link)
    async with app.run_test() as pilot:
        await settled(pilot, app)
        await pilot.press("j", "j")
        link.may.clear()
        await pilot.press("ctrl+r", "j", "j", "j")
        before, link.numbers = app.pane.set, [*range(2000, 2007), *range(1000)]  # seven new ones on top
        link.may.set()
        await until(pilot, lambda: app.pane.set is not before)
        await settled(pilot, app)
        assert app.pane.table.cursor == 12
        assert app.pane.table.row is not None and app.pane.table.row["rid"] == rid(5)


async def test_the_first_rows_are_there_while_the_first_set_is_made_and_cannot_all_be_marked() -> None:
    link = SlowLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "rcpt0@" in "\n".join(shown(app)))
        assert "taking the list" in shown(app)[0] and app.pane.set is None
        await pilot.press("asterisk")
        assert not app.pane.table.marked
        await pilot.press("space", "j")
        assert app.pane.selection() == {"ids": [rid(0)]}
        link.may.set()
        await settled(pilot, app)
        assert app.pane.table.count == MILLION
        assert (app.pane.table.cursor, list(app.pane.table.marks)) == (2, [rid(0)])


class GatedLink(FakeLink):
    """Stands still at the requests that have `at` in them, as long as it is not ""."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.at = ""
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def _gate(self, asked: str) -> None:
        if self.at and self.at in asked:
            self.reached.set()
            await self.open.wait()

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False) -> Any:
        await self._gate(f"{method} {path}")
        return await super().call(method, path, body, lines=lines)

    async def lines(self, path: str) -> list[Any]:
        await self._gate(path)
        return await super().lines(path)


async def retaken_around(pilot: Pilot[None], app: FakeFrame, link: GatedLink, at: str, *keys: str) -> None:
    """`ctrl+r`, the keys when the link stands still at `at`, and until it is done."""
    before, link.at = app.pane.set, at
    await pilot.press("ctrl+r")
    await until(pilot, link.reached.is_set)
    await pilot.press(*keys)
    assert app.pane.set is before
    link.at = ""
    link.open.set()
    await until(pilot, lambda: app.pane.set is not before)
    await settled(pilot, app)


@pytest.mark.parametrize("at", ["POST", "/index", "/rows"])
async def test_marks_made_and_taken_off_while_a_set_is_taken_stay_so(at: str) -> None:
    link = GatedLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("space", "space")  # 0 and 1
        link.numbers = [number for number in range(-3, 1000) if number != 3]
        await retaken_around(pilot, app, link, at, "space", "space", "g", "space")  # 2 and 3 on, 0 off
        assert list(app.pane.table.marks) == [rid(1), rid(2)]
        assert app.said[-1] == "1 marked recipient left the list; no longer marked"  # 3
        await pilot.press("r", "g", "n")
        assert app.verbs == [("queue.retry", {"ids": [rid(1), rid(2)]})]
        assert app.pane.table.name_here == rid(1)
        assert len(link.sets) == 1


@pytest.mark.parametrize("at", ["POST", "/index", "/rows"])
async def test_a_list_marked_whole_while_another_is_taken_is_dropped_aloud(at: str) -> None:
    link = GatedLink(range(50))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j")
        await retaken_around(pilot, app, link, at, "asterisk")
        assert app.pane.table.marked == 0
        assert app.said == ["50 marks dropped: they named the list that was before"]


@pytest.mark.parametrize("at", ["POST", "/index", "/rows"])
@pytest.mark.parametrize("early", [True, False])
async def test_a_range_that_is_open_while_a_set_is_taken_stays_where_it_began(at: str, early: bool) -> None:
    link = GatedLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "j", *(["v"] if early else []))
        link.numbers = range(-3, 1000)
        await retaken_around(pilot, app, link, at, *([] if early else ["v"]), "j", "j")
        assert app.pane.selection() == {} and app.pane.table.marked == 3
        await pilot.press("v")
        await until(pilot, lambda: app.pane.table.marks)
        assert list(app.pane.table.marks) == [rid(2), rid(3), rid(4)]


async def test_an_open_range_whose_rows_changed_is_dropped_aloud() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "v", "j", "j", "j")
        link.numbers = [number for number in range(1000) if number != 3]
        await retaken(pilot, app)
        assert app.pane.table.name_here == rid(4) and app.pane.table.marked == 0
        assert app.said == ["the open range dropped: the list has changed in it"]


class BusyLink(GatedLink):
    """Makes no set while it is `busy`."""

    busy = True

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False) -> Any:
        await self._gate(f"{method} {path}")
        if method == "POST" and self.busy:
            raise AnswerError("the relay is busy", 1, 503)
        return await super().call(method, path, body, lines=lines)


async def test_a_first_set_that_failed_is_tried_for_again_and_what_is_wrong_is_shown_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = BusyLink(range(1000))
    link.at = "POST"
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.pane.table.count)  # the first rows
        await pilot.press("j", "j", "space")
        link.at = ""
        link.open.set()
        await until(pilot, lambda: not app.pane._taking)
        app.pane._renewed = 0.0
        app.pane.tick()
        await pilot.pause()
        assert not app.pane._taking and "the relay is busy" in shown(app)[-1]  # it is not asked at once
        monkeypatch.setattr(pane_module, "FOLLOW", 0.0)
        app.pane.tick()
        await until(pilot, lambda: not app.pane._taking)
        assert app.said == ["the relay is busy"] and "the relay is busy" in shown(app)[-1]
        link.busy = False
        app.pane.tick()
        await settled(pilot, app)
        table = app.pane.table
        assert (table.count, table.cursor, list(table.marks)) == (1000, 3, [rid(2)])
        assert "busy" not in shown(app)[-1]


async def test_first_rows_that_come_late_do_not_take_the_place_of_the_set() -> None:
    link = BusyLink(range(1000))
    link.at = "/v1/queue?"
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "the relay is busy" in shown(app)[-1] and not app.pane._taking)
        link.busy = False
        await pilot.press("ctrl+r")
        await settled(pilot, app)
        link.open.set()
        await pilot.pause()
        assert app.pane.table.count == 1000 and app.pane.table.whole


async def test_first_rows_that_fail_in_an_unforeseen_way_cost_no_set() -> None:
    class Broken(SlowLink):
        async def lines(self, path: str) -> list[Any]:
            if path.startswith("/v1/queue?"):
                self.may.set()
                raise KeyError("rid")
            return await super().lines(path)

    app = FakeFrame(Broken(range(1000)))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        assert app.pane.table.count == 1000 and app.said == []


async def test_a_cursor_whose_row_left_goes_to_the_nearest_and_says_so() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.pane.table.cursor = 100
        link.numbers = [number for number in range(1000) if number not in (100, 101)]
        await retaken(pilot, app)
        assert app.pane.table.name_here in (rid(99), rid(102))
        assert f"{rid(100)} left the list; the cursor is on the nearest that stayed" in app.said


async def test_marks_survive_and_the_vanished_are_dropped_aloud() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("space", "space", "space")
        assert "marked 3 ◆" in shown(app)[0]
        link.gone.add(1)
        link.numbers = [number for number in range(-7, 1000) if number != 1]
        await retaken(pilot, app)
        assert set(app.pane.table.marks) == {rid(0), rid(2)}
        assert "1 marked recipient left the list; no longer marked" in app.said
        assert app.pane.selection() == {"ids": [rid(0), rid(2)]}
        assert len(link.sets) == 1  # the old one and the one for the marks were given back
        await pilot.press("g", "n")
        assert app.pane.table.name_here == rid(0)


async def test_a_set_marked_whole_is_dropped_aloud_when_it_is_taken_again() -> None:
    link = FakeLink(range(50))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("asterisk")
        assert app.pane.selection() == {"set": "s1"}
        await retaken(pilot, app)
        assert app.pane.selection() == {"ids": [rid(0)]}
        assert any("50 marks dropped" in said for said in app.said)


async def test_a_lost_set_is_taken_again_by_itself() -> None:
    link = FakeLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "j")
        link.sets.clear()
        await pilot.press("G")  # needs a page that is not at hand
        await until(pilot, lambda: len(link.taken) == 2)
        await settled(pilot, app)
        assert app.pane.set is not None and app.pane.set.name == "s2" and not app.pane.note[0]
        link.sets.clear()
        app.pane._renewed = 0.0
        app.pane.tick()  # the rows on the screen are read again
        await until(pilot, lambda: len(link.taken) == 3)


async def test_verbs_get_the_row_else_the_marks_else_the_set() -> None:
    app = FakeFrame(FakeLink(range(1000)))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "r", "i", "x", "j", "o")
        assert app.verbs == [
            ("queue.retry", {"ids": [rid(1)]}), ("defer", {"ids": [rid(1)]}), ("dispose", {"ids": [rid(1)]}),
            ("hold ['held']", {"ids": [rid(2)]}),
        ]  # fmt: skip
        app.verbs.clear()
        await pilot.press("space", "space", "o", "asterisk", "o", "r")
        assert app.verbs == [
            ("hold ['deferred', 'held']", {"ids": [rid(2), rid(3)]}),
            ("hold ['deferred', 'held']", {"set": "s1"}), ("queue.retry", {"set": "s1"}),
        ]  # fmt: skip
        app.pane.acted("queue.retry", answer())
        assert app.pane.table.marked == 0
        app.verbs.clear()
        await pilot.press("v", "j", "x")
        assert app.verbs == [] and "a range is open" in app.said[-1]
        assert app.pane.here()["destination"] == app.pane.table.row["destination"]  # type: ignore[index]


async def test_nothing_is_done_to_a_row_that_left() -> None:
    link = FakeLink(range(10))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        link.gone.add(0)
        await app.pane.table.renew()
        await pilot.press("r", "x")
        assert app.verbs == [] and "left the queue" in shown(app)[-1]


async def test_a_filter_counts_while_it_is_typed_and_is_shown() -> None:
    link = FakeLink(range(MILLION))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("slash")
        assert app.filter is not None
        changed, done = app.filter
        changed(f"id:{rid(7)}")
        await until(pilot, lambda: "1 recipient match" in shown(app)[-1])
        changed("nonsense")
        await until(pilot, lambda: "neither a term nor a queue id" in shown(app)[-1])
        done(None)
        await pilot.pause()
        assert "waits 10m" in shown(app)[-1] and len(link.taken) == 1
        done(f"id:{rid(7)},{rid(9)}")
        await until(pilot, lambda: f"2 of 1,000,000   id:{rid(7)}" in shown(app)[0])
        assert link.taken[-1]["query"] == f"id:{rid(7)},{rid(9)}"
        assert (app.pane.back() and not app.pane.query_text) or True
        await until(pilot, lambda: "1,000,000" in shown(app)[0] and "id:" not in shown(app)[0])
        assert app.pane.back() is False


async def test_a_wrong_filter_changes_nothing_and_says_what_is_wrong() -> None:
    app = FakeFrame(FakeLink(range(10)))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.pane._typed("nonsense")
        await until(pilot, lambda: "neither a term" in shown(app)[-1])
        assert app.pane.query_text == "" and app.pane.set is not None and app.pane.set.count == 10
        assert len(shown(app)[-1]) <= 80


async def test_what_is_not_in_the_queue_is_looked_for_in_the_history() -> None:
    link = FakeLink(range(10))
    link.history = [{"result": "delivered", "at": rfc3339(NOW), "recipient": f"r{n}@dest1.example", "rid": rid(n),
                     "code": "250", "enhanced": "2.0.0", "reply": "ok"} for n in range(3)]  # fmt: skip
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.pane.show("nothing:x")
        await until(pilot, lambda: "3 in history, Enter" in shown(app)[-2])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PastScreen) and "r2@dest1.example" in "\n".join(shown(app)))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, PastScreen))
        assert app.pane.back()
        await until(pilot, lambda: app.pane.set is not None and app.pane.set.count == 10)


async def test_sorting_keeps_the_row_and_says_so_in_the_title() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        app.pane.table.cursor = 30
        await pilot.press("s")
        assert app.sorted is not None
        app.sorted("next_attempt", True)
        await until(pilot, lambda: "by NEXT▼" in shown(app)[0])
        assert (link.taken[-1]["sort"], link.taken[-1]["reverse"]) == ("next_attempt", True)
        assert app.pane.table.name_here == rid(30) and "NEXT▼" in shown(app)[1]


async def test_the_newest_are_followed_until_the_cursor_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pane_module, "FOLLOW", 0.0)
    monkeypatch.setattr(pane_module, "FOLLOW_SHARE", 0.0)
    link = FakeLink(range(10))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        assert shown(app)[0].endswith("follow")
        app.pane.tick()
        await pilot.pause()
        assert len(link.taken) == 1  # nothing has changed
        link.numbers, app.status = range(-5, 10), {"queue": {"recipients": 15}}
        app.pane.tick()
        await until(pilot, lambda: app.pane.table.name_here == rid(-5))
        await pilot.press("j")
        app.status = {"queue": {"recipients": 17}}
        app.pane.tick()
        await pilot.pause()
        assert len(link.taken) == 2 and shown(app)[0].endswith("+2 since: Ctrl+R")
        await pilot.press("f")
        await until(pilot, lambda: len(link.taken) == 3)
        assert app.pane.following == "on"
        link.numbers = range(-9, 10)
        app.status = {"queue": {"recipients": 19}}
        await settled(pilot, app)
        app.pane.tick()
        await until(pilot, lambda: app.pane.table.count == 19)
        assert app.pane.table.name_here == rid(-4)  # the row is followed, not its place


async def test_an_empty_queue_shows_mail_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pane_module, "FOLLOW", 0.0)
    monkeypatch.setattr(pane_module, "FOLLOW_SHARE", 0.0)
    link = FakeLink(range(0))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        assert "The queue is empty." in shown(app)[-2]
        link.numbers, app.status = range(3), {"queue": {"recipients": 3}}
        app.pane.tick()
        await until(pilot, lambda: "rcpt2@" in "\n".join(shown(app)))


async def test_a_paused_screen_and_a_lost_link_ask_for_nothing() -> None:
    link = FakeLink(range(10))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        asked = len(link.requests)
        app.pane._renewed = 0.0
        app.paused_screen = True
        app.pane.tick()
        app.paused_screen, link.live = False, False
        app.pane.lost()
        app.pane.tick()
        await pilot.pause()
        assert len(link.requests) == asked
        link.live = True
        app.pane.live()
        app.pane.tick()
        await until(pilot, lambda: len(link.taken) == 2)


async def test_a_message_is_opened_and_the_cursor_follows_j_and_k() -> None:
    app = FakeFrame(FakeLink(range(1000)))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, MessageScreen))
        await until(pilot, lambda: "2 of 1,000" in shown(app)[1])
        await pilot.press("J")
        await until(pilot, lambda: rid(2) in shown(app)[1])
        await pilot.press("J")
        await until(pilot, lambda: rid(3) in shown(app)[1])
        await pilot.press("K")
        await until(pilot, lambda: rid(2) in shown(app)[1])
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, MessageScreen))
        assert app.pane.table.cursor == 2


async def test_something_unforeseen_is_shown_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    link = FakeLink(range(10))

    async def broken(*args: Any, **options: Any) -> Any:
        raise KeyError("set")

    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        with monkeypatch.context() as patch:
            patch.setattr(link, "call", broken)
            await pilot.press("ctrl+r")
            await until(pilot, lambda: "the console failed: KeyError" in shown(app)[-1])
        await retaken(pilot, app)
        assert "waits 10m" in shown(app)[-1]
