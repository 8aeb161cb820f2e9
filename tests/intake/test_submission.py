"""Submission listeners (RFC 6409): AUTH first, then a missing Date and Message-ID are added, and nothing else (U10)."""

import pytest

from mailtui.intake import data
from mailtui.intake.submission import missing_fields
from tests.intake.conftest import TOML, Relay, over_every_wire, without_trace
from tests.intake.test_auth import ADDRESS, OPTIONAL, account, plain
from tests.support.client import Client

SUBMISSION = TOML.replace(ADDRESS, ADDRESS + 'role = "submission"\nauth_without_tls = true\n')
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


async def logged_in(relay, toml: str = SUBMISSION) -> tuple[Relay, Client]:
    one: Relay = await relay(toml)
    one.intake.accounts.put(account())
    client = await one.session()
    assert (await client.command(plain())).code == 235
    return one, client


async def send(client: Client, content: bytes) -> str:
    """Hand in a message; its queue id."""
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
        assert (await client.command(line)).code in (250, 354)
    await client.send(content + b".\r\n")
    answer = await client.reply()
    assert answer.code == 250
    return answer.text.split()[-1]


@over_every_wire
async def test_submission_takes_mail_after_auth_only(relay) -> None:  # U09
    one = await relay(SUBMISSION)
    one.intake.accounts.put(account())
    client = await one.session()  # on loopback, which is in networks: that counts for nothing here
    assert (await client.command("MAIL FROM:<a@b.example>")).text == "530 5.7.0 Authentication required"
    assert (await client.command("RCPT TO:<c@d.example>")).code == 503
    assert (await client.command(plain())).code == 235
    await send(client, b"Subject: x\r\n\r\nx\r\n")
    assert one.queue.messages[0].envelope.user == "ann"


async def test_date_and_message_id_are_added_where_they_are_missing(relay) -> None:
    one, client = await logged_in(relay)
    id = await send(client, b"Subject: x\r\n\r\nx\r\n")
    message = one.queue.messages[-1]
    assert one.queue.body() == DATE + f"Message-ID: <{id}@relay.example.org>\r\nSubject: x\r\n\r\nx\r\n".encode()
    assert message.envelope.message_id == f"<{id}@relay.example.org>"
    assert message.body is not None and message.envelope.size == len(message.body)


@pytest.mark.parametrize(
    ("content", "added"),
    [
        (b"Date: x\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n", b""),
        (b"DATE : x\r\nmessage-id:\r\n <1@x>\r\n\r\nbody\r\n", b""),  # odd, and there
        (b"Date:\r\nMessage-ID:\r\n\r\nbody\r\n", b""),  # empty, and there
        (b"Message-ID: <1@x>\r\nX-Date: y\r\n\r\nDate: in the body\r\n", b"D"),
        (b"Date: x\r\nResent-Message-ID: <1@x>\r\n\r\nMessage-ID: <2@x>\r\n", b"M"),
        (b"Subject: x\r\n Date: folded\r\n\r\n", b"DM"),
        (b"\r\nDate: x\r\n", b"DM"),  # an empty header section
        (b"Subject: \xff\xfe\r\n\r\n\xff\r\n", b"DM"),
        (b"no header at all\r\n", b"DM"),
        (b"", b"DM"),
    ],
)
async def test_what_is_there_stays_and_no_octet_changes(relay, content: bytes, added: bytes) -> None:
    one, client = await logged_in(relay)
    id = await send(client, content)
    lines = DATE if b"D" in added else b""
    if b"M" in added:
        lines += f"Message-ID: <{id}@relay.example.org>\r\n".encode()
    assert one.queue.body() == lines + content


@pytest.mark.parametrize("header", [b"Subject: x\r\n", b"Date: x\r\nMessage-ID: <1@x>\r\n"])
async def test_a_large_message_is_completed_in_its_spool_file(relay, header: bytes) -> None:
    one, client = await logged_in(relay)
    content = header + b"\r\n" + (b"y" * 998 + b"\r\n") * (2 * data.MEMORY_LIMIT // 1000)
    id = await send(client, content)
    [spool] = one.queue.spools
    added = b"" if b"Date" in header else DATE + f"Message-ID: <{id}@relay.example.org>\r\n".encode()
    assert without_trace(spool.octets) == added + content
    assert one.queue.messages[0].envelope.size == len(spool.octets)
    assert one.queue.messages[0].envelope.message_id == ("<1@x>" if b"Date" in header else f"<{id}@relay.example.org>")


@pytest.mark.parametrize("toml", [OPTIONAL, OPTIONAL.replace("optional", "required")])
async def test_a_relay_listener_adds_nothing_even_for_a_user(relay, toml: str) -> None:  # S37, U10
    one, client = await logged_in(relay, toml)
    await send(client, b"Subject: x\r\n\r\nx\r\n")
    assert one.queue.body() == b"Subject: x\r\n\r\nx\r\n"
    assert one.queue.messages[0].envelope.message_id == ""


def test_what_cannot_be_seen_is_not_added() -> None:
    beginning = b"Subject: x\r\nX: " + b"y" * 100
    assert missing_fields(beginning, b"ID", "relay.test", b"D", whole=False) == (b"", "")
    lines, message_id = missing_fields(beginning, b"ID", "relay.test", b"D", whole=True)
    assert (lines, message_id) == (b"Date: D\r\nMessage-ID: <ID@relay.test>\r\n", "<ID@relay.test>")
