"""Assembles the rooms into the running daemon: start, drain, stop.

Promises: control answers before the first listener does; if scheduler, writer or control ends by an exception, the
listeners are closed, the reason is logged and the exit status is not zero: a relay never accepts without sending.
"""

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mailtui import __version__, descriptors
from mailtui.clock import Clock, SystemClock
from mailtui.config import ConfigError, Settings
from mailtui.control.health import Health
from mailtui.control.live_routes import LiveRoutes
from mailtui.control.server import ControlServer
from mailtui.control.warnings import warnings
from mailtui.delivery import why as reasons
from mailtui.delivery.asking import Asker
from mailtui.delivery.attempt import Sender
from mailtui.delivery.controls import INTAKE, PAUSE
from mailtui.delivery.delays import Delays
from mailtui.delivery.operating import Operating
from mailtui.delivery.scheduler import Scheduler
from mailtui.delivery.secrets import Secrets
from mailtui.delivery.settle import Settler
from mailtui.delivery.watchdog import Watchdog
from mailtui.events import Events
from mailtui.ids import encode
from mailtui.intake import probes
from mailtui.intake.access import AccessRules
from mailtui.intake.accounts import NOBODY, nobody
from mailtui.intake.callout import Callout
from mailtui.intake.grants import Grants
from mailtui.intake.listener import Intake, ListenError
from mailtui.intake.probes import Probes, ProbesFailed
from mailtui.model import Account, Why, Withdrawn
from mailtui.queue.actions import Action
from mailtui.queue.database import StoreError
from mailtui.queue.read import Reader
from mailtui.queue.rows import Row
from mailtui.queue.store import Store
from mailtui.routing.resolver import Resolver
from mailtui.routing.router import Router
from mailtui.tls.connecting import Contexts

T = TypeVar("T")

# Pruning, vacuuming, forgetting idle next hops: a small step this often, in seconds.
TIDY = 60.0

# The writer thread wants the interpreter back after every sync, and a scan of the queue must not keep it from the loop:
# Python's default of 5 ms is as long as a whole group of messages takes.
SWITCH_INTERVAL = 0.001

# Young objects before a garbage collection: a message in flight is about a hundred, and reference counts free them.
GC_THRESHOLD = 100_000


class StartError(Exception):
    """The relay cannot start; the text says what is wrong and what to do."""


