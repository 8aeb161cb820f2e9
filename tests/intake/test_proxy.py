"""Behind front ends: the PROXY protocol and XCLIENT. Whose word is taken, and what an announced client may do."""

import asyncio
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui import config
from mailtui.config import ConfigError
from mailtui.intake.proxy import HEADER_LIMIT, SIGNATURE, Announced, Malformed, parse
from mailtui.intake.question import parse_client
from mailtui.intake.terms import Timeouts
from tests.intake.conftest import STRANGER, TOML, Relay, listener, until
from tests.intake.test_auth import ADDRESS, account
from tests.support.certificates import client_context
from tests.support.client import Answer, Client

# The front end is 127.0.0.1; 192.0.2.7 may relay; nobody else may.
BASE = STRANGER.replace("networks = []", 'networks = ["192.0.2.7/32", "2001:db8::7/128"]')
PROXY = BASE.replace(ADDRESS, ADDRESS + 'proxy_from = ["127.0.0.1/32"]\n')
XCLIENT = BASE.replace(ADDRESS, ADDRESS + 'xclient_from = ["127.0.0.1/32"]\n')


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2) + body


def inet(source: str, destination: str = "198.51.100.1", more: bytes = b"") -> bytes:
    ports = (40000).to_bytes(2) + (25).to_bytes(2)
    return version_2(0x21, 0x11, socket.inet_aton(source) + socket.inet_aton(destination) + ports + more)


def inet6(source: str, destination: str = "2001:db8::1") -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return version_2(0x21, 0x21, addresses + bytes(4))


async def announced(one: Relay, header: bytes) -> Client:
    """A client behind the front end that has read the greeting."""
    client = await Client.connect(one.port, greeting=False)
    await client.send(header)
    client.greeting = await client.reply()
    return client


async def asks_to_relay(client: Client) -> Answer:
    """EHLO, MAIL and a recipient elsewhere."""
    await client.command("EHLO client.test")
    await client.command("MAIL FROM:<a@b.example>")
    return await client.command("RCPT TO:<victim@other.example>")


# -- PROXY -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client", "may"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "192.0.2.7", True),
        (b"PROXY TCP4 192.0.2.8 198.51.100.1 40000 25\r\n", "192.0.2.8", False),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", "2001:db8::7", True),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1 2\r\n", "192.0.2.7", True),  # P04
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", False),
        (b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 1 2\r\n", "127.0.0.1", False),
        (inet("192.0.2.7"), "192.0.2.7", True),
        (inet("192.0.2.8", more=b"\x04\x00\x03abc"), "192.0.2.8", False),
        (inet6("2001:db8::7"), "2001:db8::7", True),
        (version_2(0x20, 0x00, b""), "127.0.0.1", False),  # LOCAL: a health check
        (version_2(0x20, 0x11, bytes(12)), "127.0.0.1", False),
        (version_2(0x21, 0x00, b"ignored"), "127.0.0.1", False),
        (version_2(0x21, 0x31, bytes(216)), "127.0.0.1", False),
    ],
)
async def test_trust_goes_by_the_announced_address(relay, header, client, may):  # P05
    # Even a front end that may relay itself gives its clients nothing of that.
    one = await relay(PROXY.replace('["192', '["127.0.0.0/8", "192') if client == "127.0.0.1" else PROXY)
    connection = await announced(one, header)
    assert connection.greeting.text.startswith("220 relay.example.org")
    assert (await asks_to_relay(connection)).text[:9] == ("250 2.1.5" if may else "554 5.7.1")
    await connection.command("RCPT TO:<x@ours.example>")
    await connection.command("DATA")
    assert (await connection.command("Subject: x\r\n\r\n.")).code == 250
    message = one.queue.messages[0]
    assert message.envelope.client == client and message.envelope.trusted is may
    assert f"client.test ([{'IPv6:' if ':' in client else ''}{client}])".encode() in (message.body or b"")
    # A reload asks the rules again: by the announced address, not by that of the connection.
    await one.intake.apply(config.parse(PROXY.replace("192.0.2.7/32", "127.0.0.0/8").replace("db8::7", "db8::8")))
    assert (await asks_to_relay(connection)).text.startswith("554 5.7.1")


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_a_header_in_pieces_and_with_commands_behind_it(relay, size):
    one = await relay(PROXY)
    for header in (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", inet("192.0.2.7")):
        client = await Client.connect(one.port, greeting=False)
        for start in range(0, len(header), size):
            await client.send(header[start : start + size])
            await asyncio.sleep(0)
        assert (await client.reply()).code == 220
        assert (await asks_to_relay(client)).code == 250
    # What stands right behind the header was said before the greeting: by one who may relay it is taken in order.
    client = await announced(one, inet("192.0.2.7") + b"EHLO x\r\nNOOP\r\n")
    assert client.greeting.code == 220
    assert [(await client.reply()).code for _ in range(2)] == [250, 250]
    stranger = await announced(one, inet("192.0.2.8") + b"EHLO x\r\nNOOP\r\n")
    assert stranger.greeting.text.startswith("554 5.5.1") and await stranger.closed() == b""  # M14


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO client.test\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWN \0\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\nX\r\n",
        b"PROXY " + b"x" * 101,
        b"PROXYTCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PR\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        version_2(0x11, 0x11, bytes(12)),  # version 1 in a header of version 2
        version_2(0x22, 0x11, bytes(12)),
        version_2(0x21, 0x12, bytes(12)),  # UDP
        version_2(0x21, 0x11, bytes(11)),
        version_2(0x21, 0x21, bytes(35)),
        SIGNATURE + b"\x21\x11" + HEADER_LIMIT.to_bytes(2) + bytes(12),
    ],
)
async def test_no_header_or_a_bad_one_closes(relay, header):  # P05
    one = await relay(PROXY)
    client = await Client.connect(one.port, greeting=False)
    await client.send(header)
    assert await client.closed() == b""
    assert one.told("proxy-failed")[0]["client"] == "127.0.0.1"
    await until(lambda: not one.intake.sessions)


