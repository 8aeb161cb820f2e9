"""The relay's own life: start, stop, crash, and what is in the queue meanwhile."""

import asyncio
import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import pytest

from mailtui import ids
from mailtui.clock import ManualClock
from mailtui.delivery import handoff
from mailtui.delivery.retry import JITTER
from mailtui.queue.writer import Job
from mailtui.relay import StartError
from tests.end_to_end.conftest import MESSAGE, Live, Start, smarthost, stored
from tests.support.client import Client
from tests.support.dns import DnsServer
from tests.support.nexthop import HANG, Answer, NextHop


async def test_parked_mail_survives_a_stop_and_is_delivered_after_the_start(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    hop.rcpt = ["451 4.3.0 later"]
    async with relay_of(smarthost(hop)) as relay:
        rid = await relay.send() + ".1"
        await relay.told("deferred")
        before = await relay.row(rid)
    async with relay_of(smarthost(hop)) as relay:
        assert await relay.row(rid) == before
        await relay.quiet()
        assert hop.messages == []
        clock.advance(300 * (1 + JITTER))
        [got] = await hop.received(1)
        await relay.told("delivered")
        assert stored(got.data)[1] == MESSAGE
        [past] = await relay.history()
        assert past["attempts"] == 2


async def test_what_came_due_while_it_was_stopped_is_tried_at_once(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    hop.rcpt = ["451 4.3.0 later"]
    async with relay_of(smarthost(hop)) as relay:
        await relay.send()
        await relay.told("deferred")
    clock.advance(3600)
    async with relay_of(smarthost(hop)) as relay:
        await hop.received(1)
        await relay.told("delivered")


async def test_what_is_on_a_connection_at_the_stop_is_delivered_after_the_start(relay_of: Start, hop: NextHop) -> None:
    hop.mail = [HANG]
    async with relay_of(smarthost(hop)) as relay:
        number = await relay.send()
        await hop.commanded("MAIL")
    async with relay_of(smarthost(hop)) as relay:
        [got] = await hop.received(1)
        await relay.told("delivered")
        assert stored(got.data)[1] == MESSAGE
        assert [past["id"] for past in await relay.history()] == [number]
        assert relay.events.counts.get("recovered") is None


async def test_a_stop_with_time_to_drain_ends_what_runs(relay_of: Start, hop: NextHop) -> None:
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 ok"

    hop.mail = [wait]
    async with relay_of(smarthost(hop)) as relay:
        await relay.send()
        await hop.commanded("MAIL")
        stopping = asyncio.create_task(relay.relay.stop(10.0))
        await relay.quiet()
        gate.set()
        await asyncio.wait_for(stopping, 10)
    assert len(hop.messages) == 1
    async with relay_of(smarthost(hop)) as relay:
        assert await relay.rows() == []
        assert [past["result"] for past in await relay.history()] == ["delivered"]


async def test_a_stopping_relay_takes_no_new_mail(relay_of: Start, hop: NextHop) -> None:
    async with relay_of(smarthost(hop)) as relay:
        client = await relay.client()
        port = relay.port
        stopping = asyncio.create_task(relay.relay.stop(10.0))
        assert (await client.reply()).code == 421
        late = await Client.connect(port, greeting=False)
        assert (await late.reply()).text.startswith("421 4.3.2") and await late.closed() == b""
        await client.close()
        await stopping
        with pytest.raises(OSError):
            await Client.connect(port)


async def test_after_a_crash_everything_accepted_is_there_and_delivered(
    relay_of: Start, hop: NextHop, clock: ManualClock, state: Path
) -> None:
    """Q01. A copy of the state directory of a running relay is what a crash leaves."""
    hop.mail = [HANG] * 5
    after = state.parent / "after"
    async with relay_of(smarthost(hop)) as relay:
        await relay.send_many([f"u{n}@dest.test" for n in range(30)])
        large = await relay.send("large@dest.test", content=b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 40_000)
        await hop.commanded("MAIL", 5)
        await relay.quiet()
        shutil.copytree(state, after, ignore=shutil.ignore_patterns("*.sock"))
    async with NextHop() as other, relay_of(smarthost(other), at=after) as relay:
        await relay.told("recovered")
        assert len(await relay.rows()) == 31
        clock.advance(5)
        await other.received(31)
        await relay.told("delivered", 31)
        assert sorted({to for each in other.messages for to in each.recipients}) == sorted(
            ["large@dest.test", *(f"u{n}@dest.test" for n in range(30))]
        )
        assert await relay.rows() == []
        assert relay.spool_files() == []
        tries = await relay.attempts(large)
        assert [each["reply"] for each in tries] == ["interrupted: the relay was stopped during or before this attempt"]


async def test_ids_keep_increasing_over_a_restart_even_if_the_clock_goes_back(
    relay_of: Start, hop: NextHop, clock: ManualClock
) -> None:
    seen = []
    for _ in range(3):
        async with relay_of(smarthost(hop)) as relay:
            seen += [await relay.send(), await relay.send()]
        clock._now -= 3600
    numbers = [ids.decode(each) for each in seen]
    assert numbers == sorted(set(numbers))


async def test_a_paused_start_takes_mail_and_delivers_none(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    async with relay_of(smarthost(hop), paused=True) as relay:
        rid = await relay.send() + ".1"
        await relay.pass_time(3600)
        assert hop.connections == 0
        row = await relay.row(rid)
        assert (row["state"], row["attempts"]) == ("queued", 0)
        assert (await relay.why(rid))["limiter"] == "paused"
    async with relay_of(smarthost(hop)) as relay:
        await hop.received(1)
        await relay.told("delivered")


async def test_a_spool_file_that_is_gone_holds_its_message_and_says_so(
    relay_of: Start, hop: NextHop, state: Path
) -> None:
    async with relay_of(smarthost(hop), paused=True) as relay:
        number = await relay.send(content=b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 40_000)
    (state / "spool" / number).unlink()
    async with relay_of(smarthost(hop)) as relay:
        row = await relay.row(number + ".1")
        assert (row["state"], row["held_by"]) == ("held", "mailtui")
        assert "spool file" in row["last_reply"]
        assert [warning["code"] for warning in relay.relay.warnings()] == ["spool"]


# -- starts that fail --------------------------------------------------------------------------------------------------


async def test_a_second_relay_on_one_state_directory_is_refused_in_one_line(relay_of: Start, hop: NextHop) -> None:
    async with relay_of(smarthost(hop)) as relay:
        with pytest.raises(StartError) as error:
            await relay_of(smarthost(hop)).relay.start()
        assert "\n" not in str(error.value)
        assert str(relay.state) in str(error.value)
        await relay.send()  # the first one is none the worse
        await hop.received(1)


async def test_a_port_in_use_is_refused_in_one_line_and_leaves_nothing_open(relay_of: Start, hop: NextHop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f'[[listener]]\nname = "second"\naddress = "127.0.0.1:{port}"\n' + smarthost(hop)
        failing = relay_of(text)
        with pytest.raises(StartError) as error:
            await failing.relay.start()
    assert "\n" not in str(error.value)
    assert f"second: cannot listen on 127.0.0.1:{port}" in str(error.value)
    async with relay_of(smarthost(hop)) as relay:  # the lock is free again
        await relay.send()
        await hop.received(1)


async def test_a_state_directory_that_cannot_be_made_is_refused_in_one_line(relay_of: Start, state: Path) -> None:
    await asyncio.to_thread(state.symlink_to, "/dev/null")
    with pytest.raises(StartError) as error:
        await relay_of().relay.start()
    assert "\n" not in str(error.value)
    assert str(state) in str(error.value)


# -- ends that nobody asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["delivery", "writer"])
async def test_a_room_that_fails_ends_the_relay_with_status_1(
    relay_of: Start, hop: NextHop, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    async with relay_of(smarthost(hop)) as relay:
        ending = asyncio.create_task(relay.relay.finished())
        if room == "delivery":

            async def broken(*_: object) -> None:
                raise RuntimeError("a fault of ours")

            monkeypatch.setattr("mailtui.delivery.pool.attempt", broken)
            await relay.send()
        else:

            def failing(tx: object) -> None:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

            relay.relay.store.writer.submit(Job(failing, lambda result, error: None))
        assert await asyncio.wait_for(ending, 10) == 1
        assert relay.events.counts["fatal"] == 1
        port = relay.port
        await asyncio.wait_for(relay.relay.stop(0.0), 10)
        with pytest.raises(OSError):
            await Client.connect(port)
    monkeypatch.undo()
    async with relay_of(smarthost(hop)) as relay:  # and nothing is lost
        if room == "delivery":
            await hop.received(1)
            await relay.told("delivered")
        assert await relay.rows() == []


async def test_the_scheduler_s_own_end_ends_the_relay(relay_of: Start, hop: NextHop, clock: ManualClock) -> None:
    async with relay_of(smarthost(hop)) as relay:

        def broken() -> None:
            raise RuntimeError("a fault of ours")

        relay.relay.scheduler.timers.at(clock.now() + 1, broken)
        clock.advance(2)
        assert await asyncio.wait_for(relay.relay.finished(), 10) == 1


# -- what happens at the same time -------------------------------------------------------------------------------------


class Stalled:
    """Holds the writer thread back, so that what is submitted meanwhile is written in one transaction."""

    def __init__(self, relay: Live) -> None:
        self.relay = relay
        self.gate = threading.Event()

    async def __aenter__(self) -> None:
        reached = threading.Event()

        def wait(tx: object) -> None:
            reached.set()
            self.gate.wait(20)

        self.relay.relay.store.writer.submit(Job(wait, lambda result, error: None))
        await asyncio.to_thread(reached.wait, 10)

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()


async def test_a_deferral_written_together_with_a_claim_is_not_forgotten(
    relay: Live, hop: NextHop, clock: ManualClock
) -> None:
    """The claim's answer was made before the deferral; the destination is due at both moments all the same."""
    hop.rcpt = ["451 4.3.0 later"]
    await relay.send("early@dest.test")
    await relay.told("deferred")
    gate = asyncio.Event()

    async def refuse(line: str) -> Answer:
        await gate.wait()
        return "451 4.3.0 later"

    await relay.pass_time(299)
    hop.rcpt = [refuse]
    await relay.send("other@dest.test")
    await hop.commanded("RCPT", 2)
    async with Stalled(relay):
        clock.advance(300 * (1 + JITTER) - 299)  # the first is claimed ...
        for _ in range(50):
            await asyncio.sleep(0)
        assert relay.events.counts["deferred"] == 1
        gate.set()
        await relay.events.reached("deferred", 2)  # ... and the second deferred
    await relay.told("delivered")
    assert [each.recipients for each in hop.messages] == [["early@dest.test"]]
    clock.advance(300 * (1 + JITTER))
    await hop.received(2)
    await relay.told("delivered", 2)


async def test_a_claim_under_way_at_the_stop_is_given_back(relay_of: Start, clock: ManualClock, hop: NextHop) -> None:
    async with DnsServer("dest.test. 1 IN MX 10 mx.test.\nmx.test. 1 IN A 127.0.0.1\n") as dns:
        text = (
            f'[dns]\nnameservers = ["{dns.endpoint}"]\n[delivery]\nport = {hop.port}\n'
            'allow_networks = ["127.0.0.0/8"]\n'
        )
        hop.rcpt = ["451 4.3.0 later"]
        async with relay_of(text) as relay:
            await relay.send()
            await relay.told("deferred")
            async with Stalled(relay):
                clock.advance(300 * (1 + JITTER))
                await dns_idle(dns)
                clock.advance(2)  # what was looked up is forgotten again
                stopping = asyncio.create_task(relay.relay.stop(0.0))
                for _ in range(50):
                    await asyncio.sleep(0)
            await stopping
        async with relay_of(text) as relay:
            assert relay.events.counts.get("recovered") is None
            await hop.received(1)
            await relay.told("delivered")


async def dns_idle(dns: DnsServer) -> None:
    """Until the way has been looked up again (its records are good for a second)."""
    for _ in range(200):
        if dns.queries["mx.test", "A"] >= 2:
            break
        await asyncio.sleep(0.005)
    for _ in range(50):
        await asyncio.sleep(0)


async def test_more_than_the_hand_off_budget_waits_on_disk_and_all_of_it_is_delivered(
    relay_of: Start, hop: NextHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "BUDGET_MESSAGES", 20)
    gate = asyncio.Event()

    async def wait(line: str) -> Answer:
        await gate.wait()
        return "250 2.1.0 ok"

    hop.mail = wait
    async with relay_of(smarthost(hop)) as relay:
        await relay.send_many([f"u{n}@dest.test" for n in range(150)])
        await relay.quiet()
        assert len(relay.relay.claimed()) <= 20
        assert await relay.count() == 150
        gate.set()
        await relay.told("delivered", 150)
        assert sorted(to for each in hop.messages for to in each.recipients) == sorted(
            f"u{n}@dest.test" for n in range(150)
        )
        assert await relay.rows() == []


async def test_counts_agree_with_the_rows_all_along(relay: Live, hop: NextHop, clock: ManualClock) -> None:
    hop.recipients = {"no@dest.test": "550 5.1.1 no", "later@dest.test": ["451 4.3.0 later"]}
    await relay.send(["no@dest.test", "later@dest.test", "yes@dest.test"])
    await relay.told("deferred")
    await relay.told("delivered", 2)
    assert await relay.count() == len(await relay.rows()) == 1
    assert await relay.count("state:deferred") == 1
    clock.advance(300 * (1 + JITTER))
    await relay.told("delivered", 3)
    totals = await relay.relay.read(lambda reader: reader.totals())
    assert {key: value for key, value in totals.items() if value} == {}
