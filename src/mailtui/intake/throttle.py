"""Failed logins, counted by client address and by account, and the growing time that each one costs.

Promises: memory is bounded, however many addresses and names are tried; the first few failures cost nothing, for people
mistype; then each attempt waits its turn, one behind the other however many connections try at once, and what would
wait too long is turned away unlooked at; a client that has logged in to an account before is not slowed when others
try that account, so that nobody can lock another out from where he works.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from mailtui.clock import Clock

# Failures that cost nothing: a client that tries three mechanisms with an old password.
FREE = 3
# The pause after a failure beyond these doubles from a second up to this: at most 2,880 guesses a day.
LONGEST_PAUSE = 30.0
# An attempt waits this long at most: clients wait longer for a reply, and no more connections are bound by it.
PATIENCE = 10.0
# Without a further failure for this long, in seconds, the former ones are forgotten.
FORGET = 3600.0
# Addresses, names and pairs that are remembered; those unheard of for longest go first. A few MB when full.
REMEMBERED = 10_000

K = TypeVar("K")


@dataclass(slots=True)
class _Tried:
    """Failures of one address or name; `turn` is when the next attempt may be looked at (monotonic)."""

    failures: int = 0
    last: float = 0.0
    turn: float = 0.0


class _Table(Generic[K]):
    """What was tried, by address or by name."""

    def __init__(self) -> None:
        self._tried: OrderedDict[K, _Tried] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tried)

    def slow(self, key: K, now: float) -> list[_Tried]:
        """What a key has to wait for, if it has."""
        tried = self._tried.get(key)
        if tried is None or tried.failures <= FREE or now - tried.last > FORGET:
            return []
        return [tried]

    def failed(self, key: K, now: float) -> None:
        tried = self._tried.get(key)
        if tried is None or now - tried.last > FORGET:
            tried = self._tried[key] = _Tried()
        self._tried.move_to_end(key)
        tried.failures += 1
        tried.last = now
        if tried.failures > FREE:
            tried.turn = max(tried.turn, now + _pause(tried.failures))
        if len(self._tried) > REMEMBERED:
            self._tried.popitem(last=False)

    def waiting(self, now: float) -> int:
        """How many keys are made to wait now."""
        return sum(tried.turn > now for tried in self._tried.values())


class Throttle:
    """One for all listeners. `client` is what counts as one client (a number, see `listener`), `account` a name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: _Table[int] = _Table()
        self._accounts: _Table[str] = _Table()
        self._welcome: OrderedDict[tuple[int, str], int] = OrderedDict()  # failures since the last success

    def turn(self, client: int, account: str) -> float | None:
        """Seconds until an attempt may be looked at; None: turn it away."""
        if (client, account) in self._welcome:
            return 0.0
        now = self._clock.monotonic()
        slow = self._clients.slow(client, now) + self._accounts.slow(account, now)
        if not slow:
            return 0.0
        turn = max(now, *(tried.turn for tried in slow))
        if turn - now > PATIENCE:
            return None
        for tried in slow:
            tried.turn = turn + _pause(tried.failures)
        return turn - now

    def failed(self, client: int, account: str) -> None:
        """An attempt was wrong."""
        now = self._clock.monotonic()
        pair = (client, account)
        if pair in self._welcome:
            self._welcome[pair] += 1
            if self._welcome[pair] > FREE:
                del self._welcome[pair]
        self._clients.failed(client, now)
        self._accounts.failed(account, now)

    def succeeded(self, client: int, account: str) -> None:
        """An attempt was right. What others did from this address, or to this account, still counts."""
        self._welcome[client, account] = 0
        self._welcome.move_to_end((client, account))
        if len(self._welcome) > REMEMBERED:
            self._welcome.popitem(last=False)

    def slowed(self) -> tuple[int, int]:
        """How many clients and how many accounts are made to wait now."""
        now = self._clock.monotonic()
        return self._clients.waiting(now), self._accounts.waiting(now)


def _pause(failures: int) -> float:
    """Seconds after so many failures."""
    return min(2.0 ** min(failures - FREE - 1, 10), LONGEST_PAUSE)
