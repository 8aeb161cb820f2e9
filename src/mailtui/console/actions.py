"""From a key or a command to a result: preview, dialog, run, and the exact count.

Promises: what the preview counted is what the action touches (a frozen set, or ids taken at the key); nothing is run
that was not confirmed as its preview asks; the answer is told with every number the relay gave.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailtui.console import words
from mailtui.console.dialogs.confirm import ConfirmDialog, Confirmed, asks
from mailtui.control.errors import VerbError
from mailtui.control.verbs import VERBS

if TYPE_CHECKING:
    from mailtui.console.asking import Asking


def title(verb: str) -> str:
    """What the dialog is called."""
    return VERBS[verb].title if verb in VERBS else verb


def result_text(verb: str, answer: Mapping[str, Any], *, undo: bool) -> str:
    """The run answer on one line, every number that is not nought."""
    past = VERBS[verb].done if verb in VERBS else "done"
    if not any(name in answer for name in ("done", "recipients", "asked")):
        return str(answer.get("text") or past)
    done = int(answer.get("done") or 0)
    asked = int(answer.get("asked") or answer.get("recipients") or done)
    parts = [
        f"{past} {words.amount(done, 'recipient')}" if done == asked else f"{past} {done:,} of {asked:,} recipients"
    ]
    for name, label in (("delivered_before", "delivered before"), ("pending", "in delivery, pending")):
        if answer.get(name):
            parts.append(f"{int(answer[name]):,} {label}")
    for left in answer.get("left_out") or ():
        parts.append(f"{int(left.get('recipients') or 0):,} left out ({left.get('why', '')})")
    if undo and done:
        parts.append("z undoes it")
    return "; ".join(parts)


def nothing_text(preview: Mapping[str, Any]) -> str:
    """Why there is nothing to do."""
    left = [
        f"{int(one.get('recipients') or 0):,} left out: {one.get('why', '')}" for one in preview.get("left_out") or ()
    ]
    return "; ".join(["nothing to do", *left])


async def act(
    console: "Asking",
    verb: str,
    *,
    set: str | None = None,
    query: str | None = None,
    ids: Sequence[str] | None = None,
    args: Mapping[str, Any] | None = None,
    reason: str = "",
) -> dict[str, Any] | None:
    """Preview, ask, run, tell. The run answer; None if nothing was run."""
    if problem := console.refusal():
        console.flash(problem, error=True)
        return None
    if ids is not None:
        if not ids:
            console.flash("no row is chosen")
            return None
        query = f"id:{','.join(ids)}"
    body = {"query": query, "set": set, "expect": None, "args": dict(args or {})}
    try:
        # The relay freezes what it counts, and keeps the set for the run: new arrivals are not included.
        asked = {**body, "preview": True, "keep": True, "reason": reason}
        preview = await console.link.call("POST", f"/v1/verbs/{verb}", asked)
    except VerbError as error:
        console.flash(error.text, error=True)
        return None
    kept = preview.get("set") or None
    try:
        run = {**body, "query": None, "set": kept} if kept else body
        return await _confirmed(console, verb, preview, run, reason)
    except VerbError as error:
        console.flash(error.text, error=True)
        return None
    finally:
        if kept is not None and kept != set:
            await forget(console, kept)


async def _confirmed(
    console: "Asking", verb: str, preview: Mapping[str, Any], body: dict[str, Any], reason: str
) -> dict[str, Any] | None:
    """Ask as the preview demands, then run."""
    if body["set"] is not None and not preview.get("recipients"):
        console.flash(nothing_text(preview))
        return None
    if asks(preview):
        told = await console.ask(ConfirmDialog(title(verb), preview, now=time.time(), reason=reason))
        if not isinstance(told, Confirmed):
            console.flash("nothing was done")
            return None
        reason = told.reason
        if problem := console.refusal():  # the link may have gone while the dialog stood
            console.flash(problem, error=True)
            return None
    console.begin(title(verb))
    try:
        answer: dict[str, Any] = await console.link.call(
            "POST", f"/v1/verbs/{verb}", {**body, "preview": False, "reason": reason}
        )
    finally:
        console.end()
    console.done(verb, answer, undo=bool(answer.get("operation")) and bool(preview.get("undo_seconds")))
    return answer


async def undo(console: "Asking", operation: Mapping[str, Any]) -> None:
    """Take an operation back."""
    if problem := console.refusal():
        console.flash(problem, error=True)
        return
    number = str(operation.get("operation"))
    console.begin("Undo")
    try:
        answer = await console.link.call("POST", f"/v1/operations/{number}/undo", {})
    except VerbError as error:
        console.flash(error.text, error=True)
        return
    finally:
        console.end()
    console.done("queue.undo", answer, undo=False)


async def forget(console: "Asking", frozen: str) -> None:
    """Give a set back; one that is lost already is no news."""
    try:
        await console.link.call("DELETE", f"/v1/sets/{frozen}")
    except VerbError:
        pass
