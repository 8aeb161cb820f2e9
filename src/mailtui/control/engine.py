"""Carrying out what operators order: preview, run, undo.

Promises: what is counted is what is touched, for a set of recipients is frozen first; work goes in chunks of `CHUNK`,
each one commit, beside the traffic; an answer comes after the last commit and its numbers are exact; what is in
delivery waits for the end of its attempt; every order stands in the journal with the command that repeats it. An order
goes on when whoever gave it has hung up.
"""

import asyncio
import re
from collections.abc import Awaitable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from mailtui.clock import rfc3339
from mailtui.control import effects, views
from mailtui.control import picture as pictures
from mailtui.control.controls import Controls
from mailtui.control.errors import DIFFERS, NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.orders import Wanted, command_of, narrowed, route_of
from mailtui.control.picture import Picture
from mailtui.control.reads import Document
from mailtui.control.users import Users
from mailtui.control.verbs import LOSSY, UNDOABLE, WORLD
from mailtui.control.words import command_line
from mailtui.queue import operations
from mailtui.queue.actions import CHUNK, Acted, Action
from mailtui.queue.chosen import STEP, Chosen, chosen
from mailtui.queue.database import open_reader
from mailtui.queue.freezing import FrozenSet
from mailtui.queue.operations import Operation, Order
from mailtui.queue.query import Query, QueryError
from mailtui.queue.read import QueryTimeout, Reader

Rid = tuple[int, int]

# Rows in a preview.
SAMPLE = 5

# A recipient may be claimed again between its withdrawal and the action: after so many rounds it is left out.
ROUNDS = 5

# What runs when the relay stops gets this long to end at the next chunk, in seconds.
PATIENCE = 2.0


