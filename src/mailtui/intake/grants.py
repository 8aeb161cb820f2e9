"""Temporary permissions: an address may relay for a while, since whoever uses it has just proved who he is elsewhere
(POP before SMTP), or because an operator says so.

Promises: a grant is on disk before it holds, and survives a restart; it ends by the clock, at its time and not at the
next look; it is for one address, never for a network; there are never more than `MOST`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mailtui.clock import Clock
from mailtui.intake.question import Address, parse_client
from mailtui.model import Control

# The kind of the rows, as the store keeps them.
KIND = "grant"

# How long, in seconds, when nobody says: POP clients look for mail more often than that.
USUAL = 30 * 60.0
# What is to hold for longer is no temporary permission: it belongs into `networks`, where people see it.
LONGEST = 7 * 86400.0

# Some 300 octets each. A POP server for more customers than this has other ways than their addresses.
MOST = 100_000


class Keeper(Protocol):
    """What keeps rows: the store."""

    def set_control(self, kind: str, control: Control) -> Any: ...
    def unset_control(self, kind: str, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission. Times are wall time in seconds."""

    address: str  # canonical
    until: float
    by: str
    since: float
    reason: str = ""


class GrantError(ValueError):
    """A grant that cannot be given; the text says why."""


class Grants:
    """The grants that hold, by address."""

    def __init__(self, clock: Clock, keeper: Keeper | None = None) -> None:
        """Without a `keeper` they are in memory only."""
        self._clock = clock
        self._keeper = keeper
        self._found: dict[str, Grant] = {}

    def load(self, rows: Iterable[tuple[str, Control]]) -> None:
        """At start: what the store remembers. What has ended meanwhile goes with the next `tidy`."""
        self._found = {control.name: grant_of(control) for kind, control in rows if kind == KIND}

    def __len__(self) -> int:
        """How many are kept; those that have ended are among them until the next `tidy`."""
        return len(self._found)

    def find(self, client: Address | None) -> Grant | None:
        """The grant that a client has now."""
        if not self._found or client is None:
            return None
        grant = self._found.get(str(client))
        return grant if grant is not None and grant.until > self._clock.now() else None

    def all(self) -> list[Grant]:
        """Those that hold now; the one that ends first stands first."""
        now = self._clock.now()
        return sorted((g for g in self._found.values() if g.until > now), key=lambda g: (g.until, g.address))

    async def grant(self, address: str, seconds: float, by: str, reason: str = "") -> Grant:
        """Permit an address from now on, or for longer than before; on disk when it returns. Raises GrantError."""
        name = granted_address(address)
        if not 0 < seconds <= LONGEST:
            raise GrantError(f"a grant is for at most {LONGEST / 86400:.0f} days; for longer, put {name} into networks")
        if name not in self._found and len(self._found) >= MOST:
            await self.tidy()
            if len(self._found) >= MOST:
                raise GrantError(f"there are {MOST} grants already, the most there can be; revoke some")
        now = self._clock.now()
        grant = Grant(name, now + seconds, by, now, reason)
        if self._keeper is not None:
            await self._keeper.set_control(KIND, Control(name, now, grant.until, reason, by))
        self._found[name] = grant
        return grant

    async def revoke(self, address: str) -> bool:
        """Take a grant back; False if there was none that held. Raises GrantError for what is no address."""
        grant = self._found.pop(granted_address(address), None)
        if grant is None:
            return False
        await self._forget(grant)
        return grant.until > self._clock.now()

    async def tidy(self) -> None:
        """Drop the rows of grants that have ended."""
        now = self._clock.now()
        for grant in [g for g in self._found.values() if g.until <= now]:
            del self._found[grant.address]
            await self._forget(grant)

    async def _forget(self, grant: Grant) -> None:
        if self._keeper is not None:
            await self._keeper.unset_control(KIND, grant.address)


def granted_address(text: str) -> str:
    """The one form of an address that a grant is for. Raises GrantError."""
    try:
        address = parse_client(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        raise GrantError(f'"{text[:80]}" is no IP address; for example 203.0.113.9') from None
    if address.is_unspecified or address.is_multicast:
        raise GrantError(f"no client has the address {address}; for example 203.0.113.9")
    return str(address)


def grant_of(control: Control) -> Grant:
    """A grant as the store remembers it. One without an end, which nothing of ours writes, has ended."""
    return Grant(control.name, control.until or 0.0, control.who, control.since, control.reason)


def as_row(grant: Grant) -> Mapping[str, Any]:
    """A grant with its facts; times are seconds."""
    return {
        "address": grant.address, "until": grant.until, "by": grant.by, "since": grant.since, "reason": grant.reason
    }  # fmt: skip
