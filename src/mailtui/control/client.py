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
from mailtui.control.reads import Document

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

    def plan(self, target: str) -> Document:
        return self._document(f"/v1/plan/{quote(target, '')}")

    def trace(self, id: str) -> Document:
        return self._document(f"/v1/trace/{quote(id, '')}")

    def history(self, query: str, *, limit: int, after: str) -> Iterator[Document]:
        return self._lines("/v1/history", {"query": query, "limit": limit, "after": after})

    def log(self, *, limit: int) -> list[Document]:
        return list(self._lines("/v1/log", {"limit": limit}))

    def follow(self) -> Iterator[Document]:
        self._http.timeout = None
        if self._http.sock is not None:
            self._http.sock.settimeout(None)  # a quiet relay has nothing to say for hours
        return self._lines("/v1/log", {"follow": True})

    def access_test(self, probe: Document) -> Document:
        return self._document("/v1/access/test", probe)

    def config(self) -> Document:
        """The configuration in force, as `config show` prints it."""
        return self._document("/v1/config")

    def _document(self, path: str, parameters: dict[str, Any] | None = None) -> Document:
        answer = self._ask(path, parameters or {})
        return self._parse(self._read(answer, -1))

    def _lines(self, path: str, parameters: dict[str, Any]) -> Iterator[Document]:
        answer = self._ask(path, parameters)

        def rows() -> Iterator[Document]:
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

        return rows()

    def _ask(self, path: str, parameters: dict[str, Any]) -> http.client.HTTPResponse:
        given = {
            key: _text(value)
            for key, value in parameters.items()
            if value is not None and value is not False and value != ""
        }
        try:
            self._http.request("GET", f"{path}?{urlencode(given)}" if given else path)
            answer = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None
        if answer.status != 200:
            try:
                problem = json.loads(self._read(answer, -1))
                raise VerbError(str(problem["error"]), int(problem["exit"]))
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
