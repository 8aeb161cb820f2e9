"""How much one client may have: slots, and messages for a connection, an address and an account."""

import ipaddress
from collections import deque
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.intake import limits
from mailtui.intake.grants import Grant
from mailtui.intake.limits import MOMENTS, REMEMBERED, SLOWEST, Rates, patience
from mailtui.intake.question import parse_client
from mailtui.intake.terms import MemoryBudget
from tests.intake.conftest import STRANGER, TOML, Relay, over_every_wire, until
from tests.intake.test_auth import ADDRESS, account, plain
from tests.support.client import Answer, Client


class Per(NamedTuple):
    amount: int
    seconds: float


async def mail(client: Client) -> Answer:
    """MAIL and RSET: a message that begins, as far as rates count."""
    answer = await client.command("MAIL FROM:<a@b.example>")
    await client.command("RSET")
    return answer


# -- slots -----------------------------------------------------------------------------------------------------------

MIXED = STRANGER.replace("networks = []", 'networks = ["127.0.0.7/32"]')
TEN = "[limits]\nconnections = 10\n"


@over_every_wire
async def test_the_slowest_stranger_makes_room(relay):  # R03, R04
    one = await relay(STRANGER + TEN)
    clients = [await one.client() for _ in range(9)]  # a tenth is not theirs
    for client in clients[1:]:  # who has a message kept begins anew
        for line in ("EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>", "DATA"):
            await client.command(line)
        assert (await client.command(".")).code == 250
    late = await one.session()
    assert (await clients[0].reply()).text.startswith("421 4.3.2 relay.example.org Too many connections")
    assert await clients[0].closed() == b""
    assert (await late.command("NOOP")).code == 250
    assert (await clients[1].command("NOOP")).code == 250
    assert len(one.intake.sessions) == 9
    assert one.told("closed")[0]["client"] == "127.0.0.1"


async def test_who_was_slow_once_and_has_sent_a_message_since_is_not_the_slowest(relay):  # R04
    one = await relay(STRANGER + TEN)
    clients = [await one.session()]
    (slowest,) = one.intake.sessions
    slowest.since -= 10
    clients += [await one.session() for _ in range(8)]
    known = set(one.intake.sessions)
    late = await one.session()  # to make room all are looked at, and the slowest few are remembered
    assert (await clients[0].reply()).code == 421
    (latest,) = one.intake.sessions - known
    latest.since -= 1
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>", "DATA", "."):
        last = await clients[1].command(line)
    assert last.code == 250
    for client in clients[2:]:
        await client.command("QUIT")
    await until(lambda: len(one.intake.sessions) == 2)
    others = [await one.session() for _ in range(7)]
    newcomer = await one.session()
    assert (await late.reply()).code == 421  # idle for longer than any other
    for client in (clients[1], newcomer, *others):
        assert (await client.command("NOOP")).code == 250


@over_every_wire
async def test_who_sends_data_at_a_pace_is_not_the_slowest(relay):  # R04
    one = await relay(STRANGER + TEN)
    bulk = await one.in_data(recipient="x@ours.example")
    await bulk.send(b"0123456789012345678901234567890123456789\r\n" * 20_000)
    idle = [await one.client() for _ in range(8)]
    [session] = [each for each in one.intake.sessions if each.reception is not None]
    await until(lambda: session.reception.total > 500_000)
    for _ in range(4):
        assert (await one.client()).greeting.code in (0, 220)
    assert (await bulk.command(".")).code == 250
    assert (await idle[0].closed()).startswith(b"421 4.3.2")


@over_every_wire
async def test_a_tenth_of_the_slots_is_for_those_who_may_relay(relay):  # R02
    one = await relay(MIXED + TEN)
    strangers = [await one.session() for _ in range(9)]
    trusted = await one.client(source="127.0.0.7")
    assert (await trusted.command("EHLO ours.test")).code == 250
    for client in strangers:  # nobody had to go for it
        assert (await client.command("NOOP")).code == 250
    more = [await one.client(source="127.0.0.7") for _ in range(9)]
    for client in more:
        assert (await client.command("EHLO ours.test")).code == 250
    assert len(one.intake.sessions) == 10
    assert not [each for each in one.intake.sessions if not one.intake.limits.trusts(each)]
    # Now nobody is left who could make room.
    last = await Client.connect(one.port, greeting=False)
    assert (await last.closed()).startswith(b"" if one.wire == "implicit" else b"421 4.7.0")
    assert (await trusted.command("NOOP")).code == 250


