"""What a settlement writes and tells: reports by outcome and NOTIFY, delay notices and their limit."""

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.config import parse
from mailtui.delivery.allowance import IN_ALL, MINUTE, PER_HOP, Allowance
from mailtui.delivery.settle import HEAD, Settler
from mailtui.events import Events
from mailtui.ids import IdSource
from mailtui.model import Attempt, Envelope, Message, Outcome, Plan, Recipient, Settled, Verdict
from mailtui.queue.spool import Spool

NOW = 1_700_000_000.0
BODY = b"Subject: x\r\n\r\ntext\r\n"
PLAN = Plan("b.example", "[mx.b.example]:25", "deliver", "mx")
WARN = 14_400.0


class FakeStore:
    """Remembers what it is given to write."""

    def __init__(self, path: Path) -> None:
        self.settled: list[tuple[list[Settled], list[Message]]] = []
        self.ids = IdSource()
        self.spool = Spool(path)

    def next_id(self) -> int:
        return self.ids.next(NOW)

    def settle(
        self, message: Message, settled: Sequence[Settled], reports: Sequence[Message], done: Callable[[], None] | None
    ) -> None:
        self.settled.append((list(settled), list(reports)))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
def settler(clock: ManualClock, store: FakeStore) -> Settler:
    settings = parse('hostname = "relay.example"\n[mail]\npostmaster = "pm@relay.example"\n')
    return Settler(settings, clock, Events(clock, io.StringIO()), store, random.Random(1))  # type: ignore[arg-type]


def message(*recipients: Recipient, age: float = 0.0, body: bytes | None = BODY, **envelope: Any) -> Message:
    facts = {"sender": "ann@a.example", "size": len(BODY), "trusted": True} | envelope
    return Message(1 << 40, Envelope(arrived=NOW - age, **facts), list(recipients), body)


def to(name: str = "bob", ordinal: int = 1, **changes: Any) -> Recipient:
    return Recipient(ordinal, f"{name}@b.example", "b.example", expires=NOW + 1e6, **changes)


def verdict(outcome: Outcome) -> Verdict:
    code = {Outcome.DELIVERED: 250, Outcome.DEFERRED: 451, Outcome.BOUNCED: 550}[outcome]
    return Verdict(outcome, code, f"{code // 100}.0.0", "so it is", remote=True)


def end(
    settler: Settler,
    store: FakeStore,
    made: Message,
    outcome: Outcome,
    *,
    onward: str = "",
    hop: str = "",
    **options: Any,
) -> tuple[list[Settled], list[Message]]:
    """The end of an attempt that came to the same for all recipients: what is written."""
    attempt = Attempt(NOW - 1, NOW, "mx.b.example", "203.0.113.5", onward=onward)
    plan = Plan("b.example", hop, "deliver", "mx") if hop else PLAN
    settler.settle(made, plan, [(r, verdict(outcome), attempt) for r in made.recipients], lambda due: None, **options)
    return store.settled[-1]


def actions(report: Message) -> list[str]:
    assert report.body is not None
    return [line[8:] for line in report.body.decode("ascii").split("\r\n") if line.startswith("Action: ")]


@pytest.mark.parametrize(
    ("onward", "notify", "told"),
    [
        ("final", "SUCCESS", ["delivered"]),
        ("", "SUCCESS", ["relayed"]),
        ("dsn", "SUCCESS", []),
        ("final", "", []),
        ("final", "FAILURE,DELAY", []),
        ("final", "NEVER", []),
        ("", "NEVER", []),
    ],
)
def test_success_is_told_by_who_knows_of_it(
    settler: Settler, store: FakeStore, onward: str, notify: str, told: list[str]
) -> None:  # N10
    _, reports = end(settler, store, message(to(notify=notify)), Outcome.DELIVERED, onward=onward)
    assert [actions(report) for report in reports] == ([told] if told else [])


def test_what_a_route_discards_is_no_success(settler: Settler, store: FakeStore) -> None:
    made = message(to(notify="SUCCESS"))
    gone = Verdict(Outcome.DELIVERED, 0, "", "discarded", rule="discard")
    settler.settle(made, PLAN, [(made.recipients[0], gone, Attempt(NOW, NOW))], lambda due: None)
    assert store.settled[0][1] == []


def test_a_report_is_a_message_of_our_own(settler: Settler, store: FakeStore) -> None:  # N01, N18
    ends, [report] = end(settler, store, message(to()), Outcome.BOUNCED)
    assert [s.verdict.outcome for s in ends] == [Outcome.BOUNCED]
    assert (report.envelope.sender, report.envelope.size) == ("", len(report.body or b""))
    [recipient] = report.recipients
    assert (recipient.address, recipient.destination, recipient.expires) == ("ann@a.example", "a.example", NOW + 86400)
    assert not report.envelope.smtputf8