async def test_a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake(relay):  # R04
    one = await relay(PROXY, Timeouts(handshake=0.05))
    client = await Client.connect(one.port, greeting=False)
    await client.send(b"PROXY TCP4 192")
    assert await client.closed() == b""
    await until(lambda: not one.intake.sessions)


async def test_from_others_a_header_is_a_command_that_is_none(relay):  # P05, X23
    one = await relay(PROXY)
    client = await one.client(source="127.0.0.2")
    assert client.greeting.code == 220
    answer = await client.command("PROXY TCP4 192.0.2.7 198.51.100.1 40000 25")
    assert answer.text.startswith("500 5.5.1")
    assert (await asks_to_relay(client)).text.startswith("554 5.7.1")
    two = await one.client(source="127.0.0.2")
    await two.send(inet("192.0.2.7"))
    assert (await two.reply()).code == 500
    # And a header behind a header is none either.
    client = await announced(one, b"PROXY TCP4 192.0.2.8 198.51.100.1 1 2\r\n")
    assert (await client.command("PROXY TCP4 192.0.2.7 198.51.100.1 1 2")).code == 500
    assert (await asks_to_relay(client)).text.startswith("554 5.7.1")


async def test_limits_go_by_the_announced_address(relay):  # R02
    one = await relay(PROXY + "[limits]\nconnections_per_client = 2\n")
    header = b"PROXY TCP4 192.0.2.8 198.51.100.1 1 2\r\n"
    clients = [await announced(one, header) for _ in range(3)]
    assert [client.greeting.code for client in clients] == [220, 220, 421]
    assert (await announced(one, header.replace(b"2.8", b"2.9"))).greeting.code == 220
    trusted = [await announced(one, header.replace(b"2.8", b"2.7")) for _ in range(3)]
    assert [client.greeting.code for client in trusted] == [220] * 3


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", inet("192.0.2.7")])
async def test_a_header_stands_before_tls(relay, tls_files, together, header):  # L10
    one = await relay(listener("implicit", tls_files, PROXY))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(verify=False).wrap_bio(incoming, outgoing)
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    if together:
        writer.write(header + outgoing.read())
    else:
        writer.write(header)
        await asyncio.sleep(0.01)
        writer.write(outgoing.read())
    greeting = b""
    async with asyncio.timeout(10):
        while not greeting:
            incoming.write(await reader.read(65536))
            try:
                tls.do_handshake()
                writer.write(outgoing.read())
                greeting = tls.read()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
    assert greeting.startswith(b"220 relay.example.org")
    assert one.told("tls")[0]["client"] == "192.0.2.7"
    writer.close()


async def test_who_announces_plain_text_on_an_implicit_tls_listener_is_closed(relay, tls_files):
    one = await relay(listener("implicit", tls_files, PROXY))
    client = await Client.connect(one.port, greeting=False)
    await client.send(inet("192.0.2.7") + b"EHLO x\r\n")
    assert b"220" not in await client.closed()
    assert one.told("tls-failed")[0]["client"] == "192.0.2.7"


