"""The frozen sets that clients hold: numbered, limited, and gone a while after nobody asks for them any more.

Promises: a client has at most 8 sets (its least recently used one makes room), all clients together 32, and a set lives
60 seconds from its last use. On the event loop; nothing here takes time.
"""

from dataclasses import dataclass

from mailtui.clock import Clock
from mailtui.queue.freezing import FrozenSet

# A console needs one for its table, one for its marks, a few for dialogs and what is just being replaced.
CLIENT_LIMIT = 8

# 32 sets of a million recipients are 384 MB: the worst, and far from what one meets.
LIMIT = 32

# Seconds after the last use. A client that is there asks more often; one that is gone frees its memory soon.
LIFE = 60.0


class LostSet(LookupError):
    """No such set, or not any more; the text is one line for people."""


class SetsFull(Exception):
    """Too many sets are in use; the text is one line for people."""


@dataclass(slots=True)
class _Held:
    client: int
    frozen: FrozenSet
    used: float


class Sets:
    """All frozen sets of a relay. `client` is what tells clients apart (the process id at the other end)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}  # the least recently used one first
        self._issued = 0

    def __len__(self) -> int:
        self.expire()
        return len(self._held)

    def create(self, client: int, frozen: FrozenSet) -> str:
        """Keep a set for a client; its name ("s1") is never used again. SetsFull if others use too many."""
        self.expire()
        own = [name for name, held in self._held.items() if held.client == client]
        if len(own) >= CLIENT_LIMIT:
            del self._held[own[0]]
        elif len(self._held) >= LIMIT:
            raise SetsFull(f"{LIMIT} frozen sets are in use already; close a console, or try again in a minute")
        self._issued += 1
        name = f"s{self._issued}"
        self._held[name] = _Held(client, frozen, self._clock.monotonic())
        return name

    def get(self, name: str) -> FrozenSet:
        """The set, which then lives on. LostSet if there is none of this name any more."""
        self.expire()
        held = self._held.pop(name, None)
        if held is None:
            raise LostSet(f"the frozen set {name[:20]!r} is gone; ask again with the query")
        held.used = self._clock.monotonic()
        self._held[name] = held  # the most recently used one last
        return held.frozen

    def drop(self, name: str) -> None:
        """Let go of a set; of one that is gone already, too."""
        self._held.pop(name, None)

    def expire(self) -> None:
        """Let go of what was not used for a while. Called by all others; call it now and then to free the memory."""
        now = self._clock.monotonic()
        for name, held in list(self._held.items()):
            if now - held.used < LIFE:
                break
            del self._held[name]
