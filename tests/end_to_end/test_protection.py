"""A whole relay under load, short of disk, behind a load balancer, and with an account that sends too much."""

import asyncio
import resource
import socket
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from mailtui import descriptors
from mailtui.clock import ManualClock
from mailtui.config import parse
from mailtui.relay import StartError
from tests.control.test_engine import journal, verb
from tests.end_to_end.conftest import BASE, MESSAGE, PATIENCE, Live, Start, smarthost, stored
from tests.end_to_end.test_users import VERIFIER, logged_in, submit
from tests.peers.conftest import port_of
from tests.support.client import Client
from tests.support.nexthop import HANG, NextHop

OPEN = '[[listener]]\nname = "open"\naddress = "127.0.0.1:0"\nauth = "optional"\nauth_without_tls = true\n'


# -- too much of an account ------------------------------------------------------------------------------------------


def with_rate(rate: str, postmaster: str = "postmaster@ours.test") -> str:
    """BASE has a [limits] table already; TOML takes no second one."""
    return BASE.format(postmaster=postmaster).replace("[limits]\n", f'[limits]\nuser_rate = "{rate}"\n')


async def test_an_account_that_goes_on_over_its_rate_is_quarantined(
    relay_of: Start, hop: NextHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.end_to_end.conftest.BASE", with_rate("3/1h").replace("{", "{{").replace("}", "}}"))
    hop.rcpt = ["451 4.3.0 later"] * 3
    async with relay_of(OPEN + smarthost(hop)) as relay:
        await verb(relay, "user.add", args={"name": "ann", "verifier": VERIFIER})
        client = await logged_in(relay)
        for n in range(3):
            await submit(client, f"r{n}@dest.test")
        await relay.told("deferred", 3)
        for _ in range(2):
            assert (await client.command("MAIL FROM:<ann@sender.test>")).text.startswith("450 4.7.1")
        assert (await client.reply()).text.startswith("421 4.7.0")  # its sessions are closed
        await logged_in(relay, expect=525)
        async with asyncio.timeout(PATIENCE):
            while not (rows := [row for row in await journal(relay) if "quarantine" in row["command"]]):
                await relay.quiet()  # its sessions are closed before its mail is held
        assert {row["state"] for row in await relay.rows("user:ann")} == {"held"}
        warnings = {each["code"]: each["text"] for each in relay.relay.warnings()}
        assert "ann is in quarantine: more than 3 messages in 3600 s" in warnings["quarantine"]
        assert "1 accounts are refused for user_rate" in warnings["rate"]
        assert relay.events.counts["user-rate"] == 1
        [row] = rows
        assert row["who"] == "mailtui" and row["reason"].startswith("more than 3 messages")


# -- the disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [100, 600_000])
async def test_a_short_disk_is_told_before_anything_is_lost_and_passes_by_itself(
    relay_of: Start, hop: NextHop, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, octets: int
) -> None:  # R07
    async with relay_of(smarthost(hop)) as relay:
        client = await relay.client()
        store = relay.relay.store
        free = 1 << 40
        monkeypatch.setattr(store, "free_space", lambda: free)
        assert (await relay.transaction(client)).code == 354
        free = 0
        clock.advance(60)
        body = b"x" * 98 + b"\r\n"
        await client.send(body * (octets // 100) + b".\r\n")
        assert (await client.reply()).text.startswith("452 4.3.1")  # after the dot, and nothing is kept
        assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("452 4.3.1")
        assert relay.spool_files() == [] and await relay.count() == 0
        assert {each["code"] for each in relay.relay.warnings()} >= {"disk"}
        free = 1 << 40
        clock.advance(60)
        await relay.send()
        await relay.told("delivered")


# -- health ----------------------------------------------------------------------------------------------------------


def health(port: int = 0) -> str:
    return f'[metrics]\nlisten = "127.0.0.1:{port}"\n'


async def asked(relay: Live, path: str = "/healthz", port: int = 0) -> tuple[int, str]:
    async with ClientSession() as session:
        url = f"http://127.0.0.1:{port or relay.relay.health.port}{path}"
        async with session.get(url) as answer:
            return answer.status, await answer.text()


async def test_healthz_says_whether_new_mail_would_be_taken(
    relay_of: Start, hop: NextHop, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_of(health() + smarthost(hop)) as relay:
        assert await asked(relay) == (200, "ok\n")
        assert (await asked(relay, "/"))[0] == 404
        monkeypatch.setattr(relay.relay.store, "free_space", lambda: 0)
        clock.advance(60)
        status, text = await asked(relay)
        assert status == 503 and text.startswith("free-disk: 452 4.3.1") and text.count("\n") == 1
        monkeypatch.undo()
        clock.advance(60)
        assert await asked(relay) == (200, "ok\n")
        await relay.relay.pause("intake", None, "", "test")
        assert (await asked(relay))[0] == 503
        await relay.relay.resume("test")
        assert (await asked(relay))[0] == 200


async def test_while_it_drains_healthz_says_so_and_new_sessions_are_told(relay_of: Start, hop: NextHop) -> None:  # S30
    async with relay_of(health() + smarthost(hop)) as relay:
        client = await relay.client()
        assert (await relay.transaction(client)).code == 354
        port = relay.relay.health.port
        stopping = asyncio.ensure_future(relay.relay.stop(10.0))
        late = await Client.connect(relay.port)
        assert late.greeting.text.startswith("421 4.3.2")
        assert await late.closed() == b""
        assert await asked(relay) == (503, "draining\n")
        assert (await client.command("Subject: x\r\n\r\n.")).code == 250
        assert (await client.reply()).text.startswith("421 4.3.2")
        await client.close()
        await stopping
        with pytest.raises(ClientError):
            await asked(relay, port=port)


async def test_a_reload_moves_healthz_and_one_that_cannot_changes_nothing(relay_of: Start, hop: NextHop) -> None:
    async with relay_of(health() + smarthost(hop)) as relay:
        old = relay.relay.health.port
        text = BASE.format(postmaster="a@b.test") + smarthost(hop)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            relay.relay._load = lambda: parse(text + health(port))
            [error] = await relay.relay.reload()
            assert f"[metrics] cannot listen on 127.0.0.1:{port}" in error and "in use" in error
        assert await asked(relay, port=old) == (200, "ok\n")
        assert await relay.relay.reload() == []
        assert await asked(relay, port=port) == (200, "ok\n")
        with pytest.raises(ClientError):
            await asked(relay, port=old)
        relay.relay._load = lambda: parse(text)
        assert await relay.relay.reload() == []
        with pytest.raises(ClientError):
            await asked(relay, port=port)


async def test_a_port_of_health_that_is_taken_stops_the_start(relay_of: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"\[metrics\] cannot listen on 127.0.0.1:{port}"):
            async with relay_of(health(port)):
                pass


# -- messages in chunks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunking_onward", [True, False])
@pytest.mark.parametrize("octets", [0, 700_000])
async def test_what_came_in_chunks_arrives_octet_for_octet(
    relay_of: Start, hop: NextHop, chunking_onward: bool, octets: int
) -> None:  # X11, M07, S34
    if chunking_onward:
        hop.keywords.append("CHUNKING")
    async with relay_of(smarthost(hop)) as relay:
        client = await relay.client()
        await client.command("MAIL FROM:<ann@sender.test>")
        await client.command("RCPT TO:<bob@dest.test>")
        content = MESSAGE + b".\r\n.\r\nRSET\r\n" + b"\r\n.\r\n..\r\n" * (octets // 9)
        middle = len(content) // 2
        await client.send(b"BDAT %d\r\n" % middle + content[:middle])
        await client.send(b"BDAT %d LAST\r\n" % (len(content) - middle) + content[middle:])
        assert [(await client.reply()).code for _ in range(2)] == [250, 250]
        [got] = await hop.received(1)
        await relay.told("delivered")
        assert stored(got.data)[1] == content


# -- sessions of other kinds -----------------------------------------------------------------------------------------


async def test_a_stop_does_not_wait_for_a_next_hop_to_answer_who_was_drained(relay_of: Start, hop: NextHop) -> None:
    hop.mail = [HANG]
    async with relay_of(health() + smarthost(hop)) as relay:
        await relay.send()
        await hop.commanded("MAIL")
        await relay.relay.stop(0.01)
        assert relay.relay.health.port == 0


def test_the_limit_of_open_files_is_raised_to_what_connections_need(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: now.append(limits))
    assert descriptors.allow(500) == 500 and now == [(1024, 4096)]
    assert descriptors.allow(2000) == 2000 and now[-1] == (2000 + descriptors.OTHERS, 4096)
    assert descriptors.allow(8000) == 4096 - descriptors.OTHERS and now[-1] == (4096, 4096)
    now.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.allow(1_000_000) == 1_000_000


async def test_a_limit_of_open_files_that_is_too_low_is_told(
    relay_of: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(descriptors, "allow", lambda connections: connections - 1)
    async with relay_of() as relay:
        [event] = [each for each in relay.events.recent if each["event"] == "open-files"]
        assert "may have 1999 connections at once, and [limits] and [delivery] allow 2000" in event["text"]
        assert port_of(relay, "default")
