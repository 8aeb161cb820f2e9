"""What delivery holds in memory: the books are right however often a message is claimed."""

from mailtui.delivery.handoff import BUDGET_BYTES, Handoff
from mailtui.model import Envelope, Message, Recipient


def part(*recipients: tuple[int, str]) -> Message:
    """A claim of a message of a third of the budget, with these recipients (ordinal, destination)."""
    envelope = Envelope("ann@a.example", 0.0, size=BUDGET_BYTES // 3)
    return Message(7, envelope, [Recipient(n, f"x@{name}", name) for n, name in recipients], b"x")


def test_a_message_that_two_destinations_claim_is_held_until_both_let_go() -> None:
    memory = Handoff()
    first, second = part((1, "a.example")), part((2, "b.example"), (3, "a.example"))
    memory.hold(first)
    memory.hold(second)
    assert sorted(memory.held[7].left) == [1, 2, 3]
    assert {name: d.held for name, d in memory.destinations.items()} == {"a.example": 1, "b.example": 1}
    memory.forget(first, [1])
    assert sorted(memory.held[7].left) == [2, 3]
    memory.forget(second, [2, 3])
    assert memory.held == {} and memory.destinations == {}


def test_octets_that_were_held_twice_are_not_counted_for_ever() -> None:
    memory = Handoff()
    for _ in range(10):
        first, second = part((1, "a.example")), part((2, "b.example"))
        memory.hold(first)
        memory.hold(second)
        memory.forget(first, [1])
        memory.forget(second, [2])
    assert memory.has_room(part((1, "a.example")))
