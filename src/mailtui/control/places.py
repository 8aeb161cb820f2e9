"""Where mail goes, as the reading verbs tell it: the queue's shape, destinations and next hops, the route table.

As `answers`: given a `Reader`, for the server and offline alike. Blocking: run on a reader thread.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mailtui.control import answers, views
from mailtui.control.answers import asked
from mailtui.control.clean import clean, clean_value
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.reads import Document
from mailtui.model import Control
from mailtui.queue.read import Reader
from mailtui.queue.routed import by_route
from mailtui.queue.shape import Place

Rid = tuple[int, int]


def shape(reader: Reader, by: str, now: float, limit: int) -> list[Document]:
    """`queue shape`; `limit` 0 means all."""
    return [views.shape(row) for row in asked(lambda: reader.shape(by, now, limit))]


def by_place(text: str) -> str:
    """domain or hop; VerbError."""
    if text not in ("domain", "hop"):
        raise VerbError(f'--by "{clean(text[:40])}" is neither domain nor hop', WRONG)
    return text


def fullest(reader: Reader, limit: int) -> list[str]:
    """The names of the fullest destinations."""
    return asked(lambda: reader.fullest(limit))


# What a listing of destinations without a limit gives at most.
_EVERY = 1 << 31

Facts = Sequence[Mapping[str, Any]]
Limit = tuple[int, float] | None


def places(
    reader: Reader,
    by: str,
    facts: Facts,
    limit: int,
    claimed: Collection[Rid],
    active: frozenset[Rid],
    rate: Limit = None,
    names: Collection[str] | None = None,
) -> list[Document]:
    """`dest list`, the fullest first; those where nothing waits last, if delivery has something to tell of them.

    `facts`: what delivery knows, by `name`; none of a stopped relay. `names`: the fullest, if they are known."""
    size = limit or _EVERY
    if by == "domain":
        found = asked(lambda: reader.destinations(limit=size, names=names, claimed=claimed, active=active))
    else:
        found = asked(lambda: reader.hops(limit=size, claimed=claimed, active=active))
    known = {str(one["name"]): one for one in facts if _is_one(by, one)}
    cut = len(found) >= size
    there = {place.name for place in found}
    # Suspended or down, and not among the fullest: they are what is looked for.
    more = [name for name, one in known.items() if one["state"] != "ok" and name not in there]
    if by == "domain" and cut and more:
        found = [*found, *asked(lambda: reader.destinations(names=more, claimed=claimed, active=active))]
        there = {place.name for place in found}
    empty = [
        Place(name, 0, 0, 0, 0, None, tuple(one["domains"]))
        for name, one in sorted(known.items())
        if name not in there and (one["state"] != "ok" or (not cut and (one["connections"] or by == "hop")))
    ]
    return [views.place(by, place, known.get(place.name, {}), rate) for place in (*found, *empty[:size])]


def _is_one(by: str, fact: Mapping[str, Any]) -> bool:
    """Whether delivery's facts are of a destination, or of a next hop: what is set may name either."""
    from mailtui.address import AddressError, destination_of

    try:
        destination_of(str(fact["name"]))
    except AddressError:
        return by == "hop"
    return by == "domain" or fact.get("window") is not None


def place(
    reader: Reader,
    name: str,
    facts: Mapping[str, Facts],
    claimed: Collection[Rid],
    active: frozenset[Rid],
    rate: Limit = None,
) -> Document:
    """`dest show`: a destination, or else a next hop of this name; with `names` of the domains of a next hop, and the
    `hop` of a destination."""
    from mailtui.address import AddressError, destination_of

    try:
        domain = destination_of(name)
    except AddressError:
        domain = name
    known = {by: {str(one["name"]): one for one in found} for by, found in facts.items()}
    found = asked(lambda: reader.destinations(names=[domain], claimed=claimed, active=active))
    fact = known.get("domain", {}).get(domain)
    if found or (fact is not None and name not in known.get("hop", {})):
        place = found[0] if found else Place(domain, 0, 0, 0, 0, None, (domain,))
        hop = clean(str((fact or {}).get("next_hop") or "")) or None
        return {**views.place("domain", place, fact or {}, rate), "hop": hop}
    for place in asked(lambda: reader.hops(limit=_EVERY, claimed=claimed, active=active)):
        if place.name == name:
            shown = views.place("hop", place, known.get("hop", {}).get(name, {}), rate)
            return {**shown, "names": [clean(one) for one in place.domains]}
    fact = known.get("hop", {}).get(name)
    if fact is None:
        raise VerbError(
            f"nothing waits for {clean(name[:80])}, and nothing is set for it; see mailtui dest list", NOT_SO
        )
    empty = Place(name, 0, 0, 0, 0, None, tuple(fact["domains"]))
    return {**views.place("hop", empty, fact, rate), "names": [clean(one) for one in fact["domains"]]}


def routes(reader: Reader | None, rows: Facts) -> list[Document]:
    """`route list`, with how many recipients each row's last plan or attempt met."""
    counts = asked(lambda: by_route(reader)) if reader is not None and rows else {}
    return [views.route(row, 0 if row["shadowed"] else counts.get(str(row["match"]), 0)) for row in rows]


def route_rows(live: Sequence[Control], file: Sequence[Any]) -> list[Document]:
    """The rows of the route table: live ones, then the file's (`settings.RouteSettings`). As `Live.routes`."""
    from mailtui.routing.routes import parse_match

    names = {control.name for control in live}
    rows = [_route_row(control.name, control.value, "live", False) for control in live]
    for row in file:
        match = str(parse_match(row.match))
        value = {"target": row.target, "auth": row.auth, "tls": row.tls, "source": row.source}
        rows.append(_route_row(match, value, "file", match in names))
    return rows


def _route_row(match: str, value: Mapping[str, Any], source: str, shadowed: bool) -> Document:
    options = {key: text for key, text in value.items() if key != "target" and text}
    return {"match": match, "target": value["target"], "options": options, "source": source, "shadowed": shadowed}


def suspension(control: Control) -> Document:
    """What a stopped relay has to tell of a destination or next hop: its suspension."""
    facts = {"name": control.name, "domains": (), "connections": 0, "state": "suspended"}
    return {**facts, "until": control.until, "reason": control.reason}


def route_test(rows: Facts, smarthost: str, text: str, sender: str) -> Document:
    """`route test`: which row an address or domain meets, and which rows for it are passed over."""
    from mailtui.address import AddressError, parse_mailbox
    from mailtui.routing.routes import Route, RouteTable, parse_target

    address, destination = answers.plan_target(text)
    path = sender.strip().removeprefix("<").removesuffix(">")
    try:
        path = parse_mailbox(path.encode("utf-8", "surrogateescape"), utf8=True).text if path else ""
    except AddressError as error:
        raise VerbError(f'--from "{clean(path[:80])}" is no address ({error})', WRONG) from None
    used = [row for row in rows if not row["shadowed"]]
    table = RouteTable(Route(row["match"], parse_target(row["target"])) for row in used)
    met = table.find(address, destination, path)
    by_match = {str(row["match"]): row for row in used}
    if met is not None:
        row = by_match[met.match]
        options = dict(row["options"])
        answer = {"match": row["match"], "target": row["target"], "options": options, "source": row["source"]}
    elif smarthost:
        answer = {"match": None, "target": smarthost, "options": {}, "source": "smarthost"}
    else:
        answer = {"match": None, "target": "mx", "options": {}, "source": "none"}
    value = clean_value({"address": address or None, "domain": destination, "sender": path, **answer})
    assert isinstance(value, dict)
    return value
