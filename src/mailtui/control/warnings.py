"""What is wrong now: the warnings of `status`, the console's banner and the log's counterparts.

Promises: each one says what is wrong and of what; one that is over is gone; nothing here waits or reads the disk anew.
"""

from collections.abc import Iterator
from typing import Any

from mailtui.ids import encode
from mailtui.intake.listener import Intake
from mailtui.queue.store import Store


def warnings(store: Store, intake: Intake, started: float) -> list[dict[str, Any]]:
    """Code, text and since when (wall time, None: unknown) of each; `started`: when the relay did."""
    return [
        {"code": code, "text": text, "since": since}
        for found in (_of_store(store, started), _of_accounts(intake), _of_intake(intake))
        for code, text, since in found
    ]


def _of_store(store: Store, started: float) -> Iterator[tuple[str, str, float | None]]:
    refusal = store.refusal()
    if refusal is not None:
        yield "disk", f"the queue's disk is short: new mail gets {refusal.reply}", None
    for number in sorted(store.missing_bodies):
        yield "spool", f"{encode(number)}: its spool file is missing", started


def _of_accounts(intake: Intake) -> Iterator[tuple[str, str, float | None]]:
    for account in intake.accounts.all:
        if account.quarantined is not None:
            text = f"account {account.name} is in quarantine" + (f": {account.reason}" if account.reason else "")
            yield "quarantine", text, account.quarantined
    clients, names = intake.logins.throttle.slowed()
    if clients or names:
        text = f"failed logins: {clients} clients and {names} accounts are slowed; see auth-failed in the log"
        yield "auth-failed", text, None


def _of_intake(intake: Intake) -> Iterator[tuple[str, str, float | None]]:
    for text, since in intake.warnings():
        yield "certificate", text, since
    for text in intake.limits.warnings():
        yield "rate", text, None
    for text, since in intake.callout.warnings():
        yield "callout", text, since
