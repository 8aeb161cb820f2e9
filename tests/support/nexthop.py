"""A next hop for tests of delivery: an SMTP server in the test's own event loop that answers as the test says.

    async with NextHop() as hop:
        hop.rcpt = ["451 4.7.1 greylisted"]      # the first RCPT; the following ones get the default
        ...
        await hop.received(1)
        assert hop.messages[0].data == b"..."

Every verb has a script. A list is used up, one answer a call; then, as with no script at all, the default answer
follows. Anything else than a list answers every call. An answer is

- text: `"250 2.0.0 ok"`; lines separated by newline become a multi-line reply;
- octets: sent as they are, to break the protocol on purpose;
- `Pieces(b"25", b"0 ok\\r\\n")`: sent in so many TCP segments;
- `Last(b"250 o")`: sent, and then the connection is closed;
- DROP (close without an answer), RESET (close with a TCP reset), HANG (read on and never answer);
- a function of the command line that gives one of these (it may be a coroutine function).

A text answer that starts with 421 closes the connection after it is sent, as RFC 5321 section 3.8 says.

TLS: `tls` is the server's context, offered by STARTTLS or, with `implicit_tls`, from the first octet. AUTH: while the
answer is a 334, the client's next line is the next call of the script `auth`. CHUNKING is offered like any keyword;
`bdat` answers each chunk. With `lmtp` it speaks LMTP, and the script `dot` is asked once for each accepted recipient,
with its address in place of the command line; `path` lets it listen on a Unix socket.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Pieces:
    """An answer that arrives in several TCP segments."""

    octets: tuple[bytes, ...]

    def __init__(self, *octets: bytes) -> None:
        object.__setattr__(self, "octets", octets)


class Last(Pieces):
    """An answer after which the connection is closed."""


class Close:
    """An answer that is none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


DROP, RESET, HANG = Close("DROP"), Close("RESET"), Close("HANG")

Answer = str | bytes | Pieces | Close
Step = Answer | Callable[[str], Answer | Awaitable[Answer]]
Script = Step | list[Step]

DEFAULT_KEYWORDS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES")
_LINE_LIMIT = 16 * 1024 * 1024  # the longest line of a message that a test may send
_SEGMENT_GAP = 0.01  # seconds between the pieces of an answer: enough for loopback to deliver one before the next


@dataclass
class Transaction:
    """One MAIL transaction, as far as it came."""

    connection: int  # from 1, in the order in which connections were taken
    helo: str
    tls: bool
    sender: str
    mail_parameters: str
    recipients: list[str] = field(default_factory=list)  # the accepted ones
    refused: list[str] = field(default_factory=list)
    rcpt_parameters: dict[str, str] = field(default_factory=dict)
    data: bytes = b""  # without dot-stuffing and final dot
    wire: bytes = b""  # as it came, final dot included
    reply: str = ""  # to the final dot; "" for none; of LMTP the best one
    chunks: list[int] = field(default_factory=list)  # sizes, if it came by BDAT


