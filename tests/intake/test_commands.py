"""The commands of a session and their order. S, X, M and R numbers: the project's list of requirements."""

import pytest

from mailtui.intake.commands import ehlo_reply
from mailtui.intake.session import COMMAND_LIMIT, ERROR_LIMIT
from mailtui.model import SmtpError
from tests.intake.conftest import STRANGER, TOML


async def test_greeting_names_the_host(relay):  # S01
    client = await (await relay()).client()
    assert client.greeting.lines == ("220 relay.example.org ESMTP mailtui",)


async def test_ehlo_lists_what_is_kept(relay):  # S04, X01
    client = await (await relay()).client()
    assert (await client.command("EHLO client.test")).lines == (
        "250-relay.example.org", "250-PIPELINING", "250-SIZE 52428800", "250-8BITMIME", "250-SMTPUTF8", "250-DSN",
        "250-CHUNKING", "250 ENHANCEDSTATUSCODES",
    )  # fmt: skip


def test_starttls_stands_in_the_reply_to_ehlo_where_it_works():  # S04
    assert b"STARTTLS" not in ehlo_reply("relay.example.org", 100)
    assert ehlo_reply("relay.example.org", 100, starttls=True).endswith(b"\r\n250 STARTTLS\r\n")


async def test_helo_is_answered_in_one_line_and_can_send(relay):  # S05
    one = await relay()
    client = await one.client()
    assert (await client.command("helo client")).lines == ("250 relay.example.org",)
    for command, code in (("mail from:<a@b.example>", 250), ("rcpt to:<c@d.example>", 250), ("data", 354)):
        assert (await client.command(command)).code == code
    assert (await client.command("Subject: x\r\n\r\nx\r\n.")).code == 250
    assert one.queue.messages[0].envelope.protocol == "SMTP"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("EHLO", "501 Say"),  # S06
        ("HELO ", "501 Say"),
        ("EHLO a\tb", "501 Say"),
        ("EHLO gr\udcfcn", "501 Say"),
        ("MAIL FROM:<a@b.example>", "503 5.5.1"),  # S09
        ("RCPT TO:<a@b.example>", "503 5.5.1"),  # S10
        ("DATA", "503 5.5.1"),
        ("NOOP anything at all", "250 2.0.0"),  # S12
        ("RSET", "250 2.0.0"),
        ("RSET x", "501 5.5.4"),
        ("QUIT x", "501 5.5.4"),
        ("DATA x", "501 5.5.4"),
        ("VRFY someone", "252 2.5.0"),  # S19
        ("VRFY", "501 5.5.4"),
        ("EXPN list", "502 5.5.1"),
        ("TURN", "502 5.5.1"),
        ("STARTTLS", "502 5.5.1"),
        ("AUTH PLAIN", "502 5.5.1"),
        ("BDAT 0 LAST", "503 5.5.1"),
        ("HELP", "214 2.0.0"),
        ("FROBNICATE", "500 5.5.1"),  # S14
        ("", "500 5.5.1"),
        ("MAIL\tFROM:<a@b.example>", "500 5.5.1"),
    ],
)
async def test_before_ehlo(relay, command, expected):
    client = await (await relay()).client()
    assert (await client.command(command)).text.startswith(expected)
    assert (await client.command("NOOP")).code == 250  # and the session is in step


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME", "250 2.1.0"),
        ("MAIL FROM:<a@b.example> size=1000 body=7bit", "250 2.1.0"),
        ("MAIL FROM: <a@b.example>", "250 2.1.0"),
        ("MAIL FROM:<>", "250 2.1.0"),  # S17
        ("MAIL FROM:<@one.example,@two.example:a@b.example>", "250 2.1.0"),  # S21
        ("MAIL FROM:<a@b.example> SIZE=52428801", "552 5.3.4"),  # X01
        ("MAIL FROM:<a@b.example> SIZE=99999999999999999999", "552 5.3.4"),
        ("MAIL FROM:<a@b.example> SIZE=999999999999999999999", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=12x", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=1 SIZE=2", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),  # X04
        ("MAIL FROM:<a@b.example> FROB=1", "555 5.5.4"),  # S16
        ("MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314159", "250 2.1.0"),
        ("MAIL FROM:<a@b.example> RET=BODY", "501 5.5.4"),  # N12
        ("MAIL FROM:<a@b.example> smtputf8", "250 2.1.0"),  # X15
        ("MAIL FROM:<a@b.example> SMTPUTF8=1", "501 5.5.4"),
        ("MAIL FROM:<gr\udcc3\udcbcn@b\udcc3\udcbccher.example> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<gr\udcfcn@b.example> SMTPUTF8", "501 5.1.7"),  # S23
        ("MAIL FROM:<gr\udcc0\udcafn@b.example> SMTPUTF8", "501 5.1.7"),  # an overlong form
        ("MAIL FROM:<a@b.example> ENVID=gr\udcc3\udcbcn SMTPUTF8", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> FROB==1", "501 5.5.4"),
        ("MAIL FROM:<a@b.example>SIZE=1", "501 5.1.7"),
        ("MAIL FROM:a@b.example", "501 5.1.7"),
        ("MAIL FROM:<a>", "501 5.1.7"),
        ("MAIL FROM:<postmaster>", "501 5.1.7"),
        ("MAIL FROM:<a@b.example", "501 5.1.7"),
        ("MAIL FROM:<gr\udcc3\udcbcn@b.example>", "553 5.6.7"),  # S23
        ("MAIL FROM:<gr\udcfcn@b.example>", "501 5.1.7"),
        ("MAIL a@b.example", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
    ],
)
async def test_mail(relay, command, expected):
    client = await (await relay()).session()
    assert (await client.command(command)).text.startswith(expected)
    accepted = expected.startswith("250")
    assert (await client.command("MAIL FROM:<x@y.example>")).code == (503 if accepted else 250)  # S10: no nesting


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("RCPT TO:<c@d.example>", "250 2.1.5"),
        ("rcpt to:<c@d.example>", "250 2.1.5"),
        ('RCPT TO:<"john doe"@d.example>', "250 2.1.5"),  # S22
        ("RCPT TO:<@one.example:c@d.example>", "250 2.1.5"),  # S20
        ("RCPT TO:<c@[192.0.2.1]>", "250 2.1.5"),
        ("RCPT TO:<>", "501 5.1.3"),  # S18
        ("RCPT TO:<c>", "501 5.1.3"),
        ("RCPT TO:<c@d@e.example>", "501 5.1.3"),
        ("RCPT TO:c@d.example", "501 5.1.3"),
        ("RCPT TO:<c@d.example>, <e@f.example>", "501 5.1.3"),
        ("RCPT TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;c@old.example", "250 2.1.5"),
        ("RCPT TO:<c@d.example> NOTIFY=NEVER,DELAY", "501 5.5.4"),  # N12
        ("RCPT TO:<c@d.example> FROB=1", "555 5.5.4"),  # S16
        ("RCPT TO:<c@d.example> =", "501 5.5.4"),
        ("RCPT TO:<c\uff20d.example>", "553 5.6.7"),
        ("RCPT TO:<Postmaster>", "550 5.1.1"),
        ("RCPT c@d.example", "501 5.5.4"),
    ],
)
async def test_rcpt(relay, command, expected):
    client = await (await relay()).session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command(command)).text.startswith(expected)
    assert (await client.command("DATA")).code == (354 if expected.startswith("250") else 554)  # S11


