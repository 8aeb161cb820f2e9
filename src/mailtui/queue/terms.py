"""The terms of QUERY (contract.md "QUERY"): one table entry each, from the text of a term to what it asks of the store.

Promises: a term that cannot be understood raises `QueryError` with one line that says what is wrong and shows an
example. To add a term, write one entry of `TERMS`.

A term gives conditions that say it all, in the queue and in the history. Where an index leads, it gives `Lead`s too,
or narrows the `Draft` itself (id, dest, state, age): then nothing else is looked at.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mailtui import ids
from mailtui.queue.conditions import (
    MESSAGES,
    RECIPIENTS,
    TRUE,
    Condition,
    Domains,
    Lead,
    QueryError,
    any_of,
    contains,
    like,
    matches,
    shown,
)
from mailtui.queue.tables.messages import fingerprint, sender_domain

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
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([kmg]?)b?", re.IGNORECASE)


@dataclass(slots=True)
class Draft:
    """A query while its terms are read; all of it must hold.

    `rows` are (message, first ordinal, last ordinal); `after` and `before` bound the arrival (after <= arrived <
    before, seconds since the epoch). `past` are the conditions as the history takes them. `leads`: one entry a term
    that an index leads; whatever it selects is in one of its stretches. `plain`: there are terms that no index leads.
    """

    now: float
    rows: list[tuple[int, int, int]] | None = None
    destinations: list[Domains] | None = None
    states: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    after: float | None = None
    before: float | None = None
    conditions: list[Condition] = field(default_factory=list)
    past: list[Condition] = field(default_factory=list)
    leads: list[tuple[Lead, ...]] = field(default_factory=list)
    plain: bool = False

    def require(
        self,
        alternatives: Iterable[Condition],
        negated: bool,
        *,
        past: Iterable[Condition] | None = None,
        leads: Iterable[Lead] = (),
    ) -> None:
        """One of the alternatives must hold, or none of them. `past`: how the history says it, if otherwise."""
        condition = any_of(tuple(alternatives), negated)
        if condition == TRUE:
            return
        leads = tuple(leads)
        self.conditions.append(condition)
        self.past.append(condition if past is None else any_of(tuple(past), negated))
        if leads and not negated:
            self.leads.append(leads)
        else:
            self.plain = True


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


def _unquoted(value: str) -> str:
    """A value without the quotes that keep its blanks and commas together."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value


def _bare(value: str) -> str:
    """An address or identifier without what people paste around it."""
    value = _unquoted(value)
    if len(value) > 2 and value[0] == "<" and value[-1] == ">":
        value = value[1:-1]
    return value


def _to(draft: Draft, use: Use) -> None:
    """Led by destination when every alternative names its domain: `@domain`, `ann@domain`, `ann*@domain`."""
    domains: list[Domains] = []
    conditions: list[Condition] = []
    leads: list[Lead] = []
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
                if _one_spelling(address):
                    leads.append(Lead("address", value=fingerprint(address.removesuffix("."))))
            conditions.append(condition)
    led = not use.negated and draft.destinations is None and len(domains) == len(use.values)
    if led:
        draft.destinations = domains
    if led and whole:
        return
    exact = len(leads) == len(use.values)
    if exact and not use.negated:
        keys = tuple(lead.value for lead in leads)
        draft.conditions.append(Condition(f"+address_hash IN ({','.join('?' * len(keys))})", keys))
    draft.require(conditions, use.negated, past=conditions, leads=leads if exact else ())


def _one_spelling(address: str) -> bool:
    """Whether all spellings of an address have one fingerprint: no wildcard, no international name, no literal."""
    domain = address.rpartition("@")[2].lower()
    return address.isascii() and "*" not in address and domain[0] != "[" and "xn--" not in domain


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
    past: list[Condition] = []
    leads: list[Lead] = []
    keys: list[int] = []
    for value in use.values:
        sender = _bare(value)
        local, at, domain = sender.rpartition("@")
        if sender == "*":
            conditions.append(TRUE)
            past.append(TRUE)
        elif sender == "<>":
            conditions.append(Condition("sender_domain = 0", columns=frozenset(("sender_domain",))))
            past.append(Condition("sender = ''", of=MESSAGES))
            leads.append(Lead("sender"))
            keys.append(0)
        elif not at:
            conditions.append(matches("sender", sender, MESSAGES))
            past.append(conditions[-1])
        elif not domain:
            raise use.error(value, "a domain is missing")
        else:
            # Senders are kept as received, so a U-label may stand in either form.
            forms = {domain} if domain.isascii() or "*" in domain else {domain, _a_label(domain, use, value)}
            spelled = [matches("sender", f"{local or '*'}@{form}", MESSAGES) for form in sorted(forms)]
            past += spelled
            if not domain.isascii() or "*" in domain or (local not in ("", "*") and not sender.isascii()):
                conditions += spelled
            elif local in ("", "*"):
                own = frozenset(("sender_domain",))
                conditions.append(Condition("sender_domain = ?", (sender_domain("@" + domain),), columns=own))
                leads.append(Lead("senders", domain.lower()))
            else:
                conditions += spelled
                if "*" not in local:
                    keys.append(fingerprint(sender))
                    leads.append(Lead("sender", domain.lower(), keys[-1]))
    if any(keys) and len(keys) == len(use.values) and not use.negated:
        draft.conditions.append(Condition(f"+sender_hash IN ({','.join('?' * len(keys))})", tuple(keys)))
    draft.require(conditions, use.negated, past=past, leads=leads if len(leads) == len(use.values) else ())