async def test_starttls_behind_a_front_end(relay, tls_files):
    one = await relay(listener("starttls", tls_files, PROXY))
    client = await announced(one, inet("192.0.2.7"))
    assert (await client.command("STARTTLS")).code == 220
    await client.start_tls(client_context(verify=False))
    assert (await asks_to_relay(client)).code == 250


async def test_a_relay_that_drains_does_not_wait_for_a_header(relay):
    one = await relay(PROXY)
    client = await Client.connect(one.port, greeting=False)
    await until(lambda: one.intake.sessions)
    await one.intake.drain(0.02)
    assert await client.closed() == b"" and not one.intake.sessions


@given(st.binary(max_size=300))
def test_any_octets_are_a_header_or_malformed_or_too_few(octets):
    for data in (octets, b"PROXY " + octets, SIGNATURE + octets):
        try:
            found = parse(data)
        except Malformed:
            continue
        assert found is None or (isinstance(found, Announced) and found.length <= len(data))


@given(st.ip_addresses(v=4), st.ip_addresses(v=6), st.binary(max_size=40))
def test_what_is_announced_is_what_is_read_and_no_octet_more(four, six, behind):
    text = f"PROXY TCP4 {four} 198.51.100.1 1 65535\r\n".encode()
    assert parse(text + behind) == Announced(parse_client(str(four)), parse_client("198.51.100.1"), len(text))
    header = inet6(str(six))
    assert parse(header + behind) == Announced(parse_client(str(six)), parse_client("2001:db8::1"), len(header))
    assert all(parse(header[:n]) is None for n in range(1, len(header)))
    assert all(parse(text[:n]) is None for n in range(1, len(text)))


@pytest.mark.parametrize("key", ["proxy_from", "xclient_from"])
@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
def test_everybody_is_no_front_end(key, everybody):  # P02
    with pytest.raises(ConfigError, match="IS EVERYBODY"):
        config.parse(TOML + f'{key} = ["{everybody}"]\n')


# -- XCLIENT ---------------------------------------------------------------------------------------------------------


async def test_xclient_is_offered_to_front_ends_only(relay):  # X23
    one = await relay(XCLIENT)
    front = await one.client()
    lines = (await front.command("EHLO front.test")).lines
    assert lines[-1] == "250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
    other = await one.client(source="127.0.0.2")
    assert "XCLIENT" not in (await other.command("EHLO x")).text
    assert (await other.command("XCLIENT ADDR=192.0.2.7")).text.startswith("550 5.7.0")
    assert (await asks_to_relay(other)).text.startswith("554 5.7.1")


@pytest.mark.parametrize(
    ("said", "client", "may"),
    [
        ("ADDR=192.0.2.7", "192.0.2.7", True),
        ("addr=192.0.2.8 name=mail.b.example", "192.0.2.8", False),
        ("NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7", "2001:db8::7", True),
        ("ADDR=ipv6:::ffff:192.0.2.7", "192.0.2.7", True),
        ("ADDR=[UNAVAILABLE]", "127.0.0.1", False),
        ("PROTO=SMTP ADDR=192.0.2.7 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=25", "192.0.2.7", True),
        ("ADDR=192.0.2+2E7", "192.0.2.7", True),
    ],
)
async def test_xclient_makes_it_the_session_of_another(relay, said, client, may):  # P05
    one = await relay(XCLIENT)
    front = await one.session()
    assert (await front.command(f"XCLIENT {said}")).text.startswith("220 relay.example.org ESMTP")
    assert (await front.command("MAIL FROM:<a@b.example>")).text.startswith("503")  # as after a greeting
    assert (await asks_to_relay(front)).text[:9] == ("250 2.1.5" if may else "554 5.7.1")
    await front.command("RCPT TO:<x@ours.example>")
    await front.command("DATA")
    assert (await front.command("Subject: x\r\n\r\n.")).code == 250
    message = one.queue.messages[0]
    assert message.envelope.client == client
    name = b"(mail.b.example [192.0.2.8])" if "name=" in said else b"([" + b"IPv6:" * (":" in client) + client.encode()
    assert name in (message.body or b"")


