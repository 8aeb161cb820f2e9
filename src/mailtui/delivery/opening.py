"""A new session with a host: at the level that is asked for, logged in, or the reason why there is none.

Promises: on `may`, TLS that fails is followed by clear text over a new connection to the same address, and the facts
say so; on any stricter level there is no session then (standards L09). A refused login never bounces mail.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtui.delivery.client import Session
from mailtui.delivery.replies import LoginFailed, SessionLost, TlsFailed
from mailtui.delivery.secrets import SecretsError
from mailtui.delivery.verdict import judge, trouble
from mailtui.model import Outcome, PlannedHost, Reply, TlsFacts, TlsPolicy, Verdict
from mailtui.tls import policy

if TYPE_CHECKING:
    from mailtui.delivery.attempt import Sender


@dataclass(frozen=True, slots=True)
class Refused:
    """No session: what that means for a message, and the facts. `limited`: we were asked, by a 421 that names a policy
    or a rate, to stay away."""

    verdict: Verdict
    tls: TlsFacts
    transcript: str = ""
    limited: bool = False


def serves(session: Session, hosts: tuple[PlannedHost, ...], default: str) -> bool:
    """Whether a session may carry a message whose plan has these hosts: it is with one of them, by the same way, and
    was opened for the level that the message needs. `default`: `[tls] default`.

    That is remembered in the session, so that the next message with the same plan costs a comparison."""
    ours, level = session.planned, session.level
    if ours is None or level is None:
        return False
    for host in hosts:
        if _way(host) == _way(ours) and policy.same(policy.level_for(host, default), level):
            session.hosts, session.default = hosts, default
            return True
    return False


def _way(host: PlannedHost) -> tuple[object, ...]:
    return host.name, host.port, host.scheme, host.path, host.auth, host.source, host.domain if host.auth else ""


async def open_session(sender: "Sender", host: PlannedHost, address: str, level: TlsPolicy) -> Session | Refused:
    """Connect to one address of a host. Never raises for what the host does."""
    credentials = None
    if host.auth:
        try:
            credentials = sender.secrets.find(tuple(dict.fromkeys(filter(None, (host.name, host.domain)))), host.auth)
        except SecretsError as error:
            return Refused(trouble(str(error), "4.7.8", "auth"), policy.plaintext(level))
    source = host.source or (sender.source_ipv6 if ":" in address else sender.source_ipv4)
    clear = ""
    while True:
        session = Session(sender.clock, sender.watchdog, sender.hostname)
        try:
            await session.connect(
                host, address, level, sender.contexts, limit=sender.connect_timeout, source=source,
                credentials=credentials, clear=clear,
            )  # fmt: skip
        except TlsFailed as failed:
            if level.level == "may" and failed.fallback and not clear:
                clear = f"in clear text, since {failed.text}"
                continue
            verdict = trouble(failed.text, failed.enhanced, "tls-policy")
            return Refused(verdict, policy.plaintext(level, failed.text), session.transcript())
        except LoginFailed as failed:
            return Refused(_not_let_in(failed), session.tls, session.transcript())
        except SessionLost as lost:
            sender.dead.failed(address, host.port, sender.clock.monotonic())
            text = session.transcript() or f"! {lost.text}"
            if lost.reply is None:
                return Refused(trouble(lost.text, "4.4.1", "connection"), session.tls, text)
            limited = lost.reply.code == 421 and lost.reply.enhanced.startswith("4.7.")
            return Refused(_unwelcome(lost.reply), session.tls, text, limited)
        if sender.dead:
            sender.dead.answered(address, host.port)
        if address in sender.no_chunking:
            session.chunking = False
        return session


def _unwelcome(reply: Reply) -> Verdict:
    """A host that refuses the session says nothing about this message: another may take it."""
    spoken = judge(reply, "greeting")
    enhanced = "4" + spoken.enhanced[1:]
    return Verdict(Outcome.DEFERRED, spoken.code, enhanced, spoken.reply, remote=True, rule="greeting")


def _not_let_in(failed: LoginFailed) -> Verdict:
    """A login that failed is the operator's to mend: the mail waits."""
    reply = failed.reply
    if reply is None:
        return trouble(failed.text, "4.7.8", "auth")
    enhanced = "4" + reply.enhanced[1:] if reply.enhanced else "4.7.8"
    return Verdict(Outcome.DEFERRED, reply.code, enhanced, failed.text, remote=True, rule="auth")
