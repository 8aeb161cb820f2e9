"""Messages: where their data end, what their lines may hold, what is refused, and that the rest is kept octet by octet.

RFC 5321 sections 2.3.8, 4.1.1.4 and 4.5.2; VU#302671 (SMTP smuggling).
"""

import pytest

from mailtui.intake.data import MEMORY_LIMIT
from mailtui.model import SmtpError
from tests.abuse.talk import (
    BODY,
    KEPT,
    MAIL,
    RCPT,
    Case,
    Taken,
    check,
    check_queue,
    expect,
    hold,
    in_step,
    table,
)
from tests.intake.conftest import STRANGER, over_every_wire
from tests.support.smuggling import LOOK_ALIKES

NORMALIZE = STRANGER + 'bare_newline = "normalize"\n'
SMALL = STRANGER + "[limits]\nmessage_size = 100000\nhops = 5\n"
BEGIN = f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode()
FULL = SmtpError(452, "4.3.1", "Insufficient system storage, try again later", "free-disk")


def sent(data: bytes, reply: str = "250/2.0.0") -> list[tuple[str | bytes, str]]:
    """A transaction with these octets after DATA, and the reply to them."""
    return [(BEGIN, "250 250 354"), (data, reply)]


def hops(count: int) -> bytes:
    return b"Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n" * count


