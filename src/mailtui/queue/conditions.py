"""What a term of QUERY asks of the store: constant SQL with values, and the stretches of an index that hold its answer.

Promises: SQL is constant text and values are parameters. A fragment names columns without their table (`address`,
`sender`, `last_code` ...): no two of `recipients` and `messages` share a name, and the history is read under the same
names, so one text serves the queue and the history.
"""

import re
from dataclasses import dataclass

from mailtui.events import escape

RECIPIENTS, MESSAGES, BOTH = "recipients", "messages", "both"


class QueryError(ValueError):
    """A query that cannot be understood; the text is one line for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A constant piece of SQL with `?` for its values, and whose columns it reads (RECIPIENTS, MESSAGES or BOTH).

    `columns` are those that it reads, where an index may have them all; None: others too.
    """

    sql: str
    values: tuple[str | int | float, ...] = ()
    of: str = RECIPIENTS
    columns: frozenset[str] | None = None


TRUE = Condition("1")
# Never true, but not a constant: with one, SQLite 3.40 finds "no query solution" for INDEXED BY a partial index.
FALSE = Condition("message < 0", columns=frozenset())


@dataclass(frozen=True, slots=True)
class Domains:
    """Interned domains by name in canonical form, or by a LIKE pattern over such names."""

    text: str
    pattern: bool = False

    def condition(self, column: str = "destination") -> Condition:
        """Recipients whose destination (or hop, or sender's domain) is one of these."""
        like = "LIKE ? ESCAPE '\\')" if self.pattern else "= ?)"
        return Condition(
            "".join((column, " IN (SELECT domains.id FROM domains WHERE domains.name ", like)),
            (self.text,),
            columns=frozenset((column,)),
        )


@dataclass(frozen=True, slots=True)
class Lead:
    """A stretch of an index that holds whatever one alternative of a term selects: recipients of one `kind`.

    `hop` and `senders` name a domain or hop (`name`), `sender` a domain and a hash, `address` and `msgid` a hash,
    `due_before` and `due_after` a moment (`value`).
    """

    kind: str
    name: str = ""
    value: float = 0


def any_of(alternatives: tuple[Condition, ...], negated: bool) -> Condition:
    """One of the alternatives holds, or none of them."""
    if TRUE in alternatives:
        return FALSE if negated else TRUE
    sql = " OR ".join(c.sql for c in alternatives)
    reads = {c.of for c in alternatives}
    values = tuple(v for c in alternatives for v in c.values)
    columns: frozenset[str] | None = frozenset()
    for c in alternatives:
        columns = None if columns is None or c.columns is None else columns | c.columns
    return Condition(
        f"NOT ({sql})" if negated else f"({sql})", values, reads.pop() if len(reads) == 1 else BOTH, columns
    )


def shown(text: str) -> str:
    """What somebody typed, fit for one line of an error."""
    return escape(text if len(text) <= 60 else text[:59] + "…")


def like(text: str) -> str:
    """A LIKE pattern (ESCAPE '\\') for a text with `*` wildcards."""
    text = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return re.sub(r"\*+", "%", text)


def matches(column: str, text: str, of: str = RECIPIENTS) -> Condition:
    """The column is the text, whatever the case; `*` stands for anything.

    SQLite folds ASCII only; a text beyond ASCII goes through `casefold`, which `read.Reader` provides.
    """
    if text.isascii():
        if "*" in text:
            return Condition(f"{column} LIKE ? ESCAPE '\\'", (like(text),), of)
        return Condition(f"{column} = ? COLLATE NOCASE", (text,), of)
    text = text.casefold()
    if "*" in text:
        return Condition(f"casefold({column}) LIKE ? ESCAPE '\\'", (like(text),), of)
    return Condition(f"casefold({column}) = ?", (text,), of)


def contains(column: str, text: str, of: str = RECIPIENTS) -> Condition:
    """The text stands somewhere in the column, whatever the case; `*` stands for anything."""
    return matches(column, f"*{text}*", of)
