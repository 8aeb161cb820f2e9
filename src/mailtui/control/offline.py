"""The reading verbs for a stopped relay: from its state directory and the configuration.

Promises: nothing is written; the state directory is locked (shared) while it is read, so that no relay starts on it
meanwhile; a state directory that is missing is a stopped relay with an empty queue. `queue why` says `not-running`,
and nothing is shown as active.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailtui import __version__
from mailtui.clock import SystemClock
from mailtui.control import access, answers, places, views
from mailtui.control.errors import NOT_RUNNING, NOT_SO, WRONG, VerbError
from mailtui.control.reads import Document
from mailtui.queue.read import Reader
from mailtui.queue.remembered import remembered
from mailtui.queue.tables.controls import GRANT, PROBE, ROUTE, SUSPEND

if TYPE_CHECKING:
    from mailtui.config import Settings
    from mailtui.intake.grants import Grants
    from mailtui.model import Control

# Rows of a listing that are read in one call.
PAGE = 500

_EMPTY: Any = {
    "queued": 0,
    "active": 0,
    "deferred": 0,
    "held": 0,
    "leaving": 0,
    "messages": 0,
    "recipients": 0,
    "bytes": 0,
    "oldest": None,
}


class Locked(Exception):
    """A relay runs on the state directory, although its socket did not answer."""


class Offline:
    """A stopped relay with this state directory. `config`: the file named by --config, None for the search order."""

    running = False

    def __init__(self, state: Path, config: str | None = None) -> None:
        """Locked if a relay runs; VerbError if the directory may not be read."""
        self.state = state
        self.clock = SystemClock()
        self._config_file = config
        self._settings: Settings | None = None
        self._lock = _lock(state)
        self._reader: Reader | None = None
        self._orphans: list[tuple[int, int]] | None = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._lock is not None:
            os.close(self._lock)

    @property
    def settings(self) -> "Settings":
        """The configuration, read when it is first needed."""
        if self._settings is None:
            self._settings = load_settings(self._config_file, self.state)
        return self._settings

    def status(self) -> Document:
        found = self._open()
        needed, hostname, warnings = None, None, []
        try:
            needed, hostname = self.settings.limits.free_disk, self.settings.hostname
        except VerbError as error:
            warnings.append({"code": "config", "text": error.text, "since": None})
        return views.status(
            running=False,
            pid=None,
            version=__version__,
            since=None,
            state_dir=str(self.state),
            hostname=hostname or "",
            paused="",
            listeners=[],
            totals=answers.totals(found, frozenset()) if found else _EMPTY,
            rates={},
            disk={"free": _free(self.state), "needed": needed},
            warnings=warnings,
        )

    def queue(self, query: str, *, sort: str, reverse: bool, limit: int, after: str) -> Iterator[Document]:
        listing = answers.Listing(answers.parse_query(query, self.clock.now()), sort, reverse, PAGE, after)

        def page(found: Reader, size: int, after: str) -> list[Document]:
            return answers.page(found, replace(listing, limit=size, after=after), self._claimed(found), frozenset())

        return self._pages(page, limit, after)

    def count(self, query: str) -> Document:
        parsed, found = answers.parse_query(query, self.clock.now()), self._open()
        if found is None:
            return {"messages": 0, "recipients": 0, "bytes": 0}
        return answers.count(found, parsed, self._claimed(found), frozenset())

    def message(self, id: str, *, transcript: bool) -> Document:
        found = self._need(id)
        return answers.message(found, id, self._spool, transcript=transcript, active=frozenset())

    def raw(self, id: str) -> Iterator[bytes]:
        return answers.content(self._need(id), id, self._spool)

    def why(self, id: str) -> list[Document]:
        rows = answers.recipients(self._need(id), id, frozenset())
        return [views.not_running(row, self.clock.now()) for row in rows]

    def shape(self, by: str, limit: int) -> list[Document]:
        found = self._open()
        return places.shape(found, by, self.clock.now(), limit) if found else []

    def destinations(self, by: str, limit: int) -> list[Document]:
        places.by_place(by)
        found = self._open()
        if found is None:
            return []
        return places.places(found, by, self._suspended(found, by), limit, self._claimed(found), frozenset())

    def destination(self, name: str) -> Document:
        found = self._open()
        if found is None:
            raise VerbError(f"nothing waits for {name}: {self.state} holds no queue; name the right --state", NOT_SO)
        facts = {by: self._suspended(found, by) for by in ("domain", "hop")}
        return places.place(found, name, facts, self._claimed(found), frozenset())

    def _suspended(self, found: Reader, by: str) -> list[Document]:
        """What a stopped relay remembers of destinations or next hops: suspensions that have not ended."""
        now = self.clock.now()
        return [places.suspension(control) for control in remembered(found, SUSPEND) if (control.until or now) >= now]

    def routes(self) -> list[Document]:
        return places.routes(self._open(), self._route_rows())

    def route_test(self, target: str, sender: str) -> Document:
        return places.route_test(self._route_rows(), self.settings.delivery.smarthost, target, sender)

    def _route_rows(self) -> list[Document]:
        """The live rows that the relay remembers, and the file's."""
        found = self._open()
        return places.route_rows(remembered(found, ROUTE) if found else [], self.settings.route)

    def users(self) -> list[Document]:
        from mailtui.control import users
        from mailtui.queue.accounts import read_accounts

        found = self._open()
        return users.rows(read_accounts(found), found) if found else []

    def plan(self, target: str) -> Document:
        from mailtui.routing.resolver import Resolver
        from mailtui.routing.router import Router
        from mailtui.settings import RouteSettings

        address, destination = answers.plan_target(target)
        settings = self.settings
        listening = [(one.host, one.port) for one in settings.listener]
        live = [
            RouteSettings(match=row["match"], target=row["target"], **row["options"])
            for row in self._route_rows()
            if row["source"] == "live"
        ]

        async def ask() -> Document:
            resolver = Resolver(settings.dns.nameservers, settings.dns.timeout, settings.dns.dnssec)
            router = Router(settings, self.clock, resolver, lambda: listening)
            router.use(settings, live)
            return views.plan(await router.plan(address, destination, ""), settings.tls.default)

        return asyncio.run(ask())

    def trace(self, id: str) -> Document:
        header = answers.header(self._need(id), id, self._spool)
        return answers.trace(header, self.settings.hostname, self.settings.trace.trusted)

    def history(self, query: str, *, limit: int, after: str) -> Iterator[Document]:
        parsed = answers.parse_query(query, self.clock.now())
        return self._pages(lambda found, size, at: answers.history(found, parsed, size, at), limit, after)

    def log(self, *, limit: int) -> list[Document]:
        found = self._open()
        return answers.log(found, [], limit) if found else []

    def follow(self) -> Iterator[Document]:
        raise VerbError("log --follow needs a running relay, and none runs; start it with mailtui serve", NOT_RUNNING)

    def access_test(self, probe: Document) -> Document:
        from mailtui.intake.access import AccessRules
        from mailtui.queue.accounts import read_accounts

        found = self._open()
        return access.test_offline(
            AccessRules.from_settings(self.settings),
            self._grants(),
            probe,
            read_accounts(found) if found else [],
            elsewhere=bool(self.settings.access.auth_socket),
        )

    def grants(self) -> list[Document]:
        return access.grant_rows(self._grants())

    def _grants(self) -> "Grants":
        from mailtui.intake.grants import Grants

        grants, found = Grants(self.clock), self._open()
        if found is not None:
            grants.load((GRANT, control) for control in remembered(found, GRANT))
        return grants

    def probes(self) -> list[Document]:
        return access.probe_rows(self._saved_probes())

    def _saved_probes(self) -> "list[Control]":
        found = self._open()
        return remembered(found, PROBE) if found is not None else []

    def run_probes(self) -> list[Document]:
        from mailtui.intake import probes
        from mailtui.intake.access import AccessRules

        saved = [probes.probe_of(control) for control in self._saved_probes()]
        return access.outcome_rows(probes.run(saved, AccessRules.from_settings(self.settings)))

    @property
    def _spool(self) -> Path:
        return self.state / "spool"

    def _open(self) -> Reader | None:
        """The reader, or None where there is no queue."""
        if self._reader is None:
            with contextlib.suppress(FileNotFoundError):
                try:
                    self._reader = Reader(self.state, offline=True, deadline=None)
                except (PermissionError, sqlite3.Error) as error:
                    raise VerbError(
                        f"the queue in {self.state} cannot be read: {error}; run this as the relay's user", WRONG
                    ) from None
        return self._reader

    def _need(self, id: str) -> Reader:
        answers.parse_id(id)
        found = self._open()
        if found is None:
            raise VerbError(f"{id} is not in the queue: {self.state} holds no queue; name the right --state", 1)
        return found

    def _claimed(self, found: Reader) -> list[tuple[int, int]]:
        """What a relay that was killed had handed to delivery: still in the queue, and due when it starts again."""
        if self._orphans is None:
            self._orphans = answers.orphans(found)
        return self._orphans

    def _pages(self, page: Any, limit: int, after: str) -> Iterator[Document]:
        found = self._open()
        if found is None:
            return iter(())
        left = limit or 1 << 62
        first: list[Document] = page(found, min(left, PAGE), after)  # what is wrong is said before anything is printed

        def rows() -> Iterator[Document]:
            nonlocal left
            current = first
            while True:
                yield from current
                if len(current) < min(left, PAGE) or left <= len(current):
                    return
                left -= len(current)
                current = page(found, min(left, PAGE), current[-1]["cursor"])

        return rows()


def load_settings(config: str | None, state: Path) -> "Settings":
    """The configuration of a stopped relay; its errors as one VerbError."""
    from mailtui.config import ConfigError, load

    try:
        return load(config, state=state)
    except ConfigError as error:
        more = f" (and {len(error.errors) - 1} more: mailtui config check)" if len(error.errors) > 1 else ""
        raise VerbError(f"{error.errors[0]}{more}", WRONG) from None


def _lock(state: Path) -> int | None:
    """The shared lock; None where no relay ever was, or where the file system takes no locks from us."""
    try:
        fd = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VerbError(f"{state} cannot be read: {error.strerror}; run this as the relay's user", WRONG) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Locked(str(state)) from None
    return fd


def _free(state: Path) -> int | None:
    """Octets free where the state directory is, or would be."""
    for place in (state, *state.parents):
        with contextlib.suppress(OSError):
            facts = os.statvfs(place)
            return facts.f_bavail * facts.f_frsize
    return None
