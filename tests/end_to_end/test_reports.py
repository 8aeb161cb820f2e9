"""What a sender is told, over real sockets: failures, delays, successes; to whom, how often, what NOTIFY changes."""

import email
import email.policy
import sqlite3
from collections.abc import AsyncIterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flufl.bounce import all_failures, scan_message

from mailtui.clock import ManualClock
from mailtui.delivery.allowance import MINUTE, PER_HOP
from tests.end_to_end.conftest import MESSAGE, Live, Start, stored
from tests.end_to_end.test_bounces import report_of
from tests.support.client import send
from tests.support.nexthop import NextHop, Transaction

# Attempts at 0, 5 to 5.75, 10 to 11.5 minutes: the third is the first late one.
LATE = '[retry]\nschedule = ["5m"]\nwarn = "10m"\n'
STEP = 345.0

FIRST = 1_700_000_000.0

WAITS = {"bob@dest.test": "451 4.7.1 greylisted, come back"}

UNTRUSTED = '[access]\nnetworks = ["192.0.2.0/24"]\nlocal_domains = ["dest.test"]\nrecipients = "any"\n'


def smarthost(hop: NextHop, config: str = LATE) -> str:
    return f'[delivery]\nsmarthost = "smtp://[{hop.host}]:{hop.port}"\n' + config


def apart(dead: NextHop, home: NextHop, config: str = LATE) -> str:
    """What goes to dest.test and other.test goes to one next hop, everything else to another."""
    routes = "".join(
        f'[[route]]\nmatch = "{name}"\ntarget = "smtp://[{dead.host}]:{dead.port}"\n'
        for name in ("dest.test", "other.test")
    )
    return routes + smarthost(home, config)


async def hand_in(
    relay: Live, to: str | Sequence[str] = "bob@dest.test", sender: str = "ann@sender.test", content: bytes = MESSAGE,
    mail: Sequence[str] = (), rcpt: Sequence[str] = (),
) -> str:  # fmt: skip
    reply = await send(relay.port, sender, to, content, mail_options=mail, rcpt_options=rcpt)
    return reply.decode().rpartition(" ")[2]


async def attempts(relay: Live, count: int, first: int = 1) -> None:
    """Let so many attempts for one recipient end deferred, the clock going on between them."""
    for number in range(first, first + count):
        await relay.told("deferred", number)
        if number < first + count - 1:
            await relay.pass_time(STEP)


def warned(relay: Live) -> dict[str, int]:
    """What the database says of who was warned."""
    with sqlite3.connect(relay.state / "queue.db") as conn:
        return dict(conn.execute("SELECT address, warned FROM recipients WHERE address NOT LIKE '%@sender.test'"))


def told(hop: NextHop) -> list[Transaction]:
    """The reports that a next hop got."""
    return [got for got in hop.messages if got.sender == ""]


@pytest.fixture
async def dead() -> AsyncIterator[NextHop]:
    async with NextHop() as hop:
        yield hop


# -- failures --------------------------------------------------------------------------------------------------------


async def test_a_failure_is_read_by_a_list_manager_and_by_a_mail_reader(relay_of: Start, hop: NextHop) -> None:
    hop.recipients = {"Bob@dest.test": "x", "bob@dest.test": "550 5.1.1 no such user here"}
    async with relay_of(smarthost(hop)) as relay:
        number = await hand_in(
            relay, "Bob@dest.test", mail=["RET=HDRS", "ENVID=Case+2BId"], rcpt=["ORCPT=rfc822;Bobby+2Bx@alias.test"]
        )
        [got] = await hop.received(1)
        await relay.told("delivered")
    assert (got.sender, got.recipients) == ("", ["ann@sender.test"])  # N01
    report = email.message_from_bytes(got.data)
    assert all_failures(report) == (set(), {b"Bobby+x@alias.test"})
    assert scan_message(report) == {b"Bobby+x@alias.test"}
    _, message, [recipient], returned = report_of(got.data)
    assert message["Original-Envelope-Id"] == "Case+Id"  # N04
    assert recipient["Original-Recipient"] == "rfc822; Bobby+x@alias.test"  # N05
    assert recipient["Final-Recipient"] == "rfc822; Bob@dest.test"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")  # N08
    assert recipient["Remote-MTA"] == "dns; 127.0.0.1"  # N06
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user here"
    assert recipient["Last-Attempt-Date"] and recipient["Will-Retry-Until"] is None  # N07
    assert recipient["Final-Log-ID"] == f"{number}.1"
    assert returned.get_content_type() == "text/rfc822-headers"  # N13
    assert "RET" not in got.mail_parameters and "ENVID" not in got.mail_parameters


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "SUCCESS,DELAY"])
async def test_no_failure_is_told_to_who_did_not_ask_for_it(relay_of: Start, hop: NextHop, notify: str) -> None:  # N09
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user here"}
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay, rcpt=[f"NOTIFY={notify}"])
        await relay.told("bounced")
        assert await relay.rows() == []
    assert hop.messages == []


