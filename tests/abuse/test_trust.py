"""AUTH, PROXY and XCLIENT by those who have no right to them: RFC 4954, and the front ends of standards P05."""

import asyncio
import base64
import socket

import pytest

from mailtui.intake.verifier import Verifier
from mailtui.model import Account
from tests.abuse.talk import (
    BODY,
    CLOSED,
    KEPT,
    MAIL,
    OURS,
    RCPT,
    Case,
    check,
    check_queue,
    expect,
    hold,
    in_step,
    table,
)
from tests.intake.conftest import STRANGER, over_every_wire
from tests.support.client import Client

ADDRESS = 'address = "127.0.0.1:0"\n'
AUTH = STRANGER.replace(ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n')
REQUIRED = AUTH.replace("optional", "required")
FRONT = OURS.replace(ADDRESS, ADDRESS + 'xclient_from = ["192.0.2.0/24"]\n')
SECRET = "pencil of Ann"


def plain(user: str, password: str = "wrong", other: str = "") -> str:
    return base64.b64encode(f"{other}\0{user}\0{password}".encode()).decode()


DENIED = ("RCPT TO:<v@other.example>", "554/5.7.1")
CASES = (
    Case("U01", "auth-that-is-not-offered-is-502-and-its-line-no-more", [(f"AUTH PLAIN {plain('ann')}", "502/5.5.1"),
         ("AUTH LOGIN", "502"), (plain("ann"), "500"), (MAIL, "250"), DENIED]),
    Case("U02", "auth-comes-after-ehlo", [(f"AUTH PLAIN {plain('ann')}", "503/5.5.1"), ("HELO c", "250"),
         (f"AUTH PLAIN {plain('ann')}", "503/5.5.1")], toml=AUTH, hello=False),
    Case("U02", "no-auth-amid-a-transaction", [(MAIL, "250"), (f"AUTH PLAIN {plain('ann')}", "503/5.5.1"), (RCPT,
         "250"),
         ("DATA", "354"), (BODY, "250")], taken=[KEPT], toml=AUTH),
    Case("U03", "what-is-no-dialogue-ends-it", [("AUTH", "501/5.5.4"), ("AUTH FROB", "504/5.5.4"), ("AUTH PLAIN x",
         "501"),
         ("AUTH PLAIN ====", "501"), ("AUTH PLAIN", "334"), ("*", "501"), ("AUTH LOGIN", "334"), ("\udcff\x01", "501"),
         ("AUTH CRAM-MD5", "504"), ("AUTH EXTERNAL =", "504"), ("AUTH ANONYMOUS =", "504")], toml=AUTH),
    Case("U03 M08", "no-command-is-run-within-a-dialogue", [("AUTH LOGIN", "334"), ("MAIL FROM:<a@b.example>", "501"),
         (RCPT, "503"), ("AUTH PLAIN", "334"), ("QUIT", "501"), ("NOOP", "250")], toml=AUTH),
    Case("U03 M01", "no-line-end-but-crlf-in-a-dialogue", [("AUTH PLAIN", "334"),
         (plain("ann").encode() + b"\nMAIL FROM:<a@b.example>\r\n", "501"), (RCPT, "503")], toml=AUTH),
    Case("U03 X05", "what-is-pipelined-behind-auth-waits-for-its-end", [(
         f"AUTH PLAIN {plain('ann')}\r\n{MAIL}\r\nRCPT TO:<v@other.example>\r\nDATA\r\n".encode(),
         "535/5.7.8 250 554 554")], toml=AUTH),
    Case("U04 R01", "a-response-of-12288-octets-is-read-and-a-longer-one-is-one-error", [("AUTH PLAIN", "334"),
         ("x" * 12288, "501"), ("AUTH PLAIN", "334"), ("x" * 12289, "500/5.5.6"), (f"NOOP {'x' * 12000}", "500/5.5.2")],
         toml=AUTH),
    Case("U05", "auth-of-mail-logs-nobody-in", [(f"{MAIL} AUTH=ann@ours.example", "250"), DENIED, ("RSET", "250"),
         (f"{MAIL} AUTH=<>", "250"), DENIED, ("RSET", "250"), (f"{MAIL} AUTH=+0D", "501"), (f"{MAIL} AUTH", "501")],
         toml=AUTH),
    Case("U05 S16", "auth-of-mail-is-unknown-where-auth-is-off", [(f"{MAIL} AUTH=<>", "555/5.5.4")]),
    Case("U06", "a-wrong-password-and-a-wrong-name-are-told-the-same", [(f"AUTH PLAIN {plain('ann')}", "535/5.7.8"),
         (f"AUTH PLAIN {plain('nobody')}", "535/5.7.8"), (MAIL, "250"), DENIED], toml=AUTH),
    Case("U06", "an-empty-name-or-password-is-wrong", [(f"AUTH PLAIN {plain('', '')}", "501"),
         (f"AUTH PLAIN {plain('ann', '')}", "501"), ("AUTH PLAIN =", "501"), (MAIL, "250"), DENIED], toml=AUTH),
    Case("U07 R02", "three-failures-and-no-more", [(f"AUTH PLAIN {plain('ann')}", "535")] * 3
         + [(f"AUTH PLAIN {plain('ann', SECRET)}", "421/4.7.0")], toml=AUTH, end=CLOSED),
    Case("U06", "nobody-acts-for-another", [(f"AUTH PLAIN {plain('ann', SECRET, 'bob')}", "535"), (MAIL, "250"),
         DENIED],
         toml=AUTH),
    Case("U08", "who-has-logged-in-may-send", [(f"AUTH PLAIN {plain('ann', SECRET)}", "235/2.7.0"),
         (f"AUTH PLAIN {plain('ann', SECRET)}", "503"), (MAIL, "250"), ("RCPT TO:<v@other.example>", "250"),
         ("DATA", "354"), (BODY, "250")], taken=[KEPT._replace(to="v@other.example")], toml=AUTH),
    Case("P05 X23", "xclient-from-a-stranger", [("XCLIENT ADDR=127.0.0.1", "550/5.7.0"), ("XCLIENT LOGIN=ann", "550"),
         (MAIL, "250"), DENIED]),
    Case("P05 X23", "xclient-from-one-of-ours-who-is-no-front-end", [("XCLIENT ADDR=192.0.2.1", "550/5.7.0"),
         ("XCLIENT NAME=x HELO=y", "550"), ("XFORWARD ADDR=192.0.2.1", "500")], toml=FRONT),
    Case("P05", "a-proxy-header-from-a-stranger-is-no-command", [("PROXY TCP4 127.0.0.1 127.0.0.1 1 2", "500"),
         ("PROXY UNKNOWN", "500"), (MAIL, "250"), DENIED], hello=True),
    Case("P05 M10", "a-proxy-header-of-version-2-from-a-stranger-is-no-command", [
         (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\2\r\n", "500 500 500 500"), (MAIL, "250"),
         DENIED]),
)  # fmt: skip


@table(*CASES)
async def test_trust(relay, case, monkeypatch):
    monkeypatch.setattr("mailtui.intake.accounts.ITERATIONS", 4096)  # what stands for nobody costs little here

    async def with_ann(toml, timeouts):
        one = await relay(toml, timeouts)
        one.intake.accounts.put(Account("ann", Verifier.make(SECRET, iterations=4096).text, 0.0, None))
        return one

    one = await hold(with_ann, case)
    written = one.events._stream.getvalue()  # type: ignore[attr-defined]
    assert SECRET not in written and plain("ann", SECRET) not in written  # U06


@over_every_wire
async def test_where_auth_is_required_nobody_else_sends(relay):  # U09
    one = await relay(REQUIRED.replace("networks = []", 'networks = ["127.0.0.0/8"]'))
    client = await one.session()
    await client.send(b"MAIL FROM:<>\r\nRCPT TO:<x@ours.example>\r\nDATA\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    await expect(client, "530/5.7.0 503 503 503 250")
    check_queue(one, [])


@pytest.mark.parametrize("wire", ["plain", "starttls"], indirect=True)
async def test_a_stranger_that_speaks_before_the_greeting_is_refused(relay):  # M14
    one = await relay(STRANGER)
    sock = socket.create_connection(("127.0.0.1", one.port))  # the loop has no turn before all this is said
    sock.sendall(f"EHLO early.test\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode() + BODY)
    client = await connected(sock)
    assert check(await client.reply()).code == 554
    assert await client.closed() == b""
    check_queue(one, [])
    await in_step(one, await one.client())


@pytest.mark.parametrize("wire", ["plain"], indirect=True)
async def test_one_of_ours_that_speaks_before_the_greeting_is_answered_in_order(relay):  # M14
    one = await relay(OURS)
    sock = socket.create_connection(("127.0.0.1", one.port))
    sock.sendall(f"EHLO early.test\r\n{MAIL}\r\n".encode())
    await expect(await connected(sock), "220 250 250")


@pytest.mark.parametrize("wire", ["implicit"], indirect=True)
async def test_plain_text_where_tls_is_first_is_never_a_command(relay):  # L10, M14
    one = await relay(STRANGER)
    sock = socket.create_connection(("127.0.0.1", one.port))
    sock.sendall(f"EHLO early.test\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode() + BODY)
    assert b"250" not in await (await connected(sock)).closed()
    check_queue(one, [])
    await in_step(one, await one.client())


async def connected(sock: socket.socket) -> Client:
    """A client on a connection that is there already."""
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    return Client(reader, writer, 10.0)
