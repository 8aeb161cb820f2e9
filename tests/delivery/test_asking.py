"""Asking a next hop for a recipient: the dialogue over a real socket, the ways, and what counts as no answer."""

import random
from collections.abc import AsyncIterator

import pytest

from mailtui import config
from mailtui.clock import ManualClock
from mailtui.delivery.asking import Asker
from mailtui.delivery.attempt import Sender
from mailtui.delivery.watchdog import Watchdog
from mailtui.routing.resolver import Resolver
from mailtui.routing.router import Router
from tests.support.nexthop import DROP, NextHop

BOTH = ("ann@ours.test", "x-nobody@ours.test")


@pytest.fixture
async def hop() -> AsyncIterator[NextHop]:
    async with NextHop() as hop:
        yield hop


def asker(toml: str, suspended: str = "") -> Asker:
    clock = ManualClock()
    settings = config.parse('hostname = "relay.test"\n' + toml)
    router = Router(settings, clock, Resolver(["127.0.0.1:1"], 1.0, "off", clock))
    sender = Sender(clock, Watchdog(clock), random.Random(7), "relay.test", "", "", 5.0, "may", lambda number: iter(()))
    return Asker(router, lambda: sender, lambda destination, hop: suspended in (destination, hop))


def to(*targets: str) -> str:
    return f'[[route]]\nmatch = "ours.test"\ntarget = "{"|".join(targets)}"\n'


def smtp(hop: NextHop) -> str:
    return f"smtp://[{hop.host}]:{hop.port}"


async def test_the_dialogue_is_an_empty_transaction_of_the_null_sender(hop):
    hop.recipients = {BOTH[1]: "550 5.1.1 no such user"}
    replies = await asker(to(smtp(hop)))(BOTH, "ours.test")
    assert [str(reply) for reply in replies] == ["250 2.1.5 ok", "550 5.1.1 no such user"]
    lines = [line for _, line in hop.commands]
    assert lines[:4] == ["EHLO relay.test", "MAIL FROM:<>", f"RCPT TO:<{BOTH[0]}>", f"RCPT TO:<{BOTH[1]}>"]
    assert not hop.transactions and "DATA" not in lines


async def test_it_goes_on_with_the_next_host_when_one_gives_no_answer(hop):
    async with NextHop() as first:
        first.greeting = "554 5.3.2 not now"
        [reply] = await asker(to(smtp(first), smtp(hop)))(BOTH[:1], "ours.test")
        assert reply.code == 250 and first.connections == 1
        first.greeting = []
        first.rcpt = "451 4.7.1 greylisted"
        [reply] = await asker(to(smtp(first), smtp(hop)))(BOTH[:1], "ours.test")
        assert reply.code == 250 and first.connections == 2


async def test_a_refusal_is_final_whatever_the_next_host_would_say(hop):
    async with NextHop() as first:
        first.rcpt = "550 5.1.1 no such user"
        [reply] = await asker(to(smtp(first), smtp(hop)))(BOTH[:1], "ours.test")
        assert reply.code == 550 and hop.connections == 0


@pytest.mark.parametrize(
    ("script", "answer", "why"),
    [
        ("mail", "550 5.7.1 no null senders here", "answers MAIL FROM:<> with: 550 5.7.1"),
        ("rcpt", "451 4.7.1 greylisted", "451 4.7.1 greylisted"),
        ("rcpt", "421 4.3.2 closing", "421 4.3.2 closing"),
        ("rcpt", DROP, "connection closed"),
        ("greeting", DROP, "connection closed"),
        ("greeting", "421 4.7.0 too many", "too many"),
    ],
)
async def test_what_is_no_answer_says_why(hop, script, answer, why):
    setattr(hop, script, answer)
    replies = await asker(to(smtp(hop)))(BOTH, "ours.test")
    assert [reply.code for reply in replies] == [0, 0]
    assert why in replies[0].text


async def test_nobody_there(hop):
    port = hop.port
    await hop.__aexit__(None, None, None)
    [reply] = await asker(to(f"smtp://[127.0.0.1]:{port}"))(BOTH[:1], "ours.test")
    assert reply.code == 0 and "cannot connect" in reply.text


@pytest.mark.parametrize(
    ("target", "codes"),
    [("hold", [250, 250]), ("discard", [250, 250]), ("defer", [0, 0]), ("error:5.1.2 gone", [550, 550])],
)
async def test_a_route_that_leads_to_no_host_answers_itself(target, codes):
    replies = await asker(to(target))(BOTH, "ours.test")
    assert [reply.code for reply in replies] == codes


async def test_what_is_suspended_is_left_alone(hop):
    for name in ("ours.test", f"[{hop.host}]:{hop.port}"):
        [reply] = await asker(to(smtp(hop)), name)(BOTH[:1], "ours.test")
        assert (reply.code, reply.text) == (0, "ours.test is suspended")
    assert hop.connections == 0


async def test_the_level_of_the_route_holds(hop):
    """A host that cannot reach the level is not asked: who answers might be anybody."""
    [reply] = await asker(to(smtp(hop)) + 'tls = "encrypt"\n')(BOTH[:1], "ours.test")
    assert reply.code == 0 and "STARTTLS" in reply.text
    assert not any(line.startswith(("MAIL", "RCPT")) for _, line in hop.commands)


async def test_lmtp_is_asked_in_its_own_words():
    async with NextHop(lmtp=True) as hop:
        [reply] = await asker(to(f"lmtp://[{hop.host}]:{hop.port}"))(BOTH[:1], "ours.test")
        assert reply.code == 250
        assert hop.commands[0][1] == "LHLO relay.test"


async def test_addresses_that_are_not_ascii(hop):
    addresses = ("grün@ours.test", "x@bücher.test")
    [reply] = await asker(to(smtp(hop)))(addresses[:1], "ours.test")
    assert (reply.code, reply.enhanced) == (550, "5.6.7")
    route = to(smtp(hop)).replace("ours.test", "bücher.test")
    [reply] = await asker(route)(addresses[1:], "xn--bcher-kva.test")
    assert reply.code == 250 and hop.commands[-1][1] != "" and any("xn--bcher-kva" in line for _, line in hop.commands)
    hop.keywords.append("SMTPUTF8")
    [reply] = await asker(to(smtp(hop)))(addresses[:1], "ours.test")
    assert reply.code == 250
    assert any(line == "MAIL FROM:<> SMTPUTF8" for _, line in hop.commands)
