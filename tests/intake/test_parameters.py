"""The parameters of MAIL and RCPT, and what a session makes of them. S, X and N numbers: the project's list of
requirements."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.bounce.text import decode_xtext
from mailtui.intake.parameters import (
    ENVID_LIMIT,
    NONE,
    ORCPT_LIMIT,
    MailParameters,
    RcptParameters,
    mail_parameters,
    rcpt_parameters,
)
from mailtui.model import SmtpError
from tests.intake.conftest import STRANGER

LIMIT = 1000
PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
# Of most kinds of what may stand where a character of xtext is expected.
NEARLY_XTEXT = st.lists(
    st.one_of(
        st.sampled_from(
            ["+", "=", "+2B", "+2b", "+0A", "+7F", "+80", "+4", "\\x{2B}", "\\x{A}", "\\x{D800}", ";", " "]
        ),
        st.characters(max_codepoint=0x180),
    ),
    max_size=12,
).map("".join)


def xtext(text: str) -> str:
    """RFC 3461 section 4, written down once more."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def code_of(raw: str, *, rcpt: bool = False, utf8: bool = False) -> int:
    """The code of the refusal; 250 if the parameters are taken."""
    try:
        if rcpt:
            rcpt_parameters(raw.encode("utf-8", "surrogateescape"), utf8=utf8)
        else:
            mail_parameters(raw.encode("utf-8", "surrogateescape"), LIMIT)
    except SmtpError as error:
        return error.reply.code
    return 250


def test_what_mail_says_is_kept_as_given():  # S16
    assert mail_parameters(b"SIZE=10 BODY=8BITMIME", LIMIT) is NONE
    assert mail_parameters(b"smtputf8", LIMIT) == MailParameters(smtputf8=True)
    # RFC 3461 section 10: the ENVID of its example, whose case means something.
    assert mail_parameters(b"RET=hdrs envid=QQ+3D3aBz", LIMIT) == MailParameters(False, "HDRS", "QQ+3D3aBz")


