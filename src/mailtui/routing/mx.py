"""From a domain to its mail hosts: the algorithm of RFC 5321 section 5.1, with RFC 7505 (null MX).

Promises: it never raises for DNS trouble; hosts that are ourselves, and those not better than we, are not in the plan;
where the DNS points to a private place the plan does not follow; what one domain can make us ask is bounded.

What becomes of a domain (standards D01-D08; `code enhanced`):

| the DNS says                                  | the plan                                             |
|-----------------------------------------------|------------------------------------------------------|
| MX                                            | those hosts, by preference                           |
| a single MX `.`                               | bounce 556 5.1.10                                    |
| no MX, but A or AAAA                          | the domain itself (implicit MX)                      |
| the name, but neither MX nor A nor AAAA       | bounce 550 5.4.4                                     |
| no such domain; not a domain name             | bounce 550 5.1.2                                     |
| SERVFAIL, time-out, failed DNSSEC validation  | defer 451 4.4.3                                      |
| MX, but no host of it has an address          | bounce 550 5.4.4, or defer 451 4.4.3 if one may heal |
| MX, but all hosts are private places          | bounce 550 5.4.4: the domain must mend its DNS       |
| we are the best host                          | bounce 554 5.4.6                                     |

The addresses of the domain are never used when there is an MX.
"""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailtui.clock import Clock
from mailtui.model import Plan, PlannedHost
from mailtui.routing.addresses import Network, Ourselves, arrange, refusal
from mailtui.routing.plan import endpoint, site
from mailtui.routing.resolver import Answer, Resolver, Status

# R12. The largest providers publish five or six MX; RFC 5321 section 5.1 asks for at least two to be tried.
MAX_HOSTS = 20
# R12. An attempt tries five addresses; the others let the plan outlive a few dead ones.
MAX_ADDRESSES = 10
# A plan lives as long as what it is made of (D14), within these: a second, so that a TTL of 0 does not mean a plan a
# recipient; an hour, so that a decision is looked at again even when the DNS says it is good for a week.
MIN_GOOD, MAX_GOOD = 1.0, 3600.0
# A plan that fails, or lacks a host for now, is asked for again after this long: it spares the resolver a query for
# each of many recipients due at once, and delays recovery by no more than the jitter of a retry does.
FAILED_GOOD = 5.0
# A plan whose host lacks one family because its look-up failed: it works, and some servers never answer AAAA.
PARTIAL_GOOD = 60.0

_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration has to say about hosts."""

    port: int  # where to connect
    usual_port: int  # `[delivery] port`
    prefer: str  # any | ipv4 | ipv6
    ourselves: Ourselves
    allowed: Sequence[Network]
    named: bool = False  # an operator named this way, so it may lead to private places


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """A and AAAA of a host, looked up. With addresses it is usable; else `error` says why not."""

    addresses: tuple[str, ...]
    error: str = ""
    temporary: bool = False
    canonical: str = ""
    expires: float = math.inf  # of the clock's monotonic time


@dataclass(frozen=True, slots=True)
class _Sifted:
    """Candidates after the look-up of their addresses."""

    hosts: tuple[PlannedHost, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    own: bool = False  # we are among them
    lost: tuple[str, ...] = ()  # why hosts that are not ourselves, and better than we, cannot be used
    aliases: tuple[str, ...] = ()  # hosts that are CNAMEs
    expires: float = math.inf

    @property
    def usable(self) -> bool:
        return any(host.addresses for host in self.hosts)


def good_until(clock: Clock, expires: float, limit: float = MAX_GOOD) -> float:
    """Wall time until which a plan is good whose answers expire at `expires` (monotonic); at most `limit` seconds."""
    return clock.now() + min(max(expires - clock.monotonic(), MIN_GOOD), limit)


async def lookup_host(resolver: Resolver, clock: Clock, name: str, prefer: str = "any") -> HostAddresses:
    """The addresses of a host. One family that cannot be looked up does not spoil the other (D08)."""
    answers = await asyncio.gather(resolver.lookup(name, "A"), resolver.lookup(name, "AAAA"))
    now = clock.monotonic()
    temporary = [answer for answer in answers if answer.status.temporary]
    lasting = [answer.expires for answer in answers if not answer.status.temporary]
    expires = min([*lasting, *([now + PARTIAL_GOOD] if temporary else [])])
    found = [record.address for answer in answers for record in answer.records]
    if found:
        canonical = next(answer.canonical for answer in answers if answer.records)
        return HostAddresses(arrange(found, prefer)[:MAX_ADDRESSES], canonical=canonical, expires=expires)
    gone = [answer for answer in answers if answer.status in (Status.NXDOMAIN, Status.BAD_NAME)]
    if gone:  # true of the name, whatever became of the other question
        return HostAddresses((), f"{name}: {gone[0].status}", expires=max(gone[0].expires, now + MIN_GOOD))
    if temporary:
        text = "; ".join(dict.fromkeys(f"{answer.rdtype}: {answer.text}" for answer in temporary))
        return HostAddresses((), f"{name}: {text}", True, expires=now + FAILED_GOOD)
    return HostAddresses((), f"{name}: no A or AAAA records", expires=expires)


async def mx_plan(resolver: Resolver, clock: Clock, domain: str, rules: Rules) -> Plan:
    """The plan of `domain` (a lower-case A-label) by its MX; the module's table says what may become of it."""
    answer = await resolver.lookup(domain, "MX")
    if answer.status is Status.FOUND:
        return await _explicit(resolver, clock, domain, answer, rules)
    if answer.status is Status.NODATA:
        return await _implicit(resolver, clock, domain, answer, rules)

    def fail(outcome: str, code: int, enhanced: str, reason: str) -> Plan:
        until = good_until(clock, math.inf if answer.status.temporary else answer.expires, FAILED_GOOD)
        return Plan(domain, "", outcome, "none", (), code, enhanced, reason, answer.dnssec, good_until=until)

    if answer.status is Status.NXDOMAIN:
        return fail("bounce", 550, "5.1.2", f"the domain {domain} does not exist (NXDOMAIN)")
    if answer.status is Status.BAD_NAME:
        return fail("bounce", 550, "5.1.2", f"{domain or 'the address'} has no domain name that can be looked up")
    return fail("defer", 451, "4.4.3", f"the MX of {domain} cannot be looked up: {answer.text}")


