"""Reports of every action, and of several at once, field by field; read by an independent parser too (N04-N09, N14)."""

import email
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flufl.bounce import all_failures, scan_message

from mailtui.bounce.report import Report
from mailtui.model import Action
from tests.bounce.made import HEADER, NOW, ORIGINAL, blocks, check, failure, human, make, returned

UNTIL = NOW + 432_000

FACTS: dict[Action, dict[str, Any]] = {
    Action.FAILED: {},
    Action.DELAYED: {"code": 451, "enhanced": "4.7.1", "reply": "greylisted", "expires": UNTIL},
    Action.DELIVERED: {"code": 250, "enhanced": "2.1.5", "reply": "stored", "notify": "SUCCESS"},
    Action.RELAYED: {"code": 250, "enhanced": "2.0.0", "reply": "queued as 4Xy", "notify": "SUCCESS"},
}


def said(action: Action, address: str = "bob@b.example", **changes: Any) -> Any:
    return failure(address, action=action, **(FACTS[action] | changes))


def read(report: Report | None) -> tuple[set[bytes], set[bytes]]:
    """What flufl.bounce finds: (delayed, failed)."""
    assert report is not None
    delayed, failed = all_failures(email.message_from_bytes(report.content))
    assert scan_message(email.message_from_bytes(report.content)) == failed
    return set(delayed), set(failed)


@pytest.mark.parametrize(
    ("action", "status", "subject", "delayed", "failed"),
    [
        (Action.FAILED, "5.1.1", "Undelivered mail returned to sender", set(), {b"bob@b.example"}),
        (Action.DELAYED, "4.7.1", "Delayed mail, still being tried", {b"bob@b.example"}, set()),
        (Action.DELIVERED, "2.1.5", "Mail was delivered", set(), set()),
        (Action.RELAYED, "2.0.0", "Mail was handed on", set(), set()),
    ],
)
def test_each_action_with_its_class_of_status(  # N08
    action: Action, status: str, subject: str, delayed: set[bytes], failed: set[bytes]
) -> None:
    report = make(said(action))
    [_, block] = blocks(report)
    assert (block["Action"], block["Status"]) == (action.value, status)
    assert block["Remote-MTA"] == "dns; mx.b.example"  # N06
    assert block["Diagnostic-Code"].startswith(f"smtp; {FACTS[action].get('code', 550)} {status} ")
    assert ("Will-Retry-Until" in block) == (action is Action.DELAYED)  # N07
    assert check(report)["Subject"] == subject
    assert read(report) == (delayed, failed)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("enhanced", ["", "4.4.1", "5.3.0", "2.1.5", "5.1", "x", "9.9.9"])
def test_the_class_of_a_status_is_that_of_the_action(action: Action, enhanced: str) -> None:  # N08
    [_, block] = blocks(make(said(action, enhanced=enhanced)))
    family = {Action.FAILED: "5", Action.DELAYED: "4"}.get(action, "2")
    detail = enhanced[1:] if enhanced in ("4.4.1", "5.3.0", "2.1.5") else ".0.0"
    assert block["Status"] == family + detail


def test_how_long_it_is_tried_is_said_in_both_parts() -> None:  # N07, N16
    report = make(said(Action.DELAYED))
    assert parsedate_to_datetime(blocks(report)[1]["Will-Retry-Until"]).timestamp() == UNTIL
    assert "greylisted - It is tried until Sun, 19 Nov 2023 22:23:20 +0000." in human(report)


def test_who_was_never_tried_has_no_attempt_and_nobody_who_answered() -> None:  # N06, N07
    report = make(
        said(Action.DELAYED, code=0, enhanced="4.4.1", reply="Connection refused", remote=False, finished=0.0)
    )
    [_, block] = blocks(report)
    assert block["Status"] == "4.4.1"
    assert not {"Last-Attempt-Date", "Remote-MTA", "Diagnostic-Code"} & set(block)
    assert "It waits for a host that does not take mail now: 4.4.1 Connection refused" in human(report)


