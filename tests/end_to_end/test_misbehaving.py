"""A next hop that misbehaves in every way: nothing is lost, nothing is doubled, and `why` says it in one sentence.

Each case is a message to a next hop that does something wrong once. What is said of it then is looked at; after that
the next hop is a good one, and what waited is delivered, once. Standards D09, D10, Q02, Q08, Q09, Q11, Q12.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import trustme

from mailtui.clock import ManualClock
from mailtui.delivery.retry import JITTER
from tests.end_to_end.conftest import Live, Start, smarthost
from tests.support.nexthop import DROP, HANG, RESET, Answer, Last, NextHop, Pieces, Step

TO = "bob@dest.test"

# To the end of the first retry, whatever the jitter.
FIRST_RETRY = 300 * (1 + JITTER) + 1


@dataclass(frozen=True)
class Case:
    """What the next hop does (`step` of its scripts, one time), and what becomes of the message.

    `ends`: delivered, deferred or bounced; `says` stands in the reply that is kept; `down`: the next hop as a whole is
    left alone for a while; `waits`: seconds after which our patience is over; `taken`: how often the next hop got the
    message, from the first word to the last."""

    step: str
    answer: Step
    ends: str
    says: str = ""
    code: str = ""
    down: bool = False
    waits: float = 0.0
    taken: int = 1


def lines(code: int, count: int, last: str = "end") -> bytes:
    return b"".join(b"%d-line %d\r\n" % (code, n) for n in range(count)) + f"{code} {last}\r\n".encode()


CASES = {
    # The greeting.
    "greeting 421": Case("greeting", "421 4.3.2 busy", "deferred", "busy", "421", down=True),
    "greeting 450": Case("greeting", "450 4.3.2 later", "deferred", "later", "450", down=True),
    "greeting 554": Case("greeting", "554 5.7.1 no service here", "deferred", "no service here", "554", down=True),
    "greeting 521": Case("greeting", "521 I take no mail", "deferred", "I take no mail", "521", down=True),
    "greeting 250": Case("greeting", "250 hello", "deferred", "hello", "250", down=True),
    "greeting is another protocol": Case(
        "greeting", b"SSH-2.0-OpenSSH_9.2\r\n", "deferred", "not SMTP: b'SSH-2.0-OpenSSH_9.2", down=True
    ),
    "greeting is HTML": Case(
        "greeting", b"HTTP/1.1 400 Bad Request\r\n\r\n<html>", "deferred", "not SMTP: b'HTTP/1.1 400", down=True
    ),
    "greeting is binary": Case("greeting", b"\x16\x03\x01\x02\x00\n\x00\xff", "deferred", "not SMTP", down=True),
    "greeting never comes": Case(
        "greeting", HANG, "deferred", "timed out waiting for the greeting", down=True, waits=301
    ),
    "greeting without end": Case("greeting", b"220 ne", "deferred", "timed out", down=True, waits=301),
    "greeting with endless lines": Case(
        "greeting", b"220-x\r\n" * 6000, "deferred", "more reply than any server has to send", down=True
    ),
    "greeting as one endless line": Case(
        "greeting", b"220 " + b"x" * 100_000, "deferred", "more reply than any server has to send", down=True
    ),
    "greeting is a close": Case("greeting", DROP, "deferred", "closed", down=True),
    "greeting is a reset": Case("greeting", RESET, "deferred", "reset", down=True),
    "greeting of several lines": Case("greeting", "220 next.test\nhello\nESMTP", "delivered"),
    "greeting and more, unasked": Case(
        "greeting", b"220 next.test\r\n250 I speak first\r\n", "deferred", "unasked reply", down=True
    ),
    # EHLO.
    "EHLO 421": Case("ehlo", "421 4.3.2 not now", "deferred", "not now", "421", down=True),
    "EHLO unknown, HELO taken": Case("ehlo", "502 5.5.1 what?", "delivered"),  # D10
    "EHLO syntax error, HELO taken": Case("ehlo", "500 what?", "delivered"),
    "EHLO is a close": Case("ehlo", DROP, "deferred", "closed", down=True),
    "EHLO is a close in the middle": Case("ehlo", Last(b"250-next.test\r\n250-SI"), "deferred", "closed", down=True),
    "EHLO never answered": Case("ehlo", HANG, "deferred", "timed out", down=True, waits=301),
    "EHLO of 2,000 lines": Case("ehlo", lines(250, 2000), "delivered"),
    "EHLO with nonsense keywords": Case(
        "ehlo",
        b"250-next.test\r\n250-SIZE many\r\n250-\x00\xff\r\n250-=\r\n250-LIMITS RCPTMAX=none\r\n250 \r\n",
        "delivered",
    ),
    "EHLO with codes that differ": Case("ehlo", b"250-next.test\r\n550-PIPELINING\r\n250 SIZE\r\n", "delivered"),
    # MAIL.
    "MAIL 421": Case("mail", "421 4.3.2 closing", "deferred", "closing", "421"),
    "MAIL 421 for the rate": Case("mail", "421 4.7.28 too much mail", "deferred", "too much mail", "421", down=True),
    "MAIL 451": Case("mail", "451 4.3.0 try later", "deferred", "try later", "451"),
    "MAIL 550": Case("mail", "550 5.7.1 not from you", "bounced", "not from you", "550"),  # Q12
    "MAIL is a close": Case("mail", DROP, "deferred", "closed"),
    "MAIL is a reset": Case("mail", RESET, "deferred", "reset"),
    "MAIL is a close in the middle": Case("mail", Last(b"250 2.1"), "deferred", "closed"),
    "MAIL is a close after PIPELINING was promised": Case("mail", Last(b"250 2.1.0 ok\r\n"), "deferred", "closed"),
    "MAIL never answered": Case("mail", HANG, "deferred", "timed out waiting for the reply to MAIL", waits=301),
    "MAIL with an unknown code": Case("mail", "299 fine", "delivered"),  # Q08
    "MAIL with a code of no class": Case("mail", b"650 what\r\n", "deferred", "not SMTP: b'650 what"),
    "MAIL with two digits": Case("mail", b"25 ok\r\n", "deferred", "not SMTP: b'25 ok"),
    "MAIL with four digits": Case("mail", b"2500 ok\r\n", "deferred", "not SMTP: b'2500 ok"),
    "MAIL with a bare code": Case("mail", b"250\r\n", "delivered"),
    "MAIL with a bare line feed": Case("mail", b"250 ok\n", "delivered"),
    "MAIL is an intermediate reply": Case("mail", "354 go on", "deferred", "go on", "354"),
    # RCPT.
    "RCPT 421": Case("rcpt", "421 4.3.2 closing", "deferred", "closing", "421"),
    "RCPT 450": Case("rcpt", "450 4.2.0 greylisted", "deferred", "greylisted", "450"),
    "RCPT 550": Case("rcpt", "550 5.1.1 nobody", "bounced", "nobody", "550"),
    "RCPT 552": Case("rcpt", "552 5.2.2 full", "bounced", "full", "552"),  # the first: not "too many" (Q06)
    "RCPT 251": Case("rcpt", "251 2.1.5 will forward", "delivered"),
    "RCPT is a close": Case("rcpt", DROP, "deferred", "closed"),
    "RCPT never answered": Case("rcpt", HANG, "deferred", "timed out waiting for the reply to RCPT", waits=301),
    "RCPT answered twice": Case("rcpt", b"250 2.1.5 ok\r\n250 2.1.5 ok\r\n", "deferred", "unexpected reply to DATA"),
    "RCPT answered with 8-bit octets": Case("rcpt", b"451 4.2.0 bo\xeete \xc3\xa9\r\n", "deferred", "te \u00e9", "451"),
    "RCPT answered with NUL and escapes": Case("rcpt", b"451 4.2.0 a\x00b\x1b[2Jc\x07\r\n", "deferred", "a", "451"),
    "RCPT answered with 2,000 lines": Case("rcpt", lines(450, 2000), "deferred", "line 0 line 1", "450"),
    # DATA.
    "DATA 421": Case("data", "421 4.3.2 closing", "deferred", "closing", "421"),
    "DATA 451": Case("data", "451 4.3.0 no room", "deferred", "no room", "451"),
    "DATA 554": Case("data", "554 5.7.1 no", "bounced", "no", "554"),
    "DATA 250 and no 354": Case("data", "250 2.0.0 queued as NOTHING", "deferred", "unexpected reply to DATA: 250"),
    "DATA 354 and 250 before the message": Case(
        "data", b"354 go on\r\n250 2.0.0 queued as NOTHING\r\n", "deferred", "an unasked reply: 250"
    ),
    "DATA is a close": Case("data", DROP, "deferred", "closed"),
    "DATA never answered": Case("data", HANG, "deferred", "timed out waiting for the reply to DATA", waits=121),
    "DATA 354 and a close": Case("data", Last(b"354 go on\r\n"), "deferred", "", taken=1),
    # The message.
    "dot 421": Case("dot", "421 4.3.2 closing", "deferred", "closing", "421", taken=2),
    "dot 451": Case("dot", "451 4.3.0 cannot", "deferred", "cannot", "451", taken=2),
    "dot 554": Case("dot", "554 5.6.0 spam", "bounced", "spam", "554"),
    "dot 552": Case("dot", "552 5.3.4 too big", "bounced", "too big", "552"),
    "dot with an intermediate reply": Case("dot", "354 more", "deferred", "more", "354", taken=2),
    "dot is a close": Case("dot", DROP, "deferred", "it may arrive twice", taken=2),  # Q09
    "dot is a reset": Case("dot", RESET, "deferred", "it may arrive twice", taken=2),
    "dot is a close in the middle": Case(
        "dot", Last(b"250 2.0.0 queued as 4"), "deferred", "it may arrive twice", taken=2
    ),
    "dot never answered": Case(
        "dot", HANG, "deferred", "timed out waiting for the reply to the message", waits=601, taken=2
    ),
    "dot answered and closed": Case("dot", Last(b"250 2.0.0 ok\r\n"), "delivered"),
    "dot answered, then 421": Case("dot", b"250 2.0.0 ok\r\n421 4.4.2 idle\r\n", "delivered"),
    "dot answered twice": Case("dot", b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n", "delivered"),
    "dot answered octet by octet": Case("dot", Pieces(*(bytes([c]) for c in b"250-2.0.0 a\r\n250 b\r\n")), "delivered"),
    "dot answered with NUL": Case("dot", b"250 2.0.0 o\x00k\r\n", "delivered"),
}


def readable(sentence: str) -> bool:
    """One sentence for people: a line, of a length that can be read, with nothing that moves a terminal."""
    return bool(sentence) and len(sentence) <= 700 and re.search(r"[\x00-\x1f\x7f-\x9f]", sentence) is None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a next hop that hangs tells nobody
            await asyncio.sleep(0)


def mine(hop: NextHop) -> list[bytes]:
    """The copies of the message that the next hop got whole; reports to its sender left out."""
    return [each.data for each in hop.transactions if each.recipients == [TO]]


@pytest.mark.parametrize("name", CASES)
async def test_a_next_hop_that_misbehaves(relay: Live, hop: NextHop, clock: ManualClock, name: str) -> None:
    case = CASES[name]
    setattr(hop, case.step, [case.answer])
    rid = await relay.send(TO) + ".1"
    if case.waits:
        verb = {"greeting": "", "ehlo": "EHLO", "mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "dot": "DATA"}[
            case.step
        ]
        await (hop.commanded(verb) if verb else hop.connected(1))
        if case.step == "dot":
            await until(lambda: bool(hop.transactions))
        await relay.quiet()
        assert not relay.events.counts.get("deferred")
        clock.advance(case.waits)
    await relay.told(case.ends)

    if case.ends == "deferred":
        row, why = await relay.row(rid), await relay.why(rid)
        assert (row["state"], row["attempts"]) == ("deferred", 1)
        assert case.says in row["last_reply"].replace("\n", " ")
        assert row["last_enhanced"].startswith("4.")
        assert (row["last_code"] or "") == case.code
        assert why["limiter"] == ("next-hop-backoff" if case.down else "retry-clock")
        assert readable(why["because"]), why["because"]
        [attempt] = await relay.attempts(rid)
        assert attempt["transcript"]
        if not case.down:  # the next one of somebody else is not held up by it
            await relay.send("eve@dest.test")
            await relay.told("delivered")
        clock.advance(FIRST_RETRY)
        await relay.told("delivered", 1 if case.down else 2)
    elif case.ends == "bounced":
        await relay.told("delivered")  # the report, by the same next hop
        [report] = [each for each in hop.messages if each.sender == ""]
        assert report.recipients == ["ann@sender.test"]
        assert case.says.encode() in report.data
    past = (await relay.history(rid))[0]
    assert past["result"] == ("bounced" if case.ends == "bounced" else "delivered")
    if case.ends == "bounced":
        assert (past["code"], case.says in past["reply"]) == (case.code, True)
        assert len(mine(hop)) == (1 if case.step == "dot" else 0)
    else:
        assert len(mine(hop)) == case.taken
        assert all(one.endswith(b"end\r\n") for one in mine(hop))

    # The hop is a good one again, and nothing of the case is left behind: not in the queue, not on a connection.
    assert await relay.rows() == []
    await relay.send("last@dest.test")
    await hop._reached(lambda: any(each.recipients == ["last@dest.test"] for each in hop.messages), 10.0)
    await relay.quiet()
    assert len(mine(hop)) == (case.taken if case.ends != "bounced" else int(case.step == "dot"))
    assert relay.relay.claimed() == []


def test_there_are_enough_ways_to_misbehave() -> None:
    assert len(CASES) >= 60
    assert {case.step for case in CASES.values()} == {"greeting", "ehlo", "mail", "rcpt", "data", "dot"}


# -- what takes more than one answer -----------------------------------------------------------------------------------


async def test_helo_refused_too(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.ehlo, hop.helo = ["502 what?"], ["502 what?"]
    rid = await relay.send() + ".1"
    await relay.told("deferred")
    assert "HELO" in (await relay.attempts(rid))[0]["transcript"]
    assert (await relay.why(rid))["limiter"] == "next-hop-backoff"
    clock.advance(FIRST_RETRY)
    await hop.received(1)


async def test_354_when_every_recipient_was_refused(relay: Live, hop: NextHop) -> None:
    """RFC 2920 section 3.2: it wants data for nobody, and gets none."""
    hop.rcpt, hop.data, hop.dot = ["550 5.1.1 nobody"], ["354 go on"], ["554 5.5.1 no valid recipients"]
    await relay.send(TO)
    await relay.told("bounced")
    await relay.told("delivered")
    assert [each.data for each in hop.transactions if each.recipients != ["ann@sender.test"]] == [b""]


async def test_a_recipient_refused_for_good_stays_refused_when_the_message_is_lost(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    # Q07: each recipient has a state of its own
    hop.rcpt, hop.dot = ["250 2.1.5 ok", "550 5.1.1 nobody", "450 4.2.0 later"], [DROP]
    number = await relay.send(["a@dest.test", "b@dest.test", "c@dest.test"])
    await relay.told("deferred", 2)
    await relay.told("bounced", 1)
    assert {row["recipient"]: "twice" in row["last_reply"] for row in await relay.rows(number)} == {
        "a@dest.test": True, "c@dest.test": False,
    }  # fmt: skip
    clock.advance(FIRST_RETRY)
    await relay.told("delivered", 3)
    results = {past["recipient"]: past["result"] for past in await relay.history(number)}
    assert results == {"a@dest.test": "delivered", "b@dest.test": "bounced", "c@dest.test": "delivered"}
    got = [to for each in hop.messages for to in each.recipients]
    assert got.count("c@dest.test") == 1
    assert got.count("b@dest.test") == 0


async def test_a_message_cut_off_in_the_middle_is_sent_again_whole(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    hop.interrupt = (100_000, RESET)
    content = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
    content += (b"y" * 98 + b"\r\n") * 4000
    rid = await relay.send(TO, content=content) + ".1"
    await relay.told("deferred")
    assert readable((await relay.why(rid))["because"])
    clock.advance(FIRST_RETRY)
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert got.data.endswith(content)


async def test_a_refusal_in_the_middle_of_a_large_message_is_its_answer(relay: Live, hop: NextHop) -> None:
    hop.interrupt = (100_000, "552 5.3.4 larger than I take")
    content = b"Subject: large\r\n\r\n" + (b"y" * 98 + b"\r\n") * 80_000
    rid = await relay.send(TO, content=content) + ".1"
    await relay.told("bounced")
    [past] = await relay.history(rid)
    assert (past["code"], past["reply"]) == ("552", "larger than I take")


async def test_an_idle_connection_that_is_reset_costs_nothing(relay: Live, hop: NextHop) -> None:
    """It accepted the message and reset the connection: the next message goes over a new one, at once."""
    hop.mail = ["250 2.1.0 ok", RESET]
    await relay.send("a@dest.test")
    await relay.told("delivered")
    rid = await relay.send("b@dest.test") + ".1"
    await relay.told("delivered", 2)
    assert relay.events.counts.get("deferred", 0) == 0
    assert [past["attempts"] for past in await relay.history(rid)] == [1]
    assert hop.connections == 2


async def test_a_lost_session_is_told_as_a_possible_duplicate(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    # Q09: logged as such
    hop.dot = [DROP]
    await relay.send(TO)
    await relay.told("deferred")
    log = relay.events._stream.getvalue()  # type: ignore[union-attr]
    assert "it may arrive twice" in log
    clock.advance(FIRST_RETRY)
    await relay.told("delivered")
    assert len(mine(hop)) == 2


async def test_421_at_every_message_ends_in_one_connection_at_a_time(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    # Q11, R08: the window goes down to one and comes back
    hop.mail = "421 4.3.2 not now"
    await relay.send_many([f"u{n}@dest.test" for n in range(30)])
    await relay.told("deferred", 30)
    [facts] = await relay.relay.destinations("hop")
    assert (facts["window"], facts["state"]) == (1, "slow")
    hop.mail = []
    hop.peak = 0
    clock.advance(FIRST_RETRY)
    await relay.told("delivered", 30)
    [facts] = await relay.relay.destinations("hop")
    assert facts["window"] > 1


async def test_it_is_slow_where_it_hangs_and_dest_list_says_so(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.dot = [HANG]
    await relay.send(TO)
    await until(lambda: bool(hop.transactions))
    clock.advance(100)
    await relay.quiet()
    [facts] = await relay.relay.destinations("hop")
    assert (facts["state"], facts["reason"]) == ("slow", "a message has been on a connection for 100 s")


@pytest.mark.parametrize("step", ["greeting", "mail", "dot"])
async def test_a_burst_through_a_hop_that_fails_at_random_arrives_once(
    relay: Live, hop: NextHop, clock: ManualClock, step: str
) -> None:
    """Every seventh time it does something else; 200 messages arrive, each accepted once."""
    ways: list[Answer] = [DROP, RESET, "421 4.3.2 no", b"garbage\r\n", "451 4.3.0 no", Last(b"25")]
    calls = 0
    good = {"greeting": "220 next.test ESMTP", "mail": "250 2.1.0 ok", "dot": "250 2.0.0 ok"}[step]

    def sometimes(line: str) -> Answer:
        nonlocal calls
        calls += 1
        return ways[calls // 7 % len(ways)] if calls % 7 == 3 else good

    setattr(hop, step, sometimes)
    await relay.send_many([f"u{n}@dest.test" for n in range(200)])
    for _ in range(400):
        await relay.quiet()
        if relay.events.counts.get("delivered", 0) == 200:
            break
        clock.advance(60)
    assert relay.events.counts["delivered"] == 200
    accepted = [each for each in hop.messages if each.reply != "25"]  # the others it never said to the end
    got = [to for each in accepted for to in each.recipients]
    assert sorted(got) == sorted(f"u{n}@dest.test" for n in range(200))
    assert await relay.rows() == []


# -- STARTTLS (standards section 4) ------------------------------------------------------------------------------------

BROKEN_TLS: dict[str, Answer] = {
    "refused": "454 4.7.0 TLS not available",
    "a close": DROP,
    "a reset": RESET,
    "accepted, then a close": Last(b"220 2.0.0 go\r\n"),
    "accepted, then no handshake": Last(b"220 2.0.0 go\r\n", b"250 2.0.0 not TLS\r\n"),
    "accepted with more, injected": Last(b"220 2.0.0 go\r\n250 2.0.0 injected\r\n"),
}


@pytest.fixture
async def secure() -> AsyncIterator[NextHop]:
    """A next hop that offers STARTTLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with NextHop(tls=context) as hop:
        yield hop


