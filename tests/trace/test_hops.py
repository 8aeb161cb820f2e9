"""Received lines as hops: order, delays, clock skew, loops, the border of trust (standards T13, T18, T19)."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.trace.hops import HEADER_LIMIT, HOPS_LIMIT, Trace, trace

START = datetime(2024, 1, 15, 10, 0, tzinfo=UTC)


def line(source: str, by: str, at: float | None, *, id: str = "", ip: str = "192.0.2.1", name: str = "") -> bytes:
    """A Received line, `at` seconds after START; `name` is the reverse name of `ip`, by default `source`."""
    date = "" if at is None else "; " + format_datetime(START + timedelta(seconds=at))
    clause = f" id {id}" if id else ""
    return f"Received: from {source} ({name or source} [{ip}])\r\n\tby {by} with ESMTP{clause}{date}\r\n".encode()


def chain(*lines: bytes) -> bytes:
    """A message whose Received lines are given oldest first."""
    return b"".join(reversed(lines)) + b"Subject: x\r\n\r\nbody\r\n"


def way(*times: float | None) -> Trace:
    """The trace of h0 -> h1 -> ... with these times."""
    return trace(chain(*(line(f"h{i}", f"h{i + 1}", at) for i, at in enumerate(times))))


def test_the_document_has_the_fields_of_the_contract() -> None:
    header = (
        b"Received: from b.test (b.test [192.0.2.2]) by c.test with ESMTPS id 2; Mon, 15 Jan 2024 10:35:00 -0500\n"
        b"Received: from a.test (a.test [192.0.2.1])\n\tby b.test with ESMTP id 1 for <u@c.test>;\n"
        b" Mon, 15 Jan 2024 10:34:00 -0500\nSubject: x\n\nReceived: from body by body; x\n"
    )
    assert trace(header, own="c.test").to_json() == {
        "hops": [
            {"index": 1, "from": "a.test", "by": "b.test", "protocol": "ESMTP", "ip": "192.0.2.1", "tls": False}
            | {"id": "1", "for": "u@c.test", "time": "2024-01-15T15:34:00.000Z", "delay": None, "trusted": False}
            | {"skew": None, "warnings": []},
            {"index": 2, "from": "b.test", "by": "c.test", "protocol": "ESMTPS", "ip": "192.0.2.2", "tls": True}
            | {"id": "2", "for": "", "time": "2024-01-15T15:35:00.000Z", "delay": 60, "trusted": True}
            | {"skew": None, "warnings": []},
        ],
        "total_delay": 60,
        "slowest": 2,
        "loop": False,
        "warnings": ["hop 1 stands below the border of trust and can be forged"],
    }


def test_a_message_without_received_lines_has_no_hops() -> None:
    empty: dict[str, object] = {"hops": [], "total_delay": None, "slowest": None, "loop": False, "warnings": []}
    for header in (b"", b"\r\n", b"Subject: x\r\n\r\nReceived: by body; x\r\n", b"junk", b"\xff\x00\r"):
        assert trace(header).to_json() == empty


def test_every_received_line_is_a_hop_junk_too() -> None:
    header = (
        b"From joe Mon Jan 15 10:35:00 2024\nReceived: \xff\x00((\nReceived:\nRECEIVED : by b.test; x\nno field\n"
        b"X-Received: by not.test; x\n by folded.test\nReceived: by a.test; x\n \n y\n\nReceived: by body; x\n"
    )
    hops = trace(header).hops
    assert [hop.received.by for hop in hops] == ["a.test", "b.test", "", ""]
    assert [hop.index for hop in hops] == [1, 2, 3, 4]


def test_only_crlf_and_lf_end_a_line() -> None:
    for separator in ("\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"):
        header = f"Received: by a.test; x{separator}Received: by forged.test; x\r\n".encode()
        assert [hop.received.by for hop in trace(header).hops] == ["a.test"]


def test_delays_are_those_between_neighbours() -> None:
    result = way(0, 1, 1.0, 441, 441.5)
    assert [hop.delay for hop in result.hops] == [None, 1, 0, 440, 0]
    assert (result.total_delay, result.slowest) == (441, 4)
    assert [hop["delay"] for hop in result.to_json()["hops"]] == [None, 1, 0, 440, 0]


def test_a_fraction_of_a_second_stays() -> None:
    header = b"Received: by b.test; 2024-01-15T10:00:01.250Z\nReceived: by a.test; 2024-01-15T10:00:00Z\n\n"
    assert trace(header).to_json()["hops"][1]["delay"] == 1.25


@pytest.mark.parametrize(
    ("times", "delays", "total", "slowest"),
    [
        ([0, None, 60], [None, None, None], 60, None),
        ([None, 0, 60], [None, None, 60], None, 3),
        ([0, 60, None], [None, 60, None], None, 2),
        ([None, None], [None, None], None, None),
        ([0], [None], None, None),
        ([0, 0], [None, 0], 0, None),
    ],
)
def test_a_missing_time_gives_no_delay(
    times: list[float | None], delays: list[float | None], total: float | None, slowest: int | None
) -> None:
    result = way(*times)
    assert [hop.delay for hop in result.hops] == delays
    assert (result.total_delay, result.slowest) == (total, slowest)
    assert any("no date that can be read" in text for text in result.warnings) == (None in times)


@pytest.mark.parametrize(
    ("times", "delays", "skews", "slowest"),
    [
        ([0, 3600, 5, 7], [None, 3600, -3595, 2], [None, None, 3595, None], 3),  # hop 2 is an hour ahead: 5 s went by
        ([0, -3600, 5, 7], [None, -3600, 3605, 2], [None, 3600, None, None], 3),  # hop 2 is an hour behind
        ([0, 3600, 1, 60], [None, 3600, -3599, 59], [None, None, 3599, None], 4),
        ([60, 0], [None, -60], [None, 60], None),
        ([0, -3600, 5], [None, -3600, 3605], [None, 3600, None], 3),
        ([0, 3600, 10], [None, 3600, -3590], [None, None, 3590], 3),
        ([0, -3600, 5, 65], [None, -3600, 3605, 60], [None, 3600, None, None], 4),
        ([3600, 0, 5, 65], [None, -3600, 5, 60], [None, 3600, None, None], 4),
    ],
)
def test_clock_skew_is_shown_and_does_not_blame_the_wrong_hop(
    times: list[float | None], delays: list[float | None], skews: list[float | None], slowest: int | None
) -> None:
    result = way(*times)
    assert [hop.delay for hop in result.hops] == delays
    assert [hop.skew for hop in result.hops] == skews
    assert result.slowest == slowest
    skewed = next(hop for hop in result.to_json()["hops"] if hop["skew"] is not None)
    assert skewed["warnings"] == [
        f"stamped {skewed['skew']} s before the hop before it: one of the two clocks is wrong"
    ]
    assert "the clocks of some hops differ: their delays are not what they seem" in result.warnings


TRUST_HEADER = chain(
    line("a.test", "b.test", 0, ip="203.0.113.1"),
    line("b.test", "c.test", 1, ip="192.0.2.2"),
    line("c.test", "d.test", 2, ip="10.0.0.3"),
    line("d.test", "own.test", 3, ip="10.0.0.4"),
)


@pytest.mark.parametrize(
    ("own", "trusted", "expected"),
    [
        ("", [], [False, False, False, False]),
        ("own.test", [], [False, False, False, True]),
        ("OWN.Test.", [], [False, False, False, True]),
        ("other.test", ["d.test"], [False, False, False, False]),
        ("own.test", ["d.test"], [False, False, True, True]),
        ("own.test", ["D.TEST.", "c.test"], [False, True, True, True]),
        ("own.test", ["c.test"], [False, False, False, True]),
        ("own.test", ["10.0.0.4"], [False, False, True, True]),
        ("own.test", ["10.0.0.0/8"], [False, True, True, True]),
        ("own.test", ["10.0.0.0/8", "b.test"], [True, True, True, True]),
        ("", ["own.test", "192.0.2.0/24", "10.0.0.0/8"], [True, True, True, True]),
        ("own.test", ["192.0.2.0/24", "203.0.113.0/24"], [False, False, False, True]),
    ],
)
def test_trusted_is_the_unbroken_run_from_the_newest(own: str, trusted: list[str], expected: list[bool]) -> None:
    assert [hop.trusted for hop in trace(TRUST_HEADER, own=own, trusted=trusted).hops] == expected


def test_the_border_is_named() -> None:
    def warnings(own: str, *trusted: str) -> tuple[str, ...]:
        return trace(TRUST_HEADER, own=own, trusted=trusted).warnings

    assert warnings("own.test") == ("hops 1 to 3 stand below the border of trust and can be forged",)
    assert warnings("") == ("no hop was stamped by us or by a trusted host: all of them can be forged",)
    assert warnings("own.test", "10.0.0.0/8", "192.0.2.2") == ()


def test_a_forged_line_with_a_trusted_name_is_not_believed() -> None:
    forged = line("victim.test", "d.test", 1)
    real = line("d.test", "own.test", 2, ip="203.0.113.66", name="unknown")  # EHLO says d.test, the address does not
    result = trace(chain(forged, real), own="own.test", trusted=["d.test"])
    assert [hop.trusted for hop in result.hops] == [False, True]
    assert result.warnings[1].startswith("hop 1 claims to be of d.test, but it came from 203.0.113.66")


def test_a_forged_line_with_our_own_name_is_not_believed() -> None:
    header = chain(line("x.test", "own.test", 1), line("x.test", "own.test", 2, ip="203.0.113.66"))
    assert [hop.trusted for hop in trace(header, own="own.test").hops] == [False, True]


@pytest.mark.parametrize("handed", [line("localhost", "own.test", 2, ip="127.0.0.1"), b"Received: by own.test; x\r\n"])
def test_a_line_that_came_from_our_own_machine_is_believed(handed: bytes) -> None:
    header = chain(line("x.test", "own.test", 1), handed)
    assert [hop.trusted for hop in trace(header, own="own.test").hops] == [True, True]


def visits(*hosts: str, own: str = "") -> Trace:
    """The trace of a message that came by these hosts."""
    lines = (line(a, b, i, id=f"q{i}") for i, (a, b) in enumerate(zip(("start", *hosts), hosts, strict=False)))
    return trace(chain(*lines), own=own)


@pytest.mark.parametrize(
    ("hosts", "loop"),
    [
        ("a b c d", False),
        ("a a a a", False),  # hand-overs inside of one machine
        ("a localhost a localhost a b", False),  # content filters on the machine
        ("a 127.0.0.1 a ::1 a b", False),
        ("a filter a b", False),
        ("a list a b", False),
        ("a b a b", True),
        ("a b c a b", True),
        ("a b a c a", True),
        ("A.test b a.TEST. b", True),
        ("a b c d e a b c d e a", True),
    ],
)
def test_a_loop_is_told_from_a_detour(hosts: str, loop: bool) -> None:
    result = visits(*hosts.split())
    assert result.loop is loop
    assert any(text.startswith("a loop: ") for text in result.warnings) is loop


def test_our_own_name_twice_is_a_warning_three_times_a_loop() -> None:
    twice = visits("own.test", "b", "own.test", own="own.test")
    assert (twice.loop, twice.warnings[0][:26]) == (False, "it came to own.test twice:")
    assert visits("own.test", "b", "own.test", "c", "own.test", own="own.test").loop is True


def test_the_same_id_of_the_same_host_twice_is_a_loop_but_not_the_version_that_exchange_writes() -> None:
    for id, loop in (("4F2X", True), ("15.20.7181.22", False)):
        result = trace(chain(line("a", "ex.test", 0, id=id), line("ex.test", "ex.test", 1, id=id)))
        assert result.loop is loop


def test_no_header_is_too_large_to_read() -> None:
    long = trace(b"Received: by a.test; x\r\n" * (HOPS_LIMIT + 5))
    assert len(long.hops) == HOPS_LIMIT
    assert f"only the newest {HOPS_LIMIT} hops are read" in long.warnings
    wide = trace(b"Received: by a.test; x\r\nX: " + b"x" * 2 * HEADER_LIMIT + b"\r\nReceived: by b.test; x\r\n\r\n")
    assert [hop.received.by for hop in wide.hops] == ["a.test"]
    assert wide.warnings[0] == f"only the first {HEADER_LIMIT} octets of the header are read"
    body = trace(b"Received: by a.test; x\r\n\r\n" + b"x" * 2 * HEADER_LIMIT)
    assert not any("octets" in text for text in body.warnings)


FRAGMENTS = [b"Received:", b"Received : ", b"\r\n", b"\n", b"\r", b" ", b"\t", b"from a ", b"by b ", b"id 1", b"; "]
FRAGMENTS += [line("a", "b", 0), line("b", "a", -5), b"X: y\r\n", b"[10.0.0.1]", b"(", b")", b"\xff", b"\x00", b"\x1b"]


@given(
    st.one_of(st.binary(max_size=400), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join)),
    st.sampled_from(["", "b", "[10.0.0.1]"]),
    st.lists(st.sampled_from(["a", "10.0.0.0/8", "::/0", "", "x y", "300.0.0.0/8"]), max_size=3),
)
def test_any_header_is_read_without_an_error(header: bytes, own: str, trusted: list[str]) -> None:
    result = trace(header, own=own, trusted=trusted)
    text = json.dumps(result.to_json(), ensure_ascii=False)
    assert text.isprintable()
    head = re.split(rb"(?:\A|\n)\r?\n", header, maxsplit=1)[0]
    assert len(result.hops) == len(re.findall(rb"(?im)^received[ \t]*:", head))
