"""Clients that others wrote hand in mail: plain, by STARTTLS, by TLS from the first octet; no octet changes."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.conftest import Live, Start, smarthost
from tests.peers.certificates import Certificates
from tests.peers.conftest import listener, port_of
from tests.peers.content import MESSAGE, below, our_trace
from tests.peers.postfix import Postfix
from tests.peers.programs import Ended, need, run
from tests.support.nexthop import NextHop


@pytest.fixture(params=["none", "starttls", "implicit"])
def way(request: pytest.FixtureRequest) -> str:
    """What the listener's `tls` says."""
    return str(request.param)


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop, certificates: Certificates, way: str) -> AsyncIterator[Live]:
    """A relay with one more listener, "door", and a certificate."""
    async with relay_of(listener("door", way, certificates) + smarthost(hop)) as relay:
        yield relay


async def arrives(relay: Live, hop: NextHop, way: str) -> None:
    """The one message got through unchanged, and our trace says how it came in."""
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert (got.sender, got.recipients) == ("ann@sender.test", ["bob@dest.test"])
    assert below(got.data) == MESSAGE
    assert " with ESMTP " in our_trace(got.data) if way == "none" else " with ESMTPS " in our_trace(got.data)
    assert await relay.rows() == []


async def swaks(port: int, way: str, certificates: Certificates) -> Ended:
    options = {"none": [], "starttls": ["-tls"], "implicit": ["-tlsc"]}[way]
    if way != "none":
        options += ["--tls-verify", "--tls-ca-path", str(certificates.authority)]
    return await run(
        "swaks", "--server", "localhost", "--port", str(port), "--helo", "client.test", *options,
        "--from", "ann@sender.test", "--to", "bob@dest.test", "--no-data-fixup", "--data", "-",
        given=MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n",  # as on the wire: swaks leaves it alone then
    )  # fmt: skip


async def test_swaks(relay: Live, hop: NextHop, certificates: Certificates, way: str) -> None:
    need("swaks")
    done = await swaks(port_of(relay, "door"), way, certificates)
    assert done.status == 0, done.output
    await arrives(relay, hop, way)


async def test_smtplib(relay: Live, hop: NextHop, certificates: Certificates, way: str) -> None:
    context = ssl.create_default_context(cafile=str(certificates.authority))

    def work() -> None:
        port = port_of(relay, "door")
        if way == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, "client.test", timeout=10, context=context)
        else:
            client = smtplib.SMTP("localhost", port, "client.test", timeout=10)
        with client:
            if way == "starttls":
                client.starttls(context=context)
            client.sendmail("ann@sender.test", ["bob@dest.test"], MESSAGE, mail_options=["BODY=8BITMIME"])

    await asyncio.to_thread(work)
    await arrives(relay, hop, way)


async def test_msmtp(relay: Live, hop: NextHop, certificates: Certificates, way: str) -> None:
    need("msmtp")
    options = {
        "none": ["--tls=off"],
        "starttls": ["--tls=on", "--tls-starttls=on"],
        "implicit": ["--tls=on", "--tls-starttls=off"],
    }[way]
    if way != "none":
        options.append(f"--tls-trust-file={certificates.authority}")
    done = await run(
        "msmtp", "--host=localhost", f"--port={port_of(relay, 'door')}", "--domain=client.test", *options,
        "--from=ann@sender.test", "bob@dest.test", given=MESSAGE.replace(b"\r\n", b"\n"),
    )  # fmt: skip
    assert done.status == 0, done.output
    await arrives(relay, hop, way)


@pytest.mark.parametrize("way", ["none"])
async def test_swaks_finds_that_tls_is_not_offered(
    relay: Live, hop: NextHop, certificates: Certificates, way: str
) -> None:
    need("swaks")
    done = await swaks(port_of(relay, "door"), "starttls", certificates)
    assert done.status == 29, done.output  # its status for a TLS that is asked for and cannot be had
    assert hop.commands == []


@pytest.mark.parametrize("way", ["none", "starttls"])
async def test_a_postfix_with_the_relay_as_its_relayhost(
    relay_of: Start, hop: NextHop, certificates: Certificates, postfix: Postfix, way: str
) -> None:
    config = listener("relayhost", way, certificates, postfix.relayhost.number) + smarthost(hop)
    async with relay_of(config) as relay:

        def work() -> None:
            with smtplib.SMTP("127.0.0.1", postfix.port("plain"), "client.test", timeout=10) as client:
                client.sendmail("ann@sender.test", ["bob@dest.test"], MESSAGE, mail_options=["BODY=8BITMIME"])

        await asyncio.to_thread(work)
        await arrives(relay, hop, way)
        [got] = hop.messages
        assert "from postfix.test" in our_trace(got.data)