async def test_the_report_is_on_disk_when_the_recipient_is_gone(relay_of: Start, hop: NextHop) -> None:  # N18
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user", "ann@sender.test": "451 4.3.0 not now"}
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay)
        await relay.told("bounced")
        await relay.told("deferred")
        assert [(row["sender"], row["recipient"]) for row in await relay.rows()] == [("", "ann@sender.test")]
    hop.recipients = {}
    async with relay_of(smarthost(hop)) as relay:
        await relay.pass_time(STEP)
        await relay.told("delivered")
    assert [got.recipients for got in told(hop)] == [["ann@sender.test"]]


# -- successes -------------------------------------------------------------------------------------------------------


async def test_success_is_told_as_relayed_if_the_next_hop_cannot_tell(relay_of: Start, hop: NextHop) -> None:  # N10
    async with relay_of(smarthost(hop)) as relay:
        number = await hand_in(relay, ["bob@dest.test", "cat@dest.test"], mail=["RET=FULL"], rcpt=["NOTIFY=SUCCESS"])
        await hop.received(2)
        await relay.told("delivered", 3)
    original, got = hop.messages
    assert "NOTIFY" not in original.rcpt_parameters["bob@dest.test"] and "RET" not in original.mail_parameters
    assert (got.sender, got.recipients) == ("", ["ann@sender.test"])
    report, _, recipients, returned = report_of(got.data)
    assert report["Subject"] == "Mail was handed on"
    assert [each["Action"] for each in recipients] == ["relayed", "relayed"]  # N14: one report
    assert [each["Status"] for each in recipients] == ["2.0.0", "2.0.0"]
    assert [each["Final-Log-ID"] for each in recipients] == [f"{number}.1", f"{number}.2"]
    assert recipients[0]["Remote-MTA"] == "dns; 127.0.0.1"
    assert returned.get_content_type() == "text/rfc822-headers"  # N13: RET is for failures
    assert all_failures(email.message_from_bytes(got.data)) == (set(), set())


async def test_success_is_left_to_a_next_hop_that_tells_it(relay_of: Start) -> None:  # N10
    async with NextHop(keywords=["PIPELINING", "8BITMIME", "DSN"]) as hop, relay_of(smarthost(hop)) as relay:
        await hand_in(relay, rcpt=["NOTIFY=SUCCESS"])
        await relay.told("delivered")
        assert await relay.rows() == []
        [original] = hop.messages
        assert "NOTIFY=SUCCESS" in original.rcpt_parameters["bob@dest.test"]


async def test_without_notify_success_is_not_told(relay_of: Start, hop: NextHop) -> None:  # N11
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay)
        await hand_in(relay, rcpt=["NOTIFY=FAILURE,DELAY"])
        await hand_in(relay, sender="", rcpt=["NOTIFY=SUCCESS"])  # N02: a report is never answered
        await relay.told("delivered", 3)
        assert await relay.rows() == []
    assert len(hop.messages) == 3


