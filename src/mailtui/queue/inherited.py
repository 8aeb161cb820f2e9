"""What a relay inherits: at start, what the last one left is put in order, and what this one begins with is read.

Promises: what the last owner had claimed is void, and due again soon; bodies and rows agree; nothing walks the queue,
except after a crash. The caller holds the lock.
"""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mailtui.model import Account, Control
from mailtui.queue import accounts, claims, operations
from mailtui.queue.database import PAGE_SIZE, StoreError, open_writer
from mailtui.queue.spool import Spool
from mailtui.queue.tables import controls, messages


@dataclass(frozen=True, slots=True)
class Inherited:
    """The writer's connection, and what its new owner begins with."""

    conn: sqlite3.Connection
    owner: int  # of the claims from now on
    last_id: int
    interrupted: int  # recipients that were in delivery when the last relay died
    interrupted_operations: list[operations.Operation]
    missing_bodies: set[int]
    accounts: list[Account]
    heads: list[tuple[str, float]]  # every destination with parked mail, and when its first recipient is due
    controls: list[tuple[str, Control]]
    free_pages: int  # octets


def inherit(state_dir: Path, spool: Spool, now: float) -> Inherited:
    """Bring the schema up to date and void what an earlier relay held. Raises StoreError or OSError."""
    conn = open_writer(state_dir)
    try:
        return _in_order(conn, spool, now)
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(
                f"cannot take over the queue in {state_dir}: {error}; make room, or put back a backup"
            ) from error
        raise


def _in_order(conn: sqlite3.Connection, spool: Spool, now: float) -> Inherited:
    last_id = _meta(conn, messages.LAST_ID)
    owner = _meta(conn, messages.OWNER) + 1
    interrupted = claims.take_over(conn, owner, now)
    interrupted_operations = operations.recover(conn, now)
    missing = spool.reconcile({row[0] for row in conn.execute(messages.SPOOLED_IDS)})
    claims.hold_without_body(conn, missing)
    known = accounts.accounts(conn)
    for account in known:
        if account.quarantined is not None:  # by somebody, while no relay ran, or just before one was killed
            accounts.hold_mail(conn, account.name, now)
    return Inherited(
        conn,
        owner=owner,
        last_id=last_id,
        interrupted=interrupted,
        interrupted_operations=interrupted_operations,
        missing_bodies=missing,
        accounts=known,
        heads=claims.heads(conn),
        controls=[
            (kind, Control(name, since, until, reason, who, json.loads(value), version))
            for kind, name, value, since, until, who, reason, version in conn.execute(controls.ALL)
        ],
        free_pages=conn.execute("PRAGMA freelist_count").fetchone()[0] * PAGE_SIZE,
    )


def _meta(conn: sqlite3.Connection, key: str) -> int:
    row = conn.execute(messages.GET_META, (key,)).fetchone()
    return int(row[0]) if row else 0
