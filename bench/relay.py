"""mailtui and Postfix in turn, between smtp-source and smtp-sink on loopback: `make bench`.

The source sends `messages` of `size` octets over kept connections (`smtp-source -d -N`), the sink throws them away.
The time goes from the start of the source until the sink has the last message. Syncs are counted in a shorter run
of their own under strace. Both relays run with the defaults they are shipped with; Postfix gets `in_flow_delay=0s`.
After each run the queue must be empty, and mailtui's history must have every message once.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import procs
from bench.peers import Mailtui, Postfix, Relay
from bench.procs import BenchError

RELAYS: dict[str, type[Mailtui] | type[Postfix]] = {"mailtui": Mailtui, "postfix": Postfix}

# A run that stands still for this long has lost messages, or waits for a retry.
STALL = 20.0
# strace stops each sync twice; fewer messages are enough for a count a message.
TRACED_MESSAGES = 2000
LEGEND = """\
CPU and syncs: a message's. RSS: the highest sum over the relay's processes, pages they share counted in each; PSS: the
same at the end of the run, shared pages divided. Syncs were counted in a run of their own under strace."""
SYNCS = "fsync,fdatasync,sync_file_range,sync,syncfs,msync"


@dataclass(frozen=True)
class Load:
    """What is sent: so many messages with this much payload (octets), over so many kept connections."""

    messages: int
    size: int
    connections: int


@dataclass(frozen=True)
class Run:
    """One timed run; times in seconds, memory in octets."""

    wall: float
    cpu: float
    intake: float  # when the source had its last 250
    resident: int
    proportional: int
    processes: int
    messages: int

    @property
    def rate(self) -> float:
        return self.messages / self.wall

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu / self.messages


class Sink:
    """smtp-sink with its counters in a file: `mesg=N` is rewritten with each message."""

    _COUNT = re.compile(rb"mesg=(\d+)")

    def __init__(self, directory: Path) -> None:
        self.port, self.counters = procs.free_port(), directory / "sink.out"
        self.counters.touch()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = ["smtp-sink", *user, "-c", "-m", "1000", f"127.0.0.1:{self.port}", "1000"]
        self._process = procs.start(command, stdout=self.counters)
        procs.wait_for(lambda: procs.greets(self.port), 10, "smtp-sink does not listen")

    def count(self) -> int:
        """Messages received. The counters are short lines, so the end of the file is enough."""
        with self.counters.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            found = self._COUNT.findall(file.read())
        return int(found[-1]) if found else 0

    def wait(self, messages: int, relay: Relay) -> None:
        """Until so many messages are there; BenchError when nothing comes any more."""
        seen, since = -1, time.monotonic()
        while (count := self.count()) < messages:
            if count != seen:
                seen, since = count, time.monotonic()
            elif time.monotonic() - since > STALL:
                left = f"{count} of {messages} messages came through {relay.name}, then none for {STALL:.0f} s"
                raise BenchError(f"{left}\n{procs.tail(relay.log)}")
            time.sleep(0.005)

    def stop(self) -> None:
        procs.end(self._process)


@contextlib.contextmanager
def relaying(name: str, wrapper: Sequence[str] = ()) -> Iterator[tuple[Relay, Sink, Path]]:
    """A relay, started, with its sink, in a new directory."""
    with procs.work_directory() as directory:
        sink = Sink(directory)
        relay: Relay = RELAYS[name](directory, sink.port)
        try:
            relay.start([each.replace("{directory}", str(directory)) for each in wrapper])
            yield relay, sink, directory
        finally:
            relay.stop()
            sink.stop()


def send(relay: Relay, load: Load) -> subprocess.Popen[bytes]:
    """Start smtp-source. Addresses are given, so that the name of this machine plays no part."""
    command = ["smtp-source", "-d", "-N", "-s", load.connections, "-m", load.messages, "-l", load.size]
    command += ["-f", "from@source.test", "-t", "to@sink.test", f"127.0.0.1:{relay.port}"]
    return procs.start([str(word) for word in command], stderr=relay.log)


def timed(name: str, load: Load) -> Run:
    """One run against the clock, and the checks after it."""
    with relaying(name) as (relay, sink, _):
        before, cpu = sink.count(), procs.cpu_seconds(relay.pid)
        with procs.watch_memory(relay.pid) as peak:
            began = time.monotonic()
            source = send(relay, load)
            taken = _Stopwatch(source, began)
            sink.wait(before + load.messages, relay)
            wall = time.monotonic() - began
            intake = taken.finish(relay)
        cpu = procs.cpu_seconds(relay.pid) - cpu
        check(relay, sink.count() - before, load)
        return Run(wall, cpu, intake, peak.resident, peak.proportional, peak.processes, load.messages)


class _Stopwatch:
    """When the source ended: it may be long before the sink has everything, so a thread waits for it."""

    def __init__(self, source: subprocess.Popen[bytes], began: float) -> None:
        self.source, self.began, self.seconds = source, began, 0.0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self.source.wait()
        self.seconds = time.monotonic() - self.began

    def finish(self, relay: Relay) -> float:
        """Seconds from the start to the end of the source; BenchError if it failed."""
        self._thread.join(STALL)
        if self._thread.is_alive() or self.source.returncode != 0:
            raise BenchError(f"smtp-source: status {self.source.returncode}\n{procs.tail(relay.log)}")
        procs.end(self.source)
        return self.seconds


def check(relay: Relay, received: int, load: Load) -> None:
    """Nothing lost, nothing doubled, nothing left."""
    procs.wait_for(lambda: relay.queued() == 0, 10, f"the queue of {relay.name} does not become empty", pause=0.2)
    if received != load.messages:
        raise BenchError(f"the sink has {received} messages, {load.messages} were sent")
    if isinstance(relay, Mailtui):
        rids = relay.delivered()
        if len(rids) != load.messages or len(set(rids)) != load.messages:
            raise BenchError(f"history has {len(rids)} rows, {len(set(rids))} of them different, for {load.messages}")


def syncs(name: str, load: Load) -> float:
    """Syncs a message, while the same load runs, with fewer messages."""
    # --seccomp-bpf: only the calls that are counted stop, so that the grouping of commits is hardly disturbed.
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={SYNCS}", "-e", "signal=none"]
    with relaying(name, [*strace, "-o", "{directory}/syncs"]) as (relay, sink, directory):
        received, before = sink.count(), _count_syncs(directory / "syncs")
        source = _Stopwatch(send(relay, load), time.monotonic())
        sink.wait(received + load.messages, relay)
        source.finish(relay)
        procs.wait_for(lambda: relay.queued() == 0, 10, f"the queue of {relay.name} does not become empty", pause=0.2)
        return (_count_syncs(directory / "syncs") - before) / load.messages


def _count_syncs(trace: Path) -> int:
    # A call that another process interrupts in the trace stands there twice; the second line has no parenthesis open.
    return len(re.findall(rb"^\d+ +\w*sync\w*\(", trace.read_bytes(), re.MULTILINE)) if trace.exists() else 0


def table(runs: dict[str, list[Run]], synced: dict[str, float]) -> str:
    """Medians of the runs, one line a relay."""
    lines = ["relay      messages/s  (each run)              CPU ms   RSS MiB  PSS MiB  processes  intake/s  syncs"]
    for name, each in runs.items():
        rates = " ".join(f"{run.rate:.0f}" for run in each)
        median = statistics.median
        lines.append(
            f"{name:<10} {median(run.rate for run in each):>10,.0f}  {f'({rates})':<23}"
            f" {median(run.cpu_ms for run in each):>6.3f}"
            f" {max(run.resident for run in each) / 2**20:>9.0f} {max(run.proportional for run in each) / 2**20:>8.0f}"
            f" {max(run.processes for run in each):>10}"
            f" {median(run.messages / run.intake for run in each):>9,.0f}"
            f" {synced.get(name, float('nan')):>6.2f}"
        )
    return "\n".join(lines)


def ratio(runs: dict[str, list[Run]]) -> str:
    """mailtui over Postfix, of the medians."""
    ours, theirs = runs["mailtui"], runs["postfix"]
    rate = statistics.median(run.rate for run in ours) / statistics.median(run.rate for run in theirs)
    cpu = statistics.median(run.cpu for run in theirs) / statistics.median(run.cpu for run in ours)
    return f"ratio of the medians: {rate:.2f} times Postfix's messages a second, {cpu:.1f} times less CPU a message"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each relay, in turn")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=4096, help="octets of payload a message")
    parser.add_argument("--connections", type=int, default=20, help="kept open by the source")
    parser.add_argument("--only", choices=sorted(RELAYS), help="measure one relay")
    parser.add_argument("--no-syncs", action="store_true", help="leave out the run under strace")
    options = parser.parse_args(arguments)
    procs.end_all_on_exit()
    load = Load(options.messages, options.size, options.connections)
    names = [options.only] if options.only else list(RELAYS)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    print(procs.machine())
    print(f"{load.messages} messages of {load.size} octets, {load.connections} kept connections, {options.runs} runs")
    try:
        print(", ".join(RELAYS[name].version() for name in names), flush=True)
        for number in range(options.runs):
            for name in names:
                run = timed(name, load)
                runs[name].append(run)
                print(
                    f"run {number + 1} {name}: {run.rate:.0f} messages/s, {run.cpu_ms:.3f} ms CPU a message", flush=True
                )
        synced: dict[str, float] = {}
        if not options.no_syncs:
            traced = Load(min(load.messages, TRACED_MESSAGES), load.size, load.connections)
            synced = {name: syncs(name, traced) for name in names}
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        procs.end_all()
    print(table(runs, synced))
    print(LEGEND)
    if len(names) == len(RELAYS):
        print(ratio(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
