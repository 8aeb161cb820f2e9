"""Upkeep beside the traffic: pruning, counters that came to nothing, pages that became free.

Promises: every step is a job of its own, so that mail goes between two; one that failed is left to the next time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from mailtui.queue import claims
from mailtui.queue.database import PAGE_SIZE
from mailtui.queue.transaction import Transaction, drop_zero_counters
from mailtui.queue.writer import Job, Writer

# Rows pruned from history in one step: short enough to be unnoticed between two commits.
PRUNE_ROWS = 1000


def tidy(
    writer: Writer, *, now: float, keep: float, rows: int, transcripts: float, freed: Callable[[int], None]
) -> None:
    """Prune and vacuum, in as many small steps as it takes. `keep`, `transcripts`: ages in seconds; `rows`: of history.

    `freed` is told the octets on free pages."""
    prune = partial(claims.prune, now=now, keep=keep, rows=rows, transcripts=transcripts, step=PRUNE_ROWS)

    def pruned(more: Any, error: BaseException | None) -> None:
        if more and error is None:
            writer.submit(Job(prune, pruned))

    def dropped(more: Any, error: BaseException | None) -> None:
        if more is not None and error is None:
            writer.submit(Job(partial(drop_zero_counters, after=more), dropped))

    def vacuumed(octets: Any, error: BaseException | None) -> None:
        if error is None:
            freed(octets)

    writer.submit(Job(prune, pruned))
    writer.submit(Job(partial(drop_zero_counters, after=-1), dropped))
    writer.submit(Job(_vacuum, vacuumed))


def _vacuum(tx: Transaction) -> int:
    tx.conn.execute("PRAGMA incremental_vacuum(256)").fetchall()
    free: int = tx.conn.execute("PRAGMA freelist_count").fetchone()[0]
    return free * PAGE_SIZE