async def test_what_failed_and_what_went_well_are_in_one_report(relay_of: Start, hop: NextHop) -> None:  # N14
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user"}
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay, ["bob@dest.test", "cat@dest.test"], rcpt=["NOTIFY=SUCCESS,FAILURE"])
        await relay.told("delivered", 2)
    [got] = told(hop)
    report, _, recipients, returned = report_of(got.data)
    assert report["Subject"] == "Undelivered mail returned to sender"
    assert [(each["Final-Recipient"], each["Action"]) for each in recipients] == [
        ("rfc822; bob@dest.test", "failed"),
        ("rfc822; cat@dest.test", "relayed"),
    ]
    assert stored(returned.get_payload(0).as_bytes())[1] == MESSAGE


# -- delays ----------------------------------------------------------------------------------------------------------


async def test_a_delay_is_told_once_and_the_message_goes_on(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    hop.recipients = dict(WAITS)
    async with relay_of(smarthost(hop)) as relay:
        number = await hand_in(relay, mail=["RET=FULL"])
        await attempts(relay, 2)
        assert told(hop) == [] and warned(relay) == {"bob@dest.test": 0}
        await relay.pass_time(STEP)
        await relay.told("deferred", 3)
        await relay.told("delivered")
        assert warned(relay) == {"bob@dest.test": 1}
        [got] = told(hop)
        await relay.pass_time(STEP)
        await relay.told("deferred", 4)
        [row] = await relay.rows()
        assert (row["state"], row["attempts"]) == ("deferred", 4)
        hop.recipients = {}
        await relay.pass_time(STEP)
        await relay.told("delivered", 2)
        assert await relay.rows() == []
    assert len(told(hop)) == 1
    assert (got.sender, got.recipients) == ("", ["ann@sender.test"])
    report = email.message_from_bytes(got.data)
    assert all_failures(report) == ({b"bob@dest.test"}, set())
    assert scan_message(report) == set()
    parsed, _, [recipient], returned = report_of(got.data)
    assert parsed["Subject"] == "Delayed mail, still being tried"
    assert parsed["Auto-Submitted"] == "auto-replied"  # N15
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.7.1")  # N08
    assert recipient["Diagnostic-Code"] == "smtp; 451 4.7.1 greylisted, come back"  # N06
    assert parsedate_to_datetime(recipient["Will-Retry-Until"]).timestamp() == FIRST + 5 * 86400  # N07
    assert recipient["Last-Attempt-Date"]
    assert recipient["Final-Log-ID"] == f"{number}.1"
    assert returned.get_content_type() == "text/rfc822-headers"  # N13
    text = next(parsed.iter_parts()).get_content()
    assert "127.0.0.1 [127.0.0.1] said: 451 4.7.1 greylisted, come back" in " ".join(text.split())  # N16
    assert "you need not send it again" in " ".join(text.split())


@pytest.mark.parametrize(
    ("config", "trusted", "notify", "notices"),
    [
        ("", True, "", 1),
        ("", False, "", 0),
        ("", True, "DELAY", 1),
        ("", False, "DELAY", 0),
        ("", True, "FAILURE,SUCCESS", 0),  # N09
        ("", True, "NEVER", 0),
        ('[bounce]\ndelay_to = "all"\n', False, "", 1),
        ('[bounce]\ndelay_to = "all"\n', False, "DELAY,FAILURE", 1),
        ('[bounce]\ndelay_to = "all"\n', False, "FAILURE", 0),
        ('[bounce]\ndelay_to = "none"\n', True, "", 0),
        ('[bounce]\ndelay_to = "none"\n', True, "DELAY", 1),
        ('[bounce]\ndelay_to = "none"\n', False, "DELAY", 0),
    ],
)
@pytest.mark.parametrize("down", [False, True])
async def test_who_is_told_of_a_delay(
    relay_of: Start, hop: NextHop, dead: NextHop, config: str, trusted: bool, notify: str, notices: int, down: bool
) -> None:
    dead.recipients = dict(WAITS)
    if down:
        await dead.stop()
    async with relay_of(apart(dead, hop, LATE + config + ("" if trusted else UNTRUSTED))) as relay:
        await hand_in(relay, rcpt=[f"NOTIFY={notify}"] if notify else [])
        await attempts(relay, 3)
        await relay.quiet()
        if notices:
            await relay.told("delivered")
        assert len(told(hop)) == notices
        assert [row["recipient"] for row in await relay.rows()] == ["bob@dest.test"]


async def test_without_a_time_for_it_nobody_is_told_of_a_delay(relay_of: Start, hop: NextHop) -> None:
    hop.recipients = dict(WAITS)
    async with relay_of(smarthost(hop, '[retry]\nschedule = ["1d"]\nwarn = ""\n')) as relay:
        await hand_in(relay, rcpt=["NOTIFY=DELAY"])
        await relay.told("deferred")
        await relay.pass_time(1.15 * 86400)
        await relay.told("deferred", 2)
        assert len(await relay.rows()) == 1
    assert told(hop) == []


@pytest.mark.parametrize(
    "field", [b"Auto-Submitted: auto-generated", b"Precedence: bulk", b"precedence: list", b"Precedence: junk"]
)
async def test_mail_that_no_person_sent_is_late_in_silence(relay_of: Start, hop: NextHop, field: bytes) -> None:  # N19
    hop.recipients = dict(WAITS)
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay, content=field + b"\r\n" + MESSAGE)
        await attempts(relay, 3)
        assert warned(relay) == {"bob@dest.test": 1}  # decided: it is not looked at again
        assert [row["sender"] for row in await relay.rows()] == ["ann@sender.test"]
        await hand_in(relay, content=field + b"\r\n" + MESSAGE, rcpt=["NOTIFY=DELAY"])  # who asks is told
        await relay.told("deferred", 4)
        for count in (6, 8):
            await relay.pass_time(STEP)
            await relay.told("deferred", count)
        await relay.told("delivered")
    assert len(told(hop)) == 1