class Relay:
    """A running relay. `start`, then `finished()`, then `stop`; what control and tests may ask is public."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        socket_path: Path | None = None,
        *,
        clock: Clock | None = None,
        events: Events | None = None,
        paused: bool = False,
        rng: random.Random | None = None,
        load: Callable[[], Settings] | None = None,
        configuration: Path | None = None,
    ) -> None:
        self.settings = settings
        self.configuration = configuration
        self._load = load or (lambda: settings)
        self.state_dir = state_dir
        self.hostname = settings.hostname
        self.clock = clock or SystemClock()
        self.events = events or Events(self.clock, form=settings.log.format, level=settings.log.level)
        self.version = __version__
        self.started = 0.0
        rng = rng or random.Random()
        self.store = Store(state_dir, self.clock, free_disk=settings.limits.free_disk)
        self.watchdog = Watchdog(self.clock)
        self.resolver = Resolver(settings.dns.nameservers, settings.dns.timeout, settings.dns.dnssec, self.clock)
        self.router = Router(settings, self.clock, self.resolver, self._listening)
        self.live_routes = LiveRoutes(settings, self.clock, self.store, self.router)
        sender = Sender(
            clock=self.clock,
            watchdog=self.watchdog,
            rng=rng,
            **_sender(settings),
            pieces=lambda number: self.store.spool.pieces(number),
        )
        self.settler = Settler(settings, self.clock, self.events, self.store, rng)
        self.scheduler = Scheduler(settings, self.clock, self.events, self.store, self.router, sender, self.settler)
        self.delays = Delays(self.scheduler, self.store, self.router, self.settler, self.clock, self.events)
        self.operating = Operating(self.scheduler, self.store, self.router, self.clock, self.events, _action)
        self._paused = paused
        self.grants = Grants(self.clock, self.store)
        self.probes = Probes(self.clock, self.store)
        self.intake = Intake(settings, self.clock, self.events, self.store, grants=self.grants)
        self.intake.callout.next_hop = Asker(self.router, lambda: self.scheduler.pool.sender, self._suspended)
        self.intake.limits.quarantine = self._quarantine
        self.health = Health(self._ailing)
        self.control = ControlServer(self, socket_path or state_dir / "control.sock")
        self._end: asyncio.Future[int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._opened = False

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, answer on the control socket, listen. Raises StartError; nothing is left open then."""
        self._end = asyncio.get_running_loop().create_future()
        self.started = self.clock.now()
        store, scheduler = self.store, self.scheduler
        store.admit, store.committed, store.dropped = scheduler.admit, scheduler.committed, scheduler.dropped
        store.intake_paused = lambda: scheduler.controls.get(PAUSE, INTAKE) is not None
        store.on_fatal = scheduler.tasks.on_fatal = self._fatal
        self.intake.limits.quarantine = lambda name, why: scheduler.tasks.spawn(self.control.quarantine(name, why))
        store.on_void = lambda text: self.events.emit("void-claim", text=text, level="error")
        try:
            store.open()
        except StoreError as error:
            raise StartError(str(error)) from error
        self._opened = True
        try:
            scheduler.controls.load(store.controls)
            await self._load_accounts()
            self.live_routes.load(store.controls)
            self.grants.load(store.controls)
            self.probes.load(store.controls)
            self.live_routes.use(self.settings)
            if self._paused:
                scheduler.controls.pause_for_now("started with --paused")
            scheduler.claims.note_due(store.heads)
            await self.operating.start()
            for work in (self.watchdog.run(), scheduler.run(), self._tidy()):
                task = asyncio.get_running_loop().create_task(work)
                task.add_done_callback(self._watched)
                self._tasks.append(task)
            await self.control.start()
            self._allow_connections(self.settings)
            await self.intake.start()
            await self.health.listen(self.settings.metrics.listen)
            self.router.forget()  # plans made before knew none of our listeners
        except (ListenError, OSError) as error:
            await self.stop(0.0)
            raise StartError(str(error)) from error
        self._tell_start()

    async def finished(self) -> int:
        """Wait for the end: the exit status."""
        assert self._end is not None
        return await asyncio.shield(self._end)

    def stop_soon(self, status: int = 0) -> None:
        """Ask for the end, from a signal or a verb."""
        if self._end is not None and not self._end.done():
            self._end.set_result(status)

    def hangup(self) -> None:
        """SIGHUP: reload; a bad configuration is told to the log."""
        self.scheduler.tasks.spawn(self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        try:
            errors = await self.reload()
        except ProbesFailed as failed:
            errors = failed.errors
        for error in errors:
            self.events.emit("reload-refused", text=error, level="error")

    async def stop(self, drain: float | None = None) -> None:
        """Stop listening, finish what runs within `drain` seconds, park the rest, let go of the state directory."""
        if not self._opened:
            return
        self._opened = False
        seconds = self.settings.limits.drain if drain is None else drain
        begun = self.clock.monotonic()
        await self.intake.drain(seconds)
        left = max(0.0, seconds - (self.clock.monotonic() - begun))
        clean = await self.scheduler.drain(left)
        await self.health.stop()
        await self.control.stop()
        for task in self._tasks:
            task.remove_done_callback(self._watched)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.resolver.close()
        self.store.journal("stopped", text=f"mailtui {__version__} stopped")
        await self.store.close(clean=clean)
        self.events.emit("stopped", version=__version__)
        self.events.flush()

    def _tell_start(self) -> None:
        store = self.store
        text = ", ".join(f"{item['name']} {item['address']}" for item in self.listeners())
        self.events.emit("started", version=__version__, pid=os.getpid(), listeners=text, state=str(self.state_dir))
        store.journal("started", text=f"mailtui {__version__}, listening on {text}")
        if store.interrupted:
            self.events.emit(
                "recovered",
                recipients=store.interrupted,
                text="the last relay did not stop cleanly; what it had in delivery is tried again within 5 s",
                level="warning",
            )
            store.journal("recovered", text=f"{store.interrupted} recipients were in delivery when the relay died")
        for number in sorted(store.missing_bodies):
            text = "its spool file is missing: held"
            self.events.emit("held", id=number, text=text, level="error")
            store.journal("held", text=f"{encode(number)}: {text}")

    def _watched(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fatal(error)

    def _fatal(self, error: BaseException) -> None:
        """Something that must not end has ended."""
        if self._end is None or self._end.done():
            return
        self.events.emit("fatal", text=f"{type(error).__name__}: {error}", level="error")
        if os.environ.get("MAILTUI_DEBUG"):
            import traceback

            traceback.print_exception(error)
        self._end.set_result(1)

    async def _tidy(self) -> None:
        history = self.settings.history
        while True:
            await self.clock.sleep_until(self.clock.now() + TIDY)
            self.store.tidy(keep=history.keep, rows=history.rows, transcripts=history.transcripts)
            self.scheduler.pool.forget_idle()
            await self.grants.tidy()

    # -- what control may ask ----------------------------------------------------------------------------------------

    async def read(self, work: Callable[[Reader], T]) -> T:
        return await self.store.read(work)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        return await self.store.scan(work)

    def claimed(self) -> list[tuple[int, int]]:
        return self.scheduler.claimed()

    def active(self) -> frozenset[tuple[int, int]]:
        return self.scheduler.active()

    @property
    def paused(self) -> str:
        names = self.scheduler.controls.all(PAUSE)
        return "all" if len(names) > 1 else next(iter(names), "")

    def why(self, row: Row) -> Why:
        plan = self.router.cached(row.recipient, row.destination, row.sender, row.target)
        return reasons.explain(row, self.scheduler, plan, self.clock.now())

    def listeners(self) -> list[dict[str, Any]]:
        return self.intake.listeners()

    def warnings(self) -> list[dict[str, Any]]:
        return warnings(self.store, self.intake, self.started)

    def disk(self) -> dict[str, int]:
        return {"free": self.store.free_space(), "needed": self.settings.limits.free_disk}

    def access_rules(self) -> AccessRules:
        return self.intake.rules

    @property
    def callout(self) -> Callout:
        return self.intake.callout

    def accounts(self) -> list[Account]:
        return self.intake.accounts.all

    # -- what operators may do: operating.py has the promises --------------------------------------------------------

    @property
    def grace(self) -> float:
        """Seconds until what was bounced or deleted is gone for good."""
        return self.settings.queue.grace

    async def withdraw(self, action: Action, rids: Sequence[tuple[int, int]]) -> Withdrawn:
        return await self.operating.withdraw(action, rids)

    async def try_now(
        self, rids: Sequence[tuple[int, int]], operation: int, all_at_once: bool, over: Callable[[], None]
    ) -> None:
        await self.operating.try_now(rids, operation, all_at_once, over)

    def note_due(self, due: Iterable[tuple[str, float]]) -> None:
        self.scheduler.claims.note_due(due)

    def note_leaving(self, at: float) -> None:
        self.operating.note_leaving(at)

    async def pause(self, what: str, until: float | None, reason: str, who: str) -> None:
        await self.operating.pause(what, until, reason, who)

    async def resume(self, who: str) -> None:
        await self.operating.resume(who)

    async def suspend(self, name: str, until: float | None, reason: str, who: str) -> None:
        await self.operating.suspend(name, until, reason, who)

    async def unsuspend(self, name: str, who: str) -> bool:
        return await self.operating.unsuspend(name, who)

    async def limit(self, name: str, concurrency: int | None, rate: tuple[int, float] | None, who: str) -> None:
        await self.operating.limit(name, concurrency, rate, who)

    async def destinations(self, by: str, names: Collection[str] | None = None, most: int = 0) -> list[dict[str, Any]]:
        return await self.operating.destinations(by, names, most)

    async def suspended(self) -> set[str]:
        return await self.operating.suspended()

    def _ailing(self) -> str:
        """Why a load balancer should send no client here; "" if it may."""
        if self.intake.draining or not self._opened:
            return "draining"
        refusal = self.store.refusal()
        return f"{refusal.rule}: {refusal.reply}" if refusal is not None else ""

    def _allow_connections(self, settings: Settings) -> None:
        """As many open files as the configured connections need."""
        wanted = settings.limits.connections + settings.delivery.connections
        allowed = descriptors.allow(wanted)
        if allowed < wanted:
            text = (
                f"this process may have {allowed} connections at once, and [limits] and [delivery] allow {wanted}:"
                " raise its limit of open files (LimitNOFILE=, ulimit -n), or lower connections"
            )
            self.events.emit("open-files", level="warning", text=text)

    def _quarantine(self, user: str, why: str) -> None:
        """An account goes on after it was refused for its rate: as `mailtui user quarantine` does it."""
        self.scheduler.tasks.spawn(self.control.order("user.quarantine", {"name": user}, why))

    # -- accounts ----------------------------------------------------------------------------------------------------

    async def _load_accounts(self) -> None:
        """What the store knows; at the first start it is given what stands for every name that is none."""
        known = list(self.store.accounts)
        if not any(account.name == NOBODY for account in known):
            known.append(Account(NOBODY, nobody().text, self.clock.now()))
            await self.store.set_account(known[-1])
        self.intake.accounts.load(known)

    async def set_account(self, account: Account) -> None:
        """Remember an account; what it is holds for the next login, and for no session under way."""
        await self.store.set_account(account)
        self.intake.accounts.put(account)

    async def unset_account(self, name: str) -> None:
        """Forget an account; its sessions stay until `close_sessions`."""
        await self.store.unset_account(name)
        self.intake.accounts.remove(name)

    async def close_sessions(self, name: str) -> None:
        """End the sessions of an account; returns when nothing of them is on its way to disk."""
        await self.intake.dismiss(name)

    # -- routes, configuration, backup -------------------------------------------------------------------------------

    def routes(self) -> list[dict[str, Any]]:
        return self.live_routes.rows()

    async def set_route(self, match: str, target: str, options: Mapping[str, str], who: str) -> None:
        await self.live_routes.set(match, target, options, who)

    async def unset_route(self, match: str, who: str) -> bool:
        return await self.live_routes.unset(match)

    async def reload(self) -> list[str]:
        """Take over the configuration file again: the errors, and then the old one stays; none if it is done.

        Raises ProbesFailed if it would change what a saved probe expects; the old one stays then too."""
        try:
            settings = self._load()
        except ConfigError as error:
            return list(error.errors)
        rules = await asyncio.to_thread(AccessRules.from_settings, settings)
        if failed := probes.failures(self.probes.all(), rules):
            raise ProbesFailed(failed)
        try:
            await self.health.listen(settings.metrics.listen)
            await self.intake.apply(settings, rules)
        except (ListenError, OSError) as error:
            with contextlib.suppress(OSError):
                await self.health.listen(self.settings.metrics.listen)
            return [str(error)]
        self._allow_connections(settings)
        self.settings = self.settler.settings = settings
        self.hostname = settings.hostname
        self.store.free_disk = settings.limits.free_disk
        self.scheduler.use(settings, replace(self.scheduler.pool.sender, **_sender(settings)))
        self.live_routes.use(settings)
        self.events.emit("reloaded", text="the configuration was read again")
        self.store.journal("reloaded", text="the configuration was read again")
        return []

    async def backup(self, path: Path) -> int:
        """Write a consistent copy; its size. Raises StoreError."""
        return await self.store.backup(path, self.configuration)

    def stop_relay(self) -> None:
        self.stop_soon(0)

    def _suspended(self, destination: str, hop: str) -> bool:
        return self.scheduler.controls.suspended(destination, hop) is not None

    def _listening(self) -> Sequence[tuple[str, int]]:
        """The addresses and ports that mean ourselves."""
        return self.intake.addresses()


def _action(verb: str, operation: int) -> Action:
    return Action(verb, operation)


def _sender(settings: Settings) -> dict[str, Any]:
    """What attempts are told of the configuration."""
    delivery = settings.delivery
    return {
        "hostname": settings.hostname,
        "source_ipv4": delivery.source_ipv4,
        "source_ipv6": delivery.source_ipv6,
        "connect_timeout": delivery.connect_timeout,
        "tls_default": settings.tls.default,
        "contexts": Contexts(settings.tls.ca_file),
        "secrets": Secrets(settings.delivery.secrets),
    }


def run(
    settings: Settings,
    state_dir: Path,
    socket_path: Path,
    paused: bool = False,
    *,
    load: Callable[[], Settings] | None = None,
    configuration: Path | None = None,
) -> int:
    """Run a relay in the foreground until SIGTERM or SIGINT; the exit status. Raises StartError.

    `load` reads the configuration again for a reload (it may raise ConfigError); `configuration` is its file."""
    import uvloop

    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    relay = Relay(settings, state_dir, socket_path, paused=paused, load=load, configuration=configuration)
    return uvloop.run(_serve(relay))


async def _serve(relay: Relay) -> int:
    await relay.start()
    gc.collect()
    gc.freeze()  # what is there now stays: no collection need look at it again
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop_soon)
    loop.add_signal_handler(signal.SIGHUP, relay.hangup)
    status = await relay.finished()
    await relay.stop(0.0 if status else None)
    return status
