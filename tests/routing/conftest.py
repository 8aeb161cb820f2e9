"""A router over a real DNS server, on a clock that the test sets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Plan
from mailtui.routing.resolver import Resolver
from mailtui.routing.router import Router
from mailtui.settings import Settings
from tests.support.dns import DnsServer


@dataclass
class Bench:
    router: Router
    resolver: Resolver
    dns: DnsServer
    clock: ManualClock
    listeners: list[tuple[str, int]]
    hosts_file: Path

    async def plan(self, address: str, sender: str = "") -> Plan:
        """The plan of an address, or of a domain alone."""
        local, _, domain = address.rpartition("@")
        return await self.router.plan(address if local else "", domain, sender)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Any]:
    """`async with bench(zone, [listeners], hosts="...", delivery={...}, route=[...]) as bench:`"""

    @asynccontextmanager
    async def make(
        zone: str = "", listeners: list[tuple[str, int]] | None = None, hosts: str = "", **tables: Any
    ) -> AsyncIterator[Bench]:
        async with DnsServer(zone) as dns:
            settings = Settings.model_validate({"hostname": "relay.test", **tables})
            clock = ManualClock()
            resolver = Resolver([dns.endpoint], 0.5, clock=clock)
            ours = listeners if listeners is not None else []
            hosts_file = tmp_path / "hosts"
            hosts_file.write_text(hosts)
            router = Router(settings, clock, resolver, lambda: ours, hosts_file=hosts_file)
            yield Bench(router, resolver, dns, clock, ours, hosts_file)

    return make