class NextHop:
    """See the module's text. `port` and `address` are known inside `async with`.

    What came in: `transactions` (those that reached the final dot), `messages` (those of them answered with 2yz),
    `begun` (every MAIL that was accepted), `commands` as (connection, line), `connections` in all, `open` now and
    `peak` at once.
    """

    def __init__(
        self,
        *,
        keywords: Sequence[str] = DEFAULT_KEYWORDS,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str = "next.test",
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        lmtp: bool = False,
        path: str = "",
    ) -> None:
        self.keywords = list(keywords)
        self.host, self.port, self.name = host, port, name
        self.tls, self.implicit_tls = tls, implicit_tls
        self.lmtp, self.path = lmtp, path
        self.greeting: Script = []
        self.ehlo: Script = []
        self.helo: Script = []
        self.starttls: Script = []
        self.auth: Script = []
        self.mail: Script = []
        self.rcpt: Script = []
        self.recipients: dict[str, Script] = {}  # by address in lower case; goes before `rcpt`
        self.data: Script = []
        self.bdat: Script = []
        self.dot: Script = []
        self.rset: Script = []
        self.noop: Script = []
        self.quit: Script = []
        self.unknown: Script = []
        # (octets, answer): after so many octets of a message, one time, say this and close.
        self.interrupt: tuple[int, Answer] | None = None
        self.transactions: list[Transaction] = []
        self.begun: list[Transaction] = []
        self.commands: list[tuple[int, str]] = []
        self.responses: list[str] = []  # what clients said to challenges
        self.connections = self.open = self.peak = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def address(self) -> str:
        """host:port, as a smarthost option takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def messages(self) -> list[Transaction]:
        """The transactions whose final dot was answered with 2yz."""
        return [each for each in self.transactions if each.reply.startswith("2")]

    def lines(self, verb: str) -> list[str]:
        """Every command line of a verb, in order of arrival."""
        return [line for _, line in self.commands if line[: len(verb)].upper() == verb.upper()]

    async def received(self, count: int, timeout: float = 10.0) -> list[Transaction]:
        """Wait until `count` messages were accepted; TimeoutError after `timeout` seconds."""
        return await self._reached(lambda: len(self.messages) >= count, timeout)

    async def connected(self, count: int, timeout: float = 10.0) -> list[Transaction]:
        """Wait until `count` connections were taken, closed ones counted."""
        return await self._reached(lambda: self.connections >= count, timeout)

    async def idle(self, timeout: float = 10.0) -> list[Transaction]:
        """Wait until no connection is open."""
        return await self._reached(lambda: self.open == 0, timeout)

    async def commanded(self, verb: str, count: int = 1, timeout: float = 10.0) -> list[Transaction]:
        """Wait until a verb was received `count` times."""
        return await self._reached(lambda: len(self.lines(verb)) >= count, timeout)

    async def start(self) -> None:
        context = self.tls if self.implicit_tls else None
        if self.path:
            self._server = await asyncio.start_unix_server(self._accept, self.path, ssl=context, limit=_LINE_LIMIT)
            return
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, ssl=context, limit=_LINE_LIMIT, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection. `start` opens the same port again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _reached(self, condition: Callable[[], bool], timeout: float) -> list[Transaction]:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)
        return self.messages

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await self._notify()
            await _Session(self, self.connections, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass  # the peer went, or the test ends; a cancelled handler that re-raised would be reported as a failure
        finally:
            writer.close()
            self.open -= 1
            self._tasks.discard(task)
            await self._notify()


class _Closed(Exception):
    """The session is over."""


class _Session:
    def __init__(self, hop: NextHop, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hop, self.number, self.reader, self.writer = hop, number, reader, writer
        self.name = ""
        self.secure = hop.implicit_tls
        self.transaction: Transaction | None = None

    async def run(self) -> None:
        try:
            await self.answer(self.hop.greeting, "", f"220 {self.hop.name} ESMTP")
            while True:
                raw = await self.reader.readuntil(b"\n")
                line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
                self.hop.commands.append((self.number, line))
                await self.hop._notify()
                await self.command(line)
        except _Closed:
            pass

    async def command(self, line: str) -> None:
        hop = self.hop
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "LHLO" if not hop.lmtp:
                await self.answer(hop.unknown, line, "500 5.5.1 this is not LMTP")
            case "EHLO" | "HELO" if hop.lmtp:
                await self.answer(hop.unknown, line, "500 5.5.1 this is LMTP")
            case "EHLO" | "LHLO":
                self.name, self.transaction = rest, None
                keywords = [*hop.keywords]
                if hop.tls is not None and not self.secure:
                    keywords.append("STARTTLS")
                await self.answer(hop.ehlo, line, "\n".join(["250 " + hop.name, *keywords]))
            case "HELO":
                self.name, self.transaction = rest, None
                await self.answer(hop.helo, line, f"250 {hop.name}")
            case "STARTTLS":
                await self.start_tls(line)
            case "AUTH":
                await self.log_in(line)
            case "MAIL":
                await self.mail(line)
            case "RCPT":
                await self.rcpt(line)
            case "DATA":
                await self.data(line)
            case "BDAT":
                await self.bdat(line)
            case "RSET":
                self.transaction = None
                await self.answer(hop.rset, line, "250 2.0.0 ok")
            case "NOOP":
                await self.answer(hop.noop, line, "250 2.0.0 ok")
            case "QUIT":
                await self.answer(hop.quit, line, "221 2.0.0 bye")
                raise _Closed
            case _:
                await self.answer(hop.unknown, line, "500 5.5.1 unknown command")

    async def start_tls(self, line: str) -> None:
        hop = self.hop
        usable = hop.tls is not None and not self.secure
        reply = await self.answer(hop.starttls, line, "220 2.0.0 go" if usable else "502 5.5.1 not offered")
        if reply.startswith("2") and hop.tls is not None:
            await self.writer.start_tls(hop.tls)
            self.secure, self.name, self.transaction = True, "", None

    async def log_in(self, line: str) -> None:
        while (await self.answer(self.hop.auth, line, "235 2.7.0 ok")).startswith("334"):
            line = (await self.reader.readuntil(b"\n")).decode("utf-8", "surrogateescape").rstrip("\r\n")
            self.hop.responses.append(line)

    async def mail(self, line: str) -> None:
        sender, parameters = _path(line)
        reply = await self.answer(self.hop.mail, line, "250 2.1.0 ok")
        if reply.startswith("2"):
            self.transaction = Transaction(self.number, self.name, self.secure, sender, parameters)
            self.hop.begun.append(self.transaction)

    async def rcpt(self, line: str) -> None:
        recipient, parameters = _path(line)
        script = self.hop.recipients.get(recipient.lower(), self.hop.rcpt)
        default = "503 5.5.1 MAIL first" if self.transaction is None else "250 2.1.5 ok"
        reply = await self.answer(script, line, default)
        if self.transaction is None:
            return
        self.transaction.rcpt_parameters[recipient] = parameters
        (self.transaction.recipients if reply.startswith("2") else self.transaction.refused).append(recipient)

    async def data(self, line: str) -> None:
        transaction, hop = self.transaction, self.hop
        usable = transaction is not None and transaction.recipients
        reply = await self.answer(hop.data, line, "354 go on" if usable else "554 5.5.1 no valid recipients")
        if not reply.startswith("3"):
            return
        if transaction is None:  # a script that says 354 to nothing
            transaction = Transaction(self.number, self.name, self.secure, "", "")
        wire: list[bytes] = []
        octets = 0
        while not wire or wire[-1] != b".\r\n":
            wire.append(await self.reader.readuntil(b"\r\n"))
            octets += len(wire[-1])
            if hop.interrupt is not None and octets >= hop.interrupt[0]:
                (_, last), hop.interrupt = hop.interrupt, None
                await self.say(last)
                raise _Closed
        transaction.wire = b"".join(wire)
        transaction.data = b"".join(each[1:] if each.startswith(b".") else each for each in wire[:-1])
        self.transaction = None
        hop.transactions.append(transaction)
        try:
            # The peer may act on the reply at once: what the test reads is complete before it is sent.
            for each in transaction.recipients if hop.lmtp else ["."]:
                answer = await _next(hop.dot, each, "250 2.0.0 ok")
                transaction.reply = min(filter(None, (transaction.reply, _text(answer))), default="")
                await self.say(answer)
        finally:
            await hop._notify()

    async def bdat(self, line: str) -> None:
        """One chunk: its octets are read whatever the answer is (RFC 3030 section 2)."""
        transaction, hop = self.transaction, self.hop
        _, size, *last = line.split()
        octets = await self.reader.readexactly(int(size))
        usable = transaction is not None and transaction.recipients
        reply = _text(answer := await _next(hop.bdat, line, "250 2.0.0 ok" if usable else "503 5.5.1 no transaction"))
        if transaction is not None:
            transaction.data += octets
            transaction.chunks.append(int(size))
            if last and reply.startswith("2"):
                transaction.reply = reply
                hop.transactions.append(transaction)
        if last or not reply.startswith("2"):
            self.transaction = None
        try:
            await self.say(answer)
        finally:
            await hop._notify()

    async def answer(self, script: Script, line: str, default: str) -> str:
        """Say what the script, else the default says; gives the text of it, "" when it is none."""
        answer = await _next(script, line, default)
        await self.say(answer)
        return _text(answer)

    async def say(self, answer: Answer) -> None:
        if answer is HANG:
            while await self.reader.read(65536):
                pass
            raise _Closed
        if answer is RESET:
            _linger_zero(self.writer)
            self.writer.transport.abort()
            raise _Closed
        if answer is DROP:
            raise _Closed
        pieces = answer.octets if isinstance(answer, Pieces) else (_octets(answer),)
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(_SEGMENT_GAP)
            self.writer.write(piece)
            await self.writer.drain()
        if isinstance(answer, Last) or (isinstance(answer, str) and answer.startswith("421")):
            raise _Closed


async def _next(script: Script, line: str, default: str) -> Answer:
    step: Step = (script.pop(0) if script else default) if isinstance(script, list) else script
    if callable(step):
        answer = step(line)
        return answer if isinstance(answer, str | bytes | Pieces | Close) else await answer
    return step


def _octets(answer: Answer) -> bytes:
    """Text as a reply of one or several lines; the code of the first line stands on all (RFC 5321 section 4.2.1)."""
    if isinstance(answer, bytes):
        return answer
    assert isinstance(answer, str)
    code, rest = answer[:3], answer[4:].split("\n")
    lines = [f"{code}{' ' if last else '-'}{text}\r\n" for text, last in _with_last(rest)]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _with_last(lines: list[str]) -> list[tuple[str, bool]]:
    return [(line, number == len(lines) - 1) for number, line in enumerate(lines)]


def _text(answer: Answer) -> str:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Close):
        return ""
    octets = b"".join(answer.octets) if isinstance(answer, Pieces) else answer
    return octets.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _path(line: str) -> tuple[str, str]:
    """The address between the angle brackets of MAIL or RCPT, and the parameters after it."""
    _, _, rest = line.partition("<")
    address, _, parameters = rest.rpartition(">")
    return address, parameters.strip()


def _linger_zero(writer: asyncio.StreamWriter) -> None:
    """Make the close a TCP reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
