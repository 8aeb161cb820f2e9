"""The mail log: one line an event, whatever the text; counts of the last minute; a broken log never stops mail."""

import asyncio
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui import ids
from mailtui.clock import ManualClock
from mailtui.events import RECENT, WINDOW, Events, Rate, escape


def told(form: str = "text", level: str = "info") -> tuple[Events, io.StringIO]:
    stream = io.StringIO()
    return Events(ManualClock(), stream, form, level), stream


def test_a_line_of_the_log() -> None:
    events, stream = told()
    events.emit(
        "deferred", id=5, rid=ids.rid(5, 1), text="try later", code=421, host="mx.example", reused=False, user=""
    )
    events.flush()
    assert stream.getvalue() == (
        "2023-11-14T22:13:20.000Z deferred id=0000000000005 rid=0000000000005.1 "
        'text="try later" code=421 host=mx.example reused=False\n'
    )


def test_the_same_line_as_json() -> None:
    events, stream = told("json")
    events.emit("deferred", id=5, text="später", code=421, none=None)
    events.flush()
    line = stream.getvalue()
    assert line.endswith("\n") and line.isascii()
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.000Z",
        "event": "deferred",
        "id": "0000000000005",
        "text": "später",
        "code": 421,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("ann@example.com", "ann@example.com"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "no"', '"say \\"no\\""'),
        ("a=b", '"a=b"'),
        ("line\r\nnext: x", '"line\\\\r\\\\nnext: x"'),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("right\u202eleft", "right\\u202eleft"),
        ("größe", "größe"),
    ],
)
def test_text_from_outside_is_escaped(value: str, shown: str) -> None:
    assert escape(value) == shown


@given(st.text(), st.sampled_from(["text", "json"]))
def test_a_line_stays_a_line(text: str, form: str) -> None:
    events, stream = told(form)
    events.emit("refused", text=text, reply=text)
    events.flush()
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if form == "json" and text:
        assert json.loads(line)["text"] == text


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_value_never_runs_into_the_next_field(first: str, second: str) -> None:
    """Whatever the values, a reader that knows quotes finds exactly the fields that were told."""
    events, stream = told()
    events.emit("refused", helo=first, sender=second)
    events.flush()
    rest = stream.getvalue().rstrip("\n").split(" ", 2)[2]
    fields = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "]+)(?: |$)', rest)
    assert [name for name, _ in fields] == ["helo", "sender"]
    assert [value for _, value in fields] == [escape(first), escape(second)]


def test_only_events_of_the_level_are_written_but_all_are_kept_and_counted() -> None:
    events, stream = told(level="warning")
    for level in ("debug", "info", "warning", "error"):
        events.emit("thing", level=level, which=level)
    events.flush()
    assert [line.split("which=")[1] for line in stream.getvalue().splitlines()] == ["warning", "error"]
    assert [record["which"] for record in events.recent] == ["debug", "info", "warning", "error"]
    assert events.rates["thing"].total == events.sequence == 4


def test_recent_events_are_bounded() -> None:
    events, _ = told(level="error")
    for i in range(RECENT + 10):
        events.emit("accepted", number=i)
    assert len(events.recent) == RECENT
    assert events.recent[0]["number"] == 10


async def test_events_are_written_before_the_loop_turns_again_and_in_one_go() -> None:
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    events = Events(ManualClock(), Stream())
    events.emit("one")
    events.emit("two")
    assert writes == []
    await asyncio.sleep(0)
    assert len(writes) == 1
    assert [line.split()[1] for line in writes[0].splitlines()] == ["one", "two"]
    events.emit("three")
    await asyncio.sleep(0)
    assert len(writes) == 2


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed"), OSError(28, "disk full")])
def test_a_broken_log_stops_nothing(error: Exception) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    events = Events(ManualClock(), Broken())
    events.emit("accepted")
    events.flush()
    events.emit("accepted")
    events.flush()
    assert events.sequence == 2


def test_rates_count_the_last_whole_minute() -> None:
    clock = ManualClock()
    events = Events(clock, io.StringIO())
    assert events.count("accepted") == 0
    for _ in range(WINDOW):
        events.emit("accepted")
        events.emit("accepted")
        clock.advance(1)
    assert events.count("accepted") == 2 * WINDOW
    clock.advance(WINDOW / 2)
    assert events.count("accepted") == WINDOW
    clock.advance(10 * WINDOW)
    assert events.count("accepted") == 0
    assert events.rates["accepted"].total == 2 * WINDOW
    assert events.count("never") == 0


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 5)), max_size=40))
def test_a_rate_is_the_sum_of_the_last_sixty_seconds(steps: list[tuple[int, int]]) -> None:
    rate, now, added = Rate(), 1_000_000, []
    for gap, count in steps:
        now += gap
        rate.add(now + 0.5, count)
        added.append((now, count))
        assert rate.last_minute(now + 0.9) == sum(c for at, c in added if now - WINDOW <= at < now)
    assert rate.total == sum(c for _, c in added)
