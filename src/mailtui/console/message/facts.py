"""What the console has read of one message, each kind of fact once until it is asked to read again."""

from typing import Any, Protocol
from urllib.parse import quote

from mailtui.console.present.attempts import newest_first
from mailtui.console.present.content import LIMIT


class Asks(Protocol):
    """What is needed of `console.link.Link`."""

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False) -> Any: ...
    async def lines(self, path: str) -> list[Any]: ...
    async def raw(self, path: str, limit: int) -> bytes: ...


class Facts:
    """Of the message of `id` (an id or rid). `read` raises the link's error and leaves what was read before."""

    def __init__(self, link: Asks, id: str) -> None:
        self.link = link
        self.id = id
        self._message_id = quote(id.partition(".")[0], "")
        self.why: list[dict[str, Any]] = []
        self.message: dict[str, Any] = {}
        self.trace: dict[str, Any] = {}
        self.dialogues: list[dict[str, Any]] = []  # the attempts with their transcripts, newest first
        self.content = b""  # its first LIMIT octets, not cleaned
        self.known: set[str] = set()

    async def read(self, *names: str, again: bool = False) -> None:
        """Read `why`, `message`, `trace`, `dialogues` or `content`, those not known yet, or all of them again."""
        for name in names:
            if again or name not in self.known:
                setattr(self, name, await getattr(self, f"_{name}")())
                self.known.add(name)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Newest first."""
        return newest_first(self.message.get("attempts", ()))

    async def _why(self) -> list[dict[str, Any]]:
        """Of all recipients, the one that was opened first."""
        found = await self.link.lines(f"/v1/queue/why/{self._message_id}")
        return sorted(found, key=lambda why: why.get("rid") != self.id)

    async def _message(self) -> Any:
        return await self.link.call("GET", f"/v1/queue/messages/{self._message_id}")

    async def _trace(self) -> Any:
        return await self.link.call("GET", f"/v1/trace/{self._message_id}")

    async def _dialogues(self) -> list[dict[str, Any]]:
        found = await self.link.call("GET", f"/v1/queue/messages/{self._message_id}?transcript=1", lines=True)
        return newest_first(found["attempts"])

    async def _content(self) -> bytes:
        return await self.link.raw(f"/v1/queue/messages/{self._message_id}?raw=1", LIMIT)
