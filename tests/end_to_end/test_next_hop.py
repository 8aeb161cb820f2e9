"""A next hop as a whole: down, back, strained, shared."""

import asyncio

import pytest

from mailtui.clock import ManualClock
from mailtui.delivery.hop import BACKOFF_FIRST, BACKOFF_LAST
from tests.end_to_end.conftest import Live, Start, smarthost
from tests.support.nexthop import DROP, HANG, Answer, NextHop


async def test_a_dead_hop_is_probed_with_one_message_a_back_off(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    """300 messages wait; each probe is one connection and one attempt, at 30 s, 60 s, ... after the last one."""
    hop.greeting = "421 4.3.2 out of service"
    await relay.send()
    await relay.told("deferred")
    begun = hop.connections
    await relay.send_many([f"u{n}@dest.test" for n in range(300)])
    await relay.quiet()
    assert hop.connections == begun == 1
    assert await relay.count("state:queued") == 300
    for probe, wait in enumerate([30, 60, 120, 240, 480, 900, 900], 1):
        assert wait == min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** (probe - 1))
        await relay.pass_time(wait - 0.5)
        assert hop.connections == begun + probe - 1
        clock.advance(0.6)
        await relay.told("deferred", 1 + probe)
        assert hop.connections == begun + probe
    assert await relay.count("state:queued") == 300 - 7
    assert relay.relay.claimed() == []


