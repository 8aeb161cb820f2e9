"""Clients that others wrote hand in mail over TLS, and it arrives; certificates as an operator sees them."""

import asyncio
import shutil
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailtui import ids
from mailtui.clock import ManualClock
from mailtui.trace import hops
from tests.end_to_end.conftest import MESSAGE, Live, Start, smarthost, stored
from tests.support.certificates import Files, client_context, issue
from tests.support.nexthop import NextHop

NAME = "relay.test"
DAY = 86400.0
needs_swaks = pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is missing")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return issue(tmp_path, NAME, "localhost")


def listeners(files: Files) -> str:
    kinds = ("starttls", "implicit")
    return "".join(
        f'[[listener]]\nname = "{kind}"\naddress = "127.0.0.1:0"\ntls = "{kind}"\n{files.toml}' for kind in kinds
    )


def port_of(live: Live, name: str) -> int:
    [found] = [each for each in live.relay.listeners() if each["name"] == name]
    return int(found["address"].rpartition(":")[2])


@pytest.fixture
async def tls_relay(relay_of: Start, hop: NextHop, files: Files) -> AsyncIterator[Live]:
    """A running relay with a listener of each kind."""
    async with relay_of(listeners(files) + smarthost(hop)) as relay:
        yield relay


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
async def test_smtplib_delivers_over_tls(tls_relay: Live, hop: NextHop, kind: str) -> None:  # L10
    port, context = port_of(tls_relay, kind), client_context()

    def send() -> None:
        if kind == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, context=context, timeout=10)
        else:
            client = smtplib.SMTP("localhost", port, timeout=10)
            client.starttls(context=context)
        with client:
            client.ehlo("smtplib.test")
            assert not client.has_extn("starttls")
            client.sendmail("ann@sender.test", ["bob@dest.test"], MESSAGE)

    await asyncio.to_thread(send)
    [got] = await hop.received(1)
    trace, content = stored(got.data)
    assert content == MESSAGE
    assert b"with ESMTPS id" in trace and b"(using TLSv1.3 with cipher TLS_" in trace  # T07
    [ours] = hops.trace(trace + b"\r\n\r\n").hops
    assert ours.received.tls


@needs_swaks
@pytest.mark.parametrize(("kind", "option"), [("starttls", "--tls"), ("implicit", "--tls-on-connect")])
async def test_swaks_delivers_over_tls(tls_relay: Live, hop: NextHop, kind: str, option: str) -> None:  # L10
    process = await asyncio.create_subprocess_exec(
        "swaks", option, "--server", "127.0.0.1", "--port", str(port_of(tls_relay, kind)), "--helo", "swaks.test",
        "--from", "ann@sender.test", "--to", "bob@dest.test", "--header", "Subject: by swaks", "--body", "text",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode("utf-8", "replace")
    if "TLS was requested but" in said or "not available" in said:
        pytest.skip("swaks has no TLS here: Net::SSLeay is missing")
    assert process.returncode == 0, said
    assert "=== TLS started with cipher TLSv1.3" in said
    [got] = await hop.received(1)
    trace, content = stored(got.data)
    assert b"\r\nSubject: by swaks\r\n" in b"\r\n" + content
    assert b"with ESMTPS id" in trace


async def test_a_message_shows_how_it_came(tls_relay: Live, hop: NextHop) -> None:  # L13
    hop.dot = ["451 4.3.0 later"]
    port, context = port_of(tls_relay, "implicit"), client_context()

    def send() -> None:
        with smtplib.SMTP_SSL("localhost", port, context=context, timeout=10) as client:
            client.sendmail("ann@sender.test", ["bob@dest.test"], MESSAGE)

    await asyncio.to_thread(send)
    await tls_relay.told("deferred")
    number = (await tls_relay.rows())[0]["id"]
    found = await tls_relay.relay.read(lambda reader: reader.message(ids.parse(number)[0]))
    assert found is not None
    envelope = found.envelope
    assert (envelope.protocol, envelope.listener) == ("ESMTPS", "implicit")
    assert envelope.tls.startswith("TLSv1.3 TLS_")


async def test_a_certificate_that_ends_soon_is_among_the_warnings(
    relay_of: Start, hop: NextHop, tmp_path: Path, clock: ManualClock
) -> None:
    files = issue(tmp_path, NAME, not_after=clock.now() + 365 * DAY)
    async with relay_of(listeners(files) + smarthost(hop)) as live:
        assert live.relay.warnings() == []
        clock.advance(350 * DAY)
        (warning,) = live.relay.warnings()  # one certificate, however many listeners show it
        assert warning["code"] == "certificate" and "in 15 days" in warning["text"]
        assert warning["since"] == clock.now() - 6 * DAY
        assert [each["tls"] for each in live.relay.listeners()] == ["none", "starttls", "implicit"]