@dataclass(slots=True)
class _Running:
    """An operation under way. `stop`: no further chunk."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stop: bool = False


@dataclass(slots=True)
class _Tally:
    """What became of the recipients so far."""

    done: int = 0
    delivered_before: int = 0
    pending: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave(self, why: str, count: int) -> None:
        if count:
            self.left_out[why] = self.left_out.get(why, 0) + count


class Engine:
    """Carries out orders on a running relay. `close` lets what runs end at its next chunk."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.controls = Controls(live)
        self.users = Users(live, self.controls, self.run)
        self._running: dict[int, _Running] = {}
        self._tasks: set[asyncio.Task[Document]] = set()
        self._ending: set[asyncio.Task[None]] = set()  # of operations whose waves go on

    async def close(self) -> None:
        """Stop between two chunks; what is not done then is said by the journal."""
        for running in self._running.values():
            running.stop = True
        if self._tasks or self._ending:
            await asyncio.wait([*self._tasks, *self._ending], timeout=PATIENCE)

    # -- preview -----------------------------------------------------------------------------------------------------

    async def preview(self, want: Wanted) -> tuple[Document, FrozenSet | None]:
        """What an order would touch and do; and the set that it was counted for."""
        if want.verb.name == "queue.undo":
            return await self._preview_undo(want), None
        if want.verb.words[0] == "user":
            self.users.check(want)
        if not want.selects:
            return await self.controls.preview(want), None
        frozen = await self.frozen(want)
        picture = await self._picture(want, frozen)
        rids = next(picture.rids(SAMPLE), [])
        active = self.live.active()
        sample = await self.live.read(lambda reader: reader.rows_of(rids, active))
        grace, lossy = self._grace(want), want.verb.danger == LOSSY
        undo = grace if lossy else operations.UNDO_KEPT if want.verb.danger == UNDOABLE else None
        all_of_it = want.verb.name == "flush" and not want.query
        return {
            "verb": want.verb.name,
            "command": command_of(want, picture.recipients),
            "messages": picture.messages,
            "recipients": picture.recipients,
            "bytes": picture.bytes,
            "oldest": rfc3339(picture.oldest),
            "destinations": len(picture.destinations),
            "sample": [views.row(row) for row in sample if row is not None],
            "left_out": pictures.as_list(picture.left_out),
            "effects": effects.sentences(want.verb, picture, grace, want.values.get("for")),
            "danger": WORLD if all_of_it else want.verb.danger,
            "undo_seconds": undo,
        }, frozen

    def _grace(self, want: Wanted) -> float | None:
        """The grace of a bounce or delete in seconds; None if there is none."""
        if want.verb.danger != LOSSY or want.values.get("now"):
            return None
        return self.live.grace or None

    async def frozen(self, want: Wanted) -> FrozenSet:
        """The recipients that an order is about, at this moment."""
        if want.frozen is not None:
            return want.frozen
        query = narrowed(want.verb, want.query, self.live.clock.now())
        return await self.freeze(query)

    async def freeze(self, query: Query, sort: str = "arrived", reverse: bool = False) -> FrozenSet:
        """All that a query selects now. VerbError."""
        claimed, active = self.live.claimed(), self.live.active()
        try:
            return await self.live.scan(lambda reader: reader.freeze(query, sort, reverse, claimed, active))
        except QueryError as error:
            raise VerbError(str(error), WRONG) from None
        except QueryTimeout as error:
            raise VerbError(str(error), NOT_SO) from None

    async def _picture(self, want: Wanted, frozen: FrozenSet) -> Picture:
        picture = Picture(want.verb.action, frozen.sort == "arrived")
        names = await self.live.suspended() if want.verb.action == "retry" else ()
        now = self.live.clock.now()
        for at in range(0, len(frozen), STEP):
            rids = frozen.rids(at, STEP)

            def facts(reader: Reader, rids: list[Rid] = rids) -> list[Chosen]:
                return chosen(reader, rids, now, names)

            picture.add(await self.live.scan(facts))
        return picture

    # -- run ---------------------------------------------------------------------------------------------------------

    async def run(self, want: Wanted) -> Document:
        """Do it; the answer comes after the last commit."""
        if want.verb.name == "queue.undo":
            return await self._go_on(self._undo(want))
        if want.verb.words[0] == "user":
            return await self._go_on(self.users.run(want))
        if not want.selects:
            return await self._go_on(self.controls.run(want))
        return await self._go_on(self._act(want))

    async def _go_on(self, work: Any) -> Document:
        """Whoever hangs up meanwhile changes nothing."""
        task: asyncio.Task[Document] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _act(self, want: Wanted) -> Document:
        frozen = await self.frozen(want)
        picture = await self._picture(want, frozen)
        asked = len(frozen)
        if want.expect is not None and want.expect != picture.recipients:
            raise VerbError(
                f"--expect {want.expect} differs: {picture.recipients} recipients match now;"
                " nothing was done, look again",
                NOT_SO,
                DIFFERS,
            )
        tally = _Tally(delivered_before=picture.missing(asked))
        command = command_of(want, picture.recipients)
        number, undo_until = 0, None
        if picture.recipients:
            order = self._order(want, command, asked)
            kept = self.live.clock.now() + operations.UNDO_KEPT if want.verb.danger == UNDOABLE else None
            undo_until = order.leaves if want.verb.danger == LOSSY else kept
            number = await self.live.store.begin_operation(order)
            action = Action(want.verb.action, number, want.who, want.reason, order.until, order.route, order.leaves)
            await self._carry_out(want, action, picture, tally)
        return {
            "verb": want.verb.name,
            "command": command,
            "operation": f"o{number}" if number else None,
            "asked": asked,
            "messages": picture.messages,
            "recipients": picture.recipients,
            "bytes": picture.bytes,
            "done": tally.done,
            "delivered_before": tally.delivered_before,
            "pending": tally.pending,
            "left_out": pictures.as_list(pictures.merged(picture.left_out, tally.left_out)),
            "undo_until": rfc3339(undo_until),
        }

    def _order(self, want: Wanted, command: str, asked: int) -> Order:
        now, grace = self.live.clock.now(), self._grace(want)
        wait = want.values.get("for") if want.verb.action == "defer" else None
        return Order(
            verb=want.verb.action,
            command=command,
            query=want.query,
            who=want.who,
            reason=want.reason,
            asked=asked,
            until=None if wait is None else now + wait,
            route=route_of(want.values.get("to", "")) if want.verb.action == "reroute" else "",
            leaves=None if grace is None else now + grace,
        )

    async def _carry_out(self, want: Wanted, action: Action, picture: Picture, tally: _Tally) -> None:
        store, number = self.live.store, action.operation
        if tally.delivered_before:
            await store.progress(number, delivered_before=tally.delivered_before)
        if action.verb == "retry":
            await self._try_now(want, number, picture, tally)
            return
        running = self._running[number] = _Running()
        try:
            left = picture.recipients
            for rids in picture.chunks(CHUNK):
                if running.stop:
                    tally.leave("stopped before it", left)
                    break
                await self._beside(self._chunk(action, rids, tally))
                left -= len(rids)
            if action.verb in ("bounce", "delete"):
                self.live.note_leaving(self.live.clock.now() if action.leaves is None else action.leaves)
            await self._end(number)
        finally:
            running.ended.set()
            del self._running[number]

    async def _beside(self, chunk: Awaitable[None]) -> None:
        """Then the traffic that has waited for it: who comes next waits for one chunk at most."""
        await chunk
        await self.live.store.turn()

    async def _end(self, number: int) -> None:
        """Everything that can be done now is done: the journal's line, and the event."""
        done = await self.live.store.end_operation(number)
        text = f"{done.name}: asked {done.asked}, done {done.done}"
        self._tell(done, f"{text}, undoes o{done.undoes}" if done.undoes else text)

    async def _try_now(self, want: Wanted, number: int, picture: Picture, tally: _Tally) -> None:
        """The first waves; what follows in later ones is pending, and the operation ends with the last of them."""
        rids = [rid for part in picture.rids(CHUNK) for rid in part]
        over = asyncio.Event()
        ending = asyncio.get_running_loop().create_task(self._end_of_waves(number, over))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        try:
            await self.live.try_now(rids, number, bool(want.values.get("all_at_once")), over.set)
        except BaseException:
            over.set()
            raise
        if over.is_set():
            await ending
        found = await self._stored(number)
        tally.done = found.done if found is not None else 0
        if over.is_set():
            tally.leave("refused, suspended or gone meanwhile", len(rids) - tally.done)
        else:
            tally.pending = len(rids) - tally.done

    async def _end_of_waves(self, number: int, over: asyncio.Event) -> None:
        await over.wait()
        await self._end(number)

    async def _chunk(self, action: Action, rids: list[Rid], tally: _Tally) -> None:
        """One commit; and for what is in delivery a few more."""
        store, number = self.live.store, action.operation
        acted = await store.act(action, rids)
        await self._note(acted, number, tally)
        for _ in range(ROUNDS):
            left: list[Rid] = acted.claimed
            if not left:
                return
            if action.verb in ("release", "restore", "undo"):
                break  # what is claimed is neither held nor leaving any more
            # Counted before they are withdrawn, for the end of an attempt counts them down.
            await store.progress(number, pending=len(left))
            withdrawn = await self.live.withdraw(action, left)
            tally.pending += len(withdrawn.pending)
            acted = withdrawn.acted
            if len(left) > len(withdrawn.pending):
                await store.progress(number, pending=len(withdrawn.pending) - len(left))
            await self._note(acted, number, tally)
        tally.leave(pictures.IN_DELIVERY, len(acted.claimed))

    async def _note(self, acted: Acted, number: int, tally: _Tally) -> None:
        tally.done += len(acted.done)
        for why, rids in acted.left_out.items():
            tally.leave(why, len(rids))
        if acted.gone:
            tally.delivered_before += len(acted.gone)
            await self.live.store.progress(number, delivered_before=len(acted.gone))
        self.live.note_due(acted.due.items())

    def _tell(self, done: Operation, text: str) -> None:
        self.live.events.emit(
            done.verb,
            text=text,
            who=done.who,
            command=done.command,
            query=done.query,
            recipients=done.done,
            reason=done.reason,
            operation=done.name,
        )

    # -- undo --------------------------------------------------------------------------------------------------------

    async def operation(self, name: str) -> Operation:
        """An operation by its name ("o12"). VerbError."""
        match = _NAME.fullmatch(name.strip())
        found = await self._stored(int(match[1])) if match else None
        if found is None:
            raise VerbError(f"there is no operation {name[:40]}; see mailtui queue operations", NOT_SO)
        return found

    async def _stored(self, number: int) -> Operation | None:
        state_dir = self.live.state_dir

        def find() -> Operation | None:
            with closing(open_reader(state_dir)) as conn:
                return operations.operation(conn, number)

        return await asyncio.to_thread(find)

    async def _undoable(self, want: Wanted) -> Operation:
        done = await self.operation(str(want.values["operation"]))
        if done.verb not in operations.UNDOABLE:
            raise VerbError(f"{done.name} ({done.verb}) cannot be undone; only {_undoables()}", NOT_SO)
        if done.undo_until is None:
            raise VerbError(f"{done.name} ({done.verb}) had no grace and cannot be undone", NOT_SO)
        if done.undo_until <= self.live.clock.now():
            raise VerbError(f"{done.name} ({done.verb}) could be undone until {rfc3339(done.undo_until)}", NOT_SO)
        return done

    async def _preview_undo(self, want: Wanted) -> Document:
        done = await self._undoable(want)
        return {
            "verb": want.verb.name,
            "command": command_line(want.verb, args=want.args, reason=want.reason),
            "messages": 0,
            "recipients": done.done - done.undone,
            "bytes": 0,
            "oldest": None,
            "destinations": 0,
            "sample": [],
            "left_out": [],
            "effects": [f"It takes back: {done.command}", want.verb.preview],
            "danger": "none",
            "undo_seconds": None,
        }

    async def _undo(self, want: Wanted) -> Document:
        done = await self._undoable(want)
        if (running := self._running.get(done.number)) is not None:
            running.stop = True
            await running.ended.wait()
            done = await self.operation(done.name)
        store = self.live.store
        command = command_line(want.verb, args={"operation": done.name}, reason=want.reason)
        asked = done.done - done.undone
        number = await store.begin_operation(
            Order("undo", command, done.query, want.who, want.reason, asked, undoes=done.number)
        )
        tally, action = _Tally(), Action("undo", number, want.who, want.reason, undoes=done.number)
        running = self._running[number] = _Running()
        seen = 0
        try:
            after: Rid = (0, 0)
            while not running.stop and (rids := await store.touched(done.number, after)):
                seen += len(rids)
                after = rids[-1]
                for at in range(0, len(rids), CHUNK):
                    await self._beside(self._chunk(action, rids[at : at + CHUNK], tally))
            await self._end(number)
        finally:
            running.ended.set()
            del self._running[number]
        tally.leave("changed since, or gone", max(0, asked - seen))
        return {
            "verb": want.verb.name,
            "command": command,
            "operation": f"o{number}",
            "undoes": done.name,
            "asked": asked,
            "messages": 0,
            "recipients": asked,
            "bytes": 0,
            "done": tally.done,
            "delivered_before": tally.delivered_before,
            "pending": 0,
            "left_out": pictures.as_list(tally.left_out),
        }


_NAME = re.compile(r"o?([0-9]{1,15})", re.IGNORECASE)


def _undoables() -> str:
    return ", ".join(operations.UNDOABLE)
