"""The instruments of the proofs notice what they are there to notice."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import procs, relay, sync
from bench.load import Load, message, mixed
from bench.procs import BenchError
from bench.sink import sinking

PORT = 2525
CLIENT = f"TCP:[127.0.0.1:{PORT}->127.0.0.1:40000]"
SMALL = f"""\
10 1.000000 read(12<{CLIENT}>, ".\\r\\n", 65536) = 3
11 1.001000 pwrite64(9</s/queue.sqlite3-wal>, "..."..., 4096, 8272) = 4096
11 1.002000 fdatasync(9</s/queue.sqlite3-wal> <unfinished ...>
10 1.003000 read(12<{CLIENT}>, 0x7f, 65536) = -1 EAGAIN (Resource temporarily unavailable)
11 1.004000 <... fdatasync resumed>)        = 0
10 1.005000 write(12<{CLIENT}>, "250 2.0.0 queued as 01JABCDEFGHJK\\r\\n", 35) = 35
"""
LARGE = f"""\
10 1.000000 read(12<{CLIENT}>, ".\\r\\n", 65536) = 3
12 1.000100 write(20</s/spool/01JABCDEFGHJK.part>, "..."..., 1000) = 1000
12 1.000200 fsync(20</s/spool/01JABCDEFGHJK.part>) = 0
12 1.000300 rename("/s/spool/01JABCDEFGHJK.part", "/s/spool/01JABCDEFGHJK") = 0
12 1.000400 fsync(21</s/spool>) = 0
11 1.001000 pwrite64(9</s/queue.sqlite3-wal>, "..."..., 4096, 8272) = 4096
11 1.002000 fdatasync(9</s/queue.sqlite3-wal>) = 0
10 1.005000 write(12<{CLIENT}>, "250 2.0.0 queued as 01JABCDEFGHJK\\r\\n", 35) = 35
"""


def without(text: str, part: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if part not in line)


def swapped(text: str, first: str, second: str) -> str:
    lines = text.splitlines(keepends=True)
    a = next(number for number, line in enumerate(lines) if first in line)
    b = next(number for number, line in enumerate(lines) if second in line)
    lines[a], lines[b] = lines[b], lines[a]
    return "".join(lines)


def test_the_order_of_a_small_message_is_recognised() -> None:
    steps = sync.check(sync.parse(SMALL), PORT, spooled=False)
    assert [name for name, _ in steps] == ["final dot read", "log written", "log synced", "250 written"]


def test_the_order_of_a_large_message_is_recognised() -> None:
    steps = sync.check(sync.parse(LARGE), PORT, spooled=True)
    assert [call.name for _, call in steps] == ["read", "fsync", "rename", "fsync", "pwrite64", "fdatasync", "write"]


@pytest.mark.parametrize(
    ("trace", "spooled"),
    [
        (without(SMALL, "fdatasync"), False),
        (without(SMALL, "resumed"), False),
        (swapped(SMALL, "resumed", "250 2.0.0"), False),
        (swapped(SMALL, "pwrite64", "resumed"), False),
        (without(LARGE, "fsync(20"), True),
        (without(LARGE, "fsync(21"), True),
        (without(LARGE, "rename"), True),
        (swapped(LARGE, "fsync(20", "write(20"), True),
        (swapped(LARGE, "fsync(21", "rename("), True),
        (swapped(LARGE, "fdatasync", "250 2.0.0"), True),
        (without(LARGE, "write(12"), True),
        (SMALL.replace('".\\r\\n"', '"x\\r\\n"'), False),
    ],
)
def test_a_sync_that_is_missing_or_late_is_noticed(trace: str, spooled: bool) -> None:
    with pytest.raises(BenchError):
        sync.check(sync.parse(trace), PORT, spooled=spooled)


def test_the_sink_remembers_each_message_once_more_for_each_time_it_came(tmp_path: Path) -> None:
    with sinking(tmp_path) as sink:
        for _ in range(2):
            load = Load(sink.port, "twice", connections=3, sizes=mixed, limit=60)
            asyncio.run(load.run())
            assert load.accepted == {f"twice-{number}" for number in range(60)}
            assert load.unanswered == set()
        sink.read()
    assert set(sink.counts.values()) == {2}
    assert len(sink.counts) == 60


def test_a_sink_made_slow_still_takes_everything(tmp_path: Path) -> None:
    with sinking(tmp_path) as sink:
        sink.slow(True)
        load = Load(sink.port, "slow", connections=2, limit=4)
        asyncio.run(load.run())
        assert len(load.accepted) == 4
        assert sink.has("slow-3")


def test_a_message_has_its_token_and_about_its_size() -> None:
    octets = message("t-1", 300 * 1024)
    assert b"\r\nX-Token: t-1\r\n" in octets
    assert abs(len(octets) - 300 * 1024) < 200
    assert octets.endswith(b"\r\n.\r\n")


def test_the_counters_of_smtp_sink_are_read_to_the_last(tmp_path: Path) -> None:
    sink = relay.Sink.__new__(relay.Sink)
    sink.counters = tmp_path / "counters"
    sink.counters.write_bytes(b"".join(b"sess=%d quit=0 mesg=%d\r" % (n, n) for n in range(1, 5000)))
    assert sink.count() == 4999


def test_the_processor_time_of_a_process_includes_its_children() -> None:
    before = procs.cpu_seconds(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True, timeout=30)
    assert procs.cpu_seconds(os.getpid()) - before >= 0.15


def test_an_ended_process_leaves_nothing_of_its_group() -> None:
    program = "import subprocess, sys, time\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)"
    process = procs.start([sys.executable, "-c", program])
    procs.wait_for(lambda: len(procs.tree(process.pid)) == 2, 10, "the child does not start")
    child = procs.tree(process.pid)[1]
    assert procs.end(process, seconds=5) < 0
    procs.wait_for(lambda: not Path(f"/proc/{child}").exists(), 10, "the child is still there")


def test_waiting_in_vain_names_what_for() -> None:
    with pytest.raises(BenchError, match="the moon"):
        procs.wait_for(lambda: False, 0.02, "the moon")
