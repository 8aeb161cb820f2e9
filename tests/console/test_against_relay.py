"""The console's hands on a real relay: what a key does to the queue, and what the journal says of it."""

import json
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mailtui.clock import ManualClock
from mailtui.console.app import Console
from mailtui.console.dialogs.confirm import ConfirmDialog
from mailtui.console.dialogs.export import ExportDialog
from mailtui.console.dialogs.operations import UndoDialog
from mailtui.console.link import Link
from mailtui.console.panes.queue import QueuePane
from tests.console.conftest import shown, until
from tests.end_to_end.conftest import Live, Start, hop, relay_of, smarthost, state
from tests.support.nexthop import NextHop

__all__ = ["hop", "relay_of", "state"]

pytestmark = pytest.mark.usefixtures("no_guard")


@pytest.fixture
def clock() -> ManualClock:
    """The console reads the wall clock, as does an operator."""
    return ManualClock(time.time())


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    hop.rcpt = "451 4.7.1 greylisted"
    async with relay_of(smarthost(hop) + '[queue]\ngrace = "10m"\n') as relay:
        for number in range(3):
            await relay.send(f"rcpt{number}@dest.test", sender="spammer@x.test", content=b"Subject: Offer\r\n\r\nx\r\n")
        await relay.send("bob@other.test")
        await relay.told("deferred", 4)
        yield relay


@asynccontextmanager
async def looking_at(relay: Live) -> AsyncIterator[tuple[Console, Pilot[str]]]:
    app = Console(Link(relay.state / "control.sock"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.status))
        await pilot.press("2")
        await until(pilot, lambda: "rcpt0@dest.test" in shown(app) and "bob@other.test" in shown(app))
        yield app, pilot


async def filtered(app: Console, pilot: Pilot[str], query: str) -> None:
    """The queue, filtered by a line that is typed; the cursor on the first row."""
    await pilot.press("slash", *query, "enter")
    pane = app.query_one(QueuePane)
    await until(pilot, lambda: query in shown(app) and "bob@other.test" not in shown(app) and bool(pane.here()))


async def journal(relay: Live) -> list[dict[str, Any]]:
    """Operator actions, oldest first."""
    link = Link(relay.state / "control.sock")
    try:
        rows = await link.lines("/v1/log?limit=1000")
    finally:
        link.stop()
    return [row for row in rows if row.get("command")]


async def states(relay: Live) -> list[str]:
    return [row["state"] for row in await relay.rows()]


async def test_hold_and_release_of_the_row_under_the_cursor(relay: Live) -> None:
    async with looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "to:rcpt1@dest.test")
        await pilot.press("o")
        await until(pilot, lambda: "held 1 recipient; z undoes it" in shown(app))
        assert await states(relay) == ["deferred", "held", "deferred", "deferred"]
        await until(pilot, lambda: "hold" in shown(app).split("\n")[4])
        await pilot.press("o")
        await until(pilot, lambda: "released 1 recipient" in shown(app))
        assert await states(relay) == ["deferred"] * 4
    assert {" ".join(entry["command"].split()[:3]) for entry in await journal(relay)} == {
        "mailtui queue hold",
        "mailtui queue release",
    }


async def test_try_now_delivers_what_is_marked(relay: Live, hop: NextHop) -> None:
    async with looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "dest:dest.test")
        hop.rcpt = []
        await pilot.press("asterisk", "r")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog) and "3 recipients" in shown(app))
        await pilot.press("Y")
        await until(pilot, lambda: "due now " in shown(app))  # the canary may be on its way when the rest is counted
        await relay.told("delivered", 3)
    assert [row["recipient"] for row in await relay.rows()] == ["bob@other.test"]
    (entry,) = await journal(relay)
    assert entry["command"] == "mailtui queue retry dest:dest.test --yes --expect 3"
    assert entry["recipients"] >= 1  # the canary may have been on its way


