"""A message as lines: why, attempts, trace, headers, body."""

from typing import Any

import pytest

from mailtui.clock import rfc3339
from mailtui.console import words
from mailtui.console.glyphs import ASCII, UNICODE
from mailtui.console.present import Line
from mailtui.console.present.attempts import attempt_lines, dialogue_lines, newest_first, tls_lines
from mailtui.console.present.content import MOST, body_lines, header_lines, hex_lines, raw_lines
from mailtui.console.present.past import past_lines
from mailtui.console.present.text import plain
from mailtui.console.present.trace import answer, trace_lines
from mailtui.console.present.why import card, sentence, why_and_attempts, why_lines
from tests.console.fake_queue import NOW, plain_row

WHY = {
    "id": "01HZX3V7N8QRS", "rid": plain_row(0)["rid"], "recipient": "rcpt0@dest0.example", "state": "deferred",
    "because": 'waits for attempt 13 on the retry schedule; the last one ended with: 451 4.7.1 greylisted',
    "limiter": "retry-clock", "since": rfc3339(NOW - 600), "releases": "the retry schedule",
    "next_attempt": rfc3339(NOW + 2460), "expires": rfc3339(NOW + 75600), "rule": "[retry] schedule",
}  # fmt: skip


def an_attempt(ago: float = 600.0, **changed: Any) -> dict[str, Any]:
    value = {
        "rid": plain_row(0)["rid"], "started": rfc3339(NOW - ago), "finished": rfc3339(NOW - ago + 0.8),
        "host": "mx1.dest1.example", "address": "192.0.2.1", "reused": False,
        "tls": {"wanted": "auto", "reached": "mta-sts", "protocol": "TLSv1.3", "cipher": "AES_256_GCM",
                "verified_by": "mta-sts", "why": "a policy is published"},
        "code": "451", "enhanced": "4.7.1", "reply": "greylisted, try later",
        "delays": {"before_queue": 0.0, "queued": 1.0, "connect": 0.1, "transmit": 0.7},
        "transcript": "   0.000 < 220 mx1 ESMTP\n   0.010 > EHLO relay1\n   0.800 < 451 4.7.1 no\n         ! lost",
    }  # fmt: skip
    value.update(changed)
    return value


def message(**changed: Any) -> dict[str, Any]:
    row = plain_row(0)
    return {**row, "client_name": "", "helo": "h.example", "listener": "mx", "protocol": "ESMTP", "tls": None,
            "headers": [], "recipients": [row], "attempts": [an_attempt()], **changed}  # fmt: skip


def hop(index: int, delay: float | None, *, trusted: bool = False, **changed: Any) -> dict[str, Any]:
    value = {"index": index, "from": f"h{index - 1}.example", "by": f"h{index}.example", "protocol": "ESMTPS",
             "ip": "192.0.2.1", "tls": True, "id": "", "for": "", "time": rfc3339(NOW - 900 + index), "delay": delay,
             "trusted": trusted, "skew": None, "warnings": []}  # fmt: skip
    value.update(changed)
    return value


def a_trace(*hops: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"hops": list(hops), "total_delay": 440.0, "slowest": 3, "loop": False, "warnings": [], **changed}


def text(lines: list[Line]) -> str:
    return "\n".join(plain(line) for line in lines)


def fits(lines: list[Line], width: int) -> None:
    for line in lines:
        assert words.cells(plain(line)) <= width, plain(line)


@pytest.mark.parametrize("width", [60, 78, 95])
def test_why_is_a_sentence_and_its_evidence(width: int) -> None:
    lines = why_and_attempts([WHY], message(), width, NOW, UNICODE)
    fits(lines, width)
    found = " ".join(text(lines).split())
    assert "Waits for attempt 13 on the retry schedule; the last one ended with: 451 4.7.1 greylisted." in found
    assert "Limiter retry-clock, for 10m" in found
    assert "Next try" in found and "in 41m" in found and "Given up" in found and "in 21h00m" in found
    assert "ATTEMPTS" in found and "helo h.example" in found


def test_only_so_many_recipients_are_explained_and_the_rest_are_counted() -> None:
    found = text(why_lines([WHY] * 1000, message(), 78, NOW, UNICODE))
    assert found.count("Limiter") == 20 and "980 more recipients" in found


@pytest.mark.parametrize(("given", "said"), [("held", "Held."), ("Why?", "Why?"), ('so "it"', 'So "it"'),
                                             ("  ", "No reason is known.")])  # fmt: skip
