"""Numbers, times and texts."""

import pytest

from mailtui.console import words
from mailtui.console.glyphs import ASCII, UNICODE, sparkline


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3599, "59m"),
        (11100, "3h05m"),
        (352800, "4d02h"),
        (1e8, "1157d"),
        (-5, "0s"),
    ],
)
def test_ages_are_coarse(seconds: float | None, text: str) -> None:
    assert words.age(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"), [(812, "812"), (9011, "8.8K"), (70_000, "68K"), (1.3e9, "1.2G"), (None, "-")]
)
def test_sizes_are_short(octets: float | None, text: str) -> None:
    assert words.size(octets) == text


def test_texts_are_measured_in_cells() -> None:
    assert words.cells("日本") == 4
    assert words.cut("日本語メール", 6) == "日本…"
    assert words.fit("日本語", 8) == "日本語  "
    assert words.fit("x", 3, right=True) == "  x"
    assert words.cut("abc", 1) == "…" and words.cut("abc", 0) == ""


def test_wrapping_breaks_what_is_too_long() -> None:
    assert list(words.wrap("one two three", 7)) == ["one two", "three"]
    assert list(words.wrap("a" * 10, 4)) == ["aaaa", "aaaa", "aa"]
    assert list(words.wrap("", 4)) == []
    assert all(words.cells(line) <= 5 for line in words.wrap("日本語メール mixed text", 5))


def test_times_carry_their_date_when_they_are_older_than_today() -> None:
    now = words.moment("2026-11-22T12:00:00Z")
    assert words.clock("2026-11-20T12:00:00Z", now).startswith("2026-11-20 ")
    assert len(words.clock("2026-11-22T12:00:00Z", now)) == 8
    assert words.clock("nonsense") == "-" and words.moment(None) is None


def test_sparklines_have_one_cell_a_value() -> None:
    assert sparkline([0, 1, 2, 4], 10, UNICODE) == "▁▃▅█"
    assert sparkline([0, 0], 10, UNICODE) == "▁▁"
    assert sparkline(range(100), 3, ASCII) == "OOo"[:0] + sparkline([97, 98, 99], 3, ASCII)
    assert sparkline([], 5, UNICODE) == "" and sparkline([1], 0, UNICODE) == ""