def literal_plan(clock: Clock, destination: str, rules: Rules) -> Plan:
    """The plan of an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`: no DNS (D11)."""
    address = destination[1:-1].removeprefix("IPv6:")
    sifted = _sift([(0, address)], [HostAddresses((address,))], rules)
    hop, until = endpoint(address, rules.port), good_until(clock, math.inf)
    if sifted.usable:
        hosts = tuple(replace(host, domain=destination) for host in sifted.hosts)
        return Plan(destination, hop, "deliver", "none", hosts, reason="an address: no DNS", good_until=until)
    code, enhanced, reason = 554, "5.4.6", f"mail for {destination} loops back to ourselves"
    if not sifted.own:
        code, enhanced, reason = 550, "5.4.4", sifted.lost[0]
    dropped = sifted.dropped
    return Plan(destination, hop, "bounce", "none", (), code, enhanced, reason, dropped=dropped, good_until=until)


async def _explicit(resolver: Resolver, clock: Clock, domain: str, answer: Answer, rules: Rules) -> Plan:
    """There are MX records."""
    candidates, dropped = _candidates(answer)
    if not candidates and len(answer.records) == 1 and answer.records[0].exchange.to_text() == ".":
        good = good_until(clock, answer.expires, FAILED_GOOD)
        reason = f"{domain} accepts no mail (null MX, RFC 7505)"
        return Plan(domain, "", "bounce", "null-mx", (), 556, "5.1.10", reason, answer.dnssec, good_until=good)
    named = min((preference for preference, name in candidates if rules.ourselves.is_name(name)), default=None)
    candidates, cut = _cut(candidates, named, rules.ourselves.is_name)
    found = await asyncio.gather(*(lookup_host(resolver, clock, name, rules.prefer) for _, name in candidates))
    sifted = _sift(candidates, found, rules)
    return _conclude(clock, domain, "mx", answer, sifted, (*dropped, *cut), rules, named is not None)


async def _implicit(resolver: Resolver, clock: Clock, domain: str, answer: Answer, rules: Rules) -> Plan:
    """There is no MX: the domain itself is the host, with preference 0."""
    host = answer.canonical
    if rules.ourselves.is_name(host):
        _, cut = _cut([(0, host)], 0, rules.ourselves.is_name)
        return _conclude(clock, domain, "implicit-mx", answer, _Sifted(), cut, rules, True)
    found = await lookup_host(resolver, clock, host, rules.prefer)
    if not found.addresses and not found.temporary:
        good = good_until(clock, min(answer.expires, found.expires), FAILED_GOOD)
        reason = f"{domain} has neither MX nor address records"
        return Plan(domain, "", "bounce", "none", (), 550, "5.4.4", reason, answer.dnssec, good_until=good)
    return _conclude(clock, domain, "implicit-mx", answer, _sift([(0, host)], [found], rules), (), rules, False)


