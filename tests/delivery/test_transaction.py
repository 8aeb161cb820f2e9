"""One transaction with a real server that says what the test wants, with PIPELINING and without."""

import asyncio
from collections.abc import Callable

import pytest

from mailtui.delivery.transaction import Result
from mailtui.model import Outcome
from tests.delivery.conftest import BODY, Bench, turns
from tests.support.nexthop import DROP, RESET, NextHop

THREE = ("a@dest.test", "b@dest.test", "c@dest.test")
BOTH = pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])


def kinds(result: Result) -> list[tuple[Outcome, str]]:
    """(outcome, enhanced) by ordinal."""
    return [(verdict.outcome, verdict.enhanced) for _, verdict in sorted(result.verdicts.items())]


def keywords(hop: NextHop, pipelining: bool) -> None:
    hop.keywords = ["PIPELINING", "8BITMIME"] if pipelining else ["8BITMIME"]


@BOTH
async def test_a_message_arrives_byte_for_byte(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    keywords(hop, pipelining)
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert kinds(result) == [(Outcome.DELIVERED, "2.0.0")] * 3
    assert result.ended is None
    [got] = hop.messages
    assert (got.sender, got.recipients, got.data) == ("a@sender.test", list(THREE), BODY)


async def test_with_pipelining_the_envelope_leaves_in_one_write(bench: Bench, hop: NextHop) -> None:
    hop.keywords = ["PIPELINING"]
    gate = asyncio.Event()

    async def wait(line: str) -> str:
        await gate.wait()
        return "250 ok"

    hop.mail = [wait]
    session = await bench.session(hop)
    sending = asyncio.create_task(bench.transact(session, bench.message(THREE)))
    await hop.commanded("MAIL")
    # The server has answered nothing yet, and everything up to DATA is written.
    assert session._queue is not None
    written = b"".join(data for _, direction, data in session._queue.transcript if direction == ">")
    assert written.endswith(b"RCPT TO:<c@dest.test>\r\nDATA\r\n")
    gate.set()
    assert len((await sending).verdicts) == 3


async def test_without_pipelining_each_command_waits_for_its_answer(bench: Bench, hop: NextHop) -> None:
    hop.keywords = []
    gate = asyncio.Event()

    async def wait(line: str) -> str:
        await gate.wait()
        return "250 ok"

    hop.mail = [wait]
    session = await bench.session(hop)
    sending = asyncio.create_task(bench.transact(session))
    await hop.commanded("MAIL")
    assert session._queue is not None
    written = b"".join(data for _, direction, data in session._queue.transcript if direction == ">")
    assert b"RCPT" not in written
    gate.set()
    await sending


async def test_size_and_body_are_declared_where_they_are_known(bench: Bench, hop: NextHop) -> None:
    session = await bench.session(hop)
    await bench.transact(session, bench.message(eight_bit=True))
    assert hop.lines("MAIL") == [f"MAIL FROM:<a@sender.test> SIZE={len(BODY)} BODY=8BITMIME"]
    hop.keywords = []
    await bench.transact(await bench.session(hop))
    assert hop.lines("MAIL")[1] == "MAIL FROM:<a@sender.test>"


async def test_the_null_sender_is_an_empty_path(bench: Bench, hop: NextHop) -> None:
    await bench.transact(await bench.session(hop), bench.message(sender=""))
    assert hop.messages[0].sender == ""


@BOTH
async def test_every_recipient_has_a_reply_of_its_own(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    keywords(hop, pipelining)
    hop.recipients = {"a@dest.test": "550 5.1.1 no such user", "c@dest.test": "451 4.7.1 greylisted"}
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert kinds(result) == [(Outcome.BOUNCED, "5.1.1"), (Outcome.DELIVERED, "2.0.0"), (Outcome.DEFERRED, "4.7.1")]
    assert [each.recipients for each in hop.messages] == [["b@dest.test"]]


@BOTH
async def test_552_and_452_after_others_were_taken_leave_the_rest_for_later(
    bench: Bench, hop: NextHop, pipelining: bool
) -> None:
    keywords(hop, pipelining)
    hop.rcpt = ["250 ok", "552 5.5.3 too many", "452 4.5.3 too many"]
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert kinds(result) == [(Outcome.DELIVERED, "2.0.0"), (Outcome.DEFERRED, "4.5.3"), (Outcome.DEFERRED, "4.5.3")]


@BOTH
@pytest.mark.parametrize("data", ["554 5.5.1 no valid recipients", "354 go on all the same"])
async def test_with_no_recipient_left_no_octet_of_the_message_is_sent(
    bench: Bench, hop: NextHop, pipelining: bool, data: str
) -> None:
    keywords(hop, pipelining)
    hop.rcpt, hop.data, hop.dot = "550 5.1.1 no", data, ["554 5.5.1 no valid recipients"]
    session = await bench.session(hop)
    result = await bench.transact(session, bench.message(THREE))
    assert kinds(result) == [(Outcome.BOUNCED, "5.1.1")] * 3
    assert all(each.data == b"" for each in hop.transactions)
    assert session.open


@BOTH
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_after_a_refusal_the_session_takes_the_next_message(
    bench: Bench, hop: NextHop, pipelining: bool, step: str
) -> None:
    """A server that has a transaction open answers the next MAIL with 503: the old one must be reset."""
    keywords(hop, pipelining)
    begun = False

    def mail(line: str) -> str:
        nonlocal begun
        if begun:
            return "503 5.5.1 nested MAIL command"
        begun = True
        return "250 2.1.0 ok"

    def end(answer: str) -> Callable[[str], str]:
        def step(line: str) -> str:
            nonlocal begun
            begun = False
            return answer

        return step

    hop.mail = [mail, mail]
    hop.dot = [end("250 2.0.0 ok")]
    hop.rset = end("250 2.0.0 ok")
    if step == "dot":
        hop.dot.insert(0, end("451 4.3.0 no"))
    else:
        getattr(hop, step).insert(0, "451 4.3.0 no")
    session = await bench.session(hop)
    assert kinds(await bench.transact(session)) == [(Outcome.DEFERRED, "4.3.0")]
    assert kinds(await bench.transact(session)) == [(Outcome.DELIVERED, "2.0.0")]
    assert hop.connections == 1


@BOTH
@pytest.mark.parametrize(("answer", "outcome"), [("550 5.7.1 no", Outcome.BOUNCED), ("451 4.7.1 no", Outcome.DEFERRED)])
async def test_a_refused_mail_is_the_answer_for_everybody(
    bench: Bench, hop: NextHop, pipelining: bool, answer: str, outcome: Outcome
) -> None:
    keywords(hop, pipelining)
    hop.mail = [answer]
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert [verdict.outcome for verdict in result.verdicts.values()] == [outcome] * 3
    assert hop.transactions == []


@BOTH
@pytest.mark.parametrize(
    ("step", "answer", "outcome"),
    [
        ("data", "554 5.6.0 no", Outcome.BOUNCED), ("data", "451 4.3.0 no", Outcome.DEFERRED),
        ("dot", "554 5.6.0 no", Outcome.BOUNCED), ("dot", "452 4.3.1 no", Outcome.DEFERRED),
        ("dot", "354 what?", Outcome.DEFERRED),
    ],
)  # fmt: skip
async def test_an_answer_to_data_or_dot_is_for_the_accepted_ones(
    bench: Bench, hop: NextHop, pipelining: bool, step: str, answer: str, outcome: Outcome
) -> None:
    keywords(hop, pipelining)
    hop.recipients = {"b@dest.test": "550 5.1.1 no such user"}
    setattr(hop, step, [answer])
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert [result.verdicts[n].outcome for n in (1, 2, 3)] == [outcome, Outcome.BOUNCED, outcome]
    assert result.verdicts[2].enhanced == "5.1.1"


async def test_an_answer_to_data_that_is_neither_354_nor_a_refusal_ends_the_session(bench: Bench, hop: NextHop) -> None:
    hop.data = ["250 2.0.0 ok"]
    session = await bench.session(hop)
    result = await bench.transact(session)
    assert kinds(result) == [(Outcome.DEFERRED, "4.5.0")]
    assert not session.open
    assert hop.transactions == []


@BOTH
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_421_at_any_step_closes_and_defers_the_rest(
    bench: Bench, hop: NextHop, pipelining: bool, step: str
) -> None:
    keywords(hop, pipelining)
    setattr(hop, step, ["421 4.3.2 going down"])
    session = await bench.session(hop)
    result = await bench.transact(session, bench.message(THREE))
    assert result.verdicts == {}
    assert result.ended is not None
    assert (result.ended.outcome, result.ended.code, result.ended.enhanced) == (Outcome.DEFERRED, 421, "4.3.2")
    assert (result.limited, result.doubtful, result.stale) == (False, False, step == "mail")
    assert not session.open


@BOTH
async def test_a_421_that_names_a_policy_asks_us_to_stay_away(bench: Bench, hop: NextHop, pipelining: bool) -> None:
    keywords(hop, pipelining)
    hop.rcpt = ["250 ok", "421 4.7.0 too many messages from you"]
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert result.limited


@BOTH
@pytest.mark.parametrize("how", [DROP, RESET], ids=str)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_a_connection_lost_before_the_message_defers(
    bench: Bench, hop: NextHop, pipelining: bool, step: str, how: object
) -> None:
    keywords(hop, pipelining)
    setattr(hop, step, [how])
    session = await bench.session(hop)
    result = await bench.transact(session)
    assert result.ended is not None
    assert (result.ended.outcome, result.ended.enhanced) == (Outcome.DEFERRED, "4.4.2")
    assert (result.doubtful, result.stale) == (False, step == "mail")
    assert not session.open


@pytest.mark.parametrize("how", [DROP, RESET], ids=str)
async def test_a_connection_lost_after_the_final_dot_is_doubtful_and_said_so(
    bench: Bench, hop: NextHop, how: object
) -> None:
    hop.dot = [how]  # type: ignore[list-item]
    result = await bench.transact(await bench.session(hop))
    assert result.doubtful
    assert result.ended is not None
    assert result.ended.outcome is Outcome.DEFERRED
    assert "may arrive twice" in result.ended.reply


async def test_what_was_refused_before_the_loss_stays_refused(bench: Bench, hop: NextHop) -> None:
    hop.rcpt, hop.data = ["550 5.1.1 no"], [DROP]
    result = await bench.transact(await bench.session(hop), bench.message(THREE))
    assert kinds(result) == [(Outcome.BOUNCED, "5.1.1")]
    assert result.ended is not None


async def test_a_spooled_message_is_streamed_from_its_pieces(bench: Bench, hop: NextHop) -> None:
    bench.spooled[7] = [b"Received: x\r\n\r\n.do", b"t\r", b"\n.", b"\r\nend\r\n"]
    result = await bench.transact(await bench.session(hop), bench.message(body=None))
    assert kinds(result) == [(Outcome.DELIVERED, "2.0.0")]
    assert hop.messages[0].data == b"".join(bench.spooled[7])


async def test_a_spool_file_that_cannot_be_read_is_our_trouble_and_nothing_of_it_is_taken(
    bench: Bench, hop: NextHop
) -> None:
    session = await bench.session(hop)
    result = await bench.transact(session, bench.message(body=None))
    assert result.ended is not None
    assert (result.ended.outcome, result.ended.enhanced) == (Outcome.DEFERRED, "4.3.0")
    assert not session.open
    await hop.idle()
    assert hop.transactions == []


@pytest.mark.parametrize(
    ("answer", "outcome", "enhanced"),
    [
        ("552 5.3.4 too big", Outcome.BOUNCED, "5.3.4"),
        ("451 4.3.0 trouble", Outcome.DEFERRED, "4.3.0"),
        ("421 4.3.2 going down", Outcome.DEFERRED, "4.3.2"),
        ("250 2.0.0 ok", Outcome.DEFERRED, "4.4.2"),
    ],
)
async def test_a_refusal_amid_a_large_message_counts_and_an_early_consent_does_not(
    bench: Bench, hop: NextHop, answer: str, outcome: Outcome, enhanced: str
) -> None:
    bench.spooled[7] = [b"Received: x\r\n\r\n", *[b"x" * 70 + b"\r\n"] * 2000]
    told = asyncio.Event()

    async def refuse(line: str) -> bytes:
        told.set()
        return b"354 go on\r\n" + answer.encode() + b"\r\n"

    hop.data = [refuse]
    session = await bench.session(hop)
    result = await bench.transact(session, bench.message(body=None))
    assert told.is_set()
    assert result.ended is not None
    assert (result.ended.outcome, result.ended.enhanced) == (outcome, enhanced)
    assert not session.open


async def test_an_address_that_would_break_the_dialogue_is_never_sent(bench: Bench, hop: NextHop) -> None:
    session = await bench.session(hop)
    result = await bench.transact(session, bench.message(["b@dest.test>\r\nRCPT TO:<evil@x.test"]))
    assert result.ended is not None
    assert result.ended.outcome is Outcome.DEFERRED
    await hop.idle()
    assert hop.lines("RCPT") == hop.lines("MAIL") == []


async def test_an_unasked_reply_before_mail_ends_the_session_before_anything_is_sent(
    bench: Bench, hop: NextHop
) -> None:
    hop.ehlo = [b"250 mx.test\r\n250 2.1.0 injected\r\n"]
    session = await bench.session(hop)
    await turns()
    assert not session.open
    result = await bench.transact(session)
    assert result.stale
    assert hop.lines("MAIL") == []


async def test_a_hundred_recipients_are_answered_one_by_one(bench: Bench, hop: NextHop) -> None:
    hop.rcpt = [f"{250 if n % 3 else 550} 2.1.5 {n}" for n in range(100)]
    result = await bench.transact(await bench.session(hop), bench.message([f"u{n}@dest.test" for n in range(100)]))
    assert [result.verdicts[n + 1].outcome is Outcome.DELIVERED for n in range(100)] == [n % 3 > 0 for n in range(100)]