async def test_refused_recipients_and_those_accepted_stay_apart(relay):  # P15, S38
    one = await relay(STRANGER)
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<x@ours.example>")).code == 250
    denied = await client.command("RCPT TO:<x@other.example>")
    assert denied.lines == ("554 5.7.1 <x@other.example>: Relay access denied",)
    await client.command("DATA")
    assert (await client.command("x\r\n.")).code == 250
    assert [recipient.address for recipient in one.queue.messages[0].recipients] == ["x@ours.example"]
    assert [(r["recipient"], r["rule"], r["reply"].code) for r in one.queue.refusals] == [
        ("x@other.example", "default", 554)
    ]
    assert one.told("refused")[0]["rule"] == "default"


async def test_postmaster_without_a_domain(relay):  # S18
    toml = STRANGER.replace("[access]", '[mail]\npostmaster = "root@ours.example"\n[access]')
    one = await relay(toml)
    client = await one.in_data(recipient="POSTMASTER")
    assert (await client.command(".")).code == 250
    assert one.queue.messages[0].recipients[0].address == "root@ours.example"


async def test_same_mailbox_twice_is_kept_once(relay):
    one = await relay()
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    for address in ("c@d.example", '"c"@D.example', "C@d.example"):  # S15: the local part's case counts
        assert (await client.command(f"RCPT TO:<{address}>")).code == 250
    await client.command("DATA")
    await client.command(".")
    message = one.queue.messages[0]
    assert [(r.ordinal, r.address) for r in message.recipients] == [(1, "c@d.example"), (2, "C@d.example")]


async def test_recipients_over_the_limit_are_for_another_transaction(relay):  # S27
    one = await relay(TOML + "[limits]\nrecipients = 100\n")
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    for n in range(100):
        assert (await client.command(f"RCPT TO:<r{n}@d.example>")).code == 250
    assert (await client.command("RCPT TO:<r100@d.example>")).text.startswith("452 4.5.3")
    assert (await client.command("RCPT TO:<r0@d.example>")).code == 250
    await client.command("DATA")
    await client.command(".")
    assert len(one.queue.messages[0].recipients) == 100
    assert not one.queue.refusals


@pytest.mark.parametrize("reset", ["RSET", "EHLO again.test", "HELO again.test"])
async def test_reset_forgets_the_transaction(relay, reset):  # S07, S12
    client = await (await relay()).session()
    await client.command("MAIL FROM:<a@b.example>")
    await client.command("RCPT TO:<c@d.example>")
    assert (await client.command(reset)).code == 250
    assert (await client.command("DATA")).code == 503
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_quit_closes_and_nothing_behind_it_runs(relay):  # S13
    one = await relay()
    client = await one.session()
    await client.send(b"QUIT\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n")
    assert (await client.reply()).text == "221 2.0.0 Bye"
    assert await client.reader.read() == b""
    assert not one.queue.messages


