"""Where mail goes: MX against a real name server, and what the route table says instead."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from mailtui.clock import ManualClock
from mailtui.delivery.retry import JITTER
from tests.end_to_end.conftest import Live, Start
from tests.support.dns import DnsServer
from tests.support.nexthop import NextHop

# Two hosts on one port, as MX hosts have it.
FIRST, SECOND = "127.0.0.1", "127.0.0.2"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as dns:
        yield dns


@pytest.fixture
async def first() -> AsyncIterator[NextHop]:
    async with NextHop(host=FIRST) as hop:
        yield hop


@pytest.fixture
async def second(first: NextHop) -> AsyncIterator[NextHop]:
    async with NextHop(host=SECOND, port=first.port) as hop:
        yield hop


def config(dns: DnsServer, port: int, more: str = "", delivery: str = "", timeout: str = "5s") -> str:
    return f"""
[dns]
nameservers = ["{dns.endpoint}"]
timeout = "{timeout}"
[delivery]
port = {port}
allow_networks = ["127.0.0.0/8"]
{delivery}
{more}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listener(port: int) -> str:
    """A second listener, on a port that is known before the relay runs."""
    return f'[[listener]]\nname = "second"\naddress = "127.0.0.1:{port}"\n'


async def plan(relay: Live, domain: str) -> tuple[str, str, list[str]]:
    """(outcome, via, names of the hosts) of `mx DOMAIN`."""
    found = await relay.relay.router.plan("", domain, "")
    return found.outcome, found.via, [host.name for host in found.hosts]


async def refusal(relay: Live) -> tuple[str, str, str]:
    """(result, code, enhanced) of the first thing that left the queue."""
    await relay.told("bounced")
    past = (await relay.history())[0]
    return past["result"], past["code"], past["enhanced"]


TWO = """
dest.test. 300 IN MX 20 far.test.
dest.test. 300 IN MX 10 near.test.
near.test. 300 IN A 127.0.0.1
far.test. 300 IN A 127.0.0.2
"""


async def test_the_preferred_host_gets_the_mail(
    relay_of: Start, dns: DnsServer, first: NextHop, second: NextHop
) -> None:
    dns.set_zone(TWO)
    async with relay_of(config(dns, first.port)) as relay:
        for number in range(1, 6):
            await relay.send()
            await relay.told("delivered", number)
        assert await plan(relay, "dest.test") == ("deliver", "mx", ["near.test", "far.test"])
        assert {past["host"] for past in await relay.history()} == {"near.test"}
    assert (len(first.messages), second.connections) == (5, 0)


async def test_with_the_first_host_dead_the_second_gets_it_in_the_same_attempt(
    relay_of: Start, dns: DnsServer, first: NextHop, second: NextHop
) -> None:
    dns.set_zone(TWO)
    await first.stop()
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send()
        await relay.told("delivered")
        [past] = await relay.history()
        assert (past["host"], past["attempts"]) == ("far.test", 1)


async def test_equal_preferences_share_the_mail(
    relay_of: Start, dns: DnsServer, first: NextHop, second: NextHop
) -> None:
    dns.set_zone(TWO.replace("MX 20", "MX 10"))
    async with relay_of(config(dns, first.port)) as relay:
        # Many connections at once: an open one is used again whatever the order says.
        await relay.send_many([f"u{n}@dest.test" for n in range(100)])
        await relay.told("delivered", 100)
    assert first.messages
    assert second.messages


