"""The terms of QUERY (contract.md "QUERY"): one table entry each, from the text of a term to what it asks of the store.

Promises: SQL is constant text and values are parameters; a term that cannot be understood raises `QueryError` with one
line that says what is wrong and shows an example. To add a term, write one entry of `TERMS`.

A fragment of SQL names columns without their table (`address`, `sender`, `last_code` ...). No two of `recipients` and
`messages` share a name, and the history is read under the same names, so one text serves the queue and the history.
Terms that an index can lead by (id, dest, state, age) leave no fragment but narrow the `Draft` itself.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mailtui import ids
from mailtui.events import escape

# All states, and those that a query means when it names none: contract.md "Words", `leaving`.
STATES = ("queued", "active", "deferred", "held", "leaving")
PRESENT = frozenset(STATES) - {"leaving"}

# Above any ordinal: `[limits] recipients` is far below, and `ids.parse` takes six digits.
LAST_ORDINAL = 2**31 - 1

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw])", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}")
_CODE = re.compile(r"[245][0-9]{2}|[245][0-9]?\*")
_ENHANCED = re.compile(r"[245*](?:\.(?:[0-9]{1,3}|\*)){1,2}")


class QueryError(ValueError):
    """A query that cannot be understood; the text is one line for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A constant piece of SQL with `?` for its values. TRUE ("1") matches everything."""

    sql: str
    values: tuple[str | int | float, ...] = ()


TRUE = Condition("1")
FALSE = Condition("0")


@dataclass(frozen=True, slots=True)
class Domains:
    """Interned domains by name in canonical form, or by a LIKE pattern over such names."""

    text: str
    pattern: bool = False

    def condition(self) -> Condition:
        """Recipients whose destination is one of these."""
        if self.pattern:
            return Condition(
                "destination IN (SELECT domains.id FROM domains WHERE domains.name LIKE ? ESCAPE '\\')", (self.text,)
            )
        return Condition("destination IN (SELECT domains.id FROM domains WHERE domains.name = ?)", (self.text,))


@dataclass(slots=True)
class Draft:
    """A query while its terms are read; all of it must hold.

    `rows` are (message, first ordinal, last ordinal); `after` and `before` bound the arrival (after <= arrived <
    before, seconds since the epoch); `envelope` is set when a condition needs a column of `messages`.
    """

    now: float
    rows: list[tuple[int, int, int]] | None = None
    destinations: list[Domains] | None = None
    states: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    after: float | None = None
    before: float | None = None
    conditions: list[Condition] = field(default_factory=list)
    envelope: bool = False

    def require(self, alternatives: Iterable[Condition], negated: bool) -> None:
        """One of the alternatives must hold, or none of them."""
        alternatives = tuple(alternatives)
        if TRUE in alternatives:
            if negated:
                self.conditions.append(FALSE)
            return
        sql = " OR ".join(c.sql for c in alternatives)
        values = tuple(v for c in alternatives for v in c.values)
        self.conditions.append(Condition(f"NOT ({sql})" if negated else f"({sql})", values))


@dataclass(frozen=True, slots=True)
class Term:
    """A term: its operators, an example for error texts, and what it does to the draft."""

    name: str
    operators: str
    example: str
    apply: Callable[[Draft, "Use"], None]
    past: bool = True  # means something in the history too


@dataclass(frozen=True, slots=True)
class Use:
    """A term as it was used: `values` are its alternatives, never empty."""

    name: str
    operator: str
    values: tuple[str, ...]
    negated: bool

    def error(self, value: str, what: str) -> QueryError:
        return QueryError(f"{self.name}{self.operator}{shown(value)}: {what}, for example {TERMS[self.name].example}")


def shown(text: str) -> str:
    """What somebody typed, fit for one line of an error."""
    return escape(text if len(text) <= 60 else text[:59] + "…")


def like(text: str) -> str:
    """A LIKE pattern (ESCAPE '\\') for a text with `*` wildcards."""
    text = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return re.sub(r"\*+", "%", text)


def matches(column: str, text: str) -> Condition:
    """The column is the text, whatever the case; `*` stands for anything.

    SQLite folds ASCII only; a text beyond ASCII goes through `casefold`, which `read.Reader` provides.
    """
    if text.isascii():
        if "*" in text:
            return Condition(f"{column} LIKE ? ESCAPE '\\'", (like(text),))
        return Condition(f"{column} = ? COLLATE NOCASE", (text,))
    text = text.casefold()
    if "*" in text:
        return Condition(f"casefold({column}) LIKE ? ESCAPE '\\'", (like(text),))
    return Condition(f"casefold({column}) = ?", (text,))


def _canonical(domain: str, use: Use, value: str) -> Domains:
    """The domain as destinations are stored: lower-case A-label without a final dot, or an address literal."""
    domain = domain.removesuffix(".").lower()
    if not domain:
        raise use.error(value, "a domain is missing")
    if "*" not in domain:
        return Domains(domain if domain.isascii() and domain[0] != "[" else _a_label(domain, use, value))
    if domain[0] != "[":
        labels = domain.split(".")
        for i, label in enumerate(labels):
            if not label.isascii():
                if "*" in label:
                    raise use.error(value, "beside a wildcard a label must stand in its A-label form (xn--...)")
                labels[i] = _a_label(label, use, value)
        domain = ".".join(labels)
    return Domains(like(domain), pattern=True)


def _a_label(domain: str, use: Use, value: str) -> str:
    # Imported when needed: nearly every query is ASCII, and the command line should start fast.
    from mailtui.address import AddressError, destination_of

    try:
        return destination_of(domain)
    except AddressError as error:
        raise use.error(value, f"not a domain ({shown(str(error))})") from None


def _bare(value: str) -> str:
    """An address without what people paste around it."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"')
    if len(value) > 2 and value[0] == "<" and value[-1] == ">":
        value = value[1:-1]
    return value