async def test_a_report_that_is_late_is_told_to_nobody(relay_of: Start, hop: NextHop) -> None:  # N02
    hop.recipients = {"bob@dest.test": "451 4.3.0 later"}
    async with relay_of(smarthost(hop, LATE + '[bounce]\ndelay_to = "all"\n')) as relay:
        await hand_in(relay, sender="")
        await attempts(relay, 4)
        assert len(await relay.rows()) == 1
    assert told(hop) == []


async def test_the_delay_of_one_and_the_failure_of_another_are_one_report(relay_of: Start, hop: NextHop) -> None:  # N14
    hop.recipients = {"bob@dest.test": "451 4.7.1 later", "cat@dest.test": ["451 4.7.1 later"] * 2 + ["550 5.1.1 no"]}
    async with relay_of(smarthost(hop)) as relay:
        await hand_in(relay, ["bob@dest.test", "cat@dest.test"])
        for count in (2, 4):
            await relay.told("deferred", count)
            await relay.pass_time(STEP)
        await relay.told("bounced")
        await relay.told("delivered")
        assert warned(relay) == {"bob@dest.test": 1}
    [got] = told(hop)
    _, _, recipients, _ = report_of(got.data)
    actions = {each["Final-Recipient"]: each["Action"] for each in recipients}
    assert actions == {"rfc822; bob@dest.test": "delayed", "rfc822; cat@dest.test": "failed"}
    assert all_failures(email.message_from_bytes(got.data)) == ({b"bob@dest.test"}, {b"cat@dest.test"})


# -- delays behind a next hop that is down ---------------------------------------------------------------------------


