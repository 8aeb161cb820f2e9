"""Our Received field. T numbers: the project's list of requirements."""

from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st

from mailtui.clock import ManualClock
from mailtui.intake.received import DateCache, closing, opening, utf8_protocol

ID = b"06JM5E1N8QH4C"
DATE = b"Tue, 14 Nov 2023 22:13:20 +0000"


def field(helo="client.test", client="192.0.2.1", name="", host="relay.example.org", recipient="c@d.example") -> bytes:
    return opening(helo, client, name, host, "ESMTP") + ID + closing(recipient, DATE)


def test_field():
    assert field() == (
        b"Received: from client.test ([192.0.2.1])\r\n"
        b"\tby relay.example.org with ESMTP id 06JM5E1N8QH4C\r\n"
        b"\tfor <c@d.example>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_reverse_name_and_ipv6():  # T02
    assert field(client="2001:db8::1", name="mx.client.test").startswith(
        b"Received: from client.test (mx.client.test [IPv6:2001:db8::1])\r\n"
    )


def test_tls_is_told_in_a_comment():  # T07
    assert opening("client.test", "192.0.2.1", "", "relay.example.org", "ESMTPS", "TLSv1.3 TLS_AES_256_GCM_SHA384") == (
        b"Received: from client.test ([192.0.2.1])\r\n"
        b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n"
        b"\tby relay.example.org with ESMTPS id "
    )


def test_with_clauses_of_smtputf8():  # T03
    given = ("SMTP", "ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA")
    assert [utf8_protocol(each) for each in given] == ["UTF8SMTP", "UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"]


def test_a_recipient_beyond_ascii_is_named_in_as_much_ascii_as_can_be():  # X17
    assert b"\tfor <c@xn--mnchen-3ya.example>; " in field(recipient="c@m\u00fcnchen.example")
    assert "\tfor <gr\u00fcn@m\u00fcnchen.example>; ".encode() in field(recipient="gr\u00fcn@m\u00fcnchen.example")


def test_no_recipient_is_named_if_there_are_several():  # T05
    assert field(recipient="").endswith(b"id 06JM5E1N8QH4C;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n")


def test_helo_cannot_forge_structure():  # T08
    forged = field(helo="x (y [10.0.0.1]) by z; Mon, 1 Jan 1990\t\x0b\x85")
    assert forged.startswith(b"Received: from x??y?[10.0.0.1]??by?z??Mon??1?Jan?1990")
    assert b"from " + b"x" in forged and forged.count(b";") == 1


@given(
    st.text(min_size=1, max_size=255),
    st.text(st.sampled_from("abcdef.-"), min_size=1, max_size=200),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=250),
)
def test_lines_are_short_where_they_can_be_and_the_field_is_one(helo, host, recipient):  # T09
    text = field(helo=helo, host=host, recipient=recipient)
    assert text.isascii()
    assert text.endswith(b"\r\n")
    lines = text[:-2].split(b"\r\n")
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert b"\r" not in b"".join(lines) and b"\n" not in b"".join(lines)
    for line in lines:
        assert len(line) < 78 or len(line.removeprefix(b"\t").split(b" ")) <= 2, line
        assert len(line) <= 998


def test_date_is_numeric_and_follows_the_clock():  # T06
    clock = ManualClock(1_700_000_000.9)
    dates = DateCache(clock)
    first = dates.text()
    clock.advance(0.05)
    assert dates.text() is first
    clock.advance(1)
    assert parsedate_to_datetime(dates.text().decode()).timestamp() == 1_700_000_001
    assert first[-5:-4] in (b"+", b"-")
