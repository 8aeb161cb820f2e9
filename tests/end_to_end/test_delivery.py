"""A message gets through: taken, kept, delivered; deferred, tried again, given up."""

import asyncio
from datetime import datetime

import pytest

from mailtui.clock import ManualClock
from mailtui.delivery.retry import JITTER
from tests.end_to_end.conftest import MESSAGE, Live, Start, smarthost, stored
from tests.support.client import Client
from tests.support.nexthop import DROP, HANG, Answer, NextHop


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_a_message_arrives_byte_for_byte_with_one_received_line_on_top(relay: Live, hop: NextHop) -> None:
    # Q10
    number = await relay.send()
    [got] = await hop.received(1)
    await relay.told("delivered")
    trace, content = stored(got.data)
    assert content == MESSAGE
    assert trace.startswith(b"Received: from client.test ([127.0.0.1])")
    assert b"by relay.test with ESMTP id " + number.encode() in trace
    assert (got.sender, got.recipients) == ("ann@sender.test", ["bob@dest.test"])
    assert await relay.rows() == []
    [past] = await relay.history()
    assert (past["rid"], past["result"], past["code"], past["enhanced"]) == (f"{number}.1", "delivered", "250", "2.0.0")
    assert (past["sender"], past["recipient"]) == ("ann@sender.test", "bob@dest.test")
    assert (past["subject"], past["message_id"], past["attempts"]) == ("hello", "<1@sender.test>", 1)


async def test_the_id_that_the_next_hop_gives_is_in_the_history(relay: Live, hop: NextHop) -> None:
    hop.dot = ["250 2.0.0 Ok: queued as 4BxK2T1Zzz"]
    await relay.send()
    await relay.told("delivered")
    assert [past["remote_id"] for past in await relay.history()] == ["4BxK2T1Zzz"]


async def test_8_bit_content_arrives_as_it_is(relay: Live, hop: NextHop) -> None:
    content = "Subject: caf\u00e9\r\n\r\nna\u00efve\r\n".encode("latin-1") + b"\xff\xfe\r\n"
    await relay.send(content=content, options=["BODY=8BITMIME"])
    [got] = await hop.received(1)
    assert stored(got.data)[1] == content
    assert "BODY=8BITMIME" in got.mail_parameters


