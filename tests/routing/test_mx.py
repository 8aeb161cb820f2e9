"""From a domain to its hosts: standards D01 to D08, D11, D12, D14 and R12."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from mailtui.model import Plan, PlannedHost
from mailtui.routing import mx, router
from mailtui.routing.plan import order

Bench = Callable[..., Any]

MX = """
example.com. 300 IN MX 20 b.example.com.
example.com. 300 IN MX 10 a.example.com.
a.example.com. 300 IN A 192.0.2.1
a.example.com. 300 IN AAAA 2001:db8::1
b.example.com. 300 IN A 192.0.2.2
"""


def verdict(plan: Plan) -> tuple[str, int, str]:
    return plan.outcome, plan.code, plan.enhanced


def hosts(plan: Plan) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(host.preference, host.name, host.addresses) for host in plan.hosts]


async def test_hosts_by_preference(bench: Bench) -> None:
    async with bench(MX) as b:
        plan = await b.plan("user@example.com")
        assert verdict(plan) == ("deliver", 0, "")
        assert plan.via == "mx"
        assert plan.next_hop == "a.example.com,b.example.com"
        assert hosts(plan) == [
            (10, "a.example.com", ("2001:db8::1", "192.0.2.1")),
            (20, "b.example.com", ("192.0.2.2",)),
        ]
        assert {host.port for host in plan.hosts} == {25}
        assert plan.dropped == ()


async def test_domains_with_the_same_hosts_are_one_next_hop(bench: Bench) -> None:
    async with bench(MX + "other.example. 60 IN MX 5 B.example.com.\nother.example. 60 IN MX 5 A.Example.com.") as b:
        assert (await b.plan("other.example")).next_hop == (await b.plan("example.com")).next_hop


def test_equal_preferences_are_shuffled_others_keep_their_order() -> None:
    planned = [
        PlannedHost(number, name, ("192.0.2.1",), 25)
        for number, name in ((10, "a"), (10, "b"), (10, "c"), (20, "z"), (5, "first"))
    ]
    seen = set()
    rng = random.Random(7)
    for _ in range(200):
        names = [host.name for host in order(planned, rng)]
        assert names[0] == "first" and names[-1] == "z"
        seen.add(tuple(names[1:4]))
    assert len(seen) == 6


async def test_null_mx_bounces_whatever_a_says(bench: Bench) -> None:
    # D05
    async with bench("example.com. 300 IN MX 0 .\nexample.com. 300 IN A 192.0.2.1") as b:
        plan = await b.plan("user@example.com")
        assert verdict(plan) == ("bounce", 556, "5.1.10")
        assert (plan.via, plan.hosts) == ("null-mx", ())
        assert b.dns.queries == {("example.com", "MX"): 1}


async def test_null_mx_among_others_is_dropped_and_never_resolved(bench: Bench) -> None:
    # D05
    async with bench(MX + "example.com. 300 IN MX 0 .") as b:
        plan = await b.plan("example.com")
        assert plan.outcome == "deliver"
        assert [host.name for host in plan.hosts] == ["a.example.com", "b.example.com"]
        assert [name for name, _ in plan.dropped] == ["."]
        assert not any(name == "." for name, _ in b.dns.queries)


@pytest.mark.parametrize(
    ("records", "addresses"),
    [
        ("A 192.0.2.1", ("192.0.2.1",)),
        ("AAAA 2001:db8::1", ("2001:db8::1",)),
    ],
)
async def test_no_mx_means_the_domain_itself(bench: Bench, records: str, addresses: tuple[str, ...]) -> None:
    async with bench(f"example.com. 300 IN {records}") as b:
        plan = await b.plan("example.com")
        assert (plan.outcome, plan.via, plan.next_hop) == ("deliver", "implicit-mx", "example.com")
        assert hosts(plan) == [(0, "example.com", addresses)]


async def test_domain_with_neither_mx_nor_address_bounces(bench: Bench) -> None:
    async with bench('example.com. 300 IN TXT "nothing here"') as b:
        plan = await b.plan("example.com")
        assert verdict(plan) == ("bounce", 550, "5.4.4")
        assert (plan.via, plan.next_hop) == ("none", "")


async def test_unknown_domain_bounces(bench: Bench) -> None:
    # D03
    async with bench(MX) as b:
        plan = await b.plan("user@nowhere.invalid")
        assert verdict(plan) == ("bounce", 550, "5.1.2")
        assert "nowhere.invalid does not exist" in plan.reason
        assert b.dns.queries == {("nowhere.invalid", "MX"): 1}


@pytest.mark.parametrize("domain", ["a" * 64 + ".example", ".".join(["a" * 60] * 5), ""])
async def test_what_is_no_domain_name_bounces(bench: Bench, domain: str) -> None:
    async with bench() as b:
        assert verdict(await b.plan(domain)) == ("bounce", 550, "5.1.2")
        assert not b.dns.queries


@pytest.mark.parametrize("fault", ["servfail", "refused", "drop"])
async def test_failed_mx_lookup_defers_and_never_falls_back_to_a(bench: Bench, fault: str) -> None:
    # D03
    async with bench("example.com. 300 IN A 192.0.2.1") as b:
        b.dns.faults["example.com"] = fault
        plan = await b.plan("example.com")
        assert verdict(plan) == ("defer", 451, "4.4.3")
        assert (plan.via, plan.hosts) == ("none", ())
        assert ("example.com", "A") not in b.dns.queries


async def test_failed_address_lookup_of_implicit_mx_defers(bench: Bench) -> None:
    async with bench(MX) as b:
        b.dns.set_zone('example.com. 300 IN TXT "x"\nhost.example. 300 IN CNAME example.com.')
        b.dns.faults["host.example"] = "unchased"
        await b.resolver.lookup("example.com", "MX")  # NODATA, kept
        b.dns.faults["example.com"] = "servfail"
        assert verdict(await b.plan("host.example")) == ("defer", 451, "4.4.3")


async def test_cname_of_the_domain_is_followed(bench: Bench) -> None:
    # D04
    async with bench(MX + "alias.example. 60 IN CNAME example.com.") as b:
        plan = await b.plan("user@alias.example")
        assert plan.domain == "alias.example"
        assert plan.next_hop == (await b.plan("example.com")).next_hop
        assert "alias.example is an alias of example.com" in plan.reason


async def test_cname_to_a_host_without_mx_is_that_host(bench: Bench) -> None:
    async with bench("alias.example. 60 IN CNAME web.example.\nweb.example. 60 IN A 192.0.2.8") as b:
        plan = await b.plan("alias.example")
        assert (plan.via, plan.next_hop) == ("implicit-mx", "web.example")
        assert hosts(plan) == [(0, "web.example", ("192.0.2.8",))]


async def test_circle_of_cnames_defers(bench: Bench) -> None:
    async with bench("one.example. 60 IN CNAME two.example.\ntwo.example. 60 IN CNAME one.example.") as b:
        assert verdict(await b.plan("one.example")) == ("defer", 451, "4.4.3")


async def test_mx_that_is_a_cname_is_used_and_called_a_fault(bench: Bench) -> None:
    # D06
    zone = """
    example.com. 60 IN MX 10 mx.example.com.
    mx.example.com. 60 IN CNAME real.example.net.
    real.example.net. 60 IN A 192.0.2.3
    """
    async with bench(zone) as b:
        plan = await b.plan("example.com")
        assert hosts(plan) == [(10, "mx.example.com", ("192.0.2.3",))]
        assert "mx.example.com is a CNAME (RFC 2181" in plan.reason


@pytest.mark.parametrize(
    ("zone", "faults", "expected"),
    [
        ("", {}, ("bounce", 550, "5.4.4")),  # both names do not exist
        ('a.example.com. 60 IN TXT "x"', {}, ("bounce", 550, "5.4.4")),
        ("", {"a.example.com": "servfail"}, ("defer", 451, "4.4.3")),
        ("", {"b.example.com": "drop"}, ("defer", 451, "4.4.3")),
    ],
)
async def test_mx_without_a_usable_host_never_falls_back(
    bench: Bench, zone: str, faults: dict[str, str], expected: tuple[str, int, str]
) -> None:
    # D02
    names = "example.com. 300 IN MX 10 a.example.com.\nexample.com. 300 IN MX 20 b.example.com.\n"
    async with bench(names + "example.com. 300 IN A 192.0.2.1\n" + zone) as b:
        b.dns.faults.update(faults)
        plan = await b.plan("example.com")
        assert verdict(plan) == expected
        assert plan.via == "mx"
        assert ("example.com", "A") not in b.dns.queries
        assert {name for name, _ in plan.dropped} | {host.name for host in plan.hosts} == {
            "a.example.com",
            "b.example.com",
        }


async def test_host_that_cannot_be_looked_up_now_stays_in_the_plan(bench: Bench) -> None:
    async with bench(MX) as b:
        b.dns.faults["a.example.com"] = "servfail"
        plan = await b.plan("example.com")
        assert plan.outcome == "deliver"
        first, second = plan.hosts
        assert (first.name, first.addresses, first.temporary) == ("a.example.com", (), True)
        assert "SERVFAIL" in first.error
        assert (second.addresses, second.error, second.temporary) == (("192.0.2.2",), "", False)
        assert plan.next_hop == "a.example.com,b.example.com"
        b.dns.faults.clear()
        b.clock.advance(mx.FAILED_GOOD + 0.1)
        assert all(host.addresses for host in (await b.plan("example.com")).hosts)


async def test_host_that_does_not_exist_is_dropped_with_the_reason(bench: Bench) -> None:
    async with bench(MX + "example.com. 300 IN MX 5 gone.example.com.") as b:
        plan = await b.plan("example.com")
        assert [host.name for host in plan.hosts] == ["a.example.com", "b.example.com"]
        assert plan.dropped == (("gone.example.com", "gone.example.com: no such domain"),)


async def test_mx_that_is_an_address_is_dropped(bench: Bench) -> None:
    async with bench("example.com. 300 IN MX 10 192.0.2.1.") as b:
        plan = await b.plan("example.com")
        assert verdict(plan) == ("bounce", 550, "5.4.4")
        assert "an MX must name a host" in plan.dropped[0][1]
        assert b.dns.queries.total() == 1


async def test_hostile_mx_name_is_dropped_and_shown_harmlessly(bench: Bench) -> None:
    async with bench("example.com. 300 IN MX 10 ev\\010il\\027[2J.example.com.") as b:
        plan = await b.plan("example.com")
        assert plan.outcome == "bounce"
        assert all(text.isprintable() for drop in plan.dropped for text in drop)
        assert plan.reason.isprintable()
        assert b.dns.queries.total() == 1


async def test_one_family_that_fails_does_not_spoil_the_other(bench: Bench) -> None:
    """Servers that answer AAAA with SERVFAIL are common."""
    async with bench("example.com. 300 IN MX 10 a.example.com.\na.example.com. 300 IN A 192.0.2.1") as b:
        await b.resolver.lookup("a.example.com", "A")
        b.dns.faults["a.example.com"] = "servfail"
        plan = await b.plan("example.com")
        assert plan.outcome == "deliver"
        assert plan.hosts[0].addresses == ("192.0.2.1",)
        assert plan.good_until <= b.clock.now() + mx.PARTIAL_GOOD


@pytest.mark.parametrize(("prefer", "families"), [("any", "64644"), ("ipv4", "44466"), ("ipv6", "66444")])
async def test_families_in_the_order_preferred(bench: Bench, prefer: str, families: str) -> None:
    zone = "".join(f"example.com. 60 IN A 192.0.2.{n}\n" for n in (1, 2, 3))
    zone += "".join(f"example.com. 60 IN AAAA 2001:db8::{n}\n" for n in (1, 2))
    async with bench(zone, delivery={"prefer": prefer}) as b:
        addresses = (await b.plan("example.com")).hosts[0].addresses
        assert "".join("6" if ":" in address else "4" for address in addresses) == families
        assert len(set(addresses)) == 5


# Ourselves (D07)


@pytest.mark.parametrize("own", ["relay.test", "other-name.test"])
async def test_we_by_name_drop_ourselves_and_worse(bench: Bench, own: str) -> None:
    zone = f"""{MX}
    example.com. 300 IN MX 15 {own}.
    example.com. 300 IN MX 15 equal.example.com.
    equal.example.com. 60 IN A 192.0.2.9
    """
    async with bench(zone, delivery={"own_names": ["Other-Name.test"]}) as b:
        plan = await b.plan("example.com")
        assert [host.name for host in plan.hosts] == ["a.example.com"]
        assert plan.next_hop == "a.example.com"
        dropped = dict(plan.dropped)
        assert dropped[own] == "this is ourselves, at preference 15"
        assert dropped["b.example.com"] == "preference 20 is not better than our own, 15"
        assert dropped["equal.example.com"] == "preference 15 is not better than our own, 15"
        assert ("b.example.com", "A") not in b.dns.queries


async def test_we_by_own_address(bench: Bench) -> None:
    async with bench(MX, delivery={"own_addresses": ["192.0.2.2"]}) as b:
        plan = await b.plan("example.com")
        assert [host.name for host in plan.hosts] == ["a.example.com"]
        assert plan.dropped == (("b.example.com", "this is ourselves, at preference 20"),)


@pytest.mark.parametrize("listener", [("127.0.0.1", 2525), ("0.0.0.0", 2525)])
async def test_we_by_address_and_port_of_a_listener(bench: Bench, listener: tuple[str, int]) -> None:
    zone = "example.com. 60 IN MX 10 mx.example.com.\nmx.example.com. 60 IN A 127.0.0.1"
    delivery = {"allow_networks": ["127.0.0.0/8"], "port": 2525}
    async with bench(zone, [listener], delivery=delivery) as b:
        assert verdict(await b.plan("example.com")) == ("bounce", 554, "5.4.6")
    async with bench(zone, [(listener[0], 2526)], delivery=delivery) as b:
        assert (await b.plan("example.com")).outcome == "deliver"


async def test_wildcard_listener_is_not_every_address(bench: Bench) -> None:
    async with bench(MX, [("0.0.0.0", 25), ("::", 25)]) as b:
        assert (await b.plan("example.com")).outcome == "deliver"


@pytest.mark.parametrize(
    "zone",
    [
        "example.com. 60 IN MX 10 relay.test.\nexample.com. 60 IN MX 20 b.example.",
        "example.com. 60 IN MX 10 mx.example.\nmx.example. 60 IN CNAME relay.test.\nrelay.test. 60 IN A 192.0.2.5",
        "example.com. 60 IN MX 10 mx.example.\nmx.example. 60 IN A 192.0.2.66",
        "example.com. 60 IN A 192.0.2.66",
        "example.com. 60 IN CNAME relay.test.\nrelay.test. 60 IN A 192.0.2.5",
    ],
)
async def test_loop_to_ourselves_bounces(bench: Bench, zone: str) -> None:
    async with bench(zone, delivery={"own_addresses": ["192.0.2.66"]}) as b:
        plan = await b.plan("example.com")
        assert verdict(plan) == ("bounce", 554, "5.4.6")
        assert plan.hosts == ()
        assert "loops back to ourselves" in plan.reason


async def test_backup_mx_waits_for_a_primary_that_cannot_be_looked_up(bench: Bench) -> None:
    async with bench("example.com. 60 IN MX 10 a.example.com.\nexample.com. 60 IN MX 20 relay.test.") as b:
        b.dns.faults["a.example.com"] = "servfail"
        assert verdict(await b.plan("example.com")) == ("defer", 451, "4.4.3")


async def test_backup_mx_of_a_primary_that_does_not_exist_is_no_loop(bench: Bench) -> None:
    async with bench("example.com. 60 IN MX 10 a.example.com.\nexample.com. 60 IN MX 20 relay.test.") as b:
        plan = await b.plan("example.com")
        assert verdict(plan) == ("bounce", 550, "5.4.4")
        assert "a.example.com: no such domain" in plan.reason


# Private places (D12)

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_private_target_is_refused(bench: Bench, address: str) -> None:
    kind = "AAAA" if ":" in address else "A"
    async with bench(f"example.com. 60 IN MX 10 mx.example.com.\nmx.example.com. 60 IN {kind} {address}") as b:
        plan = await b.plan("example.com")
        assert verdict(plan) == ("bounce", 550, "5.4.4")
        assert plan.hosts == ()
        assert plan.dropped[0][0] == "mx.example.com"
        assert "in none of allow_networks" in plan.dropped[0][1]


@pytest.mark.parametrize(
    ("address", "network"),
    [("127.0.0.1", "127.0.0.0/8"), ("::1", "::1/128"), ("::ffff:10.0.0.1", "10.0.0.0/8"), ("10.0.0.1", "10.0.0.1/32")],
)
async def test_private_target_that_is_listed_is_used(bench: Bench, address: str, network: str) -> None:
    kind = "AAAA" if ":" in address else "A"
    async with bench(f"example.com. 60 IN {kind} {address}", delivery={"allow_networks": [network]}) as b:
        assert (await b.plan("example.com")).outcome == "deliver"


async def test_public_addresses_of_a_host_are_used_without_its_private_ones(bench: Bench) -> None:
    async with bench("example.com. 60 IN A 10.0.0.1\nexample.com. 60 IN A 192.0.2.1") as b:
        plan = await b.plan("example.com")
        assert plan.hosts[0].addresses == ("192.0.2.1",)
        assert plan.dropped == (("example.com", "10.0.0.1 is a private address and in none of allow_networks"),)


async def test_private_host_and_one_that_may_heal_defers(bench: Bench) -> None:
    zone = """
    example.com. 60 IN MX 10 a.example.com.
    example.com. 60 IN MX 20 b.example.com.
    a.example.com. 60 IN A 10.0.0.1
    """
    async with bench(zone) as b:
        b.dns.faults["b.example.com"] = "servfail"
        assert verdict(await b.plan("example.com")) == ("defer", 451, "4.4.3")


# Literals (D11)


@pytest.mark.parametrize(("literal", "address"), [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1")])
async def test_literal_asks_no_dns(bench: Bench, literal: str, address: str) -> None:
    async with bench() as b:
        plan = b.router.cached(f"user@{literal}", literal, "")
        assert plan is not None
        assert (plan.outcome, plan.next_hop) == ("deliver", f"[{address}]:25")
        assert hosts(plan) == [(0, address, (address,))]
        assert not b.dns.queries


async def test_literal_of_ourselves_or_of_a_private_place_bounces(bench: Bench) -> None:
    async with bench(listeners=[("127.0.0.1", 25)]) as b:
        assert verdict(await b.plan("user@[127.0.0.1]")) == ("bounce", 554, "5.4.6")
        assert verdict(await b.plan("user@[10.0.0.1]")) == ("bounce", 550, "5.4.4")


# Bounds (R12) and time (D14)


async def test_what_one_domain_makes_us_ask_is_bounded(bench: Bench) -> None:
    zone = "".join(f"example.com. 60 IN MX {n} mx{n}.example.com.\n" for n in range(1, 61))
    zone += "".join(f"mx1.example.com. 60 IN A 192.0.2.{n}\n" for n in range(1, 41))
    async with bench(zone) as b:
        plan = await b.plan("example.com")
        assert len(b.dns.queries) == 1 + 2 * mx.MAX_HOSTS
        assert len(plan.hosts[0].addresses) == mx.MAX_ADDRESSES
        assert plan.hosts[0].name == "mx1.example.com"
        assert sum("one MX too many" in why for _, why in plan.dropped) == 40


async def test_next_hop_of_many_long_names_fits_a_row(bench: Bench) -> None:
    names = [f"{'x' * 60}.{'y' * 60}.mx{n}.example" for n in range(20)]
    zone = "".join(f"one.example. 60 IN MX 10 {name}.\n{name}. 60 IN A 192.0.2.1\n" for name in names)
    zone += "".join(f"two.example. 60 IN MX 10 {name}.\n" for name in names)
    zone += "".join(f"three.example. 60 IN MX 10 {name}.\n" for name in names[1:])
    async with bench(zone) as b:
        one, two, three = [(await b.plan(f"{n}.example")).next_hop for n in ("one", "two", "three")]
        assert len(one) <= 255
        assert one == two != three


async def test_plan_is_good_for_the_least_ttl_it_is_made_of(bench: Bench) -> None:
    zone = """
    example.com. 300 IN MX 10 a.example.com.
    a.example.com. 20 IN A 192.0.2.1
    a.example.com. 30 IN AAAA 2001:db8::1
    """
    async with bench(zone) as b:
        plan = await b.plan("example.com")
        assert plan.good_until == b.clock.now() + 20
        b.clock.advance(19)
        assert b.router.cached("user@example.com", "example.com", "") is plan
        b.clock.advance(2)
        assert b.router.cached("user@example.com", "example.com", "") is None
        b.dns.set_zone("example.com. 300 IN MX 10 a.example.com.\na.example.com. 20 IN A 192.0.2.99")
        assert "192.0.2.99" in (await b.plan("example.com")).hosts[0].addresses
        assert b.dns.queries["example.com", "MX"] == 1  # its 300 s are not over


async def test_plan_made_of_an_old_answer_lives_for_the_rest_of_it(bench: Bench) -> None:
    async with bench("example.com. 300 IN A 192.0.2.1\nexample.com. 300 IN MX 10 example.com.") as b:
        await b.resolver.lookup("example.com", "A")
        b.clock.advance(290)
        assert (await b.plan("example.com")).good_until == b.clock.now() + 10


async def test_long_ttl_is_looked_at_again_within_the_hour(bench: Bench) -> None:
    zone = """
    example.com. 604800 IN MX 10 a.example.com.
    a.example.com. 604800 IN A 192.0.2.1
    a.example.com. 604800 IN AAAA 2001:db8::1
    """
    async with bench(zone) as b:
        assert (await b.plan("example.com")).good_until == b.clock.now() + mx.MAX_GOOD


async def test_failed_plan_is_kept_for_seconds_only(bench: Bench) -> None:
    async with bench(MX) as b:
        b.dns.faults["example.com"] = "servfail"
        plan = await b.plan("example.com")
        asked = b.dns.queries["example.com", "MX"]
        assert await b.plan("example.com") is plan
        assert b.dns.queries["example.com", "MX"] == asked
        b.dns.faults.clear()
        b.clock.advance(mx.FAILED_GOOD + 0.1)
        assert (await b.plan("example.com")).outcome == "deliver"


async def test_bounce_is_not_decided_from_an_answer_that_is_over(bench: Bench) -> None:
    async with bench() as b:
        assert (await b.plan("new.example")).outcome == "bounce"
        b.dns.set_zone("new.example. 60 IN A 192.0.2.1")
        b.clock.advance(61)
        assert (await b.plan("new.example")).outcome == "deliver"


async def test_many_recipients_at_once_are_one_query_each(bench: Bench) -> None:
    async with bench(MX) as b:
        plans = await asyncio.gather(*(b.plan(f"user{n}@example.com") for n in range(20)))
        assert {plan.outcome for plan in plans} == {"deliver"}
        assert set(b.dns.queries.values()) == {1}


async def test_kept_plans_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "MAX_PLANS", 3)
    async with bench(delivery={"smarthost": "192.0.2.1:25"}) as b:
        for n in range(10):
            await b.plan(f"d{n}.example")
        assert len(b.router._plans) == 3
