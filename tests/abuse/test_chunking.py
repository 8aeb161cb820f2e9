"""BDAT (RFC 3030): octets that were announced are never commands, what was not announced is never a message."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.abuse.talk import BODY, CLOSED, KEPT, MAIL, OURS, RCPT, Case, Taken, check_queue, expect, hold, table
from tests.abuse.test_properties import CUTS, MESSAGES, RAW, one, send_in_pieces, shared
from tests.intake.conftest import STRANGER, over_every_wire
from tests.support.smuggling import LOOK_ALIKES

__all__ = ["one"]

BEGIN = f"{MAIL}\r\n{RCPT}\r\n".encode()
BEGUN = (BEGIN, "250 250")
SMALL = STRANGER + "[limits]\nmessage_size = 100000\nhops = 5\n"
X = b"Subject: x\r\n\r\nx\r\n"
HOPS = b"Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n" * 5
LINE = b"x" * 998 + b"\r\n"


def bdat(octets: bytes, last: bytes = b"") -> bytes:
    """A command and its chunk."""
    return b"BDAT %d%b\r\n" % (len(octets), last) + octets


def final(octets: bytes) -> bytes:
    return bdat(octets, b" LAST")


CASES = (
    Case("X07", "chunks-make-one-message", [BEGUN, (bdat(X[:5]), "250/2.0.0"), (bdat(X[5:13]), "250"),
         (final(X[13:]), "250/2.0.0")], taken=[KEPT]),
    Case("X07 X05", "a-message-in-one-piece-with-its-transaction", [(BEGIN + bdat(X[:1]) + final(X[1:]) + b"NOOP\r\n",
         "250 250 250 250 250")], taken=[KEPT]),
    Case("X07 S34", "dots-are-no-dots-here", [BEGUN, (final(b".\r\n..\r\nx\r\n.\r\nQUIT\r\n"), "250")],
         taken=[Taken(b".\r\n..\r\nx\r\n.\r\nQUIT\r\n")]),
    Case("X07", "nothing-but-bdat-and-rset-within-a-message", [BEGUN, (bdat(X), "250"), ("DATA", "503/5.5.1"),
         (MAIL, "503/5.5.1"), ("RCPT TO:<y@ours.example>", "503/5.5.1"), (final(b""), "250")], taken=[KEPT]),
    Case("X07", "no-chunk-behind-the-last", [BEGUN, (final(X), "250"), (bdat(b"QUIT\r\n"), "503/5.5.1"),
         (final(b"QUIT\r\n"), "503/5.5.1")], taken=[KEPT]),
    Case("X08", "a-chunk-without-a-transaction-is-read-and-dropped", [(bdat(b"RSET\r\nQUIT\r\n"), "503/5.5.1"),
         (final(b"QUIT\r\n"), "503"), (final(b""), "503")]),
    Case("X08", "a-chunk-before-ehlo-is-read-and-dropped", [(final(BEGIN), "503/5.5.1"), (RCPT, "503")], hello=False),
    Case("X08 S11 P15", "a-chunk-without-a-valid-recipient-is-read-and-dropped", [(MAIL, "250"),
         ("RCPT TO:<v@other.example>", "554"), (final(b"RCPT TO:<x@ours.example>\r\n"), "554/5.5.1"), ("DATA", "554")]),
    Case("X08", "a-chunk-with-another-word-is-read-and-dropped", [BEGUN, (b"BDAT 6 FIRST\r\nQUIT\r\n", "501/5.5.4"),
         (b"BDAT 6 LAST LAST\r\nQUIT\r\n", "501/5.5.4")]),
    Case("X08 M09", "a-hundred-kilobytes-of-commands-are-dropped", [(final(b"QUIT\r\n" * 20_000), "503/5.5.1")]),
    *(Case("X09", f"a-size-that-is-none-ends-the-session-{size or 'missing'}", [BEGUN,
           (f"BDAT {size}\r\nMAIL FROM:<evil@b.example>\r\n".encode(), "501/5.5.4")], end=CLOSED)
      for size in ("-1", "+5", "0x10", "1e3", "5,", "5LAST", "LAST", "", "18446744073709551616", "9" * 30)),
    Case("X09 X01", "a-size-over-the-limit-is-read-and-refused", [BEGUN, (final(LINE * 101), "552/5.3.4")], toml=SMALL),
    Case("X09 X01 R01", "chunks-over-the-limit-together-are-refused", [BEGUN, (bdat(LINE * 60), "250"),
         (bdat(LINE * 60), "552/5.3.4"), (final(X), "552/5.3.4")], toml=SMALL),
    Case("X10", "rset-between-chunks-drops-the-message", [BEGUN, (bdat(X), "250"), ("RSET", "250"), (final(b""), "503"),
         (RCPT, "503")]),
    Case("X10", "ehlo-between-chunks-drops-the-message", [BEGUN, (bdat(X), "250"), ("EHLO again.test", "250"),
         (final(X), "503")]),
    Case("X10", "quit-between-chunks-drops-the-message", [BEGUN, (bdat(X), "250"), ("QUIT", "221")], end=CLOSED),
    Case("X10", "an-empty-last-chunk-ends-the-message", [BEGUN, (bdat(X), "250"), (bdat(b""), "250"),
         (final(b""), "250")], taken=[KEPT]),
    Case("X10", "an-empty-message", [BEGUN, (b"BDAT 0 LAST\r\n", "250")], taken=[Taken(b"")]),
    Case("X11 M06", "a-bare-lf-is-refused", [BEGUN, (final(b"x\ny\r\n"), "550/5.6.0")]),
    Case("X11 M06", "a-bare-cr-is-refused", [BEGUN, (final(b"x\ry\r\n"), "550/5.6.0")]),
    Case("X11", "a-cr-at-the-very-end-is-bare", [BEGUN, (final(b"x\r"), "550/5.6.0")]),
    Case("X11", "cr-and-lf-in-two-chunks-are-one-line-end", [BEGUN, (bdat(b"x\r"), "250"), (final(b"\ny\r\n"), "250")],
         taken=[Taken(b"x\r\ny\r\n")]),
    Case("X11", "a-last-line-without-its-end-gets-it", [BEGUN, (final(b"x\r\ny"), "250")],
         taken=[Taken(b"x\r\ny\r\n")]),
    Case("X11 S28", "a-line-of-999-octets-in-two-chunks", [BEGUN, (bdat(b"x" * 500), "250"),
         (final(b"x" * 499 + b"\r\n"), "554/5.6.0")]),
    Case("X11 S33", "after-a-refused-chunk-the-rest-is-refused-too", [BEGUN, (bdat(b"x\ny\r\n"), "550"), (bdat(X),
         "550"),
         (final(X), "550"), (RCPT, "503")]),
    Case("X12", "binarymime-is-not-offered", [(f"{MAIL} BODY=BINARYMIME", "501/5.5.4"), (final(b"\0\r\n"), "503")]),
    Case("M10", "nul-in-a-chunk-is-kept", [BEGUN, (final(b"x\0y\r\n"), "250")], taken=[Taken(b"x\0y\r\n")]),
    Case("T10", "hops-are-counted-in-chunks", [BEGUN, (bdat(HOPS[:100]), "250"), (final(HOPS[100:] + b"\r\nx\r\n"),
         "554/5.4.6")], toml=SMALL),
    Case("R05", "a-header-section-without-end", [BEGUN, (final((b"X: " + LINE[3:]) * 1100), "552/5.3.4")]),
    Case("R09", "a-large-chunk", [BEGUN, (bdat(X + LINE * 600), "250"), (final(LINE * 600), "250")],
         taken=[Taken(X + LINE * 1200)]),
    Case("M08 X09", "a-bare-lf-does-not-end-the-command", [BEGUN, (b"BDAT 6 LAST\nQUIT\r\n", "500/5.5.2")]),
    Case("X07 S11", "for-ours-too", [(MAIL, "250"), ("RCPT TO:<v@other.example>", "250"), (final(X), "250")],
         taken=[KEPT._replace(to="v@other.example")], toml=OURS),
)  # fmt: skip


@table(*CASES)
async def test_chunks(relay, case):
    await hold(relay, case)


@over_every_wire
async def test_no_look_alike_ends_a_message_in_chunks(relay):  # M02, M03, M04, M07, X11
    one = await relay(STRANGER + 'bare_newline = "normalize"\n')
    client = await one.session()
    for look_alike in (*LOOK_ALIKES.values(), b"\r\n.\r\n"):
        octets = b"outer" + look_alike + b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@ours.example>\r\nDATA\r\n"
        await client.send(BEGIN + bdat(octets[:7]) + final(octets[7:]))
        await expect(client, "250 250 250 250")
        kept = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        check_queue(one, [Taken(kept)])
        one.queue.messages.clear()


def parted(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[start:end] for start, end in itertools.pairwise(places)] or [b""]


@over_every_wire
@shared
@given(message=MESSAGES, chunks=CUTS, cuts=CUTS)
async def test_what_goes_in_by_chunks_comes_out(one, message, chunks, cuts):  # X07, X10, X11, S35, S37
    one.queue.messages.clear()
    pieces = parted(message, chunks)
    written = BEGIN + b"".join(map(bdat, pieces[:-1])) + final(pieces[-1]) + b"NOOP\r\n"
    async with await one.session() as client:
        await send_in_pieces(client, written, cuts)
        await expect(client, "250 250 " + "250/2.0.0 " * len(pieces) + "250")
    check_queue(one, [Taken(message)])


@shared
@given(octets=st.one_of(RAW.map(b"".join), st.binary(max_size=60)), chunks=CUTS, cuts=CUTS)
async def test_any_octets_in_chunks_are_one_message_or_none(one, octets, chunks, cuts):  # X08, X11, M06, M09
    one.queue.messages.clear()
    pieces = parted(octets, chunks)
    bare = octets.replace(b"\r\n", b"")
    good = b"\r" not in bare and b"\n" not in bare
    async with await one.session() as client:
        await send_in_pieces(client, BEGIN + b"".join(map(bdat, pieces[:-1])) + final(pieces[-1]), cuts)
        await expect(client, "250 250")
        codes = [(await client.reply()).code for _ in pieces]
        assert codes[-1] == (250 if good else 550) and set(codes) <= {250, 550} and codes == sorted(codes)
        assert (await client.command("NOOP")).code == 250
    whole = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
    check_queue(one, [Taken(whole)] if good else [])


async def test_data_and_chunks_take_turns(one):  # X07
    async with await one.session() as client:
        for number in range(4):
            await client.send(BEGIN + (final(X) if number % 2 else b"DATA\r\n"))
            await expect(client, "250 250 250" if number % 2 else "250 250 354")
            if not number % 2:
                await client.send(BODY)
                await expect(client, "250")
    check_queue(one, [KEPT] * 4)
