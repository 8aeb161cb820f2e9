"""Asking a Dovecot who somebody is: its authentication protocol, version 1, over the socket of its `auth` service.

Promises: a question ends within TIMEOUT, whatever the other side does; whatever is not a clear yes or no is Unavailable
and logs nobody in; the password goes to that socket and nowhere else. Only PLAIN is asked, to which LOGIN comes down.
"""

import asyncio
import base64
import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# Seconds for an answer: Dovecot holds back a no for two (auth_failure_delay), and its database may be slow.
TIMEOUT = 10.0
# Questions at once; further ones wait within their TIMEOUT. Dovecot's own limit for a client is in the hundreds.
AT_ONCE = 32
# A line of the other side; the protocol says 16,384 octets.
LINE_LIMIT = 32 << 10

_ESCAPED = re.compile("\x01(.)", re.DOTALL)
_MEANING = {"0": "\0", "1": "\x01", "t": "\t", "r": "\r", "n": "\n", "l": "\n"}


class Unavailable(Exception):
    """There is no answer; the text says why, for the log."""


class Dovecot:
    """A socket that knows the users."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def check(self, session: "Session", name: str, password: bytes) -> str:
        """The user's name as Dovecot has it, "" if it is not his password. Raises Unavailable."""
        try:
            async with asyncio.timeout(TIMEOUT), self._turn:
                return await self._ask(session, name, password)
        except TimeoutError:
            raise Unavailable(f"{self.path}: no answer within {TIMEOUT:.0f} s") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the connection was closed"
            raise Unavailable(f"{self.path}: {reason}") from None

    async def _ask(self, session: "Session", name: str, password: bytes) -> str:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=LINE_LIMIT)
        try:
            # A number that no other connection has, which our process id would not be; that it is one is not looked at.
            writer.write(b"VERSION\t1\t1\nCPID\t%d\n" % random.randint(1, 2**31 - 1))
            await self._handshake(reader)
            words = ["AUTH", "1", "PLAIN", "service=smtp", "nologin", "no-penalty", f"rip={session.client}"]
            words += [f"lip={session.local}"] if session.local is not None else []
            words += ["secured"] if session.secure else []
            response = base64.b64encode(b"\0" + name.encode() + b"\0" + password).decode("ascii")
            writer.write("\t".join([*words, f"resp={response}"]).encode() + b"\n")
            return self._answer(await self._line(reader))
        finally:
            writer.transport.abort()

    async def _handshake(self, reader: asyncio.StreamReader) -> None:
        mechanisms: set[str] = set()
        while (words := await self._line(reader))[0] != "DONE":
            if words[0] == "VERSION" and words[1:2] != ["1"]:
                raise Unavailable(f"{self.path}: speaks version {words[1:2]} of the protocol, expected 1")
            if words[0] == "MECH":
                mechanisms.update(word.upper() for word in words[1:2])
        if "PLAIN" not in mechanisms:
            raise Unavailable(f"{self.path}: has no PLAIN; add it to auth_mechanisms")

    def _answer(self, words: list[str]) -> str:
        verdict, values = words[0], dict(word.partition("=")[::2] for word in words[2:])
        if words[1:2] != ["1"]:
            raise Unavailable(f"{self.path}: answers something else")
        if verdict == "OK" and values.get("user"):
            return values["user"]
        if verdict == "FAIL" and "temp" not in values and values.get("code") != "temp_fail":
            return ""
        raise Unavailable(f"{self.path}: answers {verdict[:20]}, temporarily no more")

    @staticmethod
    async def _line(reader: asyncio.StreamReader) -> list[str]:
        line = (await reader.readuntil(b"\n")).decode("utf-8", "replace")
        return [_ESCAPED.sub(lambda m: _MEANING.get(m[1], m[1]), word) for word in line.rstrip("\n").split("\t")]


def dovecot(path: str, current: Dovecot | None) -> Dovecot | None:
    """What asks this socket: the current one if it does; None without a path."""
    if not path:
        return None
    return current if current is not None and current.path == path else Dovecot(path)
