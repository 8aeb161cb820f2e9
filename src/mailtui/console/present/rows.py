"""A recipient of the queue as a row of the table: which columns at which width, and what stands in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Document, Line
from mailtui.console.present.text import clamp, elide, shorten

# The states of contract.md "Words" in four cells.
SHORT = {"queued": "new", "active": "act", "deferred": "def", "held": "hold", "leaving": "leav"}
_ROLES = {"active": "good", "held": "warn", "leaving": "bad"}

# Where wide layouts begin (console.md 5.3), and where the middle one has room for two more columns.
WIDE = 150
NORMAL = 100

# How a set is sorted: the column it shows in, and whether it is ascending there when not reversed.
SORTS = {
    "arrived": ("age", True),
    "next_attempt": ("next", True),
    "destination": ("to", True),
    "size": ("size", False),
    "attempts": ("try", False),
}

_TITLES = {"state": "ST", "next": "NEXT", "age": "AGE", "code": "CODE", "to": "TO", "from": "FROM", "try": "TRY",
           "size": "SIZE", "id": "ID", "reply": "LAST REPLY", "subject": "SUBJECT"}  # fmt: skip

# TO shows the domain whole: 34 cells hold nearly every one with some of the local part.
_TO = 34

# Behind the right edge, reached by scrolling (`l`).
_REPLY, _SUBJECT = 78, 60


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; `width` in cells, without the blank after it."""

    key: str
    title: str
    width: int
    right: bool = False


def columns(width: int) -> tuple[Column, ...]:
    """The columns for a table of `width` cells, the sign column (2 cells) included in it.

    Those behind FROM stand right of the edge."""
    fixed = [("state", 4, False), ("next", 5, True), ("age", 5, True)]
    if width >= NORMAL:
        fixed += [("try", 3, True), ("size", 5, True)]
    fixed.append(("code", 9, False))
    if width >= NORMAL:
        fixed.append(("id", 13, False))
    left = width - 2 - sum(cells + 1 for _, cells, _ in fixed)
    to = max(12, min(_TO, left - 10)) if left < 2 * _TO else left * 3 // 5
    shown = [*fixed, ("to", to, False), ("from", max(8, left - to - 1), False)]
    hidden = [] if width >= NORMAL else [("try", 3, True), ("size", 5, True), ("id", 13, False)]
    hidden += [("reply", _REPLY, False), ("subject", _SUBJECT, False)]
    return tuple(Column(key, _TITLES[key], cells, right) for key, cells, right in [*shown, *hidden])


class QueueFace:
    """How the queue's rows look in a table; `sort` and `reverse` are those of the set."""

    def __init__(self, glyphs: Glyphs, sort: str = "arrived", reverse: bool = False) -> None:
        self.glyphs = glyphs
        self.sort = sort
        self.reverse = reverse

    def columns(self, width: int) -> tuple[Column, ...]:
        return columns(width)

    def header(self, shown: Sequence[Column]) -> Line:
        """The titles, that of the sorted column with the direction."""
        key, ascending = SORTS.get(self.sort, ("", True))
        sign = self.glyphs.up if ascending != self.reverse else self.glyphs.down
        line: Line = []
        for column in shown:
            text = column.title + (sign if column.key == key else "")
            line += [(words.fit(text, column.width, right=column.right, mark=""), "title"), (" ", "")]
        return line

    def cells(self, row: Document, shown: Sequence[Column], now: float) -> tuple[tuple[str, str], ...]:
        """(text, role) of each column; equal for two moments at which the row looks the same."""
        mark = self.glyphs.ellipsis
        state = "gone" if row.get("gone") else str(row.get("state", ""))
        found = []
        for column in shown:
            text = clamp(_cell(column, row, state, now, mark), column.width)
            role = "dim" if state == "gone" else _role(column.key, row, state)
            found.append((words.fit(text, column.width, right=column.right, mark=mark), role))
        return tuple(found)

    def name(self, row: Document) -> str:
        """The row's identity: its rid."""
        return str(row.get("rid", ""))


def sort_words(sort: str, reverse: bool, glyphs: Glyphs) -> str:
    """`by NEXT▲`."""
    key, ascending = SORTS.get(sort, ("", True))
    return f"by {_TITLES.get(key, sort)}{glyphs.up if ascending != reverse else glyphs.down}"