async def test_a_large_message_goes_through_a_file_that_is_gone_afterwards(relay: Live, hop: NextHop) -> None:
    line = b".a line that begins with a dot, and another one\r\n"
    content = b"Subject: large\r\n\r\n" + line * (1024 * 1024 // len(line))
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 ok"

    hop.mail = [wait]
    number = await relay.send(content=content)
    await hop.commanded("MAIL")
    assert relay.spool_files() == [number]
    gate.set()
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert stored(got.data)[1] == content
    assert relay.spool_files() == []


async def test_a_deferral_is_tried_again_on_the_schedule_and_delivered(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    # Q03
    hop.rcpt = ["451 4.7.1 greylisted, come back"] * 2
    rid = await relay.send() + ".1"
    arrived = clock.now()
    for attempts, delay in ((1, 300), (2, 600)):
        await relay.told("deferred", attempts)
        row = await relay.row(rid)
        assert (row["state"], row["attempts"]) == ("deferred", attempts)
        assert (row["last_code"], row["last_enhanced"], row["last_reply"]) == ("451", "4.7.1", "greylisted, come back")
        wait = seconds(row["next_attempt"]) - clock.now()
        assert delay - 0.001 <= wait <= delay * (1 + JITTER)
        assert seconds(row["expires"]) == arrived + 432000
        why = await relay.why(rid)
        assert (why["limiter"], why["rule"]) == ("retry-clock", "[retry] schedule")
        assert "451 4.7.1 greylisted, come back" in why["because"]
        assert why["next_attempt"] == row["next_attempt"]
        assert len(hop.lines("MAIL")) == attempts
        await relay.pass_time(wait - 1)
        assert len(hop.lines("MAIL")) == attempts
        clock.advance(1.1)
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert stored(got.data)[1] == MESSAGE
    assert await relay.rows() == []
    [past] = await relay.history()
    assert (past["result"], past["attempts"]) == ("delivered", 3)
    tries = await relay.attempts(rid)
    assert [(each["code"], each["enhanced"]) for each in tries] == [("451", "4.7.1")] * 2
    assert "> MAIL FROM:<ann@sender.test>" in tries[0]["transcript"]


async def test_on_a_connection_it_is_active(relay: Live, hop: NextHop) -> None:
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 ok"

    hop.mail = [wait]
    rid = await relay.send() + ".1"
    await hop.commanded("MAIL")
    assert (await relay.row(rid))["state"] == "active"
    assert (await relay.why(rid))["limiter"] == "in-delivery"
    gate.set()
    await relay.told("delivered")


async def test_a_hop_that_never_answers_times_out_by_the_clock(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.mail = HANG
    rid = await relay.send() + ".1"
    await hop.commanded("MAIL")
    await relay.pass_time(299)
    assert relay.events.counts.get("deferred") is None
    clock.advance(1)
    await relay.told("deferred")
    row = await relay.row(rid)
    assert (row["state"], row["last_code"], row["last_enhanced"]) == ("deferred", None, "4.4.2")
    assert "timed out waiting for the reply to MAIL" in (await relay.why(rid))["because"]


async def test_a_hop_that_is_away_says_so(relay: Live, hop: NextHop) -> None:
    await hop.stop()
    rid = await relay.send() + ".1"
    await relay.told("deferred")
    why = await relay.why(rid)
    assert why["limiter"] == "next-hop-backoff"
    assert "Connection refused" in why["because"]
    assert why["next_attempt"] == (await relay.row(rid))["next_attempt"]


async def test_what_never_gets_through_is_given_up_after_five_days_with_a_bounce(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    """Every attempt falls when `queue list` says, the last one on the expiry."""
    hop.recipients = {"bob@dest.test": "451 no code, no luck"}
    rid = await relay.send() + ".1"
    arrived = clock.now()
    waits: list[float] = []
    for attempts in range(1, 100):
        await relay.told("deferred", attempts)
        row = await relay.row(rid)
        assert (row["attempts"], len(hop.lines("MAIL FROM:<ann@sender.test>"))) == (attempts, attempts)
        due = seconds(row["next_attempt"])
        waits.append(due - clock.now())
        assert due <= arrived + 432000
        clock.advance(due - clock.now() + 0.001)
        if due == arrived + 432000:
            break
    for wait, wanted in zip(waits, [300, 600, 1800, 3600, 7200, *[14400] * 100], strict=False):
        assert wait <= wanted * (1 + JITTER) + 0.001
        assert wait >= wanted - 0.002 or wait == waits[-1]
    await relay.told("bounced")
    assert len(hop.lines("MAIL FROM:<ann@sender.test>")) == len(waits) + 1
    [warning, report] = await hop.received(2)
    await relay.told("delivered", 2)
    assert b"Action: delayed" in warning.data
    assert (report.sender, report.recipients) == ("", ["ann@sender.test"])
    assert b"Status: 4.4.7" in report.data
    assert b"Action: failed" in report.data
    assert b"Diagnostic-Code: smtp; 451" in report.data
    [_warning, past, _report] = await relay.history()
    assert (past["rid"], past["result"], past["code"], past["enhanced"]) == (rid, "bounced", "451", "4.4.7")
    assert await relay.rows() == []


async def test_after_a_connection_lost_at_the_final_dot_it_is_sent_again(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    hop.dot = [DROP]
    rid = await relay.send() + ".1"
    await relay.told("deferred")
    assert "may arrive twice" in (await relay.row(rid))["last_reply"]
    clock.advance(300 * (1 + JITTER))
    await hop.received(1)
    assert len(hop.transactions) == 2


async def test_two_messages_use_one_connection_and_pipelining(relay: Live, hop: NextHop) -> None:
    for number in range(1, 4):
        await relay.send()
        await relay.told("delivered", number)
    assert hop.connections == 1
    assert len(hop.lines("EHLO")) == 1
    assert {each.connection for each in hop.messages} == {1}


async def test_with_pipelining_no_command_of_the_envelope_waits_for_an_answer(relay: Live, hop: NextHop) -> None:
    await relay.send(["a@dest.test", "b@dest.test"])
    await relay.told("delivered", 2)
    assert [line.partition(" ")[0] for _, line in hop.commands] == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA"]
    hop.dot = ["451 4.3.0 later"]
    rid = await relay.send() + ".1"
    await relay.told("deferred")
    # Its transcript shows what was written before the first answer came.
    [tried] = await relay.attempts(rid)
    said = [line.split(maxsplit=2)[1:] for line in tried["transcript"].splitlines()]
    first_answer = [direction for direction, _ in said].index("<")
    assert [words.partition(" ")[0] for _, words in said[:first_answer]] == ["MAIL", "RCPT", "DATA"]


async def test_a_client_that_leaves_right_after_the_final_dot_has_sent_exactly_one_copy(
    relay: Live, hop: NextHop
) -> None:
    client = await relay.client()
    assert (await relay.transaction(client)).code == 354
    await client.send(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    client.writer.transport.abort()
    await client.close()
    await relay.told("delivered")
    assert [stored(each.data)[1] for each in hop.messages] == [MESSAGE]
    assert await relay.rows() == []


async def test_a_client_that_leaves_before_the_final_dot_has_sent_nothing(relay: Live, hop: NextHop) -> None:
    client = await relay.client()
    assert (await relay.transaction(client)).code == 354
    await client.send(MESSAGE.replace(b"\r\n.", b"\r\n.."))
    client.writer.transport.abort()
    await client.close()
    number = await relay.send()
    await relay.told("delivered")
    assert [past["id"] for past in await relay.history()] == [number]
    assert len(hop.messages) == 1


@pytest.mark.parametrize("keywords", [["PIPELINING", "SIZE 1000000"], []])
async def test_8_bit_content_that_the_next_hop_does_not_take_is_returned(
    relay: Live, hop: NextHop, keywords: list[str]
) -> None:
    hop.keywords = keywords
    number = await relay.send(content=b"Subject: x\r\n\r\n\xe9\r\n", options=["BODY=8BITMIME"])
    await relay.told("bounced")
    [past] = await relay.history(number)
    assert (past["result"], past["enhanced"]) == ("bounced", "5.6.3")
    assert hop.lines("MAIL FROM:<ann@sender.test>") == []


async def test_recipients_at_one_next_hop_share_a_transaction_and_each_has_its_verdict(
    relay: Live, hop: NextHop
) -> None:
    hop.recipients = {"no@one.test": "550 5.1.1 no such user"}
    number = await relay.send(["yes@one.test", "no@one.test", "also@two.test"])
    await relay.told("bounced")
    [message, report] = await hop.received(2)
    await relay.told("delivered", 3)
    assert message.recipients == ["yes@one.test", "also@two.test"]
    assert message.refused == ["no@one.test"]
    past = {each["rid"]: each["result"] for each in await relay.history(number)}
    assert past == {f"{number}.1": "delivered", f"{number}.2": "bounced", f"{number}.3": "delivered"}
    assert report.data.count(b"Final-Recipient:") == 1
    assert b"Final-Recipient: rfc822; no@one.test" in report.data


async def test_delivered_recipients_are_not_sent_again_when_others_are(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    hop.recipients = {"later@one.test": ["451 4.7.1 greylisted"]}
    number = await relay.send(["now@one.test", "later@one.test"])
    await relay.told("deferred")
    assert [row["recipient"] for row in await relay.rows()] == ["later@one.test"]
    clock.advance(300 * (1 + JITTER))
    await hop.received(2)
    await relay.told("delivered", 2)
    assert [each.recipients for each in hop.messages] == [["now@one.test"], ["later@one.test"]]
    assert [each["attempts"] for each in await relay.history(number)] == [1, 2]


async def test_domains_with_different_next_hops_get_a_copy_each(relay_of: Start) -> None:
    async with NextHop() as one, NextHop() as two:
        routes = "".join(
            f'[[route]]\nmatch = "{name}.test"\ntarget = "smtp://[127.0.0.1]:{hop.port}"\n'
            for name, hop in (("one", one), ("two", two))
        )
        async with relay_of(routes) as relay:
            await relay.send(["a@one.test", "b@two.test", "c@one.test"])
            await relay.told("delivered", 3)
        assert [each.recipients for each in one.messages] == [["a@one.test", "c@one.test"]]
        assert [each.recipients for each in two.messages] == [["b@two.test"]]
        assert one.messages[0].data == two.messages[0].data


async def test_more_than_a_hundred_recipients_are_split(relay: Live, hop: NextHop) -> None:
    # Q05
    everybody = [f"u{n}@dest.test" for n in range(150)]
    await relay.send(everybody)
    await relay.told("delivered", 150)
    assert sorted(len(each.recipients) for each in hop.messages) == [50, 100]
    assert sorted(a for each in hop.messages for a in each.recipients) == sorted(everybody)


async def test_the_first_command_of_a_client_meets_a_relay_that_stands(relay_of: Start, hop: NextHop) -> None:
    async with relay_of(smarthost(hop)) as relay, await Client.connect(relay.port) as client:
        assert client.greeting.lines == ("220 relay.test ESMTP mailtui",)
