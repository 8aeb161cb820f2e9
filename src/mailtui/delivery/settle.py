"""From the end of an attempt to what is written: deferral or farewell, the report, the mail log.

Promises: one settlement an attempt, with its bounce in the same transaction; a null sender gets no report; what
expires is given up with the last reply.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mailtui.bounce.report import failure_report
from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.delivery import retry
from mailtui.delivery.attempt import Ended, Work
from mailtui.delivery.verdict import remote_id
from mailtui.events import Events
from mailtui.ids import encode
from mailtui.model import Attempt, Envelope, Failure, Message, Outcome, Plan, Recipient, Settled, TlsFacts, Verdict

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

    def settle(
        self,
        message: Message,
        plan: Plan,
        results: Results,
        settled: Callable[[Sequence[tuple[str, float]]], None],
        *,
        always: bool = False,
    ) -> None:
        """Write the verdicts. `settled` hears after the commit which destinations have something due, and when; with
        `always` also if none has."""
        now = self._clock.now()
        ends: list[Settled] = []
        failures: list[Failure] = []
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
            elif verdict.outcome is Outcome.BOUNCED:
                failures.append(Failure(r, verdict, attempt, over is not None))
            else:
                found = remote_id(verdict.reply)
            ends.append(
                Settled(
                    r, verdict, attempt, plan.next_hop, plan.route, due, found,
                    deleted=verdict.rule == "discard", held_by="route" if verdict.rule == "hold" else "",
                )
            )  # fmt: skip
            self._tell(message, r, verdict, attempt, plan, due)
        reports = self._reports(message, failures, now) if failures else ()
        self._store.settle(message, ends, reports, (lambda: settled(deferred)) if deferred or always else None)

    def decide(self, work: Work) -> Ended:
        """The end of work whose plan does not deliver: bounce, defer, hold or discard, without any connection."""
        plan, now = work.plan, self._clock.now()
        outcome = {"bounce": Outcome.BOUNCED, "discard": Outcome.DELIVERED}.get(plan.outcome, Outcome.DEFERRED)
        rule = plan.outcome if plan.outcome in ("hold", "discard") else "dns" if plan.via != "route" else "route"
        verdict = Verdict(outcome, plan.code, plan.enhanced, plan.reason, rule=rule)
        attempt = Attempt(now, now, tls=TlsFacts())
        return Ended([(r, verdict, attempt) for r in work.recipients])

    def shared(self, work: Work, verdict: Verdict) -> Ended:
        """The failure of a next hop as the end of other work that waits for it."""
        now = self._clock.now()
        attempt = Attempt(now, now)
        return Ended([(r, verdict, attempt) for r in work.recipients])

    def _reports(self, message: Message, failures: Sequence[Failure], now: float) -> list[Message]:
        """The bounce, as a message of ours with the null sender; empty if there is none to send (RFC 3464)."""
        original = message.body
        if original is None:
            try:
                original = self._store.spool.head(message.id, HEAD)
            except OSError:
                original = b"\r\n"
        number = self._store.next_id()
        report = failure_report(
            message,
            failures,
            original,
            hostname=self.settings.hostname,
            postmaster=self.settings.mail.postmaster,
            return_limit=self.settings.bounce.return_,
            now=now,
            report_id=encode(number),
        )
        if report is None:
            return []
        return [own_message(number, report.recipient, report.content, report.eight_bit, now, self.settings)]

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


def own_message(
    number: int, recipient: str, content: bytes, eight_bit: bool, now: float, settings: Settings
) -> Message:
    """A message made by ourselves: null sender, expiry of null-sender mail."""
    from mailtui.address import parse_mailbox

    mailbox = parse_mailbox(recipient.encode("utf-8", "surrogateescape"), utf8=True)
    envelope = Envelope(sender="", arrived=now, size=len(content), protocol="", eight_bit=eight_bit, subject="")
    only = Recipient(
        1, mailbox.text, mailbox.destination, OURSELVES, due=now, expires=now + settings.retry.bounce_expire
    )
    return Message(number, envelope, [only], content)
