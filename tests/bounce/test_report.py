"""Reports of failed delivery, read back with the standard library's parser (standards N01-N17)."""

import gc
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.bounce.report import compose
from mailtui.bounce.returned import HEADER_LIMIT
from mailtui.ids import encode, rid
from mailtui.model import Message, Outcome, Verdict
from tests.bounce.made import (
    HEADER,
    ID,
    NOW,
    ORIGINAL,
    blocks,
    check,
    envelope,
    failure,
    human,
    make,
    raw_parts,
    returned,
)


def test_the_header_of_a_report() -> None:
    report = make(failure())
    message = check(report)
    assert report is not None and report.recipient == "ann@a.example"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example>"
    assert message["To"] == "ann@a.example"
    assert message["Subject"] == "Undelivered mail returned to sender"
    assert message["Date"] == "Tue, 14 Nov 2023 22:23:20 +0000"
    assert message["Message-ID"] == "<01REPORT@relay.example>"
    assert message["References"] == "<m1@a.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert "Return-Path" not in message


def test_the_fields_of_a_report() -> None:
    assert blocks(make(failure("Bob.B@B.Example"))) == [
        {
            "Reporting-MTA": "dns; relay.example",
            "Received-From-MTA": "dns; a.example ([192.0.2.1])",
            "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
            "X-Mailtui-Queue-ID": encode(ID),
        },
        {
            "Final-Recipient": "rfc822; Bob.B@B.Example",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.b.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
            "Last-Attempt-Date": "Tue, 14 Nov 2023 22:23:15 +0000",
            "Final-Log-ID": rid(ID, 1),
        },
    ]


def test_all_failures_of_one_go_are_in_one_report() -> None:
    read = blocks(make(failure("b@b.example"), failure("c@c.example", ordinal=2), failure("d@d.example", ordinal=9)))
    assert [block["Final-Recipient"] for block in read[1:]] == [f"rfc822; {x}@{x}.example" for x in "bcd"]
    assert [block["Final-Log-ID"] for block in read[1:]] == [rid(ID, 1), rid(ID, 2), rid(ID, 9)]


@pytest.mark.parametrize(
    ("changes", "status", "diagnostic"),
    [
        ({}, "5.1.1", "smtp; 550 5.1.1 no such user"),
        ({"enhanced": ""}, "5.0.0", "smtp; 550 no such user"),
        ({"reply": "5.1.1 no such user"}, "5.1.1", "smtp; 550 5.1.1 no such user"),
        ({"code": 452, "enhanced": "4.2.2"}, "5.2.2", "smtp; 452 4.2.2 no such user"),  # a reply rule gave up
        ({"enhanced": "2.1.5"}, "5.1.5", "smtp; 550 2.1.5 no such user"),
        ({"enhanced": "5.1"}, "5.0.0", "smtp; 550 5.1 no such user"),
        ({"remote": False, "code": 556, "enhanced": "5.1.10"}, "5.1.10", None),
        ({"remote": False, "code": 0, "enhanced": ""}, "5.0.0", None),
        ({"expired": True, "code": 451, "enhanced": "4.7.1"}, "4.7.1", "smtp; 451 4.7.1 no such user"),
        ({"expired": True, "code": 451, "enhanced": ""}, "4.4.7", "smtp; 451 no such user"),
        ({"expired": True, "code": 450, "enhanced": "4.4.1", "remote": False}, "4.4.7", None),
        ({"expired": True, "code": 554, "enhanced": "5.4.7", "remote": False}, "4.4.7", None),
    ],
)
def test_status_and_diagnostic_of_each_kind_of_reply(
    changes: dict[str, Any], status: str, diagnostic: str | None
) -> None:
    block = blocks(make(failure(**changes)))[1]
    assert (block["Action"], block["Status"], block.get("Diagnostic-Code")) == ("failed", status, diagnostic)
    assert ("Remote-MTA" in block) == (diagnostic is not None)


def test_a_next_hop_without_a_name_is_named_by_its_address() -> None:
    assert blocks(make(failure(host="")))[1]["Remote-MTA"] == "dns; [203.0.113.5]"


