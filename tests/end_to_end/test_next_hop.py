"""A next hop as a whole: down, back, strained, shared."""

import asyncio

import pytest

from mailtui.clock import ManualClock
from mailtui.delivery.hop import BACKOFF_FIRST, BACKOFF_LAST
from tests.end_to_end.conftest import Live, Start, smarthost
from tests.support.nexthop import HANG, Answer, NextHop


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
