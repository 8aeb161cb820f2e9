"""The control socket: the contract's JSON over a real Unix socket, errors with exit statuses, who asks."""

import asyncio
import io
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from mailtui.clock import ManualClock
from mailtui.config import Settings, parse
from mailtui.control import client as client_module
from mailtui.control.client import Client, Unreachable
from mailtui.control.errors import VerbError
from mailtui.control.server import PEER, ControlServer, SocketInUse
from mailtui.events import Events
from mailtui.ids import encode
from mailtui.intake.access import AccessRules
from mailtui.intake.callout import Callout
from mailtui.intake.grants import Grants
from mailtui.model import Account, Plan, PlannedHost, State, Why
from mailtui.queue.read import Reader
from mailtui.queue.rows import Row
from tests.queue.filled import NOW, Filled, to

T = TypeVar("T")


class FakeRouter:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def plan(self, address: str, destination: str, sender: str) -> Plan:
        self.asked.append((address, destination, sender))
        host = PlannedHost(10, "mx.a.test", ("192.0.2.1",), 25)
        return Plan(destination, "mx.a.test", "deliver", "mx", (host,), dropped=(("us\x1b.test", "is ourselves"),))


@dataclass
class FakeLive:
    """A relay with a queue and nothing else."""

    state_dir: Path
    settings: Settings = field(default_factory=lambda: parse('hostname = "relay.test"\n[trace]\ntrusted = ["b.test"]'))
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    router: FakeRouter = field(default_factory=FakeRouter)
    hostname: str = "relay.test"
    started: float = NOW - 100
    paused: str = ""
    in_hand: list[tuple[int, int]] = field(default_factory=list)
    busy: frozenset[tuple[int, int]] = frozenset()
    scans: int = 0

    def __post_init__(self) -> None:
        self.events = Events(self.clock, io.StringIO())
        self.grants = Grants(self.clock)
        self.callout = Callout(self.clock, self.events)
        self._reader = Reader(self.state_dir)

    async def read(self, work: Callable[[Reader], T]) -> T:
        return work(self._reader)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        self.scans += 1
        return work(self._reader)

    def claimed(self) -> list[tuple[int, int]]:
        return self.in_hand

    def active(self) -> frozenset[tuple[int, int]]:
        return self.busy

    def why(self, row: Row) -> Why:
        return Why(f"{row.recipient} waits", "retry-clock", NOW - 5, "time", row.due, row.expires, "[retry] schedule")

    def listeners(self) -> list[dict[str, Any]]:
        return [{"name": "default", "address": "127.0.0.1:2525", "role": "relay", "tls": "none"}]

    def warnings(self) -> list[dict[str, Any]]:
        return [{"code": "disk", "text": "short\x1b", "since": NOW}]

    def disk(self) -> dict[str, int]:
        return {"free": 10, "needed": 5}

    def access_rules(self) -> AccessRules:
        return AccessRules.from_settings(self.settings)

    def accounts(self) -> list[Account]:
        return []


@dataclass
class Relay:
    live: FakeLive
    path: Path
    filled: Filled

    async def ask(self, work: Callable[[Client], T]) -> T:
        """Ask from a thread, as a command does."""

        def asked() -> T:
            client = Client(self.path)
            try:
                return work(client)
            finally:
                client.close()

        return await asyncio.to_thread(asked)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    filled = Filled(tmp_path)
    live = FakeLive(tmp_path)
    server = ControlServer(live, tmp_path / "control.sock")
    await server.start()
    yield Relay(live, tmp_path / "control.sock", filled)
    await server.stop()
    filled.connection.close()


def every(client: Client, query: str = "", **options: Any) -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {"sort": "arrived", "reverse": False, "limit": 50, "after": ""} | options
    return list(client.queue(query, **wanted))


