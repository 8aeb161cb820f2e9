"""Programs of others on loopback: run to their end, or as a server with its own port, directories and end.

Promises: a port belongs to the test process before, while and after its server runs; a server ends with the test
process, even when that is killed; nothing of the machine's own mail system is touched.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

# For a program or server that does not end or start: far more than either takes, less than pytest's own limit.
PATIENCE = 20.0


class Ended(NamedTuple):
    """How a program ended, and what it said on both of its outputs."""

    status: int
    output: str


async def run(*command: str | Path, given: bytes = b"") -> Ended:
    """Run a program to its end beside the relay, with `given` on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(given), PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(errors="replace"))


def need(program: str, package: str = "") -> None:
    """Skip the test that asks, unless this program is installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: apt-get install {package or program}")


def need_root(program: str) -> None:
    """Skip the test that asks, unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip(f"{program} starts as root only")


class Port:
    """A loopback port that is ours until `close`: the server that is given it binds it beside this socket.

    Linux lets both bind it, since both say SO_REUSEADDR and this one never listens; and it gives the port to nobody
    who asks for any port, nor to an outgoing connection.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def __str__(self) -> str:
        return str(self.number)

    def greets(self) -> bool:
        """Does a server of SMTP or LMTP say 220 here?"""
        try:
            with socket.create_connection(("127.0.0.1", self.number), timeout=PATIENCE) as connection:
                return connection.recv(512).startswith(b"220")
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()


class Directory:
    """A directory that servers which drop root may enter; its name is short, since Unix sockets stand in it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="mailtui-peer-"))
        self.path.chmod(0o755)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)  # a daemon that is just ending may still write


# The shell waits for the end of its input, which the kernel closes with us whatever ends us, and then ends the server
# and all of its process group: no test leaves a server behind, not even one that is killed.
_KEEPER = """setsid "$@" </dev/null & read -r _; kill -TERM $!; wait $!; kill -KILL -- -$! 2>/dev/null"""


class Server:
    """A server in the foreground, in a session of its own; its output goes to `log`."""

    def __init__(self, command: Sequence[str | Path], port: Port, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                ["sh", "-c", _KEEPER, "sh", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        began = time.monotonic()
        while not port.greets():
            if time.monotonic() - began > PATIENCE:
                self.stop()
                raise AssertionError(f"{command[0]} does not listen:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and what it started."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(PATIENCE)


async def mailbox(folder: Path, count: int = 1) -> list[bytes]:
    """Wait until a Maildir has `count` new messages; these, oldest first, with the line ends of the wire."""
    return await kept_files(folder, "new/*", count)


async def kept_files(folder: Path, pattern: str, count: int) -> list[bytes]:
    """Wait until there are `count` messages, a file each; these, oldest first, with the line ends of the wire."""
    async with asyncio.timeout(PATIENCE):
        while len(kept := _kept(folder, pattern)) < count:  # noqa: ASYNC110 - another program writes them
            await asyncio.sleep(0.02)
    return kept


def _kept(folder: Path, pattern: str) -> list[bytes]:
    """The messages that are there by now; smtp-sink writes where they are to be, and an empty one has only begun."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns)
    octets = [file.read_bytes() for file in files]
    return [each.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for each in octets if each]