@pytest.mark.parametrize("how", [how for how in BROKEN_TLS if "injected" not in how])
async def test_broken_tls_where_plaintext_may_do(relay_of: Start, secure: NextHop, how: str) -> None:
    """L09. `may`: mail goes in clear text over a new connection, once, and the facts say so."""
    secure.starttls = BROKEN_TLS[how]
    async with relay_of(smarthost(secure)) as relay:
        rid = await relay.send(TO) + ".1"
        await relay.told("delivered")
        [past] = await relay.history(rid)
        assert (past["attempts"], past["tls"]["wanted"], past["tls"]["reached"]) == (1, "may", "none")
        assert past["tls"]["why"]
    assert [each.tls for each in secure.transactions] == [False]
    assert len(mine(secure)) == 1


async def test_replies_injected_before_tls_are_no_reason_to_do_without(
    relay_of: Start, secure: NextHop, clock: ManualClock
) -> None:
    """L03. Somebody is on the line: even `may` waits, and nothing of what was injected is believed."""
    secure.starttls = [BROKEN_TLS["accepted with more, injected"]]
    async with relay_of(smarthost(secure)) as relay:
        await relay.send(TO)
        await relay.told("deferred")
        assert secure.transactions == []
        clock.advance(FIRST_RETRY)
        await relay.told("delivered")
    assert [each.tls for each in secure.transactions] == [True]


@pytest.mark.parametrize("how", BROKEN_TLS)
async def test_broken_tls_where_it_must_be(relay_of: Start, secure: NextHop, clock: ManualClock, how: str) -> None:
    """L09. `encrypt`: not a word of the message in clear text, and it waits until TLS works."""
    secure.starttls = [BROKEN_TLS[how]]
    async with relay_of(smarthost(secure) + '[tls]\ndefault = "encrypt"\n') as relay:
        rid = await relay.send(TO) + ".1"
        await relay.told("deferred")
        assert secure.lines("MAIL") == []
        row, why = await relay.row(rid), await relay.why(rid)
        assert row["last_enhanced"].startswith("4.")
        assert why["limiter"] in ("tls-policy", "next-hop-backoff")
        assert readable(why["because"]), why["because"]
        clock.advance(FIRST_RETRY)
        await relay.told("delivered")
        [past] = await relay.history(rid)
        assert past["tls"]["reached"] == "encrypted"
    assert [each.tls for each in secure.transactions] == [True]
