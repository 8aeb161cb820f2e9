"""What delivery holds in memory: messages between acceptance (or a claim) and settlement, and what is known of their
destinations.

Promises: a message stays until each of its recipients is settled or parked; the hand-off budget bounds what new mail
may take, so that memory does not depend on the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mailtui.delivery.hop import Rate
from mailtui.model import Message, Recipient

# The hand-off budget: what may be in memory between acceptance and settlement (docs/architecture.md, step 3).
BUDGET_MESSAGES = 2000
BUDGET_BYTES = 32 * 1024 * 1024

# One destination may hold this much of it, so that a slow one does not push the others' fresh mail into the database.
SHARE = BUDGET_MESSAGES // 2


@dataclass(slots=True)
class Destination:
    """A destination with parked work, or with messages in memory."""

    name: str
    due: float | None = None  # when its first parked recipient is due, as far as is known
    later: float | None = None  # what became due while a claim was under way
    cursor: str = ""  # the submitter served last
    claiming: bool = False
    planning: bool = False
    held: int = 0  # messages in memory
    rate: Rate | None = None  # an operator's limit


@dataclass(slots=True)
class Held:
    """A message in memory, and the recipients of it that are not settled yet, by ordinal."""

    message: Message
    left: dict[int, Recipient]
    destinations: tuple[str, ...]


class Handoff:
    """The messages in memory by id, and the destinations by name."""

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        self.destinations: dict[str, Destination] = {}
        self._bytes = 0

    def has_room(self, message: Message) -> bool:
        """Whether the budget has room for a new message."""
        if len(self.held) >= BUDGET_MESSAGES or self._bytes + _size(message) > BUDGET_BYTES:
            return False
        destination = self.destinations.get(message.recipients[0].destination)
        return destination is None or destination.held < SHARE

    def room(self) -> int:
        """How many messages more may be claimed; always one, so that a full budget starves nobody."""
        return max(1, BUDGET_MESSAGES - len(self.held))

    def destination(self, name: str) -> Destination:
        destination = self.destinations.get(name)
        if destination is None:
            destination = self.destinations[name] = Destination(name)
        return destination

    def hold(self, message: Message) -> None:
        names = {r.destination for r in message.recipients}
        left = {r.ordinal: r for r in message.recipients}
        held = self.held.get(message.id)
        if held is None:
            self.held[message.id] = Held(message, left, tuple(names))
            self._bytes += _size(message)
        else:  # claimed for other recipients of it already
            names.difference_update(held.destinations)
            held.left.update(left)
            held.destinations += tuple(names)
        for name in names:
            self.destination(name).held += 1

    def forget(self, message: Message, ordinals: Sequence[int]) -> None:
        """These recipients are settled or parked: with the last one, the message leaves memory."""
        held = self.held.get(message.id)
        if held is None:
            return
        for ordinal in ordinals:
            held.left.pop(ordinal, None)
        if not held.left:
            del self.held[message.id]
            self._bytes -= _size(held.message)
            for name in held.destinations:
                destination = self.destinations[name]
                destination.held -= 1
                self.drop_idle(destination)

    def drop_idle(self, d: Destination) -> None:
        """Forget a destination that has nothing in memory and nothing due."""
        if not d.held and d.due is None and not d.claiming and not d.planning:
            self.destinations.pop(d.name, None)


def _size(message: Message) -> int:
    return message.envelope.size if message.body else 0
