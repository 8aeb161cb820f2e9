"""How many delay notices may be made: few, when many messages are late at once.

Promises: at most PER_HOP a minute for one next hop and IN_ALL a minute; what is put off is counted, and told in the
log. Failures are none of its business: a report of a failure is never put off.
"""

from mailtui.clock import Clock
from mailtui.events import Events

# A person or two who wrote to a site that is down are told at once; ten thousand senders over a day and a half, which
# is what the site's own servers, and ours, can take beside the mail. One every twelve seconds.
PER_HOP = 5

# With many sites down it is our own line that is down: a notice every two seconds disturbs nothing else.
IN_ALL = 30

MINUTE = 60.0


class Allowance:
    """Counts by the minute; the log gets at most two lines of it."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._clock = clock
        self._events = events
        self._begun = -MINUTE
        self._taken: dict[str, int] = {}
        self._all = 0
        self._put_off: dict[str, int] = {}
        self._limited = False  # the log knows

    def take(self, hop: str) -> bool:
        """Whether a notice may be made for a next hop now; then it counts, else it is put off."""
        if self.wait(hop) <= 0:
            self._taken[hop] = self._taken.get(hop, 0) + 1
            self._all += 1
            return True
        self.used_up(hop)
        self._put_off[hop] = self._put_off.get(hop, 0) + 1
        return False

    def used_up(self, hop: str) -> None:
        """Tell the log, once a minute, that there are enough."""
        if not self._limited:
            self._limited = True
            text = f"{PER_HOP} a minute for a next hop, {IN_ALL} in all: if more senders are to be told, they are later"
            self._events.emit("delay-notices-limited", next_hop=hop, text=text)

    def wait(self, hop: str) -> float:
        """Seconds until a notice may be made for a next hop; 0 for now."""
        now = self._clock.monotonic()
        if now - self._begun >= MINUTE:
            if self._put_off:
                count, hops = sum(self._put_off.values()), len(self._put_off)
                self._events.emit("delay-notices-put-off", notices=count, next_hops=hops)
            self._begun, self._all, self._limited = now, 0, False
            self._taken.clear()
            self._put_off.clear()
        if self._taken.get(hop, 0) < PER_HOP and self._all < IN_ALL:
            return 0.0
        return self._begun + MINUTE - now
