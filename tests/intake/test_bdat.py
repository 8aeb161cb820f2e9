"""CHUNKING (RFC 3030): messages by BDAT, every chunk answered once, nothing left over and nothing out of step."""

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.intake.data import EARLY_LIMIT, HEADER_LIMIT, MEMORY_LIMIT
from mailtui.intake.header import Section
from mailtui.intake.terms import MemoryBudget, Timeouts
from tests.intake.conftest import STRANGER, TOML, Relay, over_every_wire, until, without_trace
from tests.support.client import Client

BODY = b"Subject: chunks\r\n\r\n.\r\n..two\r\n.\r\nend\r\n"


async def begun(one: Relay) -> Client:
    """A client with a sender and a recipient."""
    client = await one.session()
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("RCPT TO:<x@ours.example>")).code == 250
    return client


async def chunk(client: Client, octets: bytes, last: str = "") -> str:
    """Send one chunk and give the reply."""
    await client.send(f"BDAT {len(octets)}{last}\r\n".encode() + octets)
    return (await client.reply()).text


async def in_step(client: Client) -> None:
    """The next command is one, and a message goes through."""
    assert (await client.command("NOOP")).text == "250 2.0.0 Ok"
    await client.command("RSET")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("RCPT TO:<x@ours.example>")).code == 250
    assert (await chunk(client, b"in step\r\n", " LAST")).startswith("250 2.0.0 queued as ")


def content(one: Relay, index: int = -1) -> bytes:
    """A message as it is kept, from memory or from its spool file."""
    body = one.queue.messages[index].body
    return without_trace(body if body is not None else one.queue.spools[-1].octets)


@over_every_wire
async def test_chunks_make_a_message_octet_for_octet(relay):  # X07
    one = await relay(STRANGER)
    client = await begun(one)
    assert await chunk(client, BODY[:10]) == "250 2.0.0 10 octets received"
    assert await chunk(client, BODY[10:21]) == "250 2.0.0 11 octets received"  # between CR and LF
    assert not one.queue.messages
    assert (await chunk(client, BODY[21:], " LAST")).startswith("250 2.0.0 queued as ")
    assert content(one) == BODY  # no dot is taken away
    assert one.queue.messages[0].envelope.size == len(one.queue.messages[0].body or b"")
    await in_step(client)


@over_every_wire
async def test_all_of_it_in_one_packet(relay):  # X05, RFC 3030 section 4.2
    one = await relay(STRANGER)
    client = await one.session()
    await client.send(
        b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\n"
        b"BDAT 6\r\nSubjecBDAT 5 last\r\nt: 1\nMAIL FROM:<>\r\n"
        b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<x@ours.example>\r\nbdat 00012 LAST\r\nSubject: 2\r\nNOOP\r\n"
    )
    codes = [(await client.reply()).code for _ in range(10)]
    assert codes == [250, 250, 250, 550, 250, 250, 250, 250, 250, 250]
    assert [content(one, n) for n in range(1)] == [b"Subject: 2\r\n"] and len(one.queue.messages) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_any_segmentation_of_the_stream(relay, size):  # S35
    one = await relay(STRANGER)
    client = await begun(one)
    stream = b"BDAT 10\r\n" + BODY[:10] + b"BDAT %d LAST\r\n" % (len(BODY) - 10) + BODY[10:] + b"NOOP\r\n"
    for start in range(0, len(stream), size):
        await client.send(stream[start : start + size])
        await asyncio.sleep(0)
    replies = [(await client.reply()).code for _ in range(3)]
    assert replies == [250, 250, 250] and content(one) == BODY


@over_every_wire
async def test_an_empty_last_chunk_ends_the_message(relay):  # X10
    one = await relay(STRANGER)
    client = await begun(one)
    assert (await chunk(client, BODY)).startswith("250 ")
    assert await chunk(client, b"") == "250 2.0.0 0 octets received"
    assert (await chunk(client, b"", " LAST")).startswith("250 2.0.0 queued as ")
    assert content(one) == BODY
    client = await begun(one)
    assert (await chunk(client, b"", " LAST")).startswith("250 2.0.0 queued as ")
    assert content(one) == b""


