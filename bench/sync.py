"""The order of syncs and the 250, from the relay's own system calls (strace).

For a message kept in the database: the sync of the write-ahead log begins after the final dot was read and returns
before the 250 is written. For a message of 1 MiB also: its file is synced after its last write, renamed, its directory
synced, then the log, then the 250.
"""

import itertools
import re
import socket
import time
from dataclasses import dataclass

from bench import procs
from bench.load import message
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import sinking

# Whatever an event loop may read, write and sync with.
CALLS = "read,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2"
READS = ("read", "recvfrom", "recvmsg")

_LINE = re.compile(r"^(?P<pid>\d+) +(?P<time>[\d.]+) (?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)$")
_DURATION = re.compile(r"<([\d.]+)>$")
_UNFINISHED = " <unfinished ...>"


@dataclass
class Call:
    """One system call: the lines of the trace at which it began and returned, and the moment of its return."""

    name: str
    text: str  # arguments and result
    began: int
    ended: int
    at: float


def parse(text: str) -> list[Call]:
    """The calls of an `strace -f -ttt -T` trace in the order in which they began; only those that returned."""
    calls: list[Call] = []
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(text.splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        pid, rest = found["pid"], found["rest"]
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            call = open_calls.pop(pid, None)
            if call is not None:
                call.text += resumed["rest"]
                call.ended, call.at = number, float(found["time"])  # of the line of the return
                calls.append(call)
            continue
        started = _CALL.match(rest)
        if started is None:
            continue
        call = Call(started["name"], started["arguments"], number, number, float(found["time"]))
        if call.text.endswith(_UNFINISHED):
            call.text = call.text.removesuffix(_UNFINISHED)
            open_calls[pid] = call
        else:
            duration = _DURATION.search(call.text)
            call.at += float(duration[1]) if duration else 0.0
            calls.append(call)
    return sorted(calls, key=lambda call: call.began)


def _only(calls: list[Call], what: str) -> Call:
    if not calls:
        raise BenchError(f"sync: the trace has no {what}")
    return calls[0]


def check(calls: list[Call], port: int, *, spooled: bool) -> list[tuple[str, Call]]:
    """Prove the order; gives the steps with their calls. BenchError names the step that is missing or out of order.

    The client sent the final dot alone, so that one read holds nothing else.
    """
    local = f"TCP:[127.0.0.1:{port}->"
    syncs = [call for call in calls if call.name in ("fsync", "fdatasync")]
    dot = _only(
        [call for call in calls if call.name in READS and local in call.text and '".\\r\\n"' in call.text],
        "read of the final dot",
    )
    answer = _only(
        [call for call in calls if local in call.text and "250 2.0.0 queued as" in call.text], "250 2.0.0 queued as"
    )
    after = dot.ended
    steps = [("final dot read", dot)]
    if spooled:
        writes = [call for call in calls if call.name in ("write", "writev", "pwrite64") and "/spool/" in call.text]
        last = _only(writes[-1:], "write to a spool file")
        file = _only([c for c in syncs if "/spool/" in c.text and c.began > last.ended], "sync of the spool file")
        rename = _only(
            [c for c in calls if c.name.startswith("rename") and "/spool/" in c.text and c.began > file.ended],
            "rename of the spool file after its sync",
        )
        directory = _only(
            [c for c in syncs if c.text.split(")")[0].rstrip(">").endswith("/spool") and c.began > rename.ended],
            "sync of the spool directory after the rename",
        )
        steps += [("spool file synced", file), ("spool file renamed", rename), ("spool directory synced", directory)]
        after = directory.ended
    pages = [c for c in calls if c.name.startswith("pwrite") and "-wal>" in c.text and c.began > after]
    page = _only(pages, "write to the log")
    wal = _only([c for c in syncs if "-wal>" in c.text and c.began > page.ended], "sync of the log")
    steps += [("log written", page), ("log synced", wal), ("250 written", answer)]
    for (name, earlier), (then, later) in itertools.pairwise(steps):
        if earlier.ended >= later.began:
            raise BenchError(f"sync: '{then}' begins before '{name}' has returned")
    return steps


def prove() -> None:
    """One message of 4 KiB and one of 1 MiB; raises BenchError if a sync does not stand between dot and 250."""
    for name, size, spooled in (("4 KiB", 4096, False), ("1 MiB", 1024 * 1024, True)):
        with procs.work_directory() as directory, sinking(directory) as sink:
            trace = directory / "trace"
            relay = Mailtui(directory, sink.port)
            relay.start(
                ["strace", "-f", "-qq", "-ttt", "-T", "-yy", "-s", "64", "-e", f"trace={CALLS}", "-o", str(trace)]
            )
            try:
                send_slowly(relay.port, "sync", size)
                procs.wait_for(lambda sink=sink: sink.has("sync"), 20, "sync: the message does not arrive")  # type: ignore[misc]
            finally:
                relay.stop()
            steps = check(parse(trace.read_text(errors="replace")), relay.port, spooled=spooled)
        print(f"sync: a message of {name}, milliseconds from the final dot:")
        for step, call in steps:
            print(f"  {1000 * (call.at - steps[0][1].at):8.2f}  {step:<24} {call.name}")
    print("sync: 2 passed, 0 failed")


def send_slowly(port: int, token: str, size: int) -> None:
    """One message; its final dot goes in a segment of its own, after everything before it was read."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = sock.makefile("rb")

        def expect(code: bytes) -> bytes:
            while (line := file.readline())[3:4] == b"-":
                pass
            if not line.startswith(code):
                raise BenchError(f"sync: the relay answered {line!r}")
            return line

        expect(b"220")
        for line, code in (
            (b"EHLO client.test", b"250"),
            (b"MAIL FROM:<from@source.test>", b"250"),
            (b"RCPT TO:<to@sink.test>", b"250"),
            (b"DATA", b"354"),
        ):
            sock.sendall(line + b"\r\n")
            expect(code)
        sock.sendall(message(token, size).removesuffix(b".\r\n"))
        time.sleep(1.0)  # the relay has read it all by then; if not, the trace has no lone dot and the proof fails
        sock.sendall(b".\r\n")
        expect(b"250")
        sock.sendall(b"QUIT\r\n")
        expect(b"221")
