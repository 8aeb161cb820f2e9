"""What delivery knows of destinations and next hops, for `dest list` and for previews.

Promises: reads only; of a long queue's thousands of destinations a few hundred are looked at between two turns of the
loop, so that mail goes on; who names the destinations that matter pays for these only.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from mailtui.delivery.controls import LIMIT, SUSPEND
from mailtui.delivery.scheduler import Scheduler
from mailtui.routing.router import Router

# Destinations looked at in one turn of the loop: about two milliseconds.
TURN = 500

Facts = dict[str, Any]


async def of_hops(scheduler: Scheduler, router: Router, now: float) -> list[Facts]:
    """A dict for every next hop in use or under a control, with the destinations whose mail goes there now."""
    names: dict[str, set[str]] = {}
    active = _active(scheduler)
    async for name in _slowly({*scheduler.destinations, *active}):
        names.setdefault(_next_hop(router, name), set()).add(name)
    controls = scheduler.controls
    for key in (*scheduler.pool.hops, *controls.all(SUSPEND), *controls.all(LIMIT)):
        names.setdefault(key, set())
    made = []
    async for key in _slowly(names):
        made.append(_facts(scheduler, key, key, names[key], active, now))
    return made


async def of_domains(
    scheduler: Scheduler, router: Router, now: float, names: Collection[str] | None = None, most: int = 0
) -> list[Facts]:
    """A dict for every destination with something waiting or under a control.

    With `names`: for these, for what is under a control itself, and for at most `most` others that are not `ok`."""
    active, controls = _active(scheduler), scheduler.controls
    made: dict[str, Facts] = {}
    known = dict.fromkeys((*scheduler.destinations, *active) if names is None else names)
    async for name in _slowly(known):
        made[name] = _facts(scheduler, name, _next_hop(router, name), (name,), active, now)
    for name in (*controls.all(SUSPEND), *controls.all(LIMIT)):
        if name not in made:
            key = _next_hop(router, name) if name in scheduler.destinations else ""
            made[name] = _facts(scheduler, name, key, (name,), active, now)
    troubled = _troubled(scheduler, now) if names is not None else set()
    most += len(made)
    async for name in _slowly(scheduler.destinations if troubled else ()):
        if len(made) >= most:
            break
        key = _next_hop(router, name) if name not in made else ""
        if key in troubled:
            made[name] = _facts(scheduler, name, key, (name,), active, now)
    return list(made.values())


async def suspended(scheduler: Scheduler, router: Router) -> set[str]:
    """Every suspended destination and next hop, and the destinations whose mail goes to a suspended next hop."""
    named = set(scheduler.controls.all(SUSPEND))
    found = set(named)
    async for name in _slowly(scheduler.destinations if named else ()):
        if name not in found and _next_hop(router, name) in named:
            found.add(name)
    return found


async def _slowly(names: Iterable[str]) -> AsyncIterator[str]:
    """These names, with a turn of the loop now and then."""
    for number, name in enumerate(list(names), 1):
        yield name
        if not number % TURN:
            await asyncio.sleep(0)


def _next_hop(router: Router, name: str) -> str:
    """Where mail for a destination goes, as far as is known without asking."""
    plan = router.cached("", name, "")
    return plan.next_hop if plan is not None and plan.outcome == "deliver" else name


def _active(scheduler: Scheduler) -> dict[str, int]:
    """Recipients on a connection, by destination."""
    active: dict[str, int] = {}
    for hop in scheduler.pool.hops.values():
        for work in hop.busy.values():
            for r in work.recipients:
                active[r.destination] = active.get(r.destination, 0) + 1
    return active


def _troubled(scheduler: Scheduler, now: float) -> set[str]:
    """Next hops that are not ok."""
    found = set(scheduler.controls.all(SUSPEND))
    return found | {key for key in scheduler.pool.hops if _state(scheduler, key, key, now)[0] != "ok"}


def _state(scheduler: Scheduler, name: str, key: str, now: float) -> tuple[str, float | None, str]:
    """(state, until, reason) of a destination, or of a next hop itself; `key` is the next hop."""
    held = scheduler.controls.suspended(name, key)
    hop = scheduler.pool.hops.get(key)
    if held is not None:
        return "suspended", held.until, held.reason
    if hop is None:
        return "ok", None, ""
    if hop.failures:
        return "down", hop.backoff_until or None, hop.last_failure.reply if hop.last_failure else ""
    if hop.window < min(2.0, hop.limit):
        return "slow", None, hop.last_reply
    slowness = hop.slowness(now)
    return ("slow", None, slowness) if slowness else ("ok", None, "")


def _facts(
    scheduler: Scheduler, name: str, key: str, domains: Collection[str], active: dict[str, int], now: float
) -> Facts:
    hop = scheduler.pool.hops.get(key)
    limit = scheduler.controls.get(LIMIT, name)
    state, until, reason = _state(scheduler, name, key, now)
    return {
        "name": name,
        "domains": sorted(domains),
        "active": sum(active.get(domain, 0) for domain in domains),
        "window": int(hop.window) if hop else None,
        "connections": hop.workers if hop else 0,
        "rate": limit.value.get("rate") if limit else None,
        "state": state,
        "until": until,
        "reason": reason,
        "next_hop": hop.key if hop else "",
        "last_reply": hop.last_reply if hop else "",
        "last_success": hop.last_success if hop else None,
    }