def _to(draft: Draft, use: Use) -> None:
    """Led by destination when every alternative names its domain: `@domain`, `ann@domain`, `ann*@domain`."""
    domains: list[Domains] = []
    conditions: list[Condition] = []
    whole = True  # the domains say it all
    for value in use.values:
        address = _bare(value)
        local, at, domain = address.rpartition("@")
        if address == "*" or (local in ("", "*") and domain == "*"):
            conditions.append(TRUE)
        elif not at or domain == "*":
            conditions.append(matches("address", address))
        else:
            domains.append(_canonical(domain, use, value))
            condition = domains[-1].condition()
            if local not in ("", "*"):
                whole = False
                narrower = _local(local)
                condition = Condition(f"({condition.sql} AND {narrower.sql})", condition.values + narrower.values)
            conditions.append(condition)
    led = not use.negated and draft.destinations is None and len(domains) == len(use.values)
    if led:
        draft.destinations = domains
    if not (led and whole):
        draft.require(conditions, use.negated)


def _local(local: str) -> Condition:
    """The address begins with this local part. Only a quoted one holds an "@" itself."""
    start = local + "@"
    if "*" in local:
        return matches("address", start + "*")
    return matches(f"substr(address, 1, {len(start)})", start)


def _dest(draft: Draft, use: Use) -> None:
    domains = [_canonical(value, use, value) for value in use.values]
    if not use.negated and draft.destinations is None:
        draft.destinations = domains
    else:
        draft.require((d.condition() for d in domains), use.negated)


def _from(draft: Draft, use: Use) -> None:
    conditions: list[Condition] = []
    for value in use.values:
        sender = _bare(value)
        local, at, domain = sender.rpartition("@")
        if sender == "*":
            conditions.append(TRUE)
        elif sender == "<>":
            conditions.append(Condition("sender = ''"))
        elif at:
            if not domain:
                raise use.error(value, "a domain is missing")
            # Senders are kept as received, so a U-label may stand in either form.
            forms = {domain} if domain.isascii() or "*" in domain else {domain, _a_label(domain, use, value)}
            conditions += [matches("sender", f"{local or '*'}@{form}") for form in sorted(forms)]
        else:
            conditions.append(matches("sender", sender))
    draft.envelope = True
    draft.require(conditions, use.negated)


def _state(draft: Draft, use: Use) -> None:
    """Named states; without one a query means all but leaving, also when it only excludes some."""
    for value in use.values:
        if value.lower() not in STATES:
            raise use.error(value, f"a state is one of {' '.join(STATES)}")
    named = frozenset(value.lower() for value in use.values)
    if use.negated:
        draft.excluded |= named
    else:
        draft.states = named if draft.states is None else draft.states & named


def _age(draft: Draft, use: Use) -> None:
    """Alternatives of one operator are half-lines: the widest is their union."""
    seconds: list[float] = []
    for value in use.values:
        match = _DURATION.fullmatch(value)
        if match is None:
            raise use.error(value, "a duration is a number and a unit (s m h d w)")
        seconds.append(float(match[1]) * _SECONDS[match[2].lower()])
    older = use.operator == ">"
    moment = draft.now - (min(seconds) if older else max(seconds))
    if older != use.negated:
        draft.before = moment if draft.before is None else min(draft.before, moment)
    else:
        draft.after = moment if draft.after is None else max(draft.after, moment)


def _id(draft: Draft, use: Use) -> None:
    rows: list[tuple[int, int, int]] = []
    for value in use.values:
        try:
            message, ordinal = ids.parse(value)
        except ValueError:
            raise use.error(value, "not a queue id") from None
        rows.append((message, 0, LAST_ORDINAL) if ordinal is None else (message, ordinal, ordinal))
    if not use.negated and draft.rows is None:
        draft.rows = rows
    else:
        draft.require((Condition("(message = ? AND ordinal BETWEEN ? AND ?)", row) for row in rows), use.negated)


_TRIES = {":": "attempts = ?", ">": "attempts > ?", "<": "attempts < ?"}


def _tries(draft: Draft, use: Use) -> None:
    for value in use.values:
        if not _NUMBER.fullmatch(value):
            raise use.error(value, "a number of attempts is expected")
    draft.require((Condition(_TRIES[use.operator], (int(v),)) for v in use.values), use.negated)


def _code(draft: Draft, use: Use) -> None:
    conditions: list[Condition] = []
    for value in use.values:
        if _CODE.fullmatch(value):
            digits = value.rstrip("*")
            low, high = digits.ljust(3, "0"), digits.ljust(3, "9")
            conditions.append(Condition("last_code BETWEEN ? AND ?", (int(low), int(high))))
        elif _ENHANCED.fullmatch(value):
            conditions.append(matches("last_enhanced", value))
        else:
            raise use.error(value, "a reply code (421, 4*) or an enhanced code (4.7.0, 4.7.*) is expected")
    draft.require(conditions, use.negated)


TERMS = {
    term.name: term
    for term in (
        Term("to", ":", "to:ann@example.com", _to),
        Term("from", ":", "from:@example.com", _from),
        Term("dest", ":", "dest:example.com", _dest),
        Term("state", ":", "state:held", _state, past=False),
        Term("age", "<>", "age>4h", _age),
        Term("tries", ":<>", "tries>3", _tries),
        Term("code", ":", "code:4.7.*", _code),
        Term("id", ":", "id:" + ids.encode(0), _id),
    )
}
