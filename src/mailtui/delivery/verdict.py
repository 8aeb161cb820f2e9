"""From a reply to a verdict: pure functions.

Promises: the first digit decides (RFC 5321 section 4.2); what is no SMTP reply is temporary; the enhanced status code
is the reply's own if it has one of the same class, else X.0.0 (RFC 3463).
"""

import re

from mailtui.model import Outcome, Reply, Verdict

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")

# How next hops name the id under which they queued a message.
_REMOTE_ID = re.compile(
    r"(?:queued as +|\bid[ =:]+|\bok:? +(?:id=)?(?=[A-Za-z_.-]*\d))<?([A-Za-z0-9_.-]{6,80})", re.IGNORECASE
)

# Of a reply this many characters are kept: four lines of RFC 5321 section 4.5.3.1.5. It is stored with each recipient,
# and a server may send thousands of lines.
MAX_SAID = 2048

# The rule of a recipient that was one too many for its transaction.
TOO_MANY = "too-many-recipients"


def reply_of(code: int, text: str) -> Reply:
    """A Reply from what a server sent; lines of a multiline reply are joined by a blank, codes repeated on each go."""
    lines = text.split("\n")
    match = _ENHANCED.match(lines[0])
    enhanced = match.group(0).strip() if match and match[1] == str(code)[0] else ""
    if match and enhanced:
        prefix = match.group(0)
        lines = [line[len(prefix) :] if line.startswith(prefix) else line for line in lines]
    said = " ".join(line.strip() for line in lines if line.strip())
    return Reply(code, enhanced, said if len(said) <= MAX_SAID else said[: MAX_SAID - 4] + " ...")


def judge(reply: Reply, rule: str = "reply") -> Verdict:
    """The verdict that a next hop's final reply means for a recipient."""
    family = reply.code // 100
    outcome = {2: Outcome.DELIVERED, 5: Outcome.BOUNCED}.get(family, Outcome.DEFERRED)
    enhanced = reply.enhanced or f"{family if family in (2, 5) else 4}.0.0"
    return Verdict(outcome, reply.code, enhanced, reply.text, remote=True, rule=rule)


def judge_recipient(reply: Reply, accepted_before: int) -> Verdict:
    """As `judge` for a RCPT; 452 and 552 after other recipients were taken mean "too many": the rest may come in the
    next transaction (RFC 5321 section 4.5.3.1.10)."""
    if reply.code in (452, 552) and accepted_before:
        enhanced = "4.5.3" if reply.code == 552 else reply.enhanced or "4.5.3"
        return Verdict(Outcome.DEFERRED, reply.code, enhanced, reply.text, remote=True, rule=TOO_MANY)
    return judge(reply)


def trouble(text: str, enhanced: str, rule: str, code: int = 0) -> Verdict:
    """A deferral that no next hop's reply caused: no connection, no answer, no route."""
    return Verdict(Outcome.DEFERRED, code, enhanced, text, rule=rule)


def remote_id(text: str) -> str:
    """The id under which the next hop queued the message, "" if its reply names none."""
    match = _REMOTE_ID.search(text)
    return match[1] if match else ""
