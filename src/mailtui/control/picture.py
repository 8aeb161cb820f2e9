"""What an action would touch: which recipients of a frozen set, how many, how large, and which it leaves out and why.

Promises: the reasons for leaving out are those that the store gives when it acts; memory is twice what the frozen set
takes.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mailtui.model import State
from mailtui.queue import actions
from mailtui.queue.chosen import Chosen

Rid = tuple[int, int]

# Recipients are dealt out by destination: of a million there are 4,000 in a hand.
DEALT = 256

# Why a recipient is left out that the store does not leave out.
IN_DELIVERY, SUSPENDED = "in delivery already", "suspended"


@dataclass(slots=True)
class Picture:
    """Adds up the recipients of a frozen set for one action. `together`: those of a message stand side by side."""

    action: str
    together: bool = True
    messages: int = 0
    bytes: int = 0
    oldest: float | None = None
    active: int = 0  # claimed: in delivery, or on the way to it
    reports: int = 0  # messages whose sender a bounce tells
    silent: int = 0  # recipients of the null sender, or without NOTIFY=FAILURE: nobody is told
    left_out: dict[str, int] = field(default_factory=dict)
    destinations: set[int] = field(default_factory=set)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    ordinals: "array[int]" = field(default_factory=lambda: array("i"))
    _places: "array[int]" = field(default_factory=lambda: array("q"))  # the destination of each
    _dealt: "list[array[int]]" = field(default_factory=lambda: [array("i") for _ in range(DEALT)])
    _seen: set[int] = field(default_factory=set)
    _told: int = 0

    @property
    def recipients(self) -> int:
        return len(self.numbers)

    def add(self, rows: Iterable[Chosen]) -> None:
        for row in rows:
            why = left_out(self.action, row)
            if why:
                self.left_out[why] = self.left_out.get(why, 0) + 1
            else:
                self._touch(row)

    def _touch(self, row: Chosen) -> None:
        self._dealt[row.destination % DEALT].append(len(self.numbers))
        self._places.append(row.destination)
        self.numbers.append(row.message)
        self.ordinals.append(row.ordinal)
        self.destinations.add(row.destination)
        self.active += row.claimed
        if row.message not in self._seen:
            if self.together:
                self._seen.clear()
            self._seen.add(row.message)
            self.messages += 1
            self.bytes += row.size
            self.oldest = row.arrived if self.oldest is None else min(self.oldest, row.arrived)
        if row.null_sender or (row.notify and "FAILURE" not in row.notify.upper()):
            self.silent += 1
        elif self._told != row.message:
            self._told = row.message
            self.reports += 1

    def rids(self, step: int) -> Iterator[list[Rid]]:
        """What is touched, in pieces."""
        for at in range(0, self.recipients, step):
            yield list(zip(self.numbers[at : at + step], self.ordinals[at : at + step], strict=True))

    def chunks(self, step: int) -> Iterator[list[Rid]]:
        """What is touched, in pieces, those of a destination together: half of the indexes that an action changes are
        in the order of destinations, and what stands together there is written together."""
        rest: list[Rid] = []
        for dealt in self._dealt:
            # Dealt out first, so that no sort is longer than a moment.
            for at in sorted(dealt, key=self._places.__getitem__):
                rest.append((self.numbers[at], self.ordinals[at]))
                if len(rest) == step:
                    yield rest
                    rest = []
        if rest:
            yield rest

    def missing(self, asked: int) -> int:
        """How many of the set are not in the queue any more."""
        return asked - self.recipients - sum(self.left_out.values())


def left_out(action: str, row: Chosen) -> str:
    """Why an action leaves a recipient out; "" if it does not."""
    held, leaving = row.state == State.HELD, row.state == State.LEAVING
    match action:
        case "hold":
            return actions.ALREADY_HELD if held else actions.LEAVING if leaving else ""
        case "release":
            return "" if held else actions.LEAVING if leaving else actions.NOT_HELD
        case "retry":
            if held or leaving:
                return actions.HELD if held else actions.LEAVING
            return SUSPENDED if row.named else IN_DELIVERY if row.claimed else ""
        case "defer":
            return actions.HELD if held else actions.LEAVING if leaving else ""
        case "bounce" | "delete":
            return actions.ALREADY_LEAVING if leaving else ""
        case "restore":
            return actions.NOT_LEAVING if not leaving else actions.GRACE_OVER if row.over else ""
        case _:
            return actions.LEAVING if leaving else ""


def as_list(left: dict[str, int]) -> list[dict[str, object]]:
    """`left_out` of the contract, the largest first."""
    return [
        {"why": why, "recipients": count} for why, count in sorted(left.items(), key=lambda item: -item[1]) if count
    ]


def merged(*parts: dict[str, int], without: Collection[str] = ()) -> dict[str, int]:
    """Several counts of left-outs as one."""
    total: dict[str, int] = {}
    for part in parts:
        for why, count in part.items():
            if why not in without:
                total[why] = total.get(why, 0) + count
    return total