@pytest.mark.parametrize("reset", ["RSET", "EHLO again.test"])
async def test_reset_between_chunks_drops_the_message(relay, reset):  # X10
    one = await relay(STRANGER)
    client = await begun(one)
    assert (await chunk(client, b"x" * 500 + b"\r\n")).startswith("250 ")
    assert one.intake.budget.used == 502
    assert (await client.command(reset)).code == 250
    assert one.intake.budget.used == 0
    assert (await chunk(client, b"y\r\n", " LAST")).startswith("503 5.5.1")
    await in_step(client)
    assert len(one.queue.messages) == 1


@over_every_wire
async def test_what_may_not_follow_a_chunk(relay):  # X07
    one = await relay(STRANGER)
    client = await begun(one)
    await chunk(client, b"begun\r\n")
    for command in ("DATA", "MAIL FROM:<a@b.example>", "RCPT TO:<y@ours.example>"):
        assert (await client.command(command)).text.startswith("503 5.5.1"), command
    assert (await chunk(client, b"done\r\n", " LAST")).startswith("250 2.0.0 queued")
    assert content(one) == b"begun\r\ndone\r\n"
    assert [r.address for r in one.queue.messages[0].recipients] == ["x@ours.example"]
    assert (await chunk(client, b"more\r\n", " LAST")).startswith("503 5.5.1")  # after LAST
    await in_step(client)


@over_every_wire
@pytest.mark.parametrize(
    ("before", "line", "reply"),
    [
        ([], "BDAT 12 LAST", "503 5.5.1"),
        (["MAIL FROM:<a@b.example>"], "BDAT 12 LAST", "554 5.5.1"),
        (["MAIL FROM:<a@b.example>", "RCPT TO:<victim@other.example>"], "BDAT 12", "554 5.5.1"),
        (["MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>"], "BDAT 12 FIRST", "501 5.5.4"),
    ],
)
async def test_a_refused_chunk_is_read_and_dropped(relay, before, line, reply):  # X08, M09
    one = await relay(STRANGER)
    client = await one.session()
    for command in before:
        await client.command(command)
    await client.send(line.encode() + b"\r\nQUIT\r\nQUIT")
    await asyncio.sleep(0.01)
    assert not client.reader._buffer  # type: ignore[attr-defined]  # no reply before the octets are here
    await client.send(b"\r\n")
    assert (await client.reply()).text.startswith(reply)
    await in_step(client)
    assert len(one.queue.messages) == 1


@over_every_wire
@pytest.mark.parametrize(
    "argument", ["", "-1", "+5", "0x10", "1e3", "5,", "5LAST", "LAST", "18446744073709551616", "9" * 400, "\u0665"]
)
async def test_a_size_that_is_none_ends_the_session(relay, argument):  # X09
    one = await relay(STRANGER)
    client = await begun(one)
    await client.send(f"BDAT {argument}\r\n".encode() + b"MAIL FROM:<evil@b.example>\r\n")
    assert (await client.reply()).text.startswith("501 5.5.4")
    assert await client.closed() == b""
    assert not one.queue.messages


@over_every_wire
@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"a\nb\r\n", "550 5.6.0"),  # C4, M01
        (b"a\rb\r\n", "550 5.6.0"),
        (b"a\r\n.\nMAIL", "550 5.6.0"),
        (b"a\r", "550 5.6.0"),
        (b"a" * 1001 + b"\r\n", "554 5.6.0"),  # S28
    ],
)
async def test_what_is_refused_in_data_is_refused_in_chunks(relay, octets, reply):  # X11
    one = await relay(STRANGER)
    client = await begun(one)
    assert (await chunk(client, octets, " LAST")).startswith(reply)
    assert [refusal["recipient"] for refusal in one.queue.refusals] == ["x@ours.example"]
    await in_step(client)
    assert len(one.queue.messages) == 1


@over_every_wire
async def test_bare_line_ends_are_made_whole_where_so_configured(relay):  # X11, C4
    one = await relay(STRANGER + 'bare_newline = "normalize"\n')
    client = await begun(one)
    await chunk(client, b"a\nb\rc\r")
    await chunk(client, b"\nd\r\n.\r\ne\r")
    assert (await chunk(client, b"f\n", " LAST")).startswith("250 ")
    assert content(one) == b"a\r\nb\r\nc\r\nd\r\n.\r\ne\r\nf\r\n"


@pytest.mark.parametrize("end", [b"end", b"end\r\n"])
async def test_the_last_line_gets_its_end(relay, end):  # X11
    one = await relay(STRANGER)
    client = await begun(one)
    assert (await chunk(client, b"a\r\n" + end, " LAST")).startswith("250 ")
    assert content(one) == b"a\r\nend\r\n"


