"""The relays that are measured, each with directories of its own: mailtui as shipped, and Postfix.

A relay is started in a directory that is thrown away, listens on a loopback port, and sends everything on to another.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench import procs
from bench.procs import BenchError


class Relay(Protocol):
    """What the benchmark asks of a relay. `pid`: the root of its processes, `log`: where its complaints are."""

    name: str
    port: int
    pid: int
    log: Path

    def start(self, wrapper: Sequence[str] = ()) -> None: ...
    def stop(self) -> None: ...
    def queued(self) -> int: ...
    @staticmethod
    def version() -> str: ...


class Mailtui:
    """`mailtui serve` of this checkout with its three options and no configuration file: the shipped defaults."""

    name = "mailtui"

    def __init__(self, directory: Path, next_hop: int, *, config: Path | None = None) -> None:
        """`config` replaces --listen and --smarthost; it must then listen on 127.0.0.1 at `self.port`."""
        self.port, self.next_hop, self.config = procs.free_port(), next_hop, config
        self.state, self.log = directory / "state", directory / "relay.log"
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        if self.config is not None:
            return [procs.MAILTUI, "serve", "--config", self.config, "--state", self.state]
        listen, smarthost = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.next_hop}"
        return [procs.MAILTUI, "serve", "--listen", listen, "--smarthost", smarthost, "--state", self.state]

    def start(self, wrapper: Sequence[str] = ()) -> None:
        """Start, under a wrapper such as strace if given, and wait for the greeting."""
        self._process = procs.start([*wrapper, *self.command()], stdout=self.log, stderr=self.log)
        try:
            procs.wait_for(lambda: self._ended() or procs.greets(self.port), 30, "mailtui serve does not listen")
        except BenchError as error:
            raise BenchError(f"{error}\n{procs.tail(self.log)}") from None
        if self._ended():
            raise BenchError(f"mailtui serve ended with {self._process.returncode}\n{procs.tail(self.log)}")
        self.pid = procs.tree(self._process.pid)[1] if wrapper else self._process.pid

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            procs.end(self._process, signal.SIGKILL)
            self._process = None

    def stop(self) -> None:
        """SIGTERM to the relay itself, so that a wrapper sees it end."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None and self.pid != process.pid:
            os.kill(self.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                pass
        status = procs.end(process)
        if status != 0:
            raise BenchError(f"mailtui serve ended with {status}\n{procs.tail(self.log)}")

    def ask(self, *words: str) -> str:
        """What a command of the same installation says about this state directory, in JSON."""
        command = [str(procs.MAILTUI), *words, "--json", "--state", str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def queued(self) -> int:
        """Messages in the queue."""
        return int(json.loads(self.ask("queue", "count"))["messages"])

    def delivered(self) -> list[str]:
        """The rids in history that were delivered, oldest first or not."""
        rids: list[str] = []
        after: list[str] = []
        while lines := self.ask("history", "--limit", "5000", *after).splitlines():
            rows = [json.loads(line) for line in lines]
            rids += [row["rid"] for row in rows if row["result"] == "delivered"]
            after = ["--after", rows[-1]["cursor"]]
        return rids

    @staticmethod
    def version() -> str:
        done = subprocess.run([procs.MAILTUI, "--version"], capture_output=True, text=True, timeout=60)
        return done.stdout.strip().replace(", version", "")


MAIN_CF = """\
compatibility_level = 3.6
# Its better setting: the default of 1 s slows the intake down as soon as the queue grows.
in_flow_delay = 0s
myhostname = relay.bench.test
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{next_hop}
queue_directory = {spool}
data_directory = {data}
alias_maps =
alias_database =
"""

# The services of the shipped master.cf that relaying needs beside smtpd, not chrooted, with the shipped limits.
MASTER_CF = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""


class Postfix:
    """A Postfix instance beside the machine's own. Needs root. Its log goes to syslog, if there is one."""

    name = "Postfix"

    def __init__(self, directory: Path, next_hop: int) -> None:
        if os.geteuid() != 0:
            raise BenchError("Postfix starts as root only: run the benchmark as root, or with --only mailtui")
        if shutil.which("postfix") is None:
            raise BenchError("postfix is missing: apt-get install postfix, or run with --only mailtui")
        self.port, self.pid = procs.free_port(), 0
        self.config, self.spool, data = directory / "etc", directory / "spool", directory / "data"
        self.log = directory / "postfix.log"
        self._process: subprocess.Popen[bytes] | None = None
        user = pwd.getpwnam("postfix")
        for path in (self.config, self.spool, data):
            path.mkdir()
        os.chown(data, user.pw_uid, user.pw_gid)
        (self.config / "main.cf").write_text(MAIN_CF.format(next_hop=next_hop, spool=self.spool, data=data))
        (self.config / "master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd\n{MASTER_CF}")

    def start(self, wrapper: Sequence[str] = ()) -> None:
        # start-fg: the master stays our child, so that its end is seen and its group can be killed.
        command = [*wrapper, "postfix", "-c", str(self.config), "start-fg"]
        self._process = procs.start(command, stdout=self.log, stderr=self.log)
        try:
            procs.wait_for(lambda: self._ended() or procs.greets(self.port), 30, "Postfix does not listen")
        except BenchError as error:
            self.stop()
            raise BenchError(f"{error}\n{procs.tail(self.log)}") from None
        if self._ended():
            raise BenchError(f"Postfix ended with {self._process.returncode}\n{procs.tail(self.log)}")
        self.pid = int((self.spool / "pid" / "master.pid").read_text())

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        leftover = procs.tree(self.pid) if self.pid else []
        command = ["postfix", "-c", str(self.config), "stop"]
        subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        procs.end(process)
        for pid in leftover:  # daemons leave the group; those that are still there belong to this instance
            if _runs_postfix(pid):
                os.kill(pid, signal.SIGKILL)

    def queued(self) -> int:
        """Queue files of all queues, not yet picked up ones included."""
        queues = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
        return sum(len(names) for queue in queues for _, _, names in os.walk(self.spool / queue))

    @staticmethod
    def version() -> str:
        done = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True, timeout=60)
        return f"Postfix {done.stdout.strip()}"


def _runs_postfix(pid: int) -> bool:
    try:
        return "/postfix/" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
