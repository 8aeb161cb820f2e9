"""Asking a next hop whether it would take mail for an address, without sending any (`recipients = "callout"`).

Promises: the way is that of the mail (route table, MX, TLS level, login); the transaction has the null sender, so that
nobody is asked in turn, and ends before DATA; hosts are tried as an attempt tries them, two sessions at most; nothing
is asked of a place that is suspended. Never raises for what hosts do.
"""

from collections.abc import Callable, Iterator, Sequence

from mailtui.address import AddressError, with_ascii_domain
from mailtui.delivery.attempt import MAX_ADDRESSES, MAX_SESSIONS, Sender
from mailtui.delivery.client import Session
from mailtui.delivery.opening import Refused, open_session
from mailtui.delivery.replies import COMMAND, SessionLost
from mailtui.model import PlannedHost, Reply
from mailtui.routing.plan import order
from mailtui.routing.router import Router
from mailtui.tls import policy

_NO_SMTPUTF8 = Reply(550, "5.6.7", "the address needs SMTPUTF8, and its host does not offer it")


class Asker:
    """Asks over `router`'s ways as `sender()` connects. `suspended(destination, next_hop)`: leave it alone."""

    def __init__(
        self,
        router: Router,
        sender: Callable[[], Sender],
        suspended: Callable[[str, str], bool] = lambda destination, hop: False,
    ) -> None:
        self._router = router
        self._sender = sender
        self._suspended = suspended

    async def __call__(self, addresses: Sequence[str], destination: str) -> Sequence[Reply]:
        """A reply to RCPT for each address, all of one destination. Code 0: nobody could be asked, the text says why.

        The way is that of the first address."""
        plan = await self._router.plan(addresses[0], destination, "")
        if plan.outcome in ("hold", "discard"):
            return [Reply(250, "2.1.5", plan.reason)] * len(addresses)  # no host takes it, but mail is taken for it
        if plan.outcome == "bounce":
            return [Reply(550, plan.enhanced, plan.reason)] * len(addresses)
        if plan.outcome != "deliver":
            return [Reply(0, "", plan.reason)] * len(addresses)
        if self._suspended(destination, plan.next_hop):
            return [Reply(0, "", f"{destination} is suspended")] * len(addresses)
        sender = self._sender()
        why, sessions = "none of its hosts has an address", 0
        for host, address in _places(sender, order(plan.hosts, sender.rng)):
            level = policy.level_for(host, sender.tls_default)
            if (short := policy.shortfall(level)) is not None:
                why = short
                continue
            opened = await open_session(sender, host, address, level)
            if isinstance(opened, Refused):
                why = opened.verdict.reply
                continue
            sessions += 1
            try:
                replies = await _dialogue(opened, addresses)
            except SessionLost as lost:
                why = lost.text
            else:
                if replies[0].code >= 500 or 200 <= replies[0].code < 300:
                    return replies
                why = str(replies[0]) if replies[0].code else replies[0].text
            finally:
                opened.close()
            if sessions == MAX_SESSIONS:
                break
        return [Reply(0, "", why)] * len(addresses)


def _places(sender: Sender, hosts: Sequence[PlannedHost]) -> Iterator[tuple[PlannedHost, str]]:
    """Hosts with an address of theirs, in the order to try them; dead ones last, five at most."""
    count = 0
    for host in sender.dead.last(hosts, sender.clock.monotonic()):
        for address in host.addresses:
            if count == MAX_ADDRESSES:
                return
            count += 1
            yield host, address


async def _dialogue(session: Session, addresses: Sequence[str]) -> list[Reply]:
    """MAIL FROM:<>, a RCPT for each, RSET and QUIT. SessionLost."""
    utf8 = "smtputf8" in session.extensions
    written = [_as_sent(address, utf8=utf8) for address in addresses]
    if written[0] is None:
        session.leave()
        return [_NO_SMTPUTF8] * len(addresses)
    session.begin()
    keyword = b"" if all(one is None or one.isascii() for one in written) else b" SMTPUTF8"
    session.write(b"MAIL FROM:<>" + keyword + b"\r\n")
    mail = await session.reply(COMMAND, "the reply to MAIL")
    if mail.code // 100 != 2:
        # It takes no reports, which it has to (RFC 5321 section 4.5.5); that says nothing of its recipients.
        session.leave()
        return [Reply(0, "", f"{session.where} answers MAIL FROM:<> with: {mail}")] * len(addresses)
    replies: list[Reply] = []
    for one in written:
        if one is None:
            replies.append(_NO_SMTPUTF8)
            continue
        session.write(b"RCPT TO:<" + one + b">\r\n")
        replies.append(await session.reply(COMMAND, "the reply to RCPT"))
        if replies[-1].code == 421:
            raise SessionLost(f"{session.where} answers RCPT with: {replies[-1]}", reply=replies[-1])
    session.write(b"RSET\r\n")
    session.leave()
    return replies


def _as_sent(address: str, *, utf8: bool) -> bytes | None:
    """An address as RCPT has it; None if it needs SMTPUTF8 and there is none (RFC 6531 section 3.2)."""
    if address.isascii():
        return address.encode("ascii")
    if utf8:
        return address.encode("utf-8")
    try:
        ascii_form = with_ascii_domain(address)
    except AddressError:
        return None
    return ascii_form.encode("ascii") if ascii_form is not None else None
