"""What the rooms know, as the contract's JSON: rows, plans, decisions, status -> dictionaries with exactly its fields.

Used by the server and offline alike, so that both give the same answer. Promises: every text that came from outside
(addresses, subjects, headers, replies, host names) went through `clean`; times are RFC 3339 UTC, codes are texts, what
is not known is null.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mailtui import ids
from mailtui.clock import rfc3339
from mailtui.control.clean import clean, clean_lines, clean_value
from mailtui.control.reads import Document
from mailtui.model import Plan, PlannedHost, Why
from mailtui.queue.rows import AttemptRow, Counts, HistoryRow, Row, StoredMessage, Totals
from mailtui.queue.shape import Place, ShapeRow
from mailtui.values import format_duration


def row(found: Row) -> Document:
    """A recipient as `queue list` shows it."""
    return {
        "id": ids.encode(found.id),
        "rid": ids.rid(found.id, found.ordinal),
        "recipient": clean(found.recipient),
        "sender": clean(found.sender),
        "subject": clean(found.subject),
        "message_id": clean(found.message_id),
        "destination": clean(found.destination),
        "next_hop": clean(found.hop),
        "state": found.state,
        "size": found.size,
        "arrived": rfc3339(found.arrived),
        "next_attempt": rfc3339(found.due),
        "attempts": found.attempts,
        "last_code": code(found.last_code),
        "last_enhanced": clean(found.last_enhanced) or None,
        "last_reply": clean(found.last_reply) or None,
        "last_host": clean(found.last_host) or None,
        "route": clean(found.route),
        "client": clean(found.client),
        "user": clean(found.user),
        "held_by": clean(found.held_by),
        "expires": rfc3339(found.expires),
        "cursor": found.cursor,
    }


def rid(message: int, ordinal: int) -> Document:
    """The names of a recipient."""
    return {"id": ids.encode(message), "rid": ids.rid(message, ordinal)}


def counts(found: Counts) -> Document:
    """`queue count`."""
    return {"messages": found.messages, "recipients": found.recipients, "bytes": found.bytes}


def message(stored: StoredMessage, header: bytes, *, transcript: bool) -> Document:
    """`queue show`. `header` is the header section of the stored message."""
    envelope = stored.envelope
    return {
        "id": ids.encode(stored.id),
        "sender": clean(envelope.sender),
        "size": envelope.size,
        "arrived": rfc3339(envelope.arrived),
        "client": clean(envelope.client),
        "client_name": clean(envelope.client_name),
        "helo": clean(envelope.helo),
        "user": clean(envelope.user),
        "listener": clean(envelope.listener),
        "protocol": clean(envelope.protocol),
        "tls": clean(envelope.tls) or None,
        "requiretls": envelope.requiretls,
        "subject": clean(envelope.subject),
        "message_id": clean(envelope.message_id),
        "headers": headers(header),
        "recipients": [row(recipient) for recipient in stored.recipients],
        "attempts": [attempt(one, transcript=transcript) for one in stored.attempts],
    }


def headers(header: bytes) -> list[list[str]]:
    """[name, value] of each header field, in the order of the message, unfolded."""
    fields: list[list[str]] = []
    for line in header.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if not line:
            break
        if line[0] in " \t" and fields:
            fields[-1][1] += " " + line.strip()
        else:
            name, _, value = line.partition(":")
            fields.append([name.rstrip(), value.strip()])
    return [[clean(name), clean(value.replace("\t", " "))] for name, value in fields]


def attempt(found: AttemptRow, *, transcript: bool) -> Document:
    """An attempt of `queue show`; the dialogue only when asked for."""
    delays = {name: found.delays.get(name, 0.0) for name in ("before_queue", "queued", "connect", "transmit")}
    value: Document = {
        "rid": ids.rid(found.id, found.ordinal),
        "started": rfc3339(found.started),
        "finished": rfc3339(found.finished),
        "host": clean(found.host),
        "address": clean(found.address),
        "reused": found.reused,
        "tls": tls(found.tls),
        "code": code(found.code),
        "enhanced": clean(found.enhanced),
        "reply": clean(found.reply),
        "delays": delays,
    }
    if transcript:
        value["transcript"] = clean_lines(found.transcript)
    return value


def tls(facts: Mapping[str, Any]) -> Document:
    """What an attempt wanted and reached."""
    names = ("wanted", "reached", "protocol", "cipher", "verified_by", "why")
    return {name: clean_value(facts.get(name)) for name in names}


def why(found: Row, reason: Why) -> Document:
    """`queue why` for one recipient."""
    return {
        "id": ids.encode(found.id),
        "rid": ids.rid(found.id, found.ordinal),
        "recipient": clean(found.recipient),
        "state": found.state,
        "because": clean(reason.because),
        "limiter": reason.limiter,
        "since": rfc3339(reason.since),
        "releases": clean(reason.releases),
        "next_attempt": rfc3339(reason.next_attempt),
        "expires": rfc3339(reason.expires),
        "rule": clean(reason.rule),
    }


def not_running(found: Row, now: float) -> Document:
    """`queue why` of a stopped relay: that binds before anything else."""
    after = ""
    if found.state == "held":
        after = f"; it is held by {found.held_by or 'an operator'} and stays so until it is released"
    elif found.state == "leaving":
        after = "; it is leaving the queue"
    elif found.due is not None:
        after = "; it is due" if found.due <= now else f"; its next attempt is planned at {rfc3339(found.due)}"
    reason = Why(
        because=f"The relay is not running, so nothing is sent{after}.",
        limiter="not-running",
        since=None,
        releases="when the relay is started: mailtui serve",
        next_attempt=found.due,
        expires=found.expires,
        rule="",
    )
    return why(found, reason)


def history(found: HistoryRow) -> Document:
    """What left the queue or was refused."""
    refused = not found.id
    return {
        "id": None if refused else ids.encode(found.id),
        "rid": None if refused else ids.rid(found.id, found.ordinal),
        "sender": clean(found.sender),
        "recipient": clean(found.recipient),
        "subject": clean(found.subject),
        "message_id": clean(found.message_id),
        "result": found.result,
        "at": rfc3339(found.at),
        "arrived": rfc3339(found.arrived) if found.arrived else None,
        "host": clean(found.host),
        "code": code(found.code),
        "enhanced": clean(found.enhanced),
        "reply": clean(found.reply),
        "remote_id": clean(found.remote_id),
        "attempts": found.attempts,
        "tls": tls(found.tls),
        "cursor": found.cursor,
    }


def plan(found: Plan, default_level: str) -> Document:
    """`mx`. `default_level` is `[tls] default`, for hosts whose level the route does not set."""
    from mailtui.routing.plan import plan_json
    from mailtui.tls.policy import level_for

    default = level_for(PlannedHost(0, "", (), 0), default_level)
    value: Document = {key: clean_value(item) for key, item in plan_json(found, default).items()}
    value["code"] = code(found.code)
    return value


def decision(found: Any) -> Document:
    """`access test`: an `intake.access.Decision`."""
    return {
        "verdict": found.verdict,
        "code": code(found.code),
        "enhanced": found.enhanced,
        "text": clean(found.text),
        "rule": found.rule,
        "passed_over": [{"rule": rule, "why": clean(reason)} for rule, reason in found.passed_over],
    }


# Fields of events that are seconds since the epoch.
_MOMENTS = frozenset({"next_attempt", "expires", "since", "until"})


def event(record: Mapping[str, Any]) -> Document:
    """An event or a journal row of `log`; `at` is seconds since the epoch."""
    value = {"at": rfc3339(record["at"]), "event": record["event"]}
    for name, field in record.items():
        if name not in value:
            moment = name in _MOMENTS and isinstance(field, int | float)
            value[clean(name)] = rfc3339(field) if moment else clean_value(field)
    return value


def config(settings: Any) -> Document:
    """`config show`: every value, as the file would have it, and where it comes from."""
    from mailtui.config import effective

    return {
        "source": settings.source or None,
        "values": [entry._asdict() for entry in effective(settings)],
    }


def shape(found: ShapeRow) -> Document:
    """A line of `queue shape`; ages in seconds."""
    buckets = [{"older_than": age, "recipients": older} for age, older in found.buckets]
    return {"key": clean(found.key), "total": found.total, "buckets": buckets}


def place(by: str, found: Place, facts: Mapping[str, Any], rate: tuple[int, float] | None) -> Document:
    """A line of `dest list`: what waits (the store's count), and what delivery knows. `rate`: the configuration's."""
    limit = facts.get("rate") or rate
    return {
        "destination" if by == "domain" else "next_hop": clean(found.name),
        "domains": len(found.domains) or len(facts.get("domains") or ()),
        "queued": found.queued,
        "active": max(found.active, int(facts.get("active") or 0)) if by == "hop" else found.active,
        "deferred": found.deferred,
        "held": found.held,
        "oldest": rfc3339(found.oldest),
        "window": facts.get("window"),
        "connections": facts.get("connections", 0),
        "rate": f"{limit[0]}/{format_duration(limit[1])}" if limit else None,
        "state": facts.get("state", "ok"),
        "until": rfc3339(facts.get("until")),
        "reason": clean(str(facts.get("reason") or "")),
        "last_reply": clean(str(facts.get("last_reply") or "")) or None,
        "last_success": rfc3339(facts.get("last_success")),
    }


def route(row: Mapping[str, Any], queued: int) -> Document:
    """A line of `route list`. `shadowed`: a live row of the same match beats it."""
    return {
        "match": clean(row["match"]),
        "target": clean(row["target"]),
        "options": clean_value(row["options"]),
        "queued": queued,
        "source": row["source"],
        "shadowed": row["shadowed"],
    }


# The words of `status` `rates`, and the events they count.
RATES = ("accepted", "delivered", "deferred", "bounced", "refused")


def status(
    *,
    running: bool,
    pid: int | None,
    version: str,
    since: float | None,
    state_dir: str,
    hostname: str,
    paused: str,
    listeners: Sequence[Mapping[str, Any]],
    totals: Totals,
    rates: Mapping[str, int],
    disk: Mapping[str, int | None],
    warnings: Sequence[Mapping[str, Any]],
) -> Document:
    """`status`; `paused` is "" or what is paused, warnings have `since` in seconds since the epoch."""
    queue: Document = dict(totals)
    queue["oldest"] = rfc3339(totals["oldest"])
    return {
        "running": running,
        "pid": pid,
        "version": version,
        "since": rfc3339(since),
        "state_dir": state_dir,
        "hostname": hostname,
        "paused": paused or None,
        "listeners": [clean_value(dict(listener)) for listener in listeners],
        "queue": queue,
        "rates": {f"{name}_1m": rates.get(name, 0) for name in RATES},
        "disk": {"free": disk.get("free"), "needed": disk.get("needed")},
        "warnings": [_warning(warning) for warning in warnings],
    }


def _warning(warning: Mapping[str, Any]) -> Document:
    since = warning.get("since")
    return {
        "code": warning["code"],
        "text": clean(warning["text"]),
        "since": rfc3339(since) if isinstance(since, int | float) else since,
    }


def code(number: int) -> str | None:
    """A reply code as text; null where there is no reply."""
    return str(number) if number else None
