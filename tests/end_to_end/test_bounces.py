"""Telling the sender: the report comes through the same next hop, is right, and never answers a report."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from mailtui.clock import ManualClock
from mailtui.delivery.retry import JITTER
from tests.end_to_end.conftest import MESSAGE, Live, Start, smarthost, stored
from tests.support.nexthop import NextHop


def report_of(data: bytes) -> tuple[EmailMessage, Any, list[Any], Any]:
    """A report taken apart: itself, the fields of the message, those of each recipient, what is returned."""
    report = email.message_from_bytes(data, policy=email.policy.SMTP)
    assert isinstance(report, EmailMessage)
    assert report.get_content_type() == "multipart/report"
    _, status, returned = report.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    blocks: Any = status.get_payload()
    return report, blocks[0], blocks[1:], returned


async def test_a_refusal_is_reported_to_the_sender(relay: Live, hop: NextHop) -> None:
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user here"}
    number = await relay.send()
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert (got.sender, got.recipients) == ("", ["ann@sender.test"])
    report, message, [recipient], returned = report_of(got.data)
    assert report["From"].addresses[0].domain == "relay.test"
    assert report["To"].addresses[0].addr_spec == "ann@sender.test"
    assert report["Auto-Submitted"] == "auto-replied"
    assert message["Reporting-MTA"] == "dns; relay.test"
    assert message["Arrival-Date"]
    assert recipient["Final-Recipient"] == "rfc822; bob@dest.test"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Remote-MTA"] == "dns; 127.0.0.1"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user here"
    assert recipient["Last-Attempt-Date"]
    assert recipient["Final-Log-ID"] == f"{number}.1"
    original = returned.get_payload(0).as_bytes()
    assert stored(original)[1] == MESSAGE
    assert [(past["result"], past["recipient"]) for past in await relay.history()] == [
        ("bounced", "bob@dest.test"),
        ("delivered", "ann@sender.test"),
    ]
    assert await relay.rows() == []


async def test_one_report_names_all_who_were_refused_and_nobody_else(relay: Live, hop: NextHop) -> None:
    hop.recipients = {"b@dest.test": "550 5.1.1 unknown", "c@dest.test": "552 5.2.2 full for good"}
    hop.rcpt = ["550 5.7.1 not you"]
    await relay.send(["a@dest.test", "b@dest.test", "c@dest.test", "d@dest.test"])
    report = (await hop.received(2))[-1]
    await relay.told("bounced", 3)
    _, _, recipients, _ = report_of(report.data)
    assert {(each["Final-Recipient"], each["Status"]) for each in recipients} == {
        ("rfc822; a@dest.test", "5.7.1"),
        ("rfc822; b@dest.test", "5.1.1"),
        ("rfc822; c@dest.test", "5.2.2"),
    }
    assert hop.messages[0].recipients == ["d@dest.test"]


async def test_a_null_sender_gets_no_report_but_the_postmaster_does(relay: Live, hop: NextHop) -> None:  # Q14
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user"}
    await relay.send(sender="")
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert (got.sender, got.recipients) == ("", ["postmaster@ours.test"])
    assert [(past["sender"], past["recipient"], past["result"]) for past in await relay.history()] == [
        ("", "bob@dest.test", "bounced"),
        ("", "postmaster@ours.test", "delivered"),
    ]


async def test_without_a_postmaster_a_null_sender_is_told_nothing(relay_of: Start, hop: NextHop) -> None:
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user"}
    async with relay_of(smarthost(hop), postmaster="") as relay:
        await relay.send(sender="")
        await relay.told("bounced")
        assert [past["result"] for past in await relay.history()] == ["bounced"]
        assert await relay.rows() == []
    assert hop.messages == []


async def test_a_report_that_cannot_be_delivered_goes_to_the_postmaster_and_there_it_ends(
    relay: Live, hop: NextHop
) -> None:
    hop.recipients = dict.fromkeys(
        ("bob@dest.test", "ann@sender.test", "postmaster@ours.test"), "550 5.1.1 no such user"
    )
    await relay.send()
    await relay.told("bounced", 3)
    assert [(past["sender"], past["recipient"], past["result"]) for past in await relay.history()] == [
        ("ann@sender.test", "bob@dest.test", "bounced"),
        ("", "ann@sender.test", "bounced"),
        ("", "postmaster@ours.test", "bounced"),
    ]
    assert await relay.rows() == []
    assert hop.messages == []


async def test_a_report_is_tried_for_a_day(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.recipients = {"bob@dest.test": "550 5.1.1 no such user", "ann@sender.test": "451 4.3.0 later"}
    await relay.send()
    await relay.told("deferred")
    [row] = await relay.rows()
    assert (row["sender"], row["recipient"]) == ("", "ann@sender.test")
    for _ in range(20):
        if relay.events.counts.get("bounced") == 2:
            break
        await relay.pass_time(14400 * (1 + JITTER))
        await relay.told("deferred")
    await relay.told("bounced", 2)
    [double] = await hop.received(1)
    assert double.recipients == ["postmaster@ours.test"]
    assert clock.now() - 1_700_000_000 < 2 * 86400


async def test_of_a_large_message_only_the_header_goes_back(relay: Live, hop: NextHop) -> None:
    hop.recipients = {"bob@dest.test": "552 5.3.4 too big"}
    await relay.send(content=b"Subject: large\r\nX-Mark: here\r\n\r\n" + b"0123456789abcdef\r\n" * 40_000)
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert len(got.data) < 10_000
    _, _, _, returned = report_of(got.data)
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "X-Mark: here" in returned.get_content()
    assert relay.spool_files() == []


async def test_hostile_words_of_a_next_hop_add_no_field_to_the_report(relay: Live, hop: NextHop) -> None:
    hop.recipients = {"bob@dest.test": b"550-5.1.1 \x1b[2J\xff\r\n550-5.1.1 Action: delivered\r\n550 5.1.1 --end\r\n"}
    await relay.send()
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert b"\x1b" not in got.data
    _, _, [recipient], _ = report_of(got.data)
    assert recipient.get_all("Action") == ["failed"]
