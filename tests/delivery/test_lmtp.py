"""LMTP (RFC 2033): LHLO, and one reply a recipient after the dot, by TCP and by a Unix socket."""

from dataclasses import replace
from pathlib import Path

import pytest

from mailtui.model import Outcome, PlannedHost, TlsPolicy
from tests.delivery.conftest import BODY, Bench, host, outcomes
from tests.delivery.test_client_tls import serving
from tests.support.nexthop import DROP, NextHop

THREE = ("a@dest.test", "b@dest.test", "c@dest.test")
DELIVERED = (Outcome.DELIVERED, 250, "2.0.0")


def store(hop: NextHop) -> PlannedHost:
    return replace(host(hop, name="store.test"), scheme="lmtp")


def by_recipient(**answers: str) -> object:
    return lambda address: answers.get(address.partition("@")[0], f"250 2.0.0 <{address}> saved")


@pytest.mark.parametrize("pipelining", [True, False])
async def test_each_recipient_has_the_verdict_of_its_own_reply(bench: Bench, pipelining: bool) -> None:
    async with NextHop(lmtp=True, keywords=["PIPELINING"] if pipelining else []) as hop:
        hop.dot = by_recipient(a="552 5.2.2 mailbox full", c="451 4.2.0 busy")  # type: ignore[assignment]
        ended = await bench.attempt(bench.work(store(hop), message=bench.message(THREE)))
        assert outcomes(ended) == [(Outcome.BOUNCED, 552, "5.2.2"), DELIVERED, (Outcome.DEFERRED, 451, "4.2.0")]
        assert [verdict.reply for _, verdict, _ in ended.results][1] == "<b@dest.test> saved"
        assert hop.lines("LHLO") == ["LHLO relay.test"]
        assert hop.lines("EHLO") == hop.lines("HELO") == []
        assert hop.messages[0].data == BODY


async def test_what_was_delivered_is_final(bench: Bench) -> None:
    """Nobody behind an LMTP server sends a report: Attempt.onward says so, on the first session and on a kept one."""
    async with NextHop(lmtp=True, keywords=["PIPELINING", "DSN"]) as hop:
        first = await bench.attempt(bench.work(store(hop)))
        second = await bench.attempt(bench.work(store(hop)), first.session)
        assert [ended.results[0][2].onward for ended in (first, second)] == ["final", "final"]
        assert hop.connections == 1


async def test_a_recipient_that_was_refused_before_the_message_has_no_reply_after_it(bench: Bench) -> None:
    async with NextHop(lmtp=True) as hop:
        hop.recipients = {"b@dest.test": "550 5.1.1 no such user"}
        hop.dot = ["250 2.0.0 first", "250 2.0.0 second"]
        ended = await bench.attempt(bench.work(store(hop), message=bench.message(THREE)))
        assert outcomes(ended) == [DELIVERED, (Outcome.BOUNCED, 550, "5.1.1"), DELIVERED]
        assert [ended.results[n][1].reply for n in (0, 2)] == ["first", "second"]
        assert ended.session is not None
        assert ended.session.open
        hop.recipients = {}  # the session is in step: the next message goes over it
        assert outcomes(await bench.attempt(bench.work(store(hop)), ended.session)) == [DELIVERED]


async def test_with_no_recipient_left_nothing_is_sent(bench: Bench) -> None:
    async with NextHop(lmtp=True) as hop:
        hop.rcpt = "550 5.1.1 no"
        hop.data = "503 5.5.1 no valid recipients"
        ended = await bench.attempt(bench.work(store(hop), message=bench.message(THREE)))
        assert outcomes(ended) == [(Outcome.BOUNCED, 550, "5.1.1")] * 3
        hop.data = "354 all the same"
        ended = await bench.attempt(bench.work(store(hop), message=bench.message(THREE)), ended.session)
        assert outcomes(ended) == [(Outcome.BOUNCED, 550, "5.1.1")] * 3
        assert ended.session is None  # there would be no reply to wait for
        assert all(each.data == b"" for each in hop.transactions)


@pytest.mark.parametrize("how", [DROP, "421 4.3.2 going down"])
async def test_a_session_lost_amid_the_replies_leaves_the_others_waiting(bench: Bench, how: object) -> None:
    async with NextHop(lmtp=True) as hop:
        hop.dot = ["250 2.0.0 saved", how]  # type: ignore[list-item]
        ended = await bench.attempt(bench.work(store(hop), message=bench.message(THREE)))
    first, *others = outcomes(ended)
    assert first == DELIVERED
    assert [outcome for outcome, _, _ in others] == [Outcome.DEFERRED] * 2
    assert ("may arrive twice" in ended.results[1][1].reply) == (how is DROP)


async def test_a_unix_socket_is_as_good(bench: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    at_path = PlannedHost(10, "localhost", (path,), 25, scheme="lmtp", path=path)
    ended = await bench.attempt(bench.work(at_path))
    assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.4.1")]
    assert f"cannot connect to {path}: No such file or directory" in ended.results[0][1].reply
    async with NextHop(lmtp=True, path=path) as hop:
        bench.sender.dead.answered(path, 25)
        ended = await bench.attempt(bench.work(at_path))
        assert outcomes(ended) == [DELIVERED]
        assert ended.results[0][2].address == path
        assert hop.messages[0].data == BODY


async def test_tls_is_used_here_too(bench: Bench) -> None:
    async with NextHop(lmtp=True, tls=serving()) as hop:
        strict = replace(store(hop), tls=TlsPolicy("encrypt", "route", "asked"))
        ended = await bench.attempt(bench.work(strict))
        assert outcomes(ended) == [DELIVERED]
        assert len(hop.lines("LHLO")) == 2
        assert hop.messages[0].tls


async def test_a_server_that_knows_no_lhlo_is_no_lmtp_server(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(store(hop)))
    assert outcomes(ended)[0][0] is Outcome.DEFERRED
    assert "LHLO" not in hop.lines("HELO")
    assert hop.lines("HELO") == hop.lines("MAIL") == []


async def test_chunking_is_not_used(bench: Bench) -> None:
    async with NextHop(lmtp=True, keywords=["PIPELINING", "CHUNKING"]) as hop:
        assert outcomes(await bench.attempt(bench.work(store(hop)))) == [DELIVERED]
        assert hop.lines("BDAT") == []
