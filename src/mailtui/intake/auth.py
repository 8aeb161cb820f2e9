"""AUTH in a session: RFC 4954.

Promises: nothing of a password is looked at where AUTH is not allowed, or before its turn (`throttle`); a wrong
password and a name that does not exist are answered alike and cost the same; a failure is counted also when the client
does not wait for the answer; what a client says in a dialogue, but the name of the account, reaches no log.
"""

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtui.intake import received
from mailtui.intake.dovecot import Unavailable
from mailtui.intake.logins import Busy
from mailtui.intake.mechanisms import MECHANISMS, Dialogue, Login, Password, SaslError, decoded

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# RFC 4954 section 4, without CRLF; also for AUTH with an initial response.
LINE_LIMIT = 12288
# Failures on one connection: a client that tries each of our mechanisms with an old password, and no more.
FAILURES = 3
# Characters of a name that the log shows.
NAME_SHOWN = 64


@dataclass(slots=True)
class Exchange:
    """An AUTH under way."""

    mechanism: str
    dialogue: Dialogue


def auth(session: "Session", argument: bytes) -> None:
    """The command AUTH."""
    door = session.door
    if door.auth == "off":
        return session.fail(502, "5.5.1", "AUTH is not offered here")
    if not session.protocol.startswith("E"):
        return session.fail(503, "5.5.1", "Say EHLO first")
    if session.user:
        return session.fail(503, "5.5.1", "You are authenticated already")
    if session.transaction is not None:
        return session.fail(503, "5.5.1", "AUTH is not allowed within a transaction")
    if not door.offers_auth(secure=session.secure):
        return session.fail(538, "5.7.11", "Encryption is required for AUTH; say STARTTLS first")
    if session.auth_failures >= FAILURES:
        return session.hang_up(421, "4.7.0", "Too many failed logins")
    word, _, initial = argument.partition(b" ")
    mechanism = word.decode("ascii", "replace").upper()
    make = MECHANISMS[mechanism] if mechanism in door.mechanisms else None
    if not word:
        return session.fail(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
    if make is None:
        return session.fail(504, "5.5.4", f"Mechanism is not known here; there are {', '.join(door.mechanisms)}")
    session.exchange = Exchange(mechanism, make(session.intake.accounts))
    challenge = next(session.exchange.dialogue)
    if initial:
        return respond(session, b"" if initial == b"=" else initial)
    return _challenge(session, challenge)


def respond(session: "Session", line: bytes) -> None:
    """A line of the client within AUTH."""
    exchange = session.exchange
    assert exchange is not None
    session.exchange = None
    if line == b"*":
        exchange.dialogue.close()
        return session.fail(501, "5.7.0", "Authentication is cancelled")
    try:
        challenge = exchange.dialogue.send(decoded(line))
    except StopIteration as end:
        session.flush()
        return session.wait_for(_decide(session, exchange.mechanism, end.value))
    except SaslError as error:
        return session.fail(501, "5.5.2", f"Bad response: {error}")
    session.exchange = exchange
    return _challenge(session, challenge)


def _challenge(session: "Session", challenge: bytes) -> None:
    session.send(b"334 " + base64.b64encode(challenge) + b"\r\n")
    session.flush()


def too_long(session: "Session", line: bytes) -> bool:
    """Whether a line that is longer than any other command may be is too long for AUTH too."""
    return len(line) > LINE_LIMIT or (session.exchange is None and line[:5].upper() != b"AUTH ")


def refuse_long(session: "Session") -> None:
    """A line was too long; within AUTH that is its end (RFC 4954 section 4)."""
    if session.exchange is None:
        return session.fail(500, "5.5.2", "Command line too long")
    session.exchange = None
    return session.fail(500, "5.5.6", "Authentication line too long")


async def _decide(session: "Session", mechanism: str, login: Login) -> None:
    """Check it when its turn has come, and answer."""
    intake, client = session.intake, session.intake.client_key(session.address)
    throttle = intake.logins.throttle
    wait = throttle.turn(client, login.name)
    if wait is None:
        _tell(session, mechanism, login, "too many failures before it: not looked at")
        return session.fail(454, "4.7.0", "Too many failed logins, try again later")
    if wait:
        await intake.clock.sleep_until(intake.clock.now() + wait)
    try:
        user = await _user(session, login)
    except Busy:
        return session.fail(454, "4.7.0", "Temporary authentication failure: too many logins at once")
    except Unavailable as error:
        intake.events.emit(
            "auth-unavailable", level="error", client=session.client, text=f"[access] auth_socket {error}"
        )
        return session.fail(454, "4.7.0", "Temporary authentication failure")
    if not user or login.other:
        throttle.failed(client, login.name)
        session.auth_failures += 1
        _tell(session, mechanism, login, "wrong user name or password")
        return session.fail(535, "5.7.8", "Authentication credentials invalid")
    throttle.succeeded(client, login.name)
    if user in intake.accounts.quarantined:
        _tell(session, mechanism, login, "the account is in quarantine")
        return session.fail(525, "5.7.13", "User account is disabled; ask the postmaster")
    if session.transport is None or session.closing:
        return None
    session.user = user
    intake.limits.regard(session)
    session.protocol = received.esmtp(secure=session.secure, authenticated=True)
    session.opening = received.opening(
        session.helo, session.client, session.client_name, intake.terms.hostname, session.protocol, session.tls
    )
    intake.events.emit(
        "authenticated", client=session.client, user=user, mechanism=mechanism, listener=session.door.name
    )
    return session.send(b"235 2.7.0 Authentication successful\r\n")


async def _user(session: "Session", login: Login) -> str:
    """Who has shown who he is; "" if it is not so. Raises Busy or Unavailable."""
    intake, name = session.intake, login.name
    if isinstance(login, Password) and intake.dovecot is not None:
        user = await intake.dovecot.check(session, name, login.password) if name and login.password else ""
        return user.lower()
    verifier = intake.accounts.verifier(name)
    if isinstance(login, Password):
        right = await intake.logins.check(name, verifier, login.password)
    else:
        right = login.right
    # What was checked may have been changed or removed meanwhile.
    known = intake.accounts.get(name) is not None and intake.accounts.verifier(name) is verifier
    return name if right and known else ""


def _tell(session: "Session", mechanism: str, login: Login, text: str) -> None:
    """A login that failed, for the log and the counters of it."""
    session.intake.events.emit(
        "auth-failed",
        level="warning",
        client=session.client,
        user=login.said[:NAME_SHOWN],
        mechanism=mechanism,
        listener=session.door.name,
        text=text,
    )