def brief(seconds: float | None) -> str:
    """A length of time in at most five cells."""
    text = words.age(seconds)
    return text if len(text) <= 5 else text[: 1 + min(i for i, char in enumerate(text) if char in "dh")]


def until(text: object, now: float) -> str:
    """How long it is until a time; `due` when it has come."""
    at = words.moment(text)
    return "-" if at is None else "due" if at <= now else brief(at - now)


def code(row: Document) -> str:
    """The last reply's codes, `-` before the first."""
    parts = [str(part) for part in (row.get("last_code"), row.get("last_enhanced")) if part]
    return " ".join(parts) or "-"


def reply(row: Document, prefix: str = "") -> str:
    """A reply on one line: code, enhanced code, text; "" if there is none."""
    parts = (row.get(f"{prefix}code"), row.get(f"{prefix}enhanced"), row.get(f"{prefix}reply"))
    return " ".join(str(part) for part in parts if part)


def _cell(column: Column, row: Document, state: str, now: float, ellipsis: str) -> str:
    key = column.key
    if key == "state":
        return SHORT.get(state, state)
    if key == "id":
        return str(row.get("id", ""))
    if "arrived" not in row:  # gone before it was ever seen
        return str(row.get("rid", "")) if key == "to" else ""
    if key == "next":
        return "-" if state == "gone" else "now" if state == "active" else until(row.get("next_attempt"), now)
    if key == "age":
        at = words.moment(row["arrived"])
        return "-" if at is None else brief(now - at)
    if key == "code":
        return code(row)
    if key == "to":
        return elide(str(row.get("recipient", "")), column.width, ellipsis)
    if key == "from":
        return elide(str(row.get("sender") or "<>"), column.width, ellipsis)
    if key == "try":
        return str(row.get("attempts", ""))
    if key == "size":
        return words.size(row.get("size"))
    if key == "reply":
        return str(row.get("last_reply") or "-")
    return str(row.get("subject") or "-")


def _role(key: str, row: Document, state: str) -> str:
    if key == "state":
        return _ROLES.get(state, "")
    if key == "code":
        return "bad" if str(row.get("last_code") or "").startswith("5") else "warn" if row.get("last_code") else "dim"
    return "dim" if key in ("id", "subject") else ""


def reason(row: Document, now: float) -> str:
    """What keeps it here, as far as the row itself knows; `why` knows more."""
    said = " ".join(
        str(part) for part in (row.get("last_code"), row.get("last_enhanced"), row.get("last_reply")) if part
    )
    state = "gone" if row.get("gone") else row.get("state")
    if state == "gone":
        return "left the queue since this list was taken; ctrl+r takes it again" + (f"; was {said}" if said else "")
    if state == "held":
        by = row.get("held_by") or "an operator"
        return f"on hold by {by}" + (f"; was {said}" if said else "; never tried")
    if state == "leaving":
        return "given up by an operator; it goes when its grace ends; z brings it back"
    if state == "active":
        return f"on a connection to {row.get('next_hop') or row.get('destination')} now"
    wait = until(row.get("next_attempt"), now)
    if state == "queued":
        return "accepted, not tried yet" + (f"; due in {wait}" if wait not in ("due", "-") else "")
    number = int(row.get("attempts") or 0) + 1
    lead = f"due now for try {number}" if wait == "due" else f"waits {wait} for try {number}"
    host = f" ({row['last_host']})" if row.get("last_host") else ""
    return f"{lead}; last: {said}{host}" if said else lead


def cursor_lines(row: dict[str, Any] | None, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """What the table has no room for, of the row under the cursor: two lines."""
    if row is None:
        return [[], []]
    rid = str(row.get("rid", ""))
    first: Line = [(f" {rid}", "strong")]
    if "arrived" in row:
        first += [
            (f"  {row.get('state')}", _ROLES.get(str(row.get("state")), "")),
            (f"  {words.size(row.get('size'))}  try {row.get('attempts')}", ""),
            (f"  {row.get('recipient')}", ""),
        ]
    second: Line = [(f" {reason(row, now)}", "dim" if row.get("gone") else "")]
    return [shorten(first, width, glyphs.ellipsis), shorten(second, width, glyphs.ellipsis)]
