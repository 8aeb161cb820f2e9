"""What is claimed and in what order, and how attempts end on disk."""

import json
from pathlib import Path

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Attempt, Delays, Message, Outcome, State, TlsFacts
from mailtui.queue import claims
from mailtui.queue.store import Store
from mailtui.queue.tables import history

from .stores import (
    accept,
    accept_spooled,
    bounced,
    check_books,
    deferred,
    delivered,
    ended,
    gate,
    message,
    on_writer,
    opened,
    rows,
    settle,
    states,
    to,
    until,
    value,
    written,
)

NOW = 1_700_000_000.0
PARKED = "SELECT count(*) FROM recipients INDEXED BY parked_by_due WHERE claim = 0"


async def take(store: Store, count: int = 100, cursor: str = "", destination: str = "a.example") -> list[Message]:
    return (await store.claim_due(destination, count, cursor)).messages


def addresses(made: list[Message]) -> list[str]:
    return [r.address for m in made for r in m.recipients]


# -- claimed or parked -----------------------------------------------------------------------------------------------


async def test_a_message_that_is_handed_over_is_claimed_and_in_no_index(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        assert made.claimed
        assert value(tmp_path, PARKED) == 0
        assert value(tmp_path, "SELECT claim FROM recipients") == store.owner
        assert await take(store) == []


async def test_a_message_that_is_not_handed_over_is_parked_and_due(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = await accept(store)
        assert not made.claimed
        assert value(tmp_path, PARKED) == 1
        [claimed] = await take(store)
        assert claimed.id == made.id
        assert value(tmp_path, PARKED) == 0


async def test_a_claimed_message_is_as_it_was_accepted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = message(
            store,
            to("ann@a.example", due=1.5, expires=4e9, submitter="user:ann", notify="NEVER", orcpt="rfc822;ann"),
            body=b"8-bit \xff\r\n",
            sender="b\xfcb@sender.example",
            client="192.0.2.7",
            client_name="client.example",
            helo="helo.example",
            user="ann",
            listener="mx",
            protocol="ESMTPSA",
            tls="TLSv1.3",
            subject="caf\xe9",
            message_id="<1@x>",
            eight_bit=True,
            smtputf8=True,
            requiretls=True,
            ret="HDRS",
            envid="e1",
            trusted=True,
        )
        await store.accept(made)
        [claimed] = await take(store)
    assert claimed.envelope == made.envelope
    assert claimed.recipients == made.recipients
    assert claimed.body == made.body
    assert claimed.claimed and claimed.alone


# -- what is claimed -------------------------------------------------------------------------------------------------


async def test_only_what_is_due_is_claimed_and_the_next_moment_is_told(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock) as store:
        for due in (NOW + 60, NOW, NOW - 5, NOW + 30):
            await accept(store, to(f"due{due - NOW:.0f}@a.example", due=due))
        await accept(store, to("other@b.example"))
        claimed = await store.claim_due("a.example", 10, "")
        assert addresses(claimed.messages) == ["due-5@a.example", "due0@a.example"]
        assert claimed.next_due == NOW + 30
        clock.advance(30)
        claimed = await store.claim_due("a.example", 10, "")
        assert addresses(claimed.messages) == ["due30@a.example"]
        assert claimed.next_due == NOW + 60
        clock.advance(30)
        claimed = await store.claim_due("a.example", 10, "")
        assert addresses(claimed.messages) == ["due60@a.example"]
        assert claimed.next_due is None


async def test_held_recipients_are_not_claimed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        held = to("held@a.example", state=State.HELD)
        held.due = None
        await accept(store, held)
        claimed = await store.claim_due("a.example", 10, "")
        assert claimed.messages == []
        assert claimed.next_due is None


async def test_fresh_messages_come_before_retried_ones(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for n in range(3):
            await accept(store, to(f"old{n}@a.example", state=State.DEFERRED, attempts=2, due=1.0))
        for n in range(3):
            await accept(store, to(f"new{n}@a.example", due=2.0))
        assert addresses(await take(store, 4)) == [
            "new0@a.example",
            "new1@a.example",
            "new2@a.example",
            "old0@a.example",
        ]


async def test_a_newsletter_does_not_hold_up_a_password_reset(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with gate(store):
            for n in range(2000):
                store.accept(message(store, to(f"reader{n}@a.example", submitter="newsletter", due=1.0)))
            store.accept(message(store, to("reset@a.example", submitter="shop", due=2.0)))
        await written(store)
        assert addresses(await take(store, 2)) == ["reader0@a.example", "reset@a.example"]


async def test_submitters_take_turns_over_several_claims(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with gate(store):
            for submitter in "abcde":
                for n in range(20):
                    store.accept(message(store, to(f"{submitter}{n}@a.example", submitter=submitter, due=float(n))))
        await written(store)
        cursor, served = "", []
        for _ in range(10):
            claimed = await store.claim_due("a.example", 2, cursor)
            cursor = claimed.cursor
            served += [a[0] for a in addresses(claimed.messages)]
        assert {submitter: served.count(submitter) for submitter in "abcde"} == dict.fromkeys("abcde", 4)


async def test_room_that_the_others_leave_goes_to_whoever_has_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for n in range(5):
            await accept(store, to(f"many{n}@a.example", submitter="a", due=float(n)))
        await accept(store, to("one@a.example", submitter="b"))
        got = addresses(await take(store, 5))
        assert sorted(got) == [
            "many0@a.example",
            "many1@a.example",
            "many2@a.example",
            "many3@a.example",
            "one@a.example",
        ]


async def test_what_is_due_is_found_behind_any_number_of_submitters_with_nothing_due(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        with gate(store):
            for n in range(3 * claims.MAX_SUBMITTERS):
                store.accept(message(store, to("later@a.example", submitter=f"s{n:03}", due=NOW + 60)))
            store.accept(message(store, to("now@a.example", submitter="z", due=NOW)))
        await written(store)
        claimed = await store.claim_due("a.example", 10, "")
        assert addresses(claimed.messages) == ["now@a.example"]
        assert claimed.next_due == NOW + 60


async def test_each_of_many_submitters_has_its_turn(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with gate(store):
            for n in range(100):
                store.accept(message(store, to(f"big{n}@a.example", submitter="s000", due=1.0)))
            for n in range(1, 80):
                store.accept(message(store, to(f"s{n:03}@a.example", submitter=f"s{n:03}", due=2.0)))
        await written(store)
        cursor = ""
        got: list[str] = []
        for _ in range(4):
            claimed = await store.claim_due("a.example", 25, cursor)
            cursor = claimed.cursor
            got += addresses(claimed.messages)
        assert {f"s{n:03}@a.example" for n in range(1, 80)} <= set(got)


async def test_a_recipient_without_a_submitter_has_its_turn_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for n in range(5):
            await accept(store, to(f"many{n}@a.example", submitter="x", due=1.0))
        await accept(store, to("ann@a.example", submitter="", due=2.0))
        cursor, got = "", []
        for _ in range(2):
            claimed = await store.claim_due("a.example", 1, cursor)
            cursor = claimed.cursor
            got += addresses(claimed.messages)
        assert sorted(got) == ["ann@a.example", "many0@a.example"]


async def test_all_due_recipients_of_a_message_and_destination_come_together(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        made = await accept(
            store,
            to("a1@a.example", 1),
            to("b1@b.example", 2),
            to("a2@a.example", 3, state=State.DEFERRED, due=5.0),
            to("later@a.example", 4, due=NOW + 9),
        )
        [claimed] = await take(store)
        assert claimed.id == made.id
        assert [(r.ordinal, r.state) for r in claimed.recipients] == [(1, State.QUEUED), (3, State.DEFERRED)]
        assert not claimed.alone
        [other] = await take(store, destination="b.example")
        assert addresses([other]) == ["b1@b.example"]
        assert not other.alone


async def test_the_last_recipient_of_a_message_is_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await accept(store, to("a@a.example", 1), to("b@b.example", 2))
        [first] = await take(store)
        await settle(store, first, delivered(first.recipients[0]))
        [last] = await take(store, destination="b.example")
        assert last.alone


async def test_a_message_of_many_recipients_counts_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await accept(store, *(to(f"r{n}@a.example", n, due=1.0) for n in range(1, 31)))
        await accept(store, to("other@a.example", due=2.0))
        cursor, got = "", []
        for _ in range(2):
            claimed = await store.claim_due("a.example", 2, cursor)
            cursor = claimed.cursor
            got += addresses(claimed.messages)
        assert len(got) == 31


async def test_a_claim_is_limited_in_octets_but_takes_the_first_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIM_BYTES", 1000)
    async with opened(tmp_path) as store:
        for n, size in enumerate((5000, 400, 500, 200)):
            await accept(store, to(f"{size}@a.example", due=float(n)), body=b"x" * size)
        assert addresses(await take(store)) == ["5000@a.example"]
        assert addresses(await take(store)) == ["400@a.example", "500@a.example"]
        assert addresses(await take(store)) == ["200@a.example"]


async def test_a_spooled_message_takes_no_part_of_a_claims_octets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIM_BYTES", 1000)
    async with opened(tmp_path) as store:
        await accept(store, to("small@a.example", due=1.0))
        spooled = await accept_spooled(store, b"x" * 50_000, to("spooled@a.example", due=2.0))
        claimed = await take(store)
        assert addresses(claimed) == ["small@a.example", "spooled@a.example"]
        assert claimed[1].body is None
        assert await store.pieces(spooled.id) == [b"x" * 50_000]


async def test_who_did_not_fit_into_a_claim_is_first_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIM_BYTES", 1000)
    async with opened(tmp_path) as store:
        for n in range(4):
            await accept(store, to(f"a{n}@a.example", submitter="a", due=float(n)), body=b"x" * 700)
        await accept(store, to("b@a.example", submitter="b", due=9.0), body=b"x" * 700)
        first = await store.claim_due("a.example", 2, "")
        second = await store.claim_due("a.example", 2, first.cursor)
        assert addresses(first.messages) == ["a0@a.example"]
        assert addresses(second.messages) == ["b@a.example"]


async def test_a_claim_costs_the_same_in_a_long_queue(tmp_path: Path) -> None:
    steps = {}
    for length in (200, 2000):
        async with opened(tmp_path / str(length), ManualClock(NOW)) as store:
            with gate(store):
                for n in range(length):
                    store.accept(message(store, to(f"r{n}@a.example", submitter=f"s{n % 5}", due=1.0)))
            await written(store)
            count = [0]

            def step(count: list[int] = count) -> int:
                count[0] += 1
                return 0

            store.writer._conn.set_progress_handler(step, 10)
            await take(store, 10)
            await store.claim_expired("a.example", 10)
            store.writer._conn.set_progress_handler(None, 10)
            steps[length] = count[0]
    assert steps[2000] < 1.5 * steps[200]


# -- what has expired ------------------------------------------------------------------------------------------------


async def test_what_is_due_and_past_its_expiry_is_claimed_for_the_dead_next_hop(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await accept(store, to("fresh@a.example", expires=NOW + 1))
        await accept(store, to("over1@a.example", expires=NOW))
        await accept(store, to("over2@a.example", expires=NOW - 5))
        await accept(store, to("over3@a.example", expires=NOW - 5, due=NOW + 1))
        await accept(store, to("over4@b.example", expires=NOW - 5))
        held = to("held@a.example", expires=NOW - 5, state=State.HELD)
        held.due = None
        await accept(store, held)
        assert addresses(await store.claim_expired("a.example", 1)) == ["over2@a.example"]
        assert addresses(await store.claim_expired("a.example", 9)) == ["over1@a.example"]
        assert await store.claim_expired("a.example", 9) == []
        assert value(tmp_path, "SELECT count(*) FROM recipients WHERE claim != 0") == 2


# -- at start --------------------------------------------------------------------------------------------------------


async def test_at_start_every_destination_tells_when_it_is_due(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for address, due in (("a@a.example", 50.0), ("b@a.example", 40.0), ("c@c.example", 9e9), ("d@b.example", 70.0)):
            await accept(store, to(address, due=due))
        held = to("held@held.example", state=State.HELD)
        held.due = None
        await accept(store, held)
    async with opened(tmp_path) as store:
        assert sorted(store.heads) == [("a.example", 40.0), ("b.example", 70.0), ("c.example", 9e9)]


# -- given back ------------------------------------------------------------------------------------------------------


async def test_what_is_given_back_untried_is_due_as_it_was(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await accept(store, to("a@a.example", 1, due=NOW - 7), to("b@a.example", 2, due=NOW - 9))
        [claimed] = await take(store)
        heard: list[bool] = []
        store.park(claimed, claimed.recipients[:1], lambda: heard.append(True))
        await until(lambda: bool(heard))
        assert rows(tmp_path, "SELECT ordinal, state, due, attempts FROM recipients WHERE claim = 0") == [
            (1, 0, NOW - 7, 0)
        ]
        assert rows(tmp_path, "SELECT * FROM attempts") == []
        check_books(tmp_path)


# -- endings ---------------------------------------------------------------------------------------------------------


async def test_delivered_leaves_the_queue_with_message_and_body(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW), claim=True) as store:
        made = await accept(store, to("ann@a.example"), subject="a subject", message_id="<1@x>")
        assert await settle(store, made, delivered(made.recipients[0], remote_id="R1", reply="ok " + "x" * 1000))
        for table in ("messages", "bodies", "recipients", "attempts"):
            assert value(tmp_path, f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608
        columns = "message, ordinal, result, at, arrived, code, attempts, sender, recipient, subject, message_id, host"
        assert rows(tmp_path, f"SELECT {columns}, enhanced, remote_id, reply FROM history") == [  # noqa: S608
            (made.id, 1, history.DELIVERED, NOW, NOW, 250, 1, "bob@sender.example", "ann@a.example", "a subject",
             "<1@x>", "mx.example", "2.0.0", "R1", ("ok " + "x" * 1000)[: claims.REPLY_LENGTH])
        ]  # fmt: skip
        check_books(tmp_path)


async def test_the_history_names_the_destination(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        await settle(store, made, delivered(made.recipients[0]))
        joined = "SELECT name FROM history JOIN domains ON domains.id = history.destination"
        assert rows(tmp_path, joined) == [("a.example",)]


@pytest.mark.parametrize("spooled", [False, True])
async def test_a_message_leaves_with_its_last_recipient(tmp_path: Path, spooled: bool) -> None:
    async with opened(tmp_path, claim=True) as store:
        recipients = [to(f"r{n}@{'ab'[n % 2]}.example", n) for n in (1, 2, 3, 4)]
        if spooled:
            made = await accept_spooled(store, b"x" * 300_000, *recipients)
        else:
            made = await accept(store, *recipients)
        first, second, third, fourth = made.recipients
        await settle(store, made, delivered(second), bounced(third))
        assert states(tmp_path).keys() == {(made.id, 1), (made.id, 4)}
        assert store.spool.path(made.id).exists() == spooled
        check_books(tmp_path)
        with gate(store):  # the last two in one transaction
            store.settle(made, [delivered(first)])
            store.settle(made, [delivered(fourth)])
        await written(store)
        assert states(tmp_path) == {}
        assert not store.spool.path(made.id).exists()
        assert rows(tmp_path, "SELECT ordinal, result FROM history ORDER BY ordinal") == [
            (1, history.DELIVERED),
            (2, history.DELIVERED),
            (3, history.BOUNCED),
            (4, history.DELIVERED),
        ]
        check_books(tmp_path)


async def test_all_recipients_of_a_message_may_leave_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store, *(to(f"r{n}@a.example", n) for n in range(1, 101)))
        await settle(store, made, *(delivered(r) for r in made.recipients))
        assert states(tmp_path) == {}
        check_books(tmp_path)


async def test_a_deferral_goes_back_into_the_parking_with_the_reply(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock, claim=True) as store:
        made = await accept(store)
        clock.advance(3)
        assert await settle(
            store, made, deferred(made.recipients[0], NOW + 300, hop="[mx.example]:25", route="a.example")
        )
        columns = "claim, state, due, attempts, last_code, last_enhanced, last_reply, last_host, since, route"
        assert rows(tmp_path, f"SELECT {columns} FROM recipients") == [  # noqa: S608
            (0, State.DEFERRED, NOW + 300, 1, 451, "4.7.1", "try again later", "mx.example", NOW + 3, "a.example")
        ]
        assert rows(tmp_path, "SELECT * FROM history") == []
        assert value(tmp_path, PARKED) == 1
        check_books(tmp_path)
        clock.advance(300)
        [again] = await take(store)
        assert (again.recipients[0].state, again.recipients[0].attempts) == (State.DEFERRED, 1)
        assert again.alone
        await settle(store, again, deferred(again.recipients[0], NOW + 900))
        assert rows(tmp_path, "SELECT due, attempts FROM recipients") == [(NOW + 900, 2)]
        check_books(tmp_path)


async def test_an_attempt_that_failed_is_kept_with_its_dialogue(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        tls = TlsFacts("verify", "encrypted", "TLSv1.3", "AES", "pkix", "a route says so")
        attempt = Attempt(
            10.0, 12.5, "mx.example", "192.0.2.25", True, tls, Delays(0.1, 0.2, 0.3, 0.4), "220 hi\n451 later\n"
        )
        await settle(store, made, deferred(made.recipients[0], 9e9, attempt=attempt))
        columns = "message, ordinal, started, finished, reused, code, host, address, enhanced, reply, transcript"
        assert rows(tmp_path, f"SELECT {columns} FROM attempts") == [  # noqa: S608
            (made.id, 1, 10.0, 12.5, 1, 451, "mx.example", "192.0.2.25", "4.7.1", "try again later",
             "220 hi\n451 later\n")
        ]  # fmt: skip
        [(facts, delays)] = rows(tmp_path, "SELECT tls, delays FROM attempts")
        assert json.loads(facts) == {
            "wanted": "verify",
            "reached": "encrypted",
            "protocol": "TLSv1.3",
            "cipher": "AES",
            "verified_by": "pkix",
            "why": "a route says so",
        }
        assert json.loads(delays) == {"before_queue": 0.1, "queued": 0.2, "connect": 0.3, "transmit": 0.4}


async def test_a_bounce_and_its_report_are_one_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        committed: list[Message] = []
        made = await accept(store)
        store.committed = committed.append
        report = message(store, to("bob@sender.example"), sender="")
        before = store.writer.commits
        heard: list[bool] = []
        with gate(store):
            store.settle(made, [bounced(made.recipients[0])], [report], lambda: heard.append(True))
        await until(lambda: bool(heard))
        assert store.writer.commits - before == 2  # the gate's, and this
        assert committed == [report]
        assert states(tmp_path).keys() == {(report.id, 1)}
        assert rows(tmp_path, "SELECT result FROM history") == [(history.BOUNCED,)]
        assert len(rows(tmp_path, "SELECT * FROM attempts")) == 1
        check_books(tmp_path)


async def test_a_hold_by_a_route(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW), claim=True) as store:
        made = await accept(store)
        await settle(store, made, deferred(made.recipients[0], None, held_by="route", reply="held by a route"))
        assert rows(tmp_path, "SELECT claim, state, due, held_by, last_reply, attempts FROM recipients") == [
            (0, State.HELD, None, "route", "held by a route", 0)
        ]
        check_books(tmp_path)
        assert await take(store) == []


async def test_a_discard_is_deleted_in_the_history(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        await settle(store, made, delivered(made.recipients[0], deleted=True))
        assert rows(tmp_path, "SELECT result FROM history") == [(history.DELETED,)]
        assert states(tmp_path) == {}
        check_books(tmp_path)


async def test_interruptions_are_forgotten_with_a_finished_attempt(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await accept(store, to("ann@a.example", interruptions=2))
        [claimed] = await take(store)
        assert claimed.recipients[0].interruptions == 2
        await settle(store, claimed, deferred(claimed.recipients[0], 9e9))
        assert value(tmp_path, "SELECT interruptions FROM recipients") == 0


# -- claims that are not ours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.DEFERRED, Outcome.BOUNCED])
@pytest.mark.parametrize("ours", [False, True], ids=["alone", "with one of ours"])
async def test_a_settlement_of_a_claim_that_is_not_ours_is_void_and_writes_nothing(
    tmp_path: Path, outcome: Outcome, ours: bool
) -> None:
    void: list[str] = []
    async with opened(tmp_path, claim=True) as store:
        store.on_void = void.append
        made = await accept(store, to("theirs@a.example", 1), to("ours@a.example", 2))
        good, accepted = await accept(store), message(store)
        await on_writer(
            store,
            lambda conn: conn.execute("UPDATE recipients SET claim = 0 WHERE ordinal = 1 AND message = ?", (made.id,)),
        )
        before = rows(tmp_path, "SELECT * FROM recipients WHERE message = ? ORDER BY ordinal", made.id)
        heard: list[str] = []
        ends = [ended(made.recipients[0], outcome, due=9e9)]
        if ours:
            ends.insert(0, ended(made.recipients[1], outcome, due=9e9))
        with gate(store):
            store.settle(good, [delivered(good.recipients[0])], done=lambda: heard.append("good"))
            store.settle(made, ends, [message(store)], done=lambda: heard.append("void"))
            store.accept(accepted)
        await written(store)
        assert heard == ["good"]
        assert len(void) == 1
        assert rows(tmp_path, "SELECT * FROM recipients WHERE message = ? ORDER BY ordinal", made.id) == before
        assert states(tmp_path).keys() == {(made.id, 1), (made.id, 2), (accepted.id, 1)}
        assert rows(tmp_path, "SELECT message FROM history") == [(good.id,)]
        assert rows(tmp_path, "SELECT * FROM attempts") == []
        check_books(tmp_path)


async def test_a_recipient_is_settled_once(tmp_path: Path) -> None:
    void: list[str] = []
    async with opened(tmp_path, claim=True) as store:
        store.on_void = void.append
        made = await accept(store)
        with gate(store):
            store.settle(made, [delivered(made.recipients[0])])
            store.settle(made, [delivered(made.recipients[0])])
        await written(store)
        assert len(void) == 1
        assert len(rows(tmp_path, "SELECT * FROM history")) == 1
        assert states(tmp_path) == {}
        check_books(tmp_path)
