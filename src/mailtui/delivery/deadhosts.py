"""Hosts that gave no session a while ago: they are tried last, so that one dead MX of a site does not cost every
message its time-out.

Promises: no host is ever left out, and where all of them are dead their order is the plan's; a host's turn comes again
after a while, with one attempt; memory is bounded.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from mailtui.model import PlannedHost

# How long an address is tried last: a host that restarts is back within a minute, one that is down for a day costs one
# time-out every ten minutes.
DEAD_FIRST = 60.0
DEAD_LAST = 600.0

# Whoever has the turn to try a dead address again has this long before somebody else gets it: longer than
# `[delivery] connect_timeout` by default.
PROBE = 60.0

# Addresses remembered, about 200 octets each; the one that failed longest ago goes first.
MAX_DEAD = 10_000


class DeadHosts:
    """The memory. An address is one with its port; times are monotonic."""

    def __init__(self) -> None:
        self._dead: OrderedDict[tuple[str, int], tuple[float, int]] = OrderedDict()  # (until, failures in a row)

    def __len__(self) -> int:
        return len(self._dead)

    def failed(self, address: str, port: int, now: float) -> None:
        """A connection to it came to nothing, or it refused the session."""
        until, failures = self._dead.pop((address, port), (now, 0))
        if now > until + DEAD_LAST:
            failures = 0  # it was not tried for long: that is news
        self._dead[address, port] = (now + min(DEAD_LAST, DEAD_FIRST * 2**failures), min(failures + 1, 10))
        if len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)

    def answered(self, address: str, port: int) -> None:
        """A session was had."""
        self._dead.pop((address, port), None)

    def last(self, hosts: Sequence[PlannedHost], now: float) -> Sequence[PlannedHost]:
        """The hosts in the order to try them now: addresses that are dead come after all others."""
        if not self._dead:
            return hosts
        alive: list[PlannedHost] = []
        dead: list[PlannedHost] = []
        for host in hosts:
            asleep = tuple(address for address in host.addresses if self._asleep((address, host.port), now))
            if not asleep:
                alive.append(host)
            elif len(asleep) == len(host.addresses):
                dead.append(host)
            else:
                awake = tuple(address for address in host.addresses if address not in asleep)
                alive.append(replace(host, addresses=awake))
                dead.append(replace(host, addresses=asleep))
        return [*alive, *dead]

    def _asleep(self, key: tuple[str, int], now: float) -> bool:
        known = self._dead.get(key)
        if known is None:
            return False
        until, failures = known
        if now < until:
            return True
        self._dead[key] = (now + PROBE, failures)  # this attempt has the turn, the others wait for how it fares
        return False
