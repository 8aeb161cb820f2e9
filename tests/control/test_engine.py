"""Orders on a running relay: what is counted is what is touched, the numbers are exact, the journal has it all."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

from mailtui.clock import ManualClock, rfc3339
from mailtui.control.client import Client
from mailtui.control.errors import VerbError
from mailtui.queue.actions import CHUNK, Acted, Action
from tests.end_to_end.conftest import Live, Start, smarthost
from tests.queue import stores
from tests.support.nexthop import Answer, NextHop

T = TypeVar("T")
Document = dict[str, Any]

GRACE = '[queue]\ngrace = "10m"\n'


async def ask(relay: Live, work: Callable[[Client], T]) -> T:
    """As a command asks: in a thread, over the socket."""

    def asked() -> T:
        client = Client(relay.state / "control.sock")
        try:
            return work(client)
        finally:
            client.close()

    return await asyncio.to_thread(asked)


async def verb(relay: Live, name: str, query: str | None = None, **body: Any) -> Document:
    return await ask(relay, lambda client: client.verb(name, query=query, **body))


async def journal(relay: Live) -> list[Document]:
    """What operators did, oldest first."""
    rows = await ask(relay, lambda client: client.log(limit=1000))
    return [row for row in rows if row.get("command")]


async def states(relay: Live) -> list[str]:
    return [row["state"] for row in await relay.rows()] + [row["state"] for row in await relay.rows("state:leaving")]


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """Four deferred recipients: three of spammer@x.test, one of the null sender."""
    hop.rcpt = "451 4.7.1 greylisted"
    async with relay_of(smarthost(hop) + GRACE) as relay:
        for number in range(3):
            await relay.send(f"rcpt{number}@dest.test", sender="spammer@x.test")
        await relay.send("bob@other.test", sender="")
        await relay.told("deferred", 4)
        yield relay


@pytest.fixture
async def parked(relay_of: Start) -> AsyncIterator[Live]:
    """2,500 recipients of 25 messages, on a relay that sends nothing."""
    async with relay_of(GRACE, paused=True) as relay:
        for _ in range(25):
            recipients = [stores.to(f"r{n}@dest.test", n, due=relay.clock.now() + n) for n in range(1, 101)]
            await stores.accept(relay.relay.store, *recipients)
        yield relay


# -- previews ---------------------------------------------------------------------------------------------------------


async def test_a_preview_counts_and_does_nothing(relay: Live) -> None:
    found = await verb(relay, "queue.bounce", "to:*", preview=True, reason="why not")
    assert (found["messages"], found["recipients"], found["destinations"]) == (4, 4, 2)
    assert found["bytes"] == sum(row["size"] for row in await relay.rows())
    assert found["oldest"] == (await relay.rows())[0]["arrived"]
    assert found["command"] == "mailtui queue bounce 'to:*' --yes --expect 4 --reason 'why not'"
    assert (found["danger"], found["undo_seconds"]) == ("lossy", 600)
    assert [row["recipient"] for row in found["sample"]] == [row["recipient"] for row in await relay.rows()][::-1]
    assert (
        "3 reports to senders; for 1 recipients nobody is told (null sender, or no notice wanted)." in found["effects"]
    )
    assert "New arrivals are not included." in found["effects"]
    assert await states(relay) == ["deferred"] * 4
    assert await journal(relay) == []


async def test_a_preview_says_what_is_left_out_and_why(relay: Live) -> None:
    await verb(relay, "queue.hold", "to:rcpt0@dest.test")
    await verb(relay, "queue.delete", "to:rcpt1@dest.test")
    await verb(relay, "dest.suspend", args={"name": "Other.Test", "for": "1h"})
    found = await verb(relay, "queue.retry", "state:deferred,held,leaving", preview=True)
    assert found["recipients"] == 1
    assert sorted(found["left_out"], key=lambda one: one["why"]) == [
        {"why": "held", "recipients": 1},
        {"why": "leaving", "recipients": 1},
        {"why": "suspended", "recipients": 1},
    ]
    ran = await verb(relay, "queue.retry", "state:deferred,held,leaving")
    assert (ran["asked"], ran["recipients"], ran["left_out"]) == (4, 1, found["left_out"])


async def test_flushing_everything_stops_the_world_and_flushing_a_domain_does_not(relay: Live) -> None:
    assert (await verb(relay, "flush", preview=True))["danger"] == "world"
    found = await verb(relay, "flush", preview=True, args={"destination": "DEST.test"})
    assert (found["danger"], found["recipients"], found["command"]) == ("none", 3, "mailtui flush DEST.test")


# -- runs -------------------------------------------------------------------------------------------------------------


async def test_hold_and_release_give_back_state_and_clock_and_stand_in_the_journal(relay: Live) -> None:
    before = await relay.rows()
    held = await verb(relay, "queue.hold", "from:spammer@x.test", reason="spam?")
    assert {key: held[key] for key in ("asked", "messages", "recipients", "done", "delivered_before", "pending")} == {
        "asked": 3, "messages": 3, "recipients": 3, "done": 3, "delivered_before": 0, "pending": 0,
    }  # fmt: skip
    assert (held["operation"], held["left_out"]) == ("o1", [])
    rows = await relay.rows("state:held")
    assert [(row["held_by"], row["next_attempt"]) for row in rows] == [(getpass.getuser(), None)] * 3
    released = await verb(relay, "queue.release", "to:*")
    assert (released["asked"], released["done"], released["left_out"]) == (3, 3, [])
    assert await relay.rows() == before
    first, second = await journal(relay)
    assert {key: first[key] for key in ("event", "who", "query", "recipients", "reason", "command")} == {
        "event": "hold", "who": getpass.getuser(), "query": "from:spammer@x.test", "recipients": 3, "reason": "spam?",
        "command": "mailtui queue hold from:spammer@x.test --yes --expect 3 --reason 'spam?'",
    }  # fmt: skip
    assert (second["event"], second["query"], second["recipients"]) == ("release", "to:*", 3)


async def test_an_expectation_that_differs_does_nothing(relay: Live) -> None:
    with pytest.raises(VerbError, match="--expect 7 differs: 4 recipients match now; nothing was done") as caught:
        await verb(relay, "queue.delete", "to:*", expect=7)
    assert (caught.value.exit, caught.value.http) == (1, 409)
    assert await states(relay) == ["deferred"] * 4
    assert await journal(relay) == []
    assert (await verb(relay, "queue.delete", "to:*", expect=4))["done"] == 4


async def test_what_matches_nothing_says_0_and_is_no_operation(relay: Live) -> None:
    found = await verb(relay, "queue.hold", "dest:nowhere.test")
    assert (found["operation"], found["asked"], found["done"]) == (None, 0, 0)
    assert await journal(relay) == []


async def test_defer_sets_the_clock_and_reroute_the_way(relay: Live, clock: ManualClock) -> None:
    await verb(relay, "queue.defer", "to:rcpt0@dest.test", args={"for": "2h"})
    [row] = await relay.rows("to:rcpt0@dest.test")
    assert (row["state"], row["next_attempt"]) == ("deferred", rfc3339(clock.now() + 7200))
    async with NextHop() as other:
        target = f"smtp://[{other.host}]:{other.port}"
        await verb(relay, "queue.reroute", "to:rcpt1@dest.test", args={"to": target})
        await verb(relay, "queue.retry", "to:rcpt1@dest.test")
        [got] = await other.received(1)
        assert got.recipients == ["rcpt1@dest.test"]
        await relay.told("delivered")


async def test_what_was_sent_elsewhere_is_explained_by_that_way_and_tried_as_its_own_next_hop(relay: Live) -> None:
    async with NextHop() as other:  # a port that nobody listens on any more
        way = f"[{other.host}]:{other.port}"
    await verb(relay, "queue.reroute", "to:rcpt1@dest.test", args={"to": f"smtp://{way}"})
    await verb(relay, "queue.retry", "to:*")  # a canary for each of two next hops
    await relay.told("deferred", 2)
    [row] = await relay.rows("to:rcpt1@dest.test")
    [why] = await ask(relay, lambda client: client.why(row["rid"]))
    assert why["limiter"] == "next-hop-backoff"
    assert way in why["because"]


@pytest.mark.parametrize("target", ["smtp://", "smtps://mx.test:465:1", "nonsense"])
async def test_a_way_that_cannot_be_gone_is_refused(relay: Live, target: str) -> None:
    with pytest.raises(VerbError, match="--to") as caught:
        await verb(relay, "queue.reroute", "to:*", args={"to": target})
    assert caught.value.exit == 2
    assert await journal(relay) == []


async def test_a_bounce_waits_for_its_grace_and_restore_takes_it_back(relay: Live, hop: NextHop) -> None:
    before = await relay.rows()
    bounced = await verb(relay, "queue.bounce", "from:spammer@x.test")
    assert (bounced["done"], bounced["undo_until"]) == (3, rfc3339(relay.clock.now() + 600))
    assert await states(relay) == ["deferred"] + ["leaving"] * 3
    restored = await verb(relay, "queue.restore")
    assert (restored["asked"], restored["done"]) == (3, 3)
    assert await relay.rows() == before
    await relay.pass_time(700)
    assert await relay.history() == []


async def test_a_bounce_ends_in_a_report_with_the_reason(relay: Live, hop: NextHop) -> None:
    await verb(relay, "queue.bounce", "to:rcpt0@dest.test", reason="phish wave")
    hop.rcpt = []
    await relay.pass_time(601)
    await hop.received(1)
    await relay.told("delivered")
    report = next(message for message in hop.messages if message.recipients == ["spammer@x.test"])
    assert b"phish wave" in report.data
    assert [(row["recipient"], row["result"]) for row in await relay.history("to:rcpt0@dest.test")] == [
        ("rcpt0@dest.test", "bounced")
    ]


async def test_now_skips_the_grace(relay: Live) -> None:
    preview = await verb(relay, "queue.delete", "to:*", preview=True, args={"now": True})
    assert preview["undo_seconds"] is None
    assert preview["effects"][0] == "They leave the queue at once: this cannot be undone."
    found = await verb(relay, "queue.delete", "to:*", args={"now": True})
    assert found["undo_until"] is None
    await relay.told("discard", 4)
    assert [row["result"] for row in await relay.history()] == ["deleted"] * 4
    with pytest.raises(VerbError, match="had no grace and cannot be undone"):
        await verb(relay, "queue.undo", args={"operation": found["operation"]})


# -- what is in delivery ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "after"), [("451 4.3.0 later", "held"), ("250 ok", None)])
async def test_what_is_on_a_connection_waits_for_the_end_of_its_attempt(
    relay_of: Start, hop: NextHop, answer: str, after: str | None
) -> None:
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return answer

    hop.rcpt = [wait]
    async with relay_of(smarthost(hop)) as relay:
        await relay.send("bob@dest.test")
        await hop.commanded("RCPT")
        found = await verb(relay, "queue.hold", "to:*", reason="r")
        assert (found["asked"], found["done"], found["pending"]) == (1, 0, 1)
        assert (await relay.rows())[0]["state"] == "active"
        gate.set()
        await relay.told("deferred" if after else "delivered")
        assert [row["state"] for row in await relay.rows()] == ([after] if after else [])
        [operation] = await ask(relay, lambda client: client.operations(10))
        assert (operation["done"], operation["pending"], operation["delivered_before"]) == (
            (1, 0, 0) if after else (0, 0, 1)
        )


async def test_what_waits_in_memory_is_taken_back_at_once(relay_of: Start, hop: NextHop) -> None:
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 ok"

    hop.mail = wait
    async with relay_of(smarthost(hop) + "concurrency = 1\n") as relay:
        await relay.send("first@dest.test")
        await hop.commanded("MAIL")
        await relay.send("second@dest.test")
        await relay.send("third@dest.test")
        found = await verb(relay, "queue.hold", "-to:third@*")
        assert (found["asked"], found["done"], found["pending"]) == (2, 1, 1), str(found)
        assert [row["state"] for row in await relay.rows()] == ["active", "held", "queued"]
        gate.set()
        await hop.received(2)
        await relay.told("delivered", 2)
        assert [row["state"] for row in await relay.rows()] == ["held"]


# -- try now ----------------------------------------------------------------------------------------------------------


async def test_try_now_sends_a_canary_then_waves_and_the_journal_has_all_of_it(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    hop.rcpt = "451 4.7.1 later"
    async with relay_of(smarthost(hop)) as relay:
        await relay.send_many([f"r{n}@dest.test" for n in range(6)])
        await relay.told("deferred", 6)
        gate = asyncio.Event()

        async def wait(line: str) -> Answer:
            await gate.wait()
            return "250 ok"

        hop.rcpt = wait
        before = len(hop.lines("RCPT"))
        found = await verb(relay, "queue.retry", "to:*")
        assert (found["asked"], found["done"], found["pending"]) == (6, 1, 5)
        await hop.commanded("RCPT", before + 1)
        await relay.quiet()
        assert len(hop.lines("RCPT")) == before + 1
        assert [one["state"] for one in await ask(relay, lambda client: client.operations(1))] == ["running"]
        gate.set()
        await hop.received(6)
        await relay.told("retry")
        [entry] = await journal(relay)
        assert (entry["event"], entry["recipients"], entry["command"]) == (
            "retry", 6, "mailtui queue retry 'to:*' --yes --expect 6",
        )  # fmt: skip


async def test_a_next_hop_that_refuses_stops_the_waves(relay_of: Start, hop: NextHop) -> None:
    hop.rcpt = "451 4.7.1 later"
    async with relay_of(smarthost(hop)) as relay:
        await relay.send_many([f"r{n}@dest.test" for n in range(6)])
        await relay.told("deferred", 6)
        await verb(relay, "flush", args={"destination": "dest.test"})
        await relay.told("retry")
        [entry] = await journal(relay)
        assert (entry["recipients"], entry["command"]) == (1, "mailtui flush dest.test")
        assert sorted(row["attempts"] for row in await relay.rows()) == [1, 1, 1, 1, 1, 2]


async def test_all_at_once_is_all_at_once(relay: Live, hop: NextHop) -> None:
    hop.rcpt = []
    found = await verb(relay, "queue.retry", "to:*", args={"all_at_once": True})
    assert (found["done"], found["pending"]) == (4, 0)
    await hop.received(4)


# -- bulk -------------------------------------------------------------------------------------------------------------


async def test_bulk_goes_in_chunks_and_every_recipient_is_counted_once(parked: Live) -> None:
    found = await verb(parked, "queue.hold", "to:*")
    assert (found["messages"], found["recipients"], found["done"]) == (25, 2500, 2500)
    assert await parked.count("state:held") == 2500
    assert (await verb(parked, "queue.hold", "to:*"))["left_out"] == [{"why": "already held", "recipients": 2500}]
    undone = await verb(parked, "queue.undo", args={"operation": "o1"})
    assert (undone["asked"], undone["done"], undone["left_out"]) == (2500, 2500, [])
    assert await parked.count("state:queued") == 2500
    stores.check_books(parked.state)


async def test_what_runs_when_the_relay_stops_ends_between_two_chunks(
    relay_of: Start, parked: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, chunks = parked.relay.store.act, 0

    def slow(action: Action, rids: Any) -> "asyncio.Future[Acted]":
        nonlocal chunks
        chunks += 1
        if chunks == 2:
            for running in parked.relay.control._acting.engine._running.values():
                running.stop = True
        return act(action, rids)

    monkeypatch.setattr(parked.relay.store, "act", slow)
    found = await verb(parked, "queue.hold", "to:*")
    done = 2 * CHUNK
    assert (found["asked"], found["done"]) == (2500, done)
    assert found["left_out"] == [{"why": "stopped before it", "recipients": 2500 - done}]
    [entry] = await journal(parked)
    assert (entry["recipients"], entry["text"]) == (done, f"o1: asked 2500, done {done}, left out {2500 - done}")


async def test_an_order_goes_on_when_its_giver_hangs_up(parked: Live) -> None:
    _, writer = await asyncio.open_unix_connection(parked.state / "control.sock")
    body = b'{"query": "to:*"}'
    writer.write(b"POST /v1/verbs/queue.hold HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    while not parked.relay.control._acting.engine._running:  # noqa: ASYNC110 - it is said by no event
        await asyncio.sleep(0)
    writer.transport.abort()
    await parked.told("hold")
    assert await parked.count("state:held") == 2500


# -- frozen sets ------------------------------------------------------------------------------------------------------


async def test_a_set_is_what_it_was_and_new_arrivals_are_not_in_it(relay: Live) -> None:
    def freeze(client: Client) -> Document:
        return client._parse(client._ask("/v1/sets", {}, {"query": "dest:dest.test"}).read())

    made = await ask(relay, freeze)
    assert (made["count"], made["instant"]) == (3, True)
    name = made["set"]
    rows = await ask(relay, lambda client: list(client._lines(f"/v1/sets/{name}/rows", {"limit": "2"})))
    assert [row["index"] for row in rows] == [0, 1]
    await relay.send("new@dest.test")
    await relay.told("deferred", 5)
    index = await ask(relay, lambda client: client._document(f"/v1/sets/{name}/index", {"rid": rows[1]["rid"]}))
    assert index == {"index": 1}
    found = await verb(relay, "queue.delete", set=name, args={"now": True})
    assert (found["done"], found["command"]) == (3, "mailtui queue delete dest:dest.test --now --yes --expect 3")
    await relay.told("discard", 3)
    assert [row["recipient"] for row in await relay.rows()] == ["bob@other.test", "new@dest.test"]
    gone = await ask(relay, lambda client: list(client._lines(f"/v1/sets/{name}/rows", {"limit": "1"})))
    assert gone == [{"index": 0, "id": rows[0]["id"], "rid": rows[0]["rid"], "gone": True}]
    again = await verb(relay, "queue.hold", set=name)
    assert (again["asked"], again["done"], again["delivered_before"]) == (3, 0, 3)


async def test_a_set_is_forgotten_after_a_minute(relay: Live, clock: ManualClock) -> None:
    found = await verb(relay, "queue.hold", "to:*", preview=True, keep=True)
    clock.advance(59)
    assert (await verb(relay, "queue.hold", preview=True, set=found["set"]))["recipients"] == 4
    clock.advance(61)
    with pytest.raises(VerbError, match="is gone; ask again") as caught:
        await verb(relay, "queue.hold", set=found["set"])
    assert (caught.value.exit, caught.value.http) == (1, 410)


# -- undo -------------------------------------------------------------------------------------------------------------


async def test_undo_takes_back_what_is_still_as_it_was_left(relay: Live) -> None:
    before = await relay.rows()
    await verb(relay, "queue.defer", "to:*", args={"for": "3h"})
    await verb(relay, "queue.hold", "to:bob@*")
    preview = await verb(relay, "queue.undo", preview=True, args={"operation": "o1"})
    assert preview["effects"][0].startswith("It takes back: mailtui queue defer")
    undone = await verb(relay, "queue.undo", args={"operation": "o1"}, reason="a slip")
    assert (undone["operation"], undone["undoes"], undone["asked"], undone["done"]) == ("o3", "o1", 4, 3)
    assert undone["left_out"] == [{"why": "changed since, or gone", "recipients": 1}]
    assert await relay.rows("dest:dest.test") == before[:3]
    entry = (await journal(relay))[-1]
    assert (entry["event"], entry["command"], entry["reason"]) == (
        "undo", "mailtui queue undo o1 --reason 'a slip'", "a slip",
    )  # fmt: skip
    rows = await ask(relay, lambda client: client.operations(2))
    assert [(row["operation"], row["verb"], row["state"], row["undoes"]) for row in rows] == [
        ("o3", "queue.undo", "done", "o1"),
        ("o2", "queue.hold", "done", None),
    ]


async def test_undo_goes_over_a_restart_until_the_grace_has_ended(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    hop.rcpt = "451 4.7.1 later"
    async with relay_of(smarthost(hop) + GRACE) as relay:
        await relay.send("bob@dest.test")
        await relay.told("deferred")
        before = await relay.rows()
        await verb(relay, "queue.delete", "to:*")
    async with relay_of(smarthost(hop) + GRACE) as relay:
        [row] = await ask(relay, lambda client: client.operations(5))
        assert (row["operation"], row["verb"], row["state"]) == ("o1", "queue.delete", "done")
        assert (await verb(relay, "queue.undo", args={"operation": "O1"}))["done"] == 1
        assert await relay.rows() == before
        await verb(relay, "queue.delete", "to:*")
        clock.advance(601)
        with pytest.raises(VerbError, match="could be undone until"):
            await verb(relay, "queue.undo", args={"operation": "o3"})


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [("o99", "there is no operation o99"), ("x", "no operation x"), ("o1", "cannot be undone")],
)
async def test_what_cannot_be_undone_is_said(relay: Live, operation: str, sentence: str) -> None:
    await verb(relay, "queue.retry", "to:rcpt0@dest.test")
    with pytest.raises(VerbError, match=sentence) as caught:
        await verb(relay, "queue.undo", args={"operation": operation})
    assert caught.value.exit == 1


# -- the relay and its next hops --------------------------------------------------------------------------------------


async def test_pause_suspend_limit_and_routes_stand_in_the_journal_with_their_command(relay: Live) -> None:
    orders = [
        ("pause", {"what": "delivery", "for": "1h"}, "mailtui pause delivery --for 1h --reason storm"),
        ("resume", {}, "mailtui resume --reason storm"),
        ("dest.suspend", {"name": "dest.test"}, "mailtui dest suspend dest.test --reason storm"),
        ("dest.resume", {"name": "dest.test"}, "mailtui dest resume dest.test --reason storm"),
        ("dest.limit", {"name": "a.test", "rate": "9/1m"}, "mailtui dest limit a.test --rate 9/1m --reason storm"),
        ("dest.limit", {"name": "dest.test", "clear": True}, "mailtui dest limit dest.test --clear --reason storm"),
        ("route.set", {"match": "a.test", "target": "hold"}, "mailtui route set a.test hold --reason storm"),
        ("route.unset", {"match": "a.test"}, "mailtui route unset a.test --reason storm"),
    ]  # fmt: skip
    for name, args, _ in orders:
        relay.clock.advance(1)
        answer = await verb(relay, name, args=args, reason="storm")
        assert answer["text"]
    assert [(row["event"], row["command"], row["reason"]) for row in await journal(relay)] == [
        (name.replace(".", "-"), command, "storm") for name, _, command in orders
    ]


async def test_pause_and_suspension_hold_until_they_end(relay: Live) -> None:
    await verb(relay, "pause", args={"what": "all", "for": "1h"})
    assert (await ask(relay, lambda client: client.status()))["paused"] == "all"
    await relay.pass_time(3601)
    assert (await ask(relay, lambda client: client.status()))["paused"] is None
    await verb(relay, "dest.suspend", args={"name": "dest.test", "for": "1h"}, reason="their MX")
    row = await ask(relay, lambda client: client.destination("dest.test"))
    assert (row["state"], row["reason"], row["until"], row["deferred"]) == (
        "suspended", "their MX", rfc3339(relay.clock.now() + 3600), 3,
    )  # fmt: skip
    listed = await ask(relay, lambda client: client.destinations("domain", 1))
    assert [(one["destination"], one["state"]) for one in listed] == [("dest.test", "suspended")]


@pytest.mark.parametrize(
    ("name", "args", "exit", "sentence"),
    [
        ("dest.resume", {"name": "a.test"}, 1, "a.test is not suspended"),
        ("dest.suspend", {"name": "a b"}, 2, "neither a destination nor a next hop"),
        ("dest.limit", {"name": "a.test"}, 2, "needs --concurrency N"),
        ("dest.limit", {"name": "a.test", "clear": True, "concurrency": 1}, 2, "--clear stands alone"),
        ("route.set", {"match": "a b", "target": "mx"}, 2, "not a route match"),
        ("route.set", {"match": "a.test", "target": "ftp://x"}, 2, "unknown scheme"),
        ("route.set", {"match": "a.test", "target": "mx", "tls": "strong"}, 2, "no TLS level"),
        ("route.unset", {"match": "a.test"}, 1, "has no live route"),
        ("queue.hold", {}, 2, "needs a QUERY; everything is to:*"),
    ],
)
async def test_what_is_wrong_is_said_and_not_done(
    relay: Live, name: str, args: Document, exit: int, sentence: str
) -> None:
    with pytest.raises(VerbError, match=sentence.replace("*", r"\*")) as caught:
        await verb(relay, name, args=args)
    assert caught.value.exit == exit
    assert await journal(relay) == []


async def test_a_route_is_listed_tested_and_beats_the_files(relay_of: Start, hop: NextHop) -> None:
    file = '[[route]]\nmatch = "a.test"\ntarget = "defer"\n[[route]]\nmatch = ".b.test"\ntarget = "defer"\n'
    async with relay_of(file + smarthost(hop)) as relay:
        await verb(relay, "route.set", args={"match": "a.test", "target": "error:5.1.2 no such place"})
        rows = await ask(relay, lambda client: client.routes())
        assert [(row["match"], row["target"], row["source"], row["shadowed"]) for row in rows] == [
            ("a.test", "error:5.1.2 no such place", "live", False),
            ("a.test", "defer", "file", True),
            (".b.test", "defer", "file", False),
        ]
        tested = await ask(relay, lambda client: client.route_test("x@a.test", ""))
        assert (tested["match"], tested["target"], tested["source"]) == ("a.test", "error:5.1.2 no such place", "live")
        assert (await ask(relay, lambda client: client.plan("a.test")))["outcome"] == "bounce"
        assert (await ask(relay, lambda client: client.route_test("c.b.test", "")))["match"] == ".b.test"
        assert (await ask(relay, lambda client: client.route_test("c.test", "")))["source"] == "smarthost"
        await relay.send("x@c.b.test")
        await relay.told("deferred")
        queued = {row["match"]: row["queued"] for row in await ask(relay, lambda client: client.routes())}
        assert queued == {"a.test": 0, ".b.test": 1}


async def test_a_configuration_that_is_wrong_is_refused_with_its_errors(relay: Live) -> None:
    from mailtui.config import ConfigError

    def broken() -> Any:
        raise ConfigError(["mailtui.toml: line 3: delivery.prot: unknown key", "mailtui.toml: line 4: x"])

    relay.relay._load = broken
    with pytest.raises(VerbError, match=r"line 3: delivery.prot.*; mailtui.toml: line 4") as caught:
        await verb(relay, "reload", args={})
    assert caught.value.exit == 2
