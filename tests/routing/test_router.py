"""Route table, then smarthost, then MX; what needs no I/O; the plan as JSON."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from mailtui.model import Plan, PlannedHost, TlsPolicy
from mailtui.routing import router
from mailtui.routing.plan import order, plan_json

Bench = Callable[..., Any]

ZONE = """
example.com. 300 IN MX 10 a.example.com.
example.com. 300 IN MX 20 b.example.com.
a.example.com. 300 IN A 192.0.2.1
b.example.com. 300 IN A 192.0.2.2
inside.test. 300 IN A 10.0.0.5
provider.example. 300 IN MX 10 in1.provider.example.
provider.example. 300 IN MX 20 in2.provider.example.
in1.provider.example. 300 IN A 192.0.2.11
in2.provider.example. 300 IN A 10.0.0.12
null.example. 300 IN MX 0 .
"""


def route(match: str, target: str, **options: str) -> dict[str, str]:
    return {"match": match, "target": target, **options}


def summary(plan: Plan) -> list[tuple[int, str, tuple[str, ...], int]]:
    return [(host.preference, host.name, host.addresses, host.port) for host in plan.hosts]


async def test_route_before_smarthost_before_mx(bench: Bench) -> None:
    # D12
    smarthost = {"smarthost": "192.0.2.100:587"}
    async with bench(ZONE, route=[route("routed.example", "smtp://[192.0.2.50]:26")], delivery=smarthost) as b:
        routed, other = await b.plan("user@routed.example"), await b.plan("user@example.com")
        assert (routed.via, routed.route, routed.next_hop) == ("route", "routed.example", "[192.0.2.50]:26")
        assert (other.via, other.route, other.next_hop) == ("smarthost", "", "[192.0.2.100]:587")
        assert other.reason == "smarthost smtp://[192.0.2.100]:587"
        assert not b.dns.queries


async def test_mx_route_beats_the_smarthost(bench: Bench) -> None:
    async with bench(ZONE, route=[route("example.com", "mx")], delivery={"smarthost": "192.0.2.100:587"}) as b:
        plan = await b.plan("user@example.com")
        assert (plan.via, plan.route, plan.next_hop) == ("mx", "example.com", "a.example.com,b.example.com")
        assert b.router.cached("user@example.com", "example.com", "") is plan


async def test_two_users_of_a_domain_to_two_servers(bench: Bench) -> None:
    rows = [route("one@example.com", "smtp://[192.0.2.51]:25"), route("two@example.com", "smtp://[192.0.2.52]:25")]
    async with bench(ZONE, route=rows) as b:
        hops = [(await b.plan(f"{user}@example.com")).next_hop for user in ("one", "two", "three")]
        assert hops == ["[192.0.2.51]:25", "[192.0.2.52]:25", "a.example.com,b.example.com"]


async def test_sender_dependent_route(bench: Bench) -> None:
    async with bench(ZONE, route=[route("from:corp.example", "smtp://[192.0.2.60]:25")]) as b:
        assert (await b.plan("user@example.com", sender="ann@corp.example")).next_hop == "[192.0.2.60]:25"
        assert (await b.plan("user@example.com", sender="ann@home.example")).via == "mx"
        assert (await b.plan("user@example.com")).via == "mx"


async def test_named_smarthost_is_looked_up_once_for_all_destinations(bench: Bench) -> None:
    async with bench(ZONE, delivery={"smarthost": "inside.test:587"}) as b:
        assert b.router.cached("user@one.example", "one.example", "") is None
        first = await b.plan("user@one.example")
        assert summary(first) == [(0, "inside.test", ("10.0.0.5",), 587)]  # private: the operator named it
        second = b.router.cached("user@two.example", "two.example", "")
        assert second is not None
        assert (second.domain, second.hosts, second.next_hop) == ("two.example", first.hosts, "[inside.test]:587")
        assert b.router.cached("user@two.example", "two.example", "") is second
        b.clock.advance(61)  # the AAAA question was answered with "none" for 60 s
        assert b.router.cached("user@two.example", "two.example", "") is None
        assert (await b.plan("user@two.example")).outcome == "deliver"


async def test_name_in_brackets_is_looked_up_in_the_hosts_file_first(bench: Bench) -> None:
    hosts = "# ours\n10.9.9.9  mailbox.internal Inside.TEST # here\nfd00::9 inside.test\nbroken\n"
    async with bench(ZONE, hosts=hosts, route=[route("*", "smtp://[inside.test]:25")]) as b:
        assert (await b.plan("user@example.com")).hosts[0].addresses == ("fd00::9", "10.9.9.9")
        assert not b.dns.queries
        b.hosts_file.write_text("")
        b.clock.advance(router.HOSTS_FILE_GOOD + 1)
        assert (await b.plan("user@example.com")).hosts[0].addresses == ("10.0.0.5",)


async def test_localhost_needs_neither_file_nor_dns(bench: Bench) -> None:
    async with bench(route=[route("*", "smtp://[localhost]:2526")]) as b:
        assert set((await b.plan("user@example.com")).hosts[0].addresses) == {"127.0.0.1", "::1"}
        assert not b.dns.queries


async def test_route_to_the_mx_of_another_domain(bench: Bench) -> None:
    rows = [route("one.example", "smtp://provider.example"), route("two.example", "smtp://provider.example:26")]
    async with bench(ZONE, route=rows) as b:
        plan = await b.plan("user@one.example")
        assert (plan.domain, plan.via, plan.route) == ("one.example", "route", "one.example")
        assert plan.next_hop == "in1.provider.example,in2.provider.example"
        # the private host is used: an operator named the way
        assert summary(plan) == [
            (10, "in1.provider.example", ("192.0.2.11",), 25),
            (20, "in2.provider.example", ("10.0.0.12",), 25),
        ]
        other = await b.plan("user@two.example")
        assert other.next_hop == "in1.provider.example,in2.provider.example:26"
        assert {host.port for host in other.hosts} == {26}


@pytest.mark.parametrize(
    ("target", "enhanced"),
    [
        ("smtp://[gone.example]:25", "4.4.4"),
        ("smtp://[broken.example]:25", "4.4.3"),
        ("smtp://gone.example", "4.4.4"),
        ("smtp://broken.example", "4.4.4"),
        ("smtp://null.example", "4.4.4"),
        ("smtp://[127.0.0.1]:2525", "4.4.6"),
        ("smtp://[gone.example]:25|smtp://[broken.example]:25", "4.4.4"),
    ],
)
@pytest.mark.parametrize("smarthost", [False, True])
async def test_broken_way_of_the_operator_defers_and_never_bounces(
    bench: Bench, target: str, enhanced: str, smarthost: bool
) -> None:
    tables: dict[str, Any] = {"delivery": {"smarthost": target}} if smarthost else {"route": [route("*", target)]}
    async with bench(ZONE, [("127.0.0.1", 2525)], **tables) as b:
        b.dns.faults["broken.example"] = "servfail"
        plan = await b.plan("user@example.com")
        assert (plan.outcome, plan.code, plan.enhanced) == ("defer", 451, enhanced)
        assert plan.reason.startswith("smarthost smtp://" if smarthost else "route * -> smtp://")
        assert plan.good_until <= b.clock.now() + 5


async def test_smarthost_on_this_machine_with_our_name_is_no_loop(bench: Bench) -> None:
    """A content filter on another port of the same machine."""
    hosts = "127.0.0.1 relay.test"
    async with bench(listeners=[("127.0.0.1", 2525)], hosts=hosts, delivery={"smarthost": "relay.test:10025"}) as b:
        assert summary(await b.plan("user@example.com")) == [(0, "relay.test", ("127.0.0.1",), 10025)]


@pytest.mark.parametrize(
    ("target", "outcome", "code", "enhanced", "reason"),
    [
        ("error:5.1.2 closed for good", "bounce", 550, "5.1.2", "closed for good"),
        ("error:5.7.1", "bounce", 550, "5.7.1", "refused by route example.com -> error:5.7.1"),
        ("error:4.2.1 try tomorrow", "defer", 451, "4.2.1", "try tomorrow"),
        ("defer", "defer", 451, "4.3.0", "deferred by route example.com -> defer"),
        ("hold", "hold", 0, "", "held by route example.com -> hold"),
        ("discard", "discard", 0, "", "discarded by route example.com -> discard"),
    ],
)
async def test_routes_that_lead_to_no_host(
    bench: Bench, target: str, outcome: str, code: int, enhanced: str, reason: str
) -> None:
    async with bench(route=[route("example.com", target)]) as b:
        plan = b.router.cached("user@example.com", "example.com", "")
        assert plan is not None
        assert (plan.outcome, plan.code, plan.enhanced, plan.via) == (outcome, code, enhanced, "route")
        assert reason in plan.reason
        assert plan.hosts == ()
        assert not b.dns.queries


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        ("smtp://[192.0.2.1]:587", {"auth": "ann", "tls": "may"}, "too weak for auth=ann"),
        ("smtp://[192.0.2.1]:25", {"tls": "dane-only"}, "tls=dane-only is not supported by this version"),
        ("mx", {"auth": "ann"}, "whatever hosts the DNS names"),
        ("smtp://[192.0.2.1]:25", {"source": "2001:db8::9"}, "not of the same IP version"),
        ("lmtp:unix:/run/lmtp", {"tls": "encrypt"}, "means nothing on a Unix socket"),
        ("smtps://[192.0.2.1]:465", {"tls": "none"}, "TLS from the start"),
    ],
)
async def test_option_that_cannot_be_kept_defers(
    bench: Bench, target: str, options: dict[str, str], reason: str
) -> None:
    """The configuration and `route set` refuse these; a row that is there all the same never goes a weaker way."""
    async with bench(route=[route("*", target, **options)]) as b:
        plan = await b.plan("user@example.com")
        assert (plan.outcome, plan.enhanced, plan.hosts) == ("defer", "4.3.5", ())
        assert reason in plan.reason


async def test_tls_of_a_route_reaches_its_hosts(bench: Bench) -> None:
    rows = [
        route("one.example", "smtp://[192.0.2.1]:25", tls="none"),
        route("example.com", "mx", tls="may"),
        route("auto.example", "smtp://[192.0.2.1]:25", tls="auto"),
    ]
    async with bench(ZONE, route=rows) as b:
        why = "route one.example -> smtp://[192.0.2.1]:25 says tls=none"
        assert [h.tls for h in (await b.plan("user@one.example")).hosts] == [TlsPolicy("none", "route", why)]
        assert {h.tls.level for h in (await b.plan("user@example.com")).hosts if h.tls} == {"may"}
        assert [h.tls for h in (await b.plan("user@auto.example")).hosts] == [None]


async def test_scheme_and_options_of_a_route_reach_its_hosts(bench: Bench) -> None:
    rows = [
        route("smtps.example", "smtps://[192.0.2.1]"),
        route("auth.example", "smtp://[smart.example]:587", auth="ann"),
        route("local.example", "smtp://[127.0.0.1]:587", auth="ann", source="127.0.0.9"),
        route("lmtp.example", "lmtp://[192.0.2.3]"),
        route("unix.example", "lmtp:unix:/run/lmtp.sock"),
        route("from:boss.example", "smtp://provider.example:587", auth="boss", tls="verify"),
    ]
    async with bench(ZONE, hosts="192.0.2.2 smart.example\n", route=rows) as b:

        async def only(address: str, sender: str = "") -> tuple[PlannedHost, str]:
            plan = await b.plan(address, sender)
            assert plan.outcome == "deliver", plan
            return plan.hosts[0], plan.next_hop

        host, hop = await only("user@smtps.example")
        assert (host.scheme, host.port, hop) == ("smtps", 465, "smtps://[192.0.2.1]:465")
        assert host.tls is not None
        assert (host.tls.level, host.tls.source) == ("encrypt", "route")
        host, hop = await only("user@auth.example")
        assert (host.auth, host.domain, hop) == ("ann", "smart.example", "[smart.example]:587")
        assert host.tls is not None
        assert host.tls.level == "verify"
        assert host.tls.why == "route auth.example -> smtp://[smart.example]:587: auth=ann needs it"
        host, hop = await only("user@local.example")
        assert (host.auth, host.source, host.addresses) == ("ann", "127.0.0.9", ("127.0.0.1",))
        assert hop == "[127.0.0.1]:587"
        assert host.tls is not None
        assert host.tls.level == "encrypt"
        host, hop = await only("user@lmtp.example")
        assert (host.scheme, host.port, hop) == ("lmtp", 24, "lmtp://[192.0.2.3]:24")
        host, hop = await only("user@unix.example")
        assert (host.scheme, host.path, host.name, hop) == (
            "lmtp",
            "/run/lmtp.sock",
            "localhost",
            "lmtp:unix:/run/lmtp.sock",
        )
        assert host.tls is not None
        assert host.tls.level == "none"
        host, hop = await only("user@example.com", sender="ceo@boss.example")
        assert hop == "in1.provider.example,in2.provider.example:587;auth=boss;tls=verify"
        assert (host.auth, host.domain) == ("boss", "provider.example")
        assert host.tls is not None
        assert (host.tls.level, host.tls.match) == ("verify", ("provider.example",))
        host, hop = await only("user@example.com", sender="ann@home.example")
        assert (host.auth, host.domain, hop) == ("", "example.com", "a.example.com,b.example.com")


@pytest.mark.parametrize("default", ["auto", "none", "encrypt", "verify"])
async def test_default_never_weakens_what_a_password_needs(bench: Bench, default: str) -> None:
    delivery = {"smarthost": "smtp://[192.0.2.1]:587", "smarthost_auth": "ann", "secrets": "/x"}
    async with bench(ZONE, delivery=delivery, tls={"default": default}) as b:
        plan = await b.plan("user@example.com")
        [host] = plan.hosts
        assert (host.auth, plan.next_hop) == ("ann", "[192.0.2.1]:587")
        assert (host.tls or TlsPolicy("verify", "config", "")).level == "verify"


async def test_source_of_a_route_leaves_addresses_of_its_ip_version(bench: Bench) -> None:
    hosts = "2001:db8::7 both.example\n192.0.2.7 both.example\n2001:db8::8 six.example\n"
    rows = [
        route("both.example", "smtp://[both.example]", source="192.0.2.99"),
        route("six.example", "smtp://[six.example]", source="192.0.2.99"),
        route("mx.example", "smtp://example.com", source="2001:db8::99"),
    ]
    async with bench(ZONE, hosts=hosts, route=rows) as b:
        plan = await b.plan("user@both.example")
        assert [(host.addresses, host.source) for host in plan.hosts] == [(("192.0.2.7",), "192.0.2.99")]
        for domain in ("six.example", "mx.example"):
            plan = await b.plan(f"user@{domain}")
            assert (plan.outcome, plan.enhanced) == ("defer", "4.4.4")
            assert "has no address of the IP version of source=" in plan.reason


async def test_ways_to_one_host_with_other_options_are_other_next_hops(bench: Bench) -> None:
    target = "smtp://[192.0.2.1]:587"
    rows = [
        route("a.example", target),
        route("b.example", target, auth="ann"),
        route("c.example", target, auth="bob"),
        route("d.example", target, tls="none"),
        route("e.example", target, source="192.0.2.9"),
        route("f.example", "smtps://[192.0.2.1]:587"),
        route("g.example", "lmtp://[192.0.2.1]:587"),
        route("h.example", target, tls="auto"),
    ]
    async with bench(ZONE, route=rows) as b:
        hops = {row["match"]: (await b.plan(f"user@{row['match']}")).next_hop for row in rows}
    assert hops["a.example"] == hops["h.example"] == "[192.0.2.1]:587"
    assert len(set(hops.values())) == len(rows) - 1
    assert not any(" " in hop for hop in hops.values())


async def test_two_ways_to_one_host_have_two_names(bench: Bench) -> None:
    rows = [
        {"match": "a.example", "target": "smtp://[192.0.2.1]:587", "auth": "ann"},
        {"match": "b.example", "target": "smtp://[192.0.2.1]:587", "auth": "bob"},
        {"match": "c.example", "target": "smtp://[192.0.2.1]:587"},
        {"match": "d.example", "target": "smtp://[192.0.2.1]:25", "auth": "ann"},
    ]
    async with bench(ZONE, route=rows, delivery={"secrets": "/x"}) as b:
        names = [(await b.plan(f"user@{domain}.example")).next_hop for domain in "abcd"]
    assert names == ["[192.0.2.1]:587;auth=ann", "[192.0.2.1]:587;auth=bob", "[192.0.2.1]:587", "[192.0.2.1]:25"]


async def test_smarthost_may_be_a_list(bench: Bench) -> None:
    target = "smtp://[192.0.2.1]:587,smtp://[192.0.2.2]:587|smtps://provider.example"
    async with bench(ZONE, delivery={"smarthost": target, "smarthost_auth": "ann", "secrets": "/x"}) as b:
        plan = await b.plan("user@example.com")
        assert [(host.preference, host.scheme, host.port, host.auth) for host in plan.hosts] == [
            (0, "smtp", 587, "ann"),
            (0, "smtp", 587, "ann"),
            (1, "smtps", 465, "ann"),
            (2, "smtps", 465, "ann"),
        ]
        assert plan.next_hop == (
            "[192.0.2.1]:587,[192.0.2.2]:587|smtps://in1.provider.example,in2.provider.example:465;auth=ann"
        )


async def test_list_is_tried_group_by_group(bench: Bench) -> None:
    target = "smtp://[192.0.2.71]:25,smtp://[192.0.2.70]:25|smtp://provider.example|smtp://[192.0.2.90]:25"
    async with bench(ZONE, route=[route("*", target)]) as b:
        plan = await b.plan("user@example.com")
        assert [(host.preference, host.name) for host in plan.hosts] == [
            (0, "192.0.2.71"),
            (0, "192.0.2.70"),
            (1, "in1.provider.example"),
            (2, "in2.provider.example"),
            (3, "192.0.2.90"),
        ]
        site = "in1.provider.example,in2.provider.example"
        assert plan.next_hop == f"[192.0.2.70]:25,[192.0.2.71]:25|{site}|[192.0.2.90]:25"
        firsts = {order(plan.hosts, random.Random(seed))[0].name for seed in range(20)}
        assert firsts == {"192.0.2.70", "192.0.2.71"}


async def test_list_goes_on_where_one_way_fails(bench: Bench) -> None:
    async with bench(ZONE, route=[route("*", "smtp://[gone.example]:25|smtp://[192.0.2.90]:25")]) as b:
        plan = await b.plan("user@example.com")
        assert plan.outcome == "deliver"
        assert [host.addresses for host in plan.hosts] == [(), ("192.0.2.90",)]
        assert plan.good_until <= b.clock.now() + 5


async def test_mx_with_a_fallback(bench: Bench) -> None:
    async with bench(ZONE, delivery={"smarthost": "mx|smtp://[192.0.2.90]:25"}) as b:
        plan = await b.plan("user@example.com")
        assert [host.name for host in plan.hosts] == ["a.example.com", "b.example.com", "192.0.2.90"]
        # it is for domains that cannot be reached, not for those that take no mail
        for domain, enhanced in (("null.example", "5.1.10"), ("gone.example", "5.1.2")):
            plan = await b.plan(f"user@{domain}")
            assert (plan.outcome, plan.enhanced) == ("bounce", enhanced)
        b.dns.faults["late.example"] = "servfail"
        plan = await b.plan("user@late.example")
        assert (plan.outcome, [host.name for host in plan.hosts]) == ("deliver", ["192.0.2.90"])


async def test_smarthost_takes_literals_and_unknown_domains_too(bench: Bench) -> None:
    async with bench(delivery={"smarthost": "192.0.2.100:25"}) as b:
        assert (await b.plan("user@[10.0.0.1]")).next_hop == "[192.0.2.100]:25"
        assert (await b.plan("user@gone.example")).next_hop == "[192.0.2.100]:25"


async def test_cached_asks_nobody_and_gives_the_plan_of_before(bench: Bench) -> None:
    async with bench(ZONE) as b:
        assert b.router.cached("user@example.com", "example.com", "") is None
        plan = await b.plan("user@example.com")
        asked = b.dns.queries.total()
        assert b.router.cached("other@example.com", "example.com", "x@y.example") is plan
        assert b.dns.queries.total() == asked
        b.router.forget()
        assert b.router.cached("user@example.com", "example.com", "") is None


async def test_plan_as_json(bench: Bench) -> None:
    async with bench(ZONE) as b:
        b.dns.faults["b.example.com"] = "servfail"
        document = plan_json(await b.plan("example.com"), TlsPolicy("may", "default", "nothing else is said"))
        assert json.loads(json.dumps(document)) == document
        tls = {"level": "may", "source": "default", "why": "nothing else is said"}
        error = document["hosts"][1].pop("error")
        assert "SERVFAIL" in error
        assert document == {
            "domain": "example.com",
            "next_hop": "a.example.com,b.example.com",
            "outcome": "deliver",
            "via": "mx",
            "code": None,
            "enhanced": "",
            "reason": "MX of example.com",
            "dnssec": "insecure",
            "route": "",
            "hosts": [
                {
                    "preference": 10,
                    "name": "a.example.com",
                    "addresses": ["192.0.2.1"],
                    "port": 25,
                    "scheme": "smtp",
                    "auth": None,
                    "source": None,
                    "tls": tls,
                    "tlsa": None,
                    "error": None,
                },
                {
                    "preference": 20,
                    "name": "b.example.com",
                    "addresses": [],
                    "port": 25,
                    "scheme": "smtp",
                    "auth": None,
                    "source": None,
                    "tls": tls,
                    "tlsa": None,
                },
            ],
            "sts": None,
            "dropped": [],
        }


async def test_bounce_as_json(bench: Bench) -> None:
    async with bench(ZONE) as b:
        document = plan_json(await b.plan("null.example"))
        assert (document["outcome"], document["via"], document["code"]) == ("bounce", "null-mx", 556)
        assert (document["enhanced"], document["hosts"]) == ("5.1.10", [])
