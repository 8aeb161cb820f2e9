"""Why is this still here: what binds a recipient now, computed from the scheduler's own state.

When several limiters bind, the first of the contract's list is named; the sentence says since when, what releases it,
and which rule set it.
"""

from typing import Protocol

from mailtui.clock import rfc3339
from mailtui.delivery.scheduler import Scheduler
from mailtui.model import Control, Plan, Why

# Of a reply, within the one sentence; the whole stands in the attempt.
MAX_QUOTED = 300


class Queued(Protocol):
    """What is asked of a queue row."""

    @property
    def destination(self) -> str: ...
    @property
    def recipient(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def due(self) -> float | None: ...
    @property
    def expires(self) -> float: ...
    @property
    def since(self) -> float: ...
    @property
    def attempts(self) -> int: ...
    @property
    def last_code(self) -> int: ...
    @property
    def last_enhanced(self) -> str: ...
    @property
    def last_reply(self) -> str: ...
    @property
    def held_by(self) -> str: ...
    @property
    def arrived(self) -> float: ...


def explain(row: Queued, scheduler: Scheduler, plan: Plan | None, now: float) -> Why:
    """The one sentence for a recipient, and its facts."""
    hop = scheduler.pool.hops.get((plan.next_hop if plan.outcome == "deliver" else row.destination) if plan else "")
    key = hop.key if hop else (plan.next_hop if plan and plan.next_hop else row.destination)

    def why(limiter: str, because: str, since: float | None, releases: str, due: float | None, rule: str) -> Why:
        return Why(because, limiter, since, releases, due, row.expires, rule)

    if row.state == "leaving":
        return why(
            "leaving", "given up by an operator; it goes when its grace ends", row.since, "queue restore", None, "grace"
        )
    if row.state == "held":
        by = row.held_by or "an operator"
        reason = f": {row.last_reply}" if row.last_reply else ""
        return why("hold", f"held by {by}{reason}", row.since, "queue release", None, "hold")
    suspension = scheduler.controls.suspended(row.destination, key)
    if suspension is not None:
        return why("suspended", f"{suspension.name} is suspended{_by(suspension)}", suspension.since,
                   _until(suspension, "dest resume"), row.due, "suspension")  # fmt: skip
    if scheduler.disk_full:
        return why("disk", "the queue's disk is full: nothing more is sent until results can be written down", None,
                   "space on the queue's disk", row.due, "free-disk")  # fmt: skip
    if scheduler.controls.paused:
        pause = scheduler.controls.paused
        return why("paused", f"delivery is paused for the whole relay{_by(pause)}", pause.since,
                   _until(pause, "resume"), row.due, "pause")  # fmt: skip
    if row.state == "active":
        return why(
            "in-delivery", f"on a connection to {key} now", row.since, "the end of this attempt", None, "attempt"
        )
    if hop is not None and hop.backing_off(now):
        failure = hop.last_failure
        text = _short(failure.reply) if failure else "it could not be reached"
        limiter = failure.rule if failure and failure.rule in ("dns", "tls-policy") else "next-hop-backoff"
        until = max(hop.backoff_until, row.due or 0.0)
        return why(
            limiter,
            f"{key} is left alone after {_times(hop.failures)}: {text}",
            hop.backoff_since,
            "the end of the back-off; one message probes it then",
            until,
            "next-hop back-off",
        )
    if row.attempts and row.due is not None and row.due > now:
        said = _said(row)
        ours = row.last_enhanced == "4.7.5" or (row.last_enhanced == "4.7.4" and not row.last_code)
        limiter = "tls-policy" if ours else "retry-clock"
        return why(limiter, f"waits for attempt {row.attempts + 1} on the retry schedule{said}", row.since,
                   "the retry schedule", row.due, "[retry] schedule")  # fmt: skip
    if not row.attempts and row.due is not None and row.due > now:
        return why(
            "retry-clock", "put off until its time; not tried yet", row.since, "its time", row.due, "next attempt"
        )
    if hop is not None and hop.rate is not None and hop.rate_until > now:
        return why(
            "rate", f"{key} may be given no more messages for now", None, "the rate", hop.rate_until, "[delivery] rate"
        )
    if hop is not None and not hop.may_open():
        return why(
            "destination-window", f"all {hop.workers} connections that {key} is allowed are in use", None,
            "the next one that is free", row.due, f"window {hop.workers}/{int(hop.window)}",
        )  # fmt: skip
    if scheduler.pool.connections >= scheduler.pool.limit:
        return why("global-limit", "all outgoing connections are in use", None, "the next one that is free", row.due,
                   "[delivery] connections")  # fmt: skip
    if row.attempts:
        return why(
            "retry-clock", f"due now{_said(row)}", row.since, "the scheduler, at once", row.due, "[retry] schedule"
        )
    return why("never-tried", "accepted and not tried yet", row.arrived, "the scheduler, at once", row.due, "arrival")


def _by(control: Control) -> str:
    by = f" by {control.who}" if control.who else ""
    return by + (f": {control.reason}" if control.reason else "")


def _until(control: Control, verb: str) -> str:
    return f"{verb}, or its end at {rfc3339(control.until)}" if control.until is not None else verb


def _said(row: Queued) -> str:
    if not row.last_reply:
        return ""
    code = " ".join(part for part in (str(row.last_code) if row.last_code else "", row.last_enhanced) if part)
    return f"; the last one ended with: {code} {_short(row.last_reply)}".rstrip()


def _short(reply: str) -> str:
    """A reply within a sentence."""
    return reply if len(reply) <= MAX_QUOTED else reply[: MAX_QUOTED - 4] + " ..."


def _times(failures: int) -> str:
    return "a failed attempt" if failures == 1 else f"{failures} failed attempts"