LINE = b"x" * 998 + b"\r\n"
PART = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
NESTED = PART + (b"--a\r\n" + PART) * 5000
CONTENT = (
    Case("S34", "dots", sent(b"..\r\n...\r\n.. \r\n..x\r\nx.\r\n.x\r\n.\r\n"),
         taken=[Taken(b".\r\n..\r\n. \r\n.x\r\nx.\r\nx\r\n")]),
    Case("S34 S35", "the-empty-message", sent(b".\r\n"), taken=[Taken(b"")]),
    Case("S35", "a-dot-behind-text-does-not-end-it", sent(b"x.\r\n.y\r\n. \r\n .\r\n.\r\n"),
         taken=[Taken(b"x.\r\ny\r\n \r\n .\r\n")]),
    Case("S28", "lines-of-998-octets", sent(LINE * 3 + b".\r\n"), taken=[Taken(LINE * 3)]),
    Case("S28 M09", "a-line-of-999-octets-is-refused-whole", sent(LINE + b"x" + LINE + b"RSET\r\n.\r\n", "554/5.6.0")),
    Case("S28 M09", "a-line-without-end-is-refused-whole", sent(b"x" * 1_000_000 + b"\r\nQUIT\r\n.\r\n", "554/5.6.0")),
    Case("S28", "sixty-four-kilobytes", sent(LINE * 70 + b".\r\n"), taken=[Taken(LINE * 70)]),
    Case("S28 R09", "more-than-is-kept-in-memory", sent(LINE * 600 + b".\r\n"), taken=[Taken(LINE * 600)]),
    *(Case("S36", f"odd-headers-are-taken-{name}", sent(head + b".\r\n"), taken=[Taken(head)]) for name, head in (
        ("none", b"no header at all\r\n"), ("no-colon", b"Subject\r\n\r\nx\r\n"), ("blank-first",
         b" folded\r\nA: b\r\n\r\n"),
        ("twice", b"From: a\r\nFrom: b\r\nDate: never\r\n\r\n"), ("received", b"Received: ;;;(((\r\nReceived:\r\n\r\n"),
        ("nameless", b": x\r\n:\r\n\r\n"), ("words", b"Subject: =?x?q?=00=1b[2J?= =?utf-8?b?////?=\r\n\r\n"),
        ("mime", b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n--\r\n"))),
    Case("S37", "nothing-below-our-field-is-changed-or-added",
         sent(b"subject:x\r\nTo: undisclosed\r\n\ty  \r\n\r\nx \t\r\n.\r\n"),
         taken=[Taken(b"subject:x\r\nTo: undisclosed\r\n\ty  \r\n\r\nx \t\r\n")]),
    Case("X03 M11", "octets-above-127-are-kept-whatever-was-said",
         sent(b"Subject: gr\xfcn\r\n\r\n\xff\xfe\x80\r\n.\r\n"),
         taken=[Taken(b"Subject: gr\xfcn\r\n\r\n\xff\xfe\x80\r\n")]),
    Case("M10", "nul-is-kept", sent(b"Subject: a\0b\r\n\r\nx\0y\0\r\n\0\r\nz\r\n.\r\n"),
         taken=[Taken(b"Subject: a\0b\r\n\r\nx\0y\0\r\n\0\r\nz\r\n")]),
    Case("T10", "four-hops-of-five", sent(hops(4) + b"\r\nx\r\n.\r\n"), taken=[Taken(hops(4) + b"\r\nx\r\n")],
         toml=SMALL),
    Case("T10 S33", "five-hops-of-five", sent(hops(5) + b"\r\nx\r\n.\r\n", "554/5.4.6"), toml=SMALL),
    Case("X02 S33", "more-than-the-limit-is-read-and-refused", sent(LINE * 101 + b".\r\n", "552/5.3.4"), toml=SMALL),
    Case("X02", "size-that-was-said-is-a-hint", [(f"{MAIL} SIZE=1", "250"), (RCPT, "250"), ("DATA", "354"),
         (LINE * 50 + b".\r\n", "250")], taken=[Taken(LINE * 50)], toml=SMALL),
    Case("X02", "size-that-was-said-does-not-end-the-data", [(f"{MAIL} SIZE=90000", "250"), (RCPT, "250"), ("DATA",
         "354"),
         (b"x\r\n.\r\n", "250")], taken=[Taken(b"x\r\n")], toml=SMALL),
    Case("X02 M09", "commands-in-a-message-that-is-too-large-are-not-run", sent(LINE * 101 + BEGIN + b"x\r\n.\r\n",
         "552/5.3.4"), toml=SMALL),
    Case("S33 M09", "after-a-refused-message-the-next-one-is-taken", sent(b"x\n\r\n.\r\n", "550/5.6.0") + sent(BODY),
         taken=[KEPT]),
    Case("S33 M09 X05", "what-is-pipelined-behind-a-refused-message-is-run", [(BEGIN, "250 250 354"),
         (b"x\ny\r\n.\r\nNOOP\r\n" + BEGIN, "550 250 250 250 354"), (BODY, "250")], taken=[KEPT]),
    Case("R05 M09", "a-header-section-without-end", sent(b"X: y\r\n" * 200_000 + b"QUIT\r\n.\r\n", "552/5.3.4")),
    Case("R05", "five-thousand-fields", sent(b"X: y\r\n" * 5000 + b"\r\n.\r\n"),
         taken=[Taken(b"X: y\r\n" * 5000 + b"\r\n")]),
    Case("R05", "a-field-of-200-kib", sent(b"X: " + b"y\r\n " * 50_000 + b"\r\n\r\nx\r\n.\r\n"),
         taken=[Taken(b"X: " + b"y\r\n " * 50_000 + b"\r\n\r\nx\r\n")]),
    Case("R10", "five-thousand-nested-parts", sent(NESTED + b".\r\n"), taken=[Taken(NESTED)]),
)  # fmt: skip


@table(*CONTENT)
async def test_content(relay, case):
    await hold(relay, case)


SMUGGLED = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@ours.example>\r\nDATA\r\nsmuggled\r\n.\r\n"


@over_every_wire
@pytest.mark.parametrize("newlines", ["reject", "normalize"])
@pytest.mark.parametrize("look_alike", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
async def test_no_look_alike_ends_the_data(relay, look_alike, newlines):  # S35, M01, M02, M03, M04, M06, C4
    one = await relay(STRANGER if newlines == "reject" else NORMALIZE)
    client = await one.in_data(recipient="x@ours.example")
    await client.send(b"outer" + look_alike + SMUGGLED)
    bare = any(octet in look_alike.replace(b"\r\n", b"") for octet in (b"\r", b"\n"))
    taken = []
    if bare and newlines == "reject":
        await expect(client, "550/5.6.0")
    else:
        await expect(client, "250/2.0.0")
        kept = (b"outer" + look_alike + SMUGGLED[:-3]).replace(b"\r\n.", b"\r\n")
        if bare:  # each CR, LF and CRLF is an end of line then, and no dot of theirs is one of transparency
            kept = kept.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        taken = [Taken(kept)]
    await in_step(one, client, taken)


M05 = (
    Case("M05 M09", "cr-crlf.crlf-is-the-end-once", sent(b"x\r\r\n.\r\nNOOP\r\n", "550/5.6.0 250/2.0.0")),
    Case("M05 M06", "cr-crlf.crlf-is-the-end-where-lines-are-normalised", sent(b"x\r\r\n.\r\nNOOP\r\n", "250 250"),
         taken=[Taken(b"x\r\n\r\n")], toml=NORMALIZE),
    Case("M06", "bare-line-ends-are-normalised-where-configured", sent(b"a\nb\rc\r\nd\n\re\r\n.\r\n"),
         taken=[Taken(b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n")], toml=NORMALIZE),
    Case("M06", "a-bare-cr-alone-is-refused-too", sent(b"a\rb\r\n.\r\n", "550/5.6.0")),
    Case("M06 M09", "a-bare-lf-late-in-a-large-message-is-refused", sent(LINE * 600 + b"a\nb\r\n.\r\n", "550/5.6.0")),
)  # fmt: skip


@table(*M05)
async def test_line_ends(relay, case):
    await hold(relay, case)


@over_every_wire
async def test_a_client_that_goes_before_the_dot_sent_nothing(relay):  # S32
    one = await relay(STRANGER)
    for octets in (b"", b"x\r\n", b"x\r\n.", b"x\r\n.\r", b"x\n.\n", b"x\r\n" * MEMORY_LIMIT):
        client = await one.in_data(recipient="x@ours.example")
        await client.send(octets)
        client.writer.transport.abort()
    await in_step(one, await one.client())


@over_every_wire
async def test_nothing_is_said_until_the_message_is_on_disk(relay):  # S30, S31
    one = await relay(STRANGER)
    one.queue.hold = True
    client = await one.in_data(recipient="x@ours.example")
    await client.send(BODY + b"NOOP\r\n")
    other = await one.client()  # the relay is not busy for others meanwhile
    assert check(await other.command("NOOP")).code == 250
    assert not client.reader._buffer  # type: ignore[attr-defined]
    one.queue.commits[0].set_result(None)
    await expect(client, "250/2.0.0 250/2.0.0")
    one.queue.hold = False
    await in_step(one, client, [KEPT])


@over_every_wire
@pytest.mark.parametrize("when", ["mail", "dot", "spool", "commit"])
async def test_a_full_disk_is_a_temporary_refusal_and_keeps_nothing(relay, when):  # R07, X01, S33
    one = await relay(STRANGER)
    client = await one.session()
    if when == "mail":
        one.queue.full = FULL
        await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\n")
        await expect(client, "452/4.3.1 503")
    else:
        await client.send(BEGIN)
        await expect(client, "250 250 354")
        if when == "dot":
            one.queue.full = FULL
        elif when == "spool":
            one.queue.spool_error = OSError(28, "No space left on device")
        else:
            one.queue.error = FULL
        await client.send((LINE * 600 if when == "spool" else b"") + BODY)
        await expect(client, "452/4.3.1")
    one.queue.full = one.queue.error = one.queue.spool_error = None
    check_queue(one, [])
    await in_step(one, client)


@over_every_wire
async def test_what_the_log_says_is_one_printable_line_an_event(relay):  # R11, V06
    one = await relay(STRANGER)
    client = await one.session("EHLO evil\\n\\x1b[2J")
    await client.send(b'MAIL FROM:<"\\\x1b[2J"@b.example>\r\nMAIL FROM:<a@b.example>\r\n')
    await expect(client, "501 250")
    await client.send("RCPT TO:<v\u009b2J@other.example>\r\nRCPT TO:<\x1b]0;x\x07@other.example>\r\n".encode())
    await expect(client, "553 501")
    await client.send(b"RCPT TO:<x@ours.example>\r\nDATA\r\nSubject: \x1b[2J\x07=?utf-8?b?G1sySgo=?=\r\n")
    await client.send(b"Message-ID: <\x1b[1A\x9b@x>\r\n\r\nx\r\n.\r\n")
    await expect(client, "250 354 250")
    written = one.events._stream.getvalue()  # type: ignore[attr-defined]
    assert written.endswith("\n") and all(line.isprintable() for line in written[:-1].split("\n"))
    envelope = one.queue.messages[0].envelope
    assert envelope.subject.isprintable() and envelope.message_id.isprintable()


async def test_a_message_of_twenty_million_octets_holds_little_memory(relay):  # R09
    one = await relay(STRANGER)
    client = await one.in_data(recipient="x@ours.example")
    block = LINE * 200  # 200,000 octets
    most = 0
    for _ in range(100):
        await client.send(block)
        most = max(most, one.intake.budget.used)
    await client.send(b".\r\n")
    await expect(client, "250")
    assert one.queue.messages[0].envelope.size > 20_000_000
    assert most <= MEMORY_LIMIT + (1 << 20)