async def test_status(relay: Relay) -> None:
    relay.filled.add(to("a@a.test"), to("b@b.test", 2, state=State.HELD), age=60)
    relay.live.events.emit("accepted")
    relay.live.clock.advance(1)
    found = await relay.ask(lambda client: client.status())
    assert (found["running"], found["pid"], found["hostname"], found["paused"]) == (
        True,
        os.getpid(),
        "relay.test",
        None,
    )
    assert (found["queue"]["queued"], found["queue"]["held"], found["queue"]["messages"]) == (1, 1, 1)
    assert found["queue"]["oldest"] == "2023-11-14T22:12:20.000Z"
    assert found["rates"]["accepted_1m"] == 1
    assert found["disk"] == {"free": 10, "needed": 5}
    assert found["warnings"] == [{"code": "disk", "text": "short\ufffd", "since": "2023-11-14T22:13:20.000Z"}]


async def test_a_listing_is_paged_through_to_its_end(relay: Relay) -> None:
    for number in range(1203):
        relay.filled.add(to(f"u{number}@a.test"), age=2000 - number)
    assert len(await relay.ask(every)) == 50
    found = await relay.ask(lambda client: every(client, limit=0))
    assert [row["recipient"] for row in found] == [f"u{number}@a.test" for number in reversed(range(1203))]
    some = await relay.ask(lambda client: every(client, limit=700))
    assert some == found[:700]
    assert await relay.ask(lambda client: every(client, limit=0, after=some[-1]["cursor"])) == found[700:]


async def test_what_delivery_has_in_hand_is_listed_as_active(relay: Relay) -> None:
    message = relay.filled.add(to("a@a.test"), to("b@b.test", 2), claims=[1, 2])
    assert await relay.ask(every) == []
    relay.live.in_hand = [(message, 1), (message, 2)]
    relay.live.busy = frozenset({(message, 2)})
    assert [(row["rid"], row["state"]) for row in await relay.ask(every)] == [
        (f"{encode(message)}.2", "active"),
        (f"{encode(message)}.1", "queued"),
    ]
    assert await relay.ask(lambda client: client.count("state:active")) == {
        "messages": 1, "recipients": 1, "bytes": 1000,
    }  # fmt: skip


async def test_only_what_no_index_leads_runs_as_a_scan(relay: Relay) -> None:
    relay.filled.add(to("a@a.test"))
    await relay.ask(lambda client: every(client, "dest:a.test"))
    await relay.ask(lambda client: client.count(""))
    assert relay.live.scans == 0
    await relay.ask(lambda client: every(client, "from:bob*"))
    await relay.ask(lambda client: every(client, sort="size"))
    assert relay.live.scans == 2


async def test_show_why_trace_and_raw(relay: Relay) -> None:
    body = b"Received: from b.test by relay.test; Tue, 14 Nov 2023 22:00:00 +0000\r\nSubject: x\r\n\r\n\x1b text\r\n"
    message = relay.filled.add(to("a@a.test", due=NOW + 5), body=body)
    id = encode(message)
    shown = await relay.ask(lambda client: client.message(id, transcript=False))
    assert shown["headers"][1] == ["Subject", "x"]
    why = await relay.ask(lambda client: client.why(f"{id}.1"))
    assert [(row["limiter"], row["because"], row["rid"]) for row in why] == [
        ("retry-clock", "a@a.test waits", f"{id}.1")
    ]
    trace = await relay.ask(lambda client: client.trace(id))
    assert trace["hops"][-1]["by"] == "relay.test"
    assert trace["hops"][-1]["trusted"] is True
    assert await relay.ask(lambda client: b"".join(client.raw(id))) == body


async def test_raw_streams_a_spool_file(relay: Relay) -> None:
    message = relay.filled.add(to("a@a.test"), body=None)
    body = os.urandom(300_000)
    (relay.filled.spool / encode(message)).write_bytes(body)
    assert await relay.ask(lambda client: b"".join(client.raw(encode(message)))) == body
    (relay.filled.spool / encode(message)).unlink()
    with pytest.raises(VerbError, match="cannot be read") as caught:
        await relay.ask(lambda client: b"".join(client.raw(encode(message))))
    assert caught.value.exit == 1
    assert (await relay.ask(lambda client: client.message(encode(message), transcript=False)))["headers"] == []


