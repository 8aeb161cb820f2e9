"""kill -9 at random moments under load: nothing accepted is lost, and repeats are what was in flight.

Each round: load over 20 connections (every fiftieth message through a spool file; every third round the next hop is
slow, so that a queue is there), SIGKILL after a random time, restart on the same state directory, and then every
message for which the client read a 250 must be at the next hop within 20 s of the restart.
"""

import asyncio
import random
import sqlite3
import time
from dataclasses import dataclass

from bench import procs
from bench.load import Load, mixed
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import Sink, sinking

CONNECTIONS = 20  # of the client; also the shipped [delivery] concurrency, so that many are open to the sink
COMMIT_GROUP = 256  # more messages than 20 connections each way can bring in while one commit syncs
RECOVERY = 20.0  # seconds from the restart


@dataclass(frozen=True)
class Round:
    """What one round showed. Times in seconds; `oldest`: how long before the kill a repeated message first arrived."""

    number: int
    load: float
    slow: bool
    accepted: int
    unanswered: int
    delivered_before: int
    missing: int
    repeats: int
    oldest: float
    recovery: float

    @property
    def ok(self) -> bool:
        return self.missing == 0 and self.repeats <= CONNECTIONS + COMMIT_GROUP

    def line(self) -> str:
        return (
            f"{self.number:>5} {self.load:>6.2f} {'slow' if self.slow else 'fast':>5} {self.accepted:>9}"
            f" {self.unanswered:>11} {self.delivered_before:>10} {self.missing:>8} {self.repeats:>8}"
            f" {1000 * self.oldest:>10.0f} {self.recovery:>9.2f}  {'ok' if self.ok else 'FAILED'}"
        )


HEAD = "round load s  sink  accepted  unanswered  delivered  missing  repeats  oldest ms recovery s"


def prove(rounds: int = 20, seed: int | None = None) -> None:
    """Raises BenchError if a round fails."""
    seed = random.randrange(2**32) if seed is None else seed
    rng = random.Random(seed)
    print(f"kill: {rounds} rounds, seed {seed}\n{HEAD}", flush=True)
    done: list[Round] = []
    with procs.work_directory() as directory, sinking(directory) as sink:
        relay = Mailtui(directory, sink.port)
        relay.start()
        try:
            for number in range(1, rounds + 1):
                done.append(_round(number, relay, sink, rng))
                print(done[-1].line(), flush=True)
        finally:
            relay.stop()
        _check_state(relay)
    failed = [each for each in done if not each.ok]
    accepted, repeats = sum(each.accepted for each in done), [each.repeats for each in done]
    print(f"kill: {accepted} accepted, {sum(each.missing for each in done)} missing, at most {max(repeats)} repeats")
    print(f"kill: {len(done) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise BenchError(f"kill: rounds {', '.join(str(each.number) for each in failed)} failed (seed {seed})")


def _round(number: int, relay: Mailtui, sink: Sink, rng: random.Random) -> Round:
    slow, seconds = number % 3 == 0, rng.uniform(0.5, 3.0)
    load = Load(relay.port, f"kill{number}", connections=CONNECTIONS, sizes=mixed)
    sink.slow(slow)
    killed = asyncio.run(_load_and_kill(load, relay, seconds))
    sink.slow(False)
    if load.refused:
        raise BenchError(f"kill: the relay refused a message: {load.refused[0]}")
    if not load.accepted:
        raise BenchError(f"kill: nothing was accepted in {seconds:.1f} s\n{procs.tail(relay.log)}")
    sink.read()
    before = {token for token in load.accepted | load.unanswered if sink.counts[token]}
    began = time.monotonic()
    relay.start()
    while (missing := _missing(load, sink)) and time.monotonic() - began < RECOVERY:
        time.sleep(0.02)
    recovery = time.monotonic() - began
    # What was committed and not answered comes too, and repeats of what had arrived: wait until all is settled.
    procs.wait_for(lambda: relay.queued() == 0, RECOVERY, "kill: the queue does not become empty", pause=0.2)
    sink.read()
    repeated = [token for token in load.accepted | load.unanswered if sink.counts[token] > 1]
    repeats = sum(sink.counts[token] - 1 for token in repeated)
    oldest = max((killed - sink.first[token] for token in repeated), default=0.0)
    return Round(
        number,
        seconds,
        slow,
        len(load.accepted),
        len(load.unanswered),
        len(before),
        len(missing),
        repeats,
        oldest,
        recovery,
    )


async def _load_and_kill(load: Load, relay: Mailtui, seconds: float) -> float:
    """Gives the monotonic time of the kill."""
    running = asyncio.create_task(load.run())
    await asyncio.sleep(seconds)
    killed = time.monotonic()
    relay.kill()
    load.stopping = True
    await asyncio.wait_for(running, 10)
    return killed


def _missing(load: Load, sink: Sink) -> set[str]:
    sink.read()
    return {token for token in load.accepted if not sink.counts[token]}


def _check_state(relay: Mailtui) -> None:
    """After all the kills the database is whole and the spool empty."""
    connection = sqlite3.connect(f"file:{relay.state / 'queue.db'}?mode=ro", uri=True)
    [(verdict,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    connection.close()
    if verdict != "ok":
        raise BenchError(f"kill: the database: {verdict}")
    left = list((relay.state / "spool").glob("*"))
    if left:
        raise BenchError(f"kill: {len(left)} files are left in the spool")
    print("kill: the database passes integrity_check, the spool is empty")