async def test_what_waits_untried_behind_a_dead_hop_is_told_too(relay_of: Start, hop: NextHop, dead: NextHop) -> None:
    await dead.stop()
    async with relay_of(apart(dead, hop)) as relay:
        await hand_in(relay, ["bob@dest.test", "cat@other.test"])
        await relay.told("deferred", 2)
        for name in ("dan@dest.test", "eve@dest.test", "fay@other.test"):
            await hand_in(relay, name)
        await relay.quiet()
        assert {row["state"] for row in await relay.rows("to:dan@dest.test")} == {"queued"}
        await relay.pass_time(STEP)
        await relay.pass_time(STEP)
        await hop.received(4)
        await relay.told("delivered", 4)
        assert set(warned(relay).values()) == {1}
        assert {row["attempts"] for row in await relay.rows()} >= {0}  # somebody was never tried, and is told
        await relay.pass_time(STEP)
        await relay.pass_time(STEP)
        assert len(await relay.rows()) == 5
    everybody = [report_of(got.data)[2] for got in told(hop)]
    assert sorted(len(recipients) for recipients in everybody) == [1, 1, 1, 2]  # one report a message
    for recipients in everybody:
        for recipient in recipients:
            assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.4.1")
            assert recipient["Remote-MTA"] is None and recipient["Diagnostic-Code"] is None  # N06: nobody answered
            assert recipient["Last-Attempt-Date"] is None  # N07
            assert parsedate_to_datetime(recipient["Will-Retry-Until"]).timestamp() == FIRST + 5 * 86400
    names = {each["Final-Recipient"].partition("; ")[2] for recipients in everybody for each in recipients}
    assert names == {"bob@dest.test", "cat@other.test", "dan@dest.test", "eve@dest.test", "fay@other.test"}


async def test_notices_for_a_dead_hop_come_a_few_a_minute(relay_of: Start, hop: NextHop, dead: NextHop) -> None:
    await dead.stop()
    waiting = PER_HOP + 3
    async with relay_of(apart(dead, hop)) as relay:
        for number in range(waiting):
            await hand_in(relay, f"r{number}@dest.test", sender=f"s{number}@sender.test")
        await relay.told("deferred")
        await relay.pass_time(STEP)
        await relay.pass_time(STEP)
        await relay.told("delivered", PER_HOP)
        assert len(told(hop)) == PER_HOP
        assert sum(warned(relay).values()) == PER_HOP
        assert relay.events.counts["delay-notices-limited"] == 1
        await relay.pass_time(MINUTE)
        await relay.told("delivered", waiting)
        assert sum(warned(relay).values()) == waiting
        assert await relay.count("from:@sender.test") == waiting  # all still wait
    assert sorted(got.recipients[0] for got in told(hop)) == sorted(f"s{n}@sender.test" for n in range(waiting))


async def test_failures_are_told_however_many_there_are(relay_of: Start, hop: NextHop) -> None:  # B05: none is lost
    hop.recipients = {f"r{number}@dest.test": "550 5.1.1 no such user" for number in range(40)}
    async with relay_of(smarthost(hop)) as relay:
        await relay.send_many([f"r{number}@dest.test" for number in range(40)])
        await relay.told("bounced", 40)
        await relay.told("delivered", 40)
    assert len(told(hop)) == 40


async def test_a_recipient_with_a_way_of_its_own_is_not_told_of_a_hop_that_is_not_its(
    relay_of: Start, hop: NextHop, dead: NextHop
) -> None:
    own = f'[[route]]\nmatch = "boss@dest.test"\ntarget = "smtp://[{hop.host}]:{hop.port}"\n'
    hop.recipients = {"boss@dest.test": "451 4.7.1 later"}
    await dead.stop()
    async with relay_of(own + apart(dead, hop, '[retry]\nschedule = ["5m", "3h"]\nwarn = "10m"\n')) as relay:
        await hand_in(relay, ["bob@dest.test", "boss@dest.test"])
        await relay.told("deferred", 2)
        await relay.pass_time(STEP)
        await relay.told("deferred", 4)  # both have hours to wait now
        await relay.pass_time(STEP)
        await hand_in(relay, "dan@dest.test", rcpt=["NOTIFY=NEVER"])
        await relay.told("deferred", 5)  # the hop is still down, which says nothing of who goes elsewhere
        await relay.told("delivered")
        assert warned(relay) == {"bob@dest.test": 1, "boss@dest.test": 0, "dan@dest.test": 0}
    [got] = told(hop)
    assert [each["Final-Recipient"] for each in report_of(got.data)[2]] == ["rfc822; bob@dest.test"]


