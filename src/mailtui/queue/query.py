"""QUERY, the language that selects recipients (contract.md "QUERY"): words -> Query.

Promises: `parse` raises nothing but `QueryError`, with one line for the person who typed it; a Query holds constant
SQL and parameters, never a value inside the SQL; it knows by what an index can lead it, so that the reader scans only
what it must.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailtui import ids
from mailtui.queue.conditions import MESSAGES, RECIPIENTS, Condition, Domains, Lead, QueryError, shown
from mailtui.queue.terms import PRESENT, TERMS, Draft, Use

__all__ = ["Condition", "Domains", "Lead", "Query", "QueryError", "parse"]

# A value longer than this is no address, code or subject; SQLite's LIKE has a limit of its own far above.
LONGEST_VALUE = 1000

# More destinations than this are not merged one by one: the statements would cost more than going through the queue.
MOST_DESTINATIONS = 16

# Terms of the contract that this version does not know yet, and what to use instead.
COMING = {"cluster": "replies are not grouped into clusters yet; use code: or reply: instead"}

# Blanks and commas inside double quotes belong to the value; a backslash takes the next character as it is.
_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_VALUE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")*', re.DOTALL)
_TERM = re.compile(r"([A-Za-z]+)([:<>])(.*)", re.DOTALL)

# The bits of a queue id below its milliseconds (ids.py).
_ID_SEQUENCE_BITS = 21
_LAST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled query: every part must hold.

    `rows`: (message, first ordinal, last ordinal), one of them must hold the recipient. `destinations`: one of them.
    `states`: names of states, `active` among them. `after`, `before`: after <= arrived < before, seconds since the
    epoch. `conditions`: SQL over recipients and messages; `past`: the same over the history. `leads`: for each term
    that an index leads, the stretches in which everything is that it selects; `plain`: other terms are there too.
    `text` is the query as typed, for the journal.
    """

    text: str = ""
    names: frozenset[str] = frozenset()
    rows: tuple[tuple[int, int, int], ...] | None = None
    destinations: tuple[Domains, ...] | None = None
    states: frozenset[str] = PRESENT
    after: float | None = None
    before: float | None = None
    conditions: tuple[Condition, ...] = ()
    past: tuple[Condition, ...] = ()
    leads: tuple[tuple[Lead, ...], ...] = ()
    plain: bool = False

    @property
    def envelope(self) -> bool:
        """Needs columns of `messages`."""
        return any(condition.of != RECIPIENTS for condition in self.conditions)

    @property
    def by_envelope(self) -> bool:
        """Some condition needs nothing but columns of `messages`."""
        return any(condition.of == MESSAGES for condition in self.conditions)

    @property
    def aged(self) -> bool:
        """Asks for an age."""
        return self.after is not None or self.before is not None

    @property
    def timed(self) -> bool:
        """Asks for a time of the next attempt: what has none cannot match."""
        return any(lead.kind in ("due_before", "due_after") for leads in self.leads for lead in leads)

    @property
    def everything(self) -> bool:
        """Means every recipient that is not leaving."""
        return self.by_counters and self.destinations is None and self.states == PRESENT

    @property
    def by_counters(self) -> bool:
        """Asks for nothing but destinations and states, which the counters know."""
        return self.rows is None and self.after is None and self.before is None and not self.conditions

    @property
    def low(self) -> int:
        """The first message id that may match.

        Ids carry the time of arrival; after a clock has stepped back they run ahead of it until it has caught up,
        and a message then counts as younger than it is by at most that step.
        """
        return 0 if self.after is None else _first_id(self.after)

    @property
    def high(self) -> int:
        """The first message id that is too new to match."""
        return _LAST_ID if self.before is None else _first_id(self.before)

    def instant(self, sort: str = "arrived") -> bool:
        """True if a page is found through an index; else it belongs on the scan reader.

        Led by an id, everything is. Else one term leads (dest, hop, to, from, msgid, due), or none, in the order of
        arrived or next_attempt; ages and states go with dest, in the order of destination with dest only. A term that
        no index knows, several terms that lead, or many destinations make it a scan, which may well be quick.
        """
        if self.rows is not None:
            return True
        if self.plain or sort not in ("arrived", "next_attempt", "destination"):
            return False
        if self.leads:
            dest = self.destinations is not None and "to" not in self.names
            narrowed = self.aged or self.states != PRESENT or dest or len(self.leads) > 1
            return not narrowed and sort != "destination"
        named = self.destinations or ()
        return len(named) <= MOST_DESTINATIONS and not any(domains.pattern for domains in named)


