"""The link: what it brings, what it says when the relay goes, and that everything is cleaned."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mailtui.console import link as link_module
from mailtui.console.link import AnswerError, Link, Snapshot
from mailtui.control.errors import VerbError
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_row, a_status


async def taken(link: Link, holds: Callable[[Snapshot], bool]) -> Snapshot:
    """Take until it holds."""
    async with asyncio.timeout(10):
        while True:
            snapshot = link.take()
            if snapshot is not None and holds(snapshot):
                return snapshot
            await asyncio.sleep(0.01)


async def test_events_are_merged_into_one_snapshot_until_it_is_taken(relay: FakeRelay) -> None:
    link = Link(relay.path)
    link.start()
    try:
        await taken(link, lambda snapshot: snapshot.live and bool(snapshot.status))
        for number in range(20):
            relay.say("hold", text=str(number))
        relay.say("gap", missed=7)
        await asyncio.sleep(0.3)
        snapshot = link.take()
        assert snapshot is not None
        assert [event["text"] for event in snapshot.events] == [str(number) for number in range(20)]
        assert snapshot.missed == 7 and snapshot.status["hostname"] == "relay1.example.org"
    finally:
        link.stop()


async def test_a_console_that_does_not_take_stops_the_reading_and_loses_nothing_of_the_status(
    relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "EVENTS", 5)
    link = Link(relay.path)
    link.start()
    try:
        await taken(link, lambda snapshot: snapshot.live)
        for number in range(50):
            relay.say("hold", text=str(number))
        first = await taken(link, lambda snapshot: len(snapshot.events) > 0)
        assert len(first.events) <= 6
        relay.status = a_status(hostname="second.example")
        await taken(link, lambda snapshot: snapshot.status["hostname"] == "second.example")
    finally:
        link.stop()


async def test_a_relay_that_hangs_up_is_lost_and_found_again(relay: FakeRelay) -> None:
    link = Link(relay.path)
    link.start()
    try:
        await taken(link, lambda snapshot: snapshot.live)
        await relay.stop()
        snapshot = await taken(link, lambda snapshot: not snapshot.live)
        assert snapshot.problem and snapshot.heard > 0 and snapshot.status
        relay.epoch = "e2"
        await relay.start()
        await taken(link, lambda snapshot: snapshot.live)
    finally:
        link.stop()


async def test_a_relay_that_says_nothing_is_lost(relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "SILENCE", 0.3)
    link = Link(relay.path)
    link.start()
    try:
        await taken(link, lambda snapshot: snapshot.live)
        relay.silent = True
        snapshot = await taken(link, lambda snapshot: not snapshot.live)
        assert "says nothing" in snapshot.problem
    finally:
        link.stop()


async def test_answers_are_cleaned_keys_too(relay: FakeRelay) -> None:
    relay.rows = [a_row(1, subject="\x1b]52;c;aGk=\x07\u202eevil", **{"ke\x9by": "x"})]
    link = Link(relay.path)
    try:
        (row,) = await link.lines("/v1/sets/s1/rows?offset=0&limit=1")
        assert row["subject"] == "�]52;c;aGk=��evil"
        assert "ke�y" in row
        message = await link.call("GET", f"/v1/queue/messages/{row['id']}", lines=True)
        assert message["subject"] == row["subject"]
        assert b"\\u001b]52" in await link.raw(f"/v1/queue/messages/{row['id']}", 10_000)
    finally:
        link.stop()


async def test_errors_carry_the_relays_sentence_and_a_lost_set_is_gone(relay: FakeRelay) -> None:
    relay.gone_sets.add("s9")
    link = Link(relay.path)
    try:
        with pytest.raises(AnswerError, match="no such term") as wrong:
            await link.call("POST", "/v1/sets", {"query": "bad:x"})
        assert not wrong.value.gone and wrong.value.exit == 2
        with pytest.raises(AnswerError) as gone:
            await link.lines("/v1/sets/s9/rows")
        assert gone.value.gone
        await relay.stop()
        with pytest.raises(VerbError, match="no relay answers"):
            await link.call("GET", "/v1/status")
    finally:
        link.stop()


async def test_what_is_no_relay_is_said_to_be_none(tmp_path: Path) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\x1b[2J<>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(nonsense, str(tmp_path / "s"))
    link = Link(tmp_path / "s")
    try:
        with pytest.raises(AnswerError, match="is not a mailtui relay"):
            await link.call("GET", "/v1/status")
    finally:
        link.stop()
        server.close()


async def test_a_lost_relay_dims_what_is_old_and_disables_actions(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await relay.stop()
        await until(pilot, lambda: " LOST " in shown(app).split("\n")[1] and "as of" in shown(app))
        assert "1,000,000" in shown(app)  # the last that was known stays, dim
        assert app.overview.board.rich_style.dim
        await pilot.press("r")
        await until(pilot, lambda: "not now: " in shown(app))
        await relay.start()
        await until(pilot, lambda: "LIVE" in shown(app) and "connected again" in shown(app))


async def test_a_relay_that_comes_later_is_found(relay: FakeRelay, console: Opener) -> None:
    await relay.stop()
    async with console(wait=False) as (app, pilot):
        await until(pilot, lambda: "CONNECTING: no relay answers" in shown(app))
        await relay.start()
        await until(pilot, lambda: "dest1.example" in shown(app))