async def test_a_plan_is_asked_for_a_domain_or_an_address(relay: Relay) -> None:
    found = await relay.ask(lambda client: client.plan("A.test."))
    assert (found["via"], found["hosts"][0]["name"], found["code"]) == ("mx", "mx.a.test", None)
    assert found["hosts"][0]["tls"]["level"] == "may"
    assert found["dropped"] == [{"name": "us\ufffd.test", "why": "is ourselves"}]
    await relay.ask(lambda client: client.plan('"a/b?c d"@b.test'))
    assert relay.live.router.asked == [("", "a.test", ""), ('"a/b?c d"@b.test', "b.test", "")]


async def test_access_test_and_config(relay: Relay) -> None:
    probe = {"client": "203.0.113.9", "from": "<>", "to": "a+b&c@x.test", "tls": False, "helo": None}
    found = await relay.ask(lambda client: client.access_test(probe))
    assert (found["verdict"], found["rule"]) == ("reject", "default")
    config = await relay.ask(lambda client: client.config())
    assert {"key": "hostname", "value": "relay.test", "origin": "mailtui.toml:1"} in config["values"]


async def test_history_and_log(relay: Relay) -> None:
    relay.filled.past(7, 1, "old@a.test", result=0, at=NOW - 50)
    relay.filled.journal("hold", who="ann", command="queue hold", query="dest:x", recipients=1, reason="r", at=NOW)
    relay.live.events.emit("accepted", id=9, next_attempt=NOW, text="x\x1b")
    assert [row["result"] for row in await relay.ask(lambda client: list(client.history("", limit=5, after="")))] == [
        "delivered"
    ]
    found = await relay.ask(lambda client: client.log(limit=10))
    assert [row["event"] for row in found] == ["delivered", "hold", "accepted"]
    assert (found[1]["who"], found[1]["query"], found[1]["recipients"], found[1]["reason"]) == ("ann", "dest:x", 1, "r")
    assert (found[2]["next_attempt"], found[2]["text"]) == ("2023-11-14T22:13:20.000Z", "x\ufffd")
    assert await relay.ask(lambda client: client.log(limit=1)) == found[-1:]


async def test_following_gets_events_as_they_happen(relay: Relay) -> None:
    relay.live.events.emit("before")
    got: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def follow() -> None:
        client = Client(relay.path)
        coming = client.follow()
        loop.call_soon_threadsafe(got.put_nowait, "following")
        for row in coming:
            loop.call_soon_threadsafe(got.put_nowait, row["event"])
            if row["event"] == "second":
                break
        client.close()

    task = asyncio.create_task(asyncio.to_thread(follow))
    assert await got.get() == "following"
    relay.live.events.emit("first")
    assert await got.get() == "first"
    relay.live.events.emit("second")
    assert await got.get() == "second"
    await task


@pytest.mark.parametrize(
    ("ask", "exit", "says"),
    [
        (lambda client: client.message("0000000000000", transcript=False), 1, "neither in the queue"),
        (lambda client: client.message("../etc", transcript=False), 2, "is no queue id"),
        (lambda client: client.why("0000000000000.7"), 1, "neither in the queue"),
        (lambda client: client.trace("0000000000000"), 1, "neither in the queue"),
        (lambda client: client.plan("a..b"), 2, "neither a domain"),
        (lambda client: client.count("nonsense:1"), 2, "dest:"),
        (lambda client: every(client, "nonsense:1"), 2, "dest:"),
        (lambda client: every(client, sort="nonsense"), 2, "arrived"),
        (lambda client: every(client, after="nonsense"), 2, "cursor"),
        (lambda client: every(client, limit="x"), 2, "whole number"),
        (lambda client: client.access_test({"client": "x", "from": "a@b.test", "to": "c@d.test"}), 2, "IP address"),
        (lambda client: client.access_test({"client": "192.0.2.1"}), 2, "--from"),
        (lambda client: client._document("/v1/nonsense"), 2, "no such request"),
    ],
)
async def test_errors_carry_the_exit_status(relay: Relay, ask: Callable[[Client], Any], exit: int, says: str) -> None:
    with pytest.raises(VerbError) as caught:
        await relay.ask(ask)
    assert caught.value.exit == exit
    assert says in caught.value.text
    assert "\n" not in caught.value.text