def _first_id(moment: float) -> int:
    return min(max(int(moment * 1000) << _ID_SEQUENCE_BITS, 0), _LAST_ID)


def parse(words: Sequence[str], now: float) -> Query:
    """The query that these arguments make; `now` is the wall time that ages count from. No words mean everything."""
    text = " ".join(words)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError("the query is not valid UTF-8; check the terminal's character set") from None
    draft = Draft(now)
    names: set[str] = set()
    named: list[str] = []  # ids that stand by themselves: together they are one term
    typed = list(_words(text))
    for word in typed:
        negated = word.startswith("-")
        use = _use(word[1:] if negated else word, word, negated)
        names.add(use.name)
        if use.name == "id" and not use.operator and not negated:
            named += use.values
        else:
            TERMS[use.name].apply(draft, use)
    if named:
        TERMS["id"].apply(draft, Use("id", ":", tuple(named), False))
    return Query(
        text=" ".join(typed),
        names=frozenset(names),
        rows=None if draft.rows is None else tuple(dict.fromkeys(draft.rows)),
        destinations=None if draft.destinations is None else tuple(dict.fromkeys(draft.destinations)),
        states=(PRESENT if draft.states is None else draft.states) - draft.excluded,
        after=draft.after,
        before=draft.before,
        conditions=tuple(draft.conditions),
        past=tuple(draft.past),
        leads=tuple(draft.leads),
        plain=draft.plain,
    )


def _words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _WORD.match(text, at)
        if match is None or (match.end() < len(text) and not text[match.end()].isspace()):
            raise QueryError(f'a quote is not closed: {shown(text[at:])}; end it with "')
        yield match[0]
        at = match.end()


def _use(body: str, word: str, negated: bool) -> Use:
    """A word as a term; a bare id is the term id without an operator."""
    match = _TERM.fullmatch(body)
    if match is None:
        values = tuple(body.split(","))
        if not all(map(_is_id, values)):
            raise QueryError(f"{shown(word)} is neither a term nor a queue id; {_known()}")
        return Use("id", "" if not negated else ":", values, negated)
    name, operator, rest = match[1].lower(), match[2], match[3]
    term = TERMS.get(name)
    if term is None:
        if name in COMING:
            raise QueryError(f"{name}: {COMING[name]}")
        raise QueryError(f"unknown term {shown(match[1] + operator)}; {_known()}")
    if operator not in term.operators:
        raise QueryError(f"{name} takes {' or '.join(term.operators)}, not {operator}, for example {term.example}")
    values = tuple(_split(rest))
    use = Use(name, operator, values, negated)
    for value in values:
        if not value:
            raise use.error(rest, "a value is missing")
        if len(value) > LONGEST_VALUE:
            raise use.error(value, f"a value has at most {LONGEST_VALUE} characters")
    return use


def _split(text: str) -> Iterator[str]:
    at = 0
    while True:
        match = _VALUE.match(text, at)
        end = match.end() if match else len(text)  # it matches the empty text too
        yield text[at:end]
        at = end + 1
        if at > len(text):
            return


def _is_id(text: str) -> bool:
    try:
        ids.parse(text)
    except ValueError:
        return False
    return True


def _known() -> str:
    return "known terms: " + " ".join(name + term.operators[0] for name, term in sorted(TERMS.items()))
