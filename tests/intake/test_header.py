"""What is read of a header section, whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.intake.header import TEXT_LIMIT, scan


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        (b"Subject: Hello there\r\n", "Hello there"),
        (b"From: x\r\nSUBJECT:Hello\r\nSubject: second\r\n", "Hello"),
        (b"Subject : Hello\r\n", "Hello"),
        (b"Subject:\r\n", ""),
        (b"Subject:\r\nTo: x\r\n", ""),
        (b"X-Subject: no\r\n", ""),
        (b"Subject: two\r\n lines\r\n\there\r\nTo: x\r\n", "two lines here"),
        (b"Subject: =?utf-8?q?gr=C3=BCn?= and =?iso-8859-1?b?Z2Vs?=\r\n =?iso-8859-1?b?Yg==?=\r\n", "grün and gelb"),
        (b"Subject: gr\xc3\xbcn\r\n", "grün"),
        (b"Subject: gr\xfcn\r\n", "gr\ufffdn"),
        (b"Subject: =?utf-8?q?=1B=5B31m=0D=0Ared=07?=\r\n", "\ufffd[31m red\ufffd"),
        (b"Subject: \x1b]0;title\x07 \x9b31m\r\n", "\ufffd]0;title\ufffd \ufffd31m"),
        (b"Subject: =?utf-8?q?=E2=80=AEabc?=\r\n", "\ufffdabc"),
        ("Subject: \u65e5\u3000\u672c a\u200db\r\n".encode(), "\u65e5 \u672c ab"),
        (b"Subject: =?nonsense?q?abc?=\r\n", "abc"),
        (b"Subject: =?utf-8?b?A?= =?utf-8?z?x?=\r\n", "=?utf-8?b?A?= =?utf-8?z?x?="),
        (b"Subject: =?uu?q?abc?= =?hex?q?00?=\r\n", "abc00"),
        (b"Subject: " + b"x" * 5000 + b"\r\n", "x" * TEXT_LIMIT),
        (b"Subject: x\r\n" + b" y" * 5000 + b"\r\nTo: z\r\n", ("x" + " y" * TEXT_LIMIT)[:TEXT_LIMIT].rstrip()),
    ],
)
def test_subject(header, subject):
    assert scan(header + b"\r\nSubject: of the body\r\n").subject == subject


def test_message_id():
    assert scan(b"Message-Id: <a.b@c>\r\n\r\n").message_id == "<a.b@c>"
    assert scan(b"message-id:\r\n <folded@x>\r\n\r\n").message_id == "<folded@x>"
    assert scan(b"X: y\r\n\r\nMessage-Id: <body@x>\r\n").message_id == ""


@pytest.mark.parametrize(
    ("message", "hops"),
    [
        (b"\r\nReceived: x\r\n", 0),
        (b"Received: x\r\n\r\nReceived: x\r\n", 1),
        (b"RECEIVED: x\r\nreceived : y\r\nVia: z\r\nX400-Received: a\r\nMail-From: b\r\n\r\n", 5),  # C3
        (b"Received-SPF: pass\r\nX-Received: x\r\nViable: no\r\n\r\n", 0),
        (b"Received: a\r\n folded; Received: no\r\nReceived: b\r\n\r\n", 2),
        (b"Received: " * 3 + b"\r\n" + b"Received:\r\n" * 99, 100),
        (b"no header at all", 0),
        (b"", 0),
    ],
)
def test_hops(message, hops):
    assert scan(message).hops == hops


@given(
    st.lists(
        st.sampled_from([b"Subject:", b"\r\n", b" ", b"=?utf-8?q?", b"?=", b"=0D", b"\xff", b"\x1b", b"x"])
        | st.binary(max_size=5)
    ).map(b"".join)
)
def test_anything_is_taken_and_what_comes_out_is_fit_to_show(message):
    facts = scan(b"Subject:" + message)
    assert len(facts.subject) <= TEXT_LIMIT
    assert facts.subject == "" or facts.subject.isprintable()
