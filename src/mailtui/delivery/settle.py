"""From the end of an attempt to what is written: deferral or farewell, the report, the mail log.

Promises: one settlement an attempt, with one report of all that the sender is to hear of it in the same transaction; a
null sender gets none; what expires is given up with the last reply; a report of a failure is never left out, a notice
of a delay is put off when there are too many.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mailtui.bounce.due import asks, automatic, delay_wanted, success
from mailtui.bounce.report import Report, compose
from mailtui.bounce.returned import HEADER_LIMIT
from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.delivery import retry
from mailtui.delivery.allowance import Allowance
from mailtui.delivery.attempt import Ended, Work
from mailtui.delivery.verdict import remote_id
from mailtui.events import Events
from mailtui.ids import encode
from mailtui.model import (
    Action,
    Attempt,
    Envelope,
    Message,
    Outcome,
    Plan,
    Recipient,
    Reported,
    Settled,
    TlsFacts,
    Verdict,
)

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.store import Store

Results = Sequence[tuple[Recipient, Verdict, Attempt]]

# Reports are mail of our own: this submitter shares the next hops fairly with the others.
OURSELVES = "mailtui"

# Of a spooled message a report quotes at most its beginning: enough for any header section that was accepted.
HEAD = 1024 * 1024


class Settler:
    """Decides what an attempt's end means and gives it to the store."""

    def __init__(self, settings: Settings, clock: Clock, events: Events, store: "Store", rng: random.Random) -> None:
        self.settings = settings
        self._clock = clock
        self._events = events
        self._store = store
        self._rng = rng
        self.allowance = Allowance(clock, events)

    def settle(
        self,
        message: Message,
        plan: Plan,
        results: Results,
        settled: Callable[[Sequence[tuple[str, float]]], None],
        *,
        always: bool = False,
        warn: bool = True,
    ) -> None:
        """Write the verdicts. `settled` hears after the commit which destinations have something due, and when; with
        `always` also if none has. `warn`: a recipient that is deferred and late is told to the sender now; else
        somebody comes for all who wait together (delays.py)."""
        now = self._clock.now()
        ends: list[Settled] = []
        reported: list[Reported] = []
        deferred: list[tuple[str, float]] = []
        for r, verdict, attempt in results:
            over = retry.expired(r, verdict, now)
            if over is not None:
                verdict = over
            due: float | None = None
            found = ""
            if verdict.outcome is Outcome.DEFERRED:
                if verdict.rule != "hold":
                    due = retry.next_due(r, self.settings.retry.schedule, now, self._rng)
                    deferred.append((r.destination, due))
                    if warn and not r.warned and self._late(message.envelope, now) and self.wanted(message.envelope, r):
                        reported.append(Reported(r, verdict, attempt, Action.DELAYED))
            elif verdict.outcome is Outcome.BOUNCED:
                reported.append(Reported(r, verdict, attempt, expired=over is not None))
            else:
                found = remote_id(verdict.reply)
                if r.notify and verdict.rule != "discard" and asks(r.notify, "SUCCESS"):
                    action = success(attempt.onward)
                    if action is not None:
                        reported.append(Reported(r, verdict, attempt, action))
            ends.append(
                Settled(
                    r, verdict, attempt, plan.next_hop, plan.route, due, found,
                    deleted=verdict.rule == "discard", held_by="route" if verdict.rule == "hold" else "",
                )
            )  # fmt: skip
            self._tell(message, r, verdict, attempt, plan, due)
        reports: Sequence[Message] = ()
        if reported:
            reported, warned = self._told(message, reported, plan.next_hop or plan.domain)
            if warned:
                ends = [replace(s, warned=True) if s.recipient.ordinal in warned else s for s in ends]
            reports = self._reports(message, reported, now) if reported else ()
        self._store.settle(message, ends, reports, (lambda: settled(deferred)) if deferred or always else None)

    def decide(self, work: Work) -> Ended:
        """The end of work whose plan does not deliver: bounce, defer, hold or discard, without any connection."""
        plan, now = work.plan, self._clock.now()
        outcome = {"bounce": Outcome.BOUNCED, "discard": Outcome.DELIVERED}.get(plan.outcome, Outcome.DEFERRED)
        rule = plan.outcome if plan.outcome in ("hold", "discard") else "dns" if plan.via != "route" else "route"
        verdict = Verdict(outcome, plan.code, plan.enhanced, plan.reason, rule=rule)
        attempt = Attempt(now, now, tls=TlsFacts())
        return Ended([(r, verdict, attempt) for r in work.recipients])

    def shared(self, work: Work, verdict: Verdict, seen: Attempt | None = None) -> Ended:
        """The failure of a next hop as the end of other work that waits for it; `seen`: the attempt that found it."""
        now = self._clock.now()
        attempt = Attempt(now, now, seen.host, seen.address) if seen is not None else Attempt(now, now)
        return Ended([(r, verdict, attempt) for r in work.recipients])

    # -- delays ------------------------------------------------------------------------------------------------------

    def _late(self, envelope: Envelope, now: float) -> bool:
        """Whether it is time to tell the sender that a message is late."""
        after = self.settings.retry.warn
        return after is not None and now >= envelope.arrived + after

    def wanted(self, envelope: Envelope, r: Recipient) -> bool:
        """Whether the sender is to hear of a delay of this recipient."""
        return delay_wanted(self.settings.bounce.delay_to, envelope.sender, envelope.trusted, r.notify)

    def warn(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        others: Sequence[Recipient],
        verdict: Verdict,
        attempt: Attempt,
        hop: str,
        done: Callable[[], None],
    ) -> None:
        """Tell the sender of claimed recipients that wait for a next hop that is down, and park them untried again, as
        the `others` are whom it does not concern. `attempt` says who answered, and has `finished` 0."""
        reported, warned = self._told(message, [Reported(r, verdict, attempt, Action.DELAYED) for r in recipients], hop)
        marked = [r for r in recipients if r.ordinal in warned]
        rest = [*others, *(r for r in recipients if r.ordinal not in warned)]
        reports = self._reports(message, reported, self._clock.now()) if reported else []
        self._store.warn(message, marked, rest, reports, done)

    def _told(self, message: Message, reported: list[Reported], hop: str) -> tuple[list[Reported], set[int]]:
        """What of `reported` goes into a report, and whose delay needs no other: told now, or not to be told at all.

        Mail that a machine or a list sent is not warned about, unless NOTIFY asks for it; and when there are too many
        notices, a message waits for its own, if there is no other report to put it into."""
        delays = {each.recipient.ordinal for each in reported if each.action is Action.DELAYED}
        if not delays:
            return reported, delays
        if automatic(self._original(message, HEADER_LIMIT)):
            reported = [each for each in reported if each.action is not Action.DELAYED or each.recipient.notify]
        left = sum(each.action is Action.DELAYED for each in reported)
        if left and left == len(reported) and not self.allowance.take(hop):
            return [], set()
        return reported, delays

    # -- reports -----------------------------------------------------------------------------------------------------

    def _reports(self, message: Message, reported: Sequence[Reported], now: float) -> list[Message]:
        """The report, as a message of ours with the null sender; empty if there is none to send (RFC 3464)."""
        failed = any(each.action is Action.FAILED for each in reported)
        number = self._store.next_id()
        report = compose(
            message,
            reported,
            self._original(message, HEAD if failed else HEADER_LIMIT + 1),
            hostname=self.settings.hostname,
            postmaster=self.settings.mail.postmaster,
            return_limit=self.settings.bounce.return_,
            now=now,
            report_id=encode(number),
        )
        if report is None:
            return []
        actions = ",".join(sorted({each.action for each in reported}))
        self._events.emit("report", id=message.id, report=encode(number), recipient=report.recipient, actions=actions)
        return [own_message(number, report, now, self.settings)]

    def _original(self, message: Message, limit: int) -> bytes:
        """The message, or the first `limit` octets of one that is in a spool file."""
        if message.body is not None:
            return message.body
        try:
            return self._store.spool.head(message.id, limit)
        except OSError:
            return b"\r\n"

    def _tell(
        self, message: Message, r: Recipient, verdict: Verdict, attempt: Attempt, plan: Plan, due: float | None
    ) -> None:
        self._events.emit(
            str(verdict.outcome) if verdict.rule not in ("hold", "discard") else verdict.rule,
            id=message.id,
            recipient=r.address,
            sender=message.envelope.sender,
            host=attempt.host,
            address=attempt.address,
            code=verdict.code or None,
            enhanced=verdict.enhanced,
            reply=verdict.reply,
            delay=round(attempt.finished - message.envelope.arrived, 3),
            next_attempt=round(due, 3) if due else None,
        )


def own_message(number: int, report: Report, now: float, settings: Settings) -> Message:
    """A report as a message: null sender, expiry of null-sender mail."""
    from mailtui.address import parse_mailbox

    mailbox = parse_mailbox(report.recipient.encode("utf-8", "surrogateescape"), utf8=True)
    envelope = Envelope(
        sender="",
        arrived=now,
        size=len(report.content),
        eight_bit=report.eight_bit,
        smtputf8=report.smtputf8,
        utf8_header=report.smtputf8,  # its To names the recipient
    )
    only = Recipient(
        1, mailbox.text, mailbox.destination, OURSELVES, due=now, expires=now + settings.retry.bounce_expire
    )
    return Message(number, envelope, [only], report.content)
