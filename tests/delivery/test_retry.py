"""When it is tried again, and when it is given up."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.delivery.retry import expired, next_due
from mailtui.delivery.verdict import judge, reply_of, trouble
from mailtui.model import Outcome, Recipient

SCHEDULE = [300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0]
NOW = 1_700_000_000.0


def recipient(attempts: int = 0, expires: float = NOW + 432000) -> Recipient:
    return Recipient(1, "b@dest.test", "dest.test", attempts=attempts, expires=expires)


@pytest.mark.parametrize(
    ("attempts", "delay"), [(0, 300), (1, 600), (2, 1800), (3, 3600), (4, 7200), (5, 14400), (6, 14400), (40, 14400)]
)
@given(seed=st.integers(0, 2**32))
def test_the_delay_is_the_schedules_and_at_most_15_percent_more(attempts: int, delay: float, seed: int) -> None:
    due = next_due(recipient(attempts), SCHEDULE, NOW, random.Random(seed))
    assert NOW + delay <= due <= NOW + delay * 1.15


def test_a_burst_is_spread() -> None:
    rng = random.Random(1)
    moments = [next_due(recipient(), SCHEDULE, NOW, rng) for _ in range(200)]
    assert max(moments) - min(moments) > 300 * 0.15 * 0.9


@given(left=st.floats(0.001, 14400), seed=st.integers(0, 2**32))
def test_the_last_attempt_falls_on_the_expiry(left: float, seed: int) -> None:
    assert next_due(recipient(9, NOW + left), SCHEDULE, NOW, random.Random(seed)) == NOW + left


def test_what_is_past_its_expiry_but_goes_on_keeps_to_the_schedule() -> None:
    assert next_due(recipient(0, NOW - 1), SCHEDULE, NOW, random.Random(1)) >= NOW + 300


def test_a_deferral_gives_up_at_the_expiry_and_not_before() -> None:
    verdict = trouble("no answer", "4.4.1", "connection")
    assert expired(recipient(expires=NOW + 0.001), verdict, NOW) is None
    over = expired(recipient(expires=NOW), verdict, NOW)
    assert over is not None
    assert (over.outcome, over.enhanced, over.reply) == (Outcome.BOUNCED, "4.4.7", "no answer")


@pytest.mark.parametrize(
    ("text", "status"), [("4.2.2 mailbox full", "4.2.2"), ("4.7.1 greylisted", "4.7.1"), ("try later", "4.4.7")]
)
def test_the_status_of_what_expires_is_the_last_one_of_a_reply_else_4_4_7(text: str, status: str) -> None:
    over = expired(recipient(expires=NOW), judge(reply_of(451, text)), NOW)
    assert over is not None
    assert (over.enhanced, over.code, over.remote) == (status, 451, True)


@pytest.mark.parametrize("code", [250, 550])
def test_only_deferrals_expire(code: int) -> None:
    assert expired(recipient(expires=NOW - 1), judge(reply_of(code, "")), NOW) is None
