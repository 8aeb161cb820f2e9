"""The event stream: everything in order, or a gap that counts; a status again and again; slow readers cost nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mailtui.control import stream
from mailtui.control.server import ControlServer
from mailtui.events import RECENT
from tests.control.test_server import FakeLive
from tests.queue.filled import Filled

Document = dict[str, Any]


@dataclass
class Reading:
    """A reader of the stream that keeps what it got."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rows: list[Document] = field(default_factory=list)

    async def row(self) -> Document:
        while True:
            size = int(await self.reader.readline() or b"0", 16)
            if not size:
                raise EOFError
            text = await self.reader.readexactly(size + 2)
            self.rows += map(json.loads, text[:-2].splitlines())
            if self.rows:
                return self.rows[-1]

    async def until(self, number: int) -> list[Document]:
        """Read until the event with this number; events and gaps, without the statuses."""
        while not self.rows or self.rows[-1]["seq"] < number:
            await self.row()
        return [row for row in self.rows if row["event"] != "status"]

    def close(self) -> None:
        self.writer.close()


@dataclass
class Relay:
    live: FakeLive
    path: Path

    async def read(self, parameters: str = "") -> Reading:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 24)
        writer.write(f"GET /v1/events{parameters} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head, head
        return Reading(reader, writer)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    filled = Filled(tmp_path)
    live = FakeLive(tmp_path)
    server = ControlServer(live, tmp_path / "control.sock")
    await server.start()
    yield Relay(live, tmp_path / "control.sock")
    await server.stop()
    filled.connection.close()


async def test_a_reader_begins_with_a_status_and_gets_what_happens_from_then_on(relay: Relay) -> None:
    relay.live.events.emit("before")
    reading = await relay.read()
    first = await reading.row()
    assert (first["event"], first["seq"], first["status"]["running"]) == ("status", 1, True)
    relay.live.events.emit("accepted", id=5, text="x\x1b[2J")
    relay.live.events.emit("delivered", id=5)
    found = await reading.until(3)
    assert [(row["seq"], row["event"], row["epoch"]) for row in found] == [
        (2, "accepted", first["epoch"]),
        (3, "delivered", first["epoch"]),
    ]
    assert found[0]["text"] == "x�[2J"
    assert found[0]["at"] == "2023-11-14T22:13:20.000Z"
    reading.close()


async def test_a_reader_that_comes_back_gets_what_it_missed(relay: Relay) -> None:
    reading = await relay.read()
    epoch = (await reading.row())["epoch"]
    reading.close()
    for number in range(3):
        relay.live.events.emit(f"event{number}")
    again = await relay.read(f"?since=1&epoch={epoch}")
    assert [row["event"] for row in await again.until(3)] == ["event1", "event2"]
    again.close()


@pytest.mark.parametrize("parameters", ["?since=2&epoch=another", "?since=99", "?since=0"])
async def test_a_reader_of_another_relay_gets_all_that_this_one_knows(relay: Relay, parameters: str) -> None:
    relay.live.events.emit("first")
    relay.live.events.emit("second")
    reading = await relay.read(parameters)
    assert [row["event"] for row in await reading.until(2)] == ["first", "second"]
    reading.close()


async def test_a_number_that_is_none_is_refused(relay: Relay) -> None:
    with pytest.raises(AssertionError, match="400 Bad Request"):
        await relay.read("?since=x")


async def test_what_is_not_kept_any_more_is_a_gap(relay: Relay) -> None:
    for number in range(RECENT + 10):
        relay.live.events.emit("event", n=number)
    reading = await relay.read("?since=0")
    found = await reading.until(RECENT + 10)
    assert (found[0]["event"], found[0]["missed"], found[0]["seq"]) == ("gap", 10, 10)
    assert [row["seq"] for row in found[1:]] == list(range(11, RECENT + 11))
    reading.close()


async def test_a_burst_arrives_whole_and_in_order(relay: Relay) -> None:
    reading = await relay.read()
    await reading.row()
    count = stream.PIECE * 3 + 7
    for number in range(count):
        relay.live.events.emit("event", n=number)
    assert [row["n"] for row in await reading.until(count)] == list(range(count))
    reading.close()


async def test_a_reader_that_does_not_read_loses_events_and_costs_no_memory(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TICK", 0.001)  # how often it writes: what is told is the same
    slow = await relay.read()
    await slow.row()
    quick = await relay.read()
    await quick.row()
    transport = slow.writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]
    sent = 0
    for _ in range(40):
        for _ in range(500):
            sent += 1
            relay.live.events.emit("event", text="x" * 500)
        await quick.until(sent)
    transport.resume_reading()  # type: ignore[attr-defined]
    found = await slow.until(sent)
    gaps = [row for row in found if row["event"] == "gap"]
    assert gaps
    assert sum(row["missed"] for row in gaps) + len(found) - len(gaps) == sent
    assert [row["seq"] for row in found] == sorted(row["seq"] for row in found)
    assert [row for row in await quick.until(sent) if row["event"] == "gap"] == []
    slow.close()
    quick.close()


async def test_a_status_comes_every_second_and_four_times_a_second_when_something_changes(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TICK", 0)
    now = 0.0
    rows = stream.Stream(relay.live, asyncio.Event(), lambda: now).rows(0)

    async def told(at: float, *, paused: str = "") -> bool:
        nonlocal now
        now, relay.live.paused = at, paused
        return [row["event"] for row in await anext(rows)] == ["status"]

    quiet = [at for at in (tick / 10 for tick in range(31)) if await told(at)]
    assert quiet == [0.0, 1.0, 2.0, 3.0]
    busy = [at for at in (4 + tick / 10 for tick in range(11)) if await told(at, paused=str(at))]
    assert busy == [4.0, 4.3, 4.6, 4.9]


async def test_many_readers_share_a_status(relay: Relay) -> None:
    asked = 0
    read = relay.live.read

    async def counted(work: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read(work)

    relay.live.read = counted  # type: ignore[method-assign]
    readings = [await relay.read() for _ in range(5)]
    for reading in readings:
        await reading.row()
    assert asked == 1
    for reading in readings:
        reading.close()


async def test_the_stream_ends_with_the_relay(tmp_path: Path) -> None:
    filled = Filled(tmp_path)
    server = ControlServer(FakeLive(tmp_path), tmp_path / "s")
    await server.start()
    reading = await Relay(server.live, tmp_path / "s").read()  # type: ignore[arg-type]
    await reading.row()
    await server.stop()
    with pytest.raises((EOFError, asyncio.IncompleteReadError, ConnectionError)):
        while True:
            await reading.row()
    reading.close()
    filled.connection.close()
