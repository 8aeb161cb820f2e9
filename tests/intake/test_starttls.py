"""TLS in sessions: STARTTLS, TLS from the first octet, and nothing carried over from before. Rows of standards.md."""

import asyncio
import socket
import ssl

import pytest

from mailtui import config
from mailtui.intake.listener import ListenError
from mailtui.intake.terms import Timeouts
from tests.intake.conftest import STRANGER, TOML, listener, over_every_wire, until
from tests.support.certificates import client_context, issue
from tests.support.client import Client

over_tls = pytest.mark.parametrize("wire", ["starttls", "implicit"], indirect=True)
NAME = "relay.example.org"


async def verified(one, wire: str = "starttls") -> Client:
    """A client that has checked the server's certificate."""
    client = await Client.connect(one.port)
    assert (await client.command("STARTTLS")).text == "220 2.0.0 Ready to start TLS"
    await client.start_tls(client_context(), NAME)
    return client


def serial(client: Client) -> int:
    """The serial number of the certificate that the server has shown."""
    from cryptography import x509

    der = client.writer.get_extra_info("ssl_object").getpeercert(True)
    return x509.load_der_x509_certificate(der).serial_number


def handshake(port: int, context: ssl.SSLContext) -> None:
    """STARTTLS with the library's own sockets, which send and show alerts as asyncio's streams do not."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.recv(100)
        plain.sendall(b"STARTTLS\r\n")
        plain.recv(100)
        with context.wrap_socket(plain, server_hostname=NAME) as tls:
            tls.sendall(b"QUIT\r\n")
            tls.recv(100)


# -- the command -----------------------------------------------------------------------------------------------------


async def test_offered_where_it_can_begin_and_not_within_tls(relay, tls_files):  # L01
    one = await relay(listener("starttls", tls_files))
    client = await one.client()
    assert "250 STARTTLS" in (await client.command("EHLO x")).lines
    assert (await client.command("STARTTLS")).code == 220
    await client.start_tls(client_context(), NAME)
    reply = await client.command("EHLO x")
    assert reply.code == 250 and "STARTTLS" not in reply.text
    assert (await client.command("STARTTLS")).text.startswith("503 5.5.1")
    assert (await client.command("NOOP")).code == 250


async def test_not_offered_without_tls(relay):  # L01
    client = await (await relay()).client()
    assert "STARTTLS" not in (await client.command("EHLO x")).text
    assert (await client.command("STARTTLS")).text.startswith("502 5.5.1")


async def test_argument_is_an_error(relay, tls_files):  # L02
    one = await relay(listener("starttls", tls_files))
    client = await one.client()
    assert (await client.command("STARTTLS now")).text.startswith("501 5.5.4")
    assert (await client.command("NOOP")).code == 250


async def test_without_a_usable_certificate_it_is_not_offered_and_454(relay, tls_files):  # L01, L02
    one = await relay(listener("starttls", tls_files))
    one.intake._doors[0].certificate.context = None
    client = await one.client()
    assert "STARTTLS" not in (await client.command("EHLO x")).text
    assert (await client.command("STARTTLS")).text.startswith("454 4.7.0")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_within_a_transaction_it_is_refused(relay, tls_files):  # L06
    one = await relay(listener("starttls", tls_files))
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("STARTTLS")).text.startswith("503 5.5.1")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250
    await client.command("RSET")
    assert (await client.command("STARTTLS")).code == 220


async def test_it_is_never_asked_for(relay, tls_files):  # L07
    """A public MX takes mail in plain text too."""
    one = await relay(listener("starttls", tls_files, STRANGER))
    client = await one.session()
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("RCPT TO:<ann@ours.example>")).code == 250
    assert (await client.command("DATA")).code == 354
    assert (await client.command(".")).code == 250
    assert one.queue.messages[0].envelope.tls == ""


# -- the switch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("injected", [b"EHLO evil.test\r\n", b"MAIL FROM:<x@y.example>\r\n", b"NOOP\r\n" * 300, b"\r"])
async def test_what_came_in_plain_text_behind_it_is_not_worked_off(relay, tls_files, injected):  # L03
    one = await relay(listener("starttls", tls_files))
    client = await one.session()
    await client.send(b"STARTTLS\r\n" + injected)
    assert (await client.reply()).code == 220
    await client.start_tls(client_context(), NAME)
    # The first reply is to the first command of the client itself, and that finds a session that knows nothing.
    assert (await client.command("VRFY x")).code == 252
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("503 5.5.1 Say EHLO")
    assert (await client.command("EHLO client.test")).code == 250
    assert (await client.command("RCPT TO:<c@d.example>")).text.startswith("503 5.5.1")
    (session,) = one.intake.sessions
    assert session.helo == "client.test"


async def test_plain_text_instead_of_a_handshake_ends_the_connection(relay, tls_files):  # L05
    one = await relay(listener("starttls", tls_files))
    client = await one.session()
    assert (await client.command("STARTTLS")).code == 220
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
    assert b"250" not in await client.closed()
    await until(lambda: not one.intake.sessions)
    (told,) = one.told("tls-failed")
    assert told["client"] == "127.0.0.1" and told["listener"] == "mx"
    assert told["text"].startswith("TLS handshake: ")


async def test_handshake_that_the_client_breaks_off_ends_the_session(relay, tls_files):  # L05
    one = await relay(listener("starttls", tls_files))
    client = await one.session()
    assert (await client.command("STARTTLS")).code == 220
    with pytest.raises(ssl.SSLCertVerificationError):
        await client.start_tls(client_context(), "other.example")
    await until(lambda: not one.intake.sessions)
    reset = await one.session()
    assert (await reset.command("STARTTLS")).code == 220
    reset.writer.transport.abort()
    await until(lambda: not one.intake.sessions)
    assert one.told("tls-failed")[-1]["text"] == "TLS handshake: the connection was closed"


async def test_alert_of_the_client_is_told_in_its_words(relay, tls_files):  # L13
    one = await relay(listener("starttls", tls_files))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # knows no authority at all
    stranger.maximum_version = ssl.TLSVersion.TLSv1_2  # there its alert comes within the handshake
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(handshake, one.port, stranger)
    await until(lambda: one.told("tls-failed"))
    assert one.told("tls-failed")[0]["text"] == "TLS handshake: the client says unknown ca"


@over_tls
async def test_slow_handshake_is_ended(relay, wire):  # L05, R04
    one = await relay(timeouts=Timeouts(handshake=0.05))
    client = await Client.connect(one.port, greeting=wire == "starttls")
    if wire == "starttls":
        assert (await client.command("STARTTLS")).code == 220
    await client.send(b"\x16\x03\x01\x02")  # the beginning of a record that never comes
    assert await client.closed() == b""
    await until(lambda: not one.intake.sessions)
    assert one.told("tls-failed")[0]["text"] == "TLS handshake: it took too long"


async def test_nothing_of_the_session_before_is_left(relay, tls_files):  # L04
    one = await relay(listener("starttls", tls_files))
    client = await one.session("EHLO before.test")
    await client.command("NONSENSE")
    client_errors = next(iter(one.intake.sessions)).errors
    assert (await client.command("STARTTLS")).code == 220
    await client.start_tls(client_context(), NAME)
    (session,) = one.intake.sessions
    await until(lambda: session.secure)
    assert (session.helo, session.protocol, session.opening, session.transaction) == ("", "", b"", None)
    assert session.errors == client_errors == 1
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("503 5.5.1")
    assert (await client.command("EHLO after.test")).code == 250
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("EHLO again.test")).code == 250  # S07: the transaction ends, TLS stays
    assert (await client.command("RCPT TO:<c@d.example>")).code == 503
    assert session.secure


async def test_resumed_session_carries_keys_only(relay, tls_files):  # L14
    one = await relay(listener("starttls", tls_files))
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the ticket comes with the handshake
    address = ("127.0.0.1", one.port)

    def talk(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool, list[bytes]]:
        with socket.create_connection(address, timeout=10) as plain:
            plain.recv(100)
            plain.sendall(b"STARTTLS\r\n")
            plain.recv(100)
            with context.wrap_socket(plain, server_hostname=NAME, session=session) as tls:
                said = []
                for command in (b"MAIL FROM:<a@b.example>", b"EHLO x.test", b"MAIL FROM:<a@b.example>", b"QUIT"):
                    tls.sendall(command + b"\r\n")
                    said.append(tls.recv(4096)[:3])
                return tls.session, tls.session_reused, said

    ticket, reused, first = await asyncio.to_thread(talk, None)
    assert ticket is not None and ticket.has_ticket and not reused
    _, reused, second = await asyncio.to_thread(talk, ticket)
    assert reused
    assert first == second == [b"503", b"250", b"250", b"221"]


# -- TLS from the first octet ----------------------------------------------------------------------------------------


async def test_listener_with_tls_from_the_first_octet(relay, tls_files):  # L10
    one = await relay(listener("implicit", tls_files))
    client = await Client.connect(one.port, tls=client_context(verify=False))
    assert client.greeting.text.startswith("220 relay.example.org ESMTP")
    assert "STARTTLS" not in (await client.command("EHLO x")).text
    assert (await client.command("STARTTLS")).text.startswith("503 5.5.1")
    plain = await Client.connect(one.port, greeting=False)
    await plain.send(b"EHLO x\r\n")
    assert b"220" not in await plain.closed()


async def test_handshakes_count_as_connections(relay, tls_files):  # R02, R03
    one = await relay(listener("implicit", tls_files) + "[limits]\nconnections = 2\n")
    waiting = [await Client.connect(one.port, greeting=False) for _ in range(2)]
    await until(lambda: len(one.intake.sessions) == 2)
    third = await Client.connect(one.port, greeting=False)
    assert await third.closed() == b""  # no reply in plain text where TLS is expected
    assert one.told("refused")[0]["rule"] == "connections"
    for client in waiting:
        await client.close()
    await until(lambda: not one.intake.sessions)
    assert (await Client.connect(one.port, tls=client_context(verify=False))).greeting.code == 220


# -- what is agreed on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_current_versions(relay, tls_files, version):  # L11, L13, T07
    one = await relay(listener("starttls", tls_files))
    client = await one.client()
    await client.command("STARTTLS")
    context = client_context()
    context.minimum_version = context.maximum_version = version
    await client.start_tls(context, NAME)
    cipher, name, _ = client.writer.get_extra_info("cipher")
    await client.send(b"EHLO client.test\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
    assert [(await client.reply()).code for _ in range(4)] == [250, 250, 250, 354]
    assert (await client.command("Subject: x\r\n\r\ntext\r\n.")).code == 250
    (message,) = one.queue.messages
    agreed = f"{context.maximum_version.name.replace('_', '.')} {cipher}"
    assert message.envelope.tls == agreed.replace("TLSv1.", "TLSv1.")
    assert message.envelope.protocol == "ESMTPS"  # RFC 3848
    assert message.body is not None
    trace = message.body[: message.body.index(b"\r\nSubject")].replace(b"\r\n\t", b" ").decode()
    assert f"with cipher {cipher})" in trace and " with ESMTPS id " in trace
    assert one.told("accepted")[0]["tls"] == agreed
    assert one.told("tls")[0]["tls"] == agreed
    assert name == agreed.split(" ")[0] or version is ssl.TLSVersion.TLSv1_2


async def test_helo_over_tls_is_smtp(relay, tls_files):
    """RFC 3848 has no word for it; the comment says that there was TLS."""
    one = await relay(listener("starttls", tls_files))
    client = await verified(one)
    await client.send(b"HELO client.test\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
    assert [(await client.reply()).code for _ in range(4)] == [250, 250, 250, 354]
    assert (await client.command(".")).code == 250
    assert one.queue.messages[0].envelope.protocol == "SMTP"
    assert b"(using TLSv1.3 with cipher" in (one.queue.messages[0].body or b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_refused(relay, tls_files, version):  # L11
    one = await relay(listener("starttls", tls_files))
    context = client_context(verify=False)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        await asyncio.to_thread(handshake, one.port, context)
    await until(lambda: one.told("tls-failed"))
    assert "unsupported protocol" in one.told("tls-failed")[0]["text"]


@pytest.mark.parametrize("ciphers", ["aNULL:@SECLEVEL=0", "eNULL:@SECLEVEL=0", "AES128-SHA:@SECLEVEL=0"])
async def test_suites_without_certificate_secrecy_or_forward_secrecy_are_refused(relay, tls_files, ciphers):  # L11
    one = await relay(listener("starttls", tls_files))
    context = client_context(verify=False)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"):
        await asyncio.to_thread(handshake, one.port, context)
    await until(lambda: one.told("tls-failed"))
    assert "no shared cipher" in one.told("tls-failed")[0]["text"]


# -- messages and ends -----------------------------------------------------------------------------------------------


@over_every_wire
async def test_large_message_octet_by_octet_the_same(relay):
    one = await relay()
    client = await one.in_data()
    line = bytes(range(32, 127)) + b"\xff\x80\r\n"
    content = b"Subject: large\r\n\r\n" + line * ((1 << 20) // len(line) + 1)
    await client.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    assert (await client.reply()).code == 250
    (spool,) = one.queue.spools
    assert spool.octets.endswith(b"\r\n" + content) and spool.octets.startswith(b"Received: ")


@over_tls
async def test_client_that_does_not_read_is_not_read(relay):  # R08
    one = await relay()
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    client.reader._transport.pause_reading()
    flood = asyncio.ensure_future(client.send(b"RCPT TO:<c@d.example>\r\n" * 400_000))
    (session,) = one.intake.sessions
    await until(lambda: session.unread)
    assert len(session._input) < 1 << 20
    client.reader._transport.resume_reading()
    for _ in range(1000):
        assert (await client.reply()).code == 250
    flood.cancel()
    client.writer.transport.abort()


@over_tls
async def test_quit_is_answered_and_both_sides_close(relay):
    one = await relay()
    client = await one.session()
    await client.send(b"NOOP\r\nQUIT\r\nNOOP\r\n")
    assert [(await client.reply()).code for _ in range(2)] == [250, 221]
    assert await client.closed() == b""
    await client.close()
    await until(lambda: not one.intake.sessions)


@over_every_wire
async def test_last_reply_reaches_a_client_that_is_still_sending(relay, monkeypatch):
    """What the client has on its way must not make the connection be reset before it has read why it ends."""
    monkeypatch.setattr("mailtui.intake.session.SKIP_LIMIT", 1 << 16)
    one = await relay(timeouts=Timeouts(linger=5))
    client = await one.session()
    sending = asyncio.ensure_future(client.send(b"x" * (4 << 20)))
    assert (await client.reply()).text == "500 5.5.2 relay.example.org Command line too long, closing the connection"
    assert await client.closed() == b""
    await asyncio.wait([sending])
    await client.close()
    await until(lambda: not one.intake.sessions)


@over_tls
async def test_client_that_does_not_close_its_side_is_cut(relay, wire):
    one = await relay(timeouts=Timeouts(linger=0.05))
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain:

        def talk() -> bytes:
            if wire == "starttls":
                plain.recv(100)
                plain.sendall(b"STARTTLS\r\n")
                plain.recv(100)
            tls = client_context(verify=False).wrap_socket(plain, suppress_ragged_eofs=False)
            said = tls.recv(100) if wire == "implicit" else b""
            tls.sendall(b"QUIT\r\n")
            said += tls.recv(100)
            tls.detach()
            return said

        assert b"221 2.0.0" in await asyncio.to_thread(talk)
        await until(lambda: not one.intake.sessions)


@over_tls
async def test_drain_does_not_wait_for_a_handshake(relay, wire):
    one = await relay()
    client = await Client.connect(one.port, greeting=wire == "starttls")
    if wire == "starttls":
        await client.command("STARTTLS")
    await until(lambda: any(session.handshaking for session in one.intake.sessions))
    await one.intake.drain(0.05)
    assert await client.closed() == b""
    assert not one.intake.sessions


@over_tls
async def test_session_that_ends_its_handshake_while_the_relay_stops_is_told(relay, wire):
    one = await relay()
    client = await Client.connect(one.port, greeting=wire == "starttls")
    if wire == "starttls":
        await client.command("STARTTLS")
    await until(lambda: any(session.handshaking for session in one.intake.sessions))
    stopping = asyncio.ensure_future(one.intake.drain(5))
    await until(lambda: all(session.draining for session in one.intake.sessions))
    await client.start_tls(client_context(verify=False))
    replies = await client.closed()
    assert replies.rpartition(b"\r\n421 4.3.2")[1] or replies.startswith(b"421 4.3.2")
    await client.close()
    await stopping


# -- certificates and reloads ----------------------------------------------------------------------------------------


async def test_new_certificate_is_shown_to_the_next_client(relay, tmp_path, monkeypatch):
    monkeypatch.setattr("mailtui.intake.listener.CHECK_INTERVAL", 0.01)
    files = issue(tmp_path, NAME)
    one = await relay(listener("starttls", files))
    before = await verified(one)
    issue(tmp_path, NAME)  # two files, one after the other: what is read between them is told as a fault
    text = f"{files.certificate} was read again, good until "
    await until(lambda: any(text in told["text"] for told in one.told("certificate")))
    after = await verified(one)
    assert serial(before) != serial(after)
    assert (await before.command("NOOP")).code == 250


async def test_broken_certificate_leaves_the_old_one_and_is_warned_about(relay, tmp_path, monkeypatch):
    monkeypatch.setattr("mailtui.intake.listener.CHECK_INTERVAL", 0.01)
    files = issue(tmp_path, NAME)
    one = await relay(listener("starttls", files))
    shown = serial(await verified(one))
    old_key = files.key.read_bytes()
    issue(tmp_path / "other", NAME)
    files.key.write_bytes((tmp_path / "other" / "tls.key").read_bytes())
    await until(lambda: one.told("certificate"))
    (told,) = one.told("certificate")
    assert f"{files.key} is not the key of the certificate in {files.certificate}" in told["text"]
    assert one.intake.warnings() == [(told["text"], one.clock.now())]
    assert serial(await verified(one)) == shown
    files.key.write_bytes(old_key)
    await until(lambda: not one.intake.warnings())


async def test_expiry_is_warned_about_from_21_days_on_and_told_once_a_day(relay, tmp_path, monkeypatch):
    monkeypatch.setattr("mailtui.intake.listener.CHECK_INTERVAL", 0.001)
    day = 86400.0
    files = issue(tmp_path, NAME, not_after=1_700_000_000.0 + 30 * day)
    one = await relay(listener("starttls", files))
    assert one.intake.warnings() == []
    one.clock.advance(9 * day)
    await until(lambda: one.told("certificate"))
    ((text, since),) = one.intake.warnings()
    assert text == f"certificate {files.certificate} ends on 2023-12-14, in 21 days; put a new one in its place"
    assert since == one.clock.now()
    for days in range(1, 4):
        one.clock.advance(day)
        await until(lambda days=days: len(one.told("certificate")) == days + 1)
    one.clock.advance(day / 2)
    await asyncio.sleep(0.02)
    assert len(one.told("certificate")) == 4
    one.clock.advance(20 * day)
    await until(lambda: len(one.told("certificate")) == 5)
    assert one.told("certificate")[-1]["text"].startswith(f"certificate {files.certificate} has ended on 2023-12-14")
    assert one.intake.warnings()[0][1] == 1_700_000_000.0 + 30 * day


async def test_reload_changes_tls_of_a_listener_and_keeps_its_sessions(relay, tmp_path, tls_files):
    with socket.socket() as taken:  # a port of its own, so that old and new listener are one
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    plain = TOML.replace("127.0.0.1:0", address)

    def with_tls(kind: str, files) -> str:
        return plain + f'tls = "{kind}"\n{files.toml}'

    one = await relay(plain)
    old = await one.in_data()
    await one.intake.apply(config.parse(with_tls("starttls", tls_files)))
    assert one.intake.listeners()[0]["tls"] == "starttls"
    assert (await old.command(".")).code == 250
    assert "STARTTLS" in (await old.command("EHLO x")).text
    secure = await verified(one)
    other = issue(tmp_path, NAME)
    await one.intake.apply(config.parse(with_tls("starttls", other)))
    assert serial(await verified(one)) != serial(secure)
    assert (await secure.command("NOOP")).code == 250
    await one.intake.apply(config.parse(with_tls("implicit", other)))
    assert (await Client.connect(one.port, tls=client_context(verify=False))).greeting.code == 220
    assert "STARTTLS" not in (await old.command("EHLO x")).text
    await one.intake.apply(config.parse(plain.replace('"mx"', '"other"')))
    assert (await one.client()).greeting.code == 220
    assert one.intake.listeners() == [{"name": "other", "address": address, "role": "relay", "tls": "none"}]
    for client in (old, secure):
        assert (await client.command("NOOP")).code == 250


async def test_reload_with_a_certificate_that_cannot_be_used_changes_nothing(relay, tmp_path):
    one = await relay()
    tmp_path.joinpath("tls.crt").write_text("nothing")
    tmp_path.joinpath("tls.key").write_text("nothing")
    toml = TOML + f'tls = "starttls"\ncertificate = "{tmp_path}/tls.crt"\nkey = "{tmp_path}/tls.key"\n'
    with pytest.raises(ListenError, match=r"^listener mx: certificate: .*tls.crt and .*tls.key cannot be used: "):
        await one.intake.apply(config.parse(toml))
    assert one.intake.listeners()[0]["tls"] == "none" and one.intake.warnings() == []
    assert "STARTTLS" not in (await (await one.client()).command("EHLO x")).text
