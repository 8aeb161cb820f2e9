"""The router: route table, then smarthost, then MX. It makes the plan of a recipient and keeps it while it is good.

Promises: `cached` does no I/O and costs microseconds; `plan` never raises for DNS trouble. A way that an operator gave
(route, smarthost) never bounces mail because it is broken: what is wrong there can be mended, so mail waits.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mailtui.clock import Clock
from mailtui.model import Plan, PlannedHost
from mailtui.routing.addresses import Ourselves, arrange
from mailtui.routing.hosts import HOSTS_FILE, HostsFile
from mailtui.routing.mx import (
    FAILED_GOOD,
    MAX_ADDRESSES,
    HostAddresses,
    Rules,
    good_until,
    literal_plan,
    lookup_host,
    mx_plan,
)
from mailtui.routing.plan import endpoint, order, plan_json
from mailtui.routing.resolver import Resolver
from mailtui.routing.routes import (
    Hop,
    Route,
    RouteRow,
    RouteTable,
    is_address,
    parse_match,
    parse_target,
    route_of,
    unsupported,
)
from mailtui.routing.ways import combine, dress, told_apart
from mailtui.settings import Settings

__all__ = ["Router", "order", "plan_json"]

# Plans kept: twice the destinations of a large queue (architecture.md "Tests"), about 1 KiB each.
MAX_PLANS = 10_000
# Addresses from the hosts file carry no TTL; the file may be edited while mail waits for it.
HOSTS_FILE_GOOD = 30.0


class Router:
    """The ways of mail under `settings`. `listeners`: the (address, port) pairs we listen on, asked when planning.

    ValueError if the route table cannot be used (`config` has checked that before).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        resolver: Resolver,
        listeners: Callable[[], Sequence[tuple[str, int]]] = lambda: (),
        *,
        hosts_file: Path = HOSTS_FILE,
    ) -> None:
        self._clock = clock
        self._resolver = resolver
        self._hosts_file = HostsFile(hosts_file)
        self._listeners = listeners
        self._table = RouteTable()
        self._smarthost: Route | None = None
        self._given_targets: dict[str, Route] = {}
        # Plans and, for a way that is the same for every destination, that way; with the monotonic time of their end.
        self._plans: dict[tuple[Route | None, str], tuple[Plan, float]] = {}
        self._ways: dict[Route, tuple[Plan, float]] = {}
        self.use(settings)

    def use(self, settings: Settings, live: Iterable[RouteRow] = ()) -> None:
        """Route by these settings from now on; a live row beats the file's of the same match. ValueError as above."""
        delivery = settings.delivery
        rows = {str(parse_match(row.match)): row for row in (*settings.route, *live)}
        self._table = RouteTable(route_of(row) for row in rows.values())
        self._smarthost = None
        if delivery.smarthost:
            self._smarthost = Route("", parse_target(delivery.smarthost), "smarthost", delivery.smarthost_auth)
        self._apart = told_apart([*self._table.routes, *([self._smarthost] if self._smarthost else [])])
        own_names = [settings.hostname, *delivery.own_names]
        self._rules = Rules(
            delivery.port,
            delivery.port,
            delivery.prefer,
            Ourselves(own_names, delivery.own_addresses, self._listeners),
            tuple(delivery.allow_networks),
        )
        self._tls_default = settings.tls.default
        self.forget()

    def cached(self, address: str, destination: str, sender: str, target: str = "") -> Plan | None:
        """The plan if it is known or needs no look-up; None if `plan` must be awaited. `sender` "" is <>.

        `target`: where an operator sent this recipient (`reroute`), whatever the table says."""
        route = self._operators(target) if target else self._find(address, destination, sender)
        held = self._plans.get((route, destination))
        if held is not None and self._clock.monotonic() < held[1]:
            return held[0]
        plan = self._without_asking(route, destination)
        return None if plan is None else self._keep(route, destination, plan)

    async def plan(self, address: str, destination: str, sender: str, target: str = "") -> Plan:
        """The plan of a recipient; of a domain alone if `address` is "". `target` as for `cached`."""
        known = self.cached(address, destination, sender, target)
        if known is not None:
            return known
        route = self._operators(target) if target else self._find(address, destination, sender)
        if route is None:
            plan = await mx_plan(self._resolver, self._clock, destination, self._rules)
        else:
            plan = await self._by_route(route, destination)
        return self._keep(route, destination, plan)

    def forget(self) -> None:
        """Drop every kept plan: the listeners or the DNS have changed."""
        self._plans.clear()
        self._ways.clear()

    def _operators(self, target: str) -> Route:
        """The route of a target that an operator gave; the target is its match, so that it stays with the recipient."""
        route = self._given_targets.get(target)
        if route is None:
            if len(self._given_targets) >= MAX_PLANS:
                self._given_targets.clear()
            route = self._given_targets[target] = Route(target, parse_target(target))
        return route

    def _find(self, address: str, destination: str, sender: str) -> Route | None:
        if not self._table.routes:
            return self._smarthost
        return self._table.find(address, destination, sender) or self._smarthost

    def _keep(self, route: Route | None, destination: str, plan: Plan) -> Plan:
        if len(self._plans) >= MAX_PLANS:
            del self._plans[next(iter(self._plans))]  # the oldest
        self._plans[route, destination] = (plan, self._end(plan))
        return plan

    def _end(self, plan: Plan) -> float:
        """Monotonic: a step of the wall clock must not keep a plan alive."""
        return self._clock.monotonic() + plan.good_until - self._clock.now()

    def _without_asking(self, route: Route | None, destination: str) -> Plan | None:
        """The plan where it takes neither DNS nor a file."""
        if route is None:
            return literal_plan(self._clock, destination, self._rules) if destination.startswith("[") else None
        if (plan := self._fixed(route, destination)) is not None:
            return plan
        way = self._ways.get(route)
        if way is not None and self._clock.monotonic() < way[1]:
            return replace(way[0], domain=destination)
        if any(hop.mx or not (hop.path or is_address(hop.host)) for hop in route.target.hops):
            return None
        groups = [
            [self._given(hop, HostAddresses((hop.path or hop.host,)), route) for hop in group]
            for group in route.target.groups
        ]
        return replace(self._keep_way(route, combine(groups, route, self._clock, self._apart)), domain=destination)

    def _keep_way(self, route: Route, way: Plan) -> Plan:
        self._ways[route] = (way, self._end(way))
        return way

    def _fixed(self, route: Route, destination: str) -> Plan | None:
        """The plan of a route that leads to no host, or None."""
        target = route.target
        until = good_until(self._clock, math.inf)

        def fixed(outcome: str, code: int, enhanced: str, reason: str) -> Plan:
            return Plan(
                destination, "", outcome, route.via, (), code, enhanced, reason, route=route.match, good_until=until
            )

        if target.action == "error":
            outcome, code = ("defer", 451) if target.enhanced.startswith("4") else ("bounce", 550)
            return fixed(outcome, code, target.enhanced, target.text or f"refused by {route.label}")
        if target.action == "defer":
            return fixed("defer", 451, "4.3.0", f"deferred by {route.label}")
        if target.action in ("hold", "discard"):
            word = "held" if target.action == "hold" else "discarded"
            return fixed(target.action, 0, "", f"{word} by {route.label}")
        why = unsupported(target, auth=route.auth, source=route.source, tls=route.tls)
        return fixed("defer", 451, "4.3.5", f"{route.label}: {why}") if why else None

    async def _by_route(self, route: Route, destination: str) -> Plan:
        """The plan of a route that leads to hosts."""
        groups = await asyncio.gather(
            *(
                asyncio.gather(*(self._by_hop(hop, route, destination) for hop in group))
                for group in route.target.groups
            )
        )
        plan = combine(groups, route, self._clock, self._apart)
        if all(hop.host or hop.path for hop in route.target.hops):
            self._keep_way(route, plan)
        return replace(plan, domain=destination)

    async def _by_hop(self, hop: Hop, route: Route, destination: str) -> Plan:
        if not hop.mx:
            return self._given(hop, await self._look_up(hop.host), route)
        if not hop.host:
            if destination.startswith("["):
                plan = literal_plan(self._clock, destination, self._rules)
            else:
                plan = await mx_plan(self._resolver, self._clock, destination, self._rules)
            return self._dressed(replace(plan, route=route.match), hop, route)
        rules = replace(self._rules, port=hop.port or self._rules.port, named=True)
        plan = await mx_plan(self._resolver, self._clock, hop.host, rules)
        plan = replace(plan, via=route.via, route=route.match)
        if plan.outcome == "deliver":
            return self._dressed(replace(plan, reason=f"{route.label}: {plan.reason}"), hop, route)
        return self._broken(plan, route, "4.4.6" if plan.enhanced == "5.4.6" else "4.4.4")

    async def _look_up(self, host: str) -> HostAddresses:
        """A name in brackets: the hosts file, then the DNS."""
        if is_address(host):
            return HostAddresses((host,))
        addresses = self._hosts_file.find(host)
        if addresses:
            expires = self._clock.monotonic() + HOSTS_FILE_GOOD
            return HostAddresses(arrange(addresses, self._rules.prefer)[:MAX_ADDRESSES], expires=expires)
        return await lookup_host(self._resolver, self._clock, host, self._rules.prefer)

    def _given(self, hop: Hop, found: HostAddresses, route: Route) -> Plan:
        """The plan of one host that an operator gave. Private places are his to name; our own listener is a loop."""
        port = hop.port or self._rules.port
        where = str(hop) if hop.path else endpoint(hop.host, port, hop.scheme)
        own = [a for a in found.addresses if not hop.path and self._rules.ourselves.is_listener(a, port)]
        addresses = tuple(address for address in found.addresses if address not in own)
        # A Unix socket: its path stands for the address, and it is this machine.
        host = PlannedHost(0, hop.host or "localhost", addresses, port, found.error, bool(found.error), path=hop.path)
        host = replace(host, domain=host.name)
        until = good_until(self._clock, found.expires)
        plan = Plan("", where, "deliver", route.via, (host,), reason=route.label, route=route.match)
        if addresses:
            return self._dressed(replace(plan, good_until=until), hop, route)
        if own:
            why = f"{where} is ourselves"
            plan = replace(plan, hosts=(), reason=why, dropped=((hop.host, why),))
            return self._broken(plan, route, "4.4.6")
        return self._broken(replace(plan, reason=found.error), route, "4.4.3" if found.temporary else "4.4.4")

    def _dressed(self, plan: Plan, hop: Hop, route: Route) -> Plan:
        """The plan with the row's options on its hosts; broken if they exclude all of them."""
        plan = dress(plan, hop, route, self._tls_default)
        if plan.outcome == "deliver" and not plan.hosts:
            return self._broken(replace(plan, reason=plan.dropped[-1][1]), route, "4.4.4")
        return plan

    def _broken(self, plan: Plan, route: Route, enhanced: str) -> Plan:
        """A way of the operator's that leads nowhere now: mail waits until he has mended it, or until it expires."""
        return replace(
            plan,
            outcome="defer",
            code=451,
            enhanced=enhanced,
            reason=f"{route.label}: {plan.reason}",
            good_until=self._clock.now() + FAILED_GOOD,
        )
