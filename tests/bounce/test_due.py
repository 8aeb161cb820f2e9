"""Whom a report is due: the policy of delays, and what counts as sent by no person."""

import pytest

from mailtui.bounce.due import automatic, delay_wanted, success
from mailtui.model import Action


@pytest.mark.parametrize(
    ("delay_to", "trusted", "notify", "wanted"),
    [
        ("trusted", True, "", True),
        ("trusted", False, "", False),
        ("trusted", True, "DELAY", True),
        ("trusted", False, "DELAY", False),
        ("all", False, "", True),
        ("all", False, "delay,failure", True),
        ("all", True, "FAILURE", False),
        ("all", True, "NEVER", False),
        ("none", True, "", False),
        ("none", True, "SUCCESS,DELAY", True),
        ("none", False, "DELAY", False),
    ],
)
def test_who_is_told_of_a_delay(delay_to: str, trusted: bool, notify: str, wanted: bool) -> None:  # N09
    assert delay_wanted(delay_to, "ann@a.example", trusted, notify) is wanted
    assert not delay_wanted(delay_to, "", trusted, notify)  # N02


def test_who_tells_of_a_success() -> None:  # N10
    assert (success(""), success("final"), success("dsn")) == (Action.RELAYED, Action.DELIVERED, None)


@pytest.mark.parametrize(
    "field",
    [
        b"Auto-Submitted: auto-generated",
        b"auto-submitted:auto-replied; x=y",
        b"AUTO-SUBMITTED:\r\n auto-notified",
        b"Auto-Submitted: (of course) auto-generated",
        b"Precedence: bulk",
        b"precedence:  LIST",
        b"Precedence: junk",
    ],
)
def test_mail_that_a_machine_or_a_list_sent(field: bytes) -> None:  # N19
    assert automatic(b"Subject: x\r\n" + field + b"\r\nTo: y@z.example\r\n\r\ntext\r\n")
    assert automatic(field)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Auto-Submitted: no\r\n",
        b"Auto-Submitted: No; x=y\r\n",
        b"Auto-Submitted: (none of it) no\r\n",
        b"Auto-Submitted:\r\nSubject: auto-generated\r\n",
        b"X-Auto-Submitted: auto-generated\r\n",
        b"Precedence: first-class\r\n",
        b"Precedence:\r\nbulk: yes\r\n",
        b"Subject: x\r\n Precedence: bulk\r\n",
        b"Subject: x\r\n\r\nPrecedence: bulk\r\n",
    ],
)
def test_mail_that_a_person_sent(header: bytes) -> None:
    assert not automatic(header)