async def slow(one: Relay, seconds: float, source: str = "127.0.0.1") -> Client:
    """A client of which nothing was kept for so long: the loop's clock may be too coarse to tell who was first."""
    before = set(one.intake.sessions)
    client = await one.client(source=source)
    [session] = one.intake.sessions - before
    session.since -= seconds
    return client


async def test_one_look_at_all_sessions_is_for_many_connections(relay, monkeypatch):
    one = await relay(STRANGER + "[limits]\nconnections = 100\nconnections_per_client = 1000\n")
    looks: list[float] = []
    look = one.intake.limits._look
    monkeypatch.setattr(one.intake.limits, "_look", lambda now: (looks.append(now), look(now)))
    clients = [await slow(one, 1000 - n) for n in range(90)]
    late = [await one.client() for _ in range(2 * SLOWEST)]
    assert len(looks) == 2 and len(one.intake.sessions) == 90
    for client in clients[: 2 * SLOWEST]:
        assert (await client.closed()).startswith(b"421 4.3.2")
    for client in clients[2 * SLOWEST :] + late:
        assert (await client.command("NOOP")).code == 250


@pytest.mark.parametrize("by", ["message", "commit", "grant", "login", "leaving"])
async def test_who_was_found_slow_and_is_so_no_more_is_let_be(relay, by):  # R04
    toml = STRANGER.replace(ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n')
    one = await relay(toml + TEN)
    one.intake.accounts.put(account())
    first, second, third = await slow(one, 90), await slow(one, 80, "127.0.0.9"), await slow(one, 70)
    rest = [await slow(one, 60) for _ in range(6)]
    late = [await one.client()]  # the look that finds them all
    assert (await first.closed()).startswith(b"421")
    if by == "login":
        await second.command("EHLO x")
        assert (await second.command(plain())).code == 235
    elif by == "grant":
        one.intake.grants._found["127.0.0.9"] = Grant("127.0.0.9", one.clock.now() + 60, "test", 0.0)
    elif by == "leaving":
        await second.close()
        await until(lambda: len(one.intake.sessions) == 8)
        late.append(await one.client())  # which has a slot without anybody's
    else:
        one.queue.hold = by == "commit"
        for line in ("EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>", "DATA"):
            await second.command(line)
        await second.send(b".\r\n")
        await until(lambda: one.queue.commits if by == "commit" else one.queue.messages)
        if by == "message":
            assert (await second.reply()).code == 250
    late.append(await one.client())
    if by == "login":  # whose slot is no stranger's any more
        late.append(await one.client())
    assert (await third.closed()).startswith(b"421")
    for client in rest + late:
        assert (await client.command("NOOP")).code == 250
    if by == "commit":
        one.queue.commits[0].set_result(None)
        assert (await second.reply()).code == 250
    elif by != "leaving":
        assert (await second.command("NOOP")).code == 250


async def test_strangers_are_counted_as_it_becomes_known_who_they_are(relay):
    toml = MIXED.replace(
        ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n' + 'xclient_from = ["127.0.0.8/32"]\n'
    )
    one = await relay(toml)
    one.intake.accounts.put(account())
    limits = one.intake.limits
    stranger, ours, front = [await one.client(source=f"127.0.0.{n}") for n in (6, 7, 8)]
    assert limits._strangers == 2
    await stranger.command("EHLO x")
    assert (await stranger.command(plain())).code == 235
    assert limits._strangers == 1
    for address, left in (("127.0.0.7", 0), ("192.0.2.1", 1), ("127.0.0.7", 0)):
        assert (await front.command(f"XCLIENT ADDR={address}")).code == 220
        assert limits._strangers == left
    assert (await front.command("XCLIENT ADDR=192.0.2.1 LOGIN=ann")).code == 220
    assert limits._strangers == 0
    one.intake.rules = replace(one.intake.rules, networks=())  # a reload holds from the next MAIL on
    await ours.command("EHLO x")
    await mail(ours)
    assert limits._strangers == 1
    for client in (stranger, ours, front):
        await client.close()
    await until(lambda: not one.intake.sessions)
    assert limits._strangers == 0


async def test_what_makes_a_stranger_none(relay):
    toml = STRANGER.replace(ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n')
    one = await relay(toml)
    one.intake.accounts.put(account())
    client = await one.session()
    [session] = one.intake.sessions
    assert not one.intake.limits.trusts(session)
    one.intake.grants._found["127.0.0.1"] = Grant("127.0.0.1", one.clock.now() + 60, "test", 0.0)
    assert one.intake.limits.trusts(session)
    one.clock.advance(61)
    assert not one.intake.limits.trusts(session)
    assert (await client.command(plain())).code == 235
    assert one.intake.limits.trusts(session)


async def test_a_message_on_its_way_to_disk_is_not_closed_for_others(relay):  # S32
    one = await relay(STRANGER + "[limits]\nconnections = 1\n")
    one.queue.hold = True
    client = await one.in_data(recipient="x@ours.example")
    await client.send(b".\r\n")
    await until(lambda: one.queue.commits)
    assert (await one.client()).greeting.text.startswith("421 4.7.0")
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).text.startswith("250 2.0.0 queued")


@over_every_wire
async def test_many_slow_clients_keep_nobody_out(relay):  # R04: 300 for 100 slots, each with a line that does not end
    one = await relay(STRANGER + "[limits]\nconnections = 100\nconnections_per_client = 1000\n")
    slow = []
    for _ in range(300):
        client = await one.client()
        client.writer.write(b"EHLO never")
        slow.append(client)
        assert len(one.intake.sessions) <= 90
    for _ in range(3):
        client = await one.in_data(recipient="x@ours.example")
        assert (await client.command(".")).code == 250
        await client.close()
    assert len(one.queue.messages) == 3
    for client in slow:
        await client.close()
    await until(lambda: not one.intake.sessions)
    assert not one.intake.limits._clients


# -- messages --------------------------------------------------------------------------------------------------------


@over_every_wire
async def test_messages_of_a_stranger_on_one_connection(relay, monkeypatch):  # R02
    monkeypatch.setattr(limits, "MESSAGES", 2)
    one = await relay(MIXED)
    client = await one.session()
    assert [(await mail(client)).code for _ in range(2)] == [250, 250]
    answer = await client.command("MAIL FROM:<a@b.example>")
    assert answer.text.startswith("421 4.7.0 relay.example.org Too many messages")
    assert await client.closed() == b""
    ours = await one.client(source="127.0.0.7")
    await ours.command("EHLO ours.test")
    assert [(await mail(ours)).code for _ in range(4)] == [250] * 4


@over_every_wire
async def test_client_rate(relay):  # R02
    one = await relay(STRANGER + '[limits]\nclient_rate = "3/1h"\n')
    client = await one.session()
    assert [(await mail(client)).code for _ in range(3)] == [250] * 3
    assert (await mail(client)).text.startswith("450 4.7.1 More than 3 messages in 3600 s from your address")
    other = await one.session()  # the same client on another connection
    assert (await mail(other)).code == 450
    assert [event["client"] for event in one.told("client-rate")] == ["127.0.0.1"]  # told once
    assert "1 clients are refused" in one.intake.limits.warnings()[0]
    if one.wire == "plain":
        neighbour = await one.client(source="127.0.0.9")
        await neighbour.command("EHLO x")
        assert (await mail(neighbour)).code == 250
    one.clock.advance(3600)
    assert (await mail(client)).code == 250
    assert not one.intake.limits.warnings()


async def test_client_rate_is_for_our_networks_too(relay):
    one = await relay(TOML + '[limits]\nclient_rate = "1/1m"\n')
    client = await one.session()
    assert [(await mail(client)).code for _ in range(2)] == [250, 450]


async def with_user(relay, limit: str) -> tuple[Relay, Client]:
    toml = STRANGER.replace(ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n')
    one = await relay(toml + f"[limits]\n{limit}\n")
    one.intake.accounts.put(account())
    client = await one.session()
    assert (await client.command(plain())).code == 235
    return one, client


async def test_user_rate_then_quarantine(relay):
    one, client = await with_user(relay, 'user_rate = "30/1h"')
    asked: list[tuple[str, str]] = []
    one.intake.limits.quarantine = lambda user, why: asked.append((user, why))
    assert {(await mail(client)).code for _ in range(30)} == {250}
    assert (await mail(client)).text.startswith("450 4.7.1 More than 30 messages in 3600 s")
    assert [event["user"] for event in one.told("user-rate")] == ["ann"] and not asked
    assert "accounts are refused" in one.intake.limits.warnings()[0]
    assert [(await mail(client)).code for _ in range(2)] == [450, 450]
    assert asked == [("ann", "more than 30 messages in 3600 s, and went on when refused")]
    assert (await mail(client)).code == 450
    assert len(asked) == 1


async def test_user_rate_counts_the_account_wherever_it_comes_from(relay):
    one, client = await with_user(relay, 'user_rate = "2/1h"')
    assert [(await mail(client)).code for _ in range(2)] == [250, 250]
    elsewhere = await one.client(source="127.0.0.9")
    await elsewhere.command("EHLO x")
    assert (await mail(elsewhere)).code == 250  # nobody yet
    await elsewhere.command(plain())
    assert (await mail(elsewhere)).text.startswith("450 4.7.1")


async def test_who_waits_is_not_put_into_quarantine(relay):
    one, client = await with_user(relay, 'user_rate = "2/1h"')
    asked: list[str] = []
    one.intake.limits.quarantine = lambda user, why: asked.append(user)
    for _ in range(5):
        assert [(await mail(client)).code for _ in range(3)] == [250, 250, 450]
        one.clock.advance(3601)
    assert not asked


def test_the_patience_of_a_rate():
    assert [patience(Per(amount, 60)) for amount in (1, 5, 30, 500)] == [2, 2, 3, 50]


async def test_a_reload_changes_the_rate(relay):
    from mailtui import config

    one = await relay(STRANGER + '[limits]\nclient_rate = "1/1h"\n')
    client = await one.session()
    assert [(await mail(client)).code for _ in range(2)] == [250, 450]
    await one.intake.apply(config.parse(STRANGER + '[limits]\nclient_rate = "3/1h"\n'))
    assert [(await mail(client)).code for _ in range(3)] == [250, 250, 450]


async def test_memory_that_is_short_is_told_at_mail_and_passes(relay, monkeypatch):
    monkeypatch.setattr(MemoryBudget, "LIMIT", 1000)
    one = await relay(STRANGER)
    holder = await one.in_data(recipient="x@ours.example")
    await holder.send(b"x" * 900 + b"\r\n" + b"y" * 900 + b"\r\n" + b"z" * 900 + b"\r\n")
    await until(lambda: one.intake.budget.short)
    client = await one.session()
    assert (await mail(client)).text.startswith("452 4.3.1")
    assert (await holder.command(".")).code == 250
    assert (await mail(client)).code == 250


# -- counting --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.floats(0, 30, allow_nan=False, allow_subnormal=False), min_size=1, max_size=60))
def test_never_more_in_any_period_and_not_much_less(amount, pauses):
    """Against the moments themselves: what is allowed never exceeds the rate; what is refused would have exceeded it
    in a period that is longer by a few of the moments that are counted as one."""
    rate, rates = Per(amount, 60.0), Rates[str]()
    allowed: deque[float] = deque()
    now = 1000.0
    for pause in pauses:
        now += pause
        if not rates.take("a", rate, now):
            allowed.append(now)
            assert sum(1 for at in allowed if at > now - rate.seconds) <= amount
        else:
            longer = rate.seconds * (1 + 2 / MOMENTS)
            assert sum(1 for at in allowed if at > now - longer) >= amount


def test_memory_for_a_busy_client_and_for_many_is_bounded():
    rate, rates = Per(1_000_000, 3600.0), Rates[int]()
    for n in range(20_000):
        assert rates.take(0, rate, 1000.0 + n / 2) == 0
    assert len(rates._counted[0].marks) <= 2 * 2 * (MOMENTS + 2)
    for n in range(1, REMEMBERED + 50):
        rates.take(n, rate, 20_000.0)
    assert len(rates) == REMEMBERED and 0 not in rates._counted


def test_a_client_is_a_64_of_ipv6():
    keys = {limits.client_key(parse_client(text)) for text in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")}
    assert len(keys) == 2
    assert limits.client_key(ipaddress.IPv4Address("192.0.2.1")) != limits.client_key(None)


@pytest.mark.parametrize("amount", [1, 3])
def test_a_full_period_later_all_may_be_sent_again(amount):
    rate, rates = Per(amount, 3600.0), Rates[str]()
    assert [rates.take("a", rate, 50.0) for _ in range(amount)] == [0] * amount
    assert rates.take("a", rate, 50.0 + 3599.9) == 1
    assert [rates.take("a", rate, 50.0 + 3600.0) for _ in range(amount)] == [0] * amount