def test_one_report_on_everything() -> None:  # N14
    report = make(
        said(Action.RELAYED, "r@x.example", ordinal=1),
        said(Action.FAILED, "f@x.example", ordinal=2),
        said(Action.DELIVERED, "d@x.example", ordinal=3),
        said(Action.DELAYED, "l@x.example", ordinal=4),
        ret="FULL",
    )
    assert [block["Action"] for block in blocks(report)[1:]] == ["relayed", "failed", "delivered", "delayed"]
    assert check(report)["Subject"] == "Undelivered mail returned to sender"
    assert read(report) == ({b"l@x.example"}, {b"f@x.example"})
    text = human(report)
    places = [text.index(part) for part in ("could not be", "not been delivered yet", "was delivered", "handed on")]
    assert places == sorted(places)
    for address in ("<r@x.example>", "<f@x.example>", "<d@x.example>", "<l@x.example>"):
        assert text.count(address) == 1
    assert returned(report) == ("message/rfc822", ORIGINAL)


@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
@pytest.mark.parametrize("action", [Action.DELAYED, Action.DELIVERED, Action.RELAYED])
def test_without_a_failure_only_the_header_goes_back(action: Action, ret: str) -> None:  # N13, RFC 3461 section 4.3
    assert returned(make(said(action), ret=ret)) == ("text/rfc822-headers", HEADER)


@pytest.mark.parametrize(
    ("action", "notify", "told"),
    [
        (Action.FAILED, "", True),
        (Action.FAILED, "FAILURE", True),
        (Action.FAILED, "SUCCESS,DELAY", False),
        (Action.FAILED, "NEVER", False),
        (Action.DELAYED, "", True),
        (Action.DELAYED, "delay", True),
        (Action.DELAYED, "FAILURE", False),
        (Action.DELAYED, "NEVER", False),
        (Action.RELAYED, "", False),
        (Action.RELAYED, "success,failure", True),
        (Action.RELAYED, "FAILURE,DELAY", False),
        (Action.RELAYED, "NEVER", False),
        (Action.DELIVERED, "", False),
        (Action.DELIVERED, "SUCCESS", True),
        (Action.DELIVERED, "NEVER", False),
    ],
)
def test_notify_is_obeyed(action: Action, notify: str, told: bool) -> None:  # N09
    report = make(said(action, notify=notify))
    assert (report is not None) == told
    both = blocks(make(said(action, notify=notify), failure("c@c.example", ordinal=2)))
    assert len(both) == (3 if told else 2)


@pytest.mark.parametrize("action", [Action.DELAYED, Action.DELIVERED, Action.RELAYED])
def test_of_a_report_only_the_failure_is_told_and_only_to_the_postmaster(action: Action) -> None:  # N02
    assert make(said(action), sender="", postmaster="pm@relay.example") is None
    both = make(said(action), failure("c@c.example", ordinal=2), sender="", postmaster="pm@relay.example")
    assert [block["Final-Recipient"] for block in blocks(both)[1:]] == ["rfc822; c@c.example"]


def test_an_independent_reader_finds_whom_the_sender_meant() -> None:  # N05
    report = make(
        failure("Final@b.example", orcpt="rfc822;Alias+2Bx@A.example"),
        said(Action.DELAYED, "late@b.example", ordinal=2, orcpt="rfc822;Late@A.example"),
    )
    assert read(report) == ({b"Late@A.example"}, {b"Alias+x@A.example"})


@pytest.mark.parametrize("reply", ["x\r\n\r\nFinal-Recipient: rfc822; forged@x.example\r\nAction: failed", "--=_x--"])
def test_an_independent_reader_is_not_deceived(reply: str) -> None:  # N17
    original = b"X: y\r\n\r\nFinal-Recipient: rfc822; forged@x.example\r\nAction: failed\r\n"
    assert read(make(failure(reply=reply), original=original)) == (set(), {b"bob@b.example"})


def test_an_operators_bounce_names_no_host_and_no_attempt() -> None:
    report = make(failure(code=0, enhanced="5.0.0", reply="not wanted", remote=False, finished=0.0, host="", ip=""))
    [_, block] = blocks(report)
    assert (block["Status"], block["Final-Log-ID"][-2:]) == ("5.0.0", ".1")
    assert not {"Last-Attempt-Date", "Remote-MTA", "Diagnostic-Code"} & set(block)
    assert read(report) == (set(), {b"bob@b.example"})
