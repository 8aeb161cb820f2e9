"""An order of an operator, checked before anything is touched: the verb, whom it is for, and its arguments."""

from dataclasses import dataclass, field, replace
from typing import Any

from mailtui.address import AddressError, destination_of
from mailtui.clock import rfc3339
from mailtui.control.answers import parse_query
from mailtui.control.errors import WRONG, VerbError
from mailtui.control.reads import Document
from mailtui.control.verbs import NEEDS_QUERY, VERBS, Verb
from mailtui.control.words import arguments, command_line
from mailtui.queue.freezing import FrozenSet
from mailtui.queue.operations import Operation
from mailtui.queue.query import Query


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants done. `args` are as given, `values` as `words.arguments` has them."""

    verb: Verb
    who: str
    query: str = ""
    frozen: FrozenSet | None = None
    args: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    expect: int | None = None

    @property
    def selects(self) -> bool:
        """Acts on recipients that are chosen by a query or a set."""
        return bool(self.verb.query) or self.verb.name == "flush"


def wanted(
    verb: Verb,
    who: str,
    *,
    query: str | None = None,
    frozen: FrozenSet | None = None,
    args: dict[str, Any] | None = None,
    reason: str = "",
    expect: int | None = None,
) -> Wanted:
    """An order, checked. VerbError for what the verb does not know, or needs."""
    values = arguments(verb, args or {})
    given = {name: value for name, value in (args or {}).items() if name in values}
    if verb.name == "flush":
        destination = values.get("destination", "")
        query = f"dest:{_domain(destination)}" if destination else ""
    elif not verb.query:
        if query or frozen is not None:
            raise VerbError(f"{' '.join(verb.words)} takes no QUERY", WRONG)
    elif frozen is None and not (query or "").strip() and verb.query == NEEDS_QUERY:
        raise VerbError(f"{' '.join(verb.words)} needs a QUERY; everything is to:*", WRONG)
    text = frozen.query.text if frozen is not None else (query or "").strip()
    if not text and verb.query == NEEDS_QUERY:
        text = "to:*"  # a set of everything: the command that repeats it has to say so
    return Wanted(verb, who, text, frozen, given, values, reason, expect)


def command_of(want: Wanted, recipients: int) -> str:
    """The command that repeats it, for as many recipients."""
    return command_line(want.verb, want.query, want.args, want.reason, recipients)


def narrowed(verb: Verb, text: str, now: float) -> Query:
    """The query of an action: release looks among what is held, restore among what is leaving, unless it says else."""
    query = parse_query(text, now)
    state = {"release": "held", "restore": "leaving"}.get(verb.action)
    if state is None or "state" in query.names:
        return query
    return replace(parse_query(f"{text} state:{state}".strip(), now), text=query.text)


def route_of(text: str) -> str:
    """A ROUTE target in its one form; "" gives the table its say again. VerbError."""
    from mailtui.routing.routes import parse_target, unsupported

    if not text.strip():
        return ""
    try:
        target = parse_target(text)
        refusal = unsupported(target)
    except ValueError as error:
        raise VerbError(f"--to {error}", WRONG) from None
    if refusal is not None:
        raise VerbError(f"--to {text[:80]}: {refusal}", WRONG)
    return str(target)


def _domain(text: str) -> str:
    try:
        return destination_of(text)
    except AddressError as error:
        raise VerbError(f'"{text[:80]}" is no domain ({error}); for example mailtui flush example.com', WRONG) from None


def operation(done: Operation) -> Document:
    """An operation as `GET /v1/operations` has it."""
    name = f"queue.{done.verb}"
    return {
        "operation": done.name,
        "verb": name if name in VERBS else done.verb,
        "command": done.command,
        "query": done.query,
        "who": done.who,
        "at": rfc3339(done.begun),
        "ended": rfc3339(done.ended),
        "asked": done.asked,
        "done": done.done,
        "delivered_before": done.delivered_before,
        "pending": done.pending,
        "undone": done.undone,
        "undoes": f"o{done.undoes}" if done.undoes else None,
        "interrupted": done.interrupted,
        "state": done.state,
        "undo_until": rfc3339(done.undo_until),
        "reason": done.reason,
    }