def test_a_report_to_a_utf8_address_says_what_it_needs(settler: Settler, store: FakeStore) -> None:  # N17
    _, [report] = end(settler, store, message(to(), sender="jörg@exämple.org", smtputf8=True), Outcome.BOUNCED)
    assert (report.envelope.smtputf8, report.envelope.utf8_header, report.envelope.eight_bit) == (True, True, True)
    assert report.recipients[0].address == "jörg@exämple.org"
    assert report.recipients[0].destination == "xn--exmple-cua.org"


@pytest.mark.parametrize("age", [WARN - 1, WARN])
def test_a_delay_is_told_when_it_is_time(settler: Settler, store: FakeStore, age: float) -> None:
    ends, reports = end(settler, store, message(to(), age=age), Outcome.DEFERRED)
    assert [s.warned for s in ends] == [age >= WARN]
    assert [actions(report) for report in reports] == ([["delayed"]] if age >= WARN else [])


def test_who_was_told_is_not_told_again(settler: Settler, store: FakeStore) -> None:
    ends, [report] = end(settler, store, message(to(warned=True), to("cat", 2), age=WARN), Outcome.DEFERRED)
    assert [s.warned for s in ends] == [False, True]  # what stands in the database stays
    assert actions(report) == ["delayed"]


def test_those_who_wait_together_are_told_together(settler: Settler, store: FakeStore) -> None:
    ends, reports = end(settler, store, message(to(), age=WARN), Outcome.DEFERRED, warn=False)
    assert (reports, ends[0].warned) == ([], False)


def test_a_hold_by_a_route_is_no_delay(settler: Settler, store: FakeStore) -> None:
    made = message(to(), age=WARN)
    held = Verdict(Outcome.DEFERRED, 0, "", "held", rule="hold")
    settler.settle(made, PLAN, [(made.recipients[0], held, Attempt(NOW, NOW))], lambda due: None)
    ends, reports = store.settled[0]
    assert (reports, ends[0].warned) == ([], False)


def test_there_is_no_flood_of_notices_and_none_is_lost(settler: Settler, store: FakeStore, clock: ManualClock) -> None:
    marked = [end(settler, store, message(to(), age=WARN), Outcome.DEFERRED)[0][0].warned for _ in range(PER_HOP + 2)]
    assert marked == [True] * PER_HOP + [False] * 2
    assert sum(len(reports) for _, reports in store.settled) == PER_HOP
    assert end(settler, store, message(to(), age=WARN), Outcome.DEFERRED, hop="[other]:25")[0][0].warned
    clock.advance(MINUTE)
    assert end(settler, store, message(to(), age=WARN), Outcome.DEFERRED)[0][0].warned


def test_failures_have_no_limit_and_take_a_delay_along(settler: Settler, store: FakeStore) -> None:  # B05
    for _ in range(PER_HOP):
        assert settler.allowance.take(PLAN.next_hop)
    made = message(to(), to("cat", 2), age=WARN)
    attempt = Attempt(NOW - 1, NOW, "mx.b.example", "203.0.113.5")
    for _ in range(50):
        results = [
            (made.recipients[0], verdict(Outcome.BOUNCED), attempt),
            (made.recipients[1], verdict(Outcome.DEFERRED), attempt),
        ]
        settler.settle(made, PLAN, results, lambda due: None)
    assert [[actions(report) for report in reports] for _, reports in store.settled] == [[["failed", "delayed"]]] * 50
    assert all([s.warned for s in ends] == [False, True] for ends, _ in store.settled)


def test_of_a_large_message_no_more_is_read_than_goes_back(settler: Settler, store: FakeStore) -> None:
    read: list[int] = []
    head = store.spool.head
    store.spool.head = lambda number, limit: read.append(limit) or head(number, limit)  # type: ignore[func-returns-value,method-assign]
    file = store.spool.create(1 << 40)
    file.write(b"X-Mark: here\r\n\r\n" + b"x" * 300_000 + b"\r\n")
    file.finish()
    made = message(to(notify="SUCCESS"), body=None, size=300_018)
    _, [report] = end(settler, store, made, Outcome.DELIVERED)
    assert b"X-Mark: here" in (report.body or b"") and len(report.body or b"") < 5000
    made.recipients[0].notify = ""
    end(settler, store, made, Outcome.BOUNCED)
    assert len(read) == 2 and read[0] < 70_000 and read[1] == HEAD


def test_many_next_hops_share_one_limit_and_the_log_counts() -> None:
    clock = ManualClock()
    events = Events(clock, io.StringIO())
    allowance = Allowance(clock, events)
    assert sum(allowance.take(f"hop{number}") for number in range(IN_ALL + 7)) == IN_ALL
    clock.advance(MINUTE)
    assert allowance.wait("hop0") == 0.0
    told = [record for record in events.recent if record["event"].startswith("delay-notices")]
    assert [record["event"] for record in told] == ["delay-notices-limited", "delay-notices-put-off"]
    assert (told[1]["notices"], told[1]["next_hops"]) == (7, 7)
