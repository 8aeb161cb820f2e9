"""Processes for the benchmarks: started in their own process group, watched through /proc, ended on every way out.

Everything here is for Linux, and for loopback only.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAILTUI = ROOT / ".venv" / "bin" / "mailtui"
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_started: list[subprocess.Popen[bytes]] = []


class BenchError(Exception):
    """Something did not start, end or arrive; the text says what, and what to look at."""


def start(
    command: Sequence[str | Path], *, stdout: Path | None = None, stderr: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; output goes to the files given (appended), else nowhere."""
    with contextlib.ExitStack() as files:

        def target(path: Path | None) -> int:
            return subprocess.DEVNULL if path is None else files.enter_context(path.open("ab")).fileno()

        try:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=target(stdout),
                stderr=target(stderr),
                start_new_session=True,
                cwd=ROOT,
            )
        except FileNotFoundError as error:
            raise BenchError(f"{command[0]} is missing: apt-get install postfix strace, or make test once") from error
    _started.append(process)
    return process


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
    """Signal the process, wait, then kill what is left of its group; gives the exit status (negative: the signal)."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = -signal.SIGKILL
    _kill_group(process)
    return status


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ValueError):
        _started.remove(process)


def end_all() -> None:
    """Kill every group that was started and not ended."""
    for process in list(_started):
        _kill_group(process)


def end_all_on_exit() -> None:
    """Make sure that neither an exception, SIGTERM nor Ctrl-C leaves a process behind."""
    atexit.register(end_all)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """A temporary directory that other users may enter (Postfix and smtp-sink drop root), removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mailtui-bench-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.01) -> float:
    """Poll until the condition holds; gives the seconds it took. BenchError with `what` when it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return time.monotonic() - began


def greets(port: int) -> bool:
    """Does an SMTP server on this loopback port say 220?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            return sock.recv(512).startswith(b"220")
    except OSError:
        return False


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for the message of an error."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


# --- /proc -----------------------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (field 3 of proc(5)); None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, of children that ended and were waited for included."""
    ticks = 0
    for pid in tree(root):
        if (fields := _stat(pid)) is not None:
            ticks += sum(int(each) for each in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / _TICK


def resident(root: int) -> int:
    """Octets of resident memory, summed over the tree: pages shared by several processes count in each."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def proportional(root: int) -> int:
    """Octets of resident memory of the tree with shared pages divided among those who share them (PSS)."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def high_water(pid: int) -> int:
    """The most resident memory that one process ever had, in octets (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Peak:
    """The most that was seen, in octets: `resident` is a sum of RSS, `proportional` one of PSS; `processes` at once."""

    resident: int = 0
    proportional: int = 0
    processes: int = 0


@contextlib.contextmanager
def watch_memory(root: int, every: float = 0.5) -> Iterator[Peak]:
    """Sample the memory of a tree while the block runs, and once more at its end."""
    peak, done = Peak(), threading.Event()

    def sample(with_proportional: bool = False) -> None:
        peak.resident = max(peak.resident, resident(root))
        peak.processes = max(peak.processes, len(tree(root)))
        if with_proportional:  # walks page tables: too dear to be done while the clock runs
            peak.proportional = max(peak.proportional, proportional(root))

    def run() -> None:
        while not done.wait(every):
            sample()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        sample(with_proportional=True)


def machine() -> str:
    """One line about where this was measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown processor",
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    uname = os.uname()
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {uname.release}"
