"""Logging in at a next hop (AUTH, RFC 4954).

Promises: a password leaves only where `policy.may_log_in` says so, and stands in no transcript; mechanisms are those
that the server offers under TLS, the strongest first.
"""

import asyncio
import base64
from typing import TYPE_CHECKING

from mailtui.delivery import sasl
from mailtui.delivery.replies import COMMAND, LoginFailed, SessionLost
from mailtui.delivery.secrets import Credentials
from mailtui.model import Reply
from mailtui.tls import policy

if TYPE_CHECKING:
    from mailtui.delivery.client import Session

# RFC 5321 section 4.5.3.1.4: a longer command is not sure to be taken, so an initial response waits to be asked for.
COMMAND_LINE = 512


async def log_in(session: "Session", credentials: Credentials) -> None:
    """AUTH by the strongest mechanism on offer. Raises LoginFailed; SessionLost for a 421."""
    where = f"{session.where} as {credentials.user}"
    if not policy.may_log_in(session.tls, session.address):  # the level sees to it: this is the net under that
        raise LoginFailed(f"cannot log in at {where}: the session is not verified TLS")
    offered = session.extensions.get("auth", "")
    names = sasl.usable(offered)
    if not names:
        said = f"only {ascii(offered)[1:-1]}" if offered else "no AUTH"
        raise LoginFailed(f"cannot log in at {where}: it offers {said}, expected {' or '.join(sasl.MECHANISMS)}")
    try:
        for name in names:
            reply = await _exchange(session, name, sasl.MECHANISMS[name](credentials.user, credentials.password))
            if reply.code != 504:  # a mechanism that is offered and not taken: the next one may be
                break
    except sasl.SaslError as error:
        raise LoginFailed(f"cannot log in at {where}: {error}") from error
    if reply.code == 421:
        raise SessionLost(f"{session.where} answered AUTH with: {reply}", reply=reply)
    if reply.code != 235:
        raise LoginFailed(f"cannot log in at {where}: {reply}", reply=reply)


async def _exchange(session: "Session", name: str, dialogue: sasl.Dialogue) -> Reply:
    """One mechanism's dialogue: the server's last reply. Raises sasl.SaslError."""
    proven = False
    command = b"AUTH " + name.encode()
    masked = command + b" ****\r\n"
    response = next(dialogue)
    if response is not None:
        whole = command + b" " + (base64.b64encode(response) or b"=")
        if len(whole) + 2 <= COMMAND_LINE:
            command, response = whole, None
    session.write_unseen(command + b"\r\n", masked)
    while True:
        reply = await session.reply(COMMAND, "the reply to AUTH")
        if reply.code != 334:
            break
        if response is None:
            challenge = sasl.decoded(reply.text.encode("ascii", "replace"))
            # In a thread: SCRAM's rounds take up to half a second.
            response = await asyncio.get_running_loop().run_in_executor(None, _answer, dialogue, challenge)
            if response is None:
                raise sasl.SaslError(f"the server goes on asking after the end of {name}")
            proven = response == b""
        session.write_unseen(base64.b64encode(response) + b"\r\n", b"****\r\n")
        response = None
    if reply.code == 235 and name in sasl.MUTUAL and not proven:
        raise sasl.SaslError(f"the server ended {name} without proving that it knows the password")
    return reply


def _answer(dialogue: sasl.Dialogue, challenge: bytes) -> bytes | None:
    """What the client says to a challenge; None if the dialogue is over."""
    try:
        return dialogue.send(challenge)
    except StopIteration:
        return None
