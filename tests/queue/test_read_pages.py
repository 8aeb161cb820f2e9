"""Pages of the queue: whole, in order, each recipient once, whatever is claimed, and never dearer than a page."""

import random
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailtui import ids
from mailtui.model import Envelope, Message, Recipient, State
from mailtui.queue import freezing, leads, listing, windows
from mailtui.queue.database import path_of
from mailtui.queue.paging import ORDERS
from mailtui.queue.query import Query, QueryError, parse
from mailtui.queue.read import QueryTimeout, Reader, Row
from tests.queue.filled import NOW, Filled, to


@dataclass(frozen=True)
class Stock:
    """What a generated queue holds, for computing by hand what a listing must show."""

    messages: list[Message]
    claimed: frozenset[tuple[int, int]]
    active: frozenset[tuple[int, int]]

    def expected(self, sort: str, reverse: bool, wanted: Any) -> list[tuple[int, int]]:
        found = []
        for m in self.messages:
            for r in m.recipients:
                state = "active" if (m.id, r.ordinal) in self.active else r.state.name.lower()
                if wanted(m, r, state):
                    value = {
                        "arrived": None,
                        "next_attempt": r.due,
                        "destination": r.destination,
                        "size": m.envelope.size,
                        "attempts": r.attempts,
                    }[sort]
                    found.append((natural(sort, value, m.id, r.ordinal), (m.id, r.ordinal)))
        return [key for _, key in sorted(found, reverse=reverse)]


def natural(sort: str, value: Any, message: int, ordinal: int) -> tuple[Any, ...]:
    if sort == "arrived":
        return (-message, -ordinal)
    if sort == "next_attempt":
        return (float("inf") if value is None else value, message, ordinal)
    if sort == "destination":
        return (value, -message, -ordinal)
    return (-value, -message, -ordinal)


# Few values each, so that there are many ties.
recipients = st.lists(
    st.tuples(
        st.sampled_from(["a.example", "b.example", "c.example", "[192.0.2.1]"]),
        st.sampled_from(State),
        st.sampled_from([NOW, NOW + 0.1, NOW + 1 / 3, NOW + 60]),
        st.integers(0, 2),
        st.sampled_from(["parked", "parked", "claimed", "active"]),
    ),
    min_size=1,
    max_size=4,
)
stocks = st.lists(st.tuples(recipients, st.integers(1, 3)), max_size=15)
WANTED: dict[str, Any] = {
    "": lambda m, r, state: state != "leaving",
    "state:leaving,held,active": lambda m, r, state: state in ("leaving", "held", "active"),
    "state:queued": lambda m, r, state: state == "queued",
    "state:active": lambda m, r, state: state == "active",
    "dest:b.example": lambda m, r, state: state != "leaving" and r.destination == "b.example",
    "dest:*.example -dest:a.example": lambda m, r, state: state != "leaving" and r.destination[0] in "bc",
    "tries>0": lambda m, r, state: state != "leaving" and r.attempts > 0,
    "tries:1 dest:a.example,c.example": lambda m, r, state: (
        state != "leaving" and r.attempts == 1 and r.destination[0] in "ac"
    ),
    "from:odd@* -state:held": lambda m, r, state: state not in ("leaving", "held") and m.id % 2,
    "from:odd@x.example": lambda m, r, state: state != "leaving" and m.id % 2,
    "from:@x.example,odd@x.example": lambda m, r, state: state != "leaving",
    "from:even@x.example state:held,queued": lambda m, r, state: state in ("held", "queued") and not m.id % 2,
    "hop:[a.example]:25,[b.example]:25": lambda m, r, state: state != "leaving" and r.destination[0] in "ab",
    "hop:[a.example]:25 dest:a.example,b.example": lambda m, r, state: state != "leaving" and r.destination[0] == "a",
    "to:x@c.example": lambda m, r, state: state != "leaving" and r.destination[0] == "c",
    "msgid:<even>": lambda m, r, state: state != "leaving" and not m.id % 2,
    "due<30s": lambda m, r, state: state != "leaving" and r.due is not None and r.due < NOW + 30,
    "due>0s state:queued": lambda m, r, state: state == "queued" and r.due > NOW,
    "due<30s dest:a.example": lambda m, r, state: (
        state != "leaving" and r.due is not None and r.due < NOW + 30 and r.destination[0] == "a"
    ),
    "age>997s": lambda m, r, state: state != "leaving" and m.envelope.arrived < NOW - 997,
    "age<997s state:deferred": lambda m, r, state: state == "deferred" and m.envelope.arrived >= NOW - 997,
    "size>1": lambda m, r, state: state != "leaving" and m.envelope.size > 1,
    "-due<30s": lambda m, r, state: state != "leaving" and (r.due is None or r.due >= NOW + 30),
    "-to:*": lambda m, r, state: False,
}

