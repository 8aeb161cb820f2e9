"""SMTP clients for tests of intake: one that sends exactly the octets it is given, and smtplib's for whole messages."""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self


class Answer(NamedTuple):
    """A reply: its code, and its lines as they came, code included, without line ends."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines joined by newline."""
        return "\n".join(self.lines)


class Client:
    """A connection on which a test writes octets and reads replies; every wait ends after `timeout` seconds.

    async with await Client.connect(port) as client:
        assert client.greeting.code == 220
        assert (await client.command("EHLO client.test")).code == 250
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
        self.reader, self.writer, self.timeout = reader, writer, timeout
        self.greeting = Answer(0, ())

    @classmethod
    async def connect(
        cls,
        port: int,
        host: str = "127.0.0.1",
        *,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        greeting: bool = True,
        timeout: float = 10.0,
    ) -> Self:
        """Connect, from the address `source` if given, and read the greeting unless told not to."""
        local = (source, 0) if source else None
        server_hostname = "" if tls else None
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                host, port, local_addr=local, ssl=tls, server_hostname=server_hostname
            )
        client = cls(reader, writer, timeout)
        if greeting:
            client.greeting = await client.reply()
        return client

    async def send(self, octets: bytes) -> None:
        """Write octets as they are."""
        self.writer.write(octets)
        async with asyncio.timeout(self.timeout):
            await self.writer.drain()

    async def reply(self) -> Answer:
        """Read one reply, of one or several lines; ConnectionError if the server closes instead."""
        lines: list[str] = []
        async with asyncio.timeout(self.timeout):
            while not lines or lines[-1][3:4] == "-":
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionError(f"closed after {line!r}")
                lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        return Answer(int(lines[-1][:3]), tuple(lines))

    async def command(self, line: str) -> Answer:
        """Send one command line and read its reply."""
        await self.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return await self.reply()

    async def start_tls(self, context: ssl.SSLContext, name: str = "") -> None:
        """The TLS handshake after a 220 to STARTTLS."""
        async with asyncio.timeout(self.timeout):
            await self.writer.start_tls(context, server_hostname=name or None)

    async def closed(self) -> bytes:
        """Wait until the server closes; gives what came before that."""
        async with asyncio.timeout(self.timeout):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(self.timeout):
                await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def send(
    port: int,
    sender: str,
    recipients: str | Sequence[str],
    body: bytes | str,
    *,
    host: str = "127.0.0.1",
    helo: str = "client.test",
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
    timeout: float = 10.0,
) -> bytes:
    """Send one message with smtplib, off the loop; gives the text of the reply to the final dot.

    Raises what smtplib raises: SMTPRecipientsRefused as soon as one recipient is refused, SMTPDataError for the end.
    """
    content = body.encode() if isinstance(body, str) else body
    wanted = [recipients] if isinstance(recipients, str) else list(recipients)

    def work() -> bytes:
        with smtplib.SMTP(host, port, local_hostname=helo, timeout=timeout) as client:
            client.ehlo_or_helo_if_needed()
            code, text = client.mail(sender, list(mail_options))
            if code != 250:
                raise smtplib.SMTPSenderRefused(code, text, sender)
            refused = {}
            for recipient in wanted:
                code, text = client.rcpt(recipient, list(rcpt_options))
                if code not in (250, 251):
                    refused[recipient] = (code, text)
            if refused:
                raise smtplib.SMTPRecipientsRefused(refused)
            code, text = client.data(content)
            if code != 250:
                raise smtplib.SMTPDataError(code, text)
            return text

    return await asyncio.to_thread(work)