async def test_disk_short_is_said_at_mail(relay):  # R07, X01
    one = await relay()
    one.queue.full = SmtpError(452, "4.3.1", "Insufficient system storage, try again later", "free-disk")
    client = await one.session()
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("452 4.3.1")
    one.queue.full = None
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_pipelined_replies_leave_in_order_and_together(relay):  # X05
    one = await relay()
    client = await one.client()
    await client.send(b"EHLO client.test\r\n")
    await client.reply()
    await client.send(
        b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bad>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n"
    )
    whole = await client.reader.read(65536)
    assert [line[:3] for line in whole.split(b"\r\n")] == [b"250", b"501", b"250", b"250", b"354", b""]


async def test_whole_session_in_one_packet(relay):
    one = await relay()
    client = await one.client()
    mail = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: %d\r\n\r\nx\r\n.\r\n"
    await client.send(b"EHLO c.test\r\n" + b"".join(mail % n for n in range(50)) + b"QUIT\r\n")
    codes = [(await client.reply()).code for _ in range(1 + 50 * 4 + 1)]
    assert codes == [250] + [250, 250, 354, 250] * 50 + [221]
    assert [message.envelope.subject for message in one.queue.messages] == [str(n) for n in range(50)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r", b"\n\n"])
async def test_only_crlf_ends_a_command(relay, end):  # M01, M08
    one = await relay()
    client = await one.client()
    await client.send(b"EHLO c.test" + end + b"MAIL FROM:<a@b.example>" + end + b"NOOP\r\n")
    assert (await client.reply()).text.startswith("500 5.5.2")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 503


async def test_nul_in_a_command(relay):  # M10
    client = await (await relay()).session()
    await client.send(b"MAIL FROM:<a@b.example>\0\r\n")
    assert (await client.reply()).text.startswith("500 5.5.2")


async def test_long_commands_work_up_to_the_limit(relay):  # S26
    client = await (await relay()).session()
    line = b"NOOP " + b"x" * (COMMAND_LIMIT - 7)
    await client.send(line + b"\r\n")
    assert (await client.reply()).code == 250
    await client.send(line + b"x\r\nNOOP\r\n")
    assert (await client.reply()).text.startswith("500 5.5.2")
    assert (await client.reply()).code == 250


@pytest.mark.parametrize("size", [COMMAND_LIMIT, 5000, 200_000])
async def test_over_long_command_is_one_error_and_its_tail_no_command(relay, size):  # R01
    one = await relay()
    client = await one.session()
    half = b"MAIL FROM:<" + b"x" * (size // 2)
    await client.send(half)
    await client.send(b"NOOP\nx" * (size // 12))
    await client.send(b"\r\nNOOP\r\n")
    assert (await client.reply()).text.startswith("500 5.5.2")
    assert (await client.reply()).text.startswith("250")
    assert all(len(session._input) < COMMAND_LIMIT for session in one.intake.sessions)


async def test_endless_command_is_cut(relay):  # R01
    client = await (await relay()).session()
    for _ in range(20):
        await client.send(b"x" * 65536)
    assert (await client.reply()).text.startswith("500 5.5.2")
    assert await client.reader.read() == b""


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "CONNECT a:25 HTTP/1.1", "Host: relay"])
async def test_http_is_sent_away(relay, line):  # M13
    one = await relay()
    client = await one.client()
    await client.send(line.encode() + b"\r\nEHLO x\r\nMAIL FROM:<a@b.example>\r\n")
    assert (await client.reply()).code == 521
    assert await client.reader.read() == b""


async def test_too_many_errors(relay):  # R02
    client = await (await relay()).session()
    for _ in range(ERROR_LIMIT):
        assert (await client.command("FROB")).code == 500
    assert (await client.command("NOOP")).text.startswith("421 4.7.0")
    assert await client.reader.read() == b""


async def test_a_message_forgives_errors(relay):
    one = await relay()
    client = await one.session()
    for _ in range(3):
        for _ in range(ERROR_LIMIT - 1):
            assert (await client.command("FROB")).code == 500
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "."):
            assert (await client.command(command)).code in (250, 354)
    assert len(one.queue.messages) == 3


async def test_reply_lines_are_bounded_and_clean(relay):  # S02, S03
    client = await (await relay(STRANGER)).session()
    await client.command("MAIL FROM:<a@b.example>")
    local, domain = "l" * 64, ".".join(["d" * 60] * 3)
    answer = await client.command(f"RCPT TO:<{local}@{domain}>")
    assert answer.text == f"554 5.7.1 <{local}@{domain}>: Relay access denied"
    assert len((await client.command("EHLO " + "x" * 255)).lines[0]) < 510


async def test_submission_requires_authentication(relay):  # U09
    one = await relay()
    one.intake._doors[0].demands_auth = True
    client = await one.session()
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("530 5.7.0")