async def test_when_it_is_back_everything_is_delivered(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    await hop.stop()
    await relay.send()
    await relay.told("deferred")
    await relay.send_many([f"u{n}@dest.test" for n in range(300)])
    await hop.start()
    clock.advance(BACKOFF_FIRST + 0.1)
    await hop.received(300)
    clock.advance(360)
    await hop.received(301)
    await relay.told("delivered", 301)
    assert await relay.rows() == []
    assert len(await relay.history()) == 301
    assert hop.connections < 40


async def test_connections_that_fail_together_are_one_failure(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    gate = asyncio.Event()

    async def refuse(line: str) -> Answer:
        await gate.wait()
        return "421 4.3.2 not now"

    hop.greeting = refuse
    await relay.send_many([f"u{n}@dest.test" for n in range(5)])
    await hop.connected(5)
    gate.set()
    await relay.told("deferred", 5)
    await relay.send("late@dest.test")
    await relay.pass_time(BACKOFF_FIRST - 1)
    assert hop.connections == 5
    clock.advance(2)
    await hop.connected(6)


async def test_what_has_expired_behind_a_dead_hop_is_given_up_with_its_probe(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    hop.greeting = "421 4.3.2 out of service"
    await relay.send(sender="")
    await relay.told("deferred")
    await relay.send_many([f"u{n}@dest.test" for n in range(40)], sender="")
    connections = hop.connections
    # Null-sender mail has a day. The clock leaps over all the probes.
    clock.advance(86401)
    await relay.told("bounced", 41)
    assert hop.connections <= connections + 2
    left = await relay.rows("to:*@dest.test")
    assert left == []
    assert {past["enhanced"] for past in await relay.history("dest:dest.test")} <= {"4.4.7", "4.3.2"}


async def test_what_has_expired_at_any_domain_of_a_dead_hop_is_given_up(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    hop.greeting = "421 4.3.2 out of service"
    await relay.send("first@d0.test", sender="")
    await relay.told("deferred")
    await relay.send_many([f"u@d{n}.test" for n in range(30)], sender="")
    clock.advance(86401)
    await relay.told("bounced", 31)


async def test_one_fresh_message_of_another_submitter_passes_a_newsletter(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 2.1.0 ok"

    hop.mail = wait
    async with relay_of(smarthost(hop) + "concurrency = 1\n") as relay:
        await relay.send_many([f"reader{n}@dest.test" for n in range(500)], sender="news@sender.test")
        await relay.send_many(["user@dest.test"], sender="reset@sender.test", source="127.0.0.2")
        gate.set()
        await hop.received(10)
        order = [each.sender for each in hop.messages[:10]]
        assert "reset@sender.test" in order
        await hop.received(501, timeout=30)
        await relay.told("delivered", 501)


async def test_parked_mail_is_fair_too(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    """Behind a dead hop all is parked in the database; the claims take the submitters in turn."""
    hop.greeting = ["421 4.3.2 not now"]
    async with relay_of(smarthost(hop) + "concurrency = 1\n") as relay:
        await relay.send("probe@dest.test", sender="probe@sender.test")
        await relay.told("deferred")
        await relay.send_many([f"reader{n}@dest.test" for n in range(200)], sender="news@sender.test")
        await relay.send_many(["user@dest.test"], sender="reset@sender.test", source="127.0.0.2")
        clock.advance(BACKOFF_FIRST + 0.1)
        await hop.received(20)
        assert "reset@sender.test" in [each.sender for each in hop.messages[:20]]
        await relay.told("delivered", 201)


async def test_never_more_connections_than_concurrency(relay_of: Start, hop: NextHop) -> None:
    async with relay_of(smarthost(hop) + "concurrency = 3\n") as relay:
        await relay.send_many([f"u{n}@dest.test" for n in range(60)])
        await relay.told("delivered", 60)
    assert hop.peak <= 3


async def test_never_more_connections_than_the_relays_limit(relay_of: Start) -> None:
    async with NextHop() as one, NextHop() as two:
        routes = "".join(
            f'[[route]]\nmatch = "{name}.test"\ntarget = "smtp://[127.0.0.1]:{hop.port}"\n'
            for name, hop in (("one", one), ("two", two))
        )
        async with relay_of("[delivery]\nconnections = 2\n" + routes) as relay:
            await relay.send_many([f"u{n}@{'one' if n % 2 else 'two'}.test" for n in range(40)])
            await relay.told("delivered", 40)
        assert one.peak <= 2
        assert two.peak <= 2
        assert len(one.messages) == len(two.messages) == 20


async def test_a_rate_spreads_messages_over_the_clock(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    async with relay_of(smarthost(hop) + 'rate = "10/1m"\n') as relay:
        await relay.send_many([f"u{n}@dest.test" for n in range(5)])
        await relay.quiet()
        await hop.received(1)
        await relay.quiet()
        assert len(hop.messages) == 1
        for count in range(2, 6):
            clock.advance(6.1)
            await hop.received(count)
            await relay.quiet()
            assert len(hop.messages) == count


async def test_a_rate_limiting_421_makes_the_whole_next_hop_wait(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.mail = ["421 4.7.28 unusual rate of mail from your address"]
    await relay.send()
    await relay.told("deferred")
    rid = await relay.send("next@dest.test") + ".1"
    await relay.quiet()
    assert len(hop.lines("MAIL")) == 1
    why = await relay.why(rid)
    assert why["limiter"] == "next-hop-backoff"
    assert "unusual rate" in why["because"]
    clock.advance(BACKOFF_FIRST + 0.1)
    await hop.received(1)


async def test_a_slow_hop_holds_up_nobody_else(relay_of: Start) -> None:
    async with NextHop() as slow, NextHop() as quick:
        slow.greeting = HANG
        routes = "".join(
            f'[[route]]\nmatch = "{name}.test"\ntarget = "smtp://[127.0.0.1]:{hop.port}"\n'
            for name, hop in (("slow", slow), ("quick", quick))
        )
        async with relay_of(routes) as relay:
            await relay.send_many([f"u{n}@slow.test" for n in range(50)])
            await relay.send_many([f"u{n}@quick.test" for n in range(50)])
            await relay.told("delivered", 50)
            assert len(quick.messages) == 50
            assert slow.connections <= 5


@pytest.mark.parametrize("answer", ["550 5.7.1 no", "451 4.3.0 no"])
async def test_a_refused_message_does_not_make_the_hop_wait(relay: Live, hop: NextHop, answer: str) -> None:
    hop.mail = [answer]
    await relay.send()
    await relay.told("bounced" if answer.startswith("5") else "deferred")
    await relay.send("next@dest.test")
    await hop.received(1)
    assert hop.messages[-1].recipients in (["next@dest.test"], ["ann@sender.test"])


# -- a hop that takes so many connections and no more (standards R08) --------------------------------------------------


class Limited:
    """The greeting of a server that takes `limit` connections at once."""

    def __init__(
        self, hop: NextHop, limit: int, text: str = "421 4.7.0 too many connections from your address"
    ) -> None:
        self.hop, self.limit, self.text, self.refused = hop, limit, text, 0

    def __call__(self, line: str) -> Answer:
        if self.hop.open > self.limit:
            self.refused += 1
            return self.text
        return "220 next.test ESMTP"


async def test_a_limit_on_connections_is_found_and_kept(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    """What is refused beside sessions that work goes over those: no mail waits for it, nothing backs off."""
    await relay.send("first@dest.test")
    await relay.told("delivered")
    limited = hop.greeting = Limited(hop, 3)
    begun = hop.connections
    await relay.send_many([f"u{n}@dest.test" for n in range(400)])
    await relay.told("delivered", 401)
    assert relay.events.counts.get("deferred", 0) == 0
    assert relay.events.counts.get("next-hop-down", 0) == 0
    assert hop.connections - begun <= 12
    assert limited.refused <= 6
    [facts] = await relay.relay.destinations("hop")
    assert facts["window"] == 3
    assert facts["state"] == "ok"
    # It is not asked for more until five minutes have passed.
    refused = limited.refused
    await relay.send_many([f"v{n}@dest.test" for n in range(400)])
    await relay.told("delivered", 801)
    assert limited.refused == refused


async def test_a_hop_that_refuses_everybody_is_down_all_the_same(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    await relay.send("first@dest.test")
    await relay.told("delivered")
    hop.greeting = "421 4.3.2 shutting down"
    hop.mail = DROP
    await relay.send_many([f"u{n}@dest.test" for n in range(20)])
    await relay.told("next-hop-down")
    await relay.quiet()
    assert relay.relay.claimed() == []
    assert await relay.count() == 20
    hop.greeting, hop.mail = [], []
    clock.advance(BACKOFF_FIRST + 0.1)
    await relay.quiet()
    clock.advance(400)
    await relay.told("delivered", 21)
    assert sorted(each.recipients[0] for each in hop.messages[1:]) == sorted(f"u{n}@dest.test" for n in range(20))


# -- hosts that are dead -----------------------------------------------------------------------------------------------


def two_hosts(first: NextHop, second: NextHop) -> str:
    return (
        f'[[route]]\nmatch = "dest.test"\ntarget = "smtp://[{first.host}]:{first.port}|smtp://[{second.host}]:{second.port}"\n'
        f'[[route]]\nmatch = "*"\ntarget = "discard"\n'
    )


async def test_a_dead_host_of_a_site_is_not_tried_by_every_message(relay_of: Start, clock: ManualClock) -> None:
    # Q04: by the greeting that never comes, each would wait for five minutes
    async with NextHop() as dead, NextHop() as alive:
        dead.greeting = HANG
        async with relay_of(two_hosts(dead, alive)) as relay:
            await relay.send()
            await dead.connected(1)
            await relay.quiet()
            clock.advance(301)
            await relay.told("delivered")
            for number in range(2, 8):
                clock.advance(6)  # no connection is kept that long
                for connection in list(relay.relay.scheduler.pool.hops.values()):
                    relay.relay.scheduler.pool.close_idle(connection)
                await alive.idle()
                await relay.send()
                await relay.told("delivered", number)
            assert dead.connections == 1
            assert alive.connections == 7
            [past] = {(row["host"], row["attempts"]) for row in await relay.history()}
            assert past == (alive.host, 1)
            # After a while its turn comes again, and then it is the first as before.
            dead.greeting = []
            clock.advance(60)
            for connection in list(relay.relay.scheduler.pool.hops.values()):
                relay.relay.scheduler.pool.close_idle(connection)
            await alive.idle()
            await relay.send()
            await dead.received(1)
            await relay.told("delivered", 8)


# -- ways that depend on the sender ------------------------------------------------------------------------------------


def by_sender(hop: NextHop, other: NextHop, sender: str = "ann@sender.test") -> str:
    return (
        f'[[route]]\nmatch = "from:{sender}"\ntarget = "smtp://[{other.host}]:{other.port}"\n'
        f'[delivery]\nsmarthost = "smtp://[{hop.host}]:{hop.port}"\n'
    )


async def test_two_senders_to_one_recipient_go_their_own_ways(relay_of: Start, hop: NextHop) -> None:
    async with NextHop() as other, relay_of(by_sender(hop, other)) as relay:
        await relay.send(["a@dest.test", "b@dest.test"], sender="ann@sender.test")
        await relay.send(["a@dest.test", "b@dest.test"], sender="eve@sender.test")
        await relay.told("delivered", 4)
        assert [(each.sender, each.recipients) for each in other.messages] == [
            ("ann@sender.test", ["a@dest.test", "b@dest.test"])
        ]
        assert [(each.sender, each.recipients) for each in hop.messages] == [
            ("eve@sender.test", ["a@dest.test", "b@dest.test"])
        ]


async def test_a_dead_way_of_one_sender_holds_up_no_other_and_costs_no_work(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    async with NextHop() as other, relay_of(by_sender(hop, other)) as relay:
        other.greeting = "421 4.3.2 out of service"
        await relay.send(sender="ann@sender.test")
        await relay.told("deferred")
        waiting = [await relay.send(f"u{n}@dest.test", sender="ann@sender.test") + ".1" for n in range(8)]
        parked = 0
        park = relay.relay.store.park

        def counted(*args: object, **more: object) -> None:
            nonlocal parked
            parked += 1
            park(*args, **more)  # type: ignore[arg-type]

        relay.relay.store.park = counted  # type: ignore[method-assign]
        for _ in range(10):
            await relay.quiet()
        assert parked == 0
        await relay.send_many([f"v{n}@dest.test" for n in range(20)], sender="eve@sender.test")
        await relay.told("delivered", 20)
        assert len(hop.messages) == 20
        for rid in waiting:
            row, why = await relay.row(rid), await relay.why(rid)
            assert (row["state"], row["attempts"]) == ("queued", 0)
            assert (why["limiter"], why["next_attempt"]) == ("next-hop-backoff", row["next_attempt"])
            assert f"[{other.host}]:{other.port} is left alone" in why["because"]
        other.greeting = []
        clock.advance(BACKOFF_FIRST + 0.1)
        await relay.told("delivered", 28)
        clock.advance(360)
        await relay.told("delivered", 29)
        assert parked <= 24
        assert {each.sender for each in other.messages} == {"ann@sender.test"}
        assert len(other.messages) == 9


async def test_what_has_expired_on_a_dead_way_of_one_sender_is_given_up_and_nothing_else(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    async with NextHop() as other, relay_of(by_sender(hop, other)) as relay:
        other.greeting = "421 4.3.2 out of service"
        for number in range(4):
            await relay.send(f"u{number}@dest.test", sender="ann@sender.test")
        await relay.told("deferred")
        # Their hop speaks for them only: what goes to the domain by its own way is not asked for its expiry.
        asked: list[str] = []
        claim = relay.relay.store.claim_expired
        relay.relay.store.claim_expired = lambda name, count: (asked.append(name), claim(name, count))[1]  # type: ignore
        clock.advance(432001)
        await relay.quiet()
        for _ in range(20):
            if relay.events.counts.get("bounced", 0) >= 4:
                break
            clock.advance(900)
            await relay.quiet()
        given_up = [past["recipient"] for past in await relay.history() if past["sender"] == "ann@sender.test"]
        assert sorted(given_up) == [f"u{number}@dest.test" for number in range(4)]
        assert "dest.test" not in asked


async def test_a_suspended_way_of_one_sender_costs_no_work(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    async with NextHop() as other, relay_of(by_sender(hop, other)) as relay:
        name = f"[{other.host}]:{other.port}"
        await relay.relay.suspend(name, None, "", "ann")
        rid = await relay.send(sender="ann@sender.test") + ".1"
        await relay.quiet()
        assert (await relay.why(rid))["limiter"] == "suspended"
        assert relay.relay.claimed() == []
        await relay.relay.unsuspend(name, "ann")
        clock.advance(31)
        await relay.told("delivered")
        assert len(other.messages) == 1


# -- the relay's own limit ---------------------------------------------------------------------------------------------


async def test_a_hop_with_a_long_line_shares_the_connections(relay_of: Start) -> None:
    """Two connections in all, both at a hop with 200 messages: the second hop gets one of them, not the end of it."""
    async with NextHop() as long, NextHop() as short:
        routes = "".join(
            f'[[route]]\nmatch = "{name}.test"\ntarget = "smtp://[127.0.0.1]:{hop.port}"\n'
            for name, hop in (("long", long), ("short", short))
        )
        gate = asyncio.Event()

        async def wait(line: str) -> Answer:
            await gate.wait()
            return "250 2.1.0 ok"

        long.mail = wait
        async with relay_of("[delivery]\nconnections = 2\n" + routes) as relay:
            await relay.send_many([f"u{n}@long.test" for n in range(200)])
            await long.connected(2)
            await relay.send("only@short.test")
            before = 0

            def count(line: str) -> Answer:
                nonlocal before
                before = len(long.messages)
                return "250 2.0.0 ok"

            short.dot = count
            gate.set()
            await relay.told("delivered", 201)
            assert before <= 4
