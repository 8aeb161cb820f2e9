"""The frame: status, tabs, banners, footer, panes, help, leaving."""

from mailtui.console import keys
from mailtui.console.panes.overview import OverviewPane
from mailtui.control.verbs import VERBS
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_destination, at


async def test_the_status_line_says_whose_relay_it_is_and_how_much_waits(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "1,000,000" in shown(app) and "0.0kB" in shown(app))
        first, second = shown(app).split("\n")[:2]
        assert first.startswith(" mailtui relay1 ● up 41d │ q 1,000,000 act 62 def 998,410 hold 1,528 │ ")
        assert second.startswith(" 1 OVERVIEW  2 queue ") and "LIVE" in second


async def test_every_line_fits_at_80_by_24_and_at_160_by_48(relay: FakeRelay, console: Opener) -> None:
    for size in ((80, 24), (160, 48)):
        async with console(size) as (app, pilot):
            await until(pilot, lambda app=app: "dest1.example" in shown(app))
            lines = shown(app).split("\n")
            assert len(lines) == size[1]
            assert {len(line) for line in lines} == {size[0]}


async def test_the_overview_shows_flow_destinations_and_events(relay: FakeRelay, console: Opener) -> None:
    relay.destinations.append(a_destination("slow.example", state="down", reason="connect timed out", deferred=340739))
    relay.status["warnings"] = [{"code": "disk", "text": "the disk is nearly full", "since": at(-60)}]
    async with console() as (app, pilot):
        await until(pilot, lambda: "slow.example" in shown(app))
        text = shown(app)
        assert " in 212/min" in text and "out 340/min" in text and "4xx 31/min" in text
        assert "oldest 4d02h" in text and "61GB free" in text
        assert "NEEDS YOU" in text and "! the disk is nearly full, since" in text
        assert "! slow.example: down, 340,744 waiting, connect timed out" in text
        assert "TOP DESTINATIONS" in text and "451 4.7.1 greylisted" in text
        await until(pilot, lambda: "started listens on 127.0.0.1:2525" in shown(app))


async def test_a_wide_screen_shows_more_at_once(relay: FakeRelay, console: Opener) -> None:
    async with console((160, 48)) as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        text = shown(app)
        assert "in 212/m out 340/m 4xx 31/m 5xx 2/m" in text
        assert "EVENTS" in text and "DEFERRED" in text and "CONNS" in text
        assert "relay1.example.org" in text


async def test_new_events_and_a_new_status_move_the_screen(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        relay.say("hold", who="anna", text="from:news@y (1,204)")
        relay.status["queue"]["held"] = 2732
        await until(pilot, lambda: "anna: hold from:news@y (1,204)" in shown(app) and "hold 2,732" in shown(app))


async def test_a_pause_and_read_only_stand_in_a_banner(relay: FakeRelay, console: Opener) -> None:
    relay.status["paused"] = "delivery by anna until 10:00"
    async with console() as (app, pilot):
        await until(pilot, lambda: " PAUSED delivery by anna until 10:00" in shown(app).split("\n")[1])
    relay.status["paused"] = None
    async with console(read_only="started with --read-only") as (app, pilot):
        await until(pilot, lambda: " READ-ONLY " in shown(app).split("\n")[1])


async def test_read_only_runs_no_verb_and_says_why(relay: FakeRelay, console: Opener) -> None:
    async with console(read_only="started with --read-only") as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "read-only: started with --read-only" in shown(app))
        app.command_line("stop")
        await pilot.press("enter")
        await until(pilot, lambda: "read-only" in shown(app).split("\n")[-2])
        assert [path for method, path, _ in relay.asked if "/verbs/" in path] == []


async def test_the_screen_can_stand_still_and_counts_what_it_misses(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("p")
        assert "SCREEN PAUSED" in shown(app)
        relay.status["queue"]["held"] = 9
        for _ in range(3):
            relay.say("hold", who="anna")
        await until(pilot, lambda: app.missed == 3)
        assert "hold 1,528" in shown(app)
        await pilot.press("p")
        await until(pilot, lambda: "hold 9" in shown(app) and "3 events came" in shown(app))


async def test_the_footer_fits_and_always_ends_with_help() -> None:
    for scope in ("overview", "queue", "message"):
        for width in (30, 80, 160):
            chosen = keys.footer(scope, width)
            assert chosen[-1] == ("?", "keys")
            assert sum(len(key) + len(label) + 3 for key, label in chosen) <= width + 1
    assert ("z", "undo") in keys.footer("overview", 80)


def test_no_key_that_changes_state_is_what_is_left_of_a_torn_sequence() -> None:
    torn = set("ABCDFHOPQRSZ[~0123456789")
    assert [key for key in keys.KEYS if key.verb and key.key in torn] == []
    assert [key for key in keys.KEYS if key.verb and key.key.lower().startswith("ctrl")] == []


def test_the_keys_are_those_of_the_registry() -> None:
    table = {(key.scope, key.key, key.verb) for key in keys.KEYS if key.verb}
    assert all(verb in VERBS for _, _, verb in table)
    for verb in VERBS.values():
        if verb.key and verb.scope in keys.SCOPES:
            assert any(key.scope == verb.scope and key.key == verb.key[0] for key in keys.KEYS), verb.name
    assert all(text for scope in keys.SCOPES for key, text in keys.lines([scope])[1:])


async def test_help_lists_the_keys_of_the_place_and_closes(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: "OVERVIEW" in shown(app) and "suspend the destination" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "TOP DESTINATIONS" in shown(app))


async def test_the_cursor_of_the_overview_stays_on_its_destination(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest2.example" in shown(app))
        await pilot.press("j")
        pane = app.query_one(OverviewPane)
        assert pane.here()["destination"] == "dest2.example"
        relay.destinations[1]["deferred"] = 5_000_000
        pane.acted("", {})
        await until(pilot, lambda: pane.destinations[0]["destination"] == "dest2.example")
        assert pane.here()["destination"] == "dest2.example"


async def test_q_leaves_at_the_second_press_only_and_says_that_the_relay_goes_on(
    relay: FakeRelay, console: Opener
) -> None:
    async with console() as (app, pilot):
        await pilot.press("escape", "escape", "q")
        await until(pilot, lambda: "q again leaves the console; the relay goes on" in shown(app))
        await pilot.press("q")
        await until(pilot, lambda: app.return_value == "leave")


async def test_two_questions_never_lie_on_each_other(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        app.dispose_menu(query="to:*")
        app.defer_dialog(query="to:*")
        app.run_verb("queue.hold", query="to:*")
        await until(pilot, lambda: "Dispose" in shown(app))
        await until(pilot, lambda: len(relay.verbs(preview=True)) == 1)
        await pilot.pause(0.1)
        assert len(app.screen_stack) == 2


async def test_only_panes_that_exist_are_shown(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("3", "2")
        await until(pilot, lambda: " 2 QUEUE " in shown(app))
        await pilot.press("minus")
        await until(pilot, lambda: " 1 OVERVIEW " in shown(app))


async def test_ascii_draws_with_ascii(relay: FakeRelay, console: Opener) -> None:
    async with console(ascii_only=True) as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        assert shown(app).isascii()
        await pilot.press("question_mark")
        await until(pilot, lambda: "OVERVIEW" in shown(app))
        assert shown(app).isascii()