async def test_a_bounce_is_typed_undone_with_z_and_then_ends_in_a_report(relay: Live, hop: NextHop) -> None:
    async with looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "from:spammer@x.test")
        await pilot.press("asterisk", "x")
        await until(pilot, lambda: "Dispose" in shown(app))
        await pilot.press("b")
        await until(pilot, lambda: "type 3 and Enter" in shown(app) and "Offer" in shown(app))
        await pilot.press("3", "tab", *"phish wave", "enter")
        await until(pilot, lambda: "bounced 3 recipients; z undoes it" in shown(app))
        assert await relay.count("state:leaving") == 3
        await until(pilot, lambda: "z undo" in shown(app).split("\n")[1])
        await pilot.press("z")
        await until(pilot, lambda: isinstance(app.screen, UndoDialog) and "phish wave" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "undone 3 recipients" in shown(app))
        assert await states(relay) == ["deferred"] * 4
        assert hop.messages == []

        app.run_verb("queue.bounce", query="to:rcpt0@dest.test", reason="again")
        await until(pilot, lambda: "type dest.test" in shown(app))
        await pilot.press(*"dest.test", "enter")
        await until(pilot, lambda: "bounced 1 recipient" in shown(app))
        hop.rcpt = []
        await relay.pass_time(601)
        await until(pilot, lambda: any(b"multipart/report" in message.data for message in hop.messages))
    (report,) = [message.data for message in hop.messages if b"multipart/report" in message.data]
    assert b"rcpt0@dest.test" in report
    told = {entry["command"]: entry for entry in await journal(relay)}
    first = told["mailtui queue bounce from:spammer@x.test --yes --expect 3 --reason 'phish wave'"]
    # Q13: whatever was done is logged with who did it.
    assert (first["recipients"], first["reason"], bool(first["who"])) == (3, "phish wave", True)
    assert any(command.startswith("mailtui queue undo o") for command in told)
    assert "mailtui queue bounce to:rcpt0@dest.test --yes --expect 1 --reason again" in told


async def test_reroute_from_the_command_line(relay: Live, hop: NextHop) -> None:
    async with NextHop() as other, looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "to:rcpt2@dest.test")
        target = f"smtp://[{other.host}]:{other.port}"
        app.command_line(f"reroute --to {target}")
        await pilot.press("enter")
        await until(pilot, lambda: "rerouted 1 recipient" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "due now 1 recipient" in shown(app))
        await other.received(1)
        assert hop.messages == []
    assert any(f"--to '{target}'" in entry["command"] for entry in await journal(relay))


async def test_drill_down_says_why(relay: Live) -> None:
    async with looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "to:rcpt0@dest.test")
        await pilot.press("enter")
        await until(pilot, lambda: "WHY" in shown(app) and "greylisted" in shown(app))
        await pilot.press("m")
        await until(pilot, lambda: "Offer" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "to:rcpt0@dest.test" in shown(app))


async def test_messages_are_exported_whole_with_their_envelopes(
    relay: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with looking_at(relay) as (app, pilot):
        await filtered(app, pilot, "dest:dest.test")
        await pilot.press("asterisk", "e")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog) and "all 3 marked" in shown(app))
        await pilot.press("e", "tab", "ctrl+u", *"mail")
        await until(pilot, lambda: "$ mailtui queue export dest:dest.test mail" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "exported 3 messages, " in shown(app) and " in mail" in shown(app))
        rows = await relay.rows("dest:dest.test")
    found = {path.name: path for path in (tmp_path / "mail").iterdir()}
    assert found.keys() == {f"{row['id']}.{end}" for row in rows for end in ("eml", "json")}
    for row in rows:
        assert b"Subject: Offer\r\n" in found[f"{row['id']}.eml"].read_bytes()
        assert json.loads(found[f"{row['id']}.json"].read_text())["selected"] == [row["rid"]]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.values()} == {0o600}
    assert not any("export" in entry["command"] for entry in await journal(relay))


async def test_pause_stands_in_a_banner_and_resume_takes_it_away(relay: Live) -> None:
    async with looking_at(relay) as (app, pilot):
        app.command_line("pause delivery --reason maintenance")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("Y")
        await until(pilot, lambda: " PAUSED " in shown(app).split("\n")[1])
        app.command_line("resume")
        await pilot.press("enter")
        await until(pilot, lambda: " PAUSED " not in shown(app).split("\n")[1])


async def test_suspend_and_resume_of_a_destination_on_the_overview(relay: Live) -> None:
    async with looking_at(relay) as (app, pilot):
        await pilot.press("1")
        await until(pilot, lambda: "dest.test" in shown(app) and "TOP DESTINATIONS" in shown(app))
        await pilot.press("o")
        await until(pilot, lambda: "for how long?" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog) or "suspended for 1h" in shown(app))
        await pilot.press("Y")
        await until(pilot, lambda: "! dest.test: suspended until" in shown(app))
        await pilot.press("o")
        await until(pilot, lambda: "dest.test resumed" in shown(app) or isinstance(app.screen, ConfirmDialog))
        await pilot.press("Y")
        await until(pilot, lambda: "! dest.test: suspended" not in shown(app))


async def test_the_relay_that_stops_is_lost_and_the_screen_stays(relay: Live) -> None:
    async with looking_at(relay) as (app, pilot):
        await relay.relay.stop(0.0)
        await until(pilot, lambda: " LOST " in shown(app).split("\n")[1])
        assert "rcpt0@dest.test" in shown(app)
        await pilot.press("o")
        await until(pilot, lambda: "not now: " in shown(app))
