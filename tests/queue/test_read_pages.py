"""Pages of the queue: whole, in order, each recipient once, whatever is claimed, and never dearer than a page."""

import random
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailtui import ids
from mailtui.model import Envelope, Message, Recipient, State
from mailtui.queue.database import open_writer, path_of
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
}


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
        sender = "odd@x.example" if number % 2 else "even@x.example"
        made.append(Message(number, Envelope(sender=sender, arrived=NOW - 1000 + i // 2, size=size), rows, b"x"))
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
)
@settings(max_examples=150, deadline=None)
def test_pages_put_together_are_the_whole_ordered_list(
    drawn: list[Any], text: str, sort: str, reverse: bool, limit: int, shuffled: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
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


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


@pytest.fixture
def reader(filled: Filled) -> Iterator[Reader]:
    reader = Reader(filled.state_dir)
    yield reader
    reader.close()


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
    ("state:held", "arrived"),
    ("state:held", "next_attempt"),
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
        return Message(filled.ids.next(NOW - age), Envelope(sender="a@b", arrived=NOW - age), [r], b"")

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


def test_the_store_has_the_indexes_that_make_pages_instant(filled: Filled, tmp_path: Path) -> None:
    indexes = "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'recipients'"
    directory = tmp_path / "store"
    directory.mkdir()
    writer = open_writer(directory)
    assert sorted(writer.execute(indexes).fetchall()) == sorted(filled.connection.execute(indexes).fetchall())
    writer.close()


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