def test_what_rcpt_says_is_kept_as_given():
    assert rcpt_parameters(b"NOTIFY=success,delay ORCPT=RFC822;Bob+2Bx@Example.COM", utf8=False) == RcptParameters(
        "SUCCESS,DELAY", "RFC822;Bob+2Bx@Example.COM"
    )
    assert rcpt_parameters(b"", utf8=False) == RcptParameters()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("RET=FULL", 250),
        ("RET=BODY", 501),
        ("RET", 501),
        ("RET=FULL RET=FULL", 501),
        ("ret=FULL Ret=HDRS", 501),
        ("ENVID=" + "x" * ENVID_LIMIT, 250),
        ("ENVID=" + "x" * (ENVID_LIMIT + 1), 501),
        ("ENVID=", 501),
        ("ENVID", 501),
        ("ENVID=a+2Bb+20c", 250),
        ("ENVID=a+2bb", 501),  # upper case only
        ("ENVID=a+2", 501),
        ("ENVID=a+", 501),
        ("ENVID=a=b", 501),
        ("ENVID=a+0D+0Ab", 501),  # a line end, once it is decoded
        ("ENVID=a+7F", 501),
        ("ENVID=a+FC", 501),
        ("ENVID=a ENVID=a", 501),
        ("SMTPUTF8", 250),
        ("SMTPUTF8=", 501),
        ("SMTPUTF8=yes", 501),
        ("SMTPUTF8 SMTPUTF8", 501),
        ("SIZE=1001", 552),
        ("NOTIFY=NEVER", 555),  # S16: it is one of RCPT
        ("FROB", 555),
        ("FROB FROB", 501),
        ("=", 501),
    ],
)
def test_parameters_of_mail(raw, code):  # N12, S16, X15
    assert code_of(raw) == code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("NOTIFY=NEVER", 250),
        ("NOTIFY=SUCCESS,FAILURE,DELAY", 250),
        ("NOTIFY=DELAY", 250),
        ("NOTIFY=NEVER,FAILURE", 501),
        ("NOTIFY=NEVER,NEVER", 501),
        ("NOTIFY=FAILURE,FAILURE", 501),
        ("NOTIFY=FAILURE,", 501),
        ("NOTIFY=ALWAYS", 501),
        ("NOTIFY", 501),
        ("NOTIFY=NEVER NOTIFY=NEVER", 501),
        ("ORCPT=rfc822;bob@example.com", 250),
        ("ORCPT=x400;/C=DE/", 501),  # `=` must be +3D
        ("ORCPT=x400;/C+3DDE/", 250),
        ("ORCPT=bob@example.com", 501),
        ("ORCPT=;bob@example.com", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc(822);bob@example.com", 501),
        ("ORCPT=rfc822;b+0Ab", 501),
        ("ORCPT=rfc822;" + "x" * (ORCPT_LIMIT - 7), 250),
        ("ORCPT=rfc822;" + "x" * (ORCPT_LIMIT - 6), 501),
        ("ORCPT=rfc822;gr\u00fcn@example.com", 501),
        ("ORCPT=utf-8;gr\\x{FC}n\\x{2B}x@example.com", 250),  # X18: RFC 6533, its form for servers without SMTPUTF8
        ("ORCPT=utf-8;\\x{10FFFF}\\x{1F600}\\x{65E5}@example.com", 250),
        ("ORCPT=utf-8;a+2Bb@example.com", 501),  # no xtext in this type
        ("ORCPT=utf-8;gr\u00fcn@example.com", 501),  # as it is only with SMTPUTF8
        ("ORCPT=utf-8;\\x{A}@example.com", 501),
        ("ORCPT=utf-8;\\x{0A}@example.com", 501),
        ("ORCPT=utf-8;\\x{41}@example.com", 501),
        ("ORCPT=utf-8;\\x{D800}@example.com", 501),
        ("ORCPT=utf-8;\\x{110000}@example.com", 501),
        ("ORCPT=utf-8;a\\b@example.com", 501),
        ("RET=FULL", 555),
        ("FROB=1", 555),
    ],
)
def test_parameters_of_rcpt(raw, code):  # N12, S16
    assert code_of(raw, rcpt=True) == code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("ORCPT=utf-8;gr\u00fcn@m\u00fcnchen.example", 250),
        ("ORCPT=UTF-8;gr\u00fcn+x@example.com", 501),
        ("ORCPT=utf-8;gr\udcfcn@example.com", 501),  # no UTF-8
        ("ORCPT=utf-8;gr\udcc0\udcafn@example.com", 501),  # S23: an overlong form
        ("ORCPT=utf-8;gr\x85n@example.com", 501),
        ("ORCPT=utf-8;gr\u2028n@example.com", 501),
        ("ORCPT=rfc822;gr\u00fcn@example.com", 501),
        ("NOTIFY=n\u00e9ver", 501),
        ("ORCPT=utf-8;" + "\u00fc" * 248, 501),  # 502 octets
    ],
)
def test_parameters_of_rcpt_with_smtputf8(raw, code):  # X18
    assert code_of(raw, rcpt=True, utf8=True) == code


@given(st.text(PRINTABLE, min_size=1, max_size=40))
def test_xtext_goes_through_as_it_is_and_stands_for_the_same(text):  # N12
    if len(xtext(text)) <= ENVID_LIMIT:
        envid = mail_parameters(b"ENVID=" + xtext(text).encode(), LIMIT).envid
        assert (envid, decode_xtext(envid)) == (xtext(text), text)
    orcpt = rcpt_parameters(b"ORCPT=rfc822;" + xtext(text).encode(), utf8=False).orcpt
    assert decode_xtext(orcpt.removeprefix("rfc822;")) == text


@given(NEARLY_XTEXT, st.booleans(), st.sampled_from(["rfc822;", "utf-8;", "UTF-8;", ""]))
def test_nothing_is_taken_that_could_leave_its_line(text, utf8, kind):
    taken = []
    for function, raw in (
        (lambda raw: mail_parameters(raw, LIMIT).envid, f"ENVID={text}"),
        (lambda raw: rcpt_parameters(raw, utf8=utf8).orcpt, f"ORCPT={kind}{text}"),
        (lambda raw: rcpt_parameters(raw, utf8=utf8).notify, f"NOTIFY={text}"),
    ):
        try:
            taken.append(function(raw.encode("utf-8", "surrogateescape")))
        except SmtpError as error:
            assert error.reply.code in (501, 555)
    for value in taken:
        meant = decode_xtext(value)
        if value.startswith(("utf-8;", "UTF-8;")):
            meant = re.sub(r"\\x\{(\w+)\}", lambda found: chr(int(found[1], 16)), value)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", value + meant), value
        assert " " not in value
        assert utf8 or value.isascii()


@given(st.binary(max_size=60), st.booleans())
def test_any_octets_are_taken_or_refused(raw, utf8):
    for function in (lambda: mail_parameters(raw, LIMIT), lambda: rcpt_parameters(raw, utf8=utf8)):
        try:
            function()
        except SmtpError as error:
            assert error.reply.code in (501, 552, 555)
            assert "\n" not in error.reply.text