def test_a_sentence_begins_and_ends_as_one(given: str, said: str) -> None:
    assert sentence(given) == said


def test_the_card_is_about_the_row_it_stands_beside() -> None:
    other = {**WHY, "rid": "other.0", "because": "of another recipient"}
    lines = card(plain_row(0), [other, WHY], message(), 54, NOW, UNICODE)
    fits(lines, 54)
    assert "Waits for attempt 13" in text(lines) and "another" not in text(lines)
    assert "LAST ATTEMPTS" in text(lines) and "Subject 0" in text(lines)


def test_attempts_stand_newest_first_a_line_each() -> None:
    lost = an_attempt(3600, code=None, enhanced="", reply="connect timeout")
    attempts = newest_first([an_attempt(900, reply="older"), an_attempt(60), lost])
    lines = attempt_lines(attempts, 78, NOW, UNICODE)
    fits(lines, 78)
    assert len(lines) == 4
    assert "451 4.7.1 greylisted" in plain(lines[1]) and "1.3 ✓ mta-sts" in plain(lines[1])
    assert "0.8s" in plain(lines[1]) and "older" in plain(lines[2]) and "connect timeout" in plain(lines[3])
    assert "not tried yet" in text(attempt_lines([], 78, NOW, UNICODE))


def test_the_dialogue_tells_who_said_what() -> None:
    lines = dialogue_lines(an_attempt(), 78, NOW, UNICODE)
    fits(lines, 78)
    roles = {piece.strip(): role for line in lines for piece, role in line}
    assert roles["0.010 > EHLO relay1"] == "key" and roles["! lost"] == "bad" and roles["0.000 < 220 mx1 ESMTP"] == ""
    assert "verified by mta-sts" in text(lines) and "took 0.8s" in text(lines)
    assert "None was kept" in text(dialogue_lines(an_attempt(transcript=""), 78, NOW, UNICODE))


def test_tls_of_each_attempt_says_what_was_wanted_and_why() -> None:
    found = text(tls_lines([an_attempt(), an_attempt(tls={})], 78, NOW))
    assert "wanted auto, reached mta-sts TLSv1.3 AES_256_GCM, verified by mta-sts" in found
    assert "a policy is published" in found and "reached none" in found


@pytest.mark.parametrize("width", [70, 78, 63, 150])
def test_the_slowest_hop_is_named_and_the_border_of_trust_drawn(width: int) -> None:
    trace = a_trace(hop(1, None), hop(2, 1.0), hop(3, 438.0, trusted=True), hop(4, 1.0, trusted=True))
    lines = trace_lines(trace, width, NOW, UNICODE)
    fits(lines, width)
    found = [plain(line) for line in lines]
    border = next(at for at, line in enumerate(found) if "claimed" in line)
    assert "h2.example" in found[border - 1] and "h3.example" in found[border + 1]
    bars = [line.count("█") for line in found]
    assert max(bars) == bars[border + 1] and bars[1] == 0 and 1 <= bars[2] < max(bars)
    assert "In all 7m. The slowest is hop 3 (h2.example → h3.example) with 7m, 100 % of it." in " ".join(
        " ".join(found).split()
    )


def test_a_hop_back_in_time_is_negative_and_has_no_bar() -> None:
    trace = a_trace(hop(1, None), hop(2, -30.0, trusted=True, warnings=["stamped 30 s before the hop before it"]),
                    slowest=None, total_delay=None, warnings=["the clocks of some hops differ"])  # fmt: skip
    found = text(trace_lines(trace, 78, NOW, UNICODE))
    assert "-30s" in found and "█" not in found
    assert "Hop 2: stamped 30 s before" in found and "the clocks of some hops differ" in found
    assert "not known; no hop stands out." in answer(trace, UNICODE)


def test_a_trace_without_a_believed_hop_says_so() -> None:
    assert "all of them can be forged" in text(trace_lines(a_trace(hop(1, 1.0)), 78, NOW, UNICODE))
    assert "through no relay" in text(trace_lines(a_trace(), 78, NOW, UNICODE))


