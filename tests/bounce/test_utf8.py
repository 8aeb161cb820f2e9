"""Reports on mail with SMTPUTF8 (RFC 6533; standards N17, X18): in UTF-8 only for who cannot be reached otherwise."""

import email
import email.policy
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.model import Action
from tests.bounce.made import blocks, check, failure, human, make, raw_parts

GREETING = "Received: x\r\nFrom: <jörg@a.example>\r\nSubject: grüße\r\n\r\nhällo \r\n.\r\nüber\r\n".encode()


@pytest.mark.parametrize("sender", ["jörg@a.example", "用户@例子.example", "ü" * 60 + "@" + "x" * 60 + ".example"])
def test_a_sender_who_is_not_ascii_is_answered_in_utf8(sender: str) -> None:
    report = make(failure("用户@b.example", reply="kein Empfänger"), sender=sender, smtputf8=True, original=GREETING)
    message = check(report)
    assert report is not None and report.recipient == sender
    assert report.smtputf8 and report.eight_bit
    assert f"\r\nTo: <{sender}>\r\n".encode() in report.content
    assert message["Content-Transfer-Encoding"] == "8bit"
    kinds = [(part.get_content_type(), part["Content-Transfer-Encoding"]) for part in message.iter_parts()]
    assert kinds == [
        ("text/plain", "8bit"),
        ("message/global-delivery-status", "8bit"),
        ("message/global", "8bit"),
    ]
    text, status, original = raw_parts(report)
    assert "<用户@b.example>" in text.decode() and "kein Empfänger" in text.decode()
    assert "Final-Recipient: utf-8; 用户@b.example\r\n" in status.decode()
    assert "Diagnostic-Code: smtp; 550 5.1.1 kein Empfänger\r\n" in status.decode()
    assert original == GREETING


def test_the_fields_are_the_same_in_utf8() -> None:
    plain = blocks(make(failure(orcpt="utf-8;j\\x{F6}rg@c.example")))
    wide = blocks(make(failure(orcpt="utf-8;j\\x{F6}rg@c.example"), sender="jörg@a.example", smtputf8=True))
    assert wide == plain


def test_headers_alone_are_global_headers() -> None:
    report = make(failure(), sender="jörg@a.example", smtputf8=True, ret="HDRS", original=GREETING)
    kinds = [part.get_content_type() for part in check(report).iter_parts()]
    assert kinds[2] == "message/global-headers"
    assert raw_parts(report)[2] == GREETING[: GREETING.index(b"\r\n\r\n") + 2] if report else False


@pytest.mark.parametrize("sender", ["ann@a.example", "ann@exämple.org"])
@pytest.mark.parametrize(("ret", "kind"), [("FULL", "message/global"), ("HDRS", "message/global-headers")])
def test_who_can_be_reached_without_smtputf8_gets_seven_bits(sender: str, ret: str, kind: str) -> None:
    report = make(failure("用户@b.example"), sender=sender, smtputf8=True, eight_bit=True, ret=ret, original=GREETING)
    message = check(report)
    assert report is not None and report.content.isascii() and not report.smtputf8 and not report.eight_bit
    assert report.recipient in ("ann@a.example", "ann@xn--exmple-cua.org")
    text, status, original = message.iter_parts()
    assert text["Content-Transfer-Encoding"] == "quoted-printable"
    assert "<用户@b.example>" in text.get_content()
    assert status.get_content_type() == "message/delivery-status"
    assert blocks(report)[1]["Final-Recipient"] == "utf-8; \\x{7528}\\x{6237}@b.example"
    assert (original.get_content_type(), original["Content-Transfer-Encoding"]) == (kind, "quoted-printable")
    decoded = quopri.decodestring(raw_parts(report)[2])
    assert decoded == (GREETING if ret == "FULL" else GREETING[: GREETING.index(b"\r\n\r\n") + 2])
    assert max(map(len, raw_parts(report)[2].split(b"\r\n"))) <= 76


def test_what_needs_no_encoding_has_none() -> None:
    report = make(failure(), smtputf8=True)
    encodings = [part["Content-Transfer-Encoding"] for part in check(report).iter_parts()]
    assert encodings == ["7bit"] * 3
    assert "<bob@b.example>" in human(report)


def test_a_name_that_turns_the_text_around_does_not() -> None:
    report = make(failure("a\u202eb@b.example", reply="x\u2028y\x1b[2J"), sender="jörg@a.example", smtputf8=True)
    text, status, _ = raw_parts(report) if report else (b"", b"", b"")
    assert "<a?b@b.example>" in text.decode() and "x?y?[2J" in text.decode()
    assert "utf-8; a\\x{202E}b@b.example" in status.decode()


anything = st.text(max_size=60) | st.sampled_from(["\r\n", "\r\n\r\n--=_", "ü" * 1200, "ü\x00", "\u2028", "用" * 400])


@given(reply=anything, address=anything, orcpt=anything, original=st.binary(max_size=300), sender=st.text(max_size=40),
       action=st.sampled_from(list(Action)), subject=anything)  # fmt: skip
def test_no_text_in_utf8_adds_a_field_or_a_part(
    reply: str, address: str, orcpt: str, original: bytes, sender: str, action: Action, subject: str
) -> None:
    report = make(
        failure(address, reply=reply, orcpt=orcpt, action=action, notify="SUCCESS,FAILURE,DELAY"),
        original=original,
        sender="ü" + sender,
        subject=subject,
        smtputf8=True,
    )
    read = blocks(report)
    assert len(read) == 2
    assert read[1]["Action"] == action.value
    assert list(read[1]).count("Final-Recipient") == 1
    assert report is not None
    assert email.message_from_bytes(report.content, policy=email.policy.SMTPUTF8)["Bcc"] is None
