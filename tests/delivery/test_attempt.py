"""One attempt: which hosts, in what order, and when it is over (RFC 5321 sections 4.2.1 and 5.1)."""

import asyncio
import dataclasses
import errno
import random
import socket
from contextlib import AsyncExitStack

import pytest

from mailtui.delivery.attempt import MAX_ADDRESSES
from mailtui.model import Outcome, PlannedHost, TlsPolicy
from tests.delivery.conftest import BODY, Bench, host, outcomes, turns
from tests.support.nexthop import DROP, NextHop

DELIVERED = (Outcome.DELIVERED, 250, "2.0.0")


async def hops(stack: AsyncExitStack, count: int) -> list[NextHop]:
    return [await stack.enter_async_context(NextHop()) for _ in range(count)]


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def dead(name: str = "dead.test", addresses: int = 1, preference: int = 5) -> PlannedHost:
    return PlannedHost(preference, name, ("127.0.0.1",) * addresses, closed_port())


async def test_it_delivers_and_keeps_the_session(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(hop))
    assert outcomes(ended) == [DELIVERED]
    assert ended.session is not None
    assert ended.session.open
    [(_, verdict, facts)] = ended.results
    assert verdict.remote
    assert (facts.host, facts.address, facts.reused) == (f"mx{hop.port}.test", "127.0.0.1", False)
    assert (facts.tls.wanted, facts.tls.reached) == ("may", "none")
    assert facts.transcript == ""


async def test_the_next_message_goes_over_the_same_session(bench: Bench, hop: NextHop) -> None:
    first = await bench.attempt(bench.work(hop))
    second = await bench.attempt(bench.work(hop), first.session)
    assert outcomes(second) == [DELIVERED]
    assert second.results[0][2].reused
    assert hop.connections == 1
    assert len(hop.lines("EHLO")) == 1