def test_without_an_attempt_there_is_no_date_of_one() -> None:
    assert "Last-Attempt-Date" not in blocks(make(failure(finished=0.0, remote=False)))[1]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("", None),
        ("QQ314159", "QQ314159"),
        ("Case+2BPlus+3Dx", "Case+Plus=x"),
        ("a+0D+0AReporting-MTA:+20dns;+20evil", "a Reporting-MTA: dns; evil"),
        ("a+00+1B+7F+E9b", "a????b"),
    ],
)
def test_the_envelope_id_is_decoded_and_only_there_if_given(given: str, field: str | None) -> None:
    assert blocks(make(failure(), envid=given))[0].get("Original-Envelope-Id") == field


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("", None),
        ("rfc822;Bob@C.example", "rfc822; Bob@C.example"),
        ("rfc822;bob+2Btag@c.example", "rfc822; bob+tag@c.example"),
        ("rfc822;x+0D+0AAction:+20delivered", "rfc822; x Action: delivered"),
        ("utf-8;j\\x{F6}rg@c.example", "utf-8; j\\x{F6}rg@c.example"),
        ("utf-8;jörg@c.example", "utf-8; j\\x{F6}rg@c.example"),
        ("nonsense", None),
        ("a b;c", None),
        ("x\r\ny;c", None),
    ],
)
def test_the_original_recipient_is_only_there_if_given(given: str, field: str | None) -> None:
    assert blocks(make(failure(orcpt=given)))[1].get("Original-Recipient") == field


@pytest.mark.parametrize(
    ("client", "helo", "field"),
    [
        ("", "", None),
        ("192.0.2.1", "", "dns; [192.0.2.1] ([192.0.2.1])"),
        ("192.0.2.1", "x(y);z w\r\nAction: delivered", "dns; x?y??z?w?Action:?delivered ([192.0.2.1])"),
    ],
)
def test_the_client_is_named(client: str, helo: str, field: str | None) -> None:
    assert blocks(make(failure(), client=client, helo=helo))[0].get("Received-From-MTA") == field


@pytest.mark.parametrize(
    "reply",
    [
        "x\r\nFinal-Recipient: rfc822; forged@x.example",
        "x\r\n\r\nFinal-Recipient: rfc822; forged@x.example\r\nAction: delivered",
        "x\nStatus: 2.0.0",
        "x\rStatus: 2.0.0",
        "x\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029Status: 2.0.0",
        "\x1b]0;title\x07\x1b[2Jx\x00",
        "x " * 3000,
        "x" * 5000,
        "x" + " " * 3000 + "y",
        "\r\n" * 2000,
        "\u202euser unknown äöü \ud800",
        "--=_boundary--",
        "",
        " ",
        ".",
        "=?utf-8?q?=0D=0AStatus:_2.0.0?=",
    ],
)
def test_a_hostile_reply_changes_nothing_but_its_own_field(reply: str) -> None:
    plain, hostile = (blocks(make(failure(reply=text), failure("c@c.example"))) for text in ("no", reply))
    for block in (*plain, *hostile):
        block.pop("Diagnostic-Code", None)
    assert hostile == plain


@pytest.mark.parametrize("reply", ["word " * 500 + "end", "two  blanks   stay", "a" * 850 + " b"])
def test_a_long_reply_is_folded_without_a_change(reply: str) -> None:
    report = make(failure(reply=reply))
    assert blocks(report)[1]["Diagnostic-Code"] == f"smtp; 550 5.1.1 {reply}"
    assert report is not None
    lines = raw_parts(report)[1].split(b"\r\n")
    assert all(len(line) <= 78 or b" " not in line.lstrip() for line in lines)
    assert all(line.strip() or not line for line in lines)


def test_the_text_says_who_what_what_next_and_whom_to_ask() -> None:
    text = human(make(failure(), failure("c@c.example", remote=False, reply="c.example does not exist", code=0)))
    assert text.startswith('This is the mail relay relay.example. Your message, "hello", could not be delivered to the')
    assert "<bob@b.example> mx.b.example [203.0.113.5] said: 550 5.1.1 no such user" in text
    assert "<c@c.example> 5.1.1 c.example does not exist" in text
    assert "What happens next It will not be tried again for those to whom it could not be delivered." in text
    assert text.endswith(f"If you need help, write to postmaster@relay.example and name the queue id {encode(ID)}.")


