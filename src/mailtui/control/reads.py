"""The verbs that only read, as every asker has them: `client.Client` and `offline.Offline`.

All give plain JSON values with the fields of contract.md, text cleaned (`clean`), times as RFC 3339 text. All raise
`VerbError`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

Document = dict[str, Any]

# What a listing gives when nobody says how much (contract.md `--limit`).
DEFAULT_LIMIT = 50


# The header of the answer to `log`: the number of the last event that happened before it.
SEQUENCE = "Mailtui-Sequence"


class Reads(Protocol):
    """Questions to the relay, or to what a stopped one left."""

    @property
    def running(self) -> bool: ...

    def status(self) -> Document: ...

    def queue(self, query: str, *, sort: str, reverse: bool, limit: int, after: str) -> Iterator[Document]:
        """Recipients; `limit` 0 means all."""

    def count(self, query: str) -> Document: ...

    def message(self, id: str, *, transcript: bool) -> Document: ...

    def raw(self, id: str) -> Iterable[bytes]:
        """The message as stored, in pieces."""

    def why(self, id: str) -> list[Document]: ...

    def shape(self, by: str, limit: int) -> list[Document]:
        """The fullest keys; `limit` 0 means all."""

    def destinations(self, by: str, limit: int) -> list[Document]:
        """`dest list`; `by` is domain or hop, `limit` 0 means all."""

    def destination(self, name: str) -> Document:
        """`dest show`."""

    def routes(self) -> list[Document]: ...

    def route_test(self, target: str, sender: str) -> Document:
        """Which row of the route table an address or domain meets."""

    def users(self) -> list[Document]:
        """`user list`."""

    def plan(self, target: str) -> Document: ...

    def trace(self, id: str) -> Document: ...

    def history(self, query: str, *, limit: int, after: str) -> Iterator[Document]: ...

    def log(self, *, limit: int) -> list[Document]: ...

    def follow(self) -> Iterator[Document]:
        """Events as they happen, without end. Needs a running relay."""

    def access_test(self, probe: Document) -> Document:
        """`probe`: client, from, to, and if known user, cert, tls, helo, listener."""

    def grants(self) -> list[Document]:
        """`access grants`."""

    def probes(self) -> list[Document]:
        """`access probe list`."""

    def run_probes(self) -> list[Document]:
        """`access probe run`."""