def _hop(draft: Draft, use: Use) -> None:
    """A next hop by its name. The name of a site holds commas: it is an alternative as a whole too."""
    names = [_bare(value).lower() for value in use.values]
    if len(names) > 1:
        names.append(",".join(names))
    patterns = [Domains(like(name), pattern=True) if "*" in name else Domains(name) for name in names]
    exact = all(not pattern.pattern for pattern in patterns)
    leads = [Lead("hop", name) for name in names] if exact else ()
    draft.require((p.condition("hop") for p in patterns), use.negated, leads=leads)


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


def _seconds(use: Use) -> list[float]:
    seconds: list[float] = []
    for value in use.values:
        match = _DURATION.fullmatch(value)
        if match is None:
            raise use.error(value, "a duration is a number and a unit (s m h d w)")
        seconds.append(float(match[1]) * _SECONDS[match[2].lower()])
    return seconds


def _age(draft: Draft, use: Use) -> None:
    """Alternatives of one operator are half-lines: the widest is their union."""
    seconds = _seconds(use)
    older = use.operator == ">"
    moment = draft.now - (min(seconds) if older else max(seconds))
    if older != use.negated:
        draft.before = moment if draft.before is None else min(draft.before, moment)
    else:
        draft.after = moment if draft.after is None else max(draft.after, moment)


def _due(draft: Draft, use: Use) -> None:
    """When the next attempt is; what has none (held, leaving) is neither early nor late."""
    seconds = _seconds(use)
    later = use.operator == ">"
    moment = draft.now + (min(seconds) if later else max(seconds))
    if use.negated:
        sql = f"(due IS NULL OR due {'<=' if later else '>='} ?)"
        draft.require([Condition(sql, (moment,), columns=frozenset(("due",)))], False)
    else:
        lead = Lead("due_after" if later else "due_before", value=moment)
        condition = Condition("due > ?" if later else "due < ?", (moment,), columns=frozenset(("due",)))
        draft.require([condition], False, leads=[lead])


def _size(draft: Draft, use: Use) -> None:
    """Of the message, in octets."""
    sizes: list[float] = []
    for value in use.values:
        match = _SIZE.fullmatch(value)
        if match is None:
            raise use.error(value, "a size is a number of octets, with K, M or G for powers of 1024")
        sizes.append(float(match[1]) * _SIZES[match[2].lower()])
    sql = "size > ?" if use.operator == ">" else "size < ?"
    draft.require((Condition(sql, (size,), MESSAGES) for size in sizes), use.negated)


def _msgid(draft: Draft, use: Use) -> None:
    """With or without the angle brackets that belong to it."""
    conditions: list[Condition] = []
    leads: list[Lead] = []
    keys: list[int] = []
    for value in use.values:
        inner = _bare(value)
        for text in (f"<{inner}>", inner):
            conditions.append(matches("message_id", text, MESSAGES))
            if text.isascii() and "*" not in text:
                keys.append(fingerprint(text))
                leads.append(Lead("msgid", value=keys[-1]))
    exact = len(leads) == len(conditions)
    if exact and not use.negated:
        draft.conditions.append(Condition(f"+msgid_hash IN ({','.join('?' * len(keys))})", tuple(keys)))
    draft.require(conditions, use.negated, leads=leads if exact else ())


def _words_of(column: str, of: str = RECIPIENTS) -> Callable[[Draft, Use], None]:
    """Text that stands somewhere in the column."""

    def apply(draft: Draft, use: Use) -> None:
        draft.require((contains(column, _unquoted(value), of) for value in use.values), use.negated)

    return apply


def _text_of(column: str, of: str = RECIPIENTS) -> Callable[[Draft, Use], None]:
    """The column as a whole, `*` stands for anything; alone, for anything but nothing."""

    def condition(text: str) -> Condition:
        return Condition(f"{column} != ''", of=of) if text == "*" else matches(column, text, of)

    def apply(draft: Draft, use: Use) -> None:
        draft.require((condition(_unquoted(value)) for value in use.values), use.negated)

    return apply


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
        Term("hop", ":", "hop:mx.example.com", _hop, past=False),
        Term("state", ":", "state:held", _state, past=False),
        Term("age", "<>", "age>4h", _age),
        Term("size", "<>", "size>1M", _size, past=False),
        Term("tries", ":<>", "tries>3", _tries),
        Term("due", "<>", "due<5m", _due, past=False),
        Term("code", ":", "code:4.7.*", _code),
        Term("reply", ":", 'reply:"mailbox full"', _words_of("last_reply")),
        Term("subject", ":", 'subject:"invoice"', _words_of("subject", MESSAGES)),
        Term("msgid", ":", "msgid:1@example.com", _msgid),
        Term("host", ":", "host:mx1.example.com", _text_of("last_host")),
        Term("route", ":", "route:smtp*", _text_of("route"), past=False),
        Term("user", ":", "user:ann", _text_of("user", MESSAGES), past=False),
        Term("heldby", ":", "heldby:ann", _text_of("held_by"), past=False),
        Term("client", ":", "client:192.0.2.*", _text_of("client", MESSAGES), past=False),
        Term("listener", ":", "listener:submission", _text_of("listener", MESSAGES), past=False),
        Term("id", ":", "id:" + ids.encode(0), _id),
    )
}
