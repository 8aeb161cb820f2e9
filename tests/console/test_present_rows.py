"""The rows of the queue's table: which columns, and what stands in them."""

from typing import Any

import pytest

from mailtui.clock import rfc3339
from mailtui.console import words
from mailtui.console.glyphs import ASCII, UNICODE
from mailtui.console.present.rows import QueueFace, brief, columns, cursor_lines, reason, sort_words
from mailtui.console.present.text import elide, fold, paragraph, plain, shorten
from tests.console.fake_queue import NOW, plain_row


def cells(width: int = 79, now: float = NOW, **changed: Any) -> dict[str, str]:
    """The cells of a row by their columns."""
    face = QueueFace(UNICODE)
    shown = face.columns(width)
    found = face.cells({**plain_row(0), **changed}, shown, now)
    return {column.key: text.strip() for column, (text, _) in zip(shown, found, strict=True)}


@pytest.mark.parametrize("width", [20, 79, 80, 99, 100, 104, 149, 150, 300])
def test_every_cell_fits_its_column_and_the_visible_ones_the_window(width: int) -> None:
    shown = columns(width)
    face = QueueFace(UNICODE)
    for text, column in zip(face.cells(plain_row(3), shown, NOW), shown, strict=True):
        assert words.cells(text[0]) == column.width
    visible = shown[: [column.key for column in shown].index("from") + 1]
    if width >= 79:
        assert 2 + sum(column.width + 1 for column in visible) - 1 <= width


def test_a_small_terminal_shows_state_next_age_code_to_and_from() -> None:
    keys = [column.key for column in columns(79)]
    assert keys[:6] == ["state", "next", "age", "code", "to", "from"]
    assert next(column.width for column in columns(79) if column.key == "to") == 34


def test_a_larger_one_shows_try_size_and_id_as_well() -> None:
    keys = [column.key for column in columns(104)]
    assert keys[: keys.index("from")] == ["state", "next", "age", "try", "size", "code", "id", "to"]


@pytest.mark.parametrize(
    ("changed", "key", "text"),
    [
        ({"state": "queued"}, "state", "new"),
        ({"state": "active"}, "next", "now"),
        ({"state": "held", "next_attempt": None}, "next", "-"),
        ({"next_attempt": rfc3339(NOW - 1)}, "next", "due"),
        ({"next_attempt": rfc3339(NOW + 90)}, "next", "90s"),
        ({"arrived": rfc3339(NOW - 4 * 86400 - 7200)}, "age", "4d02h"),
        ({"arrived": rfc3339(NOW - 23 * 3600 - 300)}, "age", "23h"),
        ({"arrived": rfc3339(NOW - 200 * 86400)}, "age", "200d"),
        ({"last_code": None, "last_enhanced": None}, "code", "-"),
        ({"last_code": "550", "last_enhanced": "5.7.25"}, "code", "550 5.7.…"),
        ({"sender": ""}, "from", "<>"),
        ({"gone": True}, "state", "gone"),
        ({"gone": True}, "to", "rcpt0@dest0.example"),
        ({"size": 70_860}, "size", "69K"),
        ({"subject": ""}, "subject", "-"),
    ],
)
def test_what_stands_in_a_cell(changed: dict[str, Any], key: str, text: str) -> None:
    assert cells(**changed)[key] == text


def test_a_row_that_left_before_it_was_seen_shows_its_rid() -> None:
    face = QueueFace(UNICODE)
    shown = face.columns(79)
    found = face.cells({"id": "01", "rid": "01.0", "gone": True}, shown, NOW)
    assert "".join(text for text, _ in found).split() == ["gone", "01.0", "01"]
    assert {role for text, role in found} == {"dim"}


def test_an_old_row_looks_the_same_a_moment_later() -> None:
    assert cells(now=NOW + 0.4) == cells(now=NOW + 1)
    assert cells(now=NOW + 61) != cells(now=NOW)


@pytest.mark.parametrize(
    ("address", "width", "text"),
    [
        ("ann@example.org", 34, "ann@example.org"),
        ("a.very.long.local.part.indeed@example.org", 20, "a.very.…@example.org"),
        ("x@a-domain-that-is-longer-than-the-column.example.com", 20, "…-the-column.example.com"[-19:]),
        ("日本語@例え.jp", 12, "日…@例え.jp"),
        ("a" * 10_000 + "@example.org", 16, "aaa…@example.org"),
        ("postmaster", 5, "ster"),
        ("[" * 50, 10, "[" * 9),
    ],
)
def test_an_address_keeps_its_domain(address: str, width: int, text: str) -> None:
    found = elide(address, width)
    assert words.cells(found) <= width
    assert found.removeprefix("…") == text if "@" not in text else found == text


def test_a_length_of_time_takes_five_cells_at_most() -> None:
    for seconds in (0, 119, 120, 3599, 3600, 86399, 86400, 10 * 86400 - 1, 10 * 86400, 99 * 86400, 20_000 * 86400):
        assert len(brief(seconds)) <= 6 and (len(brief(seconds)) <= 5 or seconds > 9999 * 86400)


def test_the_header_says_by_what_and_which_way_it_is_sorted() -> None:
    face = QueueFace(UNICODE, "next_attempt", True)
    assert "NEXT▼" in plain(face.header(face.columns(79)))
    assert sort_words("arrived", False, UNICODE) == "by AGE▲"
    assert sort_words("size", False, ASCII) == "by SIZEv"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"state": "held", "held_by": "ann"}, "on hold by ann; was 451 4.7.1 greylisted, try later"),
        ({"state": "active"}, "on a connection to dest0.example now"),
        ({}, "waits 10m for try 4; last: 451 4.7.1 greylisted, try later (mx1.dest.example)"),
        ({"next_attempt": rfc3339(NOW), "last_host": ""}, "due now for try 4; last: 451 4.7.1 greylisted, try later"),
        ({"state": "queued", "next_attempt": rfc3339(NOW)}, "accepted, not tried yet"),
        ({"gone": True}, "left the queue since this list was taken; ctrl+r takes it again; "
                         "was 451 4.7.1 greylisted, try later"),
        ({"state": "leaving"}, "given up by an operator; it goes when its grace ends; z brings it back"),
    ],
)  # fmt: skip
def test_the_row_under_the_cursor_says_what_keeps_it(changed: dict[str, Any], text: str) -> None:
    assert reason({**plain_row(0), **changed}, NOW) == text


def test_the_cursor_lines_have_what_the_table_has_no_room_for() -> None:
    row = plain_row(0)
    first, second = cursor_lines(row, 79, NOW, UNICODE)
    assert plain(first) == f" {row['rid']}  deferred  1.0K  try 3  rcpt0@dest0.example"
    assert words.cells(plain(second)) <= 79
    assert cursor_lines(None, 79, NOW, UNICODE) == [[], []]


def test_wide_characters_are_never_cut_in_half() -> None:
    for width in range(8, 30):
        for piece in fold("例え" * 30, width):
            assert words.cells(piece) <= width
        assert words.cells(plain(shorten([("日本語", ""), ("メール" * 9, "bad")], width))) <= width
        for line in paragraph("日本語メール " * 9, width, first=[("名前 ", "")]):
            assert words.cells(plain(line)) <= max(width, 13)
