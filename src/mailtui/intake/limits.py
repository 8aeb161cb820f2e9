"""How much one client may have: connections, and messages for a connection, an address and an account.

Promises: a client over a limit is told so at once (standards R03); strangers never have the last tenth of the slots,
which is for clients that may relay; when theirs are taken the slowest of them makes room, so that whoever is quick gets
through however many hold on (R04); what is counted for one client is never more in any period than the rate allows;
memory is bounded, however many clients there are.
"""

import heapq
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from mailtui.clock import Clock
from mailtui.events import Events
from mailtui.intake.grants import Grants
from mailtui.intake.question import Address
from mailtui.intake.terms import MemoryBudget, Terms
from mailtui.model import SmtpError

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# One slot in so many is kept for networks, accounts, certificates and grants.
RESERVE = 10
# A session that is in the data of a message earns a second for so many octets: one that sends what a slow line sends
# is not the slowest, one that drips is.
PACE = 1000.0
# Sessions that one look at all of them finds to make room: with 1,000 of them a look costs half a millisecond, which is
# as much as all else that a connection costs. A grant that was given or has ended counts after as many connections.
SLOWEST = 32
# Commands without a message, from the beginning or the last message that was kept: Postfix's smtpd_junk_command_limit.
# Ten times as many for who may relay: a pool of connections keeps them open with NOOP or RSET, for hours at worst.
IDLE_COMMANDS = 100
IDLE_COMMANDS_TRUSTED = 1000
# Messages of a stranger on one connection. No sender that keeps a connection sends more in its time; without an end
# one would be a way around what is counted by connection.
MESSAGES = 1000
# What came within this part of the period counts as one moment, the last of it: an array of at most 2 * 33 numbers.
MOMENTS = 32
# Clients, and accounts, that are remembered; those unheard of for longest go first. Under 10 MB when full.
REMEMBERED = 10_000

K = TypeVar("K", bound=Hashable)


class Per(Protocol):
    """A rate as settings have it: at most `amount` in any `seconds`."""

    @property
    def amount(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class _Counted:
    """What one key has had: moments and how many there were, in turn; and how often it was refused since."""

    __slots__ = ("marks", "refused", "total")

    def __init__(self) -> None:
        self.marks = array("d")
        self.total = 0
        self.refused = 0


class Rates(Generic[K]):
    """Counts by address or by account, for one rate that may change at a reload."""

    def __init__(self) -> None:
        self._counted: OrderedDict[K, _Counted] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counted)

    def take(self, key: K, rate: Per, now: float) -> int:
        """Count one more if the rate allows it: 0; else how often it was refused in a row. `now` is monotonic."""
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = _Counted()
            if len(self._counted) > REMEMBERED:
                self._counted.popitem(last=False)
        else:
            self._counted.move_to_end(key)
        marks = counted.marks
        while marks and marks[0] <= now - rate.seconds:
            counted.total -= int(marks[1])
            del marks[:2]
        if counted.total >= rate.amount:
            counted.refused += 1
            return counted.refused
        counted.refused = 0
        counted.total += 1
        if len(marks) > 2 and now - marks[-4] < rate.seconds / MOMENTS:
            marks[-2] = now
            marks[-1] += 1
        else:
            marks.extend((now, 1))
        return 0

    def over(self, rate: Per | None, now: float) -> int:
        """How many keys have been refused and still would be."""
        if rate is None:
            return 0
        return sum(1 for each in self._counted.values() if each.refused and each.marks[-2] > now - rate.seconds)