async def test_xclient_in_several_commands_and_with_the_clients_own_ehlo(relay):
    one = await relay(XCLIENT)
    front = await one.session()
    await front.send(b"XCLIENT ADDR=192.0.2.7 NAME=a.example\r\nXCLIENT HELO=client.example PROTO=ESMTP\r\n")
    assert [(await front.reply()).code for _ in range(2)] == [220, 220]
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<victim@other.example>"):
        assert (await front.command(line)).code == 250
    await front.command("DATA")
    assert (await front.command(".")).code == 250
    assert b"from client.example (a.example [192.0.2.7])" in (one.queue.messages[0].body or b"")


@pytest.mark.parametrize(
    "argument",
    [
        "", "ADDR", "ADDR=", "=1", "COLOR=red", "ADDR=192.0.2.7 ADDR=192.0.2.8", "ADDR=192.0.2", "ADDR=2001:db8::7",
        "ADDR=IPV6:192.0.2.7", "ADDR=192.0.2.7,", "PROTO=LMTP", "PORT=x", "HELO=a+20b", "HELO=a+0D+0Ab",
        "NAME=" + "a" * 256, "NAME=+ZZ", "NAME=a=b", "LOGIN=nobody", "ADDR=192.0.2.7  NAME=a", "NAME=\u00e4.example",
    ],
)  # fmt: skip
async def test_xclient_is_taken_as_a_whole_or_not_at_all(relay, argument):
    one = await relay(XCLIENT)
    front = await one.session()
    [session] = one.intake.sessions
    assert (await front.command(f"XCLIENT {argument}")).text.startswith("501 5.5.4")
    assert session.client == "127.0.0.1" and session.helo == "client.test"
    assert (await asks_to_relay(front)).text.startswith("554 5.7.1")


async def test_xclient_not_within_a_transaction(relay):
    one = await relay(XCLIENT)
    front = await one.in_data(recipient="x@ours.example")
    await front.command(".")
    await front.command("MAIL FROM:<a@b.example>")
    assert (await front.command("XCLIENT ADDR=192.0.2.7")).text.startswith("503 5.5.1")
    await front.command("RSET")
    assert (await front.command("XCLIENT ADDR=192.0.2.7")).code == 220


async def test_what_the_front_end_may_do_is_not_its_clients(relay):  # P05, L14
    one = await relay(XCLIENT.replace('["192', '["127.0.0.1/32", "192'))
    front = await one.session()
    assert (await asks_to_relay(front)).code == 250
    await front.command("RSET")
    assert (await front.command("XCLIENT ADDR=192.0.2.8")).code == 220
    assert (await asks_to_relay(front)).text.startswith("554 5.7.1")
    # Nor what an earlier client of the connection might.
    for said, code in (("ADDR=192.0.2.7", 250), ("ADDR=[UNAVAILABLE]", 554)):
        await front.command("RSET")
        assert (await front.command(f"XCLIENT {said}")).code == 220
        assert (await asks_to_relay(front)).code == code


async def test_login_at_the_front_end(relay):
    one = await relay(XCLIENT)
    one.intake.accounts.put(account())
    one.intake.accounts.put(account("bad", quarantined=1.0))
    front = await one.session()
    assert (await front.command("XCLIENT ADDR=192.0.2.8 LOGIN=bad")).text.startswith("501 5.5.4")
    assert (await front.command("XCLIENT ADDR=192.0.2.8 LOGIN=ann")).code == 220
    assert (await asks_to_relay(front)).code == 250
    await front.command("RSET")
    assert (await front.command("XCLIENT HELO=still.ann")).code == 220
    assert (await asks_to_relay(front)).code == 250
    await front.command("RSET")
    assert (await front.command("XCLIENT ADDR=192.0.2.9")).code == 220  # another client: its login is its own
    assert (await asks_to_relay(front)).code == 554


async def test_xclient_counts_for_the_client_it_names(relay):  # R02
    one = await relay(XCLIENT + "[limits]\nconnections_per_client = 3\n")
    fronts = [await one.session() for _ in range(3)]
    for front in fronts[:2]:
        assert (await front.command("XCLIENT ADDR=192.0.2.8")).code == 220
    fourth = await one.session()  # the front end itself has room again
    third = await one.session()
    for front in (fronts[2], fourth):
        assert (await front.command("NOOP")).code == 250
    assert (await third.command("XCLIENT ADDR=192.0.2.8")).code == 220
    assert (await fourth.command("XCLIENT ADDR=192.0.2.8")).text.startswith("421 4.7.0")
    assert await fourth.closed() == b""
    await fourth.close()
    for client in (*fronts, third):
        await client.command("QUIT")
    await until(lambda: not one.intake.sessions)
    assert not one.intake.limits._clients