def test_ascii_has_twins_for_every_sign() -> None:
    trace = a_trace(hop(1, None), hop(2, 5.0, trusted=True), hop(3, 438.0, trusted=True))
    long = message(subject="x" * 300)
    for lines in (
        trace_lines(trace, 60, NOW, ASCII),
        attempt_lines([an_attempt(host="h" * 90)], 60, NOW, ASCII),
        why_and_attempts([WHY], long, 60, NOW, ASCII),
        card(plain_row(0), [WHY], long, 40, NOW, ASCII),
        past_lines([{**plain_row(0), "result": "delivered", "recipient": "r" * 99}], 60, NOW, ASCII),
    ):
        assert text(lines).isascii()


def test_headers_are_wrapped_and_bounded() -> None:
    headers = [
        ["Received", "by a " * 100],
        ["Subject", "x\N{REPLACEMENT CHARACTER}y"],
        ["X-Long", "z" * 20_000],
        ["E", ""],
    ]
    lines = header_lines(headers, 78)
    fits(lines, 78)
    assert "1 control or invisible character neutralised" in plain(lines[0])
    assert "16,000 more characters" in text(lines) and plain(lines[-1]) == "E:"
    assert len(header_lines([["A", "b"]] * 20_000, 78)) == MOST + 1
    assert "no headers" in text(header_lines([], 78))


PLAIN = b"From: a@b\r\nSubject: s\r\n\r\nHello there,\r\n> quoted\r\n\ttabbed\r\n"
MIXED = (b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n'
         b"Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9 =1B]52;c;QUJD=07\r\n--b\r\n"
         b'Content-Type: application/pdf; name="in\x1bvoice.pdf"\r\n\r\nJVBERi0=\r\n--b--\r\n')  # fmt: skip
HTML = (b"Content-Type: text/html\r\n\r\n<style>p{}</style><p>Dear <b>you</b></p>"
        b"<script>x()</script><p>[@click=app.quit]bye")  # fmt: skip


def test_the_readable_part_is_shown_and_the_others_are_named() -> None:
    assert "Hello there,\n> quoted\n    tabbed" in text(body_lines(PLAIN, len(PLAIN), 78))
    mixed = text(body_lines(MIXED, len(MIXED), 78))
    assert "café \N{REPLACEMENT CHARACTER}]52;c;QUJD" in mixed and "part: application/pdf" in mixed
    assert "2 control or invisible characters neutralised" in mixed
    html = text(body_lines(HTML, len(HTML), 78))
    assert "Dear you" in html and "[@click=app.quit]bye" in html and "x()" not in html and "p{}" not in html


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n", b"\x1b]0;x\x07", b"\xff\xfe\x00" * 999, b"Content-Type: text/plain; charset=no-such\r\n\r\n\xe9",
        b"Content-Type: text/plain; charset*=x'y'%\r\n\r\nz", b"Content-Transfer-Encoding: base64\r\n\r\n!!!!=",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 \x1b\n\xff\n",
        b"Content-Type: multipart/mixed\r\n\r\nx",
        b'--b\r\n'.join([b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'] * 2000),
        b"Content-Type: text/html\r\n\r\n" + b"<!" * 9000 + b"<a " * 9000, b"x" * 65536, "例え\u202e".encode() * 3000,
        b"Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nz", b"Subject: \xe9\r\nContent-Type: \xff\r\n\r\n\x00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("render", [body_lines, raw_lines, hex_lines])
def test_any_octets_are_shown_harmless_and_within_bounds(render: Any, data: bytes) -> None:
    lines = render(data, 1 << 20, 78)
    fits(lines, 78)
    assert len(lines) <= MOST + 30
    for line in lines:
        for piece, _ in line:
            assert piece.isprintable() and "\u202e" not in piece


def test_hex_shows_every_octet() -> None:
    found = text(hex_lines(bytes(range(256)), 256, 78))
    assert "1a 1b 1c" in found and found.count("\n") == 17 and "ABCDEFGHIJKLMNO" in found
    assert "000008  08 09" in text(hex_lines(bytes(range(256)), 256, 50))


def test_what_left_is_told_with_its_last_reply() -> None:
    row = {"result": "bounced", "at": rfc3339(NOW - 60), "recipient": "r@dest1.example", "rid": "01.0",
           "host": "mx1", "code": "550", "enhanced": "5.1.1", "reply": "unknown"}  # fmt: skip
    lines = past_lines([row, {"result": "refused"}], 78, NOW, UNICODE)
    fits(lines, 78)
    assert "bounced" in plain(lines[0]) and "mx1: 550 5.1.1 unknown" in plain(lines[1])
    assert "Nothing" in text(past_lines([], 78, NOW, UNICODE))
