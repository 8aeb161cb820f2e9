"""From a reply to a verdict (RFC 5321 section 4.2, RFC 3463)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.delivery.verdict import judge, judge_recipient, remote_id, reply_of, trouble
from mailtui.model import Outcome, Reply


@pytest.mark.parametrize(
    ("code", "text", "enhanced", "rest"),
    [
        (250, "2.1.5 ok", "2.1.5", "ok"),
        (250, "ok", "", "ok"),
        (250, "", "", ""),
        (421, "4.7.0", "4.7.0", ""),
        (550, "5.1.1 no such user\n5.1.1 ask postmaster", "5.1.1", "no such user ask postmaster"),
        (550, "5.1.1 no\n5.1.2 other", "5.1.1", "no 5.1.2 other"),
        (550, "5.1.1 no\nplain", "5.1.1", "no plain"),
        (550, "first\n5.1.1 second", "", "first 5.1.1 second"),
        (550, "4.1.1 of another class", "", "4.1.1 of another class"),
        (250, "5.1.1 of another class", "", "5.1.1 of another class"),
        (550, "5.1.1234 too long", "", "5.1.1234 too long"),
        (550, "5.1.1x glued", "", "5.1.1x glued"),
        (554, "  5.7.1 indented ", "", "5.7.1 indented"),
    ],
)
def test_a_reply_is_taken_apart(code: int, text: str, enhanced: str, rest: str) -> None:
    assert reply_of(code, text) == Reply(code, enhanced, rest)


@pytest.mark.parametrize(
    ("code", "outcome", "enhanced"),
    [
        (250, Outcome.DELIVERED, "2.0.0"),
        (251, Outcome.DELIVERED, "2.0.0"),
        (299, Outcome.DELIVERED, "2.0.0"),
        (450, Outcome.DEFERRED, "4.0.0"),
        (421, Outcome.DEFERRED, "4.0.0"),
        (499, Outcome.DEFERRED, "4.0.0"),
        (550, Outcome.BOUNCED, "5.0.0"),
        (599, Outcome.BOUNCED, "5.0.0"),
        (354, Outcome.DEFERRED, "4.0.0"),
    ],
)
def test_the_first_digit_decides_and_unknown_codes_are_temporary(code: int, outcome: Outcome, enhanced: str) -> None:
    verdict = judge(reply_of(code, "text"))
    assert (verdict.outcome, verdict.code, verdict.enhanced, verdict.remote) == (outcome, code, enhanced, True)


@given(st.integers(200, 599), st.text(max_size=50))
def test_the_enhanced_code_is_of_the_outcomes_class(code: int, text: str) -> None:
    verdict = judge(reply_of(code, text))
    wanted = {Outcome.DELIVERED: "2.", Outcome.DEFERRED: "4.", Outcome.BOUNCED: "5."}
    assert verdict.enhanced.startswith(wanted[verdict.outcome])


def test_552_to_a_recipient_after_others_were_taken_means_too_many() -> None:
    reply = reply_of(552, "5.5.3 too many recipients")
    assert judge_recipient(reply, 3).outcome is Outcome.DEFERRED
    assert judge_recipient(reply, 3).enhanced == "4.5.3"
    assert judge_recipient(reply, 0).outcome is Outcome.BOUNCED
    assert judge_recipient(reply_of(550, "5.1.1 no"), 3).outcome is Outcome.BOUNCED


def test_trouble_without_a_reply_is_temporary_and_ours() -> None:
    verdict = trouble("no route", "4.4.1", "connection")
    assert (verdict.outcome, verdict.code, verdict.remote) == (Outcome.DEFERRED, 0, False)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("ok queued as 4XYZabc123", "4XYZabc123"),
        ("Ok: queued as 1A2B3C4D5E", "1A2B3C4D5E"),
        ("OK id=1abCDe-000123-Xy", "1abCDe-000123-Xy"),
        ("queued as 06HZ6V5J40000", "06HZ6V5J40000"),
        ("OK  1700000000 a1-20020abc.12 - gsmtp", "1700000000"),
        ("Ok message delivered", ""),
        ("ok", ""),
        ("", ""),
    ],
)
def test_the_id_that_the_next_hop_gave_is_found(text: str, number: str) -> None:
    assert remote_id(text) == number
