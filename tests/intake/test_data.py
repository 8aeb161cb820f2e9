"""The DATA decoder and the checks of a body, on octets without a connection."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailtui.intake.data import MEMORY_LIMIT, Body, Decoder, line_too_long
from mailtui.intake.terms import MemoryBudget

# What matters to the end of the data, and what looks like it (standards M02 to M05).
_pieces = st.sampled_from(
    [
        b"\r\n.\r\n", b"\r\n..", b"\r\n.", b".\r\n", b"\r\n", b"\r", b"\n", b".", b"\n.\n", b"\n.\r\n", b"\r.\r",
        b"\r\n.\n", b"\r\n.\r", b"\r\n\x00.\r\n", b"\x85.\x85", b"x", b"a line\r\n",
    ]
)  # fmt: skip
_streams = st.lists(_pieces, max_size=30).map(b"".join)


def reference(stream: bytes) -> tuple[bytes, bytes] | None:
    """RFC 5321 section 4.5.2, line by line: (content, rest), None if the end does not come."""
    content, position = b"", 0
    while True:
        end = stream.find(b"\r\n", position)
        if end < 0:
            return None
        line, position = stream[position : end + 2], end + 2
        if line == b".\r\n":
            return content, stream[position:]
        content += line[1:] if line.startswith(b".") else line


def feed(chunks: list[bytes]) -> tuple[bytes, Decoder]:
    decoder, content = Decoder(), b""
    for number, chunk in enumerate(chunks):
        piece = decoder.feed(chunk)
        assert not (content.endswith(b"\r") and piece.startswith(b"\n"))
        content += piece
        if decoder.done:
            return content, _with_rest(decoder, chunks[number + 1 :])
    return content, decoder


def _with_rest(decoder: Decoder, chunks: list[bytes]) -> Decoder:
    decoder.rest += b"".join(chunks)
    return decoder


@given(_streams, st.lists(st.integers(0, 120), max_size=8))
@example(b"\r\r\n.\r\n", [1, 2, 3])  # M05: it holds CRLF.CRLF
def test_decoder_is_the_line_by_line_reading_in_any_segmentation(stream, cuts):  # S34, S35
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    content, decoder = feed([stream[a:b] for a, b in itertools.pairwise(places)])
    expected = reference(stream)
    assert decoder.done == (expected is not None)
    if expected is not None:
        assert (content, decoder.rest) == expected


@given(_streams)
def test_decoder_octet_by_octet(stream):
    content, decoder = feed([stream[i : i + 1] for i in range(len(stream))])
    expected = reference(stream)
    assert (content, decoder.rest) == expected if expected is not None else not decoder.done


@pytest.mark.parametrize(
    "look_alike",
    [
        b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r.\n", b"\n.\r", b"\n.\r\r\n",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n", b"\r\n.\x00\r\n", b"\r\n\x00.\r\n", b"\r\x00\n.\r\x00\n", b"\r\n. \r\n", b"\r\n .\r\n",
        b"\r\n\t.\r\n", b"\r\n..\r\n", b"\n\n.\n\n", b"\n\r.\n\r", b"\x0b.\x0b", b"\x0c.\x0c", b"\x1c.\x1c",
        b"\x1d.\x1d",
        b"\x1e.\x1e", b"\x85.\x85", b"\xc2\x85.\xc2\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\xe2\x80\xa9.\xe2\x80\xa9",
    ],
)  # fmt: skip
def test_look_alikes_do_not_end_the_data(look_alike):  # M02, M03, M04
    decoder = Decoder()
    decoder.feed(b"x" + look_alike + b"MAIL FROM:<a@b>\r\n")
    assert not decoder.done


@given(st.lists(st.tuples(st.integers(0, 1200), st.booleans()), max_size=12), st.lists(st.integers(0, 9000)))
def test_line_length_is_that_of_every_line_in_any_segmentation(lines, cuts):  # S25, S28
    data = b"".join(b"x" * length + (b"\r\n" if crlf else b"\n") for length, crlf in lines)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    too_long, open_line = False, 0
    for a, b in itertools.pairwise(places):
        now, open_line = line_too_long(data[a:b], open_line)
        too_long = too_long or now
        if too_long:
            break
    assert too_long == any(len(line) + 1 > 1000 for line in data.split(b"\n"))


def body(*pieces: bytes, limit: int = 1 << 20, normalize: bool = False) -> Body:
    one = Body(limit, normalize, MemoryBudget())
    for piece in pieces:
        one.add(piece)
    return one


def test_body_is_kept_as_it_came():
    one = body(b"a\r\n", b"b\x00\r\n")
    assert (one.size, one.eight_bit, one.refusal, one.take()) == (7, False, None, b"a\r\nb\x00\r\n")
    assert body(b"\xe9\r\n").eight_bit


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"\n\r\r\n", b"a\r\r\n"])
def test_bare_line_ends(content):  # C4, M06
    refused = body(content)
    assert refused.refusal is not None
    assert (refused.refusal.reply.code, refused.refusal.rule, refused.memory) == (550, "bare-newline", 0)
    normal = body(content, normalize=True).take()
    assert normal.replace(b"\r\n", b"").isalpha() or not normal.replace(b"\r\n", b"")
    assert normal.count(b"\r\n") == content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def test_size_is_the_reason_before_any_other():
    one = body(b"a\nb\r\n", b"x" * 100, limit=50)
    assert one.refusal is not None
    assert (one.refusal.reply.code, one.refusal.reply.enhanced) == (552, "5.3.4")


def test_memory_is_counted_for_all_bodies_together():
    budget = MemoryBudget()
    bodies = [Body(1 << 30, False, budget) for _ in range(300)]
    for one in bodies:
        one.add(b"x\r\n" * (MEMORY_LIMIT // 3))
    assert budget.exhausted
    assert all(one.must_spill for one in bodies)
    for one in bodies[:-1]:
        one.abandon()
    assert not bodies[-1].must_spill
    assert bodies[-1].take().startswith(b"x\r\n")
    assert budget.used == 0
