"""The answers of the reading verbs, given a `Reader`: what the server and offline have in common.

Promises: what a person got wrong (a query, an id, a cursor) is a `VerbError` with a sentence and the contract's exit
status, whoever asks; a page costs what the reader promises. Blocking: run on a reader thread.
"""

import itertools
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mailtui import ids
from mailtui.control import views
from mailtui.control.clean import clean, clean_value
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.reads import Document
from mailtui.queue.query import Query, QueryError, parse
from mailtui.queue.read import QueryTimeout, Reader
from mailtui.queue.rows import Row, Totals

T = TypeVar("T")
Rid = tuple[int, int]

# `who` of what the relay itself notes in its journal.
OURSELVES = "mailtui"


@dataclass(frozen=True, slots=True)
class Listing:
    """What `queue list` was asked; `limit` is that of one page."""

    query: Query
    sort: str = "arrived"
    reverse: bool = False
    limit: int = 50
    after: str = ""

    @property
    def instant(self) -> bool:
        """True if an index leads to the page; else it belongs on the scan reader."""
        return self.query.instant(self.sort)


def parse_query(text: str, now: float) -> Query:
    """The query, or a VerbError that names what is known."""
    try:
        return parse([text] if text else [], now)
    except QueryError as error:
        raise VerbError(str(error), WRONG) from None


def parse_id(text: str) -> tuple[int, int | None]:
    """(message, ordinal or None) of an id or rid."""
    try:
        return ids.parse(text)
    except ValueError:
        raise VerbError(
            f'"{clean(text[:80])}" is no queue id; an id has 13 characters, as in mailtui queue list', WRONG
        ) from None


def page(reader: Reader, listing: Listing, claimed: Collection[Rid], active: frozenset[Rid]) -> list[Document]:
    """One page of `queue list`."""
    rows = asked(
        lambda: reader.list(
            listing.query,
            sort=listing.sort,
            reverse=listing.reverse,
            limit=listing.limit,
            after=listing.after,
            claimed=claimed,
            active=active,
        )
    )
    return [views.row(row) for row in rows]


def count(reader: Reader, query: Query, claimed: Collection[Rid], active: frozenset[Rid]) -> Document:
    """`queue count`."""
    return views.counts(asked(lambda: reader.count(query, claimed, active)))


def history(reader: Reader, query: Query, limit: int, after: str) -> list[Document]:
    """One page of `history`."""
    return [views.history(row) for row in asked(lambda: reader.history(query, limit=limit, after=after))]


def message(reader: Reader, text: str, spool: Path, *, transcript: bool, active: frozenset[Rid]) -> Document:
    """`queue show`; a rid shows its message."""
    number, _ = parse_id(text)
    stored = asked(lambda: reader.message(number, active))
    if stored is None:
        raise gone(reader, text, number)
    try:
        header = reader.header(number, spool)
    except (KeyError, OSError):
        header = b""  # its spool file is missing: the relay holds and reports it
    return views.message(stored, header, transcript=transcript)


def recipients(reader: Reader, text: str, active: frozenset[Rid]) -> list[Row]:
    """The recipients that an id or rid names, for `queue why`."""
    number, ordinal = parse_id(text)
    stored = asked(lambda: reader.message(number, active))
    rows = [row for row in (stored.recipients if stored else ()) if ordinal in (None, row.ordinal)]
    if not rows:
        raise gone(reader, text, number, ordinal)
    return rows


def header(reader: Reader, text: str, spool: Path) -> bytes:
    """The header section of a queued message, for `trace`."""
    number, _ = parse_id(text)
    try:
        return asked(lambda: reader.header(number, spool))
    except KeyError:
        raise gone(reader, text, number) from None
    except OSError as error:
        raise _unreadable(text, error) from None


def _unreadable(text: str, error: OSError) -> VerbError:
    return VerbError(
        f"the spool file of {text} cannot be read: {error.strerror}; is it a file of another user?", NOT_SO
    )


def content(reader: Reader, text: str, spool: Path) -> Iterator[bytes]:
    """The message as stored, in pieces, for `queue show --raw`; reading on after the first piece may raise OSError."""
    number, _ = parse_id(text)
    try:
        pieces = asked(lambda: reader.content(number, spool))
        first = next(pieces, b"")
    except KeyError:
        raise gone(reader, text, number) from None
    except OSError as error:
        raise _unreadable(text, error) from None
    return itertools.chain((first,), pieces)


def totals(reader: Reader, active: frozenset[Rid]) -> Totals:
    """The queue in figures, for `status`."""
    return asked(lambda: reader.totals(active))


def orphans(reader: Reader) -> list[Rid]:
    """Recipients that a relay which was killed has left claimed."""
    return asked(reader.orphans)


def gone(reader: Reader, text: str, number: int, ordinal: int | None = None) -> VerbError:
    """Why there is no such message: it left the queue, or it never was."""
    past = [row for row in asked(lambda: reader.history_of(number)) if ordinal in (None, row.ordinal)]
    if past:
        return VerbError(f"{text} is not in the queue any more: {past[0].result}; see mailtui history {text}", NOT_SO)
    return VerbError(f"{text} is neither in the queue nor in the history; see mailtui queue list", NOT_SO)


def log(reader: Reader, recent: Sequence[Mapping[str, Any]], limit: int) -> list[Document]:
    """The last `limit` entries, oldest first: what happened since the start is in memory, what was before on disk."""
    first = float(recent[0]["at"]) if recent else float("inf")
    # What people did is told from the journal, which has all of it; what the relay did is in memory too.
    stored = [
        entry
        for entry in asked(lambda: reader.log(limit))
        if entry["at"] < first or entry.get("who", OURSELVES) != OURSELVES
    ]
    recent = [entry for entry in recent if entry.get("who", OURSELVES) == OURSELVES]
    entries = sorted([*stored, *recent], key=lambda entry: float(entry["at"]))
    return [views.event(_order(entry)) for entry in entries[-limit:]] if limit > 0 else []


def _order(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an operator did has all of its fields, the empty ones too."""
    return {**entry, **{name: entry.get(name, "") for name in ("query", "reason")}} if entry.get("command") else entry


def plan_target(text: str) -> tuple[str, str]:
    """(address, destination) that `mx` asks the router for; the address is "" when a domain alone is given."""
    from mailtui.address import AddressError, destination_of, parse_mailbox

    try:
        if "@" in text:
            mailbox = parse_mailbox(text.encode("utf-8", "surrogateescape"), utf8=True)
            return mailbox.text, mailbox.destination
        return "", destination_of(text)
    except AddressError as error:
        raise VerbError(
            f'"{clean(text[:80])}" is neither a domain nor an address ({error}); for example mailtui mx example.com',
            WRONG,
        ) from None


def trace(header: bytes, own: str, trusted: Collection[str]) -> Document:
    """`trace`: the hops of a header section."""
    from mailtui.trace.hops import trace as hops

    value = clean_value(hops(header, own=own, trusted=list(trusted)).to_json())
    assert isinstance(value, dict)
    return value


def asked(work: Callable[[], T]) -> T:
    try:
        return work()
    except QueryError as error:
        raise VerbError(str(error), WRONG) from None
    except QueryTimeout as error:
        raise VerbError(str(error), NOT_SO) from None
    except sqlite3.Error as error:
        raise VerbError(
            f"the queue database cannot be read: {error}; restore a backup if it is damaged", NOT_SO
        ) from None
