"""Rows of the queue as CSV, for a spreadsheet (RFC 4180: CRLF, quotes doubled).

Promises: no cell is read as a formula. Strangers wrote what stands in these cells, and a spreadsheet takes
`=HYPERLINK(...)`, `+...`, `-...` and `@SUM(...)` for formulas, quoted or not: quotes belong to the file, not to the
cell. So an apostrophe goes before them, which a spreadsheet takes as "this is text" and a reader sees. Scripts read
JSON Lines, where nothing is changed. Every cell is quoted besides, and a semicolon before such a sign counts as the
beginning of a cell, since half of Europe has it as the separator. Control characters are replaced (`control.clean`).
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

from mailtui.console.present import Document
from mailtui.control.clean import clean

# The fields of `queue list` (contract.md), in their order, but the cursor, which is for machines.
FIELDS = (
    "id", "rid", "recipient", "sender", "subject", "message_id", "destination", "next_hop", "state", "size", "arrived",
    "next_attempt", "attempts", "last_code", "last_enhanced", "last_reply", "last_host", "route", "client", "user",
    "held_by", "expires",
)  # fmt: skip

# Their wide twins are formulas for a spreadsheet that speaks Japanese.
_FORMULA = re.compile("(^|;)(\\s*)([=+\\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
                      "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}])")  # fmt: skip


def cell(value: Any) -> str:
    """A value as the text of a cell."""
    text = "" if value is None else clean(str(value))
    return _FORMULA.sub(r"\1\2'\3", text)


def csv_text(rows: Iterable[Document], *, head: bool = False) -> str:
    """Rows as lines; with `head` the names of the fields first."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    if head:
        writer.writerow(FIELDS)
    writer.writerows([cell(row.get(name)) for name in FIELDS] for row in rows)
    return out.getvalue()