async def test_a_refused_message_is_refused_chunk_by_chunk_and_told_once(relay):  # X08
    one = await relay(STRANGER + '[limits]\nmessage_size = "1K"\n')
    client = await begun(one)
    assert (await chunk(client, b"x" * 600 + b"\r\n")).startswith("250 ")
    for _ in range(2):
        assert (await chunk(client, b"y" * 600 + b"\r\n")).startswith("552 5.3.4")
    assert (await client.command("DATA")).code == 503
    assert (await chunk(client, b"z\r\n", " LAST")).startswith("552 5.3.4")
    assert len(one.queue.refusals) == 1 and one.intake.budget.used == 0
    await in_step(client)


@over_every_wire
async def test_large_chunks_go_to_disk(relay):  # R09
    one = await relay(STRANGER)
    client = await begun(one)
    line = b"0123456789" * 7 + b"\r\n"
    whole = b"Subject: large\r\n\r\n" + line * (3 * MEMORY_LIMIT // len(line))
    half = len(whole) // 2 + 1
    assert (await chunk(client, whole[:half])).startswith("250 ")
    assert (await chunk(client, whole[half:], " LAST")).startswith("250 2.0.0 queued")
    assert content(one) == whole
    assert max(one.queue.spools[0].pieces) < 2 * MEMORY_LIMIT
    assert one.queue.messages[0].envelope.subject == "large"
    assert one.queue.messages[0].envelope.size == len(one.queue.spools[0].octets)
    await in_step(client)


async def test_short_memory_sends_chunks_to_disk_early(relay, monkeypatch):  # R09
    monkeypatch.setattr(MemoryBudget, "LIMIT", EARLY_LIMIT)
    one = await relay(STRANGER)
    client = await begun(one)
    await chunk(client, b"x\r\n" * EARLY_LIMIT)
    assert one.intake.budget.used == 0
    assert (await client.command("RSET")).code == 250
    assert one.queue.spools[0].abandoned


async def test_a_client_that_goes_between_chunks_or_within_one_leaves_nothing(relay):  # S32
    one = await relay(STRANGER)
    between, within = await begun(one), await begun(one)
    await chunk(between, b"x" * 400 + b"\r\n")
    await within.send(b"BDAT 100 LAST\r\n" + b"x" * 99)
    await until(lambda: one.intake.budget.used == 402 + 99)
    await between.close()
    await within.close()
    await until(lambda: not one.intake.sessions)
    assert one.intake.budget.used == 0 and not one.queue.messages


async def test_a_chunk_that_is_here_as_a_whole_is_taken_though_the_client_has_gone(relay):  # S32
    one = await relay(STRANGER)
    one.queue.hold = True
    client = await begun(one)
    await client.send(b"BDAT 3 LAST\r\nx\r\n")
    await until(lambda: one.queue.commits)
    await client.close()
    one.queue.commits[0].set_result(None)
    await until(lambda: not one.intake.sessions)
    assert content(one) == b"x\r\n"


@pytest.mark.parametrize("dripped", ["taken", "dropped"])
async def test_a_chunk_must_come_at_a_certain_pace(relay, dripped):  # R04
    one = await relay(STRANGER, Timeouts(data_start=0.05, data_rate=1e6))
    client = await begun(one) if dripped == "taken" else await one.session()
    await client.send(b"BDAT 1000000 LAST\r\n")
    answer = asyncio.ensure_future(client.reply())
    while not answer.done():
        await client.send(b"x")
        await asyncio.sleep(0.005)
    assert (await answer).text.startswith("421 4.4.2")


async def test_chunks_of_a_message_must_come_in_its_time_too(relay):  # R04, S29
    one = await relay(STRANGER, Timeouts(data_start=0.05, data_rate=1e6))
    client = await begun(one)
    reply = await chunk(client, b"x\r\n")
    while reply.startswith("250"):
        await asyncio.sleep(0.01)
        await client.send(b"BDAT 3\r\n")  # whose octets come late: the time is that of the message
        await asyncio.sleep(0.01)
        await client.send(b"x\r\n")
        reply = (await client.reply()).text
    assert reply.startswith("421 4.4.2")


async def test_a_first_chunk_waits_while_the_disk_is_behind(relay):
    one = await relay(STRANGER)
    client = await begun(one)
    one.queue.waiting = 1 << 30
    await client.send(b"BDAT 3 LAST\r\nx\r\nNOOP\r\n")
    await until(lambda: one.intake._waiters)
    assert one.intake.budget.used == 0
    one.queue.waiting = 0
    one.intake.wake()
    assert (await client.reply()).text.startswith("250 2.0.0 queued")
    assert (await client.reply()).text == "250 2.0.0 Ok"


async def test_a_full_disk_is_told_after_the_octets(relay):  # R07
    one = await relay(STRANGER)
    client = await begun(one)
    one.queue.spool_error = OSError(28, "No space left on device")
    assert (await chunk(client, b"x\r\n" * MEMORY_LIMIT)).startswith("452 4.3.1")
    assert (await chunk(client, b"x\r\n", " LAST")).startswith("452 4.3.1")
    one.queue.spool_error = None
    await in_step(client)


async def test_binarymime_is_not_offered(relay):  # X12
    one = await relay(TOML)
    client = await one.session()
    assert "BINARYMIME" not in (await client.command("EHLO x")).text
    assert (await client.command("MAIL FROM:<a@b.example> BODY=BINARYMIME")).text.startswith("501 5.5.4")


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_the_chunks_and_packets_what_goes_in_comes_out(relay, seed):  # X07, X11, S35
    one = await relay(STRANGER)
    client = await one.session()
    rng = random.Random(seed)
    wholes = []
    for _ in range(6):
        lines = [rng.choice([b"", b".", b"..", b"x" * 300, b"\0", b"\xff.", b". "]) for _ in range(rng.randrange(40))]
        wholes.append(b"".join(line + b"\r\n" for line in lines))
        cuts = sorted(rng.randrange(len(wholes[-1]) + 1) for _ in range(rng.randrange(8)))
        edges = [0, *cuts, len(wholes[-1])]
        stream = b"MAIL FROM:<>\r\nRCPT TO:<x@ours.example>\r\n"
        for start, end in itertools.pairwise(edges):
            stream += b"BDAT %d\r\n" % (end - start) + wholes[-1][start:end]
        stream += b"BDAT 0 LAST\r\n"
        while stream:
            size = rng.randrange(1, 400)
            await client.send(stream[:size])
            stream = stream[size:]
            await asyncio.sleep(0)
        for _ in range(3 + len(edges) - 1):
            assert (await client.reply()).code == 250
    assert [content(one, n) for n in range(6)] == wholes


# -- the header section of large messages ----------------------------------------------------------------------------


async def test_a_header_section_without_end_is_refused(relay):  # R05
    one = await relay(STRANGER)
    client = await begun(one)
    field = b"X-Long: " + b"y" * 900 + b"\r\n"
    fields = field * (HEADER_LIMIT // len(field) + 300)
    await client.command("DATA")
    await client.send(fields + b"\r\nbody\r\n.\r\n")
    assert (await client.reply()).text.startswith("552 5.3.4 The header section is larger")
    assert all(spool.abandoned for spool in one.queue.spools) and not one.queue.messages
    await in_step(client)


@pytest.mark.parametrize(
    "header",
    [
        b"X-Field: y\r\n" * 5000,
        b"To: a@b.example" + b",\r\n\ta@b.example" * 13_000 + b"\r\n",  # 200 KiB and more in one field
        b"no field at all\r\n",
    ],
)
async def test_large_header_sections_and_large_bodies_are_taken(relay, header):  # R05, S36
    one = await relay(STRANGER)
    client = await begun(one)
    whole = header + b"\r\n" + b"body: of a message\r\n" * 90_000
    await client.command("DATA")
    await client.send(whole + b".\r\n")
    assert (await client.reply()).code == 250
    assert content(one) == whole


@given(st.binary(max_size=200), st.lists(st.integers(0, 60), max_size=5))
def test_the_end_of_a_header_section_is_found_in_any_pieces(text, cuts):
    lines = b"A: b\r\n\tc\r\nD : e\r\n\r\n" + text.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
    cuts = sorted(min(cut, len(lines)) for cut in cuts)
    section = Section()
    for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        if not section.ended:
            section.feed(lines[start:end])
    assert section.ended and section.size == len(b"A: b\r\n\tc\r\nD : e\r\n")
