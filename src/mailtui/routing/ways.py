"""The ways that an operator gives: what a row's options make of its hosts, and several next hops as one plan.

Pure. Promises: a level is never weaker than `routes.least_level`; what tells two ways to one host apart (scheme, and
where rows differ in them, options) stands in the plan's next hop, so that they share neither line nor back-off.
"""

from collections.abc import Sequence
from dataclasses import replace

from mailtui.clock import Clock
from mailtui.model import Plan, PlannedHost, TlsPolicy
from mailtui.routing.mx import MAX_GOOD
from mailtui.routing.routes import Hop, Route, least_level, stronger


def dress(plan: Plan, hop: Hop, route: Route, default: str) -> Plan:
    """`plan` with the scheme of `hop` and the options of `route` on its hosts; those that the options exclude are
    dropped. `default`: `[tls] default`."""
    if plan.outcome != "deliver" or not plan.hosts:
        return plan
    tls = _tls(hop, route, default)
    hosts: list[PlannedHost] = []
    dropped = list(plan.dropped)
    for host in plan.hosts:
        why = ""
        addresses = host.addresses
        if route.source and not hop.path:
            addresses = tuple(address for address in addresses if (":" in address) == (":" in route.source))
            if host.addresses and not addresses:
                why = f"{host.name} has no address of the IP version of source={route.source}"
        if why:
            dropped.append((host.name, why))
            continue
        hosts.append(
            replace(
                host, addresses=addresses, tls=tls, scheme=hop.scheme, path=hop.path, auth=route.auth,
                source=route.source,
            )
        )  # fmt: skip
    named = plan.next_hop
    if hop.mx and hop.scheme != "smtp":
        named = f"{hop.scheme}://{named}"
    return replace(plan, next_hop=named, hosts=tuple(hosts), dropped=tuple(dropped))


def _tls(hop: Hop, route: Route, default: str) -> TlsPolicy | None:
    """The level of a route's host; None leaves it to `[tls] default`."""
    if hop.path:
        return TlsPolicy("none", "route", "a Unix socket does not leave this machine")
    match = (hop.host,) if hop.mx and hop.host else ()  # the operator named the domain, the DNS the host
    least = least_level(hop, route.auth)
    said = "" if route.tls == "auto" else route.tls
    level = stronger(least, said or default)
    if level != least or said == least:  # nothing had to be raised
        return TlsPolicy(said, "route", f"{route.label} says tls={said}", match) if said else None
    if least == "none":
        return None
    why = f"auth={route.auth} needs it" if route.auth else "smtps:// is TLS from the start"
    return TlsPolicy(level, "route", f"{route.label}: {why}", match)


def combine(groups: Sequence[Sequence[Plan]], route: Route, clock: Clock, apart: frozenset[Route]) -> Plan:
    """One plan of several: groups after one another, the plans of a group side by side, each by its own preferences.
    `apart`: see `told_apart`."""
    plans = [plan for group in groups for plan in group]
    if len(plans) == 1:
        return _named(plans[0], route, apart)
    for plan, hop in zip(groups[0], route.target.groups[0], strict=True):
        if plan.outcome == "bounce" and not hop.host and not hop.path:
            return plan  # the domain's own word is asked for first, and it is final
    hosts: list[PlannedHost] = []
    for group in groups:
        base = hosts[-1].preference + 1 if hosts else 0
        ranked: list[PlannedHost] = []
        for plan in group:
            ranks = {number: rank for rank, number in enumerate(sorted({host.preference for host in plan.hosts}))}
            ranked += [replace(host, preference=base + ranks[host.preference]) for host in plan.hosts]
        hosts += sorted(ranked, key=lambda host: host.preference)
    named = (",".join(sorted(plan.next_hop for plan in group if plan.next_hop)) for group in groups)
    whole = replace(
        plans[0],
        next_hop="|".join(filter(None, named)),
        outcome="deliver",
        via=route.via,
        hosts=tuple(hosts),
        code=0,
        enhanced="",
        reason=route.label,
        dnssec="indeterminate",
        dropped=tuple(drop for plan in plans for drop in plan.dropped),
        good_until=min([clock.now() + MAX_GOOD, *(plan.good_until for plan in plans)]),
    )
    if any(host.addresses for host in hosts):
        return _named(whole, route, apart)
    reasons = "; ".join(dict.fromkeys(plan.reason for plan in plans))
    return replace(whole, outcome="defer", code=451, enhanced="4.4.4", reason=reasons)


def told_apart(routes: Sequence[Route]) -> frozenset[Route]:
    """The rows whose options have to stand in their next hop's name: those that lead where another row leads with other
    options, or to hosts that mail without any row goes to as well."""
    options: dict[tuple[str, str, int], set[str]] = {}
    for route in routes:
        for hop in route.target.hops:
            options.setdefault((hop.scheme, hop.path or hop.host, hop.port), set()).add(route.options)
    return frozenset(
        route
        for route in routes
        if any(hop.mx or len(options[hop.scheme, hop.path or hop.host, hop.port]) > 1 for hop in route.target.hops)
    )


def _named(plan: Plan, route: Route, apart: frozenset[Route]) -> Plan:
    """The next hop, with the row's options where it needs them: "[host]:587;auth=ann"."""
    return replace(plan, next_hop=plan.next_hop + route.options) if plan.next_hop and route in apart else plan
