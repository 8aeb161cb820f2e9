"""A state directory with a long queue, made once by the store's own enqueue and settle, and copied for each use.

What it looks like: 50,000 senders, 5,000 destinations (the busiest has a tenth of it), messages of 2 KiB that arrived
over the last four days; 93 % deferred and due within the next hours, 5 % held, the rest not tried yet. 5 % are from one
domain, BULK. The next hop of everything but what a route names is suspended, so all of it stays.
"""

import asyncio
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from mailtui.clock import SystemClock
from mailtui.ids import IdSource
from mailtui.model import Attempt, Envelope, Message, Outcome, Recipient, Settled, State, Verdict
from mailtui.queue import claims, transaction
from mailtui.queue.database import open_writer, take_lock
from mailtui.queue.store import Store
from mailtui.queue.tables import controls
from mailtui.queue.transaction import Domains, Transaction

SENDERS, DESTINATIONS, SIZE = 50_000, 5_000, 2048
DEFERRED, HELD = 0.93, 0.05
BULK = "bulk.test"
BULK_SENDERS = SENDERS // 20

# Where mail without a route goes: an address for documentation (RFC 5737). Suspended, so nothing is ever dialled.
NOWHERE = "192.0.2.1"
NOWHERE_HOP = f"[{NOWHERE}]:25"

# Messages in one transaction while filling.
CHUNK = 10_000

# Seconds: arrivals reach back so far, attempts are due up to so far ahead, a stock is used up to this age.
REACH, AHEAD, KEEP = 4 * 86400.0, 6 * 3600.0, 2 * 3600.0


def sender(number: int) -> str:
    """Of message `number`. Senders take turns; the first ones are of BULK."""
    n = number * 7919 % SENDERS
    return f"s{n}@{BULK}" if n < BULK_SENDERS else f"s{n}@source{n % 2000}.test"


def message_id(number: int) -> str:
    return f"<{number}.stock@source.test>"


def hop(destination: int) -> str:
    """The next hop of the last attempt: five domains share one."""
    return f"mx1.hosting{destination % 1000}.test,mx2.hosting{destination % 1000}.test"


def stocked(cache: Path, rows: int) -> Path:
    """The filled directory, from the cache if it is there, fresh enough, and made by this code."""
    directory = cache / f"stock-{rows}-{_made_by()}"
    done = directory / "filled"
    if not done.exists() or time.time() - done.stat().st_mtime > KEEP:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        began = time.monotonic()
        fill(directory / "state", rows)
        done.touch()
        print(f"stock: {rows} messages queued in {time.monotonic() - began:.0f} s, {directory}", flush=True)
    return directory / "state"


def _made_by() -> str:
    """A digest of the code that decides what a filled queue looks like on disk."""
    sources = [Path(module.__file__ or "") for module in (claims, transaction)]
    digest = hashlib.blake2b(digest_size=4)
    for path in (Path(__file__), *sources, *sorted(Path(controls.__file__ or "").parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def copy(stock: Path, state: Path) -> None:
    """A copy to work on, without octets of its own where the file system can do that."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(stock), str(state)], check=True)


def fill(state: Path, rows: int) -> None:
    """Fill a new state directory: no syncs and no log while it is being filled, a clean end."""
    state.mkdir(mode=0o700, parents=True)
    lock, now = take_lock(state), time.time()
    conn = open_writer(state)
    for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF", "cache_size = -2000000"):
        conn.execute(f"PRAGMA {pragma}").fetchall()
    owner = 1
    claims.take_over(conn, owner, now)
    domains = Domains(conn)
    suspension = (controls.SUSPEND, NOWHERE_HOP, "{}", now, None, "bench", "the stock must stay")
    conn.execute(controls.SET, suspension)
    messages = _messages(rows, now)
    while some := list(itertools.islice(messages, CHUNK)):
        conn.execute("BEGIN")
        accepted = Transaction(conn, domains)
        for message, _ in some:
            accepted.add_message(message, owner)
        accepted.flush()
        ended = Transaction(conn, domains)
        for message, settled in some:
            if settled is not None:
                claims.settle(ended, message, [settled], owner, now, whole=True, unlink=None)
        ended.flush()
        conn.execute("COMMIT")
        domains.committed()
    conn.execute("PRAGMA journal_mode = WAL").fetchall()
    conn.close()
    os.close(lock)
    asyncio.run(_open_and_close(state))


async def _open_and_close(state: Path) -> None:
    """As a relay would: what is still claimed is parked, and the next start finds nothing to recover."""
    store = Store(state, SystemClock())
    store.open()
    await store.close(clean=True)


def _messages(rows: int, now: float) -> Iterator[tuple[Message, Settled | None]]:
    """Each message, oldest first, and how its last attempt ended (None: there was none yet)."""
    rng, source = random.Random(1), IdSource()
    line = b"The same line again and again, as newsletters do, until it is 2 KiB.\r\n"
    weights = list(itertools.accumulate(1 / (k + 1) for k in range(DESTINATIONS)))
    picked = rng.choices(range(DESTINATIONS), cum_weights=weights, k=rows)
    for number, k in enumerate(picked):
        arrived = now - REACH + (REACH - 900.0) * number / rows
        head = f"From: <{sender(number)}>\r\nSubject: Notice {number}\r\nMessage-ID: {message_id(number)}\r\n\r\n"
        body = (head.encode() + line * (SIZE // len(line) + 1))[:SIZE]
        envelope = Envelope(
            sender(number), arrived, len(body), client=f"10.0.{number % 8}.1", client_name="news.source.test",
            helo="news.source.test", listener="default", protocol="ESMTP", subject=f"Notice {number}",
            message_id=message_id(number), trusted=True,
        )  # fmt: skip
        kind = rng.random()
        tried = 0 if kind >= DEFERRED else rng.randrange(12)
        recipient = Recipient(
            1, f"r{number}@d{k}.test", f"d{k}.test", submitter=envelope.client, due=arrived,
            expires=arrived + 5 * 86400.0, attempts=tried, state=State.DEFERRED if tried else State.QUEUED,
        )  # fmt: skip
        message = Message(source.next(arrived), envelope, [recipient], body, claimed=kind < DEFERRED + HELD)
        yield message, _ended(recipient, k, kind, now, rng)


def _ended(recipient: Recipient, k: int, kind: float, now: float, rng: random.Random) -> Settled | None:
    if kind >= DEFERRED + HELD:
        return None
    code, enhanced, text = rng.choice(
        (
            (421, "4.7.0", "Try again later, closing connection"),
            (450, "4.2.0", "Greylisted, see https://postgrey.example/help"),
            (451, "4.3.2", "System not accepting network messages"),
            (0, "4.4.1", "connect to mx1: Connection timed out"),
        )
    )
    verdict = Verdict(Outcome.DEFERRED, code, enhanced, text)
    attempt = Attempt(now - 1.0, now, host=f"mx1.hosting{k % 1000}.test", address="192.0.2.25")
    if kind >= DEFERRED:
        return Settled(recipient, verdict, attempt, hop(k), held_by="bench")
    return Settled(recipient, verdict, attempt, hop(k), due=now - 60.0 + rng.random() * AHEAD)
