"""Asking a running relay over its control socket: HTTP on AF_UNIX, with the standard library only.

The same requests work with `curl --unix-socket`. Promises: an answer that is an error becomes a `VerbError` with the
relay's own sentence; a relay that goes away in the middle does too.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from mailtui.control.errors import NOT_RUNNING, WRONG, VerbError
from mailtui.control.reads import SEQUENCE, Document

# A scan of a million rows is answered within seconds; an answer that takes longer than this does not come any more.
TIMEOUT = 60.0

# To connect to a socket of this machine takes no time, unless its owner is stuck.
CONNECT_TIMEOUT = 5.0


class Unreachable(Exception):
    """Nobody answers on the socket."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("mailtui", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(CONNECT_TIMEOUT)
            self.sock.connect(str(self._path))
            self.sock.settimeout(TIMEOUT)
        except OSError:
            self.sock.close()
            raise


class Client:
    """A running relay. `Unreachable` if none answers; PermissionError if it may not be asked."""

    running = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._http = _Connection(path)
        self._sequence = ""
        try:
            self._http.connect()
        except PermissionError:
            raise
        except OSError as error:
            raise Unreachable(str(error)) from None

    def close(self) -> None:
        self._http.close()

    def status(self) -> Document:
        return self._document("/v1/status")

    def queue(self, query: str, *, sort: str, reverse: bool, limit: int, after: str) -> Iterator[Document]:
        parameters = {"query": query, "sort": sort, "reverse": reverse, "limit": limit, "after": after}
        return self._lines("/v1/queue", parameters)

    def count(self, query: str) -> Document:
        return self._document("/v1/queue/count", {"query": query})

    def message(self, id: str, *, transcript: bool) -> Document:
        return self._document(f"/v1/queue/messages/{quote(id, '')}", {"transcript": transcript})

    def raw(self, id: str) -> Iterator[bytes]:
        answer = self._ask(f"/v1/queue/messages/{quote(id, '')}", {"raw": True})
        while piece := self._read(answer, 1 << 18):
            yield piece

    def why(self, id: str) -> list[Document]:
        return list(self._lines(f"/v1/queue/why/{quote(id, '')}", {}))

    def shape(self, by: str, limit: int) -> list[Document]:
        return list(self._lines("/v1/shape", {"by": by, "limit": str(limit)}))

    def destinations(self, by: str, limit: int) -> list[Document]:
        return list(self._lines("/v1/destinations", {"by": by, "limit": str(limit)}))

    def destination(self, name: str) -> Document:
        return self._document(f"/v1/destinations/{quote(name, '')}")

    def routes(self) -> list[Document]:
        return list(self._lines("/v1/routes", {}))

    def route_test(self, target: str, sender: str) -> Document:
        return self._document("/v1/routes/test", {"target": target, "from": sender})

    def users(self) -> list[Document]:
        return list(self._lines("/v1/users", {}))

    def plan(self, target: str) -> Document:
        return self._document(f"/v1/plan/{quote(target, '')}")

    def trace(self, id: str) -> Document:
        return self._document(f"/v1/trace/{quote(id, '')}")

    def history(self, query: str, *, limit: int, after: str) -> Iterator[Document]:
        return self._lines("/v1/history", {"query": query, "limit": limit, "after": after})

    def log(self, *, limit: int) -> list[Document]:
        answer = self._ask("/v1/log", {"limit": limit})
        self._sequence = answer.getheader(SEQUENCE) or ""
        return list(self._rows(answer))

    def follow(self) -> Iterator[Document]:
        """Events after those of the last `log`, else from now on."""
        coming = self.events(self._sequence)
        return (
            {name: value for name, value in row.items() if name not in ("epoch", "seq")}
            for row in coming
            if row["event"] != "status"
        )

    def events(self, since: str = "") -> Iterator[Document]:
        """The event stream as it is, statuses and gaps among it; without end."""
        return self._lines("/v1/events", {"since": since})

    def access_test(self, probe: Document) -> Document:
        return self._document("/v1/access/test", probe)

    def grants(self) -> list[Document]:
        return list(self._lines("/v1/access/grants", {}))

    def probes(self) -> list[Document]:
        return list(self._lines("/v1/access/probes", {}))

    def run_probes(self) -> list[Document]:
        return list(self._lines("/v1/access/probes/run", {}))

    def config(self) -> Document:
        """The configuration in force, as `config show` prints it."""
        return self._document("/v1/config")

    # -- acting ------------------------------------------------------------------------------------------------------

    def verb(self, name: str, **body: Any) -> Document:
        """Preview or run a verb: `query`, `set`, `preview`, `keep`, `expect`, `reason`, `args`. Answers after the last
        commit, however long that takes."""
        answer = self._ask(f"/v1/verbs/{quote(name, '')}", {}, body, patient=True)
        return self._parse(self._read(answer, -1))

    def backup(self, reason: str = "") -> Iterator[bytes]:
        """The tar of a backup in pieces."""
        answer = self._ask("/v1/verbs/backup", {}, {"reason": reason}, patient=True)
        while piece := self._read(answer, 1 << 18):
            yield piece

    def operations(self, limit: int) -> list[Document]:
        """Operations, newest first."""
        return list(self._lines("/v1/operations", {"limit": str(limit)}))

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def _document(self, path: str, parameters: dict[str, Any] | None = None) -> Document:
        answer = self._ask(path, parameters or {})
        return self._parse(self._read(answer, -1))

    def _lines(self, path: str, parameters: dict[str, Any]) -> Iterator[Document]:
        return self._rows(self._ask(path, parameters))

    def _rows(self, answer: http.client.HTTPResponse) -> Iterator[Document]:
        whole = False
        try:
            while line := self._readline(answer):
                row = self._parse(line)
                if "error" in row and "exit" in row:  # it went wrong after the first rows
                    raise VerbError(str(row["error"]), int(row["exit"]))
                yield row
            whole = True
        finally:
            answer.close()
            if not whole:  # the rest of the answer would stand before the next one
                self._http.close()

    def _ask(
        self, path: str, parameters: dict[str, Any], body: Document | None = None, *, patient: bool = False
    ) -> http.client.HTTPResponse:
        given = {
            key: _text(value)
            for key, value in parameters.items()
            if value is not None and value is not False and value != ""
        }
        try:
            if patient and self._http.sock is not None:
                self._http.sock.settimeout(None)
            if body is None:
                self._http.request("GET", f"{path}?{urlencode(given)}" if given else path)
            else:
                self._http.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None
        if answer.status != 200:
            try:
                problem = json.loads(self._read(answer, -1))
                raise VerbError(str(problem["error"]), int(problem["exit"]), answer.status)
            except (ValueError, KeyError, TypeError):
                raise VerbError(f"the relay answered {answer.status} to {path}; see its log", WRONG) from None
        return answer

    def _read(self, answer: http.client.HTTPResponse, amount: int) -> bytes:
        try:
            return answer.read() if amount < 0 else answer.read(amount)
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None

    def _readline(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.readline()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None

    def _parse(self, text: bytes) -> Document:
        try:
            value = json.loads(text)
        except ValueError:
            raise VerbError(f"what answers on {self.path} is not a mailtui relay", WRONG) from None
        if not isinstance(value, dict):
            raise VerbError(f"what answers on {self.path} is not a mailtui relay", WRONG)
        return value

    def _gone(self, error: Exception) -> VerbError:
        if isinstance(error, TimeoutError):
            return VerbError(
                f"the relay at {self.path} did not answer within {TIMEOUT:.0f} s; see its log", NOT_RUNNING
            )
        return VerbError(f"the relay at {self.path} went away while it was asked; ask again", NOT_RUNNING)


def _text(value: Any) -> str:
    return "1" if value is True else str(value)