async def test_what_expires_behind_a_dead_hop_names_who_answered(
    relay_of: Start, hop: NextHop, dead: NextHop
) -> None:  # N06
    dead.greeting = "421 4.7.0 go away"
    async with relay_of(apart(dead, hop, '[retry]\nschedule = ["5m"]\nwarn = ""\nexpire = "11m"\n')) as relay:
        await hand_in(relay)
        await relay.told("deferred")
        await hand_in(relay, "dan@dest.test")
        await relay.pass_time(STEP)
        await relay.pass_time(STEP)
        await relay.told("bounced", 2)
        await relay.told("delivered", 2)
    for got in told(hop):
        [recipient] = report_of(got.data)[2]
        assert recipient["Remote-MTA"] == "dns; 127.0.0.1"
        assert recipient["Diagnostic-Code"] == "smtp; 421 4.7.0 go away"
        assert recipient["Status"] == "4.7.0"


async def test_who_was_told_is_known_after_a_restart(relay_of: Start, hop: NextHop, dead: NextHop) -> None:
    await dead.stop()
    async with relay_of(apart(dead, hop)) as relay:
        await hand_in(relay)
        await attempts(relay, 3)
        await relay.told("delivered")
    async with relay_of(apart(dead, hop)) as relay:
        await relay.pass_time(STEP)
        await relay.told("deferred")
        await relay.pass_time(STEP)
        await relay.told("deferred", 2)
    assert len(told(hop)) == 1


# -- SMTPUTF8 --------------------------------------------------------------------------------------------------------


async def test_a_sender_with_a_utf8_address_gets_a_report_in_utf8(relay_of: Start) -> None:  # N17, RFC 6533
    content = "From: <jörg@sender.test>\r\nSubject: grüße\r\n\r\nhällo\r\n".encode()
    keywords = ["PIPELINING", "8BITMIME", "SMTPUTF8"]
    async with NextHop(keywords=keywords) as hop, relay_of(smarthost(hop)) as relay:
        hop.recipients = {"用户@dest.test": "550 5.1.1 no such user"}
        async with await relay.client() as client:
            await client.command("MAIL FROM:<jörg@sender.test> SMTPUTF8 BODY=8BITMIME")
            await client.command("RCPT TO:<用户@dest.test>")
            await client.command("DATA")
            await client.send(content + b".\r\n")
            assert (await client.reply()).code == 250
        [got] = await hop.received(1)
        await relay.told("delivered")
    assert (got.sender, got.recipients) == ("", ["jörg@sender.test"])
    assert "SMTPUTF8" in got.mail_parameters and "BODY=8BITMIME" in got.mail_parameters
    assert "\r\nTo: <jörg@sender.test>\r\n".encode() in got.data
    report = email.message_from_bytes(got.data, policy=email.policy.SMTPUTF8)
    kinds = [part.get_content_type() for part in report.iter_parts()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; 用户@dest.test\r\n".encode() in got.data
    assert b"Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n" in got.data
    assert content in got.data


async def test_a_sender_with_an_ascii_address_gets_a_report_that_goes_everywhere(relay_of: Start) -> None:  # N17
    content = "From: <ann@sender.test>\r\nTo: <用户@dest.test>\r\nSubject: grüße\r\n\r\nhällo\r\n".encode()
    async with NextHop(keywords=["PIPELINING"]) as hop, relay_of(smarthost(hop)) as relay:
        async with await relay.client() as client:
            await client.command("MAIL FROM:<ann@sender.test> SMTPUTF8 BODY=8BITMIME")
            await client.command("RCPT TO:<用户@dest.test>")
            await client.command("DATA")
            await client.send(content + b".\r\n")
            assert (await client.reply()).code == 250
        [got] = await hop.received(1)  # neither 8BITMIME nor SMTPUTF8 there
        await relay.told("delivered")
    assert got.data.isascii()
    report = email.message_from_bytes(got.data, policy=email.policy.SMTP)
    text, status, returned = report.iter_parts()
    assert "用户@dest.test" in text.get_content()
    block: Any = status.get_payload()[1]
    assert block["Final-Recipient"] == "utf-8; \\x{7528}\\x{6237}@dest.test"
    assert block["Status"] in ("5.6.3", "5.6.7")
    assert returned.get_content_type().startswith("message/global")