# -- in a session ----------------------------------------------------------------------------------------------------


async def deliver(client, *commands, content=b"Subject: x\r\n\r\nx\r\n"):
    """These commands, DATA and the content."""
    for command in commands:
        answer = await client.command(command)
        assert answer.code == 250, (command, answer)
    assert (await client.command("DATA")).code == 354
    await client.send(content + b".\r\n")
    answer = await client.reply()
    assert answer.code == 250, answer


async def test_what_a_client_asks_is_kept_with_the_message(relay):  # N10, N11
    one = await relay()
    client = await one.session()
    await deliver(
        client,
        "MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314159",
        "RCPT TO:<one@d.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;uno@old.example",
        "RCPT TO:<two@d.example>",
        "RCPT TO:<three@d.example> NOTIFY=NEVER",
        "RCPT TO:<one@D.example> NOTIFY=NEVER",  # the mailbox has been given: what was asked first stands
    )
    [message] = one.queue.messages
    assert (message.envelope.ret, message.envelope.envid, message.envelope.smtputf8) == ("HDRS", "QQ314159", False)
    assert [(r.address, r.notify, r.orcpt) for r in message.recipients] == [
        ("one@d.example", "SUCCESS,FAILURE", "rfc822;uno@old.example"),
        ("two@d.example", "", ""),
        ("three@d.example", "NEVER", ""),
    ]
    await deliver(client, "MAIL FROM:<a@b.example>", "RCPT TO:<one@d.example>")
    message = one.queue.messages[1]
    assert (message.envelope.ret, message.envelope.envid, message.recipients[0].notify) == ("", "", "")


async def test_what_was_asked_for_a_refused_recipient_is_forgotten(relay):
    one = await relay(STRANGER)
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@theirs.example> NOTIFY=NEVER")).code == 554
    assert (await client.command("RCPT TO:<c@ours.example> NOTIFY=SOMETIMES")).code == 501
    await deliver(client, "RCPT TO:<c@ours.example> NOTIFY=DELAY")
    assert [(r.address, r.notify) for r in one.queue.messages[0].recipients] == [("c@ours.example", "DELAY")]


async def test_the_longest_parameters_of_dsn_work(relay):  # S26
    one = await relay()
    client = await one.session()
    local, domain = "l" * 64, ".".join(["d" * 61] * 3)
    envid, orcpt = "+2B" * 33 + "x", "rfc822;" + "+2B" * 164 + "x"
    assert (len(envid), len(orcpt)) == (ENVID_LIMIT, ORCPT_LIMIT)
    mail = f"MAIL FROM:<{local}@{domain}> SIZE=00000000000000000100 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID={envid}"
    rcpt = f"RCPT TO:<{local}@{domain}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={orcpt}"
    # 1036 octets with the line end, as section 5.4 of RFC 3461 wants them: blanks are no parameters.
    await deliver(client, mail.ljust(1034), rcpt.ljust(1034))
    [message] = one.queue.messages
    assert (message.envelope.envid, message.recipients[0].orcpt) == (envid, orcpt)


GREEN = "gr\u00fcn@m\u00fcnchen.example"


async def test_utf8_addresses_are_taken_from_a_client_that_asks(relay):  # X15
    one = await relay()
    client = await one.session()
    await deliver(
        client,
        f"MAIL FROM:<{GREEN}> BODY=8BITMIME SMTPUTF8",
        f"RCPT TO:<{GREEN}> ORCPT=utf-8;{GREEN}",
        "RCPT TO:<c@d.example>",
    )
    [message] = one.queue.messages
    assert message.envelope.sender == GREEN
    assert [(r.address, r.destination, r.orcpt) for r in message.recipients] == [
        (GREEN, "xn--mnchen-3ya.example", f"utf-8;{GREEN}"),  # X17: the name that is asked of DNS
        ("c@d.example", "d.example", ""),
    ]
    assert (message.envelope.smtputf8, message.envelope.utf8_header) == (True, False)
    assert message.envelope.protocol == "UTF8SMTP"
    assert b"with UTF8SMTP id " in message.body and message.body.isascii()


