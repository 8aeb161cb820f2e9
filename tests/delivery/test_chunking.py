"""BDAT where it is offered (RFC 3030), and the limits that a server announces (RFC 9422)."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mailtui.delivery.chunking import AHEAD
from mailtui.delivery.client import Session
from mailtui.delivery.transaction import Result
from mailtui.model import Message, Outcome
from tests.delivery.conftest import BODY, Bench, host, outcomes
from tests.delivery.test_timeouts import until
from tests.support.nexthop import DROP, HANG, RESET, NextHop

DELIVERED = (Outcome.DELIVERED, 250, "2.0.0")
THREE = ("a@dest.test", "b@dest.test", "c@dest.test")
BOTH = pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])


def chunking(hop: NextHop, pipelining: bool = True) -> None:
    hop.keywords = ["CHUNKING", "8BITMIME", *(["PIPELINING"] if pipelining else [])]


def large(bench: Bench, pieces: Sequence[bytes]) -> Message:
    bench.spooled[7] = list(pieces)
    return bench.message(THREE, body=None)


def verdicts(result: Result) -> list[tuple[Outcome, str]]:
    return [(verdict.outcome, verdict.enhanced) for _, verdict in sorted(result.verdicts.items())]


@BOTH
async def test_a_small_message_is_one_chunk_octet_for_octet(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    chunking(hop, pipelining)
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert verdicts(result) == [(Outcome.DELIVERED, "2.0.0")] * 3
    assert hop.lines("BDAT") == [f"BDAT {len(BODY)} LAST"]
    assert hop.lines("DATA") == []
    assert hop.messages[0].data == BODY  # with its dots as they are


@BOTH
@pytest.mark.parametrize(
    "pieces",
    [
        [b"A: b\r\n\r\n"],
        [b"A: b\r\n\r\n.", b".\r\n.\r\n"],
        [b"A: b\r\n\r\nx\r", b"\n"],
        [b"A: b\r\n" * 9000] * 9,
        [b"A: b\r\n\r\n", *[b"%d\r\n" % n for n in range(40)]],
    ],
)
async def test_a_large_message_is_sent_a_chunk_a_piece(
    bench: Bench, hop: NextHop, pipelining: bool, pieces: list[bytes]
) -> None:
    chunking(hop, pipelining)
    session = await bench.session(hop)
    result = await bench.transact(session, large(bench, pieces))
    assert verdicts(result) == [(Outcome.DELIVERED, "2.0.0")] * 3
    [got] = hop.messages
    assert got.data == b"".join(pieces)
    assert got.chunks == [len(piece) for piece in pieces]
    assert [line.endswith("LAST") for line in hop.lines("BDAT")] == [False] * (len(pieces) - 1) + [True]
    assert session.open  # every BDAT was answered
    assert verdicts(await bench.transact(session)) == [(Outcome.DELIVERED, "2.0.0")]


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [([b"A: b\r\n\r\nend"], b"A: b\r\n\r\nend\r\n"), ([b"A: b\r\n\r\nend", b"\r"], b"A: b\r\n\r\nend\r\r\n")],
)
async def test_only_a_last_line_without_end_gets_one(
    bench: Bench, hop: NextHop, pieces: list[bytes], sent: bytes
) -> None:  # Q10
    chunking(hop)
    session = await bench.session(hop)
    await bench.transact(session, large(bench, pieces))
    await bench.transact(session, bench.message(body=b"".join(pieces)))
    assert hop.messages[0].data == hop.messages[1].data[: len(sent)] == sent


@BOTH
@pytest.mark.parametrize("where", [1, 3, 6])
@pytest.mark.parametrize(
    ("answer", "outcome", "enhanced"),
    [("552 5.3.4 too big", Outcome.BOUNCED, "5.3.4"), ("452 4.3.1 no space", Outcome.DEFERRED, "4.3.1")],
)
async def test_a_refused_chunk_stops_the_message_and_the_session_goes_on(
    bench: Bench, hop: NextHop, pipelining: bool, where: int, answer: str, outcome: Outcome, enhanced: str
) -> None:
    chunking(hop, pipelining)
    hop.bdat = [*["250 2.0.0 ok"] * (where - 1), answer, *["503 5.5.1 no transaction"] * (AHEAD if pipelining else 0)]
    if where + AHEAD > 6:
        hop.bdat = hop.bdat[:6]
    session = await bench.session(hop)
    result = await bench.transact(session, large(bench, [b"A: b\r\n"] * 6))
    assert verdicts(result) == [(outcome, enhanced)] * 3
    assert not result.doubtful
    assert len(hop.lines("BDAT")) <= where + (AHEAD if pipelining else 0)
    assert len(hop.lines("RSET")) == 1
    hop.bdat = []
    assert verdicts(await bench.transact(session)) == [(Outcome.DELIVERED, "2.0.0")]
    assert hop.connections == 1


@BOTH
@pytest.mark.parametrize("where", [1, 3])
async def test_421_amid_the_chunks_closes_and_defers(bench: Bench, hop: NextHop, pipelining: bool, where: int) -> None:
    chunking(hop, pipelining)
    hop.bdat = [*["250 2.0.0 ok"] * (where - 1), "421 4.3.2 going down"]
    session = await bench.session(hop)
    result = await bench.transact(session, large(bench, [b"A: b\r\n"] * 6))
    assert result.verdicts == {}
    assert result.ended is not None
    assert (result.ended.outcome, result.ended.code, result.ended.enhanced) == (Outcome.DEFERRED, 421, "4.3.2")
    assert not result.doubtful
    assert not session.open
    assert hop.messages == []


@pytest.mark.parametrize("how", [DROP, RESET], ids=str)
async def test_a_loss_before_the_last_chunk_leaves_no_doubt_and_one_after_it_does(
    bench: Bench, hop: NextHop, how: object
) -> None:  # Q09
    chunking(hop, pipelining=False)
    hop.bdat = ["250 2.0.0 ok", how]  # type: ignore[list-item]
    result = await bench.transact(await bench.session(hop), large(bench, [b"A: b\r\n"] * 3))
    assert result.ended is not None
    assert (result.doubtful, result.ended.enhanced) == (False, "4.4.2")
    hop.bdat = [how]  # type: ignore[list-item]
    result = await bench.transact(await bench.session(hop))
    assert result.ended is not None
    assert result.doubtful
    assert "may arrive twice" in result.ended.reply


@BOTH
async def test_with_no_recipient_left_no_chunk_is_sent(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    chunking(hop, pipelining)
    hop.rcpt = "550 5.1.1 no"
    session = await bench.session(hop)
    assert verdicts(await bench.transact(session, bench.message(THREE))) == [(Outcome.BOUNCED, "5.1.1")] * 3
    assert hop.lines("BDAT") == []
    assert session.open


@BOTH
async def test_only_the_accepted_ones_are_delivered(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    chunking(hop, pipelining)
    hop.recipients = {"b@dest.test": "550 5.1.1 no such user"}
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert [outcome for outcome, _ in verdicts(result)] == [Outcome.DELIVERED, Outcome.BOUNCED, Outcome.DELIVERED]


async def test_a_spool_file_that_cannot_be_read_ends_without_a_last_chunk(bench: Bench, hop: NextHop) -> None:
    chunking(hop)
    result = await bench.transact(await bench.session(hop), bench.message(body=None))
    assert result.ended is not None
    assert result.ended.enhanced == "4.3.0"
    await hop.idle()
    assert hop.messages == []


async def test_a_chunk_that_is_not_answered_is_given_up(bench: Bench, hop: NextHop) -> None:  # Q02
    chunking(hop, pipelining=False)
    hop.bdat = ["250 2.0.0 ok", HANG]
    session = await bench.session(hop)
    sending = asyncio.create_task(bench.transact(session, large(bench, [b"A: b\r\n"] * 3)))
    await hop.commanded("BDAT", 2)
    queue = session._queue
    assert queue is not None
    await until(lambda: queue.deadline < math.inf)
    bench.clock.advance(181)
    result = await asyncio.wait_for(sending, 5)
    assert result.ended is not None
    assert "timed out waiting for the reply to a chunk" in result.ended.reply


async def test_a_server_that_offers_chunking_and_does_not_know_bdat_gets_data(bench: Bench, hop: NextHop) -> None:
    chunking(hop)
    hop.bdat = "500 5.5.1 command not recognized"
    ended = await bench.attempt(bench.work(hop))
    assert outcomes(ended) == [DELIVERED]
    assert (hop.connections, len(hop.lines("BDAT")), len(hop.lines("DATA"))) == (2, 1, 1)
    await bench.attempt(bench.work(hop))  # and that is remembered
    assert len(hop.lines("BDAT")) == 1


async def test_the_message_is_not_in_the_transcript(bench: Bench, hop: NextHop) -> None:
    chunking(hop)
    hop.bdat = "554 5.6.0 no"
    [(_, _, facts)] = (await bench.attempt(bench.work(hop))).results
    assert f"> BDAT {len(BODY)} LAST" in facts.transcript
    assert "Subject" not in facts.transcript


# -- many recipients, and LIMITS -------------------------------------------------------------------------------------


def many(count: int, domains: int = 1) -> list[str]:
    return [f"u{n}@d{n % domains}.test" for n in range(count)]


async def attempt(bench: Bench, hop: NextHop, to: Sequence[str], session: Session | None = None) -> list[str]:
    """Everybody is delivered; gives the recipients of each transaction, joined."""
    ended = await bench.attempt(bench.work(hop, message=bench.message(to)), session)
    assert outcomes(ended) == [DELIVERED] * len(to)
    assert sorted(each for got in hop.messages for each in got.recipients) == sorted(to)  # nobody twice
    return [" ".join(got.recipients) for got in hop.messages]


@pytest.mark.parametrize("answer", ["452 4.5.3 too many recipients", "552 5.5.3 too many recipients"])
@pytest.mark.parametrize("keyword", ["PIPELINING", "SIZE 0"])
async def test_recipients_that_are_too_many_go_in_the_next_transaction(
    bench: Bench, hop: NextHop, answer: str, keyword: str
) -> None:  # Q05, Q06
    hop.keywords = [keyword]

    def count(line: str) -> str:
        return "250 2.1.5 ok" if len(hop.begun[-1].recipients) < 4 else answer

    hop.rcpt = count
    await attempt(bench, hop, many(10))
    assert [len(got.recipients) for got in hop.messages] == [4, 4, 2]
    assert hop.connections == 1


async def test_a_452_to_the_first_recipient_is_its_own(bench: Bench, hop: NextHop) -> None:
    hop.rcpt = "452 4.2.2 mailbox full"
    ended = await bench.attempt(bench.work(hop, message=bench.message(THREE)))
    assert outcomes(ended) == [(Outcome.DEFERRED, 452, "4.2.2")] * 3
    assert len(hop.lines("MAIL")) == 1


async def test_too_many_for_a_message_that_is_refused_is_not_tried_again(bench: Bench, hop: NextHop) -> None:
    hop.rcpt, hop.dot = ["250 ok", "452 4.5.3 too many"], ["451 4.3.0 not now"]
    ended = await bench.attempt(bench.work(hop, message=bench.message(THREE[:2])))
    assert outcomes(ended) == [(Outcome.DEFERRED, 451, "4.3.0"), (Outcome.DEFERRED, 452, "4.5.3")]
    assert len(hop.lines("MAIL")) == 1


async def test_rcptmax_splits_the_recipients(bench: Bench, hop: NextHop) -> None:  # X22
    hop.keywords += ["LIMITS RCPTMAX=4"]
    assert [len(each.split()) for each in await attempt(bench, hop, many(10))] == [4, 4, 2]
    assert hop.connections == 1


async def test_rcptdomainmax_keeps_domains_apart(bench: Bench, hop: NextHop) -> None:  # X22
    hop.keywords += ["LIMITS RCPTDOMAINMAX=1"]
    for each in await attempt(bench, hop, many(9, domains=3)):
        assert len({address.partition("@")[2] for address in each.split()}) == 1


async def test_mailmax_ends_the_session_in_time(bench: Bench, hop: NextHop) -> None:  # X22
    hop.keywords += ["LIMITS MAILMAX=2"]
    session = None
    for _ in range(5):
        ended = await bench.attempt(bench.work(hop), session)
        assert outcomes(ended) == [DELIVERED]
        session = ended.session
    assert [sum(got.connection == n for got in hop.messages) for n in (1, 2, 3)] == [2, 2, 1]
    await hop.commanded("QUIT", 2)


async def test_mailmax_amid_the_portions_of_a_message_goes_on_over_a_new_session(bench: Bench, hop: NextHop) -> None:
    hop.keywords += ["LIMITS RCPTMAX=3 MAILMAX=2"]  # X22
    await attempt(bench, hop, many(20))
    assert [got.connection for got in hop.messages] == [1, 1, 2, 2, 3, 3, 4]


async def test_limits_hold_on_a_kept_session_too(bench: Bench, hop: NextHop) -> None:
    hop.keywords += ["LIMITS RCPTMAX=4"]
    first = await bench.attempt(bench.work(hop))
    hop.transactions.clear()
    assert [len(each.split()) for each in await attempt(bench, hop, many(6), first.session)] == [4, 2]
    assert hop.connections == 1


async def test_a_session_lost_between_portions_goes_on_with_a_new_one(bench: Bench, hop: NextHop) -> None:  # Q07
    hop.keywords += ["LIMITS RCPTMAX=2"]
    hop.mail = ["250 ok", DROP]
    ended = await bench.attempt(bench.work(hop, message=bench.message(many(6))))
    assert outcomes(ended) == [DELIVERED] * 6
    assert [got.connection for got in hop.messages] == [1, 2, 2]
    assert sorted(each for got in hop.messages for each in got.recipients) == many(6)


async def test_a_doubtful_portion_ends_the_round(bench: Bench) -> None:  # Q09
    async with NextHop() as one, NextHop() as two:
        one.keywords += ["LIMITS RCPTMAX=2"]
        one.dot = ["250 2.0.0 ok", DROP]
        ended = await bench.attempt(bench.work(one, two, message=bench.message(many(6))))
        assert [outcome for outcome, _, _ in outcomes(ended)] == [Outcome.DELIVERED] * 2 + [Outcome.DEFERRED] * 4
        assert ["may arrive twice" in verdict.reply for _, verdict, _ in ended.results] == [False] * 2 + [True] * 2 + [
            False
        ] * 2
        assert two.connections == 0


# -- addresses -------------------------------------------------------------------------------------------------------


async def test_an_address_family_that_is_refused_is_followed_by_the_other(bench: Bench) -> None:  # D08
    async with NextHop(host="127.0.0.1") as hop:  # nobody listens on ::1
        both = replace(host(hop), addresses=("::1", "127.0.0.1"))
        ended = await bench.attempt(bench.work(both))
        assert outcomes(ended) == [DELIVERED]
        assert ended.results[0][2].address == "127.0.0.1"


async def test_a_hosts_source_address_goes_before_that_of_the_configuration(bench: Bench) -> None:
    seen: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])
        writer.close()

    bench.sender = replace(bench.sender, source_ipv4="127.0.0.3")
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        there = replace(host(NextHop(port=port)), source="127.0.0.4")
        await bench.attempt(bench.work(there))
        await bench.attempt(bench.work(replace(there, source="")))
        ended = await bench.attempt(bench.work(replace(there, source="::1")))
    assert seen == ["127.0.0.4", "127.0.0.3"]
    assert "one is IPv4 and the other IPv6" in ended.results[0][1].reply


async def test_a_source_that_is_not_ours_is_named(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(replace(host(hop), source="192.0.2.1")))
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.4.1")]
    assert "from 192.0.2.1: Cannot assign requested address" in ended.results[0][1].reply
