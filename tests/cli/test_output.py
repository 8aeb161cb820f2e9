"""Tables that fit, coarse spans and sizes."""

import pytest

from mailtui.cli import output
from mailtui.cli.output import Column


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (11100, "3h05m"), (352800, "4d02h"), (1e8, "1157d"),
     (-1, "now"), (None, "-")],
)  # fmt: skip
def test_spans_are_coarse_and_short(seconds: float | None, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0K"), (9011, "8.8K"), (70656, "69K"), (1 << 20, "1.0M"), (5 << 40, "5.0T")],
)
def test_sizes_are_short(octets: int, text: str) -> None:
    assert output.size(octets) == text


def test_a_table_is_aligned_and_never_wider_than_asked(capsys: pytest.CaptureFixture[str]) -> None:
    heads = [Column("ID"), Column("N", right=True), Column("TEXT", flex=True), Column("OTHER", flex=True)]
    output.table(heads, [["a", 1, "x" * 100, "short"], ["bb", 22, "日本" * 30, None]], limit=40)
    lines = capsys.readouterr().out.splitlines()
    assert [output.cell_width(line) <= 40 for line in lines] == [True] * 3
    assert lines[0].startswith("ID  N TEXT")
    assert lines[1].startswith("a   1 xxxx")
    assert lines[1].endswith("… short")
    assert lines[2].startswith("bb 22 日本")


def test_wide_characters_are_cut_by_cells() -> None:
    assert output.cut("日本語", 6) == "日本語"
    assert output.cut("日本語", 5) == "日本…"
    assert output.cut("日本語", 4) == "日…"
    assert output.cut("e\u0301e\u0301", 2) == "e\u0301e\u0301"


def test_long_text_wraps_at_blanks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "columns", lambda: 20)
    output.wrapped("Received: from a by b " + "c" * 30, "  ")
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 20 for line in lines)
    assert lines[0] == "  Received: from a"
    assert "".join(line.strip() for line in lines).count("c") == 31