def test_the_text_tells_how_often_it_was_tried() -> None:
    text = human(make(failure(expired=True, attempts=17, code=451, enhanced="4.7.1", reply="later")))
    assert "Given up after 17 attempts. The last one ended so: mx.b.example [203.0.113.5] said: 451 4.7.1 later" in text


def test_the_text_names_the_postmaster_who_is_configured() -> None:
    assert "write to help@relay.example and" in human(make(failure(), postmaster="help@relay.example"))


@pytest.mark.parametrize("notify", ["NEVER", "never", "SUCCESS", "DELAY", "SUCCESS,DELAY"])
def test_a_recipient_who_asked_for_no_report_is_not_in_one(notify: str) -> None:
    assert make(failure(notify=notify)) is None
    read = blocks(make(failure("b@b.example", notify=notify), failure("c@c.example")))
    assert [block["Final-Recipient"] for block in read[1:]] == ["rfc822; c@c.example"]


@pytest.mark.parametrize("notify", ["", "FAILURE", "failure", "SUCCESS,FAILURE", "DELAY,FAILURE"])
def test_a_recipient_who_asked_for_failures_is_in_the_report(notify: str) -> None:
    assert len(blocks(make(failure(notify=notify)))) == 2


def test_a_report_is_never_answered() -> None:
    assert make(failure(), sender="") is None
    assert make(sender="ann@a.example") is None


def test_a_double_bounce_goes_to_the_postmaster() -> None:
    report = make(failure(), sender="", postmaster="pm@relay.example")
    message = check(report)
    assert report is not None and report.recipient == "pm@relay.example"
    assert message["To"] == "pm@relay.example"
    assert message["Subject"] == "Postmaster notice: undeliverable report (double bounce)"
    assert "itself a report as a rule" in human(report)


@pytest.mark.parametrize("address", ["pm@relay.example", "PM@Relay.Example", "postmaster", "Postmaster"])
def test_no_report_tells_the_postmaster_that_the_postmaster_cannot_be_reached(address: str) -> None:
    assert make(failure(address), sender="", postmaster="pm@relay.example") is None
    both = blocks(make(failure(address), failure("c@c.example"), sender="", postmaster="pm@relay.example"))
    assert [block["Final-Recipient"] for block in both[1:]] == ["rfc822; c@c.example"]


def test_the_postmaster_as_a_sender_gets_reports() -> None:
    assert make(failure("pm@relay.example"), sender="pm@relay.example", postmaster="pm@relay.example") is not None


@pytest.mark.parametrize(
    ("changes", "kind", "whole"),
    [
        ({}, "message/rfc822", True),
        ({"ret": "FULL"}, "message/rfc822", True),
        ({"ret": "HDRS"}, "text/rfc822-headers", False),
        ({"ret": "hdrs"}, "text/rfc822-headers", False),
        ({"limit": len(ORIGINAL)}, "message/rfc822", True),
        ({"limit": len(ORIGINAL) - 1}, "text/rfc822-headers", False),
        ({"limit": 0}, "text/rfc822-headers", False),
        ({"size": len(ORIGINAL) + 1}, "text/rfc822-headers", False),  # only its beginning was read
        ({"size": 10**9}, "text/rfc822-headers", False),
        ({"requiretls": True}, "text/rfc822-headers", False),
        ({"smtputf8": True}, "message/global", True),
        ({"smtputf8": True, "ret": "HDRS"}, "message/global-headers", False),
    ],
)
def test_what_of_the_message_is_returned(changes: dict[str, Any], kind: str, whole: bool) -> None:
    assert returned(make(failure(), **changes)) == (kind, ORIGINAL if whole else HEADER)


def test_only_the_header_section_may_be_at_hand() -> None:
    assert returned(make(failure(), original=HEADER, size=10**6)) == ("text/rfc822-headers", HEADER)
    assert returned(make(failure(), original=HEADER + b"\r\n", size=10**6)) == ("text/rfc822-headers", HEADER)


