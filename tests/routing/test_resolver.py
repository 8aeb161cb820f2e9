"""The resolver façade against a real DNS server on loopback: outcomes, time, merging, the cache."""

import asyncio
import socket

import pytest
import uvloop

from mailtui.clock import ManualClock
from mailtui.routing import nameserver
from mailtui.routing import resolver as module
from mailtui.routing.nameserver import parse_nameserver
from mailtui.routing.resolver import Resolver, Status
from tests.support.dns import DnsServer

ZONE = """
example.com. 300 IN MX 10 mx.example.com.
example.com. 300 IN MX 20 mx2.example.com.
mx.example.com. 5 IN A 192.0.2.1
alias.example.com. 9 IN CNAME example.com.
once.example.com. 0 IN A 192.0.2.7
loop1.example.com. 9 IN CNAME loop2.example.com.
loop2.example.com. 9 IN CNAME loop1.example.com.
"""


def closed_port() -> int:
    """A UDP and TCP port on loopback where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("[::1]:53", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("::1", ("::1", 53)),
    ],
)
def test_nameserver_with_and_without_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_nameserver(text) == expected


@pytest.mark.parametrize("text", ["", "ns.example", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1", "[::1]53"])
def test_bad_nameserver_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name server"):
        parse_nameserver(text)


def test_without_nameservers_the_system_is_asked() -> None:
    assert Resolver([]).nameservers == [nameserver.label(*server) for server in nameserver.system_nameservers()]


def test_no_resolv_conf_means_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise nameserver.dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(nameserver.dns.resolver, "Resolver", missing)
    assert nameserver.system_nameservers() == [("127.0.0.1", 53)]


async def test_outcomes() -> None:
    async with DnsServer(ZONE) as dns:
        dns.faults.update({"broken.example": "servfail", "closed.example": "refused"})
        resolver = Resolver([dns.endpoint], 5.0)
        found = await resolver.lookup("Example.COM", "MX")
        assert found.status is Status.FOUND
        assert sorted((r.preference, r.exchange.to_text()) for r in found.records) == [
            (10, "mx.example.com."),
            (20, "mx2.example.com."),
        ]
        assert found.name == found.canonical == "example.com"
        cases = {
            ("example.com", "A"): Status.NODATA,
            ("com", "MX"): Status.NODATA,  # nothing there, but names below it
            ("gone.example.com", "A"): Status.NXDOMAIN,
            ("broken.example", "A"): Status.SERVFAIL,
            ("closed.example", "A"): Status.SERVFAIL,
            ("a" * 64 + ".example", "A"): Status.BAD_NAME,
            ("a..example", "A"): Status.BAD_NAME,
            ("", "MX"): Status.BAD_NAME,
            (".", "MX"): Status.BAD_NAME,
        }
        for question, status in cases.items():
            answer = await resolver.lookup(*question)
            assert answer.status is status, question
            assert answer.records == ()
            assert answer.text and "\n" not in answer.text
            assert answer.status.temporary is (status is Status.SERVFAIL)
        assert "REFUSED from 127.0.0.1" in (await resolver.lookup("closed.example", "A")).text


async def test_silence_is_a_time_out_within_the_limit() -> None:
    async with DnsServer(ZONE) as dns:
        dns.faults["silent.example"] = "drop"
        resolver = Resolver([dns.endpoint], 0.3)
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await resolver.lookup("silent.example", "MX")
        assert answer.status is Status.TIMEOUT
        assert f"no answer within 0.3 s from {dns.endpoint}" == answer.text
        assert loop.time() - started < 3.0
        assert dns.queries["silent.example", "MX"] >= 2  # a lost datagram is sent again


async def test_the_limit_holds_for_a_chain_of_slow_steps() -> None:
    async with DnsServer("a.example. 1 IN CNAME b.example.\nb.example. 1 IN A 192.0.2.1") as dns:
        dns.faults.update({"a.example": "unchased", "b.example": "drop"})
        answer = await Resolver([dns.endpoint], 0.3).lookup("a.example", "A")
        assert answer.status is Status.TIMEOUT


async def test_cname_is_followed() -> None:
    async with DnsServer(ZONE) as dns:
        clock = ManualClock()
        resolver = Resolver([dns.endpoint], 5.0, clock=clock)
        answer = await resolver.lookup("alias.example.com", "MX")
        assert (answer.status, answer.canonical, len(answer.records)) == (Status.FOUND, "example.com", 2)
        assert answer.expires == clock.monotonic() + 9  # the least TTL of the chain


async def test_cname_is_followed_when_the_server_does_not() -> None:
    async with DnsServer(ZONE) as dns:
        dns.faults["alias.example.com"] = "unchased"
        clock = ManualClock()
        answer = await Resolver([dns.endpoint], 5.0, clock=clock).lookup("alias.example.com", "MX")
        assert (answer.status, answer.canonical, len(answer.records)) == (Status.FOUND, "example.com", 2)
        assert answer.expires == clock.monotonic() + 9


@pytest.mark.parametrize("fault", ["", "unchased"])
async def test_circle_of_cnames_ends(fault: str) -> None:
    async with DnsServer(ZONE) as dns:
        dns.faults.update({"loop1.example.com": fault, "loop2.example.com": fault})
        answer = await Resolver([dns.endpoint], 5.0).lookup("loop1.example.com", "A")
        assert answer.status is Status.SERVFAIL
        assert "CNAME" in answer.text
        assert dns.queries.total() <= 4


async def test_long_chain_of_cnames_ends() -> None:
    zone = "".join(f"c{n}.example. 60 IN CNAME c{n + 1}.example.\n" for n in range(40))
    async with DnsServer(zone) as dns:
        dns.faults.update({f"c{n}.example": "unchased" for n in range(40)})
        answer = await Resolver([dns.endpoint], 5.0).lookup("c0.example", "A")
        assert answer.status is Status.SERVFAIL
        assert dns.queries.total() == module.MAX_CNAMES


async def test_truncated_answer_is_asked_for_by_tcp() -> None:
    # D14
    async with DnsServer(ZONE) as dns:
        dns.faults["example.com"] = "truncate"
        answer = await Resolver([dns.endpoint], 5.0).lookup("example.com", "MX")
        assert (answer.status, len(answer.records), dns.tcp_queries) == (Status.FOUND, 2, 1)


async def test_large_answer_comes_by_tcp_and_is_bounded() -> None:
    zone = "".join(f"big.example. 60 IN MX {n} mx{n}.a-rather-long-name.example.\n" for n in range(1, 301))
    async with DnsServer(zone) as dns:
        answer = await Resolver([dns.endpoint], 5.0).lookup("big.example", "MX")
        assert dns.tcp_queries == 1
        assert [record.preference for record in answer.records] == list(range(1, module.MAX_RECORDS + 1))


async def test_answer_to_another_question_is_not_taken() -> None:
    async with DnsServer(ZONE) as dns:
        dns.faults["example.com"] = "strange"
        answer = await Resolver([dns.endpoint], 0.3).lookup("example.com", "MX")
        assert answer.status is Status.TIMEOUT


async def test_concurrent_lookups_are_one_query() -> None:
    async with DnsServer(ZONE) as dns:
        resolver = Resolver([dns.endpoint], 5.0)
        dns.gate.clear()
        lookups = [asyncio.create_task(resolver.lookup("example.com", "MX")) for _ in range(20)]
        await dns.asked.wait()
        dns.gate.set()
        answers = await asyncio.gather(*lookups)
        assert dns.queries == {("example.com", "MX"): 1}
        assert all(answer is answers[0] for answer in answers)


async def test_who_gives_up_waiting_does_not_spoil_it_for_the_others() -> None:
    async with DnsServer(ZONE) as dns:
        resolver = Resolver([dns.endpoint], 5.0)
        dns.gate.clear()
        first = asyncio.create_task(resolver.lookup("example.com", "MX"))
        second = asyncio.create_task(resolver.lookup("example.com", "MX"))
        await dns.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        dns.gate.set()
        assert (await second).status is Status.FOUND
        assert dns.queries.total() == 1


async def test_close_ends_what_is_under_way() -> None:
    async with DnsServer(ZONE) as dns:
        resolver = Resolver([dns.endpoint], 5.0)
        dns.gate.clear()
        lookup = asyncio.create_task(resolver.lookup("example.com", "MX"))
        await dns.asked.wait()
        await resolver.close()
        with pytest.raises(asyncio.CancelledError):
            await lookup


async def test_published_ttl_is_honoured() -> None:
    async with DnsServer(ZONE) as dns:
        clock = ManualClock()
        resolver = Resolver([dns.endpoint], 5.0, clock=clock)
        for advance, queries in ((0, 1), (4.9, 1), (0.2, 2)):
            clock.advance(advance)
            assert (await resolver.lookup("mx.example.com", "A")).status is Status.FOUND
            assert dns.queries["mx.example.com", "A"] == queries
        assert resolver.cached("mx.example.com", "A") is not None
        assert resolver.cached("MX.example.com.", "A") is not None
        clock.advance(5)
        assert resolver.cached("mx.example.com", "A") is None


async def test_ttl_of_zero_is_a_second() -> None:
    async with DnsServer(ZONE) as dns:
        clock = ManualClock()
        resolver = Resolver([dns.endpoint], 5.0, clock=clock)
        await resolver.lookup("once.example.com", "A")
        clock.advance(0.9)
        await resolver.lookup("once.example.com", "A")
        assert dns.queries.total() == 1
        clock.advance(0.2)
        await resolver.lookup("once.example.com", "A")
        assert dns.queries.total() == 2


@pytest.mark.parametrize("name", ["gone.example.com", "example.com"])  # NXDOMAIN and NODATA
async def test_negative_answer_lives_as_long_as_its_soa_says(name: str) -> None:
    async with DnsServer(ZONE, negative_ttl=7) as dns:
        clock = ManualClock()
        resolver = Resolver([dns.endpoint], 5.0, clock=clock)
        assert (await resolver.lookup(name, "A")).expires == clock.monotonic() + 7
        clock.advance(6.9)
        await resolver.lookup(name, "A")
        assert dns.queries.total() == 1
        dns.set_zone(ZONE + f"{name}. 60 IN A 192.0.2.9")
        clock.advance(0.2)
        assert (await resolver.lookup(name, "A")).status is Status.FOUND


@pytest.mark.parametrize("fault", ["servfail", "refused", "drop"])
async def test_failure_is_not_kept(fault: str) -> None:
    async with DnsServer(ZONE) as dns:
        resolver = Resolver([dns.endpoint], 0.3, clock=ManualClock())
        dns.faults["example.com"] = fault
        assert (await resolver.lookup("example.com", "MX")).status.temporary
        dns.faults.clear()
        assert (await resolver.lookup("example.com", "MX")).status is Status.FOUND


async def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_SIZE", 3)
    async with DnsServer("".join(f"n{n}.example. 300 IN A 192.0.2.{n}\n" for n in range(1, 6))) as dns:
        resolver = Resolver([dns.endpoint], 5.0)
        for n in (1, 2, 3, 1, 4, 5):  # 1 was used again, so 2 and 3 go first
            await resolver.lookup(f"n{n}.example", "A")
        kept = [n for n in range(1, 6) if resolver.cached(f"n{n}.example", "A") is not None]
        assert kept == [1, 4, 5]


async def test_dead_resolver_is_noticed_at_once() -> None:
    port = closed_port()
    resolver = Resolver([f"127.0.0.1:{port}"], 30.0)
    async with asyncio.timeout(5):
        answer = await resolver.lookup("example.com", "MX")
    assert answer.status is Status.SERVFAIL
    assert answer.text == f"127.0.0.1:{port} refuses connections: no resolver runs there"


async def test_second_server_is_asked_when_the_first_is_dead() -> None:
    async with DnsServer(ZONE) as dns:
        resolver = Resolver([f"127.0.0.1:{closed_port()}", dns.endpoint], 30.0)
        async with asyncio.timeout(5):
            assert (await resolver.lookup("example.com", "MX")).status is Status.FOUND


async def test_second_server_is_asked_when_the_first_fails() -> None:
    async with DnsServer(ZONE) as bad, DnsServer(ZONE) as good:
        bad.faults["example.com"] = "servfail"
        resolver = Resolver([bad.endpoint, good.endpoint], 5.0)
        assert (await resolver.lookup("example.com", "MX")).status is Status.FOUND
        assert (bad.queries.total(), good.queries.total()) == (1, 1)


async def test_silent_server_is_asked_last_for_a_while() -> None:
    async with DnsServer(ZONE) as silent, DnsServer(ZONE) as good:
        silent.faults["example.com"] = "drop"
        clock = ManualClock()
        resolver = Resolver([silent.endpoint, good.endpoint], 0.6, clock=clock)
        await resolver.lookup("example.com", "MX")
        assert (silent.queries.total(), good.queries.total()) == (1, 1)
        await resolver.lookup("mx.example.com", "A")
        assert (silent.queries.total(), good.queries.total()) == (1, 2)
        clock.advance(nameserver.SUSPECT_TIME)
        await resolver.lookup("gone.example.com", "A")
        assert (silent.queries.total(), good.queries.total()) == (2, 2)


@pytest.mark.parametrize(
    ("dnssec", "ad", "secure"),
    [("auto", True, True), ("auto", False, False), ("trust-ad", True, True), ("off", True, None), ("off", False, None)],
)
async def test_ad_bit(dnssec: str, ad: bool, secure: bool | None) -> None:
    async with DnsServer(ZONE, ad=ad) as dns:
        answer = await Resolver([dns.endpoint], 5.0, dnssec).lookup("example.com", "MX")
        assert answer.secure is secure


async def test_ad_of_a_remote_resolver_is_believed_only_when_trusted() -> None:
    assert not Resolver(["192.0.2.1"]).believes_ad
    assert not Resolver(["127.0.0.1", "192.0.2.1"]).believes_ad
    assert Resolver(["192.0.2.1"], dnssec="trust-ad").believes_ad
    assert Resolver(["127.0.0.1", "::1"]).believes_ad


def test_it_runs_on_uvloop() -> None:
    async def main() -> None:
        async with DnsServer(ZONE) as dns:
            resolver = Resolver([f"127.0.0.1:{closed_port()}", dns.endpoint], 5.0)
            dns.faults["alias.example.com"] = "truncate"
            assert (await resolver.lookup("example.com", "MX")).status is Status.FOUND
            assert (await resolver.lookup("alias.example.com", "MX")).status is Status.FOUND
            assert dns.tcp_queries == 1

    uvloop.run(main())
