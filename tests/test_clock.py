"""Time: what the contract prints, and a clock that tests can move."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.clock import Clock, ManualClock, SystemClock, rfc3339


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (None, None),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.0, "2023-11-14T22:13:20.000Z"),
        (1_700_000_000.1234, "2023-11-14T22:13:20.123Z"),
        (1_700_000_000.9996, "2023-11-14T22:13:21.000Z"),
        (4_102_444_799.5, "2099-12-31T23:59:59.500Z"),
    ],
)
def test_a_moment_as_the_contract_prints_it(when: float | None, text: str | None) -> None:
    assert rfc3339(when) == text


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_moments_sort_as_text(a: float, b: float) -> None:
    first, second = rfc3339(a), rfc3339(b)
    assert first is not None and second is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first)
    if abs(a - b) > 0.002:
        assert (first < second) == (a < b)


async def test_sleepers_wake_in_the_order_of_their_moments() -> None:
    clock = ManualClock()
    start = clock.now()
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep_until(start + seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (30, 10, 20, 10)]
    await asyncio.sleep(0)
    clock.advance(9.9)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(0.1)
    await asyncio.sleep(0)
    assert woken == [10, 10]
    clock.advance(100)
    await asyncio.gather(*tasks)
    assert woken == [10, 10, 20, 30]


async def test_a_moment_that_is_past_is_not_waited_for() -> None:
    clock = ManualClock()
    await clock.sleep_until(clock.now())
    await clock.sleep_until(clock.now() - 1)


async def test_a_sleeper_that_was_cancelled_disturbs_nobody() -> None:
    clock = ManualClock()
    gone = asyncio.ensure_future(clock.sleep_until(clock.now() + 1))
    stays = asyncio.ensure_future(clock.sleep_until(clock.now() + 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    clock.advance(1)
    await stays
    assert gone.cancelled()


def test_both_times_of_a_manual_clock_advance_together() -> None:
    clock = ManualClock(1000.0)
    wall, monotonic = clock.now(), clock.monotonic()
    clock.advance(2.5)
    assert (clock.now() - wall, clock.monotonic() - monotonic) == (2.5, 2.5)


class StepClock(SystemClock):
    """A machine whose wall clock a test sets; waits are recorded instead of waited."""

    def __init__(self) -> None:
        self.wall = 0.0

    def now(self) -> float:  # type: ignore[override]
        return self.wall


async def test_a_step_of_the_wall_clock_is_noticed_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:  # Q15
    clock = StepClock()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.wall = 86_400.0 if len(waits) == 2 else clock.wall + seconds

    monkeypatch.setattr("mailtui.clock.asyncio.sleep", sleep)
    await clock.sleep_until(7200.0)
    assert waits == [SystemClock.RECHECK, SystemClock.RECHECK]


async def test_the_last_wait_is_only_as_long_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.wall += seconds

    monkeypatch.setattr("mailtui.clock.asyncio.sleep", sleep)
    await clock.sleep_until(150.0)
    assert waits == [60.0, 60.0, 30.0]


def test_the_machines_clock_keeps_the_protocol() -> None:
    clock: Clock = SystemClock()
    first, second = clock.monotonic(), clock.monotonic()
    assert first <= second
    assert clock.now() > 1_700_000_000
