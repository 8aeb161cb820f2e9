"""What delivery knows of destinations and next hops: what stands out is told, in turns of the loop, page by page."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mailtui.delivery import standing
from mailtui.delivery.controls import SUSPEND
from tests.control.test_engine import ask, verb
from tests.end_to_end.conftest import Live, Start, smarthost
from tests.queue import stores
from tests.support.nexthop import NextHop


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """1,200 destinations with one recipient each that is due in an hour, and one with three; all for one smarthost."""
    async with relay_of(smarthost(hop)) as relay:
        store, due = relay.relay.store, relay.clock.now() + 3600.0
        made = []
        for number in range(12):
            names = [f"x@d{number * 100 + n}.test" for n in range(100)]
            made.append(stores.accept(store, *(stores.to(name, n, due=due) for n, name in enumerate(names, 1))))
        made.append(stores.accept(store, *(stores.to(f"{n}@full.test", n, due=due) for n in range(1, 4))))
        store.admit = lambda message: False
        await asyncio.gather(*made)
        yield relay


def the_hop(relay: Live) -> str:
    plan = relay.relay.router.cached("", "full.test", "")
    assert plan is not None
    return plan.next_hop


async def test_a_page_of_destinations_asks_delivery_about_that_page_only(
    relay: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    facts = standing._facts

    def counted(scheduler: object, name: str, *rest: object) -> standing.Facts:
        asked.append(name)
        return facts(scheduler, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(standing, "_facts", counted)
    listed = await ask(relay, lambda client: client.destinations("domain", 3))
    assert listed[0]["destination"] == "full.test"
    assert len(listed) == len(asked) == 3
    everything = await ask(relay, lambda client: client.destinations("domain", 0))
    assert len(everything) == 1201


async def test_destinations_behind_a_suspended_next_hop_stand_out_and_no_more_than_a_page_of_them(relay: Live) -> None:
    key = the_hop(relay)
    await verb(relay, "dest.suspend", args={"name": key}, reason="their MX")
    await verb(relay, "dest.suspend", args={"name": "d7.test"}, reason="own")
    found = await relay.relay.destinations("domain", ["full.test"], 5)
    assert [(one["name"], one["state"]) for one in found[:3]] == [
        ("full.test", "suspended"),
        (key, "suspended"),
        ("d7.test", "suspended"),
    ]
    assert len(found) == 3 + 5
    assert all(one["state"] == "suspended" and one["name"].endswith(".test") for one in found[3:])
    listed = await ask(relay, lambda client: client.destinations("domain", 5))
    assert {row["state"] for row in listed} == {"suspended"}
    assert "d7.test" in {row["destination"] for row in listed}


async def test_what_is_suspended_is_named_with_the_destinations_behind_it(relay: Live) -> None:
    assert await relay.relay.suspended() == set()
    await verb(relay, "dest.suspend", args={"name": the_hop(relay)}, reason="their MX")
    names = await relay.relay.suspended()
    assert names == {the_hop(relay), "full.test", *(f"d{n}.test" for n in range(1200))}


async def test_a_next_hop_is_told_with_all_that_goes_there(relay: Live) -> None:
    found = {one["name"]: one for one in await relay.relay.destinations("hop")}
    assert len(found[the_hop(relay)]["domains"]) == 1201


async def test_the_loop_turns_while_many_destinations_are_looked_at(relay: Live) -> None:
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(turning())
    await relay.relay.destinations("domain")
    task.cancel()
    assert turns >= 1200 // standing.TURN


async def test_new_mail_for_a_suspended_next_hop_is_parked_at_once(relay: Live) -> None:
    relay.relay.store.admit = relay.relay.scheduler.admit
    await relay.relay.scheduler.controls.set(SUSPEND, the_hop(relay), reason="their MX", who="ann")
    made = await stores.accept(relay.relay.store, stores.to("new@d1.test"))
    assert not made.claimed
    assert relay.relay.scheduler.claimed() == []
    assert stores.states(relay.state)[made.id, 1].name == "QUEUED"
