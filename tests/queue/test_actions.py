"""What operators do to parked recipients: each verb on each state, the books, the undo, the end of the grace."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Message, Outcome, State
from mailtui.queue.actions import Action
from mailtui.queue.database import open_writer
from mailtui.queue.operations import UNDO_KEPT, Order
from mailtui.queue.rows import override
from mailtui.queue.store import Store
from mailtui.queue.tables import actions as sql

from .stores import (
    BODY,
    accept,
    accept_spooled,
    bounced,
    check_books,
    deferred,
    delivered,
    ended,
    gate,
    opened,
    rows,
    settle,
    states,
    to,
)

GRACE = 600.0
Rid = tuple[int, int]
VERBS = ("hold", "release", "retry", "defer", "bounce", "delete", "reroute", "restore")
ROUTE = "smtp://[192.0.2.7]:2525"


async def begun(store: Store, verb: str, asked: int = 1, **other: Any) -> Action:
    """An operation begun by ann, as an action for its chunks."""
    now = store.clock.now()
    set_by = {
        "defer": {"until": now + 7200.125},
        "bounce": {"leaves": now + GRACE},
        "delete": {"leaves": now + GRACE},
        "reroute": {"route": ROUTE},
    }.get(verb, {})
    facts: dict[str, Any] = {**set_by, **other}
    command = f"mailtui queue {verb} dest:a.example --yes"
    number = await store.begin_operation(Order(verb, command, "dest:a.example", "ann", "spam run", asked, **facts))
    return Action(verb, number, "ann", "spam run", **facts)


async def done(store: Store, verb: str, *rids: Rid, **other: Any) -> Action:
    """An action that is done to all of these, its operation ended."""
    action = await begun(store, verb, len(rids), **other)
    acted = await store.act(action, rids)
    assert acted.done == list(rids), acted
    await store.end_operation(action.operation)
    return action


def fields(store: Store, rid: Rid, *names: str) -> tuple[Any, ...]:
    sql = f"SELECT {', '.join(names)} FROM recipients WHERE message = ? AND ordinal = ?"  # noqa: S608
    return rows(store.state_dir, sql, *rid)[0]


def is_in(store: Store, rid: Rid) -> tuple[State, float | None]:
    state, due = fields(store, rid, "state", "due")
    return State(state), due


def all_of(store: Store, rid: Rid) -> dict[str, Any]:
    """A recipient but for the marks of the operation itself."""
    names = [row[1] for row in rows(store.state_dir, "PRAGMA table_info(recipients)")]
    marks = {"operation", "since", "leaves", "leave_as"}
    return {n: v for n, v in zip(names, fields(store, rid, *names), strict=True) if n not in marks}


async def claimed(store: Store, made: Message) -> Message:
    got = (await store.claim_due(made.recipients[0].destination, 10, "")).messages
    assert [m.id for m in got] == [made.id]
    return got[0]


async def one(store: Store, state: str) -> Rid:
    """A recipient in a state; a new destination each, so that claims find it alone."""
    made = await accept(store, to(f"ann@{state}{store.ids.last}.example", due=store.clock.now()))
    rid = (made.id, 1)
    match state:
        case "deferred" | "held after a deferral" | "leaving after a hold":
            got = await claimed(store, made)
            due = store.clock.now() + 300.0625
            await settle(store, got, deferred(got.recipients[0], due, hop="mx.example", route="*"))
        case "held by a route":
            got = await claimed(store, made)
            held = ended(got.recipients[0], Outcome.DEFERRED, due=None, held_by="route")
            await settle(store, got, held)
        case "claimed":
            await claimed(store, made)
    if state in ("held", "held after a deferral", "leaving after a hold"):
        await done(store, "hold", rid)
    if state in ("leaving", "leaving after a hold"):
        await done(store, "bounce", rid)
    return rid


Q, D, H, L = State.QUEUED, State.DEFERRED, State.HELD, State.LEAVING
# What each verb makes of each state: the state after it, or why it is left out.
TABLE: dict[str, dict[str, State | str]] = {
    "queued": {
        "hold": H, "release": "not held", "retry": Q, "defer": Q, "bounce": L, "delete": L, "reroute": Q,
        "restore": "not leaving",
    },
    "deferred": {
        "hold": H, "release": "not held", "retry": D, "defer": D, "bounce": L, "delete": L, "reroute": D,
        "restore": "not leaving",
    },
    "held": {
        "hold": "already held", "release": Q, "retry": "held", "defer": "held", "bounce": L, "delete": L, "reroute": H,
        "restore": "not leaving",
    },
    "held after a deferral": {
        "hold": "already held", "release": D, "retry": "held", "defer": "held", "bounce": L, "delete": L, "reroute": H,
        "restore": "not leaving",
    },
    "held by a route": {
        "hold": "already held", "release": Q, "retry": "held", "defer": "held", "bounce": L, "delete": L, "reroute": H,
        "restore": "not leaving",
    },
    "leaving": {
        "hold": "leaving", "release": "leaving", "retry": "leaving", "defer": "leaving", "bounce": "already leaving",
        "delete": "already leaving", "reroute": "leaving", "restore": Q,
    },
    "leaving after a hold": {
        "hold": "leaving", "release": "leaving", "retry": "leaving", "defer": "leaving", "bounce": "already leaving",
        "delete": "already leaving", "reroute": "leaving", "restore": H,
    },
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", TABLE)
async def test_each_verb_on_each_state(tmp_path: Path, state: str, verb: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, state)
        before = all_of(store, rid)
        operation_before = fields(store, rid, "operation")[0]
        clock.advance(10)
        action = await begun(store, verb)
        acted = await store.act(action, [rid])
        expected = TABLE[state][verb]
        after = all_of(store, rid)
        assert acted.gone == acted.claimed == []
        (operation,) = [o for o in await store.operations() if o.number == action.operation]
        if isinstance(expected, str):
            assert acted.left_out == {expected: [rid]}
            assert acted.done == []
            assert after == before
            assert fields(store, rid, "operation")[0] == operation_before
            assert operation.done == 0
        else:
            assert acted.done == [rid]
            assert acted.left_out == {}
            assert after["state"] == expected
            assert fields(store, rid, "operation")[0] == action.operation
            assert operation.done == 1
            changed = {name for name in after if after[name] != before[name]}
            assert (
                changed
                <= {
                    "hold": {"state", "due", "kept_state", "kept_due", "held_by"},
                    "release": {"state", "due", "kept_state", "kept_due", "held_by"},
                    "retry": {"due"},
                    "defer": {"due", "kept_due"},
                    "bounce": {"state", "due", "kept_state", "kept_due"},
                    "delete": {"state", "due", "kept_state", "kept_due"},
                    "reroute": {"route", "hop"},
                    "restore": {"state", "due", "kept_state", "kept_due"},
                }[verb]
            )
            if after["due"] is not None and verb in ("release", "retry", "defer", "restore"):
                assert acted.due == {_destination(store, rid): pytest.approx(after["due"], abs=1e-5)}
        check_books(tmp_path)


def _destination(store: Store, rid: Rid) -> str:
    name = "SELECT name FROM recipients JOIN domains ON id = destination WHERE message = ?"
    return str(rows(store.state_dir, name, rid[0])[0][0])


async def test_retry_is_due_now_and_defer_when_told(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, "deferred")
        clock.advance(10)
        await done(store, "retry", rid)
        assert is_in(store, rid) == (D, clock.now())
        action = await done(store, "defer", rid)
        assert is_in(store, rid) == (D, action.until)


@pytest.mark.parametrize("state", ["queued", "deferred"])
async def test_release_gives_back_state_and_clock_as_before_the_hold(tmp_path: Path, state: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, state)
        before = all_of(store, rid)
        await done(store, "hold", rid)
        assert fields(store, rid, "state", "due", "held_by", "since") == (H, None, "ann", clock.now())
        clock.advance(99)
        await done(store, "release", rid)
        assert all_of(store, rid) == before


async def test_a_hold_of_the_relay_is_released_to_be_due_at_once(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, "held by a route")
        clock.advance(50)
        await done(store, "release", rid)
        assert is_in(store, rid) == (Q, clock.now())
        assert fields(store, rid, "held_by") == ("",)


@pytest.mark.parametrize("verb", ["bounce", "delete"])
@pytest.mark.parametrize("state", ["queued", "deferred", "held", "held after a deferral", "held by a route"])
async def test_restore_gives_back_what_was_there_hold_and_all(tmp_path: Path, state: str, verb: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, state)
        before = all_of(store, rid)
        await done(store, verb, rid)
        assert is_in(store, rid) == (L, None)
        assert fields(store, rid, "leaves") == (clock.now() + GRACE,)
        clock.advance(GRACE - 1)
        await done(store, "restore", rid)
        assert all_of(store, rid) == before
        if before["state"] == H:
            await done(store, "release", rid)
            assert State(fields(store, rid, "state")[0]) == TABLE[state]["release"]
        check_books(tmp_path)


@pytest.mark.parametrize("verb", ["restore", "undo"])
async def test_nothing_is_restored_once_the_grace_is_over(tmp_path: Path, verb: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, "queued")
        bounce = await done(store, "bounce", rid)
        clock.advance(GRACE)
        acted = await store.act(await begun(store, verb, undoes=bounce.operation), [rid])
        assert acted.left_out == {"its grace has ended": [rid]}
        assert is_in(store, rid) == (L, None)


async def test_without_a_grace_there_is_no_way_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, "queued")
        bounce = await done(store, "bounce", rid, leaves=None)
        assert (await store.operations())[0].undo_until is None
        acted = await store.act(await begun(store, "undo", undoes=bounce.operation), [rid])
        assert acted.left_out == {"its grace has ended": [rid]}
        assert await store.next_leaving() == store.clock.now()


async def test_what_is_claimed_or_gone_is_named_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        in_memory, gone = await one(store, "claimed"), (42, 7)
        before = all_of(store, in_memory)
        for verb in VERBS:
            acted = await store.act(await begun(store, verb), [in_memory, gone])
            assert (acted.claimed, acted.gone, acted.done, acted.left_out) == ([in_memory], [gone], [], {})
        assert all_of(store, in_memory) == before


async def test_a_recipient_named_twice_is_changed_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, "queued")
        action = await begun(store, "hold")
        assert (await store.act(action, [rid, rid])).done == [rid]
        assert (await store.end_operation(action.operation)).done == 1
        check_books(tmp_path)


async def test_an_action_that_lacks_something_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, "queued")
        before = states(tmp_path)
        for action, rids in (
            (Action("burn"), [rid]),
            (Action("defer"), [rid]),
            (Action("hold"), [(1, n) for n in range(1001)]),
        ):
            with pytest.raises(ValueError):
                await store.act(action, rids)
        assert states(tmp_path) == before


async def test_a_reroute_keeps_the_clock_and_forgets_the_next_hop(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, "deferred")
        due = is_in(store, rid)[1]
        assert override(fields(store, rid, "route")[0]) == ""
        await done(store, "reroute", rid)
        assert fields(store, rid, "route", "hop", "due") == (ROUTE, 0, due)
        assert override(fields(store, rid, "route")[0]) == ROUTE
        await done(store, "reroute", rid, route="")
        assert fields(store, rid, "route") == ("",)


@pytest.mark.parametrize(
    "target",
    ["mx", "hold", "smtp://[relay.example]:25", "smtps://relay.example", "lmtp:unix:/run/lmtp", "lmtp://[::1]:24",
     "error:5.1.2 no such host", "mx|defer", "mx,smtp://[192.0.2.1]"],
)  # fmt: skip
def test_a_target_is_told_from_a_match(target: str) -> None:
    assert override(target) == target


@pytest.mark.parametrize(
    "match", ["", "*", "example.com", ".example.com", "ann@example.com", "from:ann@example.com", "mx|x@y.example",
              "mx.example", "hold@example.com", "error@example.com"]
)  # fmt: skip
def test_a_match_is_not_taken_for_a_target(match: str) -> None:
    assert override(match) == ""


# -- undo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["hold", "defer", "reroute", "bounce", "delete"])
@pytest.mark.parametrize("state", ["queued", "deferred", "held after a deferral"])
async def test_an_undo_gives_back_what_was_there(tmp_path: Path, verb: str, state: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        if not isinstance(TABLE[state][verb], State):
            return
        rid = await one(store, state)
        before = all_of(store, rid)
        action = await done(store, verb, rid)
        clock.advance(60)
        undo = await done(store, "undo", rid, undoes=action.operation)
        assert all_of(store, rid) | {"hop": 0} == before | {"hop": 0}
        newest, past = (await store.operations())[:2]
        assert (past.state, past.undone) == ("undone", 1)
        assert (newest.number, newest.undoes, newest.undo_until) == (undo.operation, action.operation, None)
        check_books(tmp_path)


@pytest.mark.parametrize("verb", ["hold", "defer", "reroute", "bounce", "delete"])
async def test_an_undo_leaves_what_something_else_changed_since(tmp_path: Path, verb: str) -> None:
    async with opened(tmp_path) as store:
        mine, others = await one(store, "deferred"), await one(store, "deferred")
        action = await done(store, verb, mine, others)
        back = {"hold": "release", "bounce": "restore", "delete": "restore"}.get(verb, verb)
        await done(store, back, others, **({"until": 5e9} if verb == "defer" else {}))
        before = all_of(store, others)
        assert await store.touched(action.operation) == [mine]
        acted = await store.act(await begun(store, "undo", 2, undoes=action.operation), [mine, others])
        assert acted.done == [mine]
        assert acted.left_out == {"changed since": [others]}
        assert all_of(store, others) == before


async def test_an_undo_leaves_what_has_been_tried_since(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        made = await accept(store, to("ann@a.example", due=clock.now()))
        rid = (made.id, 1)
        deferral = await done(store, "defer", rid)
        reroute_of = await one(store, "queued")
        reroute = await done(store, "reroute", reroute_of)
        clock.advance(8000)
        got = await claimed(store, made)
        await settle(store, got, deferred(got.recipients[0], clock.now() + 300))
        got = (await store.claim_due(_destination(store, reroute_of), 10, "")).messages[0]
        await settle(store, got, deferred(got.recipients[0], clock.now() + 300, route="*"))
        for action, after in ((deferral, rid), (reroute, reroute_of)):
            before = all_of(store, after)
            acted = await store.act(await begun(store, "undo", undoes=action.operation), [after])
            assert acted.left_out == {"changed since": [after]}
            assert all_of(store, after) == before


@pytest.mark.parametrize("verb", ["retry", "release", "restore"])
async def test_what_loses_nothing_cannot_be_undone(tmp_path: Path, verb: str) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, {"retry": "deferred", "release": "held", "restore": "leaving"}[verb])
        action = await done(store, verb, rid)
        before = all_of(store, rid)
        for number in (action.operation, 4711):
            acted = await store.act(await begun(store, "undo", undoes=number), [rid])
            assert acted.left_out == {"cannot be undone": [rid]}
        assert all_of(store, rid) == before


async def test_an_undo_has_its_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rid = await one(store, "deferred")
        action = await done(store, "reroute", rid)
        assert rows(tmp_path, "SELECT route FROM rerouted") == [("*",)]
        clock.advance(UNDO_KEPT)
        acted = await store.act(await begun(store, "undo", undoes=action.operation), [rid])
        assert acted.left_out == {"cannot be undone": [rid]}
        assert rows(tmp_path, "SELECT * FROM rerouted") == []


async def test_touched_pages_through_all_that_is_still_as_the_operation_left_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = await accept(store, *[to(f"r{n}@a.example", n) for n in range(1, 1001)])
        more = await accept(store, *[to(f"r{n}@a.example", n) for n in range(1, 501)])
        all_rids = [(made.id, n) for n in range(1, 1001)] + [(more.id, n) for n in range(1, 501)]
        action = await begun(store, "hold", 1500)
        await store.act(action, all_rids[:1000])
        await store.act(action, all_rids[1000:])
        first = await store.touched(action.operation)
        assert first + await store.touched(action.operation, first[-1]) == all_rids
        assert await store.touched(action.operation, all_rids[-1]) == []


# -- the books -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_the_books_are_right_after_any_sequence(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        rids: list[Rid] = []
        numbers: list[int] = []
        for _ in range(60):
            clock.advance(rng.choice((0, 1, 60, 400, 1000)))
            step = rng.random()
            if step < 0.2 or not rids:
                many = [
                    to(f"r{n}@{rng.choice('abc')}.example", n, due=clock.now()) for n in range(1, rng.randint(2, 6))
                ]
                made = await accept(store, *many)
                rids += [(made.id, r.ordinal) for r in many]
            elif step < 0.4:
                for got in (await store.claim_due(f"{rng.choice('abc')}.example", 3, "")).messages:
                    how = rng.choice((delivered, bounced, lambda r: deferred(r, clock.now() + 100)))
                    await settle(store, got, *[how(r) for r in got.recipients])
            elif step < 0.5:
                for leaving in await store.claim_leaving(3):
                    await settle(store, leaving.message, *[bounced(r) for r in leaving.message.recipients])
            else:
                verb = rng.choice((*VERBS, "undo"))
                other = {"undoes": rng.choice(numbers or [1])} if verb == "undo" else {}
                action = await begun(store, verb, **other)
                numbers.append(action.operation)
                chosen = rng.sample(rids, min(len(rids), rng.randint(1, 20)))
                acted = await store.act(action, chosen)
                left = [rid for out in acted.left_out.values() for rid in out]
                assert sorted(acted.done + acted.gone + acted.claimed + left) == sorted(chosen)
                await store.end_operation(action.operation)
            check_books(tmp_path)
        clockless = "SELECT count(*) FROM recipients WHERE (state < 2) = (due IS NULL)"
        assert rows(tmp_path, clockless) == [(0,)]
        assert {o.state for o in await store.operations(1000)} <= {"done", "undone"}


# -- the end of the grace --------------------------------------------------------------------------------------------


async def test_leaving_is_claimed_at_the_end_of_the_grace_with_who_and_why(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        made = await accept(store, to("ann@a.example", 1), to("bob@b.example", 2), to("cid@a.example", 3))
        assert await store.next_leaving() is None
        bounce = await done(store, "bounce", (made.id, 1), (made.id, 2))
        delete = await done(store, "delete", (made.id, 3))
        assert await store.next_leaving() == clock.now() + GRACE
        clock.advance(GRACE - 0.5)
        assert await store.claim_leaving(10) == []
        clock.advance(0.5)
        first, second = await store.claim_leaving(10)
        assert (first.verb, first.operation, first.who, first.reason) == (
            "bounce", bounce.operation, "ann", "spam run",
        )  # fmt: skip
        assert [(r.ordinal, r.address, r.destination, r.state) for r in first.message.recipients] == [
            (1, "ann@a.example", "a.example", L),
            (2, "bob@b.example", "b.example", L),
        ]
        assert first.message.body == BODY
        assert first.message.envelope.sender == "bob@sender.example"
        assert (second.verb, second.operation) == ("delete", delete.operation)
        assert [r.ordinal for r in second.message.recipients] == [3]
        assert await store.claim_leaving(10) == []
        assert await store.next_leaving() is None
        check_books_of_claimed = states(tmp_path)
        assert set(check_books_of_claimed.values()) == {L}
        await settle(store, first.message, *[bounced(r) for r in first.message.recipients])
        await settle(store, second.message, ended(second.message.recipients[0], Outcome.DELIVERED, deleted=True))
        assert states(tmp_path) == {}
        assert rows(tmp_path, "SELECT ordinal, result FROM history ORDER BY ordinal") == [(1, 1), (2, 1), (3, 2)]
        assert rows(tmp_path, "SELECT count(*) FROM bodies") == [(0,)]
        check_books(tmp_path)


@pytest.mark.parametrize("verb", ["bounce", "delete"])
async def test_the_last_to_leave_takes_body_or_spool_file_along(tmp_path: Path, verb: str) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        small = await accept(store, to("ann@a.example"))
        large = await accept_spooled(store, b"x" * 1000, to("ann@a.example"))
        await done(store, verb, (small.id, 1), (large.id, 1))
        clock.advance(GRACE)
        for leaving in await store.claim_leaving(10):
            assert leaving.message.alone
            assert (leaving.message.body is None) == (leaving.message.id == large.id)
            await settle(store, leaving.message, bounced(leaving.message.recipients[0]))
        assert states(tmp_path) == {}
        assert list((tmp_path / "spool").iterdir()) == []
        check_books(tmp_path)


async def test_what_leaves_and_is_interrupted_leaves_after_the_next_start(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock, clean=False) as store:
        rid = await one(store, "deferred")
        await done(store, "delete", rid)
        clock.advance(GRACE)
        assert len(await store.claim_leaving(10)) == 1
    async with opened(tmp_path, clock) as store:
        assert is_in(store, rid) == (L, None)
        (again,) = await store.claim_leaving(10)
        assert again.verb == "delete"
        check_books(tmp_path)


# -- operations and their journal ------------------------------------------------------------------------------------


def journal(state: Path) -> list[tuple[Any, ...]]:
    return rows(state, "SELECT event, who, command, query, recipients, reason, text FROM journal ORDER BY seq")


async def test_the_journal_has_one_line_an_operation_when_it_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rid = await one(store, "queued")
        action = await begun(store, "bounce", 5)
        await store.act(action, [rid, (42, 1)])
        store.progress(action.operation, delivered_before=1, pending=1)
        assert journal(tmp_path) == []
        (running,) = await store.operations()
        assert (running.state, running.ended) == ("running", None)
        over = await store.end_operation(action.operation)
        assert await store.end_operation(action.operation) == over
        assert journal(tmp_path) == [
            ("bounce", "ann", "mailtui queue bounce dest:a.example --yes", "dest:a.example", 1, "spam run",
             "o1: asked 5, done 1, delivered before 1, pending 1, left out 2")
        ]  # fmt: skip
        assert (over.name, over.state, over.undo_until) == ("o1", "done", store.clock.now() + GRACE)
        await store.progress(action.operation, pending=-1, delivered_before=1)
        (now,) = await store.operations()
        assert (now.pending, now.delivered_before) == (0, 2)


async def test_ending_what_never_began_is_an_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(KeyError):
            await store.end_operation(7)


async def test_operations_are_listed_newest_first_and_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for verb in ("hold", "release", "delete"):
            action = await begun(store, verb, 0)
            await store.end_operation(action.operation)
    async with opened(tmp_path) as store:
        assert store.interrupted_operations == []
        found = await store.operations(2)
        assert [(o.number, o.verb, o.state) for o in found] == [(3, "delete", "done"), (2, "release", "done")]
        assert (await begun(store, "hold")).operation == 4


# -- beside the traffic ----------------------------------------------------------------------------------------------


async def test_accepting_waits_for_one_chunk_at_most(tmp_path: Path) -> None:
    """An operation on 5,000; between the hand-over of a message and its commit no more than one chunk is committed."""
    async with opened(tmp_path) as store:
        rids: list[Rid] = []
        for _ in range(5):
            made = await accept(store, *[to(f"r{n}@a.example", n) for n in range(1, 1001)])
            rids += [(made.id, r.ordinal) for r in made.recipients]
        action = await begun(store, "bounce", len(rids))
        chunks = 0

        async def operate() -> None:
            nonlocal chunks
            for start in range(0, len(rids), 1000):
                acted = await store.act(action, rids[start : start + 1000])
                assert len(acted.done) == 1000
                chunks += 1

        operating = asyncio.ensure_future(operate())
        waited: list[int] = []
        while not operating.done():
            before = chunks
            await accept(store, to("new@b.example"))
            waited.append(chunks - before)
        await operating
        assert len(waited) >= 3
        assert max(waited) <= 1
        assert (await store.end_operation(action.operation)).done == 5000
        check_books(tmp_path)


async def test_a_turn_is_over_when_what_waits_is_on_disk_and_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with gate(store):
            accepted = asyncio.ensure_future(accept(store, to("new@b.example")))
            await asyncio.sleep(0)
            turn = asyncio.ensure_future(store.turn())
            await asyncio.sleep(0)
            assert not turn.done()
        await turn
        assert accepted.done() or (await accepted)
        commits = store.writer.commits
        await store.turn()
        assert store.writer.commits == commits + 1
    check_books(tmp_path)


async def test_a_message_leaves_as_a_whole_with_its_last_recipient(tmp_path: Path) -> None:
    """Bounced, delivered or restored: `check_books` knows which messages are all leaving, and their size."""
    async with opened(tmp_path) as store:
        made = await accept(store, *(to(f"r{n}@{n}.example", n, due=store.clock.now()) for n in range(1, 4)), size=700)
        await done(store, "bounce", (made.id, 1))
        assert leaving_whole(tmp_path) == (0, 0)
        (got,) = (await store.claim_due("2.example", 10, "")).messages
        await settle(store, got, delivered(got.recipients[0]))
        assert leaving_whole(tmp_path) == (0, 0)
        await done(store, "bounce", (made.id, 3))
        assert leaving_whole(tmp_path) == (1, 700)
        check_books(tmp_path)
        await done(store, "restore", (made.id, 1))
        assert leaving_whole(tmp_path) == (0, 0)
        (got,) = (await store.claim_due("1.example", 10, "")).messages
        await settle(store, got, delivered(got.recipients[0]))  # what is left is leaving
        assert leaving_whole(tmp_path) == (1, 700)
        check_books(tmp_path)
        store.clock.advance(GRACE + 1)
        for leaving in await store.claim_leaving(10):
            await settle(store, leaving.message, bounced(leaving.message.recipients[0]))
        assert leaving_whole(tmp_path) == (0, 0)
        assert rows(tmp_path, "SELECT * FROM messages") == []
        check_books(tmp_path)


def leaving_whole(state: Path) -> tuple[int, int]:
    """(messages, octets) of which nothing stays, by the totals."""
    kept = dict(rows(state, "SELECT key, value FROM meta"))
    return kept.get("leaving_messages", 0), kept.get("leaving_bytes", 0)


STATEMENTS = {
    name: text
    for name, text in vars(sql).items()
    if name.isupper() and not name.startswith("_") and name not in ("SCHEMA", "COLUMNS")
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_action_walks_the_queue(tmp_path: Path, name: str) -> None:
    text = STATEMENTS[name]
    facts = ("now", "until", "route", "rids", "operation", "who", "leaves", "leave_as", "undoes")
    values: Any = dict.fromkeys(facts) if ":" in text else (None,) * (2 if "?1" in text else text.count("?"))
    conn = open_writer(tmp_path)
    try:
        plan = [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + text, values)]
    finally:
        conn.close()
    for step in plan:
        walks_index_from_its_end = name == "NEXT_LEAVING" and step.endswith("USING INDEX leaving_by_end")
        assert not step.startswith(("SCAN recipients", "SCAN messages", "SCAN r ")) or walks_index_from_its_end, plan
