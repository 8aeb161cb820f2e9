"""What left the queue, as lines."""

from collections.abc import Sequence

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Document, Line
from mailtui.console.present.rows import reply
from mailtui.console.present.text import elide, paragraph, shorten

_ROLES = {"delivered": "good", "bounced": "bad", "refused": "bad", "deleted": "warn"}


def past_lines(rows: Sequence[Document], width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """Two lines and more each: what became of it, when, where; then the last reply."""
    lines: list[Line] = []
    for row in rows:
        result = str(row.get("result") or "?")
        head: Line = [
            (words.fit(result, 10), _ROLES.get(result, "")),
            (f"{words.clock(row.get('at'), now)}  ", ""),
            (elide(str(row.get("recipient") or "-"), max(20, width - 45), glyphs.ellipsis), "strong"),
            (f"  {row.get('rid') or ''}", "dim"),
        ]
        lines.append(shorten(head, width, glyphs.ellipsis))
        said = reply(row) or "no reply"
        host = f"{row['host']}: " if row.get("host") else ""
        lines += paragraph(f"{host}{said}", width, indent=10)[:4]
    return lines or [[("Nothing in the history matches.", "dim")]]
