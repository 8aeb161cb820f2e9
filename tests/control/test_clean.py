"""Text from outside cannot drive a terminal nor read as another text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.control.clean import clean, clean_lines, clean_value

HOSTILE = {
    "set the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "retitle": "\x1b]0;owned\x1b\\",
    "clear the screen": "\x1b[2J",
    "c1 csi": "\x9b2J",
    "delete": "\x7f",
    "line break": "a\nb",
    "carriage return": "real\rfake",
    "tab": "a\tb",
    "bidi override": "a\u202egpj.exe",
    "bidi isolate": "\u2066x\u2069",
    "arabic letter mark": "\u061cx",
    "zero width space": "pay\u200bpal",
    "zero width joiner": "a\u200db",
    "byte order mark": "\ufeffx",
    "soft hyphen": "a\u00adb",
    "tag characters": "x\U000e0041\U000e007f",
    "line separator": "a\u2028b",
    "surrogate": "a\udc80b",
    "private use": "\ue000",
    "interlinear": "\ufff9x",
    "hangul filler": "\u3164",
    "braille blank": "\u2800",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_characters_are_shown_as_replaced(text: str) -> None:
    cleaned = clean(text)
    assert "\ufffd" in cleaned
    assert len(cleaned) == len(text)
    assert cleaned.isprintable()


@pytest.mark.parametrize("text", ["", "plain text", "Grüße, 日本語 и привет", "e\u0301 \u2192 ok", "👍🏽"])
def test_honest_text_is_unchanged(text: str) -> None:
    assert clean(text) == text


def test_other_blanks_become_blanks() -> None:
    assert clean("a\u00a0b\u3000c") == "a b c"


def test_a_heap_of_combining_marks_is_cut() -> None:
    cleaned = clean("a" + "\u0301" * 50)
    assert cleaned == "a" + "\u0301" * 4 + "\ufffd"


@given(st.text(st.characters(codec=None)))
def test_nothing_but_printable_text_comes_out(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert not {unicodedata.category(char) for char in cleaned} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert clean(cleaned) == cleaned


def test_lines_stay_lines() -> None:
    assert clean_lines("a\r\nb\x1b\n\tc") == "a\nb\ufffd\n    c"


def test_values_are_cleaned_all_the_way_down() -> None:
    assert clean_value({"a\x1b": ["\x07", {"b": "\n"}], "n": 1, "t": None}) == {
        "a\ufffd": ["\ufffd", {"b": "\ufffd"}],
        "n": 1,
        "t": None,
    }