async def test_hosts_are_tried_by_preference_whatever_their_order_in_the_plan(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        far, near = await hops(stack, 2)
        await bench.attempt(bench.work(host(far, 20), host(near, 10)))
        assert (near.connections, far.connections) == (1, 0)


async def test_equal_hosts_share_the_mail(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        one, two = await hops(stack, 2)
        bench.sender = dataclasses.replace(bench.sender, rng=random.Random(5))
        for _ in range(20):
            await bench.attempt(bench.work(host(one), host(two)))
        assert one.connections + two.connections == 20
        assert min(one.connections, two.connections) >= 4


async def test_a_dead_host_is_followed_by_the_next_in_the_same_attempt(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(dead(), hop))
    assert outcomes(ended) == [DELIVERED]
    assert ended.down is None


async def test_a_dead_address_is_followed_by_the_hosts_next_one(bench: Bench, hop: NextHop) -> None:
    # D08
    both = PlannedHost(10, "mx.test", ("127.0.0.2", "127.0.0.1"), hop.port)  # nobody listens on 127.0.0.2
    assert outcomes(await bench.attempt(bench.work(both))) == [DELIVERED]


@pytest.mark.parametrize("greeting", ["421 4.3.2 busy", "554 5.7.1 no service here", "450 huh"])
async def test_a_host_that_greets_with_a_refusal_is_followed_by_the_next(bench: Bench, greeting: str) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.greeting = greeting
        assert outcomes(await bench.attempt(bench.work(first, second))) == [DELIVERED]
        assert second.connections == 1


async def test_a_refusal_at_the_greeting_is_temporary_for_the_message(bench: Bench, hop: NextHop) -> None:
    hop.greeting = "554 5.7.1 go away"
    ended = await bench.attempt(bench.work(hop))
    assert outcomes(ended) == [(Outcome.DEFERRED, 554, "4.7.1")]
    assert ended.down is not None
    assert "554" in ended.results[0][2].transcript


async def test_a_rate_limiting_421_ends_the_round(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.mail = ["421 4.7.28 too many messages from your address"]
        ended = await bench.attempt(bench.work(first, second))
        assert outcomes(ended) == [(Outcome.DEFERRED, 421, "4.7.28")]
        assert ended.down is not None  # the next message would only be told the same
        assert second.connections == 0


async def test_a_rate_limiting_421_as_greeting_ends_the_round_too(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.greeting = "421 4.7.0 too many connections from your address"
        ended = await bench.attempt(bench.work(first, second))
        assert outcomes(ended) == [(Outcome.DEFERRED, 421, "4.7.0")]
        assert ended.down is not None
        assert second.connections == 0


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_a_temporary_refusal_is_followed_by_the_next_host(bench: Bench, step: str) -> None:
    # D09
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        setattr(first, step, ["451 4.3.0 later"])
        assert outcomes(await bench.attempt(bench.work(first, second))) == [DELIVERED]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_a_permanent_refusal_is_final_and_no_other_host_is_asked(bench: Bench, step: str) -> None:
    # D09
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        setattr(first, step, ["550 5.7.1 no"])
        assert outcomes(await bench.attempt(bench.work(first, second))) == [(Outcome.BOUNCED, 550, "5.7.1")]
        assert second.connections == 0


async def test_only_the_deferred_recipients_go_to_the_next_host(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.rcpt = ["250 2.1.5 ok", "451 4.7.1 greylisted", "550 5.1.1 no"]
        message = bench.message(["a@dest.test", "b@dest.test", "c@dest.test"])
        ended = await bench.attempt(bench.work(first, second, message=message))
        assert outcomes(ended) == [DELIVERED, DELIVERED, (Outcome.BOUNCED, 550, "5.1.1")]
        assert [each.recipients for each in second.messages] == [["b@dest.test"]]
        assert [facts.host for _, _, facts in ended.results] == [
            f"mx{first.port}.test", f"mx{second.port}.test", f"mx{first.port}.test",
        ]  # fmt: skip


async def test_at_most_two_sessions_are_had_in_an_attempt(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await hops(stack, 3)
        for each in (first, second, third):
            each.mail = "451 4.3.0 later"
        ended = await bench.attempt(bench.work(first, second, third))
        assert outcomes(ended) == [(Outcome.DEFERRED, 451, "4.3.0")]
        assert [each.connections for each in (first, second, third)] == [1, 1, 0]
        assert not ended.strained


async def test_at_most_five_addresses_are_dialled(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(dead(addresses=MAX_ADDRESSES), hop))
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.4.1")]
    assert ended.down is not None
    assert hop.connections == 0
    ended = await bench.attempt(bench.work(dead(addresses=MAX_ADDRESSES - 1), hop))
    assert outcomes(ended) == [DELIVERED]


async def test_a_refused_connection_says_where_and_why(bench: Bench) -> None:
    target = dead()
    ended = await bench.attempt(bench.work(target))
    [(_, verdict, facts)] = ended.results
    assert verdict.reply == f"cannot connect to [127.0.0.1]:{target.port}: Connection refused"
    assert ended.down == verdict
    assert (facts.host, facts.address) == ("dead.test", "127.0.0.1")


async def test_a_family_that_this_machine_lacks_is_a_failure_of_that_address_only(
    bench: Bench, hop: NextHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Four(socket.socket):
        def __init__(self, family: int = -1, *rest: int, **named: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", Four)
    both = PlannedHost(10, "mx.test", ("2001:db8::1", "127.0.0.1"), hop.port)
    assert outcomes(await bench.attempt(bench.work(both))) == [DELIVERED]


async def test_a_host_whose_look_up_failed_is_passed_over(bench: Bench, hop: NextHop) -> None:
    lost = PlannedHost(1, "lost.test", (), hop.port, "lost.test: server failure", True)
    assert outcomes(await bench.attempt(bench.work(lost, hop))) == [DELIVERED]
    ended = await bench.attempt(bench.work(lost))
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.4.3")]


async def test_a_plan_without_hosts_defers(bench: Bench) -> None:
    assert outcomes(await bench.attempt(bench.work())) == [(Outcome.DEFERRED, 0, "4.4.4")]


async def test_8_bit_content_goes_to_a_host_that_takes_it(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        seven, eight = await hops(stack, 2)
        seven.keywords = ["PIPELINING"]
        work = bench.work(seven, eight, message=bench.message(body=BODY + b"\xe9\r\n", eight_bit=True))
        assert outcomes(await bench.attempt(work)) == [DELIVERED]
        assert seven.lines("MAIL") == []
        assert eight.messages[0].data == BODY + b"\xe9\r\n"


async def test_8_bit_content_that_no_host_takes_is_returned_unconverted(bench: Bench, hop: NextHop) -> None:
    hop.keywords = ["PIPELINING"]
    work = bench.work(hop, message=bench.message(eight_bit=True))
    ended = await bench.attempt(work)
    assert outcomes(ended) == [(Outcome.BOUNCED, 554, "5.6.3")]
    assert not ended.results[0][1].remote
    assert ended.down is None
    assert hop.lines("MAIL") == []


async def test_8_bit_content_waits_while_a_host_that_may_take_it_is_away(bench: Bench, hop: NextHop) -> None:
    hop.keywords = ["PIPELINING"]
    work = bench.work(dead(), hop, message=bench.message(eight_bit=True))
    ended = await bench.attempt(work)
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.4.1")]
    assert ended.down is None  # a host was there


@pytest.mark.parametrize("answer", ["500 5.5.1 what?", "502 5.5.1 not here"])
async def test_a_host_that_does_not_know_ehlo_gets_helo(bench: Bench, hop: NextHop, answer: str) -> None:
    hop.ehlo = answer
    assert outcomes(await bench.attempt(bench.work(hop))) == [DELIVERED]
    assert hop.lines("HELO") == ["HELO relay.test"]
    assert hop.lines("MAIL") == ["MAIL FROM:<a@sender.test>"]
    assert hop.connections == 1


async def test_a_host_that_knows_neither_is_followed_by_the_next(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.ehlo = first.helo = "550 5.7.1 not you"
        assert outcomes(await bench.attempt(bench.work(first, second))) == [DELIVERED]
    ended = await bench.attempt(bench.work(first))
    assert ended.down is not None


@pytest.mark.parametrize("step", ["greeting", "ehlo"])
async def test_a_connection_lost_before_the_session_stands_goes_on_to_the_next_host(bench: Bench, step: str) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        setattr(first, step, DROP)
        assert outcomes(await bench.attempt(bench.work(first, second))) == [DELIVERED]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_a_connection_lost_before_the_final_dot_goes_on_to_the_next_host(bench: Bench, step: str) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        setattr(first, step, [DROP])
        ended = await bench.attempt(bench.work(first, second))
        assert outcomes(ended) == [DELIVERED]
        assert ended.strained


async def test_a_connection_lost_after_the_final_dot_is_not_tried_elsewhere(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        first, second = await hops(stack, 2)
        first.dot = [DROP]
        ended = await bench.attempt(bench.work(first, second))
        [(_, verdict, facts)] = ended.results
        assert verdict.outcome is Outcome.DEFERRED
        assert "may arrive twice" in verdict.reply
        assert "octets of message" in facts.transcript
        assert second.connections == 0


async def test_a_kept_session_that_the_host_has_closed_is_no_attempt(bench: Bench, hop: NextHop) -> None:
    first = await bench.attempt(bench.work(hop))
    port = hop.port
    await hop.stop()
    await hop.start()
    assert hop.port == port
    second = await bench.attempt(bench.work(hop), first.session)
    assert outcomes(second) == [DELIVERED]
    assert not second.strained
    assert not second.results[0][2].reused


@pytest.mark.parametrize("answer", [DROP, "421 4.4.2 idle too long"], ids=str)
async def test_a_kept_session_that_ends_at_mail_is_no_attempt(bench: Bench, hop: NextHop, answer: object) -> None:
    first = await bench.attempt(bench.work(hop))
    hop.mail = [answer]  # type: ignore[list-item]
    second = await bench.attempt(bench.work(hop), first.session)
    assert outcomes(second) == [DELIVERED]
    assert not second.strained
    assert hop.connections == 2
    assert len(hop.messages) == 2


async def test_a_421_said_while_idle_closes_the_kept_session(bench: Bench, hop: NextHop) -> None:
    hop.dot = [b"250 2.0.0 ok\r\n421 4.4.2 bye\r\n"]
    first = await bench.attempt(bench.work(hop))
    await turns()
    second = await bench.attempt(bench.work(hop), first.session)
    assert outcomes(second) == [DELIVERED]
    assert hop.connections == 2


async def test_a_kept_session_of_a_host_that_cannot_take_the_message_is_left_for_another(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        seven, eight = await hops(stack, 2)
        seven.keywords = ["PIPELINING"]
        first = await bench.attempt(bench.work(seven, eight))
        work = bench.work(seven, eight, message=bench.message(eight_bit=True))
        assert outcomes(await bench.attempt(work, first.session)) == [DELIVERED]
        assert (seven.connections, eight.connections) == (1, 1)


async def test_a_level_that_cannot_be_met_defers_without_a_connection(bench: Bench, hop: NextHop) -> None:
    strict = dataclasses.replace(host(hop), tls=TlsPolicy("dane-only", "route", "the route says so"))
    ended = await bench.attempt(bench.work(strict))
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.5")]
    assert ended.down is None
    assert hop.connections == 0


async def test_the_transcript_of_a_failure_has_the_dialogue_but_not_the_message(bench: Bench, hop: NextHop) -> None:
    hop.dot = ["554 5.6.0 rejected"]
    [(_, _, facts)] = (await bench.attempt(bench.work(hop))).results
    for line in ("< 220 ", "> EHLO relay.test", "> MAIL FROM:<a@sender.test>", "> RCPT TO:<b@dest.test>", "554 5.6.0"):
        assert line in facts.transcript
    assert "Subject" not in facts.transcript


async def test_the_connection_comes_from_the_source_address_that_is_set(bench: Bench) -> None:
    bench.sender = dataclasses.replace(bench.sender, source_ipv4="127.0.0.3")
    seen: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await bench.attempt(bench.work(PlannedHost(10, "mx.test", ("127.0.0.1",), port)))
    assert seen == ["127.0.0.3"]
