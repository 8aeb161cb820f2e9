"""The DATA phase on octets: its end, its dots, its checks, and where the body is kept meanwhile.

Promises: only CRLF.CRLF ends the data, in any segmentation; the octets are those of the client but for the removed
dots (RFC 5321 section 4.5.2) and, where so configured, bare CR and LF made CRLF; a message that is refused is read to
its real end and kept nowhere; memory is bounded by MEMORY_LIMIT a session and the budget of all sessions.
"""

import asyncio
import re
from collections.abc import Callable

from mailtui.intake.header import HeaderFacts, Section, scan
from mailtui.intake.terms import MemoryBudget, SpoolFile
from mailtui.model import SmtpError

END = b"\r\n.\r\n"

# architecture.md: bodies up to this stay in memory and go into the database; larger ones are files.
MEMORY_LIMIT = 256 << 10
# When memory is short a body goes to disk from this size on, which holds nearly every header section.
EARLY_LIMIT = 32 << 10
# RFC 5321 section 4.5.3.1.6: 1000 octets with the CRLF.
LINE_LIMIT = 1000
# Standards R05. Real mail has a few KiB; the largest fields people see are lists of hundreds of recipients.
HEADER_LIMIT = 1 << 20

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


class Decoder:
    """Takes the data as it comes and gives back the content, in pieces that never part a CR from its LF.

    `done` is set when the end was seen; `rest` then holds what came behind it.
    """

    __slots__ = ("_begun", "_carry", "done", "rest")

    def __init__(self) -> None:
        # The CRLF of the DATA command stands before the first line, so that a dot there is like any other.
        self._carry = b"\r\n"
        self._begun = False
        self.done = False
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes:
        data = self._carry + chunk
        # One search does for both: lines that begin with a dot, of which the end is one, are rare.
        dot = data.find(b"\r\n.")
        end = data.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            self.done, self.rest = True, data[end + 5 :]
            content = data[: end + 2]
        else:
            # What could be the beginning of the end, or of a line with a dot, waits for the next chunk.
            keep = 0
            for length in (4, 3, 2, 1):
                if data.endswith(END[:length]):
                    keep = length
                    break
            self._carry = data[len(data) - keep :]
            content = data[: len(data) - keep]
        if 0 <= dot < len(content) - 2:
            content = content.replace(b"\r\n.", b"\r\n")
        if not self._begun and content:
            self._begun = True
            return content[2:]
        return content


def line_too_long(data: bytes, open_line: int) -> tuple[bool, int]:
    """Whether a line of `data` exceeds LINE_LIMIT octets with its CRLF, and how long the last, unfinished one is.

    `open_line` is the length of the unfinished line before `data`. It jumps from line end to line end a thousand
    octets ahead, so its cost does not depend on the number of lines.
    """
    position, size, limit = 0, len(data), LINE_LIMIT - open_line
    while size - position >= limit:
        found = data.rfind(b"\n", position, position + limit)
        if found < 0:
            return True, 0
        position, limit = found + 1, LINE_LIMIT
    last = data.rfind(b"\n", position)
    if last >= 0:
        return False, size - last - 1
    # No line end in what is left: it goes on from the last one, or from before `data`.
    return False, size - position + (open_line if position == 0 else 0)


class Body:
    """The content of one message under way: checked as it comes, in memory or in a spool file.

    `refusal` is set by the first thing that is wrong; nothing is kept from then on.
    """

    __slots__ = (
        "_budget", "_normalize", "_open_line", "_pieces", "_section", "_size_limit",
        "eight_bit", "facts", "memory", "refusal", "size", "spool",
    )  # fmt: skip

    def __init__(self, size_limit: int, normalize: bool, budget: MemoryBudget) -> None:
        self._size_limit = size_limit
        self._normalize = normalize
        self._budget = budget
        self._pieces: list[bytes] = []
        self._open_line = 0
        self._section: Section | None = None  # while the header section of a large message goes on
        self.memory = 0  # octets held here
        self.size = 0
        self.eight_bit = False
        self.facts: HeaderFacts | None = None  # known when the beginning leaves memory
        self.refusal: SmtpError | None = None
        self.spool: SpoolFile | None = None

    def add(self, piece: bytes) -> None:
        """The next piece of content, as from a Decoder."""
        self.size += len(piece)
        if self.size > self._size_limit:
            # RFC 1870 section 6.3; this reason stands before any other.
            self._refuse(SmtpError(552, "5.3.4", f"Message is larger than {self._size_limit} octets", "message-size"))
            return
        if self.refusal is not None:
            return
        line_ends = piece.count(b"\r\n")
        if piece.count(b"\n") != line_ends or piece.count(b"\r") != line_ends:
            if not self._normalize:
                text = "Message holds a CR or LF alone; lines must end with CR LF"
                self._refuse(SmtpError(550, "5.6.0", text, "bare-newline"))
                return
            self.size -= len(piece)
            piece = _ANY_LINE_END.sub(b"\r\n", piece)
            self.size += len(piece)
        too_long, self._open_line = line_too_long(piece, self._open_line)
        if too_long:
            text = f"Message holds a line of more than {LINE_LIMIT - 2} octets"
            self._refuse(SmtpError(554, "5.6.0", text, "line-length"))
            return
        if not piece.isascii():
            self.eight_bit = True
        self._pieces.append(piece)
        self.memory += len(piece)
        self._budget.used += len(piece)

    @property
    def must_spill(self) -> bool:
        return self.memory > MEMORY_LIMIT or (self.memory > EARLY_LIMIT and self._budget.exhausted)

    def held(self) -> bytes:
        """What is held in memory, to be looked at."""
        return b"".join(self._pieces)

    def take(self) -> bytes:
        """What is held in memory; it is the caller's from now on."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._budget.used -= self.memory
        self.memory = 0
        return data

    async def spill(self, trace: bytes, open_spool: Callable[[], SpoolFile]) -> None:
        """Move what is in memory to the spool file; the first octets there are `trace`."""
        data = self.take()
        loop = asyncio.get_running_loop()
        try:
            first = self.spool is None
            if self.spool is None:
                self.facts = scan(data)
                self._section = Section()
                self.spool = await loop.run_in_executor(None, open_spool)
            if self._section is not None:
                self._look(self._section, data)
                if self.refusal is not None:
                    return
            await loop.run_in_executor(None, self.spool.write, trace + data if first else data)
        except OSError as error:
            text = "Insufficient system storage, try again later"
            self._refuse(SmtpError(452, "4.3.1", text, "spool"))
            assert self.refusal is not None
            self.refusal.__cause__ = error

    def _look(self, section: Section, data: bytes) -> None:
        """Follow a header section that has not ended."""
        section.feed(data)
        if section.ended or section.size > HEADER_LIMIT:
            self._section = None
        if section.size > HEADER_LIMIT:
            text = f"The header section is larger than {HEADER_LIMIT} octets"
            self._refuse(SmtpError(552, "5.3.4", text, "header-size"))

    def _refuse(self, error: SmtpError) -> None:
        if self.refusal is None or error.rule == "message-size":
            self.refusal = error
        self.abandon()

    def abandon(self) -> None:
        """Keep nothing."""
        self._pieces.clear()
        self._budget.used -= self.memory
        self.memory = 0
        if self.spool is not None:
            spool, self.spool = self.spool, None
            spool.abandon()