# How a page may be found, by what is looked at row by row, passed over, and scanned at once.
WAYS = {
    "as it is": {},
    "little is short": {"SHORT": 3, "PASSED_OVER": 6, "WINDOW": 4},
    "only what passes by": {"SHORT": -1, "WINDOW": 3},
    "only scans": {"SHORT": -1, "PASSED_OVER": 0, "WINDOW": 1},
}


@contextmanager
def found_by(way: str) -> Iterator[None]:
    with ExitStack() as stack:
        for name, value in WAYS[way].items():
            for module in (leads, listing, windows, freezing):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.object(freezing, "SORTED_AT_ONCE", 3))
        stack.enter_context(mock.patch.object(freezing, "PIECE", 3))
        yield


def stocked(directory: Path, drawn: list[tuple[list[Any], int]]) -> tuple[Filled, Stock]:
    filled = Filled(directory)
    made, claimed, active = [], set(), set()
    for i, (people, size) in enumerate(drawn):
        number = filled.ids.next(NOW - 1000 + i // 2)
        rows = []
        for ordinal, (domain, state, due, attempts, place) in enumerate(people, 1):
            if state in (State.HELD, State.LEAVING):
                place = "parked"
            rows.append(to(f"x@{domain}", ordinal, state=state, due=due, attempts=attempts))
            if place != "parked":
                claimed.add((number, ordinal))
            if place == "active":
                active.add((number, ordinal))
        name = "odd" if number % 2 else "even"
        envelope = {"sender": f"{name}@x.example", "message_id": f"<{name}>", "arrived": NOW - 1000 + i // 2}
        made.append(Message(number, Envelope(**envelope, size=size), rows, b"x"))
    filled.write(made, claimed)
    return filled, Stock(made, frozenset(claimed), frozenset(active))


def walk(reader: Reader, query: Query, limit: int, **how: Any) -> Iterator[Row]:
    after = ""
    while page := reader.list(query, limit=limit, after=after, **how):
        assert len(page) <= limit
        yield from page
        after = page[-1].cursor


@given(
    stocks,
    st.sampled_from(sorted(WANTED)),
    st.sampled_from(sorted(ORDERS)),
    st.booleans(),
    st.integers(1, 7),
    st.booleans(),
    st.sampled_from(sorted(WAYS)),
)
@settings(max_examples=300, deadline=None)
def test_pages_put_together_are_the_whole_ordered_list(
    drawn: list[Any], text: str, sort: str, reverse: bool, limit: int, shuffled: bool, way: str
) -> None:
    with found_by(way), tempfile.TemporaryDirectory() as directory:
        filled, stock = stocked(Path(directory), drawn)
        reader = Reader(Path(directory))
        claimed = list(stock.claimed)
        if shuffled:
            random.Random(limit).shuffle(claimed)
        query = parse(text.split(), NOW)
        rows = list(walk(reader, query, limit, sort=sort, reverse=reverse, claimed=claimed, active=stock.active))
        expected = stock.expected(sort, reverse, WANTED[text])
        assert [(row.id, row.ordinal) for row in rows] == expected
        counts = reader.count(query, claimed, stock.active)
        sizes = {m.id: m.envelope.size for m in stock.messages}
        messages = {key[0] for key in expected}
        assert counts.recipients == len(expected)
        assert counts.messages == len(messages)
        assert counts.bytes == sum(sizes[number] for number in messages)
        frozen = reader.freeze(query, sort, reverse, claimed, stock.active)
        assert frozen.rids() == expected
        assert [frozen.position(rid) for rid in expected] == list(range(len(expected)))
        assert frozen.position((1, 1)) is None
        everyone = [(m.id, r.ordinal) for m in stock.messages for r in m.recipients]
        assert reader.matching(query, everyone, stock.active) == set(expected)
        reader.close()
        filled.connection.close()


@given(stocks, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_ids_are_listed_whether_parked_or_claimed(drawn: list[Any], limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        filled, stock = stocked(Path(directory), drawn)
        reader = Reader(Path(directory))
        chosen = [m for m in stock.messages if m.id % 3][:4]
        query = parse([ids.encode(m.id) for m in chosen] or [ids.encode(1)], NOW)
        rows = list(walk(reader, query, limit, active=stock.active))
        numbers = {m.id for m in chosen}
        assert [(row.id, row.ordinal) for row in rows] == stock.expected(
            "arrived", False, lambda m, r, state: m.id in numbers and state != "leaving"
        )
        reader.close()
        filled.connection.close()


def test_a_listing_goes_on_where_it_was_although_mail_came_and_went(filled: Filled, reader: Reader) -> None:
    numbers = [filled.add(to("x@a.example"), age=100 - i) for i in range(6)]
    first = reader.list(parse([], NOW), limit=3)
    filled.add(to("x@a.example"))
    filled.connection.execute("DELETE FROM recipients WHERE message IN (?, ?)", (first[-1].id, numbers[1]))
    second = reader.list(parse([], NOW), limit=3, after=first[-1].cursor)
    assert [row.id for row in first] == numbers[:2:-1]
    assert [row.id for row in second] == [numbers[2], numbers[0]]


@pytest.mark.parametrize("sort", sorted(ORDERS))
def test_many_destinations_are_listed_as_few_are(filled: Filled, reader: Reader, sort: str) -> None:
    numbers = [filled.add(to(f"x@d{i}.example", due=NOW - i), age=40 - i, size=i) for i in range(40)]
    names = [f"d{i}.example" for i in range(0, 40, 2)]
    query = parse(["dest:" + ",".join(names)], NOW)
    rows = list(walk(reader, query, 7, sort=sort))
    assert {row.destination for row in rows} == set(names)
    assert len(rows) == len(names)
    if sort != "destination" and sort != "attempts":
        newest = list(reversed(numbers[::2]))
        assert [row.id for row in rows] == newest


def test_what_was_parked_since_it_was_named_claimed_is_listed_once(filled: Filled, reader: Reader) -> None:
    number = filled.add(to("x@a.example"), to("y@a.example", 2), claims=[2])
    rows = reader.list(parse([], NOW), claimed=[(number, 1), (number, 2), (1, 1)], active=frozenset({(number, 1)}))
    assert [(row.ordinal, row.state) for row in rows] == [(2, "queued"), (1, "queued")]


def test_cursors_belong_to_their_order(filled: Filled, reader: Reader) -> None:
    filled.add(to("x@a.example", state=State.HELD))
    cursors = {sort: reader.list(parse([], NOW), sort=sort)[0].cursor for sort in ORDERS}
    for sort in ORDERS:
        for other, cursor in cursors.items():
            if sort == other:
                assert reader.list(parse([], NOW), sort=sort, after=cursor) == []
            else:
                with pytest.raises(QueryError, match=f"not a cursor of a listing by {sort}"):
                    reader.list(parse([], NOW), sort=sort, after=cursor)


@pytest.mark.parametrize(
    "cursor", ["x", "~", "a~", "a~" + ids.encode(1), "n~x~" + ids.rid(1, 1), "s1e9~" + ids.rid(1, 1)]
)
@pytest.mark.parametrize("sort", sorted(ORDERS))
def test_a_bad_cursor_is_an_error(reader: Reader, sort: str, cursor: str) -> None:
    with pytest.raises(QueryError):
        reader.list(parse([], NOW), sort=sort, after=cursor)


@given(text=st.text(max_size=30), sort=st.sampled_from(sorted(ORDERS)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cursor_raises_anything_but_a_query_error(reader: Reader, text: str, sort: str) -> None:
    for after in (text or "~", f"{ORDERS[sort].letter}{text}~{ids.rid(1, 1)}"):
        try:
            assert reader.list(parse([], NOW), sort=sort, after=after) == []
        except QueryError:
            pass


def test_an_unknown_order_names_the_known_ones(reader: Reader) -> None:
    with pytest.raises(QueryError, match="known: arrived next_attempt destination size attempts"):
        reader.list(parse([], NOW), sort="colour")


def test_a_limit_of_nothing_lists_nothing(filled: Filled, reader: Reader) -> None:
    filled.add(to("x@a.example"))
    assert reader.list(parse([], NOW), limit=0) == []


# What must not be walked, however long the queue is.
INSTANT = [
    ("", "arrived"),
    ("", "next_attempt"),
    ("", "destination"),
    ("dest:big.example", "arrived"),
    ("dest:big.example", "next_attempt"),
    ("dest:big.example", "destination"),
    ("dest:big.example,d7.example", "arrived"),
    ("dest:nowhere.example", "arrived"),
    ("to:@big.example state:held", "arrived"),
    ("dest:big.example state:held", "next_attempt"),
    ("hop:[big.example]:25", "arrived"),
    ("hop:[big.example]:25,[d7.example]:25", "arrived"),
    ("to:x@big.example", "arrived"),
    ("from:a@b.example", "arrived"),
    ("from:a@b.example,<>", "arrived"),
    ("msgid:<1@b>", "arrived"),
    ("due<1m", "next_attempt"),
    ("due>1m", "next_attempt"),
    ("state:held", "arrived"),
    ("state:held", "next_attempt"),
    ("state:leaving", "next_attempt"),
    ("state:queued", "arrived"),
    ("state:leaving", "arrived"),
    ("state:active", "arrived"),
    ("age>2h", "arrived"),
    ("age<2h age>1h", "arrived"),
    ("id", "arrived"),
    ("id", "size"),
]


class Watched:
    """A connection that remembers what it was asked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.asked: list[tuple[str, Any]] = []

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        self.asked.append((sql, values))
        return self.connection.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def crowded(directory: Path, rows: int) -> Filled:
    """Nearly all deferred, nearly all for one destination; what is queued, held or leaving is the oldest."""
    filled = Filled(directory)
    filled.connection.execute("PRAGMA synchronous = OFF")

    def message(i: int) -> Message:
        rare = (State.QUEUED, State.HELD, State.LEAVING)
        state = rare[i % 3] if i < 9 else State.DEFERRED
        r: Recipient = to("x@big.example" if i % 100 else f"x@d{i % 700 // 100}.example", state=state, due=NOW + i % 97)
        age = 36000 * (1 - i / rows)
        envelope = Envelope(sender="a@b.example" if i % 10 else "", arrived=NOW - age, message_id=f"<{i % 3}@b>")
        return Message(filled.ids.next(NOW - age), envelope, [r], b"")

    made = [message(i) for i in range(rows)]
    filled.write(made, [(m.id, 1) for m in made[:: rows // 10]])
    return filled


def asked(reader: Reader, filled: Filled, text: str, sort: str, reverse: bool) -> list[Row]:
    run = filled.connection.execute
    claimed = run("SELECT message, ordinal FROM recipients WHERE claim <> 0").fetchall()
    middle = run("SELECT message FROM recipients ORDER BY 1 LIMIT 1 OFFSET 100").fetchone()[0]
    query = parse([ids.encode(middle) if text == "id" else text], NOW)
    assert query.instant(sort)
    found: list[Row] = []
    after = ""
    for _ in range(2):  # the second page goes another way than the first
        rows = reader.list(
            query, sort=sort, reverse=reverse, limit=20, after=after, claimed=claimed, active=frozenset(claimed[:3])
        )
        found += rows
        if not rows:
            break
        after = rows[-1].cursor
    return found


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Filled, Filled]:
    return crowded(tmp_path_factory.mktemp("few"), 500), crowded(tmp_path_factory.mktemp("many"), 6000)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("text", "sort"), INSTANT)
def test_an_instant_page_costs_the_same_in_a_long_queue(
    crowds: tuple[Filled, Filled], text: str, sort: str, reverse: bool
) -> None:
    steps = []
    for filled in crowds:
        reader = Reader(filled.state_dir)
        count = [0]

        def tick(count: list[int] = count) -> bool:
            count[0] += 1
            return False

        reader._connection.set_progress_handler(tick, 20)
        asked(reader, filled, text, sort, reverse)
        reader.close()
        steps.append(count[0])
    assert steps[1] < steps[0] * 1.5 + 100  # twelve times as many rows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("text", "sort"), INSTANT)
def test_an_instant_page_is_found_by_key_without_sorting(
    crowds: tuple[Filled, Filled], text: str, sort: str, reverse: bool
) -> None:
    filled = crowds[0]
    reader = Reader(filled.state_dir)
    watched = Watched(reader._connection)
    reader._connection = watched  # type: ignore[assignment]
    asked(reader, filled, text, sort, reverse)
    plain = sqlite3.connect(path_of(filled.state_dir))
    for sql, values in watched.asked:
        if "recipients" in sql:
            for row in plain.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall():
                assert "TEMP B-TREE" not in row[3], sql
                walked = row[3].startswith("SCAN") and not row[3].startswith("SCAN present")
                assert not walked or "VIRTUAL TABLE" in row[3], (sql, row[3])  # the parameters, as JSON
    plain.close()
    reader.close()


# Which indexes lead each instant form; ROWS are the keys of the table.
ROWS = "sqlite_autoindex_recipients_1"
LED_BY = [
    ("", "arrived", {"parked_by_state"}),
    ("", "next_attempt", {"parked_by_due", "parked_by_state"}),
    ("", "destination", {"parked_by_destination", "parked_by_destination_state"}),
    ("dest:big.example", "arrived", {"parked_by_destination_state"}),
    ("dest:big.example", "next_attempt", {"parked_by_destination", "parked_by_destination_state"}),
    ("to:@big.example", "arrived", {"parked_by_destination_state"}),
    ("hop:[big.example]:25", "arrived", {"parked_by_hop"}),
    ("hop:[big.example]:25", "next_attempt", {"parked_by_hop", "parked_by_due"}),
    ("to:x@big.example", "arrived", {"parked_by_address"}),
    ("to:x@big.example", "next_attempt", {"parked_by_address", "parked_by_destination_state", "parked_by_due"}),
    ("from:a@b.example", "arrived", {"parked_by_sender"}),
    ("from:a@b.example", "next_attempt", {"parked_by_sender", "parked_by_due"}),
    ("from:@b.example", "arrived", {"parked_by_sender"}),
    ("from:@b.example", "next_attempt", {"parked_by_sender", "parked_by_due"}),
    ("from:<>", "arrived", {"parked_by_sender"}),
    ("from:<>", "next_attempt", {"parked_by_sender", "parked_by_due"}),
    ("msgid:1@b", "arrived", {"parked_by_msgid"}),
    ("msgid:1@b", "next_attempt", {"parked_by_msgid", "parked_by_due"}),
    ("due<1m", "arrived", {"parked_by_due"}),
    ("due<1m", "next_attempt", {"parked_by_due"}),
    ("state:held", "arrived", {"parked_by_state"}),
    ("state:deferred", "next_attempt", {"parked_by_state", "parked_by_due"}),
    ("age>2h", "arrived", {"parked_by_state"}),
    ("age>2h", "next_attempt", {ROWS, "parked_by_due"}),
    ("id", "arrived", set()),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("text", "sort", "indexes"), LED_BY)
def test_an_instant_page_goes_along_its_index(
    crowds: tuple[Filled, Filled], text: str, sort: str, indexes: set[str], reverse: bool
) -> None:
    for filled in crowds:
        reader = Reader(filled.state_dir)
        watched = Watched(reader._connection)
        reader._connection = watched  # type: ignore[assignment]
        assert asked(reader, filled, text, sort, reverse)
        used = {name for sql, _ in watched.asked for name in re.findall(r"recipients INDEXED BY (\w+)", sql)}
        assert used <= indexes
        assert used or text == "id"
        reader.close()


# An index that has all that is asked for is gone through without a look into the table, whatever it passes over.
COVERED = [
    ("hop:[big.example]:25", "next_attempt", "parked_by_due"),
    ("-hop:[d3.example]:25 state:deferred", "next_attempt", "parked_by_due"),
    ("from:@b.example", "next_attempt", "parked_by_due"),
    ("from:<>", "next_attempt", "parked_by_due"),
    ("state:deferred", "next_attempt", "parked_by_due"),
    ("-dest:d3.example", "next_attempt", "parked_by_due"),
    ("age>1h", "next_attempt", "parked_by_due"),
    ("-due<1s", "next_attempt", "parked_by_due"),
    ("from:@b.example", "arrived", "parked_by_sender"),
    ("from:@b.example state:deferred", "arrived", "parked_by_sender"),
    ("due<1m", "arrived", "parked_by_due"),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("text", "sort", "index"), COVERED)
def test_an_index_that_has_it_all_needs_no_look_into_the_table(
    crowds: tuple[Filled, Filled], text: str, sort: str, index: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = crowds[1]
    reader = Reader(filled.state_dir)
    query = parse([text], NOW)
    whole = reader.list(query, sort="size", limit=10_000)  # a scan
    monkeypatch.setattr(leads, "SHORT", 1)
    monkeypatch.setattr(listing, "RARE", 1)
    monkeypatch.setattr(listing, "PROBED", 1)
    monkeypatch.setattr(windows, "FIRST_WINDOW", 1)
    watched = Watched(reader._connection)
    reader._connection = watched  # type: ignore[assignment]
    found = reader.list(query, sort=sort, reverse=reverse, limit=10_000)
    assert len(found) > 100
    assert {(row.id, row.ordinal) for row in found} == {(row.id, row.ordinal) for row in whole}
    keys = [(row.due is None, row.due or 0.0, row.id) if sort == "next_attempt" else (-row.id,) for row in found]
    assert keys == sorted(keys, reverse=reverse)
    pages = [(sql, values) for sql, values in watched.asked if f"INDEXED BY {index}" in sql]
    assert pages
    for sql, values in pages:
        plan = [row[3] for row in filled.connection.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall()]
        assert any(f"recipients USING COVERING INDEX {index}" in step for step in plan), (sql, plan)
        assert sort == "arrived" or not any("TEMP B-TREE" in step for step in plan), (sql, plan)
    reader.close()


@pytest.mark.parametrize(
    "text", ["hop:a", "from:a@b.example", "from:@b.example", "to:x@a.example", "msgid:1@b", "due<1m"]
)
def test_counting_what_an_index_leads_to_needs_no_look_into_the_table(filled: Filled, text: str) -> None:
    fill(filled, 10)
    reader = Reader(filled.state_dir)
    query = parse([text], NOW)
    for terms in query.leads:
        for stretch in leads.stretches_of(reader._connection, terms):
            watched = Watched(reader._connection)
            leads.size(watched, query, [stretch], 100)  # type: ignore[arg-type]
            for sql, values in watched.asked:
                plan = [row[3] for row in filled.connection.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall()]
                assert any(f"USING COVERING INDEX {stretch.index}" in step for step in plan), (sql, plan)
    reader.close()


# Led by an index that has not the order: a bounded number of rows is looked at, and then sorted or passed over.
BOUNDED = [
    ("hop:[big.example]:25", "next_attempt"),
    ("hop:[d3.example]:25", "next_attempt"),
    ("to:x@d3.example", "next_attempt"),
    ("to:x@big.example", "next_attempt"),
    ("from:@b.example", "arrived"),
    ("from:@b.example", "next_attempt"),
    ("from:a@b.example", "next_attempt"),
    ("from:<>", "next_attempt"),
    ("msgid:1@b", "next_attempt"),
    ("due<1m", "arrived"),
    ("due>1m", "arrived"),
    ("state:queued", "next_attempt"),
    ("state:deferred", "next_attempt"),
    ("state:queued,held dest:big.example", "next_attempt"),
    ("age>1h", "next_attempt"),
    ("age<2h age>1h dest:big.example", "next_attempt"),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("text", "sort"), BOUNDED)
def test_a_bounded_number_of_rows_is_looked_at(
    crowds: tuple[Filled, Filled], text: str, sort: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leads, "SHORT", 60)
    monkeypatch.setattr(leads, "LONG", 300)
    monkeypatch.setattr(listing, "PASSED_OVER", 300)
    monkeypatch.setattr(windows, "WINDOW", 300)
    filled = crowds[1]
    reader = Reader(filled.state_dir)
    watched = Watched(reader._connection)
    reader._connection = watched  # type: ignore[assignment]
    count = [0]

    def tick() -> bool:
        count[0] += 1
        return False

    watched.connection.set_progress_handler(tick, 20)
    assert asked(reader, filled, text, sort, reverse)
    watched.connection.set_progress_handler(None, 0)
    assert count[0] * 20 < 2 * 40 * 800  # instructions a row, rows looked at for a page, in a queue of 6,000
    plain = sqlite3.connect(path_of(filled.state_dir))
    for sql, values in watched.asked:
        if "FROM recipients" in sql:
            plan = [row[3] for row in plain.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall()]
            assert not any(step.startswith("SCAN recipients") for step in plan), (sql, plan)
    plain.close()
    reader.close()


def test_a_scan_ends_at_its_deadline(crowds: tuple[Filled, Filled]) -> None:
    times = iter(range(10_000))
    reader = Reader(crowds[1].state_dir, deadline=2.0, monotonic=lambda: float(next(times)))
    with pytest.raises(QueryTimeout, match=r"more than 2 s; narrow it"):
        reader.list(parse(["code:599"], NOW))
    assert not reader._connection.in_transaction
    times = iter([0.0] * 10_000)
    assert reader.list(parse(["code:599"], NOW)) == []
    reader.close()


def test_a_scan_stops_when_its_page_is_full(crowds: tuple[Filled, Filled]) -> None:
    filled = crowds[1]
    reader = Reader(filled.state_dir, deadline=None)
    count = [0]

    def tick() -> bool:
        count[0] += 1
        return False

    reader._connection.set_progress_handler(tick, 100)
    assert len(reader.list(parse(["tries<5"], NOW), limit=5)) == 5
    few = count[0]
    assert reader.list(parse(["tries>5"], NOW), limit=5) == []
    assert few * 20 < count[0] - few
    reader.close()


def test_a_scan_can_be_stopped_from_another_thread(crowds: tuple[Filled, Filled]) -> None:
    reader = Reader(crowds[1].state_dir, deadline=None)
    reader._connection.set_progress_handler(reader.interrupt, 1000)  # as if another thread did it, at a known moment
    with pytest.raises(QueryTimeout, match="stopped"):
        reader.list(parse(["code:599"], NOW))
    assert not reader._connection.in_transaction
    reader.close()


def test_a_scan_can_be_stopped_between_two_windows(filled: Filled, reader: Reader) -> None:
    fill(filled, 10)

    def stop(looked: int, of: int) -> None:
        reader.interrupt()  # nothing runs at this moment: there is nothing that SQLite could interrupt

    with found_by("only scans"):
        for call in (reader.freeze, reader.count, reader.list):
            with pytest.raises(QueryTimeout, match="stopped"):
                call(parse(["tries<5"], NOW), progress=stop)
            assert not reader._connection.in_transaction
        assert len(reader.freeze(parse(["tries<5"], NOW))) == 10  # the next call is not stopped any more


def test_the_deadline_is_looked_at_between_two_windows(filled: Filled) -> None:
    fill(filled, 10)
    times = iter(range(100))
    reader = Reader(filled.state_dir, deadline=3.0, monotonic=lambda: float(next(times)))
    with found_by("only scans"), pytest.raises(QueryTimeout, match="more than 3 s"):
        reader.freeze(parse([], NOW))
    reader.close()


def test_a_scan_tells_how_far_it_has_come_and_lets_the_writer_checkpoint(filled: Filled, reader: Reader) -> None:
    numbers = fill(filled, 10)
    told: list[tuple[int, int]] = []

    def progress(looked: int, of: int) -> None:
        filled.add(to("new@a.example"))
        busy, _, _ = filled.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
        told.append((looked, of))

    with found_by("little is short"):
        frozen = reader.freeze(parse(["tries<5"], NOW), reverse=True, progress=progress)
    assert frozen.messages[:10].tolist() == numbers
    assert told[:2] == [(4, 10), (8, 10)]
    assert told == sorted(told)


def test_a_frozen_set_holds_each_once_although_mail_moves_meanwhile(filled: Filled, reader: Reader) -> None:
    numbers = fill(filled, 12)
    run = filled.connection.execute
    run("UPDATE recipients SET claim = 7 WHERE message IN (?, ?, ?)", (numbers[2], numbers[9], numbers[11]))
    claimed = [(number, 1) for number in (numbers[9], numbers[2], numbers[11])]

    def progress(looked: int, of: int) -> None:
        run("UPDATE recipients SET claim = 0, due = due + 5000 WHERE message = ?", (numbers[9],))
        run("UPDATE recipients SET due = due + 5000 WHERE message = ?", (numbers[0],))
        run("DELETE FROM recipients WHERE message = ?", (numbers[10],))

    with found_by("little is short"):
        for sort in ORDERS:
            frozen = reader.freeze(parse(["tries<5"], NOW), sort, claimed=claimed, progress=progress)
            assert sorted(frozen.messages) == numbers[:10] + numbers[11:]
    assert reader.matching(parse(["tries<5"], NOW), claimed) == set(claimed)


def test_rows_of_positions_tell_what_has_left(filled: Filled, reader: Reader) -> None:
    numbers = fill(filled, 4)
    frozen = reader.freeze(parse([], NOW))
    filled.connection.execute("DELETE FROM recipients WHERE message = ?", (numbers[2],))
    rows = reader.rows_of(frozen.rids(1, 2))
    assert rows[0] is None
    assert rows[1] is not None
    assert (rows[1].id, rows[1].recipient) == (numbers[1], "x@a.example")
    assert frozen.rids(3, 5) == [(numbers[0], 1)]
    assert frozen.rids(-1, 1) == [(numbers[3], 1)]
    assert frozen.rids(9, 5) == []


def test_a_frozen_set_is_packed(filled: Filled, reader: Reader) -> None:
    fill(filled, 3)
    frozen = reader.freeze(parse([], NOW))
    assert (frozen.messages.itemsize, frozen.ordinals.itemsize) == (8, 4)
    with pytest.raises(QueryError, match="known: arrived"):
        reader.freeze(parse([], NOW), "colour")


def fill(filled: Filled, rows: int) -> list[int]:
    return [filled.add(to("x@a.example"), age=1000 - i) for i in range(rows)]


def test_reading_never_holds_up_a_checkpoint(filled: Filled, reader: Reader) -> None:
    for i in range(30):
        filled.add(to("x@a.example"), age=30 - i)
    assert len(reader.list(parse([], NOW), limit=10)) == 10
    assert reader.list(parse([], NOW), sort="destination", limit=10)
    reader.content(filled.add(to("x@a.example")), filled.spool)  # given back unread
    reader.count(parse(["tries<5"], NOW))
    busy, _, _ = filled.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert not reader._connection.in_transaction