def test_a_huge_header_is_cut_at_a_line() -> None:
    header = b"X: y\r\n" * 20_000
    kind, content = returned(make(failure(), original=header + b"\r\nbody\r\n", limit=1000))
    assert kind == "text/rfc822-headers"
    assert header.startswith(content) and HEADER_LIMIT - 6 < len(content) <= HEADER_LIMIT
    assert content.endswith(b"X: y\r\n")


@pytest.mark.parametrize("original", [b"X: " + b"y" * 200_000 + b"\r\n", b"X:" + b" y" * 1000 + b"\r\n\r\nbody\r\n"])
def test_overlong_header_lines_are_folded(original: bytes) -> None:
    _, content = returned(make(failure(), original=original, limit=10**6))
    unfolded = content.replace(b"\r\n ", b"")
    assert original.startswith(unfolded.removesuffix(b"\r\n"))
    assert len(unfolded) > 1900


def test_a_message_with_overlong_lines_is_not_returned_as_a_whole() -> None:
    assert returned(make(failure(), original=HEADER + b"\r\n" + b"y" * 999 + b"\r\n"))[0] == "text/rfc822-headers"
    assert returned(make(failure(), original=HEADER + b"\r\n" + b"y" * 998 + b"\r\n"))[0] == "message/rfc822"


def test_the_octets_of_an_8_bit_message_are_kept_and_flagged() -> None:
    original = b"Subject: gr\xfc\xdfe\r\n\r\ns\xc3\xbc\xff \x80\r\n"
    for changes in ({}, {"ret": "HDRS"}):
        report = make(failure(), original=original, **changes)
        message = check(report)
        assert report is not None and report.eight_bit
        assert message["Content-Transfer-Encoding"] == "8bit"
        assert list(message.iter_parts())[2]["Content-Transfer-Encoding"] == "8bit"
        assert raw_parts(report)[2] == (
            original if changes.get("ret") != "HDRS" else original.partition(b"\r\n")[0] + b"\r\n"
        )


def test_a_report_that_8_bit_content_had_no_way_is_7_bit_itself() -> None:
    refused = replace(failure(), verdict=Verdict(Outcome.BOUNCED, 554, "5.6.3", "no 8BITMIME there", rule="8bitmime"))
    original = "Received: x\r\nSubject: gr\u00fc\u00dfe\r\n\r\ngr\u00fc\u00dfe\r\n".encode()
    report = make(refused, original=original, eight_bit=True)
    assert report is not None and not report.eight_bit and report.content.isascii()
    kind, content = returned(report)
    assert kind == "text/rfc822-headers" and "Subject: gr" in content.decode("ascii")


def test_a_7_bit_message_makes_a_7_bit_report() -> None:
    report = make(failure())
    assert report is not None and not report.eight_bit
    assert check(report)["Content-Transfer-Encoding"] == "7bit"


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (b"X: y\r\n\r\na\nb\rc\r\n", b"X: y\r\n\r\na\r\nb\r\nc\r\n"),
        (b"X: y\r\n\r\na\n.\nb\r\r\n.\r\nc", b"X: y\r\n\r\na\r\n.\r\nb\r\n\r\n.\r\nc\r\n"),
        (b"X: y\r\n\r\n\0.\0\r\n", b"X: y\r\n\r\n?.?\r\n"),
        (b"X: y\n\nbody\n", b"X: y\r\n\r\nbody\r\n"),
        (b"", b"\r\n"),
        (b"\r\nbody\r\n", b"\r\nbody\r\n"),
    ],
)
def test_no_stray_line_end_leaves_in_a_returned_message(original: bytes, expected: bytes) -> None:
    assert returned(make(failure(), original=original)) == ("message/rfc822", expected)


def test_a_message_cannot_end_its_part() -> None:
    first = make(failure())
    assert first is not None
    boundary = re.search(rb'boundary="([^"]+)"', first.content)
    assert boundary is not None
    line = b"\r\n--" + boundary[1]
    original = b"X: y" + line + b"--\r\n\r\n" + line + b"\r\n\r\nforged" + line + b"--\r\n"
    second = make(failure(), original=original)
    assert returned(second) == ("message/rfc822", original)
    assert second is not None and boundary[1] not in second.content.split(b"\r\n\r\n")[0]


