"""The queue by age and by destination: from counters and from scans the same, leaving mail nowhere."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mailtui.model import Recipient, State
from mailtui.queue import windows
from mailtui.queue.query import QueryError
from mailtui.queue.read import Reader
from mailtui.queue.shape import AGES, Place, registered, spoken
from tests.queue.filled import NOW, Filled, to


class Planned(Filled):
    """Whatever is for a.example or b.example goes to one site; nothing for new.example was planned yet."""

    def hop(self, r: Recipient) -> str:
        return "" if r.destination == "new.example" else "mx.site" if r.destination[1] == "." else super().hop(r)


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    filled = Planned(tmp_path)
    deferred, held, leaving = State.DEFERRED, State.HELD, State.LEAVING
    full: dict[str, Any] = {"state": deferred, "attempts": 1, "code": 452, "last_enhanced": "4.2.2"}
    filled.add(to("x@a.example", **full, last_reply="<ann@a.example> mailbox full (id 7f3a)"), age=100_000)
    filled.add(to("x@a.example", **full, last_reply="<bob@a.example> mailbox  full (id 81bc)"), age=3000)
    filled.add(to("x@b.example", state=held), to("y@b.example", 2), to("z@a.example", 3, state=leaving), age=1500)
    filled.add(to("x@co.uk.example", state=held), age=800, sender="")
    filled.add(to("x@shop.example.co.uk"), to("y@www.example.co.uk", 2), to("z@a.b.example", 3), age=450)
    filled.add(to("x@new.example"), age=10)
    return filled


def shape(reader: Reader, by: str) -> dict[str, tuple[int, dict[int, int]]]:
    rows = reader.shape(by, NOW)
    assert [(-row.total, row.key) for row in rows] == sorted((-row.total, row.key) for row in rows)
    for row in rows:
        assert tuple(age for age, _ in row.buckets) == AGES == (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800)
    return {row.key: (row.total, {age // 60: n for age, n in row.buckets if n}) for row in rows}


def test_the_shape_by_destination_counts_what_is_older_than_each_age(reader: Reader) -> None:
    assert shape(reader, "dest") == {
        "a.example": (2, {5: 2, 10: 2, 20: 2, 40: 2, 80: 1, 160: 1, 320: 1, 640: 1, 1280: 1}),
        "b.example": (2, {5: 2, 10: 2, 20: 2}),
        "co.uk.example": (1, {5: 1, 10: 1}),
        "shop.example.co.uk": (1, {5: 1}),
        "www.example.co.uk": (1, {5: 1}),
        "a.b.example": (1, {5: 1}),
        "new.example": (1, {}),
    }


def test_the_shape_by_domain_sums_up_what_was_registered_as_one(reader: Reader) -> None:
    found = shape(reader, "domain")
    assert found["example.co.uk"] == (2, {5: 2})
    assert found["b.example"] == (3, {5: 3, 10: 2, 20: 2})
    assert found["uk.example"] == (1, {5: 1, 10: 1})


@pytest.mark.parametrize("window", [1, 25_000])
def test_the_shape_by_sender_and_reply_is_scanned(reader: Reader, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", window)
    assert shape(reader, "sender") == {
        "bob@sender.example": (8, {5: 7, 10: 4, 20: 4, 40: 2, 80: 1, 160: 1, 320: 1, 640: 1, 1280: 1}),
        "<>": (1, {5: 1, 10: 1}),
    }
    assert shape(reader, "reply") == {
        "no reply yet": (7, {5: 6, 10: 3, 20: 2}),
        "452 4.2.2 * mailbox full (id *": (2, {5: 2, 10: 2, 20: 2, 40: 2, 80: 1, 160: 1, 320: 1, 640: 1, 1280: 1}),
    }


def test_an_unknown_key_names_the_known_ones(reader: Reader) -> None:
    with pytest.raises(QueryError, match="known: dest domain sender reply"):
        reader.shape("colour", NOW)


@pytest.mark.parametrize(
    ("destination", "domain"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("mx.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("www.example.de", "example.de"),
        ("localhost", "localhost"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_a_destination_belongs_to_what_was_registered(destination: str, domain: str) -> None:
    assert registered(destination) == domain


def test_replies_that_differ_in_numbers_and_names_are_one() -> None:
    first = spoken(421, "4.7.0", "[192.0.2.1] Our system has detected 17 mails from ann@x.example")
    assert first == spoken(421, "4.7.0", "[192.0.2.99] Our system has detected 4  mails from bob@y.example")
    assert first != spoken(450, "4.7.0", "[192.0.2.1] Our system has detected 17 mails from ann@x.example")
    assert len(spoken(421, "", "long " * 500)) < 120
    assert spoken(0, "", "") == "no reply yet"


def test_the_fullest_destinations_come_first_with_their_oldest(reader: Reader) -> None:
    places = {place.name: place for place in reader.destinations()}
    assert places["a.example"] == Place("a.example", 0, 0, 2, 0, NOW - 100_000, ("a.example",))
    assert places["b.example"] == Place("b.example", 1, 0, 0, 1, NOW - 1500, ("b.example",))
    assert places["new.example"].total == 1
    assert [place.total for place in reader.destinations(limit=3)] == [2, 2, 1]
    assert [place.name for place in reader.destinations(names=["new.example", "b.example"])] == [
        "b.example",
        "new.example",
    ]
    assert reader.destinations(names=["nowhere.example"]) == []


def test_what_is_claimed_counts_where_it_goes(filled: Filled, reader: Reader) -> None:
    number = filled.add(to("x@b.example"), to("y@c.example", 2), age=5, claims=[1, 2])
    claimed, active = [(number, 1), (number, 2)], frozenset([(number, 1)])
    places = {place.name: place for place in reader.destinations(claimed=claimed, active=active)}
    assert places["b.example"] == Place("b.example", 1, 1, 0, 1, NOW - 1500, ("b.example",))
    assert places["c.example"] == Place("c.example", 1, 0, 0, 0, NOW - 5, ("c.example",))
    site = {place.name: place for place in reader.hops(claimed=claimed, active=active)}["mx.site"]
    assert dataclasses.asdict(site) | {"domains": set(site.domains)} == {
        "name": "mx.site",
        "queued": 3,
        "active": 1,
        "deferred": 2,
        "held": 1,
        "oldest": NOW - 100_000,
        "domains": {"a.example", "b.example", "a.b.example", "c.example"},
    }


@pytest.mark.parametrize("window", [1, 25_000])
def test_next_hops_sum_up_their_destinations(reader: Reader, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", window)
    places = reader.hops()
    assert [(place.name, place.total) for place in places[:2]] == [("mx.site", 5), ("[co.uk.example]:25", 1)]
    assert places[0].domains == ("a.example", "b.example", "a.b.example")
    assert sum(place.total for place in places) == 8  # one was never planned, one is leaving
    assert [place.name for place in reader.hops(limit=1)] == ["mx.site"]


@pytest.mark.parametrize("by", ["dest", "domain"])
def test_a_page_of_the_shape_is_its_beginning(reader: Reader, by: str) -> None:
    whole = reader.shape(by, NOW)
    assert reader.shape(by, NOW, limit=len(whole) + 1) == whole
    for limit in (1, 2, 3):
        page = reader.shape(by, NOW, limit=limit)
        assert [row.total for row in page] == [row.total for row in whole[:limit]]
        assert all(row in whole for row in page)


def test_a_page_of_the_shape_looks_at_the_counters_of_that_page_only(filled: Filled) -> None:
    for number in range(200):
        filled.add(*(to("x@full.example", ordinal) for ordinal in (1, 2, 3)), age=number * 300.0)
        filled.add(to(f"x@d{number}.example"), age=number * 300.0)
    reader = Reader(filled.state_dir)
    steps = []
    for limit in (1, 0):
        count = [0]

        def tick(count: list[int] = count) -> bool:
            count[0] += 1
            return False

        reader._connection.set_progress_handler(tick, 20)
        reader.shape("dest", NOW, limit=limit)
        steps.append(count[0])
    reader.close()
    assert steps[0] < steps[1] * 0.7  # the fullest one has half of the counters
