"""LMTP (RFC 2033): what differs from SMTP once the message was sent.

Promises: every accepted recipient gets the verdict of its own reply, in the order of the RCPTs; one that got none
before the session was lost keeps waiting.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailtui.delivery.replies import FINAL_DOT
from mailtui.delivery.verdict import judge
from mailtui.model import Recipient, Reply, Verdict

if TYPE_CHECKING:
    from mailtui.delivery.client import Session


async def outcomes(session: "Session", accepted: Sequence[Recipient], verdicts: dict[int, Verdict]) -> Reply | None:
    """Read the replies after the final dot, one a recipient (RFC 2033 section 4.2), into `verdicts`.

    Returns the 421 that ended it before all had one, else None. Raises SessionLost."""
    for recipient in accepted:
        reply = session.ready() or await session.reply(FINAL_DOT, f"the reply for {recipient.address}")
        if reply.code == 421:
            return reply
        verdicts[recipient.ordinal] = judge(reply)
    return None