def test_an_unfinished_multipart_inside_stays_inside() -> None:
    original = b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n--x'
    assert returned(make(failure(), original=original + b"\r\n"))[1] == original + b"\r\n"


@pytest.mark.parametrize(
    ("address", "field", "text"),
    [
        ('"a b; c"@b.example', 'rfc822; "a b; c"@b.example', '<"a b; c"@b.example>'),
        ("bob@[192.0.2.9]", "rfc822; bob@[192.0.2.9]", "<bob@[192.0.2.9]>"),
        # N17: outside SMTPUTF8 in the form for 7 bits (RFC 6533 section 3)
        ("jörg@b.example", "utf-8; j\\x{F6}rg@b.example", "<j?rg@b.example>"),
        ("a+b=c\\ü@b.example", "utf-8; a\\x{2B}b\\x{3D}c\\x{5C}\\x{FC}@b.example", "<a+b=c\\?@b.example>"),
    ],
)
def test_recipients_of_every_form(address: str, field: str, text: str) -> None:
    report = make(failure(address))
    assert blocks(report)[1]["Final-Recipient"] == field
    assert text in human(report)


def test_a_quoted_sender_stays_quoted() -> None:
    report = make(failure(), sender='"ann, b <x>"@a.example')
    assert report is not None
    check(report)
    assert b'\r\nTo: <"ann, b <x>"@a.example>\r\n' in report.content


@pytest.mark.parametrize(
    ("given", "references"),
    [
        ("", None),
        ("m1@a.example", "<m1@a.example>"),
        (" <m1@a.example> ", "<m1@a.example>"),
        ("<m1@a.example> <m2@a.example>", None),
        ("<m1\r\nBcc: x@y>", None),
        ("<" + "m" * 300 + "@a.example>", None),
        ("<mü@a.example>", None),
    ],
)
def test_the_message_is_referred_to_by_an_id_that_can_be_one(given: str, references: str | None) -> None:
    assert check(make(failure(), message_id=given)).get("References") == references


def test_a_hostile_subject_stays_in_its_sentence() -> None:
    text = human(make(failure(), subject="x\r\n\r\n--y\x1b[2J" + "z" * 5000))
    assert 'Your message, "x --y?[2Jzzz' in text
    assert len(text) < 1500


def test_a_long_host_name_keeps_its_form() -> None:
    name = ".".join(["a" * 60] * 4) + ".example"
    message = Message(ID, envelope(), [], None)
    report = compose(
        message, [failure()], ORIGINAL, hostname=name, postmaster="", return_limit=9999, now=NOW, report_id="R"
    )
    read = check(report)
    assert read["Message-ID"] == f"<R@{name}>"
    assert read["From"].addresses[0].addr_spec == f"MAILER-DAEMON@{name}"
    assert blocks(report)[0]["Reporting-MTA"] == f"dns; {name}"


anything = st.text(max_size=80) | st.sampled_from(["\r\n", "\r\n\r\n--=_", "a" * 1200, "ü\x00", "\u2028", "+0D+0A"])


@given(reply=anything, address=anything, orcpt=anything, host=anything, original=st.binary(max_size=300), text=anything)
def test_no_text_from_outside_adds_a_field_or_a_part(
    reply: str, address: str, orcpt: str, host: str, original: bytes, text: str
) -> None:
    report = make(
        failure(address, reply=reply, orcpt=orcpt, host=host, enhanced=text),
        original=original,
        sender=text + "x",
        subject=text,
        helo=text,
        client=host,
        envid=orcpt,
        message_id=text,
    )
    read = blocks(report)
    assert len(read) == 2
    assert set(read[1]) <= {"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA"} | {
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Final-Log-ID",
    }
    assert read[1]["Action"] == "failed"
    assert set(check(report).keys()) <= {"From", "To", "Subject", "Date", "Message-ID", "References"} | {
        "MIME-Version",
        "Auto-Submitted",
        "Content-Type",
        "Content-Transfer-Encoding",
    }


def test_a_report_leaves_nothing_to_the_garbage_collector() -> None:
    """Thousands in a row would make it stop the relay for a long moment."""
    assert make(failure()) is not None
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            make(failure())
        assert gc.collect() == 0
    finally:
        gc.enable()