async def test_domains_at_the_same_hosts_are_one_next_hop(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    dns.set_zone("".join(f"d{n}.test. 300 IN MX 10 mx.test.\n" for n in range(3)) + "mx.test. 300 IN A 127.0.0.1\n")
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send(["a@d0.test", "b@d0.test"])
        await relay.told("delivered", 2)
        assert [each.recipients for each in first.messages] == [["a@d0.test", "b@d0.test"]]
        for number in (1, 2):
            await relay.send(f"x@d{number}.test")
            await relay.told("delivered", 2 + number)
        assert first.connections == 1
        # Now that all ways are known, one transaction serves the three domains.
        await relay.send(["a@d0.test", "b@d1.test", "c@d2.test"])
        await relay.told("delivered", 7)
        assert first.messages[-1].recipients == ["a@d0.test", "b@d1.test", "c@d2.test"]


async def test_without_mx_the_domain_itself_is_the_host(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    dns.set_zone("dest.test. 300 IN A 127.0.0.1\n")
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send()
        await first.received(1)
        await relay.told("delivered")
        assert await plan(relay, "dest.test") == ("deliver", "implicit-mx", ["dest.test"])


async def test_a_cname_at_the_domain_is_followed_and_the_address_unchanged(
    relay_of: Start, dns: DnsServer, first: NextHop
) -> None:
    dns.set_zone("dest.test. 300 IN CNAME real.test.\nreal.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.1\n")
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send()
        [got] = await first.received(1)
    assert got.recipients == ["bob@dest.test"]


async def test_an_address_literal_needs_no_dns(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send("bob@[127.0.0.1]")
        [got] = await first.received(1)
        await relay.told("delivered")
    assert got.recipients == ["bob@[127.0.0.1]"]
    assert not dns.queries


NOWHERE = {
    "null MX": ("dest.test. 300 IN MX 0 .\ndest.test. 300 IN A 127.0.0.1\n", "556", "5.1.10"),
    "NXDOMAIN": ("", "550", "5.1.2"),
    "neither MX nor address": ("dest.test. 300 IN TXT x\n", "550", "5.4.4"),
    "an MX that does not exist": (
        "dest.test. 300 IN MX 10 gone.test.\ndest.test. 300 IN A 127.0.0.1\n", "550", "5.4.4",
    ),
    "ourselves by name": ("dest.test. 300 IN MX 10 relay.test.\nrelay.test. 300 IN A 127.0.0.1\n", "554", "5.4.6"),
    "ourselves by another name": (
        "dest.test. 300 IN MX 10 alias.test.\nalias.test. 300 IN A 127.0.0.1\n", "554", "5.4.6",
    ),
    "ourselves by address": ("dest.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.9\n", "554", "5.4.6"),
}  # fmt: skip


@pytest.mark.parametrize(("zone", "code", "enhanced"), NOWHERE.values(), ids=NOWHERE)
async def test_mail_that_can_go_nowhere_is_returned_at_once(
    relay_of: Start, dns: DnsServer, first: NextHop, zone: str, code: str, enhanced: str
) -> None:
    dns.set_zone(zone)
    own = 'own_names = ["alias.test"]\nown_addresses = ["127.0.0.9"]\n'
    report = f'[[route]]\nmatch = "sender.test"\ntarget = "smtp://[127.0.0.1]:{first.port}"\n'
    async with relay_of(config(dns, first.port, more=report, delivery=own)) as relay:
        await relay.send()
        assert await refusal(relay) == ("bounced", code, enhanced)
        [got] = await first.received(1)
        assert got.recipients == ["ann@sender.test"]
        assert f"Status: {enhanced}".encode() in got.data
        assert b"Remote-MTA" not in got.data
        await relay.told("delivered")


async def test_a_listener_of_ours_among_the_hosts_is_a_loop(relay_of: Start, dns: DnsServer) -> None:
    dns.set_zone("dest.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.1\n")
    port = free_port()
    async with relay_of(config(dns, port, more=listener(port))) as relay:
        await relay.send(sender="")
        assert await refusal(relay) == ("bounced", "554", "5.4.6")


async def test_better_hosts_than_ourselves_are_used_and_no_others(
    relay_of: Start, dns: DnsServer, first: NextHop, second: NextHop
) -> None:
    dns.set_zone(
        "dest.test. 300 IN MX 10 near.test.\ndest.test. 300 IN MX 20 relay.test.\ndest.test. 300 IN MX 30 far.test.\n"
        "near.test. 300 IN A 127.0.0.1\nfar.test. 300 IN A 127.0.0.2\nrelay.test. 300 IN A 127.0.0.3\n"
    )
    async with relay_of(config(dns, first.port)) as relay:
        assert await plan(relay, "dest.test") == ("deliver", "mx", ["near.test"])
        await first.stop()
        await relay.send()
        await relay.told("deferred")
    assert second.connections == 0


async def test_a_private_host_is_refused_unless_it_is_listed(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    dns.set_zone("dest.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.1\n")
    text = config(dns, first.port).replace('allow_networks = ["127.0.0.0/8"]', "")
    async with relay_of(text) as relay:
        await relay.send(sender="")
        assert await refusal(relay) == ("bounced", "550", "5.4.4")
    assert first.connections == 0


@pytest.mark.parametrize(("fault", "timeout"), [("servfail", "5s"), ("refused", "5s"), ("drop", "0.3s")])
async def test_dns_trouble_defers_and_is_mended(
    relay_of: Start, dns: DnsServer, first: NextHop, clock: ManualClock, fault: str, timeout: str
) -> None:
    dns.set_zone(TWO)
    dns.faults["dest.test"] = fault
    async with relay_of(config(dns, first.port, timeout=timeout)) as relay:
        rid = await relay.send() + ".1"
        await relay.told("deferred")
        row = await relay.row(rid)
        assert (row["state"], row["last_enhanced"], row["attempts"]) == ("deferred", "4.4.3", 1)
        why = await relay.why(rid)
        assert why["limiter"] == "dns"
        assert "dest.test" in why["because"]
        dns.faults.clear()
        clock.advance(300 * (1 + JITTER))
        await first.received(1)
        await relay.told("delivered")


async def test_a_host_whose_addresses_cannot_be_looked_up_is_passed_over(
    relay_of: Start, dns: DnsServer, first: NextHop, second: NextHop
) -> None:
    dns.set_zone(TWO)
    dns.faults["near.test"] = "servfail"
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send()
        await second.received(1)
        await relay.told("delivered")
    assert first.connections == 0


async def test_a_domain_in_trouble_holds_up_no_other(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    dns.set_zone("good.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.1\n")
    dns.faults["slow.test"] = "drop"
    async with relay_of(config(dns, first.port, timeout="30s")) as relay:
        await relay.send(["a@slow.test", "b@good.test"])
        await first.received(1)
        assert first.messages[0].recipients == ["b@good.test"]
        await relay.told("delivered")
        assert [row["recipient"] for row in await relay.rows()] == ["a@slow.test"]


async def test_many_recipients_of_a_domain_ask_the_dns_once(relay_of: Start, dns: DnsServer, first: NextHop) -> None:
    dns.set_zone("dest.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN A 127.0.0.1\n")
    async with relay_of(config(dns, first.port)) as relay:
        await relay.send([f"u{n}@dest.test" for n in range(60)])
        await relay.told("delivered", 60)
    assert dns.queries["dest.test", "MX"] == 1
    assert [len(each.recipients) for each in first.messages] == [60]


# -- the route table ---------------------------------------------------------------------------------------------------


def routed(*rows: str) -> str:
    return "".join(
        f"[[route]]\nmatch = {match}\ntarget = {target}\n" for match, target in (r.split(" > ") for r in rows)
    )


async def test_error_bounces_with_the_routes_words(relay_of: Start, first: NextHop) -> None:
    rows = routed(
        '"dest.test" > "error:5.1.2 this domain has moved"', f'"*" > "smtp://[127.0.0.1]:{first.port}"'
    )  # fmt: skip
    async with relay_of(rows) as relay:
        await relay.send()
        assert await refusal(relay) == ("bounced", "550", "5.1.2")
        [got] = await first.received(1)
        assert b"this domain has moved" in got.data
        await relay.told("delivered")


async def test_hold_holds_and_says_by_what(relay_of: Start) -> None:
    async with relay_of(routed('"dest.test" > "hold"')) as relay:
        rid = await relay.send() + ".1"
        await relay.told("hold")
        row = await relay.row(rid)
        assert (row["state"], row["next_attempt"], row["held_by"], row["attempts"]) == ("held", None, "route", 0)
        why = await relay.why(rid)
        assert (why["limiter"], why["next_attempt"]) == ("hold", None)
        await relay.pass_time(86400)
        assert (await relay.row(rid))["state"] == "held"


async def test_discard_deletes_silently(relay_of: Start) -> None:
    async with relay_of(routed('"dest.test" > "discard"')) as relay:
        await relay.send()
        await relay.told("discard")
        assert [past["result"] for past in await relay.history()] == ["deleted"]
        assert await relay.rows() == []


async def test_defer_waits_on_the_schedule_until_it_expires(relay_of: Start, clock: ManualClock) -> None:
    async with relay_of(routed('"dest.test" > "defer"', '"*" > "discard"')) as relay:
        rid = await relay.send() + ".1"
        await relay.told("deferred")
        row = await relay.row(rid)
        assert (row["state"], row["last_enhanced"], row["attempts"]) == ("deferred", "4.3.0", 1)
        for _ in range(60):
            if relay.events.counts.get("bounced"):
                break
            await relay.pass_time(14400 * (1 + JITTER))
        await relay.told("bounced")
        [past] = await relay.history(rid)
        assert past["enhanced"] == "4.4.7"


async def test_the_most_specific_row_wins_recipient_before_sender(relay_of: Start) -> None:
    async with NextHop() as one, NextHop() as two, NextHop() as three:
        rows = routed(
            f'"vip@dest.test" > "smtp://[127.0.0.1]:{one.port}"',
            f'"dest.test" > "smtp://[127.0.0.1]:{two.port}"',
            f'"from:ann@sender.test" > "smtp://[127.0.0.1]:{three.port}"',
        )
        async with relay_of(rows) as relay:
            await relay.send(["vip@dest.test", "bob@dest.test", "eve@else.test"])
            await relay.told("delivered", 3)
            assert [each.recipients for hop in (one, two, three) for each in hop.messages] == [
                ["vip@dest.test"], ["bob@dest.test"], ["eve@else.test"],
            ]  # fmt: skip


async def test_a_route_with_a_spare_uses_it_when_the_first_is_away(
    relay_of: Start, first: NextHop, second: NextHop
) -> None:
    target = f"smtp://[{FIRST}]:{first.port}|smtp://[{SECOND}]:{second.port}"
    await first.stop()
    async with relay_of(routed(f'"dest.test" > "{target}"')) as relay:
        await relay.send()
        await relay.told("delivered")
    assert len(second.messages) == 1


async def test_a_route_that_leads_back_to_ourselves_waits_for_the_operator(relay_of: Start) -> None:
    port = free_port()
    async with relay_of(listener(port) + routed(f'"dest.test" > "smtp://[127.0.0.1]:{port}"')) as relay:
        rid = await relay.send() + ".1"
        await relay.told("deferred")
        assert (await relay.row(rid))["last_enhanced"] == "4.4.6"
        assert len(await relay.rows()) == 1


# -- what a row says besides the host ----------------------------------------------------------------------------------


async def test_a_row_leads_to_lmtp_on_a_unix_socket(relay_of: Start, state: Path) -> None:
    path = str(state.parent / "lmtp")
    async with NextHop(lmtp=True, path=path) as store, relay_of(routed(f'"dest.test" > "lmtp:unix:{path}"')) as relay:
        store.recipients = {"b@dest.test": "550 5.1.1 nobody"}
        await relay.send(["a@dest.test", "b@dest.test"], sender="")
        await relay.told("delivered")
        await relay.told("bounced")
        past = {one["recipient"]: (one["result"], one["host"]) for one in await relay.history("to:@dest.test")}
        assert past == {"a@dest.test": ("delivered", "localhost"), "b@dest.test": ("bounced", "localhost")}
        [facts] = [f for f in await relay.relay.destinations("hop") if f["name"].startswith("lmtp:")]
        assert facts["name"] == f"lmtp:unix:{path}"


async def test_a_row_leads_to_a_host_with_implicit_tls_and_a_password(relay_of: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    secrets = tmp_path / "secrets"
    secrets.write_text("127.0.0.1 ann s3cret\n")
    secrets.chmod(0o600)
    async with NextHop(tls=context, implicit_tls=True, keywords=["PIPELINING", "AUTH PLAIN"]) as hop:
        row = f'[[route]]\nmatch = "from:ann@sender.test"\ntarget = "smtps://[127.0.0.1]:{hop.port}"\nauth = "ann"\n'
        rest = f'[delivery]\nsecrets = "{secrets}"\n[tls]\nca_file = "{tmp_path}/ca.pem"\n'
        async with relay_of(row + rest) as relay:
            rid = await relay.send() + ".1"
            await relay.told("delivered")
            [past] = await relay.history(rid)
            assert past["tls"]["reached"] in ("encrypted", "verified")
            assert hop.messages[0].tls
            assert len(hop.lines("AUTH PLAIN")) == 1
            [facts] = await relay.relay.destinations("hop")
            assert facts["name"] == f"smtps://[127.0.0.1]:{hop.port}"
            assert "s3cret" not in str([past, facts, relay.events._stream.getvalue()])  # type: ignore[union-attr]


async def test_a_row_says_which_address_its_mail_comes_from(relay_of: Start) -> None:
    peers: list[str] = []
    done = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.close()
        done.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        row = f'[[route]]\nmatch = "dest.test"\ntarget = "smtp://[127.0.0.1]:{port}"\nsource = "127.0.0.9"\n'
        async with relay_of(row) as relay:
            await relay.send()
            await asyncio.wait_for(done.wait(), 10)
            await relay.told("deferred")
    finally:
        server.close()
    assert peers[0] == "127.0.0.9"


@pytest.mark.parametrize("prefer", ["any", "ipv6", "ipv4"])
async def test_a_family_that_does_not_answer_falls_back_to_the_other(
    relay_of: Start, dns: DnsServer, first: NextHop, prefer: str
) -> None:
    # D08: nobody listens on ::1 at that port
    dns.set_zone("dest.test. 300 IN MX 10 mx.test.\nmx.test. 300 IN AAAA ::1\nmx.test. 300 IN A 127.0.0.1\n")
    text = config(dns, first.port, delivery=f'prefer = "{prefer}"').replace('"127.0.0.0/8"', '"127.0.0.0/8", "::1/128"')
    async with relay_of(text) as relay:
        found = await relay.relay.router.plan("", "dest.test", "")
        order = ("127.0.0.1", "::1") if prefer == "ipv4" else ("::1", "127.0.0.1")
        assert found.hosts[0].addresses == order
        rid = await relay.send() + ".1"
        await relay.told("delivered")
        assert [past["attempts"] for past in await relay.history(rid)] == [1]
    assert len(first.messages) == 1
