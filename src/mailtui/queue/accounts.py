"""Accounts as the store keeps them, and what a quarantine does to an account's mail.

Promises: what a quarantine holds says so (`held_by`), so that its release gives back exactly that; a relay that starts
holds what a quarantine has not held yet, before anything is delivered.
"""

import sqlite3

from mailtui.model import Account
from mailtui.queue.actions import Action, act
from mailtui.queue.read import Reader
from mailtui.queue.tables import accounts as sql
from mailtui.queue.transaction import Domains, Transaction

# Recipients in one transaction, where nothing else waits for the writer.
STEP = 1000


def held_by(name: str) -> str:
    """What `held_by` says of mail that the quarantine of an account holds."""
    return f"quarantine of {name}"


def accounts(conn: sqlite3.Connection) -> list[Account]:
    """All of them by name, the one that stands for nobody among them."""
    return [Account(*row) for row in conn.execute(sql.ALL)]


def put(conn: sqlite3.Connection, account: Account) -> None:
    """A new account, or what an account is from now on."""
    row = (account.name, account.verifier, account.since, account.quarantined, account.who, account.reason)
    conn.execute(sql.SET, row)


def remove(conn: sqlite3.Connection, name: str) -> None:
    conn.execute(sql.UNSET, (name,))


def read_accounts(reader: Reader) -> list[Account]:
    """As `accounts`, beside a relay or after it."""
    with reader._snapshot():  # the reader's own way of one moment and a deadline
        return accounts(reader._connection)


def queued(reader: Reader) -> dict[str, int]:
    """How many recipients wait, by account. A walk over the queue."""
    with reader._snapshot():
        return dict(reader._connection.execute(sql.QUEUED).fetchall())


def hold_mail(conn: sqlite3.Connection, name: str, now: float) -> int:
    """Hold the parked mail of an account, where no relay runs yet; how many recipients."""
    return _act(conn, Action("hold", who=held_by(name)), sql.WAITING, name, now)


def release_mail(conn: sqlite3.Connection, name: str, now: float) -> int:
    """Release what the quarantine of an account holds, where no relay runs; how many recipients."""
    return _act(conn, Action("release"), sql.HELD, name, now)


def _act(conn: sqlite3.Connection, action: Action, select: str, name: str, now: float) -> int:
    """Page after page, each a transaction."""
    domains = Domains(conn)
    values: list[object] = [name, 0, 0, STEP]
    if select is sql.HELD:
        values.append(held_by(name))
    done = 0
    while rids := conn.execute(select, values).fetchall():
        conn.execute("BEGIN IMMEDIATE")
        try:
            tx = Transaction(conn, domains)
            done += len(act(tx, action, rids, now).done)
            tx.flush()
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        values[1:3] = rids[-1]
    return done
