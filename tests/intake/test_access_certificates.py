"""Client certificates as a permission (U12): only one that is listed, and that was verified in the handshake."""

import ssl
from pathlib import Path

import pytest
import trustme

from mailtui import config
from mailtui.intake.listener import ListenError
from tests.intake.conftest import TOML, Relay, until
from tests.support.certificates import Files, anchors, client_context, fingerprint, issue
from tests.support.client import Client

CONFIG = (
    TOML.replace('address = "127.0.0.1:0"\n', 'address = "127.0.0.1:0"\ntls = "{tls}"\nclient_ca = "{ca}"\n{files}')
    + '[access]\nnetworks = []\ncertificates = ["{listed}"]\n'
)


@pytest.fixture
def mine(tmp_path: Path) -> Files:
    return issue(tmp_path / "mine", "client.example")


@pytest.fixture
async def asking(relay, tls_files: Files, tmp_path: Path, mine: Files):
    """Starts an intake that asks for certificates and lists `mine`."""

    async def start(tls: str = "starttls") -> Relay:
        ca = anchors(tmp_path / "ca.pem")
        return await relay(CONFIG.format(tls=tls, ca=ca, files=tls_files.toml, listed=fingerprint(mine)))

    return start


async def session(one: Relay, shows: Files | None, tls: str = "starttls") -> Client:
    context = client_context(verify=False, shows=shows)
    if tls == "implicit":
        client = await Client.connect(one.port, tls=context)
    else:
        client = await Client.connect(one.port)
        assert (await client.command("STARTTLS")).code == 220
        await client.start_tls(context)
    assert (await client.command("EHLO client.example")).code == 250
    return client


async def relays(client: Client) -> str:
    """The reply to a recipient elsewhere."""
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    return (await client.command("RCPT TO:<x@other.example>")).text


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_listed_certificate_permits(asking, mine, tls):
    one = await asking(tls)
    assert (await relays(await session(one, mine, tls))).startswith("250")


async def test_a_certificate_is_not_asked_of_everybody(asking):
    one = await asking()
    assert await relays(await session(one, None)) == "554 5.7.1 <x@other.example>: Relay access denied"


async def test_a_certificate_of_the_authority_that_is_not_listed_permits_nothing(asking, tmp_path):
    one = await asking()
    assert (await relays(await session(one, issue(tmp_path / "other", "client.example")))).startswith("554 5.7.1")


def stranger(folder: Path) -> Files:
    """A certificate of an authority that nobody has named."""
    made = trustme.CA().issue_cert("client.example")
    folder.mkdir()
    made.private_key_pem.write_to_path(folder / "key")
    made.cert_chain_pems[0].write_to_path(folder / "crt")
    return Files(folder / "crt", folder / "key")


async def test_a_certificate_that_cannot_be_verified_ends_the_handshake(asking, tmp_path):
    one = await asking()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await session(one, stranger(tmp_path / "stranger"))
    await until(lambda: one.told("tls-failed"))
    assert "certificate verify failed" in one.told("tls-failed")[0]["text"]


async def test_a_certificate_that_has_ended_ends_the_handshake(asking, tmp_path):
    one = await asking()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await session(one, issue(tmp_path / "old", "client.example", not_after=1_000_000_000))
    await until(lambda: one.told("tls-failed"))


async def test_a_session_that_is_resumed_brings_no_certificate_back(asking, mine):
    one = await asking()
    context = client_context(verify=False, shows=mine)
    client = await Client.connect(one.port)
    await client.command("STARTTLS")
    await client.start_tls(context)
    assert (await client.command("EHLO x")).code == 250
    tls = client.writer.get_extra_info("ssl_object")
    assert tls.session is None or not tls.session.has_ticket


async def test_a_listener_that_does_not_ask_gets_no_certificate(relay, tls_files, mine, tmp_path):
    """Beside one that does, with the same certificate of its own."""
    second = TOML.partition("[[listener]]")[2].replace('name = "mx"', 'name = "second"')
    toml = CONFIG.format(
        tls="starttls", ca=anchors(tmp_path / "ca.pem"), files=tls_files.toml, listed=fingerprint(mine)
    )
    head, access, rest = toml.partition("[access]")
    one = await relay(f'{head}[[listener]]{second}tls = "starttls"\n{tls_files.toml}{access}{rest}')
    ports = [port for _, port in one.intake.addresses()]
    for port, code in zip(ports, ("250", "554"), strict=True):
        client = await Client.connect(port)
        await client.command("STARTTLS")
        await client.start_tls(client_context(verify=False, shows=mine))
        await client.command("EHLO x")
        assert (await relays(client)).startswith(code)


async def test_an_authority_that_cannot_be_read_opens_no_listener(relay, tls_files, mine, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing\n")
    for name, why in (("missing.pem", "cannot be read: No such file"), ("empty.pem", "holds no PEM certificate")):
        toml = CONFIG.format(tls="starttls", ca=tmp_path / name, files=tls_files.toml, listed=fingerprint(mine))
        with pytest.raises(ListenError, match=why):
            await relay(toml)
        assert any(why in line for line in config.check_files(config.parse(toml)))