def _candidates(answer: Answer) -> tuple[list[tuple[int, str]], list[tuple[str, str]]]:
    """MX records as (preference, lower-case name), best first, each name once; and what is no host, with the reason."""
    best: dict[str, int] = {}
    for record in sorted(answer.records, key=lambda record: int(record.preference)):
        best.setdefault(record.exchange.to_text(omit_final_dot=True).lower(), record.preference)
    candidates: list[tuple[int, str]] = []
    dropped: list[tuple[str, str]] = []
    for name, preference in best.items():
        if name == ".":
            dropped.append((name, "a null MX among others means nothing (RFC 7505 section 3)"))
        elif not re.search("[a-z_]", name):
            dropped.append((name, "an MX must name a host, this is an address (RFC 1035 section 3.3.9)"))
        elif not _HOST.fullmatch(name):
            dropped.append((name, "not a host name"))
        elif len(candidates) == MAX_HOSTS:
            dropped.append((name, f"one MX too many: {MAX_HOSTS} are looked up"))
        else:
            candidates.append((preference, name))
    return candidates, dropped


def _cut(
    candidates: list[tuple[int, str]], own: int | None, is_own: Callable[[str], bool]
) -> tuple[list[tuple[int, str]], list[tuple[str, str]]]:
    """Without ourselves and the hosts that are not better than we (D07): they would send the mail back to us."""
    if own is None:
        return candidates, []
    kept = [candidate for candidate in candidates if candidate[0] < own]
    cut = [candidate for candidate in candidates if candidate[0] >= own]
    return kept, [
        (name, f"this is ourselves, at preference {preference}")
        if is_own(name)
        else (name, f"preference {preference} is not better than our own, {own}")
        for preference, name in cut
    ]


def _sift(candidates: Sequence[tuple[int, str]], found: Sequence[HostAddresses], rules: Rules) -> _Sifted:
    """Drop ourselves by address, private places and hosts that do not exist; keep hosts that fail for now."""
    ours = {
        name
        for (_, name), host in zip(candidates, found, strict=True)
        if rules.ourselves.is_name(host.canonical)
        or any(rules.ourselves.is_address(address, rules.port) for address in host.addresses)
    }
    own = min((preference for preference, name in candidates if name in ours), default=None)
    kept, dropped = _cut(list(candidates), own, ours.__contains__)
    lookups = {name: host for (_, name), host in zip(candidates, found, strict=True)}
    hosts: list[PlannedHost] = []
    lost: list[tuple[str, str]] = []
    for preference, name in kept:
        host = lookups[name]
        refused = [] if rules.named else [refusal(address, rules.allowed) for address in host.addresses]
        lost += [(name, why) for why in dict.fromkeys(refused) if why]
        addresses = tuple(address for index, address in enumerate(host.addresses) if not refused or not refused[index])
        if addresses:
            hosts.append(PlannedHost(preference, name, addresses, rules.port))
        elif host.temporary:
            hosts.append(PlannedHost(preference, name, (), rules.port, host.error, True))
        elif host.error:
            lost.append((name, host.error))
    return _Sifted(
        tuple(hosts),
        (*dropped, *lost),
        own is not None,
        tuple(why for _, why in lost),
        tuple(name for _, name in kept if lookups[name].canonical not in ("", name)),
        min((host.expires for host in found), default=math.inf),
    )


def _conclude(
    clock: Clock,
    domain: str,
    via: str,
    answer: Answer,
    sifted: _Sifted,
    dropped: Sequence[tuple[str, str]],
    rules: Rules,
    own: bool,
) -> Plan:
    """The plan of what is left. `dropped` and `own`: what was known before any address was (`own`: we, by name)."""
    failing = [host.error for host in sifted.hosts if host.error]
    hop = site((host.name for host in sifted.hosts), rules.port, rules.usual_port) if sifted.hosts else ""
    code, enhanced = 0, ""
    if sifted.usable:
        outcome = "deliver"
        reason = f"MX of {domain}" if via == "mx" else f"{domain} has no MX: its own addresses (implicit MX)"
        if answer.canonical != domain:
            reason += f"; {domain} is an alias of {answer.canonical}"
        if via == "mx" and sifted.aliases:
            reason += f"; a fault of the domain: {', '.join(sifted.aliases)} is a CNAME (RFC 2181 section 10.3)"
    elif failing:
        outcome, code, enhanced = "defer", 451, "4.4.3"
        reason = f"no mail host of {domain} can be looked up: {failing[0]}"
    elif (own or sifted.own) and not sifted.lost:
        outcome, code, enhanced = "bounce", 554, "5.4.6"
        reason = f"mail for {domain} loops back to ourselves: we are its best mail host"
    else:
        outcome, code, enhanced = "bounce", 550, "5.4.4"
        reason = f"no mail host of {domain} can be used: {'; '.join(sifted.lost[:3]) or 'no MX names a host'}"
    limit = MAX_GOOD if sifted.usable and not failing else FAILED_GOOD
    return Plan(
        domain,
        hop,
        outcome,
        via,
        tuple(replace(host, domain=domain) for host in sifted.hosts),
        code,
        enhanced,
        reason,
        answer.dnssec,
        dropped=(*dropped, *sifted.dropped),
        good_until=good_until(clock, min(answer.expires, sifted.expires), limit),
    )