class Limits:
    """One for all listeners. `terms` is replaced at a reload."""

    def __init__(self, clock: Clock, events: Events, terms: Terms, budget: MemoryBudget, grants: Grants) -> None:
        self.terms = terms
        self.sessions: set[Session] = set()
        # Called with an account that goes on after it was refused for its rate, and why; not waited for.
        self.quarantine: Callable[[str, str], None] = lambda user, why: None
        self._clock = clock
        self._events = events
        self._budget = budget
        self._grants = grants
        self._clients: Counter[int] = Counter()
        self._strangers = 0  # of the sessions
        self._slowest: list[tuple[float, Session]] = []  # with what `_since` was; the slowest one is the last
        self._looks = 0  # how often the last look at all sessions may still be relied on
        self._by_client: Rates[int] = Rates()
        self._by_user: Rates[str] = Rates()

    # -- connections -------------------------------------------------------------------------------------------------

    def trusts(self, session: "Session") -> bool:
        """Whether the client may relay: such a one is no stranger, and never closed for others."""
        return (
            session.network is not None
            or session.user != ""
            or (session.certificate != "" and session.certificate in session.rules.certificates)
            or (len(self._grants) > 0 and self._grants.find(session.address) is not None)
        )

    def admit(self, session: "Session") -> SmtpError | None:
        """Count a new connection, or say why it is too many. Also for one whose client has turned out to be another."""
        terms, key = self.terms, client_key(session.address)
        self._uncount(session)
        if session.network is None and self._clients[key] >= terms.connections_per_client:
            text = f"{terms.hostname} Too many connections from your address"
            return SmtpError(421, "4.7.0", text, "connections-per-client")
        self.forget(session)
        if len(self.sessions) >= _for_strangers(terms) and not self._make_room(session):
            return SmtpError(421, "4.7.0", f"{terms.hostname} Too many connections", "connections")
        self.sessions.add(session)
        self.regard(session)
        self._clients[key] += 1
        session.counted = key
        return None

    def forget(self, session: "Session") -> None:
        """A connection is gone."""
        self.sessions.discard(session)
        self.regard(session)
        self._uncount(session)

    def regard(self, session: "Session") -> None:
        """Count a session as a stranger or not: it is new or gone, or it has become known who its client is."""
        stranger = session in self.sessions and not self.trusts(session)
        self._strangers += stranger - session.stranger
        session.stranger = stranger

    def _uncount(self, session: "Session") -> None:
        key, session.counted = session.counted, None
        if key is not None:
            self._clients[key] -= 1
            if not self._clients[key]:
                del self._clients[key]

    def _make_room(self, session: "Session") -> bool:
        """Whether there is a slot for a new connection, if need be that of the slowest stranger."""
        terms, now = self.terms, session.loop.time()
        if not self._looks:
            self._look(now)
        self._looks -= 1
        if len(self.sessions) < terms.connections and (self._strangers < _for_strangers(terms) or self.trusts(session)):
            return True
        slowest = self._next_slowest(now)
        if slowest is None:
            return False
        seconds = round(now - slowest.since)
        text = f"the slowest stranger makes room: nothing of it was kept for {seconds} s"
        self._events.emit("closed", client=slowest.client, listener=slowest.door.name, text=text)
        slowest.leave("4.3.2", "Too many connections, try again later")
        self.forget(slowest)
        return True

    def _look(self, now: float) -> None:
        """Look at all sessions: who is a stranger, for grants come and go, and who are the slowest."""
        for each in self.sessions:
            self.regard(each)
        since = {each: _since(each) for each in self.sessions if each.stranger and not each.committing}
        found = heapq.nsmallest(SLOWEST, since, key=since.__getitem__)
        # Behind the first, only those that stay slower than any that is still to come.
        self._slowest = [(since[each], each) for each in found if since[each] <= now or each is found[0]][::-1]
        self._looks = SLOWEST

    def _next_slowest(self, now: float) -> "Session | None":
        """The slowest stranger that may be closed: of those that were found, if nothing has come from it since; else by
        another look."""
        for again in (True, False):
            while self._slowest:
                since, each = self._slowest.pop()
                if each.stranger and not each.committing and not self.trusts(each) and _since(each) == since:
                    return each
            if again:
                self._look(now)
        return None

    # -- messages ----------------------------------------------------------------------------------------------------

    def message(self, session: "Session") -> SmtpError | None:
        """Count a message that begins, or say why it is too many. 421: the session ends with it."""
        terms = self.terms
        session.messages += 1
        if session.messages > MESSAGES and not self.trusts(session):
            return SmtpError(421, "4.7.0", "Too many messages on one connection, open another one", "messages")
        if self._budget.short:
            return SmtpError(452, "4.3.1", "Insufficient memory, try again later", "memory")
        if terms.client_rate is not None or terms.user_rate is not None:
            return self._rated(session)
        return None

    def idles(self, session: "Session") -> bool:
        """Count a command that brings no message nearer; whether there were too many since the last one was kept."""
        session.idle += 1
        if session.idle <= IDLE_COMMANDS:
            return False
        return session.idle > IDLE_COMMANDS_TRUSTED or not self.trusts(session)

    def _rated(self, session: "Session") -> SmtpError | None:
        terms, now, user = self.terms, self._clock.monotonic(), session.user
        if terms.user_rate is not None and user and (times := self._by_user.take(user, terms.user_rate, now)):
            if times == 1:
                text = f"{user} has sent more than {_words(terms.user_rate)}"
                self._events.emit("user-rate", level="warning", client=session.client, user=user, text=text)
            if times == patience(terms.user_rate):
                self.quarantine(user, f"more than {_words(terms.user_rate)}, and went on when refused")
            return SmtpError(450, "4.7.1", f"More than {_words(terms.user_rate)}, try again later", "user-rate")
        if terms.client_rate is not None:
            times = self._by_client.take(client_key(session.address), terms.client_rate, now)
            if times == 1:
                text = f"more than {_words(terms.client_rate)} from one client"
                self._events.emit("client-rate", level="warning", client=session.client, text=text)
            if times:
                text = f"More than {_words(terms.client_rate)} from your address, try again later"
                return SmtpError(450, "4.7.1", text, "client-rate")
        return None

    def warnings(self) -> list[str]:
        """Who is refused now for a rate."""
        now, found = self._clock.monotonic(), []
        if count := self._by_client.over(self.terms.client_rate, now):
            found.append(f"{count} clients are refused for client_rate; see client-rate in the log")
        if count := self._by_user.over(self.terms.user_rate, now):
            found.append(f"{count} accounts are refused for user_rate; see user-rate in the log")
        return found


def client_key(address: Address | None) -> int:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one host may use at will."""
    if address is None:
        return 0
    if address.version == 6:
        return -(int(address) >> 64) - 1
    return int(address)


def _for_strangers(terms: Terms) -> int:
    """Slots that strangers may have."""
    return terms.connections - terms.connections // RESERVE


def patience(rate: Per) -> int:
    """After so many refusals in a row an account is put into quarantine: a tenth of what it may send. Who is told to
    wait and waits is let be; what a stolen password is used for does not wait."""
    return max(2, rate.amount // 10)


def _since(session: "Session") -> float:
    """Since when it is slow: its beginning or its last message, and later by what its data have earned. Where it does
    nothing this stands still, so that who is found to be slower than another stays so."""
    under_way = session.reception
    if under_way is None and session.transaction is not None:
        under_way = session.transaction.chunks
    return session.since + (under_way.total / PACE if under_way is not None else 0.0)


def _words(rate: Per) -> str:
    return f"{rate.amount} messages in {rate.seconds:g} s"