@pytest.mark.parametrize(
    "commands",
    [
        [f"MAIL FROM:<{GREEN}>"],
        ["MAIL FROM:<a@m\u00fcnchen.example> BODY=8BITMIME"],
        ["MAIL FROM:<a@b.example>", f"RCPT TO:<{GREEN}>"],
        [f"VRFY {GREEN}"],
    ],
)
async def test_utf8_addresses_are_refused_from_one_that_does_not(relay, commands):  # S23
    client = await (await relay()).session()
    *before, last = commands
    for command in before:
        assert (await client.command(command)).code == 250
    answer = await client.command(last)
    assert answer.text.startswith("553 5.6.7")
    assert answer.text.isascii()  # X17


async def test_vrfy_takes_a_utf8_address_from_a_client_that_asks(relay):  # X15
    client = await (await relay()).session()
    assert (await client.command(f"VRFY {GREEN} SMTPUTF8")).code == 252
    assert (await client.command("VRFY gr\udcfcn SMTPUTF8")).code == 501


async def test_replies_are_utf8_only_for_a_client_that_asked(relay):  # X17
    one = await relay(STRANGER)
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example> SMTPUTF8")
    assert (await client.command(f"RCPT TO:<{GREEN}>")).text == f"554 5.7.1 <{GREEN}>: Relay access denied"
    long = "\u65e5" * 21 + "@" + ".".join(["\u65e5" * 8] * 6) + ".example"
    assert (await client.command(f"RCPT TO:<{long}>")).text == f"554 5.7.1 <{long}>: Relay access denied"
    await client.command("RSET")
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command(f"RCPT TO:<{GREEN}>")).text.isascii()
    [session] = one.intake.sessions
    session.fail(550, "5.1.1", f"<{GREEN}>: whatever would say it")
    session.flush()
    assert (await client.reply()).text == "550 5.1.1 <gr\\xfcn@m\\xfcnchen.example>: whatever would say it"


@pytest.mark.parametrize(
    ("sender", "recipient", "content", "needs", "header"),
    [
        ("a@b.example", "c@d.example", b"Subject: x\r\n\r\nx\r\n", False, False),
        ("a@b.example", "c@d.example", "Subject: x\r\n\r\ngr\u00fcn\r\n".encode(), False, False),
        ("a@b.example", "c@d.example", "Subject: gr\u00fcn\r\n\r\nx\r\n".encode(), True, True),
        ("", "c@d.example", b"Subject: gr\xfcn\r\n\r\nx\r\n", True, True),  # not for us to judge
        ("a@m\u00fcnchen.example", "c@d.example", b"Subject: x\r\n\r\nx\r\n", True, False),
        ("a@b.example", "c@m\u00fcnchen.example", b"Subject: x\r\n\r\nx\r\n", True, False),
        ("a@b.example", "gr\u00fcn@d.example", b"Subject: x\r\n\r\nx\r\n", True, True),  # our Received line names it
    ],
)
async def test_a_message_is_one_with_smtputf8_only_if_it_needs_it(  # X16
    relay, sender, recipient, content, needs, header
):
    one = await relay()
    client = await one.session()
    await deliver(client, f"MAIL FROM:<{sender}> SMTPUTF8", f"RCPT TO:<{recipient}>", content=content)
    await deliver(client, "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", content=content)
    asked, other = one.queue.messages
    assert (asked.envelope.smtputf8, asked.envelope.utf8_header) == (needs, header)
    assert asked.envelope.eight_bit == (not asked.body.isascii())
    assert (other.envelope.smtputf8, other.envelope.protocol) == (False, "ESMTP")  # it did not ask
    assert one.queue.body(0) == one.queue.body(1) == content
    assert asked.envelope.subject == content.split(b"\r\n")[0].removeprefix(b"Subject: ").decode("utf-8", "replace")


async def test_a_spooled_message_knows_that_its_header_needs_smtputf8(relay):  # X16
    one = await relay()
    client = await one.session()
    content = "Subject: gr\u00fcn\r\n\r\n".encode() + b"x" * 70 + b"\r\n"
    content += (b"x" * 70 + b"\r\n") * 8000
    await deliver(client, "MAIL FROM:<a@b.example> SMTPUTF8", "RCPT TO:<c@d.example>", content=content)
    [message] = one.queue.messages
    assert message.body is None
    assert (message.envelope.smtputf8, message.envelope.utf8_header) == (True, True)


async def test_helo_and_smtputf8_is_utf8smtp_too(relay):  # T03
    one = await relay()
    client = await one.session("HELO client.test")
    await deliver(client, "MAIL FROM:<a@b.example> SMTPUTF8", "RCPT TO:<c@d.example>")
    assert one.queue.messages[0].envelope.protocol == "UTF8SMTP"