async def test_a_fault_is_an_answer_and_an_event(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.live, "disk", lambda: 1 / 0)
    with pytest.raises(VerbError, match="ZeroDivisionError"):
        await relay.ask(lambda client: client.status())
    assert relay.live.events.recent[-1]["event"] == "control-error"
    monkeypatch.undo()
    assert (await relay.ask(lambda client: client.status()))["running"]


async def test_one_connection_answers_many_questions(relay: Relay) -> None:
    relay.filled.add(to("a@a.test"), to("b@a.test", 2))

    def many(client: Client) -> None:
        for _ in range(20):
            client.status()
            client.log(limit=5)
            assert next(iter(client.queue("", sort="arrived", reverse=False, limit=0, after="")))
            assert len(every(client)) == 2

    await relay.ask(many)


async def test_the_kernel_says_who_asks(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def status(request: Any) -> Any:
        seen.append(request[PEER])
        return web.json_response({"running": True})

    server = ControlServer(relay.live, relay.path.with_name("second.sock"))
    monkeypatch.setattr(server._parts[0], "_status", status)
    await server.start()
    await asyncio.to_thread(lambda: Client(server.path).status())
    await server.stop()
    assert [(peer.pid, peer.uid) for peer in seen] == [(os.getpid(), os.getuid())]
    assert seen[0].name


async def test_the_socket_is_for_owner_and_group(relay: Relay) -> None:
    assert stat.S_IMODE(relay.path.stat().st_mode) == 0o660


async def test_a_socket_that_answers_is_not_taken(relay: Relay) -> None:
    with pytest.raises(SocketInUse, match="another relay answers"):
        await ControlServer(relay.live, relay.path).start()
    assert (await relay.ask(lambda client: client.status()))["running"]


@pytest.mark.parametrize("name", ["missing/control.sock", "x" * 200])
async def test_a_socket_that_cannot_be_made_is_explained(relay: Relay, name: str) -> None:
    with pytest.raises(OSError, match=r"cannot make the control socket .* give another one with --socket"):
        await ControlServer(relay.live, relay.path.parent / name).start()


async def test_a_stale_socket_is_replaced_and_removed_at_the_end(relay: Relay) -> None:
    path = relay.path.with_name("stale.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = ControlServer(relay.live, path)
    await server.start()
    assert (await asyncio.to_thread(lambda: Client(path).status()))["running"]
    await server.stop()
    assert not path.exists()
    with pytest.raises(Unreachable):
        Client(path)


async def test_stopping_ends_those_who_follow(relay: Relay) -> None:
    server = ControlServer(relay.live, relay.path.with_name("third.sock"))
    await server.start()

    def follow() -> list[dict[str, Any]]:
        return list(Client(server.path).follow())

    task = asyncio.create_task(asyncio.to_thread(follow))
    while not server._runner.server.connections:  # type: ignore[union-attr]  # noqa: ASYNC110
        await asyncio.sleep(0)
    await server.stop()
    await asyncio.wait([task], timeout=10)
    assert task.done()
    task.exception()


async def test_what_is_not_a_relay_is_said(tmp_path: Path) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_unix_server(strange, tmp_path / "s")
    async with server:
        with pytest.raises(VerbError, match="is not a mailtui relay"):
            await asyncio.to_thread(lambda: Client(tmp_path / "s").status())


async def test_a_relay_that_goes_away_is_said(tmp_path: Path) -> None:
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(dying, tmp_path / "s")
    async with server:
        with pytest.raises(VerbError, match="went away") as caught:
            await asyncio.to_thread(lambda: Client(tmp_path / "s").status())
    assert caught.value.exit == 3


async def test_a_relay_that_is_stuck_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(tmp_path / "s"))
        stuck.listen()
        with pytest.raises(VerbError, match="did not answer") as caught:
            Client(tmp_path / "s").status()
    assert caught.value.exit == 3


async def test_the_answer_can_be_read_with_curls_means(relay: Relay) -> None:
    reader, writer = await asyncio.open_unix_connection(relay.path)
    writer.write(b"GET /v1/queue/count?query=dest:a.test HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert json.loads(body) == {"messages": 0, "recipients": 0, "bytes": 0}
