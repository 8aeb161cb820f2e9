"""When it is tried again, and when it is given up.

The schedule `5m 10m 30m 1h 2h 4h` means: 5 minutes after the first attempt, 10 after the second, ..., then every
4 hours; each delay is stretched by up to 15 %, so that a burst does not come back as one. The last attempt falls on the
expiry itself; only an attempt that fails at or after the expiry gives a recipient up.
"""

import random
from collections.abc import Sequence

from mailtui.model import Outcome, Recipient, Verdict

# Upward only: never sooner than the schedule says.
JITTER = 0.15


def next_due(recipient: Recipient, schedule: Sequence[float], now: float, rng: random.Random) -> float:
    """The moment of the attempt after the one that just failed (the recipient's count does not include it yet)."""
    delay = schedule[min(recipient.attempts, len(schedule) - 1)]
    due = now + delay * (1 + rng.random() * JITTER)
    return min(due, recipient.expires) if recipient.expires > now else due


def expired(recipient: Recipient, verdict: Verdict, now: float) -> Verdict | None:
    """The verdict that gives a recipient up whose time is over, with the last reply; None while it may go on.

    The status is the last 4.x.x of a reply, else 4.4.7 (RFC 3463: delivery time expired)."""
    if verdict.outcome is not Outcome.DEFERRED or now < recipient.expires:
        return None
    spoken = verdict.remote and verdict.enhanced.startswith("4.") and verdict.enhanced != "4.0.0"
    own = verdict.enhanced if spoken else "4.4.7"
    return Verdict(Outcome.BOUNCED, verdict.code, own, verdict.reply, remote=verdict.remote, rule="expired")
